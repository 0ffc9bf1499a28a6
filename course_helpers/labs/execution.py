"""Executing a lab's cells in a fresh kernel of the running interpreter."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from course_helpers.labs.pair import Cell, Notebook
from course_helpers.labs.progress import OFF as PROGRESS_OFF
from course_helpers.labs.progress import VARIABLE as PROGRESS_VARIABLE

SKIP_TAG = "nbval-skip"
DEFAULT_CELL_TIMEOUT = 600
OFFLINE_VARIABLES = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
# The kernel's advice on its transport would stand between a run's own messages.
KERNEL_ARGUMENTS = ["--IPKernelApp.log_level=ERROR"]
ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class CellFailure:
    """A cell that did not run to its end; its number counts all cells from 1, ``error`` is one line."""

    cell_number: int
    source: str
    error: str
    traceback: str

    def __str__(self) -> str:
        shown = "\n".join(f"    {line}" for line in self.source.splitlines())
        return f"cell {self.cell_number} failed: {self.error}\n\n{shown}\n\n{self.traceback}"


def code_cells(notebook: Notebook) -> list[Cell]:
    """The cells that ``execute`` runs."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip() and SKIP_TAG not in cell.metadata.get("tags", [])
    ]


def fresh_environment(**additions: str) -> dict[str, str]:
    """This process's environment for another one, in which this package can be imported wherever it is started."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | additions


def kernel_environment(**additions: str) -> dict[str, str]:
    """The environment of a lab's kernel: this package importable, offline, the same threads everywhere."""
    environment = fresh_environment(PYTHONUTF8="1", **{PROGRESS_VARIABLE: PROGRESS_OFF})  # it is not a learner who runs
    # Sums come out differently with another number of threads: stored outputs must not depend on the machine.
    environment.setdefault("OMP_NUM_THREADS", "1")
    if environment.get("COURSE_CHECKPOINTS") != "hub":
        environment.update(OFFLINE_VARIABLES)
    return environment | additions


def execute(
    notebook: Notebook,
    folder: Path,
    environment: Mapping[str, str],
    cell_timeout: int = DEFAULT_CELL_TIMEOUT,
    after_cell: Callable[[Cell], None] = lambda cell: None,
) -> CellFailure | None:
    """Run ``notebook`` in place, working in ``folder``; returns the failure that ended it, if any."""
    from nbclient import NotebookClient

    started = {"index": 0}
    client = NotebookClient(
        notebook,
        kernel_manager_class=_kernel_manager_class(),
        extra_arguments=KERNEL_ARGUMENTS,
        timeout=cell_timeout,
        record_timing=False,
        coalesce_streams=True,
        skip_cells_with_tag=SKIP_TAG,
        shutdown_kernel="immediate",  # nothing is left to do; to take torch and its like down in order takes a second
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, cell_index: started.update(index=cell_index),
        on_cell_executed=lambda cell, cell_index, execute_reply: after_cell(cell),
    )
    try:
        client.execute(env=dict(environment))
    except Exception as error:  # a cell's own, a timeout, a dead kernel: the caller reports it
        cell = notebook.cells[started["index"]]
        return CellFailure(started["index"] + 1, cell.source, _in_one_line(error), _traceback(cell, error))
    return None


def _kernel_manager_class() -> type:
    """A manager whose kernel is this interpreter, whatever kernels the user has registered as 'python3'."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    return ThisInterpreter


def _in_one_line(error: Exception) -> str:
    name = getattr(error, "ename", type(error).__name__)
    first_line = (str(getattr(error, "evalue", error)).strip().splitlines() or [""])[0]
    return ANSI_ESCAPE.sub("", f"{name}: {first_line}")


def _traceback(cell: Cell, error: Exception) -> str:
    stored = [line for output in cell.get("outputs", []) for line in output.get("traceback", [])]
    return ANSI_ESCAPE.sub("", "\n".join(stored) or str(error))
