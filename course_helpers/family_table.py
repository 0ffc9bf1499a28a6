"""The table of all families and sizes: what they weigh, and what their caches cost. Every figure is computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .architectures.config import ModelConfig
from .families import FAMILIES, Family
from .memory import kv_cache_bytes, parameter_count

BFLOAT16 = torch.bfloat16.itemsize  # bytes a parameter in which the sizes are given


@dataclass(frozen=True)
class Size:
    """One released model."""

    family: Family
    hub_id: str
    config: ModelConfig
    parameters: int

    @property
    def weight_gib(self) -> float:
        """GiB of weights in bfloat16."""
        return self.parameters * BFLOAT16 / 2**30

    @property
    def cache_kib_per_token(self) -> float:
        """KiB of keys and values, in bfloat16, that one more token of a short text adds."""
        return kv_cache_bytes(self.config, 1) / 2**10

    @property
    def cache_mib_at_32k(self) -> float:
        """MiB of cache, in bfloat16, for a text of 32,768 tokens, or of the longest if that is shorter; layers with a
        window keep no more than the window."""
        return kv_cache_bytes(self.config, min(32768, self.config.max_position_embeddings)) / 2**20


def sizes() -> Iterator[Size]:
    """Every preset of every family; parameters are counted on the meta device."""
    for family in FAMILIES.values():
        for hub_id, config in family.presets.items():
            yield Size(family, hub_id, config, parameter_count(family.model, config))


FOOTNOTE = "GiB: weights in bfloat16. KV: keys and values in bfloat16; layers with a window keep one window."
HEADINGS = ("model", "parameters", "GiB", "KV KiB/token", "KV MiB at 32k", "tokenizer", "gated", "licence")


def family_table() -> str:
    """All families as text, a block each, with the bundled checkpoint in its first line."""
    rows = [
        (
            size.hub_id,
            f"{size.parameters:,}",
            f"{size.weight_gib:.2f}",
            f"{size.cache_kib_per_token:g}",
            f"{size.cache_mib_at_32k:,.0f}",
            size.family.tokenizer,
            "yes" if size.family.gated else "no",
            size.family.licence,
        )
        for size in sizes()
    ]
    widths = [max(len(row[column]) for row in (HEADINGS, *rows)) for column in range(len(HEADINGS))]
    lines, waiting = [aligned(HEADINGS, widths)], iter(rows)
    for name, family in FAMILIES.items():
        bundled = f"; bundled and ready to run: {family.tiny}" if family.tiny else ""
        lines += ["", f"{name}: {family.title}{bundled}"]
        lines += [aligned(next(waiting), widths) for _ in family.presets]
    return "\n".join([*lines, "", FOOTNOTE])


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right."""
    numeric = range(1, 5)
    parts = [
        cell.rjust(width) if column in numeric else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip()
