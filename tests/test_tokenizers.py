"""Tokenizers: the same ids as transformers', the same text back, and no tokenizer that is not the model's."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, load_tokenizer
from course_helpers.tokenizer_backends import JsonBackend, llama3_special
from tests.bundled import FOLDERS, copy_of, each

ORDINARY = 'Once upon a time, Mia had a red kite.\n\n  "Again!" 12345 don\'t Ünïcode 日本 🙂'


@pytest.fixture(scope="module")
def pairs():
    from transformers import AutoTokenizer

    return {folder: (load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)) for folder in FOLDERS.values()}


@each
@settings(max_examples=150)
@given(st.text(max_size=60) | st.just(ORDINARY))
def test_ids_equal_those_of_transformers(pairs, folder, text):
    if "<|" in text:  # transformers reads special tokens out of plain text; ours never does
        return
    ours, theirs = pairs[folder]
    assert ours.encode(text) == theirs(text).input_ids


@each
@settings(max_examples=150)
@given(st.text(max_size=60) | st.just(ORDINARY))
def test_decoding_gives_the_text_back(pairs, folder, text):
    ours, _ = pairs[folder]
    assert ours.decode(ours.encode(text)) == text


@each
def test_every_id_can_be_decoded_and_none_beyond(pairs, folder):
    ours, theirs = pairs[folder]
    assert ours.vocab_size == len(theirs) == json.loads((folder / "config.json").read_text())["vocab_size"]
    assert all(isinstance(ours.decode([token]), str) for token in range(ours.vocab_size))
    for token in (-1, ours.vocab_size):
        with pytest.raises(ValueError, match="outside this tokenizer's vocabulary"):
            ours.decode([token])


@each
def test_special_tokens_in_plain_text_are_plain_text(pairs, folder):
    ours, theirs = pairs[folder]
    for special in theirs.all_special_tokens:
        ids = ours.encode(special, bos=False)
        assert len(ids) > 1
        assert ours.decode(ids) == special


@each
def test_beginning_and_end(pairs, folder):
    ours, theirs = pairs[folder]
    assert ours.bos_id == theirs.bos_token_id
    assert ours.stop_ids == (theirs.eos_token_id,)
    assert ours.encode("a", bos=True) == [ours.bos_id, *ours.encode("a", bos=False)]
    assert ours.decode([ours.bos_id, *ours.stop_ids]) == ""


def test_only_llama_begins_with_its_mark(pairs):
    begins = {folder.name: ours.encode("a")[0] == ours.bos_id for folder, (ours, _) in pairs.items()}
    assert begins["tiny-llama3"] and not begins["tiny-gpt2"]


def test_llama_chat_is_the_published_format(pairs):
    ours, _ = pairs[FOLDERS["tiny-llama3"]]
    reader = tokenizers.Tokenizer.from_file(str(FOLDERS["tiny-llama3"] / "tokenizer.json"))
    text = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nTell me a story.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": " Tell me a story.\n"}]
    assert ours.chat(messages) == reader.encode(text, add_special_tokens=False).ids


def test_no_chat_without_a_format(pairs):
    with pytest.raises(ValueError, match="not trained on conversations"):
        pairs[FOLDERS["tiny-gpt2"]][0].chat([{"role": "user", "content": "hi"}])


def test_real_llama_special_tokens_have_their_published_ids():
    special = llama3_special(128_000, 256)
    published = {
        "<|begin_of_text|>": 128_000,
        "<|end_of_text|>": 128_001,
        "<|reserved_special_token_0|>": 128_002,
        "<|finetune_right_pad_id|>": 128_004,
        "<|reserved_special_token_2|>": 128_005,
        "<|start_header_id|>": 128_006,
        "<|eom_id|>": 128_008,
        "<|eot_id|>": 128_009,
        "<|python_tag|>": 128_010,
        "<|reserved_special_token_3|>": 128_011,
        "<|reserved_special_token_247|>": 128_255,
    }
    assert len(special) == 256
    assert special.items() >= published.items()


def test_tokenizer_json_and_tokenizer_model_agree(pairs):
    folder = FOLDERS["tiny-llama3"]
    backend = JsonBackend(folder / "tokenizer.json")
    ours = pairs[folder][0].backend
    assert backend.encode(ORDINARY) == ours.encode(ORDINARY)
    assert backend.special == ours.special
    assert backend.decode(backend.encode(ORDINARY)) == ORDINARY


def test_saved_files_make_the_same_tokenizer(pairs, tmp_path):
    for folder, (ours, _) in pairs.items():
        target = tmp_path / folder.name
        target.mkdir()
        (target / "config.json").write_text((folder / "config.json").read_text())
        ours.save(target)
        assert load_tokenizer(target).encode(ORDINARY) == ours.encode(ORDINARY)
        assert {file.name for file in target.iterdir()} >= {"tokenizer_config.json"}


def swap_merges(folder):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def foreign_vocabulary(folder):
    (folder / "vocab.json").write_text('{"<s>": 0, "日": 1}', encoding="utf-8")


def smaller_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 500}))


def sentencepiece_in_its_place(folder):
    (folder / "original/tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n")


def no_files(folder):
    (folder / "original/tokenizer.model").unlink()
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("tiny-gpt2", swap_merges, "two files disagree"),
        ("tiny-gpt2", foreign_vocabulary, "not a GPT-2 vocabulary"),
        ("tiny-gpt2", smaller_model, "knows more tokens than the model"),
        ("tiny-gpt2", lambda folder: (folder / "merges.txt").unlink(), "a tokenizer file is missing"),
        ("tiny-llama3", sentencepiece_in_its_place, "cannot be read"),
        ("tiny-llama3", no_files, "a tokenizer file is missing"),
    ],
)
def test_a_wrong_tokenizer_is_refused(tmp_path, name, damage, words):
    folder = copy_of(FOLDERS[name], tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_tokenizer(folder)
    assert caught.value.file and caught.value.cause and caught.value.next_step


def test_llama_reads_tokenizer_json_where_metas_file_is_missing(tmp_path):
    folder = copy_of(FOLDERS["tiny-llama3"], tmp_path)
    expected = load_tokenizer(folder).encode(ORDINARY)
    (folder / "original/tokenizer.model").unlink()
    assert load_tokenizer(folder).encode(ORDINARY) == expected
