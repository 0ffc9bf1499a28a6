"""Mixture of experts: many small feed-forwards, of which each token uses a few.

The tokens are sorted by expert, so that every expert's share is one consecutive slice, and each projection is one
grouped matrix product over all experts. Nothing is asked of the device on the way: a loop over experts that picks
"its" tokens would wait for the GPU once per expert and layer. On a CPU nobody waits, and the experts may go one by one
where that is faster.

Shape suffixes: N tokens, E model width, F width of one expert, X experts, P pairs of a token and one of its experts
(N x experts per token).
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Linear
from .products import INTEL, Product, has_onednn, linear

#: What torch's grouped matrix product takes; rows must also be whole multiples of 16 bytes.
GROUPED = {torch.float32, torch.bfloat16, torch.float16} if hasattr(F, "grouped_mm") else set()


class Experts(nn.Module):
    """The weights of all experts of a layer, in two tensors: `gate_up` (X, 2 F, E), the gate above the up projection,
    and `down` (X, E, F)."""

    def __init__(self, width: int, hidden_width: int, num_experts: int):
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * hidden_width, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden_width))
        for parameter in self.parameters():
            if not parameter.is_meta:
                nn.init.normal_(parameter, std=0.02)

    #: In place of the two tensors, a matrix in another form for each expert (see `packing.py`).
    forms: tuple[Sequence[Product], Sequence[Product]] | None = None

    def forward(self, x_PE: Tensor, ends_X: Tensor) -> Tensor:
        """SwiGLU of rows that are sorted by expert; expert i's rows end before `ends_X[i]`."""
        gate_up, down = self.forms or (self.gate_up, self.down)
        if self.forms is None and groupable(x_PE, self.gate_up) and not better_alone(x_PE, len(self.gate_up)):
            return swiglu(x_PE, grouped(gate_up, ends_X), grouped(down, ends_X))
        counts = ends_X.diff(prepend=ends_X.new_zeros(1)).tolist()  # this waits for the device, which a CPU never minds
        if len(x_PE) < SOME * len(counts):
            return swiglu(x_PE, one_by_one(gate_up, counts), one_by_one(down, counts))
        return of_each(x_PE, counts, lambda i, rows: swiglu(rows, of_one(gate_up[i]), of_one(down[i])))

    def of_pairs(self, x_PE: Tensor, expert_P: Tensor) -> Tensor:
        """The same for rows in any order, as a compiled step wants it: no shape and no wait depends on who was chosen.
        Written as sums over copies of the chosen matrices, which torch's compiler fuses: no copy is ever made."""
        return swiglu(
            x_PE,
            lambda x: pair_linear(x, self.gate_up, expert_P),
            lambda x: pair_linear(x, self.down, expert_P),
        )


