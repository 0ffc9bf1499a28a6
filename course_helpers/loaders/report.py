"""The account of a load."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TensorRow:
    """One checkpoint tensor and what became of it."""

    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    done: str  # "as it is", "transpose, split in 3", ...
    targets: tuple[str, ...]


@dataclass(frozen=True)
class LoadReport:
    """Every tensor of the checkpoint, every parameter of the model, and what the load cost. Prints as a table."""

    origin: str
    format: str
    layout: str
    strategy: str
    family: str
    dtype: torch.dtype
    rows: tuple[TensorRow, ...]
    dropped: Mapping[str, str]  # checkpoint name -> why it was left out
    parameters: int
    nbytes: int  # of the parameters, once loaded
    seconds: float
    weights: str = "plain"  # or the form they were put into (see `architectures/packing.py`)

    def summary(self) -> str:
        """The load in one line; nothing in it changes from run to run."""
        form = "" if self.weights == "plain" else f" ({self.weights})"
        return (
            f"{self.family}: {len(self.rows)} {self.format} tensors ({self.layout} layout) -> {self.parameters:,}"
            f" parameters, {self.nbytes / 2**20:.2f} MiB as {str(self.dtype).removeprefix('torch.')}{form},"
            f" {len(self.dropped)} left out"
        )

    def __str__(self) -> str:
        width = max(len(row.source) for row in self.rows)
        lines = [self.summary()]
        lines += [
            f"  {row.source:<{width}}  {row.shape!s:<14} {row.done:<22} -> {', '.join(row.targets)}"
            for row in self.rows
        ]
        lines += [f"  {name:<{width}}  left out: {reason}" for name, reason in self.dropped.items()]
        return "\n".join(lines)
