"""Happy or sad? Finetune the bundled model of every family to tell, and see how much the base knew.

    python checkpoints/classify.py                  all families; some minutes on two cores
    python checkpoints/classify.py tiny-llama3      one of them

The label of a story decides its last two sentences, the outcome and the ending, and some of their words stand in
stories of one label only. So words alone give many labels away (tests/test_classification_stories.py counts them), and
a high accuracy shows that the pipeline works, not that a model understands. What the base has learned shows between
the columns: the head as it begins; trained with the last two blocks; trained alone; and with the last two blocks of
random weights, in the same way.
"""

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import stories
import torch

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.architectures.base import LanguageModel
from course_helpers.classification import (
    SequenceClassifier,
    accuracy,
    balanced,
    freeze_all_but,
    train_classifier,
)
from course_helpers.training import TrainingSettings, initialize

STORIES, STORY_SEED = 2_000, 3  # a seed of their own: neither training nor held-out stories of the bundled models
A_LABEL = (400, 200)  # stories to train on, and to be asked about
STEPS, BATCH_SIZE, RATE, BLOCKS = 40, 16, 4e-3, 2
DEVIATION = 0.05  # of random weights, as in build.py


class Row(NamedTuple):
    """Accuracies on held-out stories."""

    name: str
    before: float  # the head as it begins
    after: float
    head_only: float  # the whole base frozen
    random_base: float  # the same training as `after`, on random weights
    seconds: float  # of the training that gave `after`


def story_sets(counts: Sequence[int] = A_LABEL) -> list[tuple[list[str], list[str]]]:
    found = list(stories.stories(STORIES, STORY_SEED))
    return balanced([story.text for story in found], [story.label for story in found], counts)


def finetuned(
    base: LanguageModel, rows: list[list[int]], labels: list[str], steps: int = STEPS, blocks: int = BLOCKS
) -> SequenceClassifier:
    """A classifier of a base, its last blocks and final norm trained; without blocks, the head alone."""
    classifier = SequenceClassifier(base, stories.LABELS)
    freeze_all_but(classifier, blocks, final_norm=blocks > 0)
    settings = TrainingSettings(steps, RATE, warmup_steps=5)
    train_classifier(classifier, rows, labels, settings, BATCH_SIZE)
    return classifier


def measure(name: str, steps: int = STEPS, counts: Sequence[int] = A_LABEL) -> Row:
    tokenizer = load_tokenizer(name)
    (train_texts, train_labels), (texts, labels) = story_sets(counts)
    train_rows, rows = ([tokenizer.encode(text) for text in part] for part in (train_texts, texts))

    def base() -> LanguageModel:
        return load_model(name, dtype=torch.float32)

    before = accuracy(SequenceClassifier(base(), stories.LABELS).eval(), rows, labels)
    started = time.perf_counter()
    after = finetuned(base(), train_rows, train_labels, steps)
    seconds = time.perf_counter() - started
    others = (
        finetuned(base(), train_rows, train_labels, steps, blocks=0),
        finetuned(initialize(base(), 0, DEVIATION), train_rows, train_labels, steps),
    )
    return Row(name, before, *(accuracy(one, rows, labels) for one in (after, *others)), seconds)


def main() -> None:
    names = [family.tiny for family in FAMILIES.values()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(names)}; all unless given")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'base':<16}{'before':>8}{'last blocks':>13}{'head only':>11}{'random base':>13}{'seconds':>9}")
    for name in arguments.names or names:
        row = measure(name, arguments.steps)
        figures = f"{row.before:>8.1%}{row.after:>13.1%}{row.head_only:>11.1%}{row.random_base:>13.1%}"
        print(f"{row.name:<16}{figures}{row.seconds:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
