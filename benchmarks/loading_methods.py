"""The ways to load that are compared. Each takes a folder and returns what it loaded, on the CPU.

Peers that bring no model of their own are given ours, which is lean, and a state dict in its names: what is compared
is the loading. None of them checks a shape before it copies, nor whether config.json fits the weights; ours does.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.checkpoints import weight_files
from course_helpers import load_model
from course_helpers.families import family_of
from course_helpers.memory import MIB

PAGE = 4096
SAFETENSORS, PYTORCH = ".safetensors", ".bin"
BOTH = (SAFETENSORS, PYTORCH)


@dataclass(frozen=True)
class Method:
    who: str  # "limit", "peer" or "ours"
    load: Callable[[Path], object]
    formats: tuple[str, ...] = BOTH
    #: "once": it fills the model with random numbers first, and a second more or less does not matter. "often": it only
    #: maps the files, and is so short that a few rounds would show the noise of the machine.
    measured: str = ""
    note: str = ""  # what it does, for the list below the tables

    def repeats(self, rounds: int) -> int:
        """How often it is measured, where others are measured `rounds` times."""
        return {"once": 1, "often": rounds + 2}.get(self.measured, rounds)


def read_small(folder: Path) -> None:
    buffer = bytearray(MIB)
    for path in weight_files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_whole(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in weight_files(folder)]


def empty_model(folder: Path, device: str) -> tuple[nn.Module, dict[str, str]]:
    """Our model in bfloat16, filled at random or (on "meta") not at all, and the checkpoint's names of its tensors."""
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = family_of(data)
    config = family.config.from_hf(data)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = family.model(config)
    torch.set_default_dtype(torch.float32)
    return model, {name: rule.targets[0] for name, rule in family.weight_maps[0].expand(config).items()}


def into(folder: Path, states: Iterator[dict[str, Tensor]], device: str, assign: bool) -> nn.Module:
    """`load_state_dict`, one file after the other."""
    model, names = empty_model(folder, device)
    for state in states:
        model.load_state_dict({names[name]: tensor for name, tensor in state.items()}, strict=False, assign=assign)
    return model


def torch_states(folder: Path, mmap: bool) -> Iterator[dict[str, Tensor]]:
    return (torch.load(path, weights_only=True, mmap=mmap) for path in weight_files(folder))


def safetensors_states(folder: Path) -> Iterator[dict[str, Tensor]]:
    from safetensors.torch import load_file

    return (load_file(path) for path in weight_files(folder))


def transformers(folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def accelerate(folder: Path) -> nn.Module:
    from accelerate import init_empty_weights, load_checkpoint_in_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.tie_weights()
    load_checkpoint_in_model(model, folder, device_map={"": "cpu"})
    return model


def ours(strategy: str, dtype: torch.dtype | None = None) -> Callable[[Path], nn.Module]:
    return lambda folder: load_model(folder, dtype=dtype, strategy=strategy)


OURS = "course_helpers, "
METHODS: dict[str, Method] = {
    "limit: read through a small buffer": Method("limit", read_small, note="1 MiB, used again and again"),
    "limit: one plain read into fresh memory": Method(
        "limit", read_whole, note="`Path.read_bytes`, one file at a time"
    ),
    "torch.load + load_state_dict": Method(
        "peer",
        lambda folder: into(folder, torch_states(folder, False), "cpu", False),
        (PYTORCH,),
        measured="once",
        note="builds the model with random weights, reads a whole file beside it, copies",
    ),
    "torch.load(mmap=True) + assign": Method(
        "peer",
        lambda folder: into(folder, torch_states(folder, True), "meta", True),
        (PYTORCH,),
        "often",
        note="builds the model without memory; parameters are windows onto the file",
    ),
    "safetensors load_file + load_state_dict": Method(
        "peer",
        lambda folder: into(folder, safetensors_states(folder), "cpu", False),
        (SAFETENSORS,),
        measured="once",
        note="builds the model with random weights, maps a whole file beside it, copies",
    ),
    "safetensors load_file + assign": Method(
        "peer",
        lambda folder: into(folder, safetensors_states(folder), "meta", True),
        (SAFETENSORS,),
        "often",
        note="builds the model without memory; parameters are windows onto the file",
    ),
    "transformers from_pretrained": Method(
        "peer", transformers, BOTH, "often", note="a model of its own; windows onto the file"
    ),
    "accelerate load_checkpoint_in_model": Method(
        "peer", accelerate, note="transformers' model without memory; windows onto a safetensors file, copies of a .bin"
    ),
    OURS + "naive": Method(
        "ours", ours("naive"), (SAFETENSORS,), "once", "builds with random weights, reads everything beside it, copies"
    ),
    OURS + "sequential": Method(
        "ours",
        ours("sequential"),
        (SAFETENSORS,),
        "once",
        "builds with random weights, reads and copies one tensor at a time",
    ),
    OURS + "mmap": Method(
        "ours", ours("mmap"), BOTH, "often", note="no memory; windows onto the file, all shapes and names checked"
    ),
    OURS + "stream": Method("ours", ours("stream"), note="no memory; reads several tensors at once into their places"),
    OURS + "stream to float32": Method(
        "ours", ours("stream", torch.float32), (SAFETENSORS,), note="the same, cast one tensor after the other"
    ),
}


def measured(name: str, folder: str, result: str) -> object:
    """Load, then touch one byte of every page of every weight: what was only mapped is there then. Writes to a file the
    seconds of the loading alone, the bytes of the weights, and the sum of what was touched: equal for equal weights."""
    started = time.perf_counter()
    kept = METHODS[name].load(Path(folder))
    found = {"seconds": time.perf_counter() - started}
    if isinstance(kept, nn.Module):
        parameters = [parameter.detach() for parameter in kept.parameters()]
        touched = [parameter.reshape(-1).view(torch.uint8)[::PAGE] for parameter in parameters]
        found["touched_sum"] = sum(int(bytes_.sum(dtype=torch.int64)) for bytes_ in touched)
        found["nbytes"] = sum(parameter.nbytes for parameter in parameters)
    Path(result).write_text(json.dumps(found), encoding="utf-8")
    return kept
