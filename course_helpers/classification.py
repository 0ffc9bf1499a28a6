"""From a language model to a classifier, for any family: the hidden state of a text's last token, and a linear head.

    classifier = SequenceClassifier(load_model("tiny-llama3", dtype=torch.float32), ("happy", "sad"))
    freeze_all_but(classifier, blocks=1)
    train_classifier(classifier, rows, labels, TrainingSettings(steps=60, warmup_steps=10))

Causal attention lets a token see what came before it, so the last token alone has seen the whole text. Where rows of
unequal length are padded, that is the last token that is *real*: the last column of a padded row has read padding.

Shape suffixes: B batch, T tokens, E model width, C classes.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures.base import LanguageModel
from .architectures.config import ModelConfig
from .training import Batch, TrainingSettings, check_context, train


class SequenceClassifier(nn.Module):
    """A base model and a head over its hidden states. The base is the model given, not a copy: training changes it.
    Its language-model head has no part in the computation."""

    def __init__(self, base: LanguageModel, labels: Sequence[str], seed: int = 0):
        """A head for at least two different labels (ValueError otherwise); small random weights, biases zero."""
        super().__init__()
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"a classifier needs at least two labels, all different, not {list(labels)}")
        self.base, self.labels = base, tuple(labels)
        width = base.token_embedding.embedding_dim
        self.head = nn.Linear(width, len(labels), dtype=base.dtype, device=base.device)
        with torch.no_grad():
            weight_CE = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed))
            self.head.weight.copy_(0.02 * weight_CE)
            self.head.bias.zero_()

    def forward(self, token_ids_BT: Tensor, lengths_B: Tensor, padding: str = "right") -> Tensor:
        """Scores (B, C). `lengths_B` says how many tokens of each row are real, `padding` on which side the others
        are. What id they have, and how many there are, changes nothing: no real token looks at them."""
        tokens = token_ids_BT.shape[1]
        check_context(self.config.max_position_embeddings, tokens)
        if padding not in ("right", "left"):
            raise ValueError(f"padding is on the right or on the left, not {padding!r}")
        if not ((lengths_B >= 1) & (lengths_B <= tokens)).all():
            raise ValueError(f"every row needs from 1 to {tokens} real tokens, but lengths are {lengths_B.tolist()}")
        if padding == "left":
            options = {"left_padding_B": tokens - lengths_B, "last_only": True}
            return self.head(self.base(token_ids_BT, hidden_states=True, **options)[:, 0])
        x_BTE = self.base(token_ids_BT, hidden_states=True)
        return self.head(x_BTE[torch.arange(len(x_BTE), device=x_BTE.device), lengths_B - 1])

    def label_ids(self, labels: Sequence[str]) -> Tensor:
        """(B,) int64. Raises ValueError for a label that the head has no row for."""
        unknown = set(labels) - set(self.labels)
        if unknown:
            raise ValueError(f"unknown label {min(unknown)!r}; there are: {', '.join(self.labels)}")
        return torch.tensor([self.labels.index(label) for label in labels])

    @property
    def config(self) -> ModelConfig:
        return self.base.config

    @property
    def device(self) -> torch.device:
        return self.base.device


def padded(
    rows: Sequence[Sequence[int]], padding: str = "right", pad_id: int = 0, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as one (B, T) tensor, as wide as the longest or as asked; and their lengths, (B,)."""
    width = width or max(len(row) for row in rows)
    filling = [[pad_id] * (width - len(row)) for row in rows]
    whole = [[*row, *pad] if padding == "right" else [*pad, *row] for row, pad in zip(rows, filling, strict=True)]
    return torch.tensor(whole), torch.tensor([len(row) for row in rows])


def freeze_all_but(classifier: SequenceClassifier, blocks: int = 1, final_norm: bool = True) -> list[str]:
    """Leave the head, the last so many blocks and the final norm to be trained; return the names of what is.

    A tied output head is the token embedding, and stays frozen with it: the classifier's head is a matrix of its own.
    """
    base = classifier.base
    if not 0 <= blocks <= len(base.blocks):
        raise ValueError(f"the model has {len(base.blocks)} blocks, so {blocks} cannot be trained")
    classifier.requires_grad_(False)
    for part in (classifier.head, *base.blocks[len(base.blocks) - blocks :], *[base.final_norm] * final_norm):
        part.requires_grad_(True)
    return [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]


