"""Weight files by their endings, and sharded checkpoints: several of them under one index."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..errors import CheckpointError, raise_all
from .disk import read_json
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


#: A name that stands for a file beside the index on every system: no separators, no drive or stream of Windows.
PLAIN_NAME = re.compile(r"[^/\\:\x00-\x1f]+")


def open_shards(index_path: Path) -> tuple[list[TensorFile], str]:
    """Open every shard that an index names, and hold each to what the index promises. Raises CheckpointError."""
    index = read_json(index_path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            "the index lists no tensors",
            file=index_path,
            field="weight_map",
            expected="tensor name -> shard file name",
            found=repr(weight_map)[:200],
            cause="an interrupted download, or a file of another kind under the index's name",
            next_step="download the index again",
        )
    kinds = endings(index_path)
    shards = {(type(name), str(name)): name for name in weight_map.values()}.values()  # each once
    paths = {str(name): shard_path(index_path, name, kinds) for name in shards}
    if len({Path(name).suffix for name in paths}) > 1:
        raise odd_name(index_path, kinds, ", ".join(sorted(paths)[:3]))
    check_one_place(paths.values())
    files = {name: READERS[path.suffix](path) for name, path in sorted(paths.items())}
    promised = {(name, shard) for name, shard in weight_map.items()}
    present = {(name, shard) for shard, file in files.items() for name in file.tensors}
    problems = [index_problem(index_path, *pair, missing=True) for pair in sorted(promised - present)]
    problems += [index_problem(index_path, *pair, missing=False) for pair in sorted(present - promised)]
    raise_all(problems)
    check_total(index_path, index.get("metadata"), files.values())
    return list(files.values()), FORMATS[next(iter(paths.values())).suffix]


def endings(index_path: Path) -> tuple[str, ...]:
    """The endings that the shards of an index may have: "model.safetensors.index.json" is about safetensors files, so
    that it cannot lead to a pickle."""
    own = Path(index_path.name.removesuffix(".index.json")).suffix
    return (own,) if own in READERS else tuple(READERS)


def shard_path(index_path: Path, name: object, kinds: tuple[str, ...]) -> Path:
    """Where a shard is. Raises CheckpointError if it is missing, or if the index points out of its own folder."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or Path(name).suffix not in kinds:
        raise odd_name(index_path, kinds, repr(name)[:200])
    path = index_path.parent / name
    if not path.exists():
        raise CheckpointError(
            "a shard is missing",
            file=path,
            expected=f"every file that {index_path.name} lists",
            found="no such file",
            cause="an interrupted download",
            next_step="download the checkpoint again: finished shards are not fetched twice",
        )
    return path


def odd_name(index_path: Path, kinds: tuple[str, ...], found: str) -> CheckpointError:
    return CheckpointError(
        "the index names a shard that cannot be one",
        file=index_path,
        field="weight_map",
        expected=f"the plain names of files beside the index, all ending in {' or all in '.join(kinds)}",
        found=found,
        cause="an index that was tampered with, or one written by hand",
        next_step="download the checkpoint from its original owner",
    )


def check_one_place(paths: Iterable[Path]) -> None:
    """Refuse shards of which some are links to another place than the others: part of another checkpoint. All of them
    may be links, as in the cache of the hub, where a checkpoint's files are links into one folder of "blobs"."""
    places = {path: Path(os.path.realpath(path)).parent for path in paths}
    first = next(iter(places.values()))
    for path, place in places.items():
        if place != first:
            raise CheckpointError(
                "a shard is a link to another place than the other shards",
                file=path,
                expected=f"a file in {first}, like the others",
                found=f"one in {place}",
                cause="a shard of another checkpoint was linked into this folder",
                next_step="put the file itself in the link's place, if it belongs to this checkpoint",
            )


def check_total(index_path: Path, metadata: object, files: Iterable[TensorFile]) -> None:
    """Hold the shards to the sum of bytes that most indexes give. Raises CheckpointError."""
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    tensors = [tensor for file in files for tensor in file.tensors.values()]
    # transformers counts the bytes of tensors that share memory once; a pickle can hold such, safetensors cannot.
    once = {(id(tensor) if (where := place(tensor)) is None else where): tensor for tensor in tensors}
    sizes = [sum(map(nbytes, some)) for some in (tensors, once.values())]
    if total is not None and (type(total) not in (int, float) or total not in sizes):
        raise CheckpointError(
            "the shards together are not as large as the index says",
            file=index_path,
            field="metadata.total_size",
            expected=f"{total!r} bytes, says the index"[:200],
            found=f"{sizes[0]} bytes",
            cause="an index of another version of the checkpoint: of another precision, for instance",
            next_step="download the checkpoint again into an empty folder; if the owner's index is wrong, correct it",
        )


def nbytes(tensor: Any) -> int:
    """Bytes of one tensor, or of what stands for it in a file's table."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def place(tensor: Any) -> tuple | None:
    """Where a tensor's values lie in memory, with how they are arranged; None for an entry of a file's table and for
    a tensor without values, which lie nowhere."""
    if not isinstance(tensor, Tensor) or not tensor.numel():
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


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
