"""Check functions for the exercises of M9-LAB-05: each failure names the likely mistake.

Shape suffixes: T new tokens, W slots of a ring, D head dimension.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..architectures.cache import attention_mask
from ..architectures.config import FULL, SLIDING
from ..architectures.gemma3 import Gemma3Config, Gemma3Model
from ..architectures.rope import RopeParameters
from .checkpoint import hint
from .exercises import answer

#: Every number another one, so that a factor taken for another shows: 2 full layers and 5 sliding ones.
SMALL = Gemma3Config(
    vocab_size=29,
    hidden_size=44,
    intermediate_size=36,
    num_hidden_layers=7,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=10,
    max_position_embeddings=64,
    rms_norm_eps=1e-6,
    rope_parameters={FULL: RopeParameters(rope_theta=1_000_000.0), SLIDING: RopeParameters(rope_theta=10_000.0)},
    sliding_window=13,
    layer_types=(SLIDING, SLIDING, FULL, SLIDING, SLIDING, SLIDING, FULL),
    query_pre_attn_scalar=10,
)


def right_mask(length: int, window: int) -> Tensor:
    """Who sees whom, by the package's own mask; where it needs none, the plain triangle."""
    mask, _ = attention_mask(0, length, None, torch.device("cpu"), window)
    return torch.ones(length, length).tril().bool() if mask is None else mask[0, 0]


def check_sliding_mask(sliding_mask: Callable[[int, int], Tensor]) -> None:
    """Exercise 1: the mask of a sliding layer."""
    for length, window in ((9, 4), (6, 1), (5, 8)):
        mask = answer(sliding_mask, length, window)
        case = f"length {length}, window {window}"
        hint(not isinstance(mask, Tensor), f"expected a tensor, got a {type(mask).__name__}")
        hint(mask.shape != (length, length), f"{case}: expected shape {(length, length)}, yours is {tuple(mask.shape)}")
        hint(mask.dtype != torch.bool, f"expected True and False, not {mask.dtype}: a comparison gives a bool tensor")
        hint_about_mask(mask, length, window, case)
    print("Exercise 1: right. Every query sees itself and the window - 1 positions before it.")


def hint_about_mask(mask: Tensor, length: int, window: int, case: str) -> None:
    """Say what the mask is in place of the right one."""
    right, past = right_mask(length, window), torch.ones(length, length).tril().bool()
    if torch.equal(mask, right):
        return
    hint(torch.equal(mask, ~right), "True and False are exchanged: True is where looking is allowed")
    hint(torch.equal(mask, right.T), "rows are queries, columns are keys: yours is turned, so queries see the future")
    hint(
        bool((mask & ~past).any()),
        f"{case}: a query sees the future. A window limits how far back a query looks, beside the rule j <= i",
    )
    hint(torch.equal(mask, right_mask(length, window + 1)), f"{case}: one too many. The window counts the query itself")
    hint(
        window > 1 and torch.equal(mask, right_mask(length, window - 1)),
        f"{case}: one too few. With a window of {window}, {window} keys are seen: its own and {window - 1} more",
    )
    hint(
        window > 1 and torch.equal(mask, right & ~torch.eye(length).bool()),
        f"{case}: a query must see itself, too: i - j = 0 is inside of the window",
    )
    hint(
        torch.equal(mask, past & ~right) or torch.equal(mask, past & (~right | torch.eye(length).bool())),
        f"{case}: the window is on the wrong side: yours sees what lies further back than the window reaches",
    )
    hint(
        torch.equal(mask, past & (torch.arange(length) < window)),
        f"{case}: yours sees the first {window} positions of the text. The window moves along with the query",
    )
    hint(torch.equal(mask, past), f"{case}: this is the mask of a full layer: where is the window?")
    row = int((mask != right).any(dim=1).nonzero()[0])
    hint(
        True,
        f"{case}: query {row} should see the keys {right[row].nonzero().flatten().tolist()}, "
        f"yours sees {mask[row].nonzero().flatten().tolist()}",
    )


