"""Every other pairing of weights, config and tokenizer is refused, in every layout; nothing is loaded before that."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from course_helpers import FAMILIES, CheckpointError, load_model, load_tokenizer, save_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.rules import WeightMap
from course_helpers.loaders.tf_writer import write_bundle
from course_helpers.loaders.weight_maps import GPT2_TF, LLAMA_META
from course_helpers.manifest import RunManifest, load_pinned, record_run, verify
from course_helpers.manifests import pins
from course_helpers.tokenizers import Tokenizer
from tests.bundled import FOLDERS, copy_of, each
from tests.formats import meta_params
from tests.loaders.fake_hub import Repository, files_of, running, use_hub
from tests.loaders.refusals import check_answers
from tests.tiny_models import same_parameters


def record(source: object) -> RunManifest:
    return record_run(source, ["Once upon a time"], max_new_tokens=4, validate=False)


@pytest.fixture
def unlisted(tmp_path):
    """Copies of bundled checkpoints whose cards list no files, so that nothing but the run's manifest can object."""
    return lambda name: copy_of(FOLDERS[name], tmp_path, listed=False)


def refusal(manifest: RunManifest, folder: object, monkeypatch) -> CheckpointError:
    """What `load_pinned` says; no weights may be loaded for it, and `verify` must come to the same result."""
    with monkeypatch.context() as patch, pytest.raises(CheckpointError) as caught:
        patch.setattr(pins, "load_model", lambda *_: pytest.fail("weights were loaded"))
        load_pinned(manifest, folder)
    for problem in caught.value.problems:
        check_answers(problem)
    verification = verify(manifest, folder)
    outcomes = {row.field: row.outcome for row in verification.rows}
    assert not verification.ok and outcomes["prompt 1"] == "not reached" and "DIFFERS" in outcomes.values()
    return caught.value


def another_run(folder: Path, target: Path) -> Path:
    """A checkpoint with the same config, tokenizer and shapes, and with weights of another run."""
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    sharded = {"max_shard_bytes": model.load_report.nbytes // 2} if len(list(folder.glob("*.safetensors"))) > 1 else {}
    return save_checkpoint(model, target / "another", load_tokenizer(folder), **sharded)


@each
def test_weights_of_another_run_are_refused(folder, unlisted, tmp_path, monkeypatch):
    """Config, shapes and tokenizer fit; of a checkpoint in shards, one shard is enough."""
    copy = unlisted(folder.name)
    manifest, other = record(copy), another_run(copy, tmp_path)
    load_pinned(manifest, copy)
    file = sorted(copy.glob("*.safetensors"))[0]
    with torch.no_grad():
        tensors = {name: tensor + 0.01 for name, tensor in load_file(file).items()}
    expected = manifest.files["weights"][file.name]
    save_file(tensors, file, metadata={"format": "pt"})
    load_model(copy)
    error = refusal(manifest, copy, monkeypatch)
    assert error.file == file and error.expected == expected and "another run" in error.cause
    assert expected.sha256 in str(error) and error.found.sha256 != expected.sha256
    assert any(problem.field == "files.weights" for problem in refusal(manifest, other, monkeypatch).problems)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("tiny-llama3", "rms_norm_eps", 1e-6), ("tiny-olmo3", "num_attention_heads", 2), ("tiny-gpt2", "n_head", 2)],
)
def test_a_config_of_another_size_that_fits_every_shape_is_refused(name, field, value, unlisted, monkeypatch):
    folder = unlisted(name)
    manifest, config = record(folder), json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    error = refusal(manifest, folder, monkeypatch)
    assert error.file == folder / "config.json" and error.field == "files.config" and "config" in error.cause


def test_the_tokenizer_of_another_family_is_refused(unlisted, monkeypatch):
    folder = unlisted("tiny-qwen3")
    manifest = record(folder)
    shutil.copy(FOLDERS["tiny-olmo3"] / "tokenizer.json", folder)
    load_tokenizer(folder)
    error = refusal(manifest, folder, monkeypatch)
    assert error.file == folder / "tokenizer.json" and "another family" in error.cause


