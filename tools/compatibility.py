"""Runs a fast part of the tests with the oldest and newest supported libraries: `python tools/compatibility.py`.

Every case gets a fresh environment in a temporary folder: the libraries of requirements.txt that a lab imports, in the
versions that the case asks for, and what the tests need. Results go to benchmarks/results/compatibility.json, one row a
case, and from there to the table compatibility.md; a case that is not run keeps its row.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from course_helpers.labs.records import write_json, write_text  # noqa: E402  (found by the line above)

RESULTS = ROOT / "benchmarks" / "results"
END_OF_NEEDS = "# Not for Colab"
#: What the tests import beside the libraries, and what reads and runs them.
TEST_TOOLS = ("hypothesis", "pytest-timeout")
#: What touches the libraries: every family beside Transformers, every tokenizer, conversations, saving, the hub.
TESTS = (
    "tests/architectures/test_parity.py",
    "tests/smoke/test_smoke.py",
    "tests/test_tokenizers.py",
    "tests/test_chat.py",
    "tests/loaders/test_save.py",
    "tests/loaders/test_hub.py",
)
#: Random configs that each family is compared on; `make test` takes ten times as many.
EXAMPLES = 30
SHOWN = ("torch", "numpy", "transformers", "huggingface-hub", "tokenizers", "safetensors", "tiktoken", "sentencepiece")


class Refused(RuntimeError):
    """pip finds no set of versions; the message is its own."""


#: Name -> what it means; `constraints` says which versions those are.
CASES = {
    "pinned": "every library as constraints.txt has it",
    "oldest": "every library at the lower bound that requirements.txt gives it",
    "newest": "every library as new as pip finds it",
}


def needs() -> list[Requirement]:
    """What a lab imports, from requirements.txt."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").partition(END_OF_NEEDS)[0].splitlines()
    return [Requirement(line) for line in lines if line.strip()]


def lower_bound(need: Requirement) -> str:
    """The version after `>=`: the one that requirements.txt promises."""
    [bound] = [part.version for part in need.specifier if part.operator == ">="]
    return bound


def pinned() -> dict[str, str]:
    """Package -> version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def constraints(case: str, keep: Sequence[str] = ()) -> dict[str, str]:
    """Package -> the version that the case asks for; `keep` names those that stay as constraints.txt has them."""
    fixed, bounds = pinned(), {canonicalize_name(need.name): lower_bound(need) for need in needs()}
    asked = {"pinned": {name: fixed[name] for name in bounds}, "oldest": bounds, "newest": {}}[case]
    return asked | {name: fixed[name] for name in keep}


def build(folder: Path, python: str, asked: Mapping[str, str]) -> Path:
    """An environment with the course's libraries in the versions asked for; returns its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pins = folder / "asked.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in asked.items()))
    packages = [*map(str, needs()), *TEST_TOOLS]
    command = [str(inside), "-m", "pip", "install", "--quiet", *packages, "-c", str(pins)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR: ")] or [
            "ERROR: no reason given"
        ]
        raise Refused(errors[0].removeprefix("ERROR: "))
    return inside


def versions(python: Path) -> dict[str, str]:
    """What an environment really holds."""
    ask = "import json, sys; from importlib.metadata import version; print(json.dumps([*map(version, sys.argv[1:])]))"
    found = subprocess.run([str(python), "-c", ask, *SHOWN], check=True, capture_output=True, text=True)
    return dict(zip(SHOWN, json.loads(found.stdout), strict=True))


