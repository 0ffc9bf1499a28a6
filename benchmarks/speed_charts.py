"""The pictures of `speed.py`, as SVG: each says in its title what was found, and comes with a description in words.

Systems differ in colour and in shape, so that no colour carries meaning alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed_rounds import CONTEXT, DECODE, PREFILL
from benchmarks.speed_systems import OURS, SCRATCH, TRANSFORMERS
from benchmarks.speed_view import PEERS, View, figure, views
from course_helpers.labs.figures import new_figure
from course_helpers.labs.records import whole
from course_helpers.palette import CHARCOAL, GOLD, HAIRLINE, MUTED, NAVY, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PEER = "best peer"
#: Colour and marker of each library, and what the legend calls it.
LOOK = {
    OURS: (NAVY, "o", "this course"),
    TRANSFORMERS: (GOLD, "s", "Transformers, its best setting"),
    SCRATCH: (SKY, "^", "llms-from-scratch"),
    PEER: (GOLD, "D", "the best peer at each length"),
}
Picture = tuple["Figure", str]


def draw(report: dict, folder: Path, stem: str) -> dict[str, str]:
    """Write the pictures; their files' names, and what is to be seen on each."""
    import matplotlib

    written = {}
    for name, picture in PICTURES.items():
        if found := picture(report):
            figure_, alt = found
            # The same figures give the same file, to the byte.
            with matplotlib.rc_context({"svg.hashsalt": "course"}), whole(folder / f"{stem}-{name}.svg") as path:
                figure_.savefig(path, format="svg", metadata={"Date": None}, facecolor=figure_.get_facecolor())
            written[f"{stem}-{name}.svg"] = alt
    return written


