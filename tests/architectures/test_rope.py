"""Rotary positions: the frequencies of every kind and layer, their precision, and what rotation promises."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_helpers import FAMILIES, CourseWarning
from course_helpers.architectures.config import FULL, SLIDING, ModelConfig
from course_helpers.architectures.rope import RopeParameters, RotaryEmbedding, apply_rotary
from course_helpers.errors import ConfigError
from course_helpers.families import family_of
from tests.tiny_models import CONFIGS, EXAMPLES, Data, ours, rope_parameters

ANY_ROPE = rope_parameters(longest_original=16384)
ROTARY = [family for family in FAMILIES if family != "gpt2"]
every_rotary_family = pytest.mark.parametrize("family", ROTARY)
LAYERED = {"gemma3": ("gemma3", "Gemma3RotaryEmbedding"), "olmo3": ("olmo3", "Olmo3RotaryEmbedding")}
every_layered_family = pytest.mark.parametrize("family", LAYERED)

#: Every set of rotary positions that a released model has, with its head dimension and its context.
RELEASED = {
    f"{name}, {layer_type}": (preset.rope(layer_type), preset.head_dim, preset.max_position_embeddings)
    for family in ROTARY
    for name, preset in FAMILIES[family].presets.items()
    for layer_type in dict.fromkeys(preset.layer_plan)
}
every_released_rope = pytest.mark.parametrize(("rope", "head_dim", "context"), RELEASED.values(), ids=RELEASED.keys())


def their_frequencies(rope: Data, head_dim: int) -> tuple[Tensor, float]:
    from transformers import LlamaConfig as TheirConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = TheirConfig(
        hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=copy.deepcopy(rope)
    )
    embedding = LlamaRotaryEmbedding(config)
    return embedding.inv_freq, embedding.attention_scaling


def ulps(one: Tensor, other: Tensor) -> int:
    """The largest distance between two float32 tensors of positive numbers, in representable numbers."""
    return int((one.view(torch.int32).long() - other.view(torch.int32).long()).abs().max())


def allowed_ulps(rope_type: str) -> int:
    """transformers rounds once more on the way to YaRN's slowed pairs; the other kinds agree to the bit."""
    return 2 if rope_type == "yarn" else 0


# --- the closed forms, in Python's own numbers ---


