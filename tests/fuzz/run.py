"""Running a target: change, read, and note every error that is none of ours."""

import re
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from course_helpers.errors import CheckpointError
from tests.fuzz.targets import TARGETS

PATIENCE = 20  # seconds for one input; more is a finding, too
CORPUS = 300  # inputs that are changed further


@dataclass
class Outcome:
    """What came of a run."""

    executions: int = 0
    accepted: int = 0  # inputs that were read without an error
    refusals: set[str] = field(default_factory=set)  # different first lines of refusals
    findings: dict[str, bytes] = field(default_factory=dict)  # where an error came from -> the first such input


def fuzz(name: str, seconds: float, seed: int = 0, most: int | None = None) -> Outcome:
    """Fuzz one target for a time, or for a number of inputs."""
    outcome, random = Outcome(), Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = TARGETS[name](Path(place))
        for raw in target.seeds:
            assert attempt(target.read, raw, Outcome()), "a seed is refused"
        corpus, ends = list(target.seeds), time.monotonic() + seconds
        while time.monotonic() < ends and (most is None or outcome.executions < most):
            raw = target.mutate(random.choice(corpus), random)
            if attempt(target.read, raw, outcome) and len(raw) < 20_000:
                place_in = random.randrange(CORPUS)
                corpus[place_in:] = [raw] if place_in >= len(corpus) else [raw, *corpus[place_in + 1 :]]
                corpus[: len(target.seeds)] = target.seeds
    return outcome


def attempt(read, raw: bytes, outcome: Outcome) -> bool:
    """Read one input; whether it was accepted."""
    outcome.executions += 1
    try:
        with patience():
            try:
                read(raw)
            except CheckpointError as error:
                str(error).encode()  # a message that cannot be printed is no message
                outcome.refusals.add(re.sub(r"\d+", "#", f"{error.what}: {error.expected}")[:80])
                return False
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome.findings.setdefault(f"{type(error).__name__} at {where}: {error}"[:300], raw)
        return False
    outcome.accepted += 1
    return True


@contextmanager
def patience() -> Iterator[None]:
    """Raise TimeoutError for what takes too long, where the system has alarms."""

    def stop(*arguments: object) -> None:
        raise TimeoutError(f"more than {PATIENCE} seconds")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
