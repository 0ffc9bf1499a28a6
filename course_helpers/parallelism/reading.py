"""Each process reads its own part of every tensor, and nothing else of it.

The rules of the weight maps run backwards from a part of a parameter to the rows of the checkpoint that it is made of:
through a transpose, into the third of a fused matrix, past the experts of others.

Of safetensors files only these bytes are read, with read(), straight to where they stay. There are two other ways,
`get_slice` of the safetensors library, and torch.distributed.checkpoint's HuggingFaceStorageReader, which calls it.
Measured at 2 GB (`benchmarks/results/parallel.md`), only this one keeps both what is read and the peak within 1.1 times
what a rank holds: the others map the file, and of a matrix that is cut by columns every page is touched by every rank.
They are not slower, and the last one would also leave out the checks, and could not turn or cut what needs it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..architectures.base import LanguageModel
from ..loaders.assign import set_parameter
from ..loaders.rules import Rule
from ..loaders.sources import Checkpoint
from ..loaders.strategies import Job
from .shares import Cut, Share


def source_cut(rule: Rule, position: int, shapes: list[torch.Size], cut: Cut | None) -> Cut | None:
    """Which rows of a checkpoint tensor make up a part of the rule's target number `position`; None for all of it."""
    dims = len(shapes[position])
    if len(rule.targets) > 1:  # they lie one after the other along the first dimension
        before = sum(shape[0] for shape in shapes[:position])
        inside = cut or Cut(0, 0, shapes[position][0])
        if inside.dim:
            raise AssertionError("a fused tensor can be cut along the dimension that its parts lie along, only")
        cut = Cut(0, before + inside.start, before + inside.stop)
    if cut is None:
        return None
    dim = dims - 1 - cut.dim if rule.transpose else cut.dim
    return Cut(dim + rule.squeeze, cut.start, cut.stop)


def own_parts(job: Job, cuts: Mapping[str, Cut | None]) -> Iterator[tuple[str, str, Rule, Cut | None]]:
    """What this process has to read: checkpoint tensor, parameter, the rule from the one to the process's own part of
    the other, and which rows of the tensor (None: all)."""
    for source, rule in job.plan.steps.items():
        shapes = [job.plan.shapes[target] for target in rule.targets]
        for position, target in enumerate(rule.targets):
            cut = cuts[target]
            if rule.expert is None:
                yield source, target, rule, source_cut(rule, position, shapes, cut)
            elif cut is None:
                yield source, target, rule, None
            elif cut.start <= rule.expert < cut.stop:
                yield source, target, replace(rule, expert=rule.expert - cut.start), None


@torch.no_grad()
def read_own_parts(job: Job, model: LanguageModel, shares: Mapping[str, Share], rank: int, size: int) -> None:
    """Give every parameter of a model without memory this process's part of its values."""
    checkpoint = job.checkpoint
    cuts = {name: share.cut(job.plan.shapes[name], rank, size) for name, share in shares.items()}
    parts = list(own_parts(job, cuts))
    scratch = torch.empty(scratch_bytes(job, parts), dtype=torch.uint8, device="cpu")
    local: dict[str, Tensor] = {}
    for source, target, rule, rows in parts:
        if target not in local:
            cut, whole = cuts[target], job.plan.shapes[target]
            local[target] = torch.empty(cut.shape(whole) if cut else whole, dtype=job.dtype, device=job.device)
        region = rule.region(local[target])
        straight = is_straight(job, source, rule)
        buffer = region.view(-1).view(torch.uint8) if straight and region.numel() else scratch
        values = rule.turned(read(checkpoint, source, rows, buffer))
        if values.data_ptr() != region.data_ptr():
            region.copy_(values)
    for name, values in local.items():
        place(model, name, values)


def is_straight(job: Job, source: str, rule: Rule) -> bool:
    """Whether a tensor's bytes are the parameter's bytes, so that they can be read into its memory."""
    same = job.device.type == "cpu" and job.checkpoint.dtype(source) == job.dtype
    return same and not (rule.transpose or rule.interleaved)


def scratch_bytes(job: Job, parts: list[tuple[str, str, Rule, Cut | None]]) -> int:
    """Room for the largest part that has to be turned or cast on its way."""
    sizes = [0]
    for source, _, rule, rows in parts:
        if not is_straight(job, source, rule):
            shape = job.checkpoint.shape(source)
            shape = rows.shape(shape) if rows else shape
            sizes.append(torch.Size(shape).numel() * job.checkpoint.dtype(source).itemsize)
    return max(sizes)


def read(checkpoint: Checkpoint, name: str, rows: Cut | None, buffer: Tensor) -> Tensor:
    if rows is None:
        return checkpoint.peek(name, buffer)
    return checkpoint.peek_part(name, rows.dim, rows.start, rows.stop, buffer)


def place(model: nn.Module, name: str, values: Tensor) -> None:
    """Put a process's part in its parameter's place, as the part of a whole that it is."""
    whole = model.get_parameter(name)
    if isinstance(whole, DTensor):
        layout = {"shape": whole.shape, "stride": whole.stride(), "run_check": False}
        values = DTensor.from_local(values, whole.device_mesh, whole.placements, **layout)
    set_parameter(model, name, values)
