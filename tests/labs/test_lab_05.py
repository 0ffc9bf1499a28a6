"""M9-LAB-05: its checks diagnose, its faults load and do harm, its caches hold what they say, its figures tell."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.architectures.gemma3 import Gemma3Model
from course_helpers.labs import ExerciseHint, lab_05, lab_05_charts, lab_05_figures
from course_helpers.labs.lab_05 import (
    Run,
    broken_caches,
    card_losses,
    decoded_logits,
    endless,
    first_wrong,
    full_cache,
    race,
    run,
    story_rows,
)
from course_helpers.labs.lab_05_exercises import SMALL, check_cache_bytes, check_ring, check_sliding_mask, right_mask
from course_helpers.labs.lab_05_faults import TOLERANCE, Damage, another, code_faults, config_faults, damage, read
from course_helpers.memory import kv_cache_bytes
from course_helpers.training import initialize


@pytest.fixture(scope="module")
def model():
    """A small Gemma 3 with random weights, norms and all, in which every part matters."""
    model = initialize(Gemma3Model(SMALL), seed=1).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * (0.3 if parameter.dim() == 1 else 0.2))
    return model


@pytest.fixture(scope="module")
def rows():
    return [[(7 * at * at + 3 * at + row) % SMALL.vocab_size for at in range(40)] for row in range(2)]


def back(length):
    return torch.arange(length)[:, None] - torch.arange(length)


def right(length, window):
    return (back(length) >= 0) & (back(length) < window)


def cache(config, length, each, *, two=2, heads=None, head_dim=None, sliding=None, full=None):
    """A cache_bytes that is right, or has something else in one place."""
    ring = min(length, config.sliding_window)
    sliding = ring if sliding is None else sliding(length, config.sliding_window)
    full = length if full is None else full(length, config.sliding_window)
    kept = sum(sliding if kind == SLIDING else full for kind in config.layer_types)
    return two * (heads or config.num_key_value_heads) * (head_dim or config.head_dim) * kept * each


def caches(**wrong):
    return lambda config, length, each: cache(config, length, each, **wrong)


def by_number(config, length, each):
    """A cache_bytes that takes the released models' rule for granted."""
    kinds = [SLIDING if number % 6 else FULL for number in range(1, config.num_hidden_layers + 1)]
    return cache(dataclasses.replace(config, layer_types=tuple(kinds)), length, each)


def write(slots, start, new):
    for offset, vector in enumerate(new):
        slots[(start + offset) % len(slots)] = vector


def read_ring(slots, length):
    return torch.stack([slots[position % len(slots)] for position in range(max(0, length - len(slots)), length)])


def ring(write=write, read=read_ring):
    """Both functions as one argument: the check takes a pair."""
    return write, read


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def keeps_the_first(slots, start, new):
    room = max(0, len(slots) - start)
    write(slots, start, new[:room] if start == 0 and len(new) > len(slots) else new)


def from_slot_zero(slots, start, new):
    if len(new) > len(slots):
        slots.copy_(new[-len(slots) :])
    else:
        write(slots, start, new)


def one_too_far(slots, start, new):
    write(slots, start + 1, new)


def appends(slots, start, new):
    slots[start : start + len(new)] = new


def shifts(slots, start, new):
    kept = torch.cat((slots, new))[-len(slots) :]
    slots.copy_(kept)


def never_wraps(slots, start, new):
    for offset, vector in enumerate(new):
        slots[start + offset] = vector


def stops_at_the_end(slots, start, new):
    for offset, vector in enumerate(new):
        if start + offset < len(slots):
            slots[start + offset] = vector


def ring_too_short(slots, start, new):
    write(slots[:-1], start, new)


def exchanged_in_the_middle(slots, length):
    found = read_ring(slots, length)
    return found[[0, 2, 1, 3]] if len(found) == 4 else found


def makes_a_new_one(slots, start, new):
    slots = torch.zeros_like(slots)
    write(slots, start, new)


def reads_and_clears(slots, length):
    found = read_ring(slots, length)
    slots.zero_()
    return found


CHECKS = {
    check_sliding_mask: "Exercise 1: right",
    check_cache_bytes: "Exercise 2: right",
    check_ring: "Exercise 3: right",
}


def torch_write(slots, start, new):
    stay = new[-len(slots) :]
    slots[torch.arange(start + len(new) - len(stay), start + len(new)) % len(slots)] = stay


