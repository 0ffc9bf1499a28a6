"""Four ways to get the same weights into memory, and what each costs at its peak.

naive        build the model, read the whole checkpoint beside it, copy          2 x the model
sequential   build the model, then read and copy one tensor at a time            the model + one tensor
mmap         an empty model on the meta device; parameters are windows           the model, as pages of the file
             onto the file wherever a tensor can be used as it is                that are read at their first use
stream       an empty model on the meta device; one tensor at a time is read     the model + one tensor
             into memory of its own, which becomes the parameter
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from .assign import Plan, set_parameter
from .sources import Checkpoint
from .weight_maps import Rule


@dataclass(frozen=True)
class Job:
    """Everything a strategy needs: a checked plan, where the tensors come from, and what the model shall be."""

    build: Callable[[], LanguageModel]
    checkpoint: Checkpoint
    plan: Plan
    dtype: torch.dtype
    device: torch.device

    def parameters(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Rule, Tensor]]:
        """Every parameter's name, the rule that fills it (or a part of it) and the values, in the checkpoint's order;
        `read` fetches one checkpoint tensor."""
        shapes = self.plan.shapes
        for source, rule in self.plan.steps.items():
            for name, tensor in zip(
                rule.targets, rule.to_ours(read(source), [shapes[name] for name in rule.targets]), strict=True
            ):
                yield name, rule, tensor

    def fits(self, name: str, rule: Rule) -> bool:
        """Whether a checkpoint tensor can become a parameter without being changed."""
        return not rule.changes and self.checkpoint.dtype(name) == self.dtype and self.device.type == "cpu"


def naive(job: Job) -> LanguageModel:
    model = build_whole(job)
    everything = {name: job.checkpoint.read(name) for name in job.plan.steps}
    return copy_into(model, job.parameters(everything.__getitem__))


def sequential(job: Job) -> LanguageModel:
    return copy_into(build_whole(job), job.parameters(job.checkpoint.read))


def mmap(job: Job) -> LanguageModel:
    return adopt(job, lambda name: job.checkpoint.map(name).contiguous())


def stream(job: Job) -> LanguageModel:
    return adopt(job, job.checkpoint.read)


def adopt(job: Job, fetch: Callable[[str], Tensor]) -> LanguageModel:
    """Make tensors themselves the parameters of a model that was built without memory. One that becomes a parameter as
    it is, is `fetch`ed for good. All others (turned, cut up, cast, or meant for another device) pass through one
    scratch buffer, as large as the largest of them."""
    model = build_empty(job)
    checkpoint = job.checkpoint
    as_it_is = {name for name, rule in job.plan.steps.items() if job.fits(name, rule)}
    sizes = [checkpoint.size(name) for name in job.plan.steps if name not in as_it_is]
    scratch = torch.empty(max(sizes, default=0), dtype=torch.uint8)

    def read(name: str) -> Tensor:
        return fetch(name) if name in as_it_is else checkpoint.peek(name, scratch)

    whole = {job.plan.steps[name].targets[0] for name in as_it_is}
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


def build_empty(job: Job) -> LanguageModel:
    """A model whose parameters have shapes but no memory. What is computed (RoPE frequencies) is real already."""
    with torch.device("meta"):
        return job.build()


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
