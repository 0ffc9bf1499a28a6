"""Throw-away labs: written as text, and stored as if they had been executed, without starting a kernel."""

from pathlib import Path

import pytest

from course_helpers.labs.order import Lab
from course_helpers.labs.pair import content_digest, normalised, read_source, serialised

HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""
CHECKPOINT_CELL = """
# %%
from course_helpers.labs import validation_checkpoint

validation_checkpoint("{lab}", "one and one", 1 + 1 == {answer})
"""


@pytest.fixture
def write_lab(tmp_path):
    """write_lab(id, cells, answer=2): a lab of those percent cells; ``answer=None`` leaves out the checkpoint."""

    def write(lab_id: str = "M9-LAB-01", cells: str = "", answer: int | None = 2, header: str = HEADER) -> Lab:
        folder = tmp_path / "notebooks"
        folder.mkdir(exist_ok=True)
        source = folder / f"{lab_id}-throw-away.py"
        end = "" if answer is None else CHECKPOINT_CELL.format(lab=lab_id, answer=answer)
        source.write_text(header + "\n" + (cells + end).lstrip(), encoding="utf-8")
        return Lab(lab_id, source)

    return write


@pytest.fixture
def store():
    """store(lab, edit): write the lab's .ipynb as a build would, after ``edit(notebook)`` has spoilt something."""

    def write(lab: Lab, edit=lambda notebook: None) -> Path:
        notebook = read_source(lab)
        notebook.metadata["course"] = {"content_sha256": content_digest(notebook)}
        notebook = normalised(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count
        edit(notebook)
        lab.notebook.write_text(serialised(notebook), encoding="utf-8")
        return lab.notebook

    return write
