"""Every strategy reads every format of every family into the same model, to the bit."""

import pytest
import torch
from torch import nn

from course_helpers import FAMILIES, load_model, load_weights, open_checkpoint
from course_helpers.loaders.strategies import STRATEGIES
from tests.formats import FORMATS
from tests.tiny_models import EXAMPLES, logits_of, ours, random_ids, same_parameters, theirs

every_family = pytest.mark.parametrize("family", FAMILIES)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_format = pytest.mark.parametrize("format", FORMATS)
either_head = pytest.mark.parametrize("tied", [True, False])


@every_family
@either_head
@every_format
@every_strategy
def test_every_strategy_reads_every_format(family, tied, format, strategy, tmp_path):
    reference = theirs(EXAMPLES[family] | {"tie_word_embeddings": tied})
    source, config = FORMATS[format](reference, tmp_path)
    model = load_model(source, config=config, strategy=strategy)
    ids = random_ids(EXAMPLES[family], 2, 20)
    assert same_parameters(model, load_model(reference, strategy="naive"))
    assert (logits_of(model, ids) - logits_of(reference, ids)).abs().max() <= 1e-5
    assert not model.training and all(is_usable(parameter) for parameter in model.parameters())
    assert (model.output_head is None) == tied and not list(model.buffers())


def is_usable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_leaf and parameter.is_contiguous() and not parameter.is_meta


@every_family
@every_format
def test_weights_in_hand_are_replaced_from_every_format(family, format, tmp_path):
    reference = theirs(EXAMPLES[family], seed=1)
    source, _ = FORMATS[format](reference, tmp_path)
    model = ours(EXAMPLES[family], seed=0)
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    load_weights(model, source)
    assert same_parameters(model, load_model(reference)) and pointers == [p.data_ptr() for p in model.parameters()]


@every_family
@every_format
@pytest.mark.parametrize("strategy", ["naive", "sequential", "stream"])
def test_no_parameter_holds_on_to_more_memory_than_its_own(family, format, strategy, tmp_path):
    source, config = FORMATS[format](theirs(EXAMPLES[family]), tmp_path)
    model = load_model(source, config=config, strategy=strategy)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


@every_family
@every_strategy
@pytest.mark.parametrize("format", ["safetensors", "bin", "live"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_dtype_that_is_asked_for_is_a_plain_cast(family, strategy, format, dtype, tmp_path):
    source, _ = FORMATS[format](theirs(EXAMPLES[family]), tmp_path)
    model = load_model(source, dtype=dtype, strategy=strategy)
    assert model.dtype == dtype and {p.dtype for p in model.parameters()} == {dtype}
    assert same_parameters(model, load_model(source).to(dtype)) and model.load_report.dtype == dtype


@every_family
@every_strategy
def test_tensors_of_several_types_become_the_widest(family, strategy, tmp_path):
    tensors = theirs(EXAMPLES[family]).state_dict()
    mixed = {name: t.to(torch.bfloat16) if i % 2 else t for i, (name, t) in enumerate(tensors.items())}
    mixed.pop("lm_head.weight")
    config = EXAMPLES[family] | {"tie_word_embeddings": True}
    model = load_model(mixed, config=config, strategy=strategy)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@every_family
@either_head
@every_strategy
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_a_loaded_model_trains(family, tied, strategy, format, tmp_path):
    source, _ = FORMATS[format](theirs(EXAMPLES[family] | {"tie_word_embeddings": tied}), tmp_path)
    model, ids = load_model(source, strategy=strategy).train(), random_ids(EXAMPLES[family], 2, 12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert same_parameters(load_model(source), ours(EXAMPLES[family] | {"tie_word_embeddings": tied}))  # file untouched


@every_family
@pytest.mark.parametrize("format", FORMATS)
def test_an_open_checkpoint_lists_and_reads_every_tensor(family, format, tmp_path):
    source, config = FORMATS[format](theirs(EXAMPLES[family]), tmp_path)
    with open_checkpoint(source, config) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
        assert all(checkpoint.shape(name) == tuple(t.shape) for name, t in tensors.items())
        assert all(checkpoint.dtype(name) == t.dtype for name, t in tensors.items())
        assert all(torch.equal(checkpoint.map(name), t) for name, t in tensors.items())
        assert checkpoint.nbytes == sum(t.nbytes for t in tensors.values()) > 0
        assert checkpoint.config["model_type"] == EXAMPLES[family]["model_type"]
    assert checkpoint.names() == []


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="unknown strategy 'fast'; there are: naive, sequential, mmap, stream"):
        load_model("nowhere", strategy="fast")
