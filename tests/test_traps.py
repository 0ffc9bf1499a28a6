"""Each trap's check passes, and no longer does once the mistake is made: the check is worth having."""

import runpy

import pytest

from tests.traps import TRAPS
from tests.traps.trap import Trap

every_trap = pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)


@every_trap
def test_the_check_passes(trap: Trap):
    assert trap.seen() is None


@every_trap
def test_the_check_sees_the_mistake(trap: Trap, monkeypatch: pytest.MonkeyPatch):
    trap.change(monkeypatch)
    assert trap.seen()


def test_no_two_traps_have_the_same_name():
    assert len({trap.name for trap in TRAPS}) == len(TRAPS) >= 25


def test_the_list_names_every_trap_and_its_check(capsys):
    runpy.run_module("tests.traps", run_name="__main__")
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(TRAPS)
    assert all(trap.name in line and line.endswith(trap.check.__doc__) for trap, line in zip(TRAPS, lines, strict=True))
