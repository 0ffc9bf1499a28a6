"""What a kind of damage is, and what must happen to it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from course_helpers import FAMILIES
from tests.loaders.damage.case import META, Case

Damage = Callable[[Case, Random], object]

#: Who notices, from the first to the last. Every load refuses what comes first. With `verify=True`, every byte is
#: looked at. A manifest is compared by every load (small files by hash, weights by size), and by hash with `verify`.
EQUAL, REFUSED, VERIFY, MANIFEST, BYTES = "equal", "refused", "verify", "manifest", "manifest and verify"
STAGES = (REFUSED, VERIFY, MANIFEST, BYTES)

SAFETENSORS = ("safetensors", "safetensors, sharded")
ZIPPED, LEGACY = ("bin", "bin, sharded", "pth"), ("bin, legacy", "bin, sharded, legacy")
META_ZIPPED = tuple(name for name in META if "legacy" not in name)
META_LEGACY = tuple(name for name in META if "legacy" in name)
META_PARTS = tuple(name for name in META if "2 files" in name)
PICKLES = ZIPPED + LEGACY + META
FOLDERS = tuple(name for name in SAFETENSORS + ZIPPED + LEGACY if name != "pth")  # those with a config.json
SHARDED = tuple(name for name in FOLDERS if "sharded" in name)
FILES = SAFETENSORS + PICKLES
TENSORS = (*FILES, "own state dict")
EVERYWHERE = (*TENSORS, "live")
ALL = tuple(FAMILIES)
ROTARY = tuple(family for family in ALL if family != "gpt2")


def nothing(case: Case, random: Random) -> None:
    """Leave the sound checkpoint as it is."""


@dataclass(frozen=True)
class Kind:
    """One way in which a checkpoint can be wrong."""

    name: str
    formats: tuple[str, ...]
    damage: Damage
    must: str = REFUSED  # who notices it, at the latest
    says: str = ""  # words of the message
    families: tuple[str, ...] = ALL
    harmless: bool = False  # whether it may also leave everything equal, to the bit
    prepare: Damage = nothing  # what makes the sound checkpoint that is damaged
    positions: bool = False  # whether chance decides where: then more than one place is tried

    def families_in(self, format: str) -> tuple[str, ...]:
        return ("llama2",) if format in META else self.families
