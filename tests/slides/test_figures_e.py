"""Slides 15, 24, 25, 26 and 27: what their figures draw, against configs, planner and labs' results."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_helpers.architectures import gpt2
from course_helpers.families import FAMILIES
from course_helpers.palette import GOLD, NAVY, SKY, SKY_TINT, SLATE, SOUND
from course_helpers.planner import Refusal
from slides import deck
from slides.figures import adapter_flow, assignment_flow, decision_matrix, failure_tree, smoke_suite
from slides.figures.svg import Drawing

RESULTS = Path(__file__).parents[2] / "results"


def recorded(lab):
    return json.loads((RESULTS / f"{lab}.json").read_text(encoding="utf-8"))["results"]


def shapes(drawing, tag, **attributes):
    wanted = [f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items()]
    return [part for part in drawing.parts if part.startswith(f"<{tag}") and all(want in part for want in wanted)]


def number(part, name):
    return float(re.search(f' {name}="([^"]+)"', part)[1])


def texts(drawing):
    return [re.sub("<[^>]+>", "", part) for part in drawing.parts if part.startswith("<text")]


# --- 15: the sorting yard -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", gpt2.PRESETS.values(), ids=gpt2.PRESETS)
def test_a_gpt2_has_twelve_tensors_a_layer_and_sixteen_parameters(config):
    """Two norms, four linear parts, each weight and bias: 12; query, key and value are one tensor and three
    parameters, so 4 more. Beside the layers: two embeddings and the last norm's two."""
    found = assignment_flow.yard(config)
    assert len(found.used) == 12 * config.num_hidden_layers + 4
    assert len(found.shapes) == 16 * config.num_hidden_layers + 4
    assert sum(len(rule.targets) for rule in found.used.values()) == len(found.shapes)
    width = config.hidden_size
    assert found.source_shape("h.0.attn.c_attn.weight") == (width, 3 * width)


def test_the_yard_shows_the_counts_and_the_cut():
    drawing = Drawing(654, 600)
    assignment_flow.assignment_flow(drawing)
    config = gpt2.PRESETS["openai-community/gpt2"]
    shown = " ".join(texts(drawing))
    assert f"{12 * config.num_hidden_layers + 4} tensors" in shown
    assert f"768 × {3 * 768:,}" in shown and "turn, cut in 3" in shown
    platforms = [part for part in shapes(drawing, "rect", fill=NAVY) if number(part, "x") == assignment_flow.PLATFORM]
    assert len(platforms) == 6


# --- 24: the decision matrix ----------------------------------------------------------------------------------------
REFUSED = {
    "4.5 GB too much: 500.0 MB program + 16.1 GB weights": "4 GB over",
    "18.7 tokens/s, 20 wanted: 46.9 ms weights": "19 tokens/s",
    "made for 1,024 tokens, and 16,384 are asked for": "max 1,024",
    "below the 4 billion parameters that the objective asks for": "under 4B",
    "gated: asks for an account, and for its terms to be accepted": "gated",
    "has no chat version": "no chat",
}


def answer(*refused):
    request = SimpleNamespace(objective=SimpleNamespace(parameters=4_000_000_000))
    return SimpleNamespace(request=request, refused=refused)


@pytest.mark.parametrize(("reason", "words"), REFUSED.items())
def test_a_refusal_in_two_words(reason, words):
    refusal = Refusal("llama3", "some/model", 8, (reason,))
    assert decision_matrix.obstacle(answer(replace(refusal, family="olmo3"), refusal), "llama3") == words


def test_the_size_that_came_nearest_speaks_for_its_family():
    small = Refusal("qwen3", "some/small", 1, ("below the 4 billion parameters that the objective asks for",))
    near = Refusal("qwen3", "some/near", 5, ("2.0 GB too much: ...",), ("a machine with 10 GB of memory",))
    far = Refusal("qwen3", "some/far", 50, ("90.0 GB too much: ...",), ("a machine with 98 GB of memory",))
    assert decision_matrix.obstacle(answer(small, near, far), "qwen3") == "2 GB over"


