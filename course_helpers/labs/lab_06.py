"""M9-LAB-06's machinery: OLMo 3 built wrongly on purpose, decoding that is timed, and weights spread over devices.

Shape suffixes: B batch, T new tokens, H query heads, K key/value heads, D head dimension, E model width.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..architectures.base import LanguageModel
from ..architectures.cache import LayerCache
from ..architectures.config import FULL, SLIDING, ModelConfig
from ..architectures.layers import Attention, AttentionContext
from ..architectures.olmo3 import Block, Olmo3Attention, Olmo3Config, Olmo3Model
from ..architectures.qwen3 import Qwen3Attention
from ..architectures.rope import RopeParameters
from ..memory import kv_cache_bytes
from ..sizes import on_meta


class NormsBefore(Block):
    """Llama's order, with OLMo 3's weights: each norm in front of its sublayer."""

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        x_BTE = x_BTE + self.attention(self.attention_post_norm(x_BTE), context, cache)
        return x_BTE + self.feed_forward(self.feed_forward_post_norm(x_BTE))


class NormsAroundTheSum(Block):
    """The order of the first Transformer: the norm takes in the residual, too."""

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        x_BTE = self.attention_post_norm(x_BTE + self.attention(x_BTE, context, cache))
        return self.feed_forward_post_norm(x_BTE + self.feed_forward(x_BTE))


class EachHeadItsOwn(Olmo3Attention):
    """Every head divided by its own root mean square; the weights still as long as all heads together."""

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def normalised(norm: nn.Module, x: Tensor) -> Tensor:
            heads = self.in_heads(x).float()
            heads = heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + norm.eps)
            return (heads * self.in_heads(norm.weight[None, None])).to(x.dtype)

        query, key = normalised(self.query_norm, self.query(x_BTE)), normalised(self.key_norm, self.key(x_BTE))
        return query, key, self.in_heads(self.value(x_BTE))


class NoNorm(Olmo3Attention):
    """Queries and keys as they come."""

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return Attention.project(self, x_BTE)


class FactorOnCosOnly(Olmo3Model):
    """YaRN's attention factor on cos, and not on sin."""

    def rotation(self, layer_type: str, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        cos, sin = super().rotation(layer_type, positions_BT, dtype)
        return cos, sin / self.rotary_embeddings[layer_type].attention_factor


def of_blocks(block: type[Block], attention: type[Attention] | None = None) -> type[Olmo3Model]:
    """An OLMo 3 made of other blocks, or of its own with another attention in them."""

    class Changed(block):
        def __init__(self, config: Olmo3Config, layer: int):
            super().__init__(config, layer)
            if attention is not None:
                self.attention = attention(config)

    return type("ChangedModel", (Olmo3Model,), {"block": Changed})


def wrong_versions(config: Olmo3Config) -> dict[str, tuple[type[Olmo3Model], Olmo3Config]]:
    """What people have done to an OLMo 3: what was changed -> the class and the config that result."""
    yarn, plain = config.rope(FULL), config.rope(SLIDING)
    linear = RopeParameters(rope_type="linear", rope_theta=yarn.rope_theta, factor=yarn.factor)

    def with_rope(full: RopeParameters, sliding: RopeParameters) -> tuple[type[Olmo3Model], Olmo3Config]:
        return Olmo3Model, dataclasses.replace(config, rope_parameters={FULL: full, SLIDING: sliding})

    everything = dataclasses.replace(config, sliding_window=config.max_position_embeddings)
    return {
        "YaRN in all layers": with_rope(yarn, yarn),
        "YaRN in no layer": with_rope(plain, plain),
        "all pairs slowed alike": with_rope(linear, plain),
        "attention factor left out": with_rope(dataclasses.replace(yarn, attention_factor=1.0), plain),
        "attention factor on cos only": (FactorOnCosOnly, config),
        "sliding layers see everything": (Olmo3Model, everything),
        "norms before (Llama's order)": (of_blocks(NormsBefore), config),
        "norms around the sum": (of_blocks(NormsAroundTheSum), config),
        "QK-norm per head, same weights": (of_blocks(Block, EachHeadItsOwn), config),
        "QK-norm of Qwen3": (of_blocks(Block, Qwen3Attention), config),
        "no QK-norm": (of_blocks(Block, NoNorm), config),
    }


def common_beginning(text: str, other: str) -> int:
    """How many words two texts have in common before they part."""
    pairs = zip(text.split(), other.split(), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


@torch.inference_mode()
def seconds_per_token(model: LanguageModel, ids: Sequence[int], cached: bool, steps: int = 10) -> float:
    """How long the next token of a text takes, the median over some steps, with a cache or by reading all again."""
    ids_BT = torch.tensor([list(ids)], device=model.device)
    cache, found = None, []
    if cached:
        cache = model.make_cache(1, len(ids) + steps)
        model(ids_BT[:, :-1], cache=cache, last_only=True)
    for _ in range(steps):
        started = time.perf_counter()
        model(ids_BT[:, -1:] if cached else ids_BT, cache=cache, last_only=True)[0, -1].argmax().item()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def cache_by_layer_type(config: ModelConfig, length: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, int]:
    """Bytes of a cache for one text, by the type of the layers that hold it."""
    total, kept = kv_cache_bytes(config, length, dtype=dtype), {}
    positions = {kind: min(length, config.window(kind) or length) for kind in (FULL, SLIDING)}
    everywhere = sum(config.layer_plan.count(kind) * positions[kind] for kind in positions)
    for kind, each in positions.items():
        kept[kind] = total * config.layer_plan.count(kind) * each // everywhere
    return kept


#: How a parameter of OLMo 3 is cut for several devices: a part of its name -> the dimension.
CUT_BY_ROWS = ("query", "key", "value", "gate", "up", "embedding", "output_head")
CUT_BY_COLUMNS = ("attention.output", "down")


def tensor_parallel_parameters(config: Olmo3Config, devices: int) -> int:
    """Parameters on the fullest device if every matrix is cut into so many parts. The vectors of QK-norm are cut with
    the heads they belong to; the norms of the whole width are on every device."""
    count = 0
    for name, parameter in on_meta(Olmo3Model, config).named_parameters():
        columns = any(part in name for part in CUT_BY_COLUMNS)
        rows = not columns and any(part in name for part in CUT_BY_ROWS)
        shape = list(parameter.shape)
        if rows or columns:
            side = 0 if rows else 1
            shape[side] = -(-shape[side] // devices)
        count += torch.Size(shape).numel()
    return count


def pipeline_parameters(config: Olmo3Config, devices: int) -> int:
    """Parameters on the fullest device if each gets so many whole layers, one after the other; the first device also
    holds the embedding, the last the final norm and the head."""
    model = on_meta(Olmo3Model, config)
    blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks]
    bounds = [len(blocks) * stage // devices for stage in range(devices + 1)]
    stages = [sum(blocks[start:end]) for start, end in itertools.pairwise(bounds)]
    stages[0] += model.token_embedding.weight.numel()
    stages[-1] += model.final_norm.weight.numel() + model.head_weight.numel()
    return max(stages)
