"""The charts of M9-LAB-04: numbers that were computed or measured. What is measured says on which machine."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SERIES, SKY, SLATE, legend, new_figure, show, sign
from .lab_04 import Routing

if TYPE_CHECKING:
    from IPython.display import Image


def score_growth(
    factors: Sequence[float],
    largest: Mapping[str, Sequence[float]],
    bound: float,
    weight: Mapping[str, Sequence[float]],
) -> "Image":
    """What grows when the query and key matrices do: the largest score, and the largest attention weight."""
    figure, (left, right) = new_figure(8.6, 3.1, ncols=2)
    styles = {"with QK-norm": (NAVY, "o"), "without": (GOLD, "s")}
    for ax, values in ((left, largest), (right, weight)):
        for name, (colour, marker) in styles.items():
            ax.plot(factors, values[name], color=colour, marker=marker, linewidth=2, label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(factors, [f"{factor:g}" for factor in factors])
        ax.set_xlabel("query and key matrices, times", color=CHARCOAL, fontsize=9)
    left.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="upper left")
    left.set_yscale("log")
    left.axhline(bound, color=CHARCOAL, linewidth=1, linestyle="--")
    text = f"bound with QK-norm: {bound:.1f}"
    left.text(factors[-1], bound * 1.08, text, color=CHARCOAL, fontsize=9, ha="right", va="bottom")
    left.set_title("largest score, size", fontsize=10, color=NAVY)
    right.set_title("mean of the largest attention weight", fontsize=10, color=NAVY)
    right.set_ylim(0, 1.05)
    end = {name: values[-1] for name, values in largest.items()}
    return show(
        figure,
        f"Left: the largest score against the factor on the matrices, from {factors[0]:g} to {factors[-1]:g}. With "
        f"QK-norm it stays at {end['with QK-norm']:.1f}, below the bound of {bound:.0f}; without, it grows with the "
        f"square of the factor to {end['without']:,.0f}. Right: the largest attention weight, on average: with QK-norm "
        f"always {weight['with QK-norm'][-1]:.2f}, without up to {weight['without'][-1]:.2f}, one key takes all.",
    )


def time_against_length(lengths: Sequence[int], seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> "Image":
    """Milliseconds for the next token against the tokens so far: `seconds[model][with or without cache]`."""
    figure, axes = new_figure(8.6, 3.1, ncols=len(seconds), sharey=True)
    words, most = [], max(max(row) for rows in seconds.values() for row in rows.values())
    for ax, (model, rows) in zip(axes, seconds.items(), strict=True):
        for (name, row), colour, marker in zip(rows.items(), (GOLD, NAVY), "so", strict=True):
            ax.plot(lengths, [1000 * value for value in row], color=colour, marker=marker, linewidth=2, label=name)
            words.append(f"{model} {name}: {1000 * row[0]:.1f} to {1000 * row[-1]:.1f} ms")
        ax.set_title(model, fontsize=10, color=NAVY)
        ax.set_xlabel("tokens in the text", color=CHARCOAL, fontsize=9, labelpad=1)
        ax.set_ylim(0, 1150 * most)
        ax.legend(fontsize=9, frameon=False, labelcolor=CHARCOAL, loc="upper left")
    axes[0].set_ylabel("ms for the next token", color=CHARCOAL, fontsize=9)
    text = f"Time for the next token, from {lengths[0]} to {lengths[-1]} tokens in the text. {'; '.join(words)}."
    return show(sign(figure, axes[-1]), text)


def router_map(tokens: Sequence[str], routings: Mapping[str, Routing]) -> "Image":
    """Tokens x experts: the router's probabilities as shades, framed where the expert was asked; one panel a layer."""
    figure, axes = new_figure(8.6, 0.9 + 0.19 * len(tokens), ncols=len(routings), sharey=True)
    for ax, (layer, routing) in zip(axes, routings.items(), strict=True):
        probability_NX = routing.probability_NX[: len(tokens)]
        shades = ax.imshow(probability_NX.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for n, chosen in enumerate(routing.chosen_Nk[: len(tokens)].tolist()):
            for expert in chosen:
                ax.add_patch(_frame(expert, n))
        experts = probability_NX.shape[1]
        ax.set_xticks(range(0, experts, max(1, experts // 8)))
        ax.set_xlabel("expert", color=CHARCOAL, fontsize=9)
        ax.set_title(layer, fontsize=10, color=NAVY)
    axes[0].set_yticks(range(len(tokens)), [repr(token)[1:-1].replace(" ", "\u00b7") for token in tokens], fontsize=8)
    bar = figure.colorbar(shades, ax=axes, shrink=0.4, pad=0.01)
    bar.set_label("probability", color=CHARCOAL, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=CHARCOAL)
    first = next(iter(routings.values()))
    words = "; ".join(
        f"{token!r} to experts {' and '.join(map(str, chosen))}"
        for token, chosen in zip(tokens[:5], first.chosen_Nk.tolist(), strict=False)
    )
    text = f"Heat maps of {len(tokens)} tokens by {first.probability_NX.shape[1]} experts, for {', '.join(routings)}. "
    return show(figure, f"{text}Framed: the experts that were asked. In the first panel {words}.")


def _frame(expert: int, token: int):
    from matplotlib.patches import Rectangle

    return Rectangle((expert - 0.46, token - 0.43), 0.92, 0.86, fill=False, edgecolor=GOLD, linewidth=1.6)


def expert_usage(routings: Mapping[int, Routing]) -> "Image":
    """For each layer, the share of all tokens that each expert was asked about; dashed: all asked alike."""
    columns = min(4, len(routings))
    rows = -(-len(routings) // columns)
    figure, axes = new_figure(8.6, 0.5 + 1.9 * rows, nrows=rows, ncols=columns, sharey=True, squeeze=False)
    words = []
    for ax, (layer, routing) in zip(axes.flat, routings.items(), strict=False):
        tokens, k = routing.chosen_Nk.shape
        share = [100 * count / tokens for count in routing.counts_X.tolist()]
        busiest = max(range(len(share)), key=share.__getitem__)
        colours = [GOLD if expert == busiest else NAVY for expert in range(len(share))]
        ax.bar(range(len(share)), share, color=colours, width=0.75)
        ax.axhline(100 * k / len(share), color=CHARCOAL, linewidth=1, linestyle="--")
        ax.set_title(f"layer {layer}", fontsize=10, color=NAVY)
        ax.set_xticks(range(0, len(share), max(1, len(share) // 8)))
        ax.set_xlabel("expert", color=CHARCOAL, fontsize=9)
        words.append(f"layer {layer}: from {min(share):.0f} to {max(share):.0f} %, expert {busiest} most")
    for ax in axes.flat[len(routings) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("% of all tokens", color=CHARCOAL, fontsize=9)
    text = (
        f"Share of the tokens that each expert was asked about; an even share would be {100 * k / len(share):.3g} %. "
    )
    return show(figure, f"{text}{'; '.join(words)}.")


def held_and_active(models: Mapping[str, tuple[int, int]], unit: int, unit_name: str) -> "Image":
    """Parameters held in memory beside those that one token uses: `models[name]` is (held, active)."""
    figure, ax = new_figure(8.6, 0.85 + 0.62 * len(models))
    most = max(held for held, _ in models.values()) / unit
    for row, (held, active) in enumerate(models.values()):
        for offset, value, colour, what in ((-0.18, held, SKY, "held"), (0.18, active, NAVY, "active")):
            ax.barh(row + offset, value / unit, height=0.33, color=colour)
            text = f" {what} {value / unit:.2f}"
            ax.text(value / unit, row + offset, text, color=CHARCOAL, fontsize=9, va="center")
    ax.set_yticks(range(len(models)), list(models))
    ax.set(xlim=(0, most * 1.17), ylim=(len(models) - 0.5, -0.5))
    ax.set_xlabel(f"parameters, {unit_name}", color=CHARCOAL, fontsize=9)
    legend(ax, {"held in memory": SKY, "used for one token": NAVY})
    words = "; ".join(f"{name}: held {h / unit:.2f}, active {a / unit:.2f}" for name, (h, a) in models.items())
    return show(figure, f"Parameters held and active, {unit_name}. {words}.")


def variants_measured(values: Mapping[str, Mapping[str, float]], units: Sequence[str]) -> "Image":
    """The four variants side by side, one panel a quantity: `values[quantity][variant]`."""
    names = list(next(iter(values.values())))
    figure, axes = new_figure(8.6, 1.1 + 0.42 * len(names), ncols=len(values), sharey=True)
    for ax, (quantity, row), unit in zip(axes, values.items(), units, strict=True):
        bars = ax.barh(names, list(row.values()), color=SERIES[: len(names)], height=0.62, edgecolor=PEARL)
        ax.bar_label(bars, [f" {value:,.0f} {unit}" for value in row.values()], color=CHARCOAL, fontsize=8.5)
        ax.set_title(quantity, fontsize=10, color=NAVY)
        ax.set_xlim(0, max(row.values()) * 1.6)
        ax.spines[["bottom"]].set_color(SLATE)
        ax.tick_params(bottom=False, labelbottom=False, left=False)
    axes[0].invert_yaxis()
    words = "; ".join(
        f"{quantity}: " + ", ".join(f"{name} {value:,.0f} {unit}" for name, value in row.items())
        for (quantity, row), unit in zip(values.items(), units, strict=True)
    )
    return show(sign(figure, axes[-1]), f"Four variants side by side. {words}.")
