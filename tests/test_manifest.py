"""A run is written down, done again and compared; another run is told from it, and no other pairing of files loads."""

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from course_helpers import CheckpointError, generate, load_model, load_tokenizer, save_checkpoint
from course_helpers.manifest import (
    RunManifest,
    add_record_options,
    add_verify_options,
    load_pinned,
    record_run,
    run_record,
    run_verify,
    verify,
    write_manifest,
)
from course_helpers.manifests.run import threads
from course_helpers.validation import LAYERS
from tests.bundled import FOLDERS, copy_of, each
from tests.tiny_models import same_parameters

PROMPTS = ("Once upon a time", "Mia had a red kite")
SHORT = {"max_new_tokens": 12, "validate": False}


def outcomes(verification) -> dict[str, str]:
    return {row.field: row.outcome for row in verification.rows}


@pytest.fixture(scope="module")
def recorded():
    """Every bundled checkpoint's run, recorded once."""
    return {name: record_run(name, PROMPTS, **SHORT) for name in FOLDERS}


@each
def test_a_run_of_every_family_holds(folder, recorded):
    verification = verify(recorded[folder.name])
    assert verification.ok, str(verification)
    assert set(outcomes(verification).values()) == {"same"}
    model, tokenizer = load_pinned(recorded[folder.name])
    assert same_parameters(model, load_model(folder)) and tokenizer.kind == load_tokenizer(folder).kind


def test_the_text_is_that_of_the_card():
    """The same prompt, decoded greedily in float32, when the checkpoint was made."""
    card = json.loads((FOLDERS["tiny-llama3"] / "card.json").read_text())["greedy"][0]
    settings = {"max_new_tokens": card["max_new_tokens"], "dtype": torch.float32, "validate": False}
    assert record_run("tiny-llama3", [card["prompt"]], **settings).results[0].text == card["text"]


@each
def test_every_file_of_a_bundled_checkpoint_is_pinned_but_its_card(folder, recorded):
    pinned = [name for files in recorded[folder.name].files.values() for name in files]
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(pinned) == sorted(set(there) - {"card.json"})
    card = json.loads((folder / "card.json").read_text())
    listed = {name: pin["sha256"] for part in ("weights", "files") for name, pin in card[part].items()}
    for files in recorded[folder.name].files.values():
        assert all(listed[name] == pin.sha256 for name, pin in files.items() if name in listed)


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> Path:
    """A manifest beside its checkpoint, with all layers of validation."""
    return write_manifest(copy_of(FOLDERS["tiny-gpt2"], tmp_path_factory.mktemp("beside")), "a reason", PROMPTS[:1])


def test_nothing_of_the_machine_is_in_a_manifest(beside):
    text = beside.read_text()
    for secret in (str(beside.parent.parent), str(Path.home()), os.environ.get("USER") or "no user"):
        assert secret not in text
    assert json.loads(text)["source"] == {"kind": "folder", "name": "tiny-gpt2", "revision": None, "weights": None}


def without_telemetry(path: Path) -> str:
    return json.dumps({**json.loads(path.read_text()), "telemetry": {}}, indent=2, ensure_ascii=False)


def test_the_same_run_twice_is_the_same_file(tmp_path):
    one, other = (record_run("tiny-qwen3", PROMPTS, **SHORT).save(tmp_path / name) for name in ("one", "other"))
    assert without_telemetry(one) == without_telemetry(other)
    assert RunManifest.load(one).results == RunManifest.load(other).results


SAMPLED = SHORT | {"temperature": 1.0, "top_k": 50, "top_p": 0.95}


def test_another_seed_is_another_run(tmp_path):
    """Sampling follows the seed; with the wrong one in the manifest, the first other token is named."""
    manifest = record_run("tiny-gpt2", PROMPTS, seed=1, **SAMPLED)
    assert verify(manifest).ok
    assert all(result.closest is None for result in manifest.results)
    other = dataclasses.replace(manifest, settings=dataclasses.replace(manifest.settings, seed=2))
    verification = verify(other)
    assert not verification.ok and "DIFFERS" in outcomes(verification).values()
    assert record_run("tiny-gpt2", PROMPTS, seed=2, **SAMPLED).results != manifest.results
    row = next(row for row in verification.rows if row.outcome == "DIFFERS")
    assert row.detail.startswith("token ") and "recorded" in row.detail and "apart" not in row.detail


