"""What a silent fault is, and the good checkpoint that it is put into."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pytest import MonkeyPatch
from torch import Tensor

from course_helpers import FAMILIES
from tests.bundled import FOLDERS, copy_of

ALL = tuple(FAMILIES)
ROTARY = tuple(family for family in ALL if family != "gpt2")
WINDOWED = ("gemma3", "olmo3")
GATED = tuple(family for family in ROTARY if family != "qwen3_moe")


class Patient:
    """A copy of a family's bundled checkpoint, to be made wrong. Its card lists no hashes, so that the layers after the
    first have to object."""

    def __init__(self, family: str, place: Path, patch: MonkeyPatch):
        self.family, self.patch = family, patch
        self.folder = copy_of(FOLDERS[FAMILIES[family].tiny], place, listed=False)

    def edit_json(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    def edit_tensors(self, change: Callable[[dict[str, Tensor]], object]) -> None:
        """Change the tensors of all files together; each goes back into the file that it came from."""
        files = {path: safetensors.torch.load_file(path) for path in sorted(self.folder.glob("*.safetensors"))}
        tensors = {name: tensor for held in files.values() for name, tensor in held.items()}
        change(tensors)
        for path, held in files.items():
            held = {name: tensors[name].contiguous().clone() for name in held}
            safetensors.torch.save_file(held, path, metadata={"format": "pt"})


PutIn = Callable[[Patient], object]


@dataclass(frozen=True)
class Fault:
    """One silent fault."""

    name: str
    facts: str  # the section or row of the page of facts that it comes from; empty for one of ours
    families: tuple[str, ...]
    put_in: PutIn
    in_code: bool = False  # whether the files stay as they are
