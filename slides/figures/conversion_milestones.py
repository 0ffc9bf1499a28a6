"""Slide 17: the config's translation table, what each wrong value does, and the lab's checkpoints in order.

The eleven fields fall into two groups. A wrong value in the first changes a tensor's name or shape, and any loader
refuses it. The second leaves no trace, so the lab tried a wrong value in each and measured: the bars show what the loss
sees. The row of checkpoints below is what the learner must have at the end.
"""

import json

from course_helpers.palette import (
    ALARM,
    CHARCOAL,
    GOLD,
    GOLD_INK,
    GOLD_TINT,
    HAIRLINE,
    MONO,
    MUTED,
    NAVY,
    SLATE,
    SOUND,
    SOUND_TINT,
)

from . import figure
from .numbers import RESULTS, measured
from .svg import Drawing

LAB = "M9-LAB-02"
LEFT, RIGHT = 36, 1060
OLD, OLD_VALUE, NEW, NEW_VALUE, EFFECT = 52, 336, 398, 732, 766  # columns; values end, all others begin
HEAD, ROW, TALL = 48, 32, 50  # the head's baseline; heights of a visible and of a silent row
GAP = 38  # between the groups, for the second one's title
TRACK = 606  # middle of the row of checkpoints
BAR = 13  # height of a bar
HIGHEST = 1.7  # nats at the right end of the bars

#: Llama 2's field -> GPT-2's name for the same thing
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "tie_word_embeddings": "tie_word_embeddings",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
COUNT = {4: "Four", 5: "Five", 6: "Six"}  # in words
#: Llama 2's field -> its name in the lab's record, and the wrong value that the lab tried
SILENT = {
    "num_attention_heads": ("heads", "twice as many"),
    "max_position_embeddings": ("positions", "twice as long"),
    "rms_norm_eps": ("eps", "a tenth"),
    "hidden_act": ("activation", "GPT-2's"),
    "rope_theta": ("theta", "Llama 3's"),
}
#: How many of the lab's checkpoints, in its order, belong to which part of the work
GROUPS = (
    ("start", 1),
    ("seven stages", 3),
    ("config", 2),
    ("tokenizer", 2),
    ("weights", 2),
    ("rows", 1),
    ("debugging", 2),
)


@figure
def conversion_milestones(drawing: Drawing) -> None:
    found = measured(drawing, LAB)
    drawing.source("checkpoints: results/run.json")
    heads(drawing)
    right = found["tokenizer_losses"]["its own tokenizer"]
    y = HEAD + 14
    for field, values in found["config"].items():
        silent = field in SILENT
        if field == next(iter(SILENT)):
            drawing.text(
                OLD, y + GAP - 10, f"{COUNT[len(SILENT)]} fields leave no trace in any tensor", 18, 650, GOLD_INK
            )
            drawing.text(EFFECT, y + GAP - 10, f"a trained model's loss; right: {right:.2f}", 17, 600, CHARCOAL)
            y += GAP
        height = TALL if silent else ROW
        if silent:
            drawing.rect(LEFT, y + 2, RIGHT - LEFT, height - 4, GOLD_TINT, None, 8)
        translation(drawing, field, values, y + height / 2 + 6)
        if silent:
            name, tried = SILENT[field]
            effect(drawing, y, tried, found["silent_fields"][name], right)
        y += height
    refused(drawing, HEAD + 14, ROW * (len(found["config"]) - len(SILENT)))
    track(drawing, checkpoints())


def checkpoints() -> list[dict]:
    """The lab's validation checkpoints in the last run of all labs."""
    run = json.loads((RESULTS / "run.json").read_text(encoding="utf-8"))
    return next(lab for lab in run["labs"] if lab["lab"] == LAB)["checkpoints"]


