"""Layer 2, shapes: every tensor has a place, every parameter a tensor, every shape fits, every value is a number."""

from ..loaders.load import load_model
from .subject import Subject


def check(subject: Subject) -> str:
    """What was loaded, in words. Raises CheckpointError with every tensor that has no place or is no weight."""
    model = subject.model = load_model(subject.path, subject.dtype, subject.device, verify=True)
    subject.telemetry |= {"parameters": model.num_parameters(), "device": str(model.device)}
    return model.load_report.summary()
