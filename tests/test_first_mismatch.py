"""`first_mismatch` finds nothing where nothing is wrong, and where something is, the module and the cause."""

import functools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_helpers import FAMILIES, CheckpointError, load_model
from course_helpers.architectures import base
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.layers import Attention
from course_helpers.first_mismatch import MismatchReport, first_mismatch
from tests.faults import FAULTS, returns
from tests.tiny_models import CONFIGS, EXAMPLES, ours, random_ids, theirs
from tests.traps import TRAPS
from tests.traps.checks import TOKENS, reference
from tests.traps.trap import Trap

every_family = pytest.mark.parametrize("family", FAMILIES)
UNTIED = {family: config | {"tie_word_embeddings": False} for family, config in EXAMPLES.items()}


def compared(family: str, model: LanguageModel, other: nn.Module | None = None, **options) -> MismatchReport:
    other = reference(EXAMPLES[family]) if other is None else other
    return first_mismatch(model, other, random_ids(EXAMPLES[family], 2, TOKENS), **options)


def place_of(report: MismatchReport) -> str:
    return f"{report.first.ours} {report.first.what}"


# Nothing is wrong.


def in_type(family: str, dtype: torch.dtype) -> nn.Module:
    """transformers' model as it is when loaded in a type: the rotary frequencies, which are buffers, stay float32."""
    model = theirs(EXAMPLES[family])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


@every_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_models_of_one_checkpoint_agree(family, dtype):
    other = in_type(family, dtype)
    report = compared(family, load_model(other), other)
    if family == "qwen3_moe" and dtype.itemsize == 2 and not report.ok:  # rounding chose between two that are alike
        assert report.first.what == "chosen" and "near tie" in report.causes[0][0]
    else:
        assert report.ok and report.first is report.position is None and report.causes == ()
        assert str(report).startswith("no mismatch: ")


@every_family
@settings(max_examples=12)
@given(data=st.data(), seed=st.integers(0, 99), tokens=st.integers(1, 40))
def test_models_of_any_config_agree(family, data, seed, tokens):
    config = data.draw(CONFIGS[family])
    other = theirs(config, seed)
    report = first_mismatch(load_model(other, config=config), other, random_ids(config, 2, tokens, seed))
    assert report.ok, report


@every_family
@pytest.mark.parametrize("config", [EXAMPLES, UNTIED], ids=["as it is", "untied"])
def test_nothing_is_passed_over(family, config):
    other = theirs(config[family])
    model = load_model(other)
    rows = first_mismatch(model, other, random_ids(config[family], 2, TOKENS)).rows
    parameters = [row for row in rows if row.what == "weight"]
    assert {row.ours for row in parameters} == {name for name, _ in model.named_parameters()} | {"output_head.weight"}
    assert {row.theirs for row in parameters} == other.state_dict().keys()
    owners = {row.ours.rpartition(".")[0] for row in parameters}
    unseen = {"token_embedding", "output_head"} | {name for name in owners if name.endswith("experts")}
    assert owners - unseen <= {row.ours for row in rows if row.what in ("input", "output")}
    assert {f"blocks.{layer}" for layer in range(len(model.blocks))} <= {row.ours for row in rows}
    tables = {row.ours for row in rows if row.what in ("cos", "sin")}
    assert tables == {f"rotary_embeddings.{layer_type}" for layer_type in getattr(model, "rotary_embeddings", {})}
    assert (rows[-1].what, rows[-1].ours, rows[-1].theirs) == ("logits", "", "")
    assert all(0 <= row.difference <= row.tolerance and row.size > 0 for row in rows)


@every_family
def test_two_models_of_ours_can_be_compared(family):
    model, same, other = ours(EXAMPLES[family]), ours(EXAMPLES[family]), ours(EXAMPLES[family], seed=1)
    assert compared(family, model, same).ok
    assert str(compared(family, model, same)).endswith("agree to the bit")
    report = compared(family, model, other)
    assert report.first == report.rows[0] and "different checkpoints" in report.causes[0][0]


