"""What the validation stack makes of damage that fits: tried on the bundled checkpoints, which can write stories."""

import tempfile
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from course_helpers import FAMILIES, load_model, validate_checkpoint
from tests.bundled import FOLDERS, copy_of
from tests.loaders.damage.case import Case, Sound
from tests.loaders.damage.kind import Kind


class Trained(Case):
    """A copy of a bundled checkpoint, to be damaged like any other. Its card tells how likely texts are; no hashes."""

    def __init__(self, family: str, place: Path):
        self.family, self.format = family, "safetensors"
        self.folder = self.source = copy_of(FOLDERS[FAMILIES[family].tiny], place, listed=False)
        self.whole, self.config = Sound({}, load_model(self.folder)), None

    def another_run(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in self.shapes().items()}


def stopped_at(kind: Kind) -> str | None:
    """The layer of the validation stack that a kind of damage is stopped at, "none" if it passes them all; None where
    the kind is not about a single safetensors file, which is what the bundled checkpoints are."""
    single = [
        family for family in kind.families if len(list(FOLDERS[FAMILIES[family].tiny].glob("*.safetensors"))) == 1
    ]
    if "safetensors" not in kind.formats or not single:
        return None
    with tempfile.TemporaryDirectory() as place:
        case, random = Trained(single[0], Path(place)), Random(kind.name)
        kind.prepare(case, random)
        kind.damage(case, random)
        report = validate_checkpoint(case.folder)
    return report.failed or "none"
