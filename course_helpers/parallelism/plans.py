"""How each family is cut up over several processes, as data: module -> style.

A row's left side is a module (`*` counts blocks), its right side one of the `STYLES`. Of two rows that both lead to a
parameter, the longer one holds. Every parameter needs a row, those that every process keeps whole, too: a module that
was forgotten is refused, not kept whole in silence.

Two kinds of cut alternate, so that one sum over the processes is enough for attention, and one for the feed-forward:
first columns (each process computes some of the hidden values, whole), then rows (from these it computes a part of
every output, and the parts are added up).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Style:
    """One way to share out a module. What happens to its inputs and outputs is in `styles.py`."""

    about: str
    #: Parameter within the module -> the dimension that is cut. One that is not named is whole in every process.
    cut: Mapping[str, int] = field(default_factory=dict)
    #: Cut between heads only, never within one.
    heads: bool = False
    #: Cut into as many parts as key/value heads allow. With more processes than that, several hold the same part.
    shared: bool = False
    #: Parts may differ by some rows: the vocabulary need not be a multiple of the number of processes.
    uneven: bool = False


BOTH = {"weight": 0, "bias": 0}
STYLES: Mapping[str, Style] = {
    "copy": Style("whole in every process"),
    "columns": Style("each process has some of the outputs", BOTH),
    "rows": Style("each process has some of the inputs; the outputs are added up", {"weight": 1}),
    "query heads": Style("each process has some of the query heads", BOTH, heads=True),
    "key/value heads": Style("each process has the key/value heads of its query heads", BOTH, heads=True, shared=True),
    "norm over query heads": Style("one mean over all heads, wherever they are", BOTH, heads=True),
    "norm over key/value heads": Style("the same, for the keys", BOTH, heads=True, shared=True),
    "experts": Style("each process has some of the experts", {"experts.gate_up": 0, "experts.down": 0}),
    "vocabulary": Style("each process has the vectors of some of the tokens", {"weight": 0}, uneven=True),
    "head": Style("each process has the logits of some of the tokens", {"weight": 0}, uneven=True),
    "copy, before the head": Style("whole in every process; its output meets a head that is cut"),
}

Plan = Mapping[str, str]

#: What every family of the course has.
COMMON: Plan = {
    "token_embedding": "vocabulary",
    "blocks.*.attention.query": "query heads",
    "blocks.*.attention.key": "key/value heads",
    "blocks.*.attention.value": "key/value heads",
    "blocks.*.attention.output": "rows",
    "blocks.*.feed_forward.up": "columns",
    "blocks.*.feed_forward.down": "rows",
    "final_norm": "copy, before the head",
    "output_head": "head",
}
GATE: Plan = {"blocks.*.feed_forward.gate": "columns"}
NORMS_BEFORE: Plan = {"blocks.*.attention_norm": "copy", "blocks.*.feed_forward_norm": "copy"}
NORMS_AFTER: Plan = {"blocks.*.attention_post_norm": "copy", "blocks.*.feed_forward_post_norm": "copy"}

GPT2: Plan = COMMON | NORMS_BEFORE | {"position_embedding": "copy"}
LLAMA: Plan = COMMON | NORMS_BEFORE | GATE
QWEN3: Plan = LLAMA | {"blocks.*.attention.query_norm": "copy", "blocks.*.attention.key_norm": "copy"}
QWEN3_MOE: Plan = QWEN3 | {"blocks.*.feed_forward": "experts", "blocks.*.feed_forward.router": "copy"}
GEMMA3: Plan = QWEN3 | NORMS_AFTER
#: Its QK-norm takes one mean over all heads, so processes that have some of the heads must ask each other.
QK_NORM_OVER_ALL: Plan = {
    "blocks.*.attention.query_norm": "norm over query heads",
    "blocks.*.attention.key_norm": "norm over key/value heads",
}
OLMO3: Plan = COMMON | NORMS_AFTER | GATE | QK_NORM_OVER_ALL
