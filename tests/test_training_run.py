"""A training that stops and goes on equals one that never stopped, to the bit; and looking leaves no trace."""

import dataclasses
import os
import random
import signal

import pytest
import torch

from course_helpers import FAMILIES, CheckpointError, load_model, load_tokenizer
from course_helpers import training_state as state
from course_helpers.families import family_of
from course_helpers.training import TrainingSettings, initialize
from course_helpers.training_data import TextBatches
from course_helpers.training_history import History
from course_helpers.training_run import Trainer
from tests.tiny_models import EXAMPLES, same_parameters

each_family = pytest.mark.parametrize("name", EXAMPLES)
SETTINGS = TrainingSettings(steps=6, learning_rate=1e-2, warmup_steps=2)
CHOOSER = random.Random(5)
TOKENS = [CHOOSER.randrange(61) for _ in range(400)]


def trainer(name="llama3", settings=SETTINGS, tokens=TOKENS, **options):
    """Everything new, as a process has it that has just begun."""
    family = FAMILIES[name]
    model = initialize(family.model(family.config.from_hf(EXAMPLES[name])), 1)
    return Trainer(model, TextBatches(tokens, context_length=16, batch_size=3), settings, **options)


def same(one, other):
    """Weights, moments, place in the data and history; seconds are no part of it."""
    moments = [state.moments(run.model, run.optimizer) for run in (one, other)]
    assert same_parameters(one.model, other.model)
    assert moments[0].keys() == moments[1].keys() and moments[0]
    assert all(torch.equal(moments[0][key], moments[1][key]) for key in moments[0])
    assert one.batches.state_dict() == other.batches.state_dict()
    histories = [dataclasses.replace(run.history, seconds=[]) for run in (one, other)]
    assert histories[0] == histories[1]
    return True


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "float32") for name in EXAMPLES), ("gpt2", "bfloat16"), ("qwen3_moe", "bfloat16")]
)
def test_stopped_and_gone_on_equals_never_stopped(tmp_path, name, precision):
    settings = dataclasses.replace(SETTINGS, precision=precision, accumulate=2)
    options = {"settings": settings, "folder": tmp_path / "run", "evaluate_every": 3}
    whole = trainer(name, **options)
    whole.run(progress=False)
    first = trainer(name, **options)
    first.run(until=3, progress=False)
    first.save()
    second = trainer(name, **options)
    assert second.resume() == 3
    assert same(first, second)
    second.run(progress=False)
    assert same(whole, second)
    assert not same_parameters(whole.model, first.model)
    assert (second.model.output_head is None) == (first.model.output_head is None)


