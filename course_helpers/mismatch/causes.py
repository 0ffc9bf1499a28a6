"""From the first difference to its likely causes: tables, read from the top."""

from fnmatch import fnmatchcase

from . import blocks, norms, rotary, weights
from .evidence import Cause, Evidence, Words, always


def left_out(evidence: Evidence) -> Words:
    return {} if evidence.point.our_value is None else None


def added(evidence: Evidence) -> Words:
    return {} if evidence.point.their_value is None else None


def of_other_shape(evidence: Evidence) -> Words:
    values = {"ours": evidence.point.our_value, "theirs": evidence.point.their_value}
    if any(value is None for value in values.values()):
        return None
    return {name: tuple(value.shape) for name, value in values.items()}


def not_finite(evidence: Evidence) -> Words:
    return None if evidence.ours.isfinite().all() and evidence.theirs.isfinite().all() else {}


OF_ABSENCE = (left_out, added, of_other_shape)  # the marks where there is nothing to compare

ANYWHERE = (
    Cause(
        "*",
        left_out,
        "ours never runs this part: it is left out",
        "look for its call in our forward",
    ),
    Cause(
        "*",
        added,
        "theirs never runs this part: ours has one too many",
        "look for its call in our forward",
    ),
    Cause(
        "*",
        of_other_shape,
        "the two are of different shapes, {ours} and {theirs}",
        "compare the sizes in both configs",
    ),
    Cause(
        "*",
        not_finite,
        "there are values that are not finite: float16 overflows above 65504; a softmax over nothing is NaN",
        "repeat the comparison in float32 or bfloat16",
    ),
)
CAUSES = (*ANYWHERE, *weights.CAUSES, *rotary.CAUSES, *norms.CAUSES, *blocks.CAUSES)
UNKNOWN = ("none of the usual ones", "compare what this module is given and what it returns with theirs by hand")


def explain(evidence: Evidence) -> list[tuple[str, str]]:
    """One or two likely causes, each with a next step; a general one only where nothing points to a special one."""
    special, general = [], []
    for cause in CAUSES:
        fits = any(fnmatchcase(evidence.point.place, place) for place in cause.place.split("|"))
        if fits and (evidence.ours is None) == (cause.mark in OF_ABSENCE):
            words = cause.mark(evidence)
            if words is not None:
                (general if cause.mark is always else special).append((cause.text.format(**words), cause.next_step))
    return special[:2] or general[:1] or [UNKNOWN]
