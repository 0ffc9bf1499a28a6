"""The patients of M9-LAB-08: what was done to each. The lab admits them by number and looks here only at the end."""

import json
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from ..loaders.files import read_json
from ..loaders.rules import Rule
from ..loaders.sources import resolve
from .lab_08 import FORMAT, SHAPE, SILENT, TOKENIZER, TYPE, Case, edit_json, edit_tensors, every, exchanged

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json")
WEB_PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in to go on.</body></html>\n"
LARGE = 2.0**13  # a power of two: numbers are multiplied without rounding
HEAD_DIM = 32  # of every bundled model
RARE = " pumpkin"  # one token of Qwen3's, and in none of the texts on the card


def bigger_sibling(folder: Path) -> None:
    """The config of a model twice as wide."""
    config = read_json(folder / "config.json")
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    edit_json(folder, **{name: 2 * config[name] for name in names})


def other_tokenizer(folder: Path, other: str = "tiny-gemma3") -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (resolve(other) / name).exists():
            shutil.copyfile(resolve(other) / name, folder / name)


def large_inside(folder: Path) -> None:
    """What the feed-forward computes inside becomes large and its output stays what it was, as it is in Gemma 3."""
    every("mlp.up_proj", lambda weight: weight * LARGE)(folder)
    every("mlp.down_proj", lambda weight: weight / LARGE)(folder)


def web_page(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.write_text(WEB_PAGE, encoding="utf-8")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size * 2 // 3)


def renamed_shard(folder: Path) -> None:
    """What a browser makes of a second download."""
    shard = folder / "model-00002-of-00003.safetensors"
    shard.rename(folder / "model-00002-of-00003 (1).safetensors")


class Visitor:
    """An object that a pickle rebuilds by calling a function: any function."""

    def __reduce__(self) -> tuple:
        return print, ("this line was printed by a weights file",)


def code_inside(folder: Path) -> None:
    """The weights as a .bin file, with one thing more in it."""
    import safetensors.torch

    path = folder / "model.safetensors"
    content = {"model": safetensors.torch.load_file(path), "trainer": Visitor()}
    torch.save(content, folder / "pytorch_model.bin")
    path.unlink()


def relabelled(folder: Path) -> None:
    """The same bytes; the header calls them float16."""
    edit_tensors(folder, lambda tensors: tensors.update({name: t.view(torch.float16) for name, t in tensors.items()}))


def words_exchanged(folder: Path) -> None:
    """The ids of two frequent words, each under the other's name."""
    content = read_json(folder / "tokenizer.json")
    vocabulary = content["model"]["vocab"]
    one, other = (next(name for name in vocabulary if name[1:] == word) for word in ("the", "and"))
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def no_beginning(folder: Path) -> None:
    edit_json(folder, "tokenizer.json", post_processor=None)
    edit_json(folder, "tokenizer_config.json", add_bos_token=False)


def fewer_merges(folder: Path) -> None:
    content = read_json(folder / "tokenizer.json")
    content["model"]["merges"] = content["model"]["merges"][:-40]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def one_nan(folder: Path) -> None:
    """One row of the embedding, that of a token which seldom comes. The head is another matrix, so nothing else sees
    it."""
    from ..tokenizers import load_tokenizer

    (token,) = load_tokenizer(folder).encode(RARE)

    def spoil(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight[token, 5] = torch.nan
        return weight

    every("embed_tokens", spoil)(folder)


def in_pairs(weight: Tensor) -> Tensor:
    """Rows of queries or keys in Meta's order: the package's own rule, run backwards."""
    return Rule(("",), interleaved=True, head_dim=HEAD_DIM).to_theirs([weight])


def meta_order(folder: Path) -> None:
    every("q_proj", in_pairs)(folder)
    every("k_proj", in_pairs)(folder)


def config(**values: object):
    return lambda folder: edit_json(folder, **values)


def cases(source: str) -> dict[str, Case]:
    """Every patient; the first four are made from `source`, a Llama."""
    return {
        "01": Case(source, SHAPE, "the config of a larger model", bigger_sibling),
        "02": Case(source, TOKENIZER, "another family's tokenizer", other_tokenizer),
        "03": Case(source, TYPE, "float16 overflows inside", large_inside, torch.float16),
        "04": Case(source, FORMAT, "a web page, not weights", web_page),
    } | WAITING


WAITING = {
    "05": Case("tiny-gpt2", FORMAT, "the download broke off", cut_short),
    "06": Case("tiny-qwen3-moe", FORMAT, "a shard under another name", renamed_shard),
    "07": Case("tiny-gpt2", FORMAT, "code in a pickle", code_inside),
    "08": Case("tiny-gemma3", SHAPE, "vocab_size of another model", config(vocab_size=1088)),
    "09": Case("tiny-olmo3", SHAPE, "tied, though it has a head", config(tie_word_embeddings=True)),
    "10": Case("tiny-llama2", TYPE, "bfloat16 bytes labelled F16", relabelled),
    "11": Case("tiny-qwen3", TOKENIZER, "two words exchanged", words_exchanged),
    "12": Case("tiny-gemma3", TOKENIZER, "the begin mark is lost", no_beginning),
    "13": Case("tiny-qwen3-moe", SILENT, "NaN in a seldom used row", one_nan),
    "14": Case("tiny-gpt2", SILENT, "a square matrix transposed", every("h.1.attn.c_proj.weight", lambda w: w.T)),
    "15": Case("tiny-llama2", SILENT, "q and k in Meta's order", meta_order),
    "16": Case("tiny-qwen3", SILENT, "rope_theta 1e4 for 1e6", config(rope_theta=1e4)),
    "17": Case("tiny-olmo3", SILENT, "a window twice as wide", config(sliding_window=96)),
    "18": Case("tiny-gemma3", SILENT, "norms stored with their 1", every("norm", lambda weight: weight + 1)),
    "19": Case("tiny-qwen3", SILENT, "epsilon 1e-5 for 1e-6", config(rms_norm_eps=1e-5)),
    "20": Case("tiny-gpt2", SILENT, "two layers exchanged", exchanged("h.0.", "h.1.")),
}

#: For exercise 2.
MYSTERIES = {
    "X": Case(
        "tiny-llama2", SILENT, "gate and up exchanged", exchanged("layers.2.mlp.gate_proj", "layers.2.mlp.up_proj")
    ),
    "Y": Case("tiny-qwen3", TOKENIZER, "the last merges are missing", fewer_merges),
    "Z": Case("tiny-olmo3", SILENT, "rotary scaling left out", config(rope_scaling=None)),
}
