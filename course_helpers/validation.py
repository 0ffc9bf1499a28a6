"""A loaded model is not a right model: checks in layers, cheapest first, each stopping the ones above it.

files        the checkpoint opens; headers, shards and index agree; hashes match the card's, where there is a card
shapes       every tensor has a place, every parameter a tensor, and every shape fits
forward      logits are finite, and a later token changes nothing before it
generation   greedy text is the same twice, and the same with and without a cache; the tokenizer fits the model
baseline     the greedy texts on the checkpoint's card are written again, word for word, where there is a card
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .architectures.base import LanguageModel
from .errors import CheckpointError
from .generation import generate
from .loaders.files import read_json
from .loaders.load import load_model
from .loaders.manifest_files import manifest_beside
from .loaders.manifest_files import sha256 as sha256
from .loaders.sources import open_checkpoint, resolve
from .tokenizers import Tokenizer, load_tokenizer

SAMPLE = "Once upon a time there was a model."
NEW_TOKENS = 24


@dataclass(frozen=True)
class Check:
    """One check and its outcome."""

    name: str
    ok: bool
    detail: str
    seconds: float


@dataclass
class ValidationReport:
    """All checks that were run. `print` it for a table."""

    source: str
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if every layer was reached and every check passed."""
        return len(self.checks) == len(LAYERS) and all(check.ok for check in self.checks)

    def to_json(self) -> str:
        return json.dumps(
            {"source": self.source, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}, indent=2
        )

    def __str__(self) -> str:
        rows = [f"  {check.name:<11} {'passed' if check.ok else 'FAILED':<7} {check.detail}" for check in self.checks]
        skipped = [f"  {name:<11} not reached" for name in list(LAYERS)[len(self.checks) :]]
        return "\n".join([f"{self.source}: {'valid' if self.ok else 'NOT valid'}", *rows, *skipped])


class Failed(Exception):
    """A check did not hold; the message says what was seen."""


def validate_checkpoint(source: object) -> ValidationReport:
    """Run the layers on a folder, a bundled name or a hub id. Never raises for a bad checkpoint: it reports."""
    report = ValidationReport(str(source))
    state: dict[str, Any] = {"source": source}
    for name, layer in LAYERS.items():
        started = time.perf_counter()
        try:
            detail, ok = layer(state), True
        except (CheckpointError, Failed) as error:
            detail, ok = str(error), False
        report.checks.append(Check(name, ok, detail, time.perf_counter() - started))
        if not ok:
            break
    return report


def check_files(state: dict[str, Any]) -> str:
    path = state["path"] = resolve(state["source"])  # once: for a hub id, every look-up asks the hub
    folder = path if path.is_dir() else path.parent
    with open_checkpoint(path) as checkpoint:
        detail = f"{checkpoint.format}, {len(checkpoint.names())} tensors"
    state["card"] = read_json(folder / "card.json") if (folder / "card.json").exists() else None
    if state["card"] is None:
        return f"{detail}; no card to compare hashes with"
    if (manifest := manifest_beside(folder)) is not None:
        manifest.check(every_byte=True)
    return f"{detail}; every hash is the card's"


def check_shapes(state: dict[str, Any]) -> str:
    state["model"] = load_model(state["path"])
    return state["model"].load_report.summary()


@torch.inference_mode()
def check_forward(state: dict[str, Any]) -> str:
    model = state["model"]
    ids_BT = torch.arange(1, 17)[None] % model.config.vocab_size
    changed_BT = torch.cat((ids_BT[:, :8], ids_BT[:, 8:].flip(1)), dim=1)
    logits, other = model(ids_BT).float(), model(changed_BT).float()
    if not logits.isfinite().all():
        raise Failed("logits hold NaN or infinity: damaged weights, or float16 where the family needs bfloat16")
    difference = (logits[:, :8] - other[:, :8]).abs().max().item()
    # Rows of a matrix product do not depend on each other, so causal attention leaves no difference but rounding.
    if difference > 1e-5 * logits.abs().max().item():
        raise Failed(f"changing later tokens moved earlier logits by {difference:.1e}: attention is not causal")
    return "finite, and causal"


def check_generation(state: dict[str, Any]) -> str:
    model, tokenizer = state["model"].float(), load_tokenizer(state["path"])
    ids = tokenizer.encode(SAMPLE)
    back = tokenizer.decode(ids)
    if back != SAMPLE:
        raise Failed(f"the tokenizer gives back {back!r} for {SAMPLE!r}")
    beyond = [token for token in (*ids, *tokenizer.stop_ids) if token >= model.config.vocab_size]
    if beyond:
        raise Failed(f"token id {beyond[0]} is beyond the model's vocabulary of {model.config.vocab_size}")
    texts = [generate(model, [ids], NEW_TOKENS, use_cache=cached)[0] for cached in (True, True, False)]
    if texts[0] != texts[1]:
        raise Failed("greedy generation gave two different texts for one prompt")
    if texts[0] != texts[2]:
        raise Failed("greedy generation differs with and without a cache")
    state["tokenizer"] = tokenizer
    return "deterministic, cached as uncached, tokenizer fits"


def check_baseline(state: dict[str, Any]) -> str:
    if state["card"] is None:
        return "no card: compare the text of a known prompt by eye"
    for sample in state["card"]["greedy"]:
        written = greedy_text(state["model"], state["tokenizer"], sample["prompt"], sample["max_new_tokens"])
        if written != sample["text"]:
            raise Failed(f"{sample['prompt']!r} is continued as {written!r}, but the card says {sample['text']!r}")
    return f"{len(state['card']['greedy'])} greedy texts as on the card"


def greedy_text(model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int) -> str:
    """A prompt and its likeliest continuation, up to the end of the text."""
    ids = [tokenizer.encode(prompt)]
    return tokenizer.decode(generate(model, ids, max_new_tokens, stop_ids=tokenizer.stop_ids)[0])


LAYERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "files": check_files,
    "shapes": check_shapes,
    "forward": check_forward,
    "generation": check_generation,
    "baseline": check_baseline,
}
