"""Three ways to run a tokenizer, and the files each family keeps its own in.

A backend knows text, ids and special tokens; what a family does with them (which id begins a text, which end one, how
a conversation is written) is `tokenizers.Tokenizer`'s business.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .errors import CheckpointError
from .loaders.files import read_json


class Backend(Protocol):
    """What a tokenizer library must be able to do. `special` maps the special tokens' names to their ids."""

    vocab_size: int
    special: Mapping[str, int]

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class TiktokenBackend:
    """Byte-level BPE run by tiktoken: a token's id is also its merge rank."""

    def __init__(self, name: str, pattern: str, ranks: dict[bytes, int], special: dict[str, int]):
        import tiktoken

        self.special = special
        self.vocab_size = len(ranks) + len(special)
        self.encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)

    def encode(self, text: str) -> list[int]:
        return self.encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.encoding.decode(list(ids))


#: How text is cut into pieces before merging: constants of the two families, part of their published tokenizers.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: Llama 3.1's special tokens, in order, from the first id after the ordinary ones; `{}` counts the reserved ones.
LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_{}|>",
    "<|reserved_special_token_{}|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_{}|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)


def llama3_special(first: int, count: int) -> dict[str, int]:
    """Names and ids of Llama 3's special tokens; real checkpoints have 256 from id 128000."""
    names, reserved = [], 0
    for template in [*LLAMA3_SPECIAL, *["<|reserved_special_token_{}|>"] * (count - len(LLAMA3_SPECIAL))][:count]:
        names.append(template.format(reserved))
        reserved += "{}" in template
    return {name: first + index for index, name in enumerate(names)}


def byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte, in id order: printable bytes stand for themselves, the others get
    characters from 256 up. Its vocab.json is written in these."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def gpt2_backend(folder: Path, config: Mapping[str, Any]) -> tuple[Backend, tuple[str, ...]]:
    """GPT-2: vocab.json (token -> id) and merges.txt, which must tell the same story. Raises CheckpointError."""
    names = ("vocab.json", "merges.txt")
    vocabulary = read_json(folder / names[0])
    to_byte = byte_characters()
    try:
        special = {"<|endoftext|>": vocabulary.pop("<|endoftext|>")}
        ranks = {bytes(to_byte[character] for character in token): id for token, id in vocabulary.items()}
    except KeyError as error:
        raise CheckpointError(
            "this is not a GPT-2 vocabulary",
            file=folder / names[0],
            field=str(error),
            expected="tokens in GPT-2's byte characters, and <|endoftext|>",
            found="something else",
            cause="the vocab.json of another family",
            next_step="take the tokenizer from the same place as the weights",
        ) from error
    lines = (folder / names[1]).read_text(encoding="utf-8").splitlines()
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    for index, pair in enumerate(merges):
        if vocabulary.get("".join(pair)) != 256 + index:
            raise CheckpointError(
                "the tokenizer's two files disagree",
                file=folder / names[1],
                field=" ".join(pair),
                expected=f"id {256 + index} in vocab.json: merges are numbered in order, after the 256 bytes",
                found=vocabulary.get("".join(pair)),
                cause="vocab.json and merges.txt of two different tokenizers",
                next_step="take both from the same checkpoint",
            )
    return TiktokenBackend("gpt2", GPT2_PATTERN, ranks, special), names


def llama3_backend(folder: Path, config: Mapping[str, Any]) -> tuple[Backend, tuple[str, ...]]:
    """Llama 3: Meta's own original/tokenizer.model, a line a token: the bytes in base64, and the rank."""
    name = "original/tokenizer.model"
    if not (folder / name).exists():
        return json_backend(folder, config)
    ranks = {}
    for number, line in enumerate((folder / name).read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                "the tokenizer file cannot be read",
                file=folder / name,
                field=f"line {number}",
                expected="a token in base64, a space, its rank",
                found=repr(line[:40]),
                cause="a SentencePiece model (Llama 2) or a damaged file in its place",
                next_step="download the tokenizer again, from the same checkpoint as the weights",
            ) from error
    special = llama3_special(len(ranks), config["vocab_size"] - len(ranks))
    return TiktokenBackend("llama3", LLAMA3_PATTERN, ranks, special), (name,)


class JsonBackend:
    """A tokenizer.json, run by Hugging Face's tokenizers library."""

    def __init__(self, path: Path):
        from tokenizers import Tokenizer as JsonTokenizer

        self.tokenizer = JsonTokenizer.from_file(str(path))
        self.tokenizer.encode_special_tokens = True  # special tokens typed by a user are ordinary characters
        self.vocab_size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = {token.content: id for id, token in added.items() if token.special}

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)


def json_backend(folder: Path, config: Mapping[str, Any]) -> tuple[Backend, tuple[str, ...]]:
    name = "tokenizer.json"
    if not (folder / name).exists():
        raise FileNotFoundError(None, "no such file", str(folder / name))
    return JsonBackend(folder / name), (name,)