@pytest.mark.parametrize(("family", "tokens"), [("qwen3", 6), ("qwen3", 2), ("gemma3", 6), ("gpt2", 4), ("olmo3", 1)])
def test_as_many_tokens_as_heads_are_no_riddle(family, tokens):
    model, ids = ours(EXAMPLES[family]), random_ids(EXAMPLES[family], 2, tokens)
    assert first_mismatch(model, reference(EXAMPLES[family]), ids).ok


def test_a_multimodal_model_is_compared_by_its_language_part():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {name: value for name, value in EXAMPLES["gemma3"].items() if name != "model_type"}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Gemma3Config(text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14})
    other = Gemma3ForConditionalGeneration(config).eval()
    assert compared("gemma3", load_model(other), other).ok


# Something is wrong.


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap.seen_at], ids=lambda trap: trap.name)
def test_a_trap_is_named_with_its_cause(trap: Trap, monkeypatch):
    other, ids = reference(trap.config), random_ids(trap.config, 2, TOKENS)
    with monkeypatch.context() as patch:
        trap.change(patch)
        model = load_model(other, config=trap.config)
        report = None if trap.loading else first_mismatch(model, other, ids)
    report = report or first_mismatch(model, other, ids)
    assert place_of(report) == trap.seen_at and trap.word in report.causes[0][0], report


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_cause(fault):
    family, spoil, place, words = FAULTS[fault]
    model = ours(EXAMPLES[family])
    spoil(model)
    report = compared(family, model)
    assert place_of(report) == place and words in report.causes[0][0], report
    assert all(next_step for _, next_step in report.causes)
    before = report.rows[: report.rows.index(report.first)]
    assert all(row.ok for row in before)


def test_a_mask_that_shows_the_future_is_named(monkeypatch):
    monkeypatch.setattr(base, "attention_mask", lambda *given: (None, False))
    report = compared("llama3", ours(EXAMPLES["llama3"]))
    assert place_of(report) == "blocks.0.attention.output input" and report.position == 0
    assert "see later ones" in report.causes[0][0]


def test_a_head_that_is_tied_on_one_side_is_named():
    trunk, head = theirs(EXAMPLES["qwen3"]), {"lm_head.weight": torch.randn(61, 24)}
    other = theirs(UNTIED["qwen3"])
    other.load_state_dict(trunk.state_dict() | head)
    report = first_mismatch(ours(EXAMPLES["qwen3"]), other, [1, 2, 3])
    assert place_of(report) == "output_head.weight weight" and "tied" in report.causes[0][0]
    computed = [row for row in report.rows if row.what != "weight" and not row.ok]
    assert [row.what for row in computed] == ["logits"]


def test_what_only_one_of_the_two_runs_is_named():
    whole, lacking = ours(EXAMPLES["qwen3"]), ours(EXAMPLES["qwen3"])
    attention = lacking.blocks[1].attention
    attention.project = functools.partial(Attention.project, attention)  # without the norms
    for one, two, words in ((whole, lacking, "one too many"), (lacking, whole, "left out")):
        report = compared("qwen3", one, two)
        assert place_of(report) == "blocks.1.attention.query_norm output" and words in report.causes[0][0]
        assert report.first.difference == float("inf") and report.position is None


# What it leaves behind, and what it costs.


def state(model: nn.Module) -> tuple:
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    return hooks, [module.training for module in model.modules()], [p.grad for p in model.parameters()]


@every_family
@pytest.mark.parametrize("fails", [False, True])
def test_both_models_are_left_as_they_were(family, fails):
    model, other = ours(EXAMPLES[family]), theirs(EXAMPLES[family])
    model.train(), other.train()
    model.blocks[0].eval(), other.base_model.eval()
    parameters = [p.clone() for m in (model, other) for p in m.parameters()]
    before = state(model), state(other)
    if fails:
        ids = torch.full((1, 3), 10_000)  # beyond the vocabulary
        with pytest.raises(IndexError):
            first_mismatch(model, other, ids)
    else:
        assert compared(family, model, other).ok  # in training mode, GPT-2 has dropout
    assert (state(model), state(other)) == before
    after = [p for m in (model, other) for p in m.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(parameters, after, strict=True))


