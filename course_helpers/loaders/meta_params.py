"""`params.json`, the config of Meta's own checkpoints, read as strictly as a config.json.

It names the same sizes in other words, gives the width of the feed-forward by a rule, and leaves things open that
config.json says. Those are taken from the tensors, or from what all released models of the kind have, or they are
refused; `config_from_params` says which is which.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from .files import read_json

PARAMS = "params.json"
EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"

COUNT, NUMBER, FLAG = "a whole number from 1 to 2147483647", "a number above 0, at most 1e12", "true or false"
VALID = {
    COUNT: lambda value: type(value) is int and 0 < value < 2**31,
    NUMBER: lambda value: type(value) in (int, float) and 0 < value <= 1e12,
    FLAG: lambda value: type(value) is bool,
}
#: What params.json must say, and what it may say.
NEEDED = {"dim": COUNT, "n_layers": COUNT, "n_heads": COUNT, "multiple_of": COUNT, "norm_eps": NUMBER}
OPTIONAL = {
    "n_kv_heads": COUNT,
    "vocab_size": COUNT,
    "ffn_dim_multiplier": NUMBER,
    "rope_theta": NUMBER,
    "use_scaled_rope": FLAG,
    "rope_scaling_factor": NUMBER,
}
#: Settings of one run of Meta's program: how much memory its cache takes.
IGNORED = ("max_batch_size", "max_seq_len")

#: Positions that the released models were trained for, by base frequency: Llama 2, Llama 3, Code Llama. Another base:
#: as few as the shortest of them. With scaled frequencies: Llama 3.1 to 3.3.
CONTEXT = {10_000: 4096, 500_000: 8192, 1_000_000: 16384}
SHORTEST, SCALED = 4096, 131_072
#: The first and the last token of a text, by the size of the vocabulary: Llama 2, Code Llama, Llama 3.
SPECIAL = {32_000: (1, 2), 32_016: (1, 2), 128_256: (128_000, 128_001)}
LLAMA_3 = 128_256


def config_from_params(folder: Path, tensors: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config.json of a folder that has a params.json. Raises ConfigError for values that are missing, wrong or not
    supported, and CheckpointError for a file that is no JSON object.

    `tensors`: the checkpoint's, by name; only their shapes and places are looked at. They say what params.json does
    not: the size of the vocabulary (Llama 2 has -1 there), and whether there is a head of its own (Llama 3.2 stores the
    embedding once under both names). Without them, `vocab_size` may be None, and the head counts as its own.

    From what is known of the released models: the base frequency where there is none (10000, Llama 2; with the
    vocabulary of Llama 3 it is refused), how many positions a text may have (`CONTEXT`), and the ids of the first and
    last token (`SPECIAL`; None for any other vocabulary: the tokenizer knows them).
    """
    path, tensors = folder / PARAMS, tensors or {}
    params = read_params(path)
    vocabulary = params["vocab_size"] or rows(path, tensors)
    bos, eos = SPECIAL.get(vocabulary, (None, None))
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": params["dim"],
        "intermediate_size": feed_forward_width(params["dim"], params["multiple_of"], params["ffn_dim_multiplier"]),
        "num_hidden_layers": params["n_layers"],
        "num_attention_heads": params["n_heads"],
        "num_key_value_heads": params["n_kv_heads"] or params["n_heads"],
        "rms_norm_eps": params["norm_eps"],
        **rope(path, params, vocabulary),
        "tie_word_embeddings": bool(tensors) and is_tied(tensors),
        "bos_token_id": bos,
        "eos_token_id": eos,
    }


