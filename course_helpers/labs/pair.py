"""The two files of a lab: reading either, comparing them, and the form in which an ``.ipynb`` is stored."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from course_helpers.labs.order import Lab, LabError

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_CELL_METADATA = ("tags", "slideshow")

Cell = Any
Notebook = Any


def read_source(lab: Lab) -> Notebook:
    """The notebook that a lab's ``.py`` describes, without outputs."""
    import jupytext

    try:
        return jupytext.reads(lab.source.read_text(encoding="utf-8"), fmt="py:percent")
    except Exception as error:  # jupytext names no exceptions of its own
        raise LabError(
            f"{lab.source}: not a percent-format notebook: {type(error).__name__}: {error}\n"
            "  Likely cause: a broken YAML header, or a '# %%' line with malformed tags."
        ) from error


def read_notebook(lab: Lab) -> Notebook:
    """A lab's stored ``.ipynb``."""
    import nbformat

    try:
        return nbformat.reads(lab.notebook.read_text(encoding="utf-8"), as_version=4)
    except FileNotFoundError:
        problem = "is missing"
    except Exception as error:  # nbformat raises its own, json's and jsonschema's exceptions
        problem = f"is not a readable notebook: {type(error).__name__}: {error}"
    raise LabError(f"{lab.notebook} {problem}.\n  Next step: {lab.build_command}")


def tags(cell: Cell) -> list[str]:
    """A cell's tags."""
    return list(cell.metadata.get("tags", []))


def content(notebook: Notebook) -> list[tuple[str, str, list[str]]]:
    """What must be equal in both files of a pair: type, source and tags of every cell."""
    return [(cell.cell_type, cell.source, tags(cell)) for cell in notebook.cells]


def content_digest(notebook: Notebook) -> str:
    """A fingerprint of ``content``, kept in the ``.ipynb``: it betrays an edit made only there."""
    return hashlib.sha256(json.dumps(content(notebook)).encode()).hexdigest()


def edited_by_hand(lab: Lab, source: Notebook) -> bool:
    """Whether the stored ``.ipynb`` holds an edit that is not in the ``.py``: a build would destroy it."""
    if not lab.notebook.exists():
        return False
    stored = read_notebook(lab)
    built_from = stored.metadata.get("course", {}).get("content_sha256")
    return content(stored) != content(source) and content_digest(stored) != built_from


def normalised(notebook: Notebook) -> Notebook:
    """A copy with what readers and tests need: no versions, no times, no random ids, short tracebacks."""
    import nbformat

    result = copy.deepcopy(notebook)
    digest = result.metadata.get("course", {}).get("content_sha256") or content_digest(result)
    result.metadata = nbformat.from_dict(
        {"course": {"content_sha256": digest}, "kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    )
    result.nbformat, result.nbformat_minor = 4, 5
    used: set[str] = set()
    for cell in result.cells:
        cell.id = _cell_id(cell, used)
        kept = {key: value for key, value in cell.metadata.items() if key in KEPT_CELL_METADATA}
        if "solution" in tags(cell):
            kept["jupyter"] = {"source_hidden": True}  # folded in JupyterLab until the learner opens it
        cell.metadata = nbformat.from_dict(kept)
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                # A traceback is full of escape codes and local paths, and nbval does not compare it.
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return result


def serialised(notebook: Notebook) -> str:
    """The text of an ``.ipynb``, the same for the same notebook."""
    import nbformat

    return nbformat.writes(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cell_id(cell: Cell, used: set[str]) -> str:
    # Derived from the content, an id stays when other cells come and go; equal cells are counted.
    count = 0
    while True:
        identifier = hashlib.sha256(f"{cell.cell_type}\n{cell.source}\n{count}".encode()).hexdigest()[:12]
        if identifier not in used:
            used.add(identifier)
            return identifier
        count += 1


def relative(path: Path) -> str:
    """``path`` as seen from where the command was started, if it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
