"""Check functions for exercises 1 and 2 of M9-CODE-02: each failure names the likely mistake.

The third is in `code_02_capped.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..architectures.llama import LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from ..loaders.rules import Rule, WeightMap
from ..training import initialize
from .checkpoint import hint
from .exercises import answer, called

#: Four heads of 6 are as wide as the model: the output matrix is a square, and no shape shows on which side it lies.
SMALL = LlamaConfig(
    vocab_size=32,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
)


class Row:
    """An adapter for the check of exercise 1: nothing but itself."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"the adapter {self.name!r}"


def check_pick(pick: Callable[[Mapping[str, Any], str, Mapping[str, Any]], Any]) -> None:
    """Exercise 1: the selector."""
    adapters = {name: Row(name) for name in ("llama", "qwen3", "qwen3_moe", "gpt2")}
    before = dict(adapters)
    for name, row in before.items():
        found = answer(pick, {"model_type": name}, "checkpoint", adapters)
        hint(found == name, f"you returned the name {name!r}; return the adapter that stands under it")
        hint(found is not row, f"model_type is {name!r}, and you chose {found!r}")
    found = answer(pick, {"model_type": "llama"}, "my-qwen3-finetune", adapters)
    hint(
        found is not before["llama"],
        "the folder is called my-qwen3-finetune, and its config says llama: you went by the folder's name. Folders are "
        "renamed, and model_type was written by whoever wrote the weights",
    )
    for config, why in (
        ({"model_type": "mamba"}, "an unknown family"),
        ({"model_type": "qwen2"}, "qwen2, which looks like qwen3 and has other tensors"),
        ({"model_type": "llama4"}, "llama4, which begins like llama and is another architecture"),
        ({}, "a config without a model_type"),
    ):
        message = refused(pick, config, adapters, why)
        asked = config.get("model_type")
        hint(
            asked is not None and asked not in message,
            f"{why} was refused, and the message does not say which type was asked for ({asked})",
        )
        missing = [name for name in before if name not in message]
        hint(
            bool(missing),
            f"{why} was refused with {message!r}. That leaves the reader alone: say which types are known, too",
        )
    hint(adapters != before, "the registry has changed: choosing must not add a row to it")
    print("Exercise 1: right. It goes by what the config says, and refuses the rest in words that help.")


def refused(pick: Callable, config: Mapping[str, Any], adapters: Mapping[str, Any], why: str) -> str:
    """The message of the LookupError that a selector raises for a config that it must refuse."""
    try:
        found = called(pick, config, "some-qwen3-folder", adapters)
    except LookupError as error:
        return str(error)
    except (AttributeError, TypeError, ValueError) as error:
        hint(True, f"{why}: raise a LookupError; yours was {type(error).__name__}: {error}")
    hint(
        "qwen3" in repr(found),
        f"{why}, in a folder called some-qwen3-folder, was taken for {found!r}: by the folder's name, or because it "
        "is near. Near is not the same: refuse it",
    )
    hint(
        True,
        f"{why} was not refused: the answer was {found!r}. A default loads a wrong model without a word; raise "
        "LookupError",
    )


