"""Other kernels, the same sums: against torch's own product, and against attention written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from course_helpers.architectures import products
from course_helpers.architectures.products import attend_once, has_onednn, linear, shared_linear
from tests.operations import Operations


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(
    lead=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    with_bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_product_is_torchs_whatever_the_kernel(lead, sizes, with_bias, dtype):
    x, weight = random(*lead, sizes[1], dtype=dtype), random(*sizes, seed=1, dtype=dtype)
    bias = random(sizes[0], seed=2, dtype=dtype) if with_bias else None
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with torch.inference_mode():
        found = linear(x, weight, bias)
    exact = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found.double(), expected, rtol=exact, atol=exact * math.sqrt(sizes[1]))
    assert found.dtype == dtype and found.shape == (*lead, sizes[0])


@pytest.mark.parametrize(
    ("intel", "cores", "rows", "outputs", "kernel"),
    [
        (True, 2, 1, 1024, "usual"),
        (True, 2, 2, 1024, "usual"),
        (True, 2, 3, 1024, "mkldnn"),
        (True, 2, 3, 1023, "usual"),  # a small matrix
        (True, 2, 256, 1024, "mkldnn"),
        (True, 2, 257, 1024, "usual"),
        (False, 2, 1, 1024, "mkldnn"),
        (False, 2, 1, 1022, "bmm"),  # not enough for both cores
        (False, 4, 1, 1024, "bmm"),
        (False, 2, 1, 1023, "mkldnn"),  # no two equal parts
        (False, 1, 1, 8, "mkldnn"),
        (False, 2, 2, 8, "mkldnn"),
        (False, 2, 256, 5, "mkldnn"),
    ],
)
def test_a_float32_product_goes_to_the_kernel_that_is_fast_there(monkeypatch, intel, cores, rows, outputs, kernel):
    monkeypatch.setattr(products, "INTEL", intel)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    x, weight = random(1, rows, 1024), random(outputs, 1024, seed=1)
    for dtype, expected in ((torch.float32, kernel), (torch.bfloat16, "usual")):
        with torch.inference_mode(), Operations() as seen:
            linear(x.to(dtype), weight.to(dtype))
        assert {name: seen.count(name) for name in ("mkldnn", "bmm")} == {
            name: int(name == expected) for name in ("mkldnn", "bmm")
        }


@given(
    lead=st.lists(st.just(1), max_size=2),
    cores=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 70)),
    with_bias=st.booleans(),
)
def test_a_product_shared_among_cores_is_the_product(lead, cores, sizes, with_bias):
    x, weight = random(*lead, sizes[1]), random(cores * sizes[0], sizes[1], seed=1)
    bias = random(len(weight), seed=2) if with_bias else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: cores)
        found = shared_linear(x, weight, bias)
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * math.sqrt(sizes[1]))
    assert found.shape == expected.shape


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_outside_inference_mode_the_bits_are_those_of_torch(rows):
    x, weight = random(rows, 100), random(90, 100, seed=1)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight)) and not has_onednn(x)


def test_outside_inference_mode_gradients_flow():
    x, weight = random(2, 12), random(7, 12, seed=1).requires_grad_()
    linear(x, weight).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(7, -1))


@given(
    rows=st.integers(1, 3),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    keys=st.integers(1, 40),
    scale=st.sampled_from([None, 0.2]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_attention_of_one_token_is_attention_written_out(rows, heads, keys, scale, dtype, data):
    shared, group = heads
    query = random(rows, shared * group, 1, 8, dtype=dtype)
    key, value = (random(rows, shared, keys, 8, seed=seed, dtype=dtype) for seed in (1, 2))
    seen = None
    if data.draw(st.booleans()):
        seen = random(rows, 1, 1, keys, seed=3) > 0
        seen[..., data.draw(st.integers(0, keys - 1))] = True  # a softmax over nothing is no number
    found = attend_once(query, key, value, seen, scale)
    assert found.shape == (rows, 1, shared * group * 8) and found.dtype == dtype
    found = found.view(rows, shared * group, 8)
    for row in range(rows):
        for head in range(shared * group):
            of_head = key[row, head // group].double(), value[row, head // group].double()
            scores = of_head[0] @ query[row, head, 0].double() * (8**-0.5 if scale is None else scale)
            if seen is not None:
                scores = scores.masked_fill(~seen[row, 0, 0], -torch.inf)
            expected = scores.softmax(0) @ of_head[1]
            exact = 1e-5 if dtype == torch.float32 else 2**-6
            torch.testing.assert_close(found[row, head].double(), expected, rtol=exact, atol=exact)
