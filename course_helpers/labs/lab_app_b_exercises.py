"""Check functions for exercises 1 and 2 of M9-LAB-APP-B: each failure names the likely mistake."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..validation import LAYERS, Check, ValidationReport
from .checkpoint import hint
from .exercises import answer

NoGo = Callable[[ValidationReport, Mapping[str, tuple[float, float]]], str]
LIMITS = {"loss_per_token": (0.2, 0.3), "tokens_per_second": (20.0, math.inf)}
MEASURED = {"seconds": 1.5, "tokens_per_second": 250.0, "loss_per_token": 0.25}


def report(failed: str | None = None, reached: int = len(LAYERS), **telemetry: float | None) -> ValidationReport:
    """A report of so many layers, one of which may have failed; None takes a measurement away."""
    checks = [Check(name, name != failed, "", 0.1) for name in list(LAYERS)[:reached]]
    measured = {name: value for name, value in (MEASURED | telemetry).items() if value is not None}
    return ValidationReport("a checkpoint", checks, measured)


def check_no_go(no_go: NoGo) -> None:
    """Exercise 1: the gate of a validation report, with limits for what was measured."""
    for given, limits, expected, case, advice in no_go_cases():
        found = answer(no_go, given, limits)
        hint(
            not isinstance(found, str),
            f'return a name, or "" for a go; you returned {found!r}. A bare False does not say what is amiss',
        )
        hint(found != expected, f"{case}: expected {expected!r}, got {found!r}. {advice}")
    print("Exercise 1: right. It says go when everything holds, and names what does not.")


def no_go_cases() -> list[tuple[ValidationReport, dict, str, str, str]]:
    """(report, limits, what must come back, what it stands for, what to think of)."""
    cut = "It never got so far, so no check has failed; but who says that it would have passed?"
    return [
        (report(), LIMITS, "", "five layers passed, all within limits", "That is a go: what did you object to?"),
        (report(), {}, "", "five layers passed, no limits asked for", "That is a go."),
        (
            report("generation", 4),
            LIMITS,
            "generation",
            "layer 4 failed",
            "A layer that failed is the last that was reached: look at `ok` of each, and name the one that failed.",
        ),
        (report(reached=3), LIMITS, "generation", "interrupted after three layers that passed", cut),
        (report(reached=0), LIMITS, "files", "nothing was reached", "all([]) is True. " + cut),
        (
            report(loss_per_token=0.31),
            LIMITS,
            "loss_per_token",
            "a loss above its limit",
            "Layers are not all: the limits count, too.",
        ),
        (
            report(loss_per_token=0.1),
            LIMITS,
            "loss_per_token",
            "a loss below its limit",
            "Too good is suspicious as well: `low` is a limit, too.",
        ),
        (report(loss_per_token=0.3), LIMITS, "", "a loss of exactly `high`", "The ends are included."),
        (report(loss_per_token=0.2), LIMITS, "", "a loss of exactly `low`", "The ends are included."),
        (
            report(tokens_per_second=None),
            LIMITS,
            "tokens_per_second",
            "a measurement is missing",
            "What was not measured is not within limits.",
        ),
        (
            report(loss_per_token=math.nan),
            LIMITS,
            "loss_per_token",
            "a loss that is NaN",
            "Every comparison with NaN is false, so `value > high` does not see it: ask whether it *is* within.",
        ),
        (
            report("shapes", 2, loss_per_token=9.0),
            LIMITS,
            "shapes",
            "a layer failed, and a limit is broken as well",
            "Layers come first: the loss of a model that fails them means nothing.",
        ),
        (
            report(loss_per_token=9.0, tokens_per_second=1.0),
            {"tokens_per_second": (20.0, math.inf), "loss_per_token": (0.2, 0.3)},
            "tokens_per_second",
            "two limits broken",
            "Name the first in the order of `limits`, not in that of the telemetry.",
        ),
    ]


PROJECT = {
    "hand-off": ("validation", "manifest"),
    "manifest": ("conversion", "validation"),
    "bridge": ("validation",),
    "validation": ("conversion", "families"),
    "families": ("sources",),
    "conversion": ("sources",),
    "sources": ("pre-flight",),
    "pre-flight": (),
}


def check_run_order(run_order: Callable[[Mapping[str, Sequence[str]]], Sequence[str]]) -> None:
    """Exercise 2: steps in an order that respects what each needs, or a refusal."""
    check_one_order(run_order, {"sources": ["pre-flight"], "pre-flight": []})
    check_one_order(run_order, {"hand-off": ["manifest", "validation"], "validation": [], "manifest": []})
    shuffle = random.Random(3)
    for needs in (*[PROJECT] * 4, *(made_up(shuffle) for _ in range(20))):
        steps = list(needs)
        shuffle.shuffle(steps)
        check_one_order(run_order, {step: [*needs[step]] for step in steps})
    waiting = {"sources": [], "validation": ["bridge"], "bridge": ["validation", "sources"]}
    refuses(run_order, waiting, "validation needs bridge, and bridge needs validation")
    refuses(run_order, {"sources": ["pre-flight"]}, "sources needs pre-flight, which is no step")
    refuses(run_order, {"bridge": ["bridge"]}, "bridge needs itself")
    print("Exercise 2: right. 26 projects in order, and three that cannot be are refused.")


def made_up(random_numbers: random.Random, steps: int = 12) -> dict[str, list[str]]:
    """A project of steps that need some of those before them."""
    names = [f"step {number}" for number in range(steps)]
    return {
        name: random_numbers.sample(names[:place], min(place, random_numbers.randrange(4)))
        for place, name in enumerate(names)
    }


def check_one_order(run_order: Callable, needs: dict[str, list[str]]) -> None:
    given = {step: list(before) for step, before in needs.items()}
    found: Any = answer(run_order, given)
    hint(given != needs, "your function has changed `needs`: whoever passed it will be surprised. Work on a copy")
    hint(not isinstance(found, list | tuple), f"expected a list of steps, got a {type(found).__name__}")
    missing = [step for step in needs if step not in found]
    hint(bool(missing), f"{missing[:1]} is not in your order: does your loop stop when nothing *new* became ready?")
    hint(len(set(found)) < len(found), "a step is there twice: two steps may need the same one, and it is done once")
    unknown = [step for step in found if step not in needs]
    hint(bool(unknown), f"{unknown[:1]} is no step of this project")
    for place, step in enumerate(found):
        late = [other for other in needs[step] if other not in found[:place]]
        hint(
            bool(late),
            f"{step!r} comes before {late[:1]}, which it needs. (Sorting by the *number* of needs does not do, and one "
            "pass over the steps does not either: a step can become ready after you have passed it)",
        )


def refuses(run_order: Callable, needs: dict[str, list[str]], why: str) -> None:
    """Hint unless a project without an order is refused with ValueError. Other errors show that it was not foreseen."""
    found: Any = None
    try:
        found = answer(run_order, {step: list(before) for step, before in needs.items()})
        refused = False
    except (KeyError, RecursionError, IndexError, TypeError) as error:
        hint(True, f"{why}: your function ends in a {type(error).__name__}. Raise ValueError, and say which steps wait")
    except ValueError:
        refused = True
    hint(not refused, f"{why}: there is no order, and yet you return {found!r}. Raise ValueError instead")
