"""A head on any base: it reads the last real token, trains what it should, and leaves the rest alone, to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers.classification import (
    SequenceClassifier,
    accuracy,
    balanced,
    classify,
    freeze_all_but,
    frozen_digests,
    padded,
    train_classifier,
)
from course_helpers.training import TrainingSettings
from tests.tiny_models import EXAMPLES, ours

each_family = pytest.mark.parametrize("name", EXAMPLES)
LABELS = ("even", "odd")
ROWS = [[5, 9, 3], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [60, 2, 2, 8, 40]]
BASES = {name: ours(EXAMPLES[name]) for name in EXAMPLES}
QUICK = TrainingSettings(steps=3, learning_rate=1e-2, warmup_steps=1)


def classifier(name="llama3", base=None):
    """With a head large enough for a mistake to show."""
    made = SequenceClassifier(base or BASES[name], LABELS).eval()
    with torch.no_grad():
        made.head.weight.mul_(50)
    return made


@each_family
@torch.no_grad()
def test_the_last_real_token_is_read(name):
    """Against the model itself: each row alone, without padding; hidden states by a hook on the final norm."""
    made, seen = classifier(name), []
    handle = made.base.final_norm.register_forward_hook(lambda module, given, result: seen.append(result[0, -1]))
    for row in ROWS:
        made.base(torch.tensor([row]))
    handle.remove()
    expected_BC = torch.stack(seen) @ made.head.weight.T + made.head.bias
    for side in ("right", "left"):
        torch.testing.assert_close(made(*padded(ROWS, side), side), expected_BC, rtol=1e-4, atol=1e-4)


@each_family
@settings(max_examples=8, deadline=None)
@given(width=st.integers(11, 40), pad_id=st.integers(0, 60), side=st.sampled_from(["right", "left"]))
@torch.no_grad()
def test_padding_of_any_width_and_any_id_changes_nothing(name, width, pad_id, side):
    made = classifier(name)
    expected_BC = made(*padded(ROWS, side), side)
    torch.testing.assert_close(made(*padded(ROWS, side, pad_id, width), side), expected_BC, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_last_column_has_read_padding():
    """What the check above would notice: reading the last column, scores depend on the padding."""
    made = classifier()
    short, long = (padded(ROWS[:1], width=width)[0] for width in (4, 9))
    scores = [made(ids_BT, torch.tensor([ids_BT.shape[1]])) for ids_BT in (short, long)]
    assert (scores[0] - scores[1]).abs().max() > 0.1


@each_family
def test_the_head_of_the_language_model_has_no_part(name):
    made = classifier(name, ours(EXAMPLES[name]))
    loss = made(*padded(ROWS)).square().sum()
    loss.backward()
    gradients = {key for key, parameter in made.named_parameters() if parameter.grad is not None}
    assert {key for key, _ in made.named_parameters()} - gradients <= {"base.output_head.weight"}


@each_family
@pytest.mark.parametrize("blocks", [0, 1])
def test_only_what_is_not_frozen_moves(name, blocks):
    base = ours(EXAMPLES[name])
    made = SequenceClassifier(base, LABELS)
    trained = set(freeze_all_but(made, blocks, final_norm=blocks > 0))
    last = f"base.blocks.{len(base.blocks) - 1}."
    allowed = ("head.", last, "base.final_norm.") if blocks else ("head.",)
    assert trained == {key for key, _ in made.named_parameters() if key.startswith(allowed)}
    before = {key: parameter.detach().clone() for key, parameter in made.named_parameters()}
    train_classifier(made, ROWS * 4, ["even", "odd"] * 8, QUICK, batch_size=8)
    moved = {key for key, parameter in made.named_parameters() if not torch.equal(before[key], parameter)}
    # A bias of keys adds the same to all scores of a query, and the softmax does not see it.
    assert trained - moved <= {last + "attention.key.bias"} and moved <= trained
    assert not made.training


def test_a_frozen_part_that_moves_is_noticed():
    """A careless hand changes one number of the embedding, which is the tied output head, too."""
    base = ours(EXAMPLES["qwen3"])
    made = SequenceClassifier(base, LABELS)
    freeze_all_but(made)
    before = frozen_digests(made)

    def careless(step, loss):
        with torch.no_grad():
            base.token_embedding.weight[60, 0] += 1e-6

    with pytest.raises(RuntimeError, match=r"1 frozen parameters .*base.token_embedding.weight first"):
        train_classifier(made, ROWS * 4, ["even", "odd"] * 8, QUICK, batch_size=8, on_step=careless)
    after = frozen_digests(made)
    assert [name for name in before if before[name] != after[name]] == ["base.token_embedding.weight"]


def test_a_part_that_is_unfrozen_on_the_way_is_noticed():
    made = SequenceClassifier(ours(EXAMPLES["llama2"]), LABELS)
    freeze_all_but(made)
    with pytest.raises(RuntimeError, match="changed or unfrozen"):
        train_classifier(
            made, ROWS * 4, ["even", "odd"] * 8, QUICK, 8, on_step=lambda step, loss: made.requires_grad_(True)
        )


def test_equal_seeds_give_equal_classifiers():
    losses = []
    for _ in range(2):
        made = SequenceClassifier(ours(EXAMPLES["gemma3"]), LABELS, seed=4)
        freeze_all_but(made)
        losses.append(train_classifier(made, ROWS * 4, ["even", "odd"] * 8, QUICK, batch_size=8, seed=2))
    assert losses[0] == losses[1]


def test_labels_and_accuracy():
    made = classifier()
    with torch.no_grad():
        made.head.weight.zero_()
        made.head.bias.copy_(torch.tensor([0.0, 1.0]))
    assert classify(made, ROWS, batch_size=3) == ["odd"] * 4
    assert accuracy(made, ROWS, ["odd", "odd", "even", "odd"]) == 0.75
    assert made.label_ids(["odd", "even"]).tolist() == [1, 0]


def test_what_makes_no_sense_is_refused():
    made = classifier()
    for labels in ((), ("one",), ("same", "same")):
        with pytest.raises(ValueError, match="at least two labels, all different"):
            SequenceClassifier(BASES["llama3"], labels)
    with pytest.raises(ValueError, match="unknown label 'prime'"):
        made.label_ids(["odd", "prime"])
    with pytest.raises(ValueError, match=r"from 1 to 3 real tokens, but lengths are \[0\]"):
        made(torch.tensor([[1, 2, 3]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="from 1 to 3 real tokens"):
        made(torch.tensor([[1, 2, 3]]), torch.tensor([4]))
    with pytest.raises(ValueError, match="'middle'"):
        made(torch.tensor([[1, 2, 3]]), torch.tensor([3]), "middle")
    with pytest.raises(ValueError, match="made for 64"):
        classify(made, [[1] * 65])
    with pytest.raises(ValueError, match="the model has 2 blocks, so 3"):
        freeze_all_but(made, 3)
    with pytest.raises(ValueError, match="4 texts and 3 labels do not make a batch of 2"):
        train_classifier(made, ROWS, ["odd"] * 3, QUICK, batch_size=2)
    with pytest.raises(ValueError, match="4 texts and 4 labels do not make a batch of 16"):
        train_classifier(made, ROWS, ["odd"] * 4, QUICK)


@given(happy=st.integers(6, 30), sad=st.integers(6, 30), seed=st.integers(0, 9))
def test_balanced_sets_are_even_and_share_nothing(happy, sad, seed):
    texts = [f"happy {number}" for number in range(happy)] + [f"sad {number}" for number in range(sad)]
    labels = [text.split()[0] for text in texts]
    sets = balanced(texts * 2, labels * 2, (4, 2), seed)
    assert sets == balanced(texts * 2, labels * 2, (4, 2), seed)
    for (found, own), count in zip(sets, (4, 2), strict=True):
        assert own == [text.split()[0] for text in found]
        assert own.count("happy") == own.count("sad") == count
    assert len({text for found, _ in sets for text in found}) == 12
    with pytest.raises(ValueError, match="31 different texts labelled 'happy' are needed"):
        balanced(texts, labels, (31,), seed)