@each
def test_every_file_that_is_taken_away_is_missed(folder, unlisted, monkeypatch):
    copy = unlisted(folder.name)
    manifest = record(copy)
    for files in manifest.files.values():
        for name in files:
            content = (copy / name).read_bytes()
            (copy / name).unlink()
            error = refusal(manifest, copy, monkeypatch)
            assert error.file == copy / name and error.found == "no such file"
            (copy / name).write_bytes(content)
    load_pinned(manifest, copy)


@pytest.mark.parametrize(
    ("name", "added", "content"),
    [
        ("tiny-gpt2", "special_tokens_map.json", b"{}"),
        ("tiny-gpt2", "chat_template.jinja", b"{{ messages }}"),
        ("tiny-gpt2", "tokenizer.json", (FOLDERS["tiny-qwen3"] / "tokenizer.json").read_bytes()),
        ("tiny-gpt2", "params.json", b"{}"),
        ("tiny-gpt2", "model.safetensors.index.json", b"{}"),
        ("tiny-llama2", "original/tokenizer.model", b""),
    ],
)
def test_a_file_that_is_added_and_would_be_read_is_refused(name, added, content, unlisted, monkeypatch):
    folder = unlisted(name)
    manifest = record(folder)
    (folder / added).parent.mkdir(exist_ok=True)
    (folder / added).write_bytes(content)
    error = refusal(manifest, folder, monkeypatch)
    assert error.file == folder / added


@pytest.mark.parametrize("added", ["README.md", "notes.json", "pytorch_model.bin", "other.safetensors"])
def test_a_file_that_nothing_reads_is_no_part_of_the_run(added, unlisted):
    folder = unlisted("tiny-gpt2")
    manifest = record(folder)
    (folder / added).write_bytes(b"whatever")
    assert verify(manifest, folder).ok


def test_all_that_is_wrong_is_said_at_once(unlisted, monkeypatch):
    folder = unlisted("tiny-llama2")
    manifest = record(folder)
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes(b"{}")
    (folder / "model-00002-of-00002.safetensors").unlink()
    named = [problem.file.name for problem in refusal(manifest, folder, monkeypatch).problems]
    assert named == ["model-00002-of-00002.safetensors", "config.json", "tokenizer.model"]


def test_a_family_is_not_mistaken_for_another(monkeypatch):
    manifest = record("tiny-llama2")
    assert refusal(manifest, FOLDERS["tiny-llama3"], monkeypatch).problems[1:]


def test_a_library_that_makes_other_ids_of_the_same_files_is_noticed(monkeypatch):
    manifest, encode = record("tiny-qwen3"), Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text.replace("\n", " ")))
    error = refusal(manifest, None, monkeypatch)
    assert error.field == "tokenizer.probe_ids" and "another version" in error.cause


def test_a_package_that_reads_the_same_config_otherwise_is_noticed(monkeypatch):
    manifest = record("tiny-gpt2")
    config = FAMILIES["gpt2"].config
    kept = config.to_hf
    monkeypatch.setattr(config, "to_hf", lambda self: kept(self) | {"a_new_field": 1})
    assert refusal(manifest, None, monkeypatch).field == "config_sha256"


def test_where_a_folder_is_must_be_said(unlisted):
    folder = unlisted("tiny-gpt2")
    manifest = record(folder)
    with pytest.raises(CheckpointError, match="does not say where") as caught:
        load_pinned(manifest)
    check_answers(caught.value)
    moved = shutil.move(folder, folder.parent / "moved")
    assert verify(manifest, moved).ok


def test_a_weight_file_by_name_is_the_one_that_is_loaded(unlisted):
    """Of two in a folder; the folder alone leaves no choice to the loader but the usual name."""
    folder = unlisted("tiny-gpt2")
    save_file(load_file(folder / "model.safetensors"), folder / "twin.safetensors")
    manifest = record(folder / "twin.safetensors")
    assert manifest.source.weights == "twin.safetensors" and list(manifest.files["weights"]) == ["twin.safetensors"]
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert verify(manifest, folder).ok and verify(manifest, folder / "twin.safetensors").ok
    assert not verify(dataclasses.replace(manifest, source=record(FOLDERS["tiny-gpt2"]).source), folder).ok


