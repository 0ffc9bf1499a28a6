"""Architectures, loaders and checks of Module 9: one interface over GPT-2, Llama and the families that follow."""

from .errors import CheckpointError, ConfigError, CourseWarning, UnsafeFileError
from .families import FAMILIES
from .generation import generate, stream
from .loaders.load import load_model, load_weights
from .loaders.sources import open_checkpoint

__all__ = [
    "FAMILIES",
    "CheckpointError",
    "ConfigError",
    "CourseWarning",
    "UnsafeFileError",
    "generate",
    "load_model",
    "load_weights",
    "open_checkpoint",
    "stream",
]
