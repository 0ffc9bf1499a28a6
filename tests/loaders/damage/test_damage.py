"""Every kind of damage, in every format it can happen in: refused with a reason, or proven to change nothing."""

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES
from tests.loaders.damage.kind import BYTES, EQUAL, EVERYWHERE, FILES, STAGES, Kind
from tests.loaders.damage.observe import NOBODY, Observed, observe
from tests.loaders.damage.registry import KINDS
from tests.loaders.damage.table import README, observed, table

by_chance = {name: kind for name, kind in KINDS.items() if kind.positions}


def held(kind: Kind, format: str, found: Observed) -> None:
    """Hold what was observed against what must happen."""
    if found.by == EQUAL:
        assert kind.harmless or kind.must == EQUAL, "it loads as if nothing were wrong, and nothing is"
    elif found.by == NOBODY:
        assert format not in FILES and kind.must == BYTES, "loaded in silence"
    else:
        assert (kind.must == EQUAL and kind.harmless) or found.by in STAGES[: STAGES.index(kind.must) + 1], found
        assert re.search(kind.says, found.says) or found.by != kind.must, found.says


@pytest.mark.parametrize("name", KINDS)
def test_no_damage_goes_unnoticed(name):
    for format in KINDS[name].formats:
        held(KINDS[name], format, observed(name, format))


@pytest.mark.parametrize("name", by_chance)
@settings(max_examples=10)
@given(seed=st.integers(1, 2**32))
def test_no_damage_goes_unnoticed_wherever_it_is(name, seed):
    kind = by_chance[name]
    format = Random(seed).choice(kind.formats)
    held(kind, format, observe(kind, format, seed))


def test_there_are_at_least_sixty_kinds_and_every_format_and_family_has_some():
    assert len(KINDS) >= 60
    assert sum(kind.must != EQUAL for kind in KINDS.values()) >= 60
    for format in EVERYWHERE:
        assert sum(format in kind.formats for kind in KINDS.values()) >= 4, format
    for family in FAMILIES:
        assert sum(family in kind.families for kind in KINDS.values()) >= 60


def test_the_table_says_what_is_observed():
    assert README.read_text(encoding="utf-8") == table(), "python -m tests.loaders.damage writes it anew"
