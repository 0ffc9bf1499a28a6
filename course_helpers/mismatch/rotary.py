"""Rotary tables that differ: which pairs turn at another speed, and in which layers."""

import torch
from torch import Tensor

from ..architectures.config import FULL, SLIDING
from .evidence import Cause, Evidence, Words, always, multiple
from .points import exact


def table_of_other_layers(evidence: Evidence) -> Words:
    other = FULL if evidence.layer_type == SLIDING else SLIDING
    point = evidence.near(f"rotary_embeddings.{other}", evidence.point.what)
    if point is None or point.their_value is None:
        return None
    swapped = evidence.close(evidence.ours.flatten(), point.their_value.flatten())
    return {"own": evidence.layer_type, "other": other} if swapped else None


def one_table_only(evidence: Evidence) -> Words:
    """cos and sin have different factors."""
    other = evidence.near(evidence.point.ours, "sin" if evidence.point.what == "cos" else "cos")
    if multiple(evidence) is None or not evidence.close(other.our_value.flatten(), other.their_value.flatten()):
        return None
    return {"which": evidence.point.what, **multiple(evidence)}


def speeds(evidence: Evidence) -> Tensor | None:
    """How many times as fast as theirs our pairs of dimensions turn, by their angles at position 1."""
    tokens, head_dim = evidence.ours.shape[1:]
    sin, cos = (evidence.near(evidence.point.ours, what) for what in ("sin", "cos"))
    if tokens < 2:
        return None
    angles = [
        torch.atan2(*(exact(table).reshape(-1, tokens, head_dim)[0, 1, : head_dim // 2] for table in tables))
        for tables in ((sin.our_value, cos.our_value), (sin.their_value, cos.their_value))
    ]
    return angles[0] / angles[1]


def all_speeds(evidence: Evidence) -> Words:
    ratio = speeds(evidence)
    same = ratio is not None and abs(ratio[0] - 1) > 1e-3 and bool(((ratio / ratio[0] - 1).abs() < 1e-2).all())
    return {"ratio": f"{float(ratio[0]):.4g}"} if same else None


def another_base(evidence: Evidence) -> Words:
    """Pair i turns with theta^(-2 i / D): the logarithms of the ratios lie on a line through 0."""
    ratio = speeds(evidence)
    if ratio is None or len(ratio) < 3 or abs(ratio[0] - 1) > 1e-3:
        return None
    slope = ratio[1:].log() / torch.arange(1, len(ratio))
    close = bool(((slope / slope[0] - 1).abs() < 1e-2).all()) and bool(slope[0] != 0)
    return {"times": f"{float((-slope[0] * len(ratio)).exp()):.4g}"} if close else None


def rounded_speeds(evidence: Evidence) -> Words:
    """Every pair is a little too fast or too slow, by no more than bfloat16 rounds."""
    ratio = speeds(evidence)
    return None if ratio is None or bool(((ratio - 1).abs() > 2**-6).any()) else {}


ROTARY = "rotary_embeddings.* *"
CAUSES = (
    Cause(
        ROTARY,
        table_of_other_layers,
        "the {own} layers turn by the table of the {other} layers: scaling (YaRN in OLMo 3, linear in Gemma 3) and "
        "base frequency belong to one type of layer",
        "read rope_parameters for each layer type; in older files rope_scaling is meant for the full layers only",
    ),
    Cause(
        ROTARY,
        one_table_only,
        "{which} alone is {factor} times theirs: YaRN's attention factor belongs on both cos and sin",
        "multiply both tables by it",
    ),
    Cause(
        ROTARY,
        multiple,
        "the table is {factor} times theirs: YaRN's attention factor is missing, or not the one in config.json",
        "it is 0.1 ln(factor) + 1 unless config.json says otherwise, on cos and on sin",
    ),
    Cause(
        ROTARY,
        all_speeds,
        "every pair turns {ratio} times as fast as theirs: linear scaling on one side only, or with another factor",
        "compare rope_scaling, and the type of layer that it is meant for",
    ),
    Cause(
        ROTARY,
        another_base,
        "another base frequency: rope_theta of ours is {times} times theirs",
        "transformers 5 nests rope_theta in rope_parameters; a reader that misses it falls back to 10000",
    ),
    Cause(
        ROTARY,
        rounded_speeds,
        "every pair turns a little too fast or too slow: positions or frequencies were rounded to half precision",
        "model.to(bfloat16) rounds the frequencies of transformers' models: use from_pretrained(dtype=...), or float32",
    ),
    Cause(
        ROTARY,
        always,
        "some pairs turn at another speed: scaling (llama3, YaRN) is missing or has other numbers; or positions are "
        "counted or rounded otherwise",
        "compare rope_scaling field by field; it names its kind in rope_type, in older files in type",
    ),
)
