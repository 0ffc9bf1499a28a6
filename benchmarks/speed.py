"""How fast models run: this package beside Transformers and llms-from-scratch, and beside the machine's limit.

    python -m benchmarks.speed                  writes benchmarks/results/speed.json, speed.md and speed-*.svg
    python -m benchmarks.speed --only qwen3     one shape (llama, qwen3, gemma3, olmo3, moe, gpt2)
    python -m benchmarks.speed --compiled       with torch.compile, too: half a minute more for every compiled step
    python -m benchmarks.speed --device cuda    released sizes on a GPU; writes speed-cuda.json, .md and -*.svg
    python -m benchmarks.speed --quick          tiny shapes, to see whether it runs

Every shape and type has a process of its own, in which all systems load the same file of random weights. Before
anything is timed, their logits are compared. Rounds are interleaved, and the bandwidth is taken beside each turn.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from benchmarks.loading import RESULTS, version
from benchmarks.loading import machine as machine_and_versions
from benchmarks.speed_case import Settings
from benchmarks.speed_charts import draw
from benchmarks.speed_shapes import QUICK, SHAPES, USUAL, shapes
from benchmarks.speed_systems import SCRATCH
from benchmarks.speed_table import table
from course_helpers.dtypes import short
from course_helpers.labs.records import write_text

ROUNDS, BUDGET = 5, 20.0
USUALLY = {"device": "cpu", "rounds": ROUNDS, "budget": BUDGET}

MeasureCase = Callable[[Settings, Path], dict]


def in_its_own_process(settings: Settings, folder: Path) -> dict:
    """`measure_case` in a fresh Python. Raises CalledProcessError if it failed; why is on standard error."""
    asked, result = folder / "settings.json", folder / "result.json"
    asked.write_text(json.dumps(dataclasses.asdict(settings)), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    arguments = [sys.executable, "-m", "benchmarks.speed_case", str(asked), str(result)]
    subprocess.run(arguments, check=True, env=environment, stdout=sys.stderr)
    return json.loads(result.read_text(encoding="utf-8"))


def run(chosen: argparse.Namespace, threads: int, measure: MeasureCase) -> list[dict]:
    """Measure all cases, one after the other."""
    cases = []
    for name, shape in shapes(chosen.device, chosen.quick).items():
        for dtype in map(short, shape.dtypes):
            if (chosen.only and name not in chosen.only.split(",")) or (chosen.dtype and dtype != chosen.dtype):
                continue
            asked = (chosen.device, chosen.quick, chosen.compiled, chosen.rounds, chosen.budget, threads)
            settings = Settings(name, dtype, *asked, amount=1e6 if chosen.quick else None)
            about = {"shape": shape.title, "dtype": dtype, "bytes": shape.nbytes(getattr(torch, dtype))}
            cases.append(run_one(settings, about, chosen.folder, measure))
    return cases


def run_one(settings: Settings, about: dict, place: Path | None, measure: MeasureCase) -> dict:
    """One case. Its checkpoint is on the disk only meanwhile; if it fails, those before it are not lost."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        try:
            case = measure(settings, Path(folder))
        except subprocess.CalledProcessError as error:
            case = about | {"skipped": f"failed with status {error.returncode}", "failed": True}
    minutes = (time.perf_counter() - started) / 60
    print(f"{about['shape']}, {about['dtype']}: {minutes:.1f} minutes", file=sys.stderr, flush=True)
    return case


def machine(device: str, threads: int) -> dict:
    found = machine_and_versions() | {"threads": threads, "device": "CPU"}
    found["packages"] |= {SCRATCH: version("llms_from_scratch")}
    del found["packages"]["accelerate"]  # not used here
    if torch.device(device).type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {"device": about.name, "device_memory_gib": round(about.total_memory / 2**30, 1)}
        found["cuda"] = torch.version.cuda
    return found


def command_of(chosen: argparse.Namespace) -> str:
    """The command that measures the same again. Where its files went makes no difference."""
    words = ["python -m benchmarks.speed"]
    for name in ("quick", "only", "dtype", "compiled", "device", "rounds", "budget", "threads"):
        value, usual = getattr(chosen, name), USUALLY.get(name)
        if value and value != usual:
            words.append(f"--{name}" if value is True else f"--{name} {value}")
    return " ".join(words)


def compact(report: dict) -> str:
    """JSON to be read and compared line by line: one line for all rounds, and no digits that are noise."""
    text = json.dumps(shortened(report), indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([-\d.e+,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def shortened(value: object) -> object:
    if isinstance(value, dict):
        return {name: shortened(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shortened(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes, two rounds")
    parser.add_argument("--only", help=f"some shapes, split by commas: {', '.join(SHAPES)}")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="one of the types")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile, too")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--rounds", type=int, default=None, help=f"how often everything is measured ({ROUNDS})")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, help=f"seconds for one costly measurement of one shape ({BUDGET:.0f})"
    )
    parser.add_argument("--threads", type=int, default=None, help="of every system (as many as physical cores)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument(
        "--folder", type=Path, default=None, help="for checkpoints, meanwhile; /dev/shm if memory is plenty"
    )
    chosen = parser.parse_args(arguments)
    known = shapes(chosen.device, chosen.quick)
    if unknown := set((chosen.only or "").split(",")) - {"", *known}:
        parser.error(f"unknown shape {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    chosen.rounds = chosen.rounds or (2 if chosen.quick else ROUNDS)
    return chosen


def main(arguments: list[str] | None = None, measure: MeasureCase = in_its_own_process) -> None:
    chosen = arguments_of(arguments)
    threads = chosen.threads or psutil.cpu_count(logical=False) or 1
    about, started = machine(chosen.device, threads), time.perf_counter()
    cases = run(chosen, threads, measure)
    lengths = QUICK if chosen.quick else USUAL
    report = {
        "machine": about,
        "command": command_of(chosen),
        "rounds": chosen.rounds,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "lengths": dataclasses.asdict(lengths),
        "cases": cases,
    }
    stem = "speed" if torch.device(chosen.device).type == "cpu" else f"speed-{torch.device(chosen.device).type}"
    write_text(chosen.output / f"{stem}.json", compact(report))
    pictures = draw(report, chosen.output, stem)
    write_text(chosen.output / f"{stem}.md", text := table(report, pictures))
    print(text)
    if failed := [f"{case['shape']}, {case['dtype']}" for case in cases if case.get("failed")]:
        raise SystemExit(f"failed, with the reason above: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
