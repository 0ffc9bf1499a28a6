"""Training the tiny tokenizers and writing them in their families' own file formats."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from course_helpers.labs.records import write_json
from course_helpers.tokenizer_backends import LLAMA3_PATTERN, byte_characters, llama3_special

Merges = list[tuple[str, str]]


def train_merges(texts: Iterable[str], splitter: pre_tokenizers.PreTokenizer, count: int) -> Merges:
    """The `count` most useful merges for byte-level BPE, best first, written in GPT-2's byte characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    alphabet = list(byte_characters())
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    if len(merges) != count:
        raise ValueError(f"the corpus yields {len(merges)} merges, fewer than the {count} asked for")
    return [tuple(pair) for pair in merges]


def vocabulary(merges: Merges) -> dict[str, int]:
    """Token -> id: the 256 bytes in GPT-2's order, then one token a merge, in order."""
    tokens = [*byte_characters(), *("".join(pair) for pair in merges)]
    return {token: id for id, token in enumerate(tokens)}


def write_gpt2(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """vocab.json and merges.txt, as `openai-community/gpt2` has them; the last id is <|endoftext|>."""
    merges = train_merges(texts, pre_tokenizers.ByteLevel(add_prefix_space=False), vocab_size - 256 - 1)
    write_json(folder / "vocab.json", vocabulary(merges) | {"<|endoftext|>": vocab_size - 1})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    end = "<|endoftext|>"
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context, **special}
    )


def write_llama3(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """original/tokenizer.model and tokenizer.json, as `meta-llama/Llama-3.2-1B` has them; the last 16 ids are special
    (the real ones have 256)."""
    pieces = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated")
    splitter = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    merges = train_merges(texts, splitter, vocab_size - 256 - 16)
    tokens, to_byte = vocabulary(merges), byte_characters()
    special = llama3_special(len(tokens), 16)

    lines = [f"{base64.b64encode(bytes(to_byte[c] for c in token)).decode()} {id}" for token, id in tokens.items()]
    (folder / "original").mkdir(parents=True, exist_ok=True)
    (folder / "original" / "tokenizer.model").write_text("\n".join(lines) + "\n", encoding="ascii")

    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, special[begin])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
    write_json(folder / "tokenizer_config.json", settings | {"bos_token": begin, "eos_token": end})
