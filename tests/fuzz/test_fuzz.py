"""A short run of every target; `python -m tests.fuzz` runs them as long as is wanted."""

import pytest

from tests.fuzz.run import Outcome, attempt, fuzz
from tests.fuzz.targets import TARGETS

#: Inputs for a second or two of each.
INPUTS = {"header": 1200, "index": 800, "config": 200, "params": 400, "manifest": 1200, "tensorflow": 1200}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_refusals_comes_of_any_input(name):
    outcome = fuzz(name, seconds=60, most=INPUTS[name])
    assert not outcome.findings, outcome.findings
    assert outcome.executions == INPUTS[name]
    # It gets past the first check in both directions.
    assert outcome.accepted > 5 and len(outcome.refusals) > 5


def test_any_other_error_is_a_finding():
    outcome = Outcome()

    def read(raw: bytes) -> None:
        raise KeyError(raw.decode())

    assert not attempt(read, b"a", outcome) and not attempt(read, b"b", outcome)
    assert outcome.executions == 2 and list(outcome.findings.values()) == [b"a", b"b"]
    assert all("KeyError at test_fuzz.py" in what for what in outcome.findings)
