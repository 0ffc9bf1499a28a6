"""Layer 1, files: the checkpoint opens, every header, shard and index agrees, every listed hash is right."""

from os import PathLike

from ..loaders.files import read_json
from ..loaders.manifest_files import MANIFEST, manifest_beside
from ..loaders.sources import open_checkpoint, resolve
from .subject import Subject


def check(subject: Subject) -> str:
    """What was found, in words. Raises CheckpointError for whatever does not open or is not the listed file."""
    if not isinstance(subject.source, str | PathLike):
        raise subject.refuse(
            "what is validated must lie in files",
            file=None,
            expected="a folder, a file, a bundled name or a hub id",
            found=f"a {type(subject.source).__name__} in memory",
            cause="a model that was not saved yet",
            next_step="save_checkpoint(model, folder, tokenizer), and validate the folder",
        )
    path = subject.path = resolve(subject.source, subject.revision)  # once: for a hub id, every look-up asks the hub
    with open_checkpoint(path) as checkpoint:
        detail = f"{checkpoint.format}, {len(checkpoint.names())} tensors"
    manifest = manifest_beside(subject.folder)
    if manifest is not None:
        manifest.check(every_byte=True)
    if (card := subject.folder / MANIFEST).exists():
        subject.card = read_json(card)
    return f"{detail}; " + ("no card lists hashes" if manifest is None else "every hash is the card's")
