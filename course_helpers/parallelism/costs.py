"""What sharing a model out costs and saves, before there is a process: bytes held, read, sent, and cached in each rank.

Every figure is counted on the model's own parameters and the family's plan; `benchmarks/results/parallel.md` has them
beside what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..architectures.config import ModelConfig
from ..families import FAMILIES, family_of
from ..memory import kv_cache_bytes
from ..sizes import on_meta
from .apply import shares_of
from .shares import shared_parts

#: Styles whose outputs are added up over the ranks, and those that take a mean over them, of so many bytes a token.
SUMMED = ("rows", "experts", "vocabulary")
AVERAGED, AVERAGE = ("norm over query heads", "norm over key/value heads"), torch.float32.itemsize


@dataclass(frozen=True)
class RankCost:
    """One of `ranks` equal processes (the first, which never has the smaller part)."""

    ranks: int
    whole: int  # bytes of the model
    cut: int  # bytes of this rank's own parts of what is cut up
    copied: int  # bytes of what more than one rank holds: norms, routers, learned positions, some key/value heads
    cache_per_token: int  # bytes of keys and values for one more token of a short text
    sent_per_token: int  # bytes that each rank puts into sums over the ranks, for each token
    sums: int  # how often ranks wait for a sum in one forward pass (and once more, for all logits)

    @property
    def held(self) -> int:
        """Bytes in memory; the same are read from the files."""
        return self.cut + self.copied

    def load_seconds(self, disk: float, ranks_on_a_disk: int | None = None) -> float:
        """Seconds to read it, at `disk` bytes a second, which so many ranks share; all of them, unless told."""
        return self.held * (ranks_on_a_disk or self.ranks) / disk

    def wire_seconds(self, network: float) -> float:
        """Seconds a token that the sums take at least on wires of `network` bytes a second: in a ring of N ranks, each
        sends every number 2 (N - 1) / N times. The waits themselves come on top, and are more for few tokens."""
        return self.sent_per_token * 2 * (self.ranks - 1) / self.ranks / network


def rank_cost(config: ModelConfig, ranks: int, dtype: torch.dtype = torch.bfloat16) -> RankCost:
    """What each of so many ranks holds and does. Raises CheckpointError if the model cannot be cut into so many."""
    model = on_meta(family_of(config.to_hf()).model, config)
    shares, cut, copied = shares_of(model, ranks), 0, 0
    for name, parameter in model.named_parameters():
        part = shares[name].cut(parameter.shape, 0, ranks)
        count = torch.Size(part.shape(parameter.shape) if part else parameter.shape).numel() * dtype.itemsize
        own = part is not None and shares[name].parts == ranks
        cut, copied = cut + own * count, copied + (not own) * count
    adding = {share.module for share in shares.values() if share.style_name in SUMMED}
    exchanging = {share.module for share in shares.values() if share.style_name in AVERAGED and share.parts > 1}
    cache = kv_cache_bytes(config, 1, dtype=dtype) // shared_parts(config, ranks)
    sent = len(adding) * config.hidden_size * dtype.itemsize + len(exchanging) * AVERAGE
    sums = len(adding) + len(exchanging)
    whole = model.num_parameters() * dtype.itemsize
    return RankCost(ranks, whole, cut, copied, cache, sent * (ranks > 1), sums * (ranks > 1))


HEAD = (
    "| model | ranks | GiB in each | of it copied, MiB | cache KiB/token | sums a pass | KiB summed/token "
    "| on the wire, ms | load, s |"
)


def cost_table(
    models: Sequence[str], ranks: Sequence[int] = (1, 2, 4, 8), disk: float = 2e9, network: float = 12.5e9
) -> str:
    """A Markdown table of released models in bfloat16, by hub id. `disk`: bytes a second that all ranks share;
    `network`: bytes a second that each rank can send (12.5e9: 100 Gbit/s)."""
    presets = {hub_id: config for family in FAMILIES.values() for hub_id, config in family.presets.items()}
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for hub_id in models:
        for cost in (rank_cost(presets[hub_id], count) for count in ranks):
            cells = [
                hub_id,
                f"{cost.ranks}",
                f"{cost.held / 2**30:.1f}",
                f"{(cost.copied if cost.ranks > 1 else 0) / 2**20:.1f}",
                f"{cost.cache_per_token / 2**10:g}",
                f"{cost.sums}",
                f"{cost.sent_per_token / 2**10:.0f}",
                f"{1e3 * cost.wire_seconds(network):.2f}",
                f"{cost.load_seconds(disk):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


#: The released models of about 30 billion parameters, which most machines cannot hold.
LARGE = ("Qwen/Qwen3-32B", "allenai/Olmo-3-1125-32B", "Qwen/Qwen3-30B-A3B")

if __name__ == "__main__":
    print(cost_table(LARGE))
