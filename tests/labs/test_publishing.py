"""Badges lead to copies that are there, for the repository and tag that one setting names; a placeholder is refused."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from course_helpers import palette
from course_helpers.labs.__main__ import main
from course_helpers.labs.order import LabError, find_labs
from course_helpers.labs.publishing import BADGES, FOLDER, SITES, read_publication, with_badges

ROOT = Path(__file__).resolve().parents[2]
LABS = find_labs()
LINK = re.compile(r"\[!\[(\w+)\]\(([^)]+)\)\]\(([^)]+)\)")


def settings(repository="someone/module9", tag="v1.2.0"):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = re.sub(r'^repository = ".*?"', f'repository = "{repository}"', text, flags=re.MULTILINE)
    return re.sub(r'^tag = ".*?"', f'tag = "{tag}"', text, flags=re.MULTILINE)


@pytest.fixture
def course(tmp_path):
    """A repository of these labs, with README and setting."""
    shutil.copytree(
        ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__", "workspace")
    )
    shutil.copytree(ROOT / BADGES, tmp_path / BADGES)
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "pyproject.toml").write_text(settings(), encoding="utf-8")
    return tmp_path


def publish(course):
    return main(["publish", "--notebooks", str(course / "notebooks")])


def state(course):
    return {path.relative_to(course): path.read_bytes() for path in course.rglob("*") if path.is_file()}


def test_every_badge_of_every_lab_leads_to_a_copy_that_is_there(course):
    assert publish(course) == 0
    badges = LINK.findall((course / "README.md").read_text(encoding="utf-8"))
    assert len(badges) == len(LABS) * len(SITES)
    targets = set()
    for site, picture, address in badges:
        assert site in SITES and (course / picture).is_file()
        prefix, found, path = address.partition("github/someone/module9/blob/v1.2.0/")
        if not found:
            prefix, found, path = address.partition("https://github.com/someone/module9/blob/v1.2.0/")
        assert found and prefix.startswith("https://") and (course / path).is_file(), address
        targets.add(Path(path).name)
    assert targets == {lab.notebook.name for lab in LABS}


def test_every_copy_fetches_the_tag_in_the_same_way(course):
    assert publish(course) == 0
    firsts = {nbformat.read(path, 4).cells[0].source for path in (course / FOLDER).glob("*.ipynb")}
    [first] = firsts
    assert '--branch v1.2.0 "https://github.com/someone/module9" /tmp/module9' in first
    assert first.endswith("%run /tmp/module9/tools/colab.py")


def test_publishing_again_changes_nothing_and_another_tag_every_link(course):
    assert publish(course) == 0
    once = state(course)
    assert publish(course) == 0
    assert state(course) == once
    (course / "pyproject.toml").write_text(settings(tag="v2.0"), encoding="utf-8")
    assert publish(course) == 0
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert "v1.2.0" not in readme and readme.count("/blob/v2.0/") == len(LABS) * len(SITES)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"repository": "OWNER/NAME"}, "repository is still the placeholder OWNER/NAME"),
        ({"repository": "https://example.org/x"}, "not owner/name"),
        ({"tag": ""}, "not the name of a tag"),
        ({"tag": "v1 --upload-pack=x"}, "not the name of a tag"),
    ],
)
def test_what_cannot_be_published_is_refused_and_nothing_is_written(course, capsys, values, said):
    (course / "pyproject.toml").write_text(settings(**values), encoding="utf-8")
    before = state(course)
    assert publish(course) == 2
    error = capsys.readouterr().err
    assert said in error and "pyproject.toml: [tool.course]" in error and "make publish" in error
    assert state(course) == before


def test_badges_come_off_again():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    bare = with_badges(readme, None)
    assert "Kaggle](.github" not in bare and with_badges(bare, None) == bare


def test_the_readme_here_has_the_badges_that_its_setting_asks_for():
    try:
        publication = read_publication(ROOT)
    except LabError as refusal:
        assert "placeholder" in str(refusal)
        publication = None
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_badges(readme, publication) == readme
    if publication:
        assert {path.name for path in (ROOT / FOLDER).glob("*.ipynb")} == {lab.notebook.name for lab in LABS}


@pytest.mark.parametrize("site", SITES)
def test_a_badge_is_a_picture_with_a_name_in_the_courses_colours(site):
    picture = ElementTree.parse(ROOT / BADGES / f"{site.lower()}.svg").getroot()
    assert picture.get("aria-label") == f"Open in {site}" and picture.get("role") == "img"
    fills = {part.get("fill") for part in picture.iter() if part.get("fill")}
    assert fills <= {palette.NAVY, palette.GOLD, palette.WHITE}
