"""What packed and int8 weights take: counted on shapes, and on models that really are packed."""

import pytest
import torch

from course_helpers import FAMILIES, load_model
from course_helpers.architectures.packing import nbytes, pack
from course_helpers.memory import kv_cache_bytes
from course_helpers.planner import plan
from course_helpers.planning.choices import estimate
from course_helpers.planning.costs import Work, activations, anatomy
from course_helpers.planning.forms import held, product_bytes
from course_helpers.planning.machines import BRAIN, GB, HALF, MACHINES, SINGLE, Machine
from course_helpers.sizes import AliveBytes
from tests.bundled import each

forms = pytest.mark.parametrize("weights", ["packed", "int8"])


@each
@forms
def test_bytes_are_those_of_a_packed_model(folder, weights):
    model = load_model(folder, BRAIN, weights=weights)
    parts = anatomy(model.config)
    kept, peak = held(parts.parameters, parts.turned, weights, BRAIN)
    assert kept == nbytes(model) == model.load_report.nbytes
    assert peak >= 2 * parts.parameters
    assert held(parts.parameters, parts.turned, "plain", BRAIN) == (2 * parts.parameters,) * 2
    if weights == "packed":  # in float32, and on another device, the matrices stay as they are
        assert held(parts.parameters, parts.turned, weights, SINGLE)[0] == 4 * parts.parameters
        assert held(parts.parameters, parts.turned, weights, BRAIN, "cuda")[0] == 2 * parts.parameters


class RealBytes(AliveBytes):
    """Without what remains of a matrix that was given up: a shape, and no memory."""

    def follow(self, storage):
        if storage.device.type != "meta":
            super().follow(storage)


@each
def test_the_peak_on_the_way_is_that_of_rounding(folder):
    """Every tensor that there is while a model is rounded, its own included, counted for as long as it lives. (What
    oneDNN lays out anew has no storage that could be counted.)"""
    model = load_model(folder, BRAIN)
    parts = anatomy(model.config)
    with RealBytes([]) as alive:
        for parameter in model.parameters():
            alive.follow(parameter.untyped_storage())
        del parameter
        assert alive.now == 2 * parts.parameters
        pack(model, "int8")
        kept, foretold = held(parts.parameters, parts.turned, "int8", BRAIN)
        biases = sum(
            one.nbytes for name, one in model.named_parameters() if name.endswith("bias") and "norm" not in name
        )
        assert alive.now == kept + biases  # joined ones are there twice
    scales = 10 * max(matrix.rows for matrix in parts.turned)  # in several types, for a moment
    assert foretold <= alive.peak <= foretold + scales + biases


def test_weights_that_stay_in_their_file_are_not_counted():
    parts = anatomy(FAMILIES["olmo3"].presets["allenai/Olmo-3-1025-7B"])
    about = (parts.parameters, parts.turned, "int8", BRAIN)
    kept, peak = held(*about)
    assert held(*about, in_file=True)[0] == kept
    largest = max(matrix.numbers for matrix in parts.turned)
    assert peak < 2 * parts.parameters + 8 * largest and kept < held(*about, in_file=True)[1] < kept + 8 * largest


@each
@pytest.mark.parametrize("tokens", [9, 60])
def test_a_prompt_takes_no_more_than_is_foretold(folder, tokens):
    model = load_model(folder, BRAIN, weights="int8")
    parts, ids_BT = anatomy(model.config), torch.zeros(1, tokens, dtype=torch.int64)
    forms_of = [getattr(module, name, None) for module in model.modules() for name in ("form", "joined", "head_form")]
    forms_of += [one for module in model.modules() for some in getattr(module, "forms", None) or () for one in some]
    known = [tensor for one in forms_of if one is not None for tensor in (one.whole_OI, one.scale_O)]
    with torch.inference_mode(), AliveBytes([*model.parameters(), ids_BT, *known]) as alive:
        model(ids_BT, last_only=True)
    products = product_bytes(parts.turned, tokens, 1, BRAIN, "cpu")
    assert alive.peak <= 1.1 * (activations(parts, 1, tokens, BRAIN) + products)


def test_a_plan_with_int8_adds_up():
    """By hand: OLMo 3 7B on a computer whose memory holds its int8 weights, and not the plain ones."""
    machine = Machine("16 GB", "cpu", 14 * GB, dict.fromkeys((BRAIN, SINGLE)), GB // 2)
    asked = {"family": "olmo3", "context": 4096}
    plain = plan("run", machine, **asked)
    assert plain.best is None and "weights int8" in plain.refused[0].remedies
    best = plan("run", machine, weights="int8", **asked).best
    assert best.weights == "int8" and best.strategy == "mmap"  # every other has the plain weights first
    assert best.line.endswith('strategy="mmap", weights="int8")') and best.tokens_per_second is None
    config = FAMILIES["olmo3"].presets["allenai/Olmo-3-1025-7B"]
    width, inner, vocabulary, layers = 4096, 11008, 100278, 32
    numbers = layers * (4 * width * width + 3 * width * inner) + 2 * vocabulary * width
    rows = layers * (4 * width + 2 * inner + width) + 2 * vocabulary
    norms = layers * 4 * width + width
    assert best.parameters == numbers + norms
    assert best.memory["weights"] == numbers + 2 * rows + 2 * norms
    assert best.memory["KV cache"] == kv_cache_bytes(config, 4096)
    assert best.memory["products"] == 2 * (2 * inner * width + 4096 * 2 * inner)
    head = vocabulary * width  # while it is rounded, the largest, when all but output and down are done
    done = layers * (3 * width * width + 2 * inner * width + 2 * (3 * width + 2 * inner))
    untied_head_done = head + 2 * vocabulary
    assert best.loading["mmap"] == GB // 2 + done + untied_head_done + 2 * norms + 8 * head
    assert best.loading["stream"] > GB // 2 + 2 * best.parameters
    assert best.row()["weights"] == "int8"


def test_forms_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="computed with in bfloat16"):
        plan("run", "T4", dtype=HALF, weights="int8")
    with pytest.raises(ValueError, match="unknown form"):
        plan("run", "T4", weights="small")
    with pytest.raises(ValueError, match="cannot be trained"):
        plan("train", "T4", weights="packed")
    with pytest.raises(ValueError, match="not known"):
        plan("run", "L4", weights="int8", tokens_per_second=1.0)
    found = plan("run", "T4", family="gpt2", weights="int8")
    assert found.best is None and "int8 weights need, which is bfloat16" in found.refused[0].reasons[0]


def test_on_another_device_the_head_is_written_out_too():
    config = FAMILIES["qwen3"].presets["Qwen/Qwen3-0.6B"]
    parts = anatomy(config)
    on_gpu = estimate("qwen3", "x", parts, BRAIN, MACHINES["L4"], Work(64), BRAIN, "stream", "int8")
    assert on_gpu.memory["products"] == 2 * (151936 * 1024 + 151936)
    assert product_bytes(parts.turned, 64, 1, BRAIN, "cpu") == 2 * (6144 * 1024 + 64 * 6144)
