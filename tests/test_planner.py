"""The planner: terms that equal what models really are, choices that fit, refusals whose remedies work."""

import argparse
import dataclasses
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import FAMILIES, load_model, open_checkpoint
from course_helpers.loaders import strategies
from course_helpers.planner import plan
from course_helpers.planning.choices import STRATEGIES
from course_helpers.planning.command import add_options, decision_matrix, run, size
from course_helpers.planning.costs import (
    Mixture,
    Work,
    anatomy,
    count_operations,
    loading_bytes,
    operations,
    step_seconds,
)
from course_helpers.planning.family_checklists import CHECKLISTS, version_of
from course_helpers.planning.machines import BRAIN, GB, HALF, MACHINES, SINGLE, Machine, Speed
from course_helpers.planning.objectives import OBJECTIVES
from course_helpers.planning.text import WIDTH
from course_helpers.sizes import parameter_count
from tests.bundled import FOLDERS

every_family = pytest.mark.parametrize("name", FAMILIES)
PRESETS = {hub_id: config for family in FAMILIES.values() for hub_id, config in family.presets.items()}
#: A computer of known speeds.
KNOWN = Machine(
    "known",
    "cpu",
    20 * GB,
    {BRAIN: Speed(10e9, {1: 1.0, 4: 2.0}, 1e-5, 1e-6, 5e9), SINGLE: Speed(20e9)},
    GB // 4,
    "made up",
    True,
)


def bundled(name):
    return load_model(FOLDERS[FAMILIES[name].tiny])


@every_family
def test_parameters_are_told_apart_by_how_a_token_uses_them(name):
    """Against gradients: of what a token looks up, one row counts; of what it reads, everything."""
    model = bundled(name).float()
    parts = anatomy(model.config)
    model(torch.tensor([[5]])).square().sum().backward()
    looked_up = sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.dim() == 2 and len(parameter) > 1 and int(parameter.grad.abs().sum(1).bool().sum()) == 1
    )
    assert parts.looked_up == looked_up
    assert parts.parameters == parameter_count(FAMILIES[name].model, model.config)
    used = sum(mixture.used / mixture.experts * mixture.parameters for mixture in parts.mixtures)
    experts = [parameter for parameter in model.parameters() if parameter.dim() == 3]
    assert sum(mixture.parameters for mixture in parts.mixtures) == sum(parameter.numel() for parameter in experts)
    assert used == sum(
        parameter.grad.flatten(1).abs().sum(1).bool().sum() * parameter[0].numel() for parameter in experts
    )
    assert parts.matrices == parts.parameters - looked_up - sum(parameter.numel() for parameter in experts)


@every_family
def test_the_largest_tensors_are_those_of_the_checkpoint(name):
    folder = FOLDERS[FAMILIES[name].tiny]
    parts = anatomy(FAMILIES[name].config.from_hf(json.loads((folder / "config.json").read_text())))
    with open_checkpoint(folder) as checkpoint:
        sizes = {name: torch.Size(checkpoint.shape(name)).numel() for name in checkpoint.names()}
    assert parts.largest == max(sizes.values())
    # GPT-2's matrices are stored transposed, experts one by one; all else is used as it is.
    changed = [size for key, size in sizes.items() if "c_" in key or ".experts." in key]
    assert parts.largest_changed == max(changed, default=0)


@every_family
def test_operations_are_counted_on_shallow_models(name):
    config = next(iter(FAMILIES[name].presets.values()))
    assert operations(anatomy(config)) == count_operations(config)


@pytest.mark.parametrize(("experts", "used", "rows"), [(4, 1, 1), (4, 1, 3), (4, 2, 2), (5, 3, 2)])
def test_experts_that_a_batch_reads_by_enumeration(experts, used, rows):
    picks = list(itertools.combinations(range(experts), used))
    read = [len(set().union(*rows_of)) for rows_of in itertools.product(picks, repeat=rows)]
    assert Mixture(1, experts, used).read(rows) == pytest.approx(sum(read) / len(read))


