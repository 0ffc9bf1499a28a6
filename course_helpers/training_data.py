"""Where training texts come from: one long row of tokens, cut into windows, in an order that can be gone on with.

Shape suffixes: B batch, T tokens, N all tokens.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from .architectures.config import ModelConfig
from .errors import CheckpointError
from .tokenizers import Tokenizer
from .training import Batch, check_context


class TextBatches:
    """Batches of windows, (B, T) inputs and targets, without end; the targets are the inputs shifted by one token.

    The split: the last `held_out` part of the tokens is for validation, the rest for training; no window has tokens of
    both. Each part is cut into windows of `context_length` tokens, one after the other, so that in an epoch every
    token is a target once. What is left at the end of a part is too short for a window and is not used.

    The order: the training windows of an epoch are shuffled afresh, by the seed and the number of the epoch; a batch
    has windows of one epoch only. So where we are is said by two numbers, `epoch` and `batch`, and whoever sets them
    goes on as if there had been no break (`state_dict`, `load_state_dict`).
    """

    def __init__(
        self,
        token_ids: Sequence[int] | Tensor,
        context_length: int,
        batch_size: int,
        seed: int = 0,
        held_out: float = 0.1,
    ):
        """Raises ValueError where the tokens do not suffice for one training batch and one window of validation."""
        if context_length < 1 or batch_size < 1 or not 0 <= held_out < 1:
            raise ValueError(
                "context_length and batch_size must be 1 or more, held_out at least 0 and below 1; "
                f"got {context_length}, {batch_size} and {held_out}"
            )
        token_ids_N = torch.as_tensor(token_ids, dtype=torch.int64)
        self.context_length, self.batch_size, self.seed = context_length, batch_size, seed
        border = len(token_ids_N) - int(held_out * len(token_ids_N))
        self.training = windows(token_ids_N[:border], context_length)
        self.validation = windows(token_ids_N[border:], context_length)
        for part, tokens, found, needed in (
            ("training", border, len(self.training), batch_size),
            ("validation", len(token_ids_N) - border, len(self.validation), 1 if held_out else 0),
        ):
            if found < needed:
                raise ValueError(
                    f"the text is too short: its {part} part has {tokens} tokens, which make {found} windows of "
                    f"{context_length} tokens and their targets, and {needed} are needed: take more text, or a smaller "
                    "context_length or batch_size"
                )
        self.largest_id = int(token_ids_N.max())
        self.fingerprint = fingerprint(token_ids_N, context_length, batch_size, seed, border)
        self.epoch, self.batch = 0, 0  # of the next batch

    @classmethod
    def from_texts(cls, texts: Sequence[str], tokenizer: Tokenizer, context_length: int, **options: Any) -> Self:
        """The same of texts, one after the other, each begun and ended as the model was taught: with the mark at its
        beginning where the tokenizer sets one, and the mark that ends a text. `options` go to the class."""
        texts = [texts] if isinstance(texts, str) else texts
        rows = [[*tokenizer.encode(text), *tokenizer.stop_ids[:1]] for text in texts]
        return cls([token for row in rows for token in row], context_length, **options)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.training) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        order = shuffled(len(self.training), f"{self.seed} {self.epoch}")
        start = self.batch * self.batch_size
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        return shifted([self.training[index] for index in order[start : start + self.batch_size]])

    def held_out(self) -> Iterator[Batch]:
        """Every window of the validation part, in batches, the same ones each time; the last batch may be smaller."""
        for start in range(0, len(self.validation), self.batch_size):
            yield shifted(self.validation[start : start + self.batch_size])

    def check_fits(self, config: ModelConfig) -> None:
        """Raises ValueError for what the model cannot read: windows beyond its context, ids it has no embedding for."""
        check_context(config.max_position_embeddings, self.context_length)
        check_ids(config.vocab_size, self.largest_id)

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where the state was taken. Raises CheckpointError for a state of other data."""
        self.check_state(state)
        self.epoch, self.batch = state["epoch"], state["batch"]

    def check_state(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError for a state of other data, or of no data at all."""
        if state.get("fingerprint") != self.fingerprint:
            raise CheckpointError(
                "the training was begun with other data: going on with these would not be the same training",
                field="fingerprint",
                expected=self.fingerprint,
                found=state.get("fingerprint"),
                cause="another text, tokenizer, context_length, batch_size, seed or split",
                next_step="give the data it was begun with, or begin anew in another folder",
            )


def windows(token_ids_N: Tensor, length: int) -> list[Tensor]:
    """Rows of length + 1 tokens; the last token of one is the first of the next, a target there and an input here."""
    count = (len(token_ids_N) - 1) // length
    return [token_ids_N[index * length : (index + 1) * length + 1] for index in range(count)]


@lru_cache(maxsize=4)
def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """The numbers below `count` in the order that a seed gives them, on every machine; worked out once an epoch."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return tuple(order)


def shifted(rows: Sequence[Tensor]) -> Batch:
    """Inputs: all tokens but each row's last. Targets: all but its first."""
    rows_BT = torch.stack(list(rows))
    return rows_BT[:, :-1], rows_BT[:, 1:]


def check_ids(vocab_size: int, largest_id: int) -> None:
    if largest_id >= vocab_size:
        raise ValueError(
            f"token id {largest_id} is outside the model's vocabulary of {vocab_size}: the text was encoded by another "
            "model's tokenizer; encode it with the one of this checkpoint"
        )


def fingerprint(token_ids_N: Tensor, *numbers: int) -> str:
    """SHA-256 of the tokens and of the numbers that decide the order: is it the same training data?"""
    return hashlib.sha256(repr(numbers).encode() + token_ids_N.contiguous().numpy().tobytes()).hexdigest()
