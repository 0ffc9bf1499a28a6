"""Rotary positions: which frequencies, in which layers, in which precision."""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from course_helpers.architectures import layers, rope
from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.architectures.gemma3 import Gemma3Config
from course_helpers.architectures.olmo3 import Olmo3Config
from course_helpers.architectures.rope import RopeParameters, RotaryEmbedding
from tests.tiny_models import EXAMPLES, Data
from tests.traps.checks import parity, table_bits
from tests.traps.trap import Trap, attribute, item

Scaled = tuple[Tensor, float]  # frequencies, and the factor on cos and sin
right_tables, right_from_hf = RotaryEmbedding.forward, RopeParameters.from_hf


def yarn_reversed(parameters: RopeParameters, frequencies: Tensor, head_dim: int) -> Scaled:
    right, factor = rope.yarn(parameters, frequencies, head_dim)
    return frequencies + frequencies / parameters.factor - right, factor


def yarn_without_factor(parameters: RopeParameters, frequencies: Tensor, head_dim: int) -> Scaled:
    return rope.yarn(parameters, frequencies, head_dim)[0], 1.0


def factor_on_cos_only(self: RotaryEmbedding, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    cos, sin = right_tables(self, positions_BT, dtype)
    return cos, sin / self.attention_factor


def bounds_exchanged(parameters: RopeParameters, frequencies: Tensor, head_dim: int) -> Scaled:
    low, high = parameters.low_freq_factor, parameters.high_freq_factor
    return rope.llama3(replace(parameters, low_freq_factor=high, high_freq_factor=low), frequencies, head_dim)


def factor_of_8(parameters: RopeParameters, frequencies: Tensor, head_dim: int) -> Scaled:
    return rope.llama3(replace(parameters, factor=8.0), frequencies, head_dim)


def full_everywhere(self: Olmo3Config, layer_type: str) -> RopeParameters:
    return self.rope_parameters[FULL]


def scaled_everywhere(self: Gemma3Config, layer_type: str) -> RopeParameters:
    full = self.rope_parameters[FULL]
    return replace(self.rope_parameters[layer_type], rope_type=full.rope_type, factor=full.factor)


def scaled_nowhere(self: Gemma3Config, layer_type: str) -> RopeParameters:
    return replace(self.rope_parameters[layer_type], rope_type="default")


def bases_exchanged(self: Gemma3Config, layer_type: str) -> RopeParameters:
    other = self.rope_parameters[FULL if layer_type == SLIDING else SLIDING]
    return replace(self.rope_parameters[layer_type], rope_theta=other.rope_theta)


def frequencies_rounded(self: RotaryEmbedding, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rounded = copy.copy(self)
    rounded.inverse_frequencies = self.inverse_frequencies.to(dtype).float()
    return right_tables(rounded, positions_BT, dtype)


def positions_rounded(self: RotaryEmbedding, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return right_tables(self, positions_BT.to(dtype), dtype)


@classmethod
def theta_not_nested(cls: type[RopeParameters], data: Data) -> RopeParameters:
    nested = {name: value for name, value in data["rope_parameters"].items() if name != "rope_theta"}
    return right_from_hf({**data, "rope_parameters": nested, "rope_theta": data.get("rope_theta") or 10_000.0})


@classmethod
def new_key_only(cls: type[RopeParameters], data: Data) -> RopeParameters:
    known = "rope_type" in (data.get("rope_scaling") or {})
    return right_from_hf(data if known else {**data, "rope_scaling": None})


def pairs_side_by_side(x_BHTD: Tensor, cos_B1TD: Tensor, sin_B1TD: Tensor) -> Tensor:
    turned_BHTD = torch.stack((-x_BHTD[..., 1::2], x_BHTD[..., ::2]), dim=-1).flatten(-2)
    return x_BHTD * cos_B1TD + turned_BHTD * sin_B1TD


FULL_COS, SLIDING_COS = (f"rotary_embeddings.{layer_type} cos" for layer_type in (FULL, SLIDING))
SCALING = EXAMPLES["llama3"]["rope_scaling"]
BY_32 = {"rope_scaling": SCALING | {"factor": 32.0}}
OLD_KEY = {"rope_scaling": {"type" if name == "rope_type" else name: value for name, value in SCALING.items()}}
NESTED = {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}

TRAPS = (
    Trap(
        "OLMo 3: YaRN in all layers",
        "0.1, 4.1",
        "olmo3",
        attribute(Olmo3Config, "rope", full_everywhere),
        parity,
        seen_at=SLIDING_COS,
        word="YaRN",
    ),
    Trap(
        "YaRN: no attention factor",
        "1",
        "olmo3",
        item(rope.KINDS, "yarn", yarn_without_factor),
        parity,
        seen_at=FULL_COS,
        word="attention factor is missing",
    ),
    Trap(
        "YaRN: attention factor on cos only",
        "1",
        "olmo3",
        attribute(RotaryEmbedding, "forward", factor_on_cos_only),
        parity,
        seen_at=FULL_COS.replace("cos", "sin"),
        word="on both cos and sin",
    ),
    Trap(
        "YaRN: ramp the wrong way round",
        "1",
        "olmo3",
        item(rope.KINDS, "yarn", yarn_reversed),
        parity,
        seen_at=FULL_COS,
        word="scaling",
    ),
    Trap(
        "Llama 3.1: scaling ignored",
        "6.3",
        "llama3",
        item(rope.KINDS, "llama3", rope.default),
        parity,
        seen_at=FULL_COS,
        word="scaling",
    ),
    Trap(
        "Llama 3.1: low and high factor exchanged",
        "1",
        "llama3",
        item(rope.KINDS, "llama3", bounds_exchanged),
        parity,
        seen_at=FULL_COS,
        word="scaling",
    ),
    Trap(
        "Llama 3.2: scaling by 8 instead of 32",
        "1",
        "llama3",
        item(rope.KINDS, "llama3", factor_of_8),
        parity,
        BY_32,
        seen_at=FULL_COS,
        word="scaling",
    ),
    Trap(
        "Gemma 3: linear scaling in the sliding layers, too",
        "1, 6.3",
        "gemma3",
        attribute(Gemma3Config, "rope", scaled_everywhere),
        parity,
        seen_at=SLIDING_COS,
        word="linear scaling",
    ),
    Trap(
        "Gemma 3: no linear scaling in the full layers",
        "1, 6.3",
        "gemma3",
        attribute(Gemma3Config, "rope", scaled_nowhere),
        parity,
        seen_at=FULL_COS,
        word="linear scaling",
    ),
    Trap(
        "Gemma 3: local and global base exchanged",
        "1",
        "gemma3",
        attribute(Gemma3Config, "rope", bases_exchanged),
        parity,
        {"rope_scaling": None},
        seen_at=SLIDING_COS,
        word="table of the full_attention layers",
    ),
    Trap(
        "rope_theta nested, as transformers 5 has it, is ignored",
        "4.17",
        "qwen3",
        attribute(RopeParameters, "from_hf", theta_not_nested),
        parity,
        NESTED,
        seen_at=FULL_COS,
        word="rope_theta",
    ),
    Trap(
        "rope_scaling with its older key, type, is ignored",
        "4.18",
        "llama3",
        attribute(RopeParameters, "from_hf", new_key_only),
        parity,
        OLD_KEY,
        seen_at=FULL_COS,
        word="scaling",
    ),
    Trap(
        "frequencies in bfloat16",
        "4.11, 6.9",
        "llama3",
        attribute(RotaryEmbedding, "forward", frequencies_rounded),
        table_bits,
    ),
    Trap(
        "positions in bfloat16",
        "4.11, 6.9",
        "llama3",
        attribute(RotaryEmbedding, "forward", positions_rounded),
        table_bits,
    ),
    Trap(
        "Llama: pairs side by side instead of in halves",
        "4.21",
        "llama2",
        attribute(layers, "apply_rotary", pairs_side_by_side),
        parity,
        seen_at="blocks.0.attention.output input",
        word="rotation",
    ),
)
