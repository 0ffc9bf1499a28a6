"""Tensors of the right names, shapes and types with the wrong values."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from tests.formats import in_pairs
from tests.silent_faults.fault import ALL, GATED, ROTARY, WINDOWED, Fault, Patient, PutIn

HEAD_DIM = 32  # of every bundled model
Change = Callable[[Tensor], Tensor]


def every(pattern: str, change: Change) -> PutIn:
    """Change every tensor whose name matches."""

    def edit(tensors: dict[str, Tensor]) -> None:
        chosen = [name for name in tensors if re.search(pattern, name)]
        assert chosen, f"no tensor matches {pattern}"
        tensors.update({name: change(tensors[name]) for name in chosen})

    return lambda patient: patient.edit_tensors(edit)


def exchanged(one: str, other: str) -> PutIn:
    """Every tensor of one kind under the name of its neighbour of another kind."""

    def edit(tensors: dict[str, Tensor]) -> None:
        pairs = [(name, name.replace(one, other)) for name in tensors if one in name]
        pairs = [(first, second) for first, second in pairs if second in tensors]
        assert pairs, f"nothing to exchange for {one}"
        for first, second in pairs:
            tensors[first], tensors[second] = tensors[second], tensors[first]

    return lambda patient: patient.edit_tensors(edit)


def query_and_key(weight_or_bias: Tensor) -> Tensor:
    """GPT-2's fused projection with its first two thirds exchanged."""
    query, key, value = weight_or_bias.chunk(3, dim=-1)
    return torch.cat((key, query, value), dim=-1)


def random_like(tensor: Tensor) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    return (noise * tensor.float().std()).to(tensor.dtype)


def flip_exponent(tensor: Tensor) -> Tensor:
    """The highest bit of one exponent: a value below 1 times 2**128."""
    bits = tensor.clone().view({4: torch.int32, 2: torch.int16}[tensor.itemsize])
    bits[3, 3] ^= 1 << 8 * tensor.itemsize - 2
    return bits.view(tensor.dtype)


def no_number(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor[0] = torch.nan
    return tensor


def hole(tensor: Tensor) -> Tensor:
    """A download that left out a part: half of the rows are zeros."""
    tensor = tensor.clone()
    tensor[: len(tensor) // 2] = 0
    return tensor


def pairs(tensor: Tensor) -> Tensor:
    return in_pairs(tensor, HEAD_DIM)


def layers(family: str) -> tuple[str, str]:
    return ("h.0.", "h.1.") if family == "gpt2" else ("layers.0.", "layers.1.")


def two_layers(patient: Patient) -> None:
    exchanged(*layers(patient.family))(patient)


LLAMA_NORMS = ("llama2", "llama3", "qwen3", "qwen3_moe")
QK_NORMS = ("qwen3", "qwen3_moe", "gemma3", "olmo3")
SQUARE = ("llama2", "llama3", "olmo3")
UNTIED = ("llama2", "qwen3_moe", "olmo3")
OUTPUT, EMBEDDING = r"\b1\.(attn\.c_proj|self_attn\.o_proj)\.weight", r"(wte|embed_tokens)\.weight"

FAULTS = (
    Fault("square matrix transposed: attention's output", "4.20", ("gpt2", *SQUARE), every(OUTPUT, lambda w: w.T)),
    Fault("square matrix transposed: queries", "4.20", SQUARE, every(r"\b1\.self_attn\.q_proj", lambda w: w.T)),
    Fault("rows of queries and keys in pairs, as Meta has them", "4.21, 6.4", ROTARY, every(r"[qk]_proj", pairs)),
    Fault("rows of queries alone in pairs", "4.21", ROTARY, every(r"q_proj", pairs)),
    Fault("norms stored with the 1 that the family adds", "4.25, 6.13", ("gemma3",), every("norm", lambda w: w + 1)),
    Fault("norms without the 1 that the family does not add", "4.25", ROTARY, every("norm", lambda w: w - 1)),
    Fault("gate and up exchanged", "4.24", (*GATED, "qwen3_moe"), exchanged("gate_proj", "up_proj")),
    Fault("keys and values exchanged", "", ROTARY, exchanged("k_proj", "v_proj")),
    Fault("queries and keys exchanged in the fused projection", "", ("gpt2",), every("c_attn", query_and_key)),
    Fault("norms of queries and keys exchanged", "6.12", QK_NORMS, exchanged("q_norm", "k_norm")),
    Fault(
        "norms before attention and feed-forward exchanged",
        "4.24",
        LLAMA_NORMS,
        exchanged("input_layernorm", "post_attention_layernorm"),
    ),
    Fault(
        "norms after attention and feed-forward exchanged",
        "4.24",
        WINDOWED,
        exchanged("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    Fault(
        "post_attention_layernorm taken as in Llama",
        "4.24",
        ("gemma3",),
        exchanged("post_attention_layernorm", "pre_feedforward_layernorm"),
    ),
    Fault("two layers exchanged", "", ALL, two_layers),
    Fault("two experts exchanged", "", ("qwen3_moe",), exchanged("experts.0.", "experts.1.")),
    Fault("a matrix of another run", "6.5", ALL, every(OUTPUT, random_like)),
    Fault("the head's first weights instead of the learned ones", "6.1", UNTIED, every("lm_head", random_like)),
    Fault("embeddings moved by one row", "", ALL, every(EMBEDDING, lambda w: w.roll(1, dims=0))),
    Fault("learned positions moved by one", "0.3", ("gpt2",), every("wpe", lambda w: w.roll(1, dims=0))),
    Fault("biases left at zero", "6.11", ("gpt2",), every(r"c_attn\.bias", torch.zeros_like)),
    Fault("half of a matrix empty", "6.5", ALL, every(OUTPUT, hole)),
    Fault("a matrix of zeros", "6.5", ALL, every(OUTPUT, torch.zeros_like)),
    Fault("a weight that is no number", "", ALL, every(r"(ln_f|^model\.norm)\.weight", no_number)),
    Fault("a bit flipped in an exponent", "", ALL, every(OUTPUT, flip_exponent)),
    Fault(
        "every weight rounded to 8 bits",
        "",
        ALL,
        every(r"\d\..*weight", lambda w: w.to(torch.float8_e4m3fn).to(w.dtype)),
    ),
)
