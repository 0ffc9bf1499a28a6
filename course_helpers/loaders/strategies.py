"""Four ways to get the same weights into memory, and what each costs at its peak.

naive        build the model, read the whole checkpoint beside it, copy          2 x the model
sequential   build the model, then read and copy one tensor at a time            the model + one tensor
mmap         an empty model on the meta device; parameters are windows           the model, as pages of the file
             onto the file wherever a tensor can be used as it is                that are read at their first use
stream       an empty model on the meta device; tensors are read, several at     the model
             once, straight into the memory that becomes the parameters

A tensor that cannot be used as it is (another type, another order, another device) goes through memory that is used
again for the next one: with mmap and stream, the peak then is the model and the largest such tensor.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from .assign import Plan, set_parameter
from .reading import ReadAhead
from .rules import Rule
from .sources import Checkpoint


@dataclass(frozen=True)
class Job:
    """Everything a strategy needs: a checked plan, where the tensors come from, and what the model shall be."""

    build: Callable[[], LanguageModel]
    empty: LanguageModel  # a model whose parameters have shapes but no memory; what is computed (RoPE) is real
    checkpoint: Checkpoint
    plan: Plan
    dtype: torch.dtype
    device: torch.device
    backend: str = "mmap"  # how strategy mmap gets at a file: "mmap", or "pread" where mapping is not safe

    def parameters(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Rule, Tensor]]:
        """Every parameter's name, the rule that fills it (or a part of it) and the values, in the checkpoint's order;
        `read` fetches one checkpoint tensor."""
        shapes = self.plan.shapes
        for source, rule in self.plan.steps.items():
            for name, tensor in zip(
                rule.targets, rule.to_ours(read(source), [shapes[name] for name in rule.targets]), strict=True
            ):
                yield name, rule, tensor

    @cached_property
    def as_it_is(self) -> dict[str, str]:
        """The checkpoint tensors that can become parameters without being changed, and which parameters."""
        if self.device.type != "cpu":
            return {}
        steps, dtype = self.plan.steps.items(), self.checkpoint.dtype
        return {name: rule.targets[0] for name, rule in steps if not rule.changes and dtype(name) == self.dtype}


def naive(job: Job) -> LanguageModel:
    model = build_whole(job)
    everything = {name: job.checkpoint.read(name) for name in job.plan.steps}
    return copy_into(model, job.parameters(everything.__getitem__))


def sequential(job: Job) -> LanguageModel:
    return copy_into(build_whole(job), job.parameters(job.checkpoint.read))


def mmap(job: Job) -> LanguageModel:
    if job.backend == "pread":
        return stream(job)
    return adopt(job, lambda name: job.checkpoint.map(name).contiguous())


def stream(job: Job) -> LanguageModel:
    with ReadAhead(job.checkpoint, job.as_it_is) as ahead:
        return adopt(job, ahead.take)


def adopt(job: Job, fetch: Callable[[str], Tensor]) -> LanguageModel:
    """Make tensors themselves the parameters of a model that was built without memory. One that becomes a parameter as
    it is, is `fetch`ed for good. All others (turned, cut up, cast, or meant for another device) pass through one
    scratch buffer, as large as the largest of them."""
    model, checkpoint, as_it_is = job.empty, job.checkpoint, job.as_it_is
    sizes = [checkpoint.size(name) for name in job.plan.steps if name not in as_it_is]
    scratch = torch.empty(max(sizes, default=0), dtype=torch.uint8, device="cpu")

    def read(name: str) -> Tensor:
        return fetch(name) if name in as_it_is else checkpoint.peek(name, scratch)

    whole = set(as_it_is.values())
    for name, rule, tensor in job.parameters(read):
        if name in whole:
            set_parameter(model, name, tensor)
            continue
        if model.get_parameter(name).is_meta:
            set_parameter(model, name, torch.empty(job.plan.shapes[name], dtype=job.dtype, device=job.device))
        fill(model, name, rule, tensor)
    return model


STRATEGIES: Mapping[str, Callable[[Job], LanguageModel]] = {
    "naive": naive,
    "sequential": sequential,
    "mmap": mmap,
    "stream": stream,
}


def build_whole(job: Job) -> LanguageModel:
    """A model with memory and random weights, as calling the class makes it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(job.dtype)
    try:
        with torch.device(job.device):
            return job.build()
    finally:
        torch.set_default_dtype(before)


def copy_into(model: LanguageModel, tensors: Iterator[tuple[str, Rule, Tensor]]) -> LanguageModel:
    for name, rule, tensor in tensors:
        fill(model, name, rule, tensor)
    return model


@torch.no_grad()
def fill(model: LanguageModel, name: str, rule: Rule, tensor: Tensor) -> None:
    """Copy values into a parameter, or into the part of it that the rule is about; cast and moved on the way."""
    rule.region(model.get_parameter(name)).copy_(tensor)