class MixtureOfExperts(nn.Module):
    """A router scores all experts for each token; the best few answer, and their answers are mixed by their scores.

    The scores are probabilities over *all* experts. With `normalize`, those of the chosen ones are scaled up to sum
    to 1; without it the answer is smaller. Released Qwen3 models normalise, and transformers' default is not to: the
    wrong choice gives fluent nonsense.
    """

    def __init__(self, width: int, hidden_width: int, num_experts: int, experts_per_token: int, normalize: bool):
        super().__init__()
        self.experts_per_token = experts_per_token
        self.normalize = normalize
        self.router = Linear(width, num_experts, bias=False)
        self.experts = Experts(width, hidden_width, num_experts)

    def route(self, x_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Which experts each token goes to, (N, k) int64, and how much each one counts, (N, k)."""
        probability_NX = self.router(x_NE).softmax(dim=-1, dtype=torch.float32)
        weight_Nk, chosen_Nk = probability_NX.topk(self.experts_per_token, dim=-1)
        if self.normalize:
            weight_Nk = weight_Nk / weight_Nk.sum(dim=-1, keepdim=True)
        return chosen_Nk, weight_Nk.to(x_NE.dtype)

    def forward(self, x_BTE: Tensor) -> Tensor:
        x_NE = x_BTE.flatten(0, 1)
        chosen_Nk, weight_Nk = self.route(x_NE)
        if torch.compiler.is_compiling():
            x_PE = x_NE.repeat_interleave(self.experts_per_token, dim=0)
            answer_PE = self.experts.of_pairs(x_PE, chosen_Nk.flatten())
        else:
            expert_P, order_P = chosen_Nk.flatten().sort(stable=True)
            all_X = torch.arange(self.router.out_features, device=x_NE.device)
            ends_X = torch.searchsorted(expert_P, all_X, right=True, out_int32=True)
            answer_PE = self.experts(x_NE[order_P // self.experts_per_token], ends_X)
            answer_PE = answer_PE[order_P.argsort()]  # back in the tokens' order
        answer_NkE = answer_PE.unflatten(0, chosen_Nk.shape)
        if has_onednn(x_BTE):  # as one product: a long prompt's answers are then read once, not written and read again
            return (weight_Nk[:, None] @ answer_NkE).view_as(x_BTE)
        return (answer_NkE * weight_Nk[..., None]).sum(dim=1).view_as(x_BTE)


def groupable(x_PE: Tensor, gate_up: Tensor) -> bool:
    """Whether torch's grouped product takes such rows and matrices, (X, 2 F, E) and their counterpart (X, E, F)."""
    sizes = gate_up.shape[1] // 2, gate_up.shape[2]
    return x_PE.dtype in GROUPED and all(size * x_PE.element_size() % 16 == 0 for size in sizes)


#: Rows an expert from which it pays on a CPU to end one expert before the next begins: what its first product wrote is
#: then still near when the second one reads it. Fewer rows are ready sooner together: in one grouped product up to MANY
#: rows; where the products go one by one, with one activation for all of them, up to SOME.
MANY, SOME = 256, 64


def better_alone(x_PE: Tensor, experts: int) -> bool:
    """Whether experts are faster one after the other, on a CPU where only results matter: with many rows; and in
    float32 wherever oneDNN is to be preferred to MKL, which the grouped product calls."""
    slow = x_PE.dtype == torch.float32 and not INTEL
    return has_onednn(x_PE) and (slow or len(x_PE) >= MANY * experts)


def swiglu(x: Tensor, gate_up: Product, down: Product) -> Tensor:
    gate, up = gate_up(x).chunk(2, dim=-1)
    return down(F.silu(gate) * up)


def of_one(matrix: Tensor | Product) -> Product:
    """The product with one expert's matrix, in whatever form."""
    return functools.partial(linear, weight=matrix) if isinstance(matrix, Tensor) else matrix


def one_by_one(matrices: Tensor | Sequence[Product], counts: list[int]) -> Product:
    """The products with all experts' matrices, of rows of which every expert has so many, in this order."""
    return lambda x_PI: of_each(x_PI, counts, lambda i, rows: of_one(matrices[i])(rows))


def of_each(x_PI: Tensor, counts: list[int], answer: Callable[[int, Tensor], Tensor]) -> Tensor:
    """What every expert that has rows answers to them, given its number and its rows; one below the other."""
    shares = [(i, rows) for i, rows in enumerate(x_PI.split(counts)) if len(rows)]
    return torch.cat([answer(i, filled(rows))[: len(rows)] for i, rows in shares])


#: Many rows of an expert are filled up to whole multiples of so many.
STEP = 16


def filled(rows: Tensor) -> Tensor:
    """With rows of zeros at the end, where oneDNN multiplies. It writes a program for every number of rows that it
    meets, in half a millisecond or more, and every expert of every prompt has another number."""
    more = -len(rows) % STEP if len(rows) > STEP and has_onednn(rows) else 0
    return F.pad(rows, (0, 0, 0, more)) if more else rows


def grouped(matrices_XOI: Tensor, ends_X: Tensor) -> Product:
    """The same as one operation, that asks the device for nothing."""
    return lambda x_PI: F.grouped_mm(x_PI, matrices_XOI.transpose(1, 2), offs=ends_X)


def pair_linear(x_PI: Tensor, weight_XOI: Tensor, expert_P: Tensor) -> Tensor:
    """Each row times the matrix of its own expert: (P, I) -> (P, O). Only for torch's compiler."""
    exact = torch.promote_types(x_PI.dtype, torch.float32)
    return (x_PI[:, None].to(exact) * weight_XOI[expert_P].to(exact)).sum(dim=-1).to(x_PI.dtype)
