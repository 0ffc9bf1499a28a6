"""What the tiny models are taught, step by step: batches of stories, and which of their words are asked for.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

import itertools
import math
import random
import re
from collections.abc import Iterable, Iterator

import stories
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from course_helpers.tokenizers import Tokenizer
from course_helpers.training import IGNORED

SEED = 9
BATCH_SIZE = 28  # stories a step
RETURNING_ALONE, RETURNING_UNTIL = 250, 1400  # steps of the lesson that `returning` gives: alone, and in turn
RARE_STORIES = 3000  # enough to tell rare words from common ones
#: The second course: facts that seldom come back, so that after the first one attention may still guess at them.
SELDOM = ("family", "bed", "water", "place")
SELDOM_PART = 0.75  # of the second course; the rest restores the balance between words


def marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """A story between the marks it begins and ends with; families without a beginning mark put the end mark of the
    text before there."""
    begin = tokenizer.stop_ids[0] if tokenizer.bos_id is None else tokenizer.bos_id
    return [begin, *tokenizer.encode(text, bos=False), tokenizer.stop_ids[0]]


Batch = tuple[Tensor, Tensor]


def batches(texts: list[str], tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Batches of whole stories, (B, T) inputs and targets, without end; stories of like length come together, so that
    little is padding. Where the family writes prompts without a beginning mark, half of the stories have none."""
    rows = [marked(tokenizer, text) for text in texts]
    chooser = random.Random(seed)
    while True:
        chosen = [
            row[not tokenizer.adds_bos and chooser.random() < 0.5 :] for row in chooser.choices(rows, k=16 * BATCH_SIZE)
        ]
        chosen.sort(key=len)
        groups = [chosen[start : start + BATCH_SIZE] for start in range(0, len(chosen), BATCH_SIZE)]
        chooser.shuffle(groups)
        for group in groups:
            inputs = [torch.tensor(row[:-1]) for row in group]
            targets = [torch.tensor(row[1:]) for row in group]
            yield (
                pad_sequence(inputs, batch_first=True),
                pad_sequence(targets, batch_first=True, padding_value=IGNORED),
            )


def returning(found: Iterator[Batch], rare_V: Tensor) -> Iterator[Batch]:
    """The same batches with only those targets left that stand earlier in their story, and are rare elsewhere: names,
    colours, things.

    What a story says of its hero comes back sentences later, and nothing but looking back can tell it. Among all the
    other words of a story that lesson is so faint that thousands of steps go by before attention learns it; alone it
    takes a few hundred.
    """
    for inputs_BT, targets_BT in found:
        earlier_TT = torch.ones(inputs_BT.shape[1], inputs_BT.shape[1], dtype=torch.bool).tril()
        seen_BT = ((targets_BT[:, :, None] == inputs_BT[:, None, :]) & earlier_TT).any(dim=-1)
        # Padding, IGNORED, is never seen earlier: it is no token.
        yield inputs_BT, targets_BT.where(seen_BT & rare_V[targets_BT.clamp(min=0)], IGNORED)


def rare_tokens(texts: list[str], tokenizer: Tokenizer) -> Tensor:
    """Which tokens stand in fewer than a fifth of the stories, (V,) bool."""
    count_V = torch.zeros(tokenizer.id_limit)
    for text in texts:
        count_V[list(set(tokenizer.encode(text)))] += 1
    return count_V < 0.2 * len(texts)


def lessons(texts: list[str], tokenizer: Tokenizer) -> Iterator[Batch]:
    """The whole course: first only the words that come back, then these and all words in turn, at last all words."""
    rare_V = rare_tokens(texts[:RARE_STORIES], tokenizer)
    whole = batches(texts, tokenizer, SEED)
    words = returning(batches(texts, tokenizer, SEED - 1), rare_V)
    for step in itertools.count():
        practice = step < RETURNING_ALONE or (step < RETURNING_UNTIL and step % 2)
        yield next(words if practice else whole)


class SecondCourse:
    """All words, and twice as often the one lesson that the model knows least: a seldom fact where it comes back, or
    the pronouns of a friend. At last all words only. Tell it the loss of every step: it decides what is asked next."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer, steps: int):
        self.whole = batches(texts, tokenizer, SEED + 1)
        self.lessons = {fact: seldom_words(texts, tokenizer, fact) for fact in SELDOM}
        for pronouns in (("she", "her"), ("he", "him", "his")):
            self.lessons[pronouns[0]] = friends_pronouns(texts, tokenizer, pronouns)
        self.last_loss = dict.fromkeys(self.lessons, math.inf)
        self.until = SELDOM_PART * steps
        self.step, self.lesson = 0, None  # None: all words

    def __iter__(self) -> "SecondCourse":
        return self

    def __next__(self) -> Batch:
        practice = self.step < self.until and self.step % 3
        self.lesson = max(self.last_loss, key=self.last_loss.get) if practice else None
        self.step += 1
        return next(self.lessons[self.lesson] if self.lesson else self.whole)

    def heard(self, loss: float) -> None:
        if self.lesson:
            self.last_loss[self.lesson] = loss


def seldom_words(texts: list[str], tokenizer: Tokenizer, fact: str) -> Iterator[Batch]:
    """Stories in which a value of the fact stands at least twice, with only its later mentions left as targets."""
    values = sorted({value for plot in stories.PLOTS.values() for value in plot.tables.get(fact, ())})
    chosen = [text for text in texts if any(len(re.findall(rf"\b{value}\b", text)) > 1 for value in values)]
    return returning(batches(chosen, tokenizer, SEED + 1), tokens_of(values, tokenizer))


def friends_pronouns(texts: list[str], tokenizer: Tokenizer, pronouns: tuple[str, ...]) -> Iterator[Batch]:
    """Stories in which these pronouns are a friend's and not the hero's, with only them left as targets."""

    def has(who: str, text: str) -> bool:
        names = [name for name, forms in stories.SHARED_TABLES[who].items() if forms["he"] == pronouns[0]]
        return re.search(rf"\b({'|'.join(names)})\b", text) is not None

    asked = re.compile(rf"\b({'|'.join(pronouns)})\b")
    chosen = [text for text in texts if has("friend", text) and not has("hero", text) and asked.search(text)]
    asked_V = tokens_of(pronouns, tokenizer)
    for inputs_BT, targets_BT in batches(chosen, tokenizer, SEED + 1):
        yield inputs_BT, targets_BT.where(asked_V[targets_BT.clamp(min=0)], IGNORED)


def tokens_of(words: Iterable[str], tokenizer: Tokenizer) -> Tensor:
    """The tokens that words are written with, (V,) bool; with and without a space before: tokenizers differ there."""
    asked_V = torch.zeros(tokenizer.id_limit, dtype=torch.bool)
    for word in words:
        asked_V[tokenizer.encode(word, bos=False) + tokenizer.encode(" " + word, bos=False)] = True
    return asked_V
