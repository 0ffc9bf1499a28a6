"""Which model, how: from what somebody wants and what a machine has, with the arithmetic shown.

Constraints first, preference second: what does not fit is refused, with the term that is too large and what would make
it fit; of the rest, the smallest comes first. The models are the presets of FAMILIES, and every figure is worked out
from their configs (`planning/costs.py`) and from the machine (`planning/machines.py`, `planning/calibration.py`).
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from .architectures.packing import check_form
from .dtypes import short
from .families import FAMILIES
from .loaders.hub_budget import readable
from .planning.calibration import machine_of
from .planning.choices import STRATEGIES, Choice, estimate, stays_in_file
from .planning.costs import Anatomy, Work, anatomy
from .planning.family_checklists import checklist_of, version_of
from .planning.forms import FORMS
from .planning.machines import Machine
from .planning.objectives import OBJECTIVES, Objective
from .planning.text import memory_sum, plan_markdown, plan_text, time_sum


@dataclass(frozen=True)
class Refusal:
    """A model that was not chosen: why, and what would change that."""

    family: str
    hub_id: str
    parameters: int
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What was asked for, complete."""

    objective: Objective
    machine: Machine
    work: Work
    tokens_per_second: float | None = None
    dtype: torch.dtype | None = None  # None: any that the machine is good for
    strategy: str | None = None  # None: any
    weights: str = "plain"  # their form: one of WEIGHTS


@dataclass(frozen=True)
class Plan:
    """What can be run, the smallest first, and what cannot. `print` it for a table and the arithmetic of the best."""

    request: Request
    choices: tuple[Choice, ...]
    refused: tuple[Refusal, ...]

    @property
    def best(self) -> Choice | None:
        """The smallest that works; None if nothing does."""
        return self.choices[0] if self.choices else None

    def to_rows(self) -> list[dict[str, Any]]:
        return [choice.row() for choice in self.choices]

    def to_json(self) -> str:
        request, machine = self.request, self.request.machine
        asked = {
            "objective": request.objective.title,
            "machine": machine.name,
            "memory": machine.memory,
            "speeds": machine.source,
            "tokens_per_second": request.tokens_per_second,
            "weights": request.weights,
        }
        return json.dumps(
            {
                "request": asked | vars(request.work),
                "choices": self.to_rows(),
                "refused": [vars(refusal) for refusal in self.refused],
            },
            indent=2,
        )

    def __str__(self) -> str:
        return plan_text(self)

    def _repr_markdown_(self) -> str:
        return plan_markdown(self)


def plan(
    objective: str = "run",
    machine: str | Machine = "cpu",
    *,
    memory: int | None = None,
    context: int | None = None,
    batch_size: int | None = None,
    tokens_per_second: float | None = None,
    dtype: torch.dtype | None = None,
    strategy: str | None = None,
    family: str | None = None,
    weights: str = "plain",
) -> Plan:
    """Everything that can be run, the smallest first.

    `objective`: a row of OBJECTIVES; it settles `context` (tokens, prompt and answer together) and `batch_size` unless
    they are given. `machine`: "cpu", "cuda" or "mps" for this computer, whose speed is measured once; a name in
    MACHINES; or a Machine. `memory`: bytes, instead of the machine's own. `tokens_per_second`: at least so many, for
    every text of a batch. `dtype`, `strategy`, `family`: only this one. `weights`: their form, "plain", "packed" or
    "int8", as `load_model` has them. Raises ValueError for a name that there is not, for a form that a model cannot
    have, and for a speed that cannot be foretold.
    """
    for given, known, what in ((objective, OBJECTIVES, "objective"), (family, FAMILIES, "family")):
        if given is not None and given not in known:
            raise ValueError(f"unknown {what} {given!r}; there are: {', '.join(known)}")
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    numbers = {"memory": memory, "context": context, "batch_size": batch_size, "tokens_per_second": tokens_per_second}
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise ValueError(f"{name} must be above 0, not {number}")
    check_form(weights, dtype)
    row = OBJECTIVES[objective]
    if row.training and weights != "plain":
        raise ValueError(f"a model whose weights are {weights} cannot be trained")
    place = (machine_of(machine) if isinstance(machine, str) else machine).with_memory(memory)
    work = Work(context or row.context, batch_size or row.batch_size, row.training)
    untold = row.training or weights != "plain" or None in place.speeds.values()
    if tokens_per_second is not None and untold:
        raise ValueError("how fast this would be is not known, so no speed can be asked for")
    request = Request(row, place, work, tokens_per_second, dtype, strategy, weights)
    names = [family] if family else FAMILIES
    outcomes = [decide(request, name, hub_id) for name in names for hub_id in FAMILIES[name].presets]
    choices = sorted((one for one in outcomes if isinstance(one, Choice)), key=lambda choice: choice.parameters)
    return Plan(request, tuple(choices), tuple(one for one in outcomes if isinstance(one, Refusal)))


@functools.cache
def parts_of(family: str, preset: str) -> Anatomy:
    return anatomy(FAMILIES[family].presets[preset])


