"""The Markdown table of `loading.py`, and the sentences below it: nothing in them but what was measured."""

from benchmarks.loading_methods import METHODS
from course_helpers.memory import MIB

PLAIN = "limit: one plain read into fresh memory"

HEAD = """# Loading: seconds and peaks

{cpu}, {cores} cores, {memory_gib} GiB; Python {python}, {packages}; {date}. Medians of {rounds} interleaved rounds, in
parentheses the fastest and the slowest; {often} rounds of the methods that only map the files, and one of those that
first fill the model with random numbers. Each measurement has a process of its own, which has loaded a tiny checkpoint
in the same way before. All files lie in the page cache. Made by `make bench`; the figures are in loading.json.

**seconds**: until the method returns. **× plain read**: the same, divided by one plain read of the files into fresh
memory. **all touched**: seconds until one byte of every page of every weight was looked at, loading included: a method
that only maps the file returns before the weights are there. **own**, **resident**: the most memory above the start,
when all is touched, divided by the weights' bytes in memory; own is anonymous memory, resident counts pages of mapped
files, too. **whose memory**: what the weights lie in at the end. The model's own memory is safe against anything that
happens to the file; the file's pages change when the file is overwritten, and can be given back to the system.

The two rows `+ assign` are the least that can be done: they check nothing, and they are given this package's lean model
and a table of its names. `mmap` finds the layout itself, holds every name, shape and type against config.json before it
touches the model, and accounts for every tensor. Milliseconds between them say little: see the spread.
"""


def table(report: dict) -> str:
    machine = report["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    parts = [HEAD.format(**machine | {"packages": packages, "rounds": report["rounds"], "often": report["rounds"] + 2})]
    return "\n".join([*parts, *(section(case) for case in report["cases"]), legend(report["cases"])])


def legend(cases: list[dict]) -> str:
    """What each method does."""
    names = dict.fromkeys(method["name"] for case in cases for method in case["methods"])
    return "\n".join(["## What they do", "", *(f"- {name}: {METHODS[name].note}." for name in names), ""])


def section(case: dict) -> str:
    """One checkpoint: a row a method, and who was ahead."""
    plain = next((method["seconds"] for method in case["methods"] if method["name"] == PLAIN), None)
    lines = [f"## {case['checkpoint']}", ""]
    lines += [f"{case['tensors']} tensors, {case['bytes'] / 1e9:.2f} GB.", ""]
    lines += ["| method | seconds | × plain read | all touched | own | resident | whose memory |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [row(method, plain, case["bytes"]) for method in case["methods"]]
    return "\n".join([*lines, "", *verdicts(case["methods"], plain), ""])


def row(method: dict, plain: float | None, file_bytes: int) -> str:
    low, high = min(method["all_seconds"]), max(method["all_seconds"])
    spread = f" ({seconds(low)}-{seconds(high)})" if len(method["all_seconds"]) > 1 else ""
    is_model = method["model_bytes"] is not None
    size = (method["model_bytes"] if is_model else file_bytes) / MIB
    own, resident = (ratio(method[f"peak_{kind}_mb"], size) for kind in ("anonymous", "resident"))
    touched = seconds(method["touched_seconds"]) if is_model else ""
    name = f"**{method['name']}**" if method["who"] == "ours" else method["name"]
    cells = [name, seconds(method["seconds"]) + spread, ratio(method["seconds"], plain), touched, own, resident]
    return f"| {' | '.join([*cells, owner(method)])} |"


def ratio(value: float | None, unit: float | None) -> str:
    return "" if value is None or not unit else f"{value / unit:.2f}"


def owner(method: dict) -> str:
    """Whose memory the weights lie in: the kind that there is more of."""
    if method["model_bytes"] is None or method["peak_anonymous_mb"] is None:
        return ""
    return "own" if method["peak_anonymous_mb"] > method["peak_file_mb"] else "the file's"


def verdicts(methods: list[dict], plain: float | None) -> list[str]:
    """Who is ahead of our strategies, among the peers whose weights lie in the same kind of memory."""
    lines = []
    for mine in methods:
        strategy = mine["name"].removeprefix("course_helpers, ")
        if strategy not in ("mmap", "stream"):
            continue
        kind = owner(mine)
        peers = [other for other in methods if other["who"] == "peer" and owner(other) == kind]
        line = f"- `{strategy}` ({seconds(mine['seconds'])} s, {kind} memory): {standing(mine, peers)}"
        if strategy == "stream" and plain is not None:
            faster = mine["seconds"] <= plain
            line += (
                f"; {'no slower' if faster else 'slower'} than one plain read into fresh memory ({seconds(plain)} s)"
            )
        lines.append(line + ".")
    return lines


def standing(mine: dict, peers: list[dict]) -> str:
    """Who is behind, level with or ahead of one of our methods; a difference under 5 % is none."""
    found: dict[str, list[str]] = {"behind": [], "level with": [], "ahead of": []}
    for other in peers:
        difference = other["seconds"] / mine["seconds"]
        word = "behind" if difference < 0.95 else "level with" if difference < 1.05 else "ahead of"
        found[word].append(f"{other['name']} ({seconds(other['seconds'])} s)")
    return "; ".join(f"{word} {', '.join(names)}" for word, names in found.items() if names) or "no peer of its kind"


def seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"
