"""What the film of the family swap tells: plain data from the package, its bundled checkpoints and their tokenizers.

No Manim here: the tests hold every value against its source in seconds. Each family becomes a `Stop`: what loading it
says, how its tokenizer cuts the prompt, what it writes, and five `Parts`, the things inside that families change. The
parts are read off the loaded model (its config, its modules, its cache), never off the family's name.
"""

import functools
import itertools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from course_helpers import FAMILIES, generate, load_model, load_tokenizer, open_checkpoint, validate_checkpoint
from course_helpers.loaders.sources import resolve
from course_helpers.tokenizers import Tokenizer
from course_helpers.validation import Check

from .swap_parts import Part, parts_of

#: The families of the film in its order, by the short names that the deck uses.
TITLES = {
    "gpt2": "GPT-2",
    "llama3": "Llama 3",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3 MoE",
    "gemma3": "Gemma 3",
    "olmo3": "Olmo 3",
}
#: The same prompt and the same decode settings for all: greedy, and so many new tokens.
PROMPT, NEW_TOKENS = "Once upon a time, Ivy found a warm cookie", 20
SETTINGS = f"greedy, {NEW_TOKENS} new tokens"
#: The mistake of the film: this family's model keeps the tokenizer of the family before it.
MODEL, LEFT_OVER = "olmo3", "gemma3"
RECORD = Path(__file__).parents[1] / "results" / "M9-CODE-02.json"
#: Drawn in the place of what cannot be: control characters and bytes that are no letter.
UNPRINTABLE = "□"


@dataclass(frozen=True)
class Token:
    """A piece of a text, and its id. Special tokens have their name as text."""

    text: str
    id: int


@dataclass(frozen=True)
class Stop:
    """One family on its way through the workflow."""

    key: str
    title: str
    source: str
    model_type: str
    model_class: str
    tensors: int
    parameters: int
    tokenizer: str
    tokens: tuple[Token, ...]
    written: tuple[str, ...]  # the continuation, token by token
    parts: dict[str, Part]

    @property
    def continuation(self) -> str:
        """What the model wrote, as one text."""
        return "".join(self.written)

    def changed(self, before: "Stop") -> list[str]:
        """The titles of the parts that are not what they were in the family before."""
        return [title for title, part in self.parts.items() if part.said != before.parts[title].said]


@dataclass(frozen=True)
class Mistake:
    """A model with another family's tokenizer: what it gets to read, what it writes, and who refuses the pair."""

    model: Stop
    tokenizer: Stop
    read: tuple[str, ...]  # what the ids of the wrong tokenizer mean to the model
    written: str
    bits: float  # in 100 bytes of unseen stories, with the wrong tokenizer and with its own
    own_bits: float
    passed: tuple[str, ...]  # layers of the validation that see nothing wrong
    failed: str
    reason: str
    facts: dict[str, str]  # the error's own lines: field, expected, found, likely cause, next step


@functools.cache
def stops() -> tuple[Stop, ...]:
    """The families in order."""
    return tuple(map(stop, TITLES))


def stop(key: str) -> Stop:
    """Take one family's bundled checkpoint through the workflow: select, load, bind, generate."""
    family = FAMILIES[key]
    model, tokenizer = load_model(family.tiny, torch.float32), load_tokenizer(family.tiny)
    with open_checkpoint(family.tiny) as checkpoint:
        model_type, tensors = checkpoint.config["model_type"], len(checkpoint.names())
    ids = tokenizer.encode(PROMPT)
    tokens = tuple(Token(piece(tokenizer, id), id) for id in ids)
    return Stop(
        key=key,
        title=TITLES[key],
        source=family.tiny,
        model_type=model_type,
        model_class=type(model).__name__,
        tensors=tensors,
        parameters=model.num_parameters(),
        tokenizer=family.tokenizer,
        tokens=tokens,
        written=pieces(tokenizer, continuation(model, tokenizer, ids)),
        parts=parts_of(model, ids, [token.text for token in tokens]),
    )