def test_the_matrix_recommends_what_the_runbook_recorded():
    """Two of the four wishes are the lab's own; the lab asked the planner on its own day."""
    lab = {
        (row["objective"], row["machine"], row.get("memory"), row["tokens_per_second"]): (
            row["fit"],
            row["recommended"],
        )
        for row in recorded("M9-LAB-APP-B")["matrix"]
    }
    shared = [wish for wish in decision_matrix.WISHES if wish in lab]
    assert len(shared) == 2
    plans = dict(zip(decision_matrix.WISHES, decision_matrix.plans(), strict=True))
    for wish in shared:
        assert (len(plans[wish].choices), plans[wish].best.hub_id) == lab[wish]


def test_every_family_has_a_cell_in_every_row_and_each_row_one_that_is_gold():
    drawing = Drawing(1776, 370)
    decision_matrix.decision_matrix(drawing)
    gold = shapes(drawing, "rect", fill=GOLD)
    fits = shapes(drawing, "rect", fill=SKY_TINT)
    assert len({number(part, "y") for part in gold}) == len(gold) == len(decision_matrix.WISHES)
    families = sum(len({choice.family for choice in plan.choices}) for plan in decision_matrix.plans())
    assert len(gold) + len(fits) == families


def test_slide_24_says_what_was_measured_below_the_matrix():
    drawing = Drawing(1776, 370)
    decision_matrix.decision_matrix(drawing)
    bits = [rulers["bits in 100 bytes"] for rulers in recorded("M9-CODE-02")["rulers"].values()]
    assert len(bits) == len(FAMILIES)
    assert all(f"{value:.2f}" in texts(drawing) for value in bits)
    alt = deck.read_slide(next(deck.CONTENT.glob("24-*.md"))).alt
    assert f"{min(bits):.2f} to {max(bits):.2f}" in alt
    every = {tuple(row.values()) for row in recorded("M9-LAB-09")["checks"].values()}
    assert every == {("green",) * 9} and "smoke suite 9 of 9" in alt


# --- 25: the tree ---------------------------------------------------------------------------------------------------
def test_the_leaves_are_the_labs_own_counts():
    results = recorded("M9-LAB-08")
    counts = {}
    for leaf in failure_tree.leaves_of(results["faults"]):
        counts.setdefault(leaf.look, {})[leaf.department] = leaf.count
    assert counts == results["first_to_notice"]
    assert list(counts) == list(results["milliseconds_per_look"]) == list(failure_tree.LOOKS)


def test_cures_are_counted_and_long_lists_are_cut():
    fault = {"noticed_by": "baseline", "department": "silent", "what_was_done": "x", "cure": "fetch again: config.json"}
    (leaf,) = failure_tree.leaves_of([fault] * 8 + [fault | {"cure": "transpose back"}])
    assert leaf.cures == {"fetch again": 8, "transpose back": 1}
    assert len(leaf.shown) == failure_tree.MOST == 4 and leaf.shown[-1] == "and 6 more"


def test_the_trunk_gets_narrower_by_what_each_look_stops():
    drawing = Drawing(1096, 668)
    failure_tree.failure_tree(drawing)
    widths = [number(part, "width") / failure_tree.UNIT for part in shapes(drawing, "rect", fill=NAVY)]
    stopped = [sum(counts.values()) for counts in recorded("M9-LAB-08")["first_to_notice"].values()]
    expected = [sum(stopped)] + [sum(stopped[index + 1 :]) for index in range(len(stopped) - 1)]
    assert widths == pytest.approx(expected)
    leaves = failure_tree.leaves_of(recorded("M9-LAB-08")["faults"])
    assert len(shapes(drawing, "path", fill=GOLD)) == 1
    assert len(shapes(drawing, "path", fill=SKY)) == len(leaves) - 1
    tops = [(top, top + height) for _, top, height in failure_tree.placed(leaves)]
    assert all(one[1] < other[0] for one, other in pairwise(tops))
    assert tops[-1][1] == pytest.approx(failure_tree.BOTTOM)


def test_time_is_the_bar_of_a_look_and_every_look_lies_above_its_leaves():
    drawing, results = Drawing(1096, 668), recorded("M9-LAB-08")
    failure_tree.failure_tree(drawing)
    times = list(results["milliseconds_per_look"].values())
    bars = [number(part, "width") for part in shapes(drawing, "rect", fill=SLATE)]
    assert bars == pytest.approx([max(3, time * failure_tree.LONGEST / max(times)) for time in times], abs=0.01)
    looks = list(results["milliseconds_per_look"])
    for leaf, top, height in failure_tree.placed(failure_tree.leaves_of(results["faults"])):
        gate = failure_tree.TOP + failure_tree.STAGE * looks.index(leaf.look)
        assert top + height / 2 - leaf.count * failure_tree.UNIT / 2 > gate


