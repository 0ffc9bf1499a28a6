"""Writing a model in its family's Hugging Face layout, so that transformers' `from_pretrained` reads it."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from ..architectures.base import LanguageModel
from ..errors import CheckpointError
from ..families import family_of
from ..labs.records import write_json


def save_checkpoint(
    model: LanguageModel, folder: str | Path, tokenizer: Any = None, *, max_shard_bytes: int | None = None
) -> Path:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer's files; return the folder.

    With `max_shard_bytes`, weights that are larger go into several files with an index beside them.
    Everything is first written to a folder beside the target and then put in its place by renaming, so a half-written
    checkpoint is never seen under the target's name. Raises CheckpointError if the target is a file, or a folder that
    holds something other than a checkpoint.
    """
    folder = Path(folder)
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_files(model, draft, tokenizer)
        write_weights(export(model), draft, max_shard_bytes)
        publish(draft)
        replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def write_files(model: LanguageModel, folder: Path, tokenizer: Any) -> None:
    config = model.config.to_hf() | {"torch_dtype": str(model.dtype).removeprefix("torch.")}
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
    from safetensors.torch import save_file

    limit = max_shard_bytes or sum(tensor.nbytes for tensor in tensors.values()) + 1
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=limit)
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
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
    """A checkpoint may replace an older checkpoint, and nothing else."""
    if not folder.exists() or (folder.is_dir() and (not any(folder.iterdir()) or (folder / "config.json").exists())):
        return
    raise CheckpointError(
        "there is something else where the checkpoint should go",
        file=folder,
        expected="a new folder, an empty one, or an older checkpoint",
        found="a folder without config.json" if folder.is_dir() else "a file",
        next_step="choose another folder; nothing was changed",
    )


def replace(draft: Path, folder: Path) -> None:
    """Put a finished folder in another's place. If the last step fails, the old one is put back."""
    aside = draft.with_name(draft.name + ".old")
    if folder.exists():
        folder.rename(aside)
    try:
        draft.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def publish(folder: Path) -> None:
    """The usual access rights: temporary folders, and what safetensors writes, are private to their maker."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
