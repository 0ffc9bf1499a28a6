"""Rendering: what is written, that it is whole, and that what it says about itself is true."""

import json
import re

import pytest

from tests.animations.checks import play  # isort: skip

import itertools

import av
from manim import FadeIn
from PIL import Image, ImageColor

from animations import render as rendering
from animations.canvas import STAGE, words
from animations.captions import clock, transcript, webvtt
from animations.film import Caption, Film, Section
from animations.films import FILMS, load_film
from animations.loops import MOST_BYTES, course_colours, write_loop
from animations.render import main, render
from course_helpers import palette

STEM = FILMS["loading"].stem


class Short(Film):
    """A film of two seconds and a bit, with everything a film has."""

    title = "A short film"
    stages = ("one", "two")
    loop = ("the first", "the second")

    def storyboard(self):
        self.section("the first", "The first caption: 1 < 2 & 3.", stage=0)
        self.play(FadeIn(STAGE.place(words("on the stage"))))
        self.section("the second", "The last caption.", stage=1, clear=True)
        self.play(FadeIn(STAGE.place(words("at the end"))))


class Broken(Short):
    def storyboard(self):
        super().storyboard()
        raise RuntimeError("the projector burns")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(rendering, "load_film", lambda name: Short)


def seconds_of(path):
    with av.open(str(path)) as container:
        return container.duration / av.time_base


def test_a_film_comes_with_all_that_belongs_to_it(short, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "PREVIEWS", tmp_path / "previews")
    path = render("loading", "480p", poster=640, output=tmp_path / "build", loop=True)
    folder = path.parent
    names = {".mp4", ".vtt", ".json", ".png", "-transcript.md"}
    assert {file.name for file in folder.iterdir()} == {f"{STEM}{name}" for name in names} | {"sections"}
    sections = json.loads((folder / f"{STEM}.json").read_text())
    files = sorted((folder / "sections" / STEM).iterdir())
    assert [section["file"] for section in sections] == [file.name for file in files]
    assert [file.name for file in files] == ["01-the-first.mp4", "02-the-second.mp4"]
    for section, file in zip(sections, files, strict=True):
        assert seconds_of(file) == pytest.approx(section["seconds"], abs=0.2)
    assert seconds_of(path) == pytest.approx(sum(section["seconds"] for section in sections), abs=0.2)
    with Image.open(folder / f"{STEM}.png") as poster:
        assert (poster.size, poster.mode) == ((640, 360), "RGB")
    with Image.open(tmp_path / "previews" / f"{STEM}.gif") as loop:
        assert loop.n_frames > 8 and loop.width == 800


def test_captions_cover_the_whole_film(short, tmp_path):
    path = render("loading", "480p", poster=0, output=tmp_path)
    text = path.with_suffix(".vtt").read_text()
    assert text.startswith("WEBVTT\n\n") and "1 &lt; 2 &amp; 3" in text
    times = re.findall(r"([\d:.]+) --> ([\d:.]+)", text)
    assert times[0][0] == "00:00:00.000"
    assert all(before[1] == after[0] for before, after in itertools.pairwise(times))
    minutes, seconds = times[-1][1].split(":")[1:]
    assert 60 * int(minutes) + float(seconds) == pytest.approx(seconds_of(path), abs=0.2)


def test_a_film_that_fails_leaves_the_older_one_as_it_was(short, tmp_path, monkeypatch):
    path = render("loading", "480p", poster=0, output=tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.setattr(rendering, "load_film", lambda name: Broken)
    with pytest.raises(RuntimeError, match="projector"):
        render("loading", "480p", poster=0, output=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before and path.exists()


def test_the_command_line_renders_what_it_is_told(short, tmp_path, capsys):
    main(["--film", "loading", "--quality", "480p", "--poster", "0", "--output", str(tmp_path)])
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / f"{STEM}.mp4") and "the second" in told.err
    with pytest.raises(SystemExit):
        main(["--film", "no such film"])


def test_a_loop_that_is_too_large_is_refused(short, tmp_path, monkeypatch):
    path = render("loading", "480p", poster=0, output=tmp_path)
    monkeypatch.setattr("animations.loops.MOST_BYTES", 100)
    with pytest.raises(ValueError, match="shorter"):
        write_loop(path, tmp_path / "loop.gif", 0, 1)


def test_a_loop_keeps_the_courses_colours(tmp_path):
    picture = Image.new("RGB", (2, 1), palette.GOLD)
    picture.putpixel((0, 0), (253, 254, 253))  # white, as a film's compression leaves it
    flat = picture.quantize(palette=course_colours(), dither=Image.Dither.NONE).convert("RGB")
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), ImageColor.getrgb(palette.GOLD)]
    assert len(course_colours().getpalette()) <= 3 * 256


def test_the_loops_in_the_repository_are_small():
    loops = sorted(rendering.PREVIEWS.glob("*.gif"))
    assert STEM in {loop.stem for loop in loops}
    assert all(loop.stat().st_size <= MOST_BYTES for loop in loops)


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_where_the_list_says_and_its_loop_has_sections(name):
    film = load_film(name)
    assert issubclass(film, Film) and film is load_film(name)
    assert film.title and len(film.stages) >= 4 and all(film.loop)


def test_clock_and_transcript():
    assert clock(0) == "00:00:00.000" and clock(3725.0509) == "01:02:05.051"
    sections = [Section("a part", 0.0, 61.25, [Caption("Said.", 0.0, 61.25)])]
    text = transcript("Title", sections, {"a part": ["seen `here`"]})
    assert "# Title" in text and "## a part (0:00.0 to 1:01.2)" in text and "Said." in text and "`seen here`" in text
    assert webvtt(sections).count("-->") == 1


def test_what_can_be_read_is_noted(tmp_path):
    witness = rendering.Witness("short")
    recording = play(Short, tmp_path)
    for section in recording.film.sections[-1:]:
        witness(recording.film, section)
    assert witness.seen == {"the second": ["at the end"]}


def test_all_films_are_rendered_at_once_and_one_failure_is_enough(monkeypatch):
    started, ended = [], {"loading": 0, "swap": 0}

    class Process:
        def __init__(self, command, cwd):
            started.append(command)
            self.film = command[-1]

        def wait(self):
            assert len(started) == len(ended), "one film waited for the other"
            return ended[self.film]

    monkeypatch.setattr("animations.render.subprocess.Popen", Process)
    assert main(["--quality", "480p"]) == 0
    assert [command[-4:] for command in started] == [["--quality", "480p", "--film", name] for name in ended]
    started.clear()
    ended["swap"] = -9
    assert main([]) != 0
