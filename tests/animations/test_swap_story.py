"""What the film of the family swap tells is what the checkpoints, the package and the results say. Needs no Manim."""

import dataclasses
import json
import math

import pytest
import torch

from animations import swap_story
from animations.swap_parts import PAIRS, POSITION, TEXT, attention, cache, norm
from animations.swap_story import LEFT_OVER, MODEL, NEW_TOKENS, PROMPT, TITLES, mistake, news, printable, stops
from course_helpers import FAMILIES, generate, load_model, load_tokenizer, open_checkpoint
from course_helpers.loaders.sources import BUNDLED
from course_helpers.sizes import kv_cache_bytes

STOPS = {stop.key: stop for stop in stops()}
each = pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS.keys())


def config_of(stop):
    return json.loads((BUNDLED / stop.source / "config.json").read_text())


def names_of(stop):
    with open_checkpoint(stop.source) as checkpoint:
        return {name: checkpoint.shape(name) for name in checkpoint.names()}


def test_the_film_goes_through_six_of_the_families_in_the_order_of_the_registry():
    assert list(STOPS) == list(TITLES) == [name for name in FAMILIES if name in TITLES]


@each
def test_a_stop_says_what_its_files_say(stop):
    names = names_of(stop)
    assert (stop.model_type, stop.tensors) == (config_of(stop)["model_type"], len(names))
    assert stop.parameters == sum(math.prod(shape) for shape in names.values())
    assert stop.tokenizer == FAMILIES[stop.key].tokenizer


@each
def test_the_tokens_are_those_of_its_own_tokenizer(stop):
    tokenizer = load_tokenizer(stop.source)
    assert [token.id for token in stop.tokens] == tokenizer.encode(PROMPT)
    plain = [token for token in stop.tokens if token.id not in tokenizer.special_ids]
    assert "".join(token.text for token in plain) == PROMPT
    special = {token.text: token.id for token in stop.tokens if token.id in tokenizer.special_ids}
    assert special.items() <= tokenizer.backend.special.items()


@each
def test_the_text_is_the_greedy_one_without_a_cache_too(stop):
    tokenizer = load_tokenizer(stop.source)
    model, ids = load_model(stop.source, torch.float32), tokenizer.encode(PROMPT)
    row = generate(model, [ids], NEW_TOKENS, stop_ids=tokenizer.stop_ids, use_cache=False)[0]
    assert tokenizer.decode(row) == PROMPT + stop.continuation
    assert len(stop.written) == len(row) - len(ids) == NEW_TOKENS


