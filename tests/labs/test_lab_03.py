"""M9-LAB-03: its exercise checks diagnose, its helpers hold against other sources, its figures tell their numbers."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_helpers import load_model, load_tokenizer
from course_helpers.architectures.llama import LLAMA_2_PRESETS, LLAMA_3_PRESETS, LlamaConfig
from course_helpers.architectures.rope import RopeParameters
from course_helpers.labs import ExerciseHint, lab_03_charts, lab_03_figures
from course_helpers.labs.lab_03 import (
    FIELDS,
    by_position,
    card_of,
    fields_of,
    first_difference,
    params_json,
    parts_of,
    pieces_of,
)
from course_helpers.labs.lab_03_exercises import (
    SMALL,
    Copies,
    check_bytes_saved,
    check_grouped_attention,
    check_longest_text,
    right_attention,
    wrong_attention,
)
from course_helpers.labs.lab_03_frequencies import check_frequencies_from, configs
from course_helpers.loaders.meta_params import config_from_params

RELEASED = LLAMA_2_PRESETS | LLAMA_3_PRESETS


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


# --- right answers ---


def saved(config, length, each, *, two=2, layers=None, heads=None, head_dim=None):
    heads = config.num_attention_heads - config.num_key_value_heads if heads is None else heads
    return two * (layers or config.num_hidden_layers) * heads * (head_dim or config.head_dim) * length * each


def saving(**wrong):
    return lambda config, length, each: saved(config, length, each, **wrong)


def longest(config, weights, memory, each, *, heads=None, two=2, up=0, floor=0, ceiling=True, layers=None):
    heads, layers = heads or config.num_key_value_heads, layers or config.num_hidden_layers
    fit = (memory - weights) // (two * layers * heads * config.head_dim * each) + up
    fit = max(floor, fit) if floor is not None else fit
    return min(fit, config.max_position_embeddings) if ceiling else fit


def fits(**wrong):
    return lambda *arguments: longest(*arguments, **wrong)


def fits_without_weights(config, weights, memory, each):
    return longest(config, 0, memory, each)


def fits_in_part(config, weights, memory, each):
    return (memory - weights) / (2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * each)


def grouped(query, key, value, *, scale=True, tiled=False, mask="right"):
    """Nothing is repeated: the queries of a group lie one below the other."""
    shared, new, seen = key.shape[1], query.shape[2], key.shape[2]
    stacked = query.unflatten(1, (-1, shared)).transpose(1, 2) if tiled else query.unflatten(1, (shared, -1))
    scores = stacked.flatten(2, 3) @ key.transpose(-1, -2) / (math.sqrt(query.shape[-1]) if scale else 1)
    diagonal = {"right": 1 + seen - new, "at the start": 1, "nothing": 0}.get(mask)
    scores = scores.unflatten(2, (-1, new))
    if diagonal is not None:
        scores = scores.masked_fill(torch.ones(new, seen, dtype=torch.bool).triu(diagonal), -math.inf)
    mixed = (scores.softmax(-1).flatten(2, 3) @ value).unflatten(2, (-1, new))
    return mixed.transpose(1, 2).flatten(1, 2) if tiled else mixed.flatten(1, 2)


def attends(**wrong):
    return lambda *inputs: grouped(*inputs, **wrong)


def masks_the_stack(query, key, value):
    stacked = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    scores = stacked @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + key.shape[2] - query.shape[2])
    mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ value
    return mixed.unflatten(2, (-1, query.shape[2])).flatten(1, 2)


def not_joined(query, key, value):
    return grouped(query, key, value).unflatten(1, (key.shape[1], -1))


def shifted(query, key, value):
    return grouped(query, key, value) + 0.25


def read(data, new_place=True, old_key=True, base_inside=True):
    """The parameters of a config.json, or as somebody reads them who does not know every dialect."""
    rope = (data.get("rope_parameters") if new_place else None) or data.get("rope_scaling") or {}
    kind = rope.get("rope_type") or (rope.get("type") if old_key else None) or "default"
    base = (rope.get("rope_theta") if base_inside else None) or data.get("rope_theta")
    return rope, kind, base


def frequencies(data, scale=None, strict=True, default_base=None, **dialect):
    rope, kind, base = read(data, **dialect)
    base = base or default_base
    if strict and (kind not in ("default", "llama3") or base is None):
        raise ValueError(kind)
    plain = 1 / base ** (torch.arange(0, data["head_dim"], 2).double() / data["head_dim"])
    return plain if kind == "default" else (scale or scaled)(plain, rope)


def kept_share(plain, rope, original=None, low=None, high=None):
    low, high = low or rope["low_freq_factor"], high or rope["high_freq_factor"]
    turns = (original or rope["original_max_position_embeddings"]) * plain / (2 * math.pi)
    return turns, (turns - low) / (high - low)


def scaled(plain, rope):
    kept = kept_share(plain, rope)[1].clamp(0, 1)
    return kept * plain + (1 - kept) * plain / rope["factor"]


def other_way(plain, rope):
    kept = kept_share(plain, rope)[1].clamp(0, 1)
    return (1 - kept) * plain + kept * plain / rope["factor"]


def faster(plain, rope):
    return scaled(plain, rope | {"factor": 1 / rope["factor"]})


def not_clamped(plain, rope):
    kept = kept_share(plain, rope)[1]
    return kept * plain + (1 - kept) * plain / rope["factor"]


def of_wavelengths(plain, rope):
    kept = kept_share(plain, rope)[1].clamp(0, 1)
    return 1 / (kept / plain + (1 - kept) * rope["factor"] / plain)


def as_in_the_lab(plain, rope, exchanged=False):
    """Three bands with torch.where; or with the two factors in each other's place."""
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    low, high = (high, low) if exchanged else (low, high)
    original, wavelength, slowed = rope["original_max_position_embeddings"], 2 * math.pi / plain, plain / rope["factor"]
    share = (original / wavelength - low) / (high - low)
    blend = (1 - share) * slowed + share * plain
    long = torch.where(wavelength > original / low, slowed, blend)
    return torch.where(wavelength < original / high, plain, long)


