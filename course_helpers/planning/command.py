"""`python -m course_helpers plan`: the planner on the command line, and the deck's decision matrix from it."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..architectures.packing import WEIGHTS
from ..dtypes import DTYPES
from ..families import FAMILIES
from ..labs.records import write_text
from ..loaders.hub_budget import readable
from ..planner import plan
from .calibration import calibrated
from .choices import STRATEGIES
from .machines import MACHINES, Machine
from .objectives import OBJECTIVES

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def size(text: str) -> int:
    """Bytes of "8GB", "7.5 GiB" or a bare number. Raises ValueError for anything else, which argparse reports."""
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in UNITS:
        raise ValueError(text)
    return int(float(match[1]) * UNITS[match[2]])


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m course_helpers plan`."""
    titles = "; ".join(f"{name}: {one.title}" for name, one in OBJECTIVES.items())
    parser.add_argument("--objective", choices=OBJECTIVES, default="run", help=titles)
    machines = f"cpu (default), cuda or mps of this computer, or {', '.join(MACHINES)}"
    parser.add_argument("--device", default="cpu", help=machines)
    parser.add_argument("--memory", type=size, help="ceiling, as 8GB or 7.5GiB; the machine's own unless given")
    parser.add_argument("--tokens-per-second", type=float, help="at least so many, for every text of a batch")
    parser.add_argument("--context", type=int, help="tokens, prompt and answer together; the objective's unless given")
    parser.add_argument("--batch-size", type=int, help="texts at once; the objective's unless given")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--strategy", choices=STRATEGIES)
    forms = "the form of the weights: int8 takes half of bfloat16's bytes, and rounds them"
    parser.add_argument("--weights", choices=WEIGHTS, default="plain", help=forms)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--calibrate", action="store_true", help="time this computer again")
    parser.add_argument("--json", type=Path, help="also write the plan there")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; 0 if anything fits."""
    if arguments.calibrate and arguments.device not in MACHINES:
        calibrated(arguments.device)
    found = plan(
        arguments.objective,
        arguments.device,
        memory=arguments.memory,
        context=arguments.context,
        batch_size=arguments.batch_size,
        tokens_per_second=arguments.tokens_per_second,
        dtype=DTYPES.get(arguments.dtype),
        strategy=arguments.strategy,
        family=arguments.family,
        weights=arguments.weights,
    )
    print(found)
    if arguments.json:
        write_text(arguments.json, found.to_json() + "\n")
    return 0 if found.best else 1


def decision_matrix(
    objectives: Iterable[str], machines: Iterable[str | Machine], tokens_per_second: float | None = None, **options: Any
) -> list[dict[str, Any]]:
    """A row for each objective on each machine: what is asked for, and the smallest that does it. `options` are those
    of `plan`. No speed is asked of training."""
    rows = []
    for objective in objectives:
        for machine in machines:
            wanted = None if OBJECTIVES[objective].training else tokens_per_second
            found = plan(objective, machine, tokens_per_second=wanted, **options)
            best, place = found.best, found.request.machine
            row = {"objective": OBJECTIVES[objective].title, "hardware": place.name}
            row |= {"memory ceiling": readable(place.memory), "tokens/s wanted": wanted}
            chosen = (
                (best.hub_id, best.family, best.row()["dtype"], best.strategy) if best else ("nothing fits", "", "", "")
            )
            rows.append(row | dict(zip(("model", "family", "dtype", "strategy"), chosen, strict=True)))
    return rows
