"""The Markdown page of `speed.py`: tables and sentences, nothing in them but what was measured."""

import statistics
from collections.abc import Iterable, Mapping

from benchmarks.speed_floor import TORCH_PRODUCT
from benchmarks.speed_rounds import CONTEXT, DECODE, FIRST, PREFILL
from benchmarks.speed_systems import OURS, SCRATCH, TRANSFORMERS
from benchmarks.speed_view import PEERS, View, figure, views
from course_helpers.loaders.hub_budget import readable

HEAD = """# Speed: tokens a second, beside peers and beside the machine's limit

{where}; Python {python}, {packages}; {date}. Medians of {rounds} interleaved rounds (fewer where one takes long; all
are in {stem}.json), threads: {threads}, {minutes} minutes in all. Random weights in the shapes of released models, or
scaled down; every system loads the same file. Greedy, no stop token; everybody runs in the same loop, the model called
directly. Made by `{command}`.

- **decode a → b**: tokens a second while a text grows from a to b positions, the prompt not counted. A round measures
  one part of the span; what lies before it is filled with zeros.
- **prefill n**: tokens a second of one pass over a prompt of n tokens, cache included, to the token after it. Only
  the last position's logits are computed, but by {scratch}, which cannot leave the others out.
- **first token**: milliseconds from a prompt of {prompt} tokens to the token after it, loading not counted.
- **floor**: what a step would take if it only read the weights it needs, once, at the bandwidth of the fastest
  matrix-vector product there is, measured right before each turn. **× floor**: how many times as long it took.
  **ours × {product}**: the same, if torch's own product set the limit. Where others are faster, it can be below 1.
- **ours / best peer**: how many times as fast this package is as the fastest peer in any of its settings; the median of
  the rounds' ratios. ▼ marks where a peer is ahead. In bold, ours: the fastest way that keeps the weights as the file
  has them. int8 does not, so it is compared with nothing; it reads half the bytes, so its floor would be lower.
"""

CACHES = """One row. Formula: 2 × key/value heads × head dimension × bytes, for each position that a layer keeps, which
is at most its window. Ours is what `make_cache(...).nbytes` says. Transformers' are the sizes of the tensors that its
own cache classes hold after one update for the text and one for its last token, on torch's meta device, where tensors
have no memory. {scratch} joins a longer tensor at every step: the bytes of one position, measured in a real session,
times the positions.
"""

WHY = """Why: each of these was done once more by both, under torch's profiler. Its milliseconds are of operations, and
fall into products of matrices, attention, and the rest: norms, activations, copies, sorting by expert. All
libraries call the same kernels of torch for most of their work, so a few percent are often noise; a figure without a
range was measured once, because it takes long.
"""

CHECKS = """Before anything is timed, the next-token logits are compared along the reference's own greedy tokens; the
reference is Transformers with sdpa and the dynamic cache. In each cell: the largest difference as a part of the largest
logit, and what is allowed; how many greedy tokens are the same. Random weights in bfloat16 have ties: tokens may differ
where nothing is wrong.
"""


def table(report: dict, pictures: Mapping[str, str]) -> str:
    """The page. `pictures`: file name -> description, of the charts that lie beside it."""
    lengths, large = report["lengths"], report["lengths"]["rows"]
    spans = [f"{DECODE} {lengths['prompt']} → {end}" for end in lengths["spans"]]
    parts = [head(report)]
    parts += [f"![{alt}]({name})\n" for name, alt in pictures.items()]
    parts += ["## Where a peer is ahead\n", behind(report)]
    parts += [section(f"{span.capitalize()}, batch 1", views(report, span, 1)) for span in spans]
    parts += [settings(views(report, spans[0], 1), spans[0])]
    parts += [section(f"{spans[0].capitalize()}, batch {large}", views(report, spans[0], large))]
    parts += [section(f"Prefill {tokens}", views(report, f"{PREFILL} {tokens}")) for tokens in lengths["prefills"]]
    for rows in (1, large):
        parts += [section(f"First token, milliseconds, batch {rows}", views(report, FIRST, rows), milliseconds=True)]
    parts += [
        contexts(report),
        caches(report),
        bandwidths(report),
        loading(report),
        checks(report),
        ways(report),
        left_out(report),
    ]
    return "\n".join(part for part in parts if part)


