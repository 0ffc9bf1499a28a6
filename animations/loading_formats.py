"""One model in the four formats that a checkpoint comes in, each written and opened again. No Manim here."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from course_helpers import load_model, open_checkpoint, save_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.save import export
from course_helpers.loaders.tf_writer import write_bundle
from course_helpers.loaders.weight_maps import GPT2_TF

#: Small enough that the bundled model needs several files.
SHARD_BYTES = 1_500_000


#: What the parts of a file hold.
NAMES, PLACES, NUMBERS = "names and shapes", "names and files", "numbers"


@dataclass(frozen=True)
class Part:
    """A part of a file: what it holds, what it is called there, and its bytes."""

    kind: str
    name: str
    bytes: int


@dataclass(frozen=True)
class WeightFile:
    """A file of a checkpoint, and its parts in order."""

    name: str
    bytes: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Layout:
    """A checkpoint in one format: what lies in its folder, what is inside, and what the adapter finds."""

    title: str
    format: str  # as `open_checkpoint` calls it
    files: tuple[WeightFile, ...]
    tensors: int
    first_name: str  # of the first block's query, key and value
    first_shape: tuple[int, ...]
    same_model: bool  # loaded, it is the bundled model, bit for bit


def write_tensorflow(model: LanguageModel, folder: Path) -> None:
    """OpenAI's own layout: an index of names, and the numbers in another file."""
    parameters = dict(model.named_parameters())
    tensors = {
        name: rule.to_theirs([parameters[target].detach() for target in rule.targets])
        for name, rule in GPT2_TF.expand(model.config).items()
        if parameters.keys() >= set(rule.targets)
    }
    write_bundle(folder / "model.ckpt", tensors)
    config = model.config
    sizes = {"n_vocab": config.vocab_size, "n_ctx": config.n_positions, "n_embd": config.n_embd}
    hparams = sizes | {"n_head": config.n_head, "n_layer": config.n_layer}
    (folder / "hparams.json").write_text(json.dumps(hparams))


def write_safetensors(model: LanguageModel, folder: Path) -> None:
    """A header with every name, shape and place, and the bytes of all tensors behind it."""
    save_checkpoint(model, folder)


def write_shards(model: LanguageModel, folder: Path) -> None:
    """Several files, and an index that says which tensor is in which."""
    save_checkpoint(model, folder, max_shard_bytes=SHARD_BYTES)


def write_bin(model: LanguageModel, folder: Path) -> None:
    """A zip file: a pickle of names and shapes, and a member for the numbers of each tensor."""
    torch.save(export(model), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(model.config.to_hf()))


def contents(path: Path) -> WeightFile:
    """A file and its parts, as its format arranges them."""
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
        parts = Part(NAMES, "header", header), Part(NUMBERS, "bytes", size - header)
    elif path.suffix == ".bin":
        with zipfile.ZipFile(path) as file:
            members = {info.filename.split("/", 1)[1]: info.file_size for info in file.infolist()}
        numbers = [bytes for name, bytes in members.items() if name.startswith("data/")]
        name = f"data/0 … data/{len(numbers) - 1}"
        parts = Part(NAMES, "data.pkl", members["data.pkl"]), Part(NUMBERS, name, sum(numbers))
    else:
        kind = {".index": NAMES, ".json": PLACES}.get(path.suffix, NUMBERS)
        parts = (Part(kind, "", size),)
    return WeightFile(path.name, size, parts)


WRITERS: Mapping[str, Callable[[LanguageModel, Path], None]] = {
    "TensorFlow": write_tensorflow,
    "safetensors": write_safetensors,
    "shards": write_shards,
    ".bin": write_bin,
}
#: What stands beside the weights in a folder, and holds none.
NO_WEIGHTS = ("config.json", "generation_config.json", "hparams.json")


def layout(model: LanguageModel, title: str, write: Callable, folder: Path) -> Layout:
    """Write the model in one format, and open what was written."""
    folder.mkdir()
    write(model, folder)
    found = sorted((path for path in folder.iterdir() if path.name not in NO_WEIGHTS), key=is_weights)
    with open_checkpoint(folder) as checkpoint:
        name = first_of(checkpoint.names())
        return Layout(
            title,
            checkpoint.format,
            tuple(contents(path) for path in found),
            len(checkpoint.names()),
            name,
            checkpoint.shape(name),
            same_model=fingerprint(load_model(folder)) == fingerprint(model),
        )


def is_weights(path: Path) -> tuple[bool, str]:
    """Sorts an index before what it is an index of."""
    return "index" not in path.name, path.name


def first_of(names: Sequence[str]) -> str:
    """The name under which a format keeps the first block's query, key and value."""
    return next(name for name in names if "c_attn" in name and name.endswith(("w", "weight")))


def fingerprint(model: LanguageModel) -> str:
    """A short digest of all weights."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode() + parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]
