"""The formats that a checkpoint comes in, each written from a transformers model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from course_helpers import load_model
from tests.tiny_models import Data, write_config

Source = tuple[object, Data | None]  # what load_model is given: a source, and a config where the source has none


def safetensors_single(model: nn.Module, folder: Path) -> Source:
    model.save_pretrained(folder)
    return folder, None


def safetensors_sharded(model: nn.Module, folder: Path) -> Source:
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder, None


def pytorch(name: str, zipped: bool, shards: int = 1) -> Callable[[nn.Module, Path], Source]:
    def write(model: nn.Module, folder: Path) -> Source:
        tensors = list(model.state_dict().items())
        write_config(folder, model.config.to_dict())
        if shards == 1:
            torch.save(dict(tensors), folder / name, _use_new_zipfile_serialization=zipped)
            return folder, None
        index = {}
        for number in range(shards):
            shard = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
            part = dict(tensors[number::shards])
            torch.save(part, folder / shard, _use_new_zipfile_serialization=zipped)
            index |= dict.fromkeys(part, shard)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        return folder, None

    return write


def single_file(model: nn.Module, folder: Path) -> Source:
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder / "weights.pth", model.config.to_dict()


FORMATS: dict[str, Callable[[nn.Module, Path], Source]] = {
    "safetensors": safetensors_single,
    "safetensors, sharded": safetensors_sharded,
    "bin": pytorch("pytorch_model.bin", zipped=True),
    "bin, legacy": pytorch("pytorch_model.bin", zipped=False),
    "bin, sharded": pytorch("", zipped=True, shards=3),
    "bin, sharded, legacy": pytorch("", zipped=False, shards=3),
    "pth": single_file,
    "live": lambda model, folder: (model, None),
    "own state dict": lambda model, folder: (load_model(model).state_dict(), model.config.to_dict()),
}
