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

#: The time-out that the ranks run with: within so many seconds the other has to end.
TIMEOUT = 20.0
RESULT = ROOT / "benchmarks/results/parallel_kill.json"


MOMENTS = ("joining", "loading", "writing")


@dataclass
class Kill:
    """One rank killed, and what became of the other."""

    rank: int
    moment: str  # what the rank had said last, when it was killed or up to half a second before
    seconds: float  # from the kill to the end of the other rank
    status: int | None  # of the other rank; None: it did not end by itself
    error: str  # its first line

    @property
    def held(self) -> bool:
        """Whether the other rank ended as it should: by itself, in time, and saying why."""
        return self.status == 1 and self.seconds < TIMEOUT and "has lost the others" in self.error


def kill_one(chance: random.Random, folder: Path) -> Kill:
    """Start two ranks that load and write without end, and kill one of them."""
    moment, rank = chance.choice(MOMENTS), chance.randrange(2)
    ranks = start([scenario("endless", folder, TIMEOUT)] * 2)
    for one, said in ((ranks[1 - rank], "joining"), (ranks[rank], moment)):
        while one.stdout.readline().strip() != said:
            if one.poll() is not None:
                raise RuntimeError(one.stderr.read())
    time.sleep(chance.uniform(0, 0.5))
    ranks[rank].kill()
    killed = time.perf_counter()
    other = wait([ranks[1 - rank]])[0]
    seconds = time.perf_counter() - killed
    wait([ranks[rank]])
    errors = [line for line in other.err.splitlines() if line.startswith("rank ")]
    return Kill(rank, moment, round(seconds, 2), other.status, errors[0] if errors else other.err[-300:])


def main() -> int:
    times, chance = int(sys.argv[1]) if sys.argv[1:] else 20, random.Random(9)
    kills = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            kills.append(kill := kill_one(chance, Path(folder)))
            print(f"{kill.moment:<8} rank {kill.rank} {kill.seconds:6.2f} s later: {kill.error}", flush=True)
    record = {"about": __doc__.splitlines()[0], "timeout_s": TIMEOUT, "torch": torch.__version__}
    record |= {"machine": platform.machine(), "kills": [asdict(kill) for kill in kills]}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if all(kill.held for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
