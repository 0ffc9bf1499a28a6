"""The charts of M9-LAB-APP-A: numbers that were computed or measured. What is measured says on which machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..architectures.config import ModelConfig
from ..memory import kv_cache_bytes, weight_bytes
from .figures import CHARCOAL, GOLD, NAVY, SERIES, SKY, SLATE, legend, new_figure, show, sign
from .lab_app_a import MeasuredLoad

if TYPE_CHECKING:
    from IPython.display import Image

GIB = 2**30
PRIVATE, FILE_BACKED = NAVY, GOLD


def shares(parts: Mapping[str, Mapping[str, int]]) -> "Image":
    """Where a model's parameters are: one bar a model, `parts[model][part]`, each bar 100 %."""
    figure, ax = new_figure(8.6, 0.95 + 0.55 * len(parts))
    names = list(next(iter(parts.values())))
    colours = dict(zip(names, (*SERIES[:3], SLATE), strict=False))
    for row, counts in enumerate(parts.values()):
        left, total = 0.0, sum(counts.values())
        for name in names:
            share = 100 * counts[name] / total
            ax.barh(row, share, left=left, color=colours[name], height=0.6, label=name if row == 0 else None)
            if share > 4:
                dark = colours[name] in (NAVY, SLATE)
                ax.text(
                    left + share / 2,
                    row,
                    f"{share:.0f} %",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else CHARCOAL,
                )
            left += share
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlim=(0, 100), ylim=(len(parts) - 0.5, -0.5))
    ax.set_xlabel("% of all parameters", color=CHARCOAL, fontsize=9)
    legend(ax, names)
    text = "; ".join(
        f"{model}: " + ", ".join(f"{name} {100 * count / sum(counts.values()):.1f} %" for name, count in counts.items())
        for model, counts in parts.items()
    )
    return show(figure, f"Stacked bars of where the parameters are. {text}.")


