"""Tokenizer files: those that the tiny checkpoints get, and those that must be refused because they are damaged."""

import hashlib
import json

import pytest
import stories

from course_helpers import CheckpointError, load_tokenizer
from course_helpers.tokenizer_model import llama3_special
from tests.written_tokenizers import VOCABULARY, copy, each_family, edit, write, written

# Those of the tiny checkpoints


@each_family
def test_the_same_texts_give_the_same_bytes(family, tmp_path):
    def digests(folder):
        return {
            file.relative_to(folder): hashlib.sha256(file.read_bytes()).digest()
            for file in folder.rglob("*")
            if file.is_file()
        }

    assert digests(write(family, tmp_path / "again")) == digests(written(family))


FILES = {
    "gpt2": {"vocab.json", "merges.txt"},
    "llama2": {"tokenizer.model"},
    "llama3": {"tokenizer.json", "original/tokenizer.model"},
    "qwen3": {"tokenizer.json", "vocab.json", "merges.txt"},
    "gemma3": {"tokenizer.json"},
    "olmo3": {"tokenizer.json", "chat_template.jinja"},
}


@each_family
def test_each_is_laid_out_as_on_the_hub(family):
    names = {str(file.relative_to(written(family))) for file in written(family).rglob("*") if file.is_file()}
    assert names == FILES[family] | {"config.json", "tokenizer_config.json"}


@each_family
def test_words_are_whole(family):
    """Most words of a story are one token each, and no token goes across two words."""
    ours = load_tokenizer(written(family))
    texts = [story.text for story in stories.stories(200, 2)]
    ids = [ours.encode(text, bos=False) for text in texts]
    words = sum(len(text.split()) for text in texts)
    assert 1.1 * words < sum(map(len, ids)) < 1.4 * words
    assert not any(" " in ours.decode([0, token])[1:].strip() for row in ids for token in row)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama2", {"<unk>": 0, "<s>": 1, "</s>": 2}),
        ("qwen3", {"<|endoftext|>": 1000, "<|im_start|>": 1001, "<|im_end|>": 1002}),
        (
            "gemma3",
            {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 4, "<end_of_turn>": 5},
        ),
    ],
)
def test_special_tokens_have_their_ids(family, expected):
    assert load_tokenizer(written(family)).backend.special == expected


def test_bytes_that_stand_in_for_characters():
    llama, gemma = (load_tokenizer(written(family)).backend for family in ("llama2", "gemma3"))
    assert [llama.processor.id_to_piece(3 + byte) for byte in (0, 255)] == ["<0x00>", "<0xFF>"]
    assert [gemma.tokenizer.id_to_token(6 + byte) for byte in (0, 255)] == ["<0x00>", "<0xFF>"]
    assert gemma.encode("日") == [6 + byte for byte in "日".encode()]


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


def test_llama_3_had_other_names_for_a_few(tmp_path):
    """Before 3.1. tokenizer_config.json lists them; Meta's own file has no names."""
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(11)]
    names = ["<|begin_of_text|>", "<|end_of_text|>", *reserved[:4], "<|start_header_id|>", "<|end_header_id|>"]
    names += [reserved[4], "<|eot_id|>", *reserved[5:]]
    folder = copy("llama3", tmp_path)
    listed = {str(1008 + index): {"content": name, "special": True} for index, name in enumerate(names)}
    edit(folder, "tokenizer_config.json", added_tokens_decoder=listed)
    special = load_tokenizer(folder, kind="tiktoken").backend.special
    assert special == {name: 1008 + index for index, name in enumerate(names)}


# Those that are refused


def swap_merges(folder):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def fewer_merges(folder):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(lines[:-5]), encoding="utf-8")


def write_bytes(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(name, part=0.5):
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: int((folder / name).stat().st_size * part)]
    )


