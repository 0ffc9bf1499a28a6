"""Pre-flight: what holds of this computer, before anything is downloaded. `python -m course_helpers doctor`.

Every line says what was looked at, what was found, and, where something is amiss, the next step. A line that failed
stops the labs; a warning tells what to expect. The network is asked only on request, and no token is ever shown.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .families import FAMILIES
from .labs.records import write_text
from .preflight.checks import GENERAL, check_family, check_network, describe_family
from .preflight.lines import FAILED, MARKS, WARNING, Line
from .preflight.surroundings import Surroundings, look_around


@dataclass(frozen=True)
class PreflightReport:
    """All lines, in order. `print` it; `ok` is False only if something failed."""

    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        return all(line.state != FAILED for line in self.lines)

    def to_json(self) -> str:
        return json.dumps({"ok": self.ok, "lines": [asdict(line) for line in self.lines]}, indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        text, section = [], None
        for line in self.lines:
            if line.section != section:
                section = line.section
                text += ["", section] if text else [section]
            text.append(f"  {MARKS[line.state]} {line.what:<{width}}  {line.found}".rstrip())
            if line.next_step:
                text.append(f"  {'':<{width + len(MARKS[line.state])}}   -> {line.next_step}")
        failed, warned = (sum(line.state == state for line in self.lines) for state in (FAILED, WARNING))
        return "\n".join([*text, "", f"{len(self.lines)} lines: {failed} failed, {warned} to know about"])


def preflight(
    family: str | None = None, *, surroundings: Surroundings | None = None, network: bool = False
) -> PreflightReport:
    """Look at this computer, and at what it can run of every family, or (with more of its particulars) of one.

    Raises ValueError for a family that there is not. `surroundings`: another computer than this one, for tests.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; there are: {', '.join(FAMILIES)}")
    around = surroundings or look_around()
    lines = [line for check in GENERAL for line in check(around)]
    lines += [check_network()] if network else []
    lines += [line for name in ([family] if family else FAMILIES) for line in check_family(around, name)]
    lines += describe_family(around, family) if family else []
    return PreflightReport(tuple(lines))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m course_helpers doctor`."""
    parser.add_argument("--family", choices=FAMILIES, help="with the checklist of this family")
    parser.add_argument("--network", action="store_true", help="also see whether the hub answers")
    parser.add_argument("--json", type=Path, help="also write the report there")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 unless something failed."""
    report = preflight(arguments.family, network=arguments.network)
    print(report)
    if arguments.json:
        write_text(arguments.json, report.to_json() + "\n")
    return 0 if report.ok else 1
