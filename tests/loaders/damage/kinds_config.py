"""Damage to the config: text that is no config, another model's config, and one that fits all shapes and is wrong."""

from random import Random

from tests.loaders.damage.case import META, Case
from tests.loaders.damage.kind import (
    EQUAL,
    FOLDERS,
    MANIFEST,
    ROTARY,
    SAFETENSORS,
    Damage,
    Kind,
)

LLAMA, WINDOWED = ("llama2", "llama3"), ("gemma3", "olmo3")
WITH_CONFIG = (*FOLDERS, "pth", "own state dict")
HEADS, WIDTH = ("n_head", "num_attention_heads"), ("n_embd", "hidden_size")
LAYERS = ("n_layer", "num_hidden_layers")
EPS = ("layer_norm_epsilon", "rms_norm_eps")


def raw(change) -> Damage:
    """Change the bytes of config.json or params.json."""
    return lambda case, random: case.config_file.write_bytes(change(case.config_file.read_text()))


def put(**fields: object) -> Damage:
    return lambda case, random: case.set_config(**fields)


def scaled(names: tuple[str, str], change) -> Damage:
    """Change a field by its GPT-2 or its usual name."""

    def damage(case: Case, random: Random) -> None:
        config = case.whole.model.config
        name = names[0] if case.family == "gpt2" else names[1]
        case.set_config(**{name: change(getattr(config, name))})

    return damage


def without(name: str) -> Damage:
    return lambda case, random: case.change_json(case.config_file, lambda content: content.pop(name, None))


def twice(text: str) -> bytes:
    return text.replace("{", '{"model_type": "gpt2", "dim": 8, ', 1).encode()


def cousin(case: Case, random: Random) -> None:
    """The config of another family, as it stands for one of the same sizes."""
    case.set_config(model_type={"llama": "qwen3", "qwen3": "llama"}.get(case.whole.model.config.model_type, "llama"))


def theta(case: Case, random: Random) -> None:
    """Another rotary base, in both forms that config.json may have."""

    def change(content: dict) -> None:
        for place in (content, content.get("rope_parameters"), content.get("rope_scaling")):
            if isinstance(place, dict):
                for part in (place, *[value for value in place.values() if isinstance(value, dict)]):
                    if part.get("rope_theta"):
                        part["rope_theta"] *= 50
        content["rope_theta"] = content.get("rope_theta") or None

    if case.config is not None:
        change(case.config)
    else:
        case.change_json(case.config_file, change)


def untied(case: Case, random: Random) -> None:
    case.set_config(tie_word_embeddings=False)


def tied(case: Case, random: Random) -> None:
    case.set_config(tie_word_embeddings=True)


def copied_head(case: Case, random: Random) -> None:
    """A file that carries the tied head once more, as that of Qwen3-0.6B does."""
    name = next(name for name in case.shapes() if "wte" in name or "embed_tokens" in name)
    case.edit(lambda ts: ts.update({"lm_head.weight": ts[name].clone()}) if name in ts else None)


def no_window(case: Case, random: Random) -> None:
    case.set_config(layer_types=["full_attention"] * case.whole.model.config.num_hidden_layers)


TIED, UNTIED = ("gpt2", "qwen3", "gemma3"), ("llama2", "llama3", "qwen3_moe", "olmo3")
JSON = FOLDERS + META


def kind(name: str, formats: tuple[str, ...], damage: Damage, must: str = "refused", **others) -> Kind:
    return Kind(f"config: {name}", formats, damage, must, **others)


