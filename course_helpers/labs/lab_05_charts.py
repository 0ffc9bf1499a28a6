"""The charts of M9-LAB-05: numbers that were computed or measured. What is measured says on which machine."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .figures import CHARCOAL, GOLD, NAVY, SERIES, SKY, SLATE, legend, new_figure, show, sign
from .lab_05 import Run
from .lab_05_faults import TOLERANCE, Damage

if TYPE_CHECKING:
    from IPython.display import Image

KIB, MIB = 2**10, 2**20
MARKERS = ("o", "s", "^")


def wavelengths(frequencies: Mapping[str, Tensor], window: int, longest: int) -> "Image":
    """Positions until each pair has made a full turn, one line a base; window and longest text as lines across."""
    figure, ax = new_figure(8.6, 3.3)
    for (name, frequency), colour, marker in zip(frequencies.items(), (GOLD, NAVY, SKY), MARKERS, strict=False):
        turns = [2 * math.pi / one for one in frequency.tolist()]
        every = max(1, len(turns) // 16)
        options = {"marker": marker, "markersize": 5, "markevery": every, "linewidth": 1.8}
        ax.plot(range(len(turns)), turns, color=colour, label=name, **options)
    pairs = len(frequency)
    for value, text in ((window, f"window: {window:,}"), (longest, f"longest text: {longest:,}")):
        ax.axhline(value, color=SLATE, linewidth=1, linestyle="--")
        ax.text(pairs / 64, value * 1.2, text, color=CHARCOAL, fontsize=9)
    ax.set_yscale("log")
    ax.set(xlim=(-0.3, pairs - 0.7))
    ax.set_xlabel("pair of dimensions, from the fastest to the slowest", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("positions for a full turn", color=CHARCOAL, fontsize=9)
    legend(ax, list(frequencies))
    slowest = "; ".join(f"{name}: {2 * math.pi / one[-1].item():,.0f}" for name, one in frequencies.items())
    return show(
        figure,
        f"Positions for a full turn of each of {pairs} pairs, on a logarithmic scale, rising from 6 at the fastest "
        f"pair. At the slowest: {slowest}. The window is {window:,} positions, the longest text {longest:,}.",
    )


def influence(curves: Sequence[Sequence[float]], plan: Sequence[str], window: int) -> "Image":
    """How strongly the last position depends on each earlier one, after each layer: `curves[layer][distance]`."""
    figure, ax = new_figure(8.6, 3.6)
    ends = []
    for number, (curve, kind) in enumerate(zip(curves, plan, strict=False), start=1):
        distances, values = zip(*[(at, value) for at, value in enumerate(curve) if value > 0], strict=True)
        ends.append(distances[-1])
        if kind == "full_attention":
            ax.plot(distances, values, color=NAVY, linewidth=1.6)
            continue
        ax.plot(distances, values, color=GOLD, linewidth=1.1, alpha=0.45 + 0.1 * number)
        ax.plot(distances[-1], values[-1], "o", color=CHARCOAL, markersize=4)
        ax.axvline(distances[-1], color=SLATE, linewidth=0.8, linestyle=":")
        text = f"layer {number}:\n{number} x {window - 1} "
        ax.text(distances[-1], 0.03, text, transform=ax.get_xaxis_transform(), ha="right", fontsize=8.5, color=CHARCOAL)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low * (low / high) ** 0.15, high)  # room for the words below the lowest mark
    ax.set_xlabel("distance back from the newest position", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("size of the gradient", color=CHARCOAL, fontsize=9)
    legend(ax, {"after each local layer": GOLD, "after the first global layer": NAVY})
    text = ", ".join(map(str, ends))
    return show(
        figure,
        f"How strongly the newest position depends on those before it, logarithmic, a line a layer. Those of the local "
        f"layers fall and end abruptly. The farthest distances with any influence: {text}.",
    )


def damages(found: Mapping[str, Damage], right_loss: float) -> "Image":
    """How far each fault moves the loss of the text it moves most, logarithmic, with the loss itself written beside."""
    order = sorted(found, key=lambda name: -found[name].worst)
    figure, ax = new_figure(8.6, 1.0 + 0.29 * len(order))
    for row, name in enumerate(order):
        one = found[name]
        ax.barh(row, one.worst - 1e-4, left=1e-4, color=NAVY if one.short else GOLD, height=0.66)
        note = f" loss {one.loss:.2f}" + ("" if one.short else ", unseen within the window")
        ax.text(one.worst, row, note, color=CHARCOAL, fontsize=9, va="center")
    ax.axvline(TOLERANCE, color=CHARCOAL, linewidth=1, linestyle="--")
    ax.text(TOLERANCE, -0.62, f" the card's tolerance {TOLERANCE}", color=CHARCOAL, fontsize=8.5, va="bottom")
    ax.set_yticks(range(len(order)), order)
    ax.set_xscale("log")
    ax.set(xlim=(1.5e-4, 4e5), ylim=(len(order) - 0.4, -1.5))
    ax.set_xticks([10.0**power for power in range(-3, 4)])
    ax.set_xlabel(
        f"nats by which the loss of a text moves, at most (the right model's loss is {right_loss:.2f} a token)",
        color=CHARCOAL,
        fontsize=9,
    )
    legend(ax, {"a short text shows it": NAVY, "only a text longer than the window shows it": GOLD})
    text = "; ".join(
        f"{name}: moves {found[name].worst:.2g} nats at most, loss {found[name].loss:.2f}" for name in order
    )
    return show(figure, f"What each fault does to held-out texts, largest first. {text}.")


def cache_growth(
    lengths: Sequence[int], held: Mapping[str, Sequence[int]], formula: Mapping[str, Sequence[int]], title: str
) -> "Image":
    """Cache bytes against the length of the text: lines by the formula, marks for caches that were really made."""
    figure, ax = new_figure(8.6, 2.9)
    for (name, sizes), colour, marker in zip(held.items(), (NAVY, GOLD), MARKERS, strict=False):
        ax.plot(lengths, [size / KIB for size in formula[name]], color=colour, linewidth=1.8)
        ax.plot(lengths, [size / KIB for size in sizes], marker, color=colour, markersize=6, label=name)
        ax.text(lengths[-1], sizes[-1] / KIB, f"  {sizes[-1] / KIB:,.0f} KiB", color=CHARCOAL, fontsize=9, va="center")
    ax.set(xlim=(0, lengths[-1] * 1.13), ylim=(0, None))
    ax.set_xlabel("tokens in the text", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("KiB", color=CHARCOAL, fontsize=9)
    ax.set_title(title, fontsize=10, color=NAVY)
    ax.legend(loc="upper left", fontsize=9, frameon=False, labelcolor=CHARCOAL)
    text = "; ".join(f"{name}: {sizes[-1] / KIB:,.0f} KiB at {lengths[-1]:,} tokens" for name, sizes in held.items())
    return show(figure, f"Bytes of the cache against the length of the text. {text}. All marks lie on the lines.")


def released_caches(rows: Mapping[str, tuple[int, int]], length: int) -> "Image":
    """Two bars a released model: its cache if every layer kept everything, and with rings; `rows[model]` in bytes."""
    figure, ax = new_figure(8.6, 0.95 + 0.62 * len(rows))
    most = max(full for full, _ in rows.values()) / MIB
    for row, (full, ring) in enumerate(rows.values()):
        for offset, size, colour in ((-0.19, full, NAVY), (0.19, ring, GOLD)):
            ax.barh(row + offset, size / MIB, height=0.34, color=colour)
            note = f" {size / MIB:,.0f} MiB" + (f", {full / ring:.1f} times less" if size == ring else "")
            ax.text(size / MIB, row + offset, note, color=CHARCOAL, fontsize=9, va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, most * 1.2), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel(f"MiB of cache for one text of {length:,} tokens in bfloat16, computed", color=CHARCOAL, fontsize=9)
    legend(ax, {"every layer keeps all": NAVY, "ring in the local layers": GOLD})
    text = "; ".join(
        f"{name}: {full / MIB:,.0f} MiB, with rings {ring / MIB:,.0f} MiB" for name, (full, ring) in rows.items()
    )
    return show(figure, f"Caches of the released models for {length:,} tokens. {text}.")


def race(runs: Mapping[str, Mapping[int, Run]]) -> "Image":
    """Throughput and memory of each pathway against the length of the prompt, side by side."""
    from matplotlib.ticker import LogLocator

    figure, axes = new_figure(8.6, 3.6, ncols=2)
    panels = (
        ("tokens a second, while decoding", lambda run: run.tokens_per_second),
        ("KiB held while one token is made", lambda run: run.held_bytes / KIB),
    )
    for ax, (title, value) in zip(axes, panels, strict=True):
        for (name, by_length), colour, marker in zip(runs.items(), SERIES, MARKERS, strict=False):
            ax.plot(
                list(by_length),
                [value(run) for run in by_length.values()],
                marker=marker,
                color=colour,
                linewidth=1.6,
                label=name,
            )
        lengths = list(by_length)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.margins(y=0.12)
        ax.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=8)
        ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        ax.minorticks_off()
        ax.set_title(title, fontsize=10, color=NAVY)
        ax.set_xlabel("tokens in the prompt", color=CHARCOAL, fontsize=9)
    axes[0].legend(loc="lower left", fontsize=8.5, frameon=False, labelcolor=CHARCOAL)
    text = "; ".join(
        f"{name}, {length:,} tokens: {run.tokens_per_second:.0f} tokens a second, {run.held_bytes / KIB:,.0f} KiB"
        for name, by_length in runs.items()
        for length, run in list(by_length.items())[-1:]
    )
    return show(sign(figure, axes[1]), f"Throughput and memory against the length of the prompt. {text}.")
