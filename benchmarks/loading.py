"""How long loading takes and what it needs: this package beside its peers and the limits of the machine, in one run.

    python -m benchmarks.loading            some minutes; writes benchmarks/results/loading.json and loading.md
    python -m benchmarks.loading --quick    the same on tiny checkpoints, to see whether it runs

Every measurement has a Python process of its own, which has loaded a tiny checkpoint in the same way before: imports
are not counted. All files lie in the page cache. Rounds are interleaved: what disturbs one method disturbs its
neighbours, too.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.checkpoints import random_tensors, warm, weight_files, write
from benchmarks.loading_methods import BOTH, METHODS
from benchmarks.loading_table import table
from course_helpers import FAMILIES
from course_helpers.architectures.config import ModelConfig
from course_helpers.labs.records import provenance, write_json, write_text
from course_helpers.memory import MemoryUse, measure_in_subprocess

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """A checkpoint to load."""

    model: str
    config: ModelConfig
    ending: str
    shards: int

    @property
    def title(self) -> str:
        files = "one file" if self.shards == 1 else f"{self.shards} shards"
        return f"{self.model}, {self.ending}, {files}"


def cases(quick: bool) -> list[Case]:
    found = []
    for family, hub_id, shards in (("qwen3", "Qwen/Qwen3-0.6B", 1), ("llama3", "meta-llama/Llama-3.2-1B", 3)):
        config = FAMILIES[family].presets[hub_id]
        if quick:
            config = tiny(config)
        found += [Case(f"{hub_id.split('/')[1]}'s shape", config, ending, shards) for ending in BOTH]
    return found


def tiny(config: ModelConfig) -> ModelConfig:
    """The same family, very small."""
    layers = {"layer_types": config.layer_types[:2]} if hasattr(config, "layer_types") else {}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return dataclasses.replace(
        config, **sizes, **layers, vocab_size=512, num_key_value_heads=2, head_dim=16, bos_token_id=0, eos_token_id=1
    )


Measure = Callable[[str, str], MemoryUse]


def run(folder: Path, quick: bool, rounds: int, methods: set[str], measure: Measure) -> list[dict]:
    """Write each checkpoint into the folder, measure it, delete it; what was found, one entry a checkpoint."""
    results = []
    for index, case in enumerate(cases(quick)):
        large, small = folder / f"{index}", folder / f"{index}-tiny"
        write(small, tiny(case.config), random_tensors(tiny(case.config)), case.ending, case.shards)
        write(large, case.config, tensors := random_tensors(case.config), case.ending, case.shards)
        found = {"checkpoint": case.title, "bytes": sum(tensor.nbytes for tensor in tensors.values())}
        found |= {"file_bytes": sum(path.stat().st_size for path in weight_files(large)), "tensors": len(tensors)}
        del tensors
        os.sync() if hasattr(os, "sync") else None  # so that nothing is still being written while it is measured
        runs = measure_case(case, large, small, rounds, methods, measure)
        check_same_weights(runs)
        results.append(found | {"methods": [summary(name, *runs[name]) for name in runs]})
        shutil.rmtree(large)
    return results


def measure_case(
    case: Case, large: Path, small: Path, rounds: int, methods: set[str], measure: Measure
) -> dict[str, list[dict]]:
    """Every method's rounds."""
    runs: dict[str, list[dict]] = {}
    for number in range(rounds + 2):
        for name, method in METHODS.items():
            if name not in methods or case.ending not in method.formats or number >= method.repeats(rounds):
                continue
            warm(large)
            one = measure_once(name, large, small, measure)
            runs.setdefault(name, []).append(one)
            print(f"{case.title}: {name}: {one['seconds']:.2f} s", file=sys.stderr, flush=True)
    return runs


def measure_once(name: str, large: Path, small: Path, measure: Measure) -> dict:
    """One process: seconds until the method returns, and until all was touched; peaks above the start, in bytes."""
    result = large.parent / "result.json"
    setup = f"from benchmarks.loading_methods import measured; measured({name!r}, {str(small)!r}, {str(result)!r})"
    use = measure(f"kept = measured({name!r}, {str(large)!r}, {str(result)!r})", setup)
    found = json.loads(result.read_text(encoding="utf-8"))
    return found | {
        "touched_seconds": use.seconds,
        "peak_anonymous_mb": use.added_anonymous_mb,
        "peak_file_mb": use.added_file_mb,
        "peak_resident_mb": use.added_peak_mb,
    }


def check_same_weights(runs: dict[str, list[dict]]) -> None:
    """Speed counts only where the result is right. Raises RuntimeError if two methods that do not cast disagree."""
    sums: dict[tuple, set[str]] = {}
    for name, found in runs.items():
        for one in found:
            if "touched_sum" in one and "float32" not in name:
                sums.setdefault((one["nbytes"], one["touched_sum"]), set()).add(name)
    if len(sums) > 1:
        raise RuntimeError(f"these methods did not load the same weights: {sums}")


def summary(name: str, *rounds: dict) -> dict:
    """Medians over the rounds, and every round's seconds."""
    found = {"name": name, "who": METHODS[name].who, "all_seconds": [one["seconds"] for one in rounds]}
    for field in ("seconds", "touched_seconds", "peak_anonymous_mb", "peak_file_mb", "peak_resident_mb"):
        values = [one[field] for one in rounds]
        found[field] = None if None in values else statistics.median(values)
    return found | {"model_bytes": rounds[0].get("nbytes")}


def machine() -> dict:
    """What anybody needs to judge the figures."""
    found = provenance()
    found["packages"] |= {"accelerate": version("accelerate")}
    return found | {"memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "load_average": os.getloadavg()[0]}


def version(package: str) -> str | None:
    from importlib import metadata

    return metadata.version(package) if importlib.util.find_spec(package) else None


def main(arguments: list[str] | None = None, measure: Measure = measure_in_subprocess) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny checkpoints, one round")
    parser.add_argument("--rounds", type=int, default=None, help=f"how often each method is measured ({ROUNDS})")
    parser.add_argument("--methods", help="only those whose names contain one of these words, split by commas")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for loading.json and loading.md")
    parser.add_argument("--folder", type=Path, default=None, help="where checkpoints are written for a while")
    chosen = parser.parse_args(arguments)
    words = (chosen.methods or "").split(",")
    methods = {name for name in METHODS if any(word in name for word in words)}
    if not importlib.util.find_spec("accelerate"):
        methods -= {name for name in methods if "accelerate" in name}
        print("accelerate is left out: pip install -r benchmarks/requirements.txt", file=sys.stderr)
    os.environ.pop("OMP_NUM_THREADS", None)  # of the measured processes: every method may use the whole machine
    about, started = machine(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if not chosen.quick and shutil.disk_usage(folder).free < 8 * 2**30:
            raise SystemExit("8 GiB of free disk space are needed; name another place with --folder")
        rounds = chosen.rounds or (1 if chosen.quick else ROUNDS)
        results = run(Path(folder), chosen.quick, rounds, methods, measure)
    report = {"machine": about, "rounds": rounds, "minutes": (time.perf_counter() - started) / 60, "cases": results}
    write_json(chosen.output / "loading.json", report)
    write_text(chosen.output / "loading.md", text := table(report))
    print(text)


if __name__ == "__main__":
    main()
