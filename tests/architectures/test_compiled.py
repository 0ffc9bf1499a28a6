"""A compiled step is the ordinary step, and one program serves every token of every text that fits its room."""

import copy
import os
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.exc import TorchDynamoException

from course_helpers import FAMILIES, CourseWarning, generate, load_model
from course_helpers.__main__ import main
from course_helpers.architectures import compiled
from course_helpers.architectures.base import LanguageModel
from course_helpers.architectures.compiled import CompiledSteps, compile_decoding, one_step, room_for, why_not
from course_helpers.memory import kv_cache_bytes
from tests.tiny_models import CONFIGS, EXAMPLES, logits_of, random_ids, random_model

every_family = pytest.mark.parametrize("family", FAMILIES)
#: Rows of unequal length; with 110 tokens more, each goes round the windows of the bundled models twice.
RAGGED = [[5, 9, 7, 3, 3, 4, 20], [8, 2], [11]]


class NotCompiled(CompiledSteps):
    """The same memory, masks and step, run as they are: for what is about the numbers."""

    def compile(self, model, memory):
        return one_step


class Counting:
    """A backend that runs what it gets as it is, and counts how often it gets something."""

    def __init__(self):
        self.programs = 0

    def __call__(self, graph, inputs):
        self.programs += 1
        return graph


def counted(model: LanguageModel) -> Counting:
    """Have a model decode by steps that are compiled as far as torch's graph, and counted."""
    backend = Counting()
    model.compiled = CompiledSteps(backend)
    return backend


def static(model: LanguageModel) -> LanguageModel:
    """The same weights, decoding in static memory."""
    other = copy.deepcopy(model)
    other.compiled = NotCompiled()
    return other


MODELS = {family: random_model(config) for family, config in EXAMPLES.items()}
STATIC = {family: static(model) for family, model in MODELS.items()}


def in_parts(model: LanguageModel, ids: torch.Tensor, sizes: list[int], cache, padding=None) -> torch.Tensor:
    parts = ids.split(sizes, dim=1)
    return torch.cat(
        [logits_of(model, part, cache=cache, left_padding_B=None if i else padding) for i, part in enumerate(parts)], 1
    )


