"""Happy or sad: what training a head shows, what the same on random weights shows, and what words alone give away."""

import math
from collections import Counter

import classify
import pytest
import stories
import torch

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.classification import accuracy
from course_helpers.training import initialize

TRAINING, ASKED = 240, 50  # stories of each label
STEPS, TOKENS = 30, 48  # the label decides the last two sentences only, and these are short enough


@pytest.fixture(scope="module")
def story_sets():
    return classify.story_sets((TRAINING, ASKED))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(name, story_sets, random_weights=False):
    (texts, labels), (asked, answers) = story_sets
    base, tokenizer = load_model(name, dtype=torch.float32), load_tokenizer(name)
    base = initialize(base, 0, classify.DEVIATION) if random_weights else base
    rows, asked_rows = ([tokenizer.encode(text)[-TOKENS:] for text in part] for part in (texts, asked))
    return accuracy(classify.finetuned(base, rows, labels, STEPS), asked_rows, answers)


@pytest.mark.parametrize("name", [family.tiny for family in FAMILIES.values()])
def test_a_base_of_each_family_learns_the_labels(story_sets, name):
    assert trained(name, story_sets) >= 0.9


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-qwen3-moe"])
def test_random_weights_do_not(story_sets, name):
    """The same stories, head, blocks and steps: what is learned above comes from the base."""
    assert trained(name, story_sets, random_weights=True) <= 0.8


def test_words_alone_give_many_labels_away(story_sets):
    """A naive Bayes classifier, which counts words and knows no order. The grammar has outcomes and endings of its own
    for each label, so many a word stands mostly in happy stories."""
    (texts, labels), (asked, answers) = story_sets
    counts = {label: Counter() for label in stories.LABELS}
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(stories.words(text)))

    def score(text, label):
        return sum(math.log((counts[label][word] + 1) / (TRAINING + 2)) for word in set(stories.words(text)))

    found = [max(stories.LABELS, key=lambda label: score(text, label)) for text in asked]
    right = sum(one == other for one, other in zip(found, answers, strict=True)) / len(asked)
    assert 0.75 <= right <= 0.9  # 0.82 when this was written: more than chance, less than any finetuned base


def test_the_label_is_in_the_last_two_sentences():
    """Of two stories made by the same choices up to the label, everything before the outcome is the same."""
    for story in stories.stories(50, 5):
        names = [choice.what for choice in story.choices]
        label = names.index("label")
        assert all(not what.endswith((": happy", ": sad", "ending")) for what in names[:label])
        assert story.choices[label].value == story.label and story.choices[label].probability == 0.5
