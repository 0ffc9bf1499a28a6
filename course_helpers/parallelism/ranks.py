"""The processes that share a model: how they find each other, agree, and notice that one is gone.

torch calls a process's number its rank. Whatever goes wrong in one rank must end the others, too, and with a reason:
a rank that waits for a partner that will never come looks like a computer that hangs.
"""

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from ..errors import CheckpointError, RankError

#: What a launcher (torchrun, or any other) tells each process.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Seconds after which a rank that does not answer is given up. One that died is noticed at once.
TIMEOUT = 600.0
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a model."""

    rank: int
    size: int
    device: torch.device
    timeout: timedelta  # after which another that does not answer is given up

    def gather(self, value: Any) -> list[Any]:
        """What every rank has, in the order of the ranks; each must ask at the same time."""
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def same(self, what: str, value: Any) -> None:
        """Raises CheckpointError in every rank if one has another value than rank 0."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise CheckpointError(
                    f"the ranks do not have the same {what}",
                    expected=f"{values[0]} in every rank, as in rank 0",
                    found=f"{other} in rank {rank}",
                    cause="another file, folder or command on one of the computers",
                    next_step="give every computer the same checkpoint and start the same command on each",
                )

    def together(self, work: Callable[[], Any]) -> Any:
        """Do some work that may fail: if it does in one rank, every rank raises. Returns this rank's result."""
        result, error = None, None
        try:
            result = work()
        except (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError) as problem:
            error = problem
        reports = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, report in enumerate(reports):
            if report is not None:
                raise CheckpointError(
                    f"rank {rank} could not load its part, so no rank has a model",
                    expected="every rank to load its part",
                    found="in rank {}: {}".format(rank, report.replace("\n", "\n    ")),
                    cause="a file that only this rank's computer has in another state, or a lack of memory there",
                    next_step="mend what that rank reports, and start all ranks again",
                )
        return result


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return all(name in os.environ for name in ENVIRONMENT)


@contextlib.contextmanager
def processes(device: str = "cpu", timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """The ranks that torchrun started, for as long as the block lasts. `device`: "cpu" (they speak through gloo) or
    "cuda" (NCCL; each rank takes the GPU of its number on its computer).

    Raises RankError, and ends every rank, when one of them dies or does not answer within `timeout` seconds.
    """
    if not is_launched():
        raise ValueError(f"start this with torchrun, which says to each process where the others are: {ENVIRONMENT}")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with stopped_by_launcher(rank), lost(rank, size, timeout):
        ranks = join(rank, size, device, timeout)
        try:
            yield ranks
        finally:
            dist.destroy_process_group()


def join(rank: int, size: int, device: str, timeout: float) -> Ranks:
    """Meet the other ranks at the address that the launcher gave."""
    from torch.distributed.tensor import distribute_tensor  # a second to import: for those only who need it

    kind = torch.device(device).type
    if "src_data_rank" not in inspect.signature(distribute_tensor).parameters:
        raise ValueError(f"several processes need torch 2.7 or newer, and this is {torch.__version__}")
    if kind not in BACKENDS:
        raise ValueError(f"several processes can share a model on {' or '.join(BACKENDS)}, not on {device!r}")
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", rank))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        if place.index >= torch.cuda.device_count():
            raise ValueError(f"rank {rank} wants GPU {place.index}, and there are {torch.cuda.device_count()}")
        torch.cuda.set_device(place)
    patience = timedelta(seconds=timeout)
    dist.init_process_group(BACKENDS[kind], rank=rank, world_size=size, timeout=patience)
    return Ranks(rank, size, place, patience)


@contextlib.contextmanager
def lost(rank: int, size: int, timeout: float) -> Iterator[None]:
    """Turn what torch and gloo say of a lost connection into a RankError."""
    try:
        yield
    except RankError:
        raise
    except (dist.DistError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in SIGNS):
            raise
        raise RankError(
            f"rank {rank} of {size} has lost the others",
            found=reason[-300:],
            cause=f"another rank ended, was never started, or did not answer for {timeout:g} s",
            next_step="look at the first error of the other ranks; then start all of them again",
        ) from error


#: Words in the errors of torch's communication that are no DistError: gloo's are plain RuntimeErrors.
SIGNS = ("gloo", "Connection", "connection", "NCCL", "Timed out", "timeout", "Socket", "Broken pipe")


@contextlib.contextmanager
def stopped_by_launcher(rank: int) -> Iterator[None]:
    """torchrun ends the other ranks with SIGTERM when one of them fails: say so, in place of dying without a word."""

    def stop(number: int, frame: object) -> None:
        raise RankError(
            f"rank {rank} was told to stop",
            found=f"signal {signal.Signals(number).name}",
            cause="another rank failed, and the launcher ends all of them",
            next_step="look at the first error of the other ranks; then start all of them again",
        )

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(status: int) -> NoReturn:
    """End a rank that is done, and now. On python's own way out, a thread of torch's that still lets go of the last
    message can meet an interpreter that is gone, which turns a success into an abort: rarely, and so all the worse."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
