"""Slides 20, 21 and 22: what their figures draw, against the configs, the planner and what the labs recorded."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from course_helpers.families import FAMILIES
from course_helpers.memory import kv_cache_bytes
from course_helpers.palette import CHARCOAL, GOLD, NAVY, NAVY_TINT, WHITE, contrast
from slides import deck
from slides.figures import olmo_scale, qwen_variants, window_cache
from slides.figures.svg import Drawing

RESULTS = Path(__file__).parents[2] / "results"
OLMO = FAMILIES["olmo3"].presets


def results(lab):
    return json.loads((RESULTS / f"{lab}.json").read_text(encoding="utf-8"))["results"]


def words_of(number):
    """Everything that a slide's author wrote: claim, alt, checklist and notes."""
    slide = deck.read_slide(next(deck.CONTENT.glob(f"{number}-*.md")))
    return " ".join([slide.claim, slide.alt, *slide.sections["Checklist"], slide.notes])


def rects(drawing, fill):
    """(x, y, width, height) of the rectangles of one colour."""
    found = [part for part in drawing.parts if part.startswith("<rect") and f'fill="{fill}"' in part]
    return [
        tuple(float(re.search(rf' {name}="([\d.]+)"', part)[1]) for name in ("x", "y", "width", "height"))
        for part in found
    ]


# --- 20: Qwen's variants ---


def test_the_map_marks_as_many_experts_as_a_token_asks():
    usage = results("M9-LAB-04")["expert_usage"]
    drawing = Drawing(1096, 668)
    qwen_variants.draw_map(drawing, list(usage.values()), 2)
    assert len(rects(drawing, NAVY)) == sum(map(len, usage.values())) == 32
    frames = [part for part in drawing.parts if f'stroke="{GOLD}"' in part]
    assert len(frames) == 2 * len(usage)
    assert qwen_variants.busiest([0.1, 0.5, 0.2, 0.4], 2) == [1, 3]


def test_every_cell_of_the_map_can_be_read():
    shades = [qwen_variants.shade(part / 100) for part in range(101)]
    assert all(one < other for one, other in pairwise(shades)), "a larger share must be darker"
    for opacity in shades:
        assert contrast(qwen_variants.ink_on(opacity), qwen_variants.on_white(NAVY, opacity)) >= 4.5


def test_the_squares_are_as_large_as_the_parameters():
    drawing = Drawing(1096, 668)
    held, active, largest = 30_532_122_624, 3_353_032_704, 32_762_123_264
    side = qwen_variants.draw_square(drawing, 0, 200, [held, active], largest)
    assert rects(drawing, NAVY_TINT)[0][2] == pytest.approx(side, abs=0.01)
    inner = rects(drawing, GOLD)[0][2]
    assert (inner / side) ** 2 == pytest.approx(active / held, rel=0.01)
    assert (side / qwen_variants.SIDE) ** 2 == pytest.approx(held / largest, rel=0.01)


def test_the_ribbons_take_all_tokens():
    shares = [0.5, 0.25, 0.75, 0.5]
    drawing = Drawing(1096, 668)
    qwen_variants.draw_router(drawing, shares, 2)
    ribbons = [part for part in drawing.parts if part.startswith("<path")]
    widths = [float(re.search(r" h([\d.]+)", part)[1]) for part in ribbons]
    assert sum(widths) == pytest.approx(2 * qwen_variants.WHOLE, abs=0.5)
    assert [f'fill="{GOLD}"' in part for part in ribbons] == [True, False, True, False]


def test_slide_20_says_what_the_lab_found():
    found, text = results("M9-LAB-04"), words_of(20)
    moe = found["variants"]["MoE + cache"]
    for number in (moe["held"], moe["active"], found["variants"]["MoE"]["vectors"]):
        assert f"{number:,}" in text
    assert f"{moe['vectors']} vectors" in text
    assert f"loss {found['losses_of_routing_mistakes']['one place off']:.2f}" in text
    scores = found["largest_score_by_factor"]
    assert scores["factors"][-1] == 16
    assert f"stays at {scores['with QK-norm'][-1]:.1f}" in text
    held, active = found["released_held_and_active"]["Qwen3-30B-A3B"]
    assert f"{held / 1e9:.1f} billion" in text
    assert f"uses {active / 1e9:.1f}" in text
    shares = [share for row in found["expert_usage"].values() for share in row]
    assert f"from {min(shares):.0%} to {max(shares):.0%}".replace("%", "") in text.replace(" percent", "")
    assert {variant["texts"] for variant in found["variants"].values()} == {"3 of 3 alike"}
    speed = found["tokens_per_second"]
    assert all(speed[f"{kind} + cache"] > speed[kind] for kind in ("dense", "MoE"))


# --- 21: Gemma's windows ---


@pytest.mark.parametrize("window", [None, 1, 5, 48])
def test_the_mask_is_the_packages(window):
    from course_helpers.architectures.cache import attention_mask

    mask, is_causal = attention_mask(0, 96, None, torch.device("cpu"), window)
    sees = torch.ones(96, 96).tril().bool() if is_causal else mask[0, 0]
    rows = window_cache.rows_of_mask(96, window)
    drawn = torch.tensor([[first <= key <= last for key in range(96)] for first, last in rows])
    assert torch.equal(drawn, sees)


