"""What a run manifest holds, how it is written, and how strictly it is read.

The JSON has the fields below, in this order, no more and no fewer. Nothing in it is a path of the machine that made it:
files go by their names within the checkpoint's folder. That is also why the config is pinned by a digest and is not
written out: files of others carry the paths of their authors.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..dtypes import DTYPES
from ..labs.records import write_json
from ..loaders.disk import read_json
from ..loaders.manifest_files import SHA256, entries, not_understood

SCHEMA = 1
PARTS = ("weights", "config", "tokenizer")  # that files play
KINDS = ("bundled", "hub", "folder")  # of places where checkpoints are
MOST_THREADS = 4096


@dataclass(frozen=True)
class Pin:
    """One file, in the form that card.json has, too."""

    bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.bytes} bytes, SHA-256 {self.sha256}"


@dataclass(frozen=True)
class Source:
    """Where the checkpoint was found."""

    kind: str  # one of KINDS
    name: str  # the bundled name, the hub id, or the folder's own name, which does not say where the folder is
    revision: str | None  # the commit of a hub model
    weights: str | None  # the weight file or index, where that was named and not the folder


@dataclass(frozen=True)
class TokenizerPin:
    """A tokenizer by its files and by what it does: another version of a library can make other ids of one file."""

    kind: str
    sha256: str  # of its files' hashes, its ids for `pins.PROBE`, and how it begins and ends texts
    probe_ids: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """All that a run depends on beside files and prompts. Sums depend on the number of threads."""

    dtype: str
    device: str
    threads: int
    seed: int  # of every prompt anew
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    stop_ids: tuple[int, ...]
    use_cache: bool


@dataclass(frozen=True)
class Closest:
    """Where greedy decoding came closest to another text: the step, from 0, at which the two largest logits were least
    far apart, and how far. Found by one pass without a cache."""

    step: int
    margin: float


@dataclass(frozen=True)
class Result:
    """One prompt and what became of it; `text` is of both together."""

    prompt: str
    prompt_ids: tuple[int, ...]
    new_ids: tuple[int, ...]
    text: str
    closest: Closest | None  # None where tokens were drawn by chance, or none was made


@dataclass(frozen=True)
class RunManifest:
    """A run, pinned: what it read, how it was done, what came out. `manifest.verify` does it again and compares."""

    schema: int
    reason: str  # why this model and these settings, in words
    source: Source
    files: dict[str, dict[str, Pin]]  # "weights", "config", "tokenizer" -> name within the folder -> the file
    config_sha256: str  # of the config as this package understands it, see `pins.config_digest`
    tokenizer: TokenizerPin
    versions: dict[str, str]
    settings: Settings
    results: tuple[Result, ...]
    validation: dict[str, bool]  # the layers of validate_checkpoint that were reached; empty where it was left out
    telemetry: dict[str, Any]  # date, machine, seconds, memory: never compared

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all; return the path."""
        path = Path(path)
        write_json(path, dataclasses.asdict(self))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read it back. Raises CheckpointError for a file that is not JSON, for another schema, for a field that is
        missing, unknown or of a wrong type, and for names and hashes that cannot be such."""
        path = Path(path)
        content = read_json(path)
        if type(content.get("schema")) is not int or content["schema"] != SCHEMA:
            raise not_understood(path, "schema", f"{SCHEMA}, the one that this version reads", content.get("schema"))
        manifest = read(cls, content, path)
        for part, files in content["files"].items():
            tuple(entries(path, f"files.{part}", files))
        for field, expected, found in manifest.doubts():
            raise not_understood(path, field, str(expected), found)
        return manifest

    def doubts(self) -> Iterator[tuple[str, object, object]]:
        """Values of the right type that cannot be right all the same: field, what would be, what there is."""
        weights, files = self.files.get("weights", {}), sorted(self.files)
        choices = {
            "files": ([sorted(PARTS)], files),
            "source.kind": (KINDS, self.source.kind),
            "source.weights": ((None, *weights), self.source.weights),
            "settings.dtype": (tuple(DTYPES), self.settings.dtype),
            "settings.threads": (range(1, MOST_THREADS), self.settings.threads),
        }
        digests = {"config_sha256": self.config_sha256, "tokenizer.sha256": self.tokenizer.sha256}
        yield from ((field, known, found) for field, (known, found) in choices.items() if found not in known)
        yield from ((field, "64 hex digits", found) for field, found in digests.items() if not SHA256.fullmatch(found))


def read(kind: Any, value: Any, file: Path, place: str = "") -> Any:
    """A value of JSON as the type that a field is declared with. Raises CheckpointError if it is of any other."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        fields = typing.get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != fields.keys():
            different = sorted(value.keys() ^ fields.keys()) if isinstance(value, dict) else [repr(value)]
            expected = f"the fields {', '.join(fields)}"
            raise not_understood(file, place or "the manifest", expected, f"not so: {', '.join(different)}")
        places = {name: f"{place}.{name}" if place else name for name in fields}
        return kind(**{name: read(hint, value[name], file, places[name]) for name, hint in fields.items()})
    if origin is types.UnionType:  # something or nothing
        return None if value is None else read(inner[0], value, file, place)
    if origin is tuple and isinstance(value, list):
        return tuple(read(inner[0], item, file, f"{place}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: read(inner[1], item, file, f"{place}.{name}") for name, item in value.items()}
    if kind is not Any and type(value) is not kind:
        raise not_understood(file, place, getattr(kind, "__name__", str(kind)), value)
    return value
