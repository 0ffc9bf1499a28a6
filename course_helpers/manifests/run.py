"""Doing a run: prompts, one by one, under recorded settings."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from platform import python_version

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from ..generation import generate
from ..tokenizers import Tokenizer
from .form import Closest, Result, Settings

#: What a run's result can depend on.
PACKAGES = ("course-helpers", "torch", "safetensors", "tokenizers", "tiktoken", "sentencepiece")


def versions() -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed."""
    found = {name: each.version for name in PACKAGES for each in metadata.distributions(name=name)}
    return {"python": python_version()} | found


def run(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], settings: Settings
) -> tuple[tuple[Result, ...], float]:
    """The result of every prompt, and the seconds that generating took. Raises ValueError for settings that make no
    sense and for a prompt without tokens."""
    prompt_ids = [tokenizer.encode(prompt) for prompt in prompts]
    with threads(settings.threads):
        started = time.perf_counter()
        rows = [continued(model, ids, settings) for ids in prompt_ids]
        seconds = time.perf_counter() - started
        results = tuple(
            Result(
                prompt=prompt,
                prompt_ids=tuple(ids),
                new_ids=tuple(row[len(ids) :]),
                text=tokenizer.decode(row),
                closest=closest(model, row, len(ids)) if settings.temperature == 0 and len(row) > len(ids) else None,
            )
            for prompt, ids, row in zip(prompts, prompt_ids, rows, strict=True)
        )
    return results, seconds


def continued(model: LanguageModel, ids: Sequence[int], settings: Settings) -> list[int]:
    """One prompt and what follows it."""
    (row,) = generate(
        model,
        [ids],
        settings.max_new_tokens,
        settings.temperature,
        settings.top_k,
        settings.top_p,
        settings.stop_ids,
        settings.use_cache,
        settings.seed,
    )
    return row


@torch.inference_mode()
def logits_after(model: LanguageModel, row: Sequence[int], start: int) -> Tensor:
    """(steps, V) float32: the logits from which every token from place `start` on was chosen."""
    return model(torch.tensor([row[:-1]], device=model.device))[0, start - 1 :].float()


def closest(model: LanguageModel, row: Sequence[int], start: int) -> Closest:
    """Where a greedy continuation came closest to another."""
    best_two = logits_after(model, row, start).topk(2).values
    margin, step = (best_two[:, 0] - best_two[:, 1]).min(dim=0)
    return Closest(int(step), float(f"{margin.item():.4g}"))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads: the order of sums, and so their last bits, depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
