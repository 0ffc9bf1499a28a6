"""M9-CODE-02: its exercise checks diagnose, its counts count, its broken adapters break what they say."""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from course_helpers import CheckpointError, load_model, load_tokenizer
from course_helpers.architectures.config import ModelConfig
from course_helpers.architectures.llama import LlamaConfig, LlamaModel
from course_helpers.labs import ExerciseHint, code_02_charts, code_02_figures
from course_helpers.labs.code_02 import (
    branches,
    broken_adapters,
    cells_run,
    code_lines,
    definition,
    names_spoken,
    refusal,
    verdicts,
)
from course_helpers.labs.code_02_capped import CAP_FIELD, check_capped_llama
from course_helpers.labs.code_02_exercises import (
    SMALL,
    check_kernel_rows,
    check_pick,
    kernel_tensors,
    random_llama,
)
from course_helpers.loaders.rules import Rule
from course_helpers.loaders.weight_maps import GPT2, LLAMA


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


# Exercise 1


def picks(config, folder, adapters):
    asked = config.get("model_type")
    if asked not in adapters:
        raise LookupError(f"{asked} is unknown; known are {', '.join(adapters)}")
    return adapters[asked]


def by_name(config, folder, adapters):
    return picks(config, folder, adapters).name


def by_folder(config, folder, adapters):
    in_name = [name for name in adapters if name in folder]
    return adapters[in_name[0]] if in_name else picks(config, folder, adapters)


def by_default(config, folder, adapters):
    return adapters.get(config.get("model_type"), adapters["llama"])


def by_beginning(config, folder, adapters):
    asked = config.get("model_type") or ""
    near = [name for name in adapters if asked and asked[:4] == name[:4]]
    return adapters[asked] if asked in adapters else adapters[near[0]] if near else picks(config, folder, adapters)


def first_always(config, folder, adapters):
    return next(iter(adapters.values()))


def with_key_error(config, folder, adapters):
    return adapters[config.get("model_type")]


def with_value_error(config, folder, adapters):
    try:
        return picks(config, folder, adapters)
    except LookupError as error:
        raise ValueError(str(error)) from error


def without_the_type(config, folder, adapters):
    try:
        return picks(config, folder, adapters)
    except LookupError as error:
        raise LookupError(f"known are {', '.join(adapters)}") from error


def stumbles(config, folder, adapters):
    if config["model_type"] not in adapters:
        raise LookupError(f"{config['model_type']} is unknown; known are {', '.join(adapters)}")
    return adapters[config["model_type"]]


def remembers(config, folder, adapters):
    try:
        return picks(config, folder, adapters)
    except LookupError:
        adapters["unknown"] = None
        raise


# Exercise 2

OURS, THEIRS = "blocks.{layer}.", "layer_{layer}/"


def kernel(*parts, **options):
    return Rule(tuple(f"{OURS}{part}.weight" for part in parts), **({"transpose": True} | options))


ROWS = {
    "embed/table": "token_embedding.weight",
    THEIRS + "norm_1/scale": OURS + "attention_norm.weight",
    THEIRS + "qkv/kernel": kernel("attention.query", "attention.key", "attention.value"),
    THEIRS + "out/kernel": kernel("attention.output"),
    THEIRS + "norm_2/scale": OURS + "feed_forward_norm.weight",
    THEIRS + "up_gate/kernel": kernel("feed_forward.up", "feed_forward.gate"),
    THEIRS + "down/kernel": kernel("feed_forward.down"),
    "norm/scale": "final_norm.weight",
}


def rows(without=(), **changes):
    """The right rows, with other ones for some endings of names."""
    table = {name: row for name, row in ROWS.items() if not name.endswith(tuple(without) or "-")}
    for ending, row in changes.items():
        table |= {name: row for name in ROWS if name.endswith(ending.replace("__", "/"))}
    return lambda: table


def first_layer_only():
    def first(row):
        if isinstance(row, Rule):
            return dataclasses.replace(row, targets=tuple(target.format(layer=0) for target in row.targets))
        return row.format(layer=0)

    return {name.format(layer=0): first(row) for name, row in ROWS.items()}


# Exercise 3


@dataclass(frozen=True, kw_only=True)
class CappedConfig(LlamaConfig):
    final_logit_softcapping: float
    model_type: ClassVar[str] = "capped_llama"
    architecture: ClassVar[str] = "CappedLlamaForCausalLM"


