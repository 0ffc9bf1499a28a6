"""``build``: executed, stored in one form, and never at the cost of what was there."""

import nbformat
import pytest

from course_helpers.labs.__main__ import main
from course_helpers.labs.build import build_lab
from course_helpers.labs.check import check_lab

CELLS = """
# %% [markdown]
# Twice the same cell:

# %%
print("hello")

# %%
print("hello")

# %% tags=["raises-exception"]
raise ValueError("meant")

# %% tags=["nbval-skip"]
raise SystemExit("only on a cluster")
"""


@pytest.fixture
def build(capsys):
    def run(lab, *options):
        status = main(["build", "--notebooks", str(lab.source.parent), lab.id, *options])
        return status, capsys.readouterr()

    return run


def test_a_rebuild_is_byte_identical_and_passes_the_check(write_lab, build):
    lab = write_lab(cells=CELLS)
    status, captured = build(lab)
    assert status == 0 and captured.out.startswith("built")
    first = lab.notebook.read_bytes()
    notebook = nbformat.read(lab.notebook, as_version=4)
    nbformat.validate(notebook)
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3, None, 4]
    assert notebook.cells[1].outputs[0].text == "hello\n"
    assert "VALIDATION CHECKPOINT M9-LAB-01" in notebook.cells[5].outputs[0].data["text/plain"]
    assert check_lab(lab) == []

    assert build_lab(lab) is False
    assert lab.notebook.read_bytes() == first


def test_a_failing_cell_is_shown_and_leaves_the_old_notebook(write_lab, store, build):
    lab = write_lab(cells="\n# %%\nx = 1\n\n# %%\nassert x == 2, 'x is one'\n", answer=None)
    before = store(lab).read_bytes()
    status, captured = build(lab)
    assert status == 1
    assert lab.notebook.read_bytes() == before
    assert "cell 2 failed: AssertionError: x is one" in captured.err
    assert "    assert x == 2, 'x is one'" in captured.err and "left as it was" in captured.err
    assert "\x1b" not in captured.err
    assert {path.suffix for path in lab.source.parent.iterdir()} == {".py", ".ipynb"}


def test_an_edit_made_only_in_the_notebook_is_not_destroyed(write_lab, store, build):
    lab = write_lab(cells="\n# %%\nx = 1\n", answer=None)
    edited = store(lab, lambda notebook: notebook.cells[0].update(source="x = 2")).read_bytes()
    status, captured = build(lab)
    assert status == 1 and lab.notebook.read_bytes() == edited
    assert "was edited since it was built" in captured.err and "--force" in captured.err

    assert build(lab, "--force")[0] == 0
    assert nbformat.read(lab.notebook, as_version=4).cells[0].source == "x = 1"


def test_a_cell_that_takes_too_long_is_a_failure(write_lab, build):
    lab = write_lab(cells="\n# %%\nimport time\ntime.sleep(60)\n", answer=None)
    status, captured = build(lab, "--cell-timeout", "1")
    assert status == 1 and "cell 1 failed: CellTimeoutError" in captured.err
    assert not lab.notebook.exists()