def tensors_in(layout: WeightMap, model: LanguageModel) -> dict[str, torch.Tensor]:
    """The model's tensors as another layout has them; a tied head is none."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return {
        name: rule.to_theirs([parameters[target] for target in rule.targets]).clone()
        for name, rule in layout.expand(model.config).items()
        if all(target in parameters for target in rule.targets)
    }


def openai_layout(target: Path) -> Path:
    """The bundled GPT-2 as OpenAI published theirs."""
    model, bundled = load_model("tiny-gpt2"), FOLDERS["tiny-gpt2"]
    config = model.config.to_hf()
    write_bundle(target / "model.ckpt", tensors_in(GPT2_TF, model))
    sizes = {"n_vocab": "vocab_size", "n_ctx": "n_positions"} | {name: name for name in ("n_embd", "n_head", "n_layer")}
    (target / "hparams.json").write_text(json.dumps({name: config[field] for name, field in sizes.items()}))
    shutil.copy(bundled / "vocab.json", target / "encoder.json")
    shutil.copy(bundled / "merges.txt", target / "vocab.bpe")
    return target


def meta_layout(target: Path) -> Path:
    """The bundled Llama 2 as Meta publishes theirs."""
    model = load_model("tiny-llama2", torch.float32)
    torch.save(tensors_in(LLAMA_META, model), target / "consolidated.00.pth")
    (target / "params.json").write_text(json.dumps(meta_params(model.config.to_hf())))
    shutil.copy(FOLDERS["tiny-llama2"] / "tokenizer.model", target)
    return target


OPENAI = {"model.ckpt.index", "model.ckpt.data-00000-of-00001", "hparams.json", "encoder.json", "vocab.bpe"}
META = {"consolidated.00.pth", "params.json", "tokenizer.model"}


@pytest.mark.parametrize(
    ("layout", "pinned", "bundled"),
    [(openai_layout, OPENAI, "tiny-gpt2"), (meta_layout, META, "tiny-llama2")],
    ids=["openai", "meta"],
)
def test_the_layouts_of_openai_and_meta_are_pinned(layout, pinned, bundled, tmp_path, monkeypatch):
    folder = layout(tmp_path)
    manifest = record(folder)
    assert {name for files in manifest.files.values() for name in files} == pinned
    assert verify(manifest, folder).ok and verify(manifest, folder).source == tmp_path.name
    card = json.loads((FOLDERS[bundled] / "card.json").read_text())
    assert card["greedy"][0]["text"].startswith(manifest.results[0].text)
    for name in sorted(pinned):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert refusal(manifest, folder, monkeypatch).file == folder / name
        (folder / name).write_bytes(content)


def test_a_hub_model_is_pinned_to_its_commit(tmp_path, monkeypatch):
    """The branch moves on to other weights; the run stays what it was, and the new commit is refused in its place."""
    with running() as hub, use_hub(monkeypatch, hub, tmp_path / "cache"):
        hub.repositories["owner/name"] = Repository()
        files = files_of(FOLDERS["tiny-gpt2"])
        first = hub.repositories["owner/name"].commit(files, "main")
        manifest = record("owner/name")
        assert dataclasses.astuple(manifest.source) == ("hub", "owner/name", first, None)
        assert "card.json" not in manifest.files["config"]
        config = json.loads(files["config.json"]) | {"layer_norm_epsilon": 1e-3}
        moved = {name: content for name, content in files.items() if name != "card.json"}
        second = hub.repositories["owner/name"].commit(moved | {"config.json": json.dumps(config).encode()}, "main")
        assert record("owner/name").source.revision == second
        assert same_parameters(load_pinned(manifest)[0], load_model(FOLDERS["tiny-gpt2"])) and verify(manifest).ok
        moved_source = dataclasses.replace(manifest.source, revision=second)
        error = refusal(dataclasses.replace(manifest, source=moved_source), None, monkeypatch)
        assert error.field == "files.config" and error.file.name == "config.json"
        assert (
            record_run("owner/name", ["a"], revision=first, max_new_tokens=1, validate=False).source.revision == first
        )
