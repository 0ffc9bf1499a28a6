"""Which way of multiplying float32 matrices is the fastest on this processor: MKL, which F.linear calls; oneDNN; or,
for one row, MKL with an equal part for each core.

    python -m benchmarks.products          writes benchmarks/results/products.json and products.md

is where `fastest` in course_helpers/architectures/products.py comes from. All have their turn in every round, on
matrices that are together too large for any cache.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from operator import truediv
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.loading import RESULTS, machine
from benchmarks.speed import compact, shortened
from benchmarks.speed_table import grid
from course_helpers.architectures.products import can_share, fastest, onednn_linear, processor, shared_linear
from course_helpers.labs.records import write_text

Way = Callable[[Tensor, Tensor], Tensor]

USUAL, SHARED = "MKL", "MKL, shared"
WAYS: dict[str, Way] = {USUAL: F.linear, "oneDNN": onednn_linear, SHARED: shared_linear}

#: Outputs and inputs: parts of Llama 135M, Qwen3 0.6B and an expert, from small to large.
SHAPES = (
    (192, 576),
    (576, 576),
    (1536, 576),
    (576, 1536),
    (768, 1024),
    (1024, 1024),
    (3072, 1024),
    (1024, 3072),
    (32000, 1024),
)
ROWS = (1, 2, 4, 8, 32, 128, 256, 512, 2048)
AMOUNT, ROUNDS, SECONDS = 200e6, 7, 0.3  # bytes of matrices; turns of each; of work in a turn, about

PAGE = """# Products of float32 matrices: MKL, oneDNN, and MKL with a part for each core

{cpu} ({name}), {cores} cores, {threads} threads; torch {torch}; {date}. Made by `python -m benchmarks.products`.

How many times as fast as MKL left to itself: oneDNN, and for one row MKL with an equal part of the outputs for each
core. Medians of {rounds} rounds. In bold: what this package takes where only results matter (`fastest`); MKL as usual
where nothing is.

"""


def seconds(multiply: Way, x: Tensor, matrices: list[Tensor]) -> float:
    started = time.perf_counter()
    for matrix in matrices:
        multiply(x, matrix)
    return (time.perf_counter() - started) / len(matrices)


@torch.inference_mode()
def compare(rows: int, outputs: int, inputs: int, amount: float, rounds: int) -> dict:
    """Seconds of one product in every round, and how many times as fast as MKL left to itself each way is."""
    count = max(2, int(amount / (4 * outputs * inputs)))
    matrices = [torch.full((outputs, inputs), 0.01) for _ in range(count)]
    x = torch.full((rows, inputs), 0.01)
    ways = {name: way for name, way in WAYS.items() if name != SHARED or can_share(rows, outputs)}
    found = {name: [] for name in ways}
    once = max(seconds(work, x, matrices[:2]) for work in ways.values())
    some = matrices[: max(2, min(count, int(SECONDS / once)))]
    for _ in range(rounds):
        for name, work in ways.items():
            found[name].append(seconds(work, x, some))
    ratios = {name: statistics.median(map(truediv, found[USUAL], found[name])) for name in ways if name != USUAL}
    return {"rows": rows, "outputs": outputs, "inputs": inputs, "seconds": found, "ratios": ratios}


def table(report: dict) -> str:
    about = report["machine"]
    names = {"threads": report["threads"], "name": report["processor"], "rounds": report["rounds"]}
    head = PAGE.format(**about, **names, torch=about["packages"]["torch"])
    found = {(one["outputs"], one["inputs"], one["rows"]): one["ratios"] for one in report["products"]}
    shapes = list(dict.fromkeys(key[:2] for key in found))
    columns = list(dict.fromkeys((rows, name) for (_, _, rows), ratios in found.items() for name in ratios))

    def cell(outputs: int, inputs: int, rows: int, name: str) -> str:
        if name not in (ratios := found[outputs, inputs, rows]):
            return ""
        text = f"{ratios[name]:.2f}"
        return f"**{text}**" if fastest(rows, outputs, inputs) is WAYS[name] else text

    head_line = ["matrix", *(f"{name}, {rows} row{'s' * (rows > 1)}" for rows, name in columns)]
    lines = [[f"{outputs} x {inputs}", *(cell(outputs, inputs, *one) for one in columns)] for outputs, inputs in shapes]
    return head + "\n".join(grid(head_line, lines)) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small matrices, two rounds, to see whether it runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for products.json and products.md")
    chosen = parser.parse_args(arguments)
    if not torch.backends.mkl.is_available() or not torch.backends.mkldnn.is_available():
        raise SystemExit("this build of torch lacks MKL or oneDNN: there is nothing to compare")
    threads = psutil.cpu_count(logical=False) or 1
    torch.set_num_threads(threads)
    about = machine()
    shapes, rows = (SHAPES[:2], ROWS[:3]) if chosen.quick else (SHAPES, ROWS)
    amount, rounds = (1e6, 2) if chosen.quick else (AMOUNT, ROUNDS)
    products = []
    for (outputs, inputs), count in product(shapes, rows):
        products.append(compare(count, outputs, inputs, amount, rounds))
        print(f"{count} x {outputs} x {inputs}", file=sys.stderr, flush=True)
    report = {"machine": about, "processor": processor(), "threads": threads, "rounds": rounds, "products": products}
    report = shortened(report)  # the page, too, is made of what the record keeps
    write_text(chosen.output / "products.json", compact(report))
    write_text(chosen.output / "products.md", text := table(report))
    print(text)


if __name__ == "__main__":
    main()