def frozen_digests(classifier: nn.Module) -> dict[str, str]:
    """The SHA-256 of every frozen parameter's bytes, by its name: what must be the same after training."""
    return {
        name: sha256_of(parameter) for name, parameter in classifier.named_parameters() if not parameter.requires_grad
    }


def sha256_of(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's bytes, in hexadecimal."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def train_classifier(
    classifier: SequenceClassifier,
    rows: Sequence[Sequence[int]],
    labels: Sequence[str],
    settings: TrainingSettings,
    batch_size: int = 16,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train what is not frozen, with the loop of `training`; return the loss of every step, in nats per text.

    Raises RuntimeError if a frozen parameter was changed, by whatever: the classifier is then not what it says it is.
    """
    before = frozen_digests(classifier)
    batches = labelled_batches(rows, classifier.label_ids(labels), batch_size, seed)
    losses = train(classifier, batches, settings, on_step, label_loss)
    after = frozen_digests(classifier)
    moved = [name for name, digest in before.items() if after.get(name) != digest]
    if moved:
        raise RuntimeError(
            f"{len(moved)} frozen parameters were changed or unfrozen during training, {moved[0]} first: load the base "
            "again, and let nothing but this optimizer touch the model"
        )
    return losses


def labelled_batches(rows: Sequence[Sequence[int]], label_ids: Tensor, batch_size: int, seed: int) -> Iterator[Batch]:
    """(token ids (B, T), lengths (B,), label ids (B,)), padded on the right, without end; shuffled by the seed."""
    if len(rows) != len(label_ids) or len(rows) < batch_size:
        raise ValueError(f"{len(rows)} texts and {len(label_ids)} labels do not make a batch of {batch_size}")
    chooser, order = random.Random(seed), list(range(len(rows)))
    while True:
        chooser.shuffle(order)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield *padded([rows[index] for index in chosen]), label_ids[chosen]


def label_loss(classifier: nn.Module, token_ids_BT: Tensor, lengths_B: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy in nats between the scores and the true labels."""
    return F.cross_entropy(classifier(token_ids_BT, lengths_B).float(), labels_B)


@torch.inference_mode()
def classify(classifier: SequenceClassifier, rows: Sequence[Sequence[int]], batch_size: int = 64) -> list[str]:
    """The likeliest label of each row of token ids."""
    found = []
    for start in range(0, len(rows), batch_size):
        ids_BT, lengths_B = (part.to(classifier.device) for part in padded(rows[start : start + batch_size]))
        found += [classifier.labels[index] for index in classifier(ids_BT, lengths_B).argmax(dim=-1).tolist()]
    return found


def accuracy(classifier: SequenceClassifier, rows: Sequence[Sequence[int]], labels: Sequence[str]) -> float:
    """The part of the rows that get their true label."""
    pairs = zip(classify(classifier, rows), labels, strict=True)
    return sum(found == label for found, label in pairs) / len(rows)


def balanced(
    texts: Sequence[str], labels: Sequence[str], counts: Sequence[int], seed: int = 0
) -> list[tuple[list[str], list[str]]]:
    """Sets of texts and their labels, each with the same number of texts of every label, and no text in two of them.

    `counts` says how many texts of a label each set has: (100, 20) makes one of 100 and one of 20 texts a label. Raises
    ValueError if there are not so many different texts of each.
    """
    by_label: dict[str, list[str]] = defaultdict(list)
    for text, label in dict(zip(texts, labels, strict=True)).items():
        by_label[label].append(text)
    chooser = random.Random(seed)
    for label, own in by_label.items():
        if len(own) < sum(counts):
            raise ValueError(f"{sum(counts)} different texts labelled {label!r} are needed, and there are {len(own)}")
        chooser.shuffle(own)
    sets = []
    for index, count in enumerate(counts):
        start = sum(counts[:index])
        pairs = [(text, label) for label in sorted(by_label) for text in by_label[label][start : start + count]]
        chooser.shuffle(pairs)
        sets.append(([text for text, _ in pairs], [label for _, label in pairs]))
    return sets