@dataclass(frozen=True, kw_only=True)
class Lenient(CappedConfig):
    final_logit_softcapping: float = 30.0


class Undecorated(LlamaConfig):
    final_logit_softcapping: float
    model_type: ClassVar[str] = "capped_llama"


@dataclass(frozen=True, kw_only=True)
class Nameless(LlamaConfig):
    final_logit_softcapping: float


class Forgetful(CappedConfig):
    def to_hf(self):
        return {name: value for name, value in super().to_hf().items() if name != CAP_FIELD}


def capped(cap, everywhere=False):
    """A Llama whose logits go through `cap(logits, cap of the config)`; with `everywhere`, hidden states as well."""

    class Capped(LlamaModel):
        def forward(self, *ids, hidden_states=False, **options):
            result = super().forward(*ids, hidden_states=hidden_states, **options)
            if hidden_states and not everywhere:
                return result
            return cap(result, self.config.final_logit_softcapping)

    return Capped


def soft(logits, cap):
    return cap * torch.tanh(logits / cap)


class OnlyIds(LlamaModel):
    def forward(self, ids):
        return soft(super().forward(ids), self.config.final_logit_softcapping)


class NoCache(LlamaModel):
    def forward(self, ids, cache=None, **options):
        result = super().forward(ids, **options)
        hidden = options.get("hidden_states")
        return result if hidden else soft(result, self.config.final_logit_softcapping)


def adapter(**changes):
    values = {
        "model_types": ("capped_llama",),
        "read_config": CappedConfig.from_hf,
        "model": capped(soft),
        "weight_maps": (LLAMA,),
        "load_tokenizer": load_tokenizer,
    }
    return lambda: SimpleNamespace(**(values | changes))


