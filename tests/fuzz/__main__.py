"""`python -m tests.fuzz`: see the package's own text."""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; all without one")
    parser.add_argument("--seconds", type=float, default=10, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=Path, help="read this file once, by the one target named, and let it raise")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {unknown[0]}")
    torch.set_num_threads(1)
    if arguments.input:
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[arguments.targets[0]](Path(place)).read(arguments.input.read_bytes())
        return 0
    found = 0
    for name in arguments.targets or TARGETS:
        outcome = fuzz(name, arguments.seconds, arguments.seed)
        refusals = len(outcome.refusals)
        print(
            f"{name}: {outcome.executions} inputs, {outcome.accepted} accepted, {refusals} kinds of refusal,"
            f" {len(outcome.findings)} findings",
            flush=True,
        )
        for what, raw in outcome.findings.items():
            found += 1
            file = Path(tempfile.gettempdir(), f"finding-{name}-{found}")
            file.write_bytes(raw)
            print(f"  {what}\n    python -m tests.fuzz {name} --input {file}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
