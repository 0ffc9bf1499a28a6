"""``copies``: the labs as learners get them, without solutions and outputs, and as Colab and Kaggle can open them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from course_helpers.labs.check_source import SOLUTION_TAG
from course_helpers.labs.order import Lab
from course_helpers.labs.pair import Cell, Notebook, normalised, read_notebook, relative, serialised, tags
from course_helpers.labs.records import write_text

#: Cells that a learner's copy leaves out: the solutions, and what is said about them.
LEFT_OUT = {SOLUTION_TAG, "solution-note"}
#: Both sites let a notebook write there, and neither saves it with the notebook.
COURSE_FOLDER = "/tmp/module9"
BOOTSTRAP = """\
# Fetches the course, and installs what is missing; PyTorch stays as it is. Run this cell first.
# In Kaggle: switch on Internet, in the settings on the right, before.
![ -e {folder} ] || git clone --quiet --depth 1{branch} "{address}" {folder}
%run {folder}/tools/colab.py"""


def without_solutions(notebook: Notebook) -> Notebook:
    """A copy to work in: no solutions, and no outputs, so that every prediction comes before its result."""
    result = copy.deepcopy(notebook)
    result.cells = [cell for cell in result.cells if not LEFT_OUT.intersection(tags(cell))]
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return normalised(result)


def for_colab(notebook: Notebook, address: str, folder: str = COURSE_FOLDER, tag: str | None = None) -> Notebook:
    """A copy that begins by fetching the repository at ``address``, an address that git can clone, to ``folder``."""
    result = copy.deepcopy(notebook)
    branch = f" --branch {tag}" if tag else ""
    result.cells.insert(0, _code_cell(BOOTSTRAP.format(address=address, folder=folder, branch=branch)))
    return normalised(result)


def write_copies(
    labs: Sequence[Lab], folder: Path, solutions: bool = False, address: str | None = None, tag: str | None = None
) -> None:
    """Write a copy of every lab's stored ``.ipynb`` to ``folder``, and say where each one is."""
    for lab in labs:
        notebook = read_notebook(lab)
        if not solutions:
            notebook = without_solutions(notebook)
        if address:
            notebook = for_colab(notebook, address, tag=tag)
        path = folder / lab.notebook.name
        write_text(path, serialised(notebook))
        print(f"{'written':<10} {relative(path)}")


def _code_cell(source: str) -> Cell:
    from nbformat.v4 import new_code_cell

    return new_code_cell(source)
