"""How fast this computer is at what a model needs: measured once, in some seconds, and kept.

    seconds a step = bytes of matrices / bandwidth + operations x seconds each + experts x seconds each
                     + bytes of keys and values / their bandwidth

Each speed is found with a small random model in which nothing else matters as much, run the way any model is run. The
figures are kept in the user's cache folder together with all that they depend on: device, threads, versions, and the
code that was timed. Where that folder cannot be written to, the next process measures again.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..architectures.base import LanguageModel
from ..architectures.config import ModelConfig
from ..architectures.llama import LLAMA_3_PRESETS
from ..architectures.products import linear
from ..architectures.qwen3 import MOE_PRESETS
from ..dtypes import short
from ..families import family_of
from ..labs.records import provenance, write_json
from ..loaders.assign import set_parameter
from ..memory import MIB, measure_in_subprocess
from ..sizes import kv_cache_bytes, on_meta
from .costs import Anatomy, anatomy, operations
from .machines import BRAIN, CPU_BASE, GPU_BASE, HALF, MACHINES, SHARE, SINGLE, Machine, Speed, memory_here

CODE = Path(__file__).parents[1] / "architectures"
NOT_TIMED = "memory only, not timed"
ROUNDS, STEPS, PROMPT = 3, 8, 8
BUSY = 0.5  # programs at work for each core, on average over a minute, from which on figures are not to be trusted
LONG = 2048  # positions in the cache of the probe for it
ROWS = (1, 2, 4, 8, 16)
#: The types worth asking a device about, by kind of device; a CPU computes in float16 what it can in bfloat16.
TYPES = {"cpu": (BRAIN, SINGLE), "cuda": (BRAIN, HALF, SINGLE), "mps": (BRAIN, HALF, SINGLE)}


def probes() -> dict[str, ModelConfig]:
    """Small models, each with more of one thing than of the others: operations, matrices, experts, keys and values."""
    llama, mixture = next(iter(LLAMA_3_PRESETS.values())), next(iter(MOE_PRESETS.values()))
    ends = {"vocab_size": 1024, "bos_token_id": None, "eos_token_id": None}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    thin = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16} | heads
    # Long rows are read faster than short ones: these are of a length between those of small and of large models.
    wide = {"hidden_size": 1024, "intermediate_size": 3072, "head_dim": 64, "num_attention_heads": 16}
    return {
        "operations": dataclasses.replace(llama, **ends | thin, num_hidden_layers=12),
        "matrices": dataclasses.replace(llama, **ends | wide, num_key_value_heads=8, num_hidden_layers=6),
        "experts": dataclasses.replace(
            mixture, **ends | thin, moe_intermediate_size=32, num_hidden_layers=4, layer_types=mixture.layer_types[:4]
        ),
        "cache": dataclasses.replace(
            llama,
            **ends | thin | {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 64},
            num_hidden_layers=4,
        ),
    }


def random_model(config: ModelConfig, dtype: torch.dtype, device: str) -> LanguageModel:
    """A model whose weights are all the same small number: no arithmetic is faster or slower for it."""
    model = on_meta(family_of(config.to_hf()).model, config)
    for name, parameter in list(model.named_parameters()):
        set_parameter(model, name, torch.full(parameter.shape, 0.01, dtype=dtype, device=device))
    return model.to(device).eval()


@torch.inference_mode()
def seconds_per_step(model: LanguageModel, before: int = PROMPT) -> float:
    """The median over some steps, each of one row's next token after a text of so many: its keys and values need not be
    worked out, zeros take as long."""
    cache, found = model.make_cache(1, before + STEPS), []
    cache.begin(before, id(model))
    cache.advance(before, None)
    ids_BT = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    for _ in range(STEPS):
        started = time.perf_counter()
        ids_BT = model(ids_BT, cache=cache, last_only=True)[:, -1].argmax(dim=-1)[:, None]
        ids_BT[0, 0].item()  # waits for the device, as whoever reads the text does
        found.append(time.perf_counter() - started)
    return statistics.median(found)


@torch.inference_mode()
def seconds_per_product(rows: int, dtype: torch.dtype, device: str) -> float:
    """The second of two products of so many rows with 64 MiB of matrix."""
    matrix = torch.full((64 * MIB // dtype.itemsize // 4096, 4096), 0.01, dtype=dtype, device=device)
    x = torch.full((rows, 4096), 0.01, dtype=dtype, device=device)
    for _ in range(2):
        started = time.perf_counter()
        linear(x, matrix)[0, 0].item()
        seconds = time.perf_counter() - started
    return seconds


def measure_speed(dtype: torch.dtype, device: str, rounds: int = ROUNDS) -> Speed:
    """The speeds of one type. Rounds are interleaved, so that what disturbs one probe disturbs the others, too."""
    configs = probes()
    models = {name: random_model(config, dtype, device) for name, config in configs.items()}
    timings: dict[str, Callable[[], float]] = {
        name: lambda model=model: seconds_per_step(model) for name, model in models.items()
    }
    timings["long cache"] = lambda: seconds_per_step(models["cache"], LONG)
    timings |= {f"{rows} rows": lambda rows=rows: seconds_per_product(rows, dtype, device) for rows in ROWS}
    found: dict[str, list[float]] = {name: [] for name in timings}
    for _ in range(rounds):
        for name, timing in timings.items():
            found[name].append(timing())
    seconds = {name: statistics.median(values) for name, values in found.items()}
    return solve(seconds, {name: anatomy(config) for name, config in configs.items()}, dtype)


def solve(seconds: dict[str, float], parts: dict[str, Anatomy], dtype: torch.dtype) -> Speed:
    """From the times of the probes to speeds: one after the other, each from the probe in which it weighs most, what is
    known already being taken off."""
    operation = seconds["operations"] / operations(parts["operations"])

    def rest(name: str) -> float:
        """What is left of a probe's time without its operations; at least a tenth, if the machine was busy."""
        return max(seconds[name] - operations(parts[name]) * operation, seconds[name] / 10)

    mixtures = parts["experts"].mixtures
    more = kv_cache_bytes(parts["cache"].config, LONG - PROMPT, 1, dtype)
    longer = max(seconds["long cache"] - seconds["cache"], seconds["long cache"] / 100)
    return Speed(
        bandwidth=parts["matrices"].matrices * dtype.itemsize / rest("matrices"),
        rows={rows: max(1.0, seconds[f"{rows} rows"] / seconds["1 rows"]) for rows in ROWS},
        operation=operation,
        expert=rest("experts") / sum(mixture.experts for mixture in mixtures),
        cache=more / longer,
    )


