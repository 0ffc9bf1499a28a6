"""The size formulas equal what is really held: by parameters, caches, an optimizer, and in the middle of a pass."""

import dataclasses

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from course_helpers import FAMILIES
from course_helpers.memory import (
    MIB,
    activation_bytes,
    kv_cache_bytes,
    measure_in_subprocess,
    parameter_count,
    training_bytes,
    training_parts,
    weight_bytes,
)
from course_helpers.training import next_token_loss
from tests.tiny_models import EXAMPLES, ours, random_ids, random_model

every_family = pytest.mark.parametrize("name", FAMILIES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@every_family
@dtypes
def test_weights_and_caches_to_the_byte(name, dtype):
    model = ours(EXAMPLES[name], dtype=dtype)
    cache = model.make_cache(3, 29)
    assert kv_cache_bytes(model.config, 29, batch_size=3, dtype=dtype) == cache.nbytes
    assert weight_bytes(model.config, dtype) == sum(parameter.nbytes for parameter in model.parameters())
    assert parameter_count(FAMILIES[name].model, model.config) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_counted_once(tied):
    config = ours(EXAMPLES["qwen3"] | {"tie_word_embeddings": tied}).config
    embedding = config.vocab_size * config.hidden_size
    untied = dataclasses.replace(config, tie_word_embeddings=False)
    assert weight_bytes(untied, torch.float32) - weight_bytes(config, torch.float32) == (4 * embedding if tied else 0)


@every_family
@dtypes
def test_training_state_to_the_byte(name, dtype):
    model = ours(EXAMPLES[name], dtype=dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = random_ids(EXAMPLES[name], 2, 9)
    next_token_loss(model, ids[:, :-1], ids[:, 1:]).backward()
    optimizer.step()
    held = {
        "weights": [*model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "AdamW's moments": [tensor for state in optimizer.state.values() for tensor in state.values()],
    }
    measured = {what: sum(tensor.nbytes for tensor in tensors) for what, tensors in held.items()}
    assert training_parts(model.config, dtype) == measured
    assert training_bytes(model.config, dtype) == sum(measured.values())


def allocated_peak(model, ids, last_only: bool) -> int:
    """The most bytes that torch's allocator gave out at once during a pass, above what it had given out before.

    Without oneDNN: on processors with bfloat16 instructions it copies a matrix inside a product, which is not counted.
    """
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        model(ids, last_only=last_only)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            model(ids, last_only=last_only)
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


#: Rows that are whole multiples of 16 bytes, as in every released model; experts of other sizes are not predicted.
ALIGNED = {"moe_intermediate_size": 16}


@every_family
@dtypes
@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("vocabulary", [61, 700])
def test_activations_are_what_torch_allocates(name, dtype, last_only, vocabulary):
    config = (
        EXAMPLES[name] | {"vocab_size": vocabulary} | {key: ALIGNED[key] for key in ALIGNED if key in EXAMPLES[name]}
    )
    model = ours(config, dtype=dtype)
    predicted = activation_bytes(model.config, 3, 40, dtype, last_only)
    measured = allocated_peak(model, random_ids(config, 3, 40), last_only)
    # Where an operation mixes types (OLMo 3's float32 rotation of bfloat16 queries), the CPU casts inside it.
    assert 0.85 * measured < predicted < 1.01 * measured
    if dtype == torch.float32:
        assert predicted > 0.99 * measured


def test_activations_do_not_grow_with_layers():
    config = FAMILIES["llama3"].presets["meta-llama/Llama-3.2-1B"]
    deeper = dataclasses.replace(config, num_hidden_layers=2 * config.num_hidden_layers)
    assert activation_bytes(config, 1, 64) == activation_bytes(deeper, 1, 64)


def test_activations_by_hand():
    """Llama 3.2 1B, 1024 tokens in bfloat16. The whole logits: beside them, the last norm's answer, the embedded tokens
    being gone. The last logits only: the moment of the feed-forward product."""
    config = FAMILIES["llama3"].presets["meta-llama/Llama-3.2-1B"]
    tables = 2 * 1024 * 64 * 2 + 1024 * 8 + 32 * 4  # cos and sin; positions; frequencies
    assert activation_bytes(config, 1, 1024) == 1024 * (128256 + 2048) * 2 + tables
    widest = 1024 * (3 * 8192 + 3 * 2048) * 2 + tables
    assert activation_bytes(config, 1, 1024, last_only=True) == pytest.approx(widest, rel=0.001)


def test_activations_are_what_the_process_needs():
    """The same from outside: resident memory of a process, on a model whose activations outweigh everything else."""
    setup = (
        "import torch; from tests.tiny_models import EXAMPLES, random_ids, random_model; torch.set_num_threads(1)\n"
        "config = EXAMPLES['llama3'] | {'vocab_size': 4096}\n"
        "model, ids = random_model(config), random_ids(config, 8, 1024)\n"
        "with torch.inference_mode(): model(ids[:, :64])"
    )
    use = measure_in_subprocess("with torch.inference_mode(): model(ids)", setup)
    config = random_model(EXAMPLES["llama3"] | {"vocab_size": 4096}).config
    predicted = activation_bytes(config, 8, 1024, torch.float32) / MIB
    assert predicted > 100
    assert 0.98 * predicted < use.added_peak_mb < 1.3 * predicted
