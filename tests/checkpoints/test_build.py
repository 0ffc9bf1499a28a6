"""Building a checkpoint: every recipe runs from corpus to card, and twice gives the same bytes."""

import functools
import itertools
import json
import shutil

import build
import lessons
import pytest
import stories
import torch

from course_helpers import validate_checkpoint
from course_helpers.training import IGNORED


@pytest.fixture
def few_stories(monkeypatch):
    for name, count in (("TRAIN_STORIES", 1500), ("TOKENIZER_STORIES", 1500), ("HELD_OUT_STORIES", 20)):
        monkeypatch.setattr(build, name, count)
    for name, count in (("NEW_TOKENS", 8), ("CONTINUED_STORIES", 3)):
        monkeypatch.setattr(build, name, count)
    for name, count in (("RARE_STORIES", 500), ("BATCH_SIZE", 6)):
        monkeypatch.setattr(lessons, name, count)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """built(name): the folder and the card of a recipe's checkpoint, built once. For tests with few stories."""

    @functools.cache
    def once(name):
        folder = tmp_path_factory.mktemp("built") / name
        return folder, build.build(name, folder, steps=2, threads=1)

    return once


@pytest.mark.parametrize("name", build.RECIPES)
def test_a_recipe_gives_a_checkpoint_that_is_what_its_card_says(few_stories, built, name):
    """Valid but for its text: two steps teach nobody to write."""
    folder, card = built(name)
    assert card == json.loads((folder / "card.json").read_text())
    report = validate_checkpoint(folder)
    assert report.ok or (report.failed == "generation" and "repeats itself" in report.checks[-1].detail), report


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-qwen3-moe"])
def test_the_same_recipe_gives_the_same_bytes(few_stories, built, tmp_path, name):
    folder, card = built(name)
    assert build.build(name, tmp_path / name, steps=2, threads=1) == card
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert all((tmp_path / name / file).read_bytes() == (folder / file).read_bytes() for file in files)


def test_writing_the_card_again_changes_nothing(few_stories, built, tmp_path):
    folder, card = built("tiny-llama3")
    copy = shutil.copytree(folder, tmp_path / "tiny-llama3")
    assert build.write_card("tiny-llama3", copy, steps=2) == card


def first_batches(name, count=20):
    texts = [story.text for story in stories.stories(500, 1)]
    tokenizer = build.load_tokenizer(build.HERE / name)
    return tokenizer, texts, list(itertools.islice(lessons.batches(texts, tokenizer, 0), count))


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
    rare_V = lessons.rare_tokens(texts, tokenizer)
    share = {token: sum(token in tokenizer.encode(text) for text in texts[:100]) / 100 for token in range(0, 1024, 50)}
    assert all(rare_V[token] or share[token] > 0.1 for token in share)
    kept = 0
    for (inputs_BT, all_BT), (same_BT, targets_BT) in zip(found, lessons.returning(iter(found), rare_V), strict=True):
        assert torch.equal(inputs_BT, same_BT)
        for inputs, everything, targets in zip(inputs_BT.tolist(), all_BT.tolist(), targets_BT.tolist(), strict=True):
            for place, (token, target) in enumerate(zip(everything, targets, strict=True)):
                returns = token != IGNORED and token in inputs[: place + 1] and bool(rare_V[token])
                assert target == (token if returns else IGNORED)
                kept += returns
    assert kept > 3 * lessons.BATCH_SIZE


def test_the_course_goes_from_returning_words_to_all_words(monkeypatch):
    monkeypatch.setattr(lessons, "RETURNING_ALONE", 2)
    monkeypatch.setattr(lessons, "RETURNING_UNTIL", 6)
    tokenizer, texts, _ = first_batches("tiny-llama3", 0)
    asked = [
        (targets_BT != IGNORED).float().mean().item()
        for _, targets_BT in itertools.islice(lessons.lessons(texts, tokenizer), 9)
    ]
    assert [share > 0.5 for share in asked] == [False, False, True, False, True, False, True, True, True]


def test_the_second_course_asks_for_what_the_model_knows_least():
    """Against the text: what is asked for is all of it, the values of one fact, or a friend's pronouns."""
    tokenizer, texts, _ = first_batches("tiny-llama3", 0)
    words = {
        fact: " ".join(value for plot in stories.PLOTS.values() for value in plot.tables.get(fact, ()))
        for fact in lessons.SELDOM
    } | {"she": "she her", "he": "he him his"}
    course, asked = lessons.SecondCourse(texts, tokenizer, steps=20), []
    for _, targets_BT in itertools.islice(course, 20):
        asked.append(course.lesson)
        asked_BT = targets_BT != IGNORED
        pieces = {tokenizer.decode([token]).strip() for token in targets_BT[asked_BT].tolist()}
        if course.lesson is None:
            assert asked_BT.float().mean() > 0.5
        else:
            assert asked_BT.any() and asked_BT.float().mean() < 0.1
            assert all(piece in words[course.lesson] for piece in pieces)
        course.heard(2.0 if course.lesson == "water" else 1.0)
    assert asked[:15:3] == [None] * 5 and asked[15:] == [None] * 5
    practised = [lesson for lesson in asked if lesson]
    assert set(practised[:6]) == set(words) and practised[6:] == ["water"] * 4


def test_going_on_from_a_saved_first_course_gives_the_same_bytes(few_stories, built, tmp_path):
    name = "tiny-qwen3"
    _, whole = built(name)
    texts = [story.text for story in stories.stories(build.TRAIN_STORIES, build.TRAIN_SEED)]
    settings = build.TrainingSettings(2, build.RECIPES[name].learning_rate, final_fraction=0.02)
    build.first_course(name, tmp_path / "first", texts, settings)
    assert build.build(name, tmp_path / "second", steps=2, first=tmp_path / "first") == whole
