"""`first_mismatch`: two models of one checkpoint, walked side by side until they part ways.

The logits of a wrong model say that something is wrong. Its layers say what: the first module that returns something
else, though all before it agreed, is where to look.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .architectures.base import LanguageModel
from .architectures.config import ModelConfig
from .families import family_of
from .loaders.assign import HEAD, make_plan
from .loaders.sources import open_checkpoint
from .mismatch.causes import explain
from .mismatch.evidence import Evidence
from .mismatch.points import Point, by_token, exact, module_pairs, module_points, record, weight_points

#: How far two values may be apart, as a share of the largest value at their point.
TOLERANCES = {torch.float64: 5e-5, torch.float32: 5e-5, torch.float16: 5e-2, torch.bfloat16: 2.5e-1}
BEFORE, AFTER = 5, 2  # rows that are printed around the first mismatch


@dataclass(frozen=True)
class Row:
    """One compared point. The names are those of modules, or of parameters where `what` is "weight"."""

    layer: int | None
    ours: str
    theirs: str
    what: str  # "weight", "input", "output", ...
    difference: float  # the largest; infinity where only one of the two computes it, or where shapes differ
    tolerance: float
    size: float  # the largest value of theirs

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance  # false for NaN, too


@dataclass(frozen=True)
class MismatchReport:
    """What was compared, in order, and what the first difference means. Prints as a verdict, its causes and a table."""

    rows: tuple[Row, ...]  # parameters first, then what was computed
    position: int | None  # the first position at which the first mismatch shows, if it is one that has positions
    causes: tuple[tuple[str, str], ...]  # likely ones, the most telling first, each with a next step

    @property
    def first(self) -> Row | None:
        """The first point beyond its tolerance."""
        return next((row for row in self.rows if not row.ok), None)

    @property
    def ok(self) -> bool:
        return self.first is None

    def to_json(self) -> str:
        """The whole report; what is not finite becomes null."""
        content = {
            "ok": self.ok,
            "first": None if self.first is None else self.rows.index(self.first),
            "position": self.position,
            "causes": [{"cause": cause, "next_step": next_step} for cause, next_step in self.causes],
            "rows": [asdict(row) | {"ok": row.ok} for row in self.rows],
        }
        for row in content["rows"]:
            row |= {name: None for name, value in row.items() if value in (math.inf, -math.inf) or value != value}
        return json.dumps(content, indent=2)

    def __str__(self) -> str:
        if self.first is None:
            farthest = max(self.rows, key=lambda row: row.difference / row.tolerance if row.tolerance else 0.0)
            verdict = f"no mismatch: {counted(self.rows)} agree"
            return (
                f"{verdict}; farthest apart:\n{table([farthest])}" if farthest.difference else f"{verdict} to the bit"
            )
        ours, theirs = (name or "the model" for name in (self.first.ours, self.first.theirs))
        since = f", from position {self.position} on" if self.position else ""
        lines = [f"first mismatch: {ours} ({self.first.what}), in theirs {theirs}{since}"]
        for number, (cause, next_step) in enumerate(self.causes, start=1):
            lines += [f"  {number}. {cause}", f"     next: {next_step}"]
        lines += [f"{counted(self.rows[: self.rows.index(self.first)])} agree before it; around it:"]
        alike = [row for row in self.rows if (row.what == "weight") == (self.first.what == "weight")]
        index = alike.index(self.first)
        return "\n".join([*lines, table(alike[max(0, index - BEFORE) : index + 1 + AFTER])])


def counted(rows: Sequence[Row]) -> str:
    weights = sum(row.what == "weight" for row in rows)
    return f"{weights} parameters and {len(rows) - weights} values"


def table(rows: Sequence[Row]) -> str:
    """Rows as text; those beyond their tolerance are marked."""
    cells = [("", "ours", "theirs", "what", "difference", "tolerance", "size")]
    for row in rows:
        numbers = (f"{number:.1e}" for number in (row.difference, row.tolerance, row.size))
        cells.append(("" if row.ok else "x", row.ours or "(model)", row.theirs or "(model)", row.what, *numbers))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


@torch.no_grad()
def first_mismatch(
    ours: LanguageModel, theirs: nn.Module, token_ids: Tensor | Sequence[int], *, tolerance: float | None = None
) -> MismatchReport:
    """Compare a model of ours with transformers' model of the same checkpoint (or with another of ours), point by
    point, and name the first that differs and the likely causes.

    `token_ids`: (B, T), or one sequence; longer than the sliding window, or the window cannot show.

    First the parameters, which must be equal: what differs there is a matter of loading. Then one forward pass of
    each, and what modules were given and returned, in the order of theirs.

    `tolerance` is a share of the largest value at each point, for rounding errors grow with what is rounded. The
    default leaves room for them. In 840 small random models with nothing wrong they came to 6e-6 in float32 (5e-5 is
    allowed; in float64, too, where norms and rotary tables are float32), 2e-2 in float16 (5e-2) and 1.7e-1 in bfloat16
    (2.5e-1). So in half precision only coarse mistakes show, and a mixture of experts may part ways where two experts
    score nearly the same: take float32 where it can be had.

    Both models are left as they were. Raises ValueError if they are of different families, vocabularies, types or
    devices, or if one has parameters that the other has not (a CheckpointError, which names them).
    """
    check_comparable(ours, theirs)
    ids_BT = torch.as_tensor(token_ids, device=ours.device)
    ids_BT = ids_BT[None] if ids_BT.dim() == 1 else ids_BT
    relative = TOLERANCES[ours.dtype] if tolerance is None else tolerance
    parameters = {name: value.detach() for name, value in (*ours.named_parameters(), (HEAD, ours.head_weight))}
    tensors = theirs.state_dict()
    if isinstance(theirs, LanguageModel):
        tensors[HEAD] = theirs.head_weight
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    with open_checkpoint(tensors) as checkpoint:
        steps = make_plan(checkpoint, family_of(ours.config.to_hf()).weight_maps, ours.config, shapes).steps
    pairs = module_pairs(steps, parameters, theirs)
    options = {} if isinstance(theirs, LanguageModel) else {"use_cache": False}
    our_calls = record(ours, [pair.ours for pair in pairs], ids_BT)
    their_calls = record(theirs, [pair.theirs for pair in pairs], ids_BT, **options)
    weights, values = weight_points(steps, parameters, tensors), module_points(pairs, our_calls, their_calls)
    return judge(weights, values, relative, ids_BT, ours.config)


def check_comparable(ours: LanguageModel, theirs: nn.Module) -> None:
    """Raises ValueError for two models that could not give the same values."""
    family, their_type = ours.config.model_type, theirs.config.model_type
    their_weight = next(theirs.parameters())
    their_config = getattr(theirs.config, "text_config", theirs.config)  # a multimodal model: its language part
    properties = {
        "family": (family, family if their_type in ours.config.model_types() else their_type),
        "vocabulary size": (ours.config.vocab_size, their_config.vocab_size),
        "type": (ours.dtype, their_weight.dtype),
        "device": (ours.device, their_weight.device),
    }
    for name, (own, other) in properties.items():
        if own != other:
            raise ValueError(f"the two models differ in {name}: ours has {own}, theirs {other}; nothing was compared")


def judge(
    weights: list[Point], values: list[Point], relative: float, ids_BT: Tensor, config: ModelConfig
) -> MismatchReport:
    """Compare every point, and explain the first that differs."""
    rows, evidence = [], None
    for points, allowed in ((weights, 0.0), (values, relative)):
        for point in points:
            one, other = side_by_side(point.our_value, point.their_value, ids_BT, point.what)
            size = 0.0 if other is None else largest(other)
            row = Row(layer_of(point), point.ours, point.theirs, point.what, apart(one, other), allowed * size, size)
            rows.append(row)
            if evidence is None and not row.ok:
                given = side_by_side(point.our_input, point.their_input, ids_BT, "input")
                same_input = None in given or apart(*given) <= relative * largest(given[1])
                evidence = Evidence(point, one, other, row.tolerance, same_input, points, config)
    if evidence is None:
        return MismatchReport(tuple(rows), None, ())
    shows = evidence.point.what != "weight" and evidence.ours is not None
    return MismatchReport(tuple(rows), evidence.position if shows else None, tuple(explain(evidence)))


def layer_of(point: Point) -> int | None:
    return int(point.ours.split(".")[1]) if point.ours.startswith("blocks.") else None


def side_by_side(
    ours: Tensor | None, theirs: Tensor | None, ids_BT: Tensor, what: str
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Two values in the same shape: parameters as they are, the rest as (B, T, C) in float64, theirs in that reading
    which is nearest to ours. None where one is missing, or where no shape fits."""
    if ours is None or theirs is None:
        return None, None
    if what == "weight":
        return ours, theirs
    own = next(by_token(ours, ids_BT), None)
    fitting = [] if own is None else [value for value in by_token(theirs, ids_BT) if value.shape == own.shape]
    if not fitting:
        return None, None
    return exact(own), min(map(exact, fitting), key=lambda value: apart(exact(own), value))


def apart(one: Tensor | None, other: Tensor | None) -> float:
    """The largest difference; infinity where there is nothing to compare."""
    if one is None or other is None:
        return math.inf
    exact = torch.promote_types(one.dtype, torch.float32)
    return 0.0 if torch.equal(one, other) else largest(one.to(exact) - other.to(exact))


def largest(value: Tensor) -> float:
    low, high = value.aminmax()
    return max(float(high), -float(low))
