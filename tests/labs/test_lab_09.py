"""M9-LAB-09: its exercise checks diagnose, its copies can be broken, its template runs, its figures tell numbers."""

import json

import pytest
import torch

from course_helpers import CheckpointError, load_model, open_checkpoint
from course_helpers.labs import ExerciseHint, lab_09, lab_09_charts, lab_09_figures
from course_helpers.labs.lab_09 import copy_of, flat, flip_last_bit, run_fresh, run_template
from course_helpers.labs.lab_09_exercises import (
    BEGIN,
    DIFFERENCES,
    GONE,
    TEXTS,
    check_same_with_cache,
    check_what_differs,
    check_whole_range,
)
from course_helpers.loaders.manifest_files import sha256
from course_helpers.loaders.sources import BUNDLED
from course_helpers.manifests.form import RunManifest


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def near(found, expected, tolerance):
    return bool(((found - expected).abs().max() / expected.abs().max()) < tolerance)


def same_with_cache(model, texts, *, tolerance=5e-5, first=lambda ids: ids.shape[1] // 2, places=slice(None)):
    """Right, unless something of it is asked for otherwise."""
    for text in texts:
        ids, cache = torch.tensor([text]), model.make_cache(1, len(text))
        pieces = ids.split([first(ids)] + [1] * (ids.shape[1] - first(ids)), dim=1)
        found = torch.cat([model(piece, cache=cache) for piece in pieces], dim=1)
        if not near(found[:, places], model(ids)[:, places], tolerance):
            return False
    return True


def caches(**wrong):
    return lambda model, texts: same_with_cache(model, texts, **wrong)


def exactly(model, texts):
    return all(
        torch.equal(cached_pieces(model, text, model.make_cache(1, 64)), model(torch.tensor([text]))) for text in texts
    )


def cached_pieces(model, text, cache):
    return torch.cat([model(torch.tensor([[token]]), cache=cache) for token in text], dim=1)


def with_itself(model, texts):
    return all(torch.equal(model(torch.tensor([text])), model(torch.tensor([text]))) for text in texts)


def cached_with_cached(model, texts):
    sides = [[cached_pieces(model, text, model.make_cache(1, 64)) for text in texts] for _ in range(2)]
    return all(map(torch.equal, *sides))


def one_cache(length):
    def reuses(model, texts):
        cache = model.make_cache(1, length)
        return all(near(cached_pieces(model, text, cache), model(torch.tensor([text])), 5e-5) for text in texts)

    return reuses


def makes_and_forgets(model, texts):
    model.make_cache(1, 64)
    return with_itself(model, texts)


def shifted(model, texts):
    return all(
        near(cached_pieces(model, text, model.make_cache(1, 64))[:, 1:], model(torch.tensor([text]))[:, :-1], 5e-5)
        for text in texts
    )


def later_pieces_left_out(model, texts):
    for text in texts:
        ids, cache = torch.tensor([text]), model.make_cache(1, 64)
        found = model(ids[:, :10], cache=cache)
        model(ids[:, 10:], cache=cache)
        if not near(found, model(ids)[:, :10], 5e-5):
            return False
    return True


def whole_range(model, tokens=None, length=None, finite=lambda logits: logits.isfinite()):
    length = length or model.config.max_position_embeddings
    tokens = tokens or model.config.vocab_size
    ids = torch.arange(-(-tokens // length) * length) % tokens
    return bool(finite(model(ids.view(-1, length))).all())


def last_places(model):
    length, tokens = model.config.max_position_embeddings, model.config.vocab_size
    return bool(model(torch.arange(tokens).view(-1, length))[:, 200:].isfinite().all())


def what_differs(old, new, **wrong):
    """Right, but for the rules that are switched off or replaced."""
    rules = {
        "places": old.keys() | new.keys(),
        "nothing": ("reason", "telemetry/", "source/"),
        "closest": True,
        "greedy": old["settings/temperature"] == new["settings/temperature"] == 0,
        "warns": ("versions/", "settings/threads"),
    } | {name: value(old, new) if callable(value) else value for name, value in wrong.items()}
    found = {"breaks": [], "warns": []}
    for place in rules["places"]:
        drawn = place in ("settings/seed", "settings/top_k", "settings/top_p")
        ignored = place.startswith(rules["nothing"]) or (rules["closest"] and "/closest" in place)
        if old.get(place, ...) != new.get(place, ...) and not ignored and not (rules["greedy"] and drawn):
            found["warns" if place.startswith(rules["warns"]) else "breaks"].append(place)
    return found


def differs(**wrong):
    return lambda old, new: what_differs(old, new, **wrong)


@pytest.fixture(scope="module")
def small():
    return load_model("tiny-gpt2", torch.float32)


@pytest.mark.parametrize("right", [same_with_cache, caches(first=lambda ids: 1), caches(tolerance=1e-3)])
def test_right_cache_checks_pass(right, capsys):
    check_same_with_cache(right)
    assert "Exercise 1: right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda model, texts: torch.tensor(True), "got a Tensor"),
        (lambda model, texts: model(torch.tensor(texts[0])) is None, "expected \\(1, tokens\\)"),
        (lambda model, texts: model(torch.tensor(texts)) is None, "one by one"),
        (with_itself, "compared with itself"),
        (makes_and_forgets, "made and not used"),
        (cached_with_cached, "never asked without a cache"),
        (one_cache(256), "a cache of its own"),
        (one_cache(32), "a cache of its own"),
        (shifted, "same positions"),
        (caches(first=lambda ids: ids.shape[1]), "went through in one piece"),
        (later_pieces_left_out, "later pieces"),
        (caches(places=slice(-1, None)), "last position only"),
        (caches(places=slice(None, -1)), "the very last position"),
        (lambda model, texts: same_with_cache(model, texts[:1]), "every text but the first"),
        (caches(tolerance=0.1), "too wide"),
        (exactly, "in the last bits"),
    ],
)
def test_wrong_cache_checks_get_the_hint_that_helps(wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_same_with_cache(wrong)


def test_texts_of_exercise_1_begin_with_a_token_of_their_own():
    assert all(text[0] == BEGIN and BEGIN not in text[1:] for text in TEXTS)
    assert len({len(text) for text in TEXTS}) == len(TEXTS)


def test_the_right_range_check_passes(small, capsys):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    check_whole_range(whole_range, lambda: small)
    assert "Exercise 2: right" in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items()), "left as it was"


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda model: "yes", "got a str"),
        (lambda model: whole_range(model, tokens=1000), "24 of 1024 tokens were never sent"),
        (lambda model: whole_range(model, length=128), "had 128 tokens, so position 255"),
        (lambda model: whole_range(model, length=512), "256 tokens at most"),
        (lambda model: not whole_range(model), "a right model was refused"),
        (lambda model: whole_range(model) or True, "the last token's embedding"),
        (last_places, "the last positions"),
        (lambda model: whole_range(model, finite=lambda logits: ~logits.isnan()), "isfinite sees it"),
    ],
)
def test_wrong_range_checks_get_the_hint_that_helps(small, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_whole_range(wrong, lambda: small)


def test_the_right_comparison_passes(capsys):
    check_what_differs(what_differs)
    assert f"{len(DIFFERENCES)} pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (empty, "still empty"),
        (silent, "return statement"),
        (lambda old, new: ["reason"], "expected {"),
        (differs(nothing=("reason", "source/")), "never the same twice"),
        (differs(nothing=("telemetry/", "source/")), "the reason is for people"),
        (differs(nothing=("reason", "telemetry/")), "hashes say what they are"),
        (differs(closest=False), "the margin of the closest step"),
        (differs(warns=("settings/threads",)), "another version"),
        (differs(warns=("versions/",)), "number of threads"),
        (differs(warns=("versions/", "settings/")), "another number type"),
        (differs(greedy=False), "no seed matters"),
        (differs(greedy=True), "the seed says which"),
        (differs(greedy=lambda old, new: old["settings/temperature"] == 0), "only if both are"),
        (differs(places=lambda old, new: old.keys()), "the old one only"),
        (differs(places=lambda old, new: new.keys()), "the new one only"),
        (differs(nothing=("reason", "telemetry/", "source/", "files/")), "other weights"),
        (differs(nothing=("reason", "telemetry/", "source/", "results/")), "the very thing"),
        (differs(nothing=("reason", "telemetry/", "source/", "validation/")), "a layer of checks"),
        (differs(nothing=("reason", "telemetry/", "source/", "tokenizer/")), "another tokenizer"),
        (differs(nothing=("reason", "telemetry/", "source/", "config")), "another config"),
    ],
)
def test_wrong_comparisons_get_the_hint_that_helps(wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check_what_differs(wrong)


def test_every_change_of_exercise_3_changes_something():
    for old, change, *_ in DIFFERENCES:
        assert all(old.get(place, GONE) != value for place, value in change.items())


def test_a_copy_keeps_its_texts_and_loses_its_hashes(tmp_path):
    folder = copy_of("tiny-qwen3", tmp_path / "copy")
    kept, original = (json.loads((place / "card.json").read_text()) for place in (folder, BUNDLED / "tiny-qwen3"))
    assert original.keys() - kept.keys() == {"weights", "files"}
    assert all(kept[name] == original[name] for name in kept)
    weights = folder / "model.safetensors"
    assert sha256(weights) == sha256(BUNDLED / "tiny-qwen3" / "model.safetensors")

    content = weights.read_bytes()
    flip_last_bit(weights)
    assert [
        index for index, (old, new) in enumerate(zip(content, weights.read_bytes(), strict=True)) if old != new
    ] == [len(content) - 1]
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.names(), "no hash stops it"
    with pytest.raises(CheckpointError):
        copy_of("tiny-nothing", tmp_path / "other")


def test_a_fresh_process_is_fresh_and_says_what_went_wrong(tmp_path):
    assert run_fresh("import sys; print(sys.argv[1], 'torch' in sys.modules)", tmp_path) == f"{tmp_path} False"
    with pytest.raises(RuntimeError, match="no such thing"):
        run_fresh("raise ValueError('no such thing')")


FAKE = """
import os, pytest
@pytest.mark.parametrize("source", os.environ["SMOKE_SOURCE"].split(os.pathsep))
def test_is_good(source):
    assert source.endswith("good"), "a reason"
"""


def test_outcomes_of_the_template_are_told_apart_by_name(tmp_path, monkeypatch):
    template = tmp_path / "test_fake.py"
    template.write_text(FAKE)
    monkeypatch.setattr(lab_09, "TEMPLATE", template)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel has it
    sources = {"right": tmp_path / "good", "wrong": tmp_path / "bad"}
    outcomes = run_template(tmp_path / "project", sources)
    assert outcomes == {"right": {"test_is_good": "passed"}, "wrong": {"test_is_good": "failed"}}

    template.write_text("import nothing_of_that_name")
    with pytest.raises(RuntimeError, match="nothing_of_that_name"):
        run_template(tmp_path / "project", sources)


def test_the_template_is_the_one_of_the_repository():
    assert lab_09.TEMPLATE.is_file() and "def test_text_is_what_the_card_says" in lab_09.TEMPLATE.read_text()


def test_a_manifest_laid_flat_has_every_value_once(tmp_path):
    nested = {"a": 1, "b": {"c.json": {"bytes": 2}}, "ids": [1, 2], "results": [{"x": 3}, {"x": 4}], "none": []}
    assert flat(nested) == {"a": 1, "b/c.json/bytes": 2, "ids": [1, 2], "results/0/x": 3, "results/1/x": 4, "none": []}
    assert {place.partition("/")[0] for place in DIFFERENCES[0][0]} <= set(RunManifest.__dataclass_fields__)


@pytest.mark.parametrize("draw", ["protocol", "what_is_compared", "fallback"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_09_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


def test_charts_tell_their_numbers_in_words_too():
    cells = {"one": {"opens": "green", "loss": "RED"}, "two": {"opens": "green", "loss": "unknown"}}
    image = lab_09_charts.matrix(cells, {"one": {"opens": 0.1, "loss": 0.15}, "two": {"opens": 0.2}})
    assert image.data.startswith(b"\x89PNG")
    assert "one: loss RED; two: loss unknown; all others green" in image.alt and "one 0.25 s, two 0.20 s" in image.alt
    image = lab_09_charts.matrix({"one": {"opens": "green"}}, named={"green": "same"})
    assert "Every cell is same" in image.alt

    image = lab_09_charts.caught({"cut": {"opens": 2, "loss": None}, "scaled": {"opens": 0, "loss": 1}}, 2)
    assert "cut: opens 2; scaled: loss 1" in image.alt and "in how many of 2 models" in image.alt
    image = lab_09_charts.margins({"right": [0.0, 0.02], "wrong": [0.5, 30.0]}, "one is a nat")
    assert "right: 0 to 0.02, 0 of 2 beyond; wrong: 0.5 to 3e+01, 1 of 2 beyond" in image.alt

    found = {"loss": 0.25, "weights_mib": 3.0, "cache_mib": 0.5, "tokens_per_second": 1234.0}
    image = lab_09_charts.ranges({"one": found, "two": found}, {"one": (0.2, 0.3)})
    assert "one: loss 0.250 within 0.2 to 0.3, 3.5 MiB, 1,234 tokens per second; two: loss 0.250, 3.5 MiB" in image.alt
