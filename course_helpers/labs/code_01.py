"""Check functions for the exercises of M9-CODE-01: each failure names the likely mistake."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..architectures.llama import LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from ..families import FAMILIES
from ..loaders.weight_maps import GEMMA3
from ..training import initialize
from .checkpoint import hint
from .exercises import answer

#: Two key heads for four query heads, so that a function that knows only one number of heads shows it.
SMALL = LlamaConfig(
    vocab_size=32,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
)
TOKENS = 40


def check_gemma3_table(gemma3_table: Callable[[dict], Mapping[str, str]], qwen3: Mapping[str, str]) -> None:
    """Exercise 1: Gemma 3's table, made of Qwen3's."""
    before = dict(qwen3)
    table = answer(gemma3_table, qwen3)
    hint(not isinstance(table, Mapping), f"expected a table (a dict), got a {type(table).__name__}")
    hint(dict(qwen3) != before, "Qwen3's own table was changed: make a new one with qwen3 | {...}")
    expected = right_table()
    for name, target in expected.items():
        hint(
            name not in table,
            f"the file has {name}, and no row takes it. A name must be exact, with {{layer}} where the number stands",
        )
        found = table[name]
        hint(
            found != target and "post_attention" in name and found == qwen3.get(name),
            f"{name} still goes to {found}, as in a Llama, where that norm stands after attention and before the "
            "feed-forward part. In Gemma 3 it normalizes what attention has computed: it belongs to attention",
        )
        other = next((other for other, its in expected.items() if its == found), None)
        hint(
            found != target and other is not None,
            f"{name} goes to {found}, which is the place of {other}: are the two exchanged?",
        )
        hint(found != target, f"{name} goes to {found!r}, and Gemma 3 has no such parameter; check the spelling")
    surplus = [name for name in table if name not in expected]
    hint(bool(surplus), f"there is a row for {surplus and surplus[0]}, and the file has no such tensor")
    print("Exercise 1: right. Every norm is where it belongs.")


def right_table() -> dict[str, str]:
    """The package's own table, with the names as a text model of Gemma 3 has them."""
    config = next(iter(FAMILIES["gemma3"].presets.values()))
    first = GEMMA3.expand(config, "model.")
    numbered = {name.replace(".0.", ".{layer}."): rule.targets[0] for name, rule in first.items()}
    return {
        name: target.replace(".0.", ".{layer}.")
        for name, target in numbered.items()
        if name != "lm_head.weight" and not any(part.isdigit() for part in name.split("."))
    }


def check_pairs_to_halves(pairs_to_halves: Callable[[Tensor, int], Tensor]) -> None:
    """Exercise 2: rows in pairs to rows in halves, head by head."""
    width = 5
    for heads, half in ((3, 4), (2, 3)):
        head_dim = 2 * half
        ours = torch.arange(heads * head_dim * width, dtype=torch.float32).view(-1, width)
        place = [head * head_dim + part * half + i for head in range(heads) for i in range(half) for part in (0, 1)]
        theirs = ours[place]
        weight = theirs.clone()
        found = answer(pairs_to_halves, weight, heads)
        hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
        hint(
            not torch.equal(weight, theirs),
            "the matrix that was passed in was changed: a loader must leave its source as it is",
        )
        hint(
            found.shape != ours.shape,
            f"the shape must stay {tuple(ours.shape)}, yours is {tuple(found.shape)}: put heads and halves together "
            "again with reshape",
        )
        hint(torch.equal(found, theirs), "the rows are still in Meta's order")
        hint(
            torch.equal(found, torch.cat((theirs[0::2], theirs[1::2]))),
            "all the a's of all heads come first: every head must be reordered for itself",
        )
        hint(
            torch.equal(found, theirs.view(heads, 2, half, width).transpose(1, 2).reshape(-1, width)),
            "this is the way back, from our order to Meta's: view the rows as heads x pairs x 2, not heads x 2 x pairs",
        )
        hint(
            torch.equal(found, theirs.view(heads, head_dim, width).transpose(0, 1).reshape(-1, width)),
            "the heads are mixed up: let the pairs and the 2 change places, not the heads",
        )
        hint(
            torch.equal(found.sort(dim=0).values, ours) and not torch.equal(found, ours),
            "all rows are there, in a wrong order: first all a's of head 0, then all b's of head 0, then head 1",
        )
        hint(not torch.equal(found, ours), "some numbers are not from the same row any more: move whole rows only")
    print("Exercise 2: right. Meta's rows are in our order, for any number of heads.")


def check_is_right(is_right: Callable[[LlamaModel, Tensor, Tensor], bool]) -> None:
    """Exercise 3: a behaviour check that accepts what is right and finds every silent mistake."""
    model, ids = small_llama(), torch.arange(TOKENS)[None] * 7 % SMALL.vocab_size
    with torch.no_grad():
        noted = model(ids)
    verdict = answer(is_right, model, ids, noted)
    hint(not isinstance(verdict, bool), f"answer True or False, not a {type(verdict).__name__}: wrap it in bool(...)")
    hint(not verdict, "the right model was refused: its logits are the noted ones, to the bit")
    untouched = small_llama()
    hint(
        any(not torch.equal(one, two) for one, two in zip(model.parameters(), untouched.parameters(), strict=True)),
        "your check has changed the model: convert the logits, not the model",
    )
    hint(
        not is_right(small_llama().to(torch.bfloat16), ids, noted),
        "the right model in bfloat16 was refused: its rounding is no mistake. Allow more where the type is coarser",
    )
    for what, wrong, advice in wrong_models():
        hint(bool(is_right(wrong, ids, noted)), f"{what}, and the model was accepted: {advice}")
    print("Exercise 3: right. Rounding is forgiven, and none of the silent mistakes is.")


def small_llama() -> LlamaModel:
    """A small Llama whose parts all matter: random norms, and weights large enough for attention to choose."""
    model = initialize(LlamaModel(SMALL), seed=1).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.dim() == 1 else 0.7 / parameter.shape[1] ** 0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


@torch.no_grad()
def wrong_models() -> list[tuple[str, LlamaModel, str]]:
    """What was done to each, the model, and where to look. All have the right names and shapes."""
    swapped, one_layer, in_pairs, slower = (small_llama() for _ in range(4))
    for block in swapped.blocks:
        swap_gate_and_up(block)
    swap_gate_and_up(one_layer.blocks[1])
    for block in in_pairs.blocks:
        for linear in (block.attention.query, block.attention.key):
            rows = linear.weight.unflatten(0, (-1, 2, SMALL.head_dim // 2)).transpose(1, 2).flatten(0, 2)
            linear.weight.copy_(rows.clone())
    for block in slower.blocks:
        block.attention_norm.eps *= 100
    compare = "compare the model's logits with the noted ones"
    return [
        ("gate and up are swapped in every layer", swapped, compare),
        ("gate and up are swapped in one layer of three", one_layer, "the largest difference counts, not the mean"),
        (
            "the rows of query and key are in Meta's order",
            in_pairs,
            "it is right at the first token and wrong after it, so look at all positions",
        ),
        (
            "epsilon is 100 times too large",
            slower,
            "a small difference, but far more than 32-bit rounding: be strict where the type is float32",
        ),
        (
            "gate and up are swapped in one layer, and the weights are in bfloat16",
            copy.deepcopy(one_layer).to(torch.bfloat16),
            "allow for the rounding of 16 bits, and no more than that",
        ),
    ]


def swap_gate_and_up(block: torch.nn.Module) -> None:
    feed_forward = block.feed_forward
    feed_forward.gate, feed_forward.up = feed_forward.up, feed_forward.gate
