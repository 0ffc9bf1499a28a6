"""Training the tiny tokenizers and writing them in their families' own file formats.

Every writer is called `write_FAMILY(folder, texts, vocab_size, context)`. The same texts give the same bytes.
"""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import chat_templates
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from course_helpers.labs.records import write_json
from course_helpers.tokenizer_kinds import byte_characters
from course_helpers.tokenizer_model import LLAMA3_PATTERN, llama3_special

Merges = list[tuple[str, str]]

#: How Qwen cuts text before merging: as Llama 3 does, but with every digit on its own.
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


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


def byte_level(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cut text by a pattern, then write every byte of a piece as one of GPT-2's characters."""
    pieces = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level_tokenizer(
    merges: Merges, pattern: str, added: Iterable[AddedToken], ignore_merges: bool = False
) -> Tokenizer:
    """A byte-level tokenizer for tokenizer.json, the added tokens after the ordinary ones."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(merges), merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level(pattern), decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    return tokenizer


def special(names: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def begin_with(tokenizer: Tokenizer, token: str) -> None:
    """Make a tokenizer put `token` before every text."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def write_settings(folder: Path, tokenizer_class: str, context: int, **others: Any) -> None:
    """tokenizer_config.json."""
    settings = {"tokenizer_class": tokenizer_class, "model_max_length": context}
    write_json(folder / "tokenizer_config.json", settings | others)


def write_merges(folder: Path, merges: Merges) -> None:
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_gpt2(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """vocab.json and merges.txt, as `openai-community/gpt2` has them; the last id is <|endoftext|>."""
    merges = train_merges(texts, pre_tokenizers.ByteLevel(add_prefix_space=False), vocab_size - 256 - 1)
    write_json(folder / "vocab.json", vocabulary(merges) | {"<|endoftext|>": vocab_size - 1})
    write_merges(folder, merges)
    end = "<|endoftext|>"
    write_settings(folder, "GPT2Tokenizer", context, bos_token=end, eos_token=end, unk_token=end)


def write_llama2(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """tokenizer.model, a SentencePiece model as Meta ships with Llama 2: <unk>, <s>, </s>, 256 bytes, then pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    # `legacy`: every piece of text between two special tokens begins with the dummy space, as in Meta's own programs.
    settings = {"add_bos_token": True, "add_eos_token": False, "legacy": True}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_settings(folder, "LlamaTokenizer", context, **settings, chat_template=chat_templates.LLAMA2)


def write_llama3(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """original/tokenizer.model and tokenizer.json, as `meta-llama/Llama-3.2-1B` has them; the last 16 ids are special
    (the real ones have 256)."""
    merges = train_merges(texts, byte_level(LLAMA3_PATTERN), vocab_size - 256 - 16)
    tokens, to_byte = vocabulary(merges), byte_characters()
    lines = [f"{base64.b64encode(bytes(to_byte[c] for c in token)).decode()} {id}" for token, id in tokens.items()]
    (folder / "original").mkdir(parents=True, exist_ok=True)
    (folder / "original" / "tokenizer.model").write_text("\n".join(lines) + "\n", encoding="ascii")

    added = [AddedToken(name, special=True) for name in llama3_special(len(tokens), 16)]
    tokenizer = byte_level_tokenizer(merges, LLAMA3_PATTERN, added, ignore_merges=True)
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    begin_with(tokenizer, begin)
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": begin, "eos_token": end}
    write_settings(folder, "PreTrainedTokenizerFast", context, **marks, chat_template=chat_templates.LLAMA3)


def write_qwen3(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """tokenizer.json, vocab.json and merges.txt, as `Qwen/Qwen3-0.6B` has them: after the ordinary tokens come special
    ones and, not special, the marks of a thought. The model has embeddings to spare, as the real one."""
    ordinary = vocab_size - 24
    merges = train_merges(texts, byte_level(QWEN_PATTERN), ordinary - 256)
    end = "<|endoftext|>"
    added = special([end, "<|im_start|>", "<|im_end|>"])
    added += [AddedToken(name, special=False, normalized=False) for name in ("<think>", "</think>")]
    tokenizer = byte_level_tokenizer(merges, QWEN_PATTERN, added)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocab.json", vocabulary(merges))
    write_merges(folder, merges)
    settings = {"add_bos_token": False, "bos_token": None, "eos_token": end, "pad_token": end, "unk_token": None}
    write_settings(folder, "Qwen2Tokenizer", context, **settings, chat_template=chat_templates.QWEN3)


def write_gemma3(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """tokenizer.json as `google/gemma-3-270m` has it: SentencePiece's way of BPE, where a space is a character like any
    other, and bytes stand in for characters that the vocabulary lacks."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    first = [*names, *(f"<0x{byte:02X}>" for byte in range(256))]
    spaces = normalizers.Replace(" ", "▁")
    trained = Tokenizer(models.BPE())
    trained.normalizer = spaces
    # Words stay whole because no merge learned here goes beyond one; later, texts are not cut into words at all.
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?\p{N}|▁?[^▁\p{L}\p{N}]|▁"), behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    trained.train_from_iterator(texts, trainer)
    learned = json.loads(trained.to_str())["model"]

    model = models.BPE(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = spaces
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens(special(names))
    begin_with(tokenizer, "<bos>")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"add_bos_token": True, "add_eos_token": False, "mask_token": None}
    settings |= {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_settings(folder, "GemmaTokenizer", context, **settings, chat_template=chat_templates.GEMMA3)


def write_olmo3(folder: Path, texts: Iterable[str], vocab_size: int, context: int) -> None:
    """tokenizer.json and chat_template.jinja, as `allenai/Olmo-3-7B-Instruct` has them."""
    merges = train_merges(texts, byte_level(LLAMA3_PATTERN), vocab_size - 24 - 256)
    names = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<|extra_id_{index}|>" for index in range(17)),
        "<|pad|>",
    ]
    tokenizer = byte_level_tokenizer(merges, LLAMA3_PATTERN, special(names))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(chat_templates.OLMO3, encoding="utf-8")
    marks = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<|endoftext|>"}
    write_settings(folder, "GPT2Tokenizer", context, **marks)
