"""Meta's own layout: every shape and every cut of it becomes the model that transformers has, to the bit."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_helpers import load_model, load_weights, open_checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from tests import formats
from tests.formats import META_CONFIG as CONFIG
from tests.formats import META_FORMATS, meta, meta_params, meta_tensors
from tests.loaders.refusals import refusal_in_hand
from tests.tiny_models import Data, logits_of, random_ids, same_parameters, theirs

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_format = pytest.mark.parametrize("format", META_FORMATS)


def llama(heads: int, shared: int, head_dim: int, **others) -> Data:
    sizes = {"num_attention_heads": heads, "num_key_value_heads": shared, "hidden_size": heads * head_dim}
    return CONFIG | sizes | others


#: In the proportions of the released models: 7B has a head for every query, 70B eight heads that are shared.
SMALL_7B, SMALL_13B, SMALL_70B = llama(4, 4, 6), llama(10, 10, 4), llama(16, 8, 4)
RELEASED = [(SMALL_7B, 1), (SMALL_13B, 2), (SMALL_70B, 1), (SMALL_70B, 2), (SMALL_70B, 4), (SMALL_70B, 8)]


@pytest.mark.parametrize(("config", "shards"), RELEASED)
@pytest.mark.parametrize("embedding_cut", [0, 1])
@every_strategy
def test_every_released_shape_is_the_model_that_transformers_has(config, shards, embedding_cut, strategy, tmp_path):
    reference, ids = theirs(config), random_ids(config, 2, 40)
    meta(shards, embedding_cut)(reference, tmp_path)
    model = load_model(tmp_path, strategy=strategy)
    assert same_parameters(model, load_model(reference))
    assert (logits_of(model, ids) - logits_of(reference, ids)).abs().max() <= 1e-5
    assert model.config == load_model(reference).config
    assert (model.load_report.format, model.load_report.layout) == ("meta", "meta")
    assert set(model.load_report.dropped) == {"rope.freqs"}


def meta_logits(tensors: dict[str, Tensor], params: Data, ids: Tensor) -> Tensor:
    """What Meta's program computes: rotary positions as a complex number for each pair of neighbours."""
    heads, shared, length = params["n_heads"], params.get("n_kv_heads", params["n_heads"]), ids.shape[1]
    head_dim = params["dim"] // heads
    angles = torch.outer(torch.arange(length), 1e4 ** (-torch.arange(0, head_dim, 2) / head_dim))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    future = torch.full((length, length), -math.inf).triu(1)

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * tensors[name]

    def rotated(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)

    x = tensors["tok_embeddings.weight"][ids]
    for layer in range(params["n_layers"]):
        own = f"layers.{layer}"
        w = {name: tensors[f"{own}.attention.{name}.weight"].T for name in ("wq", "wk", "wv", "wo")}
        y = norm(x, f"{own}.attention_norm.weight")
        query, key = (rotated((y @ w[name]).unflatten(-1, (-1, head_dim))) for name in ("wq", "wk"))
        value = (y @ w["wv"]).unflatten(-1, (-1, head_dim))
        key, value = (t.repeat_interleave(heads // shared, dim=2) for t in (key, value))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(head_dim) + future
        x = x + torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2) @ w["wo"]
        y = norm(x, f"{own}.ffn_norm.weight")
        w = {name: tensors[f"{own}.feed_forward.{name}.weight"].T for name in ("w1", "w2", "w3")}
        x = x + (torch.nn.functional.silu(y @ w["w1"]) * (y @ w["w3"])) @ w["w2"]
    return norm(x, "norm.weight") @ tensors["output.weight"].T


@pytest.mark.parametrize("config", [SMALL_7B, SMALL_13B, SMALL_70B])
def test_the_logits_are_those_of_metas_own_computation(config, tmp_path):
    reference, ids = theirs(config), random_ids(config, 2, 40)
    meta()(reference, tmp_path)
    tensors, params = torch.load(tmp_path / "consolidated.00.pth"), meta_params(config)
    difference = logits_of(load_model(tmp_path), ids) - meta_logits(tensors, params, ids)
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("kept", [("wq", "wk"), ("wq",), ("wk",)])
def test_rows_that_are_not_in_metas_order_fit_and_give_another_model(kept, tmp_path, monkeypatch):
    reference, ids = theirs(SMALL_70B), random_ids(SMALL_70B, 2, 40)
    calls = iter(("wq", "wk") * 2)
    pairs = formats.in_pairs
    monkeypatch.setattr(formats, "in_pairs", lambda rows, dim: rows if next(calls) in kept else pairs(rows, dim))
    meta()(reference, tmp_path)
    assert (logits_of(load_model(tmp_path), ids) - logits_of(reference, ids)).abs().max() > 0.1


@settings(max_examples=200)
@given(st.data())
def test_random_shapes(data):
    shards = data.draw(st.sampled_from([1, 1, 2, 3, 4]))
    shared, ratio = shards * data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    config = llama(
        shared * ratio,
        shared,
        data.draw(st.sampled_from([2, 4])),
        intermediate_size=shards * data.draw(st.integers(2, 12)),
        vocab_size=shards * data.draw(st.integers(9, 20)),
        num_hidden_layers=data.draw(st.integers(1, 3)),
        rms_norm_eps=data.draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        tie_word_embeddings=data.draw(st.booleans()),
    )
    cut = data.draw(st.integers(0, 1))
    zipped, strategy = data.draw(st.booleans()), data.draw(st.sampled_from(list(STRATEGIES)))
    reference = theirs(config, dtype=data.draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16])))
    with TemporaryDirectory() as folder:
        meta(shards, cut, zipped)(reference, Path(folder))
        model = load_model(folder, strategy=strategy)
        one_matrix = config["tie_word_embeddings"] and shards == 1  # in several files, the writer makes two of them
        expected = load_model(reference.state_dict(), config=config | {"tie_word_embeddings": one_matrix})
        assert model.config == expected.config and same_parameters(model, expected)
        if model.dtype == torch.float32:
            ids = random_ids(config, 2, 24)
            assert (logits_of(model, ids) - logits_of(reference, ids)).abs().max() <= 1e-5


