"""Who may look at whom."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers.architectures.cache import KVCache, attention_mask, visible_positions

CPU = torch.device("cpu")


def as_rows(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.int().tolist()]


@pytest.mark.parametrize(
    ("start", "new", "window", "expected"),
    [
        (0, 5, None, (None, True)),
        (0, 1, None, (None, False)),
        (7, 1, None, (None, False)),
        (0, 5, 5, (None, True)),
        (0, 5, 6, (None, True)),
        (0, 1, 1, (None, False)),
        (3, 1, 4, (None, False)),
        (7, 1, 4, (None, False)),  # the ring has gone round: what it holds is what the token sees
    ],
)
def test_no_mask_is_made_where_attention_needs_none(start, new, window, expected):
    assert attention_mask(start, new, None, CPU, window, max_length=20) == expected


#: (start, new tokens, window, room in the cache or None without one) -> the mask.
WITHOUT_PADDING = {
    (2, 3, None, 9): ["xxx..", "xxxx.", "xxxxx"],
    (0, 4, 1, None): ["x...", ".x..", "..x.", "...x"],
    (0, 4, 2, None): ["x...", "xx..", ".xx.", "..xx"],
    (0, 5, 3, None): ["x....", "xx...", "xxx..", ".xxx.", "..xxx"],
    (0, 5, 3, 9): ["x....", "xx...", "xxx..", ".xxx.", "..xxx"],  # a first pass longer than the ring
    (1, 2, 3, 9): ["xx.", "xxx"],  # the ring is not full yet
    (1, 3, 3, 9): ["xx..", "xxx.", ".xxx"],  # it gets full on the way
    (4, 2, 3, 9): ["xxx.", ".xxx"],  # two positions are kept: 2 and 3
    (4, 4, 3, 9): ["xxx...", ".xxx..", "..xxx.", "...xxx"],
    (4, 2, 2, 9): ["xx.", ".xx"],
    (4, 2, 1, 9): ["x.", ".x"],
    (3, 2, 7, 5): ["xxxx.", "xxxxx"],  # a cache shorter than the window
    (4, 2, 3, None): ["..xxx.", "...xxx"],
}


@pytest.mark.parametrize("case", WITHOUT_PADDING, ids=str)
def test_masks_without_padding_are_these(case):
    start, new, window, room = case
    mask, is_causal = attention_mask(start, new, None, CPU, window, room)
    assert mask.shape[:2] == (1, 1) and as_rows(mask[0, 0]) == WITHOUT_PADDING[case] and not is_causal


#: The same, and the padding of each row -> the mask of each row.
WITH_PADDING = {
    (0, 4, None, None, (0, 2)): [["x...", "xx..", "xxx.", "xxxx"], ["x...", ".x..", "..x.", "..xx"]],
    (3, 1, None, 9, (0, 2, 3)): [["xxxx"], ["..xx"], ["...x"]],
    (0, 4, 1, 9, (0, 2)): [["x...", ".x..", "..x.", "...x"], ["x...", ".x..", "..x.", "...x"]],
    (0, 5, 2, 9, (0, 2)): [
        ["x....", "xx...", ".xx..", "..xx.", "...xx"],
        ["x....", ".x...", "..x..", "..xx.", "...xx"],
    ],
    (0, 4, 3, None, (0, 1)): [["x...", "xx..", "xxx.", ".xxx"], ["x...", ".x..", ".xx.", ".xxx"]],
    (4, 2, 3, 9, (0, 4)): [["xxx.", ".xxx"], ["..x.", "..xx"]],  # a padding longer than the window
    (2, 1, 3, 9, (0, 1)): [["xxx"], [".xx"]],
    # The ring of 3 has gone round: its slots hold positions 3, 4 and 2.
    (4, 1, 3, 9, (0, 3)): [["xxx"], ["xx."]],
    (5, 1, 3, 9, (0, 4, 5)): [["xxx"], [".xx"], ["..x"]],  # 3, 4, 5
    (6, 1, 4, 9, (3, 4, 5)): [["xxxx"], ["xxx."], [".xx."]],  # 4, 5, 6, 3
}


@pytest.mark.parametrize("case", WITH_PADDING, ids=str)
def test_masks_with_padding_are_these(case):
    start, new, window, room, paddings = case
    mask, is_causal = attention_mask(start, new, torch.tensor(paddings), CPU, window, room)
    assert [as_rows(row[0]) for row in mask] == WITH_PADDING[case] and not is_causal


def sees(query: int, key: int, padding: int, window: int | None) -> bool:
    """The definition."""
    is_real = key >= padding or key == query
    return key <= query and is_real and (window is None or query - key < window)


windows = st.none() | st.integers(1, 12)


@settings(max_examples=400)
@given(
    start=st.integers(0, 12),
    new=st.integers(1, 12),
    window=windows,
    paddings=st.none() | st.lists(st.integers(0, 12), min_size=1, max_size=3),
    spare=st.none() | st.integers(0, 12),
)
def test_every_query_sees_exactly_what_the_definition_lets_it_see(start, new, window, paddings, spare):
    start = 0 if spare is None else start  # without a cache there is no past
    room = None if spare is None else start + new + spare
    padding = None if paddings is None else torch.tensor(paddings)
    mask, is_causal = attention_mask(start, new, padding, CPU, window, room)
    keys = visible_positions(start, new, window, room, CPU).tolist()
    assert len(set(keys)) == len(keys) and min(keys) >= 0
    for row, skipped in enumerate(paddings or [0]):
        for index, query in enumerate(range(start, start + new)):
            if mask is None:
                found = keys[: index + 1] if is_causal else keys
            else:
                found = [key for key, seen in zip(keys, mask[row, 0, index].tolist(), strict=True) if seen]
            assert sorted(found) == [key for key in range(start + new) if sees(query, key, skipped, window)]


@settings(max_examples=300)
@given(window=windows, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), spare=st.integers(0, 5))
def test_the_cache_returns_the_positions_that_the_mask_is_about(window, sizes, spare):
    room = sum(sizes) + spare
    cache = KVCache([window], (1, 1, room, 1), torch.float32, CPU)
    for new in sizes:
        start = cache.length
        cache.begin(new)
        positions = torch.arange(start, start + new, dtype=torch.float32)[None, None, :, None]
        keys, values = cache.layers[0].update(positions, -positions)
        cache.advance(new, None)
        expected = visible_positions(start, new, window, room, CPU)
        assert torch.equal(keys[0, 0, :, 0], expected.float()) and torch.equal(values, -keys)
