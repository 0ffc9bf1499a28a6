"""What the film of the loading pipeline tells is what the package does. Needs no Manim."""

import dataclasses
import json

import pytest
import torch

from animations import loading_story
from animations.loading_formats import NUMBERS, WRITERS, fingerprint
from animations.loading_story import CHECKPOINT, MEASURED, TURNED, measured, story
from course_helpers import load_model, load_tokenizer, open_checkpoint, save_checkpoint
from course_helpers.loaders.sources import BUNDLED


def test_every_format_holds_the_same_model():
    told = story()
    with open_checkpoint(CHECKPOINT) as checkpoint:
        tensors = len(checkpoint.names())
    assert [layout.title for layout in told.layouts] == list(WRITERS)
    assert {layout.format for layout in told.layouts} == {"tensorflow", "safetensors", "pytorch"}
    assert all(layout.same_model and layout.tensors == tensors == told.tensors for layout in told.layouts)
    assert [len(layout.files) for layout in told.layouts[:2]] == [2, 1]
    assert len(told.layouts[2].files) > 2 and "index" in told.layouts[2].files[0].name


def test_the_parts_of_a_file_are_all_of_it():
    for layout in story().layouts:
        for file in layout.files:
            held = sum(part.bytes for part in file.parts)
            assert held == file.bytes or (file.name.endswith(".bin") and held < file.bytes)  # a zip has more to it
        numbers = sum(part.bytes for file in layout.files for part in file.parts if part.kind == NUMBERS)
        assert numbers == sum(parameter.nbytes for parameter in load_model(CHECKPOINT).parameters())


def test_the_rows_are_those_of_the_report_of_a_load():
    report = {row.source: row for row in load_model(CHECKPOINT).load_report.rows}
    for row in story().rows:
        known = report[row.source]
        assert (row.shape, row.done, row.targets) == (known.shape, known.done, known.targets)
    assert TURNED in {row.source for row in story().rows}


def test_the_refusal_is_about_the_turned_matrix_and_leaves_the_model_whole():
    refusal = story().refusal
    assert (refusal.error.tensor, refusal.error.found) == (TURNED, tuple(refusal.error.expected)[::-1])
    assert refusal.before == refusal.after == fingerprint(load_model(CHECKPOINT))


def test_a_fingerprint_tells_models_apart():
    model = load_model(CHECKPOINT)
    before = fingerprint(model)
    with torch.no_grad():
        model.final_norm.weight[0] += 1
    assert fingerprint(model) != before


def test_every_part_of_the_model_is_filled_once():
    told = story()
    parts = {f"blocks.{number}.{part}" for number in range(told.blocks) for part in ("attention", "feed_forward")}
    assert sorted(told.order) == sorted(parts | {"embeddings", "final_norm"})


def test_the_text_is_the_one_on_the_card():
    run = story().run
    card = json.loads((BUNDLED / CHECKPOINT / "card.json").read_text())["greedy"][0]
    text = "".join(piece for piece, _ in (*run.prompt_tokens, *run.new_tokens))
    assert run.expected and card["text"].startswith(text) and text.endswith(".")
    assert "".join(piece for piece, _ in run.prompt_tokens) == card["prompt"] == run.prompt


def test_memory_is_what_the_lab_measured(tmp_path):
    memory = measured()
    assert max(memory.private_mb) == pytest.approx(memory.model_mb, rel=0.02)  # stays near one model
    assert memory.naive_peak_mb == pytest.approx(2 * memory.model_mb, rel=0.02)
    record = json.loads(MEASURED.read_text())
    record["results"]["strategies"]["naive"]["peak_private_mb"] = 1234.5
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(record))
    assert measured(changed).naive_peak_mb == 1234.5


def test_another_config_makes_another_film(tmp_path, monkeypatch):
    bundled = load_model(CHECKPOINT)
    config = dataclasses.replace(bundled.config, n_layer=2, n_embd=64, n_inner=256)
    torch.manual_seed(0)
    save_checkpoint(type(bundled)(config), tmp_path / "smaller", load_tokenizer(CHECKPOINT))
    greedy = json.loads((BUNDLED / CHECKPOINT / "card.json").read_text())["greedy"]
    (tmp_path / "smaller" / "card.json").write_text(json.dumps({"greedy": greedy}))
    monkeypatch.setattr(loading_story, "CHECKPOINT", str(tmp_path / "smaller"))
    told = story.__wrapped__()
    assert (told.blocks, told.tensors) == (2, 2 + 2 * 12 + 2)
    assert {row.source: row.shape for row in told.rows}[TURNED] == (64, 192)
    assert not told.run.expected  # nobody has trained it
