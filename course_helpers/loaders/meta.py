"""Llama checkpoints as Meta distributes them: `params.json`, and `consolidated.00.pth`, `consolidated.01.pth`, ...

A model for several GPUs was saved by each of them, so every file holds a part of every matrix: 7B is one file, 13B two,
70B eight. The whole is the parts side by side; they are joined here one tensor at a time, when it is read. What
params.json says, and what it leaves open, is the matter of `meta_params`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, raise_all
from .files import TensorFile, check_one_place
from .meta_params import PARAMS, config_from_params
from .pytorch_file import PyTorchFile

PART, LAYER = re.compile(r"consolidated\.(\d+)\.pth"), re.compile(r"layers\.(\d+)\.")

#: Every kind of tensor and its shape.
SHAPES = {
    "tok_embeddings": ("vocabulary", "width"),
    "attention_norm": ("width",),
    "wq": ("width", "width"),
    "wk": ("shared heads", "width"),
    "wv": ("shared heads", "width"),
    "wo": ("width", "width"),
    "ffn_norm": ("width",),
    "w1": ("hidden", "width"),
    "w2": ("width", "hidden"),
    "w3": ("hidden", "width"),
    "norm": ("width",),
    "output": ("vocabulary", "width"),
    "freqs": ("pairs",),
}
#: Which dimension of a matrix is shared out among the files. Not here: what every file has all of, and the token
#: embedding, which was cut by columns for Llama 2 and by rows for Llama 3.
CUT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}
MATRICES = {kind for kind, shape in SHAPES.items() if len(shape) == 2}

#: The kinds of tensors that do not fit params.json tell why. The token embedding and the head are left out here: they
#: go with any of these, or are alone.
ENDS = {"tok_embeddings", "output"}
CAUSES = {
    frozenset(): "a vocab_size of another model",
    frozenset({"wk", "wv"}): "an n_kv_heads of another model",
    frozenset({"w1", "w2", "w3"}): "a multiple_of or ffn_dim_multiplier of another model",
    frozenset({"freqs"}): "an n_heads of another model",
    frozenset(MATRICES - ENDS): "a file that is missing, or one too many",
}


def kind_of(name: str) -> str:
    """What a tensor is, by the end of its name: "wq" for "layers.0.attention.wq.weight"."""
    return name.removesuffix(".weight").rpartition(".")[2]


def parts_in(folder: Path) -> list[Path]:
    """Meta's weight files in a folder, in order. None where there is no params.json beside them."""
    found = [file for file in folder.iterdir() if PART.fullmatch(file.name)] if (folder / PARAMS).exists() else []
    return sorted(found, key=lambda file: (int(PART.fullmatch(file.name)[1]), file.name))


def open_parts(paths: Sequence[Path]) -> TensorFile:
    """Open all files of a model. Raises CheckpointError if they are not one model, or have a gap in their numbers."""
    if [int(PART.fullmatch(path.name)[1]) for path in paths] != list(range(len(paths))):
        raise CheckpointError(
            "a file of the checkpoint is missing",
            file=paths[0].parent,
            expected="consolidated.00.pth, consolidated.01.pth and so on, without a gap",
            found=", ".join(path.name for path in paths),
            cause="an interrupted download: every file holds a part of every matrix",
            next_step="download the missing file",
        )
    check_one_place(paths)
    files = [PyTorchFile(path) for path in paths]
    return files[0] if len(files) == 1 else MetaParts(files)


@dataclass(frozen=True)
class Joined:
    """One tensor as its parts in the files, one after the other along a dimension."""

    parts: tuple[Tensor, ...]
    cut: int

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.parts[0].shape
        return (*shape[: self.cut], shape[self.cut] * len(self.parts), *shape[self.cut + 1 :])

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype


class MetaParts:
    """The tensors of one model in several files. Opening them reads what every file has all of (the norms), to see that
    it is the same in all, and nothing else. Raises CheckpointError if they are not parts of one model."""

    def __init__(self, files: Sequence[PyTorchFile]):
        self.path, self.count, self.files = files[0].path.parent, len(files), files
        self.paths = [file.path for file in files]
        raise_all(problem for file in files for problem in name_problems(file, files[0]))
        raise_all(problem for file in files for problem in part_problems(file, files[0]))
        self.tensors = {name: join(name, [file.tensors for file in files]) for name in files[0].tensors}

    def read(self, name: str) -> Tensor:
        """The whole tensor in private memory."""
        return torch.cat(self.tensors[name].parts, self.tensors[name].cut)

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The whole tensor for a moment, put together in the caller's memory."""
        joined = self.tensors[name]
        size = torch.Size(joined.shape).numel() * joined.dtype.itemsize
        return torch.cat(joined.parts, joined.cut, out=scratch[:size].view(joined.dtype).view(joined.shape))

    def map(self, name: str) -> Tensor:
        """A window onto the file where one file has it all; parts in several files make no window, and are read."""
        parts = self.tensors[name].parts
        return self.read(name) if len(parts) > 1 else parts[0]

    def check_bytes(self) -> None:
        """Hold every file to the check sums of its format. Raises CheckpointError."""
        for file in self.files:
            file.check_bytes()


