"""``build``: make a lab's ``.ipynb``, executed and in its stored form, out of its ``.py``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from course_helpers.labs.execution import DEFAULT_CELL_TIMEOUT, execute, kernel_environment
from course_helpers.labs.order import Lab, LabError
from course_helpers.labs.pair import (
    content_digest,
    edited_by_hand,
    normalised,
    read_source,
    relative,
    serialised,
)
from course_helpers.labs.records import write_text


def build_lab(lab: Lab, cell_timeout: int = DEFAULT_CELL_TIMEOUT, force: bool = False) -> bool:
    """Write the lab's ``.ipynb``; returns whether it changed. A failing cell: LabError, old file kept.

    An ``.ipynb`` with an edit that is not in the ``.py`` is refused, not overwritten, unless ``force``.
    """
    notebook = read_source(lab)
    if not force and edited_by_hand(lab, notebook):
        raise LabError(
            f"{relative(lab.notebook)}: was edited since it was built, and its source was not.\n"
            f"  Next step: carry the edit over to {lab.source.name},\n"
            f"  or drop it with: {lab.build_command} --force"
        )
    digest = content_digest(notebook)
    failure = execute(notebook, lab.source.parent, kernel_environment(), cell_timeout)
    if failure:
        raise LabError(f"{relative(lab.source)}: {failure}\n\n  {lab.notebook.name} was left as it was.")
    notebook.metadata["course"] = {"content_sha256": digest}
    text = serialised(normalised(notebook))
    changed = not lab.notebook.exists() or lab.notebook.read_text(encoding="utf-8") != text
    write_text(lab.notebook, text)
    return changed


def build_labs(labs: Sequence[Lab], cell_timeout: int = DEFAULT_CELL_TIMEOUT, force: bool = False) -> bool:
    """Build every lab, going on after a failure; returns whether all of them succeeded."""
    failed = 0
    for lab in labs:
        try:
            changed = build_lab(lab, cell_timeout, force)
        except LabError as error:
            failed += 1
            print(error, file=sys.stderr)
        else:
            print(f"{'built' if changed else 'unchanged':<10} {relative(lab.notebook)}")
    return failed == 0
