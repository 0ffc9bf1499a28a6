"""What is known about the first difference between two models, and the marks that a mistake of any kind leaves.

A mark is a function of the evidence. It returns None where it does not show, and otherwise the words for the blanks
in the text of a `Cause`.

Shape suffixes: B batch, T tokens, C features of any kind.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..architectures.config import ModelConfig
from .points import Point, exact

Words = dict[str, object] | None


@dataclass(frozen=True)
class Evidence:
    """The first point that differs, and everything that may say why."""

    point: Point
    ours: Tensor | None  # (B, T, C) in float64, or a parameter in its own shape; None: there was nothing to compare
    theirs: Tensor | None
    tolerance: float  # absolute
    same_input: bool  # both modules were given the same
    points: Sequence[Point]  # all of its kind, weights or values, in order
    config: ModelConfig

    @property
    def layer_type(self) -> str:
        """The type of the layer that the point is in."""
        place, _, rest = self.point.ours.partition(".")
        return rest if place == "rotary_embeddings" else self.config.layer_plan[int(rest.partition(".")[0])]

    @cached_property
    def position(self) -> int:
        """The first position at which the two differ."""
        worst_T = (self.ours - self.theirs).abs().amax(dim=(0, 2))
        return int((~(worst_T <= self.tolerance)).nonzero()[0])

    def close(self, one: Tensor, other: Tensor) -> bool:
        return one.shape == other.shape and bool((exact(one) - exact(other)).abs().max() <= self.tolerance)

    def near(self, name: str, what: str) -> Point | None:
        """The point at another module of ours."""
        return next((point for point in self.points if (point.ours, point.what) == (name, what)), None)

    def factors(self, dims: Sequence[int], heads_of: int | None = None) -> Tensor | None:
        """The factors from theirs to ours, if one number for each slice along `dims` is all the difference."""
        ours, theirs = self.ours, self.theirs
        if heads_of is not None:
            if ours.shape[-1] % heads_of:
                return None
            ours, theirs = (value.unflatten(-1, (-1, heads_of)) for value in (ours, theirs))
        if math.prod(ours.shape[dim] for dim in dims) < 2:
            return None  # a slice of one number is always a multiple
        factor = (ours * theirs).sum(dims, keepdim=True) / theirs.square().sum(dims, keepdim=True)
        return factor if bool((ours - factor * theirs).abs().max() <= self.tolerance) else None


@dataclass(frozen=True)
class Cause:
    """A way to go wrong: where it shows, by what mark, what it is, and what to look at."""

    place: str  # pattern of `Point.place`, or several with | between them
    mark: Callable[[Evidence], Words]
    text: str  # with blanks for the mark's words
    next_step: str


def always(evidence: Evidence) -> Words:
    return {}


def another_input(evidence: Evidence) -> Words:
    return None if evidence.same_input else {}


def multiple(evidence: Evidence) -> Words:
    factor = evidence.factors((0, 1, 2))
    return None if factor is None else {"factor": f"{float(factor):.5g}"}


def multiple_by_slice(evidence: Evidence) -> Words:
    """One factor for each head of a token or, failing that, for each token."""
    factors = evidence.factors((3,), heads_of=evidence.config.head_dim)
    factors = evidence.factors((2,)) if factors is None else factors
    return None if factors is None else {"low": f"{float(factors.min()):.4g}", "high": f"{float(factors.max()):.4g}"}
