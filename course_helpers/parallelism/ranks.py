"""The processes that share a model: how they find each other, agree, and notice that one is gone.

torch calls a process's number its rank. Whatever goes wrong in one rank must end the others, too, and with a reason:
a rank that waits for a partner that will never come looks like a computer that hangs.
"""

import atexit
import contextlib
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
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
#: Which part of it ranks may take to meet. The rest is for ending: whoever waits for a rank is to see its end in time.
MEETING = 0.9
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a model."""

    rank: int
    size: int
    device: torch.device
    timeout: timedelta  # after which another that does not answer is given up

    def meet(self, connect: Callable[[], Any], since: float | None = None) -> Any:
        """Let torch connect this rank with others, and return what it returns. `since`: when this rank began to join,
        by `time.monotonic`; now, unless given.

        Raises RankError when nine tenths of the time-out are over. torch would wait longer for a rank that is gone: its
        store does not count the pauses between two tries, and gloo tries five times, with a whole time-out for each.
        And nothing can stop it. So it waits in a thread that is left behind; this one stays free to give up, and to
        hear the launcher's signal.
        """
        allowed = MEETING * self.timeout.total_seconds()
        left = allowed if since is None else since + allowed - time.monotonic()
        outcome: Future = Future()

        def work() -> None:
            try:
                if self.device.type == "cuda":
                    torch.cuda.set_device(self.device)  # every thread has its own
                outcome.set_result(connect())
            except BaseException as error:  # whatever it is, it is raised again where it is waited for
                outcome.set_exception(error)

        thread = threading.Thread(target=work, name="meet", daemon=True)
        thread.start()
        atexit.register(leave_behind, thread)
        if not wait([outcome], left).done:
            raise alone(self.rank, self.size, allowed, f"not all ranks had met after {allowed:g} s")
        return outcome.result()

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

    Raises RankError in the others when a rank dies, or does not answer within `timeout` seconds. A program should end
    then: it may be in the middle of connecting, and torch cannot be told to stop that.
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
    started = time.monotonic()
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
    ranks = Ranks(rank, size, place, timedelta(seconds=timeout))
    asked = {"rank": rank, "world_size": size, "timeout": ranks.timeout}
    ranks.meet(lambda: dist.init_process_group(BACKENDS[kind], **asked), started)
    return ranks


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
        raise alone(rank, size, timeout, reason[-300:]) from error


def alone(rank: int, size: int, waited: float, found: str) -> RankError:
    """The error of a rank without the others."""
    return RankError(
        f"rank {rank} of {size} has lost the others",
        found=found,
        cause=f"another rank ended, was never started, or did not answer for {waited:g} s",
        next_step="look at the first error of the other ranks; then start all of them again",
    )


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


def leave_behind(thread: threading.Thread) -> None:
    """Python ends, by an error or by a signal, while torch still tries to connect in a thread: leave, before it finds
    the interpreter gone and aborts."""
    if thread.is_alive():
        leave(1)


def leave(status: int) -> NoReturn:
    """End a rank that is done, and now. On python's own way out, a thread of torch's that still lets go of the last
    message can meet an interpreter that is gone, which turns a success into an abort: rarely, and so all the worse."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
