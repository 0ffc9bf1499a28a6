"""The charts of M9-LAB-06: numbers that were computed or measured. What is measured says on which machine."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..architectures.config import FULL, SLIDING
from ..architectures.olmo3 import Olmo3Config
from ..memory import kv_cache_bytes, weight_bytes
from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, SLATE, legend, new_figure, show, sign
from .lab_06 import cache_by_layer_type

if TYPE_CHECKING:
    from IPython.display import Image

GIB = 2**30


def yarn_ramp(name: str, before: Tensor, after: Tensor, original: int, longer: int) -> "Image":
    """Frequencies as turns within the training length, before and after YaRN, and how far each pair was slowed."""
    figure, (ax, below) = new_figure(8.6, 4.1, nrows=2, sharex=True, height_ratios=(2, 1))
    pairs = range(len(before))
    turns = [[original * value / (2 * math.pi) for value in one.tolist()] for one in (before, after)]
    ax.semilogy(pairs, turns[0], color=SLATE, linewidth=2, linestyle="--", label="plain RoPE")
    ax.semilogy(pairs, turns[1], color=NAVY, linewidth=2.2, label="YaRN")
    for count, text in ((32, "32 turns"), (1, "1 turn")):
        ax.axhline(count, color=GOLD, linewidth=1)
        ax.text(len(before) - 1, count * 1.15, text, color=CHARCOAL, fontsize=9, ha="right", va="bottom")
    ax.set_ylabel(f"turns in {original:,} positions", color=CHARCOAL, fontsize=9)
    ax.set_title(f"{name}, computed: {original:,} positions stretched to {longer:,}", fontsize=10, color=NAVY)
    ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL)
    slower = (before / after).tolist()
    below.step(pairs, slower, where="mid", color=NAVY, linewidth=2)
    kept = sum(value < 1.0001 for value in slower)
    most = max(slower)
    slowed = sum(value > most * 0.9999 for value in slower)
    last = len(before) - slowed
    middle = {"ha": "center", "color": CHARCOAL, "fontsize": 9}
    below.text((kept - 1) / 2, 1.6, "kept", **middle)
    below.text((last + len(before) - 1) / 2, most * 0.62, f"slowed {most:.0f} x", **middle)
    below.text((kept + last) / 2, most * 1.04, "blend", **middle)
    below.set(ylim=(0, most * 1.35), xlim=(0, len(before) - 1))
    below.set_ylabel("times slower", color=CHARCOAL, fontsize=9)
    below.set_xlabel("pair of dimensions (fast at the left, slow at the right)", color=CHARCOAL, fontsize=9)
    return show(
        figure,
        f"Above: turns that each of {len(before)} pairs makes within {original:,} positions, on a logarithmic scale, "
        f"for plain RoPE and for YaRN. Below: the first {kept} pairs are kept, the last {slowed} are slowed {most:.0f} "
        f"times, and those between are blended.",
    )


def damage(losses: Mapping[str, float | None], right: float) -> "Image":
    """Held-out loss of every wrong version, nats per token, on a logarithmic scale; None: it did not load."""
    figure, ax = new_figure(8.6, 0.9 + 0.32 * (len(losses) + 1))
    rows = {"as it should be": right} | dict(losses)
    for row, (name, loss) in enumerate(rows.items()):
        if loss is None:
            ax.text(right * 1.04, row, "refused: a tensor has another shape", va="center", color=CHARCOAL, fontsize=9)
            continue
        ax.barh(row, loss, color=GOLD if name == "as it should be" else NAVY, height=0.62)
        text = f"{loss:.3f}" if loss < 1 else f"{loss:.2f}"
        ax.text(loss * 1.04, row, text, va="center", color=CHARCOAL, fontsize=9)
    ax.axvline(right, color=GOLD, linewidth=1, linestyle="--")
    ax.set_xscale("log")
    most = max(loss for loss in rows.values() if loss is not None)
    ax.set(xlim=(right / 2, most * 1.8), ylim=(len(rows) - 0.4, -0.6))
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8) if right / 2 < tick < most * 1.8]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xlabel("held-out loss, nats per token (logarithmic)", color=CHARCOAL, fontsize=9)
    text = "; ".join(f"{name}: {'refused' if loss is None else f'{loss:.3f}'}" for name, loss in rows.items())
    return show(figure, f"Held-out loss in nats per token of OLMo 3 and of wrong versions of it. {text}.")


def base_and_cache(
    rates: Mapping[str, Mapping[int, float]], held: Mapping[str, Mapping[int, float]], window: int
) -> "Image":
    """Tokens a second against the length of the text, and what the cache holds, by type of layer."""
    figure, (left, right) = new_figure(8.6, 3.0, ncols=2)
    for (name, points), colour, marker in zip(rates.items(), (SLATE, NAVY), "so", strict=True):
        left.plot(list(points), list(points.values()), color=colour, marker=marker, linewidth=2, label=name)
    left.set_ylim(0, max(max(points.values()) for points in rates.values()) * 1.25)
    left.set_ylabel("tokens a second, measured", color=CHARCOAL, fontsize=9)
    left.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, ncols=2, loc="upper left")
    for (name, points), colour, style in zip(held.items(), (NAVY, SKY, SLATE), ("-", "-", "--"), strict=True):
        right.plot(list(points), list(points.values()), color=colour, linewidth=2, linestyle=style, label=name)
    right.axvline(window, 0, 0.6, color=GOLD, linewidth=1)
    most = max(max(points.values()) for points in held.values())
    right.text(window, most * 0.55, f" window: {window:,}", color=CHARCOAL, fontsize=9)
    right.set_ylim(0, most * 1.05)
    right.set_ylabel("cache, KiB, computed", color=CHARCOAL, fontsize=9)
    right.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="upper left")
    for ax in (left, right):
        ax.set_xlabel("tokens in the text", color=CHARCOAL, fontsize=9)
    last = max(next(iter(rates.values())))
    text = ", ".join(f"{name} {points[last]:.0f} tokens a second" for name, points in rates.items())
    text += "; cache: " + ", ".join(f"{name} {points[max(points)]:.0f} KiB" for name, points in held.items())
    return show(sign(figure, right), f"Against the length of the text; at {last:,} tokens: {text}.")


def memory_with_windows(configs: Mapping[str, Olmo3Config]) -> "Image":
    """Weights and cache against the length of the text, one panel a model, the cache by type of layer."""
    figure, axes = new_figure(8.6, 3.3, ncols=len(configs))
    told = []
    for ax, (name, config) in zip(axes, configs.items(), strict=True):
        longest = config.max_position_embeddings
        lengths = [longest * step // 64 for step in range(1, 65)]
        weights = weight_bytes(config) / GIB
        parts = [cache_by_layer_type(config, length) for length in lengths]
        bands = [[part[kind] / GIB for part in parts] for kind in (SLIDING, FULL)]
        ax.stackplot(lengths, [weights] * 64, *bands, colors=(NAVY, GOLD, SKY), linewidth=0)
        per_layer = 2 * config.num_key_value_heads * config.head_dim * 2
        without = [weights + per_layer * config.num_hidden_layers * length / GIB for length in lengths]
        ax.plot(lengths, without, color=CHARCOAL, linewidth=1.2, linestyle="--")
        top = without[-1]
        ax.text(
            longest, top * 1.01, f"without windows {top:.1f} GiB", ha="right", va="bottom", fontsize=9, color=CHARCOAL
        )
        total = weights + kv_cache_bytes(config, longest) / GIB
        ax.set(xlim=(0, longest), ylim=(0, top * 1.14))
        ax.set_title(f"{name}: {total:.1f} GiB at {longest:,} tokens", fontsize=10, color=NAVY)
        ax.set_xlabel("tokens in the text", color=CHARCOAL, fontsize=9)
        ax.set_xticks([0, longest // 2, longest], ["0", f"{longest // 2:,}", f"{longest:,}"])
        at_end = parts[-1]
        told.append(
            f"{name}: weights {weights:.2f} GiB; at {longest:,} tokens, cache of the sliding layers "
            f"{at_end[SLIDING] / GIB:.2f} GiB and of the full layers {at_end[FULL] / GIB:.2f} GiB; {top:.1f} GiB in "
            "all if no layer had a window"
        )
    axes[0].set_ylabel("GiB in bfloat16, computed", color=CHARCOAL, fontsize=9)
    names = {"weights": NAVY, "cache, sliding layers": GOLD, "cache, full layers": SKY}
    figure.legend(handles=patches(names), loc="outside upper left", ncols=3, fontsize=9, frameon=False)
    return show(figure, f"Memory against the length of the text. {'. '.join(told)}.")


def patches(names: Mapping[str, str]) -> list:
    from matplotlib.patches import Patch

    return [Patch(color=colour, label=name) for name, colour in names.items()]


def per_device(
    title: str, rows: Mapping[int, Mapping[str, float]], ceilings: Mapping[str, float], pipeline: Sequence[float]
) -> "Image":
    """GiB on the fullest device, by how many there are; dotted: what machines have; a mark: the pipeline's."""
    figure, ax = new_figure(8.6, 3.2)
    names = list(next(iter(rows.values())))
    colours = dict(zip(names, (NAVY, SKY), strict=True))
    for place, ((_, parts), stage) in enumerate(zip(rows.items(), pipeline, strict=True)):
        bottom = 0.0
        for name, size in parts.items():
            ax.bar(place, size, bottom=bottom, color=colours[name], width=0.5)
            bottom += size
        background = {"facecolor": PEARL, "edgecolor": "none", "pad": 1}
        label = {"ha": "center", "va": "bottom", "color": CHARCOAL, "fontsize": 9, "bbox": background}
        ax.text(place, bottom + 1, f"{bottom:.1f} GiB", **label)
        ax.plot(place + 0.33, stage, marker="D", color=GOLD, markeredgecolor=CHARCOAL, markersize=7)
    for name, size in ceilings.items():
        ax.axhline(size, color=SLATE, linewidth=1, linestyle=":")
        ax.text(len(rows) + 0.08, size + 0.4, name, color=CHARCOAL, fontsize=8.5, va="bottom", ha="right")
    ax.set_xticks(range(len(rows)), [f"{count} device{'s' * (count > 1)}" for count in rows])
    most = max(*ceilings.values(), *(sum(parts.values()) for parts in rows.values()))
    ax.set(xlim=(-0.5, len(rows) + 0.1), ylim=(0, most * 1.1))
    ax.set_ylabel("GiB on the fullest device, computed", color=CHARCOAL, fontsize=9)
    ax.set_title(title, fontsize=10, color=NAVY, pad=24)
    legend(ax, colours | {"diamond: pipeline, all of it": GOLD})
    text = "; ".join(
        f"{count} devices: "
        + ", ".join(f"{name} {size:.1f} GiB" for name, size in (dict(parts) | {"pipeline": stage}).items())
        for (count, parts), stage in zip(rows.items(), pipeline, strict=True)
    )
    limits = ", ".join(f"{name} {size:.1f} GiB" for name, size in ceilings.items())
    return show(figure, f"{title}: memory of the fullest device. {text}. Lines: {limits}.")
