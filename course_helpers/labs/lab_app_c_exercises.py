"""Check functions for the exercises of M9-LAB-APP-C: each failure names the likely mistake."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..architectures.llama import LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from ..classification import SequenceClassifier, freeze_all_but
from ..training import initialize
from .checkpoint import hint
from .exercises import answer, called

BYTES = 4  # of a float32 number
#: Every size is different, so that no count can be right by chance.
SMALL = LlamaConfig(
    vocab_size=31,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=32,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
)

#: Which tokens of each row are real: without padding, on the right, on the left, and a single token.
RIGHT = ((1, 1, 1, 1, 1, 1), (1, 1, 1, 0, 0, 0), (1, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 0))
LEFT = ((1, 1, 1, 1, 1, 1), (0, 0, 0, 1, 1, 1), (0, 0, 0, 0, 0, 1), (0, 1, 1, 1, 1, 1))


def check_last_real(last_real: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 1: the hidden state of each row's last real token, whichever side the padding is on."""
    x_BTE = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(3))
    for side, real in (("right", RIGHT), ("left", LEFT)):
        real_BT = torch.tensor(real, dtype=torch.bool)
        try:
            found_BE = answer(last_real, x_BTE.clone(), real_BT.clone())
        except IndexError as error:
            hint(True, f"{error}: counted from 0, the last of 6 tokens is token 5. Did you forget to subtract 1?")
        hint(not isinstance(found_BE, Tensor), f"expected a tensor, got a {type(found_BE).__name__}")
        hint(
            found_BE.shape != (4, 5),
            f"expected one vector a row, (4, 5), got {tuple(found_BE.shape)}: index rows and positions together, "
            "x_BTE[torch.arange(B), positions_B]",
        )
        hint_about_position(found_BE, x_BTE, real_BT, side)
    print("Exercise 1: right. The last real token, with padding on either side.")


def hint_about_position(found_BE: Tensor, x_BTE: Tensor, real_BT: Tensor, side: str) -> None:
    """Say which position was read instead."""
    rows, tokens = torch.arange(len(x_BTE)), x_BTE.shape[1]
    counts_B = real_BT.sum(dim=1)
    last_B = tokens - 1 - real_BT.flip(1).int().argmax(dim=1)
    mistakes = {
        "index -1 is the last column. Where a row is padded on the right, that column is a pad": x_BTE[:, -1],
        "counting the real tokens finds the last one only if they begin in column 0. With padding on the left, it "
        "reads padding": x_BTE[rows, counts_B - 1],
        "one too far: counted from 0, the last of n tokens is token n - 1. After it comes a pad": x_BTE[
            rows, (last_B + 1).clamp(max=tokens - 1)
        ],
        "one too early: the token before the last real one has not seen the last one": x_BTE[rows, last_B - 1],
        "that is the first real token: it has seen nothing but itself, because attention looks back only": x_BTE[
            rows, real_BT.int().argmax(dim=1)
        ],
        "that is the mean over the real tokens. It can be used, too, but the exercise asks for the last one": (
            x_BTE * real_BT[..., None]
        ).sum(1)
        / counts_B[:, None],
        "that is the mean over all columns, and padding is among them": x_BTE.mean(dim=1),
    }
    expected_BE = x_BTE[rows, last_B]
    if torch.equal(found_BE, expected_BE):
        return
    for advice, wrong_BE in mistakes.items():
        hint(torch.allclose(found_BE, wrong_BE), f"padding on the {side}: {advice}")
    wrong = int((found_BE != expected_BE).any(dim=1).nonzero()[0, 0])
    hint(True, f"padding on the {side}: row {wrong}, {real_BT[wrong].int().tolist()}, is not read at {last_B[wrong]}")


def small_classifier(tied: bool) -> SequenceClassifier:
    """A classifier in which something was frozen before, as after an earlier experiment."""
    base = LlamaModel(dataclasses.replace(SMALL, tie_word_embeddings=tied))
    classifier = SequenceClassifier(initialize(base, seed=1), ("yes", "no", "unsure"))
    classifier.head.requires_grad_(False)
    base.blocks[-1].requires_grad_(False)
    return classifier


