"""M9-LAB-APP-B: the steps of its runbook, the last `make run`, and a fresh process for a check that needs one.

The check functions of its exercises are in `lab_app_b_exercises.py` and `lab_app_b_rollback.py`, its figures in
`lab_app_b_figures.py`.
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .execution import fresh_environment
from .order import RUN_ORDER

#: Where `make run` keeps its outcome.
LAST_RUN = Path(__file__).resolve().parents[2] / "results" / "run.json"


@dataclass(frozen=True)
class Step:
    """One step of the runbook: what is asked at its gate, and the labs that teach to answer."""

    title: str
    question: str
    labs: tuple[str, ...]


STEPS = (
    Step("0 pre-flight", "does it fit, and why this one?", ("M9-LAB-06",)),
    Step("1 sources", "one model, whatever the file?", ("M9-LAB-01", "M9-LAB-APP-A", "M9-CODE-01")),
    Step("2 conversion", "the same logits, there and back?", ("M9-LAB-02", "M9-LAB-03")),
    Step("3 families", "do all pass one harness?", ("M9-LAB-04", "M9-LAB-05", "M9-LAB-06", "M9-CODE-02")),
    Step("4 validation", "five layers, and can they say no?", ("M9-LAB-08",)),
    Step("5 bridge", "does it learn, and resume?", ("M9-LAB-07",)),
    Step("6 manifest", "the same again, elsewhere?", ("M9-LAB-09",)),
    Step("7 hand-off", "is it taken over, and only it?", ("M9-LAB-APP-C",)),
)


def run_fresh(*arguments: object) -> tuple[int, str]:
    """`python -m course_helpers ...` in a process of its own: its exit status, and what it printed.

    Raises RuntimeError with the process's own message if it printed nothing but errors.
    """
    environment = fresh_environment(PYTHONIOENCODING="utf-8")
    command = [sys.executable, "-m", "course_helpers", *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if not result.stdout:
        raise RuntimeError(f"the fresh process ended with status {result.returncode}:\n{result.stderr.strip()}")
    return result.returncode, result.stdout.strip()


@dataclass(frozen=True)
class LabStatus:
    """What the last `make run` says of one lab."""

    lab: str
    outcome: str  # passed, FAILED, or not run
    passed: int
    checkpoints: int
    seconds: float | None


def last_run(path: Path = LAST_RUN) -> list[LabStatus]:
    """Every lab in run order with its outcome in the last `make run`; nothing where there was none yet."""
    if not path.exists():
        return []
    found = {outcome["lab"]: outcome for outcome in json.loads(path.read_text(encoding="utf-8"))["labs"]}
    return [status_of(lab, found.get(lab)) for lab in RUN_ORDER]


def status_of(lab: str, outcome: dict | None) -> LabStatus:
    if outcome is None:
        return LabStatus(lab, "not run", 0, 0, None)
    held = [checkpoint["passed"] for checkpoint in outcome["checkpoints"]]
    return LabStatus(lab, "passed" if outcome["ok"] else "FAILED", sum(held), len(held), outcome["seconds"])


def last_run_table(path: Path = LAST_RUN) -> str:
    """`last_run` as a table, one lab a line, those that were not run together on the last; in words where there was no
    run yet."""
    return "\n".join(table_lines(last_run(path))) or "there is no results/run.json yet: `make run` writes it"


def table_lines(rows: list[LabStatus]) -> Iterator[str]:
    if rows:
        yield f"{'lab':<14}{'outcome':<10}{'checkpoints':<13}{'seconds':>7}"
    left_out = [row.lab for row in rows if row.seconds is None]
    for row in rows:
        if row.lab in left_out:
            continue
        held = f"{row.passed} of {row.checkpoints}" if row.checkpoints else ""
        yield f"{row.lab:<14}{row.outcome:<10}{held:<13}{row.seconds:>7.0f}"
    if left_out:
        yield textwrap.fill(f"not run: {', '.join(left_out)}", 92, subsequent_indent=" " * 9)