def closed_form(rope: RopeParameters, head_dim: int) -> list[float]:
    """The frequency of each pair, written down without torch."""
    plain = [rope.rope_theta ** (-2 * pair / head_dim) for pair in range(head_dim // 2)]
    forms = {"default": lambda: plain, "linear": lambda: [frequency / rope.factor for frequency in plain]}
    forms["llama3"] = lambda: [llama3_form(frequency, rope) for frequency in plain]
    forms["yarn"] = lambda: [yarn_form(pair, frequency, rope, head_dim) for pair, frequency in enumerate(plain)]
    return forms[rope.rope_type]()


def llama3_form(frequency: float, rope: RopeParameters) -> float:
    wavelength, original = 2 * math.pi / frequency, rope.original_max_position_embeddings
    if wavelength < original / rope.high_freq_factor:
        return frequency
    if wavelength > original / rope.low_freq_factor:
        return frequency / rope.factor
    part = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return (1 - part) * frequency / rope.factor + part * frequency


def yarn_form(pair: int, frequency: float, rope: RopeParameters, head_dim: int) -> float:
    def pair_that_makes(turns: float) -> float:  # theta ** (-2 pair / head_dim) * original / (2 pi) = turns
        rotations = rope.original_max_position_embeddings / (2 * math.pi * turns)
        return head_dim / 2 * math.log(rotations, rope.rope_theta)

    first, last = math.floor(pair_that_makes(32)), math.ceil(pair_that_makes(1))
    slowed = min(1.0, max(0.0, (pair - first) / (last - first)))
    return frequency / rope.factor * slowed + frequency * (1 - slowed)


@every_released_rope
def test_frequencies_of_the_released_models_are_the_closed_forms(rope, head_dim, context):
    found, factor = rope.inverse_frequencies(head_dim)
    assert found.tolist() == pytest.approx(closed_form(rope, head_dim), rel=2e-6)
    assert factor == pytest.approx(0.1 * math.log(8) + 1 if rope.rope_type == "yarn" else 1.0, abs=1e-15)


def pairs(name: str, factor: float) -> list[int]:
    """The pairs that a released model turns `factor` times slower than without scaling."""
    rope, head_dim, _ = RELEASED[name]
    plain = RopeParameters(rope_theta=rope.rope_theta).inverse_frequencies(head_dim)[0]
    ratio = plain / rope.inverse_frequencies(head_dim)[0]
    return [pair for pair, value in enumerate(ratio.tolist()) if value == pytest.approx(factor, rel=1e-5)]


@pytest.mark.parametrize(
    ("name", "factor", "kept", "slowed"),
    [
        ("meta-llama/Llama-3.1-8B, full_attention", 8, range(0, 29), range(35, 64)),
        ("meta-llama/Llama-3.2-3B, full_attention", 32, range(0, 29), range(35, 64)),
        ("meta-llama/Llama-3.2-1B, full_attention", 32, range(0, 15), range(18, 32)),
        ("allenai/Olmo-3-1025-7B, full_attention", 8, range(0, 19), range(35, 64)),
        ("allenai/Olmo-3-1025-7B, sliding_attention", 8, range(0, 64), ()),
        ("google/gemma-3-4b-pt, full_attention", 8, (), range(0, 128)),
        ("google/gemma-3-4b-pt, sliding_attention", 8, range(0, 128), ()),
    ],
)
def test_these_pairs_of_the_released_models_are_kept_and_these_are_slowed(name, factor, kept, slowed):
    assert pairs(name, 1) == list(kept) and pairs(name, factor) == list(slowed)


def test_default_frequencies_are_powers_of_the_base():
    found, factor = RopeParameters(rope_theta=10_000.0).inverse_frequencies(8)
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001], rel=1e-6) and factor == 1.0


def test_the_yarn_attention_factor_is_the_published_one():
    rope = RopeParameters(rope_type="yarn", rope_theta=5e5, factor=8.0, original_max_position_embeddings=8192)
    assert rope.inverse_frequencies(128)[1] == pytest.approx(1.2079441541679836, abs=1e-15)


@pytest.mark.parametrize("factor", [0.7, 1.2079441541679836])
def test_the_attention_factor_enlarges_cos_and_sin_alike(factor):
    sizes = {"rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 16}
    tables = [
        RotaryEmbedding(RopeParameters(rope_type="yarn", attention_factor=given, **sizes), 8)(
            torch.arange(40)[None], torch.float32
        )
        for given in (factor, 1.0)
    ]
    for enlarged, plain in zip(*tables, strict=True):
        assert torch.equal(enlarged, plain * factor)


# --- the same as transformers, for every type of layer ---


@settings(max_examples=300)
@given(rope=ANY_ROPE, half=st.integers(1, 64))
def test_frequencies_are_those_of_transformers(rope, half):
    expected, expected_factor = their_frequencies(rope, 2 * half)
    found, factor = RopeParameters.from_hf({"rope_parameters": rope}).inverse_frequencies(2 * half)
    assert factor == expected_factor
    assert ulps(found, expected) <= allowed_ulps(rope["rope_type"])


@every_released_rope
def test_frequencies_of_the_released_models_are_those_of_transformers(rope, head_dim, context):
    expected, _ = their_frequencies(rope.to_nested(), head_dim)
    assert ulps(rope.inverse_frequencies(head_dim)[0], expected) <= allowed_ulps(rope.rope_type)


def built(config: ModelConfig) -> nn.Module:
    """A model without memory: its frequencies are real all the same."""
    with torch.device("meta"):
        return family_of(config.to_hf()).model(config)


def their_rotary_embedding(family: str, data: Data) -> nn.Module:
    from importlib import import_module

    from transformers import AutoConfig

    module, name = LAYERED[family]
    fields = copy.deepcopy(data)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    return getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)(config)


