"""The charts of M9-LAB-08: what the tools found, counted and measured."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .figures import CHARCOAL, NAVY, PEARL, SERIES, SKY, legend, new_figure, show, sign
from .lab_08 import DEPARTMENTS

if TYPE_CHECKING:
    from IPython.display import Image

COLOURS = dict(zip(DEPARTMENTS, (*SERIES, "#A0AEC0"), strict=True))


def loudness(off: Mapping[str, float], noticed: Mapping[str, bool], bound: float) -> "Image":
    """How far each quiet fault moves the loss of the text that it moves most, on a logarithmic axis. `noticed`: whether
    it is seen without a card, too."""
    figure, ax = new_figure(8.6, 0.95 + 0.36 * len(off))
    order = sorted(off, key=off.get)
    for row, name in enumerate(order):
        alone = noticed[name]
        ax.barh(row, off[name], left=1e-4, color=NAVY if alone else SKY, height=0.62)
        note = "also seen without a card" if alone else "only the card tells"
        ax.text(off[name] * 1.25, row, f"{off[name]:.3g}   {note}", va="center", color=CHARCOAL, fontsize=8.5)
    ax.axvline(bound, color=CHARCOAL, linewidth=1, linestyle="--")
    ax.text(bound * 1.1, len(off) - 0.45, f"allowed: {bound:g}", color=CHARCOAL, fontsize=8.5, va="bottom")
    ax.set_yticks(range(len(off)), order)
    ax.set(xscale="log", xlim=(1e-4, max(off.values()) * 1000), ylim=(-0.6, len(off) + 0.1))
    ax.set_xlabel("largest change in the loss of one of the card's texts, nats (log)", color=CHARCOAL, fontsize=9)
    text = "; ".join(
        f"{name} {off[name]:.3g} nats, {'also seen without a card' if noticed[name] else 'only the card tells'}"
        for name in order
    )
    return show(figure, f"Bars on a logarithmic axis from the quietest to the loudest fault. {text}.")


def who_noticed(
    counts: Mapping[str, Mapping[str, int]], tools: Mapping[str, str], milliseconds: Mapping[str, float]
) -> "Image":
    """How many patients each look was the first to notice, by department, and what the look takes."""
    figure, ax = new_figure(8.6, 0.9 + 0.5 * len(counts))
    most = max(sum(row.values()) for row in counts.values())
    for row, (layer, found) in enumerate(counts.items()):
        left = 0
        for department in DEPARTMENTS:
            if count := found.get(department, 0):
                ax.barh(row, count, left=left, color=COLOURS[department], edgecolor=PEARL, height=0.62)
                left += count
        who = ", ".join(f"{count} {name}" for name, count in found.items())
        note = f"{who}\na look takes {milliseconds[layer]:.0f} ms"
        ax.text(left + most * 0.02, row, note, va="center", color=CHARCOAL, fontsize=8.5, linespacing=1.25)
    ax.set_yticks(range(len(counts)), [f"{layer}\n{tools[layer]}" for layer in counts])
    ax.set(xlim=(0, most * 1.35), ylim=(len(counts) - 0.5, -0.5))
    ax.set_xlabel("patients that this look was the first to notice", color=CHARCOAL, fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend(ax, COLOURS)
    text = "; ".join(
        f"{layer}: {sum(found.values())} ({', '.join(f'{count} {name}' for name, count in found.items())}), "
        f"{milliseconds[layer]:.0f} ms"
        for layer, found in counts.items()
    )
    return show(sign(figure, ax), f"Stacked bars: which look noticed how many patients first. {text}.")
