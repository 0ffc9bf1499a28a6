"""Where the time of one piece of work goes: products of matrices, attention, or all that is between them.

It is asked where a peer is ahead, once, to say why. torch's profiler makes small operations slower, the same for
everybody; only large differences mean something.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed_clock import Clock
from benchmarks.speed_systems import OURS, System, fastest_of_each

PARTS = ("products", "attention", "the rest")
#: In the names of torch's operations, the first that fits; what none fits is the rest: norms, activations, copies.
NAMES = {"attention": ("attention",), "products": ("mm", "linear", "addmv")}


def part_of(operation: str) -> str:
    return next((part for part, names in NAMES.items() if any(name in operation for name in names)), PARTS[-1])


class PartsClock:
    """A clock that tells seconds apart: of each of PARTS, as an array, which can be added and divided like a time.
    Every second mark ends what the one before it began."""

    def __init__(self, device: str):
        self.cuda = torch.device(device).type == "cuda"
        self.running: profile | None = None

    def mark(self) -> profile:
        if self.running is not None:
            ended, self.running = self.running, None
            ended.stop()
            return ended
        self.running = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.cuda else [])])
        self.running.start()
        return self.running

    def seconds(self, start: profile, end: profile) -> numpy.ndarray:
        found = dict.fromkeys(PARTS, 0.0)
        for one in end.key_averages():
            found[part_of(one.key)] += (one.self_device_time_total if self.cuda else one.self_cpu_time_total) / 1e6
        return numpy.array(list(found.values()))


def parts_of(bench: Any, system: System, turn: Callable[[System, int], dict[str, Any]]) -> dict[str, dict[str, float]]:
    """One more turn, by this clock: the parts of everything that is timed in it, by title."""
    clock: Clock = bench.clock
    bench.clock = PartsClock(bench.device)
    try:
        system.ready()
        return {title: dict(zip(PARTS, map(float, one), strict=True)) for title, one in turn(system, 0).items()}
    finally:
        bench.clock = clock


def ahead_and_ours(systems: Sequence[System], seconds: dict[str, float]) -> tuple[System, System] | None:
    """The fastest peer and the fastest of ours, weights unchanged, where the peer is the faster one."""
    best = fastest_of_each(systems, seconds)
    ours = best.pop(OURS, None)
    peer = min(best.values(), key=lambda one: seconds[one.name], default=None)
    if ours is None or peer is None or seconds[ours.name] <= seconds[peer.name]:
        return None
    return peer, ours
