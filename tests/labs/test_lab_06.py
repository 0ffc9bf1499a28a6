"""M9-LAB-06: its exercise checks diagnose, its wrong OLMo 3s are wrong, its plans add up."""

import dataclasses
import math

import pytest
import torch

from course_helpers import load_model
from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.architectures.olmo3 import PRESETS, Olmo3Model
from course_helpers.labs import ExerciseHint, lab_06_charts, lab_06_figures
from course_helpers.labs.lab_06 import (
    cache_by_layer_type,
    common_beginning,
    pipeline_parameters,
    seconds_per_token,
    tensor_parallel_parameters,
    wrong_versions,
)
from course_helpers.labs.lab_06_exercises import (
    ROTARY,
    SMALL,
    check_longest_text,
    check_post_norm_block,
    check_rotary_tables,
    right_longest_text,
)
from course_helpers.memory import kv_cache_bytes, weight_bytes
from course_helpers.training import initialize

SCALING, SIZE = ROTARY["rope_scaling"], ROTARY["head_dim"]
FACTOR = 0.1 * math.log(SCALING["factor"]) + 1


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def block(x, attention, attention_norm, feed_forward, feed_forward_norm):
    x = x + attention_norm(attention(x))
    return x + feed_forward_norm(feed_forward(x))


def norms_before(x, attention, attention_norm, feed_forward, feed_forward_norm):
    x = x + attention(attention_norm(x))
    return x + feed_forward(feed_forward_norm(x))


def norms_around(x, attention, attention_norm, feed_forward, feed_forward_norm):
    x = attention_norm(x + attention(x))
    return feed_forward_norm(x + feed_forward(x))


def no_residual(x, attention, attention_norm, feed_forward, feed_forward_norm):
    return feed_forward_norm(feed_forward(attention_norm(attention(x))))


def first_half(x, attention, attention_norm, feed_forward, feed_forward_norm):
    return x + attention_norm(attention(x))


def second_half(f):
    """The attention half as it should be, the feed-forward half in another way."""

    def wrong(x, attention, attention_norm, feed_forward, feed_forward_norm):
        x = x + attention_norm(attention(x))
        return x + f(x, feed_forward, feed_forward_norm)

    return wrong


def parallel(x, attention, attention_norm, feed_forward, feed_forward_norm):
    return x + attention_norm(attention(x)) + feed_forward_norm(feed_forward(x))


def old_residual(x, attention, attention_norm, feed_forward, feed_forward_norm):
    return x + feed_forward_norm(feed_forward(x + attention_norm(attention(x))))


def exchanged(x, attention, attention_norm, feed_forward, feed_forward_norm):
    return block(x, attention, feed_forward_norm, feed_forward, attention_norm)


def no_norms(x, attention, attention_norm, feed_forward, feed_forward_norm):
    x = x + attention(x)
    return x + feed_forward(x)


def longest(
    config,
    budget,
    bytes_each,
    *,
    weights=True,
    two=2,
    each=None,
    heads=None,
    limited=True,
    floor=0,
    sliding_kept=True,
    windows=True,
):
    """A longest_text that is right, or has one thing wrong."""
    dtype = {2: torch.bfloat16, 4: torch.float32}[bytes_each]
    room = budget - weight_bytes(config, dtype) * weights
    one = two * (heads or config.num_key_value_heads) * config.head_dim * (each or bytes_each)
    full, sliding = (config.layer_plan.count(kind) for kind in (FULL, SLIDING))
    if not sliding_kept:
        tokens = room // (one * full)
    else:
        tokens = room // (one * (full + sliding))
        if windows and tokens > config.sliding_window:
            tokens = (room - one * sliding * config.sliding_window) // (one * full)
    tokens = min(tokens, config.max_position_embeddings) if limited else tokens
    return max(floor, tokens)


def lengths(**wrong):
    return lambda config, budget, bytes_each: longest(config, budget, bytes_each, **wrong)


def beyond_the_window_only(config, budget, bytes_each):
    """The formula for full windows, where they are not full."""
    room = budget - weight_bytes(config, {2: torch.bfloat16, 4: torch.float32}[bytes_each])
    one = 2 * config.num_key_value_heads * config.head_dim * bytes_each
    full, sliding = (config.layer_plan.count(kind) for kind in (FULL, SLIDING))
    tokens = (room - one * sliding * config.sliding_window) // (one * full)
    return max(0, min(tokens, config.max_position_embeddings))


