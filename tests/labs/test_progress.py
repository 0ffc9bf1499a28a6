"""A learner's progress is kept in notebooks, by whoever learns, and by nobody else."""

import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from course_helpers.__main__ import main
from course_helpers.labs import progress, validation_checkpoint
from course_helpers.labs.execution import execute, kernel_environment
from course_helpers.labs.order import find_labs
from course_helpers.labs.pair import read_source
from course_helpers.labs.runbook import checkpoint_names

LAB = "M9-LAB-01"
OTHERS = progress.EXECUTED_FOR_A_TEST
CHECKPOINT = f'from course_helpers.labs import validation_checkpoint\nvalidation_checkpoint("{LAB}", "it holds", True)'


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """The folder that progress goes to, for someone who is neither pytest nor continuous integration."""
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    # pytest sets this one anew before every phase of a test.
    monkeypatch.setattr(progress, "EXECUTED_FOR_A_TEST", [name for name in OTHERS if name != "PYTEST_CURRENT_TEST"])
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def in_a_notebook(monkeypatch):
    shell = SimpleNamespace(get_ipython=lambda: object(), display=SimpleNamespace(display=lambda *_, **__: None))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", shell.display)


def kernel_of_a_learner(learner):
    """What a kernel that JupyterLab starts finds around it."""
    environment = {key: value for key, value in kernel_environment().items() if key not in OTHERS}
    return environment | {progress.VARIABLE: str(learner)}


@pytest.fixture
def notebook(write_lab):
    return write_lab(cells=f"\n# %%\n{CHECKPOINT}\n", answer=None)


def test_a_checkpoint_that_passes_in_a_kernel_is_kept(notebook, learner, tmp_path):
    assert execute(read_source(notebook), tmp_path, kernel_of_a_learner(learner)) is None
    kept = json.loads((learner / f"{LAB}.json").read_text(encoding="utf-8"))
    assert list(kept) == ["it holds"] and kept["it holds"].startswith("20")


def test_the_run_of_all_labs_keeps_nothing(notebook, learner, tmp_path):
    assert execute(read_source(notebook), tmp_path, kernel_environment()) is None
    assert not learner.exists()


def test_nbval_keeps_nothing(notebook, store, learner, pytestconfig):
    path = store(notebook)
    flags = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *flags, str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert "1 passed" in outcome.stdout, outcome.stdout
    assert not learner.exists()


@pytest.mark.parametrize("variable", ["CI", "PYTEST_VERSION"])
def test_tests_and_continuous_integration_keep_nothing(learner, in_a_notebook, monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    validation_checkpoint(LAB, "it holds", True)
    assert not learner.exists()


def test_nothing_is_kept_outside_a_notebook_or_where_the_learner_says_off(learner, monkeypatch, request, tmp_path):
    validation_checkpoint(LAB, "it holds", True)
    request.getfixturevalue("in_a_notebook")
    monkeypatch.setenv(progress.VARIABLE, "off")
    validation_checkpoint(LAB, "it holds", True)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_checkpoint_is_not_kept_and_takes_nothing_back(learner, in_a_notebook):
    validation_checkpoint(LAB, "one", True)
    first = (learner / f"{LAB}.json").read_bytes()
    for name in ("one", "two"):
        with pytest.raises(AssertionError):
            validation_checkpoint(LAB, name, False)
    validation_checkpoint(LAB, "one", True)
    assert (learner / f"{LAB}.json").read_bytes() == first
    assert [path.name for path in learner.iterdir()] == [f"{LAB}.json"]


def test_a_spoiled_file_begins_anew(learner, in_a_notebook):
    learner.mkdir()
    (learner / f"{LAB}.json").write_text("[half")
    validation_checkpoint(LAB, "one", True)
    assert list(progress.passed_in(learner, LAB)) == ["one"]


def test_a_disk_that_refuses_does_not_stop_the_lab(learner, in_a_notebook, capsys):
    learner.write_text("a file where the folder should be")
    validation_checkpoint(LAB, "one", True)
    assert learner.read_text() == "a file where the folder should be"


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_leave_to_write_does_not_stop_the_lab(learner, in_a_notebook):
    learner.mkdir(mode=stat.S_IREAD | stat.S_IEXEC)
    validation_checkpoint(LAB, "one", True)
    assert list(learner.iterdir()) == []


def test_the_command_counts_names_the_next_one_and_forgets(learner, in_a_notebook, capsys):
    lab, second = find_labs()[:2]
    names = checkpoint_names(lab)
    total = sum(len(checkpoint_names(every)) for every in find_labs())
    validation_checkpoint(lab.id, names[0], True)
    assert main(["progress"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(lab.id) and lines[0].endswith(f" 1 of {len(names):>2}  next: {names[1]}")
    assert lines[1].endswith("not begun") and all(line.isascii() for line in lines)
    assert f"1 of {total} validation checkpoints have passed. Go on with {lab.id}: make lab." in lines
    for name in names:
        validation_checkpoint(lab.id, name, True)
    assert main(["progress"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith("done") and f"Go on with {second.id}" in printed
    assert main(["progress", "--forget"]) == 0
    assert f"0 of {total} " in capsys.readouterr().out and list(learner.iterdir()) == []


def test_the_command_says_when_progress_is_off(monkeypatch, capsys):
    monkeypatch.setenv(progress.VARIABLE, "OFF")
    assert main(["progress"]) == 0
    assert capsys.readouterr().out == "Progress is not kept: COURSE_PROGRESS=off.\n"


def test_without_the_variable_it_lies_beside_the_notebooks_and_git_leaves_it_alone(monkeypatch, pytestconfig):
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    assert progress.progress_folder() == pytestconfig.rootpath / "progress"
    assert "progress/" in (pytestconfig.rootpath / ".gitignore").read_text(encoding="utf-8").splitlines()
