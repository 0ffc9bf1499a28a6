"""What M9-LAB-05 runs: its texts, caches that are wasteful or wrong, and a fair race between pathways.

Its faults are in `lab_05_faults.py`, its check functions in `lab_05_exercises.py`, its drawings in `lab_05_figures.py`,
its charts in `lab_05_charts.py`.

Shape suffixes: B batch, T new tokens, S keys in sight, K key/value heads, D head dimension, V vocabulary.
"""

import copy
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from ..architectures.cache import KVCache, LayerCache, SlidingLayerCache
from ..architectures.config import SLIDING
from ..architectures.gemma3 import Gemma3Model
from ..families import FAMILIES
from ..loaders.sources import resolve
from ..sizes import AliveBytes
from ..tokenizers import Tokenizer


def baseline() -> dict[str, list]:
    """Eight held-out stories and the loss of each, from tiny-gemma3's card."""
    return json.loads((resolve(FAMILIES["gemma3"].tiny) / "card.json").read_text(encoding="utf-8"))["baseline"]


def story_rows(tokenizer: Tokenizer, beyond: int) -> list[list[int]]:
    """The stories as token ids, a row each, begun and ended as the model was taught; where one story is no longer than
    `beyond` tokens, each row holds several."""
    rows = [[*tokenizer.encode(text), *tokenizer.stop_ids[:1]] for text in baseline()["texts"]]
    while min(map(len, rows)) <= beyond:
        rows = [row + rows[(index + 1) % len(rows)] for index, row in enumerate(rows)]
    return rows


def card_losses() -> list[float]:
    """What tiny-gemma3 must lose on each story, in nats, as noted when it was made."""
    return baseline()["loss_per_text"]


