"""The check function for exercise 3 of M9-LAB-04, grouped dispatch: each failure names the likely mistake.

Shape suffixes: N tokens, E model width, X experts, k experts per token, P pairs of a token and one of its experts.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .checkpoint import hint
from .exercises import answer, called
from .lab_04_exercises import right_weights, scattered

Dispatch = Callable[[Tensor, Tensor, Tensor, Callable, int], Tensor]
TOKENS, WIDTH, EXPERTS, NOBODYS = 9, 5, 6, 4  # the last: an expert that no token chooses


class CountingExperts:
    """Small random experts, each a matrix and a bend, which remember who was asked about which tokens."""

    def __init__(self, experts: int = EXPERTS, width: int = WIDTH, seed: int = 2):
        generator = torch.Generator().manual_seed(seed)
        self.matrices = torch.randn(experts, width, width, generator=generator) / width**0.5
        self.calls: list[tuple[int, Tensor]] = []

    def __call__(self, expert: int, rows_PE: Tensor) -> Tensor:
        self.calls.append((int(expert), rows_PE.detach().clone()))
        return torch.tanh(rows_PE @ self.matrices[int(expert)].T)


def check_dispatch(dispatch: Dispatch) -> None:
    """Exercise 3: each expert asked once, about all of its tokens, and every answer back in its place."""
    generator = torch.Generator().manual_seed(7)
    x_NE = torch.randn(TOKENS, WIDTH, generator=generator)
    scores_NX = torch.randn(TOKENS, EXPERTS, generator=generator)
    scores_NX[:, NOBODYS] = -9.0
    answers_NXE = torch.stack([CountingExperts()(expert, x_NE) for expert in range(EXPERTS)], dim=1)

    chosen_Nk, weight_Nk = right_weights(scores_NX, 2, normalize=True)
    ask = CountingExperts()
    given_NE = x_NE.clone()
    found = answer(dispatch, given_NE, chosen_Nk.clone(), weight_Nk.clone(), ask, EXPERTS)
    hint(
        not torch.equal(given_NE, x_NE),
        "x_NE has changed, so that later experts were asked about other vectors: sum up in a tensor of its own "
        "(torch.zeros_like(x_NE))",
    )
    hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
    shape = tuple(found.shape)
    hint(shape != x_NE.shape, f"one answer for each token: expected shape {tuple(x_NE.shape)}, got {shape}")
    hint_about_sum(found, x_NE, answers_NXE, chosen_Nk, weight_Nk)
    hint_about_calls(ask.calls, chosen_Nk)
    for n, k in ((1, 1), (TOKENS, 3)):
        chosen_Nk, weight_Nk = right_weights(scores_NX[:n], k, normalize=False)
        found = called(dispatch, x_NE[:n].clone(), chosen_Nk.clone(), weight_Nk.clone(), CountingExperts(), EXPERTS)
        expected = mixture(answers_NXE[:n], chosen_Nk, weight_Nk)
        right = isinstance(found, Tensor) and found.shape == expected.shape and close(found, expected)
        hint(not right, f"right for {TOKENS} tokens with 2 experts each, but not for {n} with {k}: is a number fixed?")
    print("Exercise 3: right. Every expert was asked once, about its own tokens, and every answer is in its place.")


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


def mixture(answers_NXE: Tensor, chosen_Nk: Tensor, weight_Nk: Tensor) -> Tensor:
    """What must come out: the answers of the chosen experts, each times its weight, summed."""
    return (scattered(chosen_Nk, weight_Nk, answers_NXE.shape[1])[..., None] * answers_NXE).sum(dim=1)


def in_sorted_order(answers_NXE: Tensor, chosen_Nk: Tensor, weight_Nk: Tensor) -> tuple[Tensor, Tensor]:
    """Two mistakes of those who sort by expert: answers left in that order, and weights left in it."""
    expert_P, order_P = chosen_Nk.flatten().sort(stable=True)
    answer_PE = answers_NXE[order_P // chosen_Nk.shape[1], expert_P]
    weight_P1 = weight_Nk.flatten()[order_P][:, None]
    both = answer_PE * weight_P1, answer_PE[order_P.argsort()] * weight_P1
    return tuple(pairs_PE.unflatten(0, chosen_Nk.shape).sum(dim=1) for pairs_PE in both)


def likely_mistakes(x_NE: Tensor, answers_NXE: Tensor, chosen_Nk: Tensor, weight_Nk: Tensor) -> Mapping[str, Tensor]:
    """What comes out of each mistake, by the advice that helps against it."""
    expected, ones = mixture(answers_NXE, chosen_Nk, weight_Nk), torch.ones_like(weight_Nk)
    last = chosen_Nk.max(dim=1, keepdim=True)
    answers_sorted, weights_sorted = in_sorted_order(answers_NXE, chosen_Nk, weight_Nk)
    return {
        "nothing arrived: is the result written back to the tensor that you return?": torch.zeros_like(expected),
        "the answers are summed, but not weighted: where is weight_Nk?": mixture(answers_NXE, chosen_Nk, ones),
        "this is the plain mean of the answers: where is weight_Nk?": mixture(answers_NXE, chosen_Nk, ones / 2),
        "all answers of a token have the weight of its first choice: which of the k places of the token is this "
        "expert's?": mixture(answers_NXE, chosen_Nk, weight_Nk[:, :1].expand_as(weight_Nk)),
        "the weights of a token's two experts are exchanged": mixture(answers_NXE, chosen_Nk, weight_Nk.flip(1)),
        "only one expert's answer is left for each token: a later one has overwritten the others. Add (+=, or "
        "index_add_) instead": mixture(answers_NXE, last.values, weight_Nk.gather(1, last.indices)),
        "everything is counted twice": 2 * expected,
        "the token itself has been added: the residual connection is the block's business": expected + x_NE,
        "the answers are in the experts' order: bring them back into the order of the tokens": answers_sorted,
        "the answers are in the tokens' order again, but their weights are in the experts' order": weights_sorted,
    }


def hint_about_sum(found: Tensor, x_NE: Tensor, answers_NXE: Tensor, chosen_Nk: Tensor, weight_Nk: Tensor) -> None:
    """Say what was summed instead of what should be."""
    expected = mixture(answers_NXE, chosen_Nk, weight_Nk)
    if close(found, expected):
        return
    for advice, other in likely_mistakes(x_NE, answers_NXE, chosen_Nk, weight_Nk).items():
        hint(close(found, other), advice)
    wrong = [n for n in range(len(x_NE)) if not close(found[n], expected[n])]
    hint(
        len(wrong) < len(x_NE),
        f"{len(wrong)} of {len(x_NE)} tokens are wrong, the first is token {wrong[0]} with experts "
        f"{chosen_Nk[wrong[0]].tolist()}: is an expert left out, or a token taken twice?",
    )
    hint(True, "no token has the sum of its experts' answers times their weights: are rows and tokens mixed up?")


def hint_about_calls(calls: Sequence[tuple[int, Tensor]], chosen_Nk: Tensor) -> None:
    """The numbers are right; was the work done in groups?"""
    asked, rows = set(chosen_Nk.flatten().tolist()), sum(len(given) for _, given in calls)
    hint(
        rows > chosen_Nk.numel(),
        f"right numbers, but the experts worked on {rows} rows instead of {chosen_Nk.numel()}: an expert that sees "
        "tokens which did not choose it saves nothing. Select its rows first",
    )
    hint(
        len(calls) > len(asked),
        f"right numbers in {len(calls)} calls, and {len(asked)} suffice: ask each expert once, about all of its "
        "tokens, and skip one that nobody chose",
    )