def shown(value: object) -> str:
    """A config's value as short as it can be read."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,.0f}" if value >= 1 else f"{value:.5f}"


def verdict(effect: dict, right: float) -> tuple[str, str]:
    """What would notice a wrong value, and the ink it is written in."""
    if effect["logits_equal"]:
        return "no effect here", SOUND
    if effect["loss"] > 1.5 * right:
        return "", ALARM  # the bar says it
    return "only logits show it", ALARM


def heads(drawing: Drawing) -> None:
    drawing.text(OLD, HEAD, "GPT-2's config", 21, 650, NAVY)
    drawing.text(NEW, HEAD, "Llama 2's config", 21, 650, NAVY)
    drawing.text(EFFECT, HEAD, "If the value is wrong", 21, 650, NAVY)
    drawing.line(LEFT, HEAD + 13, RIGHT, HEAD + 13, HAIRLINE, 1.5)


def translation(drawing: Drawing, field: str, values: list, y: float) -> None:
    """One field under both names, with both values."""
    before, after = (shown(value) for value in values)
    changed = values[0] != values[1]
    if field in NAMES:
        drawing.text(OLD, y, NAMES[field], 17, 400, CHARCOAL, family=MONO)
        drawing.text(OLD_VALUE, y, before, 17, 500, CHARCOAL, "end", family=MONO)
    else:
        drawing.text(OLD, y, "no such field", 17, 400, MUTED)
    drawing.arrow((OLD_VALUE + 16, y - 6), (NEW - 14, y - 6), stroke=GOLD if changed else SLATE, line=2.5, head=9)
    drawing.text(NEW, y, field, 17, 500, NAVY, family=MONO)
    drawing.text(NEW_VALUE, y, after, 17, 700 if changed else 500, NAVY if changed else CHARCOAL, "end", family=MONO)


def refused(drawing: Drawing, top: float, height: float) -> None:
    """The visible group's common effect: no number is needed, the file does not fit."""
    drawing.rect(EFFECT, top + 6, RIGHT - EFFECT, height - 14, SOUND_TINT, None, 10)
    drawing.tick(EFFECT + 32, top + height / 2 - 18, 22, SOUND, 4)
    drawing.text(EFFECT + 58, top + height / 2 - 11, "it is refused", 21, 650, SOUND)
    drawing.paragraph(
        EFFECT + 20, top + height / 2 + 22, RIGHT - EFFECT - 40, "a tensor's name or shape does not fit", 18
    )


def effect(drawing: Drawing, top: float, tried: str, found: dict, right: float) -> None:
    """One silent field's bar: the loss with the wrong value, the right model's share of it in slate."""
    words, ink = verdict(found, right)
    scale = (RIGHT - EFFECT - 24) / HIGHEST
    loss, inner = found["loss"] * scale, EFFECT + 10
    drawing.text(inner, top + 22, tried, 18, 400, CHARCOAL)
    drawing.text(RIGHT - 14, top + 22, f"loss {found['loss']:.2f}", 18, 700, CHARCOAL, "end")
    drawing.rect(inner, top + 29, loss, BAR, GOLD, None, 3)
    drawing.rect(inner, top + 29, right * scale, BAR, SLATE, None, 3)
    drawing.text(RIGHT - 14, top + 43, words, 17, 600, ink, "end")


def track(drawing: Drawing, found: list[dict]) -> None:
    """The checkpoints as stations, in the lab's order."""
    step = (RIGHT - LEFT) / len(found)
    passed = sum(one["passed"] for one in found)
    drawing.text(LEFT, TRACK - 34, f"Expected: {passed} of {len(found)} validation checkpoints", 20, 650, NAVY)
    start = 0
    for words, count in GROUPS:
        left, right = LEFT + (start + 0.5) * step, LEFT + (start + count - 0.5) * step
        drawing.line(left, TRACK, right, TRACK, SOUND, 3)
        for place in range(count):
            station(drawing, left + place * step, found[start + place]["passed"])
        drawing.text((left + right) / 2, TRACK + 44, words, 18, 500, CHARCOAL, "middle")
        start += count


def station(drawing: Drawing, x: float, passed: bool) -> None:
    drawing.circle(x, TRACK, 17, SOUND_TINT, SOUND if passed else ALARM, 2.5)
    (drawing.tick if passed else drawing.cross)(x, TRACK, 15, SOUND if passed else ALARM, 3)
