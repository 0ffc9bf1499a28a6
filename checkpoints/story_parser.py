"""Is a text a story of the grammar? The inverse of `stories.tell`: from a text back to the choices that made it.

A story that a model wrote is right if it can be parsed: every sentence is one of the grammar's, and every name,
colour and thing is still the one it was at its first mention.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from stories import LABELS, PART, PLOTS, Choice, Plot, Story


class Place(NamedTuple):
    """How far a reader has come: the rest of the text, the facts known so far (fact -> its forms), the choices."""

    rest: str
    facts: dict[str, dict[str, str]]
    choices: tuple[Choice, ...]

    def choose(self, what: str, value: str, options: int) -> "Place":
        return self._replace(choices=(*self.choices, Choice(what, value, 1 / options)))

    def read(self, words: str) -> "Place | None":
        return self._replace(rest=self.rest[len(words) :]) if self.rest.startswith(words) else None


def parse(text: str) -> Story | None:
    """The story that a text tells, with its choices and probability, or None if the grammar does not tell it."""
    for name, plot in PLOTS.items():
        start = Place(text, {}, (Choice("plot", name, 1 / len(PLOTS)),))
        for turn in plot.turns:
            for label in LABELS:
                for end in through(plot, start, turn, label):
                    probability = math.fsum(math.log(choice.probability) for choice in end.choices)
                    return Story(text, label, probability, name, end.choices)
    return None


def through(plot: Plot, start: Place, turn: str, label: str) -> Iterator[Place]:
    """The places at the end of the text, after all six steps."""
    turn_choice, label_choice = ("turn", turn, len(plot.turns)), ("label", label, len(LABELS))
    steps = [
        ("opening", None),
        ("wish", None),
        (f"{turn}: trouble", turn_choice),
        (f"{turn}: action", None),
        (f"{turn}: {label}", label_choice),
        (f"{label} ending", None),
    ]
    places = [start]
    for number, (heading, choice) in enumerate(steps):
        if choice is not None:
            places = [place.choose(*choice) for place in places]
        if number:
            places = [place for before in places if (place := before.read(" "))]
        places = [after for place in places for after in one_step(plot, place, heading)]
    return iter(place for place in places if not place.rest)


def one_step(plot: Plot, place: Place, heading: str) -> Iterator[Place]:
    """The places after one sentence, for each template that fits."""
    templates = plot.templates[heading]
    for template in templates:
        yield from fill(plot, template, 0, place.choose(heading, template, len(templates)))


def fill(plot: Plot, template: str, position: int, place: Place) -> Iterator[Place]:
    """Read the rest of a template, from a position on."""
    part = PART.search(template, position)
    plain = template[position : part.start() if part else None]
    if (here := place.read(plain)) is None:
        return
    if part is None:
        yield here
        return
    for after in options(plot, part, here):
        yield from fill(plot, template, part.end(), after)


def options(plot: Plot, part, place: Place) -> Iterator[Place]:
    """The places after a detail or a fact."""
    slot, form, detail = part.groups()
    if detail:
        words = detail.split("|")
        yield from (after for word in words if (after := place.choose("detail", word, len(words)).read(word)))
        return
    fact = slot.lower()
    known = fact in place.facts
    table = {None: place.facts[fact]} if known else plot.tables[fact]
    for value, forms in table.items():
        word = forms[form or ""]
        word = word if slot == fact else word[0].upper() + word[1:]
        after = place if known else place.choose(fact, value, len(table))
        after = after._replace(facts=place.facts | {fact: forms})
        if (end := after.read(word)) is not None:
            yield end
