"""Matrix products and attention over a cache: which of torch's kernels does them.

Every kernel computes the same sums; they differ in speed, by up to two times, and in the order of the sums, and so in
the last bits. Two kinds of work are told apart by torch.inference_mode: inside it (as `generate` runs) nothing but
the result matters, and the fastest kernel is taken; outside, torch's usual one, so that logits can be held against
Transformers' to the last bit. benchmarks/results/speed.md has the figures of an AMD processor, and
benchmarks/results/intel/speed.md those of another.

Shape suffixes: B batch, S keys in sight, H query heads, K key/value heads, G query heads that share one key/value head
(H / K), D head dimension.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: A matrix in whatever form, as what multiplies with it: (..., I) -> (..., O).
Product = Callable[[Tensor], Tensor]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: (..., I) and (O, I) -> (..., O)."""
    rows = x.numel() // x.shape[-1]
    if rows == 1 and torch.compiler.is_compiling() and x.device.type == "cpu":
        return one_row_linear(x, weight, bias)
    if weight.dtype == torch.float32 and has_onednn(x):
        return fastest(rows, *weight.shape)(x, weight, bias)
    return F.linear(x, weight, bias)


def has_onednn(x: Tensor) -> bool:
    """Whether oneDNN may do the products of x: on a CPU, for results only."""
    if torch.compiler.is_compiling():  # first: torch's compiler does not know the mode
        return False
    on = ONEDNN and x.device.type == "cpu" and torch.is_inference_mode_enabled()
    return on and torch.backends.mkldnn.enabled  # torch's own switch: with torch.backends.mkldnn.flags(enabled=False)


def processor() -> str:
    """What the processor calls itself; "" where torch is too old to tell."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return known.get("cpu_name", "")


INTEL = processor().startswith("Intel")


#: Outputs that oneDNN, by its figures, hands to a core at a time. Where there are fewer a core, one has more to do.
AT_A_TIME = 512


def fastest(rows: int, outputs: int, inputs: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Of the ways to multiply so many rows with a float32 matrix, (outputs, inputs), the fastest on this processor.

    MKL, which F.linear calls, is at its best on its maker's processors. Elsewhere it leaves one row to a single core
    (https://github.com/pytorch/pytorch/issues/96643); oneDNN does better, and so does MKL for a small matrix, if told
    what each core shall do. benchmarks/results/products.md has the figures."""
    if INTEL:
        return onednn_linear if 2 < rows <= 256 and outputs * inputs >= 2**20 else F.linear
    cores = torch.get_num_threads()
    uneven = cores > 1 and outputs < AT_A_TIME * cores
    return shared_linear if uneven and can_share(rows, outputs) else onednn_linear


def can_share(rows: int, outputs: int) -> bool:
    """Whether `shared_linear` can do a product: of one row, with MKL, and with equal parts for all cores."""
    return rows == 1 and outputs % torch.get_num_threads() == 0 and torch.backends.mkl.is_available()


def shared_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of one row, an equal part of the outputs to each core (C): a batch of small products, to MKL."""
    cores = torch.get_num_threads()
    x_C1I = x.reshape(1, 1, -1).expand(cores, 1, -1)
    weight_CIO = weight.view(cores, -1, weight.shape[1]).transpose(1, 2)
    if bias is None:
        product_C1O = torch.bmm(x_C1I, weight_CIO)
    else:
        product_C1O = torch.baddbmm(bias.view(cores, 1, -1), x_C1I, weight_CIO)
    return product_C1O.view(*x.shape[:-1], -1)


def one_row_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of one row, written as the sum that it is. Only torch's compiler makes something of it: a loop that
    all cores share, with what comes before and after in it. The product that it would call instead, MKL's in float32
    and oneDNN's in bfloat16, is made for many rows, and much slower for one."""
    exact = torch.promote_types(x.dtype, torch.float32)
    product = (x.to(exact)[..., None, :] * weight.to(exact)).sum(dim=-1).to(x.dtype)
    return product if bias is None else product + bias


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """oneDNN's product, of a matrix that may be packed (see `packing.py`)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def results_only() -> bool:
    """Whether nobody asks for gradients, or for torch's usual kernels."""
    return torch.compiler.is_compiling() or torch.is_inference_mode_enabled()  # in this order: see `has_onednn`


def attend_once(query_BH1D: Tensor, key_BKSD: Tensor, value_BKSD: Tensor, mask: Tensor | None, scale: float | None):
    """Attention of one new token over all keys: (B, 1, H * D).

    The G query heads of a key/value head see the same keys under the same mask, so they go as G rows of one head: the
    keys are then read once and not G times. torch's kernel for bfloat16 is slower with one row than with two, by
    half or more; a group of one is therefore asked twice.
    """
    batch, heads, _, head_dim = query_BH1D.shape
    query_BKGD = query_BH1D.reshape(batch, key_BKSD.shape[1], -1, head_dim)
    twice = query_BKGD.shape[2] == 1 and query_BKGD.dtype == torch.bfloat16 and query_BKGD.device.type == "cpu"
    query_BKGD = query_BKGD.expand(-1, -1, 2, -1) if twice else query_BKGD
    mixed_BKGD = F.scaled_dot_product_attention(query_BKGD, key_BKSD, value_BKSD, attn_mask=mask, scale=scale)
    mixed_BKGD = mixed_BKGD[:, :, :1] if twice else mixed_BKGD
    return mixed_BKGD.reshape(batch, 1, heads * head_dim)
