"""The table of silent faults (`tests/silent_faults/README.md`) as data: who stops which fault in which family."""

import re
from dataclasses import dataclass
from pathlib import Path

from .numbers import ROOT

TABLE = ROOT / "tests" / "silent_faults" / "README.md"
LAYERS = ("files", "shapes", "forward", "generation", "baseline")  # in the order in which they are asked
IN_CODE = "code: "  # how the name of a fault begins that is in a program and in no file


@dataclass(frozen=True)
class Case:
    """One fault in one family's checkpoint, and who noticed it first."""

    fault: str
    family: str
    layer: str
    without_card: bool

    @property
    def in_code(self) -> bool:
        return self.fault.startswith(IN_CODE)


def read_cases(path: Path = TABLE) -> list[Case]:
    """All cases, in the table's order. Raises ValueError where a cell names no layer."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    (_, *families), *faults = rows
    cases = []
    for fault, *cells in faults:
        for family, cell in zip(families, cells, strict=True):
            if not cell:
                continue
            match = re.fullmatch(r"(\w+)(\\\*)?", cell)
            if not match or match[1] not in LAYERS:
                raise ValueError(f"{path.name}: {fault}, {family}: {cell!r} names no layer of {', '.join(LAYERS)}")
            cases.append(Case(fault, family, match[1], match[2] is not None))
    return cases


def stopped(cases: list[Case]) -> dict[str, int]:
    """How many cases each layer is the first to notice."""
    return {layer: sum(case.layer == layer for case in cases) for layer in LAYERS}
