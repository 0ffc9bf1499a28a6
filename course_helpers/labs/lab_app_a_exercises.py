"""Check functions for the exercises of M9-LAB-APP-A: each failure names the likely mistake."""

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..architectures.config import FULL
from ..architectures.qwen3 import Qwen3Config, Qwen3Model
from ..architectures.rope import RopeParameters
from ..training import initialize
from .checkpoint import hint
from .exercises import answer, called

#: Every size differs from every other that could be taken for it: heads x head_dim is not the width, and so on.
SMALL = Qwen3Config(
    vocab_size=29,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=10,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
    layer_types=(FULL,) * 5,
)


def check_cache_bytes(cache_bytes: Callable[[Qwen3Config, int, int, int], int]) -> None:
    """Exercise 1: bytes of a KV cache, against caches that are really made."""
    with torch.device("meta"):
        model = Qwen3Model(SMALL)
    for length, batch, dtype in ((11, 7, torch.float32), (13, 1, torch.bfloat16)):
        found = answer(cache_bytes, SMALL, length, batch, dtype.itemsize)
        expected = model.make_cache(batch, length, dtype=dtype).nbytes
        hint_about_cache(found, expected, batch, length, dtype.itemsize)
    print("Exercise 1: right. To the byte, for two caches that were really made.")


def hint_about_cache(found: object, expected: int, batch: int, length: int, itemsize: int) -> None:
    """Say which factor was forgotten, or taken for another."""
    hint(not isinstance(found, int), f"expected a whole number of bytes, got a {type(found).__name__}")
    heads, shared = SMALL.num_attention_heads, SMALL.num_key_value_heads
    factors = {
        "keys and values are two tensors: where is the 2?": 2,
        f"each of the {SMALL.num_hidden_layers} layers has a cache of its own": SMALL.num_hidden_layers,
        "where is the number of texts, batch_size?": batch,
        "where are the bytes of one number?": itemsize,
        "where is the length of the text?": length,
        "where is head_dim, the numbers of one head?": SMALL.head_dim,
        "where is the number of key/value heads?": shared,
    }
    width, head_dim = SMALL.hidden_size, SMALL.head_dim
    exchanged = {
        "you counted the query heads: only keys and values are kept, and several query heads share one of them": (
            heads,
            shared,
        ),
        "you took the model's width for key/value heads x head_dim": (width, shared * head_dim),
        "head_dim is not the width divided by the heads in this family: the config has a field for it": (
            width // heads,
            head_dim,
        ),
    }
    for advice, factor in factors.items():
        hint(factor != 1 and found * factor == expected, advice)
    for advice, (taken, right) in exchanged.items():
        hint(found * right == expected * taken, advice)
    hint(found != expected, f"a cache for {batch} texts of {length} tokens takes {expected:,} bytes, not {found:,}")


#: Numbers of three tensors, the largest in the middle, and what the strategies hold: (file bytes, model bytes) each.
TENSORS = {"first": 1_000, "embedding": 7_000, "last": 300}
CASES = ((2, 2), (2, 4), (4, 2))


def right_peak(strategy: str, tensors: Mapping[str, int], in_file: int, in_model: int) -> int:
    """Private bytes at the worst moment of a load."""
    total, largest = sum(tensors.values()), max(tensors.values())
    changes = in_file != in_model
    return {
        "naive": total * (in_model + in_file),
        "sequential": total * in_model + largest * in_file,
        "stream": total * in_model + largest * in_file * changes,
        "mmap": (total * in_model + largest * in_file) * changes,
    }[strategy]


