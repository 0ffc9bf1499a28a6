"""Windows of tokens: shifted by one, split without overlap, in an order that can be gone on with."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_helpers import CheckpointError, load_tokenizer
from course_helpers.training_data import TextBatches


@given(
    tokens=st.integers(20, 300),
    context=st.integers(1, 12),
    batch_size=st.integers(1, 4),
    held_out=st.sampled_from([0, 0.1, 0.3]),
    seed=st.integers(0, 3),
)
def test_an_epoch_has_every_token_once(tokens, context, batch_size, held_out, seed):
    """Against the row of tokens itself: tokens are their own places, so each target says where it stood."""
    try:
        batches = TextBatches(torch.arange(tokens), context, batch_size, seed, held_out)
    except ValueError as error:
        assert "the text is too short" in str(error)
        return
    border = tokens - int(held_out * tokens)
    epoch = list(itertools.islice(batches, batches.batches_per_epoch))
    assert (batches.epoch, batches.batch) == (1, 0)
    seen = [target for _, targets_BT in epoch for target in targets_BT.flatten().tolist()]
    assert len(seen) == len(set(seen)) and all(0 < target < border for target in seen)
    assert len(seen) >= (border - 1) // context * context - (batch_size - 1) * context
    held = list(batches.held_out())
    assert [target for _, targets_BT in held for target in targets_BT.flatten().tolist()] == list(
        range(border + 1, border + 1 + (max(tokens - border, 1) - 1) // context * context)
    )
    for inputs_BT, targets_BT in epoch + held:
        assert inputs_BT.dtype == torch.int64 and torch.equal(targets_BT, inputs_BT + 1)
        assert inputs_BT.shape[1] == context
    assert all(inputs_BT.shape[0] == batch_size for inputs_BT, _ in epoch)


def firsts(batches, count):
    return [inputs_BT[:, 0].tolist() for inputs_BT, _ in itertools.islice(batches, count)]


@given(before=st.integers(0, 25), seed=st.integers(0, 5))
def test_going_on_gives_what_would_have_come(before, seed):
    whole, first, second = (TextBatches(range(200), 8, 3, seed) for _ in range(3))
    firsts(whole, before), firsts(first, before)
    second.load_state_dict(first.state_dict())
    assert firsts(second, 20) == firsts(whole, 20)


def test_epochs_and_seeds_have_orders_of_their_own():
    one, other = TextBatches(range(400), 8, 4, seed=1), TextBatches(range(400), 8, 4, seed=2)
    orders = [firsts(one, one.batches_per_epoch) for _ in range(3)] + [firsts(other, other.batches_per_epoch)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"context_length": 9}, {"batch_size": 2}, {"held_out": 0.2}, {"token_ids": range(1, 201)}]
)
def test_a_state_of_other_data_is_refused(change):
    options = {"token_ids": range(200), "context_length": 8, "batch_size": 3}
    state = TextBatches(**options).state_dict()
    TextBatches(**options).load_state_dict(state)
    other = TextBatches(**options | change)
    with pytest.raises(CheckpointError, match="begun with other data"):
        other.load_state_dict(state | {"epoch": 4})
    assert other.epoch == 0


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match=r"training part has 45 tokens, which make 2 windows of 20.*3 are needed"):
        TextBatches(range(50), 20, 3)
    with pytest.raises(ValueError, match=r"validation part has 5 tokens, which make 0 windows of 20.*1 are needed"):
        TextBatches(range(50), 20, 2)
    for wrong in ({"context_length": 0}, {"batch_size": 0}, {"held_out": 1.0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            TextBatches(**{"token_ids": range(50), "context_length": 5, "batch_size": 2} | wrong)


@pytest.mark.parametrize(("name", "begun"), [("tiny-gpt2", False), ("tiny-llama3", True)])
def test_texts_are_begun_and_ended_as_the_family_does_it(name, begun):
    tokenizer = load_tokenizer(name)
    texts = ["Mia had a red kite.", "Tom had a blue boat."]
    batches = TextBatches.from_texts(texts, tokenizer, 1, batch_size=1, held_out=0)
    row = [batches.training[0][0].item(), *(window[1].item() for window in batches.training)]
    one, other = (tokenizer.encode(text, bos=begun) for text in texts)
    assert row == [*one, tokenizer.stop_ids[0], *other, tokenizer.stop_ids[0]]
    whole = TextBatches.from_texts(" ".join(texts), tokenizer, 1, batch_size=1, held_out=0)
    assert len(whole.training) in range(len(batches.training) - 4, len(batches.training) + 1)  # one text, not letters
