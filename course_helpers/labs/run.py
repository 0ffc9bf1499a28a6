"""``run``: execute every lab in order, headless, and show which validation checkpoints hold."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from course_helpers.labs.checkpoint import CHECKPOINT_MIME_TYPE
from course_helpers.labs.execution import (
    DEFAULT_CELL_TIMEOUT,
    CellFailure,
    code_cells,
    execute,
    kernel_environment,
)
from course_helpers.labs.order import Lab
from course_helpers.labs.pair import Cell, Notebook, read_source, relative
from course_helpers.labs.records import RESULTS_VARIABLE, provenance, write_json

TABLE_HEAD = ("lab", "validation checkpoint", "result", "seconds")


@dataclass(frozen=True)
class CheckpointResult:
    """One validation checkpoint as it came out, and the seconds since the one before it."""

    name: str
    passed: bool
    detail: str
    seconds: float


@dataclass
class LabRun:
    """What came out of executing one lab."""

    lab: str
    file: str
    checkpoints: list[CheckpointResult] = field(default_factory=list)
    failure: CellFailure | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """At least one checkpoint, all of them passed, and every cell ran to its end."""
        return self.failure is None and bool(self.checkpoints) and all(c.passed for c in self.checkpoints)


def run_lab(lab: Lab, notebook: Notebook, results_folder: Path, cell_timeout: int, tick: Callable) -> LabRun:
    """Execute one lab in memory; ``tick`` is called after every cell."""
    outcome = LabRun(lab.id, lab.source.name)
    began = previous = time.perf_counter()

    def after_cell(cell: Cell) -> None:
        nonlocal previous
        now = time.perf_counter()
        for record in _checkpoint_records(cell):
            wrong_lab = f"names {record['lab']}, but stands in {lab.id}" if record["lab"] != lab.id else ""
            passed = record["passed"] and not wrong_lab
            detail = wrong_lab or record["detail"]
            outcome.checkpoints.append(CheckpointResult(record["checkpoint"], passed, detail, now - previous))
            previous = now
        tick()

    environment = kernel_environment(**{RESULTS_VARIABLE: str(results_folder.resolve())})
    outcome.failure = execute(notebook, lab.source.parent, environment, cell_timeout, after_cell)
    outcome.seconds = time.perf_counter() - began
    return outcome


def run_labs(labs: Sequence[Lab], results_folder: Path, cell_timeout: int = DEFAULT_CELL_TIMEOUT) -> list[LabRun]:
    """Execute the labs one after the other, whatever fails, with a progress bar on stderr."""
    from tqdm import tqdm

    notebooks = {lab: read_source(lab) for lab in labs}
    cells_before = 0
    outcomes = []
    with tqdm(total=sum(len(code_cells(n)) for n in notebooks.values()), unit="cell", file=sys.stderr) as bar:
        for lab, notebook in notebooks.items():
            bar.set_description(lab.id)
            outcome = run_lab(lab, notebook, results_folder, cell_timeout, lambda: bar.update(1))
            cells_before += len(code_cells(notebook))
            bar.update(cells_before - bar.n)  # the cells a failure kept from running
            if outcome.failure:
                bar.write(f"{relative(lab.source)}: {outcome.failure}\n", file=sys.stderr)
            outcomes.append(outcome)
    return outcomes


def print_table(outcomes: Sequence[LabRun], stream: TextIO | None = None) -> None:
    """The outcome of a run, one row a checkpoint and one for whatever else went wrong."""
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    widths = [max(len(row[column]) for row in (TABLE_HEAD, *rows)) for column in range(len(TABLE_HEAD))]
    rule = tuple("-" * width for width in widths)
    for row in (TABLE_HEAD, rule, *rows):
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True))
        print(f"{left}  {row[-1].rjust(widths[-1])}", file=stream)
    failed = [outcome.lab for outcome in outcomes if not outcome.ok]
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all passed"
    count = sum(len(outcome.checkpoints) for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    labs = "1 lab" if len(outcomes) == 1 else f"{len(outcomes)} labs"
    summary = f"{labs}, {count} validation checkpoints, {seconds:.0f} seconds: {verdict}"
    print(f"\n{summary}", file=stream)


def write_record(outcomes: Sequence[LabRun], path: Path, complete: bool) -> bool:
    """Keep a run as JSON; ``complete`` says whether it covered every lab there is.

    A run of some labs never replaces the record of a run of all, which deck, runbook and timing plan are made from:
    then nothing is written, and False returned.
    """
    if not complete and path.exists() and json.loads(path.read_text(encoding="utf-8"))["complete"]:
        return False
    labs = [asdict(outcome) | {"ok": outcome.ok} for outcome in outcomes]
    record = {
        "ok": all(outcome.ok for outcome in outcomes),
        "complete": complete,
        "seconds": sum(outcome.seconds for outcome in outcomes),
        "provenance": provenance(),
        "labs": labs,
    }
    write_json(path, _rounded(record))
    return True


def _checkpoint_records(cell: Cell) -> Iterator[dict]:
    for output in cell.get("outputs", []):
        record = output.get("data", {}).get(CHECKPOINT_MIME_TYPE)
        if record is not None:
            yield record


def _rows(outcome: LabRun) -> Iterator[tuple[str, str, str, str]]:
    for checkpoint in outcome.checkpoints:
        result = "passed" if checkpoint.passed else f"FAILED {checkpoint.detail}".rstrip()
        yield outcome.lab, checkpoint.name, result, f"{checkpoint.seconds:.1f}"
    told = any(not checkpoint.passed for checkpoint in outcome.checkpoints)
    if outcome.failure and not told:
        where = f"(cell {outcome.failure.cell_number})"
        yield outcome.lab, where, f"ERROR {outcome.failure.error}", f"{outcome.seconds:.1f}"
    elif not outcome.checkpoints:
        yield outcome.lab, "(none)", "FAILED no validation checkpoint", f"{outcome.seconds:.1f}"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