# --- 26: the smoke suite --------------------------------------------------------------------------------------------
def test_gold_is_a_staircase_and_every_check_has_its_disc():
    drawing, results = Drawing(1096, 668), recorded("M9-LAB-09")
    smoke_suite.smoke_suite(drawing)
    steps = [(number(part, "x"), number(part, "y")) for part in shapes(drawing, "rect", fill=GOLD)][
        1:
    ]  # the first is the key
    assert steps == sorted(steps) and len({x for x, _ in steps}) == len(results["faults"])
    seen = [part for part in texts(drawing) if part.endswith(f" of {len(FAMILIES)}")]
    counts = [count for row in results["faults"].values() for count in row.values() if count]
    assert seen == [f"{count} of {len(FAMILIES)}" for count in counts]
    discs = shapes(drawing, "circle", fill=SOUND)
    assert len(discs) == sum(map(len, results["checks"].values()))
    seconds = [value for family in FAMILIES.values() for value in results["seconds"][family.tiny].values()]
    radius = max(number(part, "r") for part in discs)
    for part, value in zip(discs, seconds, strict=True):
        wanted = radius * (value / max(seconds)) ** 0.5
        assert number(part, "r") == pytest.approx(max(smoke_suite.SMALLEST, wanted), abs=0.01)


def test_slide_26_says_what_the_lab_measured():
    slide, found = deck.read_slide(next(deck.CONTENT.glob("26-*.md"))), recorded("M9-LAB-09")
    distances, said = found["distances_in_tolerances"], " ".join(slide.sections["Checklist"])
    right = [value for name, values in distances.items() if name.endswith(": right") for value in values]
    quiet = distances.pop("loss: epsilon x 10")
    wrong = [value for name, values in distances.items() if not name.endswith(": right") for value in values]
    assert max(right) < 0.1 and "below a tenth" in said
    assert f"smallest mistake is {min(wrong):,.0f} times" in said
    assert f"ten times too large, in {sum(value < 1 for value in quiet)} of {len(quiet)}" in said
    seconds = [sum(row.values()) for row in found["seconds"].values()]
    assert f"{min(seconds):.2f} to {max(seconds):.2f} seconds" in slide.alt


def test_a_red_check_has_no_place_in_the_picture():
    results = recorded("M9-LAB-09")
    results["checks"]["tiny-gemma3"]["cached"] = "RED"
    columns = {check: 0 for check in results["checks"]["tiny-gemma3"]}
    with pytest.raises(ValueError, match="tiny-gemma3: cached is RED"):
        smoke_suite.times(Drawing(1096, 668), columns, results)


# --- 27: adapters ---------------------------------------------------------------------------------------------------
def test_every_family_is_on_one_cartridge():
    rows = adapter_flow.adapters()
    names = [name for row in rows for name in row.names.split(", ")]
    assert len(names) == len(set(names)) == len(FAMILIES)
    assert len(rows) == len({family.model for family in FAMILIES.values()})
    assert rows[0].names == "Llama 2, Llama 3" and rows[0].parts[:2] == ("LlamaConfig", "LlamaModel")


def test_a_new_family_draws_itself(monkeypatch):
    other = type("OtherModel", (FAMILIES["gpt2"].model,), {})
    family = replace(FAMILIES["gpt2"], title="Other", model=other, weight_maps=FAMILIES["olmo3"].weight_maps)
    before = len(adapter_flow.adapters())
    monkeypatch.setitem(FAMILIES, "other", family)
    rows = adapter_flow.adapters()
    assert len(rows) == before + 1
    assert rows[-1].names == "Other" and rows[-1].parts[1] == "OtherModel"
    assert rows[-1].parts[2] == next(row for row in rows if row.names == "Olmo 3").parts[2]


def test_the_drawn_rows_are_those_of_the_written_layout():
    """A layout expanded for one layer (and one expert) has as many names as rows."""
    gemma = next(row for row in adapter_flow.adapters() if row.names == "Gemma 3")
    family = FAMILIES["gemma3"]
    config = next(iter(family.presets.values()))
    names = {re.sub(r"\.\d+\.", ".#.", name) for name in family.weight_maps[0].expand(config)}
    assert gemma.parts[2] == f"{len(names)} rows"