@every_family
@settings(max_examples=20)
@given(
    data=st.data(),
    paddings=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    sizes=st.lists(st.sampled_from([1, 1, 1, 2, 5, 9]), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_steps_in_static_memory_give_the_logits_of_one_pass(family, data, paddings, sizes, seed):
    """Of any model, wherever steps and longer parts meet, with padding, across the edge of every window."""
    config, sizes = data.draw(CONFIGS[family]), [*sizes, max(paddings) + 1, 1, 1]
    model, ids = static(random_model(config, seed)), random_ids(config, len(paddings), sum(sizes), seed)
    room = sum(sizes) + data.draw(st.integers(0, 3))
    found = in_parts(model, ids, sizes, model.make_cache(len(paddings), room), torch.tensor(paddings))
    for row, skip in enumerate(paddings):
        alone = logits_of(model, ids[row : row + 1, skip:])[0]
        torch.testing.assert_close(found[row, skip:], alone, rtol=0, atol=1e-5)


@every_family
def test_one_program_for_every_token_of_every_prompt(family):
    """Of the bundled models: 110 tokens, then prompts of other lengths, without padding, from a cache of its own."""
    plain = load_model(FAMILIES[family].tiny, torch.float32)
    model = load_model(FAMILIES[family].tiny, torch.float32)
    backend = counted(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CourseWarning)
        assert generate(model, RAGGED, 110) == generate(plain, RAGGED, 110)
        assert backend.programs == 1
        for prompts, count in (([[1, 5, 9]] * 3, 40), ([[7]] * 3, 25), ([list(range(4, 60))] * 3, 30)):
            assert generate(model, prompts, count) == generate(plain, prompts, count)
        with torch.no_grad():  # not in inference mode, as in `generate`
            cache = model.make_cache(3, 20)
            in_parts(model, torch.tensor([[1, 2, 3, 4]] * 3, dtype=torch.int32), [2, 1, 1], cache)
        in_parts(model, torch.tensor([[1, 2, 3]] * 3), [1, 1, 1], model.make_cache(3, 200))
    assert backend.programs == 1


def test_every_number_of_rows_and_every_room_is_a_program_and_none_is_given_up():
    """torch itself gives up at nine programs for one piece of code, and says so in its log only."""
    model = random_model(EXAMPLES["llama2"] | {"num_hidden_layers": 1, "max_position_embeddings": 4096})
    backend, shapes = counted(model), [(rows, 10) for rows in range(1, 10)] + [(1, 300), (1, 600)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CourseWarning)
        for _ in range(2):
            for rows, length in shapes:
                cache = model.make_cache(rows, length)
                logits_of(model, random_ids(EXAMPLES["llama2"], rows, 1), cache=cache)
    assert backend.programs == len(shapes) == len(model.compiled.steps)


def test_the_room_of_a_cache_is_rounded_up_and_counted_whole():
    assert [room_for(length, 40960) for length in (1, 256, 257, 1024, 33000, 40960, 41000)] == [
        *(256, 256, 512, 1024, 40960, 40960, 65536)
    ]
    model = STATIC["gemma3"]
    for length, room in ((50, 64), (100, 256)):  # the model was made for 64
        cache = model.make_cache(2, length)
        assert (cache.max_length, cache.memory.room) == (length, room)
        assert cache.nbytes == sum(tensor.nbytes for tensor in cache.memory.tensors[3:])
        assert cache.nbytes == kv_cache_bytes(model.config, room, 2, torch.float32)


@every_family
def test_what_a_cache_refuses_it_refuses_in_static_memory(family):
    model, ids = STATIC[family], random_ids(EXAMPLES[family], 2, 12)
    cache = model.make_cache(2, 10)
    first = in_parts(model, ids[:, :9], [7, 1, 1], cache)
    with pytest.raises(ValueError, match="holds 10 positions, 9 are filled and 2 more came in"):
        model(ids[:, 9:11], cache=cache)
    with pytest.raises(ValueError, match="made for 2 rows, but 1 came in"):
        model(ids[:1, 9:10], cache=cache)
    with pytest.raises(ValueError, match="begun with another left padding"):
        model(ids[:, 9:10], cache=cache, left_padding_B=torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="begun by another model"):
        static(MODELS[family])(ids[:, 9:10], cache=cache)
    last = logits_of(model, ids[:, 9:10], cache=cache)
    torch.testing.assert_close(torch.cat((first, last), 1), logits_of(model, ids[:, :10]), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="holds 10 positions, 10 are filled and 1 more came in"):
        model(ids[:, 10:11], cache=cache)


def test_gpt2_has_no_compiled_position_beyond_its_last():
    model, ids = STATIC["gpt2"], random_ids(EXAMPLES["gpt2"], 1, 64)
    cache = model.make_cache(1, 80)
    logits_of(model, ids, cache=cache)
    with pytest.raises(ValueError, match="learned 64 positions and has none for token 65"):
        model(ids[:, :1], cache=cache)
    assert cache.length == 64


@every_family
def test_a_token_that_is_not_in_the_vocabulary_changes_nothing(family):
    model, ids = STATIC[family], random_ids(EXAMPLES[family], 1, 12)
    cache = model.make_cache(1, 20)
    first = in_parts(model, ids[:, :11], [9, 1, 1], cache)
    for wrong in (61, -1):
        with pytest.raises(IndexError):
            model(ids[:, 11:] * 0 + wrong, cache=cache)
    whole = torch.cat((first, logits_of(model, ids[:, 11:], cache=cache)), 1)
    torch.testing.assert_close(whole, logits_of(model, ids), rtol=0, atol=1e-5)


def test_a_reset_forgets_even_what_is_not_a_number():
    model, ids = STATIC["olmo3"], random_ids(EXAMPLES["olmo3"], 1, 9)
    cache = model.make_cache(1, 20)
    logits_of(model, ids, cache=cache)
    for tensor in cache.memory.tensors[3:]:
        tensor.fill_(torch.nan)
    cache.reset()
    torch.testing.assert_close(in_parts(model, ids, [3, *[1] * 6], cache), logits_of(model, ids), rtol=0, atol=1e-5)


def test_memory_serves_again_when_its_cache_is_gone_and_not_before():
    model, ids = static(MODELS["llama3"]), random_ids(EXAMPLES["llama3"], 1, 9)
    first, second = model.make_cache(1, 20), model.make_cache(1, 20)
    memory = first.memory
    assert second.memory is not memory and second.memory.layers[0].key_BKSD is not memory.layers[0].key_BKSD
    logits_of(model, ids, cache=first)
    del first
    again = model.make_cache(1, 30)  # of the same room
    assert again.memory is memory and (again.max_length, again.length) == (30, 0)
    assert model.make_cache(2, 20).memory is not memory
    torch.testing.assert_close(in_parts(model, ids, [1] * 9, again), logits_of(model, ids), rtol=0, atol=1e-5)


def test_hidden_states_and_other_caches_go_the_ordinary_way():
    model, plain, ids = STATIC["gemma3"], MODELS["gemma3"], random_ids(EXAMPLES["gemma3"], 1, 12)
    cache, other = model.make_cache(1, 20), plain.make_cache(1, 20)
    in_parts(model, ids[:, :11], [5, 1, 1, 1, 1, 1, 1], cache)
    hidden = logits_of(model, ids[:, 11:], cache=cache, hidden_states=True)
    torch.testing.assert_close(hidden, logits_of(plain, ids, hidden_states=True)[:, -1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(in_parts(model, ids, [1] * 12, other), logits_of(plain, ids), rtol=0, atol=1e-5)


def test_a_cache_may_store_another_type_than_the_compiled_model_computes_in():
    model, ids = STATIC["qwen3"], random_ids(EXAMPLES["qwen3"], 1, 8)
    found = in_parts(model, ids, [5, 1, 1, 1], model.make_cache(1, 8, dtype=torch.bfloat16))
    exact = logits_of(model, ids)
    assert found.dtype == exact.dtype and 0 < (found - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe"])
def test_a_compiled_product_of_one_row_keeps_the_precision_of_its_type(family):
    """float64: sums in float32 would be off by far more."""
    plain = copy.deepcopy(MODELS[family]).double()
    model = copy.deepcopy(plain)
    backend, ids = counted(model), random_ids(EXAMPLES[family], 1, 8)
    found = in_parts(model, ids, [5, 1, 1, 1], model.make_cache(1, 8))
    torch.testing.assert_close(found, logits_of(plain, ids), rtol=0, atol=1e-13)
    assert backend.programs == 1


def test_a_copy_of_a_model_compiles_steps_of_its_own():
    model = copy.deepcopy(MODELS["qwen3"])
    backend = counted(model)
    generate(model, [[1, 2]], 3)
    other = copy.deepcopy(model)
    assert other.compiled is not model.compiled and not other.compiled.steps and not other.compiled.spare
    plain = random_model(EXAMPLES["qwen3"], seed=1)
    other.load_state_dict(plain.state_dict())
    assert generate(other, [[1, 2]], 20) == generate(plain, [[1, 2]], 20) != generate(model, [[1, 2]], 20)
    assert backend.programs == 1


def test_a_step_that_does_not_compile_runs_as_it_is_and_says_so():
    def broken(graph, inputs):
        raise NotImplementedError("no such kernel")

    model = copy.deepcopy(MODELS["qwen3_moe"])
    model.compiled = CompiledSteps(broken)
    with pytest.warns(CourseWarning, match="does not compile.*\n.*decoding runs uncompiled: the same tokens") as caught:
        found = generate(model, RAGGED, 20)
    assert found == generate(MODELS["qwen3_moe"], RAGGED, 20)
    assert len([one for one in caught if issubclass(one.category, CourseWarning)]) == 1  # once, not at every token


def test_an_error_of_the_step_itself_is_not_taken_for_one_of_the_compiler():
    model = copy.deepcopy(MODELS["qwen3"])
    model.compiled = NotCompiled()
    model.blocks[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("half-way")))
    cache = model.make_cache(1, 9)
    with pytest.raises(RuntimeError, match="half-way") as caught:
        model(torch.tensor([[1]]), cache=cache)
    assert not isinstance(caught.value, TorchDynamoException) and cache.length == 0


def test_a_device_that_is_not_known_to_compile_decodes_as_usual(monkeypatch):
    assert "cpu and cuda" in why_not(torch.device("meta"))
    monkeypatch.setattr(compiled, "MODES", {})
    with pytest.warns(CourseWarning, match="cannot compile for cpu here.*\n.*decoding runs uncompiled"):
        model = load_model("tiny-gpt2", compile=True)
    assert model.compiled is None and type(model.make_cache(1, 20)).__name__ == "KVCache"


def test_without_a_c_compiler_the_command_says_so_and_generates(tmp_path, capsys):
    """In a process of its own: torch looks for the compiler once."""
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["generate", "tiny-gpt2", "--prompt", "One sunny morning", "--max-new-tokens", "9"]
    assert main(words) == 0
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC")}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "PATH": str(empty)}
    command = [sys.executable, "-m", "course_helpers", *words, "--compile"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == capsys.readouterr().out
    assert "cannot compile for cpu here" in run.stderr and "Traceback" not in run.stderr


def test_other_forms_of_weights_are_not_compiled():
    for weights in ("packed", "int8"):
        with pytest.raises(ValueError, match=f"compile=True is for plain weights, not for {weights}"):
            load_model("tiny-llama3", torch.bfloat16, weights=weights, compile=True)


def test_what_the_machine_compiles_generates_the_same():
    """With torch's own compiler, rings and padding included. Skipped without one, but never in continuous
    integration."""
    reason = why_not(torch.device("cpu"))
    if reason and not os.environ.get("CI"):
        pytest.skip(f"torch cannot compile here: {reason}")
    model = copy.deepcopy(MODELS["gemma3"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", CourseWarning)
        compile_decoding(model)
        for prompts in (RAGGED, [[1, 5, 9], [2], [3, 4]]):
            assert generate(model, prompts, 40) == generate(MODELS["gemma3"], prompts, 40)
    assert len(model.compiled.steps) == 1
