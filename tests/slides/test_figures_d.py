"""Slides 8, 9, 10, 23 and 29: what their figures compute, against another way to the same number."""

import json
import re
from dataclasses import replace

import pytest
import torch

from course_helpers import FAMILIES
from slides import figures
from slides.figures import bridge_curves, family_snapshot, handoff_artifacts, shared_contract, training_swap
from slides.figures.numbers import RESULTS
from slides.figures.svg import Drawing

CONCEPT, PRACTICAL = (1096, 600), (1096, 668)


def record(lab):
    return json.loads((RESULTS / f"{lab}.json").read_text(encoding="utf-8"))["results"]


def texts(name, size):
    """All that a figure says, in the order of drawing."""
    drawing = Drawing(*size)
    figures.load()[name](drawing)
    return re.findall(r"<text[^>]*>([^<]*)</text>", "".join(drawing.parts))


@pytest.fixture(scope="module")
def sizes():
    names = ("qwen3", "qwen3_moe", "gemma3", "olmo3")
    return {(name, row.size): row for name in names for row in family_snapshot.rows(name)}


def test_sizes_and_their_active_parameters_are_those_of_the_labs(sizes):
    measured = record("M9-LAB-04")["released_held_and_active"]
    for hub_id, held_and_active in measured.items():
        found = [row for row in sizes.values() if "qwen" in row.family and f"Qwen3-{row.size}" == hub_id]
        assert [[row.parameters, row.active] for row in found] == [held_and_active]


def test_caches_are_those_of_the_lab_and_of_the_configs_arithmetic(sizes):
    for hub_id, caches in record("M9-LAB-05")["released caches at 32768"].items():
        assert sizes["gemma3", family_snapshot.size_of(hub_id)].cache == caches["ring"]
    for (_, size), row in sizes.items():
        config = row.config
        assert row.weights == row.parameters * torch.bfloat16.itemsize, size
        kept = sum(
            config.sliding_window if kind == "sliding_attention" else family_snapshot.TOKENS
            for kind in config.layer_plan
        )
        assert row.cache == 4 * config.num_key_value_heads * config.head_dim * kept, size


def test_the_strip_has_a_cell_for_each_layer_and_another_plan_another_strip(sizes):
    config = sizes["olmo3", "7B"].config
    kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert [full for *_, full in family_snapshot.cells(config)] == [kind == "full_attention" for kind in kinds * 8]
    dense = replace(config, layer_types=("full_attention",) * 32)
    assert all(full for *_, full in family_snapshot.cells(dense))


def test_every_size_is_read_and_the_ends_are_rows(sizes):
    said = texts("family_snapshot", CONCEPT)
    for name in ("qwen3", "qwen3_moe", "gemma3", "olmo3"):
        parameters = {family_snapshot.parts_of(name, hub_id).parameters for hub_id in FAMILIES[name].presets}
        assert {row.parameters for (family, _), row in sizes.items() if family == name} == parameters
        of_family = [row for (family, _), row in sizes.items() if family == name]
        smallest, largest = (pick(of_family, key=lambda row: row.parameters) for pick in (min, max))
        assert family_snapshot.ends(name) == [smallest, largest]
        for row in (smallest, largest):
            assert row.size in said and family_snapshot.gigabytes(row.total) in said
    assert sum(text.startswith("cache +") for text in said) == len(family_snapshot.GROUPS)


def test_the_cut_shows_what_the_configs_say():
    shown = dict(zip(shared_contract.SHOWN, shared_contract.insides(), strict=True))
    norms = ("attention_norm", "attention_post_norm", "attention.query_norm")
    found = {name: tuple(inside.has(norm) for norm in norms) for name, inside in shown.items()}
    before, after, inside = (True, False, False), (False, True, True), (True, False, True)
    assert found == {
        "gpt2": before, "llama3": before, "qwen3": inside, "qwen3_moe": inside, "gemma3": (True, True, True),
        "olmo3": after,
    }  # fmt: skip
    said = texts("shared_contract", CONCEPT)
    heads = [text for text in said if re.fullmatch(r"\d+ : \d+", text)]
    assert heads == ["12 : 12", "32 : 8", "16 : 8", "32 : 4", "4 : 1", "32 : 32"]
    assert said.count("(B, T)") == said.count("(B, T, V)") == len(shown)


def test_as_many_experts_are_gold_as_a_token_uses():
    inside = next(inside for inside in shared_contract.insides() if inside.has("feed_forward.router"))
    drawing = Drawing(*CONCEPT)
    shared_contract.DRAWN["feed-forward"](drawing, 100, 100, inside)
    gold = [part for part in drawing.parts if f'fill="{shared_contract.GOLD}"' in part]
    assert (len(gold), inside.config.num_experts_per_tok) == (8, 8)
    assert sum("<rect" in part for part in drawing.parts) == inside.config.num_experts


def test_mean_curves_end_where_the_lab_says():
    found = record("M9-LAB-07")
    for name, runs in found["curves"].items():
        tokens, loss = bridge_curves.mean_curve(runs, found["tokens a step"])[-1]
        assert tokens == found["settings"]["steps"] * found["settings"]["batch"] * found["settings"]["context"]
        assert loss == pytest.approx(found["ends"][name]["mean"])
        assert f"{name}  {loss:.2f}" in texts("bridge_curves", PRACTICAL)
        assert f"{loss:.2f}" in texts("training_swap", CONCEPT)


def test_gaps_are_between_the_nearest_runs():
    curves = record("M9-LAB-07")["curves"]
    ends = {name: sorted(looks[-1][1] for looks in runs) for name, runs in curves.items()}
    said = texts("bridge_curves", PRACTICAL)
    for better, worse in (("Qwen3", "GPT-2"), ("Llama 3", "Qwen3")):
        assert f"{ends[worse][0] - ends[better][-1]:.2f} apart" in said
    assert f"{ends['GPT-2'][-1] - ends['GPT-2'][0]:.2f} spread" in said


def test_the_stored_run_is_quoted_and_what_it_did_not_print_is_refused():
    changed, total = map(int, training_swap.printed(r"(\d+) of (\d+) fields differ").groups())
    assert 0 < changed < total
    assert f"{changed} of {total} fields differ," in texts("training_swap", CONCEPT)
    with pytest.raises(ValueError, match="printed nothing like"):
        training_swap.printed("no lab prints this")


def test_each_refusal_stands_at_the_plate_whose_file_it_names():
    refused = record("M9-LAB-APP-C")["refused"]
    spoilt = {copy: (file, name) for _, name, file, copy in handoff_artifacts.PLATES if copy}
    assert spoilt.keys() == refused.keys()
    for copy, (file, name) in spoilt.items():
        assert refused[copy].startswith((file, name)), copy
    assert texts("handoff_artifacts", PRACTICAL).count("refused, by name") == len(refused)


def test_plates_are_the_artifacts_and_rows_the_classifiers_best_first():
    found = record("M9-LAB-APP-C")
    for ticks in found["artifacts"].values():
        assert [key for key, *_ in handoff_artifacts.PLATES] == list(ticks)
    rows = handoff_artifacts.ways(found)
    means = [sum(one[way] for one in found["test accuracy"].values()) for way in rows]
    assert means == sorted(means, reverse=True)
    assert set(rows) == set(found["test accuracy"]["GPT-2"])


def test_whiskers_are_the_labs_standard_error():
    found = record("M9-LAB-APP-C")
    count = handoff_artifacts.examined(found)
    assert handoff_artifacts.standard_error(0.95, count) == pytest.approx(found["standard error"])
