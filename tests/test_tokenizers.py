"""Tokenizers of every kind: the same ids as transformers', the same text back, whatever files they come in."""

import functools
import json
import shutil
import unicodedata

import pytest
from hypothesis import example, given, settings

from course_helpers import load_tokenizer
from course_helpers.loaders.sources import BUNDLED
from course_helpers.tokenizer_kinds import KINDS
from tests.written_tokenizers import (
    ORDINARY,
    TEXTS,
    VOCABULARY,
    both,
    copy,
    each_family,
    edit,
    load_once,
    transformers_tokenizer,
    written,
)

KIND = {
    "gpt2": "vocab.json",
    "llama2": "sentencepiece",
    "llama3": "tokenizer.json",
    "qwen3": "tokenizer.json",
    "gemma3": "tokenizer.json",
    "olmo3": "tokenizer.json",
}


def representable(family, text):
    """What a family's tokenizer makes of a text: two of them change it before they read it."""
    if family == "qwen3":
        return unicodedata.normalize("NFC", text)
    return text.replace("▁", " ") if family in ("llama2", "gemma3") else text


@each_family
@settings(max_examples=200)
@given(TEXTS)
@example(ORDINARY)
def test_ids_and_text_equal_those_of_transformers(family, text):
    ours, theirs = load_once(family), transformers_tokenizer(written(family))
    if any(token in text for token in theirs.get_added_vocab() if token not in ("<think>", "</think>")):
        return  # transformers reads special tokens out of plain text; ours never does
    if family == "llama2" and text.startswith((" ", "▁")):
        return  # see test_a_leading_space_is_kept
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@each_family
@settings(max_examples=200)
@given(TEXTS)
@example(ORDINARY)
@example("  two spaces, and at the end  ")
def test_decoding_gives_the_text_back(family, text):
    ours = load_once(family)
    assert ours.decode(ours.encode(text)) == representable(family, text)


@each_family
@settings(max_examples=40)
@given(TEXTS)
def test_text_grows_while_tokens_come(family, text):
    """As `python -m course_helpers generate` shows it: nothing that was shown has to be taken back."""
    ours, shown = load_once(family), ""
    ids = ours.encode(text)
    for count in range(len(ids) + 1):
        now = ours.decode(ids[:count])
        if not now.endswith("\N{REPLACEMENT CHARACTER}"):  # half of a character
            assert now.startswith(shown)
            shown = now


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in BUNDLED.glob("*/config.json")), ids=lambda path: path.name
)
def test_bundled_checkpoints_mean_the_same_to_transformers(folder):
    ours, theirs = both(folder)
    assert ours.encode(ORDINARY) == theirs.encode(ORDINARY)
    assert ours.decode(ours.encode(ORDINARY)) == ORDINARY
    assert (ours.vocab_size, ours.bos_id) == (len(theirs), theirs.bos_token_id)
    messages = [{"role": "user", "content": ORDINARY}]
    if theirs.chat_template is not None:
        expected = theirs.apply_chat_template(messages, return_dict=False, add_generation_prompt=True)
        assert ours.chat(messages) == expected


def test_a_leading_space_is_kept():
    """SentencePiece puts a space before a text even if there is one. transformers 5.23 rebuilds the tokenizer, does
    not, and decodes to a text without the space; the model was trained with SentencePiece's ids."""
    ours, theirs = load_once("llama2"), transformers_tokenizer(written("llama2"))
    piece = ours.backend.processor.piece_to_id
    assert ours.encode(" Once") == [1, piece("▁"), *ours.encode("Once", bos=False)]
    assert ours.decode(ours.encode(" Once")) == " Once"
    assert theirs.decode(theirs.encode(" Once"), skip_special_tokens=True) == "Once"


@each_family
def test_every_id_can_be_decoded_and_none_beyond(family):
    ours = load_once(family)
    assert ours.vocab_size == len(transformers_tokenizer(written(family)))
    assert ours.vocab_size == {"qwen3": 1005, "olmo3": 1021}.get(family, VOCABULARY)
    assert all(isinstance(ours.decode([token]), str) for token in range(ours.vocab_size))
    assert ours.decode(range(ours.vocab_size, VOCABULARY)) == ""  # embeddings to spare
    for token in (-1, VOCABULARY):
        with pytest.raises(ValueError, match="outside this tokenizer's vocabulary"):
            ours.decode([token])


