"""The Markdown of `int8.py`: its tables, and what they come to in a sentence. No figure in it but those measured."""

#: The last form of each checkpoint: see `int8.py`.
LAST = "int8 weights, float32 arithmetic"

HEAD = """# Weight-only int8: what it costs

{cpu}; Python {python}, {packages}; {date}.
The bundled checkpoints on {stories} held-out stories, which none of them has learned from. Made by `make bench`.
Nothing is timed, so the figures come out the same wherever the machine and the versions are the same. All of them are
in int8.json.

**{verdict}**

**bytes**: of the weights in memory. **loss**: the mean of -ln(probability) over all tokens, in nats; **change** is
against float32, ± its standard error over the stories. **perplexity**: e to the power of the loss. **KL**: the mean
Kullback-Leibler divergence of a prediction from float32's, in thousandths of a nat. **same first**: how often the
likeliest token is float32's; **else behind**: where it is not, by how much less probability float32 gives it than its
own, on average. int8 weights are computed with in bfloat16, which has a cost of its own: the row above. The last row of
each checkpoint has int8's weights in float32's arithmetic: what rounding the weights costs alone.

| checkpoint | form | bytes | loss | change | perplexity | KL, 1/1000 | same first | else behind |
|---|---|---|---|---|---|---|---|---|
"""

WEIGHTS = """
## How far the weights are moved

A **scale** is the step between two neighbouring whole numbers, one for each row: its largest weight / 127. Rounding
moves a weight by at most half a step, and a hair more where the scale itself was rounded to bfloat16. **relative**: the
root of the mean square of the errors, divided by that of the weights.

| checkpoint | parameters | stored as | largest error, in steps | mean | relative |
|---|---|---|---|---|---|
"""

ROUTERS = """
## Experts: routers that choose otherwise

A router has to take the best few experts, and where two are nearly as good, a small error makes it take another: what
is added then is not nearly the same, but something else. **other experts**: the share of all choices, one for each
token and layer, that were not float32's. Tokens are then told apart by whether any of their own choices was another.

| checkpoint | form | other experts | tokens with one | KL of those, 1/1000 | of the others | share of all KL |
|---|---|---|---|---|---|---|
"""


def table(report: dict) -> str:
    machine, found = report["machine"], report["checkpoints"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    about = machine | {"packages": packages, "stories": report["stories"], "verdict": verdict(found)}
    lines = [HEAD.format(**about) + "\n".join(line(form_cells(*row)) for row in rows_of(found))]
    lines += [WEIGHTS + "\n".join(line(weight_cells(one)) for one in found)]
    if experts := [row for row in rows_of(found) if row[2].get("other_experts")]:
        lines += [ROUTERS + "\n".join(line(router_cells(*row)) for row in experts)]
    return "\n".join(lines) + "\n"


def rows_of(found: list[dict]) -> list[tuple[str, str, dict]]:
    return [(one["checkpoint"], form, row) for one in found for form, row in one["forms"].items()]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def form_cells(name: str, form: str, row: dict) -> list[str]:
    size = f"{row['bytes']:,}" if "bytes" in row else ""
    change = "" if form == "float32" else f"{row['loss_change']:+.5f} ± {row['error']:.5f}"
    figures = [f"{row['loss']:.4f}", change, f"{row['perplexity']:.4f}", f"{row['divergence'] * 1e3:.3f}"]
    behind = "" if row["agrees"] == 1 else f"{row['behind']:.2%}"
    return [name, form, size, *figures, f"{row['agrees']:.2%}", behind]


def weight_cells(one: dict) -> list[str]:
    weights = one["weights"]
    steps = [f"{weights[name]:.4f}" for name in ("largest_in_steps", "mean_in_steps")]
    return [one["checkpoint"], f"{one['parameters']:,}", one["stored"], *steps, f"{weights['relative']:.2%}"]


def router_cells(name: str, form: str, row: dict) -> list[str]:
    kinds = (row["divergence_flipped"], row["divergence_not_flipped"])
    apart = ["" if one is None else f"{one * 1e3:.3f}" for one in kinds]
    share = row["tokens_flipped"] * (kinds[0] or 0) / row["divergence"]
    return [name, form, f"{row['other_experts']:.2%}", f"{row['tokens_flipped']:.2%}", *apart, f"{share:.0%}"]


def verdict(found: list[dict]) -> str:
    """What int8 costs beside bfloat16, from the least to the most that any checkpoint pays."""
    forms = [one["forms"] for one in found]

    def span(values: list[float], style: str) -> str:
        return f"{min(values):{style}} to {max(values):{style}}"

    def change(form: str) -> str:
        """Of the loss, as a part of float32's; and on how many checkpoints by more than two standard errors."""
        clear = sum(abs(one[form]["loss_change"]) > 2 * one[form]["error"] for one in forms)
        parts = [one[form]["loss_change"] / one["float32"]["loss"] for one in forms]
        return f"{span(parts, '+.2%')} (by more than two standard errors on {clear} of {len(forms)} checkpoints)"

    size = span([one["int8"]["bytes"] / one["bfloat16"]["bytes"] for one in forms], ".2f")
    first = {form: span([one[form]["agrees"] for one in forms], ".1%") for form in ("bfloat16", "int8")}
    alone = span([one[LAST]["divergence"] / one["int8"]["divergence"] for one in forms], ".0%")
    return (
        f"int8 takes {size} times the bytes of bfloat16. It changes the loss by {change('int8')}, where bfloat16 alone "
        f"changes it by {change('bfloat16')}. The likeliest token is float32's in {first['int8']} of all cases, with "
        f"bfloat16 in {first['bfloat16']}. Rounding the weights alone, without bfloat16's arithmetic, makes {alone} of "
        "int8's divergence from float32."
    )
