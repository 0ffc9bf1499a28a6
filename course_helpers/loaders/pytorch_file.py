"""One PyTorch `.bin` / `.pth` / `.pt` file, opened so that it cannot run code.

Such a file is a pickle: a small program for a stack machine that can call any function. `weights_only=True` makes
torch run it with an interpreter of its own that knows tensors and plain containers and refuses everything else.
"""

import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, UnsafeFileError
from .reading import SteadyFile

#: Where training programs put the weights when they save more than the weights.
WRAPPERS = ("state_dict", "model_state_dict", "model")
#: How torch names, in the middle of a long message, what a pickle wanted to call.
FORBIDDEN = re.compile(r"GLOBAL \S+|Trying to call reduce for unrecognized function \S+|class .* was not allowlisted")


class PyTorchFile:
    """The tensors of one file. Raises UnsafeFileError for code in the pickle, CheckpointError for damage."""

    def __init__(self, path: Path):
        self.path, self.file = path, SteadyFile(path)
        self.tensors = unwrap(load(path), path)

    def read(self, name: str) -> Tensor:
        """The tensor in private memory. Read from its place in the file, where that is known: copied from the mapped
        file, it would be resident twice."""
        tensor = self.tensors[name]
        start = self.starts.get(name)
        if start is None or not tensor.nbytes:
            copy = tensor.clone(memory_format=torch.contiguous_format)
            self.file.check(name)
            return copy
        buffer = torch.empty(tensor.nbytes, dtype=torch.uint8, device="cpu")
        self.file.read_into(buffer, start, name)
        return buffer.view(tensor.dtype).view(tensor.shape)

    @cached_property
    def starts(self) -> dict[str, int]:
        """The first byte in the file of each tensor that lies there as it is used: one value after the other, and in
        this machine's order. torch notes it in storages without memory; where it does not, nothing is known."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                orders = [archive.read(name) for name in archive.namelist() if name.endswith("/byteorder")]
        except Exception:  # the format of before torch 1.6; or damage that torch itself does not mind
            return {}
        if orders not in ([], [sys.byteorder.encode()]):
            return {}
        places = state_dict_in(load(self.path, device="meta"))
        starts = {name: getattr(place.untyped_storage(), "_checkpoint_offset", None) for name, place in places.items()}
        return {
            name: start + places[name].storage_offset() * places[name].itemsize
            for name, start in starts.items()
            if start is not None and places[name].is_contiguous()
        }

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The tensor for a moment: the file is mapped, so no memory of the caller's is needed."""
        return self.map(name)

    def map(self, name: str) -> Tensor:
        """The tensor as a window onto the file (or, for the format of before torch 1.6, what was read of it)."""
        return self.tensors[name]

    def check_bytes(self) -> None:
        """Hold every byte to the check sums that the zip format has; the format of before torch 1.6 has none. A mapped
        file is otherwise used without a look at them. Raises CheckpointError."""
        if not zipfile.is_zipfile(self.path):
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                record = archive.testzip()
        except Exception as error:  # zipfile reads more of a damaged archive than torch does, and fails in many ways
            raise damaged(self.path, error) from error
        if record is not None:
            raise CheckpointError(
                "a record of the file does not have the check sum that was saved with it",
                file=self.path,
                tensor=record,
                expected="the CRC-32 in the zip archive's own table",
                found="another",
                cause="damage on the way or on the disk",
                next_step="delete the file and download it again",
            )


def load(path: Path, device: str = "cpu") -> object:
    """What the file holds, without running any code in it."""
    try:
        # Files of before torch 1.6 are not zip archives and cannot be mapped.
        mapped = device == "cpu" and zipfile.is_zipfile(path)
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
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
    content = state_dict_in(content)
    if not isinstance(content, Mapping):
        raise not_a_state_dict(path, type(content).__name__)
    for name, value in content.items():
        if found := not_plain(name, value) or overlapping(value):
            raise not_a_state_dict(path, found, str(name))
    return dict(content)


def state_dict_in(content: object) -> object:
    """What stands under the usual names for it, or else the whole."""
    found = (content.get(wrapper) for wrapper in WRAPPERS) if isinstance(content, Mapping) else ()
    return next((inner for inner in found if isinstance(inner, Mapping)), content)


def not_plain(name: object, value: object) -> str | None:
    """What is there instead of an ordinary tensor under a name; None if that is what it is."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return f"{type(value).__name__} under {name!r}"
    if value.is_meta:
        return "a tensor without memory (on the meta device)"
    if value.layout is not torch.strided or value.is_quantized:
        return "a sparse or quantized tensor"
    return None


def overlapping(tensor: Tensor) -> str | None:
    """What is wrong with a tensor of which two values lie in one place: a wrong byte in a pickle makes such strides."""
    needed = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < needed and tensor.numel():
            return f"a tensor whose values overlap: shape {tuple(tensor.shape)}, strides {tensor.stride()}"
        needed = max(needed, stride * size)
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