KINDS = (
    kind("missing", JSON, lambda case, random: case.config_file.unlink()),
    kind("empty", JSON, raw(lambda text: b""), says="JSON"),
    kind("cut", JSON, raw(lambda text: text[: len(text) // 2].encode()), says="JSON"),
    kind("a list", JSON, raw(lambda text: f"[{text}]".encode()), says="JSON"),
    kind(
        "not UTF-8",
        JSON,
        raw(lambda text: text.replace("{", '{"na\udcffme": 1,', 1).encode("utf-8", "surrogateescape")),
    ),
    kind("UTF-16", JSON, raw(lambda text: text.encode("utf-16")), says="JSON"),
    kind("a field twice", JSON, raw(twice), says="twice"),
    kind("NaN", JSON, raw(lambda text: text.replace("{", '{"dropout": NaN,', 1).encode()), says="NaN"),
    kind("an empty object", JSON, raw(lambda text: b"{}")),
    kind("without the epsilon", FOLDERS, without("rms_norm_eps"), says="rms_norm_eps", families=ROTARY),
    kind("an unknown family", WITH_CONFIG, put(model_type="mamba"), says="model_type"),
    kind("a related family", FOLDERS, cousin, families=("llama2", "llama3", "qwen3")),
    kind("a layer less", WITH_CONFIG, scaled(LAYERS, lambda n: n - 1)),
    kind("a layer more", WITH_CONFIG, scaled(LAYERS, lambda n: n + 1)),
    kind("a thousand layers", WITH_CONFIG, scaled(LAYERS, lambda n: 1000)),
    kind("a billion layers", WITH_CONFIG, scaled(LAYERS, lambda n: 10**9), says="at most"),
    kind("another width", WITH_CONFIG, scaled(WIDTH, lambda n: 2 * n)),
    kind("a width of 2**31", WITH_CONFIG, scaled(WIDTH, lambda n: 2**31 - 8)),
    kind("a width of 2**64", WITH_CONFIG, scaled(WIDTH, lambda n: 2**64), says="cannot be right"),
    kind("heads of a billion", WITH_CONFIG, put(head_dim=10**9), families=ROTARY),
    kind("another vocabulary", WITH_CONFIG, put(vocab_size=62)),
    kind("text for a number", WITH_CONFIG, put(vocab_size="61"), says="vocab_size"),
    kind("true for a number", WITH_CONFIG, put(vocab_size=True), says="vocab_size"),
    kind(
        "an epsilon of 10**400",
        FOLDERS,
        raw(lambda t: t.replace('"rms_norm_eps": 1e-0', f'"rms_norm_eps": {10**400}, "x": 1e-0').encode()),
        families=ROTARY,
    ),
    kind(
        "an activation that is not implemented", WITH_CONFIG, put(hidden_act="gelu"), says="hidden_act", families=LLAMA
    ),
    kind(
        "biases, which are not implemented",
        WITH_CONFIG,
        put(attention_bias=True),
        says="attention_bias",
        families=ROTARY,
    ),
    kind("quantized", WITH_CONFIG, put(quantization_config={"bits": 4}), says="quantization_config"),
    kind(
        "rotary positions that are not implemented",
        WITH_CONFIG,
        put(rope_scaling={"rope_type": "dynamic", "factor": 2.0}, rope_parameters=None),
        says="rope_type",
        families=("llama2", "llama3", "qwen3"),
    ),
    kind(
        "an untied head claimed tied", WITH_CONFIG, tied, says="not the token embedding|no place for", families=UNTIED
    ),
    kind("a tied head claimed untied", WITH_CONFIG, untied, says="missing|same memory", families=TIED, harmless=True),
    kind("a copied head claimed untied", SAFETENSORS, untied, EQUAL, families=TIED, prepare=copied_head),
    kind("heads that the shapes contradict", WITH_CONFIG, put(num_attention_heads=12), families=("llama3", "qwen3")),
    kind("other heads in the same shapes", FOLDERS, put(n_head=2), MANIFEST, families=("gpt2",)),
    kind("another epsilon", FOLDERS, scaled(EPS, lambda eps: 1e-3), MANIFEST),
    kind("another rotary base", FOLDERS, theta, MANIFEST, families=("llama2", "llama3", "qwen3")),
    kind(
        "without its rotary scaling",
        FOLDERS,
        put(rope_scaling=None, rope_parameters=None, rope_theta=1e4),
        MANIFEST,
        families=("llama3",),
    ),
    kind("another window", FOLDERS, put(sliding_window=3), MANIFEST, families=WINDOWED),
    kind("other layers with a window", FOLDERS, no_window, MANIFEST, families=WINDOWED),
    kind("fewer experts a token", FOLDERS, put(num_experts_per_tok=1), MANIFEST, families=("qwen3_moe",)),
    kind(
        "experts' weights not made to sum to 1", FOLDERS, put(norm_topk_prob=False), MANIFEST, families=("qwen3_moe",)
    ),
    kind("another scale of queries", FOLDERS, put(query_pre_attn_scalar=8), MANIFEST, families=("gemma3",)),
    kind(
        "another name of the same activation",
        FOLDERS,
        put(activation_function="gelu_pytorch_tanh"),
        EQUAL,
        families=("gpt2",),
    ),
    kind("a field that nobody reads", WITH_CONFIG, put(comment="hello"), EQUAL),
    kind("other special tokens", WITH_CONFIG, put(eos_token_id=[3, 4]), EQUAL),
    kind("Meta: another number of heads", META, put(n_heads=4, n_kv_heads=2), says="n_heads|frequencies|disagree"),
    kind("Meta: another number of layers", META, put(n_layers=3), says="n_layers"),
    kind("Meta: another rotary base", META, put(rope_theta=5e5), says="frequencies"),
    kind("Meta: another epsilon", META, put(norm_eps=1e-3), MANIFEST),
    kind("Meta: a field that is not implemented", META, put(moe={"num_experts": 8}), says="moe"),
    kind("Meta: a width that is text", META, put(dim="32"), says="dim"),
)