@each_family
def test_special_tokens_in_plain_text_are_plain_text(family):
    ours = load_once(family)
    assert ours.special_ids >= {*ours.stop_ids, *([] if ours.bos_id is None else [ours.bos_id])}
    for name in ours.backend.special:
        ids = ours.encode(f"a{name}b", bos=False)
        assert not ours.special_ids & set(ids)
        assert ours.decode(ids) == f"a{name}b"
    assert ours.decode(sorted(ours.special_ids)) == ""


@each_family
def test_kinds_and_marks(family):
    ours, theirs = load_once(family), transformers_tokenizer(written(family))
    assert ours.kind == KIND[family]
    assert ours.bos_id == theirs.bos_token_id
    assert ours.stop_ids == (theirs.eos_token_id,)
    assert ours.adds_bos == (family in ("llama2", "llama3", "gemma3"))
    plain = ours.encode("a", bos=False)
    assert ours.encode("a", bos=True) == ([] if ours.bos_id is None else [ours.bos_id]) + plain


def test_a_thought_is_made_of_added_tokens_that_are_not_special():
    ours = load_once("qwen3")
    assert ours.encode("<think>a</think>") == [1003, *ours.encode("a"), 1004]
    assert ours.decode([1003, 1004]) == "<think></think>"


@settings(max_examples=100)
@given(TEXTS)
def test_the_forms_of_one_tokenizer_agree(text):
    one, other = load_once("llama3"), load_as_tiktoken()
    assert other.kind == "tiktoken" and other.encode(text) == one.encode(text)
    assert (other.backend.special, other.bos_id, other.stop_ids) == (one.backend.special, one.bos_id, one.stop_ids)


@functools.cache
def load_as_tiktoken():
    return load_tokenizer(written("llama3"), kind="tiktoken")


def test_the_kind_is_told_by_the_files_and_not_by_the_family(tmp_path):
    """A Llama whose maker took GPT-2's tokenizer, a GPT-2 with SentencePiece, and what comes first of several."""
    folder = copy("gpt2", tmp_path)
    edit(folder, "config.json", model_type="llama")
    assert load_tokenizer(folder).kind == "vocab.json"
    shutil.copy(written("llama2") / "tokenizer.model", folder)
    assert load_tokenizer(folder, kind="vocab.json").kind == "vocab.json"
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    edit(folder, "config.json", model_type="gpt2", bos_token_id=1, eos_token_id=2)
    assert load_tokenizer(folder).kind == "sentencepiece"
    shutil.copy(written("llama3") / "original/tokenizer.model", folder)
    edit(folder, "config.json", bos_token_id=1008)
    assert load_tokenizer(folder).kind == "tiktoken"
    shutil.copy(written("llama3") / "tokenizer.json", folder)
    assert load_tokenizer(folder).kind == "tokenizer.json"
    assert set(KINDS) == {"encoder.json", "vocab.json", "sentencepiece", "tiktoken", "tokenizer.json"}
    with pytest.raises(ValueError, match="no kind of tokenizer called 'bpe': choose one of"):
        load_tokenizer(folder, kind="bpe")


def test_a_file_of_weights_stands_for_its_folder(tmp_path):
    folder = copy("qwen3", tmp_path)
    (folder / "model.safetensors").touch()
    assert load_tokenizer(folder / "model.safetensors").encode(ORDINARY) == load_once("qwen3").encode(ORDINARY)


@each_family
def test_a_tokenizer_needs_no_config(family, tmp_path):
    folder = copy(family, tmp_path)
    (folder / "config.json").unlink()
    ours = load_tokenizer(folder)
    assert ours.encode(ORDINARY) == load_once(family).encode(ORDINARY)
    assert ours.stop_ids == load_once(family).stop_ids


