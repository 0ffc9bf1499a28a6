"""Check functions for exercises 3 and 4 of M9-LAB-02, rotary positions and the order of rows: each failure names the
likely mistake."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..architectures.rope import RopeParameters, RotaryEmbedding, apply_rotary
from ..loaders.rules import Rule
from .checkpoint import hint
from .exercises import answer
from .lab_02 import close


def check_rotate(rotate: Callable[[Tensor, int, float], Tensor]) -> None:
    """Exercise 3: one vector turned by its position, partners half a head apart."""
    generator = torch.Generator().manual_seed(2)
    for head_dim, position, theta in ((8, 0, 10_000.0), (8, 3, 10_000.0), (12, 50, 10_000.0), (8, 7, 500_000.0)):
        x = torch.randn(head_dim, generator=generator)
        given = x.clone()
        found = answer(rotate, given, position, theta)
        hint(not isinstance(found, Tensor), f"expected a tensor, got a {type(found).__name__}")
        hint(not torch.equal(given, x), "x was changed: give back a new tensor")
        hint(found.shape != x.shape, f"the shape must stay {tuple(x.shape)}, yours is {tuple(found.shape)}")
        if position == 0:
            moved = not close(found, x) and close(found.sort().values, x.sort().values)
            hint(
                moved,
                "position 0 turns nothing, and yours comes back in another order: put each number back in its place",
            )
            hint(not close(found, x), "at position 0 nothing turns: all angles are 0")
        hint_about_rotation(found, x, position, theta)
    print("Exercise 3: right. Four vectors turned, for two sizes of a head and two bases.")


def hint_about_rotation(found: Tensor, x: Tensor, position: int, theta: float) -> None:
    """Compare with what the usual mistakes would give."""
    head_dim = len(x)
    steps = torch.arange(0, head_dim, 2) / head_dim
    angle = position * theta**-steps

    def turned(angle: Tensor) -> Tensor:
        first, second = x.chunk(2)
        return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()))

    rope = RotaryEmbedding(RopeParameters(rope_theta=theta), head_dim)
    tables = rope(torch.tensor([[position]]), torch.float32)
    right = apply_rotary(x[None, None, None], *tables)[0, 0, 0]
    if close(found, right):
        return
    even, odd = x[0::2], x[1::2]
    neighbours = torch.stack((even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()), -1)
    mistakes = {
        "you turned neighbours (0 and 1, 2 and 3, ...), as Meta's code does: here the partners are i and i + D/2": (
            neighbours.flatten()
        ),
        "turned the wrong way round: check the two signs of the sine": turned(-angle),
        "the angles are in radians already: no conversion to or from degrees": turned(angle * torch.pi / 180),
        "the exponent of pair i is -2 i / D, and yours is half of that": turned(position * theta ** (-steps / 2)),
        "the exponent of pair i is -2 i / D, and yours is twice that": turned(position * theta ** (-2 * steps)),
        "the exponent's sign: later pairs turn more slowly, not faster": turned(position * theta**steps),
        "all pairs turn at the same speed in yours: pair i has the frequency theta^(-2 i / D)": turned(
            torch.full_like(angle, float(position))
        ),
        "theta is an argument: 10000 is only its usual value": turned(position * 10_000.0**-steps),
        "the slow pairs are the last ones: your frequencies are in reverse order": turned(angle.flip(0)),
    }
    for advice, wrong in mistakes.items():
        hint(close(found, wrong) and not close(wrong, right), advice)
    hint(
        not torch.isclose(found.norm(), x.norm(), rtol=1e-4),
        "a turned vector keeps its length, and yours has not: (a, b) becomes (a cos - b sin, b cos + a sin)",
    )
    hint(True, "the length is right, the direction is not: check which two numbers are a pair, and each pair's angle")


HEADS, HALF, WIDTH = 3, 4, 5
ROWS = HEADS * 2 * HALF


def ours_under_metas_names() -> dict[str, Tensor]:
    """Two layers, every number another; the rows in our order."""
    names = [
        f"layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w1")
    ]
    return {
        name: torch.arange(ROWS * WIDTH, dtype=torch.float32).view(ROWS, WIDTH) + 1000 * number
        for number, name in enumerate(["tok_embeddings.weight", *names])
    }


def check_to_meta(to_meta: Callable[[Mapping[str, Tensor], int], Mapping[str, Tensor]]) -> None:
    """Exercise 4: a whole state dict to Meta's order of rows."""
    tensors, before = ours_under_metas_names(), ours_under_metas_names()
    found = answer(to_meta, tensors, HEADS)
    hint(not isinstance(found, Mapping), f"expected a dict of tensors, got a {type(found).__name__}")
    hint(
        any(not torch.equal(tensors[name], before[name]) for name in before) or tensors.keys() != before.keys(),
        "what was passed in was changed: make a new dict of new tensors",
    )
    lost, added = before.keys() - found.keys(), found.keys() - before.keys()
    missing = min(lost, default="")
    hint(bool(lost), f"{missing} is missing in what you give back: what stays as it is belongs to the file, too")
    hint(bool(added), f"{min(added, default='')} is not a name that was given")
    for name, tensor in before.items():
        hint_about_rows(name, found[name], tensor)
    print("Exercise 4: right. Queries and keys are in Meta's order, everything else is as it was.")


def hint_about_rows(name: str, found: Tensor, ours: Tensor) -> None:
    """What happened to one tensor, and what should have."""
    hint(found.shape != ours.shape, f"{name}: the shape must stay {tuple(ours.shape)}, yours is {tuple(found.shape)}")
    turned = name.endswith(("wq.weight", "wk.weight"))
    if not turned:
        hint(
            not torch.equal(found, ours) and "attention" in name,
            f"{name} was reordered: only queries and keys are turned. What is mixed (values) and what reads the "
            "mixture (output) stay in their order",
        )
        hint(not torch.equal(found, ours), f"{name} has nothing to do with rotary positions: leave it as it is")
        return
    right = Rule((name,), interleaved=True, head_dim=2 * HALF).to_theirs([ours])
    hint(torch.equal(found, ours), f"{name} is still in our order: queries and keys of every layer must be reordered")
    back = ours.view(HEADS, HALF, 2, WIDTH).transpose(1, 2).reshape(ROWS, WIDTH)
    hint(
        torch.equal(found, back),
        f"{name}: this is the inverse, from Meta's order to ours. Going there, view the rows as heads x 2 x half",
    )
    every = ours.view(2, ROWS // 2, WIDTH).transpose(0, 1).reshape(ROWS, WIDTH)
    hint(torch.equal(found, every), f"{name}: the shuffle goes through all heads at once; shuffle each head alone")
    mixed = ours.view(HEADS, 2 * HALF, WIDTH).transpose(0, 1).reshape(ROWS, WIDTH)
    hint(torch.equal(found, mixed), f"{name}: the heads are mixed up: the 2 and the half change places, not the heads")
    same_rows = torch.equal(found.sort(dim=0).values, ours)
    hint(
        not torch.equal(found, right) and same_rows,
        f"{name}: all rows are there, in a wrong order: head 0 must begin with its rows 0, {HALF}, 1, {HALF + 1}, ...",
    )
    hint(not torch.equal(found, right), f"{name}: numbers of different rows were mixed: move whole rows only")
