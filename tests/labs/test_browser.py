"""A lab, as a learner meets it: opened in JupyterLab by a real browser, run from first to last cell, and looked at.

One lab is enough for every run of the tests; ``COURSE_BROWSER_LABS=all make test`` takes all of them, and a list of ids
those. Needs Chromium (``make system-packages``); continuous integration has it and may not skip this.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from course_helpers.labs.order import find_labs, select_labs
from course_helpers.labs.pair import read_source
from course_helpers.labs.runbook import checkpoint_names
from slides import browser

WANTED = os.environ.get("COURSE_BROWSER_LABS", "M9-CODE-01")
LABS = select_labs(find_labs(), [] if WANTED == "all" else WANTED.split())
PATIENCE = 240  # seconds: a busy machine starts a server and a kernel slowly
PICTURES = Path(__file__).resolve().parents[2] / "screenshots"

pytestmark = pytest.mark.usefixtures("chromium")

# What the page is asked; expose_app_in_browser gives it JupyterLab's own object.
KERNEL = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status ?? 'none'"
# Started, and then asked about: a question that is answered after minutes would hold everything else up.
RUN_ALL = """() => {
    window.outcome = null;
    const run = window.jupyterapp.commands.execute("notebook:run-all-cells");
    run.then(() => { window.outcome = "done"; }, error => { window.outcome = String(error); });
}"""
OUTCOME = "() => window.outcome"
SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
CELLS = "() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.toJSON().cells)"
FOLDED = "() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.inputHidden).length"


def wait_for(what, question, patience=PATIENCE):
    """Ask until the answer is yes; a stop says what was waited for."""
    end = time.monotonic() + patience
    while not question():
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.2)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """The address of a server whose files are copies of the labs: a browser saves what it has opened."""
    folder = tmp_path_factory.mktemp("browser") / "notebooks"
    folder.mkdir()
    for lab in LABS:
        shutil.copy(lab.notebook, folder)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--LabApp.expose_app_in_browser=True",
    ]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert server.poll() is None, (folder.parent / "log").read_text()[-3000:]
        try:
            return urllib.request.urlopen(f"{address}/api/status", timeout=5).status == 200
        except OSError:
            return False

    with open(folder.parent / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for("JupyterLab to answer", answers)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope="module")
def page(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=browser.ARGUMENTS)
        yield running.new_page(viewport={"width": 1400, "height": 1000})
        running.close()


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.id)
def test_a_lab_opens_and_runs_in_jupyterlab(lab, jupyterlab, page):
    page.goto(f"{jupyterlab}/lab/tree/{lab.notebook.name}?reset")
    wait_for("an idle kernel", lambda: page.evaluate(KERNEL) == "idle")
    page.evaluate(RUN_ALL)
    wait_for("the last cell", lambda: page.evaluate(OUTCOME) is not None)
    assert page.evaluate(OUTCOME) == "done"
    cells = json.loads(page.evaluate(CELLS))
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{lab.id}.png")

    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    shown = json.dumps(outputs)
    expected = len(checkpoint_names(lab))
    assert shown.count("VALIDATION CHECKPOINT") >= expected > 0
    assert "| FAILED" not in shown
    solutions = [cell for cell in read_source(lab).cells if "solution" in cell.metadata.get("tags", [])]
    assert page.evaluate(FOLDED) == len(solutions) > 0
    page.evaluate(SHUT_DOWN)
