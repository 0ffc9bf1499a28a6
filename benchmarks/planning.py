"""What the planner foretells beside what is measured: peaks of memory and tokens a second, in one run.

    python -m benchmarks.planning            some minutes; writes benchmarks/results/planning.json and planning.md
    python -m benchmarks.planning --quick    the same on tiny checkpoints, to see whether it runs

Checkpoints of random weights, in the shapes of released models or shallower, are written, loaded and run, each time in
a fresh process. Every round times the machine anew and then every checkpoint, so that what disturbs one disturbs the
other; what is compared are medians over the rounds. No formula has a number that was fitted to these checkpoints.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.loading import machine as machine_and_versions
from benchmarks.loading import tiny
from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.dtypes import short
from course_helpers.labs.lab_app_a import write_random_checkpoint
from course_helpers.labs.records import write_json, write_text
from course_helpers.loaders.hub_budget import readable
from course_helpers.memory import MIB, MemoryUse, measure_in_subprocess
from course_helpers.planning.calibration import measure
from course_helpers.planning.choices import Choice, estimate
from course_helpers.planning.costs import Work, anatomy
from course_helpers.planning.machines import Machine, Speed

RESULTS = Path(__file__).parent / "results"
ROUNDS, NEW_TOKENS = 3, 64
BRAIN, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Case:
    """A checkpoint, and how it is loaded and run."""

    model: str
    family: str
    config: ModelConfig
    stored: torch.dtype
    dtype: torch.dtype
    prompt: int
    strategy: str = "stream"

    @property
    def title(self) -> str:
        return f"{self.model}, {short(self.dtype)}, {self.strategy}, prompt of {self.prompt}"


def cases(quick: bool) -> list[Case]:
    """Different families and sizes, among them experts and windows; both types; files used as they are, and cast."""
    presets = {hub_id: config for family in FAMILIES.values() for hub_id, config in family.presets.items()}
    mixture = presets["Qwen/Qwen3-30B-A3B"]
    mixture = dataclasses.replace(
        mixture,
        num_hidden_layers=3,
        layer_types=mixture.layer_types[:3],
        num_experts=32,
        vocab_size=32_000,
        bos_token_id=None,
        eos_token_id=None,
    )
    small, half, experts = "Gemma 3 270M", "Qwen3 0.6B", "Qwen3 30B-A3B, 3 layers of 32 experts"
    found = [
        Case("GPT-2 124M", "gpt2", presets["openai-community/gpt2"], SINGLE, SINGLE, 128),
        Case(small, "gemma3", presets["google/gemma-3-270m"], BRAIN, BRAIN, 512),
        Case(small, "gemma3", presets["google/gemma-3-270m"], BRAIN, SINGLE, 512),
        Case(half, "qwen3", presets["Qwen/Qwen3-0.6B"], BRAIN, BRAIN, 512),
        Case(half, "qwen3", presets["Qwen/Qwen3-0.6B"], BRAIN, SINGLE, 64),
        Case(half, "qwen3", presets["Qwen/Qwen3-0.6B"], BRAIN, BRAIN, 64, "naive"),
        Case(experts, "qwen3_moe", mixture, BRAIN, BRAIN, 256),
    ]
    return [dataclasses.replace(case, config=small_one(case.config)) for case in found] if quick else found


def small_one(config: ModelConfig) -> ModelConfig:
    """The same family, very small. GPT-2 has sizes of other names."""
    if hasattr(config, "n_embd"):
        return dataclasses.replace(config, n_embd=64, n_inner=128, n_layer=2, n_head=4, vocab_size=512)
    return tiny(config)


SETUP = "import json, time, torch; from course_helpers import load_model, stream"
STATEMENT = """
model = load_model({folder!r}, dtype={dtype}, strategy={strategy!r})
marks = []
for token in stream(model, [7] * {prompt}, {new_tokens} + 1):
    marks.append(time.perf_counter())
