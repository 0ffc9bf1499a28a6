"""What a check found wrong: where, what, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a lab; ``where`` is a cell (all cells counted, from 1), a line or the header."""

    file: str
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}, {self.where}: {self.problem}\n    fix: {self.fix}"
