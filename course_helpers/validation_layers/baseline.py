"""Layer 5, metric baseline: the model predicts held-out text as well as it should.

Only here a mistake shows that leaves a working model: a transposed square, rows of queries in another order, a wrong
rotary base, a norm without its 1, another model's tokenizer. All of them make text less likely. How likely it should
be, the card says, text by text: the loss of each is the sum over its tokens of -ln(probability), and what it was when
the card was written, it must be again, but for rounding.

Without a card there is only what holds of every language model. It predicts plain English better than a compressor
that knows no language; it finds the words likelier in their order than in another; and it predicts better when it sees
more of the text. A model that is wrong enough fails at one of them. One that is wrong by little passes: the layer then
says that nobody wrote down what to expect.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..architectures.base import LanguageModel
from ..generation import generate
from ..tokenizers import Tokenizer
from ..training import text_loss
from .subject import Subject

#: The loss of one text may differ from the card's by so much, in nats. Measured on the bundled models: other numbers of
#: threads and other orders of summing move it by 0.00002, the smallest mistake of the table of faults by 0.0009.
WITHIN = 0.0005
#: In other types than float32, and beyond, the mean loss of a token may be so much larger or smaller, as a part.
RANGE = 0.03
#: Bits for each byte of plain English. PPM, which compresses by counting, needs 2.2 to 2.5 on the books of the Calgary
#: corpus (Cleary and Teahan, 1997); people who guess letters need 0.6 to 1.3 (Shannon, 1951).
BITS_PER_BYTE = 2.0
SHORT_CONTEXT, FIRST = 8, 24  # tokens that a short-sighted prediction sees; the first token that is predicted so

#: Two stories of the kind that the bundled models tell: plain enough for any model of English.
PLAIN = (
    "Hugo had a pink kite, a present from his aunt. To let it touch the clouds, he ran to the field with his friend "
    'Noah. Then a cold wind pulled the kite out of his hands. "Come back!" shouted Hugo, and the friends ran after '
    "it, past the school and over the road. There a farmer caught the pink kite in a net and gave it back with a bow. "
    "That evening Hugo told his aunt the whole story.",
    'Ben had a honey pie in the oven for his grandpa. "It smells like a party," said his friend Theo, and put on a '
    "very big hat. Ben was telling a long story when black smoke came out of the oven. Theo opened the window, and Ben "
    "took off the black parts with a stick. But the honey pie was black all the way down and as hard as a wall. "
    '"I wanted it to be good," said Ben, and his grandpa got no pie at all.',
)


def check(subject: Subject) -> str:
    """What held, in words. Raises CheckpointError for the first thing that does not."""
    baseline = subject.card.get("baseline")
    detail = plain_english(subject) if baseline is None else documented(subject, baseline)
    if greedy := subject.card.get("greedy"):
        as_written(subject, greedy)
        detail += f"; {len(greedy)} greedy texts as on the card"
    return detail


def marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text as the model is asked about it: begun as the tokenizer begins texts, ended by the token that ends them."""
    return [*tokenizer.encode(text), *tokenizer.stop_ids[:1]]


def losses(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[float], int]:
    """The loss of each text in nats, and how many tokens were predicted in all."""
    limit = model.config.max_position_embeddings
    results = [text_loss(model, [marked(tokenizer, text)[: limit + 1]]) for text in texts]
    return [nats for nats, _ in results], sum(count for _, count in results)


