"""Architectures, loaders and checks of Module 9: one interface over GPT-2, Llama, Qwen3, Gemma 3 and OLMo 3."""

from .errors import CheckpointError, ConfigError, CourseWarning, RankError, UnsafeFileError
from .families import FAMILIES
from .first_mismatch import first_mismatch
from .generation import generate, stream
from .loaders.load import load_model, load_weights
from .loaders.save import save_checkpoint
from .loaders.sources import open_checkpoint
from .memory import track_memory
from .tokenizers import load_tokenizer
from .validation import validate_checkpoint

__all__ = [
    "FAMILIES",
    "CheckpointError",
    "ConfigError",
    "CourseWarning",
    "RankError",
    "UnsafeFileError",
    "first_mismatch",
    "generate",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "open_checkpoint",
    "save_checkpoint",
    "stream",
    "track_memory",
    "validate_checkpoint",
]