BASE = """
import torch
from course_helpers import generate, load_model
for dtype in (torch.float32, torch.bfloat16):
    generate(load_model("tiny-qwen3", dtype=dtype), [list(range(64))], 8)
"""


def measure_base(device: str) -> int:
    """Bytes that a process has taken when it has run a tiny model: Python, the libraries, and their own code."""
    if device != "cpu":
        return GPU_BASE
    return int(measure_in_subprocess(BASE).peak_rss_mb * MIB)


def measure(device: str, rounds: int = ROUNDS) -> Machine:
    """This computer, timed now. Some seconds."""
    machine, disturbed = unmeasured(device), disturbance()
    speeds = {dtype: measure_speed(dtype, device, rounds) for dtype in machine.speeds}
    source = "measured" if machine.host else f"measured, torch threads: {torch.get_num_threads()}"
    return dataclasses.replace(
        machine, speeds=speeds, base=measure_base(device), source=source + disturbed, measured=True
    )


def disturbance() -> str:
    """What the reader of a figure should know if other programs are at work; empty where a system does not tell."""
    running = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if running <= BUSY * os.cpu_count():
        return ""
    return f", while {running:.1f} other programs were at work: --calibrate again when it is quiet"


def unmeasured(device: str) -> Machine:
    """This computer with its memory only: the speeds are not known. Raises ValueError for a device it has not."""
    about = torch.device(device)
    here, cores = memory_here(), f"{os.cpu_count()} cores"
    types = dict.fromkeys(TYPES.get(about.type, ()))
    if about.type == "cpu":
        return Machine(f"this computer ({cores})", device, int(here.total * SHARE), types, CPU_BASE, NOT_TIMED)
    if about.type == "cuda" and torch.cuda.is_available():
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            del types[BRAIN]
        name, memory = torch.cuda.get_device_name(about), torch.cuda.mem_get_info(about)[1]
    elif about.type == "mps" and torch.backends.mps.is_available():
        name, memory = "Apple GPU", torch.mps.recommended_max_memory()
    else:
        raise ValueError(f"this computer has no {device}; machines known by their data sheets: {', '.join(MACHINES)}")
    return Machine(f"this {name}", device, memory, types, GPU_BASE, NOT_TIMED, host=int(here.total * SHARE))


def machine_of(name: str, calibrate: bool = True) -> Machine:
    """A machine by its name in MACHINES, or a device of this computer ("cpu", "cuda", "cuda:1", "mps"), timed if it has
    not been before. Without `calibrate`, its speeds are known only if that was done. Raises ValueError for others."""
    if name in MACHINES:
        return MACHINES[name]
    try:
        machine = unmeasured(name)
    except RuntimeError:  # torch's, for a name that is no device
        raise ValueError(f"unknown machine {name!r}; there are: cpu, cuda, mps, {', '.join(MACHINES)}") from None
    return kept(machine) or (calibrated(name) if calibrate else machine)


def calibrated(device: str = "cpu") -> Machine:
    """This computer, timed now; the figures are kept for later."""
    machine = measure(device)
    speeds = {short(dtype): dataclasses.asdict(speed) for dtype, speed in machine.speeds.items()}
    content = {"conditions": conditions(device), "source": machine.source, "base": machine.base, "speeds": speeds}
    with contextlib.suppress(OSError):  # a home that cannot be written to
        write_json(cache_file(device), content)
    return machine


def kept(machine: Machine) -> Machine | None:
    """The machine with the speeds that were measured earlier; None if there are none, or conditions have changed."""
    try:
        content = json.loads(cache_file(machine.device).read_text(encoding="utf-8"))
        if content["conditions"] != conditions(machine.device):
            return None
        speeds = {getattr(torch, name): speed_of(fields) for name, fields in content["speeds"].items()}
        base, source = int(content["base"]), str(content["source"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, or not what this wrote
        return None
    return dataclasses.replace(machine, speeds=speeds, base=base, source=source, measured=True)


def speed_of(fields: dict[str, Any]) -> Speed:
    return Speed(**fields | {"rows": {int(rows): factor for rows, factor in fields["rows"].items()}})


def cache_file(device: str) -> Path:
    """Where the figures are kept: in XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "course_helpers" / f"calibration-{device.replace(':', '-')}.json"


def conditions(device: str) -> dict[str, object]:
    """What the figures depend on. If any of it changes, they are measured again."""
    code = hashlib.sha256()
    for path in sorted(CODE.glob("*.py")):
        code.update(path.read_bytes())
    about = {name: value for name, value in provenance().items() if name != "date"}
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else ""
    return about | {
        "device": device,
        "gpu": name,
        "threads": torch.get_num_threads(),
        "architectures": code.hexdigest(),
    }
