"""The parts that several families share.

Shape suffixes: B batch, T new tokens, S cached + new tokens, H query heads, K key/value heads, D head dimension,
E model width, F feed-forward width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import LayerCache
from .products import Product, attend_once, linear, results_only
from .rope import apply_rotary


@dataclass(frozen=True)
class AttentionContext:
    """What is the same for every layer of one type in one forward pass, and so computed once."""

    positions_BT: Tensor  # (B or 1, T) of the new tokens, padding not counted
    mask: Tensor | None = None  # (B or 1, 1, T, S) bool, True where looking is allowed; None: see is_causal
    is_causal: bool = False  # the mask is the plain triangle, and SDPA can make it by itself
    cos_B1TD: Tensor | None = None  # None: the family has no rotary positions
    sin_B1TD: Tensor | None = None
    last_only: bool = False  # the block's answer at the last position is all that is needed

    def of_last(self) -> Self:
        """The context of a last block that answers at the last position only. Its keys and values are still those of
        all positions; its queries, and all that comes after attention, are of one."""
        mask = None if self.mask is None else self.mask[:, :, -1:]
        return replace(self, mask=mask, is_causal=False, last_only=True)

    def needed(self, x_BTE: Tensor) -> Tensor:
        """Of a block's input, the positions that its answer is added to."""
        return x_BTE[:, -1:] if self.last_only else x_BTE


class Linear(nn.Linear):
    """nn.Linear with the course's choice of kernels, or with a matrix in another form (see `packing.py`). Built without
    memory, it does not pretend to fill it: on the meta device that changes nothing and costs a second, because torch
    first loads its Python descriptions of every operation."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()

    form: Product | None = None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias) if self.form is None else self.form(x)


class Embedding(nn.Embedding):
    """nn.Embedding, with the same saving and the same choice."""

    form: Any = None

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) if self.form is None else self.form.rows(ids)


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale: `weight * x / sqrt(mean(x^2) + eps)`; no mean, no bias.

    The square is taken in float32, and the result is rounded to x's type *before* the weight is applied. In bfloat16
    the order decides the last bit; this one is that of Llama and Qwen3 in transformers.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        x_float = x_float * torch.rsqrt(x_float.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x_float.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with grouped queries: H query heads share K key/value heads, H / K to a head.

    K = H is multi-head attention (GPT-2, Llama 2), K = 1 multi-query attention. One class serves training, prefill
    and decoding: with a cache it attends to what the cache holds as well.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        bias: bool = False,
        scale: float | None = None,
    ):
        super().__init__()
        self.head_dim = head_dim
        self.scale = scale  # on the scores, before the softmax; None: 1 / sqrt(head_dim)
        self.enable_gqa = num_heads != num_key_value_heads
        self.query = Linear(width, num_heads * head_dim, bias=bias)
        self.key = Linear(width, num_key_value_heads * head_dim, bias=bias)
        self.value = Linear(width, num_key_value_heads * head_dim, bias=bias)
        self.output = Linear(num_heads * head_dim, width, bias=bias)
        self.joined: Product | None = None  # the three projections as one matrix (see `packing.py`)

    def flat(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H * D), keys and values (B, T, K * D), not yet cut into heads."""
        if self.joined is None:
            return self.query(x_BTE), self.key(x_BTE), self.value(x_BTE)
        return self.joined(x_BTE).split([part.out_features for part in (self.query, self.key, self.value)], dim=-1)

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, K, T, D)."""
        query, key, value = self.flat(x_BTE)
        return self.in_heads(query), self.in_heads(key), self.in_heads(value)

    def in_heads(self, x: Tensor) -> Tensor:
        """(B, T, H * D) -> (B, H, T, D)."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def forward(self, x_BTE: Tensor, context: AttentionContext, cache: LayerCache | None = None) -> Tensor:
        query_BHTD, key_BKTD, value_BKTD = self.project(x_BTE)
        if context.cos_B1TD is not None:
            query_BHTD = apply_rotary(query_BHTD, context.cos_B1TD, context.sin_B1TD)
            key_BKTD = apply_rotary(key_BKTD, context.cos_B1TD, context.sin_B1TD)
        if context.last_only:
            query_BHTD = query_BHTD[:, :, -1:]
        if cache is not None:
            key_BKTD, value_BKTD = cache.update(key_BKTD, value_BKTD)  # from here on S positions, not T
        if cache is not None and query_BHTD.shape[2] == 1 and results_only():
            return self.output(attend_once(query_BHTD, key_BKTD, value_BKTD, context.mask, self.scale))
        mixed_BHTD = F.scaled_dot_product_attention(
            query_BHTD,
            key_BKTD,
            value_BKTD,
            attn_mask=context.mask,
            is_causal=context.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )
        return self.output(mixed_BHTD.transpose(1, 2).flatten(2))


def gelu_new(x: Tensor) -> Tensor:
    """GELU by the tanh formula of GPT-2's own code. `F.gelu(x, approximate="tanh")` is the same function in one
    operation instead of eight, rounded differently; written out, logits equal transformers' to the last bit."""
    if results_only():
        return F.gelu(x, approximate="tanh")
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class FeedForward(nn.Module):
    """GPT-2's: widen, GELU (the tanh approximation GPT-2 was trained with), narrow again; with biases."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.up = Linear(width, hidden_width)
        self.down = Linear(hidden_width, width)

    def forward(self, x_BTE: Tensor) -> Tensor:
        return self.down(gelu_new(self.up(x_BTE)))


class GatedFeedForward(nn.Module):
    """One projection, passed through an activation, is the gate of another. Three matrices, no bias. With SiLU it is
    SwiGLU (Llama, Qwen3, OLMo 3), with GELU it is GeGLU (Gemma 3)."""

    def __init__(self, width: int, hidden_width: int, activation: Callable[[Tensor], Tensor] = F.silu):
        super().__init__()
        self.activation = activation
        self.gate = Linear(width, hidden_width, bias=False)
        self.up = Linear(width, hidden_width, bias=False)
        self.down = Linear(hidden_width, width, bias=False)
        self.joined: Product | None = None  # gate and up as one matrix (see `packing.py`)

    def forward(self, x_BTE: Tensor) -> Tensor:
        if self.joined is None:
            return self.down(self.activation(self.gate(x_BTE)) * self.up(x_BTE))
        gate_BTF, up_BTF = self.joined(x_BTE).chunk(2, dim=-1)
        return self.down(self.activation(gate_BTF) * up_BTF)
