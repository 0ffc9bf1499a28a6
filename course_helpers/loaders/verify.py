"""`verify=True`: every byte of a checkpoint is looked at before anything is assigned.

A header can be right and the data wrong. What shows in the data alone: values that are no numbers, values that no
training arrives at, matrices of zeros where a download has a hole; and, where the format or a manifest has check sums,
any change at all.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import CheckpointError, raise_all
from .manifest_files import manifest_beside
from .sources import Checkpoint

#: Beyond any weight that a model can compute with: float32 cannot hold the fifth power of it. The highest bit of an
#: exponent that flips, in float32 or bfloat16, multiplies a weight below 1 by 2^128.
IMPLAUSIBLE = 1e9
CHUNK = 2**22  # values looked at together: what is needed beside a tensor stays small


def check_every_byte(checkpoint: Checkpoint, used: Iterable[str]) -> None:
    """Hold a checkpoint to its manifest, to the check sums of its format, and to reason. Raises CheckpointError, with
    every tensor that is wrong. `used`: those that become parameters; the others need only be numbers."""
    files = list({id(file): file for file in checkpoint.file_of.values()}.values())
    if checkpoint.folder is not None and (manifest := manifest_beside(checkpoint.folder)) is not None:
        manifest.check(every_byte=True)
        manifest.check_known(checkpoint.paths)
    for file in files:
        if hasattr(file, "check_bytes"):
            file.check_bytes()
    largest = max(map(checkpoint.size, checkpoint.names()), default=0)
    scratch, weights = torch.empty(largest, dtype=torch.uint8, device="cpu"), set(used)
    raise_all(
        problem
        for name in checkpoint.names()
        for problem in value_problems(
            checkpoint.peek(name, scratch), name in weights, tensor=name, file=checkpoint.where(name)
        )
    )


def value_problems(values: Tensor, weight: bool, **where: object) -> Iterator[CheckpointError]:
    """What is wrong with the values of one tensor. Integers (positions, masks in old files) can be anything."""
    if not values.is_floating_point() or not values.numel() or values.itemsize < 2:
        return
    nan = infinite = large = filled = 0
    for chunk in values.reshape(-1).split(CHUNK):
        magnitude = chunk.abs()
        nan += int(magnitude.isnan().sum())
        infinite += int(magnitude.isinf().sum())
        large += int((magnitude > IMPLAUSIBLE).sum())
        filled += int(magnitude.count_nonzero())
    if nan or infinite:
        found = f"{nan} NaN and {infinite} infinite of {values.numel()} values"
        yield wrong_values(found, "finite numbers", "a training that diverged", **where)
    elif weight and large:
        found = f"{large} of {values.numel()} values beyond {IMPLAUSIBLE:g}"
        yield wrong_values(found, "values that training can arrive at", "a bit that flipped, or another type", **where)
    elif weight and not filled and values.dim() > 1:
        yield wrong_values("zeros only", "a matrix that something was learned into", "a hole in a copy", **where)


def wrong_values(found: str, expected: str, cause: str, **where: object) -> CheckpointError:
    return CheckpointError(
        "a tensor holds values that no trained model has",
        **where,
        expected=expected,
        found=found,
        cause=f"{cause}, or a damaged file",
        next_step="download the file again; if it comes back the same, do not use it",
    )
