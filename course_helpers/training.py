"""The training loop of chapter 5, for any family: next-token prediction with AdamW, warm-up and cosine decay.

The loop itself is `training_steps`. `train` runs it and keeps the losses; `training_run.Trainer` adds evaluation,
samples and states to go on from; `classification.train_classifier` asks another question of the same loop.

Shape suffixes: B batch, T tokens, N all tokens of a corpus, V vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures.base import LanguageModel

#: Endings of the names of the matrices whose output is added to the residual stream.
WRITES_RESIDUAL = ("attention.output.weight", "feed_forward.down.weight", "experts.down")
IGNORED = -100  # the target of padding: cross_entropy leaves it out
PRECISIONS = ("float32", "bfloat16")

Batch = tuple[Tensor, ...]  # (inputs, targets), or whatever else a loss asks for; the first are ids, the last targets


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast, and with which numbers.

    `precision` is that of the forward pass and of the gradients that flow back through it. The parameters are float32
    in any case: bfloat16 has 8 significant bits, so adding 0.001 to a weight of 1 changes nothing, and a model trained
    in bfloat16 alone stops learning where its updates become smaller than half a step of that grid.
    """

    steps: int
    learning_rate: float = 1e-3  # at the end of the warm-up
    warmup_steps: int = 100
    final_fraction: float = 0.05  # of the learning rate, at the last step
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0  # largest norm of the gradient
    betas: tuple[float, float] = (0.9, 0.95)
    precision: str = "float32"  # or "bfloat16"
    accumulate: int = 1  # batches a step: the gradient is that of all of them together, the memory that of one

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; there are: {', '.join(PRECISIONS)}")
        if self.accumulate < 1:
            raise ValueError(f"a step takes at least one batch, not {self.accumulate}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


class StepResult(NamedTuple):
    """What one step was like."""

    step: int
    loss: float  # nats per target, before the update
    learning_rate: float
    gradient_norm: float  # before clipping
    targets: int  # that were predicted: padding is none


@torch.no_grad()
def initialize(model: LanguageModel, seed: int, deviation: float = 0.02) -> LanguageModel:
    """Fresh random weights: matrices normal with the given standard deviation, biases zero, norms as built.

    The two matrices of a block that write into the residual stream start smaller, by 1 / sqrt(2 x layers), so that
    the stream does not grow with depth (GPT-2 paper, section 2.3).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            writes_residual = name.endswith(WRITES_RESIDUAL)
            scale = (2 * model.config.num_hidden_layers) ** -0.5 if writes_residual else 1.0
            parameter.normal_(0.0, deviation * scale, generator=generator)
        elif name.endswith(".bias") and not name.endswith("norm.bias"):
            parameter.zero_()
    return model


def next_token_loss(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats between the model's predictions and the tokens that really came next."""
    logits_BTV = model(inputs_BT)
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def train(
    model: LanguageModel,
    batches: Iterable[Batch],
    settings: TrainingSettings,
    on_step: Callable[[int, float], None] | None = None,
    loss_of: Callable[..., Tensor] = next_token_loss,
) -> list[float]:
    """Train in place on (inputs, targets) batches; return the loss of every step, in nats per token.

    `on_step(step, loss)` is called after each step, for progress bars. Raises RuntimeError if the loss is not finite.
    """
    losses = []
    for result in training_steps(model, batches, settings, make_optimizer(model, settings), loss_of=loss_of):
        losses.append(result.loss)
        if on_step is not None:
            on_step(result.step, result.loss)
    model.eval()
    return losses


def training_steps(
    model: nn.Module,
    batches: Iterable[Batch],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    steps: Iterable[int] | None = None,
    loss_of: Callable[..., Tensor] = next_token_loss,
) -> Iterator[StepResult]:
    """The loop: one update after the other, for as long as there are steps and batches. What happens between two of
    them is up to the caller. `loss_of(model, *batch)` is the mean loss of a batch over its targets."""
    batches = iter(batches)
    for step in range(settings.steps) if steps is None else steps:
        taken = list(itertools.islice(batches, settings.accumulate))
        if len(taken) < settings.accumulate:
            return
        model.train()
        yield update(model, taken, settings, optimizer, step, loss_of)


def update(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    step: int,
    loss_of: Callable[..., Tensor] = next_token_loss,
) -> StepResult:
    """One step on the gradient of all batches together. Raises RuntimeError, before anything is changed, if their
    loss is not finite, and ValueError for texts longer than any that the model was made for."""
    rate = settings.learning_rate_at(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    counts = [int((batch[-1] != IGNORED).sum()) for batch in batches]
    total = 0.0
    for batch, count in zip(batches, counts, strict=True):
        check_context(model.config.max_position_embeddings, batch[0].shape[1])
        batch = (part.to(model.device) for part in batch)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            # Every target counts the same, whether its batch has many of them or few.
            loss = loss_of(model, *batch) * (count / max(1, sum(counts)))
        total += loss.item()
        if not math.isfinite(total):
            raise RuntimeError(f"the loss became {total} at step {step}: lower the learning rate")
        loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    return StepResult(step, total, rate, norm.item(), sum(counts))


def check_context(limit: int, tokens: int) -> None:
    """Refuse texts longer than the model was made for. Only learned positions end there: rotary ones go on, and what
    the model learns beyond its limit is lost on everybody who believes its config."""
    if tokens > limit:
        raise ValueError(
            f"the batch has rows of {tokens} tokens, and the model was made for {limit} (max_position_embeddings): "
            f"take a context_length of at most {limit}, or a model with a longer context"
        )


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over what is trained. Raises ValueError for parameters in another type than float32."""
    others = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad and p.dtype != torch.float32}
    if others:
        name, dtype = next(iter(others.items()))
        raise ValueError(
            f"{name} is {dtype}: small updates of such weights are rounded away. Train in float32 "
            '(model.float(), or load_model(..., dtype=torch.float32)); precision="bfloat16" makes the steps cheaper'
        )
    return torch.optim.AdamW(parameter_groups(model, settings.weight_decay), settings.learning_rate, settings.betas)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay towards zero; biases and norm weights do not. What is frozen is in neither group."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]


@torch.inference_mode()
def text_loss(model: LanguageModel, texts: Sequence[Sequence[int]], batch_size: int = 64) -> tuple[float, int]:
    """Total loss in nats over whole texts, each on its own, and how many tokens were predicted.

    Every token but a text's first is predicted, so a text should begin with the mark that texts begin with.
    """
    total, count = 0.0, 0
    for start in range(0, len(texts), batch_size):
        rows = texts[start : start + batch_size]
        width = max(len(row) for row in rows)
        # Padding on the right needs no mask: causal attention never lets a real token see it.
        inputs_BT = torch.tensor([[*row[:-1], *[0] * (width - len(row))] for row in rows], device=model.device)
        targets_BT = torch.tensor([[*row[1:], *[IGNORED] * (width - len(row))] for row in rows], device=model.device)
        total += next_token_loss(model, inputs_BT, targets_BT, reduction="sum").item()
        count += sum(len(row) - 1 for row in rows)
    return total, count
