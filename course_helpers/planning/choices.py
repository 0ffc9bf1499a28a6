"""One way to run one model on one machine, with its arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..dtypes import short
from .costs import Anatomy, Work, loading_bytes, running_bytes, step_seconds
from .forms import held, product_bytes
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
    seconds: Mapping[str, float]  # the terms of one step; empty if its speed is not known
    weights: str = "plain"  # their form: that, "packed" or "int8"

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
        form = "" if self.weights == "plain" else f', weights="{self.weights}"'
        return f'load_model("{self.hub_id}", dtype={self.dtype}{device}, strategy="{self.strategy}"{form})'

    def row(self) -> dict[str, Any]:
        """The choice as one flat row, for tables and JSON."""
        fields = ("family", "hub_id", "parameters", "strategy", "weights", "peak")
        fields += ("seconds_per_token", "tokens_per_second")
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
    weights: str = "plain",
) -> Choice:
    """Work out one way to run a model whose checkpoint holds tensors of the type `stored`. How fast another form of
    `weights` than the plain one is, no machine has been asked: it is left out."""
    memory, moved = {"program": machine.base} | running_bytes(parts, dtype, work), machine.device != "cpu"
    with_weights, beside = machine.base + memory["weights"], loading_bytes(parts, dtype, stored, moved)
    loading = {name: with_weights + (0 if moved else size) for name, size in beside.items()}
    if weights != "plain":
        about = (parts.parameters, parts.turned, weights, dtype, machine.device)
        memory["weights"], changing = held(*about)
        loading = {name: max(size, machine.base + changing) for name, size in loading.items()}
        if stays_in_file(parts, dtype, stored, machine):  # each matrix is read there once, as it is changed
            loading["mmap"] = machine.base + held(*about, in_file=True)[1]
    if weights == "int8":
        tokens = work.context * work.batch_size
        memory["products"] = product_bytes(parts.turned, tokens, work.batch_size, dtype, machine.device)
    speed = machine.speeds.get(dtype)
    untold = work.training or speed is None or weights != "plain"
    seconds = {} if untold else step_seconds(parts, dtype, work, speed)
    names = (family, hub_id, parts.parameters, dtype, strategy, machine.device)
    return Choice(*names, memory, loading, beside if moved else {}, seconds, weights)


def stays_in_file(parts: Anatomy, dtype: torch.dtype, stored: torch.dtype, machine: Machine) -> bool:
    """Whether strategy mmap can leave every plain tensor as pages of its file."""
    return machine.device == "cpu" and dtype == stored and parts.largest_changed == 0
