"""The five things inside a model that families change, read off a loaded model: what to say of each, and what to draw.

Every number comes from the model's config, its modules, or a cache that it made itself.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.config import SLIDING

#: All pictures of attention and cache are about a text of so many tokens.
TEXT = 256
#: The rotary picture: where in the text its hands point, and which of the pairs of a head it shows, as shares.
POSITION, PAIRS = 40, (0.0, 0.25, 0.5)
KIB = 2**10


@dataclass(frozen=True)
class Part:
    """One of the five: what it is, a detail, and the numbers its picture is drawn from."""

    what: str
    detail: str
    drawn: dict = field(default_factory=dict)

    @property
    def said(self) -> tuple[str, str]:
        """Its two lines of text. Parts that differ in size only say the same."""
        return self.what, self.detail


def parts_of(model: LanguageModel, ids: list[int], texts: list[str]) -> dict[str, Part]:
    """The five parts, under the titles of their pictures. `ids` and `texts`: the prompt's tokens, for the router."""
    return {
        "Norm": norm(model),
        "Positions": positions(model),
        "Attention": attention(model),
        "Feed-forward": feed_forward(model, ids, texts),
        "KV cache": cache(model),
    }


def norm(model: LanguageModel) -> Part:
    """Where the norms of a block stand, by the parameters that it has."""
    block = model.blocks[0]
    before, after = hasattr(block, "attention_norm"), hasattr(block, "attention_post_norm")
    some = block.attention_norm if before else block.attention_post_norm
    kind = "LayerNorm" if isinstance(some, nn.LayerNorm) else "RMSNorm"
    place = " and ".join(word for word, there in (("before", before), ("after", after)) if there)
    heads = query_norms(model)
    detail = (
        "none on queries and keys" if not heads else "on queries, keys: " + ("all heads" if heads == 1 else "each head")
    )
    return Part(f"{kind}, {place}", detail, {"before": before, "after": after, "queries": heads})


def query_norms(model: LanguageModel) -> int:
    """In how many pieces the queries of a token are normalised: 0, 1 (all heads together), or one for each head."""
    attention = model.blocks[0].attention
    if not hasattr(attention, "query_norm"):
        return 0
    width = model.config.num_attention_heads * model.config.head_dim
    return width // attention.query_norm.weight.numel()


def positions(model: LanguageModel) -> Part:
    """Vectors that are added, or pairs that are turned: then how far, for each type of layer."""
    rotary = getattr(model, "rotary_embeddings", None)
    if rotary is None:
        count = model.position_embedding.num_embeddings
        return Part("learned", f"{count} vectors, added", {"vectors": count})
    config = model.config
    turned = {kind: config.rope(kind) for kind in dict.fromkeys(config.layer_plan)}
    bases = dict.fromkeys(f"{rope.rope_theta:,.0f}" for rope in turned.values())
    scaled = [f"{rope.rope_type} × {rope.factor:g}" for rope in turned.values() if rope.rope_type != "default"]
    detail = "base " + " / ".join(bases) + "".join(f", {way}" for way in scaled)
    return Part(
        "rotary", detail, {"hands": {short(kind, turned): hands(rope, config) for kind, rope in turned.items()}}
    )


def short(layer_type: str, kinds: dict) -> str:
    """What a row of dials is called; one row needs no name."""
    return layer_type.split("_")[0] if len(kinds) > 1 else ""


def hands(rope, config) -> tuple[float, ...]:
    """How far the shown pairs have turned at the shown position, in radians."""
    frequencies, _ = rope.inverse_frequencies(config.head_dim)
    return tuple(POSITION * frequencies[int(share * len(frequencies))].item() for share in PAIRS)


def attention(model: LanguageModel) -> Part:
    """How the heads are grouped, and how far each layer looks back."""
    config = model.config
    windows, shared, _ = model.cache_layout
    heads = config.num_attention_heads
    sliding = sum(kind == SLIDING for kind in config.layer_plan)
    what = f"{heads} query, {shared} key/value head{'s' if shared > 1 else ''}"
    detail = f"{sliding} of {len(windows)} layers see {config.sliding_window} tokens"
    detail = detail if sliding else "every layer sees all tokens"
    return Part(what, detail, {"heads": heads, "shared": shared, "windows": windows})


def feed_forward(model: LanguageModel, ids: list[int], texts: list[str]) -> Part:
    """One widening, with a gate or without; or many small ones, and a router."""
    part = model.blocks[0].feed_forward
    if hasattr(part, "router"):
        experts, picked = part.router.out_features, part.experts_per_token
        drawn = {"experts": experts, "picked": picked, "chosen": chosen(model, part, ids), "tokens": texts}
        return Part(f"{experts} experts, {picked} a token", "a router; each is a SwiGLU", drawn)
    gated = hasattr(part, "gate")
    # What the gate's activation makes of 2 tells SiLU, x times its logistic function, from GELU.
    silu = gated and math.isclose(part.activation(torch.tensor(2.0)), 2 / (1 + math.exp(-2)), rel_tol=1e-4)
    name = ("SwiGLU" if silu else "GeGLU") if gated else "GELU"
    matrices = sum(1 for parameter in part.parameters() if parameter.dim() == 2)
    detail = f"{matrices} matrices, " + ("one a gate" if gated else "no gate")
    return Part(name, detail, {"gated": gated, "activation": "SiLU" if silu else "GELU"})


@torch.inference_mode()
def chosen(model: LanguageModel, part: nn.Module, ids: list[int]) -> tuple[tuple[int, ...], ...]:
    """The experts that the first layer's router really sends each token of the prompt to."""
    seen = []
    with part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        model(torch.tensor([ids]))
    return tuple(tuple(sorted(row)) for row in part.route(seen[0][0])[0].tolist())


def cache(model: LanguageModel) -> Part:
    """What the model keeps of a text: the sizes of a cache that it made."""
    made = model.make_cache(1, TEXT, dtype=torch.bfloat16)
    shared = model.config.num_key_value_heads
    kept = tuple(layer.size for layer in made.layers)
    return Part(f"{made.nbytes / KIB:.0f} KiB in bfloat16", "a bar for each layer", {"kept": kept, "shared": shared})
