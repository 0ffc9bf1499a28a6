"""The hand-off: a base is exported only if it is valid, and pinned; a classifier comes back only on its own base."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from course_helpers import CheckpointError, load_model, load_tokenizer, save_checkpoint
from course_helpers import classification_files as files
from course_helpers.classification import SequenceClassifier, freeze_all_but, padded, train_classifier
from course_helpers.classification_files import export_base, load_base, load_classifier, save_classifier
from course_helpers.loaders import save
from course_helpers.loaders.save import export, write_weights
from course_helpers.manifest import RunManifest, verify
from course_helpers.tokenizers import Tokenizer
from course_helpers.training import TrainingSettings
from tests import bundled
from tests.tiny_models import EXAMPLES, ours, same_parameters

each_family = pytest.mark.parametrize("name", EXAMPLES)
LABELS = ("happy", "sad")
ROWS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [60, 2, 2, 8, 40]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "base"
    return folder, export_base("tiny-qwen3", folder)


@pytest.fixture
def believed(monkeypatch):
    """Validation takes seconds, and is not what these tests are about."""
    report = SimpleNamespace(ok=True, failed=None, checks=[], baseline={"texts": []})
    monkeypatch.setattr(files, "validate_checkpoint", lambda path: report)


def same_as_the_source(folder, source):
    model, tokenizer = load_base(folder)
    original = load_model(source)
    assert same_parameters(model, original) and model.config == original.config and model.dtype == original.dtype
    assert tokenizer.encode("Mia had a red kite.") == load_tokenizer(source).encode("Mia had a red kite.")


def test_an_exported_base_is_the_same_model_pinned(exported):
    folder, manifest = exported
    assert manifest.source.name == "base" and manifest.reason == "a base for finetuning, from bundled tiny-qwen3"
    assert manifest.validation == dict.fromkeys(("files", "shapes", "forward", "generation", "baseline"), True)
    assert RunManifest.load(folder / "run.json") == manifest
    assert str(folder.parent) not in (folder / "run.json").read_text()
    same_as_the_source(folder, "tiny-qwen3")
    assert verify(manifest, folder).ok


@pytest.mark.parametrize("source", ["tiny-gpt2", "tiny-llama2"])
def test_other_kinds_of_folders_are_handed_on(tmp_path, believed, source):
    """Another tokenizer each; one with weights in shards."""
    export_base(source, tmp_path / "base")
    same_as_the_source(tmp_path / "base", source)


def test_an_export_onto_itself_keeps_its_files(tmp_path, exported, believed):
    copy = shutil.copytree(exported[0], tmp_path / "base")
    assert export_base(copy, copy).files == exported[1].files


def test_a_base_that_is_not_valid_is_not_exported(tmp_path):
    """Two matrices of one shape exchanged: it loads, and it is no good."""
    model = load_model("tiny-llama3")
    block = model.blocks[1].feed_forward
    block.gate.weight.data, block.up.weight.data = block.up.weight.data, block.gate.weight.data
    source = bundled.copy_of(bundled.FOLDERS["tiny-llama3"], tmp_path, listed=False)
    write_weights(export(model), source, None)
    with pytest.raises(CheckpointError, match="validation layer baseline"):
        export_base(source, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_what_cannot_be_read_again_is_not_exported(tmp_path, exported, believed, monkeypatch):
    """The tokenizer's files get lost on the way, or a number of the weights: the old base stays."""
    copy = shutil.copytree(exported[0], tmp_path / "base")
    before = (copy / "run.json").read_bytes()
    with monkeypatch.context() as patched, pytest.raises(CheckpointError):
        patched.setattr(Tokenizer, "save", lambda self, folder: None)
        export_base("tiny-gpt2", copy)
    with monkeypatch.context() as patched, pytest.raises(CheckpointError, match="after saving and loading"):
        patched.setattr(save, "export", lambda model: {k: v + 1e-3 for k, v in export(model).items()})
        export_base("tiny-gpt2", copy)
    assert (copy / "run.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_base_that_was_changed_later_is_not_loaded(tmp_path, exported):
    config = shutil.copytree(exported[0], tmp_path / "base") / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-05"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_base(tmp_path / "base")


def trained(name, folder):
    """A base on disk, and a classifier of it with a trained head and last block."""
    save_checkpoint(ours(EXAMPLES[name]), folder)
    made = SequenceClassifier(load_model(folder, dtype=torch.float32), LABELS)
    freeze_all_but(made)
    settings = TrainingSettings(steps=3, learning_rate=1e-2, warmup_steps=1)
    train_classifier(made, ROWS * 4, ["happy", "sad"] * 8, settings, batch_size=8)
    return made


@each_family
def test_a_classifier_comes_back_to_the_bit(tmp_path, name):
    made = trained(name, tmp_path / "base")
    folder = save_classifier(made, tmp_path / "classifier")
    again = load_classifier(folder, tmp_path / "base")
    assert again.labels == LABELS and not again.training
    assert same_parameters(again, made)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in made.parameters()]
    with torch.no_grad():
        assert torch.equal(again(*padded(ROWS)), made(*padded(ROWS)))
    names = {path.name for path in folder.iterdir()}
    assert names == {"classifier.json", "classifier.safetensors", "config.json"}
    save_classifier(again, folder)  # replaces the older one
    assert same_parameters(load_classifier(folder, tmp_path / "base"), made)


def other_config(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-3}))


def other_frozen_weight(folder):
    model = load_model(folder)
    model.blocks[0].attention.query.weight.data[0, 0] += 1e-6
    save_checkpoint(model, folder)


def other_family(folder):
    save_checkpoint(ours(EXAMPLES["qwen3"]), folder)


@pytest.mark.parametrize("change", [other_config, other_frozen_weight, other_family])
def test_another_base_is_refused(tmp_path, change):
    folder = save_classifier(trained("llama3", tmp_path / "base"), tmp_path / "classifier")
    change(tmp_path / "base")
    with pytest.raises(CheckpointError, match="another base than the one it was trained on"):
        load_classifier(folder, tmp_path / "base")


def test_a_base_whose_last_block_differs_is_the_same_base(tmp_path):
    """What was trained comes with the classifier, so only the frozen part must be the one it was trained on."""
    made = trained("llama3", tmp_path / "base")
    folder = save_classifier(made, tmp_path / "classifier")
    save_checkpoint(made.base, tmp_path / "base")
    assert same_parameters(load_classifier(folder, tmp_path / "base"), made)


@pytest.mark.parametrize("file", ["classifier.safetensors", "classifier.json"])
def test_a_damaged_classifier_is_refused(tmp_path, file):
    folder = save_classifier(trained("gpt2", tmp_path / "base"), tmp_path / "classifier")
    path = folder / file
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 64
    path.write_bytes(raw)
    with pytest.raises(CheckpointError):
        load_classifier(folder, tmp_path / "base")


@pytest.mark.parametrize("change", [{"format": 2}, {"labels": None}, {"dtype": "int8"}, {"frozen_sha256": 5}])
def test_a_description_that_was_edited_is_refused(tmp_path, change):
    folder = save_classifier(trained("gpt2", tmp_path / "base"), tmp_path / "classifier")
    path = folder / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=next(iter(change))):
        load_classifier(folder, tmp_path / "base")


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    made = trained("gpt2", tmp_path / "base")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something else"):
        save_classifier(made, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