def test_loading_follows_the_strategies_own_account():
    parts = anatomy(PRESETS["Qwen/Qwen3-0.6B"])
    embedding = 151936 * 1024 * 2
    whole = parts.parameters * 2
    assert set(loading_bytes(parts, BRAIN, BRAIN)) == set(STRATEGIES) == set(strategies.STRATEGIES)
    assert loading_bytes(parts, BRAIN, BRAIN) == {"stream": 0, "mmap": 0, "sequential": embedding, "naive": whole}
    cast = loading_bytes(parts, SINGLE, BRAIN)
    assert cast == {"stream": embedding, "mmap": embedding, "sequential": embedding, "naive": whole}
    assert loading_bytes(parts, BRAIN, BRAIN, moved=True) == cast


def test_the_time_of_a_step_by_hand():
    """Qwen3 8B: untied, so the embedding is looked up; 8 key/value heads of 128 in 36 layers serve 32 query heads."""
    parts, speed = anatomy(PRESETS["Qwen/Qwen3-8B"]), KNOWN.speeds[BRAIN]
    terms = step_seconds(parts, BRAIN, Work(1000, 2), speed)
    assert parts.looked_up == 151936 * 4096
    assert terms["weights"] == pytest.approx(2 * (parts.parameters - 151936 * 4096) / 10e9 * 4 / 3)
    assert terms["KV cache"] == pytest.approx(2 * 36 * 8 * 128 * 1000 * 2 * 2 * 4 / 5e9)
    assert terms["operations"] == operations(parts) * 1e-5
    assert terms["experts"] == 0
    mixture = anatomy(PRESETS["Qwen/Qwen3-30B-A3B"])
    terms = step_seconds(mixture, BRAIN, Work(1), speed)
    assert terms["experts"] == pytest.approx(48 * (8 * 3 * 768 * 2048 * 2 / 10e9 + 128 * 1e-6))


def test_windows_bound_what_is_read():
    parts = anatomy(PRESETS["google/gemma-3-270m"])
    full, sliding = 3, 15
    for context in (400, 5000):
        positions = full * context + sliding * min(context, 512)
        seconds = step_seconds(parts, SINGLE, Work(context), KNOWN.speeds[SINGLE])["KV cache"]
        assert seconds == pytest.approx(2 * 256 * 4 * positions / 20e9)


@given(st.floats(1, 64))
def test_rows_between_the_known_ones(rows):
    speed = Speed(1.0, {1: 1.0, 2: 2.5, 8: 4.0})
    bend = 1 + 1.5 * (rows - 1) if rows < 2 else 2.5 + 0.25 * (rows - 2) if rows < 8 else 4.0 * rows / 8
    assert speed.factor(rows) == pytest.approx(bend)
    assert Speed(1.0).factor(rows) == 1.0 if rows == 1 else Speed(1.0).factor(rows) >= 1.0