def endless(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """One row of `length` token ids, (1, T): the stories one after the other, and again from the first."""
    return torch.tensor([list(itertools.islice(itertools.cycle(itertools.chain(*rows)), length))])


class KeepsAll(LayerCache):
    """A sliding layer's cache that never lets go: the same answers as the ring, from memory that grows."""

    def __init__(
        self, cache: KVCache, shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device, window: int
    ):
        super().__init__(cache, shape_BKSD, dtype, device)
        self.window = window

    def store(self, stored_BKSD: Tensor, new_BKTD: Tensor) -> Tensor:
        start, new_tokens = self.cache.length, new_BKTD.shape[2]
        seen_BKSD = super().store(stored_BKSD, new_BKTD)
        if new_tokens > 1:
            return seen_BKSD[:, :, start - min(start, self.window - 1) :]
        return seen_BKSD[:, :, -self.window :]


class WrongSlot(SlidingLayerCache):
    """A ring that writes one slot too far once it has gone round."""

    def store(self, stored_BKSD: Tensor, new_BKTD: Tensor) -> Tensor:
        position = self.cache.length
        if position < self.size:
            return super().store(stored_BKSD, new_BKTD)
        stored_BKSD[:, :, (position + 1) % self.size] = new_BKTD[:, :, 0]
        return stored_BKSD


def with_layers(model: LanguageModel, length: int, make: Callable[..., LayerCache]) -> KVCache:
    """A cache for one text whose sliding layers are made by `make(cache, shape, dtype, device, window)`."""
    cache = model.make_cache(1, length)
    shape_BKSD = (1, model.config.num_key_value_heads, length, model.config.head_dim)
    cache.layers = [
        layer if layer.window is None else make(cache, shape_BKSD, model.dtype, model.device, layer.window)
        for layer in cache.layers
    ]
    return cache


def full_cache(model: LanguageModel, length: int) -> KVCache:
    """The cache without the idea: every layer keeps every position, though five of six never look at most of them."""
    return with_layers(model, length, KeepsAll)


def turned_by_slot(model: Gemma3Model) -> Gemma3Model:
    """The model as a decoder sees it that takes the slot in the ring for the position in the text."""
    other = copy.deepcopy(model)
    window, rotation = model.config.sliding_window, other.rotation

    def by_slot(layer_type: str, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return rotation(layer_type, positions_BT % window if layer_type == SLIDING else positions_BT, dtype)

    other.rotation = by_slot
    return other


def broken_caches(model: Gemma3Model, length: int) -> Iterator[tuple[str, Gemma3Model, KVCache]]:
    """What is wrong, the model to decode with, and an empty cache for it."""

    def no_window(cache: KVCache, shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device, window: int):
        return LayerCache(cache, shape_BKSD, dtype, device)

    def narrow(cache: KVCache, shape_BKSD: tuple[int, ...], dtype: torch.dtype, device: torch.device, window: int):
        return SlidingLayerCache(cache, shape_BKSD, dtype, device, window - 1)

    yield "nothing", model, model.make_cache(1, length)
    yield "one slot too few", model, with_layers(model, length, narrow)
    yield "window forgotten while decoding", model, with_layers(model, length, no_window)
    yield "written into the wrong slot", model, with_layers(model, length, WrongSlot)
    turned = turned_by_slot(model)
    yield "turned by the slot, not the position", turned, turned.make_cache(1, length)


@torch.inference_mode()
def decoded_logits(model: LanguageModel, ids_1T: Tensor, cache: KVCache, prefill: int) -> Tensor:
    """Logits (T, V): the first `prefill` tokens in one pass, then token by token."""
    parts = [model(ids_1T[:, :prefill], cache=cache)]
    parts += [model(ids_1T[:, at : at + 1], cache=cache) for at in range(prefill, ids_1T.shape[1])]
    return torch.cat(parts, dim=1)[0]


def first_wrong(logits_TV: Tensor, right_TV: Tensor) -> int | None:
    """The first position whose logits differ by more than rounding can; None if there is none."""
    wrong_T = ((logits_TV - right_TV).abs().amax(-1) > 1e-4).nonzero()
    return int(wrong_T[0]) if len(wrong_T) else None


@dataclass(frozen=True)
class Run:
    """One pathway at one length: what it wrote, how fast, and what it held while it wrote a token."""

    ids: tuple[int, ...]
    first_seconds: float  # until the first new token: the whole prompt is read
    step_seconds: float  # a further token, the fastest: what else the machine does only adds to it
    cache_bytes: int
    working_bytes: int  # tensors alive at once during one more step, the cache not counted

    @property
    def tokens_per_second(self) -> float:
        return 1 / self.step_seconds

    @property
    def held_bytes(self) -> int:
        return self.cache_bytes + self.working_bytes

    def best_of(self, other: "Run") -> "Run":
        """This run, with the better times of both."""
        first = min(self.first_seconds, other.first_seconds)
        return replace(self, first_seconds=first, step_seconds=min(self.step_seconds, other.step_seconds))


@torch.inference_mode()
def run(model: LanguageModel, prompt_1T: Tensor, new_tokens: int, cache: KVCache | None) -> Run:
    """Continue the prompt greedily, always `new_tokens` tokens, and measure. Without a cache everything is computed
    again for every token."""
    ids_1T, step_1T, seconds = prompt_1T, prompt_1T, []
    for _ in range(new_tokens):
        started = time.perf_counter()
        token_11 = model(step_1T, cache=cache, last_only=True)[:, -1].argmax(-1, keepdim=True)
        seconds.append(time.perf_counter() - started)
        ids_1T = torch.cat((ids_1T, token_11), dim=1)
        step_1T = token_11 if cache is not None else ids_1T
    kept = [] if cache is None else [tensor for layer in cache.layers for tensor in (layer.key_BKSD, layer.value_BKSD)]
    with AliveBytes([*model.parameters(), *kept, step_1T]) as alive:
        model(step_1T, cache=cache, last_only=True)
    written = tuple(ids_1T[0, prompt_1T.shape[1] :].tolist())
    cache_bytes = 0 if cache is None else cache.nbytes
    return Run(written, seconds[0], min(seconds[1:]), cache_bytes, alive.peak)


def race(
    model: LanguageModel, rows: Sequence[Sequence[int]], lengths: Sequence[int], new_tokens: int, rounds: int = 1
) -> dict[str, dict[int, Run]]:
    """The three pathways over the same prompts, with the same settings: `race[pathway][prompt length]`. Times are the
    best of all rounds, and each round runs everything, so that a busy moment hits no pathway alone."""
    pathways: dict[str, Callable[[int], KVCache | None]] = {
        "no cache": lambda room: None,
        "every layer keeps all": lambda room: full_cache(model, room),
        "ring in the local layers": lambda room: model.make_cache(1, room),
    }
    runs: dict[str, dict[int, Run]] = {name: {} for name in pathways}
    for _ in range(rounds):
        for (name, make), length in itertools.product(pathways.items(), lengths):
            one = run(model, endless(rows, length), new_tokens, make(length + new_tokens + 1))
            runs[name][length] = one.best_of(runs[name].get(length, one))
    return runs