@pytest.mark.parametrize("family", ["llama2", "llama3"])
@pytest.mark.parametrize("size", [VOCABULARY, -1])
def test_metas_own_folders(family, size, tmp_path):
    """params.json in place of config.json, and it may not know the size of the vocabulary."""
    folder = tmp_path / "meta"
    folder.mkdir()
    origin = written(family) / ("tokenizer.model" if family == "llama2" else "original/tokenizer.model")
    shutil.copy(origin, folder / "tokenizer.model")
    (folder / "params.json").write_text(json.dumps({"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": size}))
    ours = load_tokenizer(folder)
    assert ours.encode(ORDINARY) == load_once(family).encode(ORDINARY)
    unknown = 1008 + 256 if family == "llama3" else VOCABULARY
    assert ours.vocab_size == (VOCABULARY if size > 0 else unknown)
    assert ours.stop_ids == ((2,) if family == "llama2" else (1009, 1016, 1017))  # the text's end, and a turn's
    text, stop = ours.encode("a", bos=False), ours.stop_ids[0]
    assert ours.backend.encode_pieces(["a", stop, "a"]) == [*text, stop, *text]  # as Meta's programs have it
    with pytest.raises(ValueError, match="not trained on conversations"):
        ours.chat([{"role": "user", "content": "a"}])

    saved = tmp_path / "saved"
    saved.mkdir()
    ours.save(saved)
    edit(saved, "config.json", model_type="llama", vocab_size=ours.vocab_size)
    again, theirs = both(saved)
    assert again.encode(ORDINARY) == theirs.encode(ORDINARY) == ours.encode(ORDINARY)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (again.bos_id, again.stop_ids[0])
    assert set(theirs.all_special_ids) == set(ours.special_ids)


@each_family
def test_saved_files_make_the_same_tokenizer(family, tmp_path):
    folder = copy(family, tmp_path)
    edit(folder, "special_tokens_map.json")
    edit(folder, "added_tokens.json")
    target = tmp_path / "again"
    target.mkdir()
    load_tokenizer(folder).save(target)
    expected = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    assert {file.relative_to(target) for file in target.rglob("*") if file.is_file()} == expected - {
        (folder / "config.json").relative_to(folder)
    }
    shutil.copy(folder / "config.json", target)
    ours, theirs = both(target)
    assert ours.encode(ORDINARY) == theirs.encode(ORDINARY) == load_once(family).encode(ORDINARY)


# What a tokenizer.json may have left on


def test_a_tokenizer_json_that_cuts_and_pads_is_not_let(tmp_path):
    folder = copy("llama3", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 20},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 1012,
        "pad_type_id": 0,
        "pad_token": "<|finetune_right_pad_id|>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for text in ("", ORDINARY):
        assert load_tokenizer(folder).encode(text) == load_once("llama3").encode(text)


@settings(max_examples=60)
@given(TEXTS)
def test_a_tokenizer_json_that_transformers_wrote(text):
    """Of Llama 2's tokenizer: in this form it has other rules for leading spaces, and we follow them."""
    ours, theirs = written_by_transformers()
    if any(name in text for name in ours.backend.special):
        return
    assert ours.kind == "tokenizer.json"
    assert ours.encode(text, bos=False) == theirs.encode(text, add_special_tokens=False)


@functools.cache
def written_by_transformers():
    folder = written("llama2").parent / "llama2 by transformers"
    transformers_tokenizer(written("llama2")).save_pretrained(folder)
    shutil.copy(written("llama2") / "config.json", folder)
    return both(folder)


def test_tokens_named_special_only_beside_a_tokenizer_json(tmp_path):
    """transformers takes them for special, too. One that plain text can become is none: it would vanish."""
    folder = copy("olmo3", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] = token["content"] != "<|im_end|>"
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert 1002 not in load_tokenizer(folder).special_ids
    edit(folder, "tokenizer_config.json", extra_special_tokens=["<|im_end|>"], pad_token="!")
    ours = load_tokenizer(folder)
    assert 1002 in ours.special_ids
    assert ours.decode(ours.encode("a!<|im_end|>")) == "a!<|im_end|>"


def test_tokens_added_to_a_sentencepiece_model(tmp_path):
    folder, added = copy("llama2", tmp_path), {"<|im": 1024, "<|im|>": 1025}  # the one begins as the other does
    edit(folder, "added_tokens.json", **added)
    edit(folder, "config.json", vocab_size=1032)
    edit(folder, "tokenizer_config.json", chat_template="{{ '<|im|>' + messages[0]['content'] + '<|im' }}")
    ours, theirs = both(folder)
    messages = [{"role": "user", "content": "Once"}]
    assert ours.vocab_size == len(theirs) == 1026
    assert ours.chat(messages) == theirs.apply_chat_template(messages, return_dict=False)
    assert ours.decode(ours.chat(messages)) == "Once"
    (folder / "added_tokens.json").unlink()
    listed = {str(id): {"content": name, "special": True} for name, id in added.items()}
    edit(folder, "tokenizer_config.json", added_tokens_decoder=listed)
    assert load_tokenizer(folder).backend.special == ours.backend.special