@settings(max_examples=25)
@given(
    objective=st.sampled_from([*OBJECTIVES]),
    machine=st.sampled_from([*MACHINES.values(), KNOWN]),
    memory=st.one_of(st.none(), st.integers(GB // 2, 200 * GB)),
    family=st.sampled_from([*FAMILIES]),
    context=st.sampled_from([64, 3000]),
    wanted=st.sampled_from([None, 1.0, 30.0]),
    dtype=st.sampled_from([None, BRAIN, HALF]),
    strategy=st.sampled_from([None, "naive"]),
)
def test_every_choice_fits_and_every_other_model_is_refused_with_a_reason(
    objective, machine, memory, family, context, wanted, dtype, strategy
):
    wanted = None if OBJECTIVES[objective].training else wanted
    asked = {"memory": memory, "context": context, "tokens_per_second": wanted, "dtype": dtype, "strategy": strategy}
    found = plan(objective, machine, family=family, **asked)
    ceiling = memory or machine.memory
    assert len(found.choices) + len(found.refused) == len(FAMILIES[family].presets)
    assert [choice.parameters for choice in found.choices] == sorted(choice.parameters for choice in found.choices)
    assert found.best is (found.choices[0] if found.choices else None)
    for choice in found.choices:
        assert choice.peak == max(sum(choice.memory.values()), choice.loading[choice.strategy]) <= ceiling
        assert choice.dtype in machine.speeds and choice.dtype == (dtype or choice.dtype)
        assert wanted is None or choice.tokens_per_second >= wanted
        assert not (OBJECTIVES[objective].ungated and FAMILIES[choice.family].gated)
        assert choice.parameters >= OBJECTIVES[objective].parameters
        assert not (choice.family == "gemma3" and choice.dtype == HALF)
    assert all(refusal.reasons for refusal in found.refused)
    assert all(len(line) <= WIDTH for line in str(found).splitlines())
    assert len(json.loads(found.to_json())["choices"]) == len(found.to_rows()) == len(found.choices)


def test_more_memory_never_takes_a_choice_away():
    before: set[str] = set()
    for memory in (GB, 9 * GB, 100 * GB, 500 * GB):
        now = {choice.hub_id for choice in plan("run", "H100", memory=memory, context=64).choices}
        assert before <= now
        before = now
    assert len(before) == 26


def test_remedies_do_what_they_say():
    """Llama 2 13B in 40 GB: 26 GB of weights, and 0.8 MB of cache for each of 4096 positions and 8 rows."""
    asked = {"context": 4096, "batch_size": 8, "family": "llama2"}
    refusal = next(one for one in plan("run", "A100-40GB", **asked).refused if "13b" in one.hub_id)
    assert "KV cache" in refusal.reasons[0]
    shorter, fewer, larger = refusal.remedies
    context = int(shorter.removeprefix("a context of ").removesuffix(" tokens").replace(",", ""))
    rows = int(fewer.removeprefix("a batch of "))
    for change, works in (
        ({"context": context}, True),
        ({"context": 2 * context}, False),
        ({"batch_size": rows}, True),
    ):
        chosen = [choice.hub_id for choice in plan("run", "A100-40GB", **asked | change).choices]
        assert ("meta-llama/Llama-2-13b-hf" in chosen) is works
    memory = int(float(larger.split()[3]) * GB) + GB // 10
    assert len(plan("run", "A100-40GB", memory=memory, **asked).choices) == 2


def test_another_type_or_strategy_is_named_where_that_would_do():
    refusal = plan("run", KNOWN, dtype=SINGLE, family="olmo3").refused[0]
    assert refusal.remedies[0] == "dtype bfloat16"
    refusal = plan("run", KNOWN, strategy="naive", family="olmo3").refused[0]
    assert refusal.remedies[0] == "strategy stream" and "while loading" in refusal.reasons[0]
    refusal = plan("run", KNOWN, memory=4 * GB, family="olmo3").refused[0]
    assert "strategy mmap leaves the weights in the file" in refusal.remedies[0]
    gpt2 = plan("run", KNOWN, memory=GB, family="gpt2").refused[-1]
    assert not any("mmap" in remedy for remedy in gpt2.remedies)  # its matrices are turned, so they cannot stay there


@pytest.mark.parametrize(
    ("machine", "memory", "fits"),
    [
        ("laptop-16GB", 24 * 9 * GB // 10, ["7B"]),
        ("T4", None, ["7B"]),
        ("H100", None, ["7B", "32B"]),
        ("laptop-8GB", None, []),
    ],
)
def test_olmo_on_machines_of_several_sizes(machine, memory, fits):
    found = plan("run", machine, memory=memory, family="olmo3")
    assert [choice.hub_id.rsplit("-", 1)[1] for choice in found.choices] == fits
    for choice in found.choices:
        assert choice.dtype in ((HALF,) if machine == "T4" else (BRAIN,))


def test_float16_is_refused_where_it_overflows():
    refused = plan("run", "H100", dtype=HALF, family="gemma3").refused
    assert len(refused) == 3 and all("float16" in refusal.reasons[0] for refusal in refused)
    assert {choice.dtype for choice in plan("run", "T4", family="gemma3").choices} == {SINGLE}
    assert plan("run", "T4", family="qwen3").best.dtype == HALF


def test_chat_is_planned_with_chat_versions():
    ids = {choice.hub_id for choice in plan("chat", "H100", context=64).choices}
    assert {
        "google/gemma-3-1b-it",
        "allenai/Olmo-3-7B-Instruct",
        "Qwen/Qwen3-8B",
        "meta-llama/Llama-2-7b-chat-hf",
    } <= ids
    assert not any("gpt2" in hub_id for hub_id in ids)
    assert version_of(FAMILIES["gemma3"], "google/gemma-3-270m", True) == "google/gemma-3-270m-it"
    assert version_of(FAMILIES["qwen3"], "Qwen/Qwen3-32B", False) is None
    assert CHECKLISTS.keys() == FAMILIES.keys()


def test_a_family_without_a_checklist_is_planned_for(monkeypatch):
    monkeypatch.setitem(FAMILIES, "another", dataclasses.replace(FAMILIES["qwen3"], title="Another"))
    assert plan("run", "H100", family="another").best.hub_id == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "x"},
        {"family": "x"},
        {"strategy": "x"},
        {"machine": "x"},
        {"context": 0},
        {"memory": -1},
        {"batch_size": 0},
    ],
)
def test_what_there_is_not(wrong):
    with pytest.raises(ValueError):
        plan(**{"machine": "T4"} | wrong)


