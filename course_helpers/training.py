"""The training loop of chapter 5, for any family: next-token prediction with AdamW, warm-up and cosine decay.

Shape suffixes: B batch, T tokens, N all tokens of a corpus, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures.base import LanguageModel

#: Endings of the names of the matrices whose output is added to the residual stream.
WRITES_RESIDUAL = ("attention.output.weight", "feed_forward.down.weight", "experts.down")
IGNORED = -100  # the target of padding: cross_entropy leaves it out


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast, and from which seed."""

    steps: int
    learning_rate: float = 1e-3  # at the end of the warm-up
    warmup_steps: int = 100
    final_fraction: float = 0.05  # of the learning rate, at the last step
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0  # largest norm of the gradient
    betas: tuple[float, float] = (0.9, 0.95)

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


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
    batches: Iterator[tuple[Tensor, Tensor]],
    settings: TrainingSettings,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place on (inputs, targets) batches; return the loss of every step, in nats per token.

    `on_step(step, loss)` is called after each step, for progress bars. Raises RuntimeError if the loss is not finite.
    """
    model.train()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), settings.learning_rate, settings.betas
    )
    losses = []
    for step, (inputs_BT, targets_BT) in zip(range(settings.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(step)
        loss = next_token_loss(model, inputs_BT, targets_BT)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss became {losses[-1]} at step {step}: lower the learning rate")
        if on_step is not None:
            on_step(step, losses[-1])
    model.eval()
    return losses


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay towards zero; biases and norm weights do not."""
    parameters = list(model.parameters())
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
