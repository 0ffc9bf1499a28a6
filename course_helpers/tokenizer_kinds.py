"""The forms in which checkpoints keep their tokenizers. Which one it is, the files themselves say.

tokenizer.json   the file of Hugging Face's tokenizers library, which tells everything by itself
tiktoken         Meta's tokenizer.model of Llama 3
sentencepiece    Meta's tokenizer.model of Llama 2
vocab.json       GPT-2's pair of files: vocab.json (token -> id) and merges.txt
encoder.json     the same pair under OpenAI's own names: encoder.json and vocab.bpe
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import CheckpointError
from .loaders.files import read_json
from .tokenizer_backends import Backend, JsonBackend, TiktokenBackend
from .tokenizer_folder import OPENAI_FILES, TokenizerFolder, damaged, read_text
from .tokenizer_model import MODEL_FILES, check_ranks, is_tiktoken, sentencepiece_backend, tiktoken_backend

#: How GPT-2 cuts text into pieces before merging: a constant, part of the published tokenizer.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def json_backend(folder: TokenizerFolder) -> Backend:
    path = folder.find("tokenizer.json")
    content = read_text(path)
    try:
        return JsonBackend(content, folder.named())
    except Exception as error:  # the library has no class of its own for them
        raise damaged(path, "a tokenizer as the tokenizers library saves it", f"{error}"[:200]) from error


def byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in for every byte, in id order: printable bytes stand for themselves, the others get
    characters from 256 up. Its vocab.json is written in these."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def gpt2_backend(folder: TokenizerFolder, names: tuple[str, str] = ("vocab.json", "merges.txt")) -> Backend:
    path, merges_path = map(folder.find, names)
    folder.check_prefix(usual=False)
    vocabulary = read_json(path)
    to_byte = byte_characters()
    try:
        end = {"<|endoftext|>": vocabulary.pop("<|endoftext|>")}
        ranks = {bytes(to_byte[character] for character in token): id for token, id in vocabulary.items()}
    except KeyError as error:
        raise CheckpointError(
            "this is not a GPT-2 vocabulary",
            file=path,
            field=str(error),
            expected="tokens in GPT-2's byte characters, and <|endoftext|>",
            found="something else",
            cause="the vocabulary of another family",
            next_step="take the tokenizer from the same place as the weights",
        ) from error
    if not all(type(id) is int for id in (*vocabulary.values(), *end.values())):
        raise damaged(path, "token -> id, a whole number", "something else")
    check_ranks(path, ranks, end.values())
    check_merges(merges_path, vocabulary)
    special = end | {name: id for name, id in folder.added.items() if id >= len(ranks)}
    names = ("<|endoftext|>",)
    return TiktokenBackend("gpt2", GPT2_PATTERN, ranks, special, bos=names[0], eos=names, adds_bos=False)


def check_merges(path: Path, vocabulary: Mapping[str, int]) -> None:
    """The merges must tell the same story as the vocabulary: a token for each, numbered in order, and no more."""
    lines = read_text(path).splitlines()
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    pairs = [(" ".join(pair), vocabulary.get("".join(pair)), 256 + index) for index, pair in enumerate(merges)]
    wrong = [pair for pair in pairs if pair[1] != pair[2]]
    if not wrong and len(merges) != len(vocabulary) - 256:
        wrong = [(f"{len(merges)} merges", f"{len(vocabulary) - 256} of them", "a token for every merge")]
    for pair, found, expected in wrong[:1]:
        raise CheckpointError(
            "the tokenizer's two files disagree",
            file=path,
            field=pair,
            expected=f"id {expected} in the vocabulary: merges are numbered in order, after the 256 bytes",
            found=found,
            cause="a vocabulary and merges of two different tokenizers",
            next_step="take both from the same checkpoint",
        )


#: kind -> what makes a backend of a folder that has it
KINDS: dict[str, Callable[[TokenizerFolder], Backend]] = {
    "tokenizer.json": json_backend,
    "tiktoken": tiktoken_backend,
    "sentencepiece": sentencepiece_backend,
    "vocab.json": gpt2_backend,
    "encoder.json": functools.partial(gpt2_backend, names=tuple(OPENAI_FILES)),
}


def recognise(folder: TokenizerFolder) -> str:
    """The kind of a folder's tokenizer. Where there are several forms of it, the one that tells most by itself."""
    if (folder.path / "tokenizer.json").is_file():
        return "tokenizer.json"
    for name in MODEL_FILES:
        if (folder.path / name).is_file():
            return "tiktoken" if is_tiktoken(folder.path / name) else "sentencepiece"
    return next((name for name in ("vocab.json", "encoder.json") if (folder.path / name).is_file()), "tokenizer.json")
