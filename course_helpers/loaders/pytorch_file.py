"""One PyTorch `.bin` / `.pth` / `.pt` file, opened so that it cannot run code.

Such a file is a pickle: a small program for a stack machine that can call any function. `weights_only=True` makes
torch run it with an interpreter of its own that knows tensors and plain containers and refuses everything else.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, UnsafeFileError

#: Where training programs put the weights when they save more than the weights.
WRAPPERS = ("state_dict", "model_state_dict", "model")
#: How torch names, in the middle of a long message, what a pickle wanted to call.
FORBIDDEN = re.compile(r"GLOBAL \S+|Trying to call reduce for unrecognized function \S+|class .* was not allowlisted")


class PyTorchFile:
    """The tensors of one file. Raises UnsafeFileError for code in the pickle, CheckpointError for damage."""

    def __init__(self, path: Path):
        self.path = path
        self.tensors = unwrap(load(path), path)

    def read(self, name: str) -> Tensor:
        """The tensor in private memory. The file is memory-mapped, so only this tensor's bytes are read."""
        return self.tensors[name].clone(memory_format=torch.contiguous_format)

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The tensor for a moment: the file is mapped, so no memory of the caller's is needed."""
        return self.map(name)

    def map(self, name: str) -> Tensor:
        """The tensor as a window onto the file (or, for the format of before torch 1.6, what was read of it)."""
        return self.tensors[name]


def load(path: Path) -> object:
    """What the file holds, without running any code in it."""
    try:
        # Files of before torch 1.6 are not zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can fail in any instruction, and so with any type of error
        forbidden = FORBIDDEN.search(str(error))
        if not isinstance(error, pickle.UnpicklingError) or not forbidden:
            raise damaged(path, error) from error
        raise UnsafeFileError(
            "the file asks for code to be run while it is loaded; it was refused before anything ran",
            file=path,
            expected="tensors and plain containers only",
            found=forbidden[0],
            cause="a pickled Python object instead of a state dict, or an attack",
            next_step="ask for a .safetensors file; never load this one with weights_only=False",
        ) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        "the file cannot be read as a PyTorch checkpoint",
        file=path,
        expected="a complete file written by torch.save",
        found=f"{type(error).__name__}: {(str(error) or 'nothing to read').splitlines()[0]}",
        cause="an interrupted download or copy, or a file of another kind",
        next_step="delete the file and download it again",
    )


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The name -> tensor dictionary, also when it stands inside a training checkpoint. Raises CheckpointError."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise not_a_state_dict(path, type(content).__name__)
    for name, value in content.items():
        if found := not_plain(name, value):
            raise not_a_state_dict(path, found, str(name))
    return dict(content)


def not_plain(name: object, value: object) -> str | None:
    """What is there instead of an ordinary tensor under a name; None if that is what it is."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return f"{type(value).__name__} under {name!r}"
    if value.is_meta:
        return "a tensor without memory (on the meta device)"
    if value.layout is not torch.strided or value.is_quantized:
        return "a sparse or quantized tensor"
    return None


def not_a_state_dict(path: Path, found: str, name: str | None = None) -> CheckpointError:
    return CheckpointError(
        "the file does not hold a state dict",
        file=path,
        tensor=name,
        expected="a dictionary of tensors",
        found=found,
        cause="something else was saved with torch.save",
        next_step="save model.state_dict(), or better: a safetensors file",
    )
