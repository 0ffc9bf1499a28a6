"""Starting several ranks of one program, as torchrun does, and waiting for all of them: for so long, and no longer."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a rank counts as one that hangs: several times what the slowest takes on two busy cores.
PATIENCE = 150


@dataclass
class Ended:
    """How one rank ended."""

    status: int | None  # None: it had to be killed, because it did not end
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells each rank."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    others = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return os.environ | others | {name: str(value) for name, value in own.items()}


def start(words: Sequence[Sequence[str]], sizes: Sequence[int] | None = None) -> list[subprocess.Popen]:
    """One process for each rank, `python -m` its words. `sizes`: how many ranks each believes in; the truth, unless
    given."""
    port, count = free_port(), len(words)
    return [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, own)],
            cwd=ROOT,
            env=environment(rank, count if sizes is None else sizes[rank], port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, own in enumerate(words)
    ]


def wait(ranks: Sequence[subprocess.Popen]) -> list[Ended]:
    """How each of them ended; those that do not end are killed."""
    ended = []
    for process in ranks:
        try:
            out, err = process.communicate(timeout=PATIENCE)
            ended.append(Ended(process.returncode, out, err))
        except subprocess.TimeoutExpired:
            process.kill()
            ended.append(Ended(None, *process.communicate()))
    return ended


def scenario(name: str, folder: Path, timeout: float = 60) -> list[object]:
    """The words of a rank that runs a scenario of `tests.parallel.work`, and gives others up after `timeout` s."""
    return ["tests.parallel.work", name, folder, timeout]


def work(name: str, size: int, folder: Path) -> list[Ended]:
    """Run a scenario in `size` ranks."""
    return wait(start([scenario(name, folder)] * size))
