"""The bundled checkpoints, for tests that need trained models: one a family, and copies that can be damaged."""

import json
import shutil
from pathlib import Path

import pytest

from course_helpers import FAMILIES
from course_helpers.loaders.sources import BUNDLED

FOLDERS = {family.tiny: BUNDLED / family.tiny for family in FAMILIES.values()}
each = pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS.keys())


def copy_of(folder: Path, target: Path, listed: bool = True) -> Path:
    """A copy that a test may change. Without `listed`, its card lists no files, and later checks must object."""
    copy = Path(shutil.copytree(folder, target / folder.name))
    if not listed:
        card = json.loads((copy / "card.json").read_text())
        rest = {name: part for name, part in card.items() if name not in ("weights", "files")}
        (copy / "card.json").write_text(json.dumps(rest))
    return copy