def kernel_tensors(model: LlamaModel) -> dict[str, Tensor]:
    """A Llama as exercise 2's imaginary program stores it: matrices (input, output), and some of them side by side."""
    tensors = {"embed/table": model.token_embedding.weight}
    for layer, block in enumerate(model.blocks):
        attention, feed_forward = block.attention, block.feed_forward
        qkv = (attention.query, attention.key, attention.value)
        up_gate = (feed_forward.up, feed_forward.gate)
        tensors |= {
            f"layer_{layer}/norm_1/scale": block.attention_norm.weight,
            f"layer_{layer}/qkv/kernel": torch.cat([part.weight for part in qkv]).T,
            f"layer_{layer}/out/kernel": attention.output.weight.T,
            f"layer_{layer}/norm_2/scale": block.feed_forward_norm.weight,
            f"layer_{layer}/up_gate/kernel": torch.cat([part.weight for part in up_gate]).T,
            f"layer_{layer}/down/kernel": feed_forward.down.weight.T,
        }
    tensors["norm/scale"] = model.final_norm.weight
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def random_llama(config: LlamaConfig = SMALL, kind: type[LlamaModel] = LlamaModel) -> LlamaModel:
    """Random weights, large enough for every part to matter; norms, too."""
    model = initialize(kind(config), seed=2, deviation=0.3).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def check_kernel_rows(kernel_rows: Callable[[], Mapping[str, str | Rule]]) -> None:
    """Exercise 2: the rows of a layout with other names, turned and joined matrices."""
    rows = answer(kernel_rows)
    hint(not isinstance(rows, Mapping), f"expected a table (a dict), got a {type(rows).__name__}")
    strange = [name for name, row in rows.items() if not isinstance(row, str | Rule)]
    hint(bool(strange), f"the row of {strange and strange[0]} is neither a name nor a Rule")
    for name, row in rows.items():
        hint_about_writing(name, row)
    model = random_llama()
    tensors, parameters = kernel_tensors(model), dict(model.named_parameters())
    rules = WeightMap("kernels", rows).expand(SMALL)
    for name in tensors:
        numbered = any(known.startswith("layer_0/") for known in rows)
        hint(
            name not in rules and numbered and not name.startswith("layer_0/"),
            f"no row takes {name}: a row with {{layer}} in it stands for all layers, one with 0 for the first",
        )
        hint(name not in rules, f"the file has {name}, and no row takes it; names must be exact")
    surplus = [name for name in rules if name not in tensors]
    hint(bool(surplus), f"there is a row for {surplus and surplus[0]}, and the file has no such tensor")
    filled = [target for rule in rules.values() for target in rule.targets]
    for target in filled:
        hint(
            target not in parameters,
            f"{target} is no parameter of the model; is {{layer}} missing, or the name misspelt?",
        )
        hint(filled.count(target) > 1, f"{target} is filled {filled.count(target)} times")
    for name, rule in rules.items():
        hint_about_rule(name, rule, tensors[name], parameters)
    empty = [name for name in parameters if name not in filled]
    hint(bool(empty), f"nothing fills {empty and empty[0]}")
    print(f"Exercise 2: right. {len(rows)} rows, and every number is in its place.")


def hint_about_writing(name: str, row: str | Rule) -> None:
    """Say what is wrong with the form of one row, before anybody uses it."""
    targets = row.targets if isinstance(row, Rule) else (row,)
    hint(
        isinstance(targets, str),
        f'{name}: a Rule\'s targets are a tuple, also if there is one: Rule(("...",), transpose=True), with the comma',
    )
    numbered = ["{layer}" in text for text in (name, *targets)]
    hint(
        any(numbered) and not all(numbered),
        f"the row of {name} has {{layer}} on one side only: a row with {{layer}} in it stands for all layers, and the "
        "number goes into both names",
    )
    unknown = [text for text in (name, *targets) if "{" in text.replace("{layer}", "")]
    hint(bool(unknown), f"{unknown and unknown[0]}: the only placeholder here is {{layer}}; is an f-string missing?")


def hint_about_rule(name: str, rule: Rule, tensor: Tensor, parameters: Mapping[str, Tensor]) -> None:
    """Say what is wrong with one row whose names are all known."""
    square = tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]
    hint(
        tensor.dim() == 2 and "kernel" in name and not rule.transpose,
        f"{name} is stored (input, output), and our parameters are (output, input): transpose=True"
        + (". This one is a square: every shape fits, and the model is wrong" if square else ""),
    )
    hint(
        tensor.dim() == 2 and "table" in name and rule.transpose,
        f"{name} is a table with a row for each token, as ours is: it must not be turned",
    )
    shapes = [parameters[target].shape for target in rule.targets]
    joined = {"qkv": 3, "up_gate": 2}.get(name.split("/")[-2], 1)
    hint(
        len(rule.targets) != joined,
        f"{name} holds {joined} matrices side by side, and your row has {len(rule.targets)} target(s)"
        if joined > 1
        else f"{name} is one tensor, and your row cuts it in {len(rule.targets)}",
    )
    expected = rule.source_shape(shapes)
    hint(expected != tuple(tensor.shape), f"{name} has shape {tuple(tensor.shape)}, your row would want {expected}")
    wrong = [
        target
        for target, piece in zip(rule.targets, rule.to_ours(tensor, shapes), strict=True)
        if not torch.equal(piece, parameters[target])
    ]
    advice = "they stand in the order that the name says" if joined > 1 else "another parameter belongs there"
    hint(bool(wrong), f"{name}: the shapes fit, and {wrong and wrong[0]} gets the wrong numbers; {advice}")
