"""Figures of the labs: one palette, one way to show them, and the drawings that are too long for a cell.

Colours are told apart by people with any kind of colour vision, and none of them carries meaning alone: everything is
labelled, too.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..palette import CHARCOAL, GOLD, NAVY, PEARL, SERIES, SKY, SLATE, SOFT_GREY
from .records import provenance

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..memory import MemoryUse


def new_figure(width: float = 8.0, height: float = 3.0, **options) -> tuple["Figure", "Axes"]:
    """A figure, in inches, in the course's colours. `options` go to matplotlib's `subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PEARL, layout="constrained")
    axes = figure.subplots(**options)
    for ax in [axes] if hasattr(axes, "plot") else axes.flat:
        ax.set_facecolor(PEARL)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SLATE)
        ax.tick_params(colors=CHARCOAL, labelsize=9)
    return figure, axes


def show(figure: "Figure", alt: str) -> "Image":
    """The figure as a picture with a description for those who cannot see it; the last line of a cell."""
    from IPython.display import Image
    from PIL.Image import open as open_picture

    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80 * 2, facecolor=figure.get_facecolor())
    # 256 colours are all that a drawing has, and a third of the bytes: notebooks are kept with their pictures.
    open_picture(drawn).convert("RGB").quantize(256, dither=0).save(buffer, "PNG", optimize=True)
    return Image(data=buffer.getvalue(), width=round(figure.get_figwidth() * 80), alt=alt)


def box(
    ax: "Axes", x: float, y: float, width: float, height: float, text: str, fill: str = SOFT_GREY, **text_options
) -> None:
    """A rounded box with text in its middle."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=fill, edgecolor=NAVY, linewidth=1.2))
    colour = "white" if fill == NAVY else CHARCOAL
    options = {"ha": "center", "va": "center", "color": colour, "fontsize": 9.5, "linespacing": 1.35} | text_options
    ax.text(x + width / 2, y + height / 2, text, **options)


def arrow(ax: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": GOLD, "linewidth": 2, "shrinkA": 2, "shrinkB": 2}
    )


def canvas(width: float, height: float) -> tuple["Figure", "Axes"]:
    """An empty drawing area measured in inches, origin at the lower left."""
    figure, ax = new_figure(width, height)
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return figure, ax


def legend(ax: "Axes", names: Mapping[str, str] | Sequence[str], above: bool = True) -> None:
    """The names of the colours, above the axes or in their upper left corner."""
    from matplotlib.patches import Patch

    handles = (
        [Patch(color=colour, label=name) for name, colour in names.items()] if isinstance(names, Mapping) else None
    )
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0)} if above else {"loc": "upper left"}
    ax.legend(handles=handles, ncols=len(names), fontsize=9, frameon=False, labelcolor=CHARCOAL, **place)


def sign(figure: "Figure", ax: "Axes") -> "Figure":
    """Write below the lowest axes on which machine its figures were measured."""
    origin = provenance()
    text = f"measured: {origin['cpu']}, {origin['cores']} cores, torch {origin['packages']['torch']}"
    ax.annotate(
        text, (1, 0), (0, -30), "axes fraction", "offset points", ha="right", va="top", fontsize=7.5, color=SLATE
    )
    return figure


def four_roads() -> "Image":
    """M9-LAB-01's opening picture: four formats, one set of checks, one model."""
    figure, ax = canvas(8.6, 4.75)
    roads = (
        ("PyTorch state dict", "pytorch_model.bin\na pickle: a small program\nthat rebuilds the tensors"),
        ("Transformers", "from_pretrained(...)\na live model that another\nlibrary has built"),
        ("safetensors", "model.safetensors\na table of contents,\nthen plain bytes"),
        ("TensorFlow, OpenAI's own", "model.ckpt.index and .data\nplain bytes, and for each\ntensor a check sum"),
    )
    for index, (title, text) in enumerate(roads):
        y = 3.62 - index * 1.19
        box(ax, 0.1, y, 2.4, 0.8, text, fontsize=8.5)
        ax.text(0.14, y + 0.84, title, color=NAVY, fontsize=10, fontweight="bold", va="bottom")
        arrow(ax, (2.5, y + 0.4), (3.4, 2.3))
    box(ax, 3.4, 1.7, 1.9, 1.2, "the weight map\nwhich tensor goes\nwhere, and how")
    arrow(ax, (5.3, 2.3), (5.95, 2.3))
    box(ax, 5.95, 1.7, 2.5, 1.2, "one GPT-2\nsame names, same shapes,\nsame logits, same text", NAVY)
    return show(
        figure,
        "Four checkpoint formats on the left, PyTorch state dict, Transformers, safetensors and TensorFlow, lead "
        "through one weight map in the middle to one GPT-2 model on the right.",
    )


def fused_matrix(weight_EF: "Tensor", names: Sequence[str] = ("query", "key", "value")) -> "Image":
    """How GPT-2 stores three matrices as one: as in the file (left), and cut up as our model wants it (right)."""
    figure, ax = canvas(8.6, 2.5)
    parts = weight_EF.T.chunk(len(names))
    limit = weight_EF.abs().quantile(0.99).item()

    def matrix(values: "Tensor", x: float, side: float, name: str, colour: str) -> None:
        ax.imshow(
            values.float(), cmap="Greys", vmin=-limit, vmax=limit, extent=(x, x + side, 0.45, 0.45 + side), zorder=1
        )
        ax.add_patch(rectangle(x, 0.45, side, side, "none", colour, 2.5))
        ax.text(x + side / 2, 0.38, name, ha="center", va="top", color=CHARCOAL, fontsize=10, fontweight="bold")

    for index, (name, colour) in enumerate(zip(names, SERIES, strict=False)):
        stored = weight_EF.chunk(len(names), dim=1)[index]
        matrix(stored, 0.15 + index * 1.2, 1.2, name, colour)
        matrix(parts[index], 4.75 + index * 1.32, 1.2, name, colour)
    arrow(ax, (3.85, 1.05), (4.65, 1.05))
    ax.text(4.25, 1.2, "turn and cut", ha="center", color=CHARCOAL, fontsize=9)
    headings = ((0.15, "in the file", weight_EF, "input x output"), (4.75, "in the model", parts[0], "output x input"))
    for x, where, tensor, order in headings:
        many = "one tensor" if tensor is weight_EF else f"{len(names)} tensors"
        text = f"{where}: {many} {tuple(tensor.shape)}, {order}"
        ax.text(x, 1.78, text, color=NAVY, fontsize=10, va="bottom")
    ax.set(xlim=(0, 8.8), ylim=(0, 2.2), aspect="equal")
    return show(
        figure,
        f"Left: the fused weight of {weight_EF.shape[0]} rows and {weight_EF.shape[1]} columns, framed as query, key "
        "and value side by side. An arrow says turn and cut. Right: the three square matrices apart.",
    )


def byte_map(header_bytes: int, groups: Mapping[str, int]) -> "Image":
    """A safetensors file from its first byte to its last: the header, then groups of tensors with their bytes."""
    figure, ax = canvas(8.6, 1.9)
    total = 8 + header_bytes + sum(groups.values())
    scale, x = 8.34 / total, 0.1 + 0.06  # the header is too thin to be seen: it gets a sliver of its own
    ax.add_patch(rectangle(0.1, 0.55, 0.06, 0.6, GOLD))
    for index, (name, size) in enumerate(groups.items()):
        width = size * scale
        ax.add_patch(rectangle(x, 0.55, width, 0.6, (NAVY, SKY)[index % 2]))
        if width > 0.3:
            ax.text(x + width / 2, 0.85, name, ha="center", va="center", color="white", fontsize=9)
        x += width
    text = f"8 bytes (how long is the header?), then {header_bytes:,} bytes of JSON: name, dtype, shape, place"
    ax.plot((0.13, 0.13), (1.15, 1.42), color=GOLD, linewidth=1.5)
    ax.text(0.1, 1.46, text, color=CHARCOAL, fontsize=9.5, va="bottom")
    ax.text(0.1, 0.22, "byte 0", color=SLATE, fontsize=9)
    ax.text(8.5, 0.22, f"byte {total:,}", color=SLATE, fontsize=9, ha="right")
    ax.text(
        4.3, 0.22, "the tensors' bytes, one after the other, without a gap", color=CHARCOAL, fontsize=9.5, ha="center"
    )
    return show(
        figure,
        f"A bar standing for the {total:,} bytes of the file: a sliver for the header at the left, then "
        f"{', '.join(groups)}, each as wide as its share of the bytes.",
    )


def rectangle(x: float, y: float, width: float, height: float, fill: str, edge: str = PEARL, line: float = 0.8):
    """A patch for `ax.add_patch`: sharp corners, no text."""
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge, linewidth=line, zorder=2)


def bars(values: Mapping[str, Mapping[str, float]], units: Sequence[str], alt: str) -> "Image":
    """Horizontal bars, one panel a quantity: `values[quantity][road]`, with the number written beside each bar."""
    figure, axes = new_figure(8.6, 0.75 + 0.42 * len(next(iter(values.values()))), ncols=len(values), sharey=True)
    for ax, (quantity, row), unit in zip(axes, values.items(), units, strict=True):
        shown = ax.barh(list(row), list(row.values()), color=SERIES[: len(row)], height=0.62)
        ax.bar_label(shown, fmt=f" %.3g {unit}", color=CHARCOAL, fontsize=9)
        ax.set_title(quantity, fontsize=10, color=NAVY)
        ax.set_xlim(0, max(row.values()) * 1.35)
        ax.spines[["bottom"]].set_visible(False)
        ax.tick_params(bottom=False, labelbottom=False, left=False)
    axes[0].invert_yaxis()  # the first road on top; the other panels share this axis
    return show(figure, alt)


def memory_timeline(
    use: "MemoryUse", ax: "Axes | None" = None, over_start: bool = False, title: str | None = None
) -> "Axes":
    """A measured block from its beginning to its end: the process's own memory, and that of mapped files above it."""
    if ax is None:
        ax = new_figure()[1]
    seconds = [sample.seconds for sample in use.timeline]
    if use.start_anonymous_mb is None:
        start = use.start_rss_mb if over_start else 0.0
        bands = {"resident": [sample.resident_mb - start for sample in use.timeline]}
    else:
        start = (use.start_anonymous_mb, use.start_file_mb) if over_start else (0.0, 0.0)
        bands = {
            "anonymous: its own": [sample.anonymous_mb - start[0] for sample in use.timeline],
            "mapped files": [sample.file_mb - start[1] for sample in use.timeline],
        }
    ax.stackplot(seconds, *bands.values(), labels=list(bands), colors=SERIES, linewidth=0)
    peak = use.added_peak_mb if over_start else use.peak_rss_mb
    ax.axhline(peak, color=CHARCOAL, linewidth=1, linestyle="--")
    ax.text(seconds[-1], peak, f"peak {peak:,.0f} MiB", color=CHARCOAL, fontsize=9, ha="right", va="bottom")
    ax.set_xlim(0, seconds[-1])
    ax.set_ylim(0, max(peak, 1.0) * 1.2)
    ax.set_xlabel("seconds", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("MiB over the start" if over_start else "MiB", color=CHARCOAL, fontsize=9)
    ax.legend(loc="upper left", fontsize=9, frameon=False, labelcolor=CHARCOAL, ncols=2)
    if title:
        ax.set_title(title, fontsize=10, color=NAVY)
    return ax
