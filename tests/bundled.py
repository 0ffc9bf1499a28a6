"""The bundled checkpoints, for tests that need trained models: one a family, and copies that can be damaged."""

import shutil
from pathlib import Path

import pytest

from course_helpers import FAMILIES
from course_helpers.loaders.sources import BUNDLED

FOLDERS = {family.tiny: BUNDLED / family.tiny for family in FAMILIES.values()}
each = pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS.keys())


def copy_of(folder: Path, target: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, target / folder.name))
