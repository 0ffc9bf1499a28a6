"""``check``: a sound lab has no findings, and each thing that can be wrong has exactly its own."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from course_helpers.labs.__main__ import main
from course_helpers.labs.check import check_lab

SOUND = """
# %% [markdown]
# A sentence with /home/you/ in it, which is advice and no leak.

# %%
print("hello")

# %% tags=["exercise"]
answer = None

# %% tags=["solution"]
answer = 2

# %% tags=["nbval-skip"]
import only_on_a_cluster
"""


def _add_output(text):
    return lambda notebook: notebook.cells[1].outputs.append(new_output("stream", text=text))


def _set(key, value, cell=1):
    return lambda notebook: notebook.cells[cell].update({key: value})


def _add_error(notebook):
    notebook.cells[1].outputs.append(new_output("error", ename="ValueError", evalue="x", traceback=["ValueError: x"]))


DRIFT = {
    "source": (_set("source", "print('bye')"), "cell 2: another source"),
    "tags": (lambda n: n.cells[2].metadata.update(tags=["solution"]), "cell 3: another tags"),
    "type": (lambda n: n.cells.__setitem__(0, new_code_cell(n.cells[0].source)), "cell 1: another cell type"),
    "more cells": (lambda n: n.cells.append(new_markdown_cell("more")), "the notebook has more cells"),
    "fewer cells": (lambda n: n.cells.pop(), "the notebook has fewer cells"),
}
SPOILT = {
    "never executed": (_set("execution_count", None), "cell 2: execution_count is None, expected 1"),
    "executed twice": (_set("execution_count", 7), "cell 2: execution_count is 7, expected 1"),
    "error": (_add_error, "cell 2: stored error ValueError: x"),
    "home path": (_add_output("/home/somebody/x"), "a path of this machine ('/home/')"),
    "root path": (_add_output("'/root/x'"), "a path of this machine ('/root/')"),
    "work path": (_add_output("in /work/main"), "a path of this machine ('/work/')"),
    "temporary path": (_add_output("/tmp/x"), "a path of this machine ('/tmp/')"),
    "macOS path": (_add_output("/Users/x"), "a path of this machine ('/Users/')"),
    "Windows path": (_add_output("C:\\Users\\x"), "a path of this machine"),
    "installed package": (_add_output("lib/site-packages/x"), "a path of this machine"),
    "token": (_add_output("hf_" + "a" * 30), "an access token in its source or output"),
    "colours": (_add_output("\x1b[31mred"), "a terminal escape code"),
    "nbval's own words": (_add_output("unhandled iopub msg: clear_output"), "a message of nbval's"),
    "no kernel": (lambda n: n.metadata.pop("kernelspec"), "the kernelspec's name is None"),
    "version noise": (lambda n: n.metadata.update(jupytext={"version": 1}), "a build would not write"),
    "timestamps": (lambda n: n.cells[1].metadata.update(execution={"t": 1}), "a build would not write"),
    "random cell id": (_set("id", "abc"), "a build would not write"),
}


@pytest.fixture
def findings(write_lab, store):
    def find(cells=SOUND, edit=lambda notebook: None, **options):
        lab = write_lab(cells=cells, **options)
        store(lab, lambda notebook: (_unexecute_skipped(notebook), edit(notebook)))
        return [str(finding) for finding in check_lab(lab)]

    return find


def _unexecute_skipped(notebook):
    count = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            skipped = "nbval-skip" in cell.metadata.get("tags", [])
            count += not skipped
            cell.execution_count = None if skipped else count


def test_a_sound_lab_has_no_findings(findings):
    assert findings() == []


@pytest.mark.parametrize(("edit", "expected"), DRIFT.values(), ids=DRIFT)
def test_a_pair_that_drifted_apart_is_found(findings, edit, expected):
    found = findings(edit=edit)
    assert expected in found[0] and "python -m course_helpers.labs build M9-LAB-01" in found[0]


@pytest.mark.parametrize(("edit", "expected"), SPOILT.values(), ids=SPOILT)
def test_what_must_not_be_stored_is_found_once(findings, edit, expected):
    (found,) = findings(edit=edit)
    assert expected in found and "fix: " in found and "M9-LAB-01-throw-away.ipynb" in found


def test_a_token_is_not_repeated(findings):
    (found,) = findings(edit=_add_output("hf_" + "a" * 30))
    assert "hf_aaa" not in found


def test_a_meant_error_is_allowed_but_not_its_long_traceback(findings):
    raises = '\n# %%\n1\n\n# %% tags=["raises-exception"]\nraise ValueError("meant")\n'
    meant = new_output("error", ename="ValueError", evalue="meant", traceback=["ValueError: meant"])
    assert findings(raises, lambda n: n.cells[1].outputs.append(meant)) == []
    meant = new_output("error", ename="ValueError", evalue="meant", traceback=["line 1", "ValueError: meant"])
    (found,) = findings(raises, lambda n: n.cells[1].outputs.append(meant))
    assert "a build would not write" in found


CHECKPOINT = 'from course_helpers.labs import validation_checkpoint as _\nvalidation_checkpoint("M9-LAB-01", "", 1)\n'
WRONG_SOURCES = {
    "does not compile": (SOUND + "\n# %%\nif\n", {}, "does not compile"),
    "no checkpoint": (SOUND, {"answer": None}, "has no validation checkpoint"),
    "another lab's checkpoint": (
        "\n# %%\n" + CHECKPOINT.replace("LAB-01", "LAB-02"),
        {"answer": None},
        "names 'M9-LAB-02', expected 'M9-LAB-01'",
    ),
    "a computed name": (
        "\n# %%\n" + CHECKPOINT.replace('""', "str(1)"),
        {"answer": None},
        "name is computed, so the runbook cannot list it",
    ),
    "long cell": ("\n# %%\n" + "1\n" * 26, {}, "cell 1: 26 lines of code"),
    "long line": ('\n# %%\nx = "' + "1" * 96 + '"\n', {}, "a line of code of 102 characters"),
    "no header": (SOUND, {"header": ""}, "header: the kernelspec's name is None"),
    "nbval comment": ("\n# %%\n# NBVAL_IGNORE_OUTPUT\n1\n", {}, 'tags=["nbval-ignore-output"]'),
    "unchecked checkpoint": (
        '\n# %% tags=["nbval-ignore-output"]\n' + CHECKPOINT,
        {"answer": None},
        "whose outcome nobody checks (tag nbval-ignore-output)",
    ),
    "lonely exercise": ('\n# %% tags=["exercise"]\n1\n', {}, "cell 1: is tagged 'exercise', but has no partner"),
    "lonely solution": ('\n# %% tags=["solution"]\n1\n', {}, "cell 1: is tagged 'solution', but has no partner"),
    "two exercises, one solution": (
        '\n# %% tags=["exercise"]\n1\n\n# %% tags=["exercise"]\n1\n\n# %% tags=["solution"]\n1\n',
        {},
        "cell 1: is tagged 'exercise', but has no partner",
    ),
    "two solutions": (
        '\n# %% tags=["exercise"]\n1\n\n# %% tags=["solution"]\n1\n\n# %% tags=["solution"]\n1\n',
        {},
        "cell 3: is tagged 'solution', but has no partner",
    ),
}


@pytest.mark.parametrize(("cells", "options", "expected"), WRONG_SOURCES.values(), ids=WRONG_SOURCES)
def test_what_must_not_be_in_a_source_is_found_once(findings, cells, options, expected):
    (found,) = findings(cells, **options)
    assert expected in found and "M9-LAB-01-throw-away.py, " in found


@pytest.mark.parametrize("text", [None, "", "{", '{"cells": 3}'])
def test_a_missing_or_broken_notebook_is_a_finding(write_lab, text):
    lab = write_lab()
    if text is not None:
        lab.notebook.write_text(text)
    (found,) = map(str, check_lab(lab))
    assert "missing or not readable" in found and lab.build_command in found


def test_the_command_exits_with_one_on_findings_and_zero_without(write_lab, store, capsys):
    lab = write_lab()
    folder = str(lab.source.parent)
    assert main(["check", "--notebooks", folder]) == 1
    store(lab)
    assert main(["check", "--notebooks", folder, "M9-LAB-01"]) == 0
    assert capsys.readouterr().out.endswith("1 labs checked, 0 findings\n")


def test_a_folder_without_labs_is_an_error(tmp_path, capsys):
    assert main(["check", "--notebooks", str(tmp_path)]) == 2
    assert "holds no lab" in capsys.readouterr().err
