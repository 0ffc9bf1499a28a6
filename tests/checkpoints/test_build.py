"""Building a checkpoint: every recipe runs from corpus to card, and twice gives the same bytes."""

import json

import build
import pytest
import torch

from course_helpers import validate_checkpoint


@pytest.fixture
def few_stories(monkeypatch):
    for name, count in (("TRAIN_STORIES", 1500), ("TOKENIZER_STORIES", 1500), ("HELD_OUT_STORIES", 20)):
        monkeypatch.setattr(build, name, count)
    monkeypatch.setattr(build, "NEW_TOKENS", 8)
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


def test_rows_begin_with_a_story(few_stories):
    """With its mark where the family always writes one, otherwise half of the time."""
    texts = [story.text for story in build.stories.stories(50, 1)]
    for name, shares in (("tiny-gpt2", (0.3, 0.7)), ("tiny-llama3", (1.0, 1.0))):
        tokenizer = build.load_tokenizer(build.HERE / name)
        openings = {tuple(tokenizer.encode(text, bos=False)[:4]) for text in texts}
        rows = []
        for (inputs_BT, targets_BT), _ in zip(build.batches(texts, tokenizer, 0), range(20), strict=False):
            assert torch.equal(inputs_BT[:, 1:], targets_BT[:, :-1])
            rows += inputs_BT.tolist()
        begun = [row[0] == tokenizer.bos_id for row in rows]
        assert shares[0] <= sum(begun) / len(rows) <= shares[1]
        assert all(tuple(row[first : first + 4]) in openings for row, first in zip(rows, begun, strict=True))
