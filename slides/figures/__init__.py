"""The deck's pictures: one function a slide, found by the name that the slide's front matter gives.

A module says what it draws by decorating: `@figure` puts the function in `FIGURES` under its own name. Modules are
imported by `load`, so a new one needs no registration.
"""

import importlib
import pkgutil
from collections.abc import Callable

from .svg import Drawing

#: name -> function that draws on a Drawing of the slide's size
FIGURES: dict[str, Callable[[Drawing], None]] = {}


def figure(draw: Callable[[Drawing], None]) -> Callable[[Drawing], None]:
    """Registers a drawing function under its name. Raises ValueError where the name is taken."""
    name = draw.__name__
    taken = FIGURES.get(name)
    if taken is not None and taken.__module__ != draw.__module__:
        raise ValueError(f"two figures are called {name}: in {taken.__module__} and {draw.__module__}")
    FIGURES[name] = draw
    return draw


def load() -> dict[str, Callable[[Drawing], None]]:
    """All figures of this package, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return FIGURES
