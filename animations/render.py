"""Renders the films: `python -m animations.render --film loading --quality 1080p60`.

For each film: the whole of it and its sections as MP4 (a presenter steps from section to section), a JSON file with
their names and times, captions (WebVTT), a transcript, a poster, and a short loop for the README. All films at once,
each in a process of its own. What is there is replaced only by what is complete.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from manim import tempconfig
from PIL import Image

from .canvas import Words
from .captions import transcript, webvtt
from .film import Film, Section, Watcher
from .films import FILMS, FOLDER, load_film
from .loops import write_loop

#: Width, height and frames a second.
QUALITIES = {
    "480p": (854, 480, 15),
    "720p": (1280, 720, 30),
    "1080p30": (1920, 1080, 30),
    "1080p60": (1920, 1080, 60),
    "2160p60": (3840, 2160, 60),
}
BUILD, PREVIEWS = FOLDER / "build", FOLDER / "previews"


class Witness:
    """Stands by while a film is made: says how far it is, and notes what can be read at each section's end."""

    def __init__(self, name: str):
        self.name, self.started, self.seen = name, time.perf_counter(), {}

    def __call__(self, film: Film, section: Section) -> None:
        """Called at the end of every section."""
        frame = (*film.rail.get_family(), film.line)
        read = (
            part.content
            for mobject in film.mobjects
            for part in mobject.get_family()
            if isinstance(part, Words) and not any(part is other for other in frame)
        )
        self.seen[section.name] = list(dict.fromkeys(read))
        taken = time.perf_counter() - self.started
        print(f"{self.name}: {section.name}, {section.end:.1f} s of film after {taken:.0f} s", file=sys.stderr)


@contextmanager
def settings(folder: Path, width: int, height: int, rate: int = 15, **others: object) -> Iterator[None]:
    """Manim's settings for one film. It keeps its working files in the folder."""
    # Frame width and height are the canvas's own, and stay.
    size = {"pixel_width": width, "pixel_height": height, "frame_rate": rate}
    quiet = {"verbosity": "ERROR", "progress_bar": "none", "disable_caching": True, "media_dir": str(folder)}
    with tempconfig(size | quiet | others):
        yield


def make(name: str, folder: Path, quality: str, watchers: Sequence[Watcher]) -> Film:
    """Render a film into a folder: `film.mp4`, and `sections/` with one file each."""
    with settings(folder / "work", *QUALITIES[quality], save_sections=True):
        film = load_film(name)(*watchers)
        film.render()
        writer = film.renderer.file_writer
        shutil.move(writer.movie_file_path, folder / "film.mp4")
        (folder / "sections").mkdir()
        for number, (section, made) in enumerate(zip(film.sections, writer.sections, strict=True), 1):
            target = folder / "sections" / f"{number:02}-{slug(section.name)}.mp4"
            shutil.move(writer.sections_output_dir / made.video, target)
    return film


def slug(name: str) -> str:
    """A name for a file: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def outline(sections: list[Section]) -> list[dict[str, object]]:
    """What the slides need to know to step through a film."""
    return [
        {
            "name": section.name,
            "file": f"{number:02}-{slug(section.name)}.mp4",
            "start": round(section.start, 3),
            "seconds": round(section.end - section.start, 3),
            "stages": [[round(start, 3), stage] for start, stage in section.stages],
            "captions": [caption.text for caption in section.captions],
        }
        for number, section in enumerate(sections, 1)
    ]


def make_poster(name: str, path: Path, width: int) -> None:
    """The film's last picture, by default as large as the deck's pictures."""
    work = path.parent / "poster"
    with settings(work, width, width * 9 // 16, save_last_frame=True):
        film = load_film(name)()
        film.render()
        shutil.move(film.renderer.file_writer.image_file_path, path)
    with Image.open(path) as picture:
        picture.convert("RGB").save(path, optimize=True)


def render(
    name: str,
    quality: str = "1080p60",
    poster: int = 7680,
    output: Path = BUILD,
    loop: bool = False,
    watchers: Sequence[Watcher] = (),
    parts: bool = True,
) -> Path:
    """Render one film with everything that belongs to it; return the path of the MP4. `poster`: its width, 0 for none.
    `loop`: also the short loop for the README. `watchers` are the film's (see `Film`). `parts`: also each section as a
    film of its own."""
    output.mkdir(parents=True, exist_ok=True)
    stem, witness = FILMS[name].stem, Witness(name)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=output) as draft_name:
        draft = Path(draft_name)
        film = make(name, draft, quality, [witness, *watchers])
        (draft / "film.vtt").write_text(webvtt(film.sections), encoding="utf-8")
        (draft / "film.md").write_text(transcript(film.title, film.sections, witness.seen), encoding="utf-8")
        (draft / "film.json").write_text(json.dumps(outline(film.sections), indent=1) + "\n", encoding="utf-8")
        made = {"film.mp4": ".mp4", "film.vtt": ".vtt", "film.md": "-transcript.md", "film.json": ".json"}
        if poster:
            make_poster(name, draft / "film.png", poster)
            made["film.png"] = ".png"
        if loop:
            PREVIEWS.mkdir(exist_ok=True)
            start, end = film.loop_span()
            write_loop(draft / "film.mp4", draft / "film.gif", start, end)
            os.replace(draft / "film.gif", PREVIEWS / f"{stem}.gif")
        if parts:
            put_sections(draft / "sections", output / "sections" / stem, draft / "old")
        for source, ending in made.items():
            os.replace(draft / source, output / f"{stem}{ending}")
    return output / f"{stem}.mp4"


def put_sections(new: Path, place: Path, old: Path) -> None:
    """Put a folder in the place of another one."""
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m animations.render", description=__doc__.splitlines()[0])
    parser.add_argument("--film", choices=(*FILMS, "all"), default="all")
    parser.add_argument("--quality", choices=QUALITIES, default="1080p60")
    parser.add_argument("--poster", type=int, default=7680, metavar="WIDTH", help="0: none")
    parser.add_argument("--output", type=Path, default=BUILD, metavar="FOLDER")
    parser.add_argument("--loop", action="store_true", help="renew the loop of the README, too")
    parser.add_argument("--previews", action="store_true", help="renew what is committed: 720p, small poster, loop")
    options = parser.parse_args(arguments)
    if options.film == "all":
        return render_all(sys.argv[1:] if arguments is None else arguments)
    if options.previews:
        print(render(options.film, "720p", 1920, PREVIEWS, loop=True, parts=False))
    else:
        print(render(options.film, options.quality, options.poster, options.output, options.loop))
    return 0


def render_all(arguments: Sequence[str]) -> int:
    """Every film in a process of its own, at the same time: drawing one keeps one core busy. 0 if all succeeded."""
    command = [sys.executable, "-m", "animations.render", *arguments]
    running = [subprocess.Popen([*command, "--film", name], cwd=FOLDER.parent) for name in FILMS]
    return max(abs(process.wait()) for process in running)


if __name__ == "__main__":
    sys.exit(main())
