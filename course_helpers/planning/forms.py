"""What the other forms of weights take (`architectures/packing.py`): while a model works, and while it is changed.

A model is loaded plain; then each matrix in turn gives way to its other form. So the most that is taken at once lies
somewhere in the middle: the counts here go through the matrices in the same order. They are made on shapes alone, and
`tests/planning/test_forms.py` holds them against models that really are packed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..architectures.base import LanguageModel
from ..architectures.experts import Experts, MixtureOfExperts
from ..architectures.layers import Attention, GatedFeedForward, Linear
from ..architectures.packing import Int8Matrix


@dataclass(frozen=True)
class Form:
    """Bytes of one form of weights. Those of a plain number are its type's."""

    number: int | None  # of a number in a matrix; None: as plain
    row: int  # more for each row
    beside: int  # for each number of a matrix, while it is being changed
    looked_up: bool  # its rows can be looked up, so an embedding can be in it; else a tied head is there twice
    dtype: torch.dtype | None = None  # the only one that it goes with


#: packed: the new order lies beside the old one. int8: while a matrix is rounded, it is there twice more, in float32.
FORMS = {
    "plain": Form(None, 0, 0, True),
    "packed": Form(None, 0, 2, False),
    "int8": Form(1, 2, 8, True, torch.bfloat16),
}


@dataclass(frozen=True)
class Matrix:
    """A matrix that changes its form, joined with those that multiply the same vector."""

    numbers: int
    rows: int
    head: bool = False
    table: bool = False  # tokens are looked up in it
    count: int = 1  # so many alike, in one plain tensor, which is there until the last is changed: experts
    used: int = 1  # of them, by each token


def turned(model: LanguageModel) -> Iterator[tuple[list[Tensor], dict[str, bool | int]]]:
    """Every matrix that changes its form, in that order: the plain parameters that become one, and what it is for.
    Experts are (count, outputs, inputs) in one."""
    left = {id(module): module for module in model.modules() if isinstance(module, Linear)}

    def taken(layers: Iterable[nn.Module]) -> list[Tensor]:
        return [left.pop(id(layer)).weight for layer in layers]

    used = 1
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            del left[id(module.router)]  # it stays as it is
            used = module.experts_per_token
        elif isinstance(module, Attention):
            yield taken((module.query, module.key, module.value)), {}
        elif isinstance(module, GatedFeedForward):
            yield taken((module.gate, module.up)), {}
        elif isinstance(module, Experts):
            for parameter in (module.gate_up, module.down):
                yield [parameter], {"count": len(parameter), "used": used}
    tied = model.output_head is None
    yield [model.head_weight] if tied else taken([model.output_head]), {"head": True, "table": tied}
    if not tied:
        yield [model.token_embedding.weight], {"table": True}
    yield from (([module.weight], {}) for module in left.values())


def matrices(model: LanguageModel) -> tuple[Matrix, ...]:
    """The sizes of those matrices."""
    return tuple(
        Matrix(
            sum(part.numel() for part in parts) // what.get("count", 1), sum(part.shape[-2] for part in parts), **what
        )
        for parts, what in turned(model)
    )


def held(
    parameters: int,
    parts: Iterable[Matrix],
    weights: str,
    dtype: torch.dtype,
    device: str = "cpu",
    in_file: bool = False,
) -> tuple[int, int]:
    """Bytes of all weights in a form, and the most that there were on the way there from plain ones. `in_file`: the
    plain ones are pages of their file, and the system may take them back: they are not counted."""
    form, size, parts = FORMS[weights], dtype.itemsize, list(parts)
    number, laid_out_anew = form.number or size, device == "cpu" and dtype == torch.bfloat16
    plain = 0 if in_file else size
    now = peak = parameters * size - sum(matrix.numbers * matrix.count for matrix in parts) * (size - plain)
    for matrix in parts if weights != "plain" else ():
        if matrix.table and not matrix.head and not form.looked_up:
            continue
        new, old = matrix.numbers * number + matrix.rows * form.row, matrix.numbers * plain
        peak = max(peak, now + (matrix.count - 1) * new + matrix.numbers * form.beside)
        both = matrix.table and not form.looked_up  # the old one is kept beside the new one
        if not both or laid_out_anew:  # elsewhere, packing leaves a matrix as it is
            now += matrix.count * (new - (0 if both else old))
    return now, max(peak, now)


def product_bytes(parts: Iterable[Matrix], tokens: int, rows: int, dtype: torch.dtype, device: str) -> int:
    """The most that an int8 product needs beside what it is given: its matrix written out, and its result once more,
    before it is scaled. On a CPU, few rows are multiplied by the whole numbers as they lie. `tokens`: of the prompt, in
    all rows of the batch; the head sees only the last of each row."""
    found = [0]
    for matrix in parts:
        count, inputs = rows if matrix.head else tokens, matrix.numbers // matrix.rows
        as_it_lies = device == "cpu" and count <= Int8Matrix.FEW and inputs % Int8Matrix.STEP == 0
        if (not matrix.table or matrix.head) and not as_it_lies:
            found.append((matrix.numbers + count * matrix.rows * matrix.used) * dtype.itemsize)
    return max(found)