@every_format
@every_strategy
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_every_strategy_makes_a_model_of_its_own(format, strategy, dtype, tmp_path):
    reference = theirs(CONFIG)
    META_FORMATS[format](reference, tmp_path)
    model = load_model(tmp_path, strategy=strategy, dtype=dtype)
    assert same_parameters(model, load_model(reference, dtype=dtype))
    assert all(p.requires_grad and p.is_leaf and p.is_contiguous() and not p.is_meta for p in model.parameters())
    if strategy != "mmap":
        assert all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())
        for path in tmp_path.glob("*.pth"):
            with open(path, "r+b") as file:
                file.write(bytes(path.stat().st_size))
        assert same_parameters(model, load_model(reference, dtype=dtype))


@every_format
def test_an_open_checkpoint_reads_peeks_and_maps_the_same(format, tmp_path):
    META_FORMATS[format](theirs(CONFIG), tmp_path)
    scratch = torch.empty(64 * 64 * 4, dtype=torch.uint8)
    expected = {name: tensor for name, (tensor, _) in meta_tensors(theirs(CONFIG)).items()}
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "meta" and set(checkpoint.names()) == set(expected)
        assert checkpoint.nbytes == sum(tensor.nbytes for tensor in expected.values())
        for name, tensor in expected.items():
            assert checkpoint.shape(name) == tuple(tensor.shape) and checkpoint.dtype(name) == tensor.dtype
            for found in (checkpoint.read(name), checkpoint.map(name), checkpoint.peek(name, scratch)):
                assert torch.equal(found, tensor)
            assert checkpoint.read(name).data_ptr() != checkpoint.map(name).data_ptr()


@every_format
def test_one_file_is_mapped_and_parts_are_put_together(format, tmp_path):
    META_FORMATS[format](theirs(CONFIG), tmp_path)
    scratch = torch.empty(64 * 64 * 4, dtype=torch.uint8)
    with open_checkpoint(tmp_path) as checkpoint:
        for name in checkpoint.names():
            window = checkpoint.map(name)
            cut = format.startswith("2") and window.dim() == 2
            assert (checkpoint.map(name).data_ptr() == window.data_ptr()) == (not cut)
            assert (checkpoint.peek(name, scratch).data_ptr() == scratch.data_ptr()) == format.startswith("2")


@every_format
def test_weights_in_hand_are_replaced(format, tmp_path):
    META_FORMATS[format](theirs(CONFIG, seed=1), tmp_path)
    model = load_model(theirs(CONFIG, seed=0))
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    load_weights(model, tmp_path)
    assert same_parameters(model, load_model(theirs(CONFIG, seed=1)))
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rms_norm_eps": 1e-2}, "rms_norm_eps"),
        ({"rope_theta": 5e5}, "rope_parameters"),
        ({"num_key_value_heads": 8}, "num_key_value_heads"),
        ({"max_position_embeddings": 8192}, "max_position_embeddings"),
    ],
)
def test_weights_of_another_config_are_refused_for_a_model_in_hand(change, field, tmp_path):
    meta(2)(theirs(CONFIG), tmp_path)
    assert refusal_in_hand(load_model(theirs(CONFIG | change)), tmp_path).field == field


def test_the_head_is_tied_where_the_file_has_one_matrix_for_both(tmp_path):
    config = CONFIG | {"tie_word_embeddings": True}
    for shards in (1, 2):
        meta(shards, embedding_cut=0)(theirs(config), tmp_path / str(shards))
        for with_head in (True, False):
            for path in (tmp_path / str(shards)).glob("*.pth"):
                tensors = torch.load(path) | {"output.weight": None}
                tensors["output.weight"] = tensors["tok_embeddings.weight"]
                torch.save(tensors if with_head else {k: t for k, t in tensors.items() if "output" not in k}, path)
            model = load_model(tmp_path / str(shards))
            assert model.output_head is None and same_parameters(model, load_model(theirs(config)))
            assert ("output.weight" in model.load_report.dropped) == with_head
