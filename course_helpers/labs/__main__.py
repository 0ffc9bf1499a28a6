"""The command line: ``python -m course_helpers.labs build | run | check | copies | publish | runbook [LAB ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from course_helpers.labs.build import build_labs
from course_helpers.labs.check import check_labs
from course_helpers.labs.copies import write_copies
from course_helpers.labs.execution import DEFAULT_CELL_TIMEOUT
from course_helpers.labs.order import NOTEBOOKS_FOLDER, LabError, find_labs, select_labs
from course_helpers.labs.pair import relative
from course_helpers.labs.publishing import publish
from course_helpers.labs.run import print_table, run_labs, write_record
from course_helpers.labs.runbook import write_runbook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0: all is well, 1: a lab failed or has findings, 2: it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        labs = find_labs(options.notebooks)
        if not labs:
            raise LabError(f"{options.notebooks}: holds no lab.\n  Next step: --notebooks FOLDER.")
        selected = select_labs(labs, options.labs)
        return 0 if options.command(options, selected, len(selected) == len(labs)) else 1
    except LabError as error:
        print(error, file=sys.stderr)
        return 2


def _build(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    return build_labs(labs, options.cell_timeout, options.force)


def _run(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    results_folder = options.results or options.notebooks.resolve().parent / "results"
    outcomes = run_labs(labs, results_folder, options.cell_timeout)
    print_table(outcomes)
    record = results_folder / "run.json"
    if not write_record(outcomes, record, complete):
        print(f"{relative(record)} keeps the last run of all labs.", file=sys.stderr)
    return all(outcome.ok for outcome in outcomes)


def _check(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    return check_labs(labs)


def _copies(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    folder = options.output or options.notebooks.resolve().parent / ("colab" if options.colab else "learner")
    write_copies(labs, folder, options.solutions, options.colab)
    return True


def _publish(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    publish(find_labs(options.notebooks), options.notebooks.resolve().parent)
    return True


def _runbook(options: argparse.Namespace, labs: list, complete: bool) -> bool:
    write_runbook(find_labs(options.notebooks), options.notebooks.resolve().parent)
    return True


COMMANDS = (
    ("build", _build, "execute each lab's .py and store it, with its outputs, as .ipynb"),
    ("run", _run, "execute every lab in order and show its validation checkpoints; writes results/run.json"),
    ("check", _check, "compare the two files of each lab, find what must not be in them; executes nothing"),
    ("copies", _copies, "write copies for learners, without solutions and outputs; with --colab for Google Colab"),
    ("publish", _publish, "write what the public repository's badges open, and the badges; see pyproject.toml"),
    ("runbook", _runbook, "make runbook.md's table of steps anew, from the labs and results/run.json"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course_helpers.labs", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parsers = {}
    for name, command, help_text in COMMANDS:
        parsers[name] = sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=command)
        sub.add_argument("labs", nargs="*", metavar="LAB", help="id, path or prefix; default: all")
        sub.add_argument("--notebooks", type=Path, default=NOTEBOOKS_FOLDER, metavar="FOLDER")
    for name in ("build", "run"):
        parsers[name].add_argument(
            "--cell-timeout", type=int, default=DEFAULT_CELL_TIMEOUT, metavar="SECONDS", help="for one cell"
        )
    parsers["build"].add_argument("--force", action="store_true", help="overwrite a hand-edited .ipynb")
    parsers["run"].add_argument("--results", type=Path, metavar="FOLDER", help="default: ../results")
    copies = parsers["copies"]
    copies.add_argument("--colab", metavar="ADDRESS", help="begin with a cell that fetches the course from ADDRESS")
    copies.add_argument("--solutions", action="store_true", help="keep solutions and outputs")
    copies.add_argument("--output", type=Path, metavar="FOLDER", help="default: ../learner, or ../colab")
    return parser


if __name__ == "__main__":
    # Output that Windows redirects to a file gets an old code page, which cannot write every lab's words.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
