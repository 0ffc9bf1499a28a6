"""What M9-LAB-APP-C runs beside its own cells: its texts, the word counter it is compared with, and what was handed on.

The check functions of its exercises are in `lab_app_c_exercises.py`, its drawings in `lab_app_c_figures.py`, its charts
in `lab_app_c_charts.py`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..classification import SequenceClassifier, balanced
from ..errors import CheckpointError
from .lab_07 import grammar

#: Between a sentence's last mark and the next sentence's first letter; a quotation mark may stand on either side.
BETWEEN_SENTENCES = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\")) (?=[A-Z\"])")
STORIES, SEED = 2_000, 3  # the seed of checkpoints/classify.py: none that the bundled models were trained or judged on

Labelled = tuple[list[str], list[str]]  # texts, and their labels


def sentences(text: str) -> list[str]:
    """A story's sentences; the label decides the last ones only."""
    return BETWEEN_SENTENCES.split(text)


def story_sets(counts: Sequence[int]) -> list[Labelled]:
    """Sets of stories with their labels, so many of each label, and no text in two of them."""
    told = list(grammar().stories(STORIES, SEED))
    return balanced([story.text for story in told], [story.label for story in told], counts)


def labels() -> tuple[str, ...]:
    """The two labels that a story can have."""
    return grammar().LABELS


def by_counting_words(train: Labelled, texts: Sequence[str]) -> list[str]:
    """The labels that naive Bayes finds: how often does each word stand in texts of this label? No order, no model."""
    counts = {label: Counter() for label in train[1]}
    for text, label in zip(*train, strict=True):
        counts[label].update(set(grammar().words(text)))
    many = Counter(train[1])

    def score(text: str, label: str) -> float:
        words = set(grammar().words(text))
        return math.log(many[label]) + sum(math.log((counts[label][word] + 1) / (many[label] + 2)) for word in words)

    return [max(sorted(counts), key=lambda label: score(text, label)) for text in texts]


def share_right(found: Sequence[str], labels: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(found, labels, strict=True)) / len(labels)


def confusion(found: Sequence[str], labels: Sequence[str]) -> Mapping[tuple[str, str], int]:
    """How many texts of each true label got each answer: (true, found) -> count."""
    return Counter(zip(labels, found, strict=True))


def refusal(load: Callable[..., object], *arguments: object) -> CheckpointError | None:
    """The error with which something is refused; None if it is not."""
    try:
        load(*arguments)
    except CheckpointError as error:
        return error
    return None


def in_short(error: CheckpointError | None) -> str:
    """What a refusal says, without hashes and folders: these are different on every machine."""
    if error is None:
        return "loaded, without a word"
    more = len(error.problems) - 1
    others = f"\n  and {more} more file{'s' if more > 1 else ''}" if more else ""
    return f"{error.what}\n  {'field':<13}{error.field}\n  {'likely cause':<13}{error.cause}{others}"


def parts(classifier: SequenceClassifier) -> list[tuple[str, int, bool]]:
    """The parts of a classifier in the order of the computation: name, parameters, and whether it is trained. What a
    base has outside of its blocks and its final norm is its embedding, and a head of its own that is not used."""
    base = classifier.base
    named = {f"block {index + 1}": block for index, block in enumerate(base.blocks)}
    named |= {"norm": base.final_norm, "head": classifier.head}
    inside = {id(tensor) for module in named.values() for tensor in module.parameters()}
    outside = [tensor for tensor in base.parameters() if id(tensor) not in inside]

    def row(name: str, tensors: Sequence[Tensor]) -> tuple[str, int, bool]:
        return name, sum(tensor.numel() for tensor in tensors), any(tensor.requires_grad for tensor in tensors)

    return [row("embedding", outside), *(row(name, list(module.parameters())) for name, module in named.items())]
