"""The .py half of a lab opens in JupyterLab as the notebook that it is, and saving it there spoils nothing."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from course_helpers.labs.order import find_labs, select_labs
from course_helpers.labs.pair import read_source

ROOT = Path(__file__).resolve().parents[2]
[LAB] = select_labs(find_labs(), ["M9-LAB-01"])
PATIENCE = 120  # seconds, on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository with one lab in its notebooks/, and the settings of this one."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copy(LAB.source, root / "notebooks")
    return root


@pytest.fixture(scope="module")
def contents(folder):
    """contents(path, model=None): read a file through a Jupyter server, or write it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.disable_check_xsrf=True",
    ]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]

    def ask(path, model=None):
        address = f"http://127.0.0.1:{port}/api/{path}"
        body = None if model is None else json.dumps(model).encode()
        request = urllib.request.Request(address, body, method="PUT" if body else "GET")
        return json.load(urllib.request.urlopen(request, timeout=PATIENCE))

    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                ask("status")
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
                time.sleep(0.3)
        yield ask
    finally:
        server.terminate()
        server.wait(60)


def cells(notebook):
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def test_a_text_file_opens_as_a_notebook_and_comes_back_from_saving_unchanged(contents, folder):
    path = f"contents/notebooks/{urllib.parse.quote(LAB.source.name)}"
    opened = contents(f"{path}?type=notebook")
    expected = [(cell.cell_type, cell.source) for cell in read_source(LAB).cells]
    assert opened["type"] == "notebook" and cells(opened["content"]) == expected

    before = LAB.source.read_text(encoding="utf-8")
    contents(path, {"type": "notebook", "format": "json", "content": opened["content"]})
    saved = folder / "notebooks" / LAB.source.name
    assert saved.read_text(encoding="utf-8") == before
    pair = json.loads(saved.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert cells(pair) == expected


def test_the_same_file_still_opens_as_text(contents):
    opened = contents(f"contents/notebooks/{urllib.parse.quote(LAB.source.name)}?type=file")
    assert opened["type"] == "file" and opened["content"] == LAB.source.read_text(encoding="utf-8")