def check_cache_bytes(cache_bytes: Callable[[Gemma3Config, int, int], int]) -> None:
    """Exercise 2: bytes of a cache with rings in some layers, against caches that are really made."""
    with torch.device("meta"):
        model = Gemma3Model(SMALL)
    for length, dtype in ((31, torch.float32), (5, torch.bfloat16), (13, torch.float32)):
        found = answer(cache_bytes, SMALL, length, dtype.itemsize)
        expected = model.make_cache(1, length, dtype=dtype).nbytes
        hint_about_cache(found, expected, length, dtype.itemsize)
    print("Exercise 2: right. To the byte, for texts longer and shorter than the window.")


def hint_about_cache(found: object, expected: int, length: int, itemsize: int) -> None:
    """Say which layers keep too much or too little, or which factor is another."""
    hint(not isinstance(found, int), f"expected a whole number of bytes, got a {type(found).__name__}")
    if found == expected:
        return
    window, full = SMALL.sliding_window, SMALL.layer_types.count(FULL)
    sliding = SMALL.num_hidden_layers - full
    each = 2 * SMALL.num_key_value_heads * SMALL.head_dim * itemsize
    kept, ring = expected // each, min(length, window)
    case = f"for {length} tokens and a window of {window}"
    mixed = {
        "every layer keeps the whole text here: a sliding layer keeps no more than its window": (full + sliding)
        * length,
        "a sliding layer holds the window, but no more than there are tokens: min(length, window)": full * length
        + sliding * window,
        "every layer has a ring here: the full layers keep everything": (full + sliding) * ring,
        "the two kinds of layers are exchanged": full * ring + sliding * length,
        "only the full layers are counted: the rings hold something, too": full * length,
        "only the rings are counted: the full layers hold more": sliding * ring,
        "a ring keeps the whole window, the newest position included: not window - 1": full * length
        + sliding * min(length, window - 1),
        "one layer of each kind is counted: how many are there?": length + ring,
        "every sixth layer is full by its number: these layers follow no rule, so ask config.layer_types": sum(
            ring if number % 6 else length for number in range(1, full + sliding + 1)
        ),
    }
    for advice, positions in mixed.items():
        hint(found == positions * each, f"{case}: {advice}")
    heads, shared, width = SMALL.num_attention_heads, SMALL.num_key_value_heads, SMALL.hidden_size
    factors = {
        "keys and values are two tensors: where is the 2?": (1, 2),
        "you counted the query heads: only keys and values are kept": (heads, shared),
        "where is the number of key/value heads?": (1, shared),
        "you took the model's width for key/value heads x head_dim": (width, shared * SMALL.head_dim),
        "where is head_dim, the numbers of one head?": (1, SMALL.head_dim),
        "where are the bytes of one number?": (1, itemsize),
    }
    for advice, (taken, right) in factors.items():
        hint(found * right == expected * taken, advice)
    hint(True, f"{case}: the layers keep {kept} positions in all, which take {expected:,} bytes, not {found:,}")


#: (window, how many positions at a time): within the ring, once round, a prompt longer than the ring, on after it.
CASES = (
    ("one at a time", 4, (1, 1)),
    ("one at a time, round the ring", 4, (1,) * 7),
    ("a chunk that goes over the end of the ring", 5, (3, 4)),
    ("a prompt longer than the ring", 4, (11,)),
    ("a prompt longer than the ring, and two more", 4, (10, 2)),
)


