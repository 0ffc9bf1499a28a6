"""Weight files by their endings, and sharded checkpoints: several of them under one index."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..errors import CheckpointError, raise_all
from .pytorch_file import PyTorchFile
from .safetensors_file import SafetensorsFile


class TensorFile(Protocol):
    """One place that tensors are read from."""

    path: Path | None
    tensors: Mapping[str, Any]  # name -> something with a shape and a dtype

    def read(self, name: str) -> Tensor: ...
    def peek(self, name: str, scratch: Tensor) -> Tensor: ...
    def map(self, name: str) -> Tensor: ...


#: File endings and the reader of each.
READERS = {".safetensors": SafetensorsFile, ".bin": PyTorchFile, ".pth": PyTorchFile, ".pt": PyTorchFile}
FORMATS = {".safetensors": "safetensors", ".bin": "pytorch", ".pth": "pytorch", ".pt": "pytorch"}


def open_shards(index_path: Path) -> tuple[list[TensorFile], str]:
    """Open every shard that an index names, and hold each to what the index promises. Raises CheckpointError."""
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            "the index lists no tensors",
            file=index_path,
            field="weight_map",
            expected="tensor name -> shard file name",
            found=repr(weight_map),
            cause="an interrupted download, or a file of another kind under the index's name",
            next_step="download the index again",
        )
    shards = {str(shard): shard for shard in weight_map.values()}
    files = {name: open_shard(index_path, shard) for name, shard in sorted(shards.items())}
    promised = {(name, shard) for name, shard in weight_map.items()}
    present = {(name, shard) for shard, file in files.items() for name in file.tensors}
    problems = [index_problem(index_path, *pair, missing=True) for pair in sorted(promised - present)]
    problems += [index_problem(index_path, *pair, missing=False) for pair in sorted(present - promised)]
    raise_all(problems)
    return list(files.values()), next(FORMATS[Path(name).suffix] for name in files)


def open_shard(index_path: Path, name: object) -> TensorFile:
    """One shard. Raises CheckpointError if it is missing, or if the index points out of its own folder."""
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or Path(name).suffix not in READERS:
        raise CheckpointError(
            "the index names a shard that cannot be one",
            file=index_path,
            field="weight_map",
            expected=f"the plain name of a file beside the index, ending in {', '.join(READERS)}",
            found=repr(name),
            cause="an index that was tampered with, or one written by hand",
            next_step="download the checkpoint from its original owner",
        )
    path = index_path.parent / name
    if not path.is_file():
        raise CheckpointError(
            "a shard is missing",
            file=path,
            expected=f"every file that {index_path.name} lists",
            found="no such file",
            cause="an interrupted download",
            next_step="download the checkpoint again: finished shards are not fetched twice",
        )
    return READERS[path.suffix](path)


def index_problem(index_path: Path, tensor: str, shard: str, missing: bool) -> CheckpointError:
    return CheckpointError(
        "the index and the shard disagree",
        file=index_path.parent / shard,
        tensor=tensor,
        expected="in this shard, says the index" if missing else "not in this shard, says the index",
        found="not there" if missing else "there",
        cause="a shard of another version of the checkpoint beside this index",
        next_step="download the checkpoint again into an empty folder",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError if it is anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = type(content).__name__
    except (OSError, ValueError, RecursionError) as error:
        content, found = None, f"{type(error).__name__}: {error}"
    if not isinstance(content, dict):
        raise CheckpointError(
            "the file is not a JSON object",
            file=path,
            expected="{...}",
            found=found,
            cause="an interrupted download, or a web page saved in the file's place",
            next_step="delete the file and download it again",
        )
    return content
