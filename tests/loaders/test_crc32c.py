"""CRC32C by folding is CRC32C by its definition, whatever the length."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from course_helpers.loaders.crc32c import GAPS, POLYNOMIAL, ROUNDS, STEP, WINDOW, crc32c, fold, masked_crc32c


def by_definition(data: bytes) -> int:
    """One bit at a time, as RFC 3720 defines it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_published_values(data, value):
    """RFC 3720, appendix B.4, and the check value of the catalogue of CRCs."""
    assert crc32c(data) == by_definition(data) == value


def test_the_polynomial_of_four_terms_is_a_multiple():
    """1 + x^426 + x^1362 + x^5685 modulo P, by multiplying by x that many times."""
    powers, value = {}, 1 << 31
    for n in range(WINDOW + 1):
        powers[n] = value
        value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    assert [WINDOW - gap for gap in GAPS] == [1362, 426, 0]
    assert powers[0] ^ powers[426] ^ powers[1362] ^ powers[5685] == 0


@given(size=st.integers(0, 3000), seed=st.integers(0, 99))
def test_short_messages(size, seed):
    data = np.random.default_rng(seed).bytes(size)
    assert crc32c(data) == by_definition(data)


#: Around each length at which something changes: bytes are folded, then words, a second step, a second move.
EDGES = (WINDOW - 4, WINDOW, WINDOW + STEP, 8 * WINDOW, 8 * (WINDOW + STEP), 8 * (WINDOW + (ROUNDS + 1) * STEP))


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("more", [-9, -1, 0, 1, 5, 8, 9])
def test_where_folding_begins(edge, more):
    """Long messages: one bit at a time takes too long, so what is appended to a message is held to the definition."""
    data = np.random.default_rng(edge + more).bytes(edge + more)
    assert crc32c(data) == by_table(data)


def by_table(data: bytes) -> int:
    """A byte at a time: the usual implementation."""
    table = [by_definition(bytes([byte])) ^ by_definition(b"\0") for byte in range(256)]
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


@given(size=st.integers(0, 20_000), dtype=st.sampled_from([np.uint8, np.uint64]))
@example(size=WINDOW, dtype=np.uint64)
def test_folding_leaves_the_window_and_the_message_as_it_was(size, dtype):
    words = np.random.default_rng(size).integers(0, 256, size).astype(dtype)
    before = words.copy()
    assert len(fold(words)) == min(size, WINDOW) and np.array_equal(words, before)


@pytest.mark.parametrize("start", range(9))
def test_arrays_are_read_in_place_wherever_they_start(start):
    data = np.random.default_rng(0).bytes(90_000)
    window = torch.frombuffer(bytearray(data), dtype=torch.uint8)[start:].numpy()
    assert crc32c(window) == crc32c(data[start:]) == crc32c(memoryview(data)[start:])


def test_the_mask_is_what_stands_in_a_file():
    """TensorFlow's comment on it: turned right by 15 bits, plus a constant."""
    turned = crc32c(b"foo") >> 15 | crc32c(b"foo") << 17 & 0xFFFFFFFF
    assert masked_crc32c(b"foo") == (turned + 0xA282EAD8) % 2**32 != crc32c(b"foo")
