"""Parameters that differ before anything is computed."""

import torch

from .evidence import Cause, Evidence, Words, always
from .points import exact


def transposed(evidence: Evidence) -> Words:
    return {} if evidence.ours.dim() == 2 and torch.equal(evidence.ours, evidence.theirs.T) else None


def taken_for_another(evidence: Evidence) -> Words:
    layer = evidence.point.ours.split(".")[:2]
    if bool((evidence.ours == evidence.ours.flatten()[0]).all()):
        return None  # a norm that was never filled is like any other
    for point in evidence.points:
        if point.ours.split(".")[:2] == layer and torch.equal(evidence.ours, point.their_value):
            return {"other": point.theirs}
    return None


def reordered(evidence: Evidence) -> Words:
    """The same rows in another order, by the sums of the rows: they are as good as names."""
    one, other = (exact(value).reshape(len(value), -1).sum(1) for value in (evidence.ours, evidence.theirs))
    return {} if torch.allclose(one.sort().values, other.sort().values, rtol=1e-9, atol=1e-9) else None


def apart_by_one(evidence: Evidence) -> Words:
    difference = (evidence.ours - evidence.theirs).abs()
    return {} if bool(((difference - 1).abs() < 1e-2).all()) else None


def tied_on_one_side(evidence: Evidence) -> Words:
    embedding = evidence.near("token_embedding.weight", "weight")
    tied = [torch.equal(evidence.ours, embedding.our_value), torch.equal(evidence.theirs, embedding.their_value)]
    return {} if tied[0] != tied[1] else None


def rounded(evidence: Evidence) -> Words:
    relative = (evidence.ours - evidence.theirs).abs() / evidence.theirs.abs().clamp(min=1e-30)
    return {"relative": f"{float(relative.max()):.1e}"} if bool((relative < 2**-7).all()) else None


CAUSES = (
    Cause(
        "*.weight weight",
        transposed,
        "the matrix was taken transposed; it is square, so every shape fits",
        "GPT-2's Conv1D stores (input, output), nn.Linear (output, input): transpose it in the weight map",
    ),
    Cause(
        "* weight",
        taken_for_another,
        "it holds their {other}: two tensors were swapped",
        "read the rows of the weight map again; in Meta's names w1 is the gate, w3 up, w2 down",
    ),
    Cause(
        "* weight",
        reordered,
        "its rows are in another order: Meta's files have a head's rows in pairs (2 i, 2 i + 1), ours are in halves",
        "mark the rows of query and key as interleaved in the weight map, and no others",
    ),
    Cause(
        "*norm.weight weight",
        apart_by_one,
        "the two differ by 1: Gemma's norms scale by 1 + weight, and some files hold the sum",
        "subtract the 1 while loading, or add it while computing, never both",
    ),
    Cause(
        "output_head.* weight",
        tied_on_one_side,
        "one head is tied to the embedding, the other is not",
        "tie_word_embeddings of config.json decides, not whether the file holds a head",
    ),
    Cause(
        "* weight",
        rounded,
        "one of the two was rounded to another type on its way: no value is off by more than {relative} of itself",
        "load both in the type that the checkpoint stores",
    ),
    Cause(
        "* weight",
        always,
        "they come from two different checkpoints, or one was trained in between, or the tensor was never filled",
        "load both again from the same place",
    ),
)
