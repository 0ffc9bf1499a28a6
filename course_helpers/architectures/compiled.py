"""Compiled decoding: one step of the model as one program, made by torch.compile.

A step of a small model is some hundred operations of a few microseconds each, and starting them takes longer than they
do. Compiled, they are fused into few; on NVIDIA, torch records even those as one CUDA graph, which is started whole.
The step is the model's own code (`LanguageModel.decode`); only the cache is another (see `static_cache.py`).

Prefill is not compiled: prompts differ in length, and its large products take their time anyway.
"""

import types
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import CourseWarning
from .static_cache import StaticCache, StepMemory

if TYPE_CHECKING:
    from .base import LanguageModel

#: Kind of device -> how torch.compile works there. "reduce-overhead" is its name for CUDA graphs.
MODES = {"cpu": "default", "cuda": "reduce-overhead"}
#: The smallest room that a cache gets: up to here, attention over empty slots costs next to nothing.
LEAST_ROOM = 256


def compile_decoding(model: "LanguageModel") -> None:
    """Have a model decode by compiled steps from now on. Where this machine cannot compile, a CourseWarning says why,
    and the model stays as it was."""
    reason = why_not(model.device)
    if reason is None:
        model.compiled = CompiledSteps()
    else:
        warn_uncompiled(f"cannot compile for {model.device.type} here: {reason}")


def why_not(device: torch.device) -> str | None:
    """Why this machine cannot compile for a device; None if it can. One addition is tried, so that a missing compiler
    is found now, and not inside the first token."""
    if device.type not in MODES:
        return f"only {' and '.join(MODES)} are known to work"
    try:
        with torch.inference_mode(False):
            torch.compile(add_one, fullgraph=True, dynamic=False)(torch.zeros(16, device=device))
    except Exception as error:  # what is missing decides what is raised, and where: there is no one class for it
        return first_line(error)
    return None


def add_one(x: Tensor) -> Tensor:
    return x + 1


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def warn_uncompiled(what: str) -> None:
    warnings.warn(
        f"{what}\n  what happens  decoding runs uncompiled: the same tokens, more slowly"
        "\n  likely cause  no C++ compiler or no Python headers (cpu), no Triton (cuda)"
        "\n  next step     Debian, Ubuntu: apt-get install g++ python3-dev; macOS: xcode-select --install; "
        "cuda: a torch that brings Triton",
        CourseWarning,
        stacklevel=4,
    )


class CompiledSteps:
    """The compiled steps of one model: one for each number of rows, room of the cache, type and device."""

    def __init__(self, backend: str | Callable = "inductor"):
        self.backend = backend
        self.steps: dict[tuple, Callable[[LanguageModel, StepMemory], Tensor]] = {}
        self.spare: dict[tuple, StepMemory] = {}

    def __reduce__(self) -> tuple:
        """A copy of the model compiles steps of its own."""
        return CompiledSteps, (self.backend,)

    def make_cache(
        self, model: "LanguageModel", batch_size: int, max_length: int, dtype: torch.dtype, device: torch.device
    ) -> StaticCache:
        """A cache for these steps. The memory of one that is no longer in use serves again: a CUDA graph is bound to
        the memory that it was recorded with."""
        windows, heads, head_dim = layout = model.cache_layout
        shape_BKSD = batch_size, heads, room_for(max_length, model.config.max_position_embeddings), head_dim
        key = shape_BKSD, dtype, device
        with torch.inference_mode(False):  # memory made in that mode could not be written to outside of it
            memory = self.spare.pop(key, None) or fixed(StepMemory(windows, shape_BKSD, dtype, device))
            cache = StaticCache(layout, memory, max_length)
        weakref.finalize(cache, self.spare.__setitem__, key, memory).atexit = False
        return cache

    def step(
        self, model: "LanguageModel", token_ids_B1: Tensor, cache: StaticCache, padding_B: Tensor | None
    ) -> Tensor:
        """Logits (B, 1, V) of one more token a row. They carry no gradient, whatever mode torch is in."""
        check_ids(token_ids_B1, model.config.vocab_size)
        cache.begin(1, id(model))
        # In one mode always: another one would be another program.
        with torch.inference_mode(False), torch.no_grad():
            cache.memory.aim(token_ids_B1, cache.length, padding_B)
            logits_B1V = self.run(model, cache.memory)
        cache.advance(1, padding_B)
        return logits_B1V

    def run(self, model: "LanguageModel", memory: StepMemory) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException

        first = memory.layers[0].key_BKSD
        key = first.shape[0], memory.room, first.dtype, first.device
        if key not in self.steps:
            self.steps[key] = self.compile(model, memory)
        if first.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            logits_B1V = self.steps[key](model, memory)
        except TorchDynamoException as error:  # raised while compiling: nothing of the step has run yet
            warn_uncompiled(f"this model's step does not compile: {first_line(error)}")
            self.steps[key] = one_step
            logits_B1V = one_step(model, memory)
        return logits_B1V.clone() if first.is_cuda else logits_B1V  # the next run of a CUDA graph takes the same place

    def compile(self, model: "LanguageModel", memory: StepMemory) -> Callable[["LanguageModel", StepMemory], Tensor]:
        model.contexts(0, 1, None, None)  # moves rotary frequencies to the device: a graph must not hold such a copy
        # torch keeps at most eight programs for one piece of code; a copy of the code has a count of its own.
        own = types.FunctionType(one_step.__code__.replace(), one_step.__globals__)
        mode = MODES[memory.position_11.device.type] if self.backend == "inductor" else None
        return torch.compile(own, backend=self.backend, mode=mode, fullgraph=True, dynamic=False)


def one_step(model: "LanguageModel", memory: StepMemory) -> Tensor:
    return model.decode(memory)


def fixed(memory: StepMemory) -> StepMemory:
    """Tell torch that the memory stays where it is: a CUDA graph then writes into it, and not into a copy."""
    from torch._dynamo import mark_static_address

    for tensor in memory.tensors:
        mark_static_address(tensor)
    return memory


def check_ids(token_ids: Tensor, vocab_size: int) -> None:
    """Raises IndexError, as an uncompiled embedding does, for an id that is not in the vocabulary: a compiled loop may
    end the whole process there. Not on other devices, where the answer would have to be waited for."""
    if token_ids.device.type == "cpu":
        lowest, highest = token_ids.aminmax()
        if lowest < 0 or highest >= vocab_size:
            raise IndexError(f"token ids go from 0 to {vocab_size - 1}, but these go from {lowest} to {highest}")


def room_for(max_length: int, longest: int) -> int:
    """The room of a cache: a power of two, or what the model was made for where that is less and enough."""
    room = max(LEAST_ROOM, 1 << (max_length - 1).bit_length())
    return min(room, longest) if max_length <= longest else room
