"""Layer 4, generation sanity: the tokenizer fits, text comes out the same way twice, with and without a cache.

The text itself is judged by the next layer; here it must only be one that a working model could write.
"""

import time

import torch

from ..generation import generate
from ..tokenizers import Tokenizer, load_tokenizer
from .subject import Subject

SAMPLES = ("Once upon a time there was a model.", "Naïve café, 12 + 30 = 42!")
NEW_TOKENS = 24
BEYOND = 24  # tokens that the comparison of cached and uncached goes on after the longest window is full
LONGEST = 1024  # tokens that it takes at most: every released window but OLMo 3's is shorter
CYCLE, REPEATS = 3, 8  # a text that ends in so many repeats of so few tokens has stopped being one


@torch.inference_mode()
def check(subject: Subject) -> str:
    """What held, in words. Raises CheckpointError for the first thing that does not."""
    tokenizer = subject.tokenizer = load_tokenizer(subject.path)
    fits(subject, tokenizer)
    marks(subject, tokenizer)
    limit = subject.model.config.max_position_embeddings
    prompt = tokenizer.encode(SAMPLES[0])[: limit // 2]
    written(subject, tokenizer, prompt, min(NEW_TOKENS, limit - len(prompt)))
    stops(subject, prompt)
    reached = cached_as_uncached(subject)
    beyond = "" if reached else f", though {LONGEST} tokens do not fill its window"
    return f"tokenizer fits; the same text twice; cached as uncached{beyond}"


def fits(subject: Subject, tokenizer: Tokenizer) -> None:
    """Text survives the tokenizer, and every id has an embedding."""
    size = subject.model.config.vocab_size
    for sample in SAMPLES:
        ids = tokenizer.encode(sample)
        if (beyond := max((*ids, *tokenizer.stop_ids))) >= size:
            raise subject.refuse(
                "a token id is beyond the model's vocabulary",
                expected=f"ids below {size}",
                found=beyond,
                cause="the tokenizer of another model",
                next_step="take the tokenizer from the same place as the weights",
            )
        if (back := tokenizer.decode(ids)) != sample:
            raise subject.refuse(
                "the tokenizer does not give text back",
                expected=repr(sample),
                found=repr(back),
                cause="a damaged tokenizer file, or tokens that two files number differently",
                next_step="take the tokenizer from the same place as the weights",
            )


def marks(subject: Subject, tokenizer: Tokenizer) -> None:
    """A text begins with its mark once or not at all, and what ends one is a special token."""
    begun = sum(token == tokenizer.bos_id for token in tokenizer.encode(SAMPLES[0]))
    if begun != int(tokenizer.adds_bos and tokenizer.bos_id is not None):
        raise subject.refuse(
            "a text does not begin as the tokenizer's files say",
            expected=f"the beginning-of-text token {int(tokenizer.adds_bos)} times",
            found=f"{begun} times",
            cause="the token is put there twice: by the template or the caller, and again by the tokenizer",
            next_step="encode with bos=False what has its mark already",
        )
    ordinary = [token for token in tokenizer.stop_ids if token not in tokenizer.special_ids]
    if ordinary or not tokenizer.stop_ids:
        raise subject.refuse(
            "no token ends a text" if not ordinary else "an ordinary token ends texts",
            field="eos_token_id",
            expected="ids of special tokens",
            found=f"{ordinary[0]}, {tokenizer.decode(ordinary[:1])!r}" if ordinary else "none",
            cause="config and tokenizer of two different models",
            next_step="take config.json, generation_config.json and the tokenizer from the same place",
        )


def written(subject: Subject, tokenizer: Tokenizer, prompt: list[int], new_tokens: int) -> None:
    """The greedy continuation of a prompt is the same twice, and no mere repetition."""
    started = time.perf_counter()
    row = generate(subject.model, [prompt], new_tokens, stop_ids=tokenizer.stop_ids)[0]
    subject.telemetry["tokens_per_second"] = (len(row) - len(prompt)) / (time.perf_counter() - started)
    if row != generate(subject.model, [prompt], new_tokens, stop_ids=tokenizer.stop_ids)[0]:
        raise subject.refuse(
            "the same prompt gives two texts",
            expected="greedy decoding, which leaves no choice",
            found="another text the second time",
            cause="dropout that is on, a cache that remembers an earlier text, or operations without a fixed order",
            next_step="model.eval(), and torch.use_deterministic_algorithms(True)",
        )
    end = row[len(prompt) :][-CYCLE * REPEATS :]
    for period in range(1, CYCLE + 1):
        if len(end) == CYCLE * REPEATS and end[period:] == end[:-period]:
            raise subject.refuse(
                "the model repeats itself without end",
                expected=f"a text that goes on from {tokenizer.decode(prompt)!r}",
                found=f"{tokenizer.decode(end[:period])!r} again and again",
                cause="wrong weights, wrong positions, or the tokenizer of another model",
                next_step="compare with another implementation: course_helpers.first_mismatch names the layer",
            )


def stops(subject: Subject, prompt: list[int]) -> None:
    """Every stop id ends a text, wherever it stands in the list."""
    first = generate(subject.model, [prompt], 1)[0][-1]
    other = (first + 1) % subject.model.config.vocab_size
    for stop_ids in ([first, other], [other, first]):
        found = generate(subject.model, [prompt], 2, stop_ids=stop_ids)[0][len(prompt) :]
        if found != [first]:
            raise subject.refuse(
                "generation goes on after a stop token",
                expected=f"an end after token {first}",
                found=f"the tokens {found}",
                cause="only one of several stop ids is heeded",
                next_step="pass all of them: tokenizer.stop_ids",
            )


def cached_as_uncached(subject: Subject) -> bool:
    """The cache gives the logits of one long pass, in pieces of many lengths and beyond the window. Returns whether
    the longest window was filled."""
    config = subject.model.config
    windows = [window for layer_type in set(config.layer_plan) if (window := config.window(layer_type))]
    longest = min(LONGEST, config.max_position_embeddings, max(windows, default=0) + BEYOND)
    ids_BT = subject.ids(1, longest)
    cache = subject.model.make_cache(1, longest)
    first = max(1, longest - BEYOND // 2)
    sizes = [first, *[1] * (longest - first)]
    parts = [subject.model(part, cache=cache).float() for part in ids_BT.split(sizes, dim=1)]
    if (moved := subject.apart(torch.cat(parts, dim=1), subject.model(ids_BT).float())) > 1:
        raise subject.refuse(
            "logits with and without a cache differ",
            expected=f"the same, for {longest} tokens",
            found=f"others, by {moved:.0f} times what rounding explains",
            cause="positions that begin at 0 again, or a window whose cache keeps the wrong tokens",
            next_step="generate with use_cache=False until it is found",
        )
    return longest > max(windows, default=0)
