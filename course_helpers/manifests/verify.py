"""Doing a recorded run again, and comparing.

Compared exactly: every file, the config and the tokenizer as they are understood, the ids of prompts and continuations,
texts, and which layers of the validation stack pass. These are what a run *is*; a difference in any is a difference.
Not compared: logits and the margin of the closest step, which rounding moves, times and memory, and the reason.
Other versions are a warning only, with the results beside it: they may change something, or nothing.

Another processor, another number of threads or another version of torch adds the same numbers in another order. Logits
then differ in their last bits, and where the two likeliest tokens were as good as equal, the other one is taken, and
another text follows. So where a text departs, the distance of the two tokens' logits is measured; if rounding explains
it, the report says that it was a near-tie. It is a difference all the same.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from ..architectures.base import LanguageModel
from ..dtypes import DTYPES
from ..errors import CheckpointError
from ..loaders.load import load_model
from ..tokenizers import Tokenizer, load_tokenizer
from ..validation import validate_checkpoint
from ..validation_layers.subject import ROUNDING
from .form import Result, RunManifest
from .pins import CHECKS, located
from .run import logits_after, run, versions

SAME, WARNING, DIFFERS, NOT_REACHED = "same", "warning", "DIFFERS", "not reached"


@dataclass(frozen=True)
class Row:
    """One thing that was compared, and how it came out."""

    field: str
    outcome: str  # one of the four above
    detail: str


@dataclass(frozen=True)
class Verification:
    """A manifest held against the same run done again. `print` it for a table."""

    source: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """True if everything was compared and nothing differs; warnings do not count."""
        return all(row.outcome in (SAME, WARNING) for row in self.rows)

    def to_json(self) -> str:
        return json.dumps({"source": self.source, "ok": self.ok, "rows": [asdict(row) for row in self.rows]}, indent=2)

    def __str__(self) -> str:
        width = max(len(row.field) for row in self.rows)
        title = f"{self.source}: {'the run holds' if self.ok else 'the run does NOT hold'}"
        lines = [f"  {row.field:<{width}}  {row.outcome:<11}  {row.detail}".rstrip() for row in self.rows]
        return "\n".join([title, *lines])


def verify(manifest: RunManifest, source: object = None) -> Verification:
    """Do a recorded run again and compare it, field by field, cheapest first; what cannot be the same run is not done.

    `source`: where the checkpoint lies, if not where the manifest says. Raises CheckpointError if there is no
    checkpoint, or if its files are the pinned ones and it cannot be loaded all the same.
    """
    rows = tuple(compared(manifest, located(manifest, source)))
    planned = [*CHECKS, "versions", *names(manifest), *["validation"] * bool(manifest.validation)]
    left = tuple(Row(name, NOT_REACHED, "") for name in planned[len(rows) :])
    return Verification(manifest.source.name, rows + left)


def names(manifest: RunManifest) -> list[str]:
    return [f"prompt {number}" for number in range(1, len(manifest.results) + 1)]


def compared(manifest: RunManifest, path: Path) -> Iterator[Row]:
    """One comparison after the other; the last is one that forbids to go on, or there is nothing left."""
    for name, check in CHECKS.items():
        row = pin_row(name, check, manifest, path)
        yield row
        if row.outcome != SAME:
            return
    yield version_row(manifest.versions, versions())
    settings = manifest.settings
    model, tokenizer = load_model(path, DTYPES[settings.dtype], settings.device), load_tokenizer(path)
    results, _ = run(model, tokenizer, [result.prompt for result in manifest.results], settings)
    for name, expected, found in zip(names(manifest), manifest.results, results, strict=True):
        detail = departure(expected, found, tokenizer, model if settings.temperature == 0 else None)
        yield Row(name, DIFFERS if detail else SAME, detail or f"{len(found.new_ids)} tokens")
    if manifest.validation:
        found = {check.name: check.ok for check in validate_checkpoint(path).checks}
        changes = [name for name in found | manifest.validation if found.get(name) != manifest.validation.get(name)]
        outcome = f"another outcome: {', '.join(changes)}" if changes else ", ".join(found)
        yield Row("validation", DIFFERS if changes else SAME, outcome)


def pin_row(name: str, check: Callable[..., Iterator[CheckpointError]], manifest: RunManifest, path: Path) -> Row:
    try:
        problems = tuple(check(manifest, path))
    except CheckpointError as error:
        problems = error.problems
    return Row(name, DIFFERS if problems else SAME, "; ".join(problem.summary() for problem in problems))


def version_row(recorded: dict[str, str], here: dict[str, str]) -> Row:
    """What was recorded and is not here, or of another version. What is here and was not then took no part."""
    changes = [f"{name} {old} -> {here.get(name)}" for name, old in recorded.items() if here.get(name) != old]
    return Row("versions", WARNING if changes else SAME, ", ".join(changes))


def departure(expected: Result, found: Result, tokenizer: Tokenizer, model: LanguageModel | None) -> str:
    """Where a result departs from the recorded one, in words; nothing where it does not. `model`: of a greedy run."""
    if found.prompt_ids != expected.prompt_ids:
        return f"the prompt is other tokens: {list(found.prompt_ids)} instead of {list(expected.prompt_ids)}"
    pairs = enumerate(zip_longest(expected.new_ids, found.new_ids))
    place, (old, new) = next(((place, pair) for place, pair in pairs if pair[0] != pair[1]), (None, (None, None)))
    if place is None:
        return "" if found.text == expected.text else f"the same tokens are another text: {found.text!r}"
    words = ["nothing" if id is None else f"{id} {tokenizer.decode([id])!r}" for id in (old, new)]
    detail = f"token {place + 1}: recorded {words[0]}, now {words[1]}"
    if model is None or old is None or new is None:
        return detail
    row = [*found.prompt_ids, *found.new_ids[: place + 1]]
    logits = logits_after(model, row, len(row) - 1)[0]
    apart, rounding = (logits[new] - logits[old]).abs().item(), ROUNDING[model.dtype] * logits.abs().max().item()
    cause = "a near-tie, which rounding can turn" if apart <= rounding else "more than rounding explains"
    return f"{detail}; their logits are {apart:.2g} apart: {cause}"
