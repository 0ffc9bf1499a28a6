"""The floor of the speed benchmark: its bytes are what a token really needs, found by brute force."""

import random

import pytest
import torch

from benchmarks.speed_floor import step_bytes
from benchmarks.speed_shapes import SINGLE, shapes
from course_helpers.families import family_of
from course_helpers.planning.calibration import random_model
from course_helpers.sizes import kv_cache_bytes

TINY = shapes("cpu", quick=True)


@torch.inference_mode()
def touched_bytes(config) -> int:
    """What one token needs, found by brute force: whatever changes its logits by being NaN. It is the second of a text,
    because the first has only itself to look at."""
    model = random_model(config, SINGLE, "cpu")
    random_state = torch.Generator().manual_seed(3)
    for parameter in model.parameters():  # all equal, experts would tie
        parameter.normal_(0.0, 0.5, generator=random_state)
    tables = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    right, found = second_token(model), 0
    for parameter in model.parameters():
        spared = {5, 1} if id(parameter) in tables else set()  # the row of the token, and that of its position
        parts = parameter if parameter.dim() == 3 else [parameter]  # the experts one by one
        for part in parts:
            kept = part.clone()

            def spoil(part=part, kept=kept, spared=spared):
                part.fill_(torch.nan)
                for row in spared:
                    part[row] = kept[row]

            found += part.nbytes * (not torch.equal(second_token(model, spoil), right))
            part.copy_(kept)
    return found


def second_token(model, between=lambda: None):
    """Its logits; something may be done to the model between the first token and the second."""
    cache = model.make_cache(1, 2)
    model(torch.tensor([[7]]), cache=cache)
    between()
    return model(torch.tensor([[5]]), cache=cache)


@pytest.mark.parametrize("name", TINY)
def test_the_floor_counts_what_a_token_needs(name):
    config = TINY[name].config
    assert step_bytes(config, SINGLE) == touched_bytes(config)


def test_rows_that_choose_different_experts_need_more_of_them():
    config, rows, random_state = TINY["moe"].config, 3, random.Random(5)
    draws = [
        len({expert for _ in range(rows) for expert in random_state.sample(range(config.num_experts), 2)})
        for _ in range(4000)
    ]
    one_expert = 3 * config.hidden_size * config.moe_intermediate_size * SINGLE.itemsize
    more = (sum(draws) / len(draws) - 2) * one_expert * config.num_hidden_layers
    assert step_bytes(config, SINGLE, rows) - step_bytes(config, SINGLE) == pytest.approx(more, rel=0.02)
    assert step_bytes(TINY["llama"].config, SINGLE, rows) == step_bytes(TINY["llama"].config, SINGLE)


def test_keys_and_values_are_read_as_well():
    config = TINY["olmo3"].config
    cache = family_of(config.to_hf()).model(config).make_cache(2, 40, SINGLE)
    assert step_bytes(config, SINGLE, 2, 40) - step_bytes(config, SINGLE, 2) == cache.nbytes
    assert cache.nbytes == kv_cache_bytes(config, 40, 2, SINGLE)
