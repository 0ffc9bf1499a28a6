"""Replacing a folder as a whole, so that whoever is killed at whatever moment leaves the old one or the new one.

A finished draft lies beside the target, every byte of it on the disk. Where the system can exchange two folders in one
step (Linux, macOS), that is the step. Elsewhere there are two: the old folder is moved aside, then the draft in. Killed
between the two, the target is missing and the old folder lies beside it: `recovered` finds it there, when it is asked
for next.

Names beside the target: `.NAME.HOST-PID-xxxx.draft` and `.NAME.HOST-PID-xxxx.old`; so it can be told whose they are.
"""

import contextlib
import ctypes
import errno
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..errors import CheckpointError

DRAFT, OLD = ".draft", ".old"
CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota on this disk is used up",
    errno.EFBIG: "the file is larger than this system or this user's limits allow",
    errno.EACCES: "no right to write here",
    errno.EPERM: "no right to write here",
    errno.EROFS: "the disk is mounted for reading only",
}


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write into. What is in it at the end of the `with` block takes the place of `folder`.

    If the block raises, or anything after it, `folder` is as it was, and the draft is gone. Drafts of processes that
    were killed are removed. Raises CheckpointError where the system does not let us write.
    """
    folder = folder.resolve()  # a link to a folder goes on pointing to it
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recovered(folder)
        remove_leftovers(folder)
        mine = f".{folder.name}.{host()}-{os.getpid()}-"
        draft = Path(tempfile.mkdtemp(prefix=mine, suffix=DRAFT, dir=folder.parent))
        yield draft
        publish(draft)
        flush(draft)
        put_in_place(draft, folder)
        with contextlib.suppress(OSError):  # done; that the names themselves are not yet on the disk undoes nothing
            flush_folder(folder.parent)
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, folder: Path) -> None:
    """The draft under the folder's name; what was there is afterwards under the draft's."""
    if not folder.exists():
        draft.rename(folder)
    elif not exchange(draft, folder):
        aside = draft.with_suffix(OLD)
        folder.rename(aside)
        try:
            draft.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step. False where the system or this disk cannot; then nothing is done.

    Linux: renameat2 with RENAME_EXCHANGE (since 3.15, man 2 rename). macOS: renamex_np with RENAME_SWAP (since 10.12).
    """
    here, names = -100, (os.fsencode(one), os.fsencode(other))  # AT_FDCWD
    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        failed = library.renameat2(here, names[0], here, names[1], ctypes.c_uint(2))
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, ctypes.c_uint(2))
    else:
        return False
    number = ctypes.get_errno() if failed else 0
    if number and number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(other))
    return not failed


def recovered(folder: Path) -> bool:
    """Whether a folder that is not there could be brought back: it was being replaced by a process that was killed."""
    if os.path.lexists(folder):
        return False
    for old in of_others(folder, OLD):
        with contextlib.suppress(OSError):  # somebody else was faster
            old.rename(folder)
            return True
    return False


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a folder. Only what stands in its own place is a checkpoint."""
    for left in [*of_others(folder, DRAFT), *of_others(folder, OLD)]:
        shutil.rmtree(left, ignore_errors=True)


def of_others(folder: Path, ending: str) -> list[Path]:
    """Folders with an ending beside a folder, made here by processes that are no longer running. What was made on
    another machine, which shares this disk, is left alone: nobody here can know whether its maker still runs."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.{host()}-(\d+)-[^.-]+{re.escape(ending)}")
    try:
        found = [(path, name.fullmatch(path.name)) for path in folder.parent.iterdir()]
    except OSError:
        return []
    return sorted(path for path, match in found if match and not runs(int(match[1]), path))


def runs(pid: int, made: Path) -> bool:
    """Whether the process that made a folder still runs. One that began long after is another with the same number."""
    try:
        process = psutil.Process(pid)
        since = process.create_time() if os.name == "posix" else 0.0
        return process.status() != psutil.STATUS_ZOMBIE and since < made.stat().st_ctime + 60
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):  # it is there, and may not be looked at
        return True


def host() -> str:
    """This machine's name, in a form that can stand in a file's name."""
    return re.sub("[^A-Za-z0-9]+", "_", platform.node())


def publish(folder: Path) -> None:
    """The usual access rights: temporary folders, and what safetensors writes, are private to their maker."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def flush(folder: Path) -> None:
    """Wait until everything in a folder is on the disk: a power failure must not find names without contents."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        flush_folder(path)


def flush_folder(folder: Path) -> None:
    """The same for the names in one folder. Windows has no such call, and writes them through."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        "the checkpoint could not be saved; what was there before is unchanged",
        file=folder,
        expected="a folder that can be written, on a disk with room for it",
        found=f"{type(error).__name__}: {error}",
        cause=CAUSES.get(error.errno, "a fault of the disk, or of the connection to it"),
        next_step="make room, or save somewhere else",
    )
