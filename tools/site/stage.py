"""The pages of the site before MkDocs sees them, and the one place that knows where a file of the repository went."""

import posixpath
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]

#: Documents with a place of their own; whatever else is linked becomes a page below source/.
PAGES = {
    "README.md": "readme.html",
    "CONTRIBUTING.md": "contributing.html",
    "runbook.md": "runbook.html",
    "environments.md": "environments.html",
    "slides/README.md": "present.html",
    "notebooks": "labs/index.html",
}
RAW, KEPT = re.compile(r"<!--raw-->(.*?)<!--/raw-->", re.DOTALL), re.compile(r'<div data-block="(\d+)"></div>')
RESULTS = "benchmarks/results"
MEDIA = {".png", ".gif", ".mp4", ".svg", ".vtt", ".pdf", ".pptx"}


def lab_page(lab: str) -> str:
    """The page of a lab, by its id."""
    return f"labs/{lab.lower()}.html"


@dataclass
class Stage:
    """A folder of pages in the making. Pages are named by their place in the site, files by that in the repository."""

    folder: Path
    root: Path = ROOT
    labs: dict[str, str] = field(default_factory=dict)  # file name without ending -> lab id
    linked: list[str] = field(default_factory=list)  # files that a page links to and that still need a page
    missing: list[str] = field(default_factory=list)  # what was linked and is not there
    blocks: list[str] = field(default_factory=list)  # HTML that was kept aside, see markdown.raw

    def page(self, place: str, text: str, **front: object) -> None:
        """Write a page; `front` is its front matter."""
        lines = [f"{name}: {value}" for name, value in front.items()]
        head = "---\n" + "\n".join(lines) + "\n---\n\n" if lines else ""
        text = RAW.sub(self._kept, text)
        self._target(place).with_suffix(".md").write_text(head + text, encoding="utf-8")

    def _kept(self, found: re.Match) -> str:
        self.blocks.append(found[1])
        return f'<div data-block="{len(self.blocks) - 1}"></div>'

    def whole(self, content: str) -> str:
        """A page's HTML with what was kept aside."""
        return KEPT.sub(lambda found: self.blocks[int(found[1])], content)

    def write(self, place: str, content: bytes | str) -> None:
        """Write a file that is not a page."""
        self._target(place).write_bytes(content if isinstance(content, bytes) else content.encode())

    def copy(self, source: Path, place: str) -> str:
        """Copy a file into the site; returns its place."""
        target = self._target(place)
        if not target.exists():
            shutil.copyfile(source, target)
        return place

    def _target(self, place: str) -> Path:
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def link(self, page: str, document: str, target: str) -> str | None:
        """What a page has to write to reach what its `document` links to; None if that is nowhere."""
        if "://" in target or target.startswith(("#", "mailto:")):
            return target
        path, _, anchor = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
        place = self._place(name)
        if place is None:
            self.missing.append(f"{document}: {target}")
            return None
        return href(page, place) + (f"#{anchor}" if anchor else "")

    def measured(self) -> list[str]:
        """The tables of measurements: each gets a page among the results."""
        return sorted(path.relative_to(self.root).as_posix() for path in (self.root / RESULTS).glob("*.md"))

    def _place(self, name: str) -> str | None:
        stem = PurePosixPath(name).stem
        if name in PAGES:
            return PAGES[name]
        if name in self.measured():
            return result_page(name)
        if name.startswith("notebooks/") and stem in self.labs:
            return lab_page(self.labs[stem])
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()) or not path.exists():
            return None
        if path.suffix in MEDIA:
            return self.copy(path, f"files/{name}")
        if name not in self.linked:
            self.linked.append(name)
        return source_page(name)


def result_page(name: str) -> str:
    """The page of a table of measurements."""
    return f"results/{PurePosixPath(name).stem}.html"


def source_page(name: str) -> str:
    """The page that shows a file or a folder of the repository; MkDocs leaves out what begins with a dot."""
    return f"source/{name.replace('/.', '/').removeprefix('.')}.html"


def href(page: str, place: str) -> str:
    """The way from one page to another place of the site."""
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
