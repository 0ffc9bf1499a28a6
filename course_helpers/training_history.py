"""What happened in a training, step by step: kept, saved, drawn."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .labs.records import write_json

if TYPE_CHECKING:
    from IPython.display import Image


@dataclass
class History:
    """One entry a step in each of the first five lists; the others hold the steps at which somebody looked."""

    losses: list[float] = field(default_factory=list)  # nats per token, of the batch, before the update
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)  # before clipping
    tokens_seen: list[int] = field(default_factory=list)  # targets so far, this step's included
    seconds: list[float] = field(default_factory=list)  # of work so far; looking and saving not counted
    #: {"step": steps done, "loss": nats per held-out token}
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    #: {"step": steps done, "text": prompt and what the model made of it}
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(**content)

    def save(self, path: str | Path) -> None:
        """Write it as JSON; numbers come back to the bit."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))

    def plot(self, title: str = "this model") -> "Image":
        """The losses as a picture, the last line of a cell."""
        return plot_losses({title: self})


def plot_losses(histories: Mapping[str, History]) -> "Image":
    """Losses by steps done when they were measured, for each model by its name: thin, of every batch; with points, of
    the held-out text."""
    from .labs.figures import CHARCOAL, SERIES, SLATE, new_figure, show

    figure, ax = new_figure(8.0, 3.2)
    for index, (name, history) in enumerate(histories.items()):
        # Colours come round again after four models; the dashes then differ.
        style = {"color": SERIES[index % len(SERIES)], "linestyle": ("-", "--", ":")[index // len(SERIES) % 3]}
        ax.plot(range(history.step), history.losses, linewidth=0.8, alpha=0.5, **style)
        steps, held_out = ([row[key] for row in history.evaluations] for key in ("step", "loss"))
        ax.plot(steps, held_out, marker="o", markersize=3.5, linewidth=1.8, label=name, **style)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("steps", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("nats per token", color=CHARCOAL, fontsize=9)
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL)
    ax.grid(axis="y", color=SLATE, alpha=0.2)
    ends = "; ".join(
        f"{name}: {history.losses[0]:.2f} at first, {history.losses[-1]:.2f} at last"
        for name, history in histories.items()
        if history.losses
    )
    return show(figure, f"Loss in nats per token against training steps. {ends}.")
