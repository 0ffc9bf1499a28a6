"""What M9-LAB-09 runs beside its cells: copies to break, fresh processes, the template under pytest, flat manifests.

The check functions of its exercises are in `lab_09_exercises.py`, its drawings in `lab_09_figures.py`, its charts in
`lab_09_charts.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..loaders.files import read_json
from ..loaders.manifest_files import MANIFEST
from ..loaders.sources import resolve
from .execution import fresh_environment
from .records import write_json

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATE = REPOSITORY / "tests" / "smoke" / "test_smoke.py"
#: Parts of a card that list hashes.
HASHES = ("weights", "files")
#: One line of `pytest -rA`: outcome, test, and the source that the test was run for.
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR) \S+::(test_\w+)\[(.+?)\](?: - .*)?$", re.MULTILINE)


def copy_of(source: str | Path, folder: Path) -> Path:
    """A copy of a checkpoint to break. Its card keeps its texts and loses its hashes: with them, every change of a file
    would be seen at once, and no other check would ever have its turn."""
    original = resolve(source)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns(".*"))
    if (folder / MANIFEST).exists():
        card = read_json(folder / MANIFEST)
        write_json(folder / MANIFEST, {name: value for name, value in card.items() if name not in HASHES})
    return folder


def flip_last_bit(path: Path) -> None:
    """Change a file by as little as a file can be changed."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def run_fresh(script: str, *arguments: object) -> str:
    """Run a script in a process of its own and return what it printed. Raises RuntimeError with its own message."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(command, env=fresh_environment(), capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise RuntimeError(f"the fresh process ended with status {result.returncode}:\n{result.stderr.strip()}")
    return result.stdout.strip()


def run_template(folder: Path, sources: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Copy the template to a folder and let pytest run it on checkpoints: name -> test -> passed, failed or error.

    The folder gets a pytest.ini of its own, so that it is a project by itself. Raises RuntimeError with pytest's words
    if it could not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATE, folder / TEMPLATE.name)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    places = {str(path.resolve()): name for name, path in sources.items()}
    settings = {"SMOKE_SOURCE": os.pathsep.join(places), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "400"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "--tb=short",
        "--color=no",
        "-p",
        "no:cacheprovider",
        TEMPLATE.name,
    ]
    result = subprocess.run(
        command, cwd=folder, env=fresh_environment(**settings), capture_output=True, text=True, encoding="utf-8"
    )
    outcomes: dict[str, dict[str, str]] = {name: {} for name in sources}
    for outcome, test, place in OUTCOME.findall(result.stdout):
        outcomes[places[place]][test] = outcome.lower()
    if not all(outcomes.values()):
        raise RuntimeError(f"pytest did not run the template:\n{result.stdout}\n{result.stderr}")
    return outcomes


def flat(content: Any) -> dict[str, Any]:
    """A manifest as `json` reads it, laid flat: "settings/seed" -> 0, "results/0/text" -> ..., one entry a value."""
    return dict(leaves(content, ()))


def leaves(content: Any, place: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Lists of objects are walked through; a list of plain values, the ids of a text for instance, is one value."""
    if isinstance(content, dict):
        inner = content.items()
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        inner = enumerate(content)
    else:
        yield "/".join(place), content
        return
    for name, value in inner:
        yield from leaves(value, (*place, str(name)))
