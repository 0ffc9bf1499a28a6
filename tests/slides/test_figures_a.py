"""Slides 1, 2, 3, 28 and 30: what their figures draw, against configs, the slides' sources and the last full run."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from course_helpers.families import FAMILIES
from course_helpers.labs.order import RUN_ORDER
from course_helpers.palette import ALARM, GOLD, NAVY, SKY
from course_helpers.sizes import on_meta
from slides import deck
from slides.figures import hour_ribbon, milestone_journey, portable_shell, run_order_map, source_map
from slides.figures.svg import Drawing
from slides.page import draw

RESULTS = Path(__file__).parents[2] / "results"
RUN = json.loads((RESULTS / "run.json").read_text(encoding="utf-8"))


def slide(number):
    return deck.read_slide(next(deck.CONTENT.glob(f"{number:02d}-*.md")))


def shapes(drawing, tag, **attributes):
    """The parts of one kind that have these attributes, as they stand in the SVG."""
    wanted = [f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items()]
    return [part for part in drawing.parts if part.startswith(f"<{tag}") and all(want in part for want in wanted)]


def texts(drawing):
    return [re.sub("<[^>]+>", "", part) for part in drawing.parts if part.startswith("<text")]


# --- 1: the shell ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "hub_id"), [("gemma3", 0), ("gemma3", 1), ("olmo3", 0), ("llama3", 0)])
def test_a_mark_has_a_bar_for_every_layer(family, hub_id):
    config = list(FAMILIES[family].presets.values())[hub_id]
    drawing = Drawing(400, 400)
    portable_shell.layer_mark(drawing, (200, 200), config)
    kinds = Counter(config.layer_plan)
    assert len(shapes(drawing, "rect", fill=NAVY)) == kinds["full_attention"]
    assert len(shapes(drawing, "rect", fill=SKY)) == kinds["sliding_attention"]


def test_as_many_experts_are_lit_as_answer_a_token():
    config = next(iter(FAMILIES["qwen3_moe"].presets.values()))
    drawing = Drawing(400, 400)
    portable_shell.expert_mark(drawing, (200, 200), config)
    assert len(shapes(drawing, "circle")) == config.num_experts
    assert len(shapes(drawing, "circle", fill=GOLD)) == config.num_experts_per_tok


def test_captions_count_what_the_marks_show():
    said = texts(draw(slide(1)))
    for family in ("llama3", "gemma3", "olmo3"):
        plan = next(iter(FAMILIES[family].presets.values())).layer_plan
        assert f"{Counter(plan)['full_attention']} of {len(plan)} layers see the whole text" in said
        assert f"{Counter(plan)['full_attention']} of {len(plan)}" in slide(1).alt


def test_an_adapter_has_a_bar_for_every_rule():
    rules = {dock.family: len(FAMILIES[dock.family].weight_maps[0].rows) for dock in portable_shell.DOCKS}
    for dock in portable_shell.DOCKS:
        drawing = Drawing(1920, 1080)
        portable_shell._adapter(drawing, dock)
        assert len(shapes(drawing, "polyline")) == rules[dock.family]
    assert f"{min(rules.values())} to {max(rules.values())} rules" in texts(draw(slide(1)))
    assert f"{min(rules.values())} to {max(rules.values())} rules each" in slide(1).alt


# --- 2: the hours ---------------------------------------------------------------------------------------------------
def test_blocks_fill_both_hours_and_every_agenda_item_has_some():
    for blocks in hour_ribbon.read_hours().values():
        assert [after.start for after in blocks[1:]] == [block.start + block.slide.minutes for block in blocks[:-1]]
        assert blocks[-1].start + blocks[-1].slide.minutes == 60
        assert {block.line for block in blocks} == {None, 0, 1, 2, 3}


@pytest.mark.parametrize(
    ("number", "line"), [(1, None), (4, 1), (5, 2), (6, 3), (8, 0), (21, 1), (23, 0), (24, 3), (25, 2), (29, None)]
)
def test_a_slide_stands_on_the_line_of_its_item(number, line):
    blocks = [block for hour in hour_ribbon.read_hours().values() for block in hour]
    assert {block.slide.number: block.line for block in blocks}[number] == line


def test_a_block_is_as_long_as_its_minutes():
    drawing = draw(slide(2))
    per_minute = set()
    for hour in hour_ribbon.read_hours().values():
        for block in hour:
            place = next(i for i, part in enumerate(drawing.parts) if f">{block.slide.number}</text>" in part
                         and drawing.parts[i - 1].startswith("<rect"))  # fmt: skip
            width = float(re.search(r' width="([\d.]+)"', drawing.parts[place - 1])[1])
            per_minute.add(round((width + 5) / block.slide.minutes, 1))
    assert len(per_minute) == 1


# --- 3: the map -----------------------------------------------------------------------------------------------------
def test_stations_are_all_labs_in_run_order_from_left_to_right():
    assert tuple(station.lab for station in source_map.read_stations()) == RUN_ORDER == tuple(source_map.STATIONS)
    assert all(left < right for left, right in pairwise(source_map.STATIONS.values()))


def test_lines_are_the_folders_that_the_annotations_name():
    assert set(source_map.read_markers()) == set(source_map.LINES)
    assert sorted(source_map.read_markers().values()) == list(range(1, 8))


def test_a_long_station_crosses_the_lines_of_its_folders_and_no_other():
    order = list(source_map.LINES)
    for station in source_map.read_stations():
        rows = [order.index(folder) for folder in station.folders]
        assert rows == list(range(rows[0], rows[-1] + 1)) if rows else station.lab == "M9-LAB-APP-C"


def test_the_shapes_that_forbid_a_change_are_those_of_the_models():
    for family in ("gemma3", "olmo3"):
        config = next(iter(FAMILIES[family].presets.values()))
        query = dict(on_meta(FAMILIES[family].model, config).named_parameters())["blocks.0.attention.query.weight"]
        assert " × ".join(map(str, query.shape)) in " ".join(texts(draw(slide(3))))


# --- 28: the strip --------------------------------------------------------------------------------------------------
def passed(run):
    return sum(checkpoint["passed"] for lab in run["labs"] for checkpoint in lab["checkpoints"])


def test_one_dot_for_every_checkpoint_that_held():
    drawing = draw(slide(28))
    legend = 1
    assert len(shapes(drawing, "circle", fill=GOLD)) == passed(RUN) + legend
    named = [text for text in texts(drawing) if re.fullmatch(r"(LAB-|APP-|CODE-|[LAC])(\d\d|[ABC])", text)]
    letters = {"L": "LAB-", "A": "APP-", "C": "CODE-"}  # a lab that took a few seconds has room for one
    assert [text if "-" in text else letters[text[0]] + text[1:] for text in named] == [
        lab.removeprefix("M9-").replace("LAB-APP", "APP") for lab in RUN_ORDER
    ]


def test_a_checkpoint_that_failed_is_a_cross_and_half_a_run_is_refused():
    run = json.loads(json.dumps(RUN))
    run["labs"][0]["checkpoints"][0]["passed"] = False
    drawing = Drawing(1776, 330)
    run_order_map._strip(drawing, run_order_map.stages_of(run))
    assert len(shapes(drawing, "path", stroke=ALARM)) == 1
    assert str(passed(RUN) - 1) in texts(drawing)
    with pytest.raises(ValueError, match="not of a full run"):
        run_order_map.stages_of(run | {"complete": False})


def test_the_words_beside_the_strip_fit_the_run():
    seconds = sum(lab["seconds"] for lab in RUN["labs"])
    total = sum(len(lab["checkpoints"]) for lab in RUN["labs"])
    assert len(RUN["labs"]) == 14 and seconds < 8 * 60, "slide 28's claim says otherwise"
    assert f"{passed(RUN)} of {total} hold" in slide(28).alt
    assert f"{seconds // 60:.0f} minutes {round(seconds % 60)} seconds" in slide(28).alt
    chosen = json.loads((RESULTS / "M9-LAB-APP-B.json").read_text(encoding="utf-8"))["results"]["why"]
    assert chosen.startswith("meta-llama/Llama-3.2-1B") and "Llama-3.2-1B" in " ".join(slide(28).sections["Checklist"])


# --- 30: the journey ------------------------------------------------------------------------------------------------
def records():
    labs = milestone_journey.LAB_OF_TAKEAWAY
    return {lab: json.loads((RESULTS / f"{lab}.json").read_text(encoding="utf-8"))["results"] for lab in labs}


def test_flags_show_what_the_labs_recorded():
    flags = [milestone.flag for milestone in milestone_journey.milestones(records())]
    assert flags == ["4 roads", "7 stages", "peak −50 %", "7 families", "32 lines", "12 of 12"]
    assert set(flags) <= set(texts(draw(slide(30))))
    numbers = re.findall(r"\d+(?:\.\d+)?", " ".join(flags))
    assert set(numbers) <= set(re.findall(r"\d+(?:\.\d+)?", slide(30).alt)), "the alternative text is of another run"
    assert len(flags) == len(slide(30).sections["Key Takeaways"])


def test_another_record_gives_another_flag():
    other = records()
    next(iter(other["M9-LAB-APP-C"]["artifacts"].values()))["validated base"] = False
    assert milestone_journey.milestones(other)[-1].flag == "11 of 12"
    run = json.loads(json.dumps(RUN))
    run["labs"][-1]["checkpoints"][-1]["passed"] = False
    assert milestone_journey.checkpoints(run) == (passed(RUN) - 1, passed(RUN))


def test_the_road_climbs_from_left_to_right():
    discs = [milestone_journey.height(milestone_journey.FIRST + i * milestone_journey.APART) for i in range(6)]
    assert milestone_journey.height(milestone_journey.START) > discs[0] > discs[-1]
    assert all(after < before + 4 for before, after in pairwise(discs))