def set_keys(name, **changes):
    return lambda folder: edit(folder, name, **changes)


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def lines_of_tiktoken(change):
    """Meta's file for Llama 3 alone, with its lines changed."""

    def damage(folder):
        (folder / "tokenizer.json").unlink()
        path = folder / "original/tokenizer.model"
        path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())))

    return damage


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 499723\n"
CASES = {
    "merges in another order": ("gpt2", swap_merges, "two files disagree"),
    "merges missing": ("gpt2", fewer_merges, "two files disagree"),
    "no merges": ("gpt2", without("merges.txt"), "a tokenizer file is missing"),
    "merges not UTF-8": ("gpt2", write_bytes("merges.txt", b"\xff\xfe"), "cannot be read"),
    "vocabulary of another family": ("gpt2", write_bytes("vocab.json", b'{"<s>": 0}'), "not a GPT-2 vocabulary"),
    "vocabulary without its end": ("gpt2", set_keys("vocab.json", **{"<|endoftext|>": ...}), "not a GPT-2 vocab"),
    "vocabulary of names": ("gpt2", set_keys("vocab.json", a="b"), "cannot be read"),
    "vocabulary with a hole": ("gpt2", set_keys("vocab.json", a=2000), "cannot be read"),
    "vocabulary that is a list": ("gpt2", write_bytes("vocab.json", b"[]"), "not a JSON object"),
    "Qwen's pair of files": ("qwen3", without("tokenizer.json"), "not a GPT-2 vocabulary"),
    "a smaller model": ("gpt2", set_keys("config.json", vocab_size=500), "knows more tokens than the model"),
    "a size in words": ("gpt2", set_keys("config.json", vocab_size="many"), "that is not understood"),
    "config.json not JSON": ("gpt2", write_bytes("config.json", b"{"), "not a JSON object"),
    "no file at all": ("llama2", without("tokenizer.model"), "a tokenizer file is missing"),
    "model empty": ("llama2", write_bytes("tokenizer.model", b""), "cannot be read"),
    "model a pointer": ("llama2", write_bytes("tokenizer.model", POINTER), "cannot be read"),
    "model a web page": ("llama2", write_bytes("tokenizer.model", b"<!DOCTYPE html><html>"), "cannot be read"),
    "model zeros": ("llama2", write_bytes("tokenizer.model", bytes(1000)), "cannot be read"),
    "model cut short": ("llama2", cut_short("tokenizer.model"), "cannot be read"),
    "tiktoken with a line of something else": ("llama3", lines_of_tiktoken(lambda L: [*L[:9], b"!", *L[9:]]), "read"),
    "tiktoken without a byte": ("llama3", lines_of_tiktoken(lambda lines: lines[:100]), "cannot be read"),
    "tiktoken with a rank twice": ("llama3", lines_of_tiktoken(lambda L: [*L[:-1], L[-1][:-1]]), "cannot be read"),
    "tiktoken cut at a line": (
        "llama3",
        lines_of_tiktoken(lambda lines: lines[:900]),
        "files disagree about the token",
    ),
    "tokenizer.json not JSON": ("olmo3", cut_short("tokenizer.json"), "cannot be read"),
    "tokenizer.json another JSON": ("olmo3", write_bytes("tokenizer.json", b'{"model": 5}'), "cannot be read"),
    "tokenizer.json a list": ("olmo3", write_bytes("tokenizer.json", b"[]"), "cannot be read"),
    "tokenizer.json empty": ("olmo3", write_bytes("tokenizer.json", b""), "cannot be read"),
    "tokenizer.json not UTF-8": ("olmo3", write_bytes("tokenizer.json", b"\xff\xfe{}"), "cannot be read"),
    "tokenizer.json a pointer": ("olmo3", write_bytes("tokenizer.json", POINTER), "cannot be read"),
    "settings not JSON": ("qwen3", cut_short("tokenizer_config.json"), "not a JSON object"),
    "settings not UTF-8": ("qwen3", write_bytes("tokenizer_config.json", b"\xff"), "not a JSON object"),
    "settings a list": ("qwen3", write_bytes("tokenizer_config.json", b"[1]"), "not a JSON object"),
    "a token that is a number": ("qwen3", set_keys("tokenizer_config.json", bos_token=5), "that is not understood"),
    "a token without a name": (
        "qwen3",
        set_keys("tokenizer_config.json", eos_token={"a": 1}),
        "that is not understood",
    ),
    "tokens in words": ("qwen3", set_keys("tokenizer_config.json", extra_special_tokens="a"), "that is not understood"),
    "added tokens in a list": (
        "llama2",
        set_keys("tokenizer_config.json", added_tokens_decoder=[1]),
        "that is not understood",
    ),
    "an added token's id": ("llama2", set_keys("added_tokens.json", a="b"), "that is not understood"),
    "a special token that is unknown": (
        "llama2",
        set_keys("special_tokens_map.json", bos_token="<q>"),
        "lacks a token",
    ),
    "a space before texts": ("gpt2", set_keys("tokenizer_config.json", add_prefix_space=True), "is not understood"),
    "no space before texts": ("llama2", set_keys("tokenizer_config.json", add_prefix_space=False), "not understood"),
    "stop ids in words": ("qwen3", set_keys("generation_config.json", eos_token_id=["end"]), "that is not understood"),
    "template with an error": ("qwen3", write_bytes("chat_template.jinja", b"{% if %}"), "template cannot be read"),
    "template with an unknown tag": ("qwen3", write_bytes("chat_template.jinja", b"{% quote %}"), "cannot be read"),
    "template not UTF-8": ("qwen3", write_bytes("chat_template.jinja", b"\xff\xff"), "cannot be read"),
    "template in settings": ("qwen3", set_keys("tokenizer_config.json", chat_template="{{ a"), "template cannot be"),
    "template a number": ("qwen3", set_keys("tokenizer_config.json", chat_template=5), "that is not understood"),
    "templates without names": (
        "qwen3",
        set_keys("tokenizer_config.json", chat_template=[{"a": 1}]),
        "that is not understood",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_tokenizer_is_refused(case, tmp_path):
    family, damage, words = CASES[case]
    folder = copy(family, tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_tokenizer(folder)
    error = caught.value
    assert str(folder) in str(error.file)
    assert all(answer is not None for answer in (error.expected, error.found, error.cause, error.next_step))


def test_a_pointer_is_told_from_other_damage(tmp_path):
    folder = copy("llama2", tmp_path)
    (folder / "tokenizer.model").write_bytes(POINTER)
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(folder)
    assert "git lfs" in caught.value.cause


def test_a_sentencepiece_model_cut_off_anywhere_is_refused(tmp_path):
    """The library itself would take one without its last part, and then treat spaces in another way."""
    folder = copy("llama2", tmp_path)
    whole = (folder / "tokenizer.model").read_bytes()
    for length in [*range(0, len(whole), 97), *range(len(whole) - 100, len(whole))]:
        (folder / "tokenizer.model").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("gpt2", "tokenizer.json"), ("llama2", "tiktoken"), ("llama3", "sentencepiece"), ("olmo3", "vocab.json")],
)
def test_a_kind_that_the_folder_has_not(family, kind):
    with pytest.raises(CheckpointError, match=r"a tokenizer file is missing|cannot be read"):
        load_tokenizer(written(family), kind=kind)


def test_a_tokenizer_json_that_begins_with_two_tokens(tmp_path):
    folder = copy("llama3", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    single = content["post_processor"]["single"]
    content["post_processor"]["single"] = [single[0], *single]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_tokenizer(folder)
    assert "2 tokens before a text" in caught.value.found


def test_vocabulary_is_filled():
    """All 1024 embeddings are used, but for those that the real families leave unused, too."""
    sizes = {family: load_tokenizer(written(family)).vocab_size for family in FILES}
    assert sizes == dict.fromkeys(FILES, VOCABULARY) | {"qwen3": 1005, "olmo3": 1021}
