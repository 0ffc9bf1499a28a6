"""Exercise 3 of M9-LAB-APP-B: a model is put into service, and the power may fail between any two lines.

No process is killed. While the learner's function runs, the disk is looked at between all its lines, and between the
files that are written: what is there at such a moment is what would be there after a power failure, since nothing of
the function would run any more, no `except` and no `finally` either.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .checkpoint import hint
from .exercises import called

CURRENT = "CURRENT"
#: The files of a model, in the order in which they are written; the first half of the weights comes by itself.
FILES = ("config.json", "model.safetensors", "tokenizer.json")
OLD, NEW = "v1", "v2"


class PowerFailure(Exception):
    """What the check's own `write` ends in, where it is to fail."""


def contents(name: str) -> dict[str, bytes]:
    """The files of a whole model."""
    return {file: f"{file} of {name}\n".encode() * 20 for file in FILES}


class Disk:
    """A folder with a served model in it, and what was seen wrong at any moment."""

    def __init__(self, home: Path):
        self.home, self.wrong, self.moments = home, "", 0
        for file, content in contents(OLD).items():
            (home / OLD).mkdir(exist_ok=True)
            (home / OLD / file).write_bytes(content)
        (home / CURRENT).write_text(OLD)
        self.inode = (home / CURRENT).stat().st_ino

    def look(self, where: str) -> None:
        """One moment at which the power may fail. The first wrong thing is kept."""
        self.moments += 1
        if not self.wrong and (problem := self.problem()):
            self.wrong = f"{where}: {problem}"

    def problem(self) -> str:
        """What would be wrong if everything stopped now; "" if nothing."""
        pointer = self.home / CURRENT
        if not pointer.is_file():
            return "CURRENT is not there, so nothing is served. Do not delete it: os.replace takes one step"
        name = pointer.read_text().strip()
        if name not in (OLD, NEW):
            return f"CURRENT names {name!r}, which is no model: it holds the bare name of the folder that is served"
        if not self.whole(name):
            return f"CURRENT names {name}, and {name} is not whole. Test first, publish last"
        if (self.home / NEW).exists() and not self.whole(NEW):
            return f"there is a folder {NEW} that is not whole. Write into a draft of another name, and rename it"
        return ""

    def whole(self, name: str) -> bool:
        folder = self.home / name
        found = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
        return found == contents(name)

    def listing(self) -> list[str]:
        return sorted(path.relative_to(self.home).as_posix() for path in self.home.rglob("*"))


class Writer:
    """Writes the new model, file by file; stops in the middle of the weights if it is to fail."""

    def __init__(self, disk: Disk, failing: bool):
        self.disk, self.failing, self.folder, self.inode = disk, failing, None, None

    def __call__(self, folder: Path) -> None:
        self.folder = Path(folder)
        hint(self.folder.exists(), f"{self.folder.name} is there already: write(folder) makes the folder itself")
        self.folder.mkdir()
        self.inode = self.folder.stat().st_ino
        for file, content in contents(NEW).items():
            (self.folder / file).write_bytes(content[: len(content) // 2])
            self.disk.look("while the model is written")
            if self.failing and file == FILES[1]:
                raise PowerFailure("the disk is full")
            (self.folder / file).write_bytes(content)


def watched(function: Callable, disk: Disk, *arguments: object) -> object:
    """Call a function and look at the disk before each line of it, and of whatever else its file defines."""
    home_file = function.__code__.co_filename

    def trace(frame, event, value):
        if frame.f_code.co_filename != home_file:
            return None
        if event == "line":
            disk.look(f"before line {frame.f_lineno - function.__code__.co_firstlineno + 1} of your function")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return called(function, *arguments)
    finally:
        sys.settrace(before)
        disk.look("at the end")


def check_put_into_service(put_into_service: Callable[[Path, str, Callable, Callable], bool]) -> None:
    """Exercise 3: a good model, one without a go, and one whose writing fails; looked at between all lines."""
    for case in ("fails", "no go", "go"):
        with tempfile.TemporaryDirectory() as folder:
            check_one_case(put_into_service, case, Disk(Path(folder)))
    print("Exercise 3: right. Before whatever line the power fails, a whole model is served.")


def check_one_case(put_into_service: Callable, case: str, disk: Disk) -> None:
    write, asked = Writer(disk, failing=case == "fails"), []

    def passes(folder: Path) -> bool:
        found = Path(folder)
        hint(found != write.folder and found != disk.home / NEW, f"`passes` got {found.name}, which was not written")
        asked.append(found)
        disk.look("while the model is tested")
        return case != "no go"

    before, raised = disk.listing(), False
    result: object = None
    try:
        result = watched(put_into_service, disk, disk.home, NEW, write, passes)
    except PowerFailure:
        raised = True
    hint(bool(disk.wrong), disk.wrong)
    hint(
        write.folder is None,
        "nothing was written: call write(folder), with the path of a folder that is not there yet",
    )
    after = disk.listing()
    left = [name for name in after if name not in before]
    if case == "fails":
        hint(not raised, "writing failed, and the caller was not told: let the error go on, after tidying up")
        hint(after != before, f"writing failed, and {left[:1]} was left behind: tidy up in a `finally`")
        return
    hint(not asked, "the model was published without a test: call passes(folder) first, on what was written")
    hint(result is None, f"{put_into_service.__name__} returned nothing: is there a return statement?")
    if case == "no go":
        hint(after != before, f"there was no go, and {left[:1]} was left behind: the disk must look as before")
        hint(result is not False, f"there was no go, so return False; you returned {result!r}")
        return
    check_served(result, disk, write.inode)


def check_served(result: object, disk: Disk, inode: int) -> None:
    """Hint unless the new model is in service, put there in one step, with the earlier one still beside it."""
    pointer = disk.home / CURRENT
    hint(result is not True, f"there was a go, so return True; you returned {result!r}")
    hint(pointer.read_text().strip() != NEW, f"there was a go, and CURRENT still names {OLD}")
    hint(
        pointer.stat().st_ino == disk.inode,
        "CURRENT was written over: for a moment it was empty, and nothing was served. Write the name into a file "
        "beside it, then os.replace(that file, CURRENT)",
    )
    hint(
        (disk.home / NEW).stat().st_ino != inode,
        f"{NEW} is a copy of what you wrote, and a copy is made file by file: for a moment it was not whole. A folder "
        "gets another name in one step: folder.rename(new)",
    )
    hint(not disk.whole(OLD), f"{OLD} is damaged or gone: keep it, it is what you would go back to")
    extra = sorted({path.name for path in disk.home.iterdir()} - {CURRENT, OLD, NEW})
    hint(bool(extra), f"{extra[:1]} was left behind: tidy up")
