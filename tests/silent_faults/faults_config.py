"""Fields of config.json that fit every tensor and are wrong all the same."""

from typing import Any

from tests.silent_faults.fault import ALL, ROTARY, WINDOWED, Fault, Patient, PutIn

EPSILON = {"gpt2": "layer_norm_epsilon"}
HEADS = {"gpt2": "n_head"}
BASE = "rope_theta"
#: What goes into Gemma 3's norms is so large that the other epsilon moves a text's loss by 0.00003 nats: rounding.
SMALL_VALUES = tuple(family for family in ALL if family != "gemma3")


def fields(**values: Any) -> PutIn:
    return lambda patient: patient.edit_json("config.json", lambda config: config.update(values))


def scaled(**values: Any) -> PutIn:
    """Fields of rope_scaling."""
    return lambda patient: patient.edit_json("config.json", lambda config: config["rope_scaling"].update(values))


def times(field: str, factor: float) -> PutIn:
    def put_in(patient: Patient) -> None:
        value = patient.config[field]
        fields(**{field: type(value)(value * factor)})(patient)

    return put_in


def epsilon(patient: Patient) -> None:
    """The other of the two usual values."""
    field = EPSILON.get(patient.family, "rms_norm_eps")
    fields(**{field: 1e-6 if patient.config[field] == 1e-5 else 1e-5})(patient)


def half_the_heads(patient: Patient) -> None:
    """Heads twice as wide: every matrix keeps its shape."""
    config = patient.config
    names = [HEADS[patient.family]] if patient.family in HEADS else ["num_attention_heads", "num_key_value_heads"]
    fields(**{name: config[name] // 2 for name in names})(patient)
    if "head_dim" in config:
        times("head_dim", 2)(patient)


def next_layer_types(patient: Patient) -> None:
    plan = patient.config["layer_types"]
    fields(layer_types=plan[1:] + plan[:1])(patient)


def full_attention(patient: Patient) -> None:
    fields(layer_types=["full_attention"] * len(patient.config["layer_types"]))(patient)


def turned(field: str) -> PutIn:
    return lambda patient: fields(**{field: not patient.config[field]})(patient)


FAULTS = (
    Fault("rotary base ten times too large", "6.3", ROTARY, times(BASE, 10)),
    Fault("rotary base of Llama 2", "6.3", ("llama3", "qwen3", "qwen3_moe", "olmo3"), fields(rope_theta=1e4)),
    Fault(
        "rotary base of the sliding layers: that of the full ones", "1", ("gemma3",), fields(rope_local_base_freq=1e6)
    ),
    Fault("rotary scaling left out", "6.3", ("llama3", "olmo3"), fields(rope_scaling=None)),
    Fault("rotary scaling by another factor", "1", ("llama3", "olmo3"), scaled(factor=32.0)),
    Fault(
        "rotary scaling from another original length",
        "1",
        ("llama3", "olmo3"),
        scaled(original_max_position_embeddings=32),
    ),
    Fault("YaRN: attention factor of 1", "1", ("olmo3",), scaled(attention_factor=1.0)),
    Fault("epsilon of another family", "4.5", SMALL_VALUES, epsilon),
    Fault("half as many heads, twice as wide", "0.5", ("gpt2", "llama2", "llama3", "olmo3"), half_the_heads),
    Fault("window twice as wide", "4.6", WINDOWED, times("sliding_window", 2)),
    Fault("windows in the wrong layers", "1", WINDOWED, next_layer_types),
    Fault("no windows at all", "6.14", WINDOWED, full_attention),
    Fault("scores scaled by the width of a head", "1", ("gemma3",), fields(query_pre_attn_scalar=32)),
    Fault("experts: weights not divided by their sum", "4.4", ("qwen3_moe",), fields(norm_topk_prob=False)),
    Fault("experts: one too few answers", "", ("qwen3_moe",), fields(num_experts_per_tok=1)),
    Fault("the head tied, or not, against the file", "0.6, 4.14", ALL, turned("tie_word_embeddings")),
    Fault("another token ends texts", "4.19", ALL, lambda patient: end_at(patient, 300)),
)


def end_at(patient: Patient, token: int) -> None:
    fields(eos_token_id=token)(patient)
    patient.edit_json("generation_config.json", lambda content: content.update(eos_token_id=[token]))
