"""Reading what lies on disk without trusting it: ordinary files only, and JSON that can be understood in one way only.

Python's own `json` is lenient: of a name that stands twice it keeps the last, it takes NaN, and it guesses among five
encodings. Each of these lets two programs read two different checkpoints out of one file, so each is refused here.
Everything that this package reads as JSON (config.json, indexes, params.json, manifests, the header of a safetensors
file, the files of tokenizers) goes through `parse_object`.
"""

import json
import stat
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

#: JSON beyond this is no part of a checkpoint: the largest vocabularies and indexes have some tens of megabytes.
MAX_JSON_BYTES = 100_000_000


class NotStrictJson(ValueError):
    """Text that is no JSON object, or one that two readers may understand differently. `name`: where, if known."""

    def __init__(self, found: str, name: str | None = None):
        super().__init__(found)
        self.name = name


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in some bytes. Raises NotStrictJson for anything else, for text that is not UTF-8 or cannot be
    written as it again (half of a pair of surrogates), for a name that stands twice in one object, and for NaN and
    infinity, which JSON does not have."""
    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
        if b"\\u" in raw:
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except NotStrictJson:
        raise
    except (ValueError, RecursionError) as error:
        raise NotStrictJson(f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise NotStrictJson(type(content).__name__)
    return content


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated names: most readers would keep the last one and drop the rest in silence."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise NotStrictJson(f"the name {twice[:100]!r} twice", twice)
    return result


def no_constant(text: str) -> None:
    raise NotStrictJson(f"{text}, which is no number of JSON")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError if it is anything else."""
    size, name = ordinary_size(path), None
    try:
        if size > MAX_JSON_BYTES:
            raise NotStrictJson(f"{size} bytes")
        return parse_object(path.read_bytes())
    except NotStrictJson as error:
        found, name = str(error), error.name
    except OSError as error:
        found = f"{type(error).__name__}: {error.strerror}"
    raise CheckpointError(
        "the file is not a JSON object",
        file=path,
        field=name,
        expected="{...} in UTF-8, every name once",
        found=found,
        cause="a file that was edited by hand"
        if name
        else "an interrupted download, or a web page saved in the file's place",
        next_step="delete the file and download it again",
    )


def ordinary_size(path: Path) -> int:
    """Bytes in a file. Raises CheckpointError if it is not there, may not be looked at, or is not an ordinary file:
    opening a pipe waits for ever, and a device never ends."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb"):
                return status.st_size
        found = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        found = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    raise CheckpointError(
        "there is no file here that can be read",
        file=path,
        expected="an ordinary file",
        found=found,
        cause="an interrupted download, a link to something that is gone, or access rights of another user",
        next_step="put the file itself in this place",
    )


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
