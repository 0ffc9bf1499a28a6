"""The check function for the last exercise of M9-LAB-03: rotary frequencies from a config.json of any dialect."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..architectures.rope import RopeParameters
from .checkpoint import ExerciseHint, hint
from .exercises import answer

#: The scaling of Llama 3.2 1B, and of a made-up model whose factors no code can have by heart.
REAL = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
OTHER = REAL | {
    "factor": 5.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 12.0,
    "original_max_position_embeddings": 600,
}


def configs() -> Mapping[str, dict[str, Any]]:
    """config.json in every dialect, the simplest first."""
    old_key = {"type" if name == "rope_type" else name: value for name, value in REAL.items()}
    base = {"head_dim": 64, "rope_theta": 500_000.0}
    return {
        "plain, rope_scaling null": base | {"rope_scaling": None},
        "plain, another base and head_dim": {"head_dim": 48, "rope_theta": 10_000.0},
        "llama3 in rope_scaling": base | {"rope_scaling": REAL},
        "llama3 with other numbers": base | {"rope_scaling": OTHER},
        "llama3 in rope_parameters": {"head_dim": 64, "rope_parameters": REAL | {"rope_theta": 500_000.0}},
        "llama3 under the old key `type`": base | {"rope_scaling": old_key},
        "plain in rope_parameters": {
            "head_dim": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
    }


def check_frequencies_from(frequencies_from: Callable[[dict[str, Any]], Tensor]) -> None:
    """Exercise 4: every dialect, and two that must be refused."""
    for case, data in configs().items():
        found = read(frequencies_from, data, case)
        right = RopeParameters.from_hf(data)
        compare_frequencies(found, right, data["head_dim"], case)
    refused = {
        "another kind of scaling": {"head_dim": 64, "rope_theta": 1e4, "rope_scaling": {"rope_type": "longrope"}},
        "no base anywhere": {"head_dim": 64, "rope_scaling": None},
    }
    for case, data in refused.items():
        check_refused(frequencies_from, data, case)
    print("Exercise 4: right. Seven configs in four dialects, and two that cannot be read are refused.")


def read(frequencies_from: Callable[[dict[str, Any]], Tensor], data: dict[str, Any], case: str) -> Tensor:
    try:
        return answer(frequencies_from, data)
    except KeyError as error:
        hint(True, f"{case}: KeyError {error}: this file has it in another place, or does not need it")


def check_refused(frequencies_from: Callable[[dict[str, Any]], Tensor], data: dict[str, Any], case: str) -> None:
    try:
        answer(frequencies_from, data)
    except ExerciseHint:
        raise
    except ValueError:
        return
    except Exception as error:
        hint(True, f"{case}: must be refused with a ValueError; it ended in a {type(error).__name__}: {error}")
    hint(True, f"{case}: it was read without a word. What cannot be read must be refused with a ValueError")


def compare_frequencies(found: object, rope: RopeParameters, head_dim: int, case: str) -> None:
    """Say which mistake gives the frequencies that were found, if it is one of the usual ones."""
    hint(not isinstance(found, Tensor), f"{case}: expected a tensor, got a {type(found).__name__}")
    hint(
        tuple(found.shape) != (head_dim // 2,),
        f"{case}: expected one number for each of {head_dim // 2} pairs, got the shape {tuple(found.shape)}",
    )

    def is_like(other: Tensor) -> bool:
        return torch.allclose(found.double(), other.double(), rtol=1e-4, atol=0)

    expected, _ = rope.inverse_frequencies(head_dim)
    if is_like(expected):
        return
    plain = 1.0 / rope.rope_theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    hint(is_like(2 * math.pi / expected), f"{case}: these are wavelengths. A frequency is 2 pi divided by one")
    hint(is_like(1 / plain), f"{case}: the base to the power 2 i / D; a frequency is 1 divided by it")
    old = replace(rope, rope_theta=10_000.0)
    for one in (old, replace(old, rope_type="default")):
        at_ten_thousand, _ = one.inverse_frequencies(head_dim)
        hint(is_like(at_ten_thousand), f"{case}: that is base 10,000. Was rope_theta found, wherever it stands?")
    if rope.rope_type == "llama3":
        hint_about_scaling(is_like, plain, rope, case)
    hint(
        True,
        f"{case}: pair 0 is {found[0].item():.6g} where {expected[0].item():.6g} is right, the last one "
        f"{found[-1].item():.6g} where {expected[-1].item():.6g} is right",
    )


def hint_about_scaling(is_like: Callable[[Tensor], bool], plain: Tensor, rope: RopeParameters, case: str) -> None:
    """The usual mistakes in the llama3 scaling."""
    original, factor = rope.original_max_position_embeddings, rope.factor
    low, high = rope.low_freq_factor, rope.high_freq_factor
    turns = original * plain / (2 * math.pi)
    share = (turns - low) / (high - low)
    kept = share.clamp(0, 1)
    slowed, other_way = plain / factor, (1 - kept) * plain + kept * plain / factor
    wrong = {
        "no scaling at all. Did you look in every place, and under the old key `type`?": plain,
        "every pair was slowed. Those with short wavelengths are kept": slowed,
        "the slow pairs became faster: divide by the factor": kept * plain + (1 - kept) * plain * factor,
        "the fast pairs were slowed and the slow ones kept: are low and high exchanged, or the sides of the blend?": (
            other_way
        ),
        "no blend: between the two edges, the change must be gradual": torch.where(turns < high, slowed, plain),
        "no blend, and all pairs between the edges are kept. Are low and high exchanged?": torch.where(
            turns < low, slowed, plain
        ),
        "the share is not held between 0 and 1: clamp it": share * plain + (1 - share) * slowed,
        "you blended wavelengths, and frequencies are to be blended": 1 / (kept / plain + (1 - kept) / slowed),
    }
    if factor != 8:
        wrong["that is factor 8; the config says another"] = kept * plain + (1 - kept) * plain / 8
    if original != 8192:
        at_8192 = ((8192 * plain / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        wrong["the original context is 8,192 here: read it from the config"] = (
            at_8192 * plain + (1 - at_8192) * plain / factor
        )
    for advice, frequencies in wrong.items():
        hint(is_like(frequencies), f"{case}: {advice}")
