"""The first batch: what can be wrong before the first step, told from a single forward and backward pass.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor

from .architectures.base import LanguageModel
from .training import IGNORED, Batch, check_context, next_token_loss
from .training_data import check_ids

#: A model that knows nothing gives every token the same probability, and loses ln(V). Random weights of the usual size
#: are almost as even: for tokens that score with deviation s, it is s^2 / 2 more. Measured part of ln(V).
TOLERANCE = 0.1


def first_batch_check(model: LanguageModel, batch: Batch) -> list[str]:
    """Look at a freshly initialized model and its first (inputs, targets); return what held, a line each.

    Nothing is changed: no weight, and no gradient that was there. Raises ValueError with a diagnosis for the first
    thing that does not hold.
    """
    inputs_BT, targets_BT = (part.to(model.device) for part in batch)
    return [
        check_shapes(model, inputs_BT, targets_BT),
        check_shift(inputs_BT, targets_BT),
        *check_loss_and_gradients(model, inputs_BT, targets_BT),
    ]


def check_shapes(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> str:
    if inputs_BT.dim() != 2 or inputs_BT.shape != targets_BT.shape:
        raise ValueError(
            f"inputs of shape {tuple(inputs_BT.shape)} and targets of shape {tuple(targets_BT.shape)}: both must be "
            "(batch, tokens), a target for every input"
        )
    check_context(model.config.max_position_embeddings, inputs_BT.shape[1])
    check_ids(model.config.vocab_size, max(inputs_BT.max().item(), targets_BT.max().item()))
    with torch.no_grad():
        shape, expected = tuple(model(inputs_BT).shape), (*inputs_BT.shape, model.config.vocab_size)
    if shape != expected:
        raise ValueError(f"the logits have shape {shape} where {expected} is needed: (batch, tokens, vocabulary)")
    return f"shapes      inputs and targets {tuple(inputs_BT.shape)}, logits {shape}"


def check_shift(inputs_BT: Tensor, targets_BT: Tensor) -> str:
    """The target of a token is the token after it."""
    asked_BT = targets_BT[:, :-1] != IGNORED
    wrong = (targets_BT[:, :-1] != inputs_BT[:, 1:])[asked_BT].sum().item()
    if wrong:
        same = torch.equal(inputs_BT, targets_BT)
        cause = "they are the inputs themselves, not shifted" if same else "shifted by more than one, or mixed up"
        raise ValueError(f"{wrong} of {asked_BT.sum().item()} targets are not the token that comes next: {cause}")
    return f"targets     each of {(targets_BT != IGNORED).sum().item()} is the token that comes next"


def check_loss_and_gradients(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[str, str]:
    """The loss is near ln(V), and the way back leads to every parameter."""
    loss = next_token_loss(model, inputs_BT, targets_BT)
    even = math.log(model.config.vocab_size)
    if not abs(loss.item() - even) <= TOLERANCE * even:
        cause = (
            "lower: the weights are trained already, or the model sees its targets"
            if loss.item() < even
            else "higher: the first weights are too large (initialize has a deviation of 0.02), or were not set at all"
        )
        raise ValueError(f"the first loss is {loss.item():.3f} and not near ln(vocabulary) = {even:.3f}; {cause}")
    named = dict(model.named_parameters())
    frozen = [name for name, parameter in named.items() if not parameter.requires_grad]
    if frozen:
        raise ValueError(f"{frozen[0]} is frozen (requires_grad is False), and would stay as it began")
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    for name, gradient in zip(named, gradients, strict=True):
        if gradient is None:
            raise ValueError(f"{name} gets no gradient: it is no part of the forward pass, or is detached from it")
        if not gradient.isfinite().all():
            raise ValueError(f"{name} gets a gradient that is not finite: weights are not finite, or far too large")
    return (
        f"loss        {loss.item():.3f}, and ln(vocabulary) is {even:.3f}",
        f"gradients   finite for all {len(named)} parameters",
    )