def decide(request: Request, family: str, preset: str) -> Choice | Refusal:
    """The preferred of all ways to run one size that fit, or why there is none."""
    parts, hub_id = parts_of(family, preset), version_of(FAMILIES[family], preset, request.objective.chat)
    reasons = tuple(unsuitable(request, family, hub_id, parts))
    if reasons:
        return Refusal(family, hub_id or preset, parts.parameters, reasons)
    if way := first_that_works(request, family, hub_id, parts):
        return way
    nearest = min(ways_of(request, family, hub_id, parts), key=lambda way: excess(way, request))
    remedies = tuple(remedies_for(request, family, hub_id, parts, nearest))
    return Refusal(family, hub_id, parts.parameters, obstacles(nearest, request), remedies)


def unsuitable(request: Request, family: str, hub_id: str | None, parts: Anatomy) -> Iterator[str]:
    """What speaks against a model whatever the machine."""
    objective, limit = request.objective, parts.config.max_position_embeddings
    if hub_id is None:
        yield f"has no {'chat' if objective.chat else 'base'} version"
    if parts.parameters < objective.parameters:
        yield f"below the {objective.parameters / 1e9:g} billion parameters that the objective asks for"
    if objective.ungated and FAMILIES[family].gated:
        yield "gated: asks for an account, and for its terms to be accepted"
    if request.work.context > limit:
        yield f"made for {limit:,} tokens, and {request.work.context:,} are asked for"
    if not types_for(request, family):
        unsafe = checklist_of(FAMILIES[family]).unsafe.get(request.dtype)
        needed = FORMS[request.weights].dtype
        form = f" and {request.weights} weights need, which is {short(needed)}" if needed else ""
        yield unsafe or f"no type of numbers that {request.machine.name} is good for{form}"


def types_for(request: Request, family: str) -> list[torch.dtype]:
    """The types to try, the preferred first: that of the files, then the smaller."""
    checklist = checklist_of(FAMILIES[family])
    safe = [dtype for dtype in request.machine.speeds if dtype not in checklist.unsafe]
    only = {request.dtype, FORMS[request.weights].dtype} - {None}
    allowed = [dtype for dtype in safe if only <= {dtype}]
    return sorted(allowed, key=lambda dtype: (dtype != checklist.stored, dtype.itemsize))


def ways_of(request: Request, family: str, hub_id: str, parts: Anatomy) -> Iterator[Choice]:
    """Every combination of type and strategy, the preferred first."""
    stored = checklist_of(FAMILIES[family]).stored
    for dtype in types_for(request, family):
        for strategy in STRATEGIES if request.strategy is None else (request.strategy,):
            named = (family, hub_id, parts, stored, request.machine, request.work)
            yield estimate(*named, dtype, strategy, request.weights)


def first_that_works(request: Request, family: str, hub_id: str, parts: Anatomy) -> Choice | None:
    ways = ways_of(request, family, hub_id, parts)
    return next((way for way in ways if not obstacles(way, request)), None)


def obstacles(way: Choice, request: Request) -> tuple[str, ...]:
    """What keeps a way from working on the machine, each with the arithmetic."""
    machine, wanted, found = request.machine, request.tokens_per_second, []
    if (over := way.peak - machine.memory) > 0:
        found.append(f"{readable(over)} too much: {memory_sum(way, machine)}")
    if machine.host is not None and (over := way.host[way.strategy] - machine.host) > 0:
        found.append(f"{readable(over)} too much beside the device, while loading with {way.strategy}")
    if wanted is not None and way.tokens_per_second < wanted:
        found.append(f"{way.tokens_per_second:.3g} tokens/s, {wanted:g} wanted: {time_sum(way)}")
    return tuple(found)


def excess(way: Choice, request: Request) -> float:
    """How far a way is from working: 1 is just."""
    slow = (request.tokens_per_second or 0) * (way.seconds_per_token or 0)
    return max(way.peak / request.machine.memory, slow)


def remedies_for(request: Request, family: str, hub_id: str, parts: Anatomy, nearest: Choice) -> Iterator[str]:
    """What would make a model fit, each alone: tried out, and not guessed."""
    works = functools.partial(first_that_works, family=family, hub_id=hub_id, parts=parts)
    if request.dtype and (way := works(replace(request, dtype=None))):
        yield f"dtype {short(way.dtype)}"
    if request.strategy and (way := works(replace(request, strategy=None))):
        yield f"strategy {way.strategy}"
    untold = request.work.training or request.tokens_per_second  # of int8, how fast it is
    if not untold and works(replace(request, weights="int8")):
        yield "weights int8"
    alone = nearest.memory["program"] + nearest.memory["weights"]
    for name, unit in (("context", "a context of {:,} tokens"), ("batch_size", "a batch of {}")):
        smaller = list(halves(getattr(request.work, name))) if alone < request.machine.memory else []
        tried = [replace(request, work=replace(request.work, **{name: number})) for number in smaller]
        if tried and works(tried[-1]):
            yield unit.format(next(number for number, one in zip(smaller, tried, strict=True) if works(one)))
    if lives_in_its_file(nearest, parts, request.machine, checklist_of(FAMILIES[family]).stored):
        yield "strategy mmap leaves the weights in the file: it runs, as slow as the disk"
    if nearest.peak > request.machine.memory:
        yield f"a machine with {readable(nearest.peak)} of memory"


def halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def lives_in_its_file(way: Choice, parts: Anatomy, machine: Machine, stored: torch.dtype) -> bool:
    """Whether everything but the weights would fit, and the weights could stay pages of their file."""
    rest = sum(size for name, size in way.memory.items() if name != "weights")
    unchanged = way.weights == "plain" and stays_in_file(parts, way.dtype, stored, machine)
    return unchanged and way.peak > machine.memory >= rest
