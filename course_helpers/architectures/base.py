"""What every model of the course is to the outside: token ids in, logits out, and a cache on request.

Shape suffixes: B batch, T new tokens, E model width, V vocabulary.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CourseWarning
from .cache import KVCache, attention_mask
from .config import ModelConfig


class LanguageModel(nn.Module):
    """The contract. A family's `Model` fills in the layers and `hidden_states`; everything else is here, once."""

    config: ModelConfig
    token_embedding: nn.Embedding
    #: None when the head is tied: the token embedding then serves as the head, so a copy cannot exist to drift.
    output_head: nn.Linear | None

    def hidden_states(
        self, token_ids_BT: Tensor, positions_BT: Tensor, mask: Tensor | None, is_causal: bool, cache: KVCache | None
    ) -> Tensor:
        """(B, T, E) after the final norm."""
        raise NotImplementedError

    def forward(
        self,
        token_ids_BT: Tensor,
        cache: KVCache | None = None,
        *,
        left_padding_B: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits (B, T, V), or (B, 1, V) with `last_only`, which spares the largest matrix product of a prefill.

        With a cache, the tokens continue at the cache's own position. `left_padding_B` (int64, B) says how many
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
            cache.check_room(batch_size, new_tokens)
            start = cache.length
            left_padding_B = cache.padding(left_padding_B)
        positions_BT = torch.arange(start, start + new_tokens, device=token_ids_BT.device)[None]
        if left_padding_B is not None:
            positions_BT = (positions_BT - left_padding_B[:, None]).clamp(min=0)
        mask, is_causal = attention_mask(start, new_tokens, left_padding_B, token_ids_BT.device)
        x_BTE = self.hidden_states(token_ids_BT, positions_BT, mask, is_causal, cache)
        if cache is not None:
            cache.advance(new_tokens, left_padding_B)
        if last_only:
            x_BTE = x_BTE[:, -1:]
        return F.linear(x_BTE, self.head_weight)

    def check_length(self, tokens: int) -> None:
        """Warn before a text grows longer than any the model was made for: rotary positions get worse there."""
        limit = self.config.max_position_embeddings
        if tokens > limit:
            warnings.warn(
                f"{tokens} tokens are more than the {limit} this model was made for: expect worse and worse text",
                CourseWarning,
                stacklevel=3,
            )

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
        unless others are asked for."""
        config = self.config
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        return KVCache(config.num_hidden_layers, shape, dtype or self.dtype, torch.device(device or self.device))

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def num_parameters(self) -> int:
        """Parameters, each counted once (a tied head adds none)."""
        return sum(parameter.numel() for parameter in self.parameters())
