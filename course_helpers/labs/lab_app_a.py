"""What M9-LAB-APP-A runs: its checklist, the large checkpoint it makes, and loads measured in fresh processes.

The check functions of its exercises are in `lab_app_a_exercises.py`, its drawings in `lab_app_a_figures.py`.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..architectures.config import ModelConfig
from ..dtypes import short
from ..errors import CheckpointError
from ..families import family_of
from ..loaders.save import export
from ..memory import MemoryUse, measure_in_subprocess
from .records import write_json

#: One line of a checklist before it is printed: what must hold, whether it does, and what was seen.
Line = tuple[str, bool, str]
SAFETENSORS_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
#: Points of a timeline that go to the results file: enough to draw it, few enough to read.
TIMELINE_POINTS = 80


@dataclass(frozen=True)
class Checklist:
    """The outcome of every line, by part. `print` it; `ok` says whether every line holds."""

    source: str
    parts: Mapping[str, Sequence[Line]]

    @property
    def lines(self) -> list[Line]:
        return [line for lines in self.parts.values() for line in lines]

    @property
    def ok(self) -> bool:
        return all(passed for _, passed, _ in self.lines)

    @property
    def failed(self) -> str:
        """The first line that does not hold, with its part and what was seen; empty if there is none."""
        for part, lines in self.parts.items():
            for what, passed, detail in lines:
                if not passed:
                    return f"{part}: {what}" + (f" ({detail})" if detail else "")
        return ""

    def __str__(self) -> str:
        width = max(len(what) for what, _, _ in self.lines)
        text = [f"{self.source}: {sum(passed for _, passed, _ in self.lines)} of {len(self.lines)} lines hold"]
        for part, lines in self.parts.items():
            text.append(part)
            text += [f"  [{'x' if ok else ' '}] {what:<{width}}   {detail}".rstrip() for what, ok, detail in lines]
        return "\n".join(text)


def run_checklist(source: str, parts: Mapping[str, Callable[[str], Sequence[Line]]]) -> Checklist:
    """Ask every part for its lines. A part that refuses the checkpoint (CheckpointError) has one line, which fails."""

    def lines_of(part: Callable[[str], Sequence[Line]]) -> Sequence[Line]:
        try:
            return part(source)
        except CheckpointError as error:
            return [(error.what, False, error.tensor or error.field or "")]

    return Checklist(str(source), {name: lines_of(part) for name, part in parts.items()})


def write_random_checkpoint(folder: Path, config: ModelConfig, dtype: torch.dtype, seed: int = 1) -> Path:
    """A checkpoint of this config with random weights (norms are one), written one tensor at a time.

    Its bytes weigh as much as those of a trained model, and making them takes no more memory than the largest tensor.
    Shows a progress bar on standard output.
    """
    from tqdm import tqdm

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in export(family_of(config.to_hf()).model(config)).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.to_hf() | {"torch_dtype": short(dtype)})
    largest = max(shapes.values(), key=torch.Size.numel)
    noise = torch.empty(largest.numel(), dtype=dtype).normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))
    header = safetensors_header(shapes, dtype)
    total = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    with (
        open(folder / "model.safetensors", "wb") as file,
        tqdm(total=total, unit="B", unit_scale=True, desc="writing", file=sys.stdout, ncols=80) as bar,
    ):
        file.write(len(header).to_bytes(8, "little") + header)
        for shape in shapes.values():
            # The same noise in every matrix: drawing new numbers each time would take seconds and prove nothing more.
            tensor = noise[: shape.numel()] if len(shape) > 1 else torch.ones(shape, dtype=dtype)
            file.write(tensor.view(torch.uint8).numpy())
            bar.update(tensor.nbytes)
    return folder


def safetensors_header(shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> bytes:
    """The table of contents of a safetensors file whose tensors follow each other in this order, padded to 8 bytes."""
    rows, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + shape.numel() * dtype.itemsize
        rows[name] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(rows, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


@dataclass(frozen=True)
class MeasuredLoad:
    """A load, and two forward passes after it, in a process of its own."""

    use: MemoryUse
    load_seconds: float  # until load_model came back
    pass_seconds: tuple[float, float]  # the first forward pass, and the second

    @property
    def private_mb(self) -> float:
        """Peak of private (anonymous) memory over the start, MiB; of all memory where the system does not tell the
        kinds apart. A sample can miss the moment of the peak, the system's mark cannot: what is not pages of a file in
        that was private."""
        return max(self.use.added_anonymous_mb or 0.0, self.use.added_peak_mb - self.file_mb)

    @property
    def file_mb(self) -> float:
        """Peak of file-backed memory over the start, MiB; 0 where the system does not tell."""
        return self.use.added_file_mb or 0.0

    def record(self) -> dict[str, object]:
        """What the results file keeps: figures in MiB and seconds, and a timeline over the start."""
        samples = self.use.timeline[:: math.ceil(len(self.use.timeline) / TIMELINE_POINTS)]
        known = self.use.start_anonymous_mb is not None
        private, file = (self.use.start_anonymous_mb, self.use.start_file_mb) if known else (self.use.start_rss_mb, 0.0)
        kind = 2 if known else 1  # of a sample: anonymous, or all that is resident
        return {
            "load_seconds": self.load_seconds,
            "pass_seconds": self.pass_seconds,
            "peak_private_mb": self.private_mb,
            "peak_file_mb": self.file_mb,
            "peak_mb": self.use.added_peak_mb,
            "timeline": {
                "seconds": [round(sample.seconds, 3) for sample in samples],
                "private_mb": [round((sample[kind] or 0.0) - private, 1) for sample in samples],
                "file_mb": [round((sample.file_mb or 0.0) - file, 1) for sample in samples],
            },
        }


# The libraries' own code is mapped from files, too, when it first runs: the tiny model has it do so before the start.
SETUP = """
import json, time
from pathlib import Path
import torch
from course_helpers import load_model
ids = torch.zeros(1, 1, dtype=torch.long)
with torch.inference_mode():
    load_model("tiny-qwen3", dtype={dtype}, strategy={strategy!r})(ids)
"""
STATEMENT = """
marks = [time.perf_counter()]
model = load_model({source!r}, dtype={dtype}, strategy={strategy!r})
marks.append(time.perf_counter())
for _ in range(2):
    with torch.inference_mode():
        model(ids, last_only=True)
    marks.append(time.perf_counter())
Path({marks!r}).write_text(json.dumps(marks))
"""


def measure_load(source: Path, strategy: str, dtype: torch.dtype = torch.bfloat16) -> MeasuredLoad:
    """Load `source` in a fresh process, run it twice on one token, and say what that took.

    Raises RuntimeError with the process's own message if it fails there.
    """
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks.json"
        values = {"source": str(source), "strategy": strategy, "dtype": dtype, "marks": str(marks)}
        use = measure_in_subprocess(STATEMENT.format(**values), SETUP.format(**values))
        began, loaded, first, second = json.loads(marks.read_text())
    return MeasuredLoad(use, loaded - began, (first - loaded, second - first))


def drop_from_page_cache(folder: Path) -> bool:
    """Ask the system to forget what it keeps of a checkpoint's weight files, so that the next read waits for the disk.
    False where a system has no such request; it may also decline one, for pages that somebody has mapped."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # only what is on the disk can be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors really hold: memory that several of them share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