def check_peak_bytes(peak_bytes: Callable[[str, Mapping[str, int], int, int], int]) -> None:
    """Exercise 2: the private peak of every strategy, with and without a cast."""
    total, largest = sum(TENSORS.values()), max(TENSORS.values())
    for strategy in ("naive", "sequential", "stream", "mmap"):
        for in_file, in_model in CASES:
            found = answer(peak_bytes, strategy, dict(TENSORS), in_file, in_model)
            expected = right_peak(strategy, TENSORS, in_file, in_model)
            case = f"{strategy}, {in_file} bytes a number in the file and {in_model} in the model"
            hint(not isinstance(found, int), f"{case}: expected a whole number of bytes, got a {type(found).__name__}")
            changes = in_file != in_model
            whole = total * in_model
            hint(
                strategy == "mmap" and not changes and found == whole,
                f"{case}: that is the file-backed peak. How much of it is private, if every tensor is a window?",
            )
            hint(
                strategy == "mmap" and changes and found in (0, whole),
                f"{case}: a window shows what is in the file, and cannot show it in another type. What must be done?",
            )
            hint(
                strategy == "stream" and changes and found == whole,
                f"{case}: right, but for the tensor that is being cast: it is there twice, in both types",
            )
            hint(
                strategy == "sequential" and found == whole,
                f"{case}: while a tensor is copied it is there twice, in the model and as it was read",
            )
            hint(
                strategy == "stream" and not changes and found == whole + largest * in_file,
                f"{case}: the tensor that is read *becomes* the parameter, so nothing waits beside the model",
            )
            hint(
                changes and found == whole + largest * in_model,
                f"{case}: the tensor that waits to be copied has the type of the file, not that of the model",
            )
            hint(
                changes and strategy == "naive" and found in (2 * whole, 2 * total * in_file),
                f"{case}: two copies, but not of the same type: one is the file's, one the model's",
            )
            hint(found != expected, f"{case}: expected {expected:,} bytes for {dict(TENSORS)}, got {found:,}")
    print("Exercise 2: right. Twelve loads predicted, with and without a cast.")


class Reader:
    """Hands out a checkpoint's tensors one at a time, and knows which of them are still in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors
        self.alive: dict[str, weakref.ref] = {}
        self.asked: list[str] = []
        self.together: tuple[str, str] | None = None  # the first two that were in memory at once

    def __call__(self, name: str) -> Tensor:
        waiting = next((other for other, tensor in self.alive.items() if tensor() is not None), None)
        if waiting is not None and self.together is None:
            self.together = waiting, name
        tensor = self.tensors[name].clone()
        self.alive[name] = weakref.ref(tensor)
        self.asked.append(name)
        return tensor


def check_stream_into(stream_into: Callable[[Qwen3Model, Sequence[str], Reader, torch.dtype], None]) -> None:
    """Exercise 3: fill an empty model tensor by tensor, cast on the way, never holding two tensors of the file."""
    source = initialize(Qwen3Model(SMALL), seed=1).to(torch.bfloat16)
    tensors = {name: parameter.detach() for name, parameter in source.named_parameters()}
    with torch.device("meta"):
        model = Qwen3Model(SMALL)
    reader = Reader(tensors)
    called(stream_into, model, list(tensors), reader, torch.float32)
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    hint(
        bool(empty) and not reader.asked,
        "no tensor was read: call read(name) for every name, and put what comes back in the parameter's place",
    )
    hint(
        bool(empty),
        f"{next(iter(empty), '')} is still on the meta device: it has a shape and no numbers. copy_ into a parameter "
        "without memory does nothing, so a new tensor must take its place: set_parameter(model, name, tensor)",
    )
    found = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name, tensor in tensors.items():
        hint(
            found[name].dtype != torch.float32,
            f"{name} is {found[name].dtype}, but the model was to be float32: cast each tensor to `dtype` on its way",
        )
        hint(not torch.equal(found[name], tensor.float()), f"{name} holds other numbers than the file")
    hint(len(reader.asked) != len(set(reader.asked)), "a tensor was read twice: every read costs time")
    hint(
        reader.together is not None,
        "right numbers, but two tensors of the file were in memory at once: when you asked for {1}, {0} was still "
        "there. A variable keeps its tensor until it is given something else, and in a loop that is *after* the next "
        "read: del it first, or use no variable".format(*reader.together or ("", "")),
    )
    print("Exercise 3: right. The peak is the model and one tensor, and nothing was left empty.")
