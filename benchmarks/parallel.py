"""Loading one model on several processes: what each of them reads, and what it needs at its worst moment.

    python -m benchmarks.parallel            a checkpoint of 2 GB; writes benchmarks/results/parallel.json and .md
    python -m benchmarks.parallel --quick    a small one, to see whether it runs

The processes of one load run at the same time, on the same files, in the page cache.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.checkpoints import random_tensors, warm, write
from benchmarks.loading import RESULTS, machine, tiny
from benchmarks.parallel_rank import METHODS
from benchmarks.parallel_table import table
from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.labs.records import write_json, write_text
from course_helpers.parallelism.costs import rank_cost
from tests.parallel.launch import start, wait

SIZES = (1, 2, 4)
#: The peak of a rank, and what it reads, may be so many times what it is to hold.
BOUND = 1.1


def shape(quick: bool) -> ModelConfig:
    """Qwen3-1.7B with half its layers, which is 2 GB in bfloat16; or something small."""
    config = FAMILIES["qwen3"].presets["Qwen/Qwen3-1.7B"]
    if quick:
        return dataclasses.replace(tiny(config), num_attention_heads=4, num_key_value_heads=4)
    return dataclasses.replace(config, num_hidden_layers=14, layer_types=config.layer_types[:14])


def measure(method: str, size: int, small: Path, large: Path) -> list[dict]:
    """One load by `size` ranks. Raises RuntimeError if one of them failed."""
    warm(large)
    result = large.parent / "result"
    ended = wait(start([["benchmarks.parallel_rank", method, small, large, result]] * size))
    if any(one.status for one in ended):
        raise RuntimeError("\n".join(one.err for one in ended))
    return [json.loads(result.with_suffix(f".{rank}").read_text()) for rank in range(size)]


def run(folder: Path, quick: bool) -> dict:
    """Write the checkpoints, load the large one in every way on every number of ranks."""
    config, loads = shape(quick), []
    small = dataclasses.replace(tiny(config), num_attention_heads=4, num_key_value_heads=4)
    write(folder / "small", small, random_tensors(small), ".safetensors", 2)
    write(folder / "large", config, tensors := random_tensors(config), ".safetensors", 2)
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    del tensors
    for size in SIZES:
        cost = rank_cost(config, size)
        for method in METHODS:
            ranks = measure(method, size, folder / "small", folder / "large")
            loads.append({"method": method, "ranks": size, "held": cost.held, "each": ranks})
            print(f"{method}, {size} ranks: {ranks[0]['seconds']:.1f} s", file=sys.stderr, flush=True)
    check(loads)
    return {"bytes": nbytes, "bound": BOUND, "loads": loads}


def check(loads: list[dict]) -> None:
    """The formulas hold to the byte, and all three ways led to the same weights. Raises RuntimeError."""
    for load in loads:
        if load["each"][0]["held"] != load["held"]:
            raise RuntimeError(f"the plan says {load['held']} bytes a rank, and there are {load['each'][0]['held']}")
    for size in SIZES:
        sums = {tuple(rank["sample"] for rank in load["each"]) for load in loads if load["ranks"] == size}
        if len(sums) > 1:
            raise RuntimeError(f"on {size} ranks, the ways of reading do not lead to the same weights")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small checkpoint")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for parallel.json and parallel.md")
    parser.add_argument("--folder", type=Path, default=None, help="where the checkpoint is written for a while")
    chosen = parser.parse_args(arguments)
    about = machine()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        report = {"machine": about} | run(Path(folder), chosen.quick)
    write_json(chosen.output / "parallel.json", report)
    write_text(chosen.output / "parallel.md", text := table(report))
    print(text)


if __name__ == "__main__":
    main()
