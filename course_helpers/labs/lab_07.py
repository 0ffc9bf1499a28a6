"""M9-LAB-07: where its texts come from, and what is said of several runs of one kind."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from ..loaders.sources import BUNDLED

GRAMMAR = "course_stories"  # the name it gets among Python's modules


@cache
def grammar() -> ModuleType:
    """`checkpoints/stories.py`, which is no part of the package: it lies in the repository, beside the models that
    learned from it, so it is loaded from there. Raises FileNotFoundError where only the package is."""
    path = BUNDLED / "stories.py"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: this lab's texts are told by the grammar in the folder `checkpoints` of the "
            "repository. Clone the whole repository, and run the lab from there"
        )
    spec = importlib.util.spec_from_file_location(GRAMMAR, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[GRAMMAR] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


def story_texts(count: int, seed: int) -> list[str]:
    """So many stories; a seed gives the same ones on every machine."""
    return [story.text for story in grammar().stories(count, seed)]


@dataclass(frozen=True)
class Spread:
    """The last losses of several runs that differ in nothing but the seed."""

    losses: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def width(self) -> float:
        """From the best run to the worst."""
        return max(self.losses) - min(self.losses)

    def gaps_to(self, other: "Spread") -> tuple[float, float]:
        """How far a run there is above a run here: of the two nearest ones, and of the two furthest."""
        return min(other.losses) - max(self.losses), max(other.losses) - min(self.losses)

    def clearly_below(self, other: "Spread") -> bool:
        """Whether the empty space between the two groups of runs is wider than this group itself. Groups that merely
        do not touch are no finding yet: three runs against three do that by chance once in ten times."""
        return self.gaps_to(other)[0] > self.width


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The fields in which two descriptions differ; None stands for a field that one of them lacks."""
    names = one | other
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
