"""What the figures of slides 4, 5, 16, 17, 18 compute or pick, against an independent look at configs and records."""

import dataclasses
import json
import math
import re
from itertools import pairwise

import pytest

from slides.deck import CONTENT, read_source
from slides.figures import block_deltas, conversion_milestones, conversion_staircase, loading_roads, rope_extension
from slides.figures.numbers import RESULTS
from slides.figures.parts_blocks import deltas, read
from slides.figures.svg import Drawing


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]


def drawn(figure, width=1096, height=600):
    drawing = Drawing(width, height)
    figure(drawing)
    return drawing


def words_of(drawing):
    return re.findall(r"<text[^>]*>([^<]*)</text>", "".join(drawing.parts))


def source(number):
    return read_source(next(CONTENT.glob(f"{number:02d}-*.md")))


# --- slide 4 --------------------------------------------------------------------------------------------------------
def test_bars_of_the_roads_are_as_long_as_their_peaks():
    drawing, found = drawn(loading_roads.loading_roads), record("M9-LAB-01")
    for road in loading_roads.ROADS:
        use = found["roads"][road.key]
        peak = use["peak_mb"] / found["model_mb"]
        bar = f'width="{peak * loading_roads.MODEL:.2f}'.rstrip("0")
        assert any(bar in part for part in drawing.parts), (road.key, bar)
        assert {f"{use['seconds']:.2f} seconds", f"peak {peak:.2f} ×:"} <= set(words_of(drawing))


def test_the_gate_shows_ticks_only_where_the_last_run_found_the_models_equal(monkeypatch, tmp_path):
    assert loading_roads.same_model()
    run = json.loads((RESULTS / "run.json").read_text(encoding="utf-8"))
    lab = next(one for one in run["labs"] if one["lab"] == loading_roads.LAB)
    next(one for one in lab["checkpoints"] if one["name"] == loading_roads.SAME)["passed"] = False
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    monkeypatch.setattr(loading_roads, "RESULTS", tmp_path)
    assert not loading_roads.same_model()


# --- slide 5 --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def configs():
    return block_deltas.presets()


@pytest.fixture(scope="module")
def both(configs):
    return read(configs[block_deltas.OLD]), read(configs[block_deltas.NEW])


def test_structure_is_what_the_presets_say(configs, both):
    old, new = both
    assert (old.layers, old.heads, old.width, old.learned_positions) == (12, 12, 768, 1024)
    assert (new.layers, new.heads, new.hidden, new.rotary_base) == (32, 32, 11008, 10_000)
    assert (old.matrices, new.matrices) == (("up", "down"), ("gate", "up", "down"))
    assert (old.norm_bias, old.attention_bias, old.tied) == (True, True, True)
    assert not (new.norm_bias or new.attention_bias or new.tied)
    width, hidden, vocabulary = 4096, 11008, 32000
    assert new.parameters == 32 * (4 * width**2 + 3 * width * hidden + 2 * width) + 2 * vocabulary * width + width


def test_a_band_is_gold_only_where_something_changes(both):
    old, new = both
    assert all(deltas(old, new).values()), "all five kinds of parts change between GPT-2 and Llama 2"
    assert not any(deltas(new, new).values())
    tied = dataclasses.replace(new, tied=True)
    assert not deltas(old, tied)["head"]
    drawing = Drawing(1096, 600)
    block_deltas.draw(drawing, old, tied)
    assert "same" in words_of(drawing) and "its own" not in words_of(drawing)


def test_as_many_heads_are_drawn_as_the_config_has(both):
    for blocks in both:
        drawing = Drawing(400, 200)
        block_deltas.attention(drawing, 0, 0, 186, blocks)
        assert sum(part.startswith("<rect") for part in drawing.parts) == blocks.heads


def test_trapezoids_are_as_wide_inside_as_the_config_says(both):
    for blocks in both:
        drawing = Drawing(400, 200)
        block_deltas.feed_forward(drawing, 0, 0, 164, blocks)
        shapes = [re.findall(r"[\d.]+,([\d.]+)", part) for part in drawing.parts if part.startswith("<polygon")]
        assert len(shapes) == len(blocks.matrices)
        for heights in shapes:
            start, wide, low, end = map(float, heights)
            assert (low - wide) / (end - start) == pytest.approx(blocks.hidden / blocks.width, rel=0.02)


# --- slide 16 -------------------------------------------------------------------------------------------------------
def test_a_stair_is_as_high_as_the_checks_that_passed_up_to_it():
    ledger = record("M9-LAB-02")["ledger"]
    built = conversion_staircase.stairs(ledger)
    assert [len(stair.rows) for stair in built] == list(range(1, len(ledger) + 4))
    assert [sum(stair.rows) for stair in built][: len(ledger)] == [6 * (place + 1) for place in range(len(ledger))]
    assert [stair.part for stair in built[-3:]] == ["config", "tokenizer", "weights"]
    written = [stair.change for stair in built[1 : len(ledger)]]
    changes = [
        0 if words == conversion_staircase.NONE else int(words.replace("−", "-").replace(",", "")) for words in written
    ]
    assert ledger[0]["parameters"] + sum(changes) == ledger[-1]["parameters"]


