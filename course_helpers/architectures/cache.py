"""Remembering keys and values, and deciding who may look at whom.

Shape suffixes: B batch, T new tokens, S cached + new tokens, K key/value heads, D head dimension.
"""

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in memory that is taken once and never grows. No gradient flows through it."""

    def __init__(self, cache: "KVCache", shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.cache = cache
        self.key_BKSD = torch.zeros(shape_BKSD, dtype=dtype, device=device)
        self.value_BKSD = torch.zeros(shape_BKSD, dtype=dtype, device=device)

    def update(self, key_BKTD: Tensor, value_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new positions; return everything stored so far, as views: nothing is copied a second time (unless
        the cache was asked to store another type than the model computes in)."""
        start, end = self.cache.length, self.cache.length + key_BKTD.shape[2]
        # Without detach, every step's autograd graph would live as long as the cache.
        self.key_BKSD[:, :, start:end] = key_BKTD.detach()
        self.value_BKSD[:, :, start:end] = value_BKTD.detach()
        return self.key_BKSD[:, :, :end].to(key_BKTD.dtype), self.value_BKSD[:, :, :end].to(value_BKTD.dtype)


class KVCache:
    """The cache of a whole model. It owns the position: the model asks it where the next token goes.

    `length` counts the positions stored in every layer. It moves only after the last layer has stored its part, so a
    forward pass that fails half-way leaves the cache as it was. `left_padding_B` is how many columns at the start of
    each row are padding (None: no row has any).
    """

    def __init__(self, num_layers: int, shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.batch_size, _, self.max_length, _ = shape_BKSD
        self.layers = [LayerCache(self, shape_BKSD, dtype, device) for _ in range(num_layers)]
        self.length = 0
        self.left_padding_B: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held, whether filled yet or not."""
        return sum(layer.key_BKSD.nbytes + layer.value_BKSD.nbytes for layer in self.layers)

    def check_room(self, batch_size: int, new_tokens: int) -> None:
        """Raises ValueError if the next `new_tokens` positions of `batch_size` rows do not fit."""
        if batch_size != self.batch_size:
            raise ValueError(f"the cache was made for {self.batch_size} rows, but {batch_size} came in")
        if self.length + new_tokens > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} positions, {self.length} are filled and {new_tokens} more came in; "
                f"make it longer: model.make_cache(batch_size={batch_size}, max_length={self.length + new_tokens})"
            )

    def padding(self, left_padding_B: Tensor | None) -> Tensor | None:
        """The padding that holds for the next pass: the one given first. Raises ValueError for another one later."""
        if left_padding_B is None or self.length == 0:
            return self.left_padding_B if left_padding_B is None else left_padding_B
        if self.left_padding_B is None or not torch.equal(left_padding_B, self.left_padding_B):
            raise ValueError("the cache was begun with another left padding; give it on the first call only")
        return self.left_padding_B

    def advance(self, new_tokens: int, left_padding_B: Tensor | None) -> None:
        """Called by the model once every layer has stored `new_tokens` positions."""
        self.length += new_tokens
        self.left_padding_B = left_padding_B

    def reset(self) -> None:
        """Forget everything and start a new text in the same memory."""
        self.length = 0
        self.left_padding_B = None


def attention_mask(
    start: int, new_tokens: int, left_padding_B: Tensor | None, device: torch.device
) -> tuple[Tensor | None, bool]:
    """Who may look at whom: `(mask, is_causal)` for scaled_dot_product_attention.

    The query in column i = start + t sees the key in column j if j <= i and j is not padding. The mask is boolean,
    True where looking is allowed, of shape (B or 1, 1, T, S); it is None where SDPA needs none: a single new token
    sees everything before it, and a first pass without padding is what `is_causal` means.
    """
    if left_padding_B is None and (new_tokens == 1 or start == 0):
        return None, new_tokens > 1
    query_T1 = torch.arange(start, start + new_tokens, device=device)[:, None]
    key_S = torch.arange(start + new_tokens, device=device)
    mask_TS = key_S <= query_T1
    if left_padding_B is None:
        return mask_TS[None, None], False
    # A padding query may look at itself: a softmax over nothing is NaN, and NaN would spread through the cache.
    real_BTS = (key_S >= left_padding_B[:, None, None]) | (key_S == query_T1)
    return (mask_TS & real_BTS)[:, None], False
