"""Rotary positions: the frequencies of every kind, their precision, and what rotation promises."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers.architectures.llama import PRESETS, LlamaConfig, LlamaModel
from course_helpers.architectures.rope import RopeParameters, RotaryEmbedding, apply_rotary
from tests.tiny_models import EXAMPLES, Data, ours, rope_parameters

ANY_ROPE = rope_parameters(longest_original=16384)


def their_frequencies(rope: Data, head_dim: int) -> tuple[torch.Tensor, float]:
    from transformers import LlamaConfig as TheirConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = TheirConfig(
        hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=copy.deepcopy(rope)
    )
    embedding = LlamaRotaryEmbedding(config)
    return embedding.inv_freq, embedding.attention_scaling


def ulps(one: torch.Tensor, other: torch.Tensor) -> int:
    """The largest distance between two float32 tensors of positive numbers, in representable numbers."""
    return int((one.view(torch.int32).long() - other.view(torch.int32).long()).abs().max())


@settings(max_examples=300)
@given(rope=ANY_ROPE, half=st.integers(1, 64))
def test_frequencies_are_those_of_transformers(rope, half):
    expected, expected_factor = their_frequencies(rope, 2 * half)
    found, factor = RopeParameters.from_hf({"rope_parameters": rope}).inverse_frequencies(2 * half)
    assert factor == expected_factor
    # transformers rounds once more on the way to YaRN's slowed pairs; the other kinds agree to the bit.
    assert ulps(found, expected) <= (2 if rope["rope_type"] == "yarn" else 0)


@pytest.mark.parametrize("name", PRESETS)
def test_frequencies_of_the_released_models_are_those_of_transformers(name):
    preset = PRESETS[name]
    rope = preset.rope_parameters.to_hf()
    flat = (rope["rope_scaling"] or {}) | {"rope_theta": rope["rope_theta"]}
    expected, _ = their_frequencies(flat, preset.head_dim)
    assert ulps(preset.rope_parameters.inverse_frequencies(preset.head_dim)[0], expected) <= 1


def test_default_frequencies_are_the_closed_form():
    found, factor = RopeParameters(rope_theta=10_000.0).inverse_frequencies(8)
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001], rel=1e-6) and factor == 1.0


def test_the_yarn_attention_factor_is_the_published_one():
    rope = RopeParameters(rope_type="yarn", rope_theta=5e5, factor=8.0, original_max_position_embeddings=8192)
    assert rope.inverse_frequencies(128)[1] == pytest.approx(1.2079441541679836, abs=1e-15)


def test_frequencies_stay_exact_when_the_model_is_cast():
    model = ours(EXAMPLES["llama3"])
    before = model.rotary_embedding.inverse_frequencies.clone()
    after = model.to(torch.bfloat16).rotary_embedding.inverse_frequencies
    assert after.dtype == torch.float32 and torch.equal(after, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frequencies_are_real_and_exact_however_the_model_is_built(dtype):
    config = LlamaConfig.from_hf(EXAMPLES["llama3"])
    expected = config.rope_parameters.inverse_frequencies(config.head_dim)[0]
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = LlamaModel(config).rotary_embedding.inverse_frequencies
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.device.type == "cpu" and found.dtype == torch.float32 and torch.equal(found, expected)


def test_no_frequency_is_in_the_state_dict():
    assert not [name for name in ours(EXAMPLES["llama3"]).state_dict() if "rotary" in name]


def test_bfloat16_tables_distinguish_far_positions():
    embedding = RotaryEmbedding(RopeParameters(rope_theta=10_000.0), 8)
    cos, sin = embedding(torch.tensor([[4096, 4097]]), torch.bfloat16)
    exact = torch.tensor([4096.0, 4097.0])
    torch.testing.assert_close(cos[0, 0, :, 0].float(), exact.cos(), rtol=0, atol=2**-8)
    torch.testing.assert_close(sin[0, 0, :, 0].float(), exact.sin(), rtol=0, atol=2**-8)


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
