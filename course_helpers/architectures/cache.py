"""Remembering keys and values, and deciding who may look at whom.

Shape suffixes: B batch, T new tokens, S keys in sight (cached + new), K key/value heads, D head dimension.
"""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in memory that is taken once and never grows. No gradient flows through it."""

    window: int | None = None  # how many positions a query of this layer sees, its own included; None: all

    def __init__(self, cache: "KVCache", shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self.cache = weakref.proxy(cache)  # no circle: the memory is free as soon as nobody holds the cache
        self.key_BKSD = torch.zeros(shape_BKSD, dtype=dtype, device=device)
        self.value_BKSD = torch.zeros(shape_BKSD, dtype=dtype, device=device)

    @property
    def size(self) -> int:
        """Positions there is room for."""
        return self.key_BKSD.shape[2]

    def update(self, key_BKTD: Tensor, value_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new positions; return the keys and values that `visible_positions` lists. Mostly views: nothing is
        copied a second time (unless the cache was asked to store another type than the model computes in)."""
        # Without detach, every step's autograd graph would live as long as the cache.
        return (
            self.store(self.key_BKSD, key_BKTD.detach()).to(key_BKTD.dtype),
            self.store(self.value_BKSD, value_BKTD.detach()).to(value_BKTD.dtype),
        )

    def store(self, stored_BKSD: Tensor, new_BKTD: Tensor) -> Tensor:
        start, end = self.cache.length, self.cache.length + new_BKTD.shape[2]
        stored_BKSD[:, :, start:end] = new_BKTD
        return stored_BKSD[:, :, :end]


class SlidingLayerCache(LayerCache):
    """Keys and values of a sliding-window layer: a ring. Position p lies in slot p % size, and so takes the place of
    the position that has just left the window. However long the text, the cache holds one window."""

    def __init__(self, cache: "KVCache", shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device, window):
        rows, heads, length, head_dim = shape_BKSD
        super().__init__(cache, (rows, heads, min(window, length), head_dim), dtype, device)
        self.window = window

    def store(self, stored_BKSD: Tensor, new_BKTD: Tensor) -> Tensor:
        start, new_tokens = self.cache.length, new_BKTD.shape[2]
        end, kept = start + new_tokens, min(start, self.window - 1)
        if end <= self.size:  # the ring has not gone round yet
            stored_BKSD[:, :, start:end] = new_BKTD
            return stored_BKSD[:, :, :end] if new_tokens == 1 else stored_BKSD[:, :, start - kept : end]
        if new_tokens == 1:  # the ring as it lies: attention does not mind the order of the keys
            stored_BKSD[:, :, start % self.size] = new_BKTD[:, :, 0]
            return stored_BKSD
        old_slots = torch.arange(start - kept, start, device=new_BKTD.device) % self.size
        seen_BKSD = torch.cat((stored_BKSD[:, :, old_slots], new_BKTD.to(stored_BKSD.dtype)), dim=2)
        stays = min(new_tokens, self.size)
        new_slots = torch.arange(end - stays, end, device=new_BKTD.device) % self.size
        stored_BKSD[:, :, new_slots] = seen_BKSD[:, :, -stays:]
        return seen_BKSD


