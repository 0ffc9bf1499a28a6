"""The bundled models: small, trained, equal to transformers', and exactly what their cards say."""

import json

import pytest
import stories
import torch
from build import HELD_OUT_SEED, HELD_OUT_STORIES, RECIPES, TRAIN_SEED, TRAIN_STORIES, marked

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.training import text_loss
from course_helpers.validation import sha256
from tests.bundled import FOLDERS, each
from tests.tiny_models import logits_of, random_ids

LARGEST = 4_000_000  # bytes
SAMPLED = 300  # held-out stories that are scored again


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def test_every_family_has_its_recipe_and_its_checkpoint():
    assert set(RECIPES) == {family.tiny for family in FAMILIES.values()}
    assert all(folder.is_dir() for folder in FOLDERS.values())


@each
def test_the_files_are_those_that_the_card_describes(folder):
    card, path = card_of(folder), folder / "model.safetensors"
    assert path.stat().st_size == card["weights"]["bytes"] <= LARGEST
    assert sha256(path) == card["weights"]["sha256"]
    model = load_model(folder)
    assert model.num_parameters() == card["parameters"]
    assert model.config == RECIPES[folder.name].config
    assert model.dtype == RECIPES[folder.name].dtype


@each
def test_logits_equal_those_of_transformers(folder):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = load_model(folder, dtype=torch.float32)
    story = load_tokenizer(folder).encode(card_of(folder)["greedy"][0]["text"])
    for ids in (torch.tensor([story]), random_ids(model.config.to_hf(), 3, 250)):
        torch.testing.assert_close(logits_of(model, ids), logits_of(theirs, ids), atol=1e-5, rtol=0)


@each
def test_the_stories_of_the_card_are_whole_and_in_the_words_of_the_grammar(folder):
    known = {word.lower() for word in stories.vocabulary()}
    for sample in card_of(folder)["greedy"]:
        assert sample["text"].startswith(sample["prompt"])
        assert sample["text"][-1] in '.!?"', "the story was cut off before its end"
        assert {word.lower() for word in stories.words(sample["text"])} <= known


@each
def test_the_card_names_the_corpora_of_todays_grammar(folder):
    card = card_of(folder)
    assert card["training"]["corpus_sha256"] == stories.corpus_hash(TRAIN_STORIES, TRAIN_SEED)
    assert card["held_out"]["corpus_sha256"] == stories.corpus_hash(HELD_OUT_STORIES, HELD_OUT_SEED)
    assert card["held_out"]["entropy_per_story"] == round(stories.entropy_per_story(), 3)


@each
def test_the_held_out_loss_is_the_cards_and_near_the_entropy(folder):
    card, tokenizer = card_of(folder)["held_out"], load_tokenizer(folder)
    texts = [story.text for story in stories.stories(SAMPLED, HELD_OUT_SEED)]
    nats, tokens = text_loss(load_model(folder, dtype=torch.float32), [marked(tokenizer, text) for text in texts])
    assert nats / tokens == pytest.approx(card["loss_per_token"], rel=0.03)
    assert card["entropy_per_story"] < card["loss_per_story"] < 1.25 * card["entropy_per_story"]
