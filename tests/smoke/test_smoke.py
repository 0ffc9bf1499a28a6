"""The smoke suite: what most often goes wrong with a checkpoint, in two seconds. To copy it for your own: README.md."""

import json
import os

import pytest
import torch
import torch.nn.functional as F

from course_helpers import FAMILIES, generate, load_model, load_tokenizer, save_checkpoint
from course_helpers.loaders.sources import resolve
from course_helpers.validation_layers.baseline import WITHIN, losses

#: SMOKE_SOURCE: a folder or a hub id, or several. Without it, the bundled checkpoint of every family.
NAMED = os.environ.get("SMOKE_SOURCE", "")
SOURCES = NAMED.split(os.pathsep) if NAMED else [row.tiny for row in FAMILIES.values()]
TEXT = "Once upon a time, Mia had a red kite."


@pytest.fixture(scope="module", params=SOURCES)
def loaded(request):
    tokenizer = load_tokenizer(request.param)
    return request.param, load_model(request.param, torch.float32), tokenizer, torch.tensor([tokenizer.encode(TEXT)])


@torch.no_grad()
def test_logits_are_numbers_and_no_token_sees_a_later_one(loaded):
    _, model, _, ids = loaded
    logits = model(ids)
    assert logits.shape == (*ids.shape, model.config.vocab_size) and logits.isfinite().all()
    assert torch.allclose(model(ids[:, :-3]), logits[:, :-3], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_text_is_the_same_with_and_without_a_cache(loaded):
    _, model, _, ids = loaded
    assert torch.equal(generate(model, ids, 48), generate(model, ids, 48, use_cache=False))
    beyond = (model.config.sliding_window or 48) + 16  # a cache with a window may only go wrong past its end
    text = ids.repeat(1, beyond)[:, :beyond]
    cache = model.make_cache(batch_size=1, max_length=beyond)
    pieces = [model(piece, cache=cache) for piece in (text[:, :-8], *text[:, -8:].split(1, dim=1))]
    assert torch.allclose(torch.cat(pieces, dim=1), model(text), rtol=1e-4, atol=1e-4)


def test_text_is_what_the_card_says(loaded):
    source, model, tokenizer, _ = loaded
    path = resolve(source) / "card.json"
    card = json.loads(path.read_text()) if path.exists() else {}
    for sample in card.get("greedy", [])[:1]:
        prompt = [tokenizer.encode(sample["prompt"])]
        ids = generate(model, prompt, sample["max_new_tokens"], stop_ids=tokenizer.stop_ids)
        assert tokenizer.decode(ids[0]) == sample["text"]
    known = card.get("baseline", {})
    if "loss_per_text" in known:
        found, _ = losses(model, tokenizer, known["texts"])
        assert found == pytest.approx(known["loss_per_text"], abs=WITHIN)


def test_text_survives_the_tokenizer_and_every_id_has_an_embedding(loaded):
    _, model, tokenizer, ids = loaded
    assert tokenizer.decode(ids[0]) == TEXT and max(*ids[0], *tokenizer.stop_ids) < model.config.vocab_size


def test_saved_and_loaded_again_it_is_the_same(loaded, tmp_path):
    _, model, tokenizer, ids = loaded
    folder = save_checkpoint(model, tmp_path / "saved", tokenizer)
    assert torch.equal(load_model(folder)(ids), model(ids)) and load_tokenizer(folder).encode(TEXT) == ids[0].tolist()


def test_a_step_of_training_lowers_the_loss(loaded):
    source, _, _, ids = loaded
    model = load_model(source, torch.float32)
    before = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
        assert F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:]) < before
