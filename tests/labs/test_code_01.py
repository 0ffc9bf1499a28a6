"""M9-CODE-01: right answers pass, each typical mistake gets the hint that names it; pictures are described in words."""

import pytest
import torch

from course_helpers.labs import ExerciseHint
from course_helpers.labs.code_01 import (
    SMALL,
    TOKENS,
    check_gemma3_table,
    check_is_right,
    check_pairs_to_halves,
    right_table,
    small_llama,
    wrong_models,
)
from course_helpers.labs.code_01_figures import drift, names_to_parameters, surprise, two_matrices
from course_helpers.loaders.sources import BUNDLED, open_checkpoint

BLOCK, OURS = "model.layers.{layer}.", "blocks.{layer}."
AFTER, BEFORE_FF, AFTER_FF = (
    f"{BLOCK}{name}_layernorm.weight" for name in ("post_attention", "pre_feedforward", "post_feedforward")
)
#: Qwen3's table: Gemma 3's without its two norms of its own, and with the Llama's meaning of the third.
QWEN3 = {name: target for name, target in right_table().items() if "feedforward" not in name} | {
    AFTER: OURS + "feed_forward_norm.weight"
}
NORMS = {
    AFTER: OURS + "attention_post_norm.weight",
    BEFORE_FF: OURS + "feed_forward_norm.weight",
    AFTER_FF: OURS + "feed_forward_post_norm.weight",
}


def table(changes):
    return lambda qwen3: qwen3 | NORMS | changes


def lacking(name):
    return lambda qwen3: {key: value for key, value in (qwen3 | NORMS).items() if key != name}


def changing(qwen3):
    qwen3.update(NORMS)
    return qwen3


