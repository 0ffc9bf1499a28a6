"""M9-LAB-02: its exercise checks diagnose, its milestones can fail, its debugger sees the lab's own model, and its
pictures are described in words."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_helpers import load_model
from course_helpers.architectures.llama import LlamaModel
from course_helpers.labs import ExerciseHint, lab_02_charts, lab_02_figures
from course_helpers.labs.lab_02 import (
    Stage,
    changed_fields,
    close,
    debug,
    loss,
    parameters_that_rest,
    sees_only_the_past,
)
from course_helpers.labs.lab_02_exercises import SMALL, check_count, check_rms_norm
from course_helpers.labs.lab_02_exercises_rotary import check_rotate, check_to_meta
from course_helpers.training import initialize


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def norm(mean=0.0, inside=1.0, outside=0.0, weigh=lambda w: w, power=-0.5, dims=-1, total=1, late=False, exact=True):
    """An rms_norm that is right, or wrong in one respect."""

    def rms_norm(x, weight, eps):
        precise = x.float() if exact else x
        precise = precise - mean * precise.mean(-1, keepdim=True)
        square = precise.pow(2).mean(dims, keepdim=True) * total + inside * eps
        root = 1 / (square.sqrt() + outside * eps) if outside else square**power
        if late:
            return (weigh(weight).float() * precise * root).to(x.dtype)
        return weigh(weight) * (precise * root).to(x.dtype)

    return rms_norm


def changes_x(x, weight, eps):
    return x.mul_(2)


def float_result(x, weight, eps):
    return norm()(x, weight, eps).float()


def count(config, *, heads=None, norms=2, last=1, matrices=3, bias=0, mlp_bias=0, positions=0, shared=None, four=4):
    """A count_parameters that is right, or wrong in one respect."""
    width, hidden, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    queries = config.num_attention_heads * config.head_dim
    keys = (shared or config.num_key_value_heads) * config.head_dim
    block = (four - 2) * width * queries + 2 * width * keys + matrices * width * hidden + norms * width
    block += bias * (queries + 2 * keys + width) + mlp_bias * (2 * hidden + width)
    heads = heads if heads is not None else 1 if config.tie_word_embeddings else 2
    return heads * config.vocab_size * width + layers * block + last * width + positions * 64 * width


def counts(**wrong):
    return lambda config: count(config, **wrong)


def one_layer(config):
    return count(replace(config, num_hidden_layers=1))


def query_heads(config):
    return count(config, shared=config.num_attention_heads)


def layer_norms(config):
    return count(config) + (2 * config.num_hidden_layers + 1) * config.hidden_size


def turn(pairs=False, sign=1, scale=1.0, power=-1.0, base=None, even=False, flip=False, shrink=1.0):
    """A rotate that is right, or wrong in one respect."""

    def rotate(x, position, theta):
        steps = torch.arange(0, len(x), 2) / len(x)
        angle = sign * scale * position * (base or theta) ** (power * steps)
        angle = angle.flip(0) if flip else torch.full_like(angle, float(position)) if even else angle
        cos, sin = angle.cos() * shrink, angle.sin() * shrink
        if pairs:
            first, second = x[0::2], x[1::2]
            return torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten()
        first, second = x.chunk(2)
        return torch.cat((first * cos - second * sin, second * cos + first * sin))

    return rotate


def loses_length(x, position, theta):
    first, second = x.chunk(2)
    angle = position * theta ** (-torch.arange(0, len(x), 2) / len(x))
    return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() - first * angle.sin()))


def order(view, swap=(1, 2), names=("wq.weight", "wk.weight")):
    """A to_meta that views the rows in some way, lets two dimensions change places, and touches some tensors."""

    def to_meta(tensors, heads):
        def shuffled(matrix):
            rows, width = matrix.shape
            sizes = {"heads": heads, "half": rows // heads // 2, "two": 2, "dims": rows // heads, "all": rows // 2}
            return matrix.view(*(sizes[name] for name in view), width).transpose(*swap).reshape(rows, width)

        return {name: shuffled(one) if name.endswith(names) else one for name, one in tensors.items()}

    return to_meta


RIGHT = ("heads", "two", "half")


def in_place(tensors, heads):
    for name, one in order(RIGHT)(tensors, heads).items():
        tensors[name].copy_(one)
    return tensors


def only_attention(tensors, heads):
    return {name: one for name, one in order(RIGHT)(tensors, heads).items() if "attention" in name}


def renamed(tensors, heads):
    return order(RIGHT)(tensors, heads) | {"output.weight": torch.zeros(1)}


def each(change):
    """A to_meta that does something to the queries and keys."""
    return lambda tensors, heads: {
        name: change(one) if name.endswith(("wq.weight", "wk.weight")) else one for name, one in tensors.items()
    }


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_rms_norm, norm()),
        (check_rms_norm, lambda x, weight, eps: F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype) * weight),
        (check_rms_norm, norm(outside=1e-30)),  # divides by the root: rounded otherwise in float32
        (check_count, count),
        (check_rotate, turn()),
        (check_to_meta, order(RIGHT)),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_rms_norm, empty, "still empty"),
        (check_rms_norm, silent, "return statement"),
        (check_rms_norm, lambda x, weight, eps: x.tolist(), "expected a tensor"),
        (check_rms_norm, changes_x, "x was changed"),
        (check_rms_norm, lambda x, weight, eps: norm()(x, weight, eps).mean(-1), "the shape must stay"),
        (check_rms_norm, lambda x, weight, eps: F.layer_norm(x, (48,), weight, None, eps), "the mean was subtracted"),
        (
            check_rms_norm,
            lambda x, weight, eps: weight * x / (x.var(-1, keepdim=True) + eps).sqrt(),
            "a variance does so",
        ),
        (check_rms_norm, norm(weigh=lambda w: 1), "the weight is missing"),
        (check_rms_norm, norm(weigh=lambda w: 1 + w), "Gemma's way"),
        (check_rms_norm, norm(total=48), "the M in RMS"),
        (check_rms_norm, norm(power=-1), "is the root missing"),
        (check_rms_norm, norm(power=0.5), "multiplied, not divided"),
        (check_rms_norm, norm(inside=0.0, outside=1.0), "inside the square root"),
        (check_rms_norm, norm(inside=0.0), "where is epsilon"),
        (check_rms_norm, norm(dims=1), "the features of each token"),
        (check_rms_norm, norm(dims=(0, 1, 2)), "the features of each token"),
        (check_rms_norm, lambda x, weight, eps: x + 1, "other numbers than"),
        (check_rms_norm, float_result, "the next layer expects"),
        (check_rms_norm, norm(late=True), "rounds to x's type first"),
        (check_rms_norm, norm(exact=False), "in bfloat16 the last bits differ"),
        (check_count, empty, "still empty"),
        (check_count, silent, "return statement"),
        (check_count, lambda config: float(count(config)), "whole number"),
        (check_count, counts(heads=1), "a matrix of its own here"),
        (check_count, counts(heads=2), "counted once"),
        (check_count, counts(norms=0, last=0), "where are the norms"),
        (check_count, counts(last=0), "after the last block"),
        (check_count, counts(norms=1), "each block has two norms"),
        (check_count, layer_norms, "a norm of Llama has no bias"),
        (check_count, counts(matrices=2), "gate, up and down"),
        (check_count, query_heads, "not as many as the queries"),
        (check_count, counts(four=3), "query, key, value and output"),
        (check_count, counts(bias=1), "no biases in a Llama's attention"),
        (check_count, counts(bias=1, mlp_bias=1), "no biases in a Llama"),
        (check_count, counts(positions=1), "no learned positions"),
        (check_count, one_layer, "all layers, please"),
        (check_count, lambda config: count(config) + 1, "1 too many"),
        (check_rotate, empty, "still empty"),
        (check_rotate, silent, "return statement"),
        (check_rotate, lambda x, position, theta: 1.0, "expected a tensor"),
        (check_rotate, lambda x, position, theta: x.neg_(), "x was changed"),
        (check_rotate, lambda x, position, theta: x[:2], "the shape must stay"),
        (check_rotate, lambda x, position, theta: turn()(x, position + 1, theta), "at position 0 nothing turns"),
        (check_rotate, lambda x, position, theta: torch.cat((x[0::2], x[1::2])), "in another order"),
        (check_rotate, turn(pairs=True), "you turned neighbours"),
        (check_rotate, turn(sign=-1), "the wrong way round"),
        (check_rotate, turn(scale=torch.pi / 180), "in radians already"),
        (check_rotate, turn(power=-0.5), "half of that"),
        (check_rotate, turn(power=-2.0), "twice that"),
        (check_rotate, turn(power=1.0), "not faster"),
        (check_rotate, turn(even=True), "at the same speed"),
        (check_rotate, turn(base=10_000.0), "theta is an argument"),
        (check_rotate, turn(flip=True), "in reverse order"),
        (check_rotate, loses_length, "at position 0 nothing turns|keeps its length"),
        (check_rotate, lambda x, position, theta: x * (1 + position), "keeps its length"),
        (check_rotate, lambda x, position, theta: x.roll(position), "the direction is not"),
        (check_to_meta, empty, "still empty"),
        (check_to_meta, silent, "return statement"),
        (check_to_meta, lambda tensors, heads: list(tensors), "expected a dict"),
        (check_to_meta, in_place, "what was passed in was changed"),
        (check_to_meta, only_attention, "is missing in what you give back"),
        (check_to_meta, renamed, "not a name that was given"),
        (check_to_meta, order(RIGHT, names=("wq.weight", "wk.weight", "wv.weight")), "wv.weight was reordered: only"),
        (check_to_meta, order(RIGHT, names=("attention.wo.weight",)), "still in our order|was reordered"),
        (check_to_meta, order(RIGHT, names=(".weight",)), "nothing to do with rotary"),
        (check_to_meta, order(RIGHT, names=("wq.weight",)), "wk.weight is still in our order"),
        (check_to_meta, lambda tensors, heads: dict(tensors), "wq.weight is still in our order"),
        (check_to_meta, order(("heads", "half", "two")), "this is the inverse"),
        (check_to_meta, order(("two", "all"), (0, 1)), "each head alone"),
        (check_to_meta, order(("heads", "dims"), (0, 1)), "the heads are mixed up"),
        (check_to_meta, each(lambda one: one.flip(0)), "in a wrong order"),
        (check_to_meta, each(lambda one: one.T.reshape(one.shape)), "mixed: move whole rows"),
        (check_to_meta, each(lambda one: one[1:]), "the shape must stay"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


IDS = torch.arange(20)[None] * 7 % SMALL.vocab_size


def small(seed=1):
    """A Llama whose weights are large enough for every token to matter."""
    return initialize(LlamaModel(SMALL), seed, deviation=0.3).eval()


def test_close_forgives_rounding_and_nothing_else():
    one = torch.tensor([1.0, 1000.0])
    assert close(one + torch.tensor([5e-3, 0.0]), one)  # five millionths of the largest
    assert not close(one + torch.tensor([5e-2, 0.0]), one)
    assert not close(one[:1], one) and not close(one * torch.nan, one)


def test_the_loss_is_the_mean_surprise_at_the_next_token():
    model = small()
    with torch.no_grad():
        probability = model(IDS).softmax(-1)
    expected = -torch.stack([probability[0, t, IDS[0, t + 1]].log() for t in range(19)]).mean()
    assert loss(model, IDS) == pytest.approx(expected.item(), rel=1e-5)


class LooksAhead(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids_BT):
        return self.model(ids_BT.flip(1)).flip(1)


class Deaf(LooksAhead):
    def forward(self, ids_BT):
        return self.model(torch.zeros_like(ids_BT))


def test_causality_is_seen_and_so_is_its_absence():
    assert sees_only_the_past(small(), IDS)
    assert not sees_only_the_past(LooksAhead(small()), IDS)
    assert not sees_only_the_past(Deaf(small()), IDS)  # what no token can change is no model of text


def test_parameters_that_no_gradient_reaches_are_named_and_nothing_is_left_behind():
    model = small()
    assert parameters_that_rest(model, IDS) == []
    model.forgotten = nn.Parameter(torch.ones(3))
    model.blocks[1].feed_forward.down.weight.data.zero_()  # what comes before a zero matrix learns nothing from it
    rest = parameters_that_rest(model, IDS)
    assert set(rest) == {
        "forgotten",
        "blocks.1.feed_forward_norm.weight",
        "blocks.1.feed_forward.gate.weight",
        "blocks.1.feed_forward.up.weight",
    }
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_fields_that_changed_are_named():
    @dataclass(frozen=True)
    class Recipe:
        width: int
        bias: bool
        bend: object = F.gelu

    one = Recipe(8, True)
    assert changed_fields(one, replace(one)) == []
    assert changed_fields(one, replace(one, bias=False, bend=F.silu)) == ["bias", "bend"]


def test_the_debugger_takes_a_model_that_is_not_the_packages():
    trusted = load_model("tiny-llama2", dtype=torch.float32)

    class Own(nn.Module):
        """The same parts under the same names, and a forward that knows no options."""

        def __init__(self):
            super().__init__()
            self.rotary_embeddings = trusted.rotary_embeddings
            self.token_embedding, self.blocks = trusted.token_embedding, trusted.blocks
            self.final_norm, self.output_head = trusted.final_norm, trusted.output_head

        def forward(self, ids_BT):
            x_BTE = self.token_embedding(ids_BT)
            context = trusted.contexts(0, ids_BT.shape[1], None, None)["full_attention"]
            for block in self.blocks:
                x_BTE = block(x_BTE, context, None)
            return self.output_head(self.final_norm(x_BTE)) + self.shift

    model = Own()
    model.shift = 0.0
    ids = torch.arange(3, 30)[None]
    assert debug(trusted, model, ids).ok
    model.shift = 1.0
    report = debug(trusted, model, ids)
    assert (report.first.ours, report.first.what) == ("", "logits")
    assert not hasattr(model, "config") and not model._forward_pre_hooks  # as it was


STAGES = [Stage("GPT-2", None, 1000, 0, 6.93, 6), Stage("norm", None, 990, -10, 6.94, 6)]


def test_a_stage_is_recorded_without_its_recipe():
    record = json.loads(json.dumps(replace(STAGES[1], recipe=object()).record()))
    assert record == {"name": "norm", "parameters": 990, "change": -10, "loss": 6.94, "checks": 6}


def test_drawings_are_described_in_words():
    pictures = {
        "7 the head gets a matrix of its own": lab_02_figures.two_models(),
        "a matrix up of 16 x 64": lab_02_figures.two_feed_forwards(16, 64),
        "neighbours: 0a, 0b, 1a, 1b, 2a, 2b": lab_02_figures.riffle([0, 3, 1, 4, 2, 5]),
        "from 1,000 parameters to 990, one row a stage: norm -10. Then config: read": lab_02_figures.conversion_map(
            STAGES, [("config", "read")]
        ),
    }
    for words, picture in pictures.items():
        assert words in picture.alt and picture.data.startswith(b"\x89PNG")


def test_charts_tell_their_numbers_in_words():
    angle_TP = torch.arange(11)[:, None] * torch.tensor([1.0, 0.01])
    verdicts = {"right": {"norm": True}, "wrong": {"norm": False}}
    pictures = {
        "after: mean 0.50, root mean square 0.71": lab_02_charts.vectors(
            {"before": torch.tensor([0.0, 2.0]), "after": torch.tensor([0.0, 1.0])}
        ),
        "at most 0.50": lab_02_charts.curves({"GELU": F.relu, "SiLU": lambda x: F.relu(x) + 0.5}),
        "pair 0 once in 6 tokens, pair 1 once in 628 tokens": lab_02_charts.clock_hands(angle_TP, [0, 10], [0, 1]),
        "A, its note; B, another": lab_02_charts.score_maps(
            {"A": torch.eye(4), "B": torch.eye(4)}, ["its note", "another"]
        ),
        "ours, halves: 0.25; ours, pairs: 1.50": lab_02_charts.layouts(
            {("ours", "halves"): 0.25, ("ours", "pairs"): 1.5}, 6.9
        ),
        "late (mean 0.00 in the first half, 2.00 in the second)": lab_02_charts.surprise_by_position(
            {"right": torch.zeros(4), "late": torch.tensor([0.0, 0.0, 2.0, 2.0])}, 6.9
        ),
        "right: loss 0.1, nothing differs; wrong: loss 0.2, norm differs": lab_02_charts.verdicts(
            verdicts, {"right": "0.1", "wrong": "0.2"}
        ),
    }
    for words, picture in pictures.items():
        assert words in picture.alt and picture.data.startswith(b"\x89PNG")
