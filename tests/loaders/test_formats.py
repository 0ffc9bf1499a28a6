"""Every strategy reads every format of every family into the same model, to the bit."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from course_helpers import FAMILIES, load_model, load_weights, open_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.strategies import STRATEGIES
from tests.formats import FORMATS, Source
from tests.tiny_models import EXAMPLES, logits_of, random_ids, same_parameters, theirs

every_family = pytest.mark.parametrize("family", FAMILIES)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_format = pytest.mark.parametrize("format", FORMATS)
either_head = pytest.mark.parametrize("tied", [True, False])

# Made once, and read in every way: no test here changes them, nor any file of them.


@functools.cache
def reference(family: str, seed: int = 0, **fields: object) -> nn.Module:
    """The transformers model of a family's example, with some fields of its config changed."""
    return theirs(EXAMPLES[family] | fields, seed)


@functools.cache
def expected(family: str, **fields: object) -> tuple[LanguageModel, torch.Tensor]:
    """What must be loaded, and the logits that it must give."""
    model = reference(family, **fields)
    return load_model(model, strategy="naive"), logits_of(model, random_ids(EXAMPLES[family], 2, 20))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Callable[..., Source]:
    """written(format, family, ...): the reference in a format."""

    @functools.cache
    def write(format: str, family: str, **options: object) -> Source:
        return FORMATS[format](reference(family, **options), tmp_path_factory.mktemp("checkpoint"))

    return write


@every_family
@either_head
@every_format
@every_strategy
def test_every_strategy_reads_every_format(family, tied, format, strategy, written):
    source, config = written(format, family, tie_word_embeddings=tied)
    model = load_model(source, config=config, strategy=strategy)
    wanted, logits = expected(family, tie_word_embeddings=tied)
    assert same_parameters(model, wanted)
    assert (logits_of(model, random_ids(EXAMPLES[family], 2, 20)) - logits).abs().max() <= 1e-5
    assert not model.training and all(is_usable(parameter) for parameter in model.parameters())
    assert (model.output_head is None) == tied and not list(model.buffers())


def is_usable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.is_leaf and parameter.is_contiguous() and not parameter.is_meta


@every_family
@every_format
def test_weights_in_hand_are_replaced_from_every_format(family, format, written):
    source, _ = written(format, family, seed=1)
    model = load_model(reference(family, seed=0))
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    load_weights(model, source)
    assert same_parameters(model, expected(family, seed=1)[0]) and pointers == [
        p.data_ptr() for p in model.parameters()
    ]


@every_family
@every_format
@pytest.mark.parametrize("strategy", ["naive", "sequential", "stream"])
def test_no_parameter_holds_on_to_more_memory_than_its_own(family, format, strategy, written):
    source, config = written(format, family)
    model = load_model(source, config=config, strategy=strategy)
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


@every_family
@every_strategy
@pytest.mark.parametrize("format", ["safetensors", "bin", "live"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_dtype_that_is_asked_for_is_a_plain_cast(family, strategy, format, dtype, written):
    source, _ = written(format, family)
    model = load_model(source, dtype=dtype, strategy=strategy)
    assert model.dtype == dtype and {p.dtype for p in model.parameters()} == {dtype}
    assert same_parameters(model, load_model(source).to(dtype)) and model.load_report.dtype == dtype


@every_family
@every_strategy
def test_tensors_of_several_types_become_the_widest(family, strategy):
    tensors = reference(family).state_dict()
    mixed = {name: t.to(torch.bfloat16) if i % 2 else t for i, (name, t) in enumerate(tensors.items())}
    mixed.pop("lm_head.weight")
    config = EXAMPLES[family] | {"tie_word_embeddings": True}
    model = load_model(mixed, config=config, strategy=strategy)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@every_family
@either_head
@every_strategy
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_a_loaded_model_trains(family, tied, strategy, format, written):
    source, _ = written(format, family, tie_word_embeddings=tied)
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
    assert same_parameters(load_model(source), expected(family, tie_word_embeddings=tied)[0])  # file untouched


@every_family
@pytest.mark.parametrize("format", FORMATS)
def test_an_open_checkpoint_lists_and_reads_every_tensor(family, format, written):
    source, config = written(format, family)
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


@every_family
def test_a_config_is_taken_as_a_mapping_as_ours_and_as_that_of_transformers(family):
    model = expected(family)[0]
    for config in (model.config, model.config.to_hf(), reference(family).config):
        again = load_model(reference(family).state_dict(), config=config)
        assert again.config == model.config and same_parameters(again, model)
