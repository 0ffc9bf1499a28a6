"""Layer 2, shapes: every tensor has a place, every parameter a tensor, every shape fits, every value is a number."""

import psutil
import torch

from ..loaders.load import load_model
from .subject import Subject


def check(subject: Subject) -> str:
    """What was loaded, in words. Raises CheckpointError with every tensor that has no place or is no weight."""
    model = subject.model = load_model(subject.path, subject.dtype, subject.device, verify=True)
    subject.telemetry |= {"parameters": model.num_parameters(), "device": str(model.device)}
    return model.load_report.summary()


def in_full_precision(subject: Subject) -> None:
    """Go on in float32 if nothing else was asked for and half of the free memory holds it: there, two computations of
    the same thing differ by so little that mistakes show."""
    model = subject.model
    fits = 4 * model.num_parameters() <= psutil.virtual_memory().available / 2
    if subject.dtype is None and model.device.type == "cpu" and fits:
        subject.model = model.to(torch.float32)
    subject.telemetry["dtype"] = str(subject.model.dtype).removeprefix("torch.")