open({result!r}, "w").write(json.dumps(marks))
"""

Measure = Callable[[str, str], MemoryUse]


def measure_once(case: Case, folder: Path, measure_process: Measure) -> dict:
    """One process: its peak in bytes, and the median of the seconds between two tokens."""
    result = folder.parent / "marks.json"
    values = {"folder": str(folder), "dtype": case.dtype, "strategy": case.strategy, "prompt": case.prompt}
    statement = STATEMENT.format(**values, new_tokens=NEW_TOKENS, result=str(result))
    use = measure_process(statement, SETUP)
    marks = json.loads(result.read_text(encoding="utf-8"))
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {"peak": use.peak_rss_mb * MIB, "seconds": statistics.median(seconds)}


def foretell(case: Case, machine: Machine) -> tuple[Choice, Choice]:
    """For the peak, the whole text; for the speed, its middle."""
    parts = anatomy(case.config)
    works = (Work(case.prompt + NEW_TOKENS), Work(case.prompt + NEW_TOKENS // 2))
    named = (case.family, case.model, parts, case.stored, machine)
    return tuple(estimate(*named, work, case.dtype, case.strategy) for work in works)


def run(folder: Path, quick: bool, rounds: int, measure_process: Measure) -> tuple[list[dict], Machine]:
    """Measure all cases in rounds; then compare. One checkpoint lies on the disk at a time."""
    machines: list[Machine] = []
    found: dict[str, list[dict]] = {case.title: [] for case in cases(quick)}
    for number in range(1, rounds + 1):
        for case in cases(quick):
            machines.append(measure("cpu", rounds=1))
            with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
                write_random_checkpoint(folder / "checkpoint", case.config, case.stored)
            found[case.title].append(one := measure_once(case, folder / "checkpoint", measure_process))
            shutil.rmtree(folder / "checkpoint")
            print(f"round {number}: {case.title}: {one['seconds'] * 1e3:.1f} ms a token", file=sys.stderr, flush=True)
    machine = middle(machines)
    return [compare(case, found[case.title], machine) for case in cases(quick)], machine


def middle(machines: list[Machine]) -> Machine:
    """The median of every figure."""

    def speed(dtype: torch.dtype) -> Speed:
        all_of = [machine.speeds[dtype] for machine in machines]
        rows = {count: statistics.median(one.rows[count] for one in all_of) for count in all_of[0].rows}
        names = ("bandwidth", "operation", "expert", "cache")
        return Speed(rows=rows, **{name: statistics.median(getattr(one, name) for one in all_of) for name in names})

    base = int(statistics.median(machine.base for machine in machines))
    return dataclasses.replace(machines[0], base=base, speeds={dtype: speed(dtype) for dtype in machines[0].speeds})


def compare(case: Case, measured: list[dict], machine: Machine) -> dict:
    """One row: foretold, measured, and what is what of it."""
    whole, half_way = foretell(case, machine)
    peak, seconds = (statistics.median(one[name] for one in measured) for name in ("peak", "seconds"))
    return {
        "case": case.title,
        "parameters": whole.parameters,
        "checkpoint_bytes": whole.parameters * case.stored.itemsize,
        "peak": {"foretold": whole.peak, "measured": int(peak), "ratio": whole.peak / peak},
        "tokens_per_second": {
            "foretold": half_way.tokens_per_second,
            "measured": 1 / seconds,
            "ratio": half_way.tokens_per_second * seconds,
        },
        "memory_terms": whole.memory,
        "loading_peak": whole.loading[case.strategy],
        "seconds_terms": half_way.seconds,
        "all_peaks": [int(one["peak"]) for one in measured],
        "all_seconds": [one["seconds"] for one in measured],
    }


HEAD = """# Planning: foretold and measured

{cpu}, {cores} cores, {memory_gib} GiB, {threads} threads; Python {python}, {packages}; {date}.
Medians of {rounds} rounds; in each, the machine is timed anew right before every checkpoint is loaded and run, in a
fresh process. Random weights; {tokens} new tokens. Made by `make bench`; all terms and rounds are in planning.json.

**peak**: the most memory that the process had at once, Python and libraries included. **tokens/s**: one row, after its
prompt. **ratio**: foretold / measured.

| checkpoint | its size | peak foretold | measured | ratio | tokens/s foretold | measured | ratio |
|---|---|---|---|---|---|---|---|
"""


def table(report: dict) -> str:
    about = report["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    head = HEAD.format(**about | {"packages": packages, "rounds": report["rounds"], "tokens": NEW_TOKENS})
    return head + "".join(f"| {' | '.join(cells_of(row))} |\n" for row in report["rows"])


def cells_of(row: dict) -> list[str]:
    peak, speed = row["peak"], row["tokens_per_second"]
    sizes = [readable(size) for size in (row["checkpoint_bytes"], peak["foretold"], peak["measured"])]
    rates = [f"{speed[name]:.1f}" for name in ("foretold", "measured")]
    return [row["case"], *sizes, f"{peak['ratio']:.2f}", *rates, f"{speed['ratio']:.2f}"]


def main(arguments: list[str] | None = None, measure_process: Measure = measure_in_subprocess) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny checkpoints, one round")
    parser.add_argument("--rounds", type=int, default=None, help=f"how often everything is measured ({ROUNDS})")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for planning.json and planning.md")
    parser.add_argument("--folder", type=Path, default=None, help="where checkpoints are written for a while")
    chosen = parser.parse_args(arguments)
    rounds = chosen.rounds or (1 if chosen.quick else ROUNDS)
    about = machine_and_versions() | {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        rows, machine = run(Path(folder), chosen.quick, rounds, measure_process)
    speeds = {short(dtype): dataclasses.asdict(speed) for dtype, speed in machine.speeds.items()}
    report = {"machine": about, "rounds": rounds, "base": machine.base, "speeds": speeds, "rows": rows}
    write_json(chosen.output / "planning.json", report)
    write_text(chosen.output / "planning.md", text := table(report))
    print(text)


if __name__ == "__main__":
    main()
