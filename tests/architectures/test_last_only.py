"""Where only the last position's answer is asked for, the last block gives no other; and the answer stays the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES
from course_helpers.architectures.layers import AttentionContext
from tests.architectures.test_cache import MODELS, SLIDING
from tests.tiny_models import CONFIGS, EXAMPLES, logits_of, random_ids, random_model

every_family = pytest.mark.parametrize("family", FAMILIES)
NEAR = {"rtol": 0, "atol": 5e-6}


def last(model, ids: torch.Tensor, **options: object) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids, last_only=True, **options)


@every_family
@settings(max_examples=25)
@given(data=st.data())
def test_the_answer_and_what_the_cache_remembers_are_those_of_a_whole_pass(family, data):
    config = SLIDING[family] if family in SLIDING and data.draw(st.booleans()) else data.draw(CONFIGS[family])
    model = random_model(config)
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    rows, tokens = data.draw(st.integers(1, 3)), sum(sizes)
    pads = data.draw(st.lists(st.integers(0, sizes[0] - 1), min_size=rows, max_size=rows))
    padding = torch.tensor(pads) if any(pads) else None
    ids = random_ids(config, rows, tokens + 1)
    whole = logits_of(model, ids, left_padding_B=padding)

    cache = model.make_cache(rows, tokens + 1)
    for place, part in enumerate(ids[:, :tokens].split(sizes, dim=1)):
        found = last(model, part, cache=cache, left_padding_B=None if place else padding)
    torch.testing.assert_close(found, whole[:, tokens - 1 : tokens], **NEAR)
    torch.testing.assert_close(last(model, ids[:, tokens:], cache=cache), whole[:, tokens:], **NEAR)
    torch.testing.assert_close(last(model, ids, left_padding_B=padding), whole[:, -1:], **NEAR)


@every_family
def test_hidden_states_of_the_last_position_as_well(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 2, 9)
    with torch.no_grad():
        expected = model(ids, hidden_states=True)[:, -1:]
    torch.testing.assert_close(last(model, ids, hidden_states=True), expected, **NEAR)


@every_family
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_last_block_works_for_one_position_where_only_results_matter(family, mode):
    model, ids, seen = MODELS[family], random_ids(EXAMPLES[family], 2, 9), []
    hooks = [
        block.feed_forward.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
        for block in model.blocks
    ]
    with mode():
        model(ids, last_only=True)
        model(ids)
    for hook in hooks:
        hook.remove()
    others = [9] * (len(model.blocks) - 1)
    assert seen == [*others, 1 if mode is torch.inference_mode else 9, *others, 9]


@every_family
def test_a_block_that_knows_nothing_of_it_gives_the_same(family, monkeypatch):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 2, 9)
    expected = last(model, ids)
    monkeypatch.setattr(AttentionContext, "needed", lambda self, x_BTE: x_BTE)
    torch.testing.assert_close(last(model, ids), expected, **NEAR)
