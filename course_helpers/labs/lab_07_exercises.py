"""The exercises of M9-LAB-07: each check tries the learner's function and names the likely mistake."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..architectures.base import LanguageModel
from ..architectures.llama import LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from ..memory import parameter_count
from ..tokenizers import Tokenizer, load_tokenizer
from ..training import initialize
from .checkpoint import hint
from .exercises import answer

#: Every size is different, so that no mistake stays hidden behind another.
SMALL = LlamaConfig(
    vocab_size=1024,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
)
VOCABULARY, LENGTHS = 11, (9, 4, 6)


def near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-4)


def number(found: object, what: str) -> float:
    """The learner's result as a number: a tensor of one element will do."""
    if isinstance(found, Tensor) and found.numel() == 1:
        found = found.item()
    hint(not isinstance(found, int | float), f"expected {what}, got a {type(found).__name__}")
    return float(found)


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, T, V), ids and which of them are real; the padding is a token like any other."""
    generator = torch.Generator().manual_seed(7)
    shape = len(LENGTHS), max(LENGTHS)
    real_BT = torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]
    ids_BT = torch.randint(1, VOCABULARY, shape, generator=generator) * real_BT
    # Each text is harder than the one before it, so that a mean of means is another number.
    scale_B11 = torch.tensor([0.3, 1.0, 3.0])[:, None, None]
    return torch.randn(*shape, VOCABULARY, generator=generator) * scale_B11, ids_BT, real_BT


def surprises(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """-ln p of each id by the logits at the same place."""
    return -logits_BTV.log_softmax(-1).gather(-1, ids_BT[..., None])[..., 0]


def check_batch_loss(batch_loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 1: the mean over real targets, against sums that are written out."""
    logits_BTV, ids_BT, real_BT = padded_batch()
    found = number(answer(batch_loss, logits_BTV.clone(), ids_BT.clone(), real_BT.clone()), "one number")
    next_BT = surprises(logits_BTV[:, :-1], ids_BT[:, 1:])
    asked_BT = real_BT[:, 1:]
    total, count = next_BT[asked_BT].sum().item(), int(asked_BT.sum())
    asking_BT = real_BT[:, :-1]
    here_BT = surprises(logits_BTV, ids_BT)
    back_BT = surprises(logits_BTV[:, 1:], ids_BT[:, :-1])
    places = next_BT.numel()
    mistakes = {
        "the logits at one place are about the *next* token: you compared them with the token they were made from": (
            here_BT[real_BT].mean(),
            here_BT.mean(),
        ),
        "shifted the wrong way: the logits that come first belong to the ids that come second": (
            back_BT[asked_BT].mean(),
            back_BT.mean(),
        ),
        "each text's last token asks for padding, which is no target: a target must itself be real, so real_BT moves "
        "on by one with the ids": (next_BT[asking_BT].mean(), next_BT[asking_BT].sum() / count),
        "padding was counted: it is no token of any text, so its surprise and its place must both be left out": (
            next_BT.mean(),
        ),
        "the padding's surprise is left out, but you divide by all places: divide by the number of real targets": (
            total / places,
            total / ids_BT.numel(),
        ),
        "you divide by the number of real tokens, but the first token of each text is no target": (
            total / int(real_BT.sum()),
        ),
        "a mean of the texts' means: every target must count the same, so a long text counts more than a short one": (
            ((next_BT * asked_BT).sum(1) / asked_BT.sum(1)).mean(),
        ),
        "that is the sum: the mean over the targets was asked for": (total,),
        "that is in bits: nats use the natural logarithm": (total / count / math.log(2),),
        "a surprise is *minus* the logarithm": (-total / count,),
    }
    for advice, values in mistakes.items():
        hint(any(near(found, float(value)) for value in values), advice)
    hint(not near(found, total / count), f"expected {total / count:.4f} nats for {count} targets, got {found:.4f}")
    print(f"Exercise 1: right. {count} real targets, each counted once.")


def parts(config: LlamaConfig) -> dict[str, int]:
    """Parameters of a Llama but for its feed-forward, by what they are."""
    width, layers, head_dim = config.hidden_size, config.num_hidden_layers, config.head_dim
    shared = config.num_key_value_heads
    return {
        "embedding": config.vocab_size * width,
        "head": 0 if config.tie_word_embeddings else config.vocab_size * width,
        "query and output": layers * 2 * config.num_attention_heads * head_dim * width,
        "key and value": layers * 2 * shared * head_dim * width,
        "norms": layers * 2 * width + width,
    }


def check_matching_feed_forward(matching: Callable[[LlamaConfig, int], int]) -> None:
    """Exercise 2: the width of the feed-forward, against models that are really counted."""
    for tied in (True, False):
        config = dataclasses.replace(SMALL, tie_word_embeddings=tied)
        for width, extra in ((400, 0), (400, 0.49), (808, -0.4), (1200, 0.1)):  # 0.49: even one norm is seen
            a_step = 3 * 8 * config.hidden_size * config.num_hidden_layers
            exact = parameter_count(LlamaModel, dataclasses.replace(config, intermediate_size=width))
            check_one_width(matching, config, exact + int(extra * a_step), width)
    print("Exercise 2: right. Eight models of the right size, without a search.")


