"""What M9-LAB-04 runs: work that is counted, routers that are watched, variants that are measured, and their table.

The check functions of its exercises are in `lab_04_exercises.py`, its drawings in `lab_04_figures.py`, its charts in
`lab_04_charts.py`. Shape suffixes: N tokens, X experts, k experts per token.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..architectures.base import LanguageModel
from ..architectures.experts import MixtureOfExperts
from ..generation import generate


class CountedWork(TorchFunctionMode):
    """Counts what a model computes while the block lasts. One multiplication with its addition is one product. It knows
    the functions that torch calls outside inference mode.

    >>> with torch.no_grad(), CountedWork() as work:
    ...     model(ids)
    """

    def __init__(self):
        super().__init__()
        self.calls = 0  # of functions of torch
        self.positions = 0  # vectors of tokens that entered a layer's attention
        self.matrix_products = 0  # of vectors with matrices: the weights' work
        self.scores = 0  # pairs of a query and a key, whether masked or not, in all heads
        self.attention_products = 0  # for each score: the query times the key, and the value times the score

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        name = getattr(function, "__name__", "")
        self.calls += 1
        if name in ("linear", "grouped_mm", "_grouped_mm"):
            rows = result.numel() // result.shape[-1]
            self.matrix_products += rows * args[0].shape[-1] * result.shape[-1]
        elif name == "scaled_dot_product_attention":
            query_BHTD, key_BKSD = args[:2]
            scores = query_BHTD.shape[:3].numel() * key_BKSD.shape[2]
            self.positions += query_BHTD.shape[0] * query_BHTD.shape[2]
            self.scores += scores
            self.attention_products += 2 * scores * query_BHTD.shape[-1]
        return result


def work_of_each_step(model: LanguageModel, ids: Sequence[int], prompt_tokens: int, use_cache: bool) -> list:
    """`CountedWork` of every forward pass that `generate` would need to write ids[prompt_tokens:] after the rest."""
    steps = []
    cache = model.make_cache(1, len(ids)) if use_cache else None
    for end in range(prompt_tokens, len(ids)):
        start = cache.length if use_cache else 0
        with torch.no_grad(), CountedWork() as work:
            model(torch.tensor([ids[start:end]], device=model.device), cache=cache, last_only=True)
        steps.append(work)
    return steps


@dataclass(frozen=True)
class Routing:
    """What one layer's router said about N tokens."""

    probability_NX: Tensor
    chosen_Nk: Tensor  # the experts that were asked, the likeliest first

    @property
    def counts_X(self) -> Tensor:
        """How many tokens each expert was given."""
        return self.chosen_Nk.flatten().bincount(minlength=self.probability_NX.shape[1])


