"""What the figures of slides 6, 11, 12, 13 and 14 compute or pick, against an independent look at the same records."""

import json
import math
import re

import pytest

from slides.deck import CONTENT, read_source
from slides.figures import (
    checklist_gauges,
    loading_comparison,
    memory_timeline,
    parts_measured,
    parts_mistakes,
    parts_silent_faults,
    risk_map,
)
from slides.figures.numbers import BENCHMARKS, RESULTS, ROOT
from slides.figures.svg import Drawing
from slides.figures.validation_layers import validation_layers


def record(name, folder=RESULTS):
    data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return data.get("results", data)


# --- provenance -----------------------------------------------------------------------------------------------------
def test_records_of_one_machine_share_one_line_that_names_all_of_them():
    drawing = Drawing(10, 10)
    records = parts_measured.measured_together(drawing, "M9-LAB-02", "M9-LAB-03", "loading")
    assert records["M9-LAB-03"]["source"] == record("M9-LAB-03")["source"]
    (line,) = drawing.sources
    assert line.startswith("Measured: M9-LAB-02, 03, ") and "benchmark of loading" in line and "AMD EPYC" in line


# --- slide 6 --------------------------------------------------------------------------------------------------------
def test_the_moment_at_which_a_curve_reaches_a_level_lies_between_its_samples():
    assert memory_timeline.crossing([(0, 0), (1, 10), (2, 30)], 20) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="never rises to 31"):
        memory_timeline.crossing([(0, 0), (2, 30)], 31)


def test_the_naive_load_needs_more_than_the_drawn_machine_has_and_stream_does_not():
    lab = record("M9-LAB-APP-A")
    room = memory_timeline.ROOM * lab["model_mb"]
    assert lab["strategies"]["naive"]["peak_mb"] > room > lab["strategies"]["stream"]["peak_mb"]
    assert lab["strategies"]["naive"]["timeline"]["private_mb"][-1] < room, "it would run once it is loaded"


def test_peaks_at_full_size_are_those_of_the_benchmark_and_halve_what_a_machine_can_load():
    cases = record("loading", BENCHMARKS)["cases"]
    peaks = memory_timeline.full_size_peaks(cases, "Llama-3.2-1B")
    assert peaks["model"] == pytest.approx(2471628800 / 2**20)
    largest = {way: memory_timeline.largest_model(peaks, way) for way in ("naive", "stream")}
    assert largest["stream"] / largest["naive"] == pytest.approx(2, rel=0.01)
    assert largest["naive"] * memory_timeline.BYTES_EACH * peaks["naive"] / peaks["model"] == pytest.approx(16e9)


# --- slide 11 -------------------------------------------------------------------------------------------------------
def test_the_table_of_silent_faults_is_read_whole():
    cases = parts_silent_faults.read_cases()
    text = parts_silent_faults.TABLE.read_text(encoding="utf-8")
    assert f"{len({case.fault for case in cases})} faults" in text and f"{len(cases)} cases in all" in text
    assert sum(case.without_card for case in cases) == text.count("\\*")
    assert sum(parts_silent_faults.stopped(cases).values()) == len(cases)
    assert "the first layer notices every change to a\nfile." in text, "what the figure says of hashes"


def test_a_cell_that_names_no_layer_is_refused(tmp_path):
    table = tmp_path / "table.md"
    table.write_text("| Fault | gpt2 |\n|---|---|\n| a fault | nobody |\n")
    with pytest.raises(ValueError, match="a fault, gpt2: 'nobody' names no layer"):
        parts_silent_faults.read_cases(table)


def test_every_case_is_drawn_as_one_grain_that_falls_and_one_that_is_kept():
    drawing = Drawing(1096, 600)
    validation_layers(drawing)
    grains = [part for part in drawing.parts if 'r="3.7"' in part]
    assert len(grains) == 2 * len(parts_silent_faults.read_cases())


# --- slide 12 -------------------------------------------------------------------------------------------------------
def lab_records():
    return {lab: record(lab) for lab in parts_mistakes.LABS}


def test_every_silent_mistake_that_a_lab_measured_is_of_one_kind():
    placed = {key: [name for names in kinds.values() for name in names] for key, kinds in parts_mistakes.KINDS.items()}
    left_out = {"right", "right loss", "as trained", "its own tokenizer"}  # the right models
    left_out |= {"positions", "QK-norm of Qwen3"}  # changes nothing; is refused
    left_out |= {"HF's rows with halves turned", "Meta's rows with pairs turned"}  # right, both
    for (lab, table), names in placed.items():
        assert len(names) == len(set(names))
        assert set(names) == set(record(lab)[table]) - left_out, (lab, table)


def test_the_damage_is_the_loss_above_the_right_models_own():
    found = {(row.lab, row.name): row for row in parts_mistakes.mistakes(lab_records())}
    losses = record("M9-LAB-03")["loss_of_silent_mistakes"]
    assert found["M9-LAB-03", "other tokenizer"].nats == losses["other tokenizer"] - losses["right"]
    assert found["M9-LAB-05", "window: ignored"].loss == record("M9-LAB-05")["damage"]["window: ignored"]["loss"]


def test_what_the_slide_says_of_the_mistakes_holds():
    found = parts_mistakes.mistakes(lab_records())
    config = [row for row in found if row.kind == parts_mistakes.CONFIG]
    assert len(config) > len(found) / 2, "most are one wrong config field"
    worst = max(found, key=lambda row: row.nats)
    assert worst.kind == parts_mistakes.TOKENIZER and worst.loss > risk_map.guess()
    assert risk_map.guess() == pytest.approx(math.log(1024))


