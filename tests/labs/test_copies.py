"""What learners get: labs without solutions, and copies that Colab can open."""

import nbformat
import pytest

from course_helpers.labs.__main__ import main
from course_helpers.labs.copies import for_colab, without_solutions
from course_helpers.labs.order import find_labs
from course_helpers.labs.pair import read_notebook, tags

CELLS = """
# %% [markdown]
# Try it. {words}

# %% tags=["exercise"]
def half(x):
    raise NotImplementedError

# %% [markdown] tags=["solution-note"]
# The solution is folded.

# %% tags=["solution"]
def half(x):
    return x / 2

# %%
print(half(4))
"""
LABS = find_labs()


@pytest.fixture
def lab(write_lab, store):
    lab = write_lab(cells=CELLS)

    def with_output(notebook):
        cell = next(cell for cell in notebook.cells if cell.source == "print(half(4))")
        cell.outputs = [nbformat.v4.new_output("stream", text="2.0\n")]

    store(lab, with_output)
    return lab


def sources(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


def test_a_learners_copy_has_neither_solutions_nor_outputs(lab):
    notebook = read_notebook(lab)
    copy = without_solutions(notebook)
    assert "return x / 2" in sources(notebook) and "2.0" in str(notebook)
    assert "return x / 2" not in sources(copy) and "folded" not in sources(copy) and "2.0" not in str(copy)
    assert "raise NotImplementedError" in sources(copy) and "print(half(4))" in sources(copy)
    nbformat.validate(copy)


def test_a_copy_for_colab_begins_with_the_course(lab):
    copy = for_colab(read_notebook(lab), "https://example.org/course.git")
    first = copy.cells[0]
    assert 'git clone --quiet --depth 1 "https://example.org/course.git" /tmp/module9' in first.source
    assert first.source.endswith("%run /tmp/module9/tools/colab.py")
    assert sources(copy).endswith(sources(read_notebook(lab)))
    nbformat.validate(copy)


@pytest.mark.parametrize(
    ("options", "folder", "solutions", "first"),
    [
        ([], "learner", False, "Try it."),
        (["--solutions"], "learner", True, "Try it."),
        (["--colab", "ADDRESS"], "colab", False, "git clone"),
    ],
)
def test_the_command_writes_them(lab, options, folder, solutions, first):
    assert main(["copies", "--notebooks", str(lab.source.parent), *options]) == 0
    written = nbformat.read(lab.source.parents[1] / folder / lab.notebook.name, as_version=4)
    assert ("return x / 2" in sources(written)) is solutions
    assert first in written.cells[0].source


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_no_solution_of_a_real_lab_stays(lab):
    notebook = read_notebook(lab)
    solutions = [cell.source for cell in notebook.cells if "solution" in tags(cell)]
    copy = without_solutions(notebook)
    assert len(solutions) >= 3
    assert len(copy.cells) <= len(notebook.cells) - len(solutions)
    assert not set(solutions) & {cell.source for cell in copy.cells}
    assert "folded" not in sources(copy), "a sentence about folded solutions needs the tag 'solution-note'"