def check_every_table(family: str, data: Data) -> None:
    """Each type of layer that a model of this config has: the same frequencies and factor as in transformers."""
    config = FAMILIES[family].config.from_hf(data)
    reference, model = their_rotary_embedding(family, data), built(config)
    assert set(model.rotary_embeddings) == set(config.layer_plan) == set(reference.layer_types)
    for layer_type, embedding in model.rotary_embeddings.items():
        expected = getattr(reference, f"{layer_type}_inv_freq")
        assert ulps(embedding.inverse_frequencies, expected) <= allowed_ulps(reference.rope_type[layer_type])
        assert embedding.attention_factor == getattr(reference, f"{layer_type}_attention_scaling")
        assert config.rope(layer_type).rope_type == reference.rope_type[layer_type]


@every_layered_family
@settings(max_examples=100)
@given(data=st.data())
def test_each_type_of_layer_has_the_table_that_it_has_in_transformers(family, data):
    check_every_table(family, data.draw(CONFIGS[family]))


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 8.0}


def with_rope(family: str, **rope: object) -> Data:
    """A family's example with nothing but these rotary positions."""
    names = ("rope_theta", "rope_scaling", "rope_local_base_freq", "rope_parameters")
    return {name: value for name, value in EXAMPLES[family].items() if name not in names} | rope


@every_layered_family
@pytest.mark.parametrize("scaling", [YARN, LINEAR])
def test_the_older_form_scales_the_full_layers_only(family, scaling):
    theta = {"gemma3": {"rope_theta": 1e6, "rope_local_base_freq": 1e4}, "olmo3": {"rope_theta": 5e5}}[family]
    data = with_rope(family, rope_scaling=scaling, **theta)
    check_every_table(family, data)
    config = FAMILIES[family].config.from_hf(data)
    assert config.rope(FULL) == RopeParameters(rope_theta=theta["rope_theta"], **scaling)
    assert config.rope(SLIDING) == RopeParameters(rope_theta=1e4 if family == "gemma3" else 5e5)


@every_layered_family
@pytest.mark.parametrize("scaling", [YARN, LINEAR])
def test_the_newer_form_scales_whatever_it_says(family, scaling):
    full, sliding = {"rope_type": "default", "rope_theta": 7e5}, scaling | {"rope_theta": 3e4}
    data = with_rope(family, rope_parameters={FULL: full, SLIDING: sliding})
    check_every_table(family, data)
    config = FAMILIES[family].config.from_hf(data)
    assert config.rope(FULL) == RopeParameters(rope_theta=7e5) and config.rope(SLIDING) == RopeParameters(**sliding)


@every_layered_family
def test_what_early_releases_leave_beside_the_sets_says_nothing_and_what_does_is_refused(family):
    sets = {FULL: YARN | {"rope_theta": 7e5}, SLIDING: {"rope_type": "default", "rope_theta": 3e4}}
    left = {"rope_type": "default", "rope_theta": None}
    check_every_table(family, with_rope(family, rope_parameters=sets | left))
    read = FAMILIES[family].config.from_hf
    config = read(with_rope(family, rope_parameters=sets | left))
    assert config == read(with_rope(family, rope_parameters=sets))
    for said in ({"rope_type": "yarn"}, {"rope_theta": 1e4}, {"factor": None}):
        with pytest.raises(ConfigError, match="rope_parameters"):
            read(with_rope(family, rope_parameters=sets | left | said))


