"""Time on a device. On a CPU, a result is there when the call returns; a GPU is still at work then, and is asked to
write down when it passed a mark."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    def mark(self) -> Any:
        """This moment, as the device sees it."""

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks. Waits until the device has passed the second."""


class ProcessorClock:
    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class EventClock:
    """CUDA's own: events in the stream of work, so that launching is counted only where the device waits for it."""

    def __init__(self, new_event: Callable[[], Any] | None = None):
        self.new_event = new_event or (lambda: torch.cuda.Event(enable_timing=True))

    def mark(self) -> Any:
        event = self.new_event()
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        end.synchronize()
        return start.elapsed_time(end) / 1e3  # CUDA counts in milliseconds


def clock_of(device: str) -> Clock:
    if torch.device(device).type != "cuda":
        return ProcessorClock()
    if torch.device(device).index is not None:
        torch.cuda.set_device(device)  # events are those of the current device
    return EventClock()


def timed(clock: Clock, work: Callable[[], Any]) -> float:
    """Seconds of one piece of work."""
    start = clock.mark()
    work()
    return clock.seconds(start, clock.mark())
