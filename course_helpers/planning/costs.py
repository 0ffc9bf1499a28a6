"""What a model asks of a machine: the terms of its peak of memory, and what is read and done for one more token.

Everything is counted on the model itself, on torch's meta device, so that it holds for every family and cannot drift
from the code. How many bytes and operations a second a machine manages is another matter: `machines.py`.
"""

import dataclasses
import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..architectures.base import LanguageModel
from ..architectures.config import ModelConfig
from ..architectures.experts import MixtureOfExperts
from ..families import family_of
from ..sizes import WholeSteps, activation_bytes, kv_cache_bytes, on_meta, training_parts
from .forms import Matrix, matrices
from .machines import Speed

DEPTHS = ("num_hidden_layers", "n_layer")  # the field's two names


@dataclass(frozen=True)
class Work:
    """What is to be done with a model."""

    context: int  # positions, prompt and answer together
    batch_size: int = 1
    training: bool = False


@dataclass(frozen=True)
class Mixture:
    """The experts of one layer."""

    parameters: int  # of all of them
    experts: int
    used: int  # by each token

    def read(self, rows: int) -> float:
        """How many of them a step reads if every choice is equally likely: a row misses a certain one of X with
        probability 1 - k / X, and all rows miss it with that to the power of their number."""
        return self.experts * (1 - (1 - self.used / self.experts) ** rows)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model's parameters, by how they are used for one token; and its tensors, by how they are loaded."""

    config: ModelConfig
    parameters: int
    looked_up: int  # in tables of which a token reads one row: embeddings, unless they serve as the head, too
    mixtures: tuple[Mixture, ...]  # of the layers that have experts
    largest: int  # numbers in the largest tensor of the checkpoint
    largest_changed: int  # in the largest that cannot become a parameter as it is: turned, cut, or put together
    turned: tuple[Matrix, ...]  # what another form of weights changes, in its order

    @property
    def matrices(self) -> int:
        """Parameters that every token reads."""
        return self.parameters - self.looked_up - sum(mixture.parameters for mixture in self.mixtures)


def anatomy(config: ModelConfig) -> Anatomy:
    """Take a model apart, without memory."""
    model = on_meta(family_of(config.to_hf()).model, config)
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    mixtures = [module for module in model.modules() if isinstance(module, MixtureOfExperts)]
    tensors = stored_tensors(on_meta(type(model), shallow(config)))  # they are the same in every layer
    return Anatomy(
        config=config,
        parameters=model.num_parameters(),
        looked_up=sum(table.numel() for table in tables if table is not model.head_weight),
        mixtures=tuple(
            Mixture(
                sum(part.numel() for part in one.experts.parameters()), one.router.out_features, one.experts_per_token
            )
            for one in mixtures
        ),
        largest=max(size for size, _ in tensors),
        largest_changed=max((size for size, changed in tensors if changed), default=0),
        turned=matrices(model),
    )


def stored_tensors(model: LanguageModel) -> list[tuple[int, bool]]:
    """The tensors of the family's usual checkpoint: numbers in each, and whether it is changed on the way in."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    rules = family_of(model.config.to_hf()).weight_maps[0].expand(model.config).values()
    present = [rule for rule in rules if shapes.keys() >= set(rule.targets)]  # a tied model has no row for the head
    sizes = [torch.Size(rule.source_shape([shapes[target] for target in rule.targets])).numel() for rule in present]
    return [(size, rule.changes) for size, rule in zip(sizes, present, strict=True)]


@functools.cache
def operations(parts: Anatomy) -> int:
    """What torch is asked to do for one more token with a cache, counted. Each costs some microseconds, however small
    the tensors: that is most of the time of a small model. Counted on two shallow models: layers are alike."""
    few, more = (shallow(parts.config, times) for times in (1, 2))
    first, second = count_operations(few), count_operations(more)
    layers = parts.config.num_hidden_layers - few.num_hidden_layers
    return first + (second - first) * layers // few.num_hidden_layers


def count_operations(config: ModelConfig) -> int:
    model = on_meta(family_of(config.to_hf()).model, config).eval()
    cache, ids_BT = model.make_cache(1, 2), torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.inference_mode(), WholeSteps(), CountOperations() as counter:
        model(ids_BT, cache=cache, last_only=True)
    return counter.count


class CountOperations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **kwargs or {})


def loading_bytes(parts: Anatomy, dtype: torch.dtype, stored: torch.dtype, moved: bool = False) -> dict[str, int]:
    """By strategy, what loading needs beside the weights at its worst moment; the strategies' own account is in
    `loaders/strategies.py`. `moved`: onto another device, where no tensor stays as it was read. The bytes are then the
    computer's, and not the device's."""
    changed = parts.largest if moved or dtype != stored else parts.largest_changed
    numbers = {
        "stream": changed,
        "mmap": changed,
        "sequential": parts.largest,
        "naive": parts.parameters,
    }
    return {strategy: count * stored.itemsize for strategy, count in numbers.items()}


def running_bytes(parts: Anatomy, dtype: torch.dtype, work: Work) -> dict[str, int]:
    """The terms of the memory that a model takes while it works, by name. The largest moment of a text is its prompt,
    if that is long: it is taken to be the whole context. What training keeps for the backward pass is not foretold."""
    if work.training:
        return training_parts(parts.config, dtype)
    return {
        "weights": parts.parameters * dtype.itemsize,
        "KV cache": kv_cache_bytes(parts.config, work.context, work.batch_size, dtype),
        "activations": activations(parts, work.batch_size, work.context, dtype),
    }


@functools.cache
def activations(parts: Anatomy, rows: int, tokens: int, dtype: torch.dtype) -> int:
    layers = shallow(parts.config, times=2)  # twice, because the last block works for one position and takes less
    return activation_bytes(layers, rows, tokens, dtype, last_only=True)


def shallow(config: ModelConfig, times: int = 1) -> ModelConfig:
    """The same model with as few layers as have every type in them, or with some times as many."""
    depth = times * (1 + max(config.layer_plan.index(kind) for kind in set(config.layer_plan)))
    plan = {"layer_types": (config.layer_types * times)[:depth]} if hasattr(config, "layer_types") else {}
    return dataclasses.replace(config, **{name: depth for name in DEPTHS if name in vars(config)}, **plan)


def step_seconds(parts: Anatomy, dtype: torch.dtype, work: Work, speed: Speed) -> dict[str, float]:
    """The terms of the time of one step, in which every row of the batch gets a token, at the end of the context."""
    rows, size = work.batch_size, dtype.itemsize
    config, experts = parts.config, 0.0
    cache = kv_cache_bytes(config, work.context, rows, dtype)
    heads = config.num_attention_heads / config.num_key_value_heads
    for mixture in parts.mixtures:
        read = mixture.read(rows)
        numbers = mixture.parameters * read / mixture.experts
        experts += numbers * size / speed.bandwidth * speed.factor(rows * mixture.used / read)
        experts += mixture.experts * speed.expert
    return {
        "weights": parts.matrices * size / speed.bandwidth * speed.factor(rows),
        "experts": experts,
        "KV cache": cache * heads / speed.cache if speed.cache else cache / speed.bandwidth,
        "operations": operations(parts) * speed.operation if speed.operation else 0.0,
    }
