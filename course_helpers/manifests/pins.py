"""The files of a run, pinned by their hashes, and the refusal of every other pairing.

Config, weights and tokenizer of two models can fit each other in every shape and make a third model, which nobody
trained. No look at the files tells; only the hashes of those that once belonged together do.

What is guaranteed, and what is not: at the moment of the check, every file that is about to be read is the pinned one,
and config and tokenizer mean what they meant. Files are then read again to be loaded, so whoever may write into the
folder can exchange one in between; and a manifest is only as good as the way it came to you, for it is not signed.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ..architectures.base import LanguageModel
from ..dtypes import DTYPES
from ..errors import CheckpointError, raise_all
from ..families import family_of
from ..loaders import hub
from ..loaders.disk import ordinary_size
from ..loaders.hub_files import CONFIGS
from ..loaders.load import load_model, usable
from ..loaders.manifest_files import sha256
from ..loaders.openai import HPARAMS
from ..loaders.sources import BUNDLED, INDEXES, open_checkpoint, resolve
from ..tokenizer_folder import TokenizerFolder
from ..tokenizers import Tokenizer, load_tokenizer
from .form import Pin, RunManifest, Source, TokenizerPin

#: What tokenizers disagree on: accents, numbers, several spaces, line breaks, other scripts, names of special tokens.
PROBE = "Once upon a time, naïve café:  12 + 3456 = 3468!\n\t日本 🙂 <|endoftext|></s>"

NO_FILE = "no such file"
CAUSES = {
    "weights": "weights of another size, another run or another precision beside this config and tokenizer",
    "config": "the config of another size or another family, or one that was edited by hand",
    "tokenizer": "the tokenizer of another family, or of another version of this one",
}


def describe(path: Path) -> Source:
    """A local path as a manifest names it."""
    folder, weights = (path, None) if path.is_dir() else (path.parent, path.name)
    if pinned := hub.pinned_name(folder):
        name, revision = pinned.split(" at ")
        return Source("hub", name, revision, weights)
    folder = folder.resolve()
    return Source("bundled" if folder.parent == BUNDLED else "folder", folder.name, None, weights)


def located(manifest: RunManifest, source: object = None) -> Path:
    """Where the checkpoint of a manifest lies: at `source`, or where the manifest says. Raises CheckpointError."""
    origin = manifest.source
    if source is None and origin.kind == "folder":
        raise CheckpointError(
            "the manifest does not say where the checkpoint lies",
            file=origin.name,
            field="source",
            expected="a bundled name or a hub id",
            found="the name of a folder, which can be anywhere",
            cause="the run was recorded with a folder, and manifests hold no paths of machines",
            next_step="say where the folder is: source=...",
        )
    source = origin.name if source is None else source
    path = resolve(source, origin.revision if str(source) == origin.name else None)
    return path / origin.weights if origin.weights and path.is_dir() else path


def files_read(path: Path) -> dict[str, dict[str, Path]]:
    """The files that decide what a checkpoint computes: the part they play -> name within the folder -> file."""
    with open_checkpoint(path) as checkpoint:
        folder, opened = checkpoint.folder, set(checkpoint.paths)
    configs = (*CONFIGS, HPARAMS, "generation_config.json")
    parts = {
        "weights": opened | {folder / name for name in INDEXES} | ({path} - {folder}),
        "config": {folder / name for name in configs},
        "tokenizer": set(TokenizerFolder(folder).files().values()),
    }
    return {
        part: {file.relative_to(folder).as_posix(): file for file in sorted(files) if file.is_file()}
        for part, files in parts.items()
    }


def pin(file: Path) -> Pin:
    return Pin(ordinary_size(file), sha256(file))


def pin_files(path: Path) -> dict[str, dict[str, Pin]]:
    """The same files, each by its size and hash."""
    return {part: {name: pin(file) for name, file in files.items()} for part, files in files_read(path).items()}


def digest(value: object) -> str:
    """SHA-256 of a value as canonical JSON: names sorted, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def config_digest(path: Path) -> str:
    """Digest of the config as this package understands it: all fields, those that were left out in the file included.
    The file's own bytes are pinned elsewhere; this one shows when another version of the package reads them otherwise.
    """
    with open_checkpoint(path) as checkpoint:
        data = checkpoint.config or {}
    return digest(family_of(data).config.from_hf(data).to_hf())


