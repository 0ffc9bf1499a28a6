"""The silent mistakes that the labs made on purpose, each with what it costs: nats per token above the right model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LABS = ("M9-LAB-02", "M9-LAB-03", "M9-LAB-04", "M9-LAB-05", "M9-LAB-06")

CONFIG, TOKENIZER, WEIGHTS, CODE, PRECISION = "config", "tokenizer", "weights", "code", "precision"

#: Where a lab keeps its losses, and the key of the right model's.
RIGHT = {
    ("M9-LAB-02", "silent_fields"): ("tokenizer_losses", "its own tokenizer"),
    ("M9-LAB-02", "tokenizer_losses"): ("tokenizer_losses", "its own tokenizer"),
    ("M9-LAB-02", "layout_losses"): ("layout_losses", "HF's rows with halves turned"),
    ("M9-LAB-03", "loss_of_silent_mistakes"): ("loss_of_silent_mistakes", "right"),
    ("M9-LAB-04", "losses_of_routing_mistakes"): ("losses_of_routing_mistakes", "as trained"),
    ("M9-LAB-05", "damage"): ("damage", "right loss"),
    ("M9-LAB-06", "held_out_loss"): ("held_out_loss", "right"),
}
#: Which kind of mistake each is. What one wrong field of config.json brings about is a mistake of the config.
KINDS = {
    ("M9-LAB-02", "silent_fields"): {CONFIG: ("heads", "activation", "theta", "eps")},
    ("M9-LAB-02", "tokenizer_losses"): {TOKENIZER: ("the same, no mark", "GPT-2's tokenizer")},
    ("M9-LAB-02", "layout_losses"): {
        WEIGHTS: ("Meta's rows with halves turned",),
        CODE: ("HF's rows with pairs turned",),
    },
    ("M9-LAB-03", "loss_of_silent_mistakes"): {
        CONFIG: ("factor 32", "scaling left out", "base 10,000"),
        TOKENIZER: ("other tokenizer",),
        WEIGHTS: ("rows in Meta's order", "head left random"),
        CODE: ("heads tiled",),
        PRECISION: ("bfloat16 at 5,000",),
    },
    ("M9-LAB-04", "losses_of_routing_mistakes"): {
        CONFIG: ("not divided", "one expert each", "all experts"),
        WEIGHTS: ("one place off",),
    },
    ("M9-LAB-05", "damage"): {
        CONFIG: (
            "feed-forward: SiLU for GELU", "feed-forward: exact GELU", "window: one too wide",
            "window: one too narrow", "window: half as wide", "window: ignored", "plan: shifted by one layer",
            "plan: all layers local", "bases: exchanged", "bases: the local one everywhere",
            "bases: the global one everywhere", "bases: slowed by 8, as from 4B up",
            "scores: divided by sqrt(head_dim)",
        ),
        CODE: (
            "embedding: not scaled", "norms: w instead of 1 + w", "norms: the two post-norms left out",
            "norms: QK-norm left out",
        ),
    },
    ("M9-LAB-06", "held_out_loss"): {
        CONFIG: (
            "YaRN in no layer", "all pairs slowed alike", "attention factor left out", "sliding layers see everything",
        ),
        CODE: (
            "YaRN in all layers", "attention factor on cos only", "norms before (Llama's order)",
            "norms around the sum", "QK-norm per head, same weights", "no QK-norm",
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """One mistake: of what kind, in which lab, the loss with it, and the nats per token it costs (below 0: none)."""

    kind: str
    lab: str
    name: str
    loss: float
    nats: float


def mistakes(records: Mapping[str, Mapping[str, Any]]) -> list[Mistake]:
    """All of them, from the labs' records. Raises KeyError where a lab no longer records one."""
    found = []
    for (lab, table), kinds in KINDS.items():
        losses = records[lab]
        where, key = RIGHT[lab, table]
        right = _loss(losses[where][key])
        found += [
            Mistake(kind, lab, name, loss := _loss(losses[table][name]), loss - right)
            for kind, names in kinds.items()
            for name in names
        ]
    return found


def _loss(value: float | Mapping[str, float]) -> float:
    return value["loss"] if isinstance(value, Mapping) else value
