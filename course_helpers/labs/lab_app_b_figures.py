"""The figures of M9-LAB-APP-B: the run order as a map with gates, and the run log as it came out."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .figures import CHARCOAL, GOLD, NAVY, PEARL, SKY, arrow, box, canvas, new_figure, show, sign
from .lab_app_b import STEPS, Step

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes

COLUMNS, PITCH, BOX, GATE = 4, 2.13, (1.42, 0.62), 0.2
TOP, DOWN = 3.62, 1.88  # of the upper row, and from there to the lower one; inches


def run_order() -> "Image":
    """The opening picture: eight steps in two rows, a gate behind each, and where a no-go leads."""
    figure, ax = canvas(8.6, 4.4)
    for index, step in enumerate(STEPS):
        row, column = divmod(index, COLUMNS)
        x, y = 0.08 + column * PITCH, TOP - row * DOWN
        station(ax, x, y, step)
        if column < COLUMNS - 1:
            arrow(ax, (x + 1.76 + GATE, y + BOX[1] / 2), (x + PITCH, y + BOX[1] / 2))
    turn(ax)
    ax.text(8.23, TOP - DOWN - 0.05, "go: on to\nchapter 6", color=NAVY, fontsize=8.2, ha="center", va="top")
    text = (
        "no-go at any gate: no later step begins, what was served before goes on being served,\n"
        "and M9-LAB-08 finds out why. Then the run begins again, at step 0."
    )
    box(ax, 0.08, 0.1, 8.35, 0.6, text, GOLD, fontsize=9.5)
    words = "; ".join(f"{step.title}: {step.question} ({', '.join(step.labs)})" for step in STEPS)
    return show(
        figure,
        "Eight steps in two rows, joined by arrows, with a gate behind each that says go or no-go. The question at "
        f"each gate, and the labs that teach to answer it: {words}. A no-go at any gate leads to one place: no later "
        "step begins, what was served before goes on being served, and M9-LAB-08 finds out why.",
    )


def station(ax: "Axes", x: float, y: float, step: Step) -> None:
    """A step, its gate, the gate's question below, and the labs that teach it."""
    from matplotlib.patches import Polygon

    width, height = BOX
    number, _, name = step.title.partition(" ")
    box(ax, x, y, width, height, f"{number}   {name}", NAVY, fontsize=11, fontweight="bold")
    middle, centre = y + height / 2, x + 1.76
    arrow(ax, (x + width, middle), (centre - GATE, middle))
    corners = [(centre - GATE, middle), (centre, middle + GATE), (centre + GATE, middle), (centre, middle - GATE)]
    ax.add_patch(Polygon(corners, facecolor=PEARL, edgecolor=NAVY, linewidth=1.4, zorder=3))
    ax.text(centre, middle, "?", color=NAVY, fontsize=10, fontweight="bold", ha="center", va="center", zorder=4)
    ax.text(x, y - 0.09, wrapped(step.question), color=CHARCOAL, fontsize=8.8, va="top", linespacing=1.25)
    ax.text(x, y - 0.47, labs_in_short(step.labs), color=NAVY, fontsize=7.8, va="top", linespacing=1.25)


def wrapped(text: str, width: int = 22) -> str:
    """A question on two lines at most, cut where it is nearest to half."""
    return "\n".join(textwrap.wrap(text, width))


def labs_in_short(labs: Sequence[str]) -> str:
    """M9-LAB-02 and M9-LAB-03 as "M9-LAB-02, 03", two on a line where they are of different kinds."""
    first, *others = labs
    short = [first]
    for lab in others:
        same = lab.rpartition("-")[0] == short[0].rpartition("-")[0]
        short.append(lab.rpartition("-")[2] if same else lab.removeprefix("M9-"))
    return ", ".join(short[:2]) if len(short) < 3 else ", ".join(short[:-1]) + ",\n" + short[-1]


def turn(ax: "Axes") -> None:
    """From the last gate of the upper row to the first step of the lower one."""
    right = 0.08 + (COLUMNS - 1) * PITCH + 1.76 + GATE
    middle, lane, left = TOP + BOX[1] / 2, TOP - DOWN + BOX[1] + 0.24, 0.08 + BOX[0] / 2
    line = {"color": GOLD, "linewidth": 2, "solid_joinstyle": "round"}
    ax.plot((right, right + 0.12, right + 0.12, left, left), (middle, middle, lane, lane, lane - 0.08), **line)
    arrow(ax, (left, lane), (left, TOP - DOWN + BOX[1]))


def families(table: Mapping[str, Mapping[str, Any]]) -> "Image":
    """What the harness found: how well each family predicts, beside how fast it writes."""
    figure, axes = new_figure(8.6, 0.85 + 0.3 * len(table), ncols=2, sharey=True)
    columns = {
        "surprise: bits per 1000 bytes of text": {name: 1000 * row["bits"] for name, row in table.items()},
        "speed: new tokens a second, two texts at once": {
            name: row["tokens_per_second"] for name, row in table.items()
        },
    }
    for ax, colour, (title, values) in zip(axes, (NAVY, SKY), columns.items(), strict=True):
        shown = ax.barh(list(values), list(values.values()), color=colour, height=0.62)
        ax.bar_label(shown, fmt=" %.0f", color=CHARCOAL, fontsize=9)
        ax.set_title(title, fontsize=10, color=NAVY, loc="left")
        ax.set_xlim(0, max(values.values()) * 1.15)
        ax.tick_params(left=False)
    axes[0].invert_yaxis()  # the first family on top; the other panel shares this axis
    words = "; ".join(
        f"{name} {1000 * row['bits']:.0f} and {row['tokens_per_second']:.0f}" for name, row in table.items()
    )
    alt = f"Two bars a family: surprise in bits per 1000 bytes, and new tokens a second. {words}."
    return show(sign(figure, axes[1]), alt)


def run_log(steps: Sequence[Mapping[str, Any]]) -> "Image":
    """The log as it came out: a bar a step, from when it began to its gate, with how many checks held."""
    figure, ax = new_figure(8.6, 0.9 + 0.42 * len(steps))
    start = steps[0]["began"]
    for row, step in enumerate(steps):
        left, seconds, checks = step["began"] - start, step["seconds"], step["checks"]
        ax.barh(row, seconds, left=left, height=0.55, color=SKY if step["go"] else GOLD, edgecolor=NAVY, linewidth=1)
        verdict = "go" if step["go"] else "NO-GO"
        note = f"  {verdict}: {sum(checks.values())} of {len(checks)} checks, {seconds:.1f} s"
        ax.text(left + seconds, row, note, color=CHARCOAL, fontsize=9, va="center")
    total = max(step["began"] + step["seconds"] for step in steps) - start
    ax.set_yticks(range(len(steps)), [step["title"] for step in steps])
    ax.set(xlim=(0, total * 1.32), ylim=(len(steps) - 0.45, -0.55))
    ax.set_xlabel("seconds since the run began", color=CHARCOAL, fontsize=9, loc="left")
    ax.tick_params(left=False)
    words = "; ".join(
        f"{step['title']} {'go' if step['go'] else 'NO-GO'}, {sum(step['checks'].values())} of {len(step['checks'])} "
        f"checks, {step['seconds']:.1f} seconds"
        for step in steps
    )
    return show(sign(figure, ax), f"The run log over time, one bar a step. {words}.")
