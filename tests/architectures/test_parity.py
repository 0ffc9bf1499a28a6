"""Our models compute what transformers' models compute."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from course_helpers import FAMILIES, load_model
from tests.tiny_models import (
    CONFIGS,
    EXAMPLES,
    LONGEST,
    Data,
    logits_of,
    one_of,
    random_ids,
    same_parameters,
    theirs,
    write_config,
)

#: Fewer where many versions are tried one after the other (tools/compatibility.py).
EXAMPLES_A_FAMILY = int(os.environ.get("COURSE_EXAMPLES", "300"))
every_family = pytest.mark.parametrize("family", FAMILIES)


def loaded(route: str, model: torch.nn.Module, config: Data) -> torch.nn.Module:
    """Our model: of the live one, of what transformers writes, or of that with the config.json drawn."""
    if route == "live":
        return load_model(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if route == "as drawn":
            write_config(Path(folder), config)
        return load_model(folder)


def test_every_family_is_covered():
    assert CONFIGS.keys() == EXAMPLES.keys() == FAMILIES.keys()


#: Files are read in other tests, too; here most models go straight from memory to memory.
routes = one_of("live", "live", "live", "live", "as transformers writes it", "as drawn")


@every_family
@settings(max_examples=EXAMPLES_A_FAMILY)
@given(data=st.data(), seed=st.integers(0, 999), deviation=st.floats(0.05, 0.1))
def test_logits_equal_those_of_transformers(family, data, seed, deviation):
    config = data.draw(CONFIGS[family])
    reference = theirs(config, seed, deviation)
    model = loaded(data.draw(routes), reference, config)
    ids = random_ids(config, 2, LONGEST, seed)
    expected = logits_of(reference, ids)
    assert (logits_of(model, ids) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("family", ["llama3"])
def test_an_original_context_beside_rope_scaling_counts_as_it_does_in_transformers(family):
    config = EXAMPLES[family] | {"original_max_position_embeddings": 32}
    ids = random_ids(config, 2, LONGEST)
    expected = logits_of(theirs(config), ids)
    assert (logits_of(load_model(theirs(config), config=config), ids) - expected).abs().max() <= 1e-5
    assert (logits_of(load_model(theirs(EXAMPLES[family])), ids) - expected).abs().max() > 1e-2


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Root mean square of the error, as a part of that of the truth."""
    return ((found.double() - truth).pow(2).mean() / truth.pow(2).mean()).sqrt().item()


@every_family
def test_the_bfloat16_model_to_compare_with_is_the_one_that_transformers_loads(family, tmp_path):
    reference = theirs(EXAMPLES[family])
    reference.save_pretrained(tmp_path)
    kinds = {"attn_implementation": "eager", "experts_implementation": "eager"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, **kinds).eval()
    made, ids = theirs(EXAMPLES[family], dtype=torch.bfloat16), random_ids(EXAMPLES[family], 2, LONGEST)
    assert same_parameters(made, loaded) and torch.equal(logits_of(made, ids), logits_of(loaded, ids))
    frequencies = {name: buffer for name, buffer in made.named_buffers() if name.endswith("inv_freq")}
    assert bool(frequencies) == (family != "gpt2")
    assert all(torch.equal(buffer, reference.get_buffer(name)) for name, buffer in frequencies.items())


@every_family
def test_bfloat16_is_as_close_to_the_truth_as_transformers_is(family):
    """The truth: the same bfloat16 weights in float64 arithmetic, with rotary frequencies that nobody rounded to
    bfloat16. Errors are pooled over many models: in a single one, two experts whose scores tie may be chosen
    differently by ours, by transformers, or by both."""
    errors = []

    @settings(max_examples=60)
    @given(data=st.data(), seed=st.integers(0, 999), deviation=st.floats(0.05, 0.1))
    def measure(data, seed, deviation):
        config = data.draw(CONFIGS[family])
        rounded = theirs(config, seed, deviation, dtype=torch.bfloat16)
        ids = random_ids(config, 2, LONGEST, seed)
        found, expected = logits_of(load_model(rounded), ids), logits_of(rounded, ids)
        truth = logits_of(rounded.double(), ids)
        errors.append([relative_error(found, truth), relative_error(expected, truth)])

    measure()
    ours, transformers = torch.tensor(errors).unbind(dim=1)
    assert (ours / transformers).median() <= 1.05
    assert ours.square().mean() <= 1.25**2 * transformers.square().mean() and ours.square().mean() <= 0.015**2


@every_family
def test_a_bfloat16_checkpoint_gives_a_bfloat16_model(family):
    model = load_model(theirs(EXAMPLES[family], dtype=torch.bfloat16))
    assert (
        model.dtype == torch.bfloat16 and logits_of(model, random_ids(EXAMPLES[family], 1, 3)).dtype == torch.bfloat16
    )


@every_family
def test_last_only_is_the_last_column_of_all_logits(family):
    model, ids = load_model(theirs(EXAMPLES[family])), random_ids(EXAMPLES[family], 3, 9)
    torch.testing.assert_close(logits_of(model, ids, last_only=True), logits_of(model, ids)[:, -1:], rtol=0, atol=2e-6)


@every_family
@pytest.mark.parametrize("ids", [torch.zeros(4, dtype=torch.int64), torch.zeros(1, 4), torch.zeros(1, 2, 3).long()])
def test_anything_but_a_matrix_of_integers_is_refused(family, ids):
    with pytest.raises(ValueError, match="integer tensor of shape"):
        load_model(theirs(EXAMPLES[family]))(ids)


@every_family
def test_gradients_reach_every_parameter(family):
    model, ids = load_model(theirs(EXAMPLES[family])), random_ids(EXAMPLES[family], 2, 9)
    model(ids).logsumexp(-1).sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if "key.bias" not in n
    )
