"""Records of several labs behind one figure, with one short line that says where all of them come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .numbers import BENCHMARKS, RESULTS, measured
from .svg import Drawing

#: Records that are not a lab's, and what they are called under a figure.
TITLES = {"loading": "benchmark of loading", "planning": "benchmark of planning", "run": "the labs' run"}
FOLDERS: Mapping[str, Path] = {"loading": BENCHMARKS, "planning": BENCHMARKS}


def measured_together(drawing: Drawing, *names: str) -> dict[str, dict[str, Any]]:
    """What several labs or benchmarks recorded, by name; records of one machine share one provenance line."""
    aside = Drawing(1, 1)  # takes the single lines, each of the form "Measured: NAME, DATE, MACHINE"
    records = {name: measured(aside, name, FOLDERS.get(name, RESULTS)) for name in names}
    machines: dict[tuple[str, str], dict[str, list[str]]] = {}
    for line in aside.sources:
        kind, _, rest = line.partition(": ")
        name, date, machine = rest.split(", ", 2)
        machines.setdefault((kind, machine), {}).setdefault(date, []).append(name)
    for (kind, machine), days in machines.items():
        dated = "; ".join(f"{short(found)}, {date}" for date, found in days.items())
        drawing.source(f"{kind}: {dated}, {machine}")
    return records


def short(labs: list[str]) -> str:
    """`M9-LAB-02, 03, 04`: labs as a list that says once what all of them share."""
    prefix = "M9-LAB-"
    first, *others = labs
    return ", ".join(
        [TITLES.get(first, first)]
        + [TITLES.get(name) or (name.removeprefix(prefix) if first.startswith(prefix) else name) for name in others]
    )