def check_freeze(freeze: Callable[[SequenceClassifier, int], int]) -> None:
    """Exercise 2: what is trained, and how many parameters that is."""
    for tied in (True, False):
        for blocks in (1, 2, 0):
            classifier, right = small_classifier(tied), small_classifier(tied)
            expected = set(freeze_all_but(right, blocks))
            found = answer(freeze, classifier, blocks)
            trained = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
            head = "a tied head" if tied else "a head of its own"
            hint_about_freezing(trained, expected, f"blocks={blocks}, a base with {head}", blocks)
            hint_about_count(found, classifier, f"blocks={blocks}, a base with {head}")
    print("Exercise 2: right. Six classifiers frozen, and every trained number counted once.")


def hint_about_freezing(trained: set[str], expected: set[str], case: str, blocks: int) -> None:
    extra, missing = sorted(trained - expected), sorted(expected - trained)
    hint("base.token_embedding.weight" in extra, f"{case}: the token embedding is trained. "
         "Freeze everything first; where the language model's head is tied, it *is* the embedding")  # fmt: skip
    hint("base.output_head.weight" in extra, f"{case}: the language model's own head is trained, but it has no part in "
         "the computation: only the classifier's head does")  # fmt: skip
    hint(
        blocks == 0 and any(name.startswith("base.blocks.") for name in extra),
        f"{case}: blocks were asked for: none. But list[-0:] is the whole list, because -0 is 0: count from the front",
    )
    hint(
        any(name.startswith("base.blocks.0.") for name in extra),
        f"{case}: the first block is trained, but the *last* ones were asked for",
    )
    hint(any(name.startswith("head.") for name in missing), f"{case}: the classifier's head is frozen. It is new and "
         "knows nothing, and it may have been frozen before: set requires_grad to True")  # fmt: skip
    hint(any("final_norm" in name for name in missing), f"{case}: the final norm is frozen. It stands between the last "
         "block and the head, and is trained with them")  # fmt: skip
    hint(bool(missing), f"{case}: {', '.join(missing[:1])} is frozen and should be trained: after freezing all, what "
         "is trained must be switched on again")  # fmt: skip
    hint(bool(extra), f"{case}: {', '.join(extra[:1])} is trained and should be frozen")