def head(report: dict) -> str:
    about = report["machine"]
    cuda = about["device"] != "CPU"
    where = f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB"
    if cuda:
        where = f"{about['device']}, {about['device_memory_gib']} GiB, CUDA {about['cuda']}; {where}"
    known = about | {name: report[name] for name in ("rounds", "minutes", "command")}
    known |= {"packages": ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)}
    stem = "speed-cuda" if cuda else "speed"
    return HEAD.format(
        **known, where=where, prompt=report["lengths"]["prompt"], stem=stem, scratch=SCRATCH, product=TORCH_PRODUCT
    )


def behind(report: dict) -> str:
    """A sentence for every row in which a peer is ahead."""
    compared = [view for view in views(report, "") if not view.measure["measure"].startswith(CONTEXT)]
    sentences = [f"- {sentence}" for view in compared if (sentence := view.verdict())]
    if not sentences:
        return f"Nowhere, in {len(compared)} comparisons.\n"
    return "\n".join([f"In {len(sentences)} of {len(compared)} comparisons.", "", *sentences, "", WHY])


def section(title: str, found: Iterable[View], milliseconds: bool = False) -> str:
    """A row a case: ours in every way, the best of each peer, and how they stand."""
    found = list(found)
    if not found:
        return ""
    ours = list(dict.fromkeys(name for view in found for name in view.names(OURS, exact=False)))
    floor = any(view.measure["floor"] for view in found)
    names = [name.removeprefix(f"{OURS}, ") for name in ours]
    columns = ["model", *names, "best of Transformers", SCRATCH, "ours / best peer"]
    columns += ["floor", "ours × floor", "best peer × floor", f"ours × {TORCH_PRODUCT}"] if floor else []
    rows = [section_row(view, ours, floor, milliseconds) for view in found]
    return "\n".join([f"## {title}\n", *grid(columns, rows), ""])


def section_row(view: View, ours: list[str], floor: bool, milliseconds: bool) -> list[str]:
    def cell(name: str | None, best: bool = False) -> str:
        if name not in view.measure["seconds"]:
            return ""
        text = f"{view.seconds(name) * 1e3:.1f}" if milliseconds else with_spread(view, name)
        return f"**{text}**" if best else text

    mine, theirs = view.best(OURS), view.best(TRANSFORMERS)
    setting = f" ({theirs.removeprefix(TRANSFORMERS + ', ')})" if theirs else ""
    cells = [view.title, *(cell(name, name == mine) for name in ours), cell(theirs) + setting]
    cells += [cell(view.best(SCRATCH)), standing(view)]
    if floor:
        limit = view.measure["tokens"] / view.floor()
        cells += [figure(limit), *(times(view, name) for name in (mine, view.best(*PEERS)))]
        cells += [times(view, mine, TORCH_PRODUCT)]
    return cells


def with_spread(view: View, name: str) -> str:
    low, high = view.spread(name)
    spread = f" ({figure(low)}-{figure(high)})" if len(view.measure["seconds"][name]) > 1 else ""
    return figure(view.rate(name)) + spread


def standing(view: View) -> str:
    """How many times as fast ours is; a peer ahead is marked."""
    lead = view.lead()
    return "" if lead is None else f"{lead:.2f}" if lead >= 1 else f"▼ {lead:.2f}"


def times(view: View, name: str | None, product: str | None = None) -> str:
    """How many times as long as the floor, or as one product would need; nothing where nothing was measured."""
    if name is None:
        return ""
    found = view.times_floor(name) if product is None else view.times_product(name, product)
    return "" if found is None else f"{found:.2f}"


def settings(found: Iterable[View], title: str) -> str:
    """Every system of every case, in multiples of the floor: one column a case would be too many, so one a system."""
    found = list(found)
    names = list(dict.fromkeys(system["name"] for view in found for system in view.systems))
    rows = [
        [view.title, *(times(view, name) if name in view.measure["seconds"] else "" for name in names)]
        for view in found
    ]
    return "\n".join(
        [f"## {title.capitalize()}, batch 1: every setting, × floor\n", *grid(["model", *names], rows), ""]
    )


