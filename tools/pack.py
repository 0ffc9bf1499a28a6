"""`python -m tools.pack FOLDER`: everything for class in one folder. What is not built yet is named, with its command.

Files are gathered in a folder beside the target and moved there when all is done, so the target is a whole pack or the
old one. A pack that was interrupted goes on: files that are there already are not written again.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_helpers.labs.copies import without_solutions
from course_helpers.labs.order import find_labs
from course_helpers.labs.pair import read_notebook, serialised
from course_helpers.labs.records import whole
from slides import films
from slides.deck import DeckError, read_deck

from . import paper, teaching

ROOT = Path(__file__).parents[1]
DECK = ("module9.html", "module9.pdf", "module9-notes.pdf", "module9.pptx")
START = "START-HERE.html"
#: Documents of the repository -> their pages in the pack.
PAGES = {"runbook.md": "runbook.html", "slides/README.md": "how-to-present.html"}
LIST = "pack.json"  # written last: what is in the folder, with sizes and hashes


@dataclass
class Pack:
    """The folder in the making, the files that belong to it, and what could not be had."""

    folder: Path
    files: dict[str, str] = field(default_factory=dict)  # place -> sha256
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is there, and could be better

    def write(self, place: str, content: bytes | str) -> None:
        """A file from its content, whole or not at all; one that is there already stays."""
        content = content if isinstance(content, bytes) else content.encode()
        target = self.folder / place
        self.files[place] = hashlib.sha256(content).hexdigest()
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == self.files[place]:
            return
        with whole(target) as temporary:
            temporary.write_bytes(content)

    def copy(self, source: Path, place: str, command: str) -> None:
        """A file of the repository; where it is not there, `command` is what makes it."""
        if source.is_file():
            self.write(place, source.read_bytes())
        else:
            self.missing.append(f"{place}. Next step: {command}")

    def tidy(self) -> None:
        """Remove what no longer belongs: left over from an interrupted pack of another version."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir() if not any(path.iterdir()) else None
            elif path.relative_to(self.folder).as_posix() not in self.files:
                path.unlink()


def build(target: Path) -> list[str]:
    """Make the pack. Returns what is missing; raises FileExistsError where the target is no pack."""
    target = target.resolve()
    if target.exists() and any(target.iterdir()) and not (target / LIST).is_file():
        raise FileExistsError(f"{target} holds something that is not a pack. Next step: name another folder.")
    pack = Pack(target.with_name(f".{target.name}.part"))
    for part in (add_deck, add_films, add_labs, add_plans, add_offline):
        part(pack)
    pack.write(START, paper.page(_start(pack), places={place: place for place in pack.files}))
    listed = {place: {"sha256": digest} for place, digest in sorted(pack.files.items())}
    pack.write(LIST, json.dumps({"files": listed, "missing": pack.missing}, indent=1) + "\n")
    pack.tidy()
    if target.exists():
        shutil.rmtree(target)
    os.replace(pack.folder, target)
    return pack.missing


def add_deck(pack: Pack) -> None:
    """Page, PDF, handout and PowerPoint, as built."""
    for name in DECK:
        pack.copy(ROOT / "slides" / "build" / name, f"deck/{name}", "make slides")


def add_films(pack: Pack) -> None:
    """Both films with poster, captions and transcript."""
    for slide in read_deck():
        if slide.kind != "animation":
            continue
        asset = slide.sections["Animation Asset"].strip("`")
        try:
            found = films.find(asset)
        except FileNotFoundError:
            pack.missing.append(f"films/{Path(asset).stem}.mp4. Next step: make animations")
            continue
        for path in (found.video, found.poster, found.captions):
            pack.write(f"films/{path.name}", path.read_bytes())
        transcript = found.video.with_name(f"{found.video.stem}-transcript.md")
        pack.copy(transcript, f"films/{transcript.name}", "make animations")
        if found.video.parent == films.PREVIEWS:
            pack.notes.append(f"`films/{found.video.name}` is a preview of 720p. For 1080p: `make animations`")


def add_labs(pack: Pack) -> None:
    """Learners' copies, and the executed notebooks apart from them."""
    for lab in find_labs():
        pack.write(f"learners/{lab.notebook.name}", serialised(without_solutions(read_notebook(lab))))
        pack.write(f"solutions/{lab.notebook.name}", lab.notebook.read_bytes())


