"""The small parts, to the bit: where each family rounds, and by how much Gemma enlarges its embeddings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_helpers.architectures.gemma3 import Gemma3Config, Gemma3Model, Gemma3RMSNorm
from course_helpers.architectures.layers import RMSNorm, gelu_new
from course_helpers.architectures.olmo3 import Olmo3RMSNorm
from tests.tiny_models import EXAMPLES, ours

#: Our norm -> the transformers modules that it must equal.
NORMS = {
    RMSNorm: ("llama.LlamaRMSNorm", "qwen3.Qwen3RMSNorm", "qwen3_moe.Qwen3MoeRMSNorm"),
    Gemma3RMSNorm: ("gemma3.Gemma3RMSNorm",),
    Olmo3RMSNorm: ("olmo3.Olmo3RMSNorm",),
}
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def their_module(name: str, *arguments: object, **options: object) -> nn.Module:
    from importlib import import_module

    family, cls = name.split(".")
    return getattr(import_module(f"transformers.models.{family}.modeling_{family}"), cls)(*arguments, **options)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_weight(norm: nn.Module, weight: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        norm.weight.copy_(weight)
    return norm.to(weight.dtype)


@every_dtype
@pytest.mark.parametrize(
    ("norm", "name"), [(norm, name) for norm, names in NORMS.items() for name in names], ids=lambda value: str(value)
)
@settings(max_examples=30)
@given(width=st.integers(1, 40), eps=st.sampled_from([1e-6, 1e-5, 1e-2]), seed=st.integers(0, 999))
def test_norms_are_those_of_transformers_to_the_bit(norm, name, dtype, width, eps, seed):
    x, weight = (3 * draw(5, 4, width, seed=seed)).to(dtype), draw(width, seed=seed + 1).to(dtype)
    expected = with_weight(their_module(name, width, eps=eps), weight)(x)
    found = with_weight(norm(width, eps), weight)(x)
    assert found.dtype == dtype and torch.equal(found, expected)


def test_in_bfloat16_the_order_of_scaling_and_rounding_can_be_seen():
    x, weight = draw(50, 64, seed=0).bfloat16(), draw(64, seed=1).bfloat16()
    first, last = (with_weight(norm(64, 1e-6), weight)(x) for norm in (RMSNorm, Olmo3RMSNorm))
    assert not torch.equal(first, last)
    torch.testing.assert_close(first, last, rtol=2**-7, atol=0)


def test_the_norms_of_gemma_scale_by_one_more_than_the_weight():
    x = torch.tensor([[3.0, 4.0]])  # mean square 12.5
    expected = x / 12.5**0.5 * torch.tensor([1.5, 0.0])
    found = with_weight(Gemma3RMSNorm(2, 1e-12), torch.tensor([0.5, -1.0]))(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(Gemma3RMSNorm(2, 1e-12)(x), x / 12.5**0.5)  # as it is built, it changes nothing more


@pytest.mark.parametrize("norm", NORMS)
def test_the_square_is_taken_in_float32(norm):
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # 300 ** 2 is more than float16 can hold
    assert norm(4, 1e-6).half()(x).tolist() == [[1.0] * 4]


@every_dtype
@settings(max_examples=30)
@given(width=st.integers(1, 700), seed=st.integers(0, 999))
def test_gemma_enlarges_its_embeddings_as_transformers_does(dtype, width, seed):
    table = draw(9, width, seed=seed).to(dtype)
    reference = their_module(
        "gemma3.Gemma3TextScaledWordEmbedding", 9, width, padding_idx=None, embed_scale=width**0.5
    ).to(dtype)
    model = gemma(width).to(dtype)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        reference.weight.copy_(table)
        model.token_embedding.weight.copy_(table)
        assert torch.equal(model.embed(ids, ids), reference(ids))


def gemma(width: int) -> Gemma3Model:
    sizes = {"vocab_size": 9, "hidden_size": width, "num_hidden_layers": 1}
    return Gemma3Model(Gemma3Config.from_hf(EXAMPLES["gemma3"] | sizes))


@pytest.mark.parametrize(
    ("width", "dtype", "scale"),
    [
        (640, torch.bfloat16, 25.25),
        (640, torch.float16, 25.296875),
        (640, torch.float32, 25.298221281347036),
        (1152, torch.bfloat16, 34.0),
        (2560, torch.bfloat16, 50.5),
    ],
)
def test_the_scale_of_gemmas_embeddings_is_rounded_to_the_models_type(width, dtype, scale):
    model, ids = gemma(width).to(dtype), torch.tensor([[3]])
    with torch.no_grad():
        model.token_embedding.weight.fill_(1.0)
    assert model.embed(ids, ids).unique().tolist() == pytest.approx([scale], rel=1e-7)


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "olmo3"])
def test_attention_scores_are_scaled_as_the_config_says(family):
    scales = {block.attention.scale for block in ours(EXAMPLES[family]).blocks}
    assert scales == ({20**-0.5} if family == "gemma3" else {None})


def test_gelu_is_the_formula_of_gpt2():
    from transformers.activations import NewGELUActivation

    x = 4 * draw(1000, seed=0)
    assert torch.equal(gelu_new(x), NewGELUActivation()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_for_results_only_gelu_is_one_operation_that_computes_the_same(dtype):
    x = (4 * draw(1000, seed=0)).to(dtype)
    expected = gelu_new(x.double())
    with torch.inference_mode():
        found = gelu_new(x)
    assert torch.equal(found, torch.nn.functional.gelu(x, approximate="tanh"))
    exact = 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), expected, rtol=exact, atol=exact)
