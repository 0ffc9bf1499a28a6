"""``publish``: what readers of the public repository click on, copies for Colab and Kaggle, and the badges for it.

Where the repository is published is said once, in ``[tool.course]`` of pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_helpers.labs.copies import write_copies
from course_helpers.labs.order import Lab, LabError
from course_helpers.labs.pair import relative
from course_helpers.labs.records import write_text

PLACEHOLDER = "OWNER/NAME"
#: The copies that the badges open; unlike other copies they are committed.
FOLDER = "published"
BADGES = ".github/badges"
HEAD, RULE, COLUMN = "| Lab | What you do | Before it | Time |", "|---|---|---|---|", " Open in |"
ROW = re.compile(r"^\| \[[\w-]+\]\(notebooks/(?P<file>[^)]+)\) \|")
BADGE_CELL = re.compile(r" \[!\[Colab\].* \|$")
#: Site -> what its address puts before the place of a file on GitHub.
SITES = {
    "Colab": "https://colab.research.google.com/github/{repository}/blob/{tag}/{path}",
    "Kaggle": "https://kaggle.com/kernels/welcome?src=https://github.com/{repository}/blob/{tag}/{path}",
}


@dataclass(frozen=True)
class Publication:
    """Where the course is published: ``owner/name`` on GitHub, and the tag that readers get."""

    repository: str
    tag: str

    @property
    def address(self) -> str:
        """What git clones."""
        return f"https://github.com/{self.repository}"

    def link(self, site: str, file: str) -> str:
        """The address that opens a published copy."""
        return SITES[site].format(repository=self.repository, tag=self.tag, path=f"{FOLDER}/{file}")


def read_publication(root: Path) -> Publication:
    """What ``root/pyproject.toml`` says; raises LabError while it holds the placeholder, or something unusable."""
    path = root / "pyproject.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("course", {})
    repository, tag = str(settings.get("repository", PLACEHOLDER)), str(settings.get("tag", ""))
    problem = None
    if repository == PLACEHOLDER:
        problem = f"repository is still the placeholder {PLACEHOLDER}"
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        problem = f"repository is {repository!r}, not owner/name as on GitHub"
    elif not re.fullmatch(r"[\w.-]+", tag):
        problem = f"tag is {tag!r}, not the name of a tag"
    if problem:
        raise LabError(
            f"{relative(path)}: [tool.course] {problem}. Nothing was written.\n"
            "  Likely cause: the course has not been published yet.\n"
            "  Next step: write there where it is (repository and tag), then: make publish."
        )
    return Publication(repository, tag)


def with_badges(readme: str, publication: Publication | None) -> str:
    """The README with a column of badges in its table of labs, or without one; doing it again changes nothing."""
    return "\n".join(_with_badges(line, publication) for line in readme.split("\n"))


def _with_badges(line: str, publication: Publication | None) -> str:
    for bare, full in ((HEAD, HEAD + COLUMN), (RULE, f"{RULE}---|")):
        if line in (bare, full):
            return full if publication else bare
    row = ROW.match(line)
    if not row:
        return line
    bare = BADGE_CELL.sub("", line)
    return f"{bare} {_badges(publication, row['file'])} |" if publication else bare


def _badges(publication: Publication, file: str) -> str:
    return " ".join(f"[![{site}]({BADGES}/{site.lower()}.svg)]({publication.link(site, file)})" for site in SITES)


def publish(labs: Sequence[Lab], root: Path) -> None:
    """Write the copies to ``root/published`` and the badges into ``root/README.md``."""
    publication = read_publication(root)
    write_copies(labs, root / FOLDER, address=publication.address, tag=publication.tag)
    readme = root / "README.md"
    write_text(readme, with_badges(readme.read_text(encoding="utf-8"), publication))
    print(f"{'badges':<10} {relative(readme)}")
    print(f"Next step: commit {FOLDER}/ and README.md, and let the tag {publication.tag} name that commit.")
