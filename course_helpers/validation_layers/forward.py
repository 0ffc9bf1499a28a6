"""Layer 3, forward pass: logits are finite and differ, no token sees a later one, and rows know nothing of each other.

Random ids will do: what is checked here holds for every text.
"""

import psutil
import torch

from ..dtypes import short
from .subject import Subject

TOKENS, PADDING = 32, 5


@torch.inference_mode()
def check(subject: Subject) -> str:
    """What held, in words. Raises CheckpointError for the first thing that does not."""
    tokens = min(TOKENS, subject.model.config.max_position_embeddings)
    ids_BT = subject.ids(2, tokens)
    stored = subject.model.dtype
    finite(subject, logits_BTV := subject.model(ids_BT))  # as it was stored: float16 may overflow, float32 does not
    in_full_precision(subject)
    logits_BTV = (logits_BTV if subject.model.dtype == stored else subject.model(ids_BT)).float()
    different(subject, logits_BTV)
    causal(subject, ids_BT, logits_BTV)
    independent(subject, ids_BT, logits_BTV)
    return "finite, causal; a row in a batch, padded or not, is what it is alone"


def in_full_precision(subject: Subject) -> None:
    """Go on in float32 if nothing else was asked for and half of the free memory holds it: there, two computations of
    the same thing differ by so little that mistakes show."""
    model = subject.model
    fits = 4 * model.num_parameters() <= psutil.virtual_memory().available / 2
    if subject.dtype is None and model.device.type == "cpu" and fits:
        subject.model = model.to(torch.float32)
    subject.telemetry["dtype"] = short(subject.model.dtype)


def finite(subject: Subject, logits_BTV: torch.Tensor) -> None:
    if not logits_BTV.isfinite().all():
        raise subject.refuse(
            "the logits hold NaN or infinity",
            expected="finite numbers",
            found=f"{int((~logits_BTV.isfinite()).sum())} of {logits_BTV.numel()} are not, in {logits_BTV.dtype}",
            cause="damaged weights, or float16 where the family needs bfloat16",
            next_step="validate with dtype=torch.float32; if that holds, the dtype is the cause",
        )


def different(subject: Subject, logits_BTV: torch.Tensor) -> None:
    spread, between = logits_BTV.std(-1).min().item(), logits_BTV.std(1).max().item()
    if spread == 0 or between == 0:
        raise subject.refuse(
            "the model answers every text in the same way",
            expected="other logits for other tokens and at other places",
            found="constant logits",
            cause="matrices of zeros, or norms of zeros: a file that was never filled",
            next_step="load with verify=True, which names matrices of zeros",
        )


def causal(subject: Subject, ids_BT: torch.Tensor, logits_BTV: torch.Tensor) -> None:
    """Change everything after a place: nothing before it may move."""
    half = ids_BT.shape[1] // 2
    changed_BT = ids_BT.clone()
    changed_BT[:, half:] = (ids_BT[:, half:] + 1) % subject.model.config.vocab_size
    # Rows of a matrix product do not depend on each other, so causal attention leaves no difference but rounding.
    moved = subject.apart(subject.model(changed_BT).float()[:, :half], logits_BTV[:, :half]) if half else 0.0
    if moved > 1:
        raise subject.refuse(
            "attention is not causal",
            expected=f"the same logits for the first {half} tokens, whatever comes after them",
            found=f"they moved when later tokens changed, by {moved:.0f} times what rounding explains",
            cause="a mask that is missing, or one that is added where it should be multiplied",
            next_step="compare with another implementation: course_helpers.first_mismatch names the layer",
        )


def independent(subject: Subject, ids_BT: torch.Tensor, logits_BTV: torch.Tensor) -> None:
    """A row alone, and a row behind padding, give what they gave in the batch."""
    model, batch = subject.model, ids_BT[:, : max(1, ids_BT.shape[1] - PADDING)]
    padding_B = torch.tensor([0, ids_BT.shape[1] - batch.shape[1]], device=model.device)
    padded_BT = ids_BT.clone()
    padded_BT[1] = torch.cat((ids_BT[1, : padding_B[1]], batch[1]))
    cases = {
        "alone": (model(ids_BT[:1]).float(), logits_BTV[:1]),
        "behind padding": (
            model(padded_BT, left_padding_B=padding_B).float()[1:, int(padding_B[1]) :],
            logits_BTV[1:, : batch.shape[1]],
        ),
    }
    for where, (found, expected) in cases.items():
        if (moved := subject.apart(found, expected)) > 1:
            raise subject.refuse(
                "a row of a batch depends on what is beside it",
                expected=f"the logits of the batch for its row {where}",
                found=f"others, by {moved:.0f} times what rounding explains",
                cause="positions that count padding, or padding that is seen",
                next_step="generate rows one by one until the mask is mended",
            )