@every_layered_family
@pytest.mark.parametrize("layer_type", [FULL, SLIDING])
def test_a_set_for_one_type_of_layer_leaves_the_other_as_released_models_have_it(family, layer_type):
    data = with_rope(family, rope_parameters={layer_type: LINEAR | {"rope_theta": 1234.0}}, rope_local_base_freq=1e4)
    data |= {"rope_theta": 1e6 if family == "gemma3" else 5e5} if layer_type == SLIDING else {}
    check_every_table(family, data)
    config = FAMILIES[family].config.from_hf(data)
    other, usual = (SLIDING, 1e4) if layer_type == FULL else (FULL, 1e6)
    assert config.rope(layer_type) == RopeParameters(rope_theta=1234.0, **LINEAR)
    assert config.rope(other) == RopeParameters(rope_theta=usual if family == "gemma3" else 5e5)


@pytest.mark.parametrize(
    ("family", "rope", "missing"),
    [
        ("gemma3", {"rope_theta": 1e6}, SLIDING),
        ("gemma3", {"rope_local_base_freq": 1e4}, FULL),
        ("gemma3", {"rope_theta": 1e6, "rope_parameters": {FULL: LINEAR}}, SLIDING),
        ("olmo3", {}, FULL),
        ("olmo3", {"rope_parameters": {SLIDING: {"rope_type": "default"}}}, FULL),
    ],
)
def test_a_missing_base_frequency_is_assumed_aloud(family, rope, missing):
    usual = {"gemma3": {FULL: "1e+06", SLIDING: "10000"}, "olmo3": {FULL: "500000"}}[family][missing]
    with pytest.warns(CourseWarning, match=re.escape(f"no base frequency for {missing}; {usual} is assumed")):
        check_every_table(family, with_rope(family, **rope))


def test_another_base_in_the_older_form_of_olmo_is_used_in_the_full_layers_only():
    data = with_rope("olmo3", rope_theta=10_000.0, rope_scaling=YARN)
    with pytest.warns(CourseWarning, match="10000 is used in the full layers only and 500000 in the sliding ones"):
        check_every_table("olmo3", data)
    with pytest.warns(CourseWarning):
        config = FAMILIES["olmo3"].config.from_hf(data)
    assert (config.rope(FULL).rope_theta, config.rope(SLIDING).rope_theta) == (10_000.0, 500_000.0)
    assert FAMILIES["olmo3"].config.from_hf(config.to_hf()) == config  # written so that it is not misread: no warning


# --- precision ---


@every_rotary_family
def test_frequencies_stay_exact_when_the_model_is_cast(family):
    model = ours(EXAMPLES[family])
    before = {kind: table.inverse_frequencies.clone() for kind, table in model.rotary_embeddings.items()}
    for kind, table in model.to(torch.bfloat16).rotary_embeddings.items():
        found = table.inverse_frequencies
        assert found.dtype == torch.float32 and torch.equal(found, before[kind])


@every_rotary_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frequencies_are_real_and_exact_however_the_model_is_built(family, dtype):
    config = FAMILIES[family].config.from_hf(EXAMPLES[family])
    torch.set_default_dtype(dtype)
    try:
        model = built(config)
    finally:
        torch.set_default_dtype(torch.float32)
    for layer_type, table in model.rotary_embeddings.items():
        found, expected = table.inverse_frequencies, config.rope(layer_type).inverse_frequencies(config.head_dim)[0]
        assert found.device.type == "cpu" and found.dtype == torch.float32 and torch.equal(found, expected)


@every_rotary_family
def test_no_frequency_is_in_the_state_dict(family):
    assert not [name for name in ours(EXAMPLES[family]).state_dict() if "rotary" in name]


@every_rotary_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tables_are_of_the_models_type_and_in_olmo_never_less_than_float32(family, dtype):
    model = ours(EXAMPLES[family]).to(dtype)
    context = model.contexts(0, 3, None, None)
    expected = torch.float32 if family == "olmo3" and dtype == torch.bfloat16 else dtype
    assert all(one.cos_B1TD.dtype == one.sin_B1TD.dtype == expected for one in context.values())


