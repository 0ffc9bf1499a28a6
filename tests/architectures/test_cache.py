"""The cache changes how long a result takes, never the result; and it never changes size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.cache import KVCache
from tests.tiny_models import CONFIGS, EXAMPLES, logits_of, ours, random_ids

MODELS = {family: ours(config) for family, config in EXAMPLES.items()}
every_family = pytest.mark.parametrize("family", FAMILIES)


def in_chunks(
    model: LanguageModel, ids: torch.Tensor, sizes: list[int], cache: KVCache, **first: object
) -> torch.Tensor:
    """Logits of all tokens, given to the model a few at a time; `first` are the first call's options."""
    parts = [
        logits_of(model, part, cache=cache, **(first if not i else {})) for i, part in enumerate(ids.split(sizes, 1))
    ]
    return torch.cat(parts, dim=1)


def state(cache: KVCache) -> tuple:
    tensors = [tensor for layer in cache.layers for tensor in (layer.key_BKSD, layer.value_BKSD)]
    return cache.length, cache.left_padding_B, [tensor.clone() for tensor in tensors]


def pointers(cache: KVCache) -> list[int]:
    return [tensor.data_ptr() for layer in cache.layers for tensor in (layer.key_BKSD, layer.value_BKSD)]


def same_state(one: tuple, other: tuple) -> bool:
    return one[:2] == other[:2] and all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))


@every_family
@settings(max_examples=25)
@given(data=st.data(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_any_chunks_give_the_logits_of_one_pass(family, data, sizes, seed):
    config = data.draw(CONFIGS[family])
    model, ids = ours(config, seed), random_ids(config, 2, sum(sizes), seed)
    cache = model.make_cache(2, sum(sizes))
    before = pointers(cache)
    chunked = in_chunks(model, ids, sizes, cache)
    torch.testing.assert_close(chunked, logits_of(model, ids), rtol=0, atol=1e-5)
    assert cache.length == sum(sizes) and pointers(cache) == before


@every_family
@settings(max_examples=25)
@given(
    paddings=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_left_padded_row_has_the_logits_it_has_alone(family, paddings, sizes, seed):
    model, total = MODELS[family], 8 + sum(sizes)
    ids, padding = random_ids(EXAMPLES[family], len(paddings), total, seed), torch.tensor(paddings)
    whole = logits_of(model, ids, left_padding_B=padding)
    cache = model.make_cache(len(paddings), total)
    chunked = in_chunks(model, ids, [8, *sizes], cache, left_padding_B=padding)
    for index, skip in enumerate(paddings):
        alone = logits_of(model, ids[index : index + 1, skip:])[0]
        torch.testing.assert_close(whole[index, skip:], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(chunked[index, skip:], alone, rtol=0, atol=1e-5)


@every_family
def test_padding_never_makes_nan(family):
    ids, padding = random_ids(EXAMPLES[family], 2, 6), torch.tensor([5, 0])
    assert logits_of(MODELS[family], ids, left_padding_B=padding).isfinite().all()


@every_family
def test_a_full_cache_refuses_before_anything_changes(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 1, 8)
    cache = model.make_cache(1, 10)
    logits_of(model, ids, cache=cache)
    before = state(cache)
    with pytest.raises(ValueError, match="holds 10 positions, 8 are filled and 3 more came in"):
        model(ids[:, :3], cache=cache, left_padding_B=torch.tensor([1]))
    assert same_state(state(cache), before)


@every_family
def test_a_cache_of_other_rows_is_refused(family):
    cache = MODELS[family].make_cache(2, 10)
    with pytest.raises(ValueError, match="made for 2 rows, but 3 came in"):
        MODELS[family](random_ids(EXAMPLES[family], 3, 4), cache=cache)
    assert cache.length == 0


@every_family
def test_a_forward_that_fails_leaves_the_position_and_the_padding(family):
    model, cache = ours(EXAMPLES[family]), MODELS[family].make_cache(2, 10)
    ids = random_ids(EXAMPLES[family], 2, 4)

    def fail(*_: object) -> None:
        raise RuntimeError("half-way")

    def failing_pass(**options: object) -> tuple[int, torch.Tensor | None]:
        hook = model.blocks[-1].register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="half-way"):
            model(ids, cache=cache, **options)
        hook.remove()
        return cache.length, cache.left_padding_B

    assert failing_pass(left_padding_B=torch.tensor([0, 2])) == (0, None)
    expected = logits_of(model, ids, cache=cache)
    assert failing_pass() == (4, None)
    cache.reset()
    assert torch.equal(logits_of(model, ids, cache=cache), expected)


@every_family
def test_a_reset_cache_is_as_good_as_a_new_one_in_the_same_memory(family):
    model, cache, ids = MODELS[family], MODELS[family].make_cache(2, 12), random_ids(EXAMPLES[family], 2, 9)
    memory = pointers(cache)
    logits_of(model, ids, cache=cache, left_padding_B=torch.tensor([3, 0]))
    cache.reset()
    assert cache.length == 0 and cache.left_padding_B is None
    again = logits_of(model, ids.flip(1), cache=cache)
    assert (
        torch.equal(again, logits_of(model, ids.flip(1), cache=model.make_cache(2, 12))) and pointers(cache) == memory
    )


@every_family
def test_a_cache_may_store_another_type_than_the_model_computes_in(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 1, 8)
    cache = model.make_cache(1, 8, dtype=torch.bfloat16)
    chunked = in_chunks(model, ids, [5, 3], cache)
    exact = logits_of(model, ids)
    assert cache.nbytes == model.make_cache(1, 8).nbytes // 2 and chunked.dtype == exact.dtype
    assert 0 < (chunked - exact).abs().max() < 0.05 * exact.abs().max()


@every_family
def test_cache_bytes_are_two_per_layer_head_and_position(family):
    config = MODELS[family].config
    values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert MODELS[family].make_cache(3, 7).nbytes == values * 3 * 7 * 4


@every_family
def test_padding_is_given_once(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 2, 4)
    cache, padding = model.make_cache(2, 12), torch.tensor([2, 0])
    logits_of(model, ids, cache=cache, left_padding_B=padding)
    logits_of(model, ids, cache=cache, left_padding_B=padding.clone())  # the same again does no harm
    with pytest.raises(ValueError, match="begun with another left padding"):
        model(ids, cache=cache, left_padding_B=torch.tensor([1, 0]))
    assert cache.length == 8 and cache.left_padding_B.tolist() == [2, 0]
    cache.reset()
    logits_of(model, ids, cache=cache)
    with pytest.raises(ValueError, match="begun with another left padding"):
        model(ids, cache=cache, left_padding_B=padding)


@every_family
def test_a_cache_keeps_no_graph_alive(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 1, 4)
    cache = model.make_cache(1, 8)
    assert model(ids, cache=cache).requires_grad
    assert not any(layer.key_BKSD.requires_grad or layer.value_BKSD.requires_grad for layer in cache.layers)


def test_gpt2_has_no_position_beyond_its_last():
    model, ids = MODELS["gpt2"], random_ids(EXAMPLES["gpt2"], 1, 65)
    assert logits_of(model, ids[:, :64]).shape[1] == 64
    with pytest.raises(ValueError, match="learned 64 positions and has none for token 65"):
        model(ids)
    cache = model.make_cache(1, 80)
    logits_of(model, ids[:, :64], cache=cache)
    with pytest.raises(ValueError, match="none for token 65"):
        model(ids[:, 64:], cache=cache)
    assert cache.length == 64