def continuation(model: torch.nn.Module, tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The new ids, under the settings that all families share."""
    return generate(model, [ids], NEW_TOKENS, temperature=0.0, stop_ids=tokenizer.stop_ids)[0][len(ids) :]


def piece(tokenizer: Tokenizer, id: int) -> str:
    """The text of a token, or its name if it is a special one."""
    names = {number: name for name, number in tokenizer.backend.special.items()}
    return names.get(id) or printable(tokenizer.decode([id]))


def pieces(tokenizer: Tokenizer, ids: list[int]) -> tuple[str, ...]:
    """What each token adds to the text; that need not be what it is alone: a space may belong to the one before."""
    texts = [tokenizer.decode(ids[:end]) for end in range(len(ids) + 1)]
    return tuple(after[len(before) :] for before, after in itertools.pairwise(texts))


def printable(text: str) -> str:
    """The text with a mark for each character that has no picture."""
    return "".join(letter if letter.isprintable() and letter != "\ufffd" else UNPRINTABLE for letter in text)


#: What the captions say of each family: of its inside, and of its tokenizer. In braces: numbers read off the family.
#: The tests hold the rest of each sentence against the same data.
NEWS = {
    "gpt2": (
        "GPT-2 first: config.json names the family, and {now.tensors} tensors become {now.parameters:,} parameters.",
        "Its tokenizer cuts the prompt into {count} tokens, and the model writes {new} more.",
    ),
    "llama3": (
        "One word changes. Inside: RMSNorm, rotary positions, shared heads, a gate, half the cache.",
        "Llama 3 begins every text with a mark of its own: {count} tokens.",
    ),
    "qwen3": (
        "Qwen3 norms every query and key head, and turns slow pairs at another speed.",
        "No such mark, and “warm” falls into three pieces: {count} tokens.",
    ),
    "qwen3_moe": (
        "Qwen3 MoE changes one thing: a router sends each token to {moe[picked]} of {moe[experts]} small networks.",
        "The same tokenizer as Qwen3, the same {count} tokens, another story.",
    ),
    "gemma3": (
        "Gemma 3 norms before and after. Most of its layers see, and keep, few tokens.",
        "Another vocabulary: every piece has another id, and there are {count}.",
    ),
    "olmo3": (
        "Olmo 3 norms only after, and stretches positions in its full layers alone.",
        "The prompt is cut as by Qwen3: {count} tokens. Six families, one workflow.",
    ),
}


def news(now: Stop) -> tuple[str, str]:
    """The two captions of a family, with its numbers."""
    inside, outside = NEWS[now.key]
    return inside.format(now=now, moe=now.parts["Feed-forward"].drawn), outside.format(
        count=len(now.tokens), new=NEW_TOKENS
    )


@functools.cache
def mistake() -> Mistake:
    """Really bind the wrong tokenizer: once past all checks, to see what comes of it, and once through validation."""
    model, wrong = (next(one for one in stops() if one.key == key) for key in (MODEL, LEFT_OVER))
    own, other = load_tokenizer(model.source), load_tokenizer(wrong.source)
    ids = [token.id for token in wrong.tokens]
    written = continuation(load_model(model.source, torch.float32), other, ids)
    checks = validate_with(model.source, other)
    reason, *lines = checks[-1].detail.splitlines()
    bits = json.loads(RECORD.read_text())["results"]["tokenizer pairs, bits in 100 bytes"]
    return Mistake(
        model=model,
        tokenizer=wrong,
        read=tuple(piece(own, id) for id in ids),
        written=printable(other.decode(written)),
        bits=bits[f"{model.source}, {wrong.source}"],
        own_bits=bits[f"{model.source}, {model.source}"],
        passed=tuple(check.name for check in checks if check.ok),
        failed=checks[-1].name,
        reason=reason,
        facts={line[:15].strip(): line[15:].strip() for line in lines},
    )


def validate_with(source: str, tokenizer: Tokenizer) -> list[Check]:
    """What the validation says of a checkpoint with another tokenizer's files in its folder."""
    kept = ("config.json", "generation_config.json", "model*.safetensors*")
    with tempfile.TemporaryDirectory() as folder:
        for pattern in kept:
            for file in resolve(source).glob(pattern):
                shutil.copy(file, folder)
        tokenizer.save(Path(folder))
        return validate_checkpoint(folder).checks