@pytest.mark.parametrize(
    ("check", "answers"),
    [
        (check_sliding_mask, (right,)),
        (check_sliding_mask, (right_mask,)),
        (check_cache_bytes, (cache,)),
        (check_ring, ring()),
        (check_ring, ring(write=torch_write)),
    ],
)
def test_right_answers_pass(check, answers, capsys):
    check(*answers)
    assert CHECKS[check] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "answers", "advice"),
    [
        (check_sliding_mask, (empty,), "still empty"),
        (check_sliding_mask, (silent,), "return statement"),
        (check_sliding_mask, (lambda *a: right(*a).tolist(),), "expected a tensor"),
        (check_sliding_mask, (lambda n, w: right(n, w)[:-1],), "expected shape"),
        (check_sliding_mask, (lambda *a: right(*a).float(),), "expected True and False"),
        (check_sliding_mask, (lambda *a: ~right(*a),), "are exchanged"),
        (check_sliding_mask, (lambda *a: right(*a).T,), "rows are queries"),
        (check_sliding_mask, (lambda n, w: back(n).abs() < w,), "sees the future"),
        (check_sliding_mask, (lambda n, w: (back(n) >= 0) & (back(n) <= w),), "one too many"),
        (check_sliding_mask, (lambda n, w: (back(n) >= 0) & (back(n) < w - 1),), "one too few"),
        (check_sliding_mask, (lambda n, w: (back(n) > 0) & (back(n) < w),), "must see itself"),
        (check_sliding_mask, (lambda n, w: back(n) >= w,), "wrong side"),
        (check_sliding_mask, (lambda n, w: (back(n) >= w) | (back(n) == 0),), "wrong side"),
        (check_sliding_mask, (lambda n, w: (back(n) >= 0) & (torch.arange(n) < w),), "moves along"),
        (check_sliding_mask, (lambda n, w: back(n) >= 0,), "where is the window"),
        (check_sliding_mask, (lambda n, w: torch.eye(n).bool(),), "should see the keys"),
        (check_cache_bytes, (empty,), "still empty"),
        (check_cache_bytes, (silent,), "return statement"),
        (check_cache_bytes, (lambda *a: float(cache(*a)),), "whole number"),
        (check_cache_bytes, (caches(sliding=lambda n, w: n),), "no more than its window"),
        (check_cache_bytes, (caches(sliding=lambda n, w: w),), "min(length, window)"),
        (check_cache_bytes, (caches(full=min),), "the full layers keep everything"),
        (check_cache_bytes, (caches(sliding=lambda n, w: n, full=min),), "are exchanged"),
        (check_cache_bytes, (caches(sliding=lambda n, w: 0),), "the rings hold something"),
        (check_cache_bytes, (caches(full=lambda n, w: 0),), "only the rings"),
        (check_cache_bytes, (caches(sliding=lambda n, w: min(n, w - 1)),), "not window - 1"),
        (check_cache_bytes, (lambda c, n, e: 2 * 3 * 10 * e * (n + min(n, 13)),), "how many are there"),
        (check_cache_bytes, (by_number,), "follow no rule"),
        (check_cache_bytes, (caches(two=1),), "where is the 2"),
        (check_cache_bytes, (caches(heads=6),), "query heads"),
        (check_cache_bytes, (caches(heads=1),), "number of key/value heads"),
        (check_cache_bytes, (caches(heads=1, head_dim=44),), "model's width"),
        (check_cache_bytes, (caches(head_dim=1),), "where is head_dim"),
        (check_cache_bytes, (lambda c, n, e: cache(c, n, 1),), "bytes of one number"),
        (check_cache_bytes, (lambda *a: 5,), "not 5"),
        (check_ring, ring(write=empty), "still empty"),
        (check_ring, ring(write=silent), "nothing was written"),
        (check_ring, ring(write=makes_a_new_one), "nothing was written"),
        (check_ring, ring(write=never_wraps), "may go over the end"),
        (check_ring, ring(write=appends), "*last* positions are kept"),
        (check_ring, ring(write=keeps_the_first), "*last* positions are kept"),
        (check_ring, ring(write=from_slot_zero), "slot 0 is not for the oldest"),
        (check_ring, ring(write=one_too_far), "in the wrong slots"),
        (check_ring, ring(write=shifts), "in the wrong slots"),
        (check_ring, ring(write=stops_at_the_end), "*last* positions are kept"),
        (check_ring, ring(write=ring_too_short), "takes the place of the one"),
        (check_ring, ring(read=empty), "still empty"),
        (check_ring, ring(read=silent), "return statement"),
        (check_ring, ring(read=lambda slots, n: slots.tolist()), "expected a tensor"),
        (check_ring, ring(read=lambda slots, n: slots.clone()), "leave out empty slots"),
        (check_ring, ring(read=lambda slots, n: slots[: min(n, len(slots))].clone()), "the slots as they lie"),
        (check_ring, ring(read=lambda slots, n: read_ring(slots, n).flip(0)), "the newest comes first"),
        (check_ring, ring(read=lambda slots, n: read_ring(slots, n)[1:]), "are kept"),
        (check_ring, ring(read=exchanged_in_the_middle), "oldest position kept is"),
        (check_ring, ring(read=reads_and_clears), "has changed the ring"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, answers, advice):
    with pytest.raises(ExerciseHint, match=None) as error:
        check(*answers)
    assert advice in str(error.value)


@given(st.integers(1, 12), st.integers(1, 15))
def test_the_right_mask_is_the_definition(length, window):
    allowed = [[0 <= query - key < window for key in range(length)] for query in range(length)]
    assert right_mask(length, window).tolist() == allowed


def test_stories_begin_and_end_as_taught_and_are_longer_than_asked():
    tokenizer = load_tokenizer("tiny-gemma3")
    short, joined = story_rows(tokenizer, beyond=10), story_rows(tokenizer, beyond=300)
    assert all(row[0] == tokenizer.bos_id and row[-1] in tokenizer.stop_ids for row in short + joined)
    assert min(map(len, joined)) > 300 and len(short) == len(joined) == len(card_losses())
    assert joined[0][: len(short[0])] == short[0]
    ids = endless(short[:2], 500)
    assert ids.shape == (1, 500) and ids[0].tolist() == ((short[0] + short[1]) * 3)[:500]


def test_the_card_vouches_for_the_right_model():
    model, tokenizer = load_model("tiny-gemma3", dtype=torch.float32), load_tokenizer("tiny-gemma3")
    rows = story_rows(tokenizer, beyond=48)
    reading = read(model, rows, short=40)
    assert reading.losses == pytest.approx(card_losses(), abs=TOLERANCE)
    with torch.no_grad():
        logits = model(torch.tensor([rows[1][:-1]]))[0]
    assert reading.losses[1] == pytest.approx(
        F.cross_entropy(logits, torch.tensor(rows[1][1:])).item() * len(logits), 1e-5
    )
    assert reading.tokens == sum(map(len, rows)) - len(rows) == len(reading.likeliest)


def test_every_fault_does_harm_and_leaves_the_model_alone(model, rows):
    before = copy.deepcopy(model.state_dict())
    found = damage(model, code_faults() | config_faults(another(model, query_pre_attn_scalar=7)), rows, short=10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(found) == 17
    unharmed = {name for name, one in found.items() if one.per_text < 1e-6}
    assert unharmed == {"scores: divided by sqrt(head_dim)"}  # which this model does by right
    unseen = {name for name, one in found.items() if not one.short} - unharmed
    assert {"window: one too wide", "window: one too narrow", "window: ignored"} <= unseen
    assert "norms: w instead of 1 + w" not in unseen and found["window: ignored"].on_card
    assert "scores: divided by sqrt(head_dim)" not in config_faults(model)


def test_what_damage_reports(model, rows):
    right, wrong = read(model, rows, 5), read(another(model, sliding_window=1), rows, 5)
    one = damage(model, {"narrow": lambda model: another(model, sliding_window=1)}, rows, 5)["narrow"]
    moved = [abs(a - b) for a, b in zip(right.losses, wrong.losses, strict=True)]
    assert one == Damage(wrong.loss, pytest.approx(sum(moved) / 2), max(moved), one.changed, True)
    assert one.changed == pytest.approx((right.likeliest != wrong.likeliest).double().mean().item())
    assert [tuple(logits.shape) for logits in right.first_TV] == [(5, SMALL.vocab_size)] * 2


@pytest.mark.parametrize("chunks", [(30,), (1,) * 30, (5, 20, 1, 4), (13, 13, 4), (14, 1, 15)])
def test_the_cache_that_keeps_all_gives_the_same_answers_from_more_memory(model, rows, chunks):
    ids = torch.tensor([rows[0][:30]])
    kept = full_cache(model, 30)
    with torch.no_grad():
        parts = [model(part, cache=kept) for part in ids.split(chunks, dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), model(ids), atol=1e-5)
    everything = dataclasses.replace(SMALL, layer_types=(FULL,) * SMALL.num_hidden_layers)
    assert kept.nbytes == kv_cache_bytes(everything, 30, dtype=torch.float64)
    assert kept.nbytes > model.make_cache(1, 30).nbytes


def test_broken_caches_are_right_until_the_window_is_full(model, rows):
    ids, window = torch.tensor([rows[0][:20]]), SMALL.sliding_window
    with torch.no_grad():
        expected = model(ids)[0]
    found = {
        what: first_wrong(decoded_logits(decoder, ids, cache, prefill=window - 4), expected)
        for what, decoder, cache in broken_caches(model, 20)
    }
    assert list(found.values()) == [None, window - 1, window, window, window]
    assert found.pop("nothing") is None


def test_the_race_is_fair(model, rows):
    runs = race(model, rows, (6, 30), new_tokens=3)
    no_cache, full, ring = runs.values()
    for length in (6, 30):
        ids = endless(rows, length)
        for _ in range(3):
            with torch.no_grad():
                ids = torch.cat((ids, model(ids)[:, -1].argmax(-1, keepdim=True)), dim=1)
        assert {one[length].ids for one in (no_cache, full, ring)} == {tuple(ids[0, length:].tolist())}
        assert no_cache[length].cache_bytes == 0
        assert ring[length].cache_bytes == kv_cache_bytes(SMALL, length + 4, dtype=torch.float64)
    assert ring[30].held_bytes < full[30].held_bytes
    assert ring[6].cache_bytes == full[6].cache_bytes
    # The widest moment of a step: the stream, what the norm made of it, gate, its activation, up, at least.
    assert no_cache[30].working_bytes > 30 * 8 * (SMALL.hidden_size + 2 * SMALL.intermediate_size)
    assert ring[30].working_bytes < no_cache[30].working_bytes / 10


def test_a_run_continues_whatever_comes(model, rows):
    one = run(model, endless(rows, 5), 4, None)
    assert len(one.ids) == 4 and one.first_seconds > 0 and one.tokens_per_second == 1 / one.step_seconds


def test_the_times_of_a_race_are_the_best_of_its_rounds(monkeypatch, model, rows):
    """Three rounds with made-up clocks: nothing is mixed with another length or pathway."""
    clock = iter(Run((7,), first, step, 3, 4) for first in (5.0, 2.0, 9.0) for step in range(30, 36))
    monkeypatch.setattr(lab_05, "run", lambda *given: next(clock))
    runs = race(model, rows, (6, 30), new_tokens=3, rounds=3)
    assert [one for by_length in runs.values() for one in by_length.values()] == [
        Run((7,), 2.0, step, 3, 4) for step in range(30, 36)
    ]
    slow, fast = Run((7,), 1.0, 9.0, 3, 4), Run((7,), 2.0, 8.0, 3, 4)
    assert slow.best_of(fast) == fast.best_of(slow) == Run((7,), 1.0, 8.0, 3, 4)
    with pytest.raises(StopIteration):
        next(clock)


@pytest.mark.parametrize("draw", ["gemma_idea", "two_blocks"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_05_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


def test_figures_of_computed_things_tell_their_numbers():
    image = lab_05_figures.masks({"all": right_mask(5, 9), "near": right_mask(5, 2)})
    assert "all: the queries see 1, 2, 3, 4, 5 keys; near: the queries see 1, 2, 2, 2, 2 keys" in image.alt
    image = lab_05_figures.reach(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool(), (SLIDING, FULL), 2)
    assert "2, 4 positions" in image.alt
    image = lab_05_figures.ring_over_time([[0, None], [0, 1], [2, 1]])
    assert "slot 0 holds position 2, slot 1 holds position 1" in image.alt


def test_charts_tell_their_numbers():
    two = {"local": torch.tensor([1.0, 0.1]), "global": torch.tensor([1.0, 0.01])}
    assert "local: 63; global: 628" in lab_05_charts.wavelengths(two, 8, 100).alt
    curves = [[1.0, 0.5, 0.0, 0.0], [1.0, 0.5, 0.2, 0.1]]
    assert "influence: 1, 3" in lab_05_charts.influence(curves, (SLIDING, FULL), 2).alt
    found = {"loud": Damage(5.0, 400.0, 500.0, 0.9, True), "quiet": Damage(0.25, 0.06, 0.1, 0.0, False)}
    alt = lab_05_charts.damages(found, 0.25).alt
    assert "loud: moves 5e+02 nats at most, loss 5.00; quiet: moves 0.1 nats at most, loss 0.25" in alt
    sizes = {"full": [1024, 4096], "ring": [1024, 2048]}
    assert (
        "full: 4 KiB at 8 tokens; ring: 2 KiB at 8 tokens" in lab_05_charts.cache_growth([2, 8], sizes, sizes, "x").alt
    )
    assert "one: 3 MiB, with rings 1 MiB" in lab_05_charts.released_caches({"one": (3 * 2**20, 2**20)}, 99).alt
    runs = {name: {4: Run((1,), 0.1, 0.05, 1024, 1024), 8: Run((1,), 0.1, 0.02, 2048, 1024)} for name in ("a", "b")}
    image = lab_05_charts.race(runs)
    assert "a, 8 tokens: 50 tokens a second, 3 KiB" in image.alt and image.data.startswith(b"\x89PNG")


def test_the_numbers_of_the_prose_hold_for_the_released_models():
    config = FAMILIES["gemma3"].presets["google/gemma-3-1b-pt"]
    everything = dataclasses.replace(config, layer_types=(FULL,) * 26)
    assert kv_cache_bytes(everything, 32768) == 832 * 2**20
    assert kv_cache_bytes(config, 32768) == (128 + 11) * 2**20
