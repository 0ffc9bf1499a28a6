"""A cache for compiled decoding: nothing in it that the program can see changes from one token to the next.

A compiled step is a program for fixed shapes, and torch compiles it again when a Python number that it read changes. So
the position is a tensor here, attention gets the whole of the memory, and a mask says which of it counts.

Shape suffixes: B batch, S slots of a layer, K key/value heads, D head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .cache import KVCache


class StaticLayer:
    """Keys and values of one layer, and where the next ones go: a position that is a tensor."""

    def __init__(self, shape_BKSD: tuple[int, ...], dtype: torch.dtype, position_11: Tensor):
        self.key_BKSD = torch.zeros(shape_BKSD, dtype=dtype, device=position_11.device)
        self.value_BKSD = torch.zeros_like(self.key_BKSD)
        self.position_11 = position_11

    def update(self, key_BK1D: Tensor, value_BK1D: Tensor) -> tuple[Tensor, Tensor]:
        """Store one new position; return all keys and values, for attention under `StepMemory.mask`."""
        slot_1 = self.position_11[0] % self.key_BKSD.shape[2]
        return self.store(self.key_BKSD, slot_1, key_BK1D), self.store(self.value_BKSD, slot_1, value_BK1D)

    def store(self, stored_BKSD: Tensor, slot_1: Tensor, new_BK1D: Tensor) -> Tensor:
        stored_BKSD.index_copy_(2, slot_1, new_BK1D.to(stored_BKSD.dtype))
        return stored_BKSD.to(new_BK1D.dtype)


class StepMemory:
    """All that a compiled step reads and writes: its inputs, and the keys and values of every layer. Their values
    change, their places in memory never do, as CUDA graphs need it."""

    def __init__(
        self, windows: Sequence[int | None], shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ):
        rows, heads, self.room, head_dim = shape_BKSD
        self.token_ids_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.padding_B1 = torch.zeros_like(self.token_ids_B1)
        self.position_11 = torch.zeros(1, 1, dtype=torch.int64, device=device)
        shapes = [(rows, heads, self.slots(window), head_dim) for window in windows]
        self.layers = [StaticLayer(shape, dtype, self.position_11) for shape in shapes]

    def slots(self, window: int | None) -> int:
        """How many positions the layers of one window have room for."""
        return self.room if window is None else min(window, self.room)

    def aim(self, token_ids_B1: Tensor, position: int, left_padding_B: Tensor | None) -> None:
        """Set the inputs of the next step."""
        self.token_ids_B1.copy_(token_ids_B1)
        self.position_11.fill_(position)
        self.padding_B1.copy_(left_padding_B[:, None]) if left_padding_B is not None else self.padding_B1.zero_()

    def positions(self) -> Tensor:
        """Of the next step's tokens, (B, 1), padding not counted."""
        return (self.position_11 - self.padding_B1).clamp(min=0)

    def mask(self, window: int | None) -> Tensor:
        """Which slots the next step may look at, (B, 1, 1, S) bool, in the layers of one window.

        With the step's own token in its place, slot s holds the last position that lies there, in a ring or not:
        p - (p - s) % size. A negative one is a slot that no token has reached. A token of the padding sees itself.
        """
        size = self.slots(window)
        slots_1S = torch.arange(size, device=self.position_11.device)[None]
        held_1S = self.position_11 - (self.position_11 - slots_1S) % size
        return ((held_1S >= self.padding_B1) | (held_1S == self.position_11))[:, None, None]

    @property
    def tensors(self) -> list[Tensor]:
        keys_and_values = [tensor for layer in self.layers for tensor in (layer.key_BKSD, layer.value_BKSD)]
        return [self.token_ids_B1, self.padding_B1, self.position_11, *keys_and_values]


class StaticCache(KVCache):
    """A KVCache whose memory a compiled step can work on; for several tokens at once it is an ordinary one.

    It refuses what goes beyond `max_length`, as every cache does, but its memory has room for more: texts of many
    lengths share one compiled step. `nbytes` counts all of it.
    """

    def __init__(self, layout: tuple[tuple[int | None, ...], int, int], memory: StepMemory, max_length: int):
        windows, heads, head_dim = layout
        first = memory.layers[0].key_BKSD
        self.memory = memory
        super().__init__(windows, (first.shape[0], heads, memory.room, head_dim), first.dtype, torch.device("meta"))
        self.max_length = max_length

    def reset(self) -> None:
        """As for every cache; and what a slot held is gone. It would be masked, but not a NaN: 0 times NaN is NaN."""
        super().reset()
        for layer, static in zip(self.layers, self.memory.layers, strict=True):
            layer.key_BKSD, layer.value_BKSD = static.key_BKSD.zero_(), static.value_BKSD.zero_()