def add_plans(pack: Pack) -> None:
    """What is read on paper: timing, questions, runbook."""
    slides = read_deck()
    pack.write("timing-plan.html", paper.page(teaching.timing_plan(slides)))
    pack.write("questions-with-answers.html", paper.page(teaching.question_bank(slides)))
    for name, place in PAGES.items():
        pack.write(place, paper.page((ROOT / name).read_text(encoding="utf-8"), name, PAGES))


def add_offline(pack: Pack) -> None:
    """For rooms without a network: the course as it is committed, the list of packages, and the script for both."""
    made = subprocess.run(["git", "-C", str(ROOT), "archive", "--format=zip", "HEAD"], capture_output=True, check=False)
    if made.returncode == 0:
        pack.write("offline/course.zip", made.stdout)
    else:
        pack.missing.append("offline/course.zip. Next step: pack from a clone of the repository (git archive failed)")
    kind = f"{platform.system()}, {platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
    pack.write("offline/wheels.txt", f"# For {kind}: every package the labs need.\n" + "\n".join(wheels()) + "\n")
    pack.copy(ROOT / "tools" / "offline.py", "offline/offline.py", "git checkout tools/offline.py")


def wheels() -> list[str]:
    """What requirements.txt needs on a machine like this, and what that needs, at the versions of constraints.txt."""
    seen: set[tuple[str, frozenset[str]]] = set()
    for line in [*_lines(ROOT / "requirements.txt"), "setuptools"]:  # setuptools builds the course's own package
        _add_closure(Requirement(line), seen)
    needed = {name for name, _ in seen}
    return [pin for pin in _lines(ROOT / "constraints.txt") if canonicalize_name(pin.split("==")[0]) in needed]


def _lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _add_closure(requirement: Requirement, seen: set[tuple[str, frozenset[str]]]) -> None:
    entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
    if entry in seen:
        return
    seen.add(entry)
    try:
        needs = metadata.requires(entry[0]) or []
    except metadata.PackageNotFoundError:
        needs = []
    for need in map(Requirement, needs):
        if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}):
            _add_closure(need, seen)


WELCOME = """\
# Module 9 for class

| Open | It is |
|---|---|
| [deck/module9.html](deck/module9.html) | the slides: S for the speaker view, F for full screen; no network needed |
| `deck/` | the same as PDF, as a handout with notes, as editable PowerPoint |
| `films/` | both films, with captions and transcripts; the slides hold them, too |
| [timing-plan.html](timing-plan.html) | the two hours by the clock: what to have open, what to show, how long it runs |
| [questions-with-answers.html](questions-with-answers.html) | what to ask, from slides and labs, every answer folded |
| [how-to-present.html](how-to-present.html) | keys, speaker view, rehearsing, editing |
| `learners/` | the labs to hand out: no solutions, no outputs |
| `solutions/` | the labs as executed, with solutions: keep these |
| [runbook.html](runbook.html) | the order of the labs, what to do the day before, and what to do when a lab fails |
| `offline/` | for rooms without a network: see below |

The labs import the course's package: a learner needs a copy of the repository (or `offline/course.zip`), set up by
`make run`, or as its README says for Windows and others. The labs of `learners/` then go into its folder `notebooks/`.

## A room without a network

1. Where there is a network, in `offline/`: `python offline.py download`. It goes on where it was interrupted.
   The list is for machines of the kind that its first line names; for others, make this pack on one of them.
2. Carry the folder into the room, unpack `offline/course.zip` there, say into `module9/` beside `offline/`.
3. In `offline/`: `python offline.py install ../module9`. Nothing is fetched.
4. In `module9/`: `.venv/bin/python -m course_helpers.labs run M9-LAB-01`, then
   `.venv/bin/python -m jupyterlab notebooks` (`.venv\\Scripts\\python` on Windows). For learners, copy
   `learners/` over `notebooks/` first.

The models come with the course: no lab needs a model hub.
"""


def _start(pack: Pack) -> str:
    parts = [WELCOME]
    if pack.missing:
        parts += ["\n## Not in this pack\n", *(f"- {line}" for line in pack.missing)]
    if pack.notes:
        parts += ["\n## Good to know\n", *(f"- {line}" for line in pack.notes)]
    return "\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """0: a whole pack; 1: something is missing, and named."""
    parser = argparse.ArgumentParser(prog="python -m tools.pack", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        missing = build(chosen.folder)
    except (FileExistsError, DeckError) as error:
        print(error, file=sys.stderr)
        return 1
    for line in missing:
        print(f"not in the pack: {line}", file=sys.stderr)
    print(f"{chosen.folder}: begin with {START}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
