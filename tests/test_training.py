"""The training loop: a closed-form schedule, an exact loss, and a model that learns."""

import dataclasses
import itertools
import math

import pytest
import torch

from course_helpers import FAMILIES
from course_helpers.training import (
    TrainingSettings,
    initialize,
    make_optimizer,
    next_token_loss,
    parameter_groups,
    text_loss,
    train,
    update,
)
from tests.tiny_models import EXAMPLES, ours

each_family = pytest.mark.parametrize("name", EXAMPLES)


def fresh(name, seed=0):
    family = FAMILIES[name]
    return initialize(family.model(family.config.from_hf(EXAMPLES[name])), seed)


def count_up(batch=8, tokens=12):
    """An endless lesson that can be learned: after n comes n + 1."""
    generator = torch.Generator().manual_seed(0)
    while True:
        rows_BT = torch.randint(0, 40, (batch, 1), generator=generator) + torch.arange(tokens + 1)
        yield rows_BT[:, :-1], rows_BT[:, 1:]


def test_the_schedule_is_warm_up_and_half_a_cosine():
    settings = TrainingSettings(steps=110, learning_rate=1.0, warmup_steps=10, final_fraction=0.1)
    assert [settings.learning_rate_at(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert settings.learning_rate_at(60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert settings.learning_rate_at(110) == pytest.approx(0.1)


@each_family
def test_the_same_seed_gives_the_same_weights(name):
    one, same, other = fresh(name, 1), fresh(name, 1), fresh(name, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.token_embedding.weight, other.token_embedding.weight)


def test_what_writes_into_the_residual_stream_starts_smaller():
    model = fresh("llama3")
    for block in model.blocks:
        assert block.feed_forward.up.weight.std().item() == pytest.approx(0.02, rel=0.15)
        assert block.feed_forward.down.weight.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.15)


@each_family
def test_every_parameter_is_trained_and_only_matrices_decay(name):
    model = fresh(name)
    decayed, kept = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
    assert all(p.dim() >= 2 for p in decayed["params"]) and all(p.dim() == 1 for p in kept["params"])


@each_family
def test_a_model_learns_to_count_in_the_same_way_twice(name):
    settings = TrainingSettings(steps=60, learning_rate=1e-2, warmup_steps=5)
    seen = []
    model = fresh(name)
    losses = train(model, count_up(), settings, lambda step, loss: seen.append((step, loss)))
    assert losses[0] == pytest.approx(math.log(model.config.vocab_size), rel=0.05)
    assert losses[-1] < 0.5 * losses[0]
    assert seen == list(enumerate(losses))
    assert not model.training
    assert train(fresh(name), count_up(), settings) == losses


def test_a_loss_that_is_not_finite_stops_the_training():
    model = fresh("gpt2")
    model.final_norm.weight.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="at step 0: lower the learning rate"):
        train(model, count_up(), TrainingSettings(steps=3))
    assert model.token_embedding.weight.isfinite().all()  # it was noticed before the weights were changed


@each_family
def test_the_loss_of_texts_is_the_sum_over_each_text_alone(name):
    model = ours(EXAMPLES[name])
    texts = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11, 12, 13]]
    total, count = text_loss(model, texts, batch_size=2)
    expected = 0.0
    for text in texts:
        with torch.no_grad():
            probabilities = model(torch.tensor([text])).log_softmax(-1)[0]
        expected -= sum(probabilities[index, token].item() for index, token in enumerate(text[1:]))
    assert count == sum(len(text) - 1 for text in texts)
    assert total == pytest.approx(expected, rel=1e-5)


def test_padding_has_no_part_in_the_loss():
    model = ours(EXAMPLES["gpt2"])
    inputs, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, -100]])
    short = next_token_loss(model, inputs[:, :2], targets[:, :2])
    torch.testing.assert_close(next_token_loss(model, inputs, targets), short)


def test_training_ends_with_the_batches():
    losses = train(fresh("gpt2"), itertools.islice(count_up(), 3), TrainingSettings(steps=10))
    assert len(losses) == 3


@each_family
def test_accumulated_batches_count_as_one_large_batch(name):
    """Four unequal parts, the targets of one mostly padding: loss, gradient norm and weights are those of the whole."""
    whole, parts = fresh(name), fresh(name)
    settings = TrainingSettings(steps=2, learning_rate=1e-3, warmup_steps=1)
    inputs_BT, targets_BT = next(count_up(batch=8))
    targets_BT = targets_BT.clone()
    targets_BT[4:6, 2:] = -100
    pieces = [(inputs_BT[start:end], targets_BT[start:end]) for start, end in ((0, 1), (1, 4), (4, 6), (6, 8))]
    one = update(whole, [(inputs_BT, targets_BT)], settings, make_optimizer(whole, settings), 1)
    same = update(parts, pieces, settings, make_optimizer(parts, settings), 1)
    assert one.targets == same.targets == 6 * 12 + 2 * 2
    assert (one.loss, one.gradient_norm) == pytest.approx((same.loss, same.gradient_norm), rel=1e-4)
    for expected, found in zip(whole.parameters(), parts.parameters(), strict=True):
        # AdamW divides the gradient by its own size, so where it is next to nothing rounding alone decides the sign.
        clear = expected.grad.abs() > 1e-5
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(found[clear], expected[clear], rtol=1e-4, atol=1e-6)


def test_batches_that_do_not_make_a_step_end_the_training():
    settings = TrainingSettings(steps=10, accumulate=2)
    assert len(train(fresh("gpt2"), itertools.islice(count_up(), 5), settings)) == 2


@pytest.mark.parametrize("name", ["gpt2", "qwen3_moe", "gemma3"])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(name):
    settings = TrainingSettings(steps=30, learning_rate=1e-2, warmup_steps=5)
    model, rough = fresh(name), fresh(name)
    seen = set()
    rough.blocks[0].attention.query.register_forward_hook(lambda module, given, result: seen.add(result.dtype))
    losses = train(model, count_up(), settings)
    rough_losses = train(rough, count_up(), dataclasses.replace(settings, precision="bfloat16"))
    assert seen == {torch.bfloat16} and {p.dtype for p in rough.parameters()} == {torch.float32}
    assert rough_losses[0] == pytest.approx(losses[0], rel=1e-2) and rough_losses != losses
    assert rough_losses[-1] < 0.7 * rough_losses[0]


def test_updates_of_bfloat16_weights_vanish():
    """A weight of 1, a gradient of 1 at every step: AdamW takes 0.001 off each time, so after 100 steps it is 0.9.
    Just below 1, numbers of bfloat16 lie 1/256 apart, and 0.001 is less than half of that: the weight stays 1."""
    for dtype, expected in ((torch.float32, 0.9), (torch.bfloat16, 1.0)):
        weight = torch.nn.Parameter(torch.ones(1, dtype=dtype))
        optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="small updates of such weights are rounded away"):
        train(fresh("gpt2").bfloat16(), count_up(), TrainingSettings(steps=1))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="unknown precision 'float16'; there are: float32, bfloat16"):
        TrainingSettings(steps=1, precision="float16")
    with pytest.raises(ValueError, match="at least one batch"):
        TrainingSettings(steps=1, accumulate=0)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "gpt2"])
def test_rotary_families_are_held_to_their_context_too(name):
    """They would go on without an error, and learn positions that their config does not promise."""
    model = fresh(name)
    before = [parameter.clone() for parameter in model.parameters()]
    model(torch.zeros(1, 65, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rows of 65 tokens.*made for 64 \(max_position_embeddings\)"):
        train(model, count_up(tokens=65), TrainingSettings(steps=1))
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
