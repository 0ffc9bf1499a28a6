"""Machines, as the planner sees them: how much memory, and how fast what a model needs is done.

This computer is measured (`calibration.py`). Others are known by their data sheets: those figures nobody reaches, so
what follows from them is a limit: "at most so many tokens a second".
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

GB = 10**9
HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
#: Of this computer's memory, what a plan may fill. The system and other programs need the rest.
SHARE = 0.9
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Speed:
    """What a device does in one type of numbers."""

    bandwidth: float  # bytes of matrices that are read in a second, for one row
    #: How many times as long as for one row a product with so many rows takes: longer where arithmetic is the limit.
    rows: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    operation: float = 0.0  # seconds that one operation takes, however small
    expert: float = 0.0  # seconds more for each expert that a layer has, used or not
    #: Bytes of keys and values that attention goes over in a second, counted for every query head that does: a CPU
    #: computes each head by itself. None: they are read once for all heads that share them, as matrices are.
    cache: float | None = None

    def factor(self, rows: float) -> float:
        """`rows` for any number of them: on straight lines between the known ones, in proportion beyond the last. Where
        one row is all that is known, it is taken to be as good as many."""
        counts, factors = zip(*sorted(self.rows.items()), strict=True)
        beyond = max(1.0, rows / counts[-1]) if len(counts) > 1 else 1.0
        return float(np.interp(rows, counts, factors)) * beyond


@dataclass(frozen=True)
class Machine:
    """A place to run a model. Sizes in bytes."""

    name: str
    device: str  # as `load_model` calls it
    memory: int  # of the device
    speeds: Mapping[torch.dtype, Speed | None]  # of the types that it is good for; None: not known
    base: int = 0  # what a process has taken before there is any model
    source: str = ""  # where the speeds come from
    measured: bool = False  # else they are limits
    host: int | None = None  # the computer's own memory, where the device has another; None: not known

    def with_memory(self, memory: int | None) -> "Machine":
        """The same with another ceiling; None leaves it."""
        return self if memory is None else dataclasses.replace(self, memory=memory)


def sheet(bandwidth: float, arithmetic: float, dtype: torch.dtype) -> Speed:
    """By a data sheet: bytes/s, and floating-point operations/s. Reading is the limit up to so many rows that their
    arithmetic (2 operations a parameter and row) takes as long."""
    return Speed(bandwidth, {1: 1.0, max(2, int(arithmetic * dtype.itemsize / 2 / bandwidth)): 1.0})


def graphics(name: str, memory: int, bandwidth: float, half: float, single: float, brain: bool = True) -> Machine:
    """An NVIDIA GPU: GB, GB/s, TFLOP/s of 16-bit and of float32 numbers. `brain`: it has bfloat16."""
    rates = ({BRAIN: half} if brain else {}) | {HALF: half, SINGLE: single}
    speeds = {dtype: sheet(bandwidth * GB, rate * 1e12, dtype) for dtype, rate in rates.items()}
    return Machine(name, "cuda", memory * GB, speeds, GPU_BASE, SHEET)


def computer(name: str, memory: int, bandwidth: float) -> Machine:
    """A computer without a GPU: GB, GB/s."""
    speeds = {dtype: Speed(bandwidth * GB) for dtype in (BRAIN, SINGLE)}
    return Machine(name, "cpu", int(memory * GB * SHARE), speeds, CPU_BASE, SHEET)


SHEET = "data sheet, not measured: speeds are limits"
#: What CUDA itself takes of a GPU's memory: a round figure, not measured.
GPU_BASE = GB // 2
#: A process that has loaded and run a tiny model: benchmarks/results/planning.json has what it was here.
CPU_BASE = GB // 2

#: Figures of the makers' data sheets; arithmetic dense (without sparsity), with tensor cores for 16-bit numbers.
MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        graphics("T4", 16, 320, 65, 8.1, brain=False),  # NVIDIA T4; Google Colab's usual one
        graphics("L4", 24, 300, 121, 30.3),  # NVIDIA L4
        graphics("RTX4090", 24, 1008, 165, 82.6),  # NVIDIA GeForce RTX 4090
        graphics("A100-40GB", 40, 1555, 312, 19.5),  # NVIDIA A100 SXM
        graphics("A100-80GB", 80, 2039, 312, 19.5),
        graphics("H100", 80, 3350, 989, 67),  # NVIDIA H100 SXM
        computer("laptop-8GB", 8, 51.2),  # two channels of DDR4-3200, 25.6 GB/s each
        computer("laptop-16GB", 16, 51.2),
        computer("desktop-32GB", 32, 89.6),  # two channels of DDR5-5600, 44.8 GB/s each
    )
}


@dataclass(frozen=True)
class Memory:
    """This computer's memory. Bytes."""

    total: int  # that this process may have
    available: int  # that nobody uses now
    limit: int | None = None  # of the container, where there is one below the machine's own size


def memory_here(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Memory:
    """What this process may use: the machine's memory, or what its container allows (Linux control groups, both
    versions), whichever is less."""
    machine = psutil.virtual_memory()
    limits = [(limit, limit - used) for limit, used in control_groups(cgroups, own) if limit < machine.total]
    if not limits:
        return Memory(machine.total, machine.available)
    limit = min(limit for limit, _ in limits)
    return Memory(limit, max(0, min(machine.available, *(left for _, left in limits))), limit)


def control_groups(cgroups: Path, own: Path) -> list[tuple[int, int]]:
    """Limit and use of every control group that this process is in, in bytes. Files that were read stay in memory for
    as long as nobody needs it; they are not counted as used."""
    found = []
    for controllers, path in groups_of(own):
        v1 = "memory" in controllers
        root = cgroups / "memory" if v1 else cgroups
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
        inside = root.joinpath(*Path(path).parts[1:])
        for folder in (inside, *inside.parents):
            if root not in (folder, *folder.parents):
                break
            limit, used = (read_number(folder / name) for name in names)
            if limit is not None:
                found.append((limit, max(0, (used or 0) - reclaimable(folder / "memory.stat"))))
    return found


def groups_of(own: Path) -> list[tuple[str, str]]:
    """Controllers and path of the groups with a say in memory; "" stands for all controllers (version 2)."""
    try:
        rows = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    return [(row[1], row[2]) for row in rows if len(row) == 3 and row[1].split(",").count("memory") + (row[1] == "")]


def read_number(path: Path) -> int | None:
    """None where there is no such file, or it says "max"."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def reclaimable(path: Path) -> int:
    try:
        rows = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
    except OSError:
        return 0
    kinds = ("active_file", "inactive_file")
    return sum(
        int(rows.get(f"total_{kind}", rows.get(kind, 0))) for kind in kinds
    )  # total_: version 1, with sub-groups
