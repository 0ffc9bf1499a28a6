"""What the operating system knows of a process's memory, asked once or again and again."""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 2**20
PROC = Path("/proc")
MAX_SAMPLES = 4096


class Sample(NamedTuple):
    """One look at a process, in MiB; `seconds` after the block began. None where the system does not tell."""

    seconds: float
    resident_mb: float
    anonymous_mb: float | None
    file_mb: float | None


class Sampler:
    """Looks at a process again and again from a thread. It keeps at most MAX_SAMPLES samples: when there are more, of
    every two the larger one stays, and from then on each sample is the largest of twice as many looks."""

    def __init__(self, pid: int, interval: float, started: float):
        self.pid, self.interval, self.started = pid, interval, started
        self.samples: list[Sample] = []
        self.looks, self.looks_per_sample = 0, 1
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stopped.wait(self.interval):
            try:
                self.keep(look(self.pid, self.started))
            except (psutil.Error, OSError, KeyError):
                return  # the process has ended

    def keep(self, sample: Sample) -> None:
        if self.looks % self.looks_per_sample == 0:
            self.samples.append(sample)
        else:
            self.samples[-1] = max(self.samples[-1], sample, key=lambda one: one.resident_mb)
        self.looks += 1
        if len(self.samples) == MAX_SAMPLES and self.looks % self.looks_per_sample == 0:
            pairs = zip(self.samples[::2], self.samples[1::2], strict=True)
            self.samples = [max(pair, key=lambda one: one.resident_mb) for pair in pairs]
            self.looks_per_sample *= 2

    def stop(self) -> list[Sample]:
        self.stopped.set()
        self.thread.join()
        return self.samples


def look(pid: int, started: float) -> Sample:
    """The memory of a process now. What it shares with others is counted with the mapped files."""
    status = status_mb(pid)
    if "RssAnon" in status:
        anonymous, file = status["RssAnon"], status["RssFile"] + status["RssShmem"]
        return Sample(time.perf_counter() - started, anonymous + file, anonymous, file)
    return Sample(time.perf_counter() - started, psutil.Process(pid).memory_info().rss / MIB, None, None)


def status_mb(pid: int) -> dict[str, float]:
    """The sizes in /proc/pid/status (there in KiB; `man 5 proc`); nothing where the system has no such file."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def reset_high_water_mark() -> bool:
    """Make Linux forget the process's peak so far; False where that is not possible."""
    try:
        (PROC / str(os.getpid()) / "clear_refs").write_text("5")  # see `man 5 proc`, /proc/pid/clear_refs
    except OSError:
        return False
    return True
