"""Checkpoints to load: the shapes of released models, random weights, in the layout that their owners use."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from course_helpers.architectures.config import ModelConfig
from course_helpers.families import family_of
from course_helpers.memory import MIB

#: How each format is written: the name of its files, and the function that writes one.
NAMES = {".safetensors": "model", ".bin": "pytorch_model"}


def random_tensors(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """All tensors of a checkpoint, by its own names. One block of random numbers, repeated: loading does not look."""
    family = family_of(config.to_hf())
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in family.model(config).named_parameters()}
    block = torch.randn(2**22, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)
    tensors = {}
    for name, rule in family.weight_maps[0].expand(config).items():
        if set(rule.targets) <= shapes.keys():
            shape = rule.source_shape([shapes[target] for target in rule.targets])
            size = math.prod(shape)
            tensors[name] = block.repeat(-(-size // len(block)))[:size].view(shape).clone()
    return tensors


def write(folder: Path, config: ModelConfig, tensors: dict[str, Tensor], ending: str, shards: int) -> None:
    """Write config.json and the weights: in one file, or in shards of about the same size under an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf()), encoding="utf-8")
    total, parts, done = sum(tensor.nbytes for tensor in tensors.values()), [{} for _ in range(shards)], 0
    for name, tensor in tensors.items():
        parts[min(shards - 1, done * shards // total)][name] = tensor
        done += tensor.nbytes
    if shards == 1:
        return write_file(folder / f"{NAMES[ending]}{ending}", parts[0])
    where = {}
    for number, part in enumerate(parts, start=1):
        shard = f"{NAMES[ending]}-{number:05}-of-{shards:05}{ending}"
        write_file(folder / shard, part)
        where |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / f"{NAMES[ending]}{ending}.index.json").write_text(json.dumps(index), encoding="utf-8")


def write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path, metadata={"format": "pt"})


def weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in NAMES)


def warm(folder: Path) -> None:
    """Read every file once, so that all of it lies in the system's page cache."""
    buffer = bytearray(MIB)
    for path in weight_files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