@each
def test_norms_stand_where_the_files_have_their_weights(stop):
    names, drawn = names_of(stop), stop.parts["Norm"].drawn
    ours = {name.split(".")[-2] for name in names if ".0." in name}
    assert drawn["before"] == bool(ours & {"ln_1", "input_layernorm"})
    assert drawn["after"] == ("post_feedforward_layernorm" in ours)
    assert ("LayerNorm" in stop.parts["Norm"].what) == any(name.endswith("ln_1.bias") for name in names)
    widths = [shape[0] for name, shape in names.items() if name.endswith("layers.0.self_attn.q_norm.weight")]
    config = config_of(stop)
    heads = [config["num_attention_heads"] * config["head_dim"] // width for width in widths] or [0]
    assert drawn["queries"] == heads[0]


@each
def test_attention_and_cache_are_those_of_the_config(stop):
    config, drawn = config_of(stop), stop.parts["Attention"].drawn
    heads = config.get("num_attention_heads") or config["n_head"]
    layers = config.get("num_hidden_layers") or config["n_layer"]
    shared = config.get("num_key_value_heads", heads)
    plan = config.get("layer_types", ["full_attention"] * layers)
    windows = tuple(config["sliding_window"] if kind == "sliding_attention" else None for kind in plan)
    assert (drawn["heads"], drawn["shared"], drawn["windows"]) == (heads, shared, windows)
    assert stop.parts["Attention"].what.startswith(f"{heads} query, {shared} key/value head")
    assert stop.parts["KV cache"].drawn["kept"] == tuple(window or TEXT for window in windows)
    expected = kv_cache_bytes(load_model(stop.source).config, TEXT) / 1024
    assert stop.parts["KV cache"].what == f"{expected:.0f} KiB in bfloat16"


@each
def test_positions_turn_as_the_config_says(stop):
    config, part = config_of(stop), stop.parts["Positions"]
    if "rope_theta" not in config:
        assert part.drawn == {"vectors": config["n_positions"]} and str(config["n_positions"]) in part.detail
        return
    bases = [config["rope_theta"]] if "rope_local_base_freq" not in config else [config["rope_local_base_freq"]]
    first = next(iter(part.drawn["hands"].values()))
    scaling = (config["rope_scaling"] or {}) if len(part.drawn["hands"]) == 1 else {}  # it is the full layers' alone
    for share, hand in zip(PAIRS, first, strict=True):
        plain = POSITION * bases[0] ** -share
        slowest = plain / scaling.get("factor", 1)
        assert slowest * (1 - 1e-5) <= hand <= plain * (1 + 1e-5)
    assert f"{bases[0]:,.0f}" in part.detail
    assert all(word in part.detail for word in filter(None, [(config["rope_scaling"] or {}).get("rope_type")]))


@each
def test_the_feed_forward_is_the_one_in_the_file(stop):
    config, part, names = config_of(stop), stop.parts["Feed-forward"], names_of(stop)
    if "num_experts" in config:
        assert part.what == f"{config['num_experts']} experts, {config['num_experts_per_tok']} a token"
        return
    assert part.drawn["gated"] == any("layers.0.mlp.gate_proj" in name for name in names)
    act = config.get("hidden_act") or config.get("hidden_activation") or config["activation_function"]
    assert part.drawn["activation"] == {"silu": "SiLU", "gelu_pytorch_tanh": "GELU", "gelu_new": "GELU"}[act]
    assert part.what == {"silu": "SwiGLU", "gelu_pytorch_tanh": "GeGLU", "gelu_new": "GELU"}[act]


def test_the_experts_are_those_with_the_highest_scores():
    stop = STOPS["qwen3_moe"]
    model, scores = load_model(stop.source, torch.float32), []
    layer = model.blocks[0].feed_forward
    with layer.router.register_forward_hook(lambda *call: scores.append(call[2])), torch.inference_mode():
        model(torch.tensor([[token.id for token in stop.tokens]]))
    wanted = scores[0].flatten(0, -2).argsort(dim=-1, descending=True)[:, : layer.experts_per_token]
    drawn = stop.parts["Feed-forward"].drawn
    assert [set(row) for row in drawn["chosen"]] == [set(row.tolist()) for row in wanted]
    assert drawn["tokens"] == [token.text for token in stop.tokens]


def test_another_config_makes_another_film():
    model = load_model("tiny-gemma3")
    changes = {
        "sliding_window": 24,
        "num_key_value_heads": 2,
        "layer_types": ("full_attention", *["sliding_attention"] * 5),
    }
    other = type(model)(dataclasses.replace(model.config, **changes))
    assert attention(other).drawn == {"heads": 4, "shared": 2, "windows": (None, 24, 24, 24, 24, 24)}
    assert attention(other).said != attention(model).said
    assert cache(other).drawn["kept"] == (TEXT, 24, 24, 24, 24, 24)
    del other.blocks[0].attention_norm
    assert (norm(model).what, norm(other).what) == ("RMSNorm, before and after", "RMSNorm, after")


def changed(key):
    keys = list(STOPS)
    return set(STOPS[key].changed(STOPS[keys[keys.index(key) - 1]]))


def ids(key):
    return [token.id for token in STOPS[key].tokens]


def kib(key):
    return int(STOPS[key].parts["KV cache"].what.split()[0])


def test_captions_about_the_inside_are_true():
    parts = {key: {title: part.what for title, part in stop.parts.items()} for key, stop in STOPS.items()}
    assert changed("llama3") == set(STOPS["llama3"].parts)
    assert (parts["llama3"]["Norm"], parts["llama3"]["Positions"]) == ("RMSNorm, before", "rotary")
    assert STOPS["llama3"].parts["Feed-forward"].drawn["gated"] and 2 * kib("llama3") == kib("gpt2")
    assert changed("qwen3") == {"Norm", "Positions"}
    assert STOPS["qwen3"].parts["Norm"].drawn["queries"] == STOPS["qwen3"].parts["Attention"].drawn["heads"]
    fast, *slow = zip(*(STOPS[key].parts["Positions"].drawn["hands"][""] for key in ("llama3", "qwen3")), strict=True)
    assert fast[0] == fast[1] and all(one != two for one, two in slow)
    assert changed("qwen3_moe") == {"Feed-forward"}
    assert "2 of 8 small networks" in news(STOPS["qwen3_moe"])[0]
    assert parts["gemma3"]["Norm"] == "RMSNorm, before and after" and kib("gemma3") < kib("qwen3_moe") / 2
    windows = STOPS["gemma3"].parts["Attention"].drawn["windows"]
    assert sum(window is not None for window in windows) > len(windows) / 2, "most of its layers"
    assert parts["olmo3"]["Norm"] == "RMSNorm, after"
    sliding, full = STOPS["olmo3"].parts["Positions"].drawn["hands"].values()
    assert sliding[0] == full[0] and sliding[2] > 4 * full[2], "YaRN slows the slow pairs of the full layers"


def test_captions_about_the_tokenizers_are_true():
    begun = [key for key, stop in STOPS.items() if stop.tokens[0].text.startswith("<")]
    assert begun == ["llama3", "gemma3"] and ids("llama3")[1:] == ids("gpt2")
    assert [token.text for token in STOPS["qwen3"].tokens][8:11] == [" wa", "r", "m"]
    assert ids("qwen3") == ids("qwen3_moe") == ids("olmo3")
    files = [(BUNDLED / STOPS[key].source / "tokenizer.json").read_bytes() for key in ("qwen3", "qwen3_moe")]
    assert files[0] == files[1] and STOPS["qwen3"].continuation != STOPS["qwen3_moe"].continuation
    own = {token.text: token.id for token in STOPS["gemma3"].tokens}
    others = {(token.text, token.id) for key in ids_but("gemma3") for token in STOPS[key].tokens}
    assert others and not set(own.items()) & others
    for stop in STOPS.values():
        assert str(len(stop.tokens)) in news(stop)[1]


def ids_but(key):
    return [other for other in STOPS if other != key]


def test_the_mistake_is_the_tokenizer_of_the_family_before():
    keys = list(STOPS)
    assert keys.index(MODEL) == keys.index(LEFT_OVER) + 1
    wrong = mistake()
    assert (wrong.model, wrong.tokenizer) == (STOPS[MODEL], STOPS[LEFT_OVER])


def test_the_wrong_tokenizer_is_refused_in_the_packages_own_words():
    wrong = mistake()
    assert (wrong.passed, wrong.failed) == (("files", "shapes", "forward"), "generation")
    assert wrong.reason == "an ordinary token ends texts"
    token, text = wrong.facts["found"].split(", ")
    assert int(token) == config_of(wrong.model)["eos_token_id"]
    assert load_tokenizer(wrong.tokenizer.source).decode([int(token)]) == text.strip("'")
    assert wrong.facts["likely cause"] == "config and tokenizer of two different models"


def test_what_the_wrong_tokenizer_costs_is_what_the_lab_measured():
    wrong, recorded = mistake(), json.loads(swap_story.RECORD.read_text())["results"]
    pair = f"{wrong.model.source}, {wrong.tokenizer.source}"
    assert pair in recorded["refused pairs"]
    assert wrong.bits == recorded["tokenizer pairs, bits in 100 bytes"][pair] > 10 * wrong.own_bits
    assert wrong.written != wrong.model.continuation and len(wrong.read) == len(wrong.tokenizer.tokens)


def test_the_right_tokenizer_passes_the_same_validation():
    stop = STOPS[MODEL]
    checks = swap_story.validate_with(stop.source, load_tokenizer(stop.source))
    assert all(check.ok for check in checks)


def test_what_cannot_be_drawn_is_marked():
    assert printable("a\x05b\ufffd c") == "a□b□ c"
