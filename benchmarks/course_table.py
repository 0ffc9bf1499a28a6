"""What `course.py` found beside the last record: which figures have become slower, and the Markdown table of all."""

from dataclasses import dataclass

from benchmarks.loading_table import seconds

SLOWER = 1.25  # times the last figure
#: Seconds that the course promises: README names those of all labs and tests, "well under a second" is the package's
#: rule for its import, and nobody should wait longer for one lab of a class, or for the deck after a change of a word.
BUDGETS = {
    "import course_helpers, beyond torch": 0.5,
    "course_helpers families": 3.0,
    "all labs": 480.0,
    "all tests": 600.0,
    "slides build": 120.0,
    "both films at 480p": 300.0,
}
BUDGET_OF_A_LAB = 90.0


@dataclass(frozen=True)
class Row:
    """One figure. `last` is None where there was none; `pace` is how many times as long as then this machine takes for
    the same work, and `ratio` what is slower than that."""

    name: str
    seconds: float
    last: float | None
    pace: float
    budget: float | None
    noise: float

    @property
    def ratio(self) -> float | None:
        return None if self.last is None else self.seconds / self.pace / self.last

    @property
    def marks(self) -> list[str]:
        """Why the figure fails a check; empty if it does not."""
        adjusted, marks = self.seconds / self.pace, []
        if self.last is not None and self.ratio > SLOWER and adjusted - self.last > self.noise:
            marks.append("slower")
        if self.budget is not None and adjusted > self.budget:
            marks.append("over budget")
        return marks


def compare(found: dict[str, dict], last: dict[str, dict], noise: dict[str, float]) -> list[Row]:
    """A row for each figure, in order; parts without figures have none."""
    rows = []
    for part, now in found.items():
        then = last.get(part, {})
        pace = now["calibration"] / then["calibration"] if "figures" in now and "figures" in then else 1.0
        for name, value in now.get("figures", {}).items():
            known = then.get("figures", {}).get(name)
            rows.append(Row(name, value, known, pace, budget(part, name), noise[part]))
    return rows


def budget(part: str, name: str) -> float | None:
    return BUDGETS.get(name, BUDGET_OF_A_LAB if part == "labs" else None)


HEAD = """# The course itself: seconds

{cpu}, {cores} cores, {memory_gib} GiB; Python {python}, {packages}; {date}. Made by `make course-time`, which gives
each figure processes of its own, with one thread each; imports and commands are medians. Tests run in two processes; a
folder's figure is the sum of both. The labs' stored outputs are not among the tests here: their cells run as labs.

**last**: the figure committed before{last_date}. **pace**: seconds of a fixed piece of work around this figure, divided
by those then: above 1, the machine itself was slower. **×**: seconds / pace / last; above {slower}, it is marked.

| what | seconds | last | pace | × | budget | |
|---|---|---|---|---|---|---|
"""


def table(report: dict, last: dict, rows: list[Row]) -> str:
    about = report["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    when = f", {last['machine']['date'][:10]}" if "machine" in last else ""
    head = HEAD.format(**about | {"packages": packages, "last_date": when, "slower": SLOWER})
    lines = [f"| {' | '.join(cells(row))} |" for row in rows]
    return head + "\n".join([*lines, "", *verdict(rows), "", *left_out(report["parts"]), *lists(report["parts"])])


def cells(row: Row) -> list[str]:
    known = ["", "", ""] if row.last is None else [seconds(row.last), f"{row.pace:.2f}", f"{row.ratio:.2f}"]
    marks = f"**{', '.join(row.marks)}**" if row.marks else "" if row.last is not None else "new"
    return [row.name, seconds(row.seconds), *known, "" if row.budget is None else f"{row.budget:g}", marks]


def verdict(rows: list[Row]) -> list[str]:
    """In words, what the marks say."""
    marked = [row for row in rows if row.marks]
    lines = [f"- {row.name}: {seconds(row.seconds)} s: {', '.join(row.marks)}." for row in marked]
    return lines or ["Nothing is slower, and nothing over its budget."]


def left_out(parts: dict[str, dict]) -> list[str]:
    """A paragraph for each part that has no figures."""
    told = [(name, word, part[word]) for name, part in parts.items() for word in ("skipped", "failed") if word in part]
    return [line for name, word, reason in told for line in (f"**{name}: {word}.** {reason}", "")]


def lists(parts: dict[str, dict]) -> list[str]:
    """What explains the figures."""
    lines = []
    for part in parts.values():
        for title, values in part.get("details", {}).items():
            lines += [f"{title[:1].upper()}{title[1:]}:", ""]
            lines += [*(f"- {seconds(value)} s: {name}" for name, value in values.items()), ""]
    return lines
