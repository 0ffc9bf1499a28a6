"""The cache changes how long a result takes, never the result; and it never changes size."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.cache import KVCache
from course_helpers.memory import kv_cache_bytes
from tests.tiny_models import CONFIGS, EXAMPLES, logits_of, random_ids, random_model

MODELS = {family: random_model(config) for family, config in EXAMPLES.items()}
every_family = pytest.mark.parametrize("family", FAMILIES)

#: One model for each family that has sliding layers, with a window of 7.
SLIDING = {
    "qwen3": EXAMPLES["qwen3"] | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "gemma3": EXAMPLES["gemma3"],
    "olmo3": EXAMPLES["olmo3"],
}
every_sliding_family = pytest.mark.parametrize("family", SLIDING)


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
@settings(max_examples=40)
@given(data=st.data(), sizes=st.lists(st.integers(1, 11), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_any_chunks_give_the_logits_of_one_pass(family, data, sizes, seed):
    config = data.draw(CONFIGS[family])
    model, ids = random_model(config, seed), random_ids(config, 2, sum(sizes), seed)
    cache = model.make_cache(2, sum(sizes) + data.draw(st.integers(0, 9)))
    before = pointers(cache)
    chunked = in_chunks(model, ids, sizes, cache)
    torch.testing.assert_close(chunked, logits_of(model, ids), rtol=0, atol=1e-5)
    assert cache.length == sum(sizes) and pointers(cache) == before


@every_family
@settings(max_examples=15)
@given(data=st.data(), prefill=st.integers(1, 25), seed=st.integers(0, 99))
def test_token_by_token_gives_the_logits_of_one_pass(family, data, prefill, seed):
    config = data.draw(CONFIGS[family])
    model, ids = random_model(config, seed), random_ids(config, 2, 45, seed)
    chunked = in_chunks(model, ids, [prefill, *[1] * (45 - prefill)], model.make_cache(2, 45))
    torch.testing.assert_close(chunked, logits_of(model, ids), rtol=0, atol=1e-5)


@every_sliding_family
@pytest.mark.parametrize(
    "sizes", [[6, 1, 1, 1], [7, 1], [8, 1], [7, 7, 7], [6, 8], [1, 13, 1], [20, 1, 2], [3, 5, 6, 1]]
)
def test_chunks_meet_at_and_around_the_edge_of_the_window(family, sizes):
    model, ids = random_model(SLIDING[family]), random_ids(SLIDING[family], 2, sum(sizes))
    for room in (sum(sizes), 30):
        chunked = in_chunks(model, ids, sizes, model.make_cache(2, room))
        torch.testing.assert_close(chunked, logits_of(model, ids), rtol=0, atol=1e-5)


@every_family
@settings(max_examples=25)
@given(
    paddings=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 11), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_left_padded_row_has_the_logits_it_has_alone(family, paddings, sizes, seed):
    """Also where the padding is longer than a window, and where it does not end with the first chunk."""
    sizes = [*sizes, max(paddings) + 1]
    model, ids = MODELS[family], random_ids(EXAMPLES[family], len(paddings), sum(sizes), seed)
    padding = torch.tensor(paddings)
    whole = logits_of(model, ids, left_padding_B=padding)
    chunked = in_chunks(model, ids, sizes, model.make_cache(len(paddings), sum(sizes)), left_padding_B=padding)
    for index, skip in enumerate(paddings):
        alone = logits_of(model, ids[index : index + 1, skip:])[0]
        torch.testing.assert_close(whole[index, skip:], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(chunked[index, skip:], alone, rtol=0, atol=1e-5)


@every_family
@settings(max_examples=25)
@given(data=st.data(), paddings=st.lists(st.integers(0, 20), min_size=2, max_size=3), seed=st.integers(0, 99))
def test_rows_of_unequal_length_are_right_in_one_call_in_chunks_and_token_by_token(family, data, paddings, seed):
    """Of any model, across the edge of its window, wherever the chunks meet: every row as it is alone."""
    config = data.draw(CONFIGS[family])
    width = max(paddings) + data.draw(st.integers(1, 25))
    model, ids = random_model(config, seed), random_ids(config, len(paddings), width, seed)
    padding, chunks, left = torch.tensor(paddings), [], width
    while left:
        chunks.append(data.draw(st.integers(1, left)))
        left -= chunks[-1]
    alone = [logits_of(model, ids[index : index + 1, skip:])[0] for index, skip in enumerate(paddings)]
    for sizes in ([width], chunks, [1] * width):
        found = in_chunks(model, ids, sizes, model.make_cache(len(paddings), width), left_padding_B=padding)
        for index, skip in enumerate(paddings):
            torch.testing.assert_close(found[index, skip:], alone[index], rtol=0, atol=1e-5)


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
def test_a_cache_of_another_model_is_refused(family):
    wider = random_model(EXAMPLES["gpt2"] | {"n_embd": 24})
    cache = wider.make_cache(1, 10)
    with pytest.raises(ValueError, match="made for another model"):
        MODELS[family](random_ids(EXAMPLES[family], 1, 4), cache=cache)
    assert cache.length == 0


@every_family
def test_a_text_that_another_model_began_is_not_continued(family):
    """Of the same shape in every way: a base model and its chat version, say."""
    model, other, ids = MODELS[family], random_model(EXAMPLES[family], seed=1), random_ids(EXAMPLES[family], 2, 6)
    cache = model.make_cache(2, 10)
    first = logits_of(model, ids[:, :4], cache=cache)
    before = state(cache)
    with pytest.raises(ValueError, match=r"begun by another model; call cache.reset\(\)"):
        other(ids[:, 4:], cache=cache)
    assert same_state(state(cache), before)
    both = torch.cat((first, logits_of(model, ids[:, 4:], cache=cache)), dim=1)
    torch.testing.assert_close(both, logits_of(model, ids), rtol=0, atol=1e-5)
    cache.reset()  # empty, it serves any model that it fits
    torch.testing.assert_close(logits_of(other, ids, cache=cache), logits_of(other, ids), rtol=0, atol=1e-5)


@every_family
@settings(max_examples=25)
@given(data=st.data(), rows=st.integers(1, 3), room=st.integers(1, 20), seed=st.integers(0, 99))
def test_misuse_of_any_cache_is_refused_and_changes_nothing(family, data, rows, room, seed):
    config = data.draw(CONFIGS[family])
    model, filled = random_model(config, seed), data.draw(st.integers(0, room))
    ids, padding = random_ids(config, rows, room + 1, seed), torch.zeros(rows, dtype=torch.int64)
    cache = model.make_cache(rows, room)
    if filled:
        logits_of(model, ids[:, :filled], cache=cache, left_padding_B=padding)
    before = state(cache)
    misuses = {
        f"holds {room} positions, {filled} are filled": (ids[:, filled:], None),
        f"made for {rows} rows, but {rows + 1} came in": (random_ids(config, rows + 1, 1), None),
    }
    if 0 < filled < room:
        misuses["begun with another left padding"] = (ids[:, filled : filled + 1], padding + 1)
    for message, (new, left_padding) in misuses.items():
        with pytest.raises(ValueError, match=message):
            model(new, cache=cache, left_padding_B=left_padding)
        assert same_state(state(cache), before)


def broken_pass(model: LanguageModel, ids: torch.Tensor, cache: KVCache, layer: int = -1, **options: object) -> None:
    """A forward pass that fails before a layer, the last one unless another is named."""

    def fail(*_: object) -> None:
        raise RuntimeError("half-way")

    hook = model.blocks[layer].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="half-way"):
        model(ids, cache=cache, **options)
    hook.remove()


@every_family
def test_a_forward_that_fails_leaves_the_position_and_the_padding(family):
    model, cache, ids = MODELS[family], MODELS[family].make_cache(2, 10), random_ids(EXAMPLES[family], 2, 7)
    broken_pass(model, ids[:, :4], cache, left_padding_B=torch.tensor([0, 2]))
    assert (cache.length, cache.left_padding_B) == (0, None)
    first = logits_of(model, ids[:, :4], cache=cache)
    broken_pass(model, ids[:, 5:], cache)  # no ring goes round: nothing that is still needed was overwritten
    assert (cache.length, cache.left_padding_B) == (4, None)
    both = torch.cat((first, logits_of(model, ids[:, 4:], cache=cache)), dim=1)
    torch.testing.assert_close(both, logits_of(model, ids), rtol=0, atol=1e-5)


@every_sliding_family
@pytest.mark.parametrize(("filled", "new"), [(4, 4), (9, 1), (9, 3), (0, 8)])
def test_a_ring_that_was_half_overwritten_is_used_no_more(family, filled, new):
    model, ids = random_model(SLIDING[family]), random_ids(SLIDING[family], 2, filled + new)
    cache = model.make_cache(2, 20)
    if filled:
        logits_of(model, ids[:, :filled], cache=cache)
    broken_pass(model, ids[:, filled:], cache)
    for more in (1, new):
        with pytest.raises(ValueError, match=r"broke off after it had overwritten .* call cache.reset\(\)"):
            model(ids[:, :more], cache=cache)
    assert cache.length == filled
    cache.reset()
    assert torch.equal(logits_of(model, ids, cache=cache), logits_of(model, ids, cache=model.make_cache(2, 20)))


@every_family
@settings(max_examples=40)
@given(data=st.data(), filled=st.integers(0, 25), new=st.integers(1, 25), seed=st.integers(0, 99))
def test_a_pass_that_fails_anywhere_is_taken_back_or_the_cache_is_used_no_more(family, data, filled, new, seed):
    """Taken back where nothing that is still needed was overwritten; the model itself is as good as ever."""
    config = data.draw(CONFIGS[family])
    model, ids = random_model(config, seed), random_ids(config, 2, filled + new, seed)
    cache, padding = model.make_cache(2, filled + new), torch.tensor([0, data.draw(st.integers(0, filled))])
    whole = logits_of(model, ids, left_padding_B=padding)
    first = logits_of(model, ids[:, :filled], cache=cache, left_padding_B=padding) if filled else whole[:, :0]
    layer = data.draw(st.integers(0, len(model.blocks) - 1))
    broken_pass(model, ids[:, filled:], cache, layer, left_padding_B=padding)
    assert torch.equal(logits_of(model, ids, left_padding_B=padding), whole) and cache.length == filled
    if any(filled + new > ring.size for ring in cache.layers):
        with pytest.raises(ValueError, match="broke off after it had overwritten"):
            model(ids[:, filled:], cache=cache)
        cache.reset()
        first = whole[:, :0]
    rest = logits_of(model, ids[:, first.shape[1] :], cache=cache, left_padding_B=padding)
    torch.testing.assert_close(torch.cat((first, rest), dim=1), whole, rtol=0, atol=1e-5)


@every_family
def test_a_pass_that_fails_before_the_first_layer_changes_nothing(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 2, 12)
    cache = model.make_cache(2, 20)
    first = logits_of(model, ids[:, :9], cache=cache)
    before = state(cache)
    with pytest.raises(IndexError):
        model(ids[:, 9:] + 61, cache=cache)  # beyond the vocabulary
    assert same_state(state(cache), before)
    both = torch.cat((first, logits_of(model, ids[:, 9:], cache=cache)), dim=1)
    torch.testing.assert_close(both, logits_of(model, ids), rtol=0, atol=1e-5)


@every_family
def test_a_reset_cache_is_as_good_as_a_new_one_in_the_same_memory(family):
    model, cache, ids = MODELS[family], MODELS[family].make_cache(2, 12), random_ids(EXAMPLES[family], 2, 9)
    memory = pointers(cache)
    logits_of(model, ids, cache=cache, left_padding_B=torch.tensor([3, 0]))
    cache.reset()
    assert cache.length == 0 and cache.left_padding_B is None
    again = logits_of(model, ids.flip(1), cache=cache)
    new = logits_of(model, ids.flip(1), cache=model.make_cache(2, 12))
    assert torch.equal(again, new) and pointers(cache) == memory


@every_family
def test_a_cache_may_store_another_type_than_the_model_computes_in(family):
    model, ids = MODELS[family], random_ids(EXAMPLES[family], 1, 8)
    cache = model.make_cache(1, 8, dtype=torch.bfloat16)
    chunked = in_chunks(model, ids, [5, 3], cache)
    exact = logits_of(model, ids)
    assert cache.nbytes == model.make_cache(1, 8).nbytes // 2 and chunked.dtype == exact.dtype
    assert 0 < (chunked - exact).abs().max() < 0.05 * exact.abs().max()


@every_family
@settings(max_examples=25)
@given(data=st.data(), rows=st.integers(1, 3), room=st.integers(1, 40))
def test_a_sliding_layer_holds_at_most_its_window(family, data, rows, room):
    config = FAMILIES[family].config.from_hf(data.draw(CONFIGS[family]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
    with torch.device("meta"):
        model = FAMILIES[family].model(config)
    cache = model.make_cache(rows, room, dtype=dtype, device="cpu")
    for layer, layer_type in zip(cache.layers, config.layer_plan, strict=True):
        window = config.sliding_window if layer_type == "sliding_attention" else room
        assert layer.size == min(window, room)
        assert (
            layer.key_BKSD.shape
            == layer.value_BKSD.shape
            == (rows, config.num_key_value_heads, layer.size, config.head_dim)
        )
    tensors = [tensor for layer in cache.layers for tensor in (layer.key_BKSD, layer.value_BKSD)]
    taken = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    assert cache.nbytes == taken == kv_cache_bytes(config, room, rows, dtype)


@every_family
def test_cache_bytes_are_two_per_full_layer_head_and_position(family):
    """Beyond the window, that is: there the sliding layers grow no more."""
    model, config = MODELS[family], MODELS[family].config
    full = config.layer_plan.count("full_attention")
    values = 2 * full * config.num_key_value_heads * config.head_dim
    assert model.make_cache(3, 47).nbytes - model.make_cache(3, 7).nbytes == values * 3 * 40 * 4


@pytest.mark.parametrize(
    ("name", "positions", "nbytes"),
    [
        ("google/gemma-3-270m", 32768, (3 * 32768 + 15 * 512) * 2 * 256 * 2),
        ("google/gemma-3-4b-pt", 131072, (5 * 131072 + 29 * 1024) * 2 * 4 * 256 * 2),
        ("allenai/Olmo-3-1025-7B", 65536, (8 * 65536 + 24 * 4096) * 2 * 32 * 128 * 2),
        ("allenai/Olmo-3-1125-32B", 65536, (16 * 65536 + 48 * 4096) * 2 * 8 * 128 * 2),
        ("Qwen/Qwen3-4B", 40960, 36 * 40960 * 2 * 8 * 128 * 2),
    ],
)
def test_caches_of_released_models_are_as_large_as_their_windows_say(name, positions, nbytes):
    family = next(family for family in FAMILIES.values() if name in family.presets)
    with torch.device("meta"):
        cache = family.model(family.presets[name]).make_cache(1, positions, dtype=torch.bfloat16)
    assert cache.nbytes == nbytes == kv_cache_bytes(family.presets[name], positions)


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


def test_memory_is_free_as_soon_as_nobody_holds_the_cache():
    """And not when Python next looks for circles: on a GPU that would be too late."""
    cache = MODELS["gemma3"].make_cache(1, 20)
    layers = [weakref.ref(layer) for layer in cache.layers]
    gc.disable()
    try:
        del cache
        assert not any(layer() for layer in layers)
    finally:
        gc.enable()


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
