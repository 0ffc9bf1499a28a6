"""The bundled models: small, trained, equal to transformers', and exactly what their cards say."""

import functools
import json

import pytest
import stories
import torch
from build import CONTINUED_STORIES, HELD_OUT_SEED, HELD_OUT_STORIES, TRAIN_SEED, TRAIN_STORIES, continued
from lessons import marked
from recipes import RECIPES
from story_parser import parse

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.loaders.manifest_files import sha256
from course_helpers.training import text_loss
from tests.bundled import FOLDERS, each
from tests.tiny_models import logits_of, random_ids

LARGEST, ALL = 4_000_000, 20_000_000  # bytes, of one and of all checkpoints together
SAMPLED = 300  # held-out stories that are scored again


STORY = 105  # tokens of a short story

#: Of the same 100,000 stories for every model: told once.
corpus_hash = functools.cache(stories.corpus_hash)

#: Checkpoint -> what must hold of its config.
FEATURES = {
    "tiny-gpt2": lambda config: config.tie_word_embeddings,
    "tiny-llama2": lambda config: config.num_key_value_heads == config.num_attention_heads,
    "tiny-llama3": lambda config: (
        config.rope_parameters.rope_type == "llama3"
        and config.rope_parameters.original_max_position_embeddings < config.max_position_embeddings
        and config.num_key_value_heads < config.num_attention_heads
    ),
    "tiny-qwen3": lambda config: config.head_dim * config.num_attention_heads > config.hidden_size,
    "tiny-qwen3-moe": lambda config: (
        config.num_experts >= 8 and config.num_experts_per_tok == 2 and not config.tie_word_embeddings
    ),
    "tiny-gemma3": lambda config: (
        config.layer_plan == ("sliding_attention",) * 5 + ("full_attention",)
        and config.sliding_window < STORY / 2
        and config.rope("full_attention").rope_theta != config.rope("sliding_attention").rope_theta
        and config.query_pre_attn_scalar != config.head_dim
    ),
    "tiny-olmo3": lambda config: (
        config.layer_plan == ("sliding_attention",) * 3 + ("full_attention",)
        and config.sliding_window < STORY / 2
        and config.rope("full_attention").rope_type == "yarn"
        and config.rope("sliding_attention").rope_type == "default"
    ),
}


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def test_every_family_has_its_recipe_and_its_checkpoint():
    assert set(RECIPES) == {family.tiny for family in FAMILIES.values()}
    assert all(folder.is_dir() for folder in FOLDERS.values())


@each
def test_the_files_are_those_that_the_card_describes(folder):
    card = card_of(folder)
    listed = card["weights"] | card["files"]
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == listed.keys() | {"card.json"}
    for name, described in listed.items():
        assert files[name].stat().st_size == described["bytes"] <= LARGEST
        assert sha256(files[name]) == described["sha256"]
    model = load_model(folder)
    assert model.num_parameters() == card["parameters"]
    assert model.config == RECIPES[folder.name].config
    assert model.dtype == RECIPES[folder.name].dtype


def test_all_checkpoints_together_are_small():
    assert sum(path.stat().st_size for folder in FOLDERS.values() for path in folder.rglob("*")) <= ALL


@each
def test_a_recipe_has_what_makes_its_family_special(folder):
    """What the labs show on these models must be there to be seen."""
    config, special = RECIPES[folder.name].config, FEATURES[folder.name]
    assert special(config), config


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
    assert card["training"]["corpus_sha256"] == corpus_hash(TRAIN_STORIES, TRAIN_SEED)
    assert card["held_out"]["corpus_sha256"] == corpus_hash(HELD_OUT_STORIES, HELD_OUT_SEED)
    assert card["held_out"]["entropy_per_story"] == round(stories.entropy_per_story(), 3)


@each
def test_the_held_out_loss_is_the_cards_and_near_the_entropy(folder):
    card, tokenizer = card_of(folder)["held_out"], load_tokenizer(folder)
    texts = [story.text for story in stories.stories(SAMPLED, HELD_OUT_SEED)]
    nats, tokens = text_loss(load_model(folder, dtype=torch.float32), [marked(tokenizer, text) for text in texts])
    assert nats / tokens == pytest.approx(card["loss_per_token"], rel=0.03)
    assert card["entropy_per_story"] < card["loss_per_story"] < 1.1 * card["entropy_per_story"]


@each
def test_stories_that_the_model_goes_on_with_are_told_by_the_grammar(folder):
    card, tokenizer = card_of(folder)["told_on"], load_tokenizer(folder)
    texts = [story.text for story in stories.stories(CONTINUED_STORIES, HELD_OUT_SEED)]
    told = continued(load_model(folder, dtype=torch.float32), tokenizer, texts)
    assert sum(parse(text) is not None for text in told) == card["right"] >= 0.9 * card["openings"]
    assert len(set(told)) > 0.9 * len(told)
