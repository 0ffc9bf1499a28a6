"""Who may look at whom."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_helpers.architectures.cache import attention_mask

CPU = torch.device("cpu")


def as_rows(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.int().tolist()]


def brute_force(start: int, new: int, padding: int) -> list[str]:
    return [
        "".join("x" if key <= query and (key >= padding or key == query) else "." for key in range(start + new))
        for query in range(start, start + new)
    ]


@pytest.mark.parametrize(
    ("start", "new", "expected"), [(0, 5, (None, True)), (0, 1, (None, False)), (7, 1, (None, False))]
)
def test_no_mask_is_made_where_attention_needs_none(start, new, expected):
    assert attention_mask(start, new, None, CPU) == expected


def test_a_chunk_after_a_cache_sees_the_cache_and_its_own_past():
    mask, is_causal = attention_mask(2, 3, None, CPU)
    assert as_rows(mask[0, 0]) == ["xxx..", "xxxx.", "xxxxx"] and not is_causal


def test_left_padding_is_seen_by_nobody_but_itself():
    mask, is_causal = attention_mask(0, 4, torch.tensor([0, 2]), CPU)
    assert as_rows(mask[0, 0]) == ["x...", "xx..", "xxx.", "xxxx"]
    assert as_rows(mask[1, 0]) == ["x...", ".x..", "..x.", "..xx"]
    assert not is_causal


def test_a_single_new_token_sees_its_row_without_the_padding():
    mask, _ = attention_mask(3, 1, torch.tensor([0, 2, 3]), CPU)
    assert [as_rows(row[0]) for row in mask] == [["xxxx"], ["..xx"], ["...x"]]


@given(
    start=st.integers(0, 9),
    new=st.integers(1, 9),
    paddings=st.lists(st.integers(0, 8), min_size=1, max_size=4),
)
def test_masks_are_those_of_the_definition(start, new, paddings):
    mask, is_causal = attention_mask(start, new, torch.tensor(paddings), CPU)
    assert mask.shape == (len(paddings), 1, new, start + new) and not is_causal
    for row, padding in zip(mask, paddings, strict=True):
        assert as_rows(row[0]) == brute_force(start, new, padding)


@given(start=st.integers(1, 9), new=st.integers(2, 9))
def test_masks_without_padding_are_those_of_the_definition(start, new):
    mask, is_causal = attention_mask(start, new, None, CPU)
    assert as_rows(mask[0, 0]) == brute_force(start, new, 0) and not is_causal
