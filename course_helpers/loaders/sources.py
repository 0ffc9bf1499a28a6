"""Opening a checkpoint of any format: named tensors that are read one at a time, and the config beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from . import hub, meta, openai
from .atomic_folder import recovered
from .files import FORMATS, READERS, TensorFile, open_shards, read_json
from .manifest_files import manifest_beside
from .pytorch_file import not_plain
from .tf_checkpoint import TensorFlowFile

#: Checkpoints that come with the repository; their folder names can be used as sources.
BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints"


class MemoryTensors:
    """Tensors that are in memory already: a state dict, or those of a live model."""

    path = None

    def __init__(self, tensors: Mapping[str, Tensor]):
        for name, value in tensors.items():
            if found := not_plain(name, value):
                raise CheckpointError(
                    "this is not a state dict of ordinary tensors",
                    file="what was passed in memory",
                    tensor=str(name),
                    expected="a tensor under a name",
                    found=found,
                    cause="a training checkpoint that holds the state dict under another key, or offloaded weights",
                    next_step="pass the inner dictionary of tensors, or the files of the checkpoint",
                )
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].clone(memory_format=torch.contiguous_format)

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        return self.tensors[name]

    def map(self, name: str) -> Tensor:
        return self.tensors[name]


#: What is looked for in a folder, in this order: safetensors first, because nothing in it can run. Then Meta's files,
#: then OpenAI's, which TensorFlow wrote.
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
#: TensorFlow's index is opened like a single file, and finds the data beside it.
SINGLE_READERS = READERS | {".index": TensorFlowFile}
SINGLE_FORMATS = FORMATS | {".index": "tensorflow"}
#: Formats that have another file than config.json for the config.
CONFIGS = {"meta": meta.config_of, "tensorflow": openai.config_of}


class Checkpoint:
    """An open checkpoint: `format`, `config`, and the tensors by name. Use it in a `with` statement."""

    def __init__(
        self,
        format: str,
        files: list[TensorFile],
        config: Mapping[str, Any] | None,
        origin: str,
        folder: Path | None = None,
    ):
        self.format = format
        self.config = config
        self.folder = folder  # where config and manifest lie; None for what is in memory
        self.origin = origin  # what the reader of an error message knows the checkpoint by
        self.file_of: dict[str, TensorFile] = {}
        for file in files:
            for name in file.tensors:
                if name in self.file_of:
                    raise CheckpointError(
                        "two files hold the same tensor",
                        file=f"{self.file_of[name].path} and {file.path}",
                        tensor=name,
                        expected="every name in one file",
                        found="the name in both",
                        cause="shards of two different checkpoints in one folder",
                        next_step="download the checkpoint again into an empty folder",
                    )
                self.file_of[name] = file

    def names(self) -> list[str]:
        """Names of all tensors, in the order of the files."""
        return list(self.file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.file_of[name].tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self.file_of[name].tensors[name].dtype

    def size(self, name: str) -> int:
        """Bytes of one tensor."""
        return torch.Size(self.shape(name)).numel() * self.dtype(name).itemsize

    @property
    def paths(self) -> list[Path]:
        """The files that hold the tensors; some readers have several each. For checkpoints in files only."""
        return sorted({path for file in self.file_of.values() for path in getattr(file, "paths", [file.path])})

    def where(self, name: str) -> object:
        """The file that holds a tensor, for messages."""
        return self.file_of[name].path or self.origin

    def read(self, name: str) -> Tensor:
        """The tensor in memory of its own: nothing that happens to the file later can change it."""
        return self.file_of[name].read(name)

    def peek(self, name: str, scratch: Tensor) -> Tensor:
        """The tensor for a moment, to be copied from before the next call: formats that cannot show it in place read
        it into `scratch`, a uint8 tensor with room for it. One scratch for all tensors is what keeps a peak low:
        freed memory of many sizes is not all given back."""
        return self.file_of[name].peek(name, scratch)

    def peek_part(self, name: str, dim: int, start: int, stop: int, scratch: Tensor) -> Tensor:
        """`peek` for some rows along one dimension. Of safetensors files no other byte is read; the other formats show
        them in a window onto the file, or (several parts of Meta's, TensorFlow) have to put the tensor together."""
        file = self.file_of[name]
        if hasattr(file, "peek_part"):
            return file.peek_part(name, dim, start, stop, scratch)
        return file.map(name).narrow(dim, start, stop - start)

    def map(self, name: str) -> Tensor:
        """The tensor without a copy where the format allows: a window onto the file, or the live tensor itself."""
        return self.file_of[name].map(name)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(map(self.size, self.names()))

    def close(self) -> None:
        """Let go of the files. Tensors that were mapped stay valid: they hold the mapping themselves."""
        self.file_of = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def as_in_json(config: object) -> Mapping[str, Any] | None:
    """What config.json would say: of one of our configs, of one of Transformers', or of a mapping that says it already.
    None for anything else."""
    for conversion in ("to_hf", "to_dict"):
        if hasattr(config, conversion):
            return getattr(config, conversion)()
    return config if isinstance(config, Mapping) else None


def open_checkpoint(
    source: object,
    config: object = None,
    revision: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Checkpoint:
    """Open a checkpoint, whatever it is, without reading its tensors (several files of Meta's: only their norms).

    `source`: a folder in Hugging Face's layout or in Meta's (`consolidated.*.pth` with params.json, also in a subfolder
    "original"; where there are both, Hugging Face's is taken) or in OpenAI's (model.ckpt.index and `model.ckpt.data-*`
    with hparams.json; "folder/model.ckpt" will do, too), a single weight file, the name of a bundled checkpoint
    ("tiny-gpt2"), a hub id ("openai-community/gpt2"), a live Transformers model, or a state dict. `config`, a mapping,
    one of our configs or one of Transformers', is for sources that carry none, and goes before what they carry.
    `revision`: a branch, tag or commit of a hub model; what is opened is one commit, and `origin` names it. `dtype` and
    `device` are for the check of memory before a download.
    Raises CheckpointError for anything missing, damaged, unsafe or not recognised.
    """
    config = as_in_json(config)
    if isinstance(source, nn.Module):
        live = getattr(source, "config", None)
        format = "transformers" if hasattr(live, "to_dict") else "state_dict"  # ours have to_hf
        return Checkpoint(format, [MemoryTensors(source.state_dict())], config or as_in_json(live), "live model")
    if isinstance(source, Mapping):
        return Checkpoint("state_dict", [MemoryTensors(source)], config, "state dict")
    path = resolve(source, revision, dtype=dtype, device=device)
    folder = path if path.is_dir() else path.parent
    if (manifest := manifest_beside(folder)) is not None:
        manifest.check()
    if config is None:
        config = read_json(folder / "config.json") if (folder / "config.json").exists() else None
    files, format = open_files(path)
    if config is None and format in CONFIGS:
        config = CONFIGS[format](files[0])
    return Checkpoint(format, files, config, hub.pinned_name(path) or str(path), folder)


def resolve(source: object, revision: str | None = None, weights: bool = True, **loaded_as: Any) -> Path:
    """The local path of a folder, a file, a bundled checkpoint's name or a hub id (`loaded_as`: see `hub.download`).
    Raises CheckpointError."""
    path = Path(str(source)).expanduser()
    if str(source) and (path.exists() or recovered(path) or recovered(path.parent)):
        return path
    if str(source) and (index := Path(f"{path}.index")).is_file():
        return index  # a TensorFlow checkpoint goes by what the names of its files have in common
    if str(source) and (BUNDLED / str(source) / "config.json").exists():
        return BUNDLED / str(source)
    if hub.HUB_ID.fullmatch(str(source)) and path.suffix not in READERS:
        return hub.download(str(source), revision, weights, **loaded_as)
    raise CheckpointError(
        "there is no such checkpoint",
        file=path,
        expected="a folder, a weight file, a bundled name or a hub id (owner/name)",
        found="nothing at this path",
        cause="a typing mistake, or a relative path from another folder",
        next_step="`python -m course_helpers families` lists the bundled checkpoints and the hub ids",
    )


def open_files(path: Path) -> tuple[list[TensorFile], str]:
    """Open the weight file or files at a path. Raises CheckpointError if there are none, or too many to choose."""
    if not path.is_dir():
        return open_file(path)
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (path / index).exists():
            files, format = open_shards(path / index)
            if (path / single).exists() and path / single not in [file.path for file in files]:
                raise two_checkpoints(path / single, index)
            return files, format
        if (path / single).exists():
            return open_file(path / single)
    candidates = openai.latest(path, [file for file in sorted(path.iterdir()) if file.suffix in SINGLE_READERS])
    parts = meta.parts_in(path if candidates else path / "original")
    if parts and set(candidates) <= set(parts):
        return [meta.open_parts(parts)], "meta"
    if len(candidates) == 1:
        return open_file(candidates[0])
    raise unrecognised(path, ", ".join(file.name for file in candidates) or "no weight file")


def open_file(path: Path) -> tuple[list[TensorFile], str]:
    """Open one weight file, or all that belong to an index or to one of Meta's parts. Raises CheckpointError."""
    if path.name.endswith(".index.json"):
        return open_shards(path)
    if path.suffix not in SINGLE_READERS:
        raise unrecognised(path, f"a file ending in {path.suffix or 'nothing'}")
    if path in (parts := meta.parts_in(path.parent)):
        return [meta.open_parts(parts)], "meta"
    return [SINGLE_READERS[path.suffix](path)], SINGLE_FORMATS[path.suffix]


def two_checkpoints(single: Path, index: str) -> CheckpointError:
    return CheckpointError(
        "there are two checkpoints in this folder, and nothing says which is meant",
        file=single,
        expected=f"{single.name}, or {index} with its shards",
        found="both, and the index does not name the single file",
        cause="one was saved into the folder of the other",
        next_step="name the one that is meant: the file, or the index; or delete the other",
    )


def unrecognised(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        "no checkpoint was recognised here",
        file=path,
        expected=f"{', '.join(INDEXES + SINGLES)}, consolidated.*.pth with params.json, model.ckpt.index with "
        "model.ckpt.data-* and hparams.json, "
        f"or exactly one file ending in {', '.join(READERS)}",
        found=found,
        cause="an incomplete download, or the wrong folder",
        next_step="name the weight file itself, or download the checkpoint again",
    )
