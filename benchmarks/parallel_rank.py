"""One rank of `benchmarks.parallel`: load a checkpoint in one of three ways, and leave what it took."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open

from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.sources import Checkpoint, open_checkpoint
from course_helpers.memory import MIB, track_memory
from course_helpers.parallel import Ranks, load_parallel, planned, processes
from course_helpers.parallelism.apply import is_cut, parallelize
from course_helpers.parallelism.ranks import leave
from course_helpers.parallelism.states import give_memory


def own_parts(folder: Path, ranks: Ranks) -> LanguageModel:
    """This package: each part read straight to where it stays."""
    return load_parallel(folder, ranks)


def library_slices(folder: Path, ranks: Ranks) -> LanguageModel:
    """The same, with `get_slice` of the safetensors library in the place of our own reads."""
    files: dict[Path, object] = {}

    def part(self: Checkpoint, name: str, dim: int, start: int, stop: int, scratch: torch.Tensor) -> torch.Tensor:
        path = self.where(name)
        if path not in files:
            files[path] = safe_open(path, "pt")
        return files[path].get_slice(name)[(slice(None),) * dim + (slice(start, stop),)]

    before, Checkpoint.peek_part = Checkpoint.peek_part, part
    try:
        return load_parallel(folder, ranks)
    finally:
        Checkpoint.peek_part = before


def torch_reader(folder: Path, ranks: Ranks) -> LanguageModel:
    """torch.distributed.checkpoint's reader for Hugging Face folders, into the same parts."""
    with open_checkpoint(folder) as checkpoint:
        job, shares = planned(checkpoint, ranks, None, False)
    model = parallelize(job.empty, shares, ranks)
    give_memory(model, job.dtype, ranks.device)
    # Every tensor of this checkpoint is one parameter as it is: it needs no rule but its other name.
    tensors = {name: model.get_parameter(rule.targets[0]).detach() for name, rule in job.plan.steps.items()}
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    return model


METHODS: dict[str, Callable[[Path, Ranks], LanguageModel]] = {
    "own parts": own_parts,
    "get_slice": library_slices,
    "HuggingFaceStorageReader": torch_reader,
}


def bytes_read() -> int:
    """Bytes that this process has been given by read(), as Linux counts them; mapped files are not among them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def sample(model: LanguageModel) -> float:
    """A number that depends on every parameter of this rank."""
    parts = ((one.to_local() if is_cut(one) else one).detach() for one in model.parameters())
    return sum(float(part.flatten()[:: max(1, part.numel() // 1000)].double().abs().sum()) for part in parts)


def main() -> None:
    method, tiny, large, result = sys.argv[1:]
    with processes(timeout=300) as ranks:
        METHODS[method](Path(tiny), ranks)  # so that what is imported and compiled on the way is not counted
        ranks.gather(None)
        before = bytes_read()
        with track_memory(interval=0.001) as use:
            model = METHODS[method](Path(large), ranks)
            ranks.gather(None)
        found = {
            "rank": ranks.rank,
            "seconds": use.seconds,
            "held": sum((one.to_local() if is_cut(one) else one).nbytes for one in model.parameters()),
            "read": bytes_read() - before,
            "anonymous": round(use.added_anonymous_mb * MIB),
            "mapped": round(use.added_file_mb * MIB),
            "resident": round(use.added_peak_mb * MIB),
            "sample": sample(model),
        }
        Path(result).with_suffix(f".{ranks.rank}").write_text(json.dumps(found))
    leave(0)


if __name__ == "__main__":
    main()
