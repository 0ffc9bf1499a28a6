"""The Markdown table of `parallel.py`, and the sentences around it: nothing in them but what was measured."""

from course_helpers.parallelism.costs import LARGE, cost_table

HEAD = """# One model on several processes: bytes read and peaks

{cpu}, {cores} cores, {memory_gib} GiB; Python {python}, {packages}; {date}. A checkpoint of {gigabytes:.2f} GB (Qwen3's
shape, bfloat16, two safetensors files). The ranks of a row ran at the same time, one thread each, on files in the page
cache; each has loaded a tiny checkpoint in the same way before. Made by `python -m benchmarks.parallel`; the figures of
every rank are in parallel.json. Where several ranks ran, the largest of them is given.

**held**: what the plan gives a rank, model / ranks and what is copied; it is so to the byte. **read**: what the system
says was read with read(), and the pages of mapped files that came into memory, divided by that. **own peak**: the
most anonymous memory above the start, divided by it, too; sampled every millisecond. **resident peak**: with mapped
pages, from the kernel's high-water mark. The bound for read and own peak is {bound}.

| way | ranks | held, MiB | read | own peak | resident peak | seconds |
|---|---|---|---|---|---|---|
"""

WAYS = """
- own parts: `load_parallel`. The bytes of each part are read with read(), straight into the memory where they stay.
- get_slice: the same with `get_slice` of the safetensors library. It maps the file, so whole pages come into memory,
  and makes a new tensor of each part, which is then copied.
- HuggingFaceStorageReader: the reader that torch.distributed.checkpoint has for such folders. It uses `get_slice`, and
  closes each file before the next: as pages that are in memory at once are counted, what it read in all is up to twice
  the figure, with two files. It checks nothing against config.json, and cannot turn, cut or stack tensors.

{verdict}

## What it comes to at 30 billion parameters

Counted, not measured: bfloat16, all ranks on one disk of 2 GB/s, wires of 12.5 GB/s; by
`course_helpers.parallelism.costs`, whose bytes are those of the table above to the byte.

{costs}
"""


def table(report: dict) -> str:
    machine = report["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    known = machine | {"packages": packages, "gigabytes": report["bytes"] / 1e9, "bound": report["bound"]}
    costs = cost_table(LARGE)
    rows = "\n".join(row(load) for load in report["loads"])
    return HEAD.format(**known) + rows + "\n" + WAYS.format(verdict=verdict(report), costs=costs)


def worst(load: dict) -> dict[str, float]:
    """The largest figure of all ranks, divided by what each is to hold."""
    read = max(rank["read"] + rank["mapped"] for rank in load["each"])
    anonymous, resident = (max(rank[name] for rank in load["each"]) for name in ("anonymous", "resident"))
    held = max(rank["held"] for rank in load["each"])
    return {"read": read / held, "own": anonymous / held, "resident": resident / held}


def row(load: dict) -> str:
    figures, seconds = worst(load), max(rank["seconds"] for rank in load["each"])
    cells = [load["method"], str(load["ranks"]), f"{load['held'] / 2**20:.0f}"]
    return f"| {' | '.join([*cells, *(f'{value:.3f}' for value in figures.values()), f'{seconds:.1f}'])} |"


def verdict(report: dict) -> str:
    """Whether the bound was kept, by whom."""
    kept = {}
    for load in report["loads"]:
        figures = worst(load)
        inside = max(figures["read"], figures["own"]) <= report["bound"]
        kept[load["method"]] = kept.get(load["method"], True) and inside
    inside = ", ".join(name for name, good in kept.items() if good) or "none"
    return f"Within {report['bound']} on every number of ranks, for what is read and for the peak: {inside}."
