"""One `generate` and one `stream` for every family.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .architectures.base import LanguageModel


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Tensor | Sequence[Sequence[int] | Tensor],
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Iterable[int] | int | None = None,
    use_cache: bool = True,
    seed: int | None = None,
) -> Any:
    """Continue one or several prompts.

    `prompts`: a (B, T) integer tensor, or a list of 1-D id sequences of unequal length. Returns the prompts with
    what was generated, in the same form. A row ends after its first stop id; in the tensor form it is then filled up
    with that id. With `temperature` 0 the likeliest token is taken, and each row is what it would be alone.
    `top_k` and `top_p` limit sampling to the likeliest tokens. Raises ValueError for an empty prompt, and for
    settings that make no sense.
    """
    rows = [row.tolist() if isinstance(row, Tensor) else row for row in prompts]
    if any(isinstance(row, int) for row in rows):
        raise ValueError("prompts must hold one sequence of ids a row; for a single prompt, pass [prompt]")
    rows = [list(row) for row in rows]
    sample = sampler(temperature, top_k, top_p, model.any_seed() if seed is None else seed, model.device)
    stops = stop_set(stop_ids)
    steps, finished = [], [False] * len(rows)
    for tokens_B in next_tokens(model, rows, max_new_tokens, sample, use_cache):
        steps.append(tokens_B)
        if stops:  # without any, nobody waits for the device before the end
            finished = [done or token in stops for done, token in zip(finished, tokens_B.tolist(), strict=True)]
            if all(finished):
                break
    new = torch.stack(steps, dim=1).tolist() if steps else [[] for _ in rows]
    new = [up_to_stop(tokens, stops) for tokens in new]
    rows = [row + tokens for row, tokens in zip(rows, new, strict=True)]
    if isinstance(prompts, Tensor):
        width = max(len(row) for row in rows)
        filled = [row + row[-1:] * (width - len(row)) for row in rows]  # the shorter ones end in their stop id
        return torch.tensor(filled, dtype=prompts.dtype, device=prompts.device)
    return [
        torch.tensor(row, dtype=prompt.dtype, device=prompt.device) if isinstance(prompt, Tensor) else row
        for row, prompt in zip(rows, prompts, strict=True)
    ]


@torch.inference_mode()
def stream(
    model: LanguageModel,
    prompt: Sequence[int] | Tensor,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Iterable[int] | int | None = None,
    use_cache: bool = True,
    seed: int | None = None,
) -> Iterator[int]:
    """The new token ids of one prompt, each as soon as it is known; the same ones that `generate` appends."""
    row = prompt.flatten().tolist() if isinstance(prompt, Tensor) else list(prompt)
    stops = stop_set(stop_ids)
    sample = sampler(temperature, top_k, top_p, model.any_seed() if seed is None else seed, model.device)
    for tokens_B in next_tokens(model, [row], max_new_tokens, sample, use_cache):
        token = int(tokens_B[0])
        yield token
        if token in stops:
            return


def next_tokens(
    model: LanguageModel, rows: list[list[int]], max_new_tokens: int, sample, use_cache: bool
) -> Iterator[Tensor]:
    """Step by step, the next token of every row, (B,). Rows of unequal length are padded on the left."""
    if not rows or not all(rows):
        raise ValueError(
            "every prompt needs at least one token; a model with a beginning-of-text token can start from it"
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    longest = max(len(row) for row in rows)
    model.check_length(longest, max(0, max_new_tokens - 1))  # now, not when half of the text is written
    pads = [longest - len(row) for row in rows]
    padding_B = torch.tensor(pads, device=model.device) if any(pads) else None
    # Any id will do as padding: no real token ever looks at those columns.
    ids_BT = torch.tensor([[0] * pad + row for pad, row in zip(pads, rows, strict=True)], device=model.device)
    cache = model.make_cache(len(rows), longest + max_new_tokens) if use_cache else None
    step_BT = ids_BT
    for _ in range(max_new_tokens):
        logits_B1V = model(step_BT, cache=cache, left_padding_B=padding_B, last_only=True)
        tokens_B = sample(logits_B1V[:, -1])
        yield tokens_B
        if use_cache:
            step_BT, padding_B = tokens_B[:, None], None  # the cache remembers the rest
        else:
            step_BT = torch.cat((step_BT, tokens_B[:, None]), dim=1)


def up_to_stop(tokens: list[int], stops: frozenset[int]) -> list[int]:
    """What a row was given up to its first stop id, and that; the rest was written for the other rows' sake."""
    first = next((index for index, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[: first + 1]


def stop_set(stop_ids: Iterable[int] | int | None) -> frozenset[int]:
    """Stop ids in the forms that config files and tokenizers have them: none, one, or several."""
    return frozenset(() if stop_ids is None else (stop_ids,) if isinstance(stop_ids, int) else map(int, stop_ids))


def sampler(temperature: float, top_k: int | None, top_p: float | None, seed: int, device: torch.device):
    """The function that picks a token from logits: (B, V) -> (B,). Raises ValueError for settings out of range."""
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(
            f"temperature must be 0 or more, top_k 1 or more, top_p above 0 and at most 1; "
            f"got temperature={temperature}, top_k={top_k}, top_p={top_p}"
        )
    if temperature == 0:
        return lambda logits_BV: logits_BV.argmax(dim=-1)
    generator = torch.Generator(device).manual_seed(seed)

    def sample(logits_BV: Tensor) -> Tensor:
        probabilities_BV = torch.softmax(limit(logits_BV.float() / temperature, top_k, top_p), dim=-1)
        return torch.multinomial(probabilities_BV, 1, generator=generator)[:, 0]

    return sample


def limit(logits_BV: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits with minus infinity for all but the k likeliest tokens, and all but the smallest set of probability p."""
    if top_k is not None and top_k < logits_BV.shape[-1]:
        smallest_kept_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < smallest_kept_B1, -torch.inf)
    if top_p is not None and top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        probabilities_BV = sorted_BV.softmax(dim=-1)
        # A token is dropped when those before it reach p already; the first one always stays.
        dropped_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV >= top_p
        logits_BV = logits_BV.masked_fill(dropped_BV.scatter(1, order_BV, dropped_BV), -torch.inf)
    return logits_BV
