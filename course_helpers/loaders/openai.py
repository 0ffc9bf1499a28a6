"""GPT-2 as OpenAI published it: which of a folder's checkpoints counts, and what `hparams.json` says.

Such a folder holds model.ckpt.index, model.ckpt.data-00000-of-00001, hparams.json, encoder.json, vocab.bpe, and a text
file `checkpoint` with the name of the latest checkpoint. (model.ckpt.meta is a program for TensorFlow, not weights.)
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, raise_all
from .files import TensorFile, read_json

LATEST, HPARAMS, ENCODER = "checkpoint", "hparams.json", "encoder.json"
END = "<|endoftext|>"
#: hparams.json -> config.json. It says these five things and nothing else.
NAMES = {"n_vocab": "vocab_size", "n_ctx": "n_positions", "n_embd": "n_embd", "n_head": "n_head", "n_layer": "n_layer"}
#: Not in hparams.json, because OpenAI's model.py has them in its code.
FIXED = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": True}
#: Two tensors whose shapes tell of hparams.json; with the number of layers, all of it but the number of heads.
SHAPES = {"model/wte": ("n_vocab", "n_embd"), "model/wpe": ("n_ctx", "n_embd")}
LAYER = re.compile(r"model/h(\d+)/")


def latest(folder: Path, candidates: Sequence[Path]) -> list[Path]:
    """A folder's weight files; of several TensorFlow checkpoints only the one that the file `checkpoint` names.

    Only the last part of what it says counts: it is an absolute path where the file was written, and nothing outside of
    the folder is ever opened. Raises CheckpointError if there is no such checkpoint.
    """
    indexes = [path for path in candidates if path.suffix == ".index"]
    if not indexes or not (folder / LATEST).is_file():
        return list(candidates)
    text = (folder / LATEST).read_text(encoding="utf-8", errors="replace")
    name = re.match(r'\s*model_checkpoint_path:\s*"([^"\n]*)"', text)
    chosen = folder / (re.split(r"[/\\]", name[1])[-1] + ".index") if name else None
    if chosen not in indexes:
        raise CheckpointError(
            "the latest checkpoint is not there",
            file=folder / LATEST,
            field="model_checkpoint_path",
            expected=" or ".join(path.stem for path in indexes),
            found=repr(name[1] if name else text[:80]),
            cause="files that were renamed, or an interrupted download",
            next_step="name the checkpoint that you want: the path of its .index file",
        )
    return [path for path in candidates if path not in indexes or path == chosen]


def config_of(file: TensorFile) -> dict[str, Any] | None:
    """What a config.json would say of an open checkpoint; None if there is no hparams.json. Raises ConfigError for one
    that is not understood, and CheckpointError if the tensors say something else.

    The id of the token that ends a text is encoder.json's, if that is there.
    """
    path = file.path.with_name(HPARAMS)
    if not path.exists():
        return None
    hparams = read_hparams(path)
    found = {name: tuple(file.tensors[name].shape) for name in SHAPES if name in file.tensors}
    expected = {name: tuple(hparams[key] for key in keys) for name, keys in SHAPES.items()}
    problems = [
        disagreement(file.path, f"{expected[name]}, says {HPARAMS}", shape, tensor=name)
        for name, shape in found.items()
        if shape != expected[name]
    ]
    layers = len({match[1] for name in file.tensors if (match := LAYER.match(name))})
    if layers not in (0, hparams["n_layer"]):
        problems.append(disagreement(file.path, f"{hparams['n_layer']}, says {HPARAMS}", layers, field="n_layer"))
    raise_all(problems)
    encoder = path.with_name(ENCODER)
    end = read_json(encoder).get(END) if encoder.exists() else None
    end = end if type(end) is int and 0 <= end < hparams["n_vocab"] else None
    sizes = {name: hparams[key] for key, name in NAMES.items()}
    return {"model_type": "gpt2", **sizes, **FIXED, "bos_token_id": end, "eos_token_id": end}


def read_hparams(path: Path) -> Mapping[str, int]:
    """The fields of hparams.json. Raises ConfigError for one that is missing, unknown, or cannot be right."""
    hparams = read_json(path)
    for name in hparams | NAMES:
        value = hparams.get(name)
        if name not in NAMES or type(value) is not int or not 0 < value < 2**31:
            raise ConfigError(
                "hparams.json does not say what OpenAI's does",
                file=path,
                field=name,
                expected=f"only {', '.join(NAMES)}, each a whole number from 1 up",
                found=repr(value)[:200] if name in hparams else "nothing",
                cause="a model of another kind, or a file that was edited by hand",
                next_step="take hparams.json from the same place as the weights, or pass config=",
            )
    return hparams


def disagreement(path: Path, expected: str, found: object, **place: str) -> CheckpointError:
    return CheckpointError(
        "hparams.json and the weights disagree",
        file=path,
        **place,
        expected=expected,
        found=found,
        cause="the hparams.json of another size",
        next_step="take hparams.json and the weights from the same place",
    )
