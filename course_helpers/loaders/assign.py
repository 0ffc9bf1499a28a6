"""Plan, check everything, and only then assign.

A plan accounts for every tensor on both sides before a byte is copied: each checkpoint tensor is used, or dropped for
a stated reason, or refused; each parameter is filled exactly once. All problems are collected and raised together.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..architectures.config import ModelConfig
from ..errors import CheckpointError, raise_all
from .evidence import evidence_against
from .rules import Rule, WeightMap
from .sources import Checkpoint

EMBEDDING, HEAD = "token_embedding.weight", "output_head.weight"
Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Plan:
    """What will happen to every tensor of a checkpoint. Made by `make_plan`, which has checked it."""

    weight_map: WeightMap
    steps: dict[str, Rule]  # checkpoint name -> rule with our parameters' names
    dropped: dict[str, str]  # checkpoint name -> why it is left out
    shapes: Shapes  # of our parameters, by name


def make_plan(checkpoint: Checkpoint, weight_maps: tuple[WeightMap, ...], config: ModelConfig, shapes: Shapes) -> Plan:
    """Match a checkpoint with a model whose parameters have the given shapes.

    Raises CheckpointError, with every problem attached, for tensors that are missing, unexpected, or of a wrong shape
    or type, and for a second copy of a tied head that differs from the embedding.
    """
    weight_map, trunk, rules = choose_layout(checkpoint, weight_maps, config, shapes)
    with_head = {HEAD: shapes[EMBEDDING], **shapes}
    # A layout may have rows for parts that not every layer has: a layer has experts or an ordinary feed-forward.
    rules = {name: rule for name, rule in rules.items() if with_head.keys() >= set(rule.targets)}
    tied = {name for name, rule in rules.items() if rule.targets == (HEAD,) and HEAD not in shapes}
    dropped = weight_map.expand_dropped(config, trunk, checkpoint.names()) | dict.fromkeys(
        tied, "tied to the token embedding: the same values"
    )
    steps = {name: rule for name, rule in rules.items() if name not in tied}
    names, known = set(checkpoint.names()), steps.keys() | dropped.keys()
    problems = [unexpected(checkpoint, name, config) for name in checkpoint.names() if name not in known]
    problems += [missing(checkpoint, name, rule) for name, rule in steps.items() if name not in names]
    problems += [
        wrong
        for name, rule in rules.items()
        if name in names
        for wrong in tensor_problems(checkpoint, name, rule, with_head)
    ]
    if not problems:
        embedding = next(name for name, rule in steps.items() if EMBEDDING in rule.targets)
        problems += [
            differs(checkpoint, name, embedding) for name in tied & names if not same(checkpoint, name, embedding)
        ]
        left_out = [name for name in checkpoint.names() if name in dropped and name not in tied]
        problems += evidence_against(checkpoint, config, steps, left_out)
    # The most telling problem first: a wrong shape says more about the cause than the hundred tensors it drags along.
    raise_all(sorted(problems, key=lambda problem: problem.what != WRONG_SHAPE))
    filled = Counter()
    for rule in steps.values():
        for target in rule.targets:
            filled[target] += math.prod(rule.shape_in(shapes[target]))
    if filled != {name: shape.numel() for name, shape in shapes.items()}:
        raise AssertionError(f"the weight map {weight_map.layout!r} does not fill every parameter exactly once")
    return Plan(weight_map, steps, {name: dropped[name] for name in checkpoint.names() if name in dropped}, shapes)


def choose_layout(
    checkpoint: Checkpoint, weight_maps: tuple[WeightMap, ...], config: ModelConfig, shapes: Shapes
) -> tuple[WeightMap, str, dict[str, Rule]]:
    """The layout and the trunk prefix in which most of the checkpoint's names make sense, and the rules they lead to.
    Raises CheckpointError."""
    own = WeightMap("course_helpers", {name: name for name in shapes})
    names, choices, most = set(checkpoint.names()), [], -1
    for weight_map, trunk in ((one, trunk) for one in (*weight_maps, own) for trunk in one.trunks):
        choices.append(rules := weight_map.expand(config, trunk))
        matches = len(names & rules.keys())
        if matches > most:
            best, most = (weight_map, trunk, rules), matches
        if matches == len(names):
            break  # no other layout can explain more
    if not most:
        raise CheckpointError(
            "none of the tensor names belongs to this family",
            file=checkpoint.origin,
            expected=" or ".join(next(iter(rules)) for rules in choices),
            found=", ".join(sorted(names)[:3]) + ", ..." if names else "no tensors",
            cause="weights of one family beside the config.json of another",
            next_step="take config.json and the weights from the same place",
        )
    return best


WRONG_SHAPE = "a tensor has the wrong shape"


def tensor_problems(checkpoint: Checkpoint, name: str, rule: Rule, shapes: Shapes) -> list[CheckpointError]:
    """What is wrong with one tensor that is there."""
    expected, found = rule.source_shape([shapes[target] for target in rule.targets]), checkpoint.shape(name)
    where = {"file": checkpoint.where(name), "tensor": name}
    if found != expected:
        transposed = len(found) == 2 and found == expected[::-1]
        return [
            CheckpointError(
                WRONG_SHAPE,
                **where,
                expected=expected,
                found=found,
                cause="the matrix is stored transposed: another program's layout"
                if transposed
                else "the config.json of another size than the weights",
                next_step="take config.json and the weights from the same place",
            )
        ]
    dtype = checkpoint.dtype(name)
    if not dtype.is_floating_point or dtype.itemsize < 2:  # in 8 bits or fewer, a value means nothing without its scale
        return [
            CheckpointError(
                "a weight does not hold real numbers",
                **where,
                expected="a floating-point type of 16 bits or more",
                found=dtype,
                cause="a quantized checkpoint, or a damaged header",
                next_step="use the unquantized checkpoint",
            )
        ]
    return []


def missing(checkpoint: Checkpoint, name: str, rule: Rule) -> CheckpointError:
    untied = "config.json says that the head is not tied to the embedding (tie_word_embeddings), yet there is no head"
    return CheckpointError(
        "a tensor is missing",
        file=checkpoint.origin,
        tensor=name,
        expected=f"a tensor for {', '.join(rule.targets)}",
        found="no such name",
        cause=untied if rule.targets == (HEAD,) else "an incomplete file, or the config.json of a larger model",
        next_step="take config.json and the weights from the same place, and all shards of them",
    )


def unexpected(checkpoint: Checkpoint, name: str, config: ModelConfig) -> CheckpointError:
    layer = re.search(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.", name)
    beyond = layer and int(layer[1]) >= config.num_hidden_layers
    return CheckpointError(
        "the checkpoint holds a tensor that the model has no place for",
        file=checkpoint.where(name),
        tensor=name,
        expected=f"layers 0 to {config.num_hidden_layers - 1}" if beyond else "only tensors of this family",
        found=f"layer {layer[1]}" if beyond else f"shape {checkpoint.shape(name)}",
        cause="the config.json of a smaller model" if beyond else "weights of another family or variant",
        next_step="take config.json and the weights from the same place; leaving a tensor out would change the model",
    )


def same(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two tensors hold the same values. Two names of one live tensor need no look at the values."""
    if checkpoint.shape(first) != checkpoint.shape(second):
        return False
    one, other = checkpoint.map(first), checkpoint.map(second)
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def differs(checkpoint: Checkpoint, head: str, embedding: str) -> CheckpointError:
    return CheckpointError(
        "the output head is not the token embedding, though config.json says that they are tied",
        file=checkpoint.where(head),
        tensor=head,
        expected=f"the values of {embedding}",
        found="other values",
        cause="a model finetuned with a head of its own, or tie_word_embeddings changed by hand",
        next_step="set tie_word_embeddings to false in config.json if the head was trained",
    )


def set_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in a parameter's place without copying it."""
    *modules, attribute = name.split(".")
    # Straight into the module's own table: setattr would ask of each of some hundred tensors what kind of thing it is.
    functools.reduce(getattr, modules, model)._parameters[attribute] = nn.Parameter(tensor)
