"""Speed counts only where the result is right: before anything is timed, every system is held against a reference.

Shape suffixes: B batch, T tokens.
"""

import torch
from torch import Tensor

from benchmarks.speed_rounds import Bench
from benchmarks.speed_shapes import BRAIN, SINGLE
from benchmarks.speed_systems import OURS, TRANSFORMERS, Loaded, System, no_way_out
from course_helpers.errors import CourseWarning

REFERENCE = f"{TRANSFORMERS}, sdpa, dynamic"
#: How far logits may lie from the reference's, as a part of the largest of them; weights of 8 bits are another model.
TOLERANCE = {SINGLE: 1e-5, BRAIN: 0.05}
INEXACT = 0.15


class Reference:
    """What a correct model answers: tokens, and the logits behind each."""

    def __init__(self, bench: Bench, system: System):
        self.bench, self.ids_BT = bench, bench.prompt(1, bench.lengths.prompt)
        self.tokens: list[int] = []
        self.logits = self.follow(system, None)

    @torch.inference_mode()
    def follow(self, system: System, tokens: list[int] | None) -> Tensor:
        """Logits along these tokens, or (None) along the system's own, which are then kept."""
        system.ready()
        count = self.bench.lengths.checked
        session, found = system.session(1, self.bench.lengths.prompt + count), []
        step_BT = self.ids_BT
        for place in range(count + 1):
            found.append(session.logits(step_BT)[0].float().cpu())
            if tokens is None:
                self.tokens.append(int(found[-1].argmax()))
            step_BT = torch.tensor([[(tokens or self.tokens)[place]]], device=self.bench.device)
        return torch.stack(found)

    def compare(self, system: System) -> dict:
        """How far a system is from it. Raises RuntimeError for ours, and ValueError for a peer, if that is too far."""
        logits = self.follow(system, self.tokens)
        difference = float((logits - self.logits).abs().max() / self.logits.abs().max())
        tolerance = TOLERANCE[self.bench.dtype] if system.exact else INEXACT
        if not difference <= tolerance:  # also if it is not a number
            message = f"logits differ from {REFERENCE}'s by {difference:.2g} of the largest; {tolerance} is allowed"
            raise (RuntimeError if system.who == OURS else ValueError)(f"{system.name}: {message}")
        same = sum(int(one.argmax()) == token for one, token in zip(logits, self.tokens, strict=True))
        return {
            "system": system.name,
            "difference": difference,
            "tolerance": tolerance,
            "same_tokens": same,
            "of": len(self.tokens),
        }


def checked(
    models: list[Loaded], reference: Reference | None, bench: Bench, left_out: list[dict]
) -> tuple[list[System], Reference, list[dict]]:
    """The systems that compute what they should. A peer that cannot, or does not, is left out, with the reason."""
    good, checks = [], []
    systems = [system for one in models for system in one.systems]
    reference = reference or Reference(bench, next(one for one in systems if one.name == REFERENCE))
    for system in systems:
        try:
            with no_way_out():
                checks.append(reference.compare(system))
            good.append(system)
        except CourseWarning as warning:
            left_out.append({"name": system.name, "reason": str(warning).splitlines()[0]})
        except (RuntimeError, ValueError) as error:
            if system.who == OURS:
                raise
            reason = str(error).splitlines()[0]
            reason = (
                reason if isinstance(error, ValueError) else f"its own code ends with {type(error).__name__}: {reason}"
            )
            left_out.append({"name": system.name, "reason": reason})
    return good, reference, checks
