"""What M9-LAB-02 uses beside its cells: the ledger's lines, checks of a milestone, and a way to put the lab's own model
before the package's debugger."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architectures.base import LanguageModel
from ..first_mismatch import MismatchReport, first_mismatch

TOLERANCE = 1e-5  # as a share of the largest value: float32 keeps about seven digits


@dataclass(frozen=True)
class Stage:
    """A line of the ledger: what a recipe has become, and what a freshly made model of it is like."""

    name: str
    recipe: Any  # the lab's own dataclass
    parameters: int
    change: int  # of the parameters, since the stage before
    loss: float  # nats per token, untrained
    checks: int  # that it passed: all there are, or it would not be in the ledger

    def record(self) -> dict[str, object]:
        """What the results file keeps: all but the recipe, whose parts are functions."""
        names = ("name", "parameters", "change", "loss", "checks")
        return {name: getattr(self, name) for name in names}


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors are equal up to rounding: by at most `tolerance` times the largest value."""
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def changed_fields(before: Any, after: Any) -> list[str]:
    """The fields in which two recipes differ."""
    return [field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)]


@torch.no_grad()
def loss(model: nn.Module, ids_BT: Tensor) -> float:
    """Mean surprise, nats, at each next token of a text."""
    return F.cross_entropy(model(ids_BT)[0, :-1], ids_BT[0, 1:]).item()


@torch.no_grad()
def sees_only_the_past(model: nn.Module, ids_BT: Tensor) -> bool:
    """Whether another last token leaves the logits of all tokens before it as they are, and changes its own."""
    other_BT = ids_BT.clone()
    other_BT[:, -1] = (other_BT[:, -1] + 1) % model(ids_BT).shape[-1]
    one, other = model(ids_BT), model(other_BT)
    return close(other[:, :-1], one[:, :-1]) and not close(other[:, -1:], one[:, -1:])


def parameters_that_rest(model: nn.Module, ids_BT: Tensor) -> list[str]:
    """Parameters that no gradient reaches: they are in the model and not in its computation. Leaves no gradients."""
    model.zero_grad()
    F.cross_entropy(model(ids_BT)[0, :-1], ids_BT[0, 1:]).backward()
    rest = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    model.zero_grad()
    return rest


def debug(trusted: LanguageModel, model: nn.Module, ids: Tensor | Sequence[int]) -> MismatchReport:
    """The package's `first_mismatch` between a trusted model and the lab's own, whose modules have the same names."""
    model.config = trusted.config
    # The debugger tells models that are not the package's to do without a cache; ours has none, and need not be told.
    hook = model.register_forward_pre_hook(lambda module, args, options: (args, {}), with_kwargs=True)
    try:
        return first_mismatch(trusted, model, ids)
    finally:
        hook.remove()
        del model.config
