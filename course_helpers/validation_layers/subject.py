"""The checkpoint under examination: what the layers have found out about it so far, and how they refuse it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from ..errors import CheckpointError
from ..tokenizers import Tokenizer

#: What rounding alone may do to logits, as a part of the largest: two ways to compute the same sum differ by so much.
ROUNDING = {torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass
class Subject:
    """What a layer finds out, the layers after it can use."""

    source: object
    dtype: torch.dtype | None = None  # asked for; None: float32 where the memory suffices
    device: torch.device | str = "cpu"
    revision: str | None = None
    path: Path | None = None
    card: dict[str, Any] = field(default_factory=dict)  # empty without a card
    model: LanguageModel | None = None
    tokenizer: Tokenizer | None = None
    baseline: dict[str, Any] | None = None  # for a card: what text must be worth to a model that is as this one is
    telemetry: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def refuse(self, what: str, **answers: object) -> CheckpointError:
        """The error that a layer raises; the file is the checkpoint unless the layer knows better."""
        return CheckpointError(what, **{"file": self.source} | answers)

    def apart(self, one: Tensor, other: Tensor) -> float:
        """How far two sets of logits are from each other, in units of what rounding explains: above 1, it does not."""
        scale = max(one.abs().max().item(), other.abs().max().item(), 1e-30)
        return (one - other).abs().max().item() / (scale * ROUNDING[self.model.dtype])

    def ids(self, rows: int, tokens: int, seed: int = 0) -> Tensor:
        """(rows, tokens) random ids of the model's vocabulary, the same on every machine."""
        generator = torch.Generator().manual_seed(seed)
        size = self.model.config.vocab_size
        return torch.randint(0, size, (rows, tokens), generator=generator).to(self.model.device)
