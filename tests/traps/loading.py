"""Loading, and what surrounds a model: layouts, refusals, the beginning and the end of texts."""

from dataclasses import replace

import torch

from course_helpers import generation, tokenizers
from course_helpers.architectures.llama import LlamaConfig
from course_helpers.errors import CheckpointError
from course_helpers.loaders import load
from course_helpers.loaders.assign import Plan
from course_helpers.loaders.rules import Rule, WeightMap
from course_helpers.loaders.sources import Checkpoint, MemoryTensors
from course_helpers.tokenizers import Tokenizer
from tests.tiny_models import Data
from tests.traps.checks import (
    beginning,
    bias_refused,
    extra_layers_refused,
    field_needed,
    meta_layout,
    missing_refused,
    old_constants,
    other_config_refused,
    parity,
    stop_list,
    stops,
)
from tests.traps.trap import Trap, attribute

right_to_ours, right_plan, right_derived = Rule.to_ours, load.make_plan, LlamaConfig.derived
right_encode, right_stop_set, right_stops = Tokenizer.encode, generation.stop_set, tokenizers.stops


def square_not_transposed(self: Rule, tensor, shapes):
    square = tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]
    return right_to_ours(replace(self, transpose=self.transpose and not square), tensor, shapes)


def rows_as_they_are(self: Rule, tensor, shapes):
    return right_to_ours(replace(self, interleaved=False), tensor, shapes)


def nothing_dropped(self: WeightMap, config, trunk, names) -> dict[str, str]:
    return {}


def tolerant(checkpoint: Checkpoint, weight_maps, config, shapes) -> Plan:
    """Zeros for what is missing; what there is no place for is left out."""
    try:
        return right_plan(checkpoint, weight_maps, config, shapes)
    except CheckpointError as error:
        for problem in error.problems:
            if checkpoint.file_of.pop(problem.tensor, None) is None:
                zeros = torch.zeros(shapes[problem.expected.removeprefix("a tensor for ")])
                checkpoint.file_of[problem.tensor] = MemoryTensors({problem.tensor: zeros})
        return right_plan(checkpoint, weight_maps, config, shapes)


def any_config(checkpoint: Checkpoint, config) -> None:
    pass


@classmethod
def guessed(cls: type[LlamaConfig], data: Data) -> Data:
    return right_derived(data) | {"rms_norm_eps": 1e-6}


def without_beginning(self: Tokenizer, text: str, *, bos: bool | None = None) -> list[int]:
    return right_encode(self, text, bos=False)


def begun_twice(self: Tokenizer, text: str, *, bos: bool | None = None) -> list[int]:
    return [self.bos_id, *right_encode(self, text, bos=bos)]


def first_stop_only(stop_ids) -> frozenset[int]:
    return right_stop_set([*(stop_ids or ())][:1])


def first_of_list(backend, folder) -> tuple[int, ...]:
    return right_stops(backend, folder)[:1]


TRAPS = (
    Trap(
        "Meta's layout: rows of query and key as they are",
        "3, 4.21",
        "llama3",
        attribute(Rule, "to_ours", rows_as_they_are),
        meta_layout,
    ),
    Trap(
        "GPT-2: the square matrix is not transposed",
        "4.20",
        "gpt2",
        attribute(Rule, "to_ours", square_not_transposed),
        parity,
        seen_at="blocks.0.attention.output.weight weight",
        word="transposed",
        loading=True,
    ),
    Trap(
        "GPT-2: the mask in old files is taken for a weight",
        "3, 6.17",
        "gpt2",
        attribute(WeightMap, "expand_dropped", nothing_dropped),
        old_constants,
    ),
    Trap(
        "a missing tensor stays as it was",
        "0.5",
        "llama3",
        attribute(load, "make_plan", tolerant),
        missing_refused,
    ),
    Trap(
        "biases are left out: Qwen2 as Llama",
        "0.5, 6.11",
        "llama3",
        attribute(load, "make_plan", tolerant),
        bias_refused,
    ),
    Trap(
        "surplus layers are left out",
        "0.5",
        "llama3",
        attribute(load, "make_plan", tolerant),
        extra_layers_refused,
    ),
    Trap(
        "weights of another number of heads fit",
        "0.5",
        "llama3",
        attribute(load, "check_same_config", any_config),
        other_config_refused,
    ),
    Trap(
        "epsilon guessed where it is missing",
        "4.2, 4.5",
        "llama3",
        attribute(LlamaConfig, "derived", guessed),
        field_needed("rms_norm_eps"),
    ),
    Trap(
        "prompts without the beginning-of-text token",
        "0.10",
        "llama3",
        attribute(Tokenizer, "encode", without_beginning),
        beginning,
    ),
    Trap(
        "prompts with two of them",
        "6.6",
        "llama3",
        attribute(Tokenizer, "encode", begun_twice),
        beginning,
    ),
    Trap(
        "generation stops at the first stop id only",
        "4.19, 6.7",
        "gpt2",
        attribute(generation, "stop_set", first_stop_only),
        stops,
    ),
    Trap(
        "only the first stop id is read",
        "4.19, 6.7",
        "llama3",
        attribute(tokenizers, "stops", first_of_list),
        stop_list,
    ),
)