def join(name: str, files: Sequence[Mapping[str, Tensor]]) -> Joined:
    """The parts of one tensor in files that fit together."""
    parts, kind = tuple(tensors[name].detach() for tensors in files), kind_of(name)
    if kind not in MATRICES:
        return Joined(parts[:1], 0)
    by_columns = parts[0].shape[1] != len(files[0]["norm.weight"])
    return Joined(parts, CUT.get(kind, int(by_columns)))


def name_problems(file: PyTorchFile, first: PyTorchFile) -> Iterator[CheckpointError]:
    """Tensors that are in one of two files only, or that nobody could say how to join."""
    for name in first.tensors | file.tensors | {"norm.weight": None}:
        lacking = [one for one in (first, file) if name not in one.tensors]
        if lacking:
            yield not_one_model(lacking[-1], name, "the same tensors in every file", "no such name")
        elif kind_of(name) not in SHAPES:
            yield not_one_model(file, name, "only " + ", ".join(SHAPES), "a tensor of another kind")


def part_problems(file: PyTorchFile, first: PyTorchFile) -> Iterator[CheckpointError]:
    """Tensors of two files that cannot be parts of one: equal shapes and types, and equal values of what is not cut."""
    for name, part in file.tensors.items():
        model, kind = first.tensors[name], kind_of(name)
        dimensions = len(SHAPES[kind])
        if part.dim() != dimensions:
            yield not_one_model(file, name, f"{dimensions} dimension{'s' * (dimensions > 1)}", f"{part.dim()}")
        elif (part.shape, part.dtype) != (model.shape, model.dtype):
            expected, found = (f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (model, part))
            yield not_one_model(file, name, f"{expected}, as in {first.path.name}", found)
        elif kind not in MATRICES and not same_bits(part, model):
            yield not_one_model(file, name, f"the values in {first.path.name}, to the bit", "other values")


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same to the bit: NaN equals itself, and 0 is not -0."""
    first, second = (tensor.detach().contiguous().view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)


def not_one_model(file: PyTorchFile, name: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        "the files are not parts of one model",
        file=file.path,
        tensor=name,
        expected=expected,
        found=found,
        cause="files of two models in one folder, or a model of another kind in Meta's layout",
        next_step="download the checkpoint again into an empty folder",
    )


def config_of(file: TensorFile) -> dict[str, Any]:
    """What a config.json would say of an open checkpoint. Raises ConfigError where params.json does not say enough, and
    CheckpointError where the tensors say something else."""
    several = isinstance(file, MetaParts)
    folder, here = (file.path, f"{file.count} files") if several else (file.path.parent, file.path.name)
    config = config_from_params(folder, file.tensors)
    layers = {match[1] for name in file.tensors if (match := LAYER.match(name))}
    if len(layers) != config["num_hidden_layers"]:
        raise disagreement(folder, config["num_hidden_layers"], f"{len(layers)} layers in {here}", field="n_layers")
    right = shapes_of(config)
    wrong = {
        name: tuple(tensor.shape)
        for name, tensor in file.tensors.items()
        if kind_of(name) in right and tuple(tensor.shape) != right[kind_of(name)]
    }
    cause = CAUSES.get(frozenset(map(kind_of, wrong)) - ENDS)
    raise_all(
        disagreement(folder, right[kind_of(name)], f"{shape} in {here}", cause, tensor=name)
        for name, shape in wrong.items()
    )
    return config


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every kind of tensor in a model of this config."""
    width, head_dim = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    sizes = {
        "vocabulary": config["vocab_size"],
        "width": width,
        "shared heads": config["num_key_value_heads"] * head_dim,
        "hidden": config["intermediate_size"],
        "pairs": head_dim // 2,
    }
    return {kind: tuple(sizes[size] for size in shape) for kind, shape in SHAPES.items()}


def disagreement(folder: Path, expected: object, found: str, cause: str | None = None, **place: str) -> CheckpointError:
    return CheckpointError(
        "params.json and the weights disagree",
        file=folder,
        **place,
        expected=f"{expected}, says params.json",
        found=found,
        cause=cause or "the params.json of another model",
        next_step="take params.json and all the weight files from the same place",
    )
