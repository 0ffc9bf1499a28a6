"""A tokenizer of every family, as checkpoints/tokenizer_files.py writes them: in folders without weights."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import pytest
import stories
import tokenizer_files
from hypothesis import strategies as st

from course_helpers import load_tokenizer
from course_helpers.tokenizers import Tokenizer

VOCABULARY = 1024
CONFIGS = {
    "gpt2": {"model_type": "gpt2", "bos_token_id": 1023, "eos_token_id": 1023},
    "llama2": {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2},
    "llama3": {"model_type": "llama", "bos_token_id": 1008, "eos_token_id": 1009},
    "qwen3": {"model_type": "qwen3", "bos_token_id": 1000, "eos_token_id": 1000},  # no text begins with this one
    "gemma3": {"model_type": "gemma3_text", "bos_token_id": 2, "eos_token_id": 1},
    "olmo3": {"model_type": "olmo3", "eos_token_id": 1000, "pad_token_id": 1020},
}
TEMPORARY = tempfile.TemporaryDirectory()  # as long as the tests run

each_family = pytest.mark.parametrize("family", CONFIGS)


@functools.cache
def written(family: str) -> Path:
    """The folder of one family's tokenizer. Copy it before changing anything."""
    return write(family, Path(TEMPORARY.name) / family)


def write(family: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    texts = [story.text for story in stories.stories(2000, 1)]
    getattr(tokenizer_files, f"write_{family}")(folder, texts, VOCABULARY, 256)
    (folder / "config.json").write_text(json.dumps(CONFIGS[family] | {"vocab_size": VOCABULARY}))
    return folder


def copy(family: str, target: Path) -> Path:
    return Path(shutil.copytree(written(family), target / family))


def edit(folder: Path, name: str, **changes: object) -> None:
    """Change keys of a JSON file, which is made if it is not there; `...` takes a key out."""
    path = folder / name
    content = (json.loads(path.read_text()) if path.exists() else {}) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@functools.cache
def transformers_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@functools.cache
def load_once(family: str) -> Tokenizer:
    return load_tokenizer(written(family))


def both(folder: Path):
    """Our tokenizer of a folder, and transformers'. Not remembered: for folders that a test changes."""
    from transformers import AutoTokenizer

    return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)


#: What tokenizers treat in ways of their own: spaces of all kinds, digits, contractions, other scripts, composed and
#: decomposed characters, halves of special tokens, private-use characters.
CURIOUS = (
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\0",
    "12345",
    "don't",
    "DON'T",
    "日本",
    "🙂",
    "👩‍👩‍👧",
    "e\u0301",
    "é",
    "Å",
    "ﬁ",
)
CURIOUS += (
    "\u00a0",
    "\u2028",
    "\U000f0000",
    "<|",
    "|>",
    "<s",
    "[INST]",
    "<think>",
    "</think>",
    "<unused0>",
    "<0x0A>",
    "ß",
)
ORDINARY = 'Once upon a time, Mia had a red kite.\n\n  "Again!" 12345 don\'t Ünïcode 日本 🙂'
WORDS = tuple(next(iter(stories.stories(1, 3))).text.split(" "))
TEXTS = st.lists(st.sampled_from(WORDS) | st.sampled_from(CURIOUS) | st.text(max_size=4), max_size=10).flatmap(
    lambda parts: st.sampled_from((" ", "")).map(lambda between: between.join(parts))
)
