"""M9-LAB-05's faults: Gemma 3 models that load without an error and are wrong, and what that does to texts.

Shape suffixes: T tokens, V vocabulary.
"""

import copy
import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architectures.base import LanguageModel
from ..architectures.config import FULL, SLIDING
from ..architectures.gemma3 import Gemma3Model

Fault = Callable[[Gemma3Model], Gemma3Model]
#: How far the loss of a text may be from the one on the card, in nats (card.json, baseline: within).
TOLERANCE = 0.0005


def another(model: Gemma3Model, **changes: object) -> Gemma3Model:
    """The same weights in a model whose config says something else. `load_state_dict` is strict, and has no word to
    say: none of these fields shows in a shape."""
    other = type(model)(dataclasses.replace(model.config, **changes)).to(model.dtype)
    other.load_state_dict(model.state_dict(), strict=True)
    return other.eval()


def altered(change: Callable[[Gemma3Model], None]) -> Fault:
    """A fault of the code: a copy of the model in which `change` has exchanged parts."""

    def fault(model: Gemma3Model) -> Gemma3Model:
        other = copy.deepcopy(model)
        with torch.no_grad():
            change(other)
        return other

    return fault


def every_block(model: Gemma3Model, *path: str, part: object) -> None:
    """Put `part` in the place that `path` names, in every block."""
    for block in model.blocks:
        owner = block
        for name in path[:-1]:
            owner = getattr(owner, name)
        setattr(owner, path[-1], part)


def plain_norms(model: Gemma3Model) -> None:
    """Scale by the weight instead of 1 + weight."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.sub_(1.0)


def unscaled(model: Gemma3Model) -> None:
    model.embed = lambda token_ids_BT, positions_BT: model.token_embedding(token_ids_BT)


def no_post_norms(model: Gemma3Model) -> None:
    every_block(model, "attention_post_norm", part=nn.Identity())
    every_block(model, "feed_forward_post_norm", part=nn.Identity())


def no_qk_norms(model: Gemma3Model) -> None:
    every_block(model, "attention", "query_norm", part=nn.Identity())
    every_block(model, "attention", "key_norm", part=nn.Identity())


def config_faults(model: Gemma3Model) -> dict[str, Fault]:
    """Faults of one config field each, by what they are."""
    config = model.config
    full, sliding, window = config.rope(FULL), config.rope(SLIDING), config.sliding_window
    shifted = (config.layer_types[-1], *config.layer_types[:-1])

    def with_field(**changes: object) -> Fault:
        return lambda model: another(model, **changes)

    def bases(**rope: object) -> Fault:
        return with_field(rope_parameters={FULL: full, SLIDING: sliding} | rope)

    slowed = dataclasses.replace(full, rope_type="linear", factor=8.0)
    faults = {
        "window: one too wide": with_field(sliding_window=window + 1),
        "window: one too narrow": with_field(sliding_window=window - 1),
        "window: half as wide": with_field(sliding_window=window // 2),
        "window: ignored": with_field(sliding_window=config.max_position_embeddings),
        "plan: shifted by one layer": with_field(layer_types=shifted),
        "plan: all layers local": with_field(layer_types=(SLIDING,) * len(shifted)),
        "bases: exchanged": bases(**{FULL: sliding, SLIDING: full}),
        "bases: the local one everywhere": bases(**{FULL: sliding}),
        "bases: the global one everywhere": bases(**{SLIDING: full}),
        "bases: slowed by 8, as from 4B up": bases(**{FULL: slowed}),
    }
    if config.query_pre_attn_scalar != config.head_dim:  # in most released sizes they are equal, and this is no fault
        faults["scores: divided by sqrt(head_dim)"] = with_field(query_pre_attn_scalar=config.head_dim)
    return faults


def code_faults() -> dict[str, Fault]:
    """Faults of the code that reads the same config, by what they are."""
    exact = functools.partial(F.gelu, approximate="none")
    return {
        "embedding: not scaled": altered(unscaled),
        "norms: w instead of 1 + w": altered(plain_norms),
        "norms: the two post-norms left out": altered(no_post_norms),
        "norms: QK-norm left out": altered(no_qk_norms),
        "feed-forward: SiLU for GELU": altered(
            lambda model: every_block(model, "feed_forward", "activation", part=F.silu)
        ),
        "feed-forward: exact GELU": altered(lambda model: every_block(model, "feed_forward", "activation", part=exact)),
    }


@dataclasses.dataclass(frozen=True)
class Damage:
    """What a fault does to held-out texts."""

    loss: float  # nats per token, over all texts
    per_text: float  # how far the loss of a text moves, nats, on average and whichever way
    worst: float  # the same of the text that moves most
    changed: float  # share of positions at which another token is the likeliest
    short: bool  # whether the first few tokens of any text show it

    @property
    def on_card(self) -> bool:
        """Whether the losses that the card vouches for show it."""
        return self.worst > TOLERANCE


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a model says of some texts."""

    losses: list[float]  # of each text, nats
    tokens: int  # predicted in all
    likeliest: Tensor  # the likeliest next token at every position of all texts
    first_TV: list[Tensor]  # the logits of each text's first tokens

    @property
    def loss(self) -> float:
        """Nats per token."""
        return sum(self.losses) / self.tokens


@torch.inference_mode()
def read(model: LanguageModel, rows: Sequence[Sequence[int]], short: int) -> Reading:
    """Let the model predict every token of the texts but each one's first; keep the logits of the first `short`."""
    losses, likeliest, first_TV = [], [], []
    for row in rows:  # one at a time: the logits of all texts of a large vocabulary would fill the memory
        logits_TV = model(torch.tensor([row[:-1]]))[0]
        losses.append(F.cross_entropy(logits_TV, torch.tensor(row[1:]), reduction="sum").item())
        likeliest.append(logits_TV.argmax(-1))
        first_TV.append(logits_TV[:short].clone())
    return Reading(losses, sum(len(row) - 1 for row in rows), torch.cat(likeliest), first_TV)


def damage(
    model: Gemma3Model, faults: Mapping[str, Fault], rows: Sequence[Sequence[int]], short: int
) -> dict[str, Damage]:
    """Each fault on the same texts, beside the right model. `short`: how many tokens a short test would look at."""
    right, found = read(model, rows, short), {}
    for name, fault in faults.items():
        wrong = read(fault(model), rows, short)
        moved = [abs(one - other) for one, other in zip(wrong.losses, right.losses, strict=True)]
        pairs = zip(wrong.first_TV, right.first_TV, strict=True)
        found[name] = Damage(
            loss=wrong.loss,
            per_text=statistics.mean(moved),
            worst=max(moved),
            changed=(wrong.likeliest != right.likeliest).float().mean().item(),
            short=any((one - other).abs().max() > 1e-3 for one, other in pairs),
        )
    return found
