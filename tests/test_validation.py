"""The validation stack: right checkpoints pass, and each kind of damage stops at the layer that can see it."""

import json
import math

import pytest
import safetensors.torch
import stories
import torch
from build import TRAIN_SEED, TRAIN_STORIES
from story_parser import parse

from course_helpers import load_model, load_tokenizer, save_checkpoint, validate_checkpoint
from course_helpers.architectures import base
from course_helpers.training import initialize
from course_helpers.validation import LAYERS
from course_helpers.validation_layers.baseline import BITS_PER_BYTE, PLAIN
from tests.bundled import FOLDERS, copy_of, each

NAMES = list(LAYERS)


def outcome(report):
    return [(check.name, check.ok) for check in report.checks]


def stopped_at(layer):
    return [(name, True) for name in NAMES[: NAMES.index(layer)]] + [(layer, False)]


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def turn_square(tensors):
    name = "h.1.attn.c_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


def flip_one_bit(tensors):
    tensors["wpe.weight"].view(torch.int32)[3, 3] ^= 1


def put_nan(tensors):
    tensors["ln_f.weight"][0] = float("nan")


def always_the_same_word(tensors):
    tensors["ln_f.bias"] += 1e3 * tensors["wte.weight"][300]


def cut_a_row(tensors):
    tensors["wpe.weight"] = tensors["wpe.weight"][:-1].contiguous()


@each
def test_bundled_checkpoints_are_valid(folder):
    report = validate_checkpoint(folder)
    assert report.ok, str(report)
    assert [check.name for check in report.checks] == NAMES
    assert all(check.detail and check.seconds >= 0 for check in report.checks)
    assert json.loads(report.to_json())["ok"] is True


@pytest.mark.parametrize(
    ("change", "listed", "layer", "words"),
    [
        (flip_one_bit, True, "files", "SHA-256"),
        (cut_a_row, False, "shapes", "wrong shape"),
        (put_nan, False, "shapes", "NaN"),
        (always_the_same_word, False, "generation", "again and again"),
        (turn_square, False, "baseline", "one matrix transposed"),
    ],
)
def test_damage_is_found_by_the_first_layer_that_can_see_it(tmp_path, change, listed, layer, words):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed)
    change_weights(folder, change)
    report = validate_checkpoint(folder)
    assert outcome(report) == stopped_at(layer)
    assert words in report.checks[-1].detail
    assert not report.ok and "NOT valid" in str(report)
    assert all(f"{name}" in str(report) for name in NAMES)


def test_a_wrong_rope_base_is_found_by_what_is_written(tmp_path):
    folder = copy_of(FOLDERS["tiny-llama3"], tmp_path, listed=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 10_000.0}))
    assert outcome(validate_checkpoint(folder)) == stopped_at("baseline")


def test_a_missing_tokenizer_is_found_by_generation(tmp_path):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False)
    (folder / "merges.txt").unlink()
    assert outcome(validate_checkpoint(folder)) == stopped_at("generation")


@each
def test_attention_that_sees_the_future_is_found(folder, monkeypatch):
    monkeypatch.setattr(base, "attention_mask", lambda *arguments, **options: (None, False))
    assert outcome(validate_checkpoint(folder)) == stopped_at("forward")


def test_a_checkpoint_without_a_card_is_judged_by_what_holds_of_every_language_model(tmp_path):
    model, tokenizer = load_model("tiny-gpt2"), load_tokenizer("tiny-gpt2")
    folder = save_checkpoint(model, tmp_path / "mine", tokenizer)
    report = validate_checkpoint(folder)
    assert report.ok, report
    assert "no card" in report.checks[-1].detail
    bits = report.telemetry["bits_per_byte"]
    save_checkpoint(initialize(model, seed=0), folder, tokenizer)
    report = validate_checkpoint(folder)
    assert report.failed == "baseline" and "compressor" in report.checks[-1].detail
    assert bits < 0.5 < BITS_PER_BYTE < report.telemetry["bits_per_byte"] <= math.log2(1024)


def test_the_baseline_of_one_report_judges_the_next(tmp_path):
    """A checkpoint without a card is given one, and a mistake shows that did not without it."""
    folder = copy_of(FOLDERS["tiny-llama3"], tmp_path, listed=False)
    (folder / "card.json").unlink()
    report = validate_checkpoint(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("500000.0", "10000.0"))
    assert validate_checkpoint(folder).ok
    (folder / "card.json").write_text(json.dumps({"baseline": report.baseline}))
    assert validate_checkpoint(folder).failed == "baseline"
    (folder / "config.json").write_text(config)
    assert validate_checkpoint(folder).ok
    (folder / "card.json").unlink()
    rough = validate_checkpoint(folder, dtype=torch.bfloat16).baseline
    assert "loss_per_text" not in rough
    (folder / "card.json").write_text(json.dumps({"baseline": rough}))
    assert validate_checkpoint(folder).ok


