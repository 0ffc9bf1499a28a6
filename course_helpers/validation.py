"""A loaded model is not a right model: five layers of checks, cheapest first, each stopping the ones above it.

files        the checkpoint opens; headers, shards and index agree; hashes match the card's, where there is a card
shapes       every tensor has a place, every parameter a tensor, every shape fits, every value is a number
forward      logits are finite, a later token changes nothing before it, and rows know nothing of each other
generation   the tokenizer fits, text is the same twice, cached as uncached, ended by every stop token, no mere loop
baseline     held-out text is as likely as the checkpoint's card says, and its greedy texts are written again;
             without a card: plain English is predicted as a language model must
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

import torch

from .errors import CheckpointError
from .loaders.load import usable
from .memory import track_memory
from .validation_layers import baseline, files, forward, generation, shapes
from .validation_layers.subject import Subject

LAYERS: dict[str, Callable[[Subject], str]] = {
    "files": files.check,
    "shapes": shapes.check,
    "forward": forward.check,
    "generation": generation.check,
    "baseline": baseline.check,
}


@dataclass(frozen=True)
class Check:
    """One layer and its outcome. A failed one says why, and what to do next."""

    name: str
    ok: bool
    detail: str
    seconds: float


@dataclass
class ValidationReport:
    """The layers that were reached, and what was measured on the way. `print` it for a table: what it prints depends
    on the checkpoint alone, and not on the machine. `to_json` has the measurements, too."""

    source: str
    checks: list[Check] = field(default_factory=list)
    #: seconds, peak_mb (MiB over the start), tokens_per_second, loss_per_token, parameters, dtype, device: as far as
    #: they were measured before a layer failed.
    telemetry: dict[str, Any] = field(default_factory=dict)
    #: For a card.json beside the checkpoint, if it has none: {"baseline": report.baseline} holds every later validation
    #: to what was measured in this one. None if the last layer was not reached or failed.
    baseline: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """True if every layer was reached and every check passed."""
        return len(self.checks) == len(LAYERS) and all(check.ok for check in self.checks)

    @property
    def failed(self) -> str | None:
        """The name of the layer that failed; None where none did."""
        return next((check.name for check in self.checks if not check.ok), None)

    @property
    def measured(self) -> str:
        """The measurements in a line; they differ from run to run and from machine to machine."""
        units = {"seconds": ".1f", "peak_mb": ".0f", "tokens_per_second": ".0f", "loss_per_token": ".4f"}
        return ", ".join(
            f"{name.replace('_', ' ')} {value:{units.get(name, '')}}" for name, value in self.telemetry.items()
        )

    def to_json(self) -> str:
        checks = [asdict(check) for check in self.checks]
        content = {"source": self.source, "ok": self.ok, "checks": checks, "telemetry": self.telemetry}
        return json.dumps(content, indent=2)

    def __str__(self) -> str:
        rows = [
            f"  {check.name:<11} {'passed' if check.ok else 'FAILED':<7} " + check.detail.replace("\n", "\n" + " " * 22)
            for check in self.checks
        ]
        skipped = [f"  {name:<11} not reached" for name in list(LAYERS)[len(self.checks) :]]
        return "\n".join([f"{self.source}: {'valid' if self.ok else 'NOT valid'}", *rows, *skipped])


def validate_checkpoint(
    source: object,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
) -> ValidationReport:
    """Run the layers on a folder, a file, a bundled name or a hub id. Never raises for a bad checkpoint: it reports.

    Behaviour is checked in float32 where the memory suffices, and in the checkpoint's own type elsewhere; `dtype` asks
    for one. Raises ValueError for a device that this computer has not.
    """
    device = usable(device)
    title = str(source) if isinstance(source, str | PathLike) else type(source).__name__
    report, subject = ValidationReport(title), Subject(source, dtype, device, revision)
    started = time.perf_counter()
    with track_memory(interval=None) as memory:
        for name, layer in LAYERS.items():
            check = run(name, layer, subject)
            report.checks.append(check)
            if not check.ok:
                break
    measured = {"seconds": time.perf_counter() - started, "peak_mb": memory.added_peak_mb}
    report.telemetry, report.baseline = measured | subject.telemetry, subject.baseline if report.ok else None
    return report


def run(name: str, layer: Callable[[Subject], str], subject: Subject) -> Check:
    """One layer, whatever comes of it."""
    started = time.perf_counter()
    try:
        detail, ok = layer(subject), True
    except CheckpointError as error:
        detail, ok = str(error), False
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        # What no check foresaw is still the checkpoint's doing, or a mistake of ours; the report says which error.
        detail, ok = f"this layer could not be finished\n  found        {type(error).__name__}: {error}", False
    return Check(name, ok, detail, time.perf_counter() - started)
