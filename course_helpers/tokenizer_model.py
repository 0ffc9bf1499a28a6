"""Meta's tokenizer.model, which is one of two things.

Llama 3's is tiktoken's: a line a token, the bytes in base64 and the rank. Llama 2's is a SentencePiece model.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .tokenizer_backends import Backend, SentencePieceBackend, TiktokenBackend
from .tokenizer_folder import TokenizerFolder, damaged

#: Where the file lies in a folder of Hugging Face's layout, and in one of Meta's.
MODEL_FILES = ("original/tokenizer.model", "tokenizer.model")

#: How Llama 3 cuts text into pieces before merging: a constant, part of the published tokenizer.
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
LLAMA3_SPECIAL_COUNT = 256  # where nothing says how large the vocabulary is
#: What Meta's own program stops at: base models never write the last two.
LLAMA3_STOPS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")

#: Fields of a SentencePiece model that follow the pieces: how it was trained, and what is done to a text first.
TRAINER, NORMALIZER = 2, 3


def is_tiktoken(path: Path) -> bool:
    """Whether a tokenizer.model is tiktoken's: a SentencePiece model begins in another way."""
    with path.open("rb") as file:
        return re.fullmatch(rb"[A-Za-z0-9+/]+=* \d+\s*", file.readline(1000)) is not None


def llama3_special(first: int, count: int) -> dict[str, int]:
    """Names and ids of Llama 3's special tokens; real checkpoints have 256 from id 128000."""
    names, reserved = [], 0
    for template in [*LLAMA3_SPECIAL, *["<|reserved_special_token_{}|>"] * (count - len(LLAMA3_SPECIAL))][:count]:
        names.append(template.format(reserved))
        reserved += "{}" in template
    return {name: first + index for index, name in enumerate(names)}


def tiktoken_backend(folder: TokenizerFolder) -> Backend:
    path = folder.find(*MODEL_FILES)
    expected = "a token in base64, a space, its rank"
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise damaged(path, expected, repr(line[:40]), f"line {number}") from error
    check_ranks(path, ranks)
    count = LLAMA3_SPECIAL_COUNT if folder.size is None else max(folder.size - len(ranks), 0)
    names = {id: name for name, id in llama3_special(len(ranks), count).items()}
    names |= {id: name for name, id in folder.added.items() if id in names}  # Llama 3.0 had other names for a few
    special = {name: id for id, name in names.items()}
    marks = {"bos": "<|begin_of_text|>", "eos": LLAMA3_STOPS, "adds_bos": True}
    return TiktokenBackend("llama3", LLAMA3_PATTERN, ranks, special, **marks)


def check_ranks(path: Path, ranks: Mapping[bytes, int], special: Iterable[int] = ()) -> None:
    """Every byte must be a token, or there is text that cannot be written; and ids must have no holes."""
    ids = [*ranks.values(), *special]
    if sorted(ids) != list(range(len(ids))):
        raise damaged(path, f"{len(ids)} tokens numbered from 0", "other numbers, or the same one twice")
    lacking = sum(bytes([byte]) not in ranks for byte in range(256))
    if lacking:
        raise damaged(path, "a token for each of the 256 bytes", f"{lacking} have none")


def sentencepiece_backend(folder: TokenizerFolder) -> Backend:
    path = folder.find(*MODEL_FILES)
    folder.check_prefix(usual=True)
    content = path.read_bytes()
    try:
        if not {TRAINER, NORMALIZER} <= protobuf_fields(content):
            raise ValueError("it ends early")
        return SentencePieceBackend(content, folder.added, folder.prefix_every_piece)
    except (ValueError, RuntimeError) as error:
        expected = "a SentencePiece model (Llama 2), or lines of base64 and rank (Llama 3)"
        raise damaged(path, expected, f"{len(content)} bytes of something else: {error}"[:200]) from error


def protobuf_fields(message: bytes) -> set[int]:
    """The numbers of the fields in a serialized message. Raises ValueError if it is none, or if it was cut off.

    SentencePiece itself takes a file without its last fields for one with other settings.
    """
    numbers, position = set(), 0
    while position < len(message):
        tag, position = protobuf_number(message, position)
        length, position = protobuf_number(message, position)
        position += length
        if tag & 7 != 2 or position > len(message):  # 2: a field with a length, as all of a model's are
            raise ValueError("a field that cannot be one, or that ends early")
        numbers.add(tag >> 3)
    return numbers


def protobuf_number(message: bytes, position: int) -> tuple[int, int]:
    """A number, and the position after it: seven bits a byte, the lowest first, the eighth set on all but the last."""
    value = shift = 0
    for byte in message[position : position + 10]:
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position
    raise ValueError("a number that ends early")
