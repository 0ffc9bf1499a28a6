"""Which files of a hub model make one checkpoint: config, tokenizer, and one kind of weights.

Models often come in several formats at once, and the other formats, also those in sub-folders, are the same weights
again: they would only cost time. The order in which kinds are preferred is that of `sources.open_files`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..tokenizer_folder import FILES as TOKENIZER_FILES
from ..tokenizer_folder import OPENAI_FILES
from .files import READERS, read_json
from .meta import PART
from .meta_params import PARAMS
from .openai import HPARAMS

ORIGINAL = "original/"  # the sub-folder that has Meta's own files where the weights are of Hugging Face's layout
#: What the weights are to be read by.
CONFIGS = ("config.json", PARAMS, ORIGINAL + PARAMS)
SMALL = frozenset((*CONFIGS[:2], "generation_config.json", "card.json", HPARAMS, *TOKENIZER_FILES, *OPENAI_FILES))
LICENCE = re.compile(r"LICEN[CS]E(\.\w+)?")
INDEX, TENSORFLOW = ".index.json", ".index"
#: Weights under their usual names, the preferred first.
USUAL = ("model.safetensors" + INDEX, "model.safetensors", "pytorch_model.bin" + INDEX, "pytorch_model.bin")


def small_files(names: Iterable[str]) -> list[str]:
    """Config, tokenizer, licence and card, of all the files that a model has."""
    return sorted(name for name in names if name in SMALL or LICENCE.fullmatch(name))


def weights_begin_with(names: Iterable[str]) -> list[str]:
    """The file or files that the weights begin with: an index, a single file, or all of Meta's parts. Empty if there
    are none, or several that nobody could choose among."""
    outer = {name for name in names if "/" not in name}
    for name in USUAL:
        if name in outer:
            return [name]
    for folder in ("", ORIGINAL):
        inner = {name.removeprefix(folder) for name in names if name.startswith(folder)}
        parts = sorted(name for name in inner if PART.fullmatch(name))
        if parts and PARAMS in inner:
            return [folder + name for name in (PARAMS, *parts)]
    for ending in READERS:
        found = [name for name in outer if name.endswith(ending)]
        if found:
            return found if len(found) == 1 else []
    bundles = [name.removesuffix(TENSORFLOW) for name in outer if name.endswith(TENSORFLOW)]
    if len(bundles) == 1:
        return [bundles[0] + TENSORFLOW, *sorted(name for name in outer if name.startswith(bundles[0] + ".data-"))]
    return []


def weight_files(hub_id: str, names: Iterable[str], folder: Path) -> list[str]:
    """All files of one kind of weights. An index must be in `folder` already: it names the shards.

    Raises CheckpointError if there are no weights that this package reads, or an index that names other files than
    those of the model.
    """
    begin = weights_begin_with(names)
    if not begin:
        raise no_weights(hub_id, names)
    if not begin[0].endswith(INDEX):
        return begin
    shards = named_shards(read_json(folder / begin[0]))
    strange = [shard for shard in shards if "/" in shard or shard not in names]
    if strange or not shards:
        raise CheckpointError(
            "the index names files that the model does not have",
            file=f"{hub_id}: {begin[0]}",
            field="weight_map",
            expected="tensor name -> the name of a file beside the index",
            found=", ".join(strange[:5]) or "no shards",
            cause="an upload that was not finished, or an index of another model",
            next_step="take another revision of the model, or another copy of it",
        )
    return [*begin, *shards]


def named_shards(index: Mapping[str, Any]) -> list[str]:
    """The files that an index names; `files.open_shards` holds them to it once they are there."""
    weight_map = index.get("weight_map")
    values = weight_map.values() if isinstance(weight_map, dict) else ()
    return sorted({str(shard) for shard in values})


def no_weights(hub_id: str, names: Iterable[str]) -> CheckpointError:
    large = sorted(name for name in names if name not in SMALL and not name.endswith((".md", ".gitattributes")))
    return CheckpointError(
        "the hub model has no weights that this package can choose",
        file=hub_id,
        expected=f"{', '.join(USUAL)}, consolidated.*.pth with {PARAMS}, or one file ending in "
        f"{', '.join((*READERS, TENSORFLOW))}",
        found=", ".join(large[:8]) + (f" and {len(large) - 8} more" if len(large) > 8 else "") or "nothing",
        cause="another format (GGUF, Keras, ...), several models in one place, or an adapter without its model",
        next_step="take the model's own safetensors version; where there are several files, download the one you want "
        "and give its path",
    )