def test_decode_settings_are_recorded_and_used(monkeypatch):
    asked = []

    def recording(model, prompts, *settings):
        asked.append(settings)
        return generate(model, prompts, *settings)

    monkeypatch.setattr("course_helpers.manifests.run.generate", recording)
    stop = load_tokenizer("tiny-gpt2").encode(" child")[0]
    settings = {"max_new_tokens": 39, "temperature": 0.5, "top_k": 1, "top_p": 0.75, "stop_ids": [stop]}
    manifest = record_run("tiny-gpt2", PROMPTS[:1], **settings, use_cache=False, seed=7, validate=False)
    assert manifest.results[0].new_ids[-1] == stop and len(manifest.results[0].new_ids) < 39
    assert verify(manifest).ok
    assert asked == [(39, 0.5, 1, 0.75, (stop,), False, 7)] * 2


def test_the_closest_step_is_the_smallest_gap_of_a_pass_without_cache():
    manifest = record_run("tiny-llama3", PROMPTS, dtype=torch.float32, **SHORT)
    model = load_model("tiny-llama3", torch.float32)
    for result in manifest.results:
        with torch.no_grad():
            logits = model(torch.tensor([[*result.prompt_ids, *result.new_ids]]))[0]
        gaps = []
        for step in range(len(result.new_ids)):
            first, second = sorted(logits[len(result.prompt_ids) - 1 + step].tolist())[:-3:-1]
            gaps.append(first - second)
        assert result.closest.step == gaps.index(min(gaps))
        assert result.closest.margin == pytest.approx(min(gaps), rel=1e-3)


def changed(manifest: RunManifest, place: int, new_ids: tuple[int, ...]) -> RunManifest:
    """The manifest of a run that would have given other tokens."""
    results = list(manifest.results)
    results[place] = dataclasses.replace(results[place], new_ids=new_ids)
    return dataclasses.replace(manifest, results=tuple(results))


def test_the_first_token_where_a_text_departs_is_named(recorded):
    manifest = recorded["tiny-gpt2"]
    ids = list(manifest.results[1].new_ids)
    ids[5] = (ids[5] + 1) % 1000
    rows = {row.field: row for row in verify(changed(manifest, 1, tuple(ids))).rows}
    assert rows["prompt 1"].outcome == "same" and rows["prompt 2"].outcome == "DIFFERS"
    assert rows["prompt 2"].detail.startswith(f"token 6: recorded {ids[5]} ")
    assert rows["prompt 2"].detail.endswith("more than rounding explains")
    rows = {row.field: row for row in verify(changed(manifest, 1, tuple(ids[:4]))).rows}
    assert rows["prompt 2"].detail.startswith("token 5: recorded nothing, now ")


def test_a_departure_at_a_near_tie_is_called_one_and_is_a_difference(tmp_path):
    """Two tokens made equally likely: their rows of the tied embedding differ in the last bits only."""
    model, tokenizer = load_model("tiny-llama3", torch.float32), load_tokenizer("tiny-llama3")
    prompt = tokenizer.encode(PROMPTS[0])
    with torch.no_grad():
        first = int(model(torch.tensor([prompt]))[0, -1].argmax())
        twin = next(id for id in range(model.config.vocab_size) if id not in (first, *prompt))
        model.token_embedding.weight[twin] = model.token_embedding.weight[first] * (1 - 2e-7)
    folder = save_checkpoint(model, tmp_path / "twins", tokenizer)
    manifest = record_run(folder, PROMPTS[:1], max_new_tokens=1, validate=False)
    (found,) = manifest.results[0].new_ids
    assert found in (first, twin) and manifest.results[0].closest.margin < 1e-4
    verification = verify(changed(manifest, 0, (first + twin - found,)), folder)
    assert not verification.ok and "a near-tie, which rounding can turn" in verification.rows[-1].detail


def test_other_versions_are_a_warning_with_the_results_beside_it(recorded):
    manifest = recorded["tiny-gpt2"]
    older = dataclasses.replace(manifest, versions=manifest.versions | {"torch": "2.6.0", "abacus": "1"})
    verification = verify(older)
    assert verification.ok and outcomes(verification)["versions"] == "warning"
    assert f"torch 2.6.0 -> {manifest.versions['torch']}, abacus 1 -> None" in str(verification)
    assert outcomes(verification)["prompt 2"] == "same"


