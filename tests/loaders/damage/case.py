"""A sound checkpoint of any family in any format, and the handles by which it can be damaged."""

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_helpers import load_model
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.manifest_files import MANIFEST, sha256
from tests.formats import FORMATS, META_CONFIG, META_FORMATS
from tests.tiny_models import EXAMPLES, Data, theirs

META = tuple(f"Meta, {name}" for name in META_FORMATS if name in ("one file", "one file, legacy", "2 files"))
WEIGHTS = (".safetensors", ".bin", ".pth")


@functools.cache
def reference(family: str, format: str, seed: int = 0) -> torch.nn.Module:
    """transformers' model of a family's example."""
    return theirs(config_of(family, format), seed)


def config_of(family: str, format: str) -> Data:
    return META_CONFIG if format in META else EXAMPLES[family]


@dataclass(frozen=True)
class Sound:
    """A sound checkpoint, kept in memory."""

    files: dict[str, bytes]
    model: LanguageModel  # what must be loaded


@functools.cache
def sound(family: str, format: str, seed: int = 0) -> Sound:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write = META_FORMATS[format.removeprefix("Meta, ")] if format in META else FORMATS[format]
        source, config = write(reference(family, format, seed), folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return Sound(files, load_model(source, config=config))


class Case:
    """One copy of it, to be damaged. `source` and `config` are what `load_model` is given."""

    def __init__(self, family: str, format: str, folder: Path):
        self.family, self.format, self.folder = family, format, folder
        self.whole = sound(family, format)
        for name, content in self.whole.files.items():
            (folder / name).write_bytes(content)
        self.source: object = folder / "weights.pth" if format == "pth" else folder
        self.config: Data | None = None
        if format in ("pth", "live", "own state dict"):
            self.config = json.loads(json.dumps(config_of(family, format)))
        if format == "live":
            self.source = theirs(config_of(family, format))
        if format == "own state dict":
            self.source = {name: t.clone() for name, t in self.whole.model.state_dict().items()}

    def load(self, **options: Any) -> LanguageModel:
        return load_model(self.source, config=self.config, **options)

    # The files.

    def weight_files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix in WEIGHTS)

    @property
    def index(self) -> Path:
        return next(self.folder.glob("*.index.json"))

    @property
    def config_file(self) -> Path:
        return self.folder / ("params.json" if self.format in META else "config.json")

    def change_json(self, path: Path, change: Callable[[Data], object]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def set_config(self, **fields: object) -> None:
        if self.config is not None:
            self.config |= fields
        else:
            self.change_json(self.config_file, lambda content: content.update(fields))

    def list_files(self) -> None:
        """Write the manifest of the folder as it is."""
        sections: dict[str, dict] = {"weights": {}, "files": {}}
        for path in sorted(self.folder.iterdir()):
            section = sections["weights" if path.suffix in WEIGHTS else "files"]
            section[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        (self.folder / MANIFEST).write_text(json.dumps(sections))

    # The tensors, wherever they are.

    def read(self, path: Path) -> dict[str, Tensor]:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path)

    def write(self, path: Path, tensors: dict[str, Any]) -> None:
        if path.suffix == ".safetensors":
            save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path, metadata={"format": "pt"})
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization="legacy" not in self.format)

    def edit(self, change: Callable[[dict[str, Tensor]], object]) -> None:
        """Change the tensors of every file in place; an index goes with them. Those of live models keep their shape."""
        if self.format == "live":
            tensors = dict(self.source.named_parameters())
            before = dict(tensors)
            change(tensors)
            for name, parameter in before.items():
                parameter.data = tensors[name].data
            return
        if self.format == "own state dict":
            change(self.source)
            return
        where = {}
        for path in self.weight_files():
            tensors = self.read(path)
            change(tensors)
            self.write(path, tensors)
            where |= dict.fromkeys(tensors, path.name)
            self.sizes = getattr(self, "sizes", {}) | {n: t.nbytes for n, t in tensors.items() if hasattr(t, "nbytes")}
        if list(self.folder.glob("*.index.json")):
            total = sum(self.sizes[name] for name in where)
            self.change_json(self.index, lambda index: index.update(weight_map=where, metadata={"total_size": total}))

    def shapes(self) -> dict[str, torch.Size]:
        """Every tensor that becomes a parameter: name -> shape."""
        report = self.whole.model.load_report
        if self.format == "own state dict":
            return {name: tensor.shape for name, tensor in self.source.items()}
        return {row.source: torch.Size(row.shape) for row in report.rows}

    def another_run(self) -> dict[str, Tensor]:
        """Tensors of the same names and shapes, from another seed."""
        return reference(self.family, self.format, 1).state_dict()

    def change(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        """Change one tensor, in all files that hold a part of it."""
        self.edit(lambda tensors: tensors.update({name: change(tensors[name].detach())}) if name in tensors else None)
