"""What a language model's block is made of, read off the model that its config builds (on torch's meta device, where
tensors have shapes and no memory), and what changes between two of them. Nothing here knows a family by its name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """A model's structure in the words that an architecture drawing needs."""

    layers: int
    width: int
    parameters: int
    norm: str
    norm_bias: bool
    heads: int
    shared_heads: int  # key/value heads
    attention_bias: bool
    learned_positions: int  # 0 where positions are rotary
    rotary_base: float | None
    matrices: tuple[str, ...]  # of the feed-forward
    feed_forward_bias: bool
    activation: str
    hidden: int
    tied: bool

    @property
    def ratio(self) -> float:
        """How many times wider than the stream the feed-forward is inside."""
        return self.hidden / self.width


def read(config: object) -> Blocks:
    """The structure of the model that a config builds."""
    from course_helpers.families import family_of
    from course_helpers.sizes import on_meta

    saved = config.to_hf()
    model = on_meta(family_of(saved).model, config)
    block = model.blocks[0]
    names = [name for name, _ in block.feed_forward.named_parameters() if name.endswith("weight")]
    positions = getattr(model, "position_embedding", None)
    rope = getattr(config, "rope_parameters", None)
    return Blocks(
        layers=len(model.blocks),
        width=config.hidden_size,
        parameters=model.num_parameters(),
        norm=type(block.attention_norm).__name__,
        norm_bias=getattr(block.attention_norm, "bias", None) is not None,
        heads=config.num_attention_heads,
        shared_heads=config.num_key_value_heads,
        attention_bias=block.attention.query.bias is not None,
        learned_positions=positions.weight.shape[0] if positions is not None else 0,
        rotary_base=rope.rope_theta if rope else None,
        matrices=tuple(name.removesuffix(".weight") for name in names),
        feed_forward_bias=block.feed_forward.up.bias is not None,
        activation={"gelu_new": "GELU", "silu": "SiLU"}[saved.get("activation_function") or saved["hidden_act"]],
        hidden=block.feed_forward.up.weight.shape[0],
        tied=config.tie_word_embeddings,
    )


def deltas(old: Blocks, new: Blocks) -> dict[str, list[str]]:
    """For each part of the drawing what changes, in short lines; an empty list where the part stays as it is."""
    return {
        "embedding": ["no learned", "positions"] if old.learned_positions and not new.learned_positions else [],
        "norm": _lines((old.norm != new.norm, "no mean"), (old.norm_bias and not new.norm_bias, "no bias")),
        "attention": _lines(
            (old.attention_bias and not new.attention_bias, "no biases"),
            (new.rotary_base != old.rotary_base, "rotary positions" if old.rotary_base is None else "another base"),
            (old.shared_heads == old.heads and new.shared_heads < new.heads, "shared key/value heads"),
        ),
        "feed-forward": _lines(
            (len(new.matrices) > len(old.matrices), "gate, no biases"),
            (new.activation != old.activation, f"{new.activation} for {old.activation}"),
        ),
        "head": ["its own", "matrix"] if old.tied and not new.tied else [],
    }


def _lines(*candidates: tuple[bool, str]) -> list[str]:
    return [words for holds, words in candidates if holds]
