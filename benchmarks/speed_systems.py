"""The systems that `benchmarks.speed` compares, all behind one small contract; and the ways to run this package.

A system opens sessions. A session is one text (or a batch of equally long ones) with its cache, and can be asked for
the logits of the last position. Everybody decodes with the same loop, the model called directly: no library pays for
the comforts of its own `generate`, neither its peers' nor this one.

Shape suffixes: B batch, T new tokens, V vocabulary.
"""

import contextlib
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_helpers import load_model
from course_helpers.errors import CourseWarning

OURS, TRANSFORMERS, SCRATCH = "course_helpers", "transformers", "llms-from-scratch"


class Session:
    """One text in the making. Subclasses say how their library continues it."""

    def logits(self, ids_BT: Tensor) -> Tensor:
        """(B, V): read T more tokens; what follows the last of them."""
        raise NotImplementedError

    def skip(self, positions: int) -> None:
        """Go on as if so many more tokens had been read: zeros take the place of their keys and values. A step takes
        as long after zeros as after anything else, and long texts need not be worked out first."""
        raise NotImplementedError

    def nbytes(self) -> int:
        """Bytes of the cache that are held in memory, whether in use or not."""
        raise NotImplementedError

    def step(self, ids_BT: Tensor) -> Tensor:
        """The likeliest next token of each row, (B, 1)."""
        return self.logits(ids_BT).argmax(dim=-1, keepdim=True)


@dataclass
class System:
    """One way to run one model. `session(rows, positions)` begins a text."""

    name: str
    who: str
    session: Callable[[int, int], Session]
    ready: Callable[[], None] = lambda: None  # called before its turn: several systems may share one loaded model
    exact: bool = True  # the weights are those of the file
    compiled: bool = False
    steps_only: bool = False  # it differs from others in steps of one token; how it reads a prompt is not measured
    note: str = ""


def medians(measure: dict) -> dict[str, float]:
    return {name: statistics.median(seconds) for name, seconds in measure["seconds"].items()}


def fastest_of_each(systems: Sequence[System], seconds: dict[str, float]) -> dict[str, System]:
    """The fastest system of each library, weights unchanged."""
    exact = sorted((one for one in systems if one.exact), key=lambda one: seconds[one.name], reverse=True)
    return {one.who: one for one in exact}


@dataclass
class Loaded:
    """Systems that share one model in memory, and how many seconds that took to load."""

    systems: list[System]
    seconds: float = 0.0


@dataclass
class Loader:
    """A model to load; `who` says by which library. Called with folder, dtype and device."""

    who: str
    load: Callable[[Path, torch.dtype, str], list[System]]
    covers: tuple[str, ...]  # the names of the systems that fall away where it cannot
    size: float = 1.0  # memory that it takes, in models

    def __call__(self, folder: Path, dtype: torch.dtype, device: str) -> Loaded:
        gc.collect()
        started = time.perf_counter()
        systems = self.load(folder, dtype, device)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        return Loaded(systems, time.perf_counter() - started)


def held(tensors: Iterator[Tensor]) -> int:
    """Bytes of the memory behind tensors, each piece once: a view keeps all of what it looks at."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@contextlib.contextmanager
def no_way_out() -> Iterator[None]:
    """A model that cannot be compiled warns and runs uncompiled; here, where that would be measured under the wrong
    name, the warning (CourseWarning) is raised instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CourseWarning)
        yield


class OurSession(Session):
    def __init__(self, model, rows: int, positions: int):
        self.model, self.cache = model, model.make_cache(rows, positions)

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.model(ids_BT, cache=self.cache, last_only=True)[:, -1]

    def skip(self, positions: int) -> None:
        self.cache.begin(positions, id(self.model))
        self.cache.advance(positions, None)

    def nbytes(self) -> int:
        return self.cache.nbytes


@dataclass(frozen=True)
class Way:
    """A way to load this package's models."""

    options: dict[str, object]
    note: str
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    devices: tuple[str, ...] = ("cpu", "cuda")
    exact: bool = True
    size: float = 1.0

    def possible(self, dtype: torch.dtype, device: str, compiled: bool) -> bool:
        asked = compiled or not self.options.get("compile")
        return asked and dtype in self.dtypes and device in self.devices


WAYS: dict[str, Way] = {
    "plain": Way({}, "as loaded by default"),
    # A tied head is laid out beside the embedding, which stays as it is.
    "packed": Way({"weights": "packed"}, "matrices joined, and on a CPU laid out for oneDNN", size=1.4),
    "int8": Way(
        {"weights": "int8"},
        "matrices rounded to 8 bits: not the same numbers",
        dtypes=(torch.bfloat16,),
        devices=("cpu",),
        exact=False,
    ),
    "compiled": Way({"compile": True}, "decode steps through torch.compile, cache of fixed size"),
}


def our_loader(name: str, way: Way) -> Loader:
    title = f"{OURS}, {name}"

    def load(folder: Path, dtype: torch.dtype, device: str) -> list[System]:
        try:
            with no_way_out():
                model = load_model(folder, dtype=dtype, device=device, **way.options)
        except CourseWarning as warning:
            raise LookupError(str(warning).splitlines()[0]) from warning
        session = lambda rows, positions: OurSession(model, rows, positions)  # noqa: E731
        compiled = dict.fromkeys(("compiled", "steps_only"), "compile" in way.options)
        return [System(title, OURS, session, exact=way.exact, note=way.note, **compiled)]

    return Loader(OURS, load, (title,), way.size)


def our_loaders(dtype: torch.dtype, device: str, compiled: bool) -> Iterator[Loader]:
    kind = torch.device(device).type
    for name, way in WAYS.items():
        if way.possible(dtype, kind, compiled):
            yield our_loader(name, way)
