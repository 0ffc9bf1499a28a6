"""Building a checkpoint: every recipe runs from corpus to card, and twice gives the same bytes."""

import itertools
import json

import build
import pytest
import torch

from course_helpers import validate_checkpoint
from course_helpers.training import IGNORED


@pytest.fixture
def few_stories(monkeypatch):
    for name, count in (("TRAIN_STORIES", 1500), ("TOKENIZER_STORIES", 1500), ("HELD_OUT_STORIES", 20)):
        monkeypatch.setattr(build, name, count)
    for name, count in (("NEW_TOKENS", 8), ("CONTINUED_STORIES", 3), ("RARE_STORIES", 500)):
        monkeypatch.setattr(build, name, count)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", build.RECIPES)
def test_a_recipe_gives_a_valid_checkpoint_and_the_same_one_again(few_stories, tmp_path, name):
    cards = [build.build(name, tmp_path / str(attempt) / name, steps=2, threads=1) for attempt in (1, 2)]
    assert cards[0] == cards[1] == json.loads((tmp_path / "1" / name / "card.json").read_text())
    assert validate_checkpoint(tmp_path / "1" / name).ok
    files = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()}
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)


def first_batches(name, count=20):
    texts = [story.text for story in build.stories.stories(500, 1)]
    tokenizer = build.load_tokenizer(build.HERE / name)
    return tokenizer, texts, list(itertools.islice(build.batches(texts, tokenizer, 0), count))


@pytest.mark.parametrize(("name", "shares"), [("tiny-gpt2", (0.3, 0.7)), ("tiny-llama3", (1.0, 1.0))])
def test_a_row_is_a_whole_story(name, shares):
    """With its beginning mark where the family always writes one, otherwise half of the time."""
    tokenizer, texts, found = first_batches(name)
    begun = []
    for inputs_BT, targets_BT in found:
        for inputs_T, targets_T in zip(inputs_BT, targets_BT, strict=True):
            length = int((targets_T != IGNORED).sum())
            assert torch.equal(inputs_T[1:length], targets_T[: length - 1]) and (targets_T[length:] == IGNORED).all()
            assert targets_T[length - 1] == tokenizer.stop_ids[0]
            assert tokenizer.decode(inputs_T[:length]) in texts
            begun.append(inputs_T[0].item() == tokenizer.bos_id)
    assert shares[0] <= sum(begun) / len(begun) <= shares[1]


def test_the_lesson_of_returning_words_asks_for_these_only():
    """Against a loop: a target stays if it stands earlier in its row and is rare among the stories."""
    tokenizer, texts, found = first_batches("tiny-llama3", 3)
    rare_V = build.rare_tokens(texts, tokenizer)
    share = {token: sum(token in tokenizer.encode(text) for text in texts[:100]) / 100 for token in range(0, 1024, 50)}
    assert all(rare_V[token] or share[token] > 0.1 for token in share)
    kept = 0
    for (inputs_BT, all_BT), (same_BT, targets_BT) in zip(found, build.returning(iter(found), rare_V), strict=True):
        assert torch.equal(inputs_BT, same_BT)
        for inputs, everything, targets in zip(inputs_BT.tolist(), all_BT.tolist(), targets_BT.tolist(), strict=True):
            for place, (token, target) in enumerate(zip(everything, targets, strict=True)):
                returns = token != IGNORED and token in inputs[: place + 1] and bool(rare_V[token])
                assert target == (token if returns else IGNORED)
                kept += returns
    assert kept > 3 * build.BATCH_SIZE


def test_the_course_goes_from_returning_words_to_all_words(monkeypatch):
    monkeypatch.setattr(build, "RETURNING_ALONE", 2)
    monkeypatch.setattr(build, "RETURNING_UNTIL", 6)
    tokenizer, texts, _ = first_batches("tiny-llama3", 0)
    asked = [
        (targets_BT != IGNORED).float().mean().item()
        for _, targets_BT in itertools.islice(build.lessons(texts, tokenizer), 9)
    ]
    assert [share > 0.5 for share in asked] == [False, False, True, False, True, False, True, True, True]
