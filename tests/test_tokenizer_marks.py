"""Where texts begin and end, and whether a tokenizer fits its model: what the files beside a tokenizer decide."""

import json

import pytest

from course_helpers import CheckpointError, load_tokenizer
from tests.written_tokenizers import ORDINARY, VOCABULARY, both, copy, edit, load_once, written

# Where texts begin


@pytest.mark.parametrize("family", ["gpt2", "llama2", "llama3", "qwen3", "gemma3"])
@pytest.mark.parametrize("asked", [True, False])
def test_add_bos_token_counts_where_the_tokenizer_itself_does_not_say(family, asked, tmp_path):
    """tokenizer.json says by itself what comes before a text; then transformers heeds no setting, and nor do we."""
    folder = copy(family, tmp_path)
    edit(folder, "tokenizer_config.json", add_bos_token=asked)
    ours, theirs = both(folder)
    assert ours.encode(ORDINARY) == theirs.encode(ORDINARY)
    settled = {"llama3": True, "gemma3": True, "qwen3": False}
    assert ours.adds_bos == settled.get(family, asked)


def test_a_model_of_metas_begins_with_its_mark_though_nothing_says_so(tmp_path):
    """transformers 5.23 leaves it out; up to version 4 it had it, as Meta's own programs have."""
    folder = copy("llama2", tmp_path)
    edit(folder, "tokenizer_config.json", add_bos_token=...)
    assert load_tokenizer(folder).encode("a")[0] == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer_config.json", {"bos_token": "</s>"}, 2),
        ("tokenizer_config.json", {"bos_token": {"__type": "AddedToken", "content": "</s>"}}, 2),
        ("special_tokens_map.json", {"bos_token": {"content": "</s>"}}, 2),
        ("config.json", {"bos_token_id": ...}, 1),
    ],
)
def test_which_token_it_is(name, content, expected, tmp_path):
    folder = copy("llama2", tmp_path)
    edit(folder, "config.json", bos_token_id=...)
    edit(folder, name, **content)
    ours, theirs = both(folder)
    assert ours.bos_id == theirs.bos_token_id == expected
    assert ours.encode("a") == theirs.encode("a")


def test_beside_newer_settings_the_older_file_counts_for_nothing(tmp_path):
    folder = copy("llama2", tmp_path)
    edit(folder, "special_tokens_map.json", bos_token="</s>")
    edit(folder, "tokenizer_config.json", added_tokens_decoder={"1": {"content": "<s>", "special": True}})
    ours, theirs = both(folder)
    assert ours.bos_id == theirs.bos_token_id == 1


def test_no_token_by_tokenizer_config_is_none_though_config_names_one(tmp_path):
    assert json.loads((written("qwen3") / "config.json").read_text())["bos_token_id"] == 1000
    assert load_once("qwen3").bos_id is None
    folder = copy("qwen3", tmp_path)
    edit(folder, "tokenizer_config.json", bos_token=...)
    assert load_tokenizer(folder).bos_id == 1000


def test_a_beginning_that_settings_deny_and_tokenizer_json_makes(tmp_path):
    folder = copy("llama3", tmp_path)
    edit(folder, "tokenizer_config.json", bos_token=None)
    ours, theirs = both(folder)
    assert ours.encode("a") == theirs.encode("a") == [1008, *ours.encode("a", bos=False)]


@pytest.mark.parametrize(
    ("family", "name", "content", "words"),
    [
        ("llama3", "tokenizer_config.json", {"bos_token": "<|eot_id|>"}, "disagree about the token that begins"),
        ("llama3", "tokenizer_config.json", {"bos_token": "<s>"}, "lacks a token"),
        ("llama2", "config.json", {"bos_token_id": 5}, "disagree about the token that begins"),
        ("gpt2", "tokenizer_config.json", {"add_bos_token": True, "bos_token": None}, "disagree about the token"),
    ],
)
@pytest.mark.parametrize("in_config", [True, False])
def test_contradictions_that_would_make_a_wrong_prompt(family, name, content, words, in_config, tmp_path):
    folder = copy(family, tmp_path)
    if not in_config:
        edit(folder, "config.json", bos_token_id=...)
    edit(folder, name, **content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_tokenizer(folder)
    assert caught.value.file and caught.value.field == "bos_token" and caught.value.next_step


# Where they end


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [1009, 1017]}, {}, (1009, 1017)),
        ({"eos_token_id": 1017}, {}, (1017,)),
        ({"eos_token_id": None}, {"eos_token_id": [1016, 1017]}, (1016, 1017)),
        ({}, {"eos_token_id": 1017}, (1017,)),
        ({}, {"eos_token_id": ..., "text_config": {"eos_token_id": [1017]}}, (1017,)),
        ({}, {"eos_token_id": None, "text_config": {"eos_token_id": 1017}}, (1017,)),
        ({}, {"eos_token_id": [1009, 1017], "text_config": {"eos_token_id": 1009}}, (1009, 1017)),
        ({}, {"eos_token_id": None}, (1009,)),  # the tokenizer's own
    ],
)
def test_stop_ids(generation, config, expected, tmp_path):
    folder = copy("llama3", tmp_path)
    edit(folder, "generation_config.json", **generation)
    edit(folder, "config.json", **config)
    assert load_tokenizer(folder).stop_ids == expected


# Does it fit the model?


def with_added(folder, name, id, special):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": id, "content": name, "special": special, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def test_only_tokens_that_text_can_become_need_an_embedding(tmp_path):
    """Gemma 3's text models share their tokenizer with those that see: it has a token for pictures beyond their own."""
    folder = copy("gemma3", tmp_path)
    with_added(folder, "<image_soft_token>", VOCABULARY, special=True)
    ours = load_tokenizer(folder)
    assert (ours.vocab_size, max(ours.encode("<image_soft_token>")) < VOCABULARY) == (VOCABULARY + 1, True)
    with_added(folder, "<table>", VOCABULARY + 1, special=False)
    with pytest.raises(CheckpointError, match="knows more tokens than the model") as caught:
        load_tokenizer(folder)
    assert (caught.value.found, caught.value.field) == (VOCABULARY + 2, "vocab_size")


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({"vocab_size": VOCABULARY}, True),
        ({"vocab_size": VOCABULARY - 1}, False),
        ({"vocab_size": ..., "model_type": "gemma3", "text_config": {"vocab_size": VOCABULARY}}, True),
        ({"vocab_size": ..., "model_type": "gemma3", "text_config": {"vocab_size": VOCABULARY - 1}}, False),
        ({"vocab_size": ..., "model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, True),
    ],
)
def test_the_size_may_be_that_of_the_language_part(config, fits, tmp_path):
    folder = copy("gemma3", tmp_path)
    edit(folder, "config.json", **config)
    if fits:
        assert load_tokenizer(folder).bos_id == 2
    else:
        with pytest.raises(CheckpointError, match="knows more tokens than the model"):
            load_tokenizer(folder)
