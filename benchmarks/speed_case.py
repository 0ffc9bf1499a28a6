"""One model in one type, in a process of its own: load it into every system, see that they agree, measure.

    python -m benchmarks.speed_case SETTINGS.json RESULT.json

is what `benchmarks.speed` starts.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from benchmarks.speed_check import checked
from benchmarks.speed_clock import Clock, clock_of
from benchmarks.speed_floor import AMOUNT, Bandwidth
from benchmarks.speed_rounds import Bench, at_contexts, decoding, interleaved, prefilling
from benchmarks.speed_scratch import scratch_loader
from benchmarks.speed_shapes import QUICK, USUAL, Shape, shapes
from benchmarks.speed_systems import (
    OURS,
    SCRATCH,
    TRANSFORMERS,
    Loaded,
    Loader,
    System,
    fastest_of_each,
    medians,
    our_loaders,
)
from benchmarks.speed_transformers import CACHES, cache_bytes, transformers_loader
from course_helpers.families import family_of
from course_helpers.labs.lab_app_a import write_random_checkpoint
from course_helpers.loaders.hub_budget import readable
from course_helpers.sizes import kv_cache_bytes, on_meta

SPARE = 10**9  # bytes of disk to be left
BESIDE = 3 * 10**9  # bytes for what is not weights: caches, activations, logits of long prompts


@dataclass(frozen=True)
class Settings:
    shape: str
    dtype: str
    device: str = "cpu"
    quick: bool = False
    compiled: bool = False
    rounds: int = 5
    budget: float = 20.0
    threads: int = 1
    amount: float | None = None  # bytes of matrices that the bandwidth is measured on


def free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def groups(loaders: list[Loader], nbytes: int, free: float) -> tuple[list[list[Loader]], list[dict]]:
    """Which models are in memory at the same time: all, or, where that is too much, one after the other; and which
    are too large even so, with a line that says it."""
    if sum(one.size for one in loaders) * nbytes + BESIDE <= free:
        return [loaders], []
    alone = [one for one in loaders if one.size * nbytes + BESIDE <= free]
    lacking = [
        {
            "name": name,
            "reason": f"needs {readable(int(one.size * nbytes + BESIDE))}, and {readable(int(free))} are free",
        }
        for one in loaders
        if one not in alone
        for name in one.covers
    ]
    return [[one] for one in alone], lacking


def loaded(group: list[Loader], folder: Path, bench: Bench, left_out: list[dict]) -> Iterator[Loaded]:
    for loader in group:
        try:
            yield loader(folder, bench.dtype, bench.device)
        except (ImportError, LookupError) as error:
            left_out += [{"name": name, "reason": str(error)} for name in loader.covers]


def measures(bench: Bench, systems: list[System], long: bool) -> list[dict]:
    """Everything that is measured on systems in memory."""
    lengths = bench.lengths
    found = interleaved(bench, systems, decoding(bench, 1, bench.fits(lengths.spans)), limited=False)
    found += interleaved(bench, systems, decoding(bench, lengths.rows, lengths.spans[:1]), lengths.rows)
    if rest := [system for system in systems if not system.steps_only]:
        found += prefills(bench, rest)
        if long:
            found += interleaved(bench, rest, at_contexts(bench, bench.fits(lengths.contexts)))
    return found


def joined(before: list[dict], more: list[dict]) -> list[dict]:
    """The measures of several groups as one: what was found on more systems is added to what is there already."""
    rest = {(one["measure"], one["rows"]): one for one in more}
    for one in before:
        if other := rest.pop((one["measure"], one["rows"]), None):
            one["seconds"] |= other["seconds"]
            one["rates"] = {name: values + other["rates"].get(name, []) for name, values in one["rates"].items()}
            one["floor"] = one["floor"] and one["floor"] | other["floor"]
    return before + list(rest.values())


def prefills(bench: Bench, systems: list[System]) -> list[dict]:
    """The shortest prompt is read by all systems, longer ones by the best of each library."""
    short_prompt, *longer = bench.fits(bench.lengths.prefills)
    found = interleaved(bench, systems, prefilling(bench, short_prompt), floor=False)
    best = best_of_each(systems, found[-1])
    for tokens in longer:
        found += interleaved(bench, best, prefilling(bench, tokens), floor=False)
    return found


def best_of_each(systems: list[System], measure: dict) -> list[System]:
    """The fastest of each library, weights unchanged: the only ones that are asked for what takes long."""
    best = fastest_of_each(systems, medians(measure)).values()
    return [system for system in systems if system in best]


@torch.inference_mode()
def growth(systems: list[System], bench: Bench) -> dict[str, float]:
    """Bytes of each position of one row, of caches that grow by joining: measured on a text of the prompt's length."""
    found, prompt_BT = {}, bench.prompt(1, bench.lengths.prompt)
    for system in systems:
        if system.who == SCRATCH:
            session = system.session(1, prompt_BT.shape[1])
            session.logits(prompt_BT)
            found[system.who] = session.nbytes() / prompt_BT.shape[1]
    return found