def contexts(report: dict) -> str:
    """Milliseconds of a step behind a longer and longer text."""
    rows = []
    for view in views(report, CONTEXT):
        mine, peer = view.best(OURS), view.best(*PEERS)
        cells = [view.title, view.measure["measure"].removeprefix(CONTEXT + " "), f"{view.floor() * 1e3:.1f}"]
        cells += [f"{view.seconds(name) * 1e3:.1f}" if name else "" for name in (mine, peer)]
        rows.append([*cells, peer or "", standing(view)])
    text = (
        "One step's milliseconds when so many positions are in the cache (zeros, which take as long). The floor here "
        "reads their keys and values, too.\n"
    )
    columns = ["model", "positions", "floor", "ours", "best peer", "which", "ours / best peer"]
    return "\n".join(["## A token's cost in a long text\n", text, *grid(columns, rows), ""]) if rows else ""


def caches(report: dict) -> str:
    """Bytes of keys and values, of each shape in the last type that it was measured in."""
    last = {case["shape"]: case for case in report["cases"] if "caches" in case}
    found = [(case, one) for case in last.values() for one in case["caches"]]
    names = list(dict.fromkeys(name for _, one in found for name in one["held"]))
    rows = [
        [titled(case), f"{one['positions']:,}", readable(one["formula"])]
        + [readable(one["held"][name]) if name in one["held"] else "" for name in names]
        for case, one in found
    ]
    text = CACHES.format(scratch=SCRATCH)
    columns = ["model", "positions", "formula", *names]
    return "\n".join(["## Bytes of the cache\n", text, *grid(columns, rows), ""]) if rows else ""


def bandwidths(report: dict) -> str:
    """Each product's rate beside each case; the fastest makes the floor."""
    found = []
    for case in report["cases"]:
        rates: dict[str, list[float]] = {}
        for measure in case.get("measures", []):
            for name, values in measure["rates"].items():
                rates.setdefault(name, []).extend(value / 1e9 for value in values)
        found += [(titled(case), rates)] if rates else []
    names = list(dict.fromkeys(name for _, rates in found for name in rates))
    rows = [[title, *(with_range(rates.get(name, [])) for name in names)] for title, rates in found]
    title = "## Bandwidth: GB/s of one row times large matrices, median and range of all rounds\n"
    return "\n".join([title, *grid(["beside", *names], rows), ""]) if rows else ""


def with_range(values: list[float]) -> str:
    return f"{figure(statistics.median(values))} ({figure(min(values))}-{figure(max(values))})" if values else ""


def loading(report: dict) -> str:
    """Seconds until a model was on the device; on a CPU `loading.md` measures that, and better."""
    if report["machine"]["device"] == "CPU":
        return ""
    rows = [
        [titled(case), readable(case["bytes"]), one["name"], f"{one['load_seconds']:.1f}"]
        for case in report["cases"]
        for one in case.get("systems", [])
    ]
    text = "From the file, in the page cache, to the device. Settings of one library share a model.\n"
    return "\n".join(["## Loading\n", text, *grid(["model", "its size", "system", "seconds"], rows), ""])


def checks(report: dict) -> str:
    """How far the systems agree: a row a case, a column a system."""
    found = [(case, {one["system"]: one for one in case["checks"]}) for case in report["cases"] if "checks" in case]
    names = list(dict.fromkeys(name for _, each in found for name in each))
    rows = [[titled(case), *(agreement(each.get(name)) for name in names)] for case, each in found]
    columns = ["model", *names]
    return "\n".join(["## Whether they compute the same\n", CHECKS, *grid(columns, rows), ""]) if rows else ""


def agreement(check: dict | None) -> str:
    if check is None:
        return ""
    return f"{check['difference']:.0e} of {check['tolerance']:g}; {check['same_tokens']}/{check['of']}"


def titled(case: dict) -> str:
    return f"{case['shape']}, {case['dtype']}"


def ways(report: dict) -> str:
    """What the systems with a note are."""
    notes = {one["name"]: one["note"] for case in report["cases"] for one in case.get("systems", []) if one["note"]}
    return (
        "\n".join(["## What they are\n", *(f"- {name}: {note}." for name, note in notes.items()), ""]) if notes else ""
    )


def left_out(report: dict) -> str:
    lines = [f"- {titled(case)}: {case['skipped']}." for case in report["cases"] if "skipped" in case]
    lines += [
        f"- {titled(case)}: {one['name']}: {one['reason']}."
        for case in report["cases"]
        for one in case.get("left_out", [])
    ]
    return "\n".join(["## Left out\n", *lines, ""]) if lines else ""


def grid(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return [lines[0], f"|{'---|' * len(columns)}", *lines[1:]]
