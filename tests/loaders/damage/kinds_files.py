"""Damage to whole files: cut, emptied, replaced, or something else in their place."""

import os
from random import Random

import torch

from tests.loaders.damage.case import META, Case
from tests.loaders.damage.kind import (
    BYTES,
    EQUAL,
    FILES,
    FOLDERS,
    LEGACY,
    META_LEGACY,
    META_ZIPPED,
    PICKLES,
    SAFETENSORS,
    VERIFY,
    ZIPPED,
    Damage,
    Kind,
)


def some_file(case: Case, random: Random):
    return random.choice(case.weight_files())


def content(change) -> Damage:
    """Change the bytes of one weight file."""

    def damage(case: Case, random: Random) -> None:
        path = some_file(case, random)
        path.write_bytes(change(path.read_bytes(), random))

    return damage


def instead(make) -> Damage:
    """Put something else in a weight file's place."""

    def damage(case: Case, random: Random) -> None:
        path = some_file(case, random)
        path.unlink()
        make(path)

    return damage


def instead_of_config(make) -> Damage:
    def damage(case: Case, random: Random) -> None:
        case.config_file.unlink()
        make(case.config_file)

    return damage


def flipped(raw: bytes, place: int, random: Random) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1 << random.randrange(8)]) + raw[place + 1 :]


def flip_header(raw: bytes, random: Random) -> bytes:
    return flipped(raw, random.randrange(8 + int.from_bytes(raw[:8], "little")), random)


def flip_data(case: Case, random: Random) -> None:
    """One bit of the values of one tensor, whatever is around them in the file."""
    path = some_file(case, random)
    raw, tensors = path.read_bytes(), case.read(path)
    names = [name for name in tensors if tensors[name].numel() > 8 and name in case.shapes()]
    values = tensors[random.choice(names)].contiguous().view(torch.uint8).numpy().tobytes()
    start = raw.index(values)
    path.write_bytes(flipped(raw, start + random.randrange(len(values)), random))


def flip_pickle(raw: bytes, random: Random) -> bytes:
    """One bit of the program at the beginning of an old file; the values come after it."""
    return flipped(raw, random.randrange(raw.index(b"FloatStorage") + 400), random)


def flip_directory(raw: bytes, random: Random) -> bytes:
    """One bit of the table of contents at the end of a zip archive."""
    return flipped(raw, random.randrange(raw.rindex(b"PK\x01\x02") - 200, len(raw)), random)


def another_format(case: Case, random: Random) -> None:
    path = some_file(case, random)
    tensors = case.read(path)
    other = path.with_name("other" + (".pth" if path.suffix == ".safetensors" else ".safetensors"))
    case.write(other, tensors)
    other.replace(path)


GARBAGE = b"<html><body>404 Not Found</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1000\n"

KINDS = (
    Kind("an empty file", FILES, content(lambda raw, random: b"")),
    Kind(
        "a file cut anywhere", FILES, content(lambda raw, random: raw[: random.randrange(1, len(raw))]), positions=True
    ),
    Kind("a file without its last byte", FILES, content(lambda raw, random: raw[:-1])),
    Kind("a web page in a file's place", FILES, content(lambda raw, random: GARBAGE)),
    Kind("a pointer of git-lfs in a file's place", FILES, content(lambda raw, random: POINTER)),
    Kind("zeros in a file's place", FILES, content(lambda raw, random: bytes(len(raw)))),
    Kind("a file of another format under the name", FILES, another_format),
    Kind("a folder in a file's place", FILES, instead(os.mkdir), says="folder|recognised|not a|no file"),
    Kind("a pipe in a file's place", FILES, instead(os.mkfifo), says="a pipe"),
    Kind("a link to nothing in a file's place", FILES, instead(lambda path: path.symlink_to("nowhere"))),
    Kind("a link to itself in a file's place", FILES, instead(lambda path: path.symlink_to(path.name))),
    Kind("a folder in the config's place", FOLDERS + META, instead_of_config(os.mkdir), says="a folder"),
    Kind("a pipe in the config's place", FOLDERS + META, instead_of_config(os.mkfifo), says="a pipe"),
    Kind("bytes after the last tensor", SAFETENSORS, content(lambda raw, random: raw + b"\0" * random.randint(1, 99))),
    Kind(
        "bytes after the end of a pickle",
        PICKLES,
        content(lambda raw, random: raw + b"\0" * random.randint(1, 99)),
        EQUAL,
        harmless=True,
    ),
    Kind("bytes before the first", FILES, content(lambda raw, random: b"\0" * random.randint(1, 99) + raw)),
    Kind("a bit flipped in a header", SAFETENSORS, content(flip_header), harmless=True, positions=True),
    Kind("a bit flipped in a pickle", LEGACY + META_LEGACY, content(flip_pickle), harmless=True, positions=True),
    Kind(
        "a bit flipped in a zip archive's table",
        ZIPPED + META_ZIPPED,
        content(flip_directory),
        harmless=True,
        positions=True,
    ),
    Kind("a bit flipped in the values", SAFETENSORS + LEGACY, flip_data, BYTES, positions=True),
    Kind("a bit flipped in the values of a zip archive", ZIPPED + META_ZIPPED, flip_data, VERIFY, positions=True),
)