def describe(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """The section `baseline` of a card, measured on a model that is known to be right. What single texts must have is
    left out where it would hold for one machine only: in other types than float32, and beyond the CPU."""
    return section(model, texts, *losses(model, tokenizer, texts))


def section(model: LanguageModel, texts: Sequence[str], found: Sequence[float], tokens: int) -> dict[str, Any]:
    """The same, of losses that were measured already."""
    mean = sum(found) / tokens
    each = {"loss_per_text": [round(nats, 4) for nats in found], "within": WITHIN} if exact(model) else {}
    return {
        "texts": list(texts),
        **each,
        "loss_per_token": round(mean, 4),
        "range": [round(mean * (1 - RANGE), 4), round(mean * (1 + RANGE), 4)],
        "unit": "nats; each text within the first bound in float32 on the CPU, the mean in the range everywhere",
    }


def exact(model: LanguageModel) -> bool:
    """Whether the model computes as finely, and as others do, that single texts can be compared."""
    return model.dtype == torch.float32 and model.device.type == "cpu"


def documented(subject: Subject, baseline: dict[str, Any]) -> str:
    """Hold the losses to those of the card: text by text where they can be compared, and their mean everywhere."""
    subject.baseline = baseline
    found, tokens = losses(subject.model, subject.tokenizer, baseline["texts"])
    mean, low, high = sum(found) / tokens, *baseline["range"]
    subject.telemetry["loss_per_token"] = mean
    listed = baseline.get("loss_per_text", found) if exact(subject.model) else found
    off = [abs(one - other) for one, other in zip(found, listed, strict=True)]
    if not low <= mean <= high or max(off) > baseline.get("within", 0.0):
        worst = off.index(max(off))
        raise subject.refuse(
            "the model does not predict held-out text as its card says",
            field="baseline of the card",
            expected=f"{baseline['loss_per_token']:.4f} nats per token, within {low:.4f} to {high:.4f}"
            + (f"; no text further off than {baseline['within']} nats" if listed is not found else ""),
            found=f"{mean:.4f} nats per token"
            + (f"; text {worst + 1} of {len(off)} is off by {off[worst]:.4f} nats" if listed is not found else ""),
            cause=suspicion(mean / baseline["loss_per_token"]),
            next_step="compare with another implementation: course_helpers.first_mismatch names the first place",
        )
    return f"{mean:.4f} nats per token on {len(off)} held-out texts, as the card says"


def suspicion(ratio: float) -> str:
    """The likely cause, by how much the loss has grown: what the table of silent faults shows, in words."""
    if ratio > 8:
        return "weights in the wrong places, a head or norm that was never loaded, or another model's tokenizer"
    if ratio > 1.5:
        return "wrong rotary positions, tensors exchanged, or rows of queries and keys in another order"
    if ratio > 1.01:
        return "one matrix transposed, damaged or of another run, another window or scaling, or a text begun otherwise"
    return "a constant of config.json, epsilon or activation for instance, or weights that were rounded"


def plain_english(subject: Subject) -> str:
    """What holds of every language model that has learned English."""
    model, tokenizer = subject.model, subject.tokenizer
    found, tokens = losses(model, tokenizer, PLAIN)
    subject.baseline = section(model, PLAIN, found, tokens)
    limit = model.config.max_position_embeddings  # a short model reads the beginnings only
    read = [tokenizer.decode(marked(tokenizer, text)[: limit + 1]) for text in PLAIN]
    bits = sum(found) / math.log(2) / sum(len(text.encode()) for text in read)
    subject.telemetry["bits_per_byte"] = bits
    if bits > BITS_PER_BYTE:
        raise subject.refuse(
            "the model predicts plain English no better than a compressor that knows no language",
            expected=f"at most {BITS_PER_BYTE} bits for each byte of two short stories",
            found=f"{bits:.2f}",
            cause="wrong weights or positions, another model's tokenizer, or a model that was never trained on English",
            next_step="compare with another implementation: course_helpers.first_mismatch names the first place",
        )
    if sum(losses(model, tokenizer, [shuffled(text) for text in PLAIN])[0]) <= sum(found):
        raise subject.refuse(
            "the model finds the words of a text no likelier in their order than in another",
            expected="a lower loss for the text than for its words shuffled",
            found="a higher one",
            cause="positions that are ignored or wrong",
            next_step="compare rope_theta, rope_scaling and rope_parameters with the original config.json",
        )
    near, far = short_sighted(subject) if limit > 2 * FIRST else (math.inf, 0.0)
    if far >= near:
        raise subject.refuse(
            "seeing more of a text makes the model predict worse",
            expected=f"less than the {near:.2f} nats per token that it has when it sees {SHORT_CONTEXT} tokens only",
            found=f"{far:.2f} when it sees them all",
            cause="wrong rotary positions, or rows of queries and keys in another order: neighbours look right, "
            "what is further away does not",
            next_step="compare rope_theta, rope_scaling and rope_parameters with the original config.json",
        )
    return f"{bits:.2f} bits per byte of plain English; no card says how many to expect"


def shuffled(text: str) -> str:
    """The words of a text in an order by chance, the same each time."""
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


@torch.inference_mode()
def short_sighted(subject: Subject) -> tuple[float, float]:
    """Nats per token over the later part of the plain texts, when only the last tokens are seen, and when all are."""
    near, far, count = 0.0, 0.0, 0
    for text in PLAIN:
        ids = marked(subject.tokenizer, text)[: subject.model.config.max_position_embeddings + 1]
        begin = ids[:1] if ids[0] == subject.tokenizer.bos_id else []
        places = range(FIRST, len(ids))
        windows = [[*begin, *ids[place - SHORT_CONTEXT : place]] for place in places]
        targets = torch.tensor([ids[place] for place in places], device=subject.model.device)
        rows = torch.tensor(windows, device=subject.model.device)
        near += F.cross_entropy(subject.model(rows, last_only=True)[:, -1].float(), targets, reduction="sum").item()
        logits = subject.model(torch.tensor([ids[:-1]], device=subject.model.device))[0, FIRST - 1 :]
        far += F.cross_entropy(logits.float(), targets, reduction="sum").item()
        count += len(targets)
    return near / count, far / count


def as_written(subject: Subject, greedy: Sequence[dict[str, Any]]) -> None:
    """The greedy texts on the card are written again, word for word."""
    for sample in greedy if subject.model.dtype == torch.float32 else ():
        written = greedy_text(subject.model, subject.tokenizer, sample["prompt"], sample["max_new_tokens"])
        if written != sample["text"]:
            raise subject.refuse(
                "the model writes another text than its card says",
                field="greedy of the card",
                expected=repr(sample["text"]),
                found=repr(written),
                cause="a mistake that moves the likeliest word; if only one word differs, rounding at a tie",
                next_step="compare with another implementation: course_helpers.first_mismatch names the first place",
            )


def greedy_text(model: LanguageModel, tokenizer: Tokenizer, prompt: str, max_new_tokens: int) -> str:
    """A prompt and its likeliest continuation, up to the end of the text."""
    ids = [tokenizer.encode(prompt)]
    return tokenizer.decode(generate(model, ids, max_new_tokens, stop_ids=tokenizer.stop_ids)[0])