class KVCache:
    """The cache of a whole model. It owns the position: the model asks it where the next token goes.

    `windows` holds, for each layer, how many positions the layer looks back over, or None where it sees everything.
    `length` counts the positions that went through every layer. It moves only after the last layer has stored its
    part. `left_padding_B` is how many columns at the start of each row are padding (None: no row has any).
    """

    def __init__(
        self, windows: Sequence[int | None], shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ):
        self.batch_size, heads, self.max_length, head_dim = shape_BKSD
        self.layout = tuple(windows), heads, head_dim
        self.layers = [
            LayerCache(self, shape_BKSD, dtype, device)
            if window is None
            else SlidingLayerCache(self, shape_BKSD, dtype, device, window)
            for window in windows
        ]
        self.reset()

    @property
    def nbytes(self) -> int:
        """Bytes held, whether filled yet or not."""
        return sum(layer.key_BKSD.nbytes + layer.value_BKSD.nbytes for layer in self.layers)

    def check(self, batch_size: int, new_tokens: int, layout: tuple, model: int) -> None:
        """Raises ValueError if the next `new_tokens` positions of `batch_size` rows do not fit, if the cache is for
        another layout (windows, heads, head dimension), if the text in it was begun by another model (`model` is the
        id of the one that asks), or if the pass before this one broke off half-way."""
        if layout != self.layout:
            raise ValueError("the cache was made for another model; make one with this model's make_cache")
        if self.length and model != self.model:  # keys and values of one model mean nothing to another of equal shape
            raise ValueError("the text in the cache was begun by another model; call cache.reset() and begin it again")
        if batch_size != self.batch_size:
            raise ValueError(f"the cache was made for {self.batch_size} rows, but {batch_size} came in")
        if self.length + new_tokens > self.max_length:
            raise ValueError(
                f"the cache holds {self.max_length} positions, {self.length} are filled and {new_tokens} more came in; "
                f"make it longer: model.make_cache(batch_size={batch_size}, max_length={self.length + new_tokens})"
            )
        if self.overwriting:
            raise ValueError(
                "a forward pass with this cache broke off after it had overwritten positions that are still needed; "
                "call cache.reset() and begin the text again"
            )

    def begin(self, new_tokens: int, model: int | None = None) -> None:
        """Called by the model (`model`: its id) before its first layer stores anything."""
        self.model = model
        self.overwriting = any(self.length + new_tokens > layer.size for layer in self.layers)

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
        self.overwriting = False

    def reset(self) -> None:
        """Forget everything and start a new text in the same memory."""
        self.length = 0
        self.model: int | None = None
        self.left_padding_B: Tensor | None = None
        self.overwriting = False  # a pass is under way that takes the place of old positions in some ring


def visible_positions(
    start: int, new_tokens: int, window: int | None, max_length: int | None, device: torch.device
) -> Tensor:
    """The positions whose keys a layer attends over, (S,), in the order in which `LayerCache.update` returns them;
    `max_length` is the cache's, or None without a cache."""
    end = start + new_tokens
    if window is None or max_length is None:
        return torch.arange(end, device=device)
    size = min(window, max_length)
    if new_tokens > 1:
        return torch.arange(start - min(start, window - 1), end, device=device)
    if end <= size:
        return torch.arange(end, device=device)
    return start - (start - torch.arange(size, device=device)) % size


def attention_mask(
    start: int,
    new_tokens: int,
    left_padding_B: Tensor | None,
    device: torch.device,
    window: int | None = None,
    max_length: int | None = None,
) -> tuple[Tensor | None, bool]:
    """Who may look at whom: `(mask, is_causal)` for scaled_dot_product_attention.

    The query at position i sees the key at position j if j <= i, if j is not padding, and, in a layer with a window,
    if i - j < window: the window counts the query's own position. The mask is boolean, True where looking is allowed,
    of shape (B or 1, 1, T, S) over the `visible_positions`; it is None where SDPA needs none: a single new token sees
    everything that is kept for it, and a first pass without padding, within the window, is what `is_causal` means.
    """
    if left_padding_B is None:
        if new_tokens == 1:
            return None, False
        if start == 0 and (window is None or new_tokens <= window):
            return None, True
    query_T1 = torch.arange(start, start + new_tokens, device=device)[:, None]
    key_S = visible_positions(start, new_tokens, window, max_length, device)
    mask_TS = key_S <= query_T1
    if window is not None:
        mask_TS = mask_TS & (key_S > query_T1 - window)  # no difference of the two: that would be a square of int64
    if left_padding_B is None:
        return mask_TS[None, None], False
    # A padding query may look at itself: a softmax over nothing is NaN, and NaN would spread through the cache.
    real_BTS = (key_S >= left_padding_B[:, None, None]) | (key_S == query_T1)
    return (mask_TS & real_BTS)[:, None], False
