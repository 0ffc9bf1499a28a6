"""Kill one rank at a moment drawn by chance: do the others end, in time, and say why?

`python -m tests.parallel.kill` does it 20 times and leaves a record in benchmarks/results/parallel_kill.json.
"""

import json
import platform
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tests.parallel.launch import ROOT, scenario, start, wait

#: The time-out that the ranks run with. It bounds how long a rank waits for one that never joined.
TIMEOUT = 20.0
RESULT = ROOT / "benchmarks/results/parallel_kill.json"


@dataclass
class Kill:
    """One rank killed, and what became of the other."""

    rank: int
    moment: str  # "before it joined", "loading" or "writing": what the killed rank had last said
    seconds_until: float  # from the start of the processes to the kill
    seconds_after: float  # from the kill to the end of the other rank
    status: int | None  # of the other rank; None: it did not end by itself
    error: str  # its first line


def kill_one(chance: random.Random, folder: Path) -> Kill:
    """Start two ranks that load and write without end, and kill one of them."""
    moment, rank = chance.choice(("before it joined", "loading", "writing")), chance.randrange(2)
    started, processes = time.perf_counter(), start([scenario("endless", folder, TIMEOUT)] * 2)
    if moment != "before it joined":
        while processes[rank].stdout.readline().strip() != moment:
            if processes[rank].poll() is not None:
                break
    time.sleep(chance.uniform(0, 1.5))
    processes[rank].kill()
    killed = time.perf_counter()
    other = wait([processes[1 - rank]])[0]
    ended = time.perf_counter()
    wait([processes[rank]])
    lines = [line for line in other.err.splitlines() if line.startswith("rank ")]
    return Kill(rank, moment, killed - started, ended - killed, other.status, lines[0] if lines else other.err[-300:])


def main() -> int:
    times, chance = int(sys.argv[1]) if sys.argv[1:] else 20, random.Random(9)
    kills = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            kills.append(kill := kill_one(chance, Path(folder)))
            print(
                f"{kill.moment:<17} rank {kill.rank}  ended {kill.seconds_after:5.1f} s later: {kill.error}", flush=True
            )
    record = {"about": __doc__.splitlines()[0], "timeout_s": TIMEOUT, "torch": torch.__version__}
    record |= {"machine": platform.machine(), "kills": [asdict(kill) for kill in kills]}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(kill.status == 1 and "lost the others" in kill.error for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
