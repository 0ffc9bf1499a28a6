"""The table of all kinds of damage and of who notices them, from what was observed."""

import functools
from collections.abc import Iterator
from pathlib import Path

from tests.loaders.damage.case import META
from tests.loaders.damage.kind import BYTES, EQUAL, LEGACY, MANIFEST, REFUSED, SAFETENSORS, STAGES, VERIFY, ZIPPED, Kind
from tests.loaders.damage.observe import NOBODY, Observed, observe
from tests.loaders.damage.registry import KINDS
from tests.loaders.damage.stack import stopped_at

README = Path(__file__).with_name("README.md")
GROUPS = {
    "safetensors": SAFETENSORS,
    "PyTorch": ZIPPED + LEGACY,
    "Meta": META,
    "state dict": ("own state dict",),
    "live model": ("live",),
}
HEAD = """# Damaged and mismatched checkpoints: who notices

Made by `python -m tests.loaders.damage` from what was observed, and compared by `test_damage.py`: {count} kinds of
damage, each tried in every format it can happen in, {cases} checkpoints in all. Nothing below is loaded in silence
where the table says that it is refused, and after every refusal the model in hand was the same to the bit.

Formats: `safetensors` one file and shards; `PyTorch` .bin and .pth, zip and legacy, one file and shards; `Meta`
consolidated.\\*.pth, one part and two; `state dict` of ours; `live model` of transformers.
"""
REFUSED_HEAD = """
## Refused by every load

| Damage | Formats | What is said first |
|---|---|---|
"""
SILENT_HEAD = """
## What fits in every respect, and is wrong

A header, names and shapes say nothing about these. Who notices, at the latest: `verify=True` (every value is looked at,
and every check sum that a format has); a manifest beside the files (`card.json`), compared by every load as far as it
is cheap, and in full with `verify=True`; for the config, also `load_weights`, which holds it against the model in
hand. And the validation stack, tried on a bundled checkpoint that is damaged so, with a card that says how likely texts
are but no hashes: the layer it is stopped at. Where that is `none`, or there is no such card, only a manifest can tell;
in memory there is no manifest, and nobody notices.

| Damage | Formats | Noticed by | `load_weights` | Validation stack |
|---|---|---|---|---|
"""
EQUAL_HEAD = """
## Unusual, and equal

These load, and what is loaded is proven equal: the same parameters to the bit, or the same logits to the bit.

| What | Formats |
|---|---|
"""
SILENT, SILENT_STAGES = "silent", (VERIFY, MANIFEST, BYTES)
NOTICED = {
    VERIFY: "`verify=True`",
    MANIFEST: "a manifest",
    BYTES: "a manifest, with `verify=True`",
    NOBODY: "nobody",
}


@functools.cache
def observed(name: str, format: str) -> Observed:
    return observe(KINDS[name], format)


def table() -> str:
    """The whole page. Observes every kind in every format, as far as that was not done in this process."""
    parts: dict[str, list[str]] = {REFUSED: [], SILENT: [], EQUAL: []}
    for kind in KINDS.values():
        for part, line in rows(kind):
            parts[part].append(f"| {line} |\n")
    cases = sum(len(kind.formats) for kind in KINDS.values())
    heads = ((REFUSED_HEAD, REFUSED), (SILENT_HEAD, SILENT), (EQUAL_HEAD, EQUAL))
    return HEAD.format(count=len(KINDS), cases=cases) + "".join(head + "".join(parts[part]) for head, part in heads)


def rows(kind: Kind) -> Iterator[tuple[str, str]]:
    """The lines of one kind, each with its part of the page. Where chance decides, it says what may happen and not what
    did: pickles of before torch 1.6 hold addresses in memory, and differ from run to run."""
    formats: dict[str, list[str]] = {}
    for format in kind.formats:
        by = observed(kind.name, format).by
        silent = kind.must in SILENT_STAGES and by not in (EQUAL, NOBODY)
        formats.setdefault(SILENT if silent else REFUSED if kind.positions else by, []).append(format)
    for outcome, some in formats.items():
        seen = [observed(kind.name, format) for format in some]
        if outcome == EQUAL:
            yield EQUAL, f"{kind.name} | {groups(some)}"
        elif outcome == REFUSED:
            place = "it depends on the place" + ("; or it is equal, to the bit" if kind.harmless else "")
            yield REFUSED, f"{kind.name} | {groups(some)} | {place if kind.positions else seen[0].says.splitlines()[0]}"
        else:
            last = NOBODY if outcome == NOBODY else max((one.by for one in seen), key=STAGES.index)
            kept_out = "refuses" if all(one.kept_out for one in seen) else "takes it"
            yield SILENT, f"{kind.name} | {groups(some)} | {NOTICED[last]} | {kept_out} | {stack(kind.name) or ''}"


def groups(formats: list[str]) -> str:
    return ", ".join(group for group, members in GROUPS.items() if set(members) & set(formats))


@functools.cache
def stack(name: str) -> str | None:
    return stopped_at(KINDS[name])