def tables(
    rotary,
    layer_type,
    positions,
    *,
    yarn=(FULL,),
    ramp="right",
    factors=(FACTOR, FACTOR),
    everywhere=False,
    interleaved=False,
    swapped=False,
    doubled=True,
):
    """Tables that are right, or have one thing wrong."""
    theta, pairs = rotary["rope_theta"], torch.arange(SIZE // 2)
    plain = theta ** (-2 * pairs / SIZE)
    length = SCALING["original_max_position_embeddings"] / (2 * math.pi)
    fast, slow = (
        SIZE * math.log(length / SCALING[turns]) / (2 * math.log(theta)) for turns in ("beta_fast", "beta_slow")
    )
    low, high, more = math.floor(fast), math.ceil(slow), SIZE * math.log(2 * math.pi) / (2 * math.log(theta))
    straight = (pairs - low) / (high - low)
    slowed = {
        "right": straight.clamp(0, 1),
        "reversed": 1 - straight.clamp(0, 1),
        "all": torch.ones(SIZE // 2),
        "none": torch.zeros(SIZE // 2),
        "over all": pairs / (SIZE // 2 - 1),
        "not held": straight,
        "step": (pairs >= (low + high) / 2).float(),
        "not whole": ((pairs - fast) / (slow - fast)).clamp(0, 1),
        "other": straight.clamp(0, 1) ** 2,
        "faster": straight.clamp(0, 1),
        "both down": ((pairs - low) / (math.floor(slow) - low)).clamp(0, 1),
        "betas exchanged": ((pairs - math.floor(slow)) / (math.ceil(fast) - math.floor(slow))).clamp(0, 1),
        "without 2 pi": ((pairs - math.floor(fast + more)) / (math.ceil(slow + more) - math.floor(fast + more))).clamp(
            0, 1
        ),
    }[ramp]
    stretched = plain * SCALING["factor"] if ramp == "faster" else plain / SCALING["factor"]
    frequencies = stretched * slowed + plain * (1 - slowed) if layer_type in yarn else plain
    angles = torch.arange(positions)[:, None] * frequencies
    if doubled:
        angles = angles.repeat_interleave(2, -1) if interleaved else torch.cat((angles, angles), -1)
    cos, sin = factors if layer_type == FULL or everywhere else (1, 1)
    result = angles.cos() * cos, angles.sin() * sin
    return result[::-1] if swapped else result


def rotaries(**wrong):
    return lambda rotary, layer_type, positions: tables(rotary, layer_type, positions, **wrong)


@pytest.mark.parametrize(
    ("check", "right"),
    [(check_post_norm_block, block), (check_longest_text, longest), (check_rotary_tables, tables)],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


QUERY_HEADS = SMALL.num_attention_heads


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_post_norm_block, empty, "still empty"),
        (check_post_norm_block, silent, "return statement"),
        (check_post_norm_block, lambda *parts: 1, "expected a tensor"),
        (check_post_norm_block, lambda x, *parts: x[:2], "shape"),
        (check_post_norm_block, norms_before, "order of Llama"),
        (check_post_norm_block, norms_around, "swallowed the residual"),
        (check_post_norm_block, no_residual, "there is no residual"),
        (check_post_norm_block, first_half, "half is missing"),
        (check_post_norm_block, second_half(lambda x, sublayer, norm: sublayer(x)), "gives back is not normalised"),
        (check_post_norm_block, second_half(lambda x, sublayer, norm: sublayer(norm(x))), "comes before it"),
        (check_post_norm_block, parallel, "read the block's input"),
        (check_post_norm_block, old_residual, "second residual"),
        (check_post_norm_block, exchanged, "exchanged"),
        (check_post_norm_block, no_norms, "nothing is normalised"),
        (check_post_norm_block, lambda x, *parts: x, "other numbers"),
        (check_longest_text, empty, "still empty"),
        (check_longest_text, silent, "return statement"),
        (check_longest_text, lambda *arguments: 3.5, "whole number"),
        (check_longest_text, lengths(weights=False), "the weights are there, too"),
        (check_longest_text, lengths(windows=False), "stop growing at their window"),
        (check_longest_text, lengths(sliding_kept=False), "both kinds hold something"),
        (check_longest_text, lengths(heads=QUERY_HEADS), "query heads"),
        (check_longest_text, lengths(two=1), "where is the 2"),
        (check_longest_text, lengths(each=1), "where are the 4 bytes"),
        (check_longest_text, lengths(limited=False), "made for 4,000 tokens"),
        (check_longest_text, lengths(floor=-(10**9)), "no negative number"),
        (check_longest_text, beyond_the_window_only, "all layers grow alike"),
        (check_longest_text, lambda *case: min(beyond_the_window_only(*case) or -46, longest(*case)), "you say -46"),
        (check_longest_text, lambda *arguments: 7, "and not 7"),
        (check_rotary_tables, empty, "still empty"),
        (check_rotary_tables, silent, "return statement"),
        (check_rotary_tables, lambda *arguments: torch.zeros(2), "return two tables"),
        (check_rotary_tables, rotaries(doubled=False), "needed twice"),
        (check_rotary_tables, lambda *arguments: (torch.zeros(1), torch.zeros(1)), "should have the shape"),
        (check_rotary_tables, rotaries(yarn=(FULL, SLIDING)), "a sliding layer got YaRN"),
        (check_rotary_tables, rotaries(yarn=(FULL, SLIDING), everywhere=True), "a sliding layer got YaRN"),
        (check_rotary_tables, rotaries(everywhere=True), "belongs to YaRN alone"),
        (check_rotary_tables, rotaries(interleaved=True), "pair i is"),
        (check_rotary_tables, rotaries(swapped=True), "cos and sin are exchanged"),
        (check_rotary_tables, lambda rotary, kind, n: (torch.ones(n, SIZE),) * 2, "have other numbers"),
        (check_rotary_tables, rotaries(factors=(FACTOR, 1)), "one of the tables only"),
        (check_rotary_tables, rotaries(factors=(1, FACTOR)), "one of the tables only"),
        (check_rotary_tables, rotaries(factors=(1, 1)), "gives no attention_factor"),
        (check_rotary_tables, rotaries(factors=(FACTOR**2, FACTOR**2)), "applied twice"),
        (check_rotary_tables, rotaries(ramp="reversed"), "the ramp is reversed"),
        (check_rotary_tables, rotaries(ramp="all"), "slows every pair alike"),
        (check_rotary_tables, rotaries(yarn=()), "plain RoPE"),
        (check_rotary_tables, rotaries(ramp="over all"), "goes over all pairs"),
        (check_rotary_tables, rotaries(ramp="not held"), "clamp it"),
        (check_rotary_tables, rotaries(ramp="step"), "there is a step"),
        (check_rotary_tables, rotaries(ramp="not whole"), "rounded down"),
        (check_rotary_tables, rotaries(ramp="both down"), "rounded .up"),
        (check_rotary_tables, rotaries(ramp="betas exchanged"), "you began at beta_slow's"),
        (check_rotary_tables, rotaries(ramp="without 2 pi"), "2 pi radians"),
        (check_rotary_tables, rotaries(ramp="faster"), "sped up"),
        (check_rotary_tables, rotaries(ramp="reversed", factors=(1, 1)), "the ramp is reversed"),
        (check_rotary_tables, rotaries(ramp="other"), "pair by pair"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


@pytest.mark.parametrize("room", [0, 50_000, 10**6])
def test_the_longest_text_is_the_last_that_fits(room):
    budget = weight_bytes(SMALL) + room
    length = right_longest_text(SMALL, budget, 2)
    assert kv_cache_bytes(SMALL, length) <= room if length else room == 0
    assert length == SMALL.max_position_embeddings or kv_cache_bytes(SMALL, length + 1) > room


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny-olmo3", dtype=torch.float32)


def same_weights(model, kind, config):
    other = kind(config)
    other.load_state_dict(model.state_dict(), strict=True)
    return other


def test_every_wrong_version_but_one_loads_and_none_computes_the_same(tiny):
    ids_BT = torch.arange(60)[None] + 20  # longer than the window
    with torch.no_grad():
        right = tiny(ids_BT)
        assert torch.equal(same_weights(tiny, Olmo3Model, tiny.config)(ids_BT), right)
        refused = []
        for name, (kind, config) in wrong_versions(tiny.config).items():
            try:
                wrong = same_weights(tiny, kind, config)
            except RuntimeError:
                refused.append(name)
                continue
            assert not torch.allclose(wrong(ids_BT), right, atol=1e-2), name
    assert refused == ["QK-norm of Qwen3"]


def test_per_head_norm_with_the_same_weights_is_qwen3s_where_all_heads_have_equal_weights(tiny):
    kind, config = wrong_versions(tiny.config)["QK-norm per head, same weights"]
    other, config_of_qwen3 = wrong_versions(tiny.config)["QK-norm of Qwen3"]
    flat, per_head = initialize(kind(config), 1), initialize(other(config_of_qwen3), 1)
    shared = {name: tensor for name, tensor in flat.state_dict().items() if "_norm" not in name}
    per_head.load_state_dict(shared, strict=False)
    ids_BT = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.allclose(flat(ids_BT), per_head(ids_BT), atol=1e-5)


@pytest.mark.parametrize("size", PRESETS)
def test_shares_of_devices_add_up(size):
    config = PRESETS[size]
    whole = weight_bytes(config) // 2
    assert tensor_parallel_parameters(config, 1) == pipeline_parameters(config, 1) == whole
    width, layers = config.hidden_size, config.num_hidden_layers
    everywhere = width * (2 * layers + 1)  # the norms of the whole width: on each of two devices
    assert 2 * tensor_parallel_parameters(config, 2) == whole + everywhere
    for devices in (2, 8):
        assert whole / devices < tensor_parallel_parameters(config, devices) < whole / devices * 1.001
        stage = pipeline_parameters(config, devices)
        assert whole / devices < stage <= whole / devices + config.vocab_size * width + width


def test_a_tensor_parallel_share_is_that_of_a_model_with_fewer_heads():
    config = dataclasses.replace(SMALL, num_attention_heads=6, num_key_value_heads=2)
    half = dataclasses.replace(
        config, num_attention_heads=3, num_key_value_heads=1, intermediate_size=50, vocab_size=150
    )
    assert tensor_parallel_parameters(config, 2) == Olmo3Model(half).num_parameters()


@pytest.mark.parametrize("length", [1, 49, 50, 51, 4000])
def test_the_cache_is_shared_out_between_the_types_of_layers(length):
    with torch.device("meta"):
        cache = Olmo3Model(SMALL).make_cache(1, length, dtype=torch.bfloat16)
    held = dict.fromkeys((FULL, SLIDING), 0)
    for kind, layer in zip(SMALL.layer_plan, cache.layers, strict=True):
        held[kind] += layer.key_BKSD.nbytes + layer.value_BKSD.nbytes
    assert cache_by_layer_type(SMALL, length) == held


def test_common_beginnings_are_counted_in_words():
    assert common_beginning("a red boat", "a red cart") == 2
    assert common_beginning("a red", "a red boat") == 2
    assert common_beginning("", "a") == 0


@pytest.mark.parametrize("cached", [True, False])
def test_timed_steps_are_those_of_the_text(tiny, cached, monkeypatch):
    seen, forward = [], Olmo3Model.forward

    def spy(self, ids_BT, cache=None, **options):
        seen.append((ids_BT.shape[1], cache.length if cache else 0))
        return forward(self, ids_BT, cache, **options)

    monkeypatch.setattr(Olmo3Model, "forward", spy)
    assert seconds_per_token(tiny, range(60), cached, steps=2) > 0
    assert seen == ([(59, 0), (1, 59), (1, 60)] if cached else [(60, 0), (60, 0)])


@pytest.mark.parametrize("draw", ["opening", "norm_of_heads", "two_ways_to_share"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_06_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


def test_charts_tell_their_figures_in_words_too():
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    image = lab_06_charts.yarn_ramp("small", frequencies, frequencies / torch.tensor([1.0, 2, 8, 8]), 64, 512)
    assert "first 1 pairs are kept, the last 2 are slowed 8 times" in image.alt
    image = lab_06_charts.damage({"one way": 1.5, "another": None}, 0.25)
    assert "one way: 1.500" in image.alt and "another: refused" in image.alt
    image = lab_06_charts.base_and_cache(
        {"base": {8: 5.0, 16: 2.0}, "cache": {8: 9.0, 16: 8.0}},
        {name: {8: 1.0, 16: 2.0} for name in ("full", "sliding", "all")},
        10,
    )
    assert "at 16 tokens: base 2 tokens a second, cache 8 tokens a second" in image.alt
    image = lab_06_charts.memory_with_windows({"7B": PRESETS["allenai/Olmo-3-1025-7B"], "small": SMALL})
    assert "weights 13.59 GiB" in image.alt and "full layers 8.00 GiB" in image.alt
    rows = {1: {"weights": 60.0, "cache": 4.0}, 2: {"weights": 30.0, "cache": 2.0}}
    image = lab_06_charts.per_device("large", rows, {"40 GB": 37.3}, [64.0, 33.0])
    assert "2 devices: weights 30.0 GiB, cache 2.0 GiB, pipeline 33.0 GiB" in image.alt
