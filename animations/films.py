"""Which films there are. Their files have the names that the deck demands, with hyphens: they are loaded by path."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .film import Film

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """A film on the list: its file (without .py), and the class in it."""

    stem: str
    scene: str

    @property
    def path(self) -> Path:
        """The storyboard."""
        return FOLDER / f"{self.stem}.py"


FILMS = {
    "loading": Entry("hour17-weight-loading-pipeline-animation", "WeightLoadingPipeline"),
    "swap": Entry("hour18-variant-family-swap-animation", "VariantFamilySwap"),
}


def load_film(name: str) -> type["Film"]:
    """The class of a film."""
    entry = FILMS[name]
    module_name = f"animations.{entry.stem.replace('-', '_')}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, entry.path)
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return getattr(sys.modules[module_name], entry.scene)
