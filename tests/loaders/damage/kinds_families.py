"""Damage to what is particular to a family: precision, biases, norms of queries, experts, constants in old files."""

import re
from random import Random

import torch
from torch import Tensor

from tests.loaders.damage.case import Case
from tests.loaders.damage.kind import BYTES, EQUAL, FOLDERS, Damage, Kind
from tests.loaders.damage.kinds_tensors import HF, LLAMA, add

# Transformers itself writes the experts of safetensors files one by one.
FUSED = tuple(format for format in HF if "safetensors" not in format)


def to_bfloat16(case: Case, random: Random) -> None:
    case.edit(lambda ts: ts.update({n: t.to(torch.bfloat16) for n, t in ts.items()}))


def labelled_float16(case: Case, random: Random) -> None:
    case.edit(lambda ts: ts.update({n: t.contiguous().view(torch.float16) for n, t in ts.items()}))


def bfloat16_and_said(case: Case, random: Random) -> None:
    to_bfloat16(case, random)
    case.set_config(torch_dtype="bfloat16", dtype="bfloat16")


def bfloat16_and_not_said(case: Case, random: Random) -> None:
    to_bfloat16(case, random)
    case.change_json(case.config_file, lambda content: [content.pop(name, None) for name in ("torch_dtype", "dtype")])


def biases(case: Case, random: Random) -> None:
    """What Qwen2 has and Llama has not."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if re.search(r"[qkv]_proj\.weight$", name):
                tensors[name.replace("weight", "bias")] = torch.zeros(len(tensors[name]))

    case.edit(change)


def without(part: str) -> Damage:
    return lambda case, random: case.edit(lambda ts: [ts.pop(name) for name in list(ts) if part in name])


def split_experts(layers: int | None) -> Damage:
    """Fused experts one by one, as the hub has them: in every layer, or in the first ones only."""

    def change(tensors: dict[str, Tensor]) -> None:
        done = 0
        for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            stem, _, part = name.rpartition(".")
            if layers is not None and done >= layers:
                return
            fused, done = tensors.pop(name), done + 1
            parts = ("gate_proj", "up_proj") if part == "gate_up_proj" else ("down_proj",)
            for expert, both in enumerate(fused):
                for which, weight in zip(parts, both.chunk(len(parts)), strict=True):
                    tensors[f"{stem}.{expert}.{which}.weight"] = weight.clone()

    return lambda case, random: case.edit(change)


def one_expert_less(case: Case, random: Random) -> None:
    split_experts(None)(case, random)
    gone: list[str] = []

    def change(tensors: dict[str, Tensor]) -> None:
        names = [name for name in tensors if ".experts." in name]
        if names and not gone:
            gone.append(random.choice(names))
            tensors.pop(gone[0])

    case.edit(change)


def frequencies(case: Case, random: Random) -> None:
    """What old files of Llama carry beside the weights."""
    pairs = case.whole.model.config.head_dim // 2
    values = 10_000.0 ** -(torch.arange(pairs) / pairs)
    first = next(iter(case.shapes()))
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    case.edit(lambda tensors: tensors.update({name: values.clone()}) if first in tensors else None)


def mask(size: int) -> Damage:
    return add("transformer.h.0.attn.bias", (1, 1, size, size))


KINDS = (
    Kind("bfloat16 labelled float16", FOLDERS, labelled_float16, says="16-bit", prepare=bfloat16_and_said),
    Kind(
        "bfloat16 labelled float16, and config.json silent",
        FOLDERS,
        labelled_float16,
        BYTES,
        prepare=bfloat16_and_not_said,
    ),
    Kind("biases in a family that has none", HF, biases, says="bias", families=LLAMA),
    Kind("the norms of queries left out", HF, without("q_norm"), says="q_norm", families=("qwen3", "gemma3", "olmo3")),
    Kind("experts one by one instead of fused", FUSED, split_experts(None), EQUAL, families=("qwen3_moe",)),
    Kind("experts of the first layer only one by one", FUSED, split_experts(2), families=("qwen3_moe",)),
    Kind("an expert's matrix is missing", HF, one_expert_less, says="experts", families=("qwen3_moe",)),
    Kind("the causal mask of another length", HF, mask(32), says="causal mask", families=("gpt2",)),
    Kind("a bias under the causal mask's name", HF, add("transformer.h.0.attn.bias", (48,)), families=("gpt2",)),
    Kind("the causal mask of old files", HF, mask(64), EQUAL, families=("gpt2",)),
    Kind(
        "another rotary base than the stored frequencies",
        FOLDERS,
        lambda case, random: case.set_config(rope_theta=5e5, rope_parameters=None),
        says="frequencies",
        families=("llama2",),
        prepare=frequencies,
    ),
    Kind(
        "other heads than the stored frequencies",
        FOLDERS,
        lambda case, random: case.set_config(num_attention_heads=2, num_key_value_heads=2, head_dim=None),
        says="heads of 12",
        families=("llama2",),
        prepare=frequencies,
    ),
)
