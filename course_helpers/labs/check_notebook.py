"""Checks on a lab's ``.ipynb``: the half that readers see and that nbval compares with."""

from __future__ import annotations

import re
from collections.abc import Iterator

from course_helpers.labs.execution import SKIP_TAG
from course_helpers.labs.finding import Finding
from course_helpers.labs.order import Lab
from course_helpers.labs.pair import Cell, Notebook, normalised, relative, serialised, tags

# What must not be in an output or in code: a pattern, what it is, and how to avoid it.
FORBIDDEN_IN_CODE_CELLS = (
    (
        r"(?<![\w.:/-])/(?:root|home|work|tmp|Users)/|\b[A-Z]:\\(?:\w+\\|Users)|site-packages",
        "a path of this machine",
        "use and show relative paths",
    ),
    (r"\x1b\[", "a terminal escape code", "switch the colours of that output off"),
    (r"unhandled iopub", "a message of nbval's", "do not use clear_output or progress bars in a lab"),
)
FORBIDDEN_ANYWHERE = (
    (r"\bhf_[A-Za-z0-9]{20,}", "an access token", "revoke the token now, then read it from the environment"),
)


def check_execution_counts(lab: Lab, notebook: Notebook) -> Iterator[Finding]:
    """nbval silently compares nothing in a cell without execution count; counts other than 1..n are stale."""
    expected = 0
    for number, cell in _code_cells(notebook):
        if SKIP_TAG in tags(cell):
            continue
        expected += 1
        if cell.execution_count != expected:
            yield Finding(
                relative(lab.notebook),
                f"cell {number}",
                f"execution_count is {cell.execution_count}, expected {expected}",
                f"{lab.build_command} (an empty cell: remove it)",
            )


def check_errors(lab: Lab, notebook: Notebook) -> Iterator[Finding]:
    """An error is shown only where the lab means to show one."""
    for number, cell in _code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield Finding(
                    relative(lab.notebook),
                    f"cell {number}",
                    f"stored error {output.ename}: {output.evalue}",
                    f'correct the cell, or tag it "raises-exception"; then: {lab.build_command}',
                )


def check_forbidden(lab: Lab, notebook: Notebook) -> Iterator[Finding]:
    """Nothing of the machine or person that built the notebook stays in it."""
    for number, cell in enumerate(notebook.cells, start=1):
        texts = [cell.source, *_output_texts(cell)]
        rules = FORBIDDEN_ANYWHERE + (FORBIDDEN_IN_CODE_CELLS if cell.cell_type == "code" else ())
        for pattern, what, advice in rules:
            match = next(filter(None, (re.search(pattern, text) for text in texts)), None)
            if match:
                shown = "" if (pattern, what, advice) in FORBIDDEN_ANYWHERE else f" ({match[0]!r})"
                yield Finding(
                    relative(lab.notebook),
                    f"cell {number}",
                    f"{what}{shown} in its source or output",
                    f"{advice}; then: {lab.build_command}",
                )


def check_form(lab: Lab, notebook: Notebook) -> Iterator[Finding]:
    """The stored form is the one that a build writes: a rebuild shows in a diff only if something changed."""
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        problem = f"the kernelspec's name is {kernel!r}, expected 'python3'"
    elif serialised(notebook) != serialised(normalised(notebook)):
        problem = "holds metadata, cell ids or tracebacks that a build would not write"
    else:
        return
    yield Finding(relative(lab.notebook), "metadata", problem, lab.build_command)


NOTEBOOK_RULES = (check_execution_counts, check_errors, check_forbidden, check_form)


def _code_cells(notebook: Notebook) -> Iterator[tuple[int, Cell]]:
    return ((number, cell) for number, cell in enumerate(notebook.cells, start=1) if cell.cell_type == "code")


def _output_texts(cell: Cell) -> Iterator[str]:
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield output.get("evalue", "")
        yield "\n".join(output.get("traceback", []))
        for mime_type, value in output.get("data", {}).items():
            if not mime_type.startswith("image/"):  # base64 holds anything by chance
                yield value if isinstance(value, str) else repr(value)