def caches(shape: Shape, bench: Bench, growing: dict[str, float]) -> list[dict]:
    """Bytes of one row's cache, foretold and asked of the classes that hold it."""
    model = on_meta(family_of(shape.config.to_hf()).model, shape.config)
    rows = []
    for positions in bench.fits(bench.lengths.caches):
        ours = model.make_cache(1, positions, bench.dtype, "meta").nbytes
        peers = {f"{TRANSFORMERS}, {kind}": cache_bytes(shape.config, kind, positions, bench.dtype) for kind in CACHES}
        peers |= {name: int(each * positions) for name, each in growing.items()}
        formula = kv_cache_bytes(shape.config, positions, 1, bench.dtype)
        rows.append({"positions": positions, "formula": formula, "held": {OURS: ours} | peers})
    return rows


def measure_case(settings: Settings, folder: Path, clock: Clock | None = None) -> dict:
    """All figures of one model in one type. `folder` is where its checkpoint lies for a while."""
    torch.set_num_threads(settings.threads)
    shape, dtype = shapes(settings.device, settings.quick)[settings.shape], getattr(torch, settings.dtype)
    clock, lengths = clock or clock_of(settings.device), QUICK if settings.quick else USUAL
    case = {"shape": shape.title, "dtype": settings.dtype, "bytes": shape.nbytes(dtype)}
    disk, free = shutil.disk_usage(folder).free, free_bytes(settings.device)
    if shape.nbytes(dtype) + SPARE > disk:
        return case | {"skipped": f"needs {readable(shape.nbytes(dtype))} of disk, and {readable(disk)} are free"}
    loaders = [
        transformers_loader(shape.config, settings.device, settings.compiled),
        *our_loaders(dtype, settings.device, settings.compiled),
        scratch_loader(shape.config),
    ]
    together, left_out = groups(loaders, shape.nbytes(dtype), free - 2 * AMOUNT[torch.device(settings.device).type])
    if not together or together[0][0].who != TRANSFORMERS:
        return case | {"skipped": left_out[0]["reason"]}
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
        write_random_checkpoint(folder / "model", shape.config, dtype)
    bandwidth = Bandwidth(dtype, settings.device, clock, settings.amount)
    bench = Bench(shape.config, dtype, settings.device, clock, bandwidth, lengths, settings.rounds, settings.budget)
    case |= {"together": len(together) == 1, "systems": [], "left_out": left_out, "checks": [], "measures": []}
    reference, growing = None, {}
    for group in together:
        models = list(loaded(group, folder / "model", bench, left_out))
        systems, reference, checks = checked(models, reference, bench, left_out)
        case["checks"] += checks
        growing |= growth(systems, bench)
        case["systems"] += [
            described(system, one.seconds) for one in models for system in one.systems if system in systems
        ]
        found = measures(bench, systems, shape.long and dtype == shape.dtypes[0]) if systems else []
        case["measures"] = joined(case["measures"], found)
        del models, systems
    return case | {"caches": caches(shape, bench, growing)}


def described(system: System, seconds: float) -> dict:
    about = {"name": system.name, "who": system.who, "exact": system.exact, "compiled": system.compiled}
    return about | {"note": system.note, "load_seconds": seconds}


def main() -> None:
    settings, result = (Path(argument) for argument in sys.argv[1:])
    case = measure_case(Settings(**json.loads(settings.read_text(encoding="utf-8"))), result.parent)
    result.write_text(json.dumps(case), encoding="utf-8")


if __name__ == "__main__":
    main()
