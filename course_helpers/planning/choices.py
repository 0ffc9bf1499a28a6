"""One way to run one model on one machine, with its arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..dtypes import short
from .costs import Anatomy, Work, loading_bytes, running_bytes, step_seconds
from .machines import Machine

#: The preferred first: private memory at the lowest peak; the file's own pages; and the two that are there to compare.
STRATEGIES = ("stream", "mmap", "sequential", "naive")


@dataclass(frozen=True)
class Choice:
    """One way to run one model on one machine, worked out. Bytes and seconds."""

    family: str
    hub_id: str
    parameters: int
    dtype: torch.dtype
    strategy: str
    device: str
    memory: Mapping[str, int]  # the terms of what is taken while the model works
    loading: Mapping[str, int]  # by strategy: the most that is taken while it is loaded
    host: Mapping[str, int]  # by strategy: the same of the computer's memory, where the device has its own
    seconds: Mapping[str, float]  # the terms of one step; empty if the machine's speed is not known

    @property
    def peak(self) -> int:
        """The most that is taken at once."""
        return max(sum(self.memory.values()), self.loading[self.strategy])

    @property
    def seconds_per_token(self) -> float | None:
        """Until every row of the batch has its next token, at the end of the context."""
        return sum(self.seconds.values()) or None

    @property
    def tokens_per_second(self) -> float | None:
        """Of one row."""
        return 1 / self.seconds_per_token if self.seconds_per_token else None

    @property
    def line(self) -> str:
        """What to type."""
        device = "" if self.device == "cpu" else f', device="{self.device}"'
        return f'load_model("{self.hub_id}", dtype={self.dtype}{device}, strategy="{self.strategy}")'

    def row(self) -> dict[str, Any]:
        """The choice as one flat row, for tables and JSON."""
        fields = ("family", "hub_id", "parameters", "strategy", "peak", "seconds_per_token", "tokens_per_second")
        parts = {"memory": self.memory, "loading": self.loading, "host": self.host, "seconds": self.seconds}
        return {name: getattr(self, name) for name in fields} | {"dtype": short(self.dtype), "load": self.line} | parts


def estimate(
    family: str,
    hub_id: str,
    parts: Anatomy,
    stored: torch.dtype,
    machine: Machine,
    work: Work,
    dtype: torch.dtype,
    strategy: str,
) -> Choice:
    """Work out one way to run a model whose checkpoint holds tensors of the type `stored`."""
    memory = {"program": machine.base} | running_bytes(parts, dtype, work)
    with_weights, moved = machine.base + memory["weights"], machine.device != "cpu"
    beside = loading_bytes(parts, dtype, stored, moved)
    loading = {name: with_weights + (0 if moved else size) for name, size in beside.items()}
    speed = machine.speeds.get(dtype)
    seconds = {} if work.training or speed is None else step_seconds(parts, dtype, work, speed)
    names = (family, hub_id, parts.parameters, dtype, strategy, machine.device)
    return Choice(*names, memory, loading, beside if moved else {}, seconds)
