"""One PyTorch `.bin` / `.pth` / `.pt` file, opened so that it cannot run code.

Such a file is a pickle: a small program for a stack machine that can call any function. `weights_only=True` makes
torch run it with an interpreter of its own that knows tensors and plain containers and refuses everything else.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, UnsafeFileError

#: Where training programs put the weights when they save more than the weights.
WRAPPERS = ("state_dict", "model_state_dict", "model")


class PyTorchFile:
    """The tensors of one file. Raises UnsafeFileError for a pickle with code in it, CheckpointError for a damaged one."""

    def __init__(self, path: Path):
        self.path = path
        self.tensors = unwrap(load(path), path)

    def read(self, name: str) -> Tensor:
        """The tensor in private memory. The file is memory-mapped, so only this tensor's bytes are read."""
        return self.tensors[name].clone()

    def map(self, name: str) -> Tensor:
        """The tensor as a window onto the file (or, for the format of before torch 1.6, what was read of it)."""
        return self.tensors[name]


def load(path: Path) -> object:
    """What the file holds, without running any code in it."""
    try:
        # Files of before torch 1.6 are not zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "weights_only" in reason.lower() or "unsupported" in reason.lower():
            raise UnsafeFileError(
                "the file asks for code to be run while it is loaded; it was refused before anything ran",
                file=path,
                expected="tensors and plain containers only",
                found=first_global(reason),
                cause="a pickled Python object instead of a state dict, or an attack",
                next_step="ask for a .safetensors file; never load this one with weights_only=False",
            ) from error
        raise damaged(path, error) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError) as error:
        raise damaged(path, error) from error


def first_global(reason: str) -> str:
    """The forbidden name out of torch's message, which is long."""
    for line in reason.splitlines():
        if "GLOBAL" in line or "global" in line:
            return line.strip()
    return reason.splitlines()[0]


def damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        "the file cannot be read as a PyTorch checkpoint",
        file=path,
        expected="a complete file written by torch.save",
        found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'nothing to read'}",
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
        if not isinstance(value, Tensor):
            raise not_a_state_dict(path, f"a {type(value).__name__}", str(name))
    return dict(content)


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
