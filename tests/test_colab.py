"""The first cell of a Colab copy, in an environment that has PyTorch already and must keep it."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_code_cell

from course_helpers.labs.copies import for_colab
from course_helpers.labs.order import find_labs, select_labs
from course_helpers.labs.pair import read_source, serialised

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
colab = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "colab.py")))
#: Packages of a Colab image of summer 2026, as far as the course needs them; tiktoken is not among them.
IMAGE = {
    "torch": "2.11.0+cu128",
    "numpy": "2.3.5",
    "safetensors": "0.7.0",
    "transformers": "5.9.0",
    "huggingface-hub": "2.1.0",
    "tokenizers": "0.22.2",
    "sentencepiece": "0.2.1",
    "protobuf": "5.29.6",
    "jinja2": "3.1.6",
    "psutil": "5.9.5",
    "matplotlib": "3.10.0",
    "tqdm": "4.67.1",
    "pytest": "8.4.2",
}


def names(requirements):
    return [need.name for need in requirements]


def test_only_what_is_missing_or_too_old_is_installed():
    assert names(colab.unsatisfied(REQUIREMENTS, IMAGE)) == ["safetensors", "transformers", "tiktoken", "tokenizers"]
    newer = {"safetensors": "0.8.0", "transformers": "5.20.0", "tokenizers": "0.23.1"}
    assert names(colab.unsatisfied(REQUIREMENTS, IMAGE | newer)) == ["tiktoken"]
    assert names(colab.unsatisfied(REQUIREMENTS, IMAGE | newer | {"tiktoken": "0.12.0"})) == []


def test_nothing_of_the_notebook_server_and_the_tests_is_asked_for():
    needs = names(colab.needs_of(REQUIREMENTS))
    assert {"torch", "transformers", "tiktoken", "matplotlib"} <= set(needs)
    assert not {"jupyterlab", "nbval", "ruff", "playwright", "ipykernel"} & set(needs)


def test_pip_is_told_to_keep_torch_and_numpy():
    seen = []

    def call(command):
        seen.append((command, Path(command[-1]).read_text()))

    needs = colab.unsatisfied(REQUIREMENTS, IMAGE)
    colab.install(needs, IMAGE, call)
    [(command, pins)] = seen
    assert command[1:5] == ["-m", "pip", "install", "--quiet"] and command[5:-2] == [str(need) for need in needs]
    assert pins == "torch==2.11.0+cu128\nnumpy==2.3.5\n"


@pytest.mark.parametrize("torch_version", [None, "2.1.0"])
def test_without_a_usable_torch_it_stops_and_installs_nothing(tmp_path, monkeypatch, torch_version):
    versions = IMAGE | {"torch": torch_version}
    here = {name: version for name, version in versions.items() if version}
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS)
    monkeypatch.setitem(colab.prepare.__globals__, "installed_versions", lambda: here)
    monkeypatch.setitem(colab.prepare.__globals__, "install", pytest.fail)
    with pytest.raises(RuntimeError, match=r"lacks torch>=2\.6"):
        colab.prepare(tmp_path, pytest.fail)


PROBE = "course-probe"


def write_wheel(folder):
    """A package that nobody has: what the bootstrap must install, without any network."""
    path = folder / "course_probe-1.0-py3-none-any.whl"
    about = "course_probe-1.0.dist-info"
    files = {
        "course_probe.py": "answer = 42\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {PROBE}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD")))


@pytest.fixture
def colab_machine(tmp_path):
    """A Python with PyTorch and the rest of what is installed here, but without this course; and its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "python")], check=True)
    python = tmp_path / "python" / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    here = Path(pytest.__file__).parents[1]
    for entry in here.iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(("__editable__", "course_helpers", "__pycache__")):
            (site / entry.name).symlink_to(entry)
    return python, site


def write_course(folder):
    """The repository as a clone would have it, with one more requirement."""
    folder.mkdir()
    for name in ("course_helpers", "checkpoints"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    for name in ("notebooks", "tools"):  # real folders: labs write beside themselves, and the script asks where it lies
        (folder / name).mkdir()
    shutil.copy(ROOT / "tools" / "colab.py", folder / "tools")
    (folder / "requirements.txt").write_text(f"{PROBE}>=1\n{REQUIREMENTS}", encoding="utf-8")


RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
print(json.dumps(["".join(output.get("text", "") for output in cell.get("outputs", [])) for cell in notebook.cells]))
"""
AFTERWARDS = """\
import course_helpers, course_probe, os, torch
print(course_helpers.__file__, torch.__version__, course_probe.answer, os.path.basename(os.getcwd()))"""


@pytest.mark.skipif(sys.platform == "win32", reason="Colab is Linux: symbolic links and bin/python")
def test_a_colab_copy_runs_there_and_torch_stays(colab_machine, tmp_path):
    python, site = colab_machine
    course = tmp_path / "module9"
    write_course(course)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels)
    torch_before = (site / "torch").readlink(), sorted(path.name for path in site.glob("torch-*"))

    [lab] = select_labs(find_labs(), ["M9-CODE-01"])
    notebook = for_colab(read_source(lab), address="not needed: the folder is there", folder=str(course))
    first_cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:4]
    notebook.cells = [*first_cells, new_code_cell(AFTERWARDS)]
    (tmp_path / "lab.ipynb").write_text(serialised(notebook), encoding="utf-8")

    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PYTHONPATH": "", "PIP_ROOT_USER_ACTION": "ignore"}
    run = subprocess.run(
        [python, "-c", RUN, tmp_path / "lab.ipynb", tmp_path],
        env=os.environ | offline | {"JUPYTER_PATH": str(site.parents[2] / "share" / "jupyter")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    outputs = json.loads(run.stdout.splitlines()[-1])
    assert outputs[0].startswith(f"Ready. Installed: {PROBE}. PyTorch stays as it was: ")
    where, version, answer, folder = outputs[-1].split()
    assert where == str(course / "course_helpers" / "__init__.py")
    assert (answer, folder) == ("42", "notebooks")
    shown = outputs[0].strip().removesuffix(".").rpartition(" ")[2]
    assert shown.partition("+")[0] == version.partition("+")[0]  # metadata of pip's builds leave out "+cu130"
    assert ((site / "torch").readlink(), sorted(path.name for path in site.glob("torch-*"))) == torch_before
