"""Check functions for the exercises of M9-LAB-09: each failure names the likely mistake."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..architectures.qwen3 import Qwen3Model
from ..training import initialize
from .checkpoint import hint
from .exercises import answer
from .lab_app_a_exercises import SMALL

#: Texts as ids: unequal in length, and each begins with a token that is nowhere else in them.
BEGIN = 28
TEXTS = ([BEGIN, *range(1, 20)], [BEGIN, *range(25, 3, -2)], [BEGIN, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7])


class StandIn:
    """A model as the learner's function sees it. What comes out with a cache in use can be spoilt, and everything that
    is asked of it is written down."""

    def __init__(self, model: Qwen3Model, spoil: Callable[[Tensor, int, int], Tensor] | None, exact: bool):
        self.model, self.spoil, self.exact, self.text = model, spoil, exact, -1
        self.caches, self.uncached = 0, 0
        self.reused = False  # a text began in a cache that held another
        self.pieces: dict[int, int] = {}  # the text, by its length -> calls with a cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def make_cache(self, *arguments: Any, **options: Any) -> Any:
        self.caches += 1
        return self.model.make_cache(*arguments, **options)

    def __call__(self, ids_BT: Tensor, cache: Any = None, **options: Any) -> Tensor:
        shape = tuple(ids_BT.shape)
        hint(len(shape) != 2, f"ids of shape {shape} came in, expected (1, tokens): torch.tensor([text]) makes it")
        start = 0 if cache is None else cache.length
        if ids_BT[0, 0] == BEGIN and (cache is not None):
            self.text += 1
            self.reused |= start > 0
        logits_BTV = self.model(ids_BT, cache=cache, **options)
        if self.exact:  # whole numbers: nothing is left of what the order of sums does
            logits_BTV = logits_BTV.round()
        if cache is None:
            self.uncached += 1
            return logits_BTV
        self.pieces[self.text] = self.pieces.get(self.text, 0) + 1
        return logits_BTV if self.spoil is None else self.spoil(logits_BTV, start, self.text)


def somewhere(first: int, last: int, by: float) -> Callable[[Tensor, int, int], Tensor]:
    """Logits of positions first to last that are off by a part of the largest."""

    def spoil(logits_BTV: Tensor, start: int, text: int) -> Tensor:
        places = torch.arange(start, start + logits_BTV.shape[1])
        wrong = ((places >= first) & (places <= last)).float()[None, :, None]
        return logits_BTV + wrong * by * logits_BTV.abs().max()

    return spoil


def rounding(logits_BTV: Tensor, start: int, text: int) -> Tensor:
    """What another order of summing does."""
    return logits_BTV * (1 + 4e-7 * (-1) ** start)


def with_content(logits_BTV: Tensor, start: int, text: int) -> Tensor:
    """A decoding that is wrong as soon as something is in the cache."""
    return logits_BTV if start == 0 else logits_BTV.flip(-1)


def other_texts(logits_BTV: Tensor, start: int, text: int) -> Tensor:
    """Right for the first text, wrong for those after it."""
    return logits_BTV if text == 0 else logits_BTV.flip(-1)


def small_model() -> Qwen3Model:
    return initialize(Qwen3Model(SMALL), seed=3, deviation=0.3).eval()


@torch.no_grad()
def check_same_with_cache(same_with_cache: Callable[[StandIn, Sequence[Sequence[int]]], bool]) -> None:
    """Exercise 1: cached = uncached, at every position of every text."""
    model = small_model()

    def ask(spoil: Callable[[Tensor, int, int], Tensor] | None = None, exact: bool = False) -> tuple[bool, StandIn]:
        stand_in = StandIn(model, spoil, exact)
        try:
            found = answer(same_with_cache, stand_in, [list(text) for text in TEXTS])
        except ValueError as error:
            hint(stand_in.reused, REUSED)
            hint("expected sequence" in str(error), "the texts are of unequal length: take them one by one")
            hint(True, f"the model refused what it was asked: {error}")
        hint(not isinstance(found, bool), f"expected True or False, got a {type(found).__name__}: bool(...) makes one")
        return found, stand_in

    found, seen = ask(exact=True)
    hint(not seen.caches, "no cache was made: the model was compared with itself, and that is always equal")
    hint(not seen.pieces, "a cache was made and not used: model(ids, cache=cache)")
    hint(not seen.uncached, "the model was never asked without a cache: what did you compare with?")
    hint(seen.reused, REUSED)
    hint(
        not found, "a right model was refused: do both sides hold the logits of the same positions, in the same order?"
    )
    hint(
        max(seen.pieces.values()) == 1,
        "each text went through in one piece. A cache can only be wrong once something is in it: send a first piece, "
        "and then the other tokens one by one",
    )
    wrong = {
        "a cache that is wrong from the second piece on was let through: are the later pieces compared?": with_content,
        "a fault in positions 3 to 5 was let through: do you look at the last position only?": somewhere(3, 5, 0.5),
        "a fault at the very last position was let through": somewhere(len(TEXTS[0]) - 1, 99, 0.5),
        "a fault in every text but the first was let through: are all texts compared?": other_texts,
        "logits that are off by a hundredth of the largest were let through: is the tolerance too wide? Rounding moves "
        "them by a millionth": somewhere(0, 99, 0.01),
    }
    for advice, spoil in wrong.items():
        hint(ask(spoil)[0], advice)
    hint(
        not ask(rounding)[0],
        "a right model was refused for a difference in the last bits. Sums in another order round differently: allow "
        "5e-5 of the largest logit",
    )
    print("Exercise 1: right. Every position of every text, and room for rounding only.")


REUSED = "a text began in a cache that still held the one before: every text needs a cache of its own"


class Recorder:
    """A model that notes which tokens and positions it was sent, and can answer with infinity for one of them."""

    def __init__(self, model: Any, overflows: int | None = None):
        self.model, self.overflows = model, overflows
        self.tokens: set[int] = set()
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, ids_BT: Tensor, **options: Any) -> Tensor:
        self.tokens |= set(ids_BT.flatten().tolist())
        self.longest = max(self.longest, ids_BT.shape[1])
        logits_BTV = self.model(ids_BT, **options)
        if self.overflows is None:
            return logits_BTV
        return logits_BTV.masked_fill((ids_BT == self.overflows)[..., None], torch.inf)


@torch.no_grad()
def check_whole_range(whole_range: Callable[[Any], bool], load: Callable[[], Any]) -> None:
    """Exercise 2: every token and every position gives numbers. `load` gives a fresh tiny-gpt2."""
    model = load()
    tokens, positions = model.config.vocab_size, model.config.max_position_embeddings

    def ask(recorder: Recorder) -> bool:
        try:
            found = answer(whole_range, recorder)
        except (IndexError, ValueError) as error:
            hint(True, f"a right model could not answer: {error}. A row may have {positions} tokens at most")
        hint(not isinstance(found, bool), f"expected True or False, got a {type(found).__name__}: bool(...) makes one")
        return found

    seen = Recorder(model)
    healthy = ask(seen)
    missing = sorted(set(range(tokens)) - seen.tokens)
    hint(bool(missing), f"{len(missing)} of {tokens} tokens were never sent, {missing[-1:]} for one")
    hint(
        seen.longest < positions,
        f"the longest row had {seen.longest} tokens, so position {positions - 1} was never reached",
    )
    hint(not healthy, "a right model was refused")
    embedding, places = model.token_embedding.weight, model.position_embedding.weight
    for rows, row, what in (
        (embedding, tokens - 1, "the last token's embedding is NaN"),
        (embedding, tokens // 2, "a token in the middle of the vocabulary has an embedding of NaN"),
        (places, positions - 1, "the last position's embedding is NaN"),
        (places, 200, "the embedding of position 200 is NaN"),
    ):
        kept = rows[row].clone()
        rows[row] = torch.nan
        passed = ask(Recorder(model))
        rows[row] = kept
        hint(passed, f"{what}, and your check says that all is well")
    hint(
        ask(Recorder(model, overflows=7)),
        "infinity was let through: isfinite sees it, isnan does not, nor a look at the last positions",
    )
    print(f"Exercise 2: right. {tokens} tokens and {positions} positions, and no number is missing.")


#: A manifest laid flat, as far as the exercise needs it.
GREEDY: dict[str, Any] = {
    "schema": 1,
    "reason": "smallest that tells a story",
    "source/kind": "bundled",
    "source/name": "tiny-llama3",
    "files/weights/model.safetensors/sha256": "08a0",
    "files/config/config.json/sha256": "7e3b",
    "config_sha256": "c0ff",
    "tokenizer/sha256": "01b1",
    "versions/torch": "2.13.0",
    "settings/dtype": "float32",
    "settings/threads": 2,
    "settings/seed": 0,
    "settings/temperature": 0.0,
    "settings/top_k": None,
    "settings/top_p": None,
    "results/0/prompt": "Once upon a time",
    "results/0/new_ids": [5, 6, 7],
    "results/0/text": "Once upon a time there was",
    "results/0/closest/step": 3,
    "results/0/closest/margin": 0.42,
    "validation/forward": True,
    "telemetry/tokens_per_second": 300.0,
}
SAMPLED = GREEDY | {"settings/temperature": 0.8, "settings/seed": 7, "results/0/closest": None}
GONE = object()
NOTHING, BREAKS, WARNS = "nothing", "breaks", "warns"

#: (manifest, what is changed in it, where it belongs, what to say if it is put elsewhere).
DIFFERENCES: tuple[tuple[Mapping[str, Any], dict[str, Any], str, str], ...] = (
    (GREEDY, {}, NOTHING, "two equal manifests have no differences"),
    (GREEDY, {"telemetry/tokens_per_second": 299.0}, NOTHING, "seconds and memory are never the same twice"),
    (GREEDY, {"reason": "curiosity"}, NOTHING, "the reason is for people: the run does not depend on it"),
    (GREEDY, {"source/name": "my-copy"}, NOTHING, "where the files lay does not matter: hashes say what they are"),
    (GREEDY, {"results/0/closest/margin": 0.43}, NOTHING, "rounding moves the margin of the closest step"),
    (GREEDY, {"results/0/closest/step": 4}, NOTHING, "which step was the closest can turn with rounding, too"),
    (GREEDY, {"files/weights/model.safetensors/sha256": "08a1"}, BREAKS, "other weights are another run"),
    (GREEDY, {"config_sha256": "c0fe"}, BREAKS, "another config is another run"),
    (GREEDY, {"tokenizer/sha256": "01b2"}, BREAKS, "another tokenizer is another run"),
    (GREEDY, {"validation/forward": False}, BREAKS, "a layer of checks that comes out otherwise breaks the run"),
    (GREEDY, {"results/0/text": "Once upon a hill"}, BREAKS, "another text is the very thing that must not happen"),
    (GREEDY, {"results/0/new_ids": [5, 6, 8]}, BREAKS, "other ids are another text"),
    (GREEDY, {"settings/dtype": "bfloat16"}, BREAKS, "another number type is another run"),
    (GREEDY, {"settings/temperature": 0.8}, BREAKS, "greedy here and drawn there: that is another run"),
    (GREEDY, {"versions/torch": "2.14.0"}, WARNS, "another version may change something, or nothing: say so"),
    (GREEDY, {"settings/threads": 4}, WARNS, "the number of threads orders the sums: it may move last bits, no more"),
    (GREEDY, {"settings/seed": 8}, NOTHING, "both runs are greedy (temperature 0): nothing is drawn, no seed matters"),
    (GREEDY, {"settings/top_k": 5}, NOTHING, "both runs are greedy: the likeliest of five is the likeliest of all"),
    (SAMPLED, {"settings/seed": 8}, BREAKS, "at temperature 0.8 tokens are drawn, and the seed says which"),
    (SAMPLED, {"settings/top_p": 0.9}, BREAKS, "at temperature 0.8, top_p decides which tokens can be drawn"),
    (GREEDY, {"settings/temperature": 0.8, "settings/seed": 8}, BREAKS, "one run is greedy, the other is not: only if "
     "both are does the seed mean nothing"),
    (GREEDY, {"files/tokenizer/merges.txt/sha256": "0bf8"}, BREAKS, "a file that only the new run has read: do you "
     "look at the fields of the old one only?"),
    (GREEDY, {"files/config/config.json/sha256": GONE}, BREAKS, "a file that only the old run has read: do you look at "
     "the fields of the new one only?"),
    (GREEDY, {"versions/torch": GONE}, WARNS, "a package that is not there any more is a version that differs"),
)  # fmt: skip


def check_what_differs(what_differs: Callable[[dict, dict], Mapping[str, Any]]) -> None:
    """Exercise 3: which differences between two manifests break a run, and which are only to be said."""
    for old, change, where, advice in DIFFERENCES:
        new = {name: value for name, value in (dict(old) | change).items() if value is not GONE}
        found = answer(what_differs, dict(old), new)
        wrong = not isinstance(found, Mapping) or found.keys() != {BREAKS, WARNS}
        hint(wrong, 'expected {"breaks": [...], "warns": [...]}')
        names = {kind: sorted(found[kind]) for kind in (BREAKS, WARNS)}
        expected = {kind: sorted(change) if kind == where else [] for kind in (BREAKS, WARNS)}
        changed = ", ".join(change) or "nothing"
        hint(names != expected, f"changed: {changed}. {advice} (expected {expected}, got {names})")
    print(f"Exercise 3: right. {len(DIFFERENCES)} pairs of manifests, each difference where it belongs.")
