"""How many bytes a model takes, before there is one: weights, cache, activations, training. Each byte counted once.

Parameters are counted, and a forward pass is followed, on torch's meta device: there, tensors have shapes and no
memory. So the figures come from the model's own code, hold for every family, and cannot drift from it.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .architectures.base import LanguageModel
from .architectures.config import ModelConfig
from .families import family_of
from .sampling import MIB as MIB


def weight_bytes(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of a model's parameters: how many there are x bytes each. A tied head is the embedding, and so adds none.
    Not in it: the rotary frequencies, 2 x head dimension bytes for each type of layer."""
    return parameter_count(family_of(config.to_hf()).model, config) * dtype.itemsize


def parameter_count(family_model: type, config: ModelConfig) -> int:
    """Parameters of a model of this config, counted on the meta device: exact, and without memory."""
    return on_meta(family_model, config).num_parameters()


def kv_cache_bytes(config: ModelConfig, length: int, batch_size: int = 1, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of a cache for `length` positions: 2 (key and value) x key/value heads x head dimension x bytes each, for
    every position that a layer keeps: all of them, or at most its window."""
    kept = sum(min(length, config.window(layer_type) or length) for layer_type in config.layer_plan)
    return 2 * config.num_key_value_heads * config.head_dim * kept * batch_size * dtype.itemsize


def training_parts(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    """Bytes that stay for the whole of a training with AdamW, by what they are.

    AdamW's two moments (the running means of the gradient and of its square) have the type of the weights; beside them
    it counts the steps, 4 bytes a tensor. What is not in it: activations, which come and go with every batch.
    """
    model = on_meta(family_of(config.to_hf()).model, config)
    weights = model.num_parameters() * dtype.itemsize
    steps = 4 * sum(1 for _ in model.parameters())
    return {"weights": weights, "gradients": weights, "AdamW's moments": 2 * weights + steps}


def training_bytes(config: ModelConfig, dtype: torch.dtype = torch.float32) -> int:
    """The sum of `training_parts`: (1 weights + 1 gradients + 2 moments) x bytes each, 16 bytes a parameter in
    float32, and the step counters. The peak of one step is this and the activations kept for the backward pass."""
    return sum(training_parts(config, dtype).values())


def activation_bytes(
    config: ModelConfig,
    batch_size: int,
    tokens: int,
    dtype: torch.dtype = torch.bfloat16,
    last_only: bool = False,
) -> int:
    """Bytes of the largest set of tensors that are alive at one moment of an inference pass without a cache.

    Counted are the tensors that the model's own code makes, from the token ids' embeddings to the logits, each storage
    once and for as long as it is held; attention is one fused step, as it is on every device, and never writes its
    scores down. Not counted is what one operation needs inside itself. With many tokens it is the logits that decide,
    batch x tokens x vocabulary x bytes each, unless `last_only`; then the widest moment of one block: in a SwiGLU,
    3 x its width and 3 x the model's a token. The number of layers does not matter: no layer's tensors outlive it (but
    with `last_only` the last one takes less than the others).
    Raises NotImplementedError for experts whose rows are no multiple of 16 bytes (no released model has such): how
    they are computed then depends on the tokens.
    """
    model = on_meta(family_of(config.to_hf()).model, config).to(dtype).eval()
    ids_BT = torch.zeros(batch_size, tokens, dtype=torch.int64, device="meta")
    with torch.inference_mode(), WholeSteps(), AliveBytes([*model.parameters(), ids_BT]) as alive:
        model(ids_BT, last_only=last_only)
    return alive.peak


def on_meta(family_model: type[LanguageModel], config: ModelConfig) -> LanguageModel:
    """A model with shapes and without memory."""
    with torch.device("meta"):
        return family_model(config)


class WholeSteps(TorchFunctionMode):
    """Operations that devices do in one step, and that the meta device would take apart or refuse."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name == "scaled_dot_product_attention":
            return torch.empty_like(args[0])  # from queries to answers
        if name in ("grouped_mm", "_grouped_mm"):
            rows, matrices = args
            return rows.new_empty(rows.shape[0], matrices.shape[-1])
        return function(*args, **kwargs or {})


class AliveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that operations return, for as long as each lives; `peak` is the most that
    there was at once. Storages of tensors in `known` are left out."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.now, self.peak = 0, 0
        self.seen = {storage_key(tensor): None for tensor in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and storage_key(leaf) not in self.seen:
                self.follow(leaf.untyped_storage())
        return result

    def follow(self, storage: Any) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        self.now += nbytes
        self.peak = max(self.peak, self.now)
        self.seen[key] = weakref.finalize(storage, self.forget, key, nbytes)

    def forget(self, key: int, nbytes: int) -> None:
        del self.seen[key]
        self.now -= nbytes


def storage_key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