@pytest.mark.parametrize("name", ["tiny-llama3", "tiny-olmo3"])
def test_a_mean_loss_within_the_range_is_not_enough_where_every_text_can_be_compared(tmp_path, name):
    folder = copy_of(FOLDERS[name], tmp_path, listed=False)
    card = json.loads((folder / "card.json").read_text())
    card["baseline"]["loss_per_text"][3] += 2 * card["baseline"]["within"]
    (folder / "card.json").write_text(json.dumps(card))
    report = validate_checkpoint(folder)
    assert report.failed == "baseline" and "text 4 of 8 is off by 0.001" in report.checks[-1].detail
    assert validate_checkpoint(folder, dtype=torch.bfloat16).ok


def test_what_only_float16_cannot_hold_is_found_in_the_type_that_was_asked_for(tmp_path):
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False)
    change_weights(folder, lambda tensors: tensors.update({"ln_f.bias": tensors["ln_f.bias"] + 1e6}))
    report = validate_checkpoint(folder, dtype=torch.float16)
    assert outcome(report) == stopped_at("forward") and "in torch.float16" in report.checks[-1].detail
    assert validate_checkpoint(folder).failed in ("generation", "baseline")


@each
def test_half_precision_stays_within_the_range_of_the_card(folder):
    report = validate_checkpoint(folder, dtype=torch.bfloat16)
    assert report.ok, report
    low, high = json.loads((folder / "card.json").read_text())["baseline"]["range"]
    assert low < report.telemetry["loss_per_token"] < high and report.telemetry["dtype"] == "bfloat16"


@each
def test_the_losses_of_the_card_are_the_sums_over_each_text(folder):
    """Against transformers, token by token."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, baseline = load_tokenizer(folder), json.loads((folder / "card.json").read_text())["baseline"]
    for text, loss in zip(baseline["texts"], baseline["loss_per_text"], strict=True):
        ids = torch.tensor([[*tokenizer.encode(text), tokenizer.stop_ids[0]]])
        with torch.inference_mode():
            logs = theirs(ids).logits.log_softmax(-1)[0, :-1]
        assert -logs.gather(1, ids[0, 1:, None]).sum().item() == pytest.approx(loss, abs=baseline["within"] / 2)


def test_the_plain_texts_are_stories_that_no_model_was_made_for():
    training = {story.text for story in stories.stories(TRAIN_STORIES, TRAIN_SEED)}
    assert all(parse(text) is not None and text not in training for text in PLAIN)


@pytest.mark.parametrize("device", ["cuda:7", "abacus"])
@pytest.mark.parametrize("function", [validate_checkpoint, load_model])
def test_a_device_that_is_not_there_is_the_callers_mistake_and_not_the_checkpoints(function, device):
    with pytest.raises(ValueError, match=f"torch cannot use the device '{device}' here"):
        function("tiny-gpt2", device=device)


def test_telemetry_says_what_was_measured_and_the_table_does_not(tmp_path):
    one, other = (validate_checkpoint("tiny-qwen3") for _ in range(2))
    assert str(one) == str(other)
    assert json.loads(one.to_json())["telemetry"] == one.telemetry
    assert one.telemetry["dtype"] == "float32" and one.telemetry["device"] == "cpu"
    assert one.telemetry["seconds"] >= sum(check.seconds for check in one.checks)
    assert one.telemetry["tokens_per_second"] > 0 and one.telemetry["parameters"] == 739568
    assert "tokens per second" in one.measured and "peak mb" in one.measured


def test_an_error_that_no_check_foresaw_is_reported(monkeypatch):
    def broken(subject):
        raise RuntimeError("the operator is not implemented")

    monkeypatch.setitem(LAYERS, "forward", broken)
    report = validate_checkpoint("tiny-gpt2")
    assert outcome(report) == stopped_at("forward")
    assert "RuntimeError: the operator is not implemented" in report.checks[-1].detail


def test_a_model_of_few_positions_can_be_judged(tmp_path):
    """Shorter than any text that the layers would like to take."""
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 16}))
    change_weights(folder, lambda tensors: tensors.update({"wpe.weight": tensors["wpe.weight"][:16].clone()}))
    report = validate_checkpoint(folder)
    assert [check.name for check in report.checks if check.ok] == NAMES[:4], report


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such-folder/anywhere", "no such checkpoint"),
        ("x" * 5000, "found"),
        ("", "no such checkpoint"),
        ({}, "a dict in memory"),
        (torch.nn.Linear(1, 1), "a Linear in memory"),
    ],
    ids=["nowhere", "too long", "empty", "a dict", "a model"],
)
def test_what_is_not_there_is_reported_and_not_raised(source, words):
    report = validate_checkpoint(source)
    assert outcome(report) == [("files", False)]
    assert words in report.checks[0].detail