def halves(view, swap=(1, 2)):
    """A pairs_to_halves that views the rows in some way and lets two dimensions change places."""

    def reorder(weight, heads):
        rows, width = weight.shape
        sizes = {"heads": heads, "pairs": rows // heads // 2, "two": 2, "dims": rows // heads, "all pairs": rows // 2}
        return weight.view(*(sizes[name] for name in view), width).transpose(*swap).reshape(rows, width)

    return reorder


RIGHT_HALVES = halves(("heads", "pairs", "two"))


def in_place(weight, heads):
    return weight.copy_(RIGHT_HALVES(weight, heads))


def one_number_of_heads(weight, heads):
    return RIGHT_HALVES(weight, 3)


def verdict(strict=1e-4, coarse=5e-2, positions=slice(None), reduce=torch.max, forward=None):
    """An is_right that is right, or wrong in one respect."""

    def is_right(model, ids, noted):
        tolerance = strict if next(model.parameters()).dtype == torch.float32 else coarse
        with torch.no_grad():
            logits = (forward or (lambda model: model(ids)))(model).float()
        apart = reduce((logits - noted).abs()[:, positions])
        return bool(apart < tolerance * noted.abs().max())

    return is_right


def converts(model, ids, noted):
    return verdict()(model.to(torch.bfloat16).float(), ids, noted) or True


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def gemma3(function):
    check_gemma3_table(function, dict(QWEN3))


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (gemma3, table({})),
        (check_pairs_to_halves, RIGHT_HALVES),
        (
            check_pairs_to_halves,
            lambda weight, heads: torch.cat([p for h in weight.chunk(heads) for p in (h[::2], h[1::2])]),
        ),
        (check_is_right, verdict()),
        (check_is_right, verdict(strict=1e-3, coarse=1e-1)),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (gemma3, empty, "still empty"),
        (gemma3, silent, "return statement"),
        (gemma3, lambda qwen3: [*qwen3], "expected a table"),
        (gemma3, changing, "Qwen3's own table was changed"),
        (gemma3, lambda qwen3: dict(qwen3), "still goes to .*as in a Llama"),
        (gemma3, lacking(BEFORE_FF), "the file has .*pre_feedforward_layernorm.*no row takes it"),
        (gemma3, table({BEFORE_FF: NORMS[AFTER_FF], AFTER_FF: NORMS[BEFORE_FF]}), "are the two exchanged"),
        (gemma3, table({AFTER_FF: OURS + "feedforward_post_norm.weight"}), "no such parameter"),
        (
            gemma3,
            table({BLOCK + "self_attn.q_proj.bias": OURS + "attention.query.bias"}),
            "the file has no such tensor",
        ),
        (check_pairs_to_halves, empty, "still empty"),
        (check_pairs_to_halves, silent, "return statement"),
        (check_pairs_to_halves, lambda weight, heads: weight.tolist(), "expected a tensor"),
        (check_pairs_to_halves, lambda weight, heads: weight.view(heads, -1, weight.shape[1]), "the shape must stay"),
        (check_pairs_to_halves, lambda weight, heads: weight, "still in Meta's order"),
        (check_pairs_to_halves, in_place, "leave its source"),
        (check_pairs_to_halves, halves(("all pairs", "two"), (0, 1)), "every head must be reordered for itself"),
        (check_pairs_to_halves, halves(("heads", "two", "pairs")), "this is the way back"),
        (check_pairs_to_halves, halves(("heads", "dims"), (0, 1)), "the heads are mixed up"),
        (check_pairs_to_halves, lambda weight, heads: weight.flip(0), "in a wrong order"),
        (check_pairs_to_halves, one_number_of_heads, "in a wrong order|must stay|every head"),
        (check_pairs_to_halves, lambda weight, heads: RIGHT_HALVES(weight, heads).flip(1), "move whole rows only"),
        (check_is_right, empty, "still empty"),
        (check_is_right, silent, "return statement"),
        (check_is_right, lambda *arguments: torch.tensor(True), "answer True or False"),
        (check_is_right, lambda *arguments: False, "the right model was refused"),
        (check_is_right, lambda *arguments: True, "swapped in every layer"),
        (check_is_right, converts, "has changed the model"),
        (check_is_right, verdict(coarse=1e-4), "rounding is no mistake"),
        (check_is_right, verdict(positions=slice(1)), "look at all positions"),
        (
            check_is_right,
            verdict(strict=5e-2, coarse=5e-2, reduce=torch.mean),
            "the largest difference counts|be strict",
        ),
        (check_is_right, verdict(strict=1e-1), "be strict where the type is float32"),
        (check_is_right, verdict(coarse=10.0), "and no more than that"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_the_table_of_exercise_1_is_that_of_the_bundled_file():
    with open_checkpoint(BUNDLED / "tiny-gemma3") as checkpoint:
        names = {name.format(layer=layer) for name in right_table() for layer in range(6)}
        assert names == set(checkpoint.names())


@torch.no_grad()
def test_the_models_of_exercise_3_leave_room_for_a_sensible_tolerance():
    """Rounding to 16 bits stays far below every mistake but the small one, which 32 bits must tell."""
    ids = torch.arange(TOKENS)[None] * 7 % SMALL.vocab_size
    noted = small_llama()(ids)
    scale = noted.abs().max()
    rounded = (small_llama().to(torch.bfloat16)(ids).float() - noted).abs().max() / scale
    apart = {what: (model(ids).float() - noted).abs().max() / scale for what, model, _ in wrong_models()}
    small = apart.pop("epsilon is 100 times too large")
    assert 0.002 < rounded < 0.03 and small > 0.01 and min(apart.values()) > 5 * rounded


def test_the_pictures_are_described_in_words():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 40, generator=generator)
    late = torch.cat((torch.zeros(1), torch.ones(9)))
    pictures = {
        "three steps: plan, check, assign": names_to_parameters(),
        "is row": two_matrices(matrix, matrix.T),
        "A, right 0.25": surprise({"A, right": 0.25, "A, wrong": 3.0}, guessing=6.9),
        "late: 0 at the first token": drift({"early": torch.ones(10), "late": late}),
    }
    for words, picture in pictures.items():
        assert words in picture.alt and picture.data.startswith(b"\x89PNG")