def pin_tokenizer(tokenizer: Tokenizer) -> TokenizerPin:
    files = {name: sha256(path) for name, path in tokenizer.files.items()}
    ids = tuple(tokenizer.encode(PROBE))
    marks = (tokenizer.bos_id, tokenizer.adds_bos, tokenizer.stop_ids)
    return TokenizerPin(tokenizer.kind, digest((tokenizer.kind, files, ids, marks)), ids)


def file_problems(manifest: RunManifest, path: Path) -> Iterator[CheckpointError]:
    """Every pinned file that is missing or another; where there is none, every file that is read and was not pinned.
    In this order, so that nothing is opened before its hash is known to be right."""
    folder, fits = path if path.is_dir() else path.parent, True
    for part, pins in manifest.files.items():
        for name, expected in pins.items():
            found = pin(folder / name) if (folder / name).is_file() else NO_FILE
            if found != expected:
                fits = False
                yield another(part, folder / name, expected, found)
    for part, files in files_read(path).items() if fits else ():
        for name, file in files.items():
            if name not in manifest.files.get(part, {}):
                yield another(part, file, NO_FILE, pin(file))


def config_problems(manifest: RunManifest, path: Path) -> Iterator[CheckpointError]:
    if (found := config_digest(path)) != manifest.config_sha256:
        yield understood_otherwise(path, "config_sha256", manifest.config_sha256, found)


def tokenizer_problems(manifest: RunManifest, path: Path) -> Iterator[CheckpointError]:
    found, pinned = pin_tokenizer(load_tokenizer(path)), manifest.tokenizer
    for field in ("kind", "probe_ids", "sha256"):
        if getattr(found, field) != getattr(pinned, field):
            yield understood_otherwise(path, f"tokenizer.{field}", getattr(pinned, field), getattr(found, field))


def device_problems(manifest: RunManifest, path: Path) -> Iterator[CheckpointError]:
    device = manifest.settings.device
    try:
        usable(device)
    except ValueError as error:
        yield CheckpointError(
            "the run was recorded on a device that is not here",
            file=path,
            field="settings.device",
            expected=device,
            found=str(error),
            cause="another machine, or a torch that was built without it",
            next_step="record the run on this machine, with another device",
        )


def another(part: str, file: Path, expected: object, found: object) -> CheckpointError:
    return CheckpointError(
        f"{file.name} is not the file that the manifest of the run pins",
        file=file,
        field=f"files.{part}",
        expected=expected,
        found=found,
        cause=CAUSES[part],
        next_step="take all files from one place; if the change is meant, record the run again",
    )


def understood_otherwise(path: Path, field: str, expected: object, found: object) -> CheckpointError:
    return CheckpointError(
        "the pinned files mean something else than when the run was recorded",
        file=path,
        field=field,
        expected=expected,
        found=found,
        cause="another version of this package or of a tokenizer library",
        next_step="install the versions that the manifest lists, or record the run again",
    )


#: What must hold before anything is loaded, in this order.
CHECKS: dict[str, Callable[[RunManifest, Path], Iterator[CheckpointError]]] = {
    "device": device_problems,
    "files": file_problems,
    "config": config_problems,
    "tokenizer": tokenizer_problems,
}


def load_pinned(manifest: RunManifest, source: object = None) -> tuple[LanguageModel, Tokenizer]:
    """Model and tokenizer of a run, only if every file is the pinned one and means what it meant.

    `source`: where the checkpoint lies, if not where the manifest says. Raises CheckpointError that names every file
    that is another, missing or too many, with the hash expected and the one found; nothing is loaded before all is
    checked. What that guarantees, and what not, the top of this module says.
    """
    path = located(manifest, source)
    for problems in CHECKS.values():
        raise_all(problems(manifest, path))
    return load_model(path, DTYPES[manifest.settings.dtype], manifest.settings.device), load_tokenizer(path)
