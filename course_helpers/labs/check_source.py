"""Checks on a lab's ``.py``: the half that people edit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from course_helpers.labs.execution import SKIP_TAG
from course_helpers.labs.finding import Finding
from course_helpers.labs.order import Lab
from course_helpers.labs.pair import Notebook, relative, tags

LONGEST_CODE_CELL = 25  # lines
LONGEST_CODE_LINE = 96  # characters: what a notebook shows on a laptop without a scroll bar
CHECKPOINT_CALL = "validation_checkpoint"
EXERCISE_TAG, SOLUTION_TAG = "exercise", "solution"
UNCHECKED_TAGS = {SKIP_TAG, "nbval-ignore-output", "nbval-raises-exception", "raises-exception"}
NBVAL_COMMENT = re.compile(r"^\s*#+\s*(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE)


def check_header(lab: Lab, source: Notebook) -> Iterator[Finding]:
    """Without a kernelspec, Jupyter asks the learner for a kernel, and jupytext --execute finds none."""
    found = source.metadata.get("kernelspec", {}).get("name")
    if found != "python3":
        yield Finding(
            relative(lab.source),
            "header",
            f"the kernelspec's name is {found!r}, expected 'python3'",
            "start the file with a '# ---' header holding jupyter: kernelspec: {display_name: Python 3, "
            "language: python, name: python3}, as the other labs do",
        )


def check_code(lab: Lab, source: Notebook) -> Iterator[Finding]:
    """The file compiles, and it holds a validation checkpoint that names this lab."""
    try:
        tree = ast.parse(lab.source.read_text(encoding="utf-8"))
    except SyntaxError as error:
        yield Finding(
            relative(lab.source), f"line {error.lineno}", f"does not compile: {error.msg}", "correct the line"
        )
        return
    calls = checkpoint_calls(tree)
    if not calls:
        yield Finding(
            relative(lab.source),
            "file",
            "has no validation checkpoint",
            f'end with a cell calling {CHECKPOINT_CALL}("{lab.id}", "what holds", passed)',
        )
    for call in calls:
        named = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if named != lab.id:
            yield Finding(
                relative(lab.source),
                f"line {call.lineno}",
                f"the validation checkpoint names {named!r}, expected '{lab.id}'",
                f'write {CHECKPOINT_CALL}("{lab.id}", ...)',
            )
        if len(call.args) > 1 and not isinstance(call.args[1], ast.Constant):
            yield Finding(
                relative(lab.source),
                f"line {call.lineno}",
                "the validation checkpoint's name is computed, so the runbook cannot list it",
                f'write it out: {CHECKPOINT_CALL}("{lab.id}", "what holds", ...)',
            )


def check_cell_length(lab: Lab, source: Notebook) -> Iterator[Finding]:
    """A code cell is read in one go."""
    for number, cell in enumerate(source.cells, start=1):
        lines = len(cell.source.splitlines())
        if cell.cell_type == "code" and lines > LONGEST_CODE_CELL:
            yield Finding(
                relative(lab.source),
                f"cell {number}",
                f"{lines} lines of code, at most {LONGEST_CODE_CELL} expected",
                "split the cell, with a line of text between, or move code to course_helpers",
            )
        longest = max(map(len, cell.source.splitlines()), default=0)
        if cell.cell_type == "code" and longest > LONGEST_CODE_LINE:
            yield Finding(
                relative(lab.source),
                f"cell {number}",
                f"a line of code of {longest} characters, at most {LONGEST_CODE_LINE} expected",
                "break the line: readers do not scroll sideways",
            )


def check_comparison(lab: Lab, source: Notebook) -> Iterator[Finding]:
    """Nothing switches off the comparison of outputs unseen, and nothing at all where a checkpoint stands."""
    for number, cell in enumerate(source.cells, start=1):
        if cell.cell_type != "code":
            continue
        comment = NBVAL_COMMENT.search(cell.source)
        if comment:
            tag = comment[1].lower().replace("_", "-")
            yield Finding(
                relative(lab.source),
                f"cell {number}",
                f"the comment {comment[1]} steers nbval, but not build and run",
                f'use the tag instead: # %% tags=["{tag}"]',
            )
        unchecked = UNCHECKED_TAGS.intersection(tags(cell))
        if unchecked and f"{CHECKPOINT_CALL}(" in cell.source:
            yield Finding(
                relative(lab.source),
                f"cell {number}",
                f"a validation checkpoint whose outcome nobody checks (tag {', '.join(sorted(unchecked))})",
                "remove the tag, or move the checkpoint to a cell of its own",
            )


def check_exercises(lab: Lab, source: Notebook) -> Iterator[Finding]:
    """Every cell tagged 'exercise' is followed by its cell tagged 'solution', one to one."""
    tagged = [
        (number, tag)
        for number, cell in enumerate(source.cells, start=1)
        for tag in (EXERCISE_TAG, SOLUTION_TAG)
        if tag in tags(cell)
    ]
    for (_, before), (number, tag), (_, after) in zip(
        [(0, None), *tagged], tagged, [*tagged[1:], (0, None)], strict=False
    ):
        lonely = after != SOLUTION_TAG if tag == EXERCISE_TAG else before != EXERCISE_TAG
        if lonely:
            yield Finding(
                relative(lab.source),
                f"cell {number}",
                f"is tagged '{tag}', but has no partner",
                f"an '{EXERCISE_TAG}' cell comes first, then its one '{SOLUTION_TAG}' cell",
            )


SOURCE_RULES = (check_header, check_code, check_cell_length, check_comparison, check_exercises)


def checkpoint_calls(tree: ast.AST) -> list[ast.Call]:
    """Every call of ``validation_checkpoint`` in a lab's parsed source, from first to last line."""

    def called(call: ast.Call) -> str | None:
        return getattr(call.func, "id", getattr(call.func, "attr", None))

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and called(node) == CHECKPOINT_CALL]
    return sorted(calls, key=lambda call: call.lineno)
