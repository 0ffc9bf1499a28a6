"""The table of all silent faults and of the layers that notice them, from what was observed."""

from pathlib import Path

from course_helpers import FAMILIES
from tests.silent_faults import FAULTS
from tests.silent_faults.observe import observe

README = Path(__file__).with_name("README.md")
HEAD = """# Silent faults: which layer of the validation stack notices

Made by `python -m tests.silent_faults` from what was observed, and compared by `test_silent_faults.py`: {count} faults,
each put into the bundled checkpoint of every family that it fits, {cases} cases in all. Every one of them loads, in
other code if not in ours, and answers with text. The good checkpoints of all families pass every layer.

A cell names the first layer that fails, of `files`, `shapes`, `forward`, `generation` and `baseline`. The checkpoints
have their card with them, but without its list of hashes; with it, the first layer notices every change to a
file{exceptions}. Where a cell has a star, the fault is noticed without any card, too; where it has none, only the
card's baseline tells.

| Fault | {families} |
|---|{rules}|
"""


def table() -> str:
    """The whole page. Observes every fault in every family, as far as that was not done in this process."""
    rows = [f"| {name} | " + " | ".join(cell(name, family) for family in FAMILIES) + " |" for name in FAULTS]
    unseen = sorted(
        {name for name, family in cases() if not FAULTS[name].in_code and not observe(name, family).by_hash}
    )
    head = HEAD.format(
        count=len(FAULTS),
        cases=len(cases()),
        exceptions=f", but for: {'; '.join(unseen)}" if unseen else "",
        families=" | ".join(FAMILIES),
        rules="|".join("---" for _ in FAMILIES),
    )
    return head + "\n".join(rows) + "\n"


def cases() -> list[tuple[str, str]]:
    return [(name, family) for name, fault in FAULTS.items() for family in fault.families]


def cell(name: str, family: str) -> str:
    if family not in FAULTS[name].families:
        return ""
    seen = observe(name, family)
    return seen.layer + ("\\*" if seen.without_card else "")
