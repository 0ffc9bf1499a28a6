"""How a table of names is read: a `Rule` for each row, a `WeightMap` for the whole. The tables are in `weight_maps`.

Placeholders in names: `{trunk}` is the prefix some programs put before everything but the head (see
`WeightMap.trunks`), `{layer}` counts the blocks, `{expert}` the experts of a block. Every rule can be run backwards, so
the same table writes checkpoints, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..architectures.config import ModelConfig


@dataclass(frozen=True)
class Rule:
    """How one checkpoint tensor becomes one or more parameters, or a part of one."""

    #: Several targets: the checkpoint holds them one after the other along the output dimension.
    targets: tuple[str, ...]
    #: The checkpoint stores (input, output), as GPT-2's Conv1D does; nn.Linear wants (output, input).
    transpose: bool = False
    #: The checkpoint has a dimension of length 1 before the others, as TensorFlow's convolutions of width 1 do.
    squeeze: bool = False
    #: Set: rows of a head come in pairs (2 i, 2 i + 1), as in Meta's files; ours in halves (i, i + head_dim / 2).
    interleaved: bool = False
    #: Set: the tensor is one of several equal blocks of rows, (which, of how many), of one expert's matrix.
    rows: tuple[int, int] | None = None

    # Filled in when the table is expanded for a model.
    expert: int | None = None
    head_dim: int = 0

    def to_ours(self, tensor: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        """The values that one checkpoint tensor holds for parameters of the given shapes. Views wherever possible."""
        tensor = self.turned(tensor)
        return list(tensor.split([self.shape_in(shape)[0] for shape in shapes])) if self.targets[1:] else [tensor]

    def turned(self, tensor: Tensor) -> Tensor:
        """A checkpoint tensor, or whole heads of one, as our parameters have it; not yet split."""
        if self.squeeze:
            tensor = tensor.squeeze(0)
        if self.transpose:
            tensor = tensor.T
        if self.interleaved:
            tensor = tensor.unflatten(0, (-1, self.head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
        return tensor

    def to_theirs(self, parameters: Sequence[Tensor]) -> Tensor:
        """The checkpoint tensor that holds these parameters: `to_ours` backwards."""
        tensor = torch.cat(list(parameters)) if len(parameters) > 1 else self.region(parameters[0])
        if self.interleaved:
            tensor = tensor.unflatten(0, (-1, 2, self.head_dim // 2)).transpose(1, 2).flatten(0, 2)
        tensor = tensor.T.contiguous() if self.transpose else tensor
        return tensor.unsqueeze(0) if self.squeeze else tensor

    def region(self, parameter: Tensor) -> Tensor:
        """The part of a parameter that this rule is about, as a view: all of it, or some rows of one expert."""
        if self.expert is None:
            return parameter
        which, count = self.rows
        return parameter[self.expert].chunk(count)[which]

    def shape_in(self, shape: torch.Size) -> tuple[int, ...]:
        """The shape of that part."""
        return tuple(shape) if self.expert is None else (shape[1] // self.rows[1], *shape[2:])

    def source_shape(self, shapes: Sequence[torch.Size]) -> tuple[int, ...]:
        """The shape that the checkpoint tensor must have, given the shapes of our parameters."""
        parts = [self.shape_in(shape) for shape in shapes]
        shape = (sum(part[0] for part in parts), *parts[0][1:])
        shape = shape[::-1] if self.transpose else shape
        return (1, *shape) if self.squeeze else shape

    @property
    def changes(self) -> bool:
        """Whether the tensor cannot be a parameter as it is: it is turned, cut, reordered, or put into a larger one."""
        return self.transpose or self.interleaved or self.expert is not None or len(self.targets) > 1

    def describe(self) -> str:
        """What is done to the tensor, in a word or two, for reports."""
        steps = ["squeeze"] * self.squeeze + ["transpose"] * self.transpose
        steps += [f"split in {len(self.targets)}"] * (len(self.targets) > 1)
        steps += ["pairs to halves"] * self.interleaved + [f"into expert {self.expert}"] * (self.expert is not None)
        return ", ".join(steps) or "as it is"


@dataclass(frozen=True)
class WeightMap:
    """One layout in which a family's checkpoints are written."""

    layout: str
    #: Name in the checkpoint -> name of our parameter, or a rule; None where the layout this one is derived from has
    #: a tensor and this one has not.
    rows: Mapping[str, str | Rule | None]
    #: What `{trunk}` may stand for. The first is what is written when a checkpoint is saved.
    trunks: tuple[str, ...] = ("",)
    #: Tensors that are left out on purpose: name pattern -> the reason. A pattern that ends in "*" is a prefix.
    dropped: Mapping[str, str] = field(default_factory=dict)

    def derive(self, rows: Mapping[str, str | Rule | None], **others: Any) -> "WeightMap":
        """This layout with some rows added, replaced or (None) taken away."""
        return replace(self, rows=self.rows | rows, **others)

    def expand(self, config: ModelConfig, trunk: str | None = None) -> dict[str, Rule]:
        """Every checkpoint tensor of a model of this size, in order, with its rule and its targets filled in."""
        rules = {}
        for pattern, row in self.rows.items():
            if row is None:
                continue
            rule = row if isinstance(row, Rule) else Rule((row,))
            head_dim = config.head_dim if rule.interleaved else 0
            for numbers in placeholders(pattern, config):
                targets = tuple(target.format(**numbers) for target in rule.targets)
                name = pattern.format(trunk=self.trunks[0] if trunk is None else trunk, **numbers)
                filled_in = {"targets": targets, "expert": numbers.get("expert"), "head_dim": head_dim}
                rules[name] = Rule(**vars(rule) | filled_in)  # a third of the time that dataclasses.replace takes
        return rules

    def expand_dropped(self, config: ModelConfig, trunk: str, names: Iterable[str]) -> dict[str, str]:
        """Those of the names that this layout leaves out on purpose, each with the reason."""
        exact, prefixes = {}, {}
        for pattern, reason in self.dropped.items():
            for numbers in placeholders(pattern, config):
                name = pattern.format(trunk=trunk, **numbers)
                (prefixes if name.endswith("*") else exact)[name.rstrip("*")] = reason
        within = {name: reason for name in names for start, reason in prefixes.items() if name.startswith(start)}
        return exact | within


def placeholders(pattern: str, config: ModelConfig) -> list[dict[str, int]]:
    """What the numbered placeholders of a pattern stand for, in order."""
    numbers: list[dict[str, int]] = [{}]
    for name, count in (("layer", config.num_hidden_layers), ("expert", getattr(config, "num_experts", 0))):
        if f"{{{name}}}" in pattern:
            numbers = [outer | {name: index} for outer in numbers for index in range(count)]
    return numbers
