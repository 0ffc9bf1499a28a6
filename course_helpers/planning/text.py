"""A plan for reading: a table of what can be run, the arithmetic of the best, and why the others were refused."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..dtypes import short
from ..loaders.hub_budget import readable
from .choices import Choice

if TYPE_CHECKING:
    from ..planner import Plan
    from .machines import Machine

WIDTH = 100  # columns
HEADINGS = ("model", "parameters", "type", "loading", "peak", "ms/token", "tokens/s")


def cells(choice: Choice, at_most: str) -> tuple[str, ...]:
    """One row of the table."""
    seconds = choice.seconds_per_token
    speed = ("", "") if seconds is None else (f"{seconds * 1e3:.1f}", f"{at_most}{1 / seconds:.3g}")
    count = f"{choice.parameters / 1e9:.2f} B"
    return (choice.hub_id, count, short(choice.dtype), choice.strategy, readable(choice.peak), *speed)


def plan_text(plan: "Plan") -> str:
    lines = [title(plan), ""]
    if plan.best is None:
        lines.append("Nothing fits.")
    else:
        lines += [*table(plan.choices, plan.request.machine), "", *arithmetic(plan)]
    if plan.refused:
        lines += ["", "Refused:", *refusals(plan)]
    return "\n".join(lines)


def title(plan: "Plan") -> str:
    request = plan.request
    machine, work = request.machine, request.work
    wanted = f", at least {request.tokens_per_second:g} tokens/s" if request.tokens_per_second else ""
    rows = f" in {work.batch_size} rows" if work.batch_size > 1 else ""
    text = f"To {request.objective.title}: {work.context:,} tokens{rows}{wanted}. "
    text += f"On {machine.name}: {readable(machine.memory)} of memory; {machine.source}."
    return textwrap.fill(text, WIDTH)


def table(choices: Sequence[Choice], machine: "Machine") -> list[str]:
    """Words to the left, figures to the right."""
    rows = [HEADINGS, *(cells(choice, "" if machine.measured else "<= ") for choice in choices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    words = (0, 2, 3)
    return [
        "  ".join(
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def arithmetic(plan: "Plan") -> list[str]:
    """How the figures of the best choice come about."""
    best, machine = plan.best, plan.request.machine
    lines = [f"The smallest that works: {best.hub_id}", f"  memory   {memory_sum(best, machine)}"]
    lines.append("  loading  " + bytes_of(best.loading, ", ") + " at the peak")
    if best.host:
        lines.append("  beside   " + bytes_of(best.host, ", ") + " of the computer's memory while loading")
    if best.seconds:
        lines.append(f"  time     {time_sum(best)}")
    lines.append(f"  begin    {best.line}")
    return [wrapped for line in lines for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent=" " * 11)]


def memory_sum(choice: Choice, machine: "Machine") -> str:
    total = sum(choice.memory.values())
    text = f"{bytes_of(choice.memory, ' + ')} = {readable(total)} of {readable(machine.memory)}"
    loading = choice.loading[choice.strategy]
    return text if loading <= total else f"{text}; while loading, {readable(loading)}"


def time_sum(choice: Choice) -> str:
    terms = [f"{seconds * 1e3:.1f} ms {name}" for name, seconds in choice.seconds.items() if seconds]
    return f"{' + '.join(terms)} = {choice.seconds_per_token * 1e3:.1f} ms a token"


def bytes_of(terms: Mapping[str, int], between: str) -> str:
    return between.join(f"{readable(size)} {name}" for name, size in terms.items())


def refusals(plan: "Plan") -> list[str]:
    """A line for each reason, with all models that it holds for."""
    models: dict[str, list[str]] = {}
    for refusal in plan.refused:
        reason = "; ".join(refusal.reasons)
        if refusal.remedies:
            reason += f" (would do: {'; '.join(refusal.remedies)})"
        models.setdefault(reason, []).append(refusal.hub_id)
    lines = [f"{', '.join(names)}: {reason}" for reason, names in models.items()]
    indents = {"initial_indent": "  ", "subsequent_indent": "      "}
    return [wrapped for line in lines for wrapped in textwrap.wrap(line, WIDTH, break_on_hyphens=False, **indents)]


def plan_markdown(plan: "Plan") -> str:
    """The table, and the sum of the best, for notebooks."""
    if plan.best is None:
        return "Nothing fits."
    machine = plan.request.machine
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    rows += [cells(choice, "" if machine.measured else "≤ ") for choice in plan.choices]
    return "\n".join(
        [*(f"| {' | '.join(row)} |" for row in rows), "", f"{plan.best.hub_id}: {memory_sum(plan.best, machine)}"]
    )
