"""What M9-LAB-08 works with: how a patient is made from a good checkpoint, and how its files are changed.

The patients themselves are in `lab_08_patients.py`, apart from the lab: a diagnosis must not peep.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..loaders.files import read_json
from ..loaders.manifest_files import MANIFEST, manifest_beside, sha256
from ..loaders.sources import resolve
from ..validation_layers.subject import Subject
from .records import write_json

#: The departments of the clinic: the four mismatches that show, and those that do not.
SHAPE, TOKENIZER, TYPE, FORMAT, SILENT = "shape", "tokenizer", "dtype/device", "file format", "silent"
DEPARTMENTS = (FORMAT, SHAPE, TYPE, TOKENIZER, SILENT)


@dataclass(frozen=True)
class Patient:
    """A checkpoint that somebody complains about: where it lies, what it claims to be, and how they load it."""

    number: str
    source: str  # the good checkpoint that it is a copy of
    folder: Path
    dtype: torch.dtype | None = None  # the type that its owner asks for; None: that of the files

    def __str__(self) -> str:
        return f"{self.number} {Path(self.source).name}"


@dataclass(frozen=True)
class Case:
    """What was done to a patient, and what undoes it."""

    source: str
    department: str
    truth: str
    harm: Callable[[Path], object]
    dtype: torch.dtype | None = None


def healthy_copy(source: str, folder: Path) -> Path:
    """A copy of a checkpoint whose card says what text must be worth to it, and nothing about hashes: most checkpoints
    that change hands have none. Without a card, it is measured what must be on it."""
    original = resolve(source)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns(MANIFEST, ".*"))
    write_json(folder / MANIFEST, {"baseline": baseline_of(original)})
    return folder


def baseline_of(folder: Path) -> dict[str, Any]:
    """The texts of a checkpoint's card and the losses it must have on them; measured where there is no card."""
    if (folder / MANIFEST).exists():
        return read_json(folder / MANIFEST)["baseline"]
    from .. import load_model, load_tokenizer
    from ..validation_layers.baseline import PLAIN, describe

    return describe(load_model(folder, torch.float32), load_tokenizer(folder), PLAIN)


def admit(workspace: Path, cases: Mapping[str, Case]) -> dict[str, Patient]:
    """Make every patient: copy the good checkpoint, then do to it what the case says."""
    patients = {}
    for number, case in cases.items():
        folder = healthy_copy(case.source, workspace / number)
        case.harm(folder)
        patients[number] = Patient(number, case.source, folder, case.dtype)
    return patients


def edit_json(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Give fields of a JSON file other values."""
    write_json(folder / name, read_json(folder / name) | values)


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of all safetensors files together; each goes back into the file that it came from."""
    files = {path: safetensors.torch.load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    tensors = {name: tensor for held in files.values() for name, tensor in held.items()}
    change(tensors)
    for path, held in files.items():
        held = {name: tensors[name].contiguous().clone() for name in held}
        safetensors.torch.save_file(held, path, metadata={"format": "pt"})


def every(pattern: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    """A treatment, good or bad, of every tensor that has the pattern in its name."""

    def edit(tensors: dict[str, Tensor]) -> None:
        chosen = [name for name in tensors if pattern in name]
        if not chosen:
            raise LookupError(f"no tensor has {pattern!r} in its name")
        tensors.update({name: change(tensors[name]) for name in chosen})

    return lambda folder: edit_tensors(folder, edit)


def exchanged(one: str, other: str) -> Callable[[Path], None]:
    """Every tensor of one kind under the name of its neighbour of another kind; done twice, it is undone."""

    def edit(tensors: dict[str, Tensor]) -> None:
        pairs = [(name, name.replace(one, other)) for name in tensors if one in name]
        if not pairs:
            raise LookupError(f"no tensor has {one!r} in its name")
        for first, second in pairs:
            tensors[first], tensors[second] = tensors[second], tensors[first]

    return lambda folder: edit_tensors(folder, edit)


def different_files(folder: Path, original: Path) -> list[str]:
    """The files that are not, by SHA-256, those of the original: by its card where it lists hashes, and else by a look
    at the original itself."""
    manifest = manifest_beside(original)
    if manifest is None:
        paths = (path for path in original.rglob("*") if path.is_file())
        hashes = {path.relative_to(original).as_posix(): sha256(path) for path in paths}
    else:
        hashes = {file.path.relative_to(original).as_posix(): file.sha256 for file in manifest.listed}
    return [name for name, digest in hashes.items() if not_that_file(folder / name, digest)]


def strangers(folder: Path, original: Path) -> list[Path]:
    """The files of a folder that the original does not have; the card is the folder's own."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST)
    return [path for path in files if not (original / path.relative_to(folder)).exists()]


def not_that_file(path: Path, digest: str) -> bool:
    return not path.exists() or sha256(path) != digest


def rebuild_index(folder: Path) -> Path:
    """Write the index of a sharded checkpoint anew, from the headers of the shards that are there."""
    from ..loaders.safetensors_file import read_header

    headers = {path.name: read_header(path) for path in sorted(folder.glob("*.safetensors"))}
    places = {name: shard for shard, entries in headers.items() for name in entries}
    total = sum(entry.end - entry.start for entries in headers.values() for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / "model.safetensors.index.json", index)
    return folder / "model.safetensors.index.json"


def listed(folder: Path, original: Path) -> bool:
    """Whether the layer `files` would notice the change if the card listed the hashes of the original."""
    from ..errors import CheckpointError
    from ..validation_layers import files

    card = folder / MANIFEST
    kept = card.read_bytes()
    card.write_text(json.dumps(read_json(original / MANIFEST)), encoding="utf-8")
    try:
        files.check(Subject(folder))
    except CheckpointError:
        return True
    finally:
        card.write_bytes(kept)
    return False
