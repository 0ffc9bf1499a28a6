"""What the validation stack makes of damage that fits: tried on the bundled checkpoints, which can write stories."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from course_helpers import FAMILIES, load_model, load_tokenizer, validate_checkpoint
from course_helpers.loaders.manifest_files import MANIFEST
from course_helpers.validation import greedy_text
from tests.bundled import FOLDERS
from tests.loaders.damage.case import Case, Sound
from tests.loaders.damage.kind import Kind

PROMPT, NEW_TOKENS = "Once upon a time", 60


class Trained(Case):
    """A copy of a bundled checkpoint, to be damaged like any other. Its card says what it writes, and no hashes."""

    def __init__(self, family: str, folder: Path):
        self.family, self.format, self.folder = family, "safetensors", folder
        shutil.copytree(FOLDERS[FAMILIES[family].tiny], folder, dirs_exist_ok=True)
        self.whole = Sound({}, load_model(folder))
        self.source, self.config = folder, None
        sample = {"prompt": PROMPT, "max_new_tokens": NEW_TOKENS, "text": written(family)}
        (folder / MANIFEST).write_text(json.dumps({"greedy": [sample]}))

    def another_run(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in self.shapes().items()}


@functools.cache
def written(family: str) -> str:
    """How a bundled checkpoint goes on from the prompt."""
    folder = FOLDERS[FAMILIES[family].tiny]
    return greedy_text(load_model(folder, dtype=torch.float32), load_tokenizer(folder), PROMPT, NEW_TOKENS)


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
    return "none" if report.ok else report.checks[-1].name
