"""Every exercise of every lab: the empty stub gets the friendly hint.

That the solutions pass is shown by nbval, which runs them with their checks; the hints for wrong answers are tested lab
by lab, in ``test_lab_….py``.
"""

import builtins
from functools import partial
from unittest.mock import MagicMock

import pytest

from course_helpers.labs import ExerciseHint
from course_helpers.labs.exercises import answer, called
from course_helpers.labs.order import find_labs
from course_helpers.labs.pair import read_source, tags

LABS = find_labs()
FEWEST = 3


def exercises(lab):
    """(exercise cell, check cell) of a lab: the check is the first code cell after the solution."""
    code = [cell for cell in read_source(lab).cells if cell.cell_type == "code"]
    return [
        (cell.source, code[index + 2].source)
        for index, cell in enumerate(code)
        if "exercise" in tags(cell) and "solution" in tags(code[index + 1])
    ]


class RestOfTheNotebook(dict):
    """What other cells define: an empty answer is told so before anything of it matters."""

    def __missing__(self, name):
        if hasattr(builtins, name):
            raise KeyError(name)
        return MagicMock(name=name)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_every_empty_exercise_is_told_so(lab, tmp_path):
    found = exercises(lab)
    assert len(found) >= FEWEST
    for stub, check in found:
        assert "raise NotImplementedError" in stub and "check" in check
        cells = RestOfTheNotebook(workspace=tmp_path)
        exec(stub, cells)
        with pytest.raises(ExerciseHint, match="still empty"):
            exec(check, cells)


def empty(x):
    raise NotImplementedError


@pytest.mark.parametrize(("function", "name"), [(empty, "empty"), (partial(empty), "your function")])
def test_an_empty_function_is_told_so_by_its_name(function, name):
    with pytest.raises(ExerciseHint, match=f"{name} is still empty"):
        called(function, 1)


def test_a_missing_return_is_told_so_and_an_answer_comes_back():
    with pytest.raises(ExerciseHint, match="print returned nothing: is there a return statement"):
        answer(print, "")
    assert answer(abs, -2) == 2 and called(print, "") is None