def check_one_width(matching: Callable, config: LlamaConfig, target: int, expected: int) -> None:
    found = answer(matching, config, target)
    head = "tied" if config.tie_word_embeddings else "its own"
    case = f"target {target:,}, head {head}"
    hint(not isinstance(found, int), f"{case}: expected a whole number, got a {type(found).__name__}")
    each = 3 * config.num_hidden_layers * config.hidden_size
    have = parts(config)
    rest = target - sum(have.values())

    def rounded(numerator: float, denominator: float = each) -> int:
        return 8 * round(numerator / denominator / 8)

    embedding, attention = have["embedding"], have["query and output"] + have["key and value"]
    mistakes = {
        "a gated feed-forward has three matrices, not two": rounded(rest, each * 2 / 3),
        "every layer has a feed-forward: divide by the number of layers, too": rounded(
            rest, each / config.num_hidden_layers
        ),
        "a tied head is the embedding, and is counted once": rounded(rest - embedding)
        if config.tie_word_embeddings
        else expected,
        "this model has a head of its own, as large as the embedding": rounded(rest + have["head"]),
        "where is the embedding? It is most of a small model": rounded(rest + embedding + have["head"]),
        "keys and values have fewer heads than queries: num_key_value_heads": rounded(
            rest + have["key and value"] - have["query and output"]
        ),
        "heads x head_dim is not the width in this model: the config has a field head_dim": rounded(
            rest + attention * (1 - config.hidden_size // config.num_attention_heads / config.head_dim)
        ),
        "where are the attention matrices?": rounded(rest + attention),
    }
    for advice, value in mistakes.items():
        hint(found == value != expected, f"{case}: {advice}")
    hint(
        found % 8 != 0,
        f"{case}: {found} is no multiple of 8. (Such sizes suit the hardware: that is why released models have them)",
    )
    hint(
        found == expected - 8,
        f"{case}: {found} was rounded down, and {expected} comes nearer: take the nearest, not the one below",
    )
    hint(
        found == expected + 8,
        f"{case}: {expected} comes nearer than {found}. Was it rounded up? Or were norms left out (two in each layer, "
        "one at the end)?",
    )
    hint(found != expected, f"{case}: expected {expected}, got {found}")


#: Letters of one, two, three and four bytes; the texts differ in length, so that a mean of means is another number.
TEXTS = ("Mia had a red kite.", "Größe, naïve, Ærø: all of it is text, and all of it counts in bytes.", "東京 🦊")


def check_bits_per_byte(bits_per_byte: Callable[[LanguageModel, Tokenizer, Sequence[str]], float]) -> None:
    """Exercise 3: bits per byte of a model without knowledge, for a tokenizer without a begin mark and one with it."""
    model = initialize(LlamaModel(SMALL), seed=3, deviation=0.3).eval()
    for name in ("tiny-gpt2", "tiny-llama3"):
        tokenizer = load_tokenizer(name)
        found = number(answer(bits_per_byte, model, tokenizer, list(TEXTS)), "one number")
        check_one_ruler(found, model, tokenizer, name)
    print("Exercise 3: right. One ruler for two tokenizers, in four alphabets.")


@torch.no_grad()
def nats(model: LanguageModel, row: Sequence[int]) -> float:
    """Surprise of a row of tokens, all but the first."""
    ids_BT = torch.tensor([list(row)])
    return surprises(model(ids_BT)[:, :-1], ids_BT[:, 1:]).sum().item()


def check_one_ruler(found: float, model: LanguageModel, tokenizer: Tokenizer, name: str) -> None:
    stop = tokenizer.stop_ids[0]
    begin = stop if tokenizer.bos_id is None else tokenizer.bos_id
    bare = [tokenizer.encode(text, bos=False) for text in TEXTS]
    sizes = [len(text.encode()) for text in TEXTS]
    whole = [nats(model, [begin, *ids, stop]) for ids in bare]
    total, in_bytes, bit = sum(whole), sum(sizes), math.log(2)
    tokens, letters = sum(len(ids) + 1 for ids in bare), sum(map(len, TEXTS))
    right = total / in_bytes / bit
    mistakes = {
        "that is per token, and every tokenizer has tokens of another length": (total / tokens / bit, total / tokens),
        "that is in nats: a bit is ln 2 nats": (total / in_bytes,),
        "bits are nats *divided* by ln 2 (a bit is the smaller unit, so there are more of them)": (
            total * bit / in_bytes,
        ),
        "that is per letter: in UTF-8, one letter can take up to four bytes (text.encode())": (total / letters / bit,),
        "a mean of the texts' own figures: divide all bits by all bytes": (
            sum(one / size for one, size in zip(whole, sizes, strict=True)) / len(TEXTS) / bit,
        ),
        "that is the whole surprise: divide by the bytes": (total / bit, total),
    }
    for advice, rows in wrongly_marked(bare, begin, stop).items():
        mistakes[advice] = (sum(nats(model, row) for row in rows) / in_bytes / bit,)
    for advice, values in mistakes.items():
        hint(any(near(found, value) and not near(value, right) for value in values), f"{name}: {advice}")
    hint(not near(found, right), f"{name}: expected {right:.4f} bits per byte, got {found:.4f}")


def wrongly_marked(bare: list[list[int]], begin: int, stop: int) -> dict[str, list[list[int]]]:
    """The texts' tokens with one mark or the other forgotten, by what is to be said about it."""
    return {
        "the stop mark is missing: knowing where a text ends is part of knowing the text": [
            [begin, *ids] for ids in bare
        ],
        "the begin mark is missing, so the first token of each text was never predicted (a family without one uses "
        "its stop mark)": [[*ids, stop] for ids in bare],
        "both marks are missing: put one before and one after each text": bare,
        "this tokenizer has a begin mark of its own: tokenizer.bos_id": [[stop, *ids, stop] for ids in bare],
        "the begin mark stands twice: this tokenizer sets one itself, unless it is told bos=False": [
            [begin, begin, *ids, stop] for ids in bare
        ],
    }
