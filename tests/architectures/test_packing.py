"""A packed model gives the very same logits, an int8 model nearly; and neither pretends to be what it no longer is."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, generate, load_model, load_weights, open_checkpoint, save_checkpoint
from course_helpers.__main__ import main
from course_helpers.architectures.packing import Int8Matrix, PackedMatrix, nbytes, pack
from tests.bundled import each
from tests.tiny_models import CONFIGS, random_ids, random_model

BRAIN = torch.bfloat16
#: AMX: products of many rows are added up there in an order that depends on how a matrix lies.
HAS_TILES = torch.cpu._is_amx_tile_supported()
every_family = pytest.mark.parametrize("family", CONFIGS)


def ids_for(model, rows: int = 2, tokens: int = 40) -> torch.Tensor:
    return random_ids(model.config.to_hf(), rows, tokens)


def random_matrix(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).to(BRAIN)


@each
def test_packing_changes_no_bit_of_bfloat16(folder):
    plain, packed = load_model(folder, BRAIN), load_model(folder, BRAIN, weights="packed")
    ids = ids_for(plain)
    with torch.inference_mode():
        assert torch.equal(packed(ids[:1, :1]), plain(ids[:1, :1]))
        found, expected = packed(ids), plain(ids)
    if HAS_TILES:
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * expected.abs().max().item())
    else:
        assert torch.equal(found, expected)
    prompts = ids[: 1 if HAS_TILES else None, :5]
    assert torch.equal(generate(packed, prompts, 20), generate(plain, prompts, 20))


@every_family
@settings(max_examples=15)
@given(data=st.data())
def test_packed_models_of_any_shape_give_the_plain_ones_logits(family, data):
    config = data.draw(CONFIGS[family])
    plain, packed = random_model(config), pack(random_model(config), "packed")
    ids = random_ids(config, 2, 9)
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids), plain(ids), rtol=0, atol=1e-5)


@each
def test_int8_is_near_and_smaller(folder):
    plain, whole = load_model(folder, BRAIN), load_model(folder, BRAIN, weights="int8")
    ids = ids_for(plain)
    with torch.inference_mode():
        expected, found = plain(ids).float(), whole(ids).float()
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.8
    assert not torch.equal(found, expected)
    assert whole.load_report.nbytes == nbytes(whole) < 0.56 * plain.load_report.nbytes
    assert whole.num_parameters() == plain.num_parameters() and "(int8)" in str(whole.load_report)


@given(sizes=st.tuples(st.integers(1, 40), st.integers(1, 200)), rows=st.integers(1, 20), seed=st.integers(0, 9))
def test_an_int8_matrix_is_off_by_at_most_half_a_scale(sizes, rows, seed):
    weight, x = random_matrix(*sizes, seed), random_matrix(rows, sizes[1], seed + 1)
    matrix = Int8Matrix(weight)
    written_out = matrix.whole_OI.double() * matrix.scale_O.double()[:, None]
    # The largest value of a row may be cut off by what its scale lost when it was rounded: 2^-8 of it, half a scale.
    assert ((written_out - weight.double()).abs() <= 0.502 * matrix.scale_O.double()[:, None]).all()
    with torch.inference_mode():
        found = matrix(x).double()
    expected = x.double() @ written_out.T
    torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-6 * sizes[1] ** 0.5)


def test_an_int8_matrix_is_looked_up_in_by_rows_and_carries_its_bias():
    weight, bias = random_matrix(30, 64), random_matrix(1, 30)[0]
    matrix, ids = Int8Matrix(weight), torch.tensor([[3, 3], [29, 0]])
    assert (matrix.rows(ids) - weight[ids]).abs().max() <= matrix.scale_O.max() and matrix.rows(ids).shape == (2, 2, 64)
    x = random_matrix(2, 64)
    with torch.inference_mode():
        torch.testing.assert_close(Int8Matrix(weight, bias)(x), matrix(x) + bias)


def test_a_row_of_zeros_stays_zero_in_int8():
    weight = random_matrix(4, 32)
    weight[2] = 0
    with torch.inference_mode():
        found = Int8Matrix(weight)(random_matrix(3, 32, seed=5))
    assert (found[:, 2] == 0).all() and found.isfinite().all()


@pytest.mark.parametrize("weights", ["packed", "int8"])
def test_no_plain_matrix_is_kept(weights):
    model = load_model("tiny-qwen3", BRAIN)
    before = {name: weakref.ref(parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1}
    pack(model, weights)
    kept = {name for name, parameter in before.items() if parameter() is not None}
    # In the packed form, a tied head needs the embedding beside it; int8 rows can be looked up in.
    assert kept == ({"token_embedding.weight"} if weights == "packed" else set())
    assert model.device.type == "cpu" and model.dtype == BRAIN


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen3"])
def test_bytes_are_counted_as_they_are(name):
    plain = load_model(name, BRAIN)
    sizes = {parameter.dim() > 1: 0 for parameter in plain.parameters()}
    for parameter in plain.parameters():
        matrix = parameter.dim() > 1
        sizes[matrix] += parameter.numel() + 2 * parameter.shape[0] if matrix else parameter.nbytes
    assert nbytes(load_model(name, BRAIN, weights="int8")) == sum(sizes.values())
    twice = plain.token_embedding.weight.nbytes if plain.output_head is None else 0
    assert nbytes(load_model(name, BRAIN, weights="packed")) == nbytes(plain) + twice


def refused(what):
    return pytest.raises(CheckpointError, match=what)


@pytest.mark.parametrize("weights", ["packed", "int8"])
def test_a_packed_model_says_what_it_cannot_do(weights, tmp_path):
    model = load_model("tiny-gemma3", BRAIN, weights=weights)
    with refused("cannot be saved"):
        save_checkpoint(model, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with refused("cannot give its weights away"):
        model.state_dict()
    with refused("cannot give its weights away"):
        open_checkpoint(model)
    with refused("cannot take other weights"):
        load_weights(model, "tiny-gemma3")
    with refused("cannot be packed again"):
        pack(model, "packed")
    with pytest.raises(ValueError, match="cannot be moved or cast"):
        model.to(torch.float32)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert generate(model, [[1, 2, 3]], 4) == generate(model, [[1, 2, 3]], 4)  # and is none the worse for it


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown form of weights 'small'; there are: plain, packed, int8"):
        load_model("tiny-qwen3", weights="small")
    with pytest.raises(ValueError, match="and this model is torch\\.float32"):
        load_model("tiny-qwen3", torch.float32, weights="int8")


def test_matrices_that_onednn_has_no_better_order_for_stay_as_they_are():
    weight = random_matrix(8, 8).float()
    matrix = PackedMatrix(weight)
    assert not matrix.is_packed and matrix.weight is weight


def test_the_command_line_takes_the_form(capsys):
    words = ["generate", "tiny-llama3", "--prompt", "Once", "--max-new-tokens", "12", "--dtype", "bfloat16"]
    assert main(words) == 0
    plain = capsys.readouterr().out
    assert main([*words, "--weights", "packed"]) == 0 and capsys.readouterr().out == plain
    assert main(["generate", "tiny-llama3", "--prompt", "Once", "--dtype", "float32", "--weights", "int8"]) == 1
    assert "dtype=torch.bfloat16" in capsys.readouterr().err
