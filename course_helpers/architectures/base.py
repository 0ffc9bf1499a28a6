"""What every model of the course is to the outside: token ids in, logits out, and a cache on request.

Shape suffixes: B batch, T new tokens, E model width, V vocabulary.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ..errors import CourseWarning
from .cache import KVCache, LayerCache, attention_mask
from .compiled import CompiledSteps
from .config import ModelConfig
from .layers import AttentionContext
from .products import Product, linear, results_only
from .static_cache import StaticCache, StaticLayer, StepMemory


class LanguageModel(nn.Module):
    """The contract. A family's `Model` builds the parts that are declared here and says how tokens become vectors;
    what happens to them then is here, once."""

    config: ModelConfig
    token_embedding: nn.Embedding
    blocks: nn.ModuleList
    final_norm: nn.Module
    #: None when the head is tied: the token embedding then serves as the head, so a copy cannot exist to drift.
    output_head: nn.Linear | None
    #: Set by `compile_decoding`: one new token with a cache is then a compiled step.
    compiled: CompiledSteps | None = None
    #: "plain", or the form that `packing.pack` gave the matrices; the head's is here, because it may be the embedding.
    weights: str = "plain"
    head_form: Product | None = None

    def embed(self, token_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """(B, T, E): what the first block gets."""
        return self.token_embedding(token_ids_BT)

    def rotation(
        self, layer_type: str, positions_BT: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """cos and sin for the layers of one type; (None, None) in a family without rotary positions."""
        return None, None

    def forward(
        self,
        token_ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        left_padding_B: Tensor | None = None,
        last_only: bool = False,
        hidden_states: bool = False,
    ) -> Tensor:
        """Logits (B, T, V), or (B, 1, V) with `last_only`, which spares the largest matrix product of a prefill, and in
        torch.inference_mode most of the last block's. With
        `hidden_states`, what the head would turn into them: (B, T, E) or (B, 1, E), after the final norm.

        With a cache, the tokens continue at the cache's own position; one token a row is then a compiled step, without
        gradient, if the model was loaded with `compile=True`. `left_padding_B` (int64, B) says how many
        columns at the left of each row are padding; the cache remembers it, so it is given on the first call only.
        Raises ValueError if the cache has no room or was begun with another padding, and for token ids that are not
        a (B, T) integer tensor.
        """
        if token_ids_BT.dim() != 2 or token_ids_BT.dtype not in (torch.int64, torch.int32):
            found = f"{token_ids_BT.dtype} of shape {tuple(token_ids_BT.shape)}"
            raise ValueError(f"token ids must be an integer tensor of shape (batch, tokens), but this is {found}")
        batch_size, new_tokens = token_ids_BT.shape
        start = 0
        if cache is not None:
            cache.check(batch_size, new_tokens, self.cache_layout, id(self))
            start = cache.length
            left_padding_B = cache.padding(left_padding_B)
        self.check_position(start + new_tokens)
        if self.compiled is not None and isinstance(cache, StaticCache) and new_tokens == 1 and not hidden_states:
            return self.compiled.step(self, token_ids_BT, cache, left_padding_B)
        contexts = self.contexts(start, new_tokens, left_padding_B, None if cache is None else cache.max_length)
        x_BTE = self.embed(token_ids_BT, contexts[self.config.layer_plan[0]].positions_BT)
        if cache is not None:
            cache.begin(new_tokens, id(self))
        steps = self.stack(contexts, None if cache is None else cache.layers)
        if last_only and new_tokens > 1 and results_only():  # with one row, products are rounded differently
            block, context, layer = steps[-1]
            steps[-1] = block, context.of_last(), layer
        for block, context, layer in steps:
            x_BTE = block(x_BTE, context, layer)
        if cache is not None:
            cache.advance(new_tokens, left_padding_B)
        x_BTE = self.final_norm(x_BTE)
        x_BTE = x_BTE[:, -1:] if last_only else x_BTE
        return x_BTE if hidden_states else self.head(x_BTE)

    def stack(
        self, contexts: dict[str, AttentionContext], layers: Sequence[LayerCache] | Sequence[StaticLayer] | None
    ) -> list[tuple[nn.Module, AttentionContext, LayerCache | StaticLayer | None]]:
        """Every block, in order, with what it is called with beside the vectors. The loop over it is the caller's: a
        function that were given the first vectors could not let go of them."""
        kept = [None] * len(self.blocks) if layers is None else layers
        return list(zip(self.blocks, (contexts[kind] for kind in self.config.layer_plan), kept, strict=True))

    def decode(self, memory: StepMemory) -> Tensor:
        """Logits (B, 1, V) of one more token a row, the step that is compiled: `forward` without a number in Python
        that changes from one token to the next."""
        positions_B1 = memory.positions()
        contexts = {
            layer_type: AttentionContext(
                positions_B1,
                memory.mask(self.config.window(layer_type)),
                False,
                *self.rotation(layer_type, positions_B1, self.dtype),
            )
            for layer_type in dict.fromkeys(self.config.layer_plan)
        }
        x_B1E = self.embed(memory.token_ids_B1, positions_B1)
        for block, context, layer in self.stack(contexts, memory.layers):
            x_B1E = block(x_B1E, context, layer)
        return self.head(self.final_norm(x_B1E))

    def contexts(
        self, start: int, new_tokens: int, left_padding_B: Tensor | None, max_length: int | None
    ) -> dict[str, AttentionContext]:
        """Masks and rotations of one forward pass, computed once for each type of layer that the model has."""
        positions_BT = torch.arange(start, start + new_tokens, device=self.device)[None]
        if left_padding_B is not None:
            positions_BT = (positions_BT - left_padding_B[:, None]).clamp(min=0)
        contexts = {}
        for layer_type in dict.fromkeys(self.config.layer_plan):
            window = self.config.window(layer_type)
            mask = attention_mask(start, new_tokens, left_padding_B, self.device, window, max_length)
            contexts[layer_type] = AttentionContext(
                positions_BT, *mask, *self.rotation(layer_type, positions_BT, self.dtype)
            )
        return contexts

    def check_position(self, tokens: int) -> None:
        """Refuse a text of so many tokens if its last position cannot be computed (ValueError): rotary ones all can."""

    def check_length(self, prompt_tokens: int, new_tokens: int = 0) -> None:
        """Refuse a prompt longer than any text the model was made for (ValueError); warn if the answer would grow
        beyond that: rotary positions get worse there."""
        limit, tokens = self.config.max_position_embeddings, prompt_tokens + new_tokens
        if prompt_tokens > limit:
            raise ValueError(
                f"the prompt has {prompt_tokens} tokens, but the model was made for {limit} in all: shorten the prompt"
            )
        if tokens > limit:
            warnings.warn(
                f"{tokens} tokens are more than the {limit} this model was made for: expect worse and worse text",
                CourseWarning,
                stacklevel=3,
            )

    def head(self, x_BTE: Tensor) -> Tensor:
        """Hidden states to logits: (B, T, E) -> (B, T, V)."""
        return linear(x_BTE, self.head_weight) if self.head_form is None else self.head_form(x_BTE)

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` and their like do to every parameter. Raises ValueError if the weights are packed:
        they are in a form for one device and one type."""
        if self.weights != "plain":
            raise ValueError(
                f"a model whose weights are {self.weights} cannot be moved or cast: load it again, with the device and "
                "dtype that it shall have"
            )
        return super()._apply(change, recurse)

    @property
    def head_weight(self) -> Tensor:
        """The (V, E) matrix that turns hidden states into logits: the token embedding itself when tied."""
        return self.token_embedding.weight if self.output_head is None else self.output_head.weight

    def make_cache(
        self,
        batch_size: int = 1,
        max_length: int = 256,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> KVCache:
        """An empty cache for `batch_size` rows of up to `max_length` positions; the model's own dtype and device
        unless others are asked for. For a model that decodes compiled, its memory has more room: a power of two, at
        least 256, or the length that the model was made for."""
        windows, heads, head_dim = self.cache_layout
        dtype, device = dtype or self.dtype, torch.device(device or self.device)
        if self.compiled is not None:
            return self.compiled.make_cache(self, batch_size, max_length, dtype, device)
        return KVCache(windows, (batch_size, heads, max_length, head_dim), dtype, device)

    @property
    def cache_layout(self) -> tuple[tuple[int | None, ...], int, int]:
        """What a cache of this model is like: each layer's window, key/value heads, head dimension."""
        config = self.config
        windows = tuple(config.window(layer_type) for layer_type in config.layer_plan)
        return windows, config.num_key_value_heads, config.head_dim

    def any_seed(self) -> int:
        """A seed for sampling that nobody chose."""
        return torch.Generator().seed()

    @property
    def dtype(self) -> torch.dtype:
        return self.final_norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.final_norm.weight.device

    def num_parameters(self) -> int:
        """Parameters, each counted once (a tied head adds none)."""
        return sum(parameter.numel() for parameter in self.parameters())