def hint_about_count(found: object, classifier: SequenceClassifier, case: str) -> None:
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    expected = sum(parameter.numel() for parameter in trained)
    hint(not isinstance(found, int), f"{case}: expected a whole number, got a {type(found).__name__}")
    hint(found == len(trained), f"{case}: that is the number of tensors; count the numbers in them: numel()")
    everything = sum(parameter.numel() for parameter in classifier.parameters())
    hint(found == everything, f"{case}: that counts frozen parameters, too")
    hint(found == everything - expected, f"{case}: that is the number of frozen parameters")
    hint(found == expected - sum(parameter.numel() for parameter in classifier.head.parameters()),
         f"{case}: the classifier's head was not counted")  # fmt: skip
    hint(found != expected, f"{case}: {expected:,} parameters are trained, not {found:,}")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A base that was tried: sizes, the longest text in tokens of its own tokenizer, and accuracies."""

    name: str
    parameters: int
    trained: int  # of them, and of the head
    context: int
    longest: int
    gated: bool
    validation: float
    test: float


def memory_of(candidate: Candidate) -> int:
    """Bytes while it is finetuned: weights for all, a gradient and two means for what is trained."""
    return BYTES * (candidate.parameters + 3 * candidate.trained)


def right_base(candidates: Sequence[Candidate], memory: int, margin: float) -> str | None:
    """What the exercise asks for."""
    fit = [one for one in candidates if memory_of(one) <= memory and one.longest <= one.context and not one.gated]
    best = max((one.validation for one in fit), default=0.0)
    near = [one for one in fit if one.validation >= best - margin]
    return min(near, key=lambda one: one.parameters).name if near else None


BEST = Candidate("right", 900, 100, 64, 64, False, 0.95, 0.90)
#: What a wrong choice is made of: advice, the candidates, memory. Margin 0.02 throughout.
CASES: Mapping[str, tuple[Sequence[Candidate], int]] = {
    "gated bases need an account, and none is at hand": (
        (BEST, dataclasses.replace(BEST, name="gated", gated=True, validation=0.99)),
        10_000,
    ),
    "its context is shorter than the longest text, counted in tokens of its own tokenizer": (
        (BEST, dataclasses.replace(BEST, name="short", longest=65, validation=0.99)),
        10_000,
    ),
    "does not fit: 4 bytes for each weight, and for what is trained three times as many, a gradient and two means": (
        (BEST, dataclasses.replace(BEST, name="heavy", parameters=950, trained=800, validation=0.99)),
        5_000,
    ),
    "another is better by more than the margin. Did you choose the smallest that fits?": (
        (BEST, dataclasses.replace(BEST, name="small", parameters=500, validation=0.90, test=0.85)),
        10_000,
    ),
    "that one is better on the *test* texts. Chosen by the test, they are no test any more: use the validation": (
        (BEST, dataclasses.replace(BEST, name="lucky", validation=0.91, test=0.99)),
        10_000,
    ),
    "better by less than the margin, which is no finding, and larger: of equals take the smaller": (
        (BEST, dataclasses.replace(BEST, name="large", parameters=1_000, validation=0.96)),
        10_000,
    ),
}
MARGIN = 0.02


def check_choose_base(choose_base: Callable[[Sequence[Candidate], int, float], str | None]) -> None:
    """Exercise 3: constraints first, then validation; the smaller of equals; None if nothing fits."""
    hint_about_nothing(choose_base)
    for advice, (candidates, memory) in CASES.items():
        for order in (candidates, candidates[::-1]):
            found = called(choose_base, list(order), memory, MARGIN)
            hint(isinstance(found, Candidate), "return the base's name, not the whole candidate")
            wrong = candidates[1].name
            hint(found == wrong, f"'{wrong}': {advice}")
            hint(found is None, f"{BEST.name!r} can be taken, and None came back. Is the best sought among those left?")
            hint(found != BEST.name, f"expected {BEST.name!r}, got {found!r}")
    try:
        nothing = choose_base([BEST], memory_of(BEST) - 1, MARGIN)
    except (ValueError, IndexError) as error:
        hint(True, f"nothing fits, and your function stops with '{error}': it should return None")
    hint(nothing is not None, f"a base that needs {memory_of(BEST):,} bytes does not fit in {memory_of(BEST) - 1:,}. "
         "Did you count a gradient and both means for what is trained?")  # fmt: skip
    print("Exercise 3: right. Constraints first, then validation, and the smaller of equals.")


def hint_about_nothing(choose_base: Callable[[Sequence[Candidate], int, float], str | None]) -> None:
    """Why a base that fits was not chosen although it is alone."""
    plenty, short = 10**9, dataclasses.replace(BEST, longest=1)
    if called(choose_base, [short], plenty, MARGIN) is None:
        hint(True, "one base fits with room to spare, and nothing came back: is there a return statement?")
    hint(
        called(choose_base, [BEST], plenty, MARGIN) is None,
        f"a text of {BEST.longest} tokens fits in a context of {BEST.context}: equal is enough",
    )
    hint(
        called(choose_base, [BEST], 4 * BYTES * BEST.parameters - 1, MARGIN) is None,
        "a base that fits was refused. Did you count a gradient and two means for what is frozen, too?",
    )
    hint(
        called(choose_base, [BEST], memory_of(BEST), MARGIN) is None,
        f"{memory_of(BEST):,} bytes are needed, and {memory_of(BEST):,} are there: that is enough",
    )