def test_a_speed_that_nobody_knows_cannot_be_asked_for():
    with pytest.raises(ValueError, match="not known"):
        plan("train", "T4", tokens_per_second=1.0)
    with pytest.raises(ValueError, match="not known"):
        plan("run", dataclasses.replace(KNOWN, speeds=dict.fromkeys(KNOWN.speeds)), tokens_per_second=1.0)


def test_the_command_line(capsys, tmp_path):
    parser = argparse.ArgumentParser()
    add_options(parser)
    path = tmp_path / "plan.json"
    words = ["--device", "T4", "--memory", "3GB", "--objective", "chat", "--context", "512", "--json", str(path)]
    assert run(parser.parse_args(words)) == 0
    assert "The smallest that works: Qwen/Qwen3-0.6B" in capsys.readouterr().out
    assert json.loads(path.read_text())["choices"][0]["dtype"] == "float16"
    assert run(parser.parse_args(["--device", "T4", "--memory", "1MB"])) == 1
    assert "Nothing fits" in capsys.readouterr().out
    words = ["--device", "L4", "--family", "qwen3", "--context", "64", "--weights", "int8"]
    assert run(parser.parse_args(words)) == 0 and 'weights="int8")' in " ".join(capsys.readouterr().out.split())
    assert [size(text) for text in ("8GB", "1.5 GiB", "12")] == [8 * GB, 3 * 2**29, 12]
    with pytest.raises(ValueError):
        size("much")


def test_the_decision_matrix_has_a_row_for_each_pair():
    rows = decision_matrix(["learn", "train"], ["T4", "laptop-8GB"], tokens_per_second=5, family="gpt2")
    assert [row["hardware"] for row in rows] == ["T4", "laptop-8GB"] * 2
    assert all(row["model"] == "openai-community/gpt2" for row in rows)
    assert decision_matrix(["chat"], ["T4"], memory=GB // 10, family="qwen3")[0]["model"] == "nothing fits"
    assert plan("learn", "T4", family="gpt2")._repr_markdown_().startswith("| model |")