def span(values: list[float]) -> str:
    """ "1.2", or "1.2 to 3.4"."""
    low, high = (f"{value:.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def decode(report: dict) -> Picture | None:
    """How far from the limit each library decodes, one line a model."""
    title = f"{DECODE} {report['lengths']['prompt']} → {report['lengths']['spans'][0]}"
    found = [view for view in views(report, title, 1) if view.best(OURS) and view.best(*PEERS)]
    if not found:
        return None
    ours = [view.times_floor(view.best(OURS)) for view in found]
    peers = [view.times_floor(view.best(*PEERS)) for view in found]
    headline = f"Decoding takes {span(ours)} times the machine's limit; the best peer, {span(peers)} times"
    value = lambda view, name: view.times_floor(name)  # noqa: E731
    drawn = dots(found, value, headline, "seconds a token, as a multiple of reading the weights once (1 is the limit)")
    return drawn, f"Dot plot. {headline}. {told(found, value, ' times the limit')}"


def prefill(report: dict) -> Picture | None:
    """How fast a prompt is read, as a multiple of the best peer."""
    title = f"{PREFILL} {report['lengths']['prefills'][0]}"
    found = [view for view in views(report, title) if view.lead() is not None]
    if not found:
        return None
    leads = [view.lead() for view in found]
    headline = f"A prompt of {title.split()[1]} tokens: {span(leads)} times as fast as the best peer"
    value = lambda view, name: view.times(view.best(*PEERS), name)  # noqa: E731
    drawn = dots(found, value, headline, "tokens a second, as a multiple of the best peer's")
    return drawn, f"Dot plot. {headline}. {told(found, value, ' times the best peer')}"


def dots(found: list[View], value: Callable[[View, str], float], headline: str, axis: str) -> "Figure":
    """One line a case, one mark a library."""
    figure_, ax = new_figure(8.6, 1.3 + 0.34 * len(found))
    for row, view in enumerate(found):
        ax.axhline(row, color=HAIRLINE, linewidth=1, zorder=0)
        for who, (colour, marker, _) in LOOK.items():
            if name := view.best(who):
                ax.plot(value(view, name), row, marker, color=colour, markersize=8, markeredgecolor=CHARCOAL, mew=0.6)
    ax.axvline(1, color=MUTED, linewidth=1, linestyle="--", zorder=0)
    ax.set_yticks(range(len(found)), [view.title for view in found])
    ax.set_ylim(len(found) - 0.5, -0.5)  # the first on top
    ax.set_xlim(left=0)
    ax.set_xlabel(axis, color=CHARCOAL, fontsize=9)
    named(ax, [who for who in LOOK if any(view.best(who) for view in found)])
    figure_.suptitle(headline, fontsize=11, color=NAVY, fontweight="bold", x=0.01, ha="left")
    return figure_


def named(ax: "Axes", libraries: list[str]) -> None:
    """The legend, above the axes."""
    from matplotlib.lines import Line2D

    looks = {"markeredgecolor": CHARCOAL, "mew": 0.6, "markersize": 8, "linewidth": 0}
    handles = [
        Line2D([], [], color=LOOK[who][0], marker=LOOK[who][1], label=LOOK[who][2], **looks) for who in libraries
    ]
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": len(handles)}
    ax.legend(handles=handles, fontsize=9, frameon=False, labelcolor=CHARCOAL, **place)


def told(found: list[View], value: Callable[[View, str], float], unit: str) -> str:
    """The picture in words."""
    lines = []
    for view in found:
        each = [f"{LOOK[who][2].split(',')[0]} {figure(value(view, name))}" for who in LOOK if (name := view.best(who))]
        lines.append(f"{view.title}: {', '.join(each)}{unit}")
    return "; ".join(lines) + "."


def context(report: dict) -> Picture | None:
    """What a token costs behind a longer and longer text, one panel a model."""
    models: dict[str, list[View]] = {}
    for view in views(report, CONTEXT):
        if view.best(OURS) and view.best(*PEERS):
            models.setdefault(view.title, []).append(view)
    if not models:
        return None
    figure_, axes = new_figure(8.6, 3.4, ncols=len(models), squeeze=False)
    growths = []
    for ax, (title, found) in zip(axes.flat, models.items(), strict=True):
        lines = panel(ax, title, found)
        growths.append({name: line[-1] / line[0] for name, line in lines.items()})
    named(axes[0, 0], [OURS, PEER])
    first, last = (found[place].measure["measure"].split()[1] for place in (0, -1))
    ours, limit = ([growth[name] for growth in growths] for name in (OURS, "floor"))
    headline = (
        f"From {first} to {last} positions, a token costs {span(ours)} times as much; the limit, {span(limit)} times"
    )
    figure_.suptitle(headline, fontsize=11, color=NAVY, fontweight="bold", x=0.01, ha="left")
    parts = [
        f"{title}: this course {growth[OURS]:.1f}, best peer {growth[PEER]:.1f}, limit {growth['floor']:.1f} times"
        for title, growth in zip(models, growths, strict=True)
    ]
    return figure_, f"Lines, milliseconds a token against positions. {headline}. {'; '.join(parts)}."


def panel(ax: "Axes", title: str, found: list[View]) -> dict[str, list[float]]:
    """Milliseconds against positions: ours, the best peer at each place, the floor. Returns the lines."""
    positions = [int(view.measure["measure"].split()[1]) for view in found]
    lines = {
        OURS: [view.seconds(view.best(OURS)) * 1e3 for view in found],
        PEER: [view.seconds(view.best(*PEERS)) * 1e3 for view in found],
        "floor": [view.floor() * 1e3 for view in found],
    }
    for name, line in lines.items():
        colour, marker, _ = LOOK.get(name, (MUTED, "", ""))
        style = {"linestyle": "--"} if name == "floor" else {"marker": marker, "markeredgecolor": CHARCOAL, "mew": 0.6}
        ax.plot(positions, line, color=colour, linewidth=2, **style)
    ax.annotate(
        "limit",
        (positions[-1], lines["floor"][-1]),
        (0, -15),
        textcoords="offset points",
        ha="right",
        color=MUTED,
        fontsize=9,
    )
    ax.set_xlim(0, positions[-1] * 1.04)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("positions in the cache", color=CHARCOAL, fontsize=9)
    ax.set_ylabel("milliseconds a token", color=CHARCOAL, fontsize=9)
    ax.text(0.99, 0.03, title, transform=ax.transAxes, ha="right", color=NAVY, fontsize=9)
    return lines


PICTURES: dict[str, Callable[[dict], Picture | None]] = {"decode": decode, "prefill": prefill, "context": context}
