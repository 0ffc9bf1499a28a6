"""What somebody wants to do with a model, and what that asks of a checkpoint. One row an objective, as data.

The sizes are judgements, and no measurements: below them, answers of that kind tend not to be worth having. The
lengths are what the work usually needs; every one of them can be asked for otherwise.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    title: str
    chat: bool | None = None  # True: a version trained to answer; False: a base model; None: either
    parameters: int = 0  # at least so many
    context: int = 1024  # tokens, prompt and answer together
    batch_size: int = 1
    ungated: bool = False  # no account, no terms to accept: the learner can begin at once
    training: bool = False  # gradients and AdamW's moments, in the type of the weights


OBJECTIVES: dict[str, Objective] = {
    "run": Objective("see it run at all"),
    "learn": Objective("read the code, follow the numbers", context=256, ungated=True),
    "chat": Objective("answer questions", chat=True, parameters=500_000_000, context=4096),
    "write": Objective("continue long texts", chat=False, parameters=1_000_000_000, context=16_384),
    "code": Objective("write and explain programs", chat=True, parameters=4_000_000_000, context=16_384),
    "classify": Objective("have a base for a classification head", chat=False, context=256, batch_size=8, ungated=True),
    "train": Objective(
        "train on (what is kept for the backward pass is not counted)",
        chat=False,
        context=256,
        batch_size=2,
        ungated=True,
        training=True,
    ),
}
