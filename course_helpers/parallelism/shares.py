"""Which part of every parameter a process holds: arithmetic on the plan, without any process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..architectures.config import ModelConfig
from ..errors import CheckpointError, raise_all
from .plans import STYLES, Plan, Style


@dataclass(frozen=True)
class Cut:
    """Rows `start` to `stop` along one dimension."""

    dim: int
    start: int
    stop: int

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """What is left of a shape."""
        return (*whole[: self.dim], self.stop - self.start, *whole[self.dim + 1 :])


@dataclass(frozen=True)
class Share:
    """How one parameter is shared out."""

    module: str  # the one whose style it is
    style_name: str
    dim: int | None  # the dimension that is cut; None: every process has all of it
    parts: int  # how many different parts there are

    @property
    def style(self) -> Style:
        return STYLES[self.style_name]

    def cut(self, shape: tuple[int, ...], rank: int, size: int) -> Cut | None:
        """The part of process `rank` of `size`; None for all of it. As torch cuts: equal parts, the last ones smaller
        or empty."""
        if self.dim is None:
            return None
        whole = shape[self.dim]
        step = math.ceil(whole / self.parts)
        which = rank * self.parts // size  # neighbours share a part where there are fewer parts than processes
        return Cut(self.dim, min(which * step, whole), min((which + 1) * step, whole))


def shared_parts(config: ModelConfig, size: int) -> int:
    """Into how many parts the key/value heads are cut, for `size` processes."""
    return math.gcd(config.num_key_value_heads, size)


def share_out(plan: Plan, config: ModelConfig, shapes: Mapping[str, torch.Size], size: int) -> dict[str, Share]:
    """Every parameter's share, for `size` processes. Raises CheckpointError, with every problem attached, for
    parameters that no row leads to, and for those that cannot be cut into equal parts."""
    found = {name: share_of(name, plan, config, size) for name in shapes}
    raise_all(forgotten(name) for name, share in found.items() if share is None)
    wrong = misfits(found, config, shapes, size)
    if wrong:
        fitting = [count for count in range(1, config.num_attention_heads + 1) if fits(plan, config, shapes, count)]
        first = {count: name for name, count in reversed(wrong.items())}  # the same in every layer: said once
        raise_all(uncuttable(name, count, size, fitting) for count, name in reversed(first.items()))
    return found


def share_of(name: str, plan: Plan, config: ModelConfig, size: int) -> Share | None:
    """The share of one parameter: that of the longest row that leads to it. None where there is no such row."""
    words = name.split(".")
    numbered = ["*" if word.isdigit() else word for word in words]
    for count in range(len(words) - 1, 0, -1):
        row = ".".join(numbered[:count])
        if row in plan:
            style = STYLES[plan[row]]
            dim = style.cut.get(".".join(words[count:]))
            parts = 1 if dim is None else shared_parts(config, size) if style.shared else size
            return Share(".".join(words[:count]), plan[row], dim, parts)
    return None


def misfits(
    shares: Mapping[str, Share], config: ModelConfig, shapes: Mapping[str, torch.Size], size: int
) -> dict[str, str]:
    """The parameters that cannot be cut into equal parts, and how many rows or heads each has."""
    wrong = {}
    for name, share in shares.items():
        style = share.style
        if share.dim is None or style.uneven:
            continue
        count = shapes[name][share.dim] // (config.head_dim if style.heads else 1)
        if count % share.parts or (style.shared and share.parts != min(count, size)):
            wrong[name] = f"{count} {'heads' if style.heads else 'rows'}"
    return wrong


def fits(plan: Plan, config: ModelConfig, shapes: Mapping[str, torch.Size], size: int) -> bool:
    """Whether a model can be cut into `size` equal parts."""
    return not misfits({name: share_of(name, plan, config, size) for name in shapes}, config, shapes, size)


def forgotten(name: str) -> CheckpointError:
    return CheckpointError(
        "the family's plan does not say how to share this parameter out",
        tensor=name,
        expected="a row for every module, also for one that every process keeps whole",
        found="none that leads to it",
        cause="a family that was added without a plan, or with an incomplete one",
        next_step="add the row to the family's `parallel`; course_helpers/parallelism/plans.py has the others",
    )


def uncuttable(name: str, count: str, size: int, fitting: list[int]) -> CheckpointError:
    return CheckpointError(
        f"the model cannot be cut into {size} equal parts",
        tensor=name,
        expected=f"a multiple of {size} (of key/value heads, a divisor will do)",
        found=count,
        cause="another number of processes than this model's heads and widths allow",
        next_step=f"start {', '.join(map(str, fitting[:-1]))} or {fitting[-1]} processes"
        if fitting[1:]
        else "run it in one process",
    )
