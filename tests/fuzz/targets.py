"""What is fuzzed: for each reader, valid inputs, how they are changed, and how one is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file

from course_helpers.loaders.crc32c import masked_crc32c
from course_helpers.loaders.disk import read_json
from course_helpers.loaders.files import open_shards
from course_helpers.loaders.load import prepare
from course_helpers.loaders.manifest_files import MANIFEST, manifest_beside
from course_helpers.loaders.meta_params import PARAMS, config_from_params
from course_helpers.loaders.safetensors_file import SafetensorsFile
from course_helpers.loaders.sources import Checkpoint, MemoryTensors
from course_helpers.loaders.sstable import FOOTER_BYTES, TRAILER_BYTES, read_table
from course_helpers.loaders.tf_checkpoint import TensorFlowFile
from course_helpers.loaders.tf_index import read_index
from course_helpers.loaders.tf_writer import table, write_bundle
from tests.formats import META_CONFIG, meta_params, meta_tensors
from tests.fuzz.mutate import bytes_changed, json_changed
from tests.tiny_models import EXAMPLES, theirs

Mutate = Callable[[bytes, Random], bytes]
Read = Callable[[bytes], object]
SMALL = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.zeros(0, 3)}


@dataclass(frozen=True)
class Target:
    """A reader to be fuzzed. It may raise CheckpointError, and nothing else."""

    seeds: list[bytes]
    mutate: Mutate
    read: Read


def header(folder: Path) -> Target:
    """A safetensors file: its header, and every tensor that it then promises, read and mapped."""
    save_file(SMALL, folder / "x.safetensors", metadata={"format": "pt"})
    raw = (folder / "x.safetensors").read_bytes()

    def mutate(raw: bytes, random: Random) -> bytes:
        length = int.from_bytes(raw[:8], "little")
        if random.random() < 0.3 or length > len(raw) - 8:
            return bytes_changed(raw, random)
        text, data = json_changed(raw[8 : 8 + length], random), raw[8 + length :]
        length = len(text) if random.random() < 0.95 else random.getrandbits(64)
        return length.to_bytes(8, "little") + text + (bytes_changed(data, random) if random.random() < 0.1 else data)

    def read(raw: bytes) -> None:
        (folder / "x.safetensors").write_bytes(raw)
        file = SafetensorsFile(folder / "x.safetensors")
        for name, entry in file.tensors.items():
            for tensor in (file.read(name), file.map(name)):
                assert tuple(tensor.shape) == entry.shape and tensor.dtype == entry.dtype

    return Target([raw], mutate, read)


def index(folder: Path) -> Target:
    """The index of a sharded checkpoint, whose shards are sound."""
    save_file({"a": SMALL["a"]}, folder / "1.safetensors")
    save_file({"b": SMALL["b"], "c": SMALL["c"]}, folder / "2.safetensors")
    torch.save(SMALL, folder / "3.bin")
    one = {"metadata": {"total_size": 32}, "weight_map": {n: f"{1 + (n != 'a')}.safetensors" for n in SMALL}}
    other = {"weight_map": dict.fromkeys(SMALL, "3.bin")}

    def read(raw: bytes) -> None:
        (folder / "any.index.json").write_bytes(raw)
        files, _ = open_shards(folder / "any.index.json")
        assert {name for file in files for name in file.tensors} <= SMALL.keys()

    return Target([json.dumps(content).encode() for content in (one, other)], json_changed, read)


def config(folder: Path) -> Target:
    """config.json of every family, beside its weights: read, and a model planned and built without memory."""
    models = [theirs(content) for content in EXAMPLES.values()]
    sources = [MemoryTensors(model.state_dict()) for model in models]
    contents = [*enumerate(EXAMPLES.values()), *enumerate(model.config.to_dict() for model in models)]
    seeds = [json.dumps(content | {"weights": number}).encode() for number, content in contents]

    def read(raw: bytes) -> None:
        (folder / "config.json").write_bytes(raw)
        content = read_json(folder / "config.json")
        which = content.get("weights")
        source = sources[which if type(which) is int and 0 <= which < len(sources) else 0]
        prepare(Checkpoint("state_dict", [source], content, "state dict"), None, torch.device("cpu"))

    return Target(seeds, json_changed, read)


def params(folder: Path) -> Target:
    """Meta's params.json, with and without the tensors beside it."""
    tensors = {name: tensor for name, (tensor, _) in meta_tensors(theirs(META_CONFIG)).items()}
    scaled = meta_params(META_CONFIG) | {"use_scaled_rope": True, "rope_scaling_factor": 8, "rope_theta": 500000.0}

    def read(raw: bytes) -> None:
        (folder / PARAMS).write_bytes(raw)
        found = config_from_params(folder, tensors)
        prepare(Checkpoint("meta", [MemoryTensors(tensors)], found, "Meta's"), None, torch.device("cpu"))

    return Target([json.dumps(p).encode() for p in (meta_params(META_CONFIG), scaled)], json_changed, read)


