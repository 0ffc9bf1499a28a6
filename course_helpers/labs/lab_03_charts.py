"""The charts of M9-LAB-03: numbers that were computed from configs, or measured on models."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..architectures.rope import RopeParameters
from .figures import CHARCOAL, GOLD, NAVY, SERIES, SKY, SLATE, legend, new_figure, show, sign

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

GIB = 2**30
STYLES = ("-", "--", "-.", ":")


def label(ax: "Axes", x: str, y: str, title: str = "") -> None:
    ax.set_xlabel(x, color=CHARCOAL, fontsize=9)
    ax.set_ylabel(y, color=CHARCOAL, fontsize=9)
    if title:
        ax.set_title(title, color=NAVY, fontsize=10)


def cache_against_context(caches: Mapping[str, int], weights: int, longest: int) -> "Image":
    """Bytes of cache a token, `caches[how]`, drawn over the length of the text, beside the weights. Computed."""
    figure, ax = new_figure(8.6, 2.9)
    ends = {how: per_token * longest / GIB for how, per_token in caches.items()}
    for (how, end), colour, style in zip(ends.items(), (GOLD, NAVY, SKY), STYLES, strict=False):
        ax.plot((0, longest), (0, end), color=colour, linestyle=style, linewidth=2.2)
        ax.text(longest * 1.01, end, f"{how}\n{end:.0f} GiB", color=CHARCOAL, fontsize=9, va="center")
    ax.plot((0, longest), (weights / GIB, weights / GIB), color=SLATE, linewidth=1.2, linestyle=":")
    text = f"the weights: {weights / GIB:.0f} GiB"
    ax.text(longest * 0.01, weights / GIB, text, color=CHARCOAL, fontsize=9, va="bottom")
    ax.set(xlim=(0, longest * 1.28), ylim=(0, max(ends.values()) * 1.1))
    ax.set_xticks([longest * step // 4 for step in range(5)])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    label(ax, "tokens in one text", "GiB in bfloat16, computed")
    told = "; ".join(f"{how}: {end:.0f} GiB" for how, end in ends.items())
    return show(
        figure,
        f"Cache against the length of the text, straight lines from 0 to {longest:,} tokens. At the end: {told}. The "
        f"weights take {weights / GIB:.0f} GiB.",
    )


def likeness(distance: float, rate: Tensor) -> float:
    """The mean cosine over all pairs at about this distance: averaged over a fifth more and less, for it flickers."""
    around = distance * torch.linspace(0.8, 1.2, 41, dtype=torch.float64)
    return (around[:, None] * rate.double()).cos().mean().item()


def bases(frequencies: Mapping[str, Tensor], contexts: Mapping[str, int]) -> "Image":
    """Left: the wavelength of every pair. Right: how alike a vector and its own copy look at a distance."""
    figure, (left, right) = new_figure(8.6, 3.1, ncols=2)
    told = []
    distances = [2 ** (step / 2) for step in range(2 * 17 + 1)]
    looks = zip(frequencies.items(), (GOLD, NAVY), STYLES, strict=False)
    for (name, rate), colour, style in looks:
        waves = 2 * math.pi / rate
        left.plot(waves.tolist(), color=colour, linestyle=style, linewidth=2.2)
        alike = [likeness(distance, rate) for distance in distances]
        right.plot(distances, alike, color=colour, linestyle=style, linewidth=2.2, label=name)
        longest = waves[-1].item()
        left.text(len(waves) - 1, longest * 1.5, f"{longest:,.0f}", color=CHARCOAL, fontsize=9, ha="right", va="bottom")
        told.append(
            f"{name}: wavelengths from {waves[0]:.1f} to {longest:,.0f} tokens; alike "
            f"{likeness(4096, rate):.2f} at a distance of 4,096"
        )
    for (name, context), (factor, place) in zip(contexts.items(), ((0.82, "top"), (1.2, "bottom")), strict=False):
        left.axhline(context, color=SLATE, linewidth=1, linestyle=":")
        left.text(0, context * factor, f"{name}: texts of {context:,}", color=CHARCOAL, fontsize=8.5, va=place)
    left.set(yscale="log", ylim=(4, 2e7))
    label(left, "pair of dimensions (0 turns fastest)", "wavelength in tokens (log)", "one full turn takes")
    right.set(xscale="log", ylim=(-0.25, 1.05))
    label(right, "distance in tokens (log)", "mean cosine over all pairs", "how alike the same content looks")
    right.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="upper right")
    return show(figure, f"Two bases compared. {'. '.join(told)}.")


def bands(plain: Tensor, scaled: Tensor, rope: RopeParameters, name: str) -> "Image":
    """Wavelengths before and after the llama3 scaling, on log axes, with the three bands that it makes."""
    figure, ax = new_figure(8.6, 3.6)
    before, after = (2 * math.pi / rate for rate in (plain, scaled))
    original = rope.original_max_position_embeddings
    edges = original / rope.high_freq_factor, original / rope.low_freq_factor
    low, high = before[0].item() / 1.6, before[-1].item() * 1.6
    ceiling = high * rope.factor * 3
    counts = (before < edges[0]).sum().item(), 0, (before > edges[1]).sum().item()
    counts = (counts[0], len(before) - counts[0] - counts[2], counts[2])
    spans = ((low, edges[0]), edges, (edges[1], high))
    words = ("kept", "blended", f"slowed x {rope.factor:g}")
    for (start, end), colour, word, count in zip(spans, (SKY, GOLD, NAVY), words, counts, strict=True):
        ax.axvspan(start, end, color=colour, alpha=0.14, linewidth=0)
        text = f"{word}\n{count} of {len(before)}"
        ax.text(math.sqrt(start * end), ceiling / 1.6, text, color=CHARCOAL, fontsize=9, ha="center", va="top")
    ax.plot((low, high), (low, high), color=SLATE, linestyle=":", linewidth=1.2)
    for one, other in zip(before.tolist(), after.tolist(), strict=True):
        if other > one * 1.3:
            arrow = {"arrowstyle": "-|>", "color": GOLD, "linewidth": 1, "shrinkA": 0, "shrinkB": 2}
            ax.annotate("", (one, other), (one, one), arrowprops=arrow)
    ax.plot(before, before, "o", color=SLATE, markersize=3.5, markerfacecolor="white", label="before")
    ax.plot(before, after, "o", color=NAVY, markersize=4.5, label="after")
    for edge in edges:
        ax.axvline(edge, color=CHARCOAL, linewidth=0.9, linestyle="--")
        ax.text(edge, low * 1.2, f" {edge:,.0f}", color=CHARCOAL, fontsize=9, va="bottom")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, ceiling))
    label(ax, "wavelength before, tokens (log)", "wavelength after, tokens (log)", f"{name}: what the scaling moves")
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="lower right")
    return show(
        figure,
        f"{name}: of {len(before)} pairs, those with wavelengths under {edges[0]:,.0f} tokens are kept ({counts[0]}), "
        f"those above {edges[1]:,.0f} are slowed {rope.factor:g} times ({counts[2]}), {counts[1]} between are blended.",
    )


def turns(plain: float, scaled: float, original: int, longest: int, pair: int) -> "Image":
    """How far one slow pair has turned at every position, before and after; shaded: what training had shown it."""
    figure, ax = new_figure(8.6, 2.7)
    seen = original * plain / (2 * math.pi)
    ends = {"before": longest * plain / (2 * math.pi), "after": longest * scaled / (2 * math.pi)}
    ax.axhspan(0, seen, color=SKY, alpha=0.2, linewidth=0)
    for (name, end), colour, style in zip(ends.items(), (GOLD, NAVY), STYLES, strict=False):
        ax.plot((0, longest), (0, end), color=colour, linestyle=style, linewidth=2.2)
        ax.text(longest * 1.01, end, f"{name}: {end:.2f} turns", color=CHARCOAL, fontsize=9, va="center")
    ax.axvline(original, color=CHARCOAL, linewidth=0.9, linestyle="--")
    text = f" angles seen within {original:,} tokens: up to {seen:.2f} turns"
    ax.text(original, ends["before"] * 0.93, text, color=CHARCOAL, fontsize=9, va="center")
    ax.set(xlim=(0, longest * 1.22), ylim=(0, ends["before"] * 1.05))
    ax.set_xticks([longest * step // 4 for step in range(5)])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    label(ax, "position in the text", f"turns of pair {pair}")
    return show(
        figure,
        f"How far pair {pair} has turned, against the position. In training, up to position {original:,}, it came to "
        f"{seen:.2f} turns. At {longest:,} it would be at {ends['before']:.2f} turns without the scaling, and is at "
        f"{ends['after']:.2f} with it.",
    )


def loss_by_position(rows: Mapping[str, Sequence[float]], width: int) -> "Image":
    """Mean loss of the tokens in successive stretches of the texts, one line a model. Measured."""
    figure, ax = new_figure(8.6, 3.0)
    groups = len(next(iter(rows.values())))
    names = [f"{group * width + 1}-{(group + 1) * width}" for group in range(groups)]
    markers = ("o", "s", "^", "D", "v")
    looks = zip(rows.items(), (NAVY, SKY, GOLD, SLATE, CHARCOAL), (*STYLES, "-"), markers, strict=False)
    for (name, values), colour, style, marker in looks:
        ax.plot(range(groups), values, color=colour, linestyle=style, marker=marker, linewidth=2, label=name)
    ax.set_xticks(range(groups), names)
    ax.set_ylim(0, max(max(values) for values in rows.values()) * 1.1)
    label(ax, "position of the token in its story", "mean loss, nats per token")
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="upper left")
    told = "; ".join(f"{name}: {values[0]:.2f} to {values[-1]:.2f}" for name, values in rows.items())
    return show(sign(figure, ax), f"Loss by the token's position, from the first stretch to the last. {told}.")


def fault_bars(losses: Mapping[str, float], guess: float) -> "Image":
    """The loss of every broken model, worst at the bottom, beside the right one and beside guessing. Measured."""
    figure, ax = new_figure(8.6, 0.9 + 0.3 * len(losses))
    ordered = dict(sorted(losses.items(), key=lambda item: item[1]))
    right = next(iter(losses))
    colours = [SERIES[1] if name == right else SERIES[0] for name in ordered]
    ax.barh(list(ordered), list(ordered.values()), color=colours, height=0.62)
    for row, value in enumerate(ordered.values()):
        ax.text(value + max(losses.values()) * 0.01, row, f"{value:.2f}", va="center", color=CHARCOAL, fontsize=9)
    ax.plot((guess, guess), (-0.5, len(losses)), color=CHARCOAL, linewidth=1, linestyle="--")
    ax.text(guess, -0.55, f"guessing: {guess:.2f}", color=CHARCOAL, fontsize=9, ha="center", va="bottom")
    ax.invert_yaxis()
    ax.set_ylim(len(ordered) - 0.4, -1.0)
    ax.set_xlim(0, max(losses.values()) * 1.1)
    label(ax, "loss on eight stories, nats per token", "")
    told = "; ".join(f"{name}: {value:.2f}" for name, value in ordered.items())
    return show(sign(figure, ax), f"Loss of the right model and of broken ones; guessing would be {guess:.2f}. {told}.")


def sizes_by_part(parts: Mapping[str, Mapping[str, int]]) -> "Image":
    """Parameters by part, in billions, one bar a model: `parts[model][part]`. Counted."""
    figure, ax = new_figure(8.6, 0.95 + 0.5 * len(parts))
    names = [name for name in next(iter(parts.values())) if any(counts[name] > 1e7 for counts in parts.values())]
    colours = dict(zip(names, (NAVY, GOLD, SKY, SLATE), strict=False))
    most = max(sum(counts.values()) for counts in parts.values()) / 1e9
    for row, counts in enumerate(parts.values()):
        left = 0.0
        for name in names:
            size = counts[name] / 1e9
            ax.barh(row, size, left=left, color=colours[name], height=0.62)
            if size > 0.055 * most:
                light = CHARCOAL if colours[name] in (GOLD, SKY) else "white"
                text = f"{size:.2f}"
                ax.text(left + size / 2, row, text, color=light, fontsize=9, ha="center", va="center")
            left += size
        total = sum(counts.values()) / 1e9
        ax.text(left + most * 0.01, row, f"{total:.2f} billion", color=CHARCOAL, fontsize=9, va="center")
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlim=(0, most * 1.17), ylim=(len(parts) - 0.5, -0.5))
    label(ax, "parameters, billions", "")
    legend(ax, colours)
    told = "; ".join(
        f"{model}: " + ", ".join(f"{name} {counts[name] / 1e9:.2f}" for name in names)
        for model, counts in parts.items()
    )
    return show(figure, f"Parameters by part, in billions. {told}.")