def no_blend(plain, rope):
    turns, _ = kept_share(plain, rope)
    return torch.where(turns < rope["high_freq_factor"], plain / rope["factor"], plain)


def factor_8(plain, rope):
    return scaled(plain, rope | {"factor": 8.0})


def context_8192(plain, rope):
    return scaled(plain, rope | {"original_max_position_embeddings": 8192})


def made_of(scale=None, **options):
    return lambda data: frequencies(data, scale, **options)


def fails(data):
    return frequencies(data, strict=False)


def new_place_only(data):
    return frequencies({"head_dim": data["head_dim"], **data["rope_parameters"]})


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_bytes_saved, saved),
        (check_longest_text, longest),
        (check_grouped_attention, grouped),
        (check_frequencies_from, frequencies),
        (check_frequencies_from, made_of(as_in_the_lab)),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_bytes_saved, empty, "still empty"),
        (check_bytes_saved, silent, "return statement"),
        (check_bytes_saved, lambda *arguments: float(saved(*arguments)), "whole number"),
        (check_bytes_saved, saving(heads=3), "with sharing. What"),
        (check_bytes_saved, saving(heads=12), "cache without sharing"),
        (check_bytes_saved, saving(heads=-9), "other way round"),
        (check_bytes_saved, saving(heads=4), "H - K, not by H / K"),
        (check_bytes_saved, saving(two=1), "where is the 2"),
        (check_bytes_saved, saving(layers=1), "each of the 7 layers"),
        (check_bytes_saved, saving(head_dim=SMALL.hidden_size // 12), "a field of its own"),
        (check_bytes_saved, saving(head_dim=1), "where is head_dim"),
        (check_bytes_saved, lambda config, length, each: saved(config, 1, each), "length of the text"),
        (check_bytes_saved, lambda config, length, each: saved(config, length, 1), "bytes of one number"),
        (check_bytes_saved, lambda *arguments: 5, "not 5"),
        (check_longest_text, empty, "still empty"),
        (check_longest_text, silent, "return statement"),
        (check_longest_text, lambda *arguments: "37", "got a str"),
        (check_longest_text, fits_in_part, "round down"),
        (check_longest_text, fits_without_weights, "take some of the memory"),
        (check_longest_text, fits(heads=12), "query heads"),
        (check_longest_text, fits(two=1), "where is the 2"),
        (check_longest_text, fits(layers=1), "each of the 7 layers"),
        (check_longest_text, fits(up=1), "one token too many"),
        (check_longest_text, fits(ceiling=False), "made for 640"),
        (check_longest_text, fits(floor=None), "the answer is 0"),
        (check_longest_text, lambda *arguments: 7, "37 tokens, not 7"),
        (check_grouped_attention, empty, "still empty"),
        (check_grouped_attention, silent, "return statement"),
        (check_grouped_attention, lambda *inputs: 3, "got a int"),
        (check_grouped_attention, not_joined, "become H again"),
        (check_grouped_attention, attends(tiled=True), "neighbours share"),
        (check_grouped_attention, attends(mask="none"), "see the future"),
        (check_grouped_attention, attends(mask="none", scale=False), "neither mask nor"),
        (check_grouped_attention, attends(scale=False), "root of D"),
        (check_grouped_attention, attends(mask="at the start"), "moves by S - T"),
        (check_grouped_attention, masks_the_stack, "for group x T rows"),
        (check_grouped_attention, attends(mask="nothing"), "see at least itself"),
        (check_grouped_attention, shifted, "by 0.250"),
        (check_grouped_attention, wrong_attention, "repeat_interleave repeats"),
        (check_grouped_attention, right_attention, "torch's own function"),
        (check_frequencies_from, empty, "still empty"),
        (check_frequencies_from, silent, "return statement"),
        (check_frequencies_from, lambda data: 1.0, "got a float"),
        (check_frequencies_from, lambda data: frequencies(data).repeat(2), "32 pairs"),
        (check_frequencies_from, lambda data: 2 * math.pi / frequencies(data), "wavelengths"),
        (check_frequencies_from, lambda data: 1 / frequencies(data), "1 divided by it"),
        (check_frequencies_from, lambda data: frequencies(data | {"rope_theta": 1e4}), "base 10,000"),
        (check_frequencies_from, lambda data: frequencies(data) + 1, "is right"),
        (check_frequencies_from, made_of(new_place=False, default_base=1e4), "base 10,000"),
        (check_frequencies_from, made_of(base_inside=False, default_base=1e4), "base 10,000"),
        (check_frequencies_from, made_of(old_key=False), "old key `type`"),
        (check_frequencies_from, made_of(lambda plain, rope: plain), "no scaling at all"),
        (check_frequencies_from, made_of(lambda plain, rope: plain / rope["factor"]), "every pair was slowed"),
        (check_frequencies_from, made_of(faster), "divide by the factor"),
        (check_frequencies_from, made_of(other_way), "fast pairs were slowed"),
        (check_frequencies_from, made_of(no_blend), "must be gradual"),
        (check_frequencies_from, lambda data: made_of(lambda p, r: as_in_the_lab(p, r, True))(data), "exchanged"),
        (check_frequencies_from, made_of(not_clamped), "clamp it"),
        (check_frequencies_from, made_of(of_wavelengths), "frequencies are to be blended"),
        (check_frequencies_from, made_of(factor_8), "that is factor 8"),
        (check_frequencies_from, made_of(context_8192), "read it from the config"),
        (check_frequencies_from, new_place_only, "KeyError 'rope_parameters'"),
        (check_frequencies_from, lambda data: frequencies(data, strict=False), "must be refused"),
        (check_frequencies_from, made_of(strict=False, default_base=1e4), "must be refused"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_a_file_without_a_base_must_be_refused_and_not_end_in_another_error():
    def only_the_kind(data):
        if read(data)[1] not in ("default", "llama3"):
            raise ValueError
        return frequencies(data, strict=False)

    with pytest.raises(ExerciseHint, match="no base anywhere: must be refused with a ValueError; it ended in a"):
        check_frequencies_from(only_the_kind)


def test_the_exercise_has_every_dialect_of_the_package():
    for data in configs().values():
        rope = RopeParameters.from_hf(data)
        assert frequencies(data).tolist() == pytest.approx(rope.inverse_frequencies(data["head_dim"])[0].tolist())


def test_repeating_is_seen_and_plain_products_are_not():
    x = torch.ones(1, 2, 3, 4)
    with Copies() as copies:
        x @ x.transpose(-1, -2)
    assert not copies.seen & Copies.REPEATS
    with Copies() as copies:
        x.expand(2, 2, 3, 4), x.repeat(1, 2, 1, 1)
    assert {"expand", "repeat"} <= copies.seen


# --- the helpers ---


@pytest.mark.parametrize("name", RELEASED)
def test_the_table_shows_what_config_json_says(name):
    config, shown = RELEASED[name], fields_of(RELEASED[name])
    data = config.to_hf()
    scaling = data.pop("rope_scaling") or {"rope_type": "default", "factor": None}
    assert list(shown) == list(FIELDS)
    assert shown == {field: {**data, **scaling}[field] for field in FIELDS}


def test_parameters_by_part_are_those_of_the_formula():
    for name in ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-2-7b-hf"):
        config = RELEASED[name]
        width, layers = config.hidden_size, config.num_hidden_layers
        heads, shared = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        assert parts_of(config) == {
            "embedding": config.vocab_size * width,
            "output head": 0 if config.tie_word_embeddings else config.vocab_size * width,
            "attention": layers * width * (2 * heads + 2 * shared),
            "feed-forward": layers * 3 * width * config.intermediate_size,
            "norms": (2 * layers + 1) * width,
        }


@given(st.lists(st.lists(st.floats(0, 9), min_size=3, max_size=12), min_size=1, max_size=4), st.integers(1, 3))
def test_losses_by_position_are_means_over_all_texts(texts, width):
    found = by_position([torch.tensor(text) for text in texts], width)
    assert len(found) == max(map(len, texts)) // width
    for group, mean in enumerate(found):
        values = [value for text in texts for value in text[group * width : (group + 1) * width]]
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "other", "first"),
    [
        ("a red kite", "a red kite", "none"),
        ("a red kite", "a blue kite", "word 2"),
        ("a red kite", "a red", "word 3"),
        ("a red", "a red kite", "word 3"),
        ("", "a", "word 1"),
    ],
)
def test_the_first_word_that_differs(text, other, first):
    assert first_difference(text, other) == first


def test_cards_belong_to_bundled_checkpoints_only(tmp_path):
    assert card_of("tiny-llama3")["name"] == "tiny-llama3"
    assert card_of(tmp_path) == {}


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B"])
def test_params_json_is_one_that_the_package_reads(name, tmp_path):
    config = RELEASED[name]
    params = dict(params_json(config))
    if params["use_scaled_rope"]:
        params["rope_scaling_factor"] = config.rope_parameters.factor  # what Meta's file leaves out
    (tmp_path / "params.json").write_text(json.dumps(params))
    found = config_from_params(tmp_path) | {"tie_word_embeddings": config.tie_word_embeddings}
    assert LlamaConfig.from_hf(found) == config


def test_pieces_put_together_are_the_text():
    text = "The tower  was high."
    for name in ("tiny-llama2", "tiny-llama3"):
        tokenizer = load_tokenizer(name)
        pieces = pieces_of(tokenizer, tokenizer.encode(text))
        assert pieces[0] in tokenizer.backend.special
        assert "".join(pieces[1:]).replace("▁", " ").strip() == text


def test_the_trusted_model_of_the_lab_shares_heads_and_scales():
    config = load_model("tiny-llama3").config
    assert config.num_attention_heads == 2 * config.num_key_value_heads and config.tie_word_embeddings
    assert config.rope_parameters.rope_type == "llama3" and config.rope_parameters.factor == 8


# --- the figures ---


def test_drawings_have_words_for_those_who_cannot_see_them():
    for image in (lab_03_figures.four_steps(), lab_03_figures.shared_heads(8)):
        assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100
    assert "cache 0.125 x" in image.alt


def test_the_config_table_tells_the_changes():
    configs = {name: fields_of(RELEASED[f"meta-llama/{name}"]) for name in ("Llama-3.1-8B", "Llama-3.2-1B")}
    alt = lab_03_figures.config_table(configs).alt
    assert "Llama-3.2-1B changes hidden_size to 2,048" in alt and "tie_word_embeddings to yes" in alt
    assert "vocab_size to" not in alt  # it does not change


def test_charts_tell_their_numbers():
    config = RELEASED["meta-llama/Llama-3.1-8B"]
    rope = config.rope_parameters
    plain = dataclasses.replace(rope, rope_type="default").inverse_frequencies(config.head_dim)[0]
    scaled, _ = rope.inverse_frequencies(config.head_dim)
    alts = [
        lab_03_charts.bands(plain, scaled, rope, "3.1").alt,
        lab_03_charts.turns(2 * math.pi / 131_072, 2 * math.pi / 2**20, 8192, 131_072, 50).alt,
        lab_03_charts.bases({"base 7": plain}, {"short": 4096}).alt,
        lab_03_charts.cache_against_context({"8": 2**17}, 15 * 2**30, 131_072).alt,
        lab_03_charts.loss_by_position({"right": [0.5, 0.25], "wrong": [0.5, 2.0]}, 20).alt,
        lab_03_charts.fault_bars({"right": 0.25, "heads": 1.5, "base": 2.0, "order": 3.0}, 6.93).alt,
        lab_03_charts.sizes_by_part({"3.1": parts_of(config)}).alt,
    ]
    words = (
        "kept (29), those above 8,192 are slowed 8 times (29), 6 between",
        "it came to 0.06 turns. At 131,072 it would be at 1.00 turns without the scaling, and is at 0.12 with it",
        "wavelengths from 6.3 to 2,559,19",
        "8: 16 GiB. The weights take 15 GiB",
        "wrong: 0.50 to 2.00",
        "right: 0.25; heads: 1.50",
        "attention 1.34, feed-forward 5.64",
    )
    for alt, word in zip(alts, words, strict=True):
        assert word in alt


def test_wrong_attention_is_right_without_a_mistake():
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(1, heads, length, 4, generator=generator) for heads, length in ((4, 3), (2, 5), (2, 5))]
    assert torch.allclose(wrong_attention(*inputs), right_attention(*inputs), atol=1e-6)
    assert SMALL.num_attention_heads != SMALL.hidden_size // SMALL.head_dim