def test_telemetry_and_the_reason_are_not_compared(recorded):
    assert verify(dataclasses.replace(recorded["tiny-gpt2"], telemetry={}, reason="another")).ok


def test_the_number_of_threads_is_that_of_the_run(recorded, monkeypatch):
    before, used = torch.get_num_threads(), []
    monkeypatch.setattr(
        "course_helpers.manifests.run.continued", lambda *run: used.append(torch.get_num_threads()) or [1, 2]
    )
    two = dataclasses.replace(recorded["tiny-gpt2"].settings, threads=2)
    verify(dataclasses.replace(recorded["tiny-gpt2"], settings=two))
    assert used == [2, 2] and torch.get_num_threads() == before
    with pytest.raises(KeyError), threads(3):
        raise KeyError
    assert torch.get_num_threads() == before


def test_validation_is_recorded_and_compared(beside):
    manifest = RunManifest.load(beside)
    assert list(manifest.validation) == list(LAYERS) and all(manifest.validation.values())
    failing = dataclasses.replace(manifest, validation=manifest.validation | {"baseline": False})
    *before, last = verify(failing, beside.parent).rows
    assert all(row.outcome == "same" for row in before)
    assert (last.field, last.outcome, last.detail) == ("validation", "DIFFERS", "another outcome: baseline")


@pytest.mark.parametrize("prompts", [[], "one string"])
def test_prompts_are_a_list_with_something_in_it(prompts):
    with pytest.raises(ValueError, match="prompts"):
        record_run("tiny-gpt2", prompts, **SHORT)


def test_a_run_on_a_device_that_is_not_here_is_not_tried(recorded):
    manifest = recorded["tiny-gpt2"]
    elsewhere = dataclasses.replace(manifest, settings=dataclasses.replace(manifest.settings, device="nowhere:0"))
    verification = verify(elsewhere)
    assert outcomes(verification)["device"] == "DIFFERS" and outcomes(verification)["files"] == "not reached"
    with pytest.raises(CheckpointError, match="device"):
        load_pinned(elsewhere)


def command(add_options, run, *words: object) -> int:
    """The exit status of a command, as `python -m course_helpers` runs it."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run(parser.parse_args([str(word) for word in words]))


def test_on_the_command_line(tmp_path, capsys):
    folder, file = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False), tmp_path / "tiny-gpt2" / "run.json"
    words = [
        folder,
        "--prompt",
        PROMPTS[0],
        "--prompt",
        PROMPTS[1],
        "--output",
        file,
        "--max-new-tokens",
        8,
        "--no-validation",
    ]
    assert command(add_record_options, run_record, *words, "--reason", "small", "--dtype", "float32") == 0
    manifest, printed = RunManifest.load(file), capsys.readouterr()
    assert printed.out == "".join(f"{result.text}\n" for result in manifest.results) and printed.err == ""
    assert (manifest.reason, manifest.settings.dtype, manifest.settings.max_new_tokens) == ("small", "float32", 8)
    assert command(add_verify_options, run_verify, file, "--json", tmp_path / "report.json") == 0
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True
    assert "the run holds" in capsys.readouterr().out
    moved = shutil.move(file, tmp_path / "elsewhere.json")
    assert command(add_verify_options, run_verify, moved, "--source", folder) == 0
    (folder / "generation_config.json").write_text("{}")
    assert command(add_verify_options, run_verify, moved, "--source", folder) == 1
    assert "the run does NOT hold" in capsys.readouterr().out


def test_a_checkpoint_that_fails_validation_is_recorded_with_a_status(tmp_path, capsys):
    """A square matrix lies transposed: only the text tells."""
    folder = copy_of(FOLDERS["tiny-gpt2"], tmp_path, listed=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["h.1.attn.c_proj.weight"] = tensors["h.1.attn.c_proj.weight"].T.contiguous()
    save_file(tensors, folder / "model.safetensors")
    assert command(add_record_options, run_record, folder, "--output", folder / "run.json") == 1
    assert "validation failed" in capsys.readouterr().err
    manifest = RunManifest.load(folder / "run.json")
    assert not all(manifest.validation.values()) and str(tmp_path) not in (folder / "run.json").read_text()
