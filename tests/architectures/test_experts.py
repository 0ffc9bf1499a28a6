"""A mixture of experts is what a loop over tokens and experts says it is, and it asks the device for nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_helpers.architectures import experts as module
from course_helpers.architectures.experts import GROUPED, Experts, MixtureOfExperts
from tests.operations import Operations

Sizes = tuple[int, int, int, int, bool]  # width, width of an expert, experts, experts a token, normalised or not


@st.composite
def sizes(draw: st.DrawFn, multiple: int = 1) -> Sizes:
    """Sizes of a mixture; with `multiple`, widths are multiples of it."""
    experts = draw(st.integers(1, 9))
    width, hidden = (multiple * draw(st.integers(1, 12 // multiple)) for _ in range(2))
    return width, hidden, experts, draw(st.integers(1, experts)), draw(st.booleans())


def mixture(sizes: Sizes, seed: int, dtype: torch.dtype = torch.float64) -> MixtureOfExperts:
    """Random weights that are large enough for the router to have an opinion."""
    generator = torch.Generator().manual_seed(seed)
    made = MixtureOfExperts(*sizes).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def tokens(rows: int, columns: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(rows, columns, width, generator=generator, dtype=torch.float64).to(dtype)


def swiglu(x_E: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate_F, up_F = (gate_up @ x_E).chunk(2)
    return down @ (gate_F / (1 + torch.exp(-gate_F)) * up_F)


def chosen_experts(scores_X: Tensor, count: int) -> list[int]:
    """The experts with the highest scores, found by comparing each with every other one."""
    values = scores_X.tolist()
    return [i for i, own in enumerate(values) if sum(other > own for other in values) < count]


def brute_force(moe: MixtureOfExperts, x_BTE: Tensor) -> Tensor:
    """The definition, token by token and expert by expert, in the type of the weights."""
    gate_up, down = moe.experts.gate_up, moe.experts.down
    answers = []
    for x_E in x_BTE.flatten(0, 1):
        scores_X = torch.exp(moe.router.weight @ x_E)
        chosen = chosen_experts(scores_X, moe.experts_per_token)
        whole = scores_X[chosen].sum() if moe.normalize else scores_X.sum()
        answers.append(sum(scores_X[i] / whole * swiglu(x_E, gate_up[i], down[i]) for i in chosen))
    return torch.stack(answers).view_as(x_BTE)


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@settings(max_examples=150)
@given(sizes=sizes(), rows=st.integers(1, 3), columns=st.integers(1, 7), seed=st.integers(0, 999))
def test_the_answer_is_that_of_a_loop_over_tokens_and_experts(sizes, rows, columns, seed):
    moe, x = mixture(sizes, seed), tokens(rows, columns, sizes[0], seed)
    # The model takes its probabilities in float32 whatever its type, as transformers does: hence not 1e-12.
    assert relative(moe(x), brute_force(moe, x)) <= 2e-6


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("experts", "per_token"), [(8, 1), (8, 2), (8, 8), (1, 1), (3, 2)])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_top_1_some_and_all_experts_normalised_or_not(normalize, experts, per_token, count):
    sizes = (6, 5, experts, per_token, normalize)
    moe, x = mixture(sizes, seed=experts), tokens(1, count, 6, seed=count)
    assert relative(moe(x), brute_force(moe, x)) <= 2e-6


def test_only_normalised_weights_sum_to_one():
    x_NE = tokens(1, 30, 6, 0)[0]
    for normalize in (True, False):
        _, weight_Nk = mixture((6, 5, 8, 2, normalize), 0).route(x_NE)
        assert torch.allclose(weight_Nk.sum(-1), torch.ones(30, dtype=torch.float64)) == normalize


def test_the_weights_are_probabilities_over_all_experts():
    moe = mixture((2, 3, 4, 2, False), 0)
    moe.router.weight.data = torch.tensor([[0.0, 0], [1, 0], [3, 0], [2, 0]], dtype=torch.float64)
    chosen, weight = moe.route(torch.tensor([[1.0, 7.0]], dtype=torch.float64))
    whole = sum(2.718281828459045**score for score in (0, 1, 3, 2))
    assert chosen.tolist() == [[2, 3]]
    assert weight[0].tolist() == pytest.approx([2.718281828459045**3 / whole, 2.718281828459045**2 / whole], rel=1e-6)


@settings(max_examples=60)
@given(sizes=sizes(), rows=st.integers(2, 4), columns=st.integers(1, 5), seed=st.integers(0, 999))
def test_a_batch_is_its_tokens_alone(sizes, rows, columns, seed):
    moe, x = mixture(sizes, seed), tokens(rows, columns, sizes[0], seed)
    together = moe(x)
    for row in range(rows):
        for column in range(columns):
            alone = moe(x[row : row + 1, column : column + 1])
            torch.testing.assert_close(together[row : row + 1, column : column + 1], alone, rtol=1e-12, atol=1e-12)


def test_an_expert_that_nobody_chose_has_no_part_in_anything():
    moe, x = mixture((6, 5, 8, 2, True), 3), tokens(1, 3, 6, 3)
    used = set(moe.route(x[0])[0].flatten().tolist())
    before = moe(x)
    before.square().sum().backward()
    idle = [i for i in range(8) if i not in used]
    assert len(idle) >= 2 and all(moe.experts.gate_up.grad[i].abs().sum() == 0 for i in idle)
    assert all(moe.experts.gate_up.grad[i].abs().sum() > 0 for i in used)
    with torch.no_grad():
        moe.experts.gate_up[idle] = torch.nan
        moe.experts.down[idle] = torch.nan
    assert torch.equal(moe(x), before)


@settings(max_examples=40)
@given(sizes=sizes(), count=st.integers(1, 9), seed=st.integers(0, 999))
def test_gradients_are_those_of_the_loop(sizes, count, seed):
    moe, x = mixture(sizes, seed), tokens(1, count, sizes[0], seed).requires_grad_()
    gradients = []
    for answer in (moe(x), brute_force(moe, x)):
        gradients.append(torch.autograd.grad(answer.square().sum(), [x, *moe.parameters()]))
    scale = max(gradient.abs().max() for gradient in gradients[1])
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).abs().max() <= 5e-6 * scale


# --- one grouped product, or a loop where torch has none ---


@settings(max_examples=60)
@given(sizes=sizes(multiple=4), count=st.integers(1, 30), seed=st.integers(0, 999))
def test_the_grouped_product_equals_the_loop_that_takes_its_place(sizes, count, seed):
    exact = mixture(sizes, seed)
    x = tokens(1, count, sizes[0], seed, torch.float32)
    expected = exact.double()(x.double())
    with Operations() as grouped:
        found = exact.float()(x)
    assert grouped.count("grouped_mm") == 2
    assert relative(found.double(), expected) <= 1e-5


@pytest.mark.parametrize(
    ("dtype", "width", "hidden", "grouped"),
    [
        (torch.float32, 8, 4, True),
        (torch.float32, 6, 4, False),  # 24 bytes a row
        (torch.float32, 8, 5, False),
        (torch.bfloat16, 8, 16, True),
        (torch.bfloat16, 8, 4, False),  # 8 bytes
        (torch.float64, 8, 4, False),
    ],
)
def test_the_grouped_product_is_used_wherever_torch_takes_it(dtype, width, hidden, grouped):
    assert torch.float32 in GROUPED
    experts = mixture((width, hidden, 3, 1, True), 0, dtype).experts
    x, ends = tokens(1, 7, width, 0, dtype)[0], torch.tensor([2, 2, 7], dtype=torch.int32)
    with Operations() as seen, torch.no_grad():
        found = experts(x, ends)
    assert seen.count("grouped_mm") == (2 if grouped else 0)
    allowed = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert relative(found.double(), apart(experts, x, ends)) <= allowed


def apart(experts: Experts, x_PE: Tensor, ends_X: Tensor) -> Tensor:
    """The answers row by row, in float64."""
    owners = [next(i for i, end in enumerate(ends_X.tolist()) if row < end) for row in range(len(x_PE))]
    parts = zip(x_PE, owners, strict=True)
    answers = [swiglu(x.double(), experts.gate_up[i].double(), experts.down[i].double()) for x, i in parts]
    return torch.stack(answers)


@pytest.mark.parametrize("intel", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "together"), [(1, True), (3, True), (4, False), (9, False)])
def test_for_results_only_experts_go_one_by_one_where_that_is_faster(monkeypatch, intel, dtype, count, together):
    monkeypatch.setattr(module, "INTEL", intel)
    monkeypatch.setattr(module, "MANY", 2)
    moe, x = mixture((16, 8, 4, 2, True), 1, dtype), tokens(1, count, 16, 1, dtype)
    with Operations() as usual, torch.no_grad():
        expected = moe(x)
    with Operations() as seen, torch.inference_mode():
        found = moe(x)
    assert usual.count("grouped_mm") == 2
    assert seen.count("grouped_mm") == (2 if together and (intel or dtype == torch.bfloat16) else 0)
    assert relative(found, expected) <= (1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("some", [0, 1000])
def test_many_rows_of_an_expert_are_filled_up_where_onednn_multiplies(monkeypatch, some):
    monkeypatch.setattr(module, "INTEL", False)
    monkeypatch.setattr(module, "SOME", some)
    monkeypatch.setattr(module, "STEP", 4)
    moe, x = mixture((16, 8, 4, 2, True), 1, torch.float32), tokens(1, 21, 16, 1, torch.float32)
    with torch.no_grad():
        expected, shares = moe(x), moe.route(x[0])[0].flatten().bincount().tolist()
    met, multiply = [], module.linear
    monkeypatch.setattr(module, "linear", lambda rows, weight: met.append(len(rows)) or multiply(rows, weight))
    with torch.inference_mode():
        found = moe(x)
    filled_up = [share if share <= 4 else share + -share % 4 for share in shares]
    assert sorted(met) == sorted(2 * filled_up) and filled_up != shares
    assert relative(found, expected) <= 1e-5


def on_meta(dtype: torch.dtype) -> Tensor:
    """The answer of a mixture whose tensors hold no values: code that looks at one raises an error."""
    with torch.device("meta"):
        return MixtureOfExperts(16, 8, 8, 2, True).to(dtype)(torch.empty(2, 5, 16, dtype=dtype))


def test_nothing_is_asked_of_the_device_on_the_way():
    assert on_meta(torch.bfloat16).shape == (2, 5, 16)
    with pytest.raises(RuntimeError):
        on_meta(torch.float64)  # the loop must ask how many rows each expert has


@settings(max_examples=60)
@given(sizes=sizes(), count=st.integers(1, 20), seed=st.integers(0, 999))
def test_the_answer_is_that_of_transformers(sizes, count, seed):
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    width, hidden, experts, per_token, normalize = sizes
    config = Qwen3MoeConfig(
        hidden_size=width,
        moe_intermediate_size=hidden,
        num_experts=experts,
        num_experts_per_tok=per_token,
        norm_topk_prob=normalize,
        experts_implementation="eager",
    )
    reference, moe = Qwen3MoeSparseMoeBlock(config).double(), mixture(sizes, seed)
    with torch.no_grad():
        reference.gate.weight.copy_(moe.router.weight)
        reference.experts.gate_up_proj.copy_(moe.experts.gate_up)
        reference.experts.down_proj.copy_(moe.experts.down)
    x = tokens(1, count, width, seed)
    with torch.no_grad():
        torch.testing.assert_close(moe(x), reference(x), rtol=1e-10, atol=1e-10)
