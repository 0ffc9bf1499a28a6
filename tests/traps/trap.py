"""What a trap is, and the ways to put a mistake into the package."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pytest import MonkeyPatch

from course_helpers.errors import CheckpointError
from tests.tiny_models import EXAMPLES, Data

Change = Callable[[MonkeyPatch], None]  # puts the mistake in, for as long as the MonkeyPatch holds it there
Check = Callable[[Data], str | None]  # of a config: None where all is well, or what was seen


@dataclass(frozen=True)
class Trap:
    """A silent mistake that others have made, and the check that sees it when we make it."""

    name: str
    facts: str  # the section of the page of facts, or the row of its table 4
    family: str
    change: Change
    check: Check
    others: Data = field(default_factory=dict)  # what its config has and the family's example has not
    seen_at: str = ""  # the place that `first_mismatch` names; empty where one pass does not show the mistake
    word: str = ""  # of the first cause that it gives
    loading: bool = False  # the mistake is made while loading: a model that was loaded so computes rightly

    @property
    def config(self) -> Data:
        return EXAMPLES[self.family] | self.others

    def seen(self) -> str | None:
        """What the check sees. Where the package refuses a checkpoint that is sound, that is seen as well."""
        try:
            return self.check(self.config)
        except CheckpointError as error:
            return f"refused: {error.what}"


def attribute(owner: Any, name: str, value: Any) -> Change:
    return lambda patch: patch.setattr(owner, name, value)


def item(table: MutableMapping, key: str, value: Any) -> Change:
    return lambda patch: patch.setitem(table, key, value)


def exchanged(table: MutableMapping, one: str, other: str) -> Change:
    def change(patch: MonkeyPatch) -> None:
        first, second = table[one], table[other]
        patch.setitem(table, one, second)
        patch.setitem(table, other, first)

    return change