@every_family
def test_each_model_runs_once(family):
    model, runs = ours(EXAMPLES[family]), []
    hooks = [m.register_forward_pre_hook(lambda m, args: runs.append(m)) for m in (model, reference(EXAMPLES[family]))]
    compared(family, model)
    for hook in hooks:
        hook.remove()
    assert runs == [model, reference(EXAMPLES[family])]


# What goes in, and what comes out.


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2, 3]], torch.tensor([1, 2, 3]), torch.tensor([[1, 2, 3]]).int()])
def test_ids_may_be_one_sequence_or_several(ids):
    assert first_mismatch(ours(EXAMPLES["llama3"]), reference(EXAMPLES["llama3"]), ids).ok


@every_family
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda family: theirs(EXAMPLES["gpt2" if family != "gpt2" else "llama3"]), "differ in family: ours has"),
        (lambda family: theirs(EXAMPLES[family] | {"vocab_size": 62}), "differ in vocabulary size: ours has 61"),
        (lambda family: theirs(EXAMPLES[family], dtype=torch.bfloat16), "differ in type: ours has torch.float32"),
        (lambda family: theirs(EXAMPLES[family]).to("meta"), "differ in device: ours has cpu, theirs meta"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(family, change, words):
    with pytest.raises(ValueError, match=words):
        compared(family, ours(EXAMPLES[family]), change(family))


@every_family
def test_models_with_other_parameters_are_refused_by_name(family):
    layers = "n_layer" if "n_layer" in EXAMPLES[family] else "num_hidden_layers"
    with pytest.raises(CheckpointError, match="no place for"):
        compared(family, ours(EXAMPLES[family]), theirs(EXAMPLES[family] | {layers: 5}))
    with pytest.raises(CheckpointError, match="a tensor is missing"):
        compared(family, ours(EXAMPLES[family]), theirs(EXAMPLES[family] | {layers: 1}))


def test_the_tolerance_is_a_share_of_the_size():
    model, place = ours(EXAMPLES["llama3"]), "blocks.1.feed_forward.down"
    returns(place, lambda x: x * 1.01)(model)
    report = compared("llama3", model)
    assert report.first.ours == place and 0.009 < report.first.difference / report.first.size < 0.011
    assert report.first.tolerance == pytest.approx(5e-5 * report.first.size)
    assert compared("llama3", model, tolerance=0.1).ok and not compared("llama3", model, tolerance=1e-9).ok


def test_a_report_prints_its_verdict_its_cause_and_a_short_table():
    family, spoil, _, words = FAULTS["a bias"]
    model = ours(EXAMPLES[family])
    spoil(model)
    lines = str(compared(family, model)).splitlines()
    theirs_name = "model.layers.1.self_attn.v_proj"
    assert lines[0] == f"first mismatch: blocks.1.attention.value (output), in theirs {theirs_name}"
    assert words in lines[1] and lines[2].startswith("     next: ") and len(lines) <= 16
    marked = [line.split() for line in lines if line.startswith("x")]
    assert marked[0][:4] == ["x", "blocks.1.attention.value", theirs_name, "output"] and len(marked) <= 3


def test_a_report_becomes_json():
    model = ours(EXAMPLES["llama3"])
    assert json.loads(compared("llama3", model).to_json())["ok"] is True
    returns("blocks.1.attention.value", lambda x: x * torch.nan)(model)
    report = compared("llama3", model)
    content = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    first = content["rows"][content["first"]]
    assert (first["ours"], first["layer"], first["what"]) == ("blocks.1.attention.value", 1, "output")
    assert first["difference"] is None and not first["ok"] and content["position"] == report.position == 0
    assert len(content["rows"]) == len(report.rows) and content["causes"][0].keys() == {"cause", "next_step"}