def killed(work):
    """Do work in a copy of this process; the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return -os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills copies of this process")
@pytest.mark.parametrize(("moment", "step"), [("between two saves", 4), ("in the middle of a save", 2)])
def test_killed_and_gone_on_equals_never_killed(tmp_path, monkeypatch, moment, step):
    options = {"folder": tmp_path / "run", "save_every": 2}
    whole = trainer(folder=tmp_path / "whole", save_every=2)
    whole.run(progress=False)

    def die(*given):
        os.kill(os.getpid(), signal.SIGKILL)

    def work():
        torch.set_num_threads(1)
        run = trainer(**options)
        run.run(until=3, progress=False)
        if moment == "between two saves":
            run.run(until=5, progress=False)
            die()
        state.write_json = die  # weights and moments are written, and the description is not
        run.run(progress=False)

    assert killed(work) == signal.SIGKILL
    assert len(list(tmp_path.glob(".run.*"))) == (moment != "between two saves")
    again = trainer(**options)
    assert again.resume() == step
    again.run(progress=False)
    assert same(whole, again)
    assert not list(tmp_path.glob(".run.*"))


@each_family
def test_a_state_is_a_checkpoint_of_the_family(tmp_path, name):
    run = trainer(name, folder=tmp_path / "run")
    run.run(until=1, progress=False)
    loaded = load_model(run.save())
    assert same_parameters(loaded, run.model) and loaded.config == run.model.config
    assert not list((tmp_path / "run").glob("*.p*")) and not list((tmp_path / "run").glob("*.bin"))


def test_without_a_state_there_is_nothing_to_go_on_from(tmp_path):
    assert trainer().resume() == 0
    assert trainer(folder=tmp_path / "none").resume() == 0


def other_model():
    config = dataclasses.replace(trainer().model.config, num_hidden_layers=1)
    return initialize(family_of(config.to_hf()).model(config), 1)


OTHERS = {
    "settings": lambda: trainer(settings=dataclasses.replace(SETTINGS, learning_rate=2e-2)),
    "steps": lambda: trainer(settings=dataclasses.replace(SETTINGS, steps=8)),
    "precision": lambda: trainer(settings=dataclasses.replace(SETTINGS, precision="bfloat16")),
    "data": lambda: trainer(tokens=[*TOKENS[:-1], (TOKENS[-1] + 1) % 61]),
    "family": lambda: trainer("qwen3"),
    "layers": lambda: Trainer(other_model(), trainer().batches, SETTINGS),
    "epsilon": lambda: epsilon_changed(),
}


def epsilon_changed():
    run = trainer()
    run.model.config = dataclasses.replace(run.model.config, rms_norm_eps=1e-3)
    return run


@pytest.mark.parametrize("what", OTHERS)
def test_a_state_of_something_else_is_refused_and_nothing_changes(tmp_path, what):
    begun = trainer(folder=tmp_path)
    begun.run(until=2, progress=False)
    begun.save()
    other, untouched = OTHERS[what](), OTHERS[what]()
    other.folder = tmp_path
    with pytest.raises(CheckpointError):
        other.resume()
    assert same_parameters(other.model, untouched.model) and not other.optimizer.state
    assert other.batches.state_dict() == untouched.batches.state_dict() and other.history == History()


@pytest.mark.parametrize("file", ["model.safetensors", "training.safetensors", "training.json"])
def test_a_damaged_state_is_refused(tmp_path, file):
    """One byte, in the middle: of a weight, of a moment; or half a description."""
    run = trainer(folder=tmp_path)
    run.run(until=2, progress=False)
    path = run.save() / file
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 64
    path.write_bytes(raw if file != "training.json" else b'{"format": 1, "sha256": {}}')
    again = trainer(folder=tmp_path)
    with pytest.raises(CheckpointError, match="training"):
        again.resume()
    assert same_parameters(again.model, trainer().model)


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    run = trainer(folder=tmp_path)
    with pytest.raises(CheckpointError, match="something else"):
        run.save()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def story_run():
    """A bundled tokenizer, and a fresh model of its size."""
    tokenizer, bundled = load_tokenizer("tiny-gpt2"), load_model("tiny-gpt2", dtype=torch.float32)
    text = "Mia had a red kite. The wind took it, and Tom ran after it. " * 40
    return initialize(bundled, 0), tokenizer, text


def test_looking_leaves_no_trace(story_run):
    """With evaluations and samples in between, of a model that draws by chance when it is looked at (ours do not),
    losses and random generators are the same."""
    model, tokenizer, text = story_run

    def draw(module, given, result):
        if not module.training:
            torch.rand(1)

    handle = model.register_forward_hook(draw)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TrainingSettings(steps=4, learning_rate=1e-3, warmup_steps=1)
    found = []
    for looks in ({}, {"evaluate_every": 1, "sample_every": 2, "prompt": "Mia had", "new_tokens": 3}):
        model.load_state_dict(weights)
        torch.manual_seed(3)
        batches = TextBatches.from_texts(text, tokenizer, 32, batch_size=2)
        run = Trainer(model, batches, settings, tokenizer=tokenizer, **looks)
        history = run.run(progress=False)
        found.append((history.losses, torch.get_rng_state().tolist()))
    handle.remove()
    assert found[0] == found[1]
    assert [row["step"] for row in history.evaluations] == [0, 1, 2, 3, 4]
    assert [row["step"] for row in history.samples] == [2, 4]
    assert all(row["text"].startswith("Mia had") for row in history.samples)
    assert history.evaluations[-1]["loss"] < history.evaluations[0]["loss"] - 0.1
    assert history.tokens_seen == [64, 128, 192, 256]
    assert history.seconds == sorted(history.seconds) and not model.training


def test_the_evaluation_is_the_mean_over_all_held_out_targets():
    """Against a loop over single tokens, the smaller last batch included."""
    run = trainer()
    nats = []
    with torch.no_grad():
        for row in run.batches.validation:
            log_probability_TV = run.model(row[None, :-1])[0].log_softmax(-1)
            nats += [-log_probability_TV[index, token].item() for index, token in enumerate(row[1:])]
    assert len(run.batches.validation) % run.batches.batch_size
    assert run.evaluate() == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_what_is_asked_for_must_be_possible():
    with pytest.raises(ValueError, match="samples need a tokenizer"):
        trainer(sample_every=1)
    with pytest.raises(ValueError, match="save_every needs a folder"):
        trainer(save_every=1)
    with pytest.raises(ValueError, match="no folder"):
        trainer().save()
    long = TextBatches(TOKENS, context_length=65, batch_size=1, held_out=0.3)
    with pytest.raises(ValueError, match=r"65 tokens.*made for 64.*context_length of at most 64"):
        Trainer(trainer().model, long, SETTINGS)
    with pytest.raises(ValueError, match=r"token id 61 is outside.*another model's tokenizer"):
        trainer(tokens=[*TOKENS, 61])
    with pytest.raises(ValueError, match="no held-out text"):
        Trainer(trainer().model, TextBatches(TOKENS, 16, 3, held_out=0), SETTINGS, evaluate_every=1).run(progress=False)


def test_a_history_comes_back_to_the_bit_and_can_be_drawn(tmp_path):
    run = trainer(evaluate_every=3)
    history = run.run(progress=False)
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == history
    picture = history.plot("a tiny Llama")
    assert picture.data.startswith(b"\x89PNG") and "a tiny Llama" in picture.alt
    assert trainer().history.plot().alt  # nothing to draw is no error