@contextmanager
def watched_routers(model: LanguageModel) -> Iterator[dict[int, list[Tensor]]]:
    """While the block lasts, keep what every router says: layer -> its scores (N, X), one tensor a forward pass."""
    seen: dict[int, list[Tensor]] = defaultdict(list)
    layers = {i: block.feed_forward for i, block in enumerate(model.blocks)}
    layers = {i: layer for i, layer in layers.items() if isinstance(layer, MixtureOfExperts)}
    hooks = [
        layer.router.register_forward_hook(lambda router, given, scores, i=i: seen[i].append(scores.flatten(0, -2)))
        for i, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def routing_of(model: LanguageModel, rows: Sequence[Sequence[int]]) -> dict[int, Routing]:
    """Layer -> where its router sends the tokens of `rows`, one text after the other, each text on its own."""
    with torch.inference_mode(), watched_routers(model) as seen:
        for row in rows:
            model(torch.tensor([row], device=model.device), hidden_states=True)
    result = {}
    for layer, scores in seen.items():
        probability_NX = torch.cat(scores).softmax(dim=-1, dtype=torch.float32).cpu()
        k = model.blocks[layer].feed_forward.experts_per_token
        result[layer] = Routing(probability_NX, probability_NX.topk(k, dim=-1).indices)
    return result


def favourites(tokens: Sequence[str], routing: Routing, at_least: int = 4, most: int = 3) -> dict[int, list[tuple]]:
    """Expert -> the tokens it is the first choice for in more than half of their uses: (token, first choices, uses),
    the most frequent first, among tokens used `at_least` times."""
    uses = Counter(tokens)
    first = Counter(zip(routing.chosen_Nk[:, 0].tolist(), tokens, strict=True))
    found: dict[int, list[tuple]] = {expert: [] for expert in range(routing.probability_NX.shape[1])}
    for (expert, token), count in sorted(first.items(), key=lambda item: (-item[1], item[0])):
        if uses[token] >= at_least and 2 * count > uses[token] and len(found[expert]) < most:
            found[expert].append((token, count, uses[token]))
    return found


def faithfulness(tokens: Sequence[str], routing: Routing, at_least: int = 3) -> float:
    """How far the token alone tells its first expert: of the tokens used `at_least` times, the share of uses that go
    to the expert which that token goes to most often. 1: the router never looks at anything else."""
    experts: dict[str, list[int]] = defaultdict(list)
    for token, expert in zip(tokens, routing.chosen_Nk[:, 0].tolist(), strict=True):
        experts[token].append(expert)
    often = [Counter(chosen) for chosen in experts.values() if len(chosen) >= at_least]
    return sum(max(chosen.values()) for chosen in often) / sum(chosen.total() for chosen in often)


@dataclass(frozen=True)
class Decoded:
    """What one variant wrote, and how fast."""

    ids: list[list[int]]
    tokens_per_second: float


def decode_all(
    model: LanguageModel, prompts: Sequence[Sequence[int]], new_tokens: int, stop_ids: Sequence[int], use_cache: bool
) -> Decoded:
    """Every prompt continued greedily, one at a time; the rate is over the new tokens of all of them."""
    generate(model, prompts[:1], 2, use_cache=use_cache)  # what happens only once should not be in the time
    started = time.perf_counter()
    ids = [generate(model, [prompt], new_tokens, stop_ids=stop_ids, use_cache=use_cache)[0] for prompt in prompts]
    seconds = time.perf_counter() - started
    return Decoded(ids, sum(len(row) - len(prompt) for row, prompt in zip(ids, prompts, strict=True)) / seconds)


def seconds_per_token(
    model: LanguageModel, lengths: Sequence[int], repeats: int = 2, cheap: int = 20
) -> dict[str, list[float]]:
    """How long the next token takes after so many: the best of `repeats` without a cache, of `cheap` with one."""
    ids_BT = torch.arange(max(lengths), device=model.device)[None] % model.config.vocab_size
    seconds: dict[str, list[float]] = {"without cache": [], "with cache": []}
    with torch.inference_mode():
        for length in lengths:
            cache = model.make_cache(1, length + cheap)
            model(ids_BT[:, : length - 1], cache=cache, last_only=True)
            whole = ids_BT[:, :length], None, repeats
            one = ids_BT[:, :1], cache, cheap
            for name, (step, kept, tries) in zip(seconds, (whole, one), strict=True):
                times = []
                for _ in range(tries):
                    started = time.perf_counter()
                    model(step, cache=kept, last_only=True)
                    times.append(time.perf_counter() - started)
                seconds[name].append(min(times))
    return seconds


def variant_table(rows: Mapping[str, Mapping[str, object]], columns: Sequence[str]) -> str:
    """The variants side by side: one row each, a dot where a column has not been filled yet."""

    def shown(value: object) -> str:
        return "." if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    cells = [["", *columns]] + [[name, *(shown(row.get(column)) for column in columns)] for name, row in rows.items()]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns) + 1)]
    lines = []
    for name, *row in cells:
        columns_text = "".join(f"{cell:>{width + 3}}" for cell, width in zip(row, widths[1:], strict=True))
        lines.append(f"{name:<{widths[0]}}{columns_text}")
    return "\n".join(lines)
