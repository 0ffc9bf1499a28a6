"""Check functions for the exercises of M9-LAB-01: each failure names the likely mistake."""

import json
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..architectures.gpt2 import GPT2Config, GPT2Model
from ..loaders.save import export
from ..training import initialize
from .checkpoint import hint
from .exercises import answer, called

SMALL = GPT2Config(
    vocab_size=20, n_positions=8, n_embd=12, n_layer=2, n_head=3, n_inner=24, layer_norm_epsilon=1e-5, bos_token_id=0
)


def check_read_tensor(read_tensor: Callable[[Path, str], Tensor]) -> None:
    """Exercise 1: one tensor out of a safetensors file, by hand."""
    first, second = torch.arange(6.0).view(2, 3), torch.arange(10.0, 14.0).view(4)
    # Written by hand, with spaces at the header's end as the format allows, so that no length can be guessed.
    rows = {
        "first": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "second": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
    }
    header = json.dumps(rows).encode() + b"   "
    data = first.numpy().tobytes() + second.numpy().tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + data)
        found = {name: answer(read_tensor, path, name) for name in rows}
    for name, expected in (("first", first), ("second", second)):
        tensor = found[name]
        hint(not isinstance(tensor, Tensor), f"{name}: expected a tensor, got a {type(tensor).__name__}")
        hint(tensor.dtype != expected.dtype, f"{name}: the bytes are float32, your tensor is {tensor.dtype}")
        hint(
            tensor.numel() == expected.numel() and tensor.shape != expected.shape,
            f"{name}: the numbers are there, but the shape is {tuple(tensor.shape)}: use the header's 'shape'",
        )
        hint(
            tensor.numel() != expected.numel(),
            f"{name}: {tensor.numel()} numbers instead of {expected.numel()}: 'data_offsets' is first byte and last "
            "byte, so the second number minus the first is how many bytes to read",
        )
        hint(
            not torch.equal(tensor, expected),
            f"{name}: the numbers are wrong. 'data_offsets' counts from the end of the header: did you add 8 bytes for "
            "the length and N bytes for the header?",
        )
    print("Exercise 1: right. Two tensors read, byte for byte.")


def check_split_c_attn(split_c_attn: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]) -> None:
    """Exercise 2: query, key and value out of GPT-2's fused, transposed matrix."""
    query, key, value = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0))
    parts = answer(split_c_attn, torch.cat([query, key, value]).T.contiguous())
    hint(len(parts) != 3, f"expected three matrices, got {len(parts)}")
    shapes = [tuple(part.shape) for part in parts]
    hint(
        shapes != [(5, 5)] * 3,
        f"for a (5, 15) input the three shapes should be (5, 5), yours are {shapes}: cut along the output side",
    )
    expected = {"query": query, "key": key, "value": value}
    for part, (name, matrix) in zip(parts, expected.items(), strict=True):
        hint(
            torch.equal(part, matrix.T),
            f"the {name} matrix is right but for the transpose: the file stores (input, output), nn.Linear wants "
            "(output, input). It is square, so no shape check will ever tell you",
        )
        other = next((other for other in expected if other != name and torch.equal(part, expected[other])), None)
        hint(other is not None, f"in the place of {name} you return the {other} matrix: the order is query, key, value")
        hint(
            not torch.equal(part, matrix),
            f"the {name} matrix holds the wrong numbers: cut first or turn first, not both twice",
        )
    print("Exercise 2: right. Query, key and value, each the right way round.")


def check_load_all_or_nothing(load_all_or_nothing: Callable[[GPT2Model, Mapping[str, Tensor]], None]) -> None:
    """Exercise 3: a loader that takes every tensor or refuses them all."""
    source, tensors = fresh_model(1), export(fresh_model(1))
    model = fresh_model(2)
    called(load_all_or_nothing, model, dict(tensors))
    wrong = first_difference(model, source)
    hint(
        wrong is not None,
        f"a right checkpoint was loaded, but {wrong} is not what the file holds: use the weight map's rules "
        "(rule.to_ours), they know what to turn and what to cut",
    )
    name = "h.1.mlp.c_proj.weight"
    without = {key: tensor for key, tensor in tensors.items() if key != name}
    refuses(load_all_or_nothing, without, f"a checkpoint without {name}", "compare the two sets of names")
    refuses(
        load_all_or_nothing,
        tensors | {"h.2.ln_1.bias": torch.zeros(12)},
        "a checkpoint with a third layer too many",
        "a tensor that nobody asked for is a sign of a wrong config",
    )
    refuses(
        load_all_or_nothing,
        tensors | {name: torch.zeros(12, 24)},
        f"a wrong shape in {name}",
        "compare with rule.source_shape",
    )
    print("Exercise 3: right. Everything or nothing, and never a half-loaded model.")