def test_dots_of_one_swarm_do_not_touch():
    dots = risk_map.swarm([0, 1, 2, 15, 30, 31, 31], 10)
    assert [place for place, _ in dots] == [0, 1, 2, 15, 30, 31, 31]
    for index, (place, level) in enumerate(dots):
        assert all(abs(place - other) >= 10 for other, its in dots[:index] if its == level)
    assert {level for _, level in dots[:3]} == {0, 1, -1}


# --- slide 13 -------------------------------------------------------------------------------------------------------
def test_a_run_that_did_not_show_the_checks_is_refused():
    run = record("run")
    assert loading_comparison.passed_checks(run)[loading_comparison.TRAP] == (True, True, False, False)
    (lab,) = [lab for lab in run["labs"] if lab["lab"] == loading_comparison.LAB]
    lab["checkpoints"][0]["passed"] = False
    with pytest.raises(ValueError, match="four roads give one model"):
        loading_comparison.passed_checks(run)


def test_what_a_file_may_do_is_read_from_the_labs_own_table():
    assert loading_comparison.notebook_row("Notices a flipped bit") == {
        "PyTorch state dict": False, "Transformers": False, "safetensors": False, "TensorFlow": True,
    }  # fmt: skip
    assert loading_comparison.notebook_row("Can run code")["PyTorch state dict"]
    rows = [loading_comparison.notebook_row(what) for what, _, _ in loading_comparison.FACTS]
    assert all(set(row) == set(record("M9-LAB-01")["roads"]) for row in rows)


def test_gold_are_the_roads_that_none_beats_in_time_and_memory():
    assert loading_comparison.unbeaten({"a": (1, 2), "b": (2, 1), "c": (2, 2), "d": (2, 1.004)}) == {"a", "b", "d"}
    lab = record("M9-LAB-01")
    quickest = min(lab["roads"], key=lambda road: lab["roads"][road]["seconds"])
    costs = {name: (road["seconds"], road["peak_mb"] / lab["model_mb"]) for name, road in lab["roads"].items()}
    assert quickest in loading_comparison.unbeaten(costs)
    drawing = Drawing(1776, 380)
    loading_comparison.loading_comparison(drawing)
    dots = [part for part in drawing.parts if part.startswith("<circle")]
    places = sorted(float(re.search(r'cx="([\d.]+)"', dot)[1]) for dot in dots)
    left, _, width, _ = loading_comparison.CHART
    seconds = sorted(road["seconds"] for road in lab["roads"].values())
    assert places == pytest.approx([left + width * value / loading_comparison.SLOWEST for value in seconds], abs=0.01)


# --- slide 14 -------------------------------------------------------------------------------------------------------
def test_the_gauges_show_every_line_of_every_checklist_once():
    lines = [line for _, part in checklist_gauges.PARTS.values() for line in part]
    for recorded in record("M9-LAB-APP-A")["checklist"].values():
        assert sorted(recorded) == sorted(lines)


def test_every_bundled_checkpoint_has_a_cell():
    checklist = record("M9-LAB-APP-A")["checklist"]
    assert set(checklist) == {path.name for path in (ROOT / "checkpoints").glob("tiny-*")}
    drawing = Drawing(1096, 668)
    checklist_gauges.checklist_gauges(drawing)
    cells = [part for part in drawing.parts if part.startswith("<path") and " A" in part]
    assert len(cells) == sum(map(len, checklist.values()))


def test_the_broken_copies_are_those_that_the_lab_found():
    assert [(row.copy, row.part) for row in checklist_gauges.broken_copies()] == [
        ("half-a-file", "config"),
        ("other-tokenizer", "first prompt"),
        ("other-theta", "first prompt"),
    ]


def test_lamps_go_out_at_the_line_that_the_lab_names():
    half, tokenizer, theta = checklist_gauges.broken_copies()
    assert half.lamps()["config"] == [False] and not any(half.lamps()["tokenizer"])
    assert tokenizer.lamps()["first prompt"] == [False, None, None]
    lamps = theta.lamps()
    assert lamps["first prompt"] == [True, True, False], "only the vouched text tells"
    assert all(all(lamps[part]) for part in ("config", "tokenizer", "memory"))


# --- words that quote numbers ---------------------------------------------------------------------------------------
def quoted():
    """Slide -> the numbers that its alternative text and checklist quote, as the records say them today."""
    lab, roads = record("M9-LAB-APP-A"), record("M9-LAB-01")
    peaks = memory_timeline.full_size_peaks(record("loading", BENCHMARKS)["cases"], "Llama-3.2-1B")
    stops = parts_silent_faults.stopped(parts_silent_faults.read_cases())
    found = parts_mistakes.mistakes(lab_records())
    return {
        6: [f"{lab['strategies'][way]['peak_mb']:.0f} MiB" for way in ("naive", "stream")]
        + [f"{lab['model_mb']:.0f} MiB", f"{peaks['naive']:,.0f}", f"{peaks['stream']:,.0f}"],
        11: [f"{layer} {stops[layer]}" for layer in ("shapes", "generation")] + [f"baseline {stops['baseline']}"],
        12: [f"{len(found)} silent mistakes", f"{max(row.nats for row in found):.1f}"],
        13: [f"{road['seconds']:.2f}" for road in roads["roads"].values()]
        + [f"{road['peak_mb'] / roads['model_mb']:.2f}" for road in roads["roads"].values()],
        14: [f"{record('M9-LAB-04')['variants']['dense']['held']:,}", "14 of 14", "28 of 28", "21 of 21"],
    }


@pytest.mark.parametrize("number", quoted())
def test_numbers_quoted_in_words_are_those_of_the_records(number):
    slide = read_source(next(CONTENT.glob(f"{number:02d}-*.md")))
    words = " ".join([slide.alt, *slide.sections.get("Checklist", ())])
    assert [text for text in quoted()[number] if text not in words] == []
