"""How long the course itself takes: imports, commands, labs, tests, deck and films, beside what was committed last.

    python -m benchmarks.course                      some 25 minutes; writes benchmarks/results/course.json, course.md
    python -m benchmarks.course --only imports labs  these parts; only shows them
    python -m benchmarks.course --check              exit status 1 if anything has become slower

Before and after each part a fixed piece of work is timed. Two runs are compared in units of it: so a slower machine is
not taken for a slower course.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.course_parts import PARTS, ROOT, Failed, Part, Skipped, calibrate
from benchmarks.course_table import compare, table
from benchmarks.loading import RESULTS, machine
from course_helpers.labs.records import write_json, write_text

RECORD = "course.json"


def measure(parts: dict[str, Part], options: argparse.Namespace, calibrated: Callable[[], float]) -> dict[str, dict]:
    """Each part's figures and the calibration's seconds around them; or why there are none."""
    found = {}
    for name, part in parts.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        before = calibrated()
        try:
            measured = part.measure(options)
        except Skipped as reason:
            found[name] = {"skipped": str(reason)}
        except Failed as reason:
            found[name] = {"failed": str(reason)}
        else:
            calibration = statistics.mean((before, calibrated()))
            found[name] = {"calibration": calibration, **dataclasses.asdict(measured)}
    return found


def last_committed() -> dict:
    """The record of the last commit; outside of a repository, or before the first commit of one, the file's."""
    file = RESULTS / RECORD
    place = f"HEAD:./{file.relative_to(ROOT).as_posix()}"
    try:
        told = subprocess.run(["git", "show", place], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:  # no git
        told = None
    if told and told.returncode == 0:
        return json.loads(told.stdout)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"parts": {}}


def main(
    arguments: list[str] | None = None,
    parts: dict[str, Part] = PARTS,
    calibrated: Callable[[], float] = calibrate,
) -> int:
    """Measure, compare, show; returns 1 if a part failed, or with --check if one has become slower, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.course", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=f"some of: {', '.join(parts)}")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a figure is slower or over its budget")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with this record (the committed one)")
    parser.add_argument("--labs-record", type=Path, metavar="FILE", help="the run.json of a `make run` just done")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"for {RECORD} and course.md, also with --only")
    chosen = parser.parse_args(arguments)
    last = json.loads(chosen.against.read_text(encoding="utf-8")) if chosen.against else last_committed()
    about, began = machine(), time.perf_counter()
    found = measure({name: parts[name] for name in chosen.only or parts}, chosen, calibrated)
    report = {"machine": about, "minutes": (time.perf_counter() - began) / 60, "parts": found}
    rows = compare(found, last["parts"], {name: part.noise for name, part in parts.items()})
    print(text := table(report, last, rows))
    failed = any("failed" in part for part in found.values())
    if failed:
        print("a part failed: nothing is written", file=sys.stderr)
    elif output := chosen.output or (None if chosen.only else RESULTS):
        write_json(output / RECORD, report)
        write_text(output / "course.md", text)
    return int(failed or (chosen.check and any(row.marks for row in rows)))


if __name__ == "__main__":
    sys.exit(main())