def run_tests(python: Path, report: Path, tests: Sequence[str]) -> dict[str, int]:
    """How many tests passed, failed and were skipped."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUTF8": "1"}
    quiet |= {"COURSE_EXAMPLES": str(EXAMPLES)}
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    subprocess.run(command, cwd=ROOT, env=os.environ | quiet)
    counts = {key: 0 for key in ("tests", "failures", "errors", "skipped")}
    for suite in ElementTree.parse(report).iter("testsuite") if report.exists() else ():
        counts = {key: counts[key] + int(suite.get(key)) for key in counts}
    failed = counts["failures"] + counts["errors"]
    return {"passed": counts["tests"] - failed - counts["skipped"], "failed": failed, "skipped": counts["skipped"]}


def run_case(name: str, python: str, keep: Sequence[str], tests: Sequence[str]) -> dict:
    """One row: what was asked for, what pip found, what the tests said."""
    began = time.perf_counter()
    row = {"case": name, "keep": list(keep), "versions": {}, "passed": 0, "failed": 0, "skipped": 0, "refused": ""}
    ask = [python, "-c", "import platform; print(platform.python_version())"]
    row["python"] = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix=f"course-{name}-") as folder:
        try:
            inside = build(Path(folder) / "env", python, constraints(name, keep))
        except Refused as refusal:
            return row | {"refused": str(refusal), "seconds": round(time.perf_counter() - began)}
        row |= {"versions": versions(inside)} | run_tests(inside, Path(folder) / "report.xml", tests)
    return row | {"seconds": round(time.perf_counter() - began)}


def holds(row: Mapping) -> bool:
    return bool(row["passed"]) and not row["failed"] and not row["refused"]


def outcome(row: Mapping) -> str:
    if row["refused"]:
        return f"**{row['refused']}**"
    skipped = f", {row['skipped']} skipped" if row["skipped"] else ""
    return (
        f"{row['passed']:,} passed{skipped}"
        if holds(row)
        else f"**{row['failed']} of {row['passed'] + row['failed']} failed**"
    )


def table(rows: Sequence[Mapping]) -> str:
    """The results as a page."""
    head = ["Case", "Python", *SHOWN, "Tests"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [f"`{row['case']}`", row["python"], *(row["versions"].get(name, "") for name in SHOWN), outcome(row)]
        lines.append(f"| {' | '.join(cells)} |")
    about = [f"- `{name}`: {about}." for name, about in CASES.items()]
    return "\n".join(["# Oldest and newest libraries", "", INTRODUCTION, "", *lines, "", *about, *notes(rows), ""])


INTRODUCTION = (
    "Made by `make compatibility`: each case in a fresh environment, with the part of the tests that touches the\n"
    "libraries: every family beside Transformers, every tokenizer, conversations, saving, the hub.\n\n"
    "The package writes conversations itself, the same with every release. Transformers changed its own way in 5.20,\n"
    "5.22 and 5.23: what an older one does otherwise is not compared with it, and counts as skipped. Releases before\n"
    "the lower bound of requirements.txt, Transformers 4 among them, are not supported: pip replaces them."
)


def notes(rows: Sequence[Mapping]) -> list[str]:
    """What a case asks for and did not get: the reader must not believe more than was run."""
    lines = []
    for row in rows:
        asked = constraints(row["case"])
        for name in row["keep"]:
            wanted, got = asked.get(name, "the newest"), row["versions"].get(name)
            if got and wanted != got.partition("+")[0]:
                lines.append(f"- In `{row['case']}`, {name} was kept at {got} in place of {wanted}. {WHY_KEPT}")
    missing = [f"`{name}`" for name in CASES if name not in {row["case"] for row in rows}]
    return lines + ([f"- Not run yet: {', '.join(missing)}."] if missing else [])


#: Said where a package was kept; continuous integration keeps none.
WHY_KEPT = "Where it ran, other releases came only with CUDA, some gigabytes; the weekly workflow keeps nothing."


def merged(rows: Sequence[Mapping], new: Mapping) -> list[Mapping]:
    """The rows with a new one, in place of that of the same case and the same Python 3.x."""

    def key(row: Mapping) -> tuple[int, int]:
        return list(CASES).index(row["case"]), int(row["python"].split(".")[1])

    return [*sorted([row for row in rows if key(row) != key(new)] + [new], key=key)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environments")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="PACKAGE", help="leave it as constraints.txt has it"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tests", nargs="+", default=TESTS)
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}. Choose from {', '.join(CASES)}.")
    path, ran = chosen.results / "compatibility.json", []
    keep = [canonicalize_name(package) for package in chosen.keep]
    for name in chosen.cases or CASES:
        ran.append(run_case(name, chosen.python, keep, chosen.tests))
        rows = merged(json.loads(path.read_text()) if path.exists() else [], ran[-1])
        write_json(path, rows)
        write_text(path.with_suffix(".md"), table(rows))
    print(table(ran))
    return 0 if all(map(holds, ran)) else 1


if __name__ == "__main__":
    sys.exit(main())
