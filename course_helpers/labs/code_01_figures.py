"""Pictures of M9-CODE-01: the way of the tensors, and what shapes cannot tell."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..architectures.gpt2 import PRESETS
from ..loaders.assign import HEAD
from ..loaders.rules import Rule
from ..loaders.weight_maps import GPT2
from .figures import CHARCOAL, GOLD, NAVY, PEARL, SLATE, SOFT_GREY, arrow, box, canvas, new_figure, show

if TYPE_CHECKING:
    from IPython.display import Image
    from torch import Tensor

#: One tensor for each kind of rule that GPT-2 needs.
SHOWN = (
    "wte.weight",
    "h.0.mlp.c_fc.weight",
    "h.0.attn.c_attn.weight",
    "h.0.attn.c_proj.weight",
    "lm_head.weight",
    "h.0.attn.bias",
)
STEPS = (
    ("plan", "every name of the file and of\nthe model gets its place"),
    ("check", "names and shapes, all of them;\nno weight has been read yet"),
    ("assign", "only if there is no problem:\neverything, or nothing"),
)


def names_to_parameters() -> "Image":
    """The opening picture: names of GPT-2's file at the left, parameters at the right, a rule on every way."""
    figure, ax = canvas(8.6, 5.1)
    rules = GPT2.expand(next(iter(PRESETS.values())))
    top, gap, code = 4.72, 0.42, {"fontsize": 8.5, "family": "monospace"}
    for x, title in ((0.1, "in the file"), (3.05, "rule"), (5.2, "in the model")):
        ax.text(x, top + 0.12, title, color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
    y = top - 0.2
    for name in SHOWN:
        what, targets = done(rules.get(name))
        height = gap * max(1, len(targets))
        centre = y - (height - gap) / 2
        box(ax, 0.1, centre - 0.15, 2.3, 0.3, name, **code)
        fill = SOFT_GREY if what == "as it is" else GOLD if targets else PEARL
        box(ax, 3.05, centre - 0.15, 1.45, 0.3, what, fill, fontsize=9)
        arrow(ax, (2.4, centre), (3.05, centre))
        for index, target in enumerate(targets):
            row = y - gap * index
            box(ax, 5.2, row - 0.15, 3.25, 0.3, target, NAVY, **code)
            arrow(ax, (4.5, centre), (5.2, row))
        if not targets:
            reason = "the embedding a second time" if name == "lm_head.weight" else "the causal mask, a constant"
            ax.text(4.65, centre, reason, color=CHARCOAL, fontsize=9, va="center", style="italic")
        y -= height
    for index, (step, text) in enumerate(STEPS):
        x = 0.1 + index * 2.95
        box(ax, x, 0.1, 2.45, 0.7, text, fontsize=8.8)
        ax.text(x, 0.86, f"{index + 1}  {step}", color=NAVY, fontsize=10.5, fontweight="bold", va="bottom")
        if index:
            arrow(ax, (x - 0.5, 0.45), (x, 0.45))
    return show(
        figure,
        "Six tensor names of a GPT-2 file at the left. Each leads through a rule to parameters of the model at the "
        "right: as it is; turned; turned and cut in three, to query, key and value. Two are left out, the tied head "
        "and a constant mask. Below, three steps: plan, check, assign.",
    )


def done(rule: Rule | None) -> tuple[str, Sequence[str]]:
    """What a rule does, in the words of the lab, and for which parameters."""
    if rule is None or rule.targets == (HEAD,):
        return "leave out", ()
    cut = f"cut in {len(rule.targets)}" if len(rule.targets) > 1 else ""
    return ", ".join(filter(None, ("turn" if rule.transpose else "", cut))) or "as it is", rule.targets


def two_matrices(right: "Tensor", wrong: "Tensor", size: int = 28) -> "Image":
    """The upper left corner of a square matrix as it should be, and on its side. One number, the largest that is well
    off the diagonal, is marked in both."""
    figure, axes = new_figure(8.6, 4.1, ncols=2)
    limit = right.abs().quantile(0.98).item()
    colours = diverging()
    row, column = divmod(right[:size, :size].abs().triu(diagonal=size // 3).argmax().item(), size)
    panels = (("right: output x input", right, (row, column)), ("on its side: input x output", wrong, (column, row)))
    for ax, (title, matrix, (i, j)) in zip(axes, panels, strict=True):
        shown = ax.imshow(matrix[:size, :size].float().numpy(), cmap=colours, vmin=-limit, vmax=limit)
        ax.plot(j, i, "o", markersize=13, markerfacecolor="none", markeredgecolor=CHARCOAL, markeredgewidth=2.2)
        ax.set_title(title, fontsize=10.5, color=NAVY)
        ax.set_xlabel(f"column (0 to {size - 1} of {matrix.shape[1]})", fontsize=9, color=CHARCOAL)
        ax.set_ylabel(f"row (0 to {size - 1} of {matrix.shape[0]})", fontsize=9, color=CHARCOAL)
        ax.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(shown, ax=list(axes), shrink=0.8, extend="both")
    bar.set_label("weight", fontsize=9, color=CHARCOAL)
    bar.ax.tick_params(labelsize=8, colors=CHARCOAL)
    return show(
        figure,
        "Two heat maps of the same corner of a square weight matrix, as it should be and on its side. Both look like "
        "the same even noise. A ring marks one number: "
        f"row {row}, column {column} at the left is row {column}, column {row} at the right.",
    )


def diverging():
    """Gold, pearl, navy: below zero, zero, above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("course", (GOLD, PEARL, NAVY))


def drift(differences: Mapping[str, "Tensor"]) -> "Image":
    """How far the logits of wrong models are from the right ones, position by position."""
    figure, axes = new_figure(8.6, 1.0 + 1.5 * len(differences), nrows=len(differences), sharex=True, sharey=True)
    for ax, colour, (name, values) in zip(axes, (NAVY, GOLD), differences.items(), strict=False):
        ax.bar(range(len(values)), values.tolist(), width=0.8, color=colour)
        ax.margins(x=0.01)
        ax.set_title(name, fontsize=10, color=NAVY, loc="left")
        note = "right at the first token" if values[0] < 1e-4 else "wrong from the first token on"
        ax.set_title(note, fontsize=9.5, color=CHARCOAL, loc="right", style="italic")
    axes[-1].set_xlabel("position in the text (tokens)", fontsize=9.5, color=CHARCOAL)
    figure.supylabel("largest difference of a logit", fontsize=9.5, color=CHARCOAL)
    described = "; ".join(f"{name}: {values[0]:.2g} at the first token" for name, values in differences.items())
    return show(figure, f"Bars, one for every position of a text, show how far the logits are off. {described}.")


def surprise(losses: Mapping[str, float], guessing: float) -> "Image":
    """Loss per token of some models, in nats, beside what guessing costs. Models called right get the quiet colour."""
    figure, ax = new_figure(8.6, 0.75 + 0.42 * len(losses))
    colours = [NAVY if "right" in name else GOLD for name in losses]
    shown = ax.barh(list(losses), list(losses.values()), color=colours, height=0.62)
    ax.bar_label(shown, fmt=" %.2f", color=CHARCOAL, fontsize=9)
    ax.axvline(guessing, color=SLATE, linestyle="--", linewidth=1.5)
    ax.text(guessing, -0.62, f"guessing: {guessing:.1f}", color=CHARCOAL, fontsize=9, ha="right", va="bottom")
    ax.set_xlim(0, max(guessing, *losses.values()) * 1.08)
    ax.set_xlabel("loss per token (nats); less is better", fontsize=9.5, color=CHARCOAL)
    ax.invert_yaxis()
    ax.tick_params(left=False)
    described = ", ".join(f"{name} {value:.2f}" for name, value in losses.items())
    return show(figure, f"Bars of the loss per token, in nats: {described}. A dashed line: guessing, {guessing:.1f}.")
