"""``check``: everything that can be known of a lab without executing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from course_helpers.labs.check_notebook import NOTEBOOK_RULES
from course_helpers.labs.check_source import SOURCE_RULES
from course_helpers.labs.finding import Finding
from course_helpers.labs.order import Lab, LabError
from course_helpers.labs.pair import Notebook, content, read_notebook, read_source, relative

PAIR_PARTS = ("cell type", "source", "tags")


def check_lab(lab: Lab) -> list[Finding]:
    """Every finding on one lab, those on its ``.py`` first."""
    source = read_source(lab)
    findings = [finding for rule in SOURCE_RULES for finding in rule(lab, source)]
    try:
        notebook = read_notebook(lab)
    except LabError:
        missing = Finding(relative(lab.notebook), "file", "missing or not readable", lab.build_command)
        return [*findings, missing]
    findings += check_pair(lab, source, notebook)
    return findings + [finding for rule in NOTEBOOK_RULES for finding in rule(lab, notebook)]


def check_labs(labs: Sequence[Lab]) -> bool:
    """Print the findings on all labs; returns whether there are none."""
    findings = [finding for lab in labs for finding in check_lab(lab)]
    for finding in findings:
        print(finding)
    print(f"{len(labs)} labs checked, {len(findings)} findings")
    return not findings


def check_pair(lab: Lab, source: Notebook, notebook: Notebook) -> Iterator[Finding]:
    """The first cell in which the two files of the pair differ: what follows it is usually shifted by it."""
    pairs = zip_longest(content(source), content(notebook))
    for number, (expected, found) in enumerate(pairs, start=1):
        if expected != found:
            yield Finding(
                relative(lab.notebook),
                f"cell {number}",
                f"{_difference(expected, found)} than in {lab.source.name}",
                f"make the .py right, it is the source, then: {lab.build_command}",
            )
            return


def _difference(expected: tuple | None, found: tuple | None) -> str:
    if expected is None or found is None:
        return "the notebook has more cells" if expected is None else "the notebook has fewer cells"
    parts = zip(PAIR_PARTS, expected, found, strict=True)
    part, wanted, have = next(triple for triple in parts if triple[1] != triple[2])
    return f"another {part} ({_start(have)} instead of {_start(wanted)})"


def _start(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