@every_released_rope
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tables_are_right_at_the_far_end_of_the_context(rope, head_dim, context, dtype):
    positions = range(context - 40, context)
    cos, sin = RotaryEmbedding(rope, head_dim)(torch.tensor([list(positions)]), dtype)
    angles = torch.tensor(
        [[position * frequency for frequency in closed_form(rope, head_dim)] * 2 for position in positions],
        dtype=torch.float64,
    )
    factor = 0.1 * math.log(8) + 1 if rope.rope_type == "yarn" else 1.0
    # float32 holds a frequency, and an angle, to one part in 2 ** 23; bfloat16 holds a cosine to one in 2 ** 8.
    tolerance = 3 * context * 2**-23 + (2**-8 if dtype == torch.bfloat16 else 0)
    assert (cos[0, 0] - factor * angles.cos()).abs().max() <= tolerance
    assert (sin[0, 0] - factor * angles.sin()).abs().max() <= tolerance


def test_bfloat16_tables_distinguish_far_positions():
    embedding = RotaryEmbedding(RopeParameters(rope_theta=10_000.0), 8)
    cos, sin = embedding(torch.tensor([[4096, 4097]]), torch.bfloat16)
    exact = torch.tensor([4096.0, 4097.0])
    torch.testing.assert_close(cos[0, 0, :, 0].float(), exact.cos(), rtol=0, atol=2**-8)
    torch.testing.assert_close(sin[0, 0, :, 0].float(), exact.sin(), rtol=0, atol=2**-8)


# --- rotation ---


@settings(max_examples=100)
@given(
    half=st.integers(1, 16),
    positions=st.lists(st.integers(0, 200), min_size=1, max_size=6),
    rope=st.sampled_from([rope for rope, *_ in RELEASED.values()]),
    seed=st.integers(0, 99),
)
def test_rotation_is_multiplication_by_a_complex_number(half, positions, rope, seed):
    x = torch.randn(1, 2, len(positions), 2 * half, generator=torch.Generator().manual_seed(seed))
    embedding = RotaryEmbedding(rope, 2 * half)
    found = apply_rotary(x, *embedding(torch.tensor([positions]), torch.float32))
    for head in range(2):
        for index, position in enumerate(positions):
            row, turned = x[0, head, index].tolist(), found[0, head, index].tolist()
            for pair, frequency in enumerate(embedding.inverse_frequencies.tolist()):
                angle = position * frequency
                by = embedding.attention_factor * complex(math.cos(angle), math.sin(angle))
                product = complex(row[pair], row[pair + half]) * by
                assert complex(turned[pair], turned[pair + half]) == pytest.approx(product, abs=1e-4)


@settings(max_examples=50)
@given(rope=ANY_ROPE, distance=st.integers(0, 30), shift=st.integers(1, 200), seed=st.integers(0, 99))
def test_scores_depend_on_the_difference_of_positions_only(rope, distance, shift, seed):
    torch.manual_seed(seed)
    query, key = torch.randn(2, 1, 1, 1, 16).unbind()
    embedding = RotaryEmbedding(RopeParameters.from_hf({"rope_parameters": rope}), 16)

    def score(position: int) -> float:
        tables = [embedding(torch.tensor([[place]]), torch.float32) for place in (position + distance, position)]
        return (apply_rotary(query, *tables[0]) * apply_rotary(key, *tables[1])).sum().item()

    assert score(shift) == pytest.approx(score(0), abs=2e-3)


def test_rotation_turns_pair_i_with_pair_i_plus_half():
    x = torch.arange(1.0, 5.0).view(1, 1, 1, 4)
    quarter = torch.tensor([torch.pi / 2, torch.pi / 2, torch.pi / 2, torch.pi / 2]).view(1, 1, 1, 4)
    turned = apply_rotary(x, quarter.cos(), quarter.sin())
    torch.testing.assert_close(turned.flatten(), torch.tensor([-3.0, -4.0, 1.0, 2.0]), rtol=0, atol=1e-6)
