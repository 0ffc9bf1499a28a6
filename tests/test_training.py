"""The training loop: a closed-form schedule, an exact loss, and a model that learns."""

import itertools
import math

import pytest
import torch

from course_helpers import FAMILIES
from course_helpers.training import (
    TrainingSettings,
    initialize,
    next_token_loss,
    parameter_groups,
    text_loss,
    train,
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