def check_ring(write: Callable[[Tensor, int, Tensor], None], read: Callable[[Tensor, int], Tensor]) -> None:
    """Exercise 3: write a chunk into a ring, and read what is kept in the order of the text."""
    for what, window, chunks in CASES:
        slots_WD, length, text_TD = torch.full((window, 2), -1.0), 0, torch.empty(0, 2)
        for tokens in chunks:
            new_TD = torch.arange(length, length + tokens).float()[:, None] * torch.tensor([1.0, 10.0])
            written(write, slots_WD, length, new_TD.clone())
            text_TD, length = torch.cat((text_TD, new_TD)), length + tokens
            hint_about_slots(slots_WD, text_TD, f"{what} (window {window}, chunks {chunks})")
        before = slots_WD.clone()
        found = answer(read, slots_WD, length)
        case = f"{what} (window {window}, {length} positions written)"
        hint_about_reading(found, before, text_TD, case)
        hint(not torch.equal(slots_WD, before), f"{case}: reading has changed the ring; make a new tensor")
    print("Exercise 3: right. In any chunks, beyond the window, and in the order of the text.")


def written(write: Callable[[Tensor, int, Tensor], None], slots_WD: Tensor, start: int, new_TD: Tensor) -> None:
    """Call the learner's `write`; what torch says of an index or a size becomes a hint."""
    try:
        write(slots_WD, start, new_TD)
    except NotImplementedError:
        hint(True, f"{write.__name__} is still empty: replace the raise statement with your code")
    except (IndexError, RuntimeError) as error:
        window, tokens = slots_WD.shape[0], new_TD.shape[0]
        hint(
            True,
            f"{tokens} positions from {start} on, into {window} slots, ended in a {type(error).__name__}: the slot is "
            "the position's remainder, position % window, and a chunk may go over the end of the ring",
        )


def hint_about_slots(slots_WD: Tensor, text_TD: Tensor, case: str) -> None:
    """Compare the ring with what must lie in it after the whole `text_TD`."""
    window, length = len(slots_WD), len(text_TD)
    right_WD = torch.full_like(slots_WD, -1.0)
    for position in range(length):
        right_WD[position % window] = text_TD[position]
    if torch.equal(slots_WD, right_WD):
        return
    hint(bool((slots_WD == -1).all()), f"{case}: nothing was written: assign into `slots`, do not make a new tensor")
    held = slots_WD[:, 0].int().tolist()
    filled = sorted(position for position in held if position >= 0)
    shown = f"the slots hold the positions {held}, expected {right_WD[:, 0].int().tolist()} (-1: empty)"
    newest = [position for position in range(max(0, length - window), length)]
    hint(
        length > window and held == list(range(window)),
        f"{case}: {shown}. Of a text longer than the ring the *last* positions are kept, not the first",
    )
    hint(
        length > window and held == newest,
        f"{case}: {shown}. The right positions, but slot 0 is not for the oldest one kept: a position's slot is "
        "position % window, whatever came before it",
    )
    hint(
        filled == newest,
        f"{case}: {shown}. The right positions in the wrong slots: a position's slot is position % window",
    )
    hint(True, f"{case}: {shown}. A new position takes the place of the one that has just left the window")


def hint_about_reading(found: object, slots_WD: Tensor, text_TD: Tensor, case: str) -> None:
    """Compare what was read with the last positions of the text."""
    right_SD = text_TD[-len(slots_WD) :]
    hint(not isinstance(found, Tensor), f"{case}: expected a tensor, got a {type(found).__name__}")
    hint(
        len(found) > len(right_SD),
        f"{case}: {len(found)} positions were read, but only {len(right_SD)} have been written: leave out empty slots",
    )
    hint(len(found) < len(right_SD), f"{case}: {len(found)} positions were read, and {len(right_SD)} are kept")
    if torch.equal(found, right_SD):
        return
    shown = f"read {found[:, 0].int().tolist()}, expected {right_SD[:, 0].int().tolist()}"
    hint(torch.equal(found, slots_WD[: len(found)]), f"{case}: {shown}: the slots as they lie. Begin at the oldest one")
    hint(
        torch.equal(found, right_SD.flip(0)), f"{case}: {shown}: the newest comes first; the text's order is the other"
    )
    hint(True, f"{case}: {shown}. The oldest position kept is length - window; its slot is that % window")
