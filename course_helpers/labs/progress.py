"""A learner's own progress: which validation checkpoints have passed, kept in small files on this machine.

``validation_checkpoint`` calls ``remember`` in a notebook. Nothing is kept while tests or ``labs run`` execute the
labs, or where the variable COURSE_PROGRESS says ``off``; otherwise the variable may name another folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from course_helpers.labs.order import NOTEBOOKS_FOLDER, RUN_ORDER
from course_helpers.labs.records import write_json

VARIABLE, OFF = "COURSE_PROGRESS", "off"
#: Set by whatever executes labs for another purpose than learning: continuous integration and pytest.
EXECUTED_FOR_A_TEST = ("CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST")
FOLDER_NAME = "progress"
FULL, EMPTY, WIDTH = "#", ".", 12  # in every code page of Windows


def progress_folder() -> Path | None:
    """Where progress is kept: the repository's ``progress/``, what COURSE_PROGRESS names, or nowhere."""
    named = os.environ.get(VARIABLE, "")
    if named.lower() == OFF:
        return None
    if named:
        return Path(named).expanduser()
    return (NOTEBOOKS_FOLDER.parent if NOTEBOOKS_FOLDER.is_dir() else Path.cwd()) / FOLDER_NAME


def remember(lab: str, name: str) -> None:
    """Note that a checkpoint has passed, with the time it first did; a disk that refuses never stops a lab."""
    folder = progress_folder()
    if folder is None or lab not in RUN_ORDER or any(os.environ.get(key) for key in EXECUTED_FOR_A_TEST):
        return
    passed = passed_in(folder, lab)
    if name not in passed:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):
            write_json(folder / f"{lab}.json", passed | {name: now})


def passed_in(folder: Path, lab: str) -> dict[str, str]:
    """Checkpoint -> when it first passed; a file that is missing or was spoiled counts as empty."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / f"{lab}.json").read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def progress_table(folder: Path, names: Mapping[str, Iterable[str]]) -> str:
    """One line a lab: how many of its checkpoints (``names``, by lab) have passed, and which comes next."""
    lines, done, total, current = [], 0, 0, None
    for lab, expected in names.items():
        passed = passed_in(folder, lab)
        missing = [name for name in expected if name not in passed]
        count = len(list(expected))
        held = count - len(missing)
        bar = FULL * (held * WIDTH // count) + EMPTY * (WIDTH - held * WIDTH // count)
        state = "done" if not missing else f"next: {missing[0]}" if held else "not begun"
        lines.append(f"{lab:<12} {bar}  {held:>2} of {count:>2}  {state}")
        done, total = done + held, total + count
        current = current or (lab if missing else None)
    advice = f"Go on with {current}: make lab." if current else "All of them: well done."
    return "\n".join([*lines, "", f"{done} of {total} validation checkpoints have passed. {advice}"])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--forget", action="store_true", help="delete what was kept, and begin anew")


def run(arguments: argparse.Namespace) -> int:
    """``python -m course_helpers progress``."""
    from course_helpers.labs.order import find_labs
    from course_helpers.labs.runbook import checkpoint_names

    folder = progress_folder()
    if folder is None:
        print(f"Progress is not kept: {VARIABLE}={OFF}.")
        return 0
    if arguments.forget:
        for lab in RUN_ORDER:
            (folder / f"{lab}.json").unlink(missing_ok=True)
    print(progress_table(folder, {lab.id: checkpoint_names(lab) for lab in find_labs()}))
    print(f"Kept in {folder}, on this machine only. {VARIABLE}={OFF} keeps nothing, --forget begins anew.")
    return 0
