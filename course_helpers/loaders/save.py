"""Writing a model in its family's Hugging Face layout, so that transformers' `from_pretrained` reads it."""

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..architectures.base import LanguageModel
from ..architectures.packing import check_plain
from ..dtypes import short
from ..errors import CheckpointError
from ..families import family_of
from ..labs.records import write_json
from .atomic_folder import replacing

#: What a folder may hold that is replaced: files of checkpoints, of any format. Anything else is somebody's work.
REPLACEABLE = re.compile(
    r".*\.(safetensors|bin|pth|pt|json|jinja|model|bpe|tiktoken|gguf)|(merges|vocab)\.txt|checkpoint|model\.ckpt\..*"
    r"|README\.md|LICENSE.*|USE_POLICY\.md|\.gitattributes|original"
)


def save_checkpoint(
    model: LanguageModel, folder: str | Path, tokenizer: Any = None, *, max_shard_bytes: int | None = None
) -> Path:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer's files; return the folder.

    With `max_shard_bytes`, weights that are larger go into several files with an index beside them.
    An older checkpoint in the folder is replaced as a whole and in one step (see `atomic_folder`): killed at any
    moment, either the old one or the new one is there and loads. Raises CheckpointError, and leaves everything as it
    was, if the target is a file, or a folder that holds something other than a checkpoint, or cannot be written.
    """
    folder = Path(folder)
    with checkpoint_draft(model, folder, tokenizer, max_shard_bytes):
        pass
    return folder


@contextlib.contextmanager
def checkpoint_draft(
    model: LanguageModel,
    folder: Path,
    tokenizer: Any = None,
    max_shard_bytes: int | None = None,
    extra_bytes: int = 0,
) -> Iterator[Path]:
    """`save_checkpoint`, with a moment before the draft takes the folder's place: the `with` block may add files to it,
    of so many bytes."""
    check_plain(model, "be saved")
    check_target(folder)
    with replacing(folder) as draft:
        tensors = export(model)
        check_room(draft, sum(tensor.nbytes for tensor in tensors.values()) + extra_bytes)
        write_files(model, draft, tokenizer)
        write_weights(tensors, draft, max_shard_bytes)
        yield draft


def check_room(folder: Path, needed: int) -> None:
    """Refuse before writing begins what cannot end well. Raises OSError."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"the weights have {needed} bytes, and the disk has {free} left")


def write_files(model: LanguageModel, folder: Path, tokenizer: Any) -> None:
    config = model.config.to_hf() | {"torch_dtype": short(model.dtype)}
    special = {
        name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if config[name] is not None
    }
    if tokenizer is not None:
        tokenizer.save(folder)
        special["eos_token_id"] = list(tokenizer.stop_ids)
    for name, content in (("config.json", config), ("generation_config.json", special)):
        write_json(folder / name, content)


def write_weights(tensors: dict[str, Tensor], folder: Path, max_shard_bytes: int | None) -> None:
    """model.safetensors, or numbered shards and their index, as `save_pretrained` of transformers writes them."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    limit = max_shard_bytes or sum(tensor.nbytes for tensor in tensors.values()) + 1
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=limit)
    for file, names in split.filename_to_tensors.items():
        try:
            save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # the library has one error for everything, with the system's number in it
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": dict(sorted(split.tensor_to_filename.items()))}
        write_json(folder / "model.safetensors.index.json", index)


def export(model: LanguageModel) -> dict[str, Tensor]:
    """The model's tensors by their names in the family's Hugging Face layout: its weight map, run backwards."""
    weight_map = family_of(model.config.to_hf()).weight_maps[0]
    parameters = dict(model.named_parameters())
    return {
        name: rule.to_theirs([parameters[target].detach() for target in rule.targets]).contiguous()
        for name, rule in weight_map.expand(model.config).items()
        if all(target in parameters for target in rule.targets)  # a tied head is no parameter of its own
    }


def check_target(folder: Path) -> None:
    """A checkpoint may replace an older checkpoint, and nothing else. Raises CheckpointError."""
    if not folder.exists():
        return
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in entries if not REPLACEABLE.fullmatch(name)]
    if folder.is_dir() and not others and (not entries or "config.json" in entries):
        return
    raise CheckpointError(
        "there is something else where the checkpoint should go",
        file=folder,
        expected="a new folder, an empty one, or an older checkpoint, which is replaced as a whole",
        found=f"a folder with {others[0]!r} in it, which is no part of a checkpoint"
        if others
        else "a folder without config.json"
        if folder.is_dir()
        else "a file",
        cause="files of yours in the folder, or the wrong folder",
        next_step="choose another folder; nothing was changed",
    )