def test_every_check_of_the_staircase_is_drawn():
    drawing = drawn(conversion_staircase.conversion_staircase, 1776, 367)
    ticks = sum(part.startswith("<polyline") and part.count(",") == 3 for part in drawing.parts)
    built = conversion_staircase.stairs(record("M9-LAB-02")["ledger"])
    assert ticks == sum(sum(stair.rows) for stair in built)


# --- slide 17 -------------------------------------------------------------------------------------------------------
def test_the_translation_table_names_fields_that_both_configs_have():
    from course_helpers import FAMILIES

    old = next(iter(FAMILIES["gpt2"].presets.values())).to_hf()
    new = next(iter(FAMILIES["llama2"].presets.values())).to_hf()
    fields = record("M9-LAB-02")["config"]
    assert set(fields) <= set(new)
    assert set(conversion_milestones.NAMES.values()) <= set(old)
    assert set(fields) - set(conversion_milestones.NAMES) == {"attention_bias", "rope_theta"}


def test_silent_fields_are_those_of_the_lab_and_come_last():
    found = record("M9-LAB-02")
    silent = conversion_milestones.SILENT
    assert {name for name, _ in silent.values()} == set(found["silent_fields"])
    assert set(list(found["config"])[-len(silent) :]) == set(silent)


def test_a_verdict_follows_from_logits_and_loss():
    say = conversion_milestones.verdict
    assert say({"logits_equal": True, "loss": 0.2}, 0.2)[0] == "no effect here"
    assert say({"logits_equal": False, "loss": 0.2}, 0.2)[0] == "only logits show it"
    assert say({"logits_equal": False, "loss": 1.1}, 0.2)[0] == ""


def test_groups_of_checkpoints_cover_the_lab_in_its_order():
    found = conversion_milestones.checkpoints()
    assert sum(count for _, count in conversion_milestones.GROUPS) == len(found)
    starts, place = {}, 0
    for words, count in conversion_milestones.GROUPS:
        starts[words] = " ".join(one["name"] for one in found[place : place + count])
        place += count
    for words, expected in {"config": "config fields", "tokenizer": "tokenizers", "rows": "rows"}.items():
        assert expected in starts[words]
    assert "seven stages" in starts["seven stages"] and "debugger" in starts["debugging"]


# --- slide 18 -------------------------------------------------------------------------------------------------------
def test_bands_follow_from_the_rule_of_the_config():
    from course_helpers.architectures.llama import LLAMA_3_PRESETS

    config, found = LLAMA_3_PRESETS["meta-llama/Llama-3.1-8B"], record("M9-LAB-03")
    rope, waves = config.rope_parameters, found["wavelengths_llama3.1_8b"]
    lengths = [2 * math.pi * rope.rope_theta ** (2 * i / config.head_dim) for i in range(config.head_dim // 2)]
    short = sum(one < rope.original_max_position_embeddings / rope.high_freq_factor for one in lengths)
    long = sum(one > rope.original_max_position_embeddings / rope.low_freq_factor for one in lengths)
    expected = short, len(lengths) - short - long, long
    assert rope_extension.bands(waves["before"], waves["after"], rope.factor) == expected
    assert rope_extension.plain_wavelengths(found["configs"]["Llama 3.1 8B"]) == pytest.approx(
        waves["before"], rel=1e-4
    )


def test_gold_marks_exactly_the_fields_that_change():
    configs = list(record("M9-LAB-03")["configs"].values())
    drawing = Drawing(1096, 668)
    rope_extension.releases(drawing, record("M9-LAB-03")["configs"], record("M9-LAB-03")["milestones"])
    changed = sum(
        before[field] != after[field] for before, after in pairwise(configs) for _, field in rope_extension.FIELDS
    )
    assert sum(part.startswith("<rect") for part in drawing.parts) == changed


# --- the words beside the figures -----------------------------------------------------------------------------------
def test_numbers_in_the_words_are_those_that_were_measured():
    lab_1, lab_2, lab_3 = (record(f"M9-LAB-0{number}") for number in (1, 2, 3))
    for use in [lab_1["roads"][road.key] for road in loading_roads.ROADS]:
        assert f"{use['seconds']:.2f} seconds" in source(4).alt
        assert f"{use['peak_mb'] / lab_1['model_mb']:.2f}" in source(4).alt
    steps = " ".join(source(17).sections["Checklist"])
    for loss in (*lab_2["tokenizer_losses"].values(), lab_2["layout_losses"]["Meta's rows with halves turned"]):
        assert f"{loss:.2f}" in steps
    for name in ("heads", "theta"):
        assert f"{lab_2['silent_fields'][name]['loss']:.2f}" in source(17).alt
    steps = " ".join(source(18).sections["Checklist"])
    cache = lab_3["cache_bytes_per_token"]
    assert f"from {cache['Llama 2 7B'] // 1024} to {cache['Llama 3 8B'] // 1024} KiB" in steps
    assert f"{lab_3['loss_of_silent_mistakes']['other tokenizer']:.2f}" in steps
    waves = lab_3["wavelengths_llama3.1_8b"]
    assert (
        "{} pairs kept, {} blended, {} slowed".format(*rope_extension.bands(waves["before"], waves["after"], 8))
        in steps
    )
    stretches = lab_3["loss_by_position"]["rows"]["scaling left out"]
    assert f"from {stretches[0]:.2f} to {stretches[-1]:.2f}" in source(18).alt
