"""The floor: what a step would take if it did nothing but read the weights once, as fast as this machine can.

    floor = bytes of weights that a step needs / bytes a second of a matrix-vector product

Bytes are counted on the model: all parameters, but of the embedding table no more than the looked-up row, unless it
serves as the head, too; of the experts of a layer, those that are chosen. The rate is measured beside each turn, on
matrices too large for any cache, with the fastest product that there is.
"""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.speed_clock import Clock, timed
from course_helpers.architectures.config import ModelConfig
from course_helpers.planning.costs import anatomy
from course_helpers.sizes import kv_cache_bytes

#: Rows and columns of a matrix, and bytes of all of them: many times a processor's cache. A GPU is done with such
#: matrices sooner than the next one can be asked for; it has larger ones.
WIDTH = {"cpu": 4096, "cuda": 16384}
AMOUNT = {"cpu": 400e6, "cuda": 4.3e9}
PASSES = 3


def step_bytes(config: ModelConfig, dtype: torch.dtype, rows: int = 1, context: int = 0) -> float:
    """Bytes that one step of so many rows has to read: the weights, and the keys and values of `context` positions.
    Rows that choose different experts need more of them; counted as if every choice were equally likely."""
    parts = anatomy(config)
    experts = sum(one.parameters * one.read(rows) / one.experts for one in parts.mixtures)
    cached = kv_cache_bytes(config, context, rows, dtype) if context else 0
    return (parts.matrices + experts) * dtype.itemsize + cached


class Bandwidth:
    """Bytes a second of the matrix-vector products that a device has, for weights of one type."""

    def __init__(self, dtype: torch.dtype, device: str, clock: Clock, amount: float | None = None):
        """`amount`: for tests, which have no time for matrices of the usual size."""
        kind, self.clock = torch.device(device).type, clock
        side, amount = (256, amount) if amount else (WIDTH[kind], AMOUNT[kind])
        self.nbytes = side * side * dtype.itemsize
        self.x = torch.full((1, side), 0.01, dtype=dtype, device=device)
        count = ceil(amount / self.nbytes)
        matrices = [torch.full((side, side), 0.01, dtype=dtype, device=device) for _ in range(count)]
        self.products = {name: prepared(matrices, kind) for name, prepared in PRODUCTS.items() if name_fits(name, kind)}
        self.pairs = matrices[: count // 2], matrices[count // 2 : count // 2 * 2]
        self.count, self.kind = count, kind

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        """Each product's rate now, the best of some passes; on a GPU also that of copying, read and written."""
        rates = {name: self.rate(self.count, self.all(*one)) for name, one in self.products.items()}
        if self.kind == "cuda":
            rates["copy"] = self.rate(2 * len(self.pairs[0]), self.copy)
        return rates

    def rate(self, matrices: int, work: Callable[[], None]) -> float:
        return matrices * self.nbytes / min(timed(self.clock, work) for _ in range(PASSES))

    def all(self, product: Callable[[Tensor, Tensor], Tensor], matrices: list[Tensor]) -> Callable[[], None]:
        def work() -> None:
            for matrix in matrices:
                product(self.x, matrix)

        return work

    def copy(self) -> None:
        for source, target in zip(*self.pairs, strict=True):
            target.copy_(source)


Prepared = tuple[Callable[[Tensor, Tensor], Tensor], list[Tensor]]


def linear(matrices: list[Tensor], kind: str) -> Prepared:
    return F.linear, matrices


def onednn(matrices: list[Tensor], kind: str) -> Prepared:
    """The product of the library inside torch. In bfloat16 it first lays the matrix out as it likes it best."""
    library = torch.ops.mkldnn
    if matrices[0].dtype == torch.bfloat16:
        matrices = [library._reorder_linear_weight(matrix, 1) for matrix in matrices]
    return lambda x, matrix: library._linear_pointwise(x, matrix, None, "none", [], ""), matrices


TORCH_PRODUCT = "F.linear"  # what everybody calls
PRODUCTS: dict[str, Callable[[list[Tensor], str], Prepared]] = {TORCH_PRODUCT: linear, "oneDNN": onednn}


def name_fits(name: str, kind: str) -> bool:
    return name != "oneDNN" or (kind == "cpu" and torch.backends.mkldnn.is_available())


def fastest(rates: dict[str, float]) -> float:
    """The rate that the floor is taken from. Copying is no product: it is reported, and counts as well if it is faster,
    because bytes can be had that fast."""
    return max(rates.values())
