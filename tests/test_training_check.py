"""The first-batch check: passes every family that is sound, and names what is not."""

import math

import pytest
import torch

from course_helpers import FAMILIES
from course_helpers.training import IGNORED, initialize
from course_helpers.training_check import first_batch_check
from tests.tiny_models import EXAMPLES

each_family = pytest.mark.parametrize("name", EXAMPLES)


def fresh(name="llama3"):
    family = FAMILIES[name]
    return initialize(family.model(family.config.from_hf(EXAMPLES[name])), 0)


def batch(tokens=12):
    rows_BT = torch.randint(0, 61, (4, tokens + 1), generator=torch.Generator().manual_seed(0))
    return rows_BT[:, :-1], rows_BT[:, 1:]


@each_family
def test_a_fresh_model_of_each_family_is_sound_and_stays_as_it_is(name):
    model = fresh(name)
    model.token_embedding.weight.grad = torch.ones_like(model.token_embedding.weight)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    lines = first_batch_check(model, batch())
    assert [line.split()[0] for line in lines] == ["shapes", "targets", "loss", "gradients"]
    assert float(lines[2].split()[1].rstrip(",")) == pytest.approx(math.log(61), rel=0.05)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(model.token_embedding.weight.grad, torch.ones_like(model.token_embedding.weight))
    assert all(p.grad is None for key, p in model.named_parameters() if key != "token_embedding.weight")


def test_padding_is_no_target():
    inputs_BT, targets_BT = batch()
    targets_BT = targets_BT.clone()
    targets_BT[:, 5:] = IGNORED
    assert "each of 20 is" in first_batch_check(fresh(), (inputs_BT, targets_BT))[1]


def detached(model):
    model.blocks[0].feed_forward.down.register_forward_hook(lambda module, given, result: result.detach())


def frozen(model):
    model.final_norm.weight.requires_grad_(False)


def exploding(model):
    """The loss is as it should be, and the way back is not."""
    model.blocks[0].attention.query.weight.register_hook(lambda gradient: gradient / 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: initialize(model, 0, deviation=0.5), "higher: the first weights are too large"),
        (frozen, "final_norm.weight is frozen"),
        (detached, "blocks.0.feed_forward.down.weight gets no gradient|blocks.0.feed_forward_norm"),
        (exploding, "blocks.0.attention.query.weight gets a gradient that is not finite"),
    ],
)
def test_a_model_that_is_not_sound_is_named(change, message):
    model = fresh()
    change(model)
    with pytest.raises(ValueError, match=message):
        first_batch_check(model, batch())


def test_a_model_that_is_trained_already_is_noticed():
    model, (inputs_BT, targets_BT) = fresh(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs_BT).flatten(0, 1), targets_BT.flatten()).backward()
        optimizer.step()
    with pytest.raises(ValueError, match="lower: the weights are trained already"):
        first_batch_check(model, (inputs_BT, targets_BT))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda inputs, targets: (inputs, inputs), "they are the inputs themselves, not shifted"),
        (lambda inputs, targets: (inputs[:, :-1], targets[:, 1:]), "shifted by more than one"),
        (lambda inputs, targets: (inputs, targets[:, :-1]), "a target for every input"),
        (lambda inputs, targets: (inputs[0], targets[0]), r"must be \(batch, tokens\)"),
        (lambda inputs, targets: (inputs + 1, targets + 1), "token id 61 is outside the model's vocabulary of 61"),
        (lambda inputs, targets: batch(65), "made for 64"),
    ],
)
def test_a_batch_that_is_not_sound_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        first_batch_check(fresh(), wrong(*batch()))
