"""Plumbing of M9-LAB-03: what would distract in a cell. The lab's own model is in the lab."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..architectures.llama import LlamaConfig
from ..loaders.sources import resolve
from ..sizes import on_meta
from ..tokenizers import Tokenizer

#: The fields of config.json that change what a Llama computes, or where its texts begin and end.
FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rope_type",
    "factor",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
)


def fields_of(config: LlamaConfig) -> dict[str, Any]:
    """A Llama's config in one flat table, `FIELDS` in their order."""
    values = asdict(config)
    rope = values.pop("rope_parameters")
    return {name: rope[name] if name in rope else values[name] for name in FIELDS}


def parts_of(config: LlamaConfig) -> dict[str, int]:
    """Parameters by part, counted on torch's meta device, where a model takes no memory."""
    from ..architectures.llama import LlamaModel

    counts = {"embedding": 0, "output head": 0, "attention": 0, "feed-forward": 0, "norms": 0}
    for name, parameter in on_meta(LlamaModel, config).named_parameters():
        # The norm before the attention is a norm, so that sign comes first.
        signs = {"norm": "norms", "embedding": "embedding", "output_head": "output head", ".attention.": "attention"}
        part = next((part for sign, part in signs.items() if sign in name), "feed-forward")
        counts[part] += parameter.numel()
    return counts


def card_of(source: object) -> dict[str, Any]:
    """What a bundled checkpoint's card says; nothing for one that has no card."""
    path = resolve(source) / "card.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """What each id stands for: SentencePiece's own pieces, with its mark for a space, or a token's text."""
    names = {token: name for name, token in tokenizer.backend.special.items()}
    processor = getattr(tokenizer.backend, "processor", None)
    piece = processor.id_to_piece if processor else lambda token: tokenizer.decode([token])
    return [names.get(token) or piece(token) for token in ids]


def by_position(surprises: Sequence[Tensor], width: int) -> list[float]:
    """The mean loss of the tokens at positions 1 to `width`, of the next `width`, and so on, over all texts. What no
    text fills to the end is left out."""
    places = torch.cat([torch.arange(len(row)) // width for row in surprises])
    values = torch.cat(list(surprises))
    full = max(len(row) for row in surprises) // width
    return [values[places == group].mean().item() for group in range(full)]


def first_difference(text: str, other: str) -> str:
    """The first word of `text` that is not in its place in `other`, with its number; "none" where they are equal."""
    words, others = text.split(), other.split()
    for number, word in enumerate(words, start=1):
        if number > len(others) or word != others[number - 1]:
            return f"word {number}"
    return "none" if len(words) == len(others) else f"word {len(words) + 1}"


def params_json(config: LlamaConfig) -> Mapping[str, Any]:
    """The params.json that Meta's own files of this config would have. It has no place for the factor of the scaling,
    nor for the context that it starts from: Meta's program has those numbers in its code."""
    return {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": config.intermediate_size,  # the width is rounded up to this: any divisor of it would do
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters.rope_theta,
        "use_scaled_rope": config.rope_parameters.rope_type == "llama3",
    }
