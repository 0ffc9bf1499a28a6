"""Mixture of experts: who is chosen, how much they count, and how their files are laid out."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from course_helpers.architectures.experts import Experts, MixtureOfExperts
from course_helpers.architectures.qwen3 import Qwen3MoeConfig
from course_helpers.families import FAMILIES
from course_helpers.loaders.weight_maps import QWEN3_MOE
from tests.tiny_models import Data
from tests.traps.checks import expert_files, field_needed, parity
from tests.traps.trap import Trap, attribute, exchanged, item

right_route, right_derived, right_forward = MixtureOfExperts.route, Qwen3MoeConfig.derived, Experts.forward


def otherwise_normalized(self: MixtureOfExperts, x_NE: Tensor) -> tuple[Tensor, Tensor]:
    other = copy.copy(self)
    other.normalize = not self.normalize
    return right_route(other, x_NE)


def chosen_before_softmax(self: MixtureOfExperts, x_NE: Tensor) -> tuple[Tensor, Tensor]:
    score_Nk, chosen_Nk = self.router(x_NE).topk(self.experts_per_token, dim=-1)
    return chosen_Nk, score_Nk.softmax(dim=-1)


def rows_exchanged(self: Experts, x_PE: Tensor, ends_X: Tensor) -> Tensor:
    gate_XFE, up_XFE = self.gate_up.chunk(2, dim=1)
    exchanged_halves = torch.cat((up_XFE, gate_XFE), dim=1)
    return right_forward(SimpleNamespace(gate_up=exchanged_halves, down=self.down, forms=None), x_PE, ends_X)


@classmethod
def guessed(cls: type[Qwen3MoeConfig], data: Data) -> Data:
    return right_derived(data) | {"norm_topk_prob": False}


EXPERT = "{trunk}layers.{layer}.mlp.experts.{expert}."
WEIGHTS = "blocks.0.feed_forward.router weights"
NOT_NORMALIZED = {"norm_topk_prob": False}
without_fused = replace(FAMILIES["qwen3_moe"], weight_maps=FAMILIES["qwen3_moe"].weight_maps[:1])

TRAPS = (
    Trap(
        "experts: weights not divided by their sum",
        "4.4",
        "qwen3_moe",
        attribute(MixtureOfExperts, "route", otherwise_normalized),
        parity,
        seen_at=WEIGHTS,
        word="sum to 1",
    ),
    Trap(
        "experts: weights divided by their sum, against the config",
        "4.4",
        "qwen3_moe",
        attribute(MixtureOfExperts, "route", otherwise_normalized),
        parity,
        NOT_NORMALIZED,
        seen_at=WEIGHTS,
        word="sum to 1",
    ),
    Trap(
        "experts: chosen first, softmax of the chosen only",
        "4.23",
        "qwen3_moe",
        attribute(MixtureOfExperts, "route", chosen_before_softmax),
        parity,
        NOT_NORMALIZED,
        seen_at=WEIGHTS,
        word="sum to 1",
    ),
    Trap(
        "experts: norm_topk_prob guessed where it is missing",
        "4.4",
        "qwen3_moe",
        attribute(Qwen3MoeConfig, "derived", guessed),
        field_needed("norm_topk_prob"),
    ),
    Trap(
        "experts: gate and up exchanged in the forward pass",
        "4.24",
        "qwen3_moe",
        attribute(Experts, "forward", rows_exchanged),
        parity,
        seen_at="blocks.0.feed_forward output",
        word="gate and up",
    ),
    Trap(
        "experts: gate and up exchanged in the weight map",
        "4.24",
        "qwen3_moe",
        exchanged(QWEN3_MOE.rows, f"{EXPERT}gate_proj.weight", f"{EXPERT}up_proj.weight"),
        expert_files,
    ),
    Trap(
        "experts: fused tensors of transformers 5 not known",
        "0.9, 4.16",
        "qwen3_moe",
        item(FAMILIES, "qwen3_moe", without_fused),
        parity,
    ),
)