def manifest(folder: Path) -> Target:
    """card.json."""
    (folder / "sub").mkdir()
    for name in ("a.bin", "sub/b"):
        (folder / name).write_bytes(b"abc")
    row = {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    content = {"weights": {"a.bin": row}, "files": {"sub/b": row}, "greedy": []}

    def read(raw: bytes) -> None:
        (folder / MANIFEST).write_bytes(raw)
        if (found := manifest_beside(folder)) is not None:
            found.check(every_byte=True)

    return Target([json.dumps(content).encode()], json_changed, read)


def tensorflow(folder: Path) -> Target:
    """The index of a TensorFlow checkpoint; now and then, all tensors that it promises are read, too."""
    tensors = {f"model/{name}": tensor for name, tensor in SMALL.items()} | {"model/s": torch.tensor(3)}
    sound = write_bundle(folder / "model.ckpt", tensors).read_bytes()
    counted = [0]

    def mutate(raw: bytes, random: Random) -> bytes:
        way = random.random()
        if way < 0.2:
            return bytes_changed(raw, random)
        if way < 0.5:
            return with_crcs(raw, random)
        try:
            rows = list(read_table(raw).items())
        except Exception:
            rows = list(read_table(sound).items())
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(rows))
            key, value = rows[place]
            way = random.randrange(6)
            if way == 0:
                key = bytes_changed(key, random)
            elif way == 1:
                value = rows[random.randrange(len(rows))][1]
            elif way == 2 and len(rows) > 1:
                del rows[place]
                continue
            else:
                value = bytes_changed(value, random)
            rows[place] = (key, value)
        rows = dict(rows) if random.random() < 0.1 else dict(sorted(dict(rows).items()))
        try:
            return table(rows, random.choice((1, 40, 262_144)))
        except ValueError:  # keys out of order, which the writer need not be able to write
            return with_crcs(raw, random)

    def read(raw: bytes) -> None:
        read_index(raw)
        counted[0] += 1
        if counted[0] % 20 == 0:
            (folder / "model.ckpt.index").write_bytes(raw)
            file = TensorFlowFile(folder / "model.ckpt.index")
            for name in file.tensors:
                assert torch.equal(file.read(name), file.map(name))

    return Target([sound, table({b"": read_table(sound)[b""]}, 1)], mutate, read)


def with_crcs(raw: bytes, random: Random) -> bytes:
    """A table with its first block changed, in its own length, and the right CRC after it."""
    content = bytearray(raw)
    places = sorted(random.sample(range(len(raw)), min(len(raw), random.randint(1, 4))))
    size = first_block(raw)
    for place in places:
        content[place % max(size, 1)] ^= 1 << random.randrange(8)
    content[size + 1 : size + TRAILER_BYTES] = masked_crc32c(content[: size + 1]).to_bytes(4, "little")
    return bytes(content)


def first_block(raw: bytes) -> int:
    """The size of a table's first block, if it is one block: found by its CRC."""
    for size in range(len(raw) - FOOTER_BYTES - TRAILER_BYTES, 0, -1):
        if raw[size + 1 : size + TRAILER_BYTES] == masked_crc32c(raw[: size + 1]).to_bytes(4, "little"):
            return size
    return 0


TARGETS: dict[str, Callable[[Path], Target]] = {
    "header": header,
    "index": index,
    "config": config,
    "params": params,
    "manifest": manifest,
    "tensorflow": tensorflow,
}
