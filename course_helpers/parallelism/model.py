"""What a model that is shared out over several ranks does in another way than a whole one."""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..architectures.base import LanguageModel
from ..architectures.cache import KVCache
from .ranks import Ranks


class SharedOut:
    """Put before a family's own class by `share_class`; to the outside the model is what it was."""

    ranks: Ranks
    key_value_heads: int  # of all that the model has, those that are here

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        with ordinary_tensors():
            output = super().forward(*arguments, **options)
            return output.full_tensor() if isinstance(output, DTensor) else output

    def make_cache(self, *arguments: Any, **options: Any) -> KVCache:
        with ordinary_tensors():
            return super().make_cache(*arguments, **options)

    @property
    def cache_layout(self) -> tuple[tuple[int | None, ...], int, int]:
        windows, _, head_dim = super().cache_layout
        return windows, self.key_value_heads, head_dim

    def any_seed(self) -> int:
        return self.ranks.gather(super().any_seed())[0]


@contextlib.contextmanager
def ordinary_tensors():
    """Out of torch's inference mode, if it is on: there, DTensor works out anew at every step what each linear layer
    has to send, which takes longer than the layer itself."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def share_class(model: LanguageModel, ranks: Ranks, key_value_heads: int) -> None:
    """Make a model one that is `SharedOut`, as torch's own fully_shard does it."""
    own = type(model)
    model.__class__ = type(f"SharedOut{own.__name__}", (SharedOut, own), {})
    model.ranks, model.key_value_heads = ranks, key_value_heads