def read_params(path: Path) -> dict[str, Any]:
    """The fields of the file, None for those it does not have. Raises ConfigError for one that cannot be right, or that
    nobody here knows: it might change the numbers."""
    found = {name: value for name, value in read_json(path).items() if value is not None and name not in IGNORED}
    if found.get("vocab_size") == -1:
        del found["vocab_size"]  # Meta's way to say: ask the tokenizer
    for name, value in found.items():
        kind = (NEEDED | OPTIONAL).get(name)
        if kind is None and value is not False:
            raise unknown(path, name, value)
        if kind is not None and not VALID[kind](value):
            raise wrong(path, name, kind, repr(value)[:200])
    for name, kind in NEEDED.items():
        if name not in found:
            raise wrong(path, name, kind, "nothing")
    params = dict.fromkeys(OPTIONAL) | found
    for name, whole in (("n_heads", "dim"), ("n_kv_heads", "n_heads")):
        if params[whole] % (params[name] or 1):
            raise wrong(path, name, f"a divisor of {whole}, {params[whole]}", params[name])
    return params


def feed_forward_width(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """Meta's rule: two thirds of four times the width, times the multiplier, rounded up to a multiple."""
    hidden = int(2 * (4 * dim) / 3)
    hidden = int((multiplier or 1) * hidden)
    return -(-hidden // multiple_of) * multiple_of


def rope(path: Path, params: Mapping[str, Any], vocabulary: int | None) -> dict[str, Any]:
    """The rotary positions, and how far they go. Raises ConfigError where the file leaves open what they are."""
    theta, factor = params["rope_theta"], params["rope_scaling_factor"]
    if theta is None and vocabulary == LLAMA_3:
        raise wrong(path, "rope_theta", "500000 for Llama 3 (files without it are of Llama 2, with 10000)", "nothing")
    theta = 10_000.0 if theta is None else theta
    if not params["use_scaled_rope"]:
        context = CONTEXT.get(theta, SHORTEST)
        return {"max_position_embeddings": context, "rope_theta": theta, "rope_scaling": None}
    if factor is None:
        raise ConfigError(
            "params.json says that the rotary frequencies are scaled, and not by how much",
            file=path,
            field="rope_scaling_factor",
            expected="8 (Llama 3.1 and 3.3) or 32 (Llama 3.2 1B and 3B)",
            found="nothing: Meta's program has the number in its code",
            cause="a checkpoint of Llama 3.1 or later; with the wrong factor, only long texts go wrong",
            next_step="pass config=, or put the config.json of the model's Hugging Face version beside params.json",
        )
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return {"max_position_embeddings": SCALED, "rope_theta": theta, "rope_scaling": scaling}


def rows(path: Path, tensors: Mapping[str, Any]) -> int | None:
    """The size of the vocabulary as the embedding has it; None without tensors."""
    if tensors and not (EMBEDDING in tensors and len(tensors[EMBEDDING].shape) == 2):
        raise CheckpointError(
            "params.json leaves the vocabulary to the token embedding, and there is none",
            file=path.parent,
            tensor=EMBEDDING,
            expected="a matrix with a row for every token",
            found=tuple(tensors[EMBEDDING].shape) if EMBEDDING in tensors else "no such name",
            cause="an incomplete file, or a model of another family",
            next_step="download the checkpoint again",
        )
    return tensors[EMBEDDING].shape[0] if tensors else None


def is_tied(tensors: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding: it is not there, or it is the same place in every file."""
    if HEAD not in tensors or EMBEDDING not in tensors:
        return HEAD not in tensors
    head, embedding = (getattr(tensors[name], "parts", (tensors[name],)) for name in (HEAD, EMBEDDING))
    places = [[(part.data_ptr(), part.shape, part.stride()) for part in parts] for parts in (head, embedding)]
    return places[0] == places[1]


def unknown(path: Path, name: str, value: object) -> ConfigError:
    return ConfigError(
        "params.json has a field that is not implemented, and that may change the numbers",
        file=path,
        field=name,
        expected=f"only {', '.join(NEEDED | OPTIONAL)}",
        found=repr(value)[:200],
        cause="a quantized or adapted model, or one of another family in Meta's layout",
        next_step="load the model's Hugging Face version; if the field changes nothing, pass config=",
    )


def wrong(path: Path, name: str, expected: str, found: object) -> ConfigError:
    return ConfigError(
        "params.json lacks a field, or has a value there that cannot be right",
        file=path,
        field=name,
        expected=expected,
        found=found,
        cause="a file that was edited by hand, or written by another program",
        next_step="take params.json from the same place as the weights, or pass config=",
    )
