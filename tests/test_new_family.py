"""A family added from outside the package, by a config, a block and a weight map: everything works on it, with no edit
anywhere. What is added is tests/new_family/qwen2.py; CONTRIBUTING.md tells the same in four steps."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import stories
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from course_helpers import (
    FAMILIES,
    CheckpointError,
    first_mismatch,
    generate,
    load_model,
    load_tokenizer,
    save_checkpoint,
    validate_checkpoint,
)
from course_helpers.__main__ import main
from course_helpers.manifest import RunManifest, load_pinned, verify, write_manifest
from course_helpers.memory import parameter_count
from course_helpers.training import TrainingSettings, text_loss, train
from tests.new_family.qwen2 import QWEN2, SMALLEST, Qwen2Config, Qwen2Model
from tests.tiny_models import DECODER, logits_of, ours, random_ids, same_parameters, theirs
from tests.traps import checks

CONFIG = {name: value for name, value in DECODER.items() if name != "head_dim"} | {
    "model_type": "qwen2",
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
WINDOWS = CONFIG | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}
SEPARATE_HEAD = CONFIG | {"tie_word_embeddings": False, "head_dim": 8}
every_config = pytest.mark.parametrize("config", [CONFIG, WINDOWS, SEPARATE_HEAD], ids=["tied", "windows", "head"])


@pytest.fixture(autouse=True, scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "qwen2", QWEN2)
        yield


def test_without_its_row_the_family_is_refused(monkeypatch):
    monkeypatch.delitem(FAMILIES, "qwen2")
    with pytest.raises(CheckpointError, match="family that this package does not know"):
        ours(CONFIG)


@every_config
@pytest.mark.parametrize(
    "check", [checks.parity, checks.cached, checks.ragged, checks.missing_refused], ids=lambda c: c.__name__
)
def test_the_checks_of_every_family_hold(check, config):
    """Logits as transformers computes them; cached as uncached; a padded row as alone; incomplete files refused."""
    assert check(config) is None


@every_config
def test_files_of_transformers_are_loaded_and_ours_load_in_transformers(config, tmp_path):
    reference, ids = theirs(config), random_ids(config, 2, 40)
    reference.save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs")
    assert isinstance(model, Qwen2Model)
    assert (logits_of(model, ids) - logits_of(reference, ids)).abs().max() <= 1e-5
    save_checkpoint(model, tmp_path / "ours")
    saved = load_model(tmp_path / "ours")
    assert same_parameters(saved, model) and saved.config == model.config
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert same_parameters(again, reference) and torch.equal(logits_of(again, ids), logits_of(reference, ids))


@every_config
def test_text_is_the_same_with_and_without_a_cache(config):
    model, prompts = ours(config), [row.tolist() for row in random_ids(config, 2, 9)]
    prompts[1] = prompts[1][:4]
    cached = generate(model, prompts, max_new_tokens=30)
    assert cached == generate(model, prompts, max_new_tokens=30, use_cache=False)
    assert cached[1] == generate(model, prompts[1:], max_new_tokens=30)[0]


def test_the_biases_are_what_makes_it_another_model():
    """Read as a Llama, the same file is refused; with the biases left out, the debugger names where it begins."""
    tensors = theirs(CONFIG).state_dict()
    llama = CONFIG | {"model_type": "llama"}
    with pytest.raises(CheckpointError, match="no place"):
        load_model(tensors, config=llama)
    model = ours(CONFIG)
    with torch.no_grad():
        model.blocks[0].attention.query.bias.zero_()
    assert "blocks.0" in str(first_mismatch(model, theirs(CONFIG), random_ids(CONFIG, 1, 12)))


# A trained one: the bundled Llama 3 with biases of zero is a Qwen2. A few more steps, and the biases are its own.


def grown() -> Qwen2Model:
    """The bundled Llama 3, as a Qwen2."""
    llama = load_model("tiny-llama3", torch.float32)
    model = Qwen2Model(Qwen2Config.from_hf(llama.config.to_hf() | {"model_type": "qwen2"})).eval()
    missing = model.load_state_dict(llama.state_dict(), strict=False).missing_keys
    assert len(missing) == 3 * model.config.num_hidden_layers
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
    ids = random_ids(vars(model.config), 1, 30)
    assert torch.equal(logits_of(model, ids), logits_of(llama, ids))
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint of it, trained on a few stories until it knows them better than before."""
    model, tokenizer = grown(), load_tokenizer("tiny-llama3")
    texts = [[*tokenizer.encode(story.text), *tokenizer.stop_ids[:1]] for story in stories.stories(8, 5)]
    shortest = min(map(len, texts))
    ids = torch.tensor([text[:shortest] for text in texts])
    before, _ = text_loss(model, texts)
    train(model, itertools.repeat((ids[:, :-1], ids[:, 1:])), TrainingSettings(8, 5e-4, warmup_steps=2))
    after, _ = text_loss(model, texts)
    assert after < 0.95 * before
    assert all(bool(block.attention.query.bias.any()) for block in model.blocks)
    return save_checkpoint(model, tmp_path_factory.mktemp("trained") / "tiny-qwen2", tokenizer)


def test_the_validation_stack_passes_it(trained):
    report = validate_checkpoint(trained)
    assert report.ok, str(report)


def test_its_runs_can_be_pinned(trained):
    file = write_manifest(trained, reason="added from outside")
    manifest = RunManifest.load(file)
    assert verify(manifest, trained).ok and all(manifest.validation.values())
    assert same_parameters(load_pinned(manifest, trained)[0], load_model(trained))


def test_the_command_line_knows_it(trained, monkeypatch, capsys):
    monkeypatch.setitem(FAMILIES, "qwen2", dataclasses.replace(QWEN2, tiny=str(trained)))
    assert main(["families"]) == 0
    printed = capsys.readouterr().out
    count = parameter_count(Qwen2Model, SMALLEST)
    assert all(part in printed for part in (QWEN2.title, str(trained), "Qwen/Qwen2.5-0.5B", f"{count:,}"))
    for command in (["plan", "--device", "T4"], ["doctor"]):
        assert main([*command, "--family", "qwen2"]) == 0 and "Qwen/Qwen2.5-0.5B" in capsys.readouterr().out
    assert main(["generate", str(trained), "--prompt", "Once upon a time", "--max-new-tokens", "20"]) == 0
    assert capsys.readouterr().out.startswith("Once upon a time")


def test_the_released_size_is_as_large_as_the_released_file():
    """Qwen2.5-0.5B: 494,032,768 parameters, with the tied head counted once; transformers counts the same."""
    config = AutoConfig.for_model(**SMALLEST.to_hf())
    with torch.device("meta"):
        count = AutoModelForCausalLM.from_config(config).num_parameters()
    assert parameter_count(Qwen2Model, SMALLEST) == count == 494_032_768