#: OpenAI's name and Hugging Face's, for a tensor of every kind.
RENAMED = {
    "model/wte": "wte.weight",
    "model/wpe": "wpe.weight",
    "model/h3/ln_1/g": "h.3.ln_1.weight",
    "model/h3/ln_1/b": "h.3.ln_1.bias",
    "model/h11/attn/c_attn/w": "h.11.attn.c_attn.weight",
    "model/h0/attn/c_proj/w": "h.0.attn.c_proj.weight",
    "model/h0/mlp/c_fc/b": "h.0.mlp.c_fc.bias",
    "model/ln_f/g": "ln_f.weight",
}


def check_to_hugging_face(to_hugging_face: Callable[[str, Tensor], tuple[str, Tensor]]) -> None:
    """Exercise 4: OpenAI's names and shapes become Hugging Face's."""
    for theirs, name in RENAMED.items():
        shape = (1, 4, 4) if "c_proj/w" in theirs else (1, 4, 12) if theirs.endswith("/w") else (4, 3)
        shape = shape[:1] if theirs.endswith(("/g", "/b")) else shape
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        expected = tensor[0] if len(shape) == 3 else tensor
        pair = answer(to_hugging_face, theirs, tensor)
        hint(not isinstance(pair, tuple) or len(pair) != 2, "return two things: the name, and the tensor")
        found, values = pair
        hint(not isinstance(values, Tensor), f"{theirs}: the second thing should be a tensor")
        hint(found != name, f"{theirs} became {found!r}, expected {name!r}: {endings(theirs)}")
        hint(values.shape == tensor.shape != expected.shape, f"{theirs}: the dimension of 1 is still there")
        hint(
            len(shape) == 3 and values.shape == expected.T.shape and torch.equal(values, expected.T),
            f"{theirs}: do not turn it. Hugging Face kept the matrix on its side and named the layer Conv1D",
        )
        hint(not torch.equal(values, expected), f"{theirs}: the shape is {tuple(values.shape)}, or the numbers changed")
    print("Exercise 4: right. GPT-2 is ready for the hub.")


def endings(name: str) -> str:
    """What the end of one of OpenAI's names becomes."""
    if name.endswith(("wte", "wpe")):
        return "the two embeddings have no ending in OpenAI's files; here it is 'weight'"
    return "'w' and 'g' (the gain of a norm) become 'weight', 'b' becomes 'bias'; 'h3' becomes 'h.3'"


def refuses(load: Callable, tensors: Mapping[str, Tensor], what: str, advice: str) -> None:
    """The loader must raise ValueError, and must not have touched the model."""
    model = fresh_model(2)
    try:
        load(model, dict(tensors))
    except ValueError:
        pass
    except Exception as error:
        hint(
            True,
            f"{what} ended in a {type(error).__name__} ({error}): raise your own ValueError before that",
        )
    else:
        hint(True, f"{what} was loaded without a word: {advice}")
    touched = first_difference(model, fresh_model(2))
    hint(
        touched is not None,
        f"{what} was refused, but too late: {touched} was overwritten already. Check everything first, then assign",
    )


def fresh_model(seed: int) -> GPT2Model:
    """A small GPT-2 whose biases are random, too, so that a forgotten one shows."""
    model = initialize(GPT2Model(SMALL), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def first_difference(model: GPT2Model, other: GPT2Model) -> str | None:
    """The name of the first parameter in which two models differ."""
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    return next((name for (name, one), two in pairs if one.shape != two.shape or not torch.equal(one, two)), None)
