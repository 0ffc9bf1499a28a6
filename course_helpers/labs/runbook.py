"""``runbook``: the table of steps in runbook.md, out of the one order of the labs and the last complete run."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from course_helpers.labs.check_source import checkpoint_calls
from course_helpers.labs.order import STAGES, Lab, LabError
from course_helpers.labs.pair import relative
from course_helpers.labs.records import write_text

BEGIN, END = "<!-- steps: made by python -m course_helpers.labs runbook -->", "<!-- end of steps -->"
HEAD = "| Step | Lab | Command | Validation checkpoints | Seconds |\n|---|---|---|---|---|"
SET_UP = "| 0 | set-up | `make run` (first time) | the table appears | a few minutes, once |"


def checkpoint_names(lab: Lab) -> list[str]:
    """The names of a lab's validation checkpoints, as they stand in its source."""
    calls = checkpoint_calls(ast.parse(lab.source.read_text(encoding="utf-8")))
    return list(dict.fromkeys(call.args[1].value for call in calls))


def steps_table(labs: Sequence[Lab], seconds: dict[str, float]) -> str:
    """One row a lab, in run order, with a row for every stage; ``seconds`` by lab id."""
    by_id = {lab.id: lab for lab in labs}
    rows, step = [HEAD, SET_UP], 0
    for stage, ids in STAGES.items():
        here = [by_id[name] for name in ids if name in by_id]
        if here:
            rows.append(f"| | **{stage}** | | | |")
        for lab in here:
            step += 1
            took = f"{seconds[lab.id]:.0f}" if lab.id in seconds else "not run yet"
            names = "; ".join(checkpoint_names(lab))
            rows.append(f"| {step} | {lab.id} | `make run LABS={lab.id}` | {names} | {took} |")
    return "\n".join(rows)


def with_steps(text: str, labs: Sequence[Lab], run: dict) -> str:
    """The runbook's text with its table of steps made anew; ``run`` is what results/run.json holds."""
    seconds = {outcome["lab"]: outcome["seconds"] for outcome in run.get("labs", [])}
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise LabError(f"The runbook has no place for the steps.\n  Expected: the lines\n  {BEGIN}\n  {END}")
    return f"{before}{BEGIN}\n{steps_table(labs, seconds)}\n{END}{after}"


def write_runbook(labs: Sequence[Lab], root: Path) -> None:
    """Bring ``root/runbook.md`` up to date with the labs and with ``root/results/run.json``."""
    record = root / "results" / "run.json"
    run = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    path = root / "runbook.md"
    write_text(path, with_steps(path.read_text(encoding="utf-8"), labs, run))
    print(f"{'written':<10} {relative(path)}")