def memory_against_context(name: str, config: ModelConfig) -> "Image":
    """What a model needs to run, against the length of the text: weights, and the cache on top of them."""
    figure, ax = new_figure(8.6, 2.9)
    longest = config.max_position_embeddings
    lengths = [longest * step // 64 for step in range(65)]
    weights = weight_bytes(config) / GIB
    cache = [kv_cache_bytes(config, length) / GIB for length in lengths]
    per_token = kv_cache_bytes(config, 1)
    crossing = weight_bytes(config) // per_token
    ax.stackplot(lengths, [weights] * len(lengths), cache, labels=["weights", "KV cache"], colors=(NAVY, SKY))
    if crossing < longest:
        ax.plot((crossing, crossing), (0, 2 * weights), color=CHARCOAL, linewidth=1, linestyle="--")
        text = f"from {crossing:,} tokens on,\nthe cache is larger\nthan the model"
        ax.text(crossing, 2 * weights + 0.3, text, color=CHARCOAL, fontsize=9, ha="right", va="bottom")
    ax.set(xlim=(0, longest), ylim=(0, (weights + cache[-1]) * 1.12))
    ax.set_xlabel("tokens in the text (one text at a time)", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("GiB in bfloat16", color=CHARCOAL, fontsize=9)
    ax.set_title(f"{name}, computed: {per_token / 2**10:g} KiB of cache for every token", fontsize=10, color=NAVY)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(ax, ["weights", "KV cache"], above=False)
    return show(
        figure,
        f"Memory of {name} against the length of the text. The weights stay at {weights:.2f} GiB; the cache on top of "
        f"them grows in a straight line to {cache[-1]:.2f} GiB at {longest:,} tokens, and equals the weights at "
        f"{crossing:,} tokens.",
    )


def timelines(loads: Mapping[str, MeasuredLoad], model_mb: float) -> "Image":
    """Memory over time, one panel a strategy, all on the same axes; a line stands where load_model came back."""
    figure, axes = new_figure(8.6, 1.45 * len(loads) + 0.5, nrows=len(loads), sharex=True, sharey=True)
    longest = max(load.use.timeline[-1].seconds for load in loads.values())
    highest = max(load.use.added_peak_mb for load in loads.values())
    for ax, (strategy, load) in zip(axes, loads.items(), strict=True):
        load.use.plot(ax, over_start=True)
        ax.get_legend().remove()
        ax.texts[0].set_x(longest * 1.3)  # the peak, at the right edge: a panel may end far to the left of it
        ax.set(xlabel="", ylabel="")
        ax.axhline(model_mb, color=SLATE, linewidth=0.8, linestyle=":")
        ax.axvline(load.load_seconds, 0, 0.94, color=CHARCOAL, linewidth=1)
        text = f" loaded after {load.load_seconds:.2f} s"
        ax.text(load.load_seconds, highest * 1.4, text, color=CHARCOAL, fontsize=9, va="top")
        ax.set_title(strategy, fontsize=10, color=NAVY, loc="left", fontweight="bold")
    axes[0].set(xlim=(0, longest * 1.3), ylim=(0, highest * 1.5))
    handles, _ = axes[0].get_legend_handles_labels()
    names = ["private", "file-backed"] if len(handles) > 1 else ["resident"]
    options = {"ncols": 2, "fontsize": 9, "frameon": False, "labelcolor": CHARCOAL}
    figure.legend(handles, names, loc="outside upper right", **options)
    figure.supxlabel("seconds: the load, then two forward passes", color=CHARCOAL, fontsize=9)
    figure.supylabel(f"MiB over the start (dotted: the model, {model_mb:.0f} MiB)", color=CHARCOAL, fontsize=9)
    text = "; ".join(
        f"{name} comes back after {load.load_seconds:.2f} s with a peak of {load.private_mb:.0f} MiB private and "
        f"{load.file_mb:.0f} MiB file-backed"
        for name, load in loads.items()
    )
    return show(sign(figure, axes[-1]), f"Memory over time, one panel a strategy, on the same axes. {text}.")


def predicted_beside_measured(predicted: Mapping[str, tuple[float, float]], loads: Mapping[str, MeasuredLoad]):
    """Peaks, MiB: `predicted[strategy]` is (private, file-backed), drawn above what was measured."""
    figure, ax = new_figure(8.6, 0.9 + 0.72 * len(loads))
    most = max(max(map(sum, predicted.values())), max(load.private_mb + load.file_mb for load in loads.values()))
    for row, (strategy, load) in enumerate(loads.items()):
        measured = load.private_mb, load.file_mb
        for offset, pair, alpha in ((-0.19, predicted[strategy], 0.35), (0.19, measured, 1.0)):
            left = 0.0
            for size, colour in zip(pair, (PRIVATE, FILE_BACKED), strict=True):
                ax.barh(row + offset, size, left=left, height=0.34, color=colour, alpha=alpha)
                left += size
            what = "predicted" if alpha < 1 else "measured"
            ax.text(
                left + most * 0.01, row + offset, f"{what} {left:,.0f} MiB", va="center", color=CHARCOAL, fontsize=9
            )
    ax.set_yticks(range(len(loads)), list(loads))
    ax.set(xlim=(0, most * 1.25), ylim=(len(loads) - 0.5, -0.6))
    ax.set_xlabel("peak over the start, MiB (pale: predicted)", color=CHARCOAL, fontsize=9)
    legend(ax, {"private": PRIVATE, "file-backed": FILE_BACKED})
    text = "; ".join(
        f"{name}: predicted {sum(predicted[name]):.0f} MiB, measured {load.private_mb:.0f} private and "
        f"{load.file_mb:.0f} file-backed"
        for name, load in loads.items()
    )
    return show(sign(figure, ax), f"Peaks, predicted and measured. {text}.")


def stacked_sizes(rows: Mapping[str, Mapping[str, int]]) -> "Image":
    """Bytes by what they are, one bar a use, computed: `rows[use][part]`."""
    figure, ax = new_figure(8.6, 0.95 + 0.5 * len(rows))
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    colours = dict(zip(names, (NAVY, SKY, SLATE), strict=False))
    most = max(sum(parts.values()) for parts in rows.values()) / GIB
    for row, parts in enumerate(rows.values()):
        left = 0.0
        for name, size in parts.items():
            ax.barh(row, size / GIB, left=left, color=colours[name], height=0.6)
            left += size / GIB
        ax.text(left + most * 0.01, row, f"{left:.2f} GiB", va="center", color=CHARCOAL, fontsize=9)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, most * 1.15), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xlabel("GiB, computed", color=CHARCOAL, fontsize=9)
    legend(ax, colours)
    text = "; ".join(
        f"{use}: " + ", ".join(f"{name} {size / GIB:.2f} GiB" for name, size in parts.items())
        for use, parts in rows.items()
    )
    return show(figure, f"What the memory is for. {text}.")
