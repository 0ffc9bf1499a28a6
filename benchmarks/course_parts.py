"""The parts of the course that `course.py` times: each in processes of its own, started as a reader starts it."""

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import torch

from slides.browser import NoBrowser, chromium

ROOT = Path(__file__).parents[1]
#: As `make run` and `make test` set them; and Python keeps what it compiled, as it does unless told otherwise.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUTF8": "1"} | {
    "PYTHONDONTWRITEBYTECODE": ""
}
WORKERS = 2  # of the tests: the same on every machine, so that runs can be compared
ROUNDS = 5
LISTED = 10  # modules and tests that are named


class Skipped(RuntimeError):
    """A part cannot be timed on this machine; the message says what is missing and how to get it."""


class Failed(RuntimeError):
    """A command that was to be timed did not succeed; the message names it and ends with its last lines."""


@dataclass
class Measured:
    """Seconds by name; and what explains them, also in seconds by name, under a title."""

    figures: dict[str, float]
    details: dict[str, dict[str, float]] = field(default_factory=dict)


def timed(*arguments: str) -> tuple[float, str]:
    """Run this Python with `arguments` in the repository; seconds until it ended, and both its streams. Raises
    Failed."""
    began = time.perf_counter()
    command = [sys.executable, *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | ENVIRONMENT, text=True, encoding="utf-8", errors="replace", **streams
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        shown = " ".join(argument for argument in arguments if "\n" not in argument)
        end = "\n".join(done.stdout.splitlines()[-15:])
        raise Failed(f"python {shown}: exit status {done.returncode}. Next step: run it by itself. It said:\n{end}")
    return seconds, done.stdout


def calibrate(rounds: int = ROUNDS) -> float:
    """Seconds of a fixed piece of work on one core, half Python's own and half torch's: how fast the machine is now."""
    torch.set_num_threads(1)
    return statistics.median(fixed_work() for _ in range(rounds))


def fixed_work() -> float:
    began = time.perf_counter()
    names = {f"layers.{number % 997}.weight": number for number in range(200_000)}
    sorted(name.split(".")[1] for name in names for _ in range(100))
    state, weight = torch.ones(8, 512), torch.full((512, 512), 1 / 512)
    for _ in range(1000):
        state = torch.nn.functional.linear(state, weight).relu() + 0.0
    return time.perf_counter() - began


IMPORTS = """
import time
began = time.perf_counter()
import torch
middle = time.perf_counter()
import course_helpers
print(middle - began, time.perf_counter() - middle)
"""
IMPORT_LINE = re.compile(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)")


def imports(_: argparse.Namespace) -> Measured:
    timed("-c", IMPORTS)  # the first one brings the files into memory
    pairs = [map(float, timed("-c", IMPORTS)[1].split()) for _ in range(ROUNDS)]
    torch_alone, beyond = map(statistics.median, zip(*pairs, strict=True))
    log = timed("-X", "importtime", "-c", "import torch, course_helpers")[1]
    figures = {"import torch": torch_alone, "import course_helpers, beyond torch": beyond}
    return Measured(figures, {"modules that take longest to import beyond torch, by themselves": own_seconds(log)})


def own_seconds(log: str) -> dict[str, float]:
    """What `-X importtime` says of the modules that `import course_helpers` added to torch: the slowest."""
    found: dict[str, float] = {}
    counting = False
    for microseconds, depth, name in IMPORT_LINE.findall(log):
        if counting:
            found[name] = int(microseconds) / 1e6
        if not depth and name in ("torch", "course_helpers"):
            counting = name == "torch"
    return largest(found)


def largest(seconds: dict[str, float]) -> dict[str, float]:
    return dict(Counter(seconds).most_common(LISTED))


def commands(_: argparse.Namespace) -> Measured:
    arguments = ("-m", "course_helpers", "families")
    return Measured({"course_helpers families": statistics.median(timed(*arguments)[0] for _ in range(ROUNDS))})


def labs(options: argparse.Namespace) -> Measured:
    """Every lab, by the command's own record: of a run now, or of one that was there."""
    if options.labs_record:
        return labs_recorded(options.labs_record)
    with tempfile.TemporaryDirectory() as folder:
        timed("-m", "course_helpers.labs", "run", "--results", folder)
        return labs_recorded(Path(folder) / "run.json")


def labs_recorded(path: Path) -> Measured:
    """Raises Failed for a run that was not complete, or not all right: its seconds say nothing."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if not (record["ok"] and record["complete"]):
        raise Failed(f"{path.name} is not of a complete run in which every lab passed. Next step: make run.")
    steps = {f"{lab['lab']}: {step['name']}": step["seconds"] for lab in record["labs"] for step in lab["checkpoints"]}
    figures = {lab["lab"]: lab["seconds"] for lab in record["labs"]} | {"all labs": record["seconds"]}
    return Measured(figures, {"longest ways to a validation checkpoint": largest(steps)})


def tests(_: argparse.Namespace) -> Measured:
    """The suite without the labs' stored outputs: their cells have been timed as labs."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        flags = ["-q", "-n", str(WORKERS), "--dist", "loadfile", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
        seconds, _ = timed("-m", "pytest", *flags, f"--junitxml={report}", "tests")
        cases = ElementTree.parse(report).iter("testcase")
        return by_folder(
            seconds, [(file_of(case.get("classname")), case.get("name"), float(case.get("time"))) for case in cases]
        )


def file_of(classname: str) -> str:
    """The file that a test is from, by its module and class. Where its code lies is no answer: in one of torch's
    decorators, a test's code is a file of torch."""
    parts = classname.split(".")
    module = next(place for place, part in enumerate(parts, 1) if part.startswith("test_"))
    return "/".join(parts[:module]) + ".py"


def by_folder(whole: float, cases: list[tuple[str, str, float]]) -> Measured:
    """Seconds of all processes together for each folder of tests/; one figure for the files that lie in none."""
    folders: Counter = Counter()
    for file, _, seconds in cases:
        inner = Path(file).parts[:-1]
        folders["/".join(inner[:2]) + ("/*.py" if len(inner) == 1 else "")] += seconds
    each = {f"{file}::{name}": seconds for file, name, seconds in cases}
    return Measured({"all tests": whole} | dict(sorted(folders.items())), {"slowest tests": largest(each)})


def deck(_: argparse.Namespace) -> Measured:
    need("playwright", "make slides installs it")
    try:
        chromium()
    except NoBrowser as error:
        raise Skipped(str(error)) from error
    return Measured({"slides build": timed("-m", "slides", "build")[0]})


def films(_: argparse.Namespace) -> Measured:
    need("manim", "make film-tools installs it")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--quality", "480p", "--poster", "0", "--output", folder)
        return Measured({"both films at 480p": timed("-m", "animations.render", *arguments)[0]})


def need(package: str, how: str) -> None:
    if not importlib.util.find_spec(package):
        raise Skipped(f"{package} is not installed: {how}.")


@dataclass(frozen=True)
class Part:
    """How it is timed, and how many seconds' difference say nothing, however short the figure."""

    measure: Callable[[argparse.Namespace], Measured]
    noise: float


PARTS = {
    "imports": Part(imports, 0.05),
    "commands": Part(commands, 0.3),
    "labs": Part(labs, 3.0),
    "tests": Part(tests, 3.0),
    "deck": Part(deck, 3.0),
    "films": Part(films, 5.0),
}