def one_cap_for_all(logits, cap):
    return soft(logits, 30.0)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_pick, picks),
        (check_kernel_rows, rows()),
        (check_kernel_rows, rows(norm__scale=Rule(("final_norm.weight",)))),
        (check_capped_llama, adapter()),
        (check_capped_llama, adapter(weight_maps=[GPT2, LLAMA])),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_pick, empty, "still empty"),
        (check_pick, silent, "return statement"),
        (check_pick, by_name, "returned the name"),
        (check_pick, first_always, "you chose"),
        (check_pick, by_folder, "went by the folder's name"),
        (check_pick, by_default, "A default loads a wrong model"),
        (check_pick, by_beginning, "Near is not the same"),
        (check_pick, with_key_error, "say which types are known"),
        (check_pick, with_value_error, "raise a LookupError; yours was ValueError"),
        (check_pick, without_the_type, "which type was asked for"),
        (check_pick, stumbles, "say which types are known"),
        (check_pick, remembers, "registry has changed"),
        (check_kernel_rows, empty, "still empty"),
        (check_kernel_rows, silent, "return statement"),
        (check_kernel_rows, lambda: list(ROWS), "expected a table"),
        (check_kernel_rows, rows(embed__table=3), "neither a name nor a Rule"),
        (check_kernel_rows, rows(without=["out/kernel"]), "no row takes it"),
        (check_kernel_rows, first_layer_only, "stands for all layers"),
        (check_kernel_rows, rows(norm_1__scale="blocks.0.attention_norm.weight"), "on one side only"),
        (check_kernel_rows, rows(out__kernel=Rule(OURS + "attention.output.weight", True)), "with the comma"),
        (check_kernel_rows, rows(out__kernel=kernel("{part}")), "is an f-string missing"),
        (check_kernel_rows, lambda: ROWS | {"head/kernel": "output_head.weight"}, "no such tensor"),
        (check_kernel_rows, rows(norm__scale="last_norm.weight"), "no parameter of the model"),
        (check_kernel_rows, rows(norm_2__scale=OURS + "attention_norm.weight"), "filled 2 times"),
        (check_kernel_rows, rows(out__kernel=kernel("attention.output", transpose=False)), "every shape fits"),
        (check_kernel_rows, rows(down__kernel=kernel("feed_forward.down", transpose=False)), "transpose=True"),
        (check_kernel_rows, rows(embed__table=Rule(("token_embedding.weight",), transpose=True)), "must not be turned"),
        (check_kernel_rows, rows(qkv__kernel=kernel("attention.query")), "3 matrices side by side"),
        (
            check_kernel_rows,
            rows(up_gate__kernel=kernel("feed_forward.gate", "feed_forward.up")),
            "stand in the order that the name says",
        ),
        (
            check_kernel_rows,
            rows(norm_1__scale=OURS + "feed_forward_norm.weight", norm_2__scale=OURS + "attention_norm.weight"),
            "another parameter belongs there",
        ),
        (
            check_kernel_rows,
            rows(down__kernel=kernel("attention.output"), out__kernel=kernel("feed_forward.down")),
            "your row would want",
        ),
        (check_capped_llama, empty, "still empty"),
        (check_capped_llama, silent, "return statement"),
        (check_capped_llama, lambda: LlamaModel, "this has no model_types"),
        (check_capped_llama, adapter(model_types=("llama",)), "is called capped_llama"),
        (check_capped_llama, adapter(read_config=Nameless.from_hf), "Is model_type set"),
        (check_capped_llama, adapter(model_types="capped_llama"), "with the comma"),
        (check_capped_llama, adapter(weight_maps=LLAMA), "weight_maps is a tuple"),
        (check_capped_llama, adapter(read_config=CappedConfig), "not the class"),
        (check_capped_llama, adapter(read_config=Undecorated.from_hf), "is @dataclass"),
        (check_capped_llama, adapter(weight_maps=(GPT2,)), "they were refused"),
        (check_capped_llama, adapter(model=LlamaModel), "plain Llama's logits"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: x.clamp(-cap, cap))), "cut the logits off"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: torch.tanh(x / cap))), "multiplied by the cap"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: cap * torch.tanh(x))), "divide by the cap"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: torch.tanh(x))), "where is the cap"),
        (check_capped_llama, adapter(model=capped(one_cap_for_all)), "capped at 30"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: x / cap)), "these are not cap"),
        (check_capped_llama, adapter(model=capped(lambda x, cap: soft(x, cap)[:, -1:])), "keep their shape"),
        (check_capped_llama, adapter(model=OnlyIds), "what every model takes"),
        (check_capped_llama, adapter(model=NoCache), "wrong with a cache"),
        (check_capped_llama, adapter(model=capped(soft, everywhere=True)), "no logits, so no cap"),
        (check_capped_llama, adapter(read_config=Forgetful.from_hf), "must name the family and its cap"),
        (check_capped_llama, adapter(read_config=Lenient.from_hf), "must not have a default"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


@torch.no_grad()
def test_the_kernels_of_exercise_2_compute_what_the_model_computes():
    """x times a kernel is what the model's matrices make of x, side by side in the order of the name."""
    model, x = random_llama(), torch.randn(2, SMALL.hidden_size, generator=torch.Generator().manual_seed(1))
    tensors, block = kernel_tensors(model), model.blocks[1]
    attention = block.attention
    parts = torch.cat([part(x) for part in (attention.query, attention.key, attention.value)], dim=-1)
    assert torch.allclose(x @ tensors["layer_1/qkv/kernel"], parts, atol=1e-5)
    pair = torch.cat([block.feed_forward.up(x), block.feed_forward.gate(x)], dim=-1)
    assert torch.allclose(x @ tensors["layer_1/up_gate/kernel"], pair, atol=1e-5)
    assert sum(tensor.numel() for tensor in tensors.values()) == model.num_parameters()


CELLS = [
    "def f(x, family):\n    return x",
    "%magic",
    'def f(x, family):\n    """Two\n    lines."""\n\n    if family == "a":  # one\n        return 1\n'
    '    # nothing\n    return 2 if family in ("b", "c") else 3 if x else 4\n\nVALUE = [\n    1,\n]\n',
    "@decorated\nclass C:\n    def f(self):\n        'Says why.'\n        return family",
]


def test_branches_and_lines_are_counted_in_the_cell_that_was_run_last():
    assert branches(CELLS, ["f", "C"]) == {"f": 2, "C": 0}
    assert code_lines(CELLS, ["f", "VALUE", "C"]) == {"f": 4, "VALUE": 3, "C": 4}
    assert definition(CELLS[:2], "f")[1] == CELLS[0]
    with pytest.raises(NameError, match="defines g"):
        definition(CELLS, "g")


def test_cells_that_were_run_are_found_and_files_are_not(monkeypatch):
    kept = {"/tmp/ipykernel_7/1.py": (1, None, ["a = 1\n", "b = 2\n"], "1"), "module.py": (1, 0.0, ["c = 3\n"], "m")}
    monkeypatch.setattr("linecache.cache", kept | {"<ipython-input-1>": (1, None, ["d = 4\n"], "2"), "lazy": (None,)})
    assert cells_run() == ["a = 1\nb = 2\n", "d = 4\n"]


def test_words_that_a_file_speaks_are_values_and_not_prose(tmp_path):
    file = tmp_path / "core.py"
    file.write_text('"""Of gpt2 and llama."""\nNAME = "llama"  # qwen3\n', encoding="utf-8")
    assert names_spoken(file, {"gpt2", "llama", "qwen3"}) == ["llama"]


def test_a_refusal_is_shown_without_paths(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        load_model({f"h.{n}.weight": torch.zeros(6, 6) for n in range(4)}, config=SMALL.to_hf())
    caught.value.file = tmp_path
    text = refusal(caught.value)
    assert "none of the tensor names" in text and str(tmp_path) not in text and "next step" in text
    assert refusal(ValueError("too long")) == "ValueError: too long"


@dataclasses.dataclass(frozen=True)
class Loaded:
    model: torch.nn.Module
    config: ModelConfig
    tokenizer: object


@torch.no_grad()
def test_broken_adapters_differ_from_the_right_one_in_what_their_title_says():
    model, tokenizer = load_model("tiny-qwen3", torch.float32), load_tokenizer("tiny-qwen3")
    right = Loaded(model, model.config, tokenizer)
    few, peek, forgets, lower, extra, endless = broken_adapters(right).values()
    ids, size = torch.tensor([[1, 2, 3, 4]]), model.config.vocab_size
    assert few.model(ids).shape[-1] == size - 1
    assert torch.equal(peek.model(ids)[:, -1], model(ids)[:, -1])
    assert not torch.allclose(peek.model(ids)[:, 0], model(ids)[:, 0])
    cache = forgets.model.make_cache(1, 8)
    assert torch.equal(forgets.model(ids, cache=cache), model(ids)) and cache.length == 0
    assert lower.tokenizer.encode("A b") == tokenizer.encode("a b")
    assert extra.tokenizer.encode("a")[-1] == size and extra.tokenizer.decode(extra.tokenizer.encode("a")) == "a"
    assert endless.tokenizer.stop_ids == () and endless.tokenizer.special_ids == tokenizer.special_ids


PROMISES = {"good": {"one": True, "two": True}, "bad": {"one": True, "two": False}}


def test_verdicts_name_what_is_broken():
    assert verdicts(PROMISES).splitlines() == ["good  keeps all", "bad   breaks: two"]


TABLE = {
    "a": {"nats a token": 0.2, "bits in 100 bytes": 12.0},
    "b": {"nats a token": 0.3, "bits in 100 bytes": 11.0},
    "c": {"nats a token": 0.4, "bits in 100 bytes": 10.0},
}
PAIRS = {("a", "a"): 10.0, ("a", "b"): 33.0, ("b", "a"): 500.0, ("b", "b"): 11.0}


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (lambda: code_02_figures.one_workflow(), ("select", "GPT-2", "your family")),
        (lambda: code_02_figures.branches_or_rows(["f", "g"], ["GPT-2", "Llama 2"]), ("2 functions", "2 families")),
        (lambda: code_02_figures.what_was_added({"Model": 3, "MAP": 4}), ("7 lines", "Model 3", "validate")),
        (lambda: code_02_charts.contract_grid(PROMISES, {"bad": PROMISES["bad"]}), ("1 of 2", "bad breaks two")),
        (lambda: code_02_charts.two_rulers(TABLE), ("a, b, c", "c, b, a", "a moves most, by 2")),
        (
            lambda: code_02_charts.tokenizer_grid(["a", "b"], PAIRS, {("a", "b"), ("b", "a")}),
            ("10 to 11", "33 to 500", "2 pairs are let through"),
        ),
    ],
)
def test_pictures_say_in_words_what_they_show(picture, words):
    shown = picture()
    assert shown.data.startswith(b"\x89PNG") and all(word in shown.alt for word in words)
