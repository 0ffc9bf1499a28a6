"""The manifest beside a checkpoint: what its files were when it was made, so that a later change shows.

A file can be sound in every respect and still be the wrong one: two layers exchanged, another run's shard, an epsilon
edited in config.json. No look at the file tells. `card.json`, which comes with every bundled checkpoint, lists sizes
and SHA-256 in two sections of one form, NAME -> {"bytes": ..., "sha256": ...}: "weights", and "files" for config.json
and the tokenizer.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import CheckpointError, raise_all
from .disk import ordinary_size, read_json

MANIFEST = "card.json"
LARGE, SMALL = "weights", "files"  # the sections; hashes of large files are compared on request only
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Listed:
    """One file as a manifest describes it."""

    path: Path
    nbytes: int
    sha256: str
    large: bool


@dataclass(frozen=True)
class Manifest:
    """The files that the manifest of a folder lists."""

    path: Path
    listed: tuple[Listed, ...]

    def check(self, every_byte: bool = False) -> None:
        """Hold the files to the manifest: all sizes, and the hashes of small files; those of weights with
        `every_byte`. Raises CheckpointError, with every file that is not the one described."""
        raise_all(problem for file in self.listed for problem in self.problems(file, every_byte or not file.large))

    def problems(self, file: Listed, every_byte: bool) -> Iterator[CheckpointError]:
        if not file.path.exists():
            yield self.another(file, "the file", "no such file")
        elif (size := ordinary_size(file.path)) != file.nbytes:
            yield self.another(file, f"{file.nbytes} bytes", f"{size} bytes")
        elif every_byte and (found := sha256(file.path)) != file.sha256:
            yield self.another(file, f"SHA-256 {file.sha256}", f"SHA-256 {found}")

    def another(self, file: Listed, expected: str, found: str) -> CheckpointError:
        name = file.path.relative_to(self.path.parent).as_posix()
        return CheckpointError(
            f"{name} is not the file that its manifest describes",
            file=file.path,
            field=f"{LARGE if file.large else SMALL}.{name} of {MANIFEST}",
            expected=expected,
            found=found,
            cause="a file of another checkpoint in its place, damage, or a change by hand",
            next_step=f"take all files from the same place; if the change is meant, take {MANIFEST} away",
        )

    def check_known(self, paths: Iterable[Path]) -> None:
        """Refuse weight files that a manifest with weights does not list: nobody vouches for them."""
        known = {file.path.resolve() for file in self.listed if file.large}
        for path in paths if known else ():
            if path.resolve() not in known:
                raise CheckpointError(
                    "the weights come from a file that the manifest does not list",
                    file=path,
                    field=f"{LARGE} of {MANIFEST}",
                    expected=", ".join(file.path.name for file in self.listed if file.large),
                    found=path.name,
                    cause="a file of another checkpoint in the folder",
                    next_step=f"take it away, or take {MANIFEST} away if it is meant",
                )


def manifest_beside(folder: Path) -> Manifest | None:
    """The manifest in a folder; None where there is none, or one that lists no files. Raises CheckpointError if it
    cannot be understood."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    content = read_json(path)
    sections = {name: content[name] for name in (LARGE, SMALL) if name in content}
    listed = tuple(entry for section, files in sections.items() for entry in entries(path, section, files))
    return Manifest(path, listed) if listed else None


def entries(manifest: Path, section: str, files: object) -> Iterator[Listed]:
    """The files of one section. Raises CheckpointError for what is no list of files inside the folder."""
    if not isinstance(files, dict):
        raise not_understood(manifest, section, "file name -> its size and hash", files)
    for name, row in files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or "\\" in name or ":" in name or "\0" in name or name.startswith("/"):
            raise not_understood(manifest, section, "names of files in this folder", name)
        size, digest = (row.get("bytes"), row.get("sha256")) if isinstance(row, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise not_understood(manifest, f"{section}.{name}", '{"bytes": ..., "sha256": ...}', row)
        yield Listed(manifest.parent / name, size, digest, section == LARGE)


def not_understood(manifest: Path, field: str, expected: str, found: object) -> CheckpointError:
    return CheckpointError(
        "the manifest cannot be understood",
        file=manifest,
        field=field,
        expected=expected,
        found=repr(found)[:200],
        cause="a file that was edited by hand, or one of another kind under the manifest's name",
        next_step="take the manifest from where the weights came from, or take it away",
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