def test_the_mask_has_a_row_for_each_token_and_kind():
    drawing = Drawing(1776, 372)
    window_cache.draw_masks(drawing, 20)
    side = window_cache.BOTTOM - window_cache.TOP
    assert len(rects(drawing, GOLD)) == len(rects(drawing, NAVY_TINT)) == 40
    assert rects(drawing, GOLD)[-1][2] == pytest.approx(side / 2, abs=0.01)
    assert rects(drawing, NAVY_TINT)[-1][2] == pytest.approx(side, abs=0.01)


def test_the_ink_of_the_strips_is_the_memory():
    drawing = Drawing(1776, 372)
    window_cache.draw_strips(drawing)
    config = FAMILIES["gemma3"].presets[window_cache.MODEL]
    kept = [strip[2] for strip in rects(drawing, NAVY) + rects(drawing, GOLD)]
    assert len(kept) == config.num_hidden_layers
    one_layer = 2 * config.num_key_value_heads * config.head_dim * 2  # keys and values in bfloat16
    drawn = sum(kept) / window_cache.STRIPS * window_cache.TOKENS * one_layer
    assert drawn == pytest.approx(kv_cache_bytes(config, window_cache.TOKENS), rel=1e-3)


def test_another_plan_of_layers_changes_the_strips(monkeypatch):
    config = FAMILIES["gemma3"].presets["google/gemma-3-270m"]
    monkeypatch.setitem(FAMILIES["gemma3"].presets, window_cache.MODEL, config)
    drawing = Drawing(1776, 372)
    window_cache.draw_strips(drawing)
    assert len(rects(drawing, NAVY)) == 3
    assert len(rects(drawing, GOLD)) == 15


def test_slide_21_says_what_the_lab_found():
    found, text = results("M9-LAB-05"), words_of(21)
    sizes = found[window_cache.RELEASED][window_cache.MODEL]
    assert f"{sizes['ring'] / 1e6:.0f} MB instead of {sizes['full'] / 1e6:.0f}" in text
    assert round(sizes["full"] / sizes["ring"]) == 6
    assert f"window of {found['window']} tokens" in text
    wrong = {position for position in found["first wrong position"].values() if position is not None}
    assert wrong == {47, 48}
    assert sum(map(len, found["cache bytes"].values())) - len(found["cache bytes"]["lengths"]) == 14
    last = {name: runs["768"] for name, runs in found["race"].items()}
    assert len({tuple(run["ids"]) for run in last.values()}) == 1
    ring, full, none = (
        last[name]["step_seconds"] for name in (window_cache.RING, window_cache.ALL, window_cache.NO_CACHE)
    )
    assert ring < 1.3 * full
    assert none > 3 * ring


# --- 22: Olmo to scale ---


@pytest.fixture(scope="module")
def needed():
    return {tokens: olmo_scale.needs(tokens) for tokens in (olmo_scale.SHORT, olmo_scale.LONG)}


def test_the_columns_are_the_planners_sums(needed):
    for tokens, sizes in needed.items():
        for choice in sizes.values():
            assert choice.peak == sum(choice.memory.values())
            assert choice.memory["KV cache"] == kv_cache_bytes(OLMO[choice.hub_id], tokens)
            assert choice.peak / 1e9 < olmo_scale.TOP_GB


def test_whoever_reaches_the_line_is_whom_the_lab_found_fit(needed):
    recorded = results("M9-LAB-06")["machines_4096_tokens"]
    machines = olmo_scale.machines()
    assert {machine.name for machine in machines} == recorded.keys()
    for machine in machines:
        for size, choice in needed[olmo_scale.SHORT].items():
            assert (machine.memory >= choice.peak) == (not recorded[machine.name][size].startswith("no"))


def test_ticks_and_crosses_are_as_many_as_machines_and_sizes(needed):
    drawing = Drawing(1096, 668)
    olmo_scale.olmo_scale(drawing)
    peaks = [choice.peak for choice in needed[olmo_scale.SHORT].values()]
    fits = sum(machine.memory >= peak for machine in olmo_scale.machines() for peak in peaks)
    ticks = [part for part in drawing.parts if part.startswith("<polyline") and f'stroke="{olmo_scale.SOUND}"' in part]
    assert 0 < fits < 2 * len(olmo_scale.machines())
    assert len(ticks) == fits


def test_slide_22_says_what_the_lab_and_the_planner_found(needed):
    found, text = results("M9-LAB-06"), words_of(22)
    for sizes in needed.values():
        for choice in sizes.values():
            assert f"{choice.peak / 1e9:.1f}" in text
    assert f"{found['held_out_loss']['YaRN in all layers']:.2f} for {found['held_out_loss']['right']:.2f}" in text
    wrong = [loss for name, loss in found["held_out_loss"].items() if name != "right"]
    assert (len(wrong), wrong.count(None)) == (11, 1)
    caches = {size: choice.memory["KV cache"] for size, choice in needed[olmo_scale.LONG].items()}
    assert caches["7B"] == 2 * caches["32B"], "the figure and the notes say: half"
    assert found["constraints"]["7B"]["smallest machine, 4,096 tokens"] == "L4"
    assert found["constraints"]["32B"]["smallest machine, 4,096 tokens"] == "A100-80GB"
    assert found["machines_4096_tokens"]["T4"]["7B"] == "no: 1.6 GB too much"


def test_inks_are_readable_on_the_card():
    assert all(contrast(ink, WHITE) >= 4.5 for ink in (*olmo_scale.INK.values(), CHARCOAL))
