"""The films on slides 7 and 19: the rendered file if there is one, the committed preview if not, and their sections."""

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD, PREVIEWS = ROOT / "animations" / "build", ROOT / "animations" / "previews"


@dataclass(frozen=True)
class Film:
    """One film: its files, and its sections: `name`, `start`, `end`, and `stages`: which of the storyboard's from when.

    Times are seconds of the film.
    """

    video: Path
    poster: Path
    captions: Path
    sections: list[dict[str, object]]


def find(asset: str) -> Film:
    """The film that the script `asset` renders. Raises FileNotFoundError, saying what to run."""
    stem = Path(asset.strip("`")).stem
    for folder in (BUILD, PREVIEWS):
        files = [folder / f"{stem}{ending}" for ending in (".mp4", ".png", ".vtt", ".json")]
        if all(path.is_file() for path in files):
            sections = json.loads(files[3].read_text(encoding="utf-8"))
            return Film(*files[:3], sections=[_section(**section) for section in sections])
    raise FileNotFoundError(f"no film {stem}.mp4 with poster, captions and sections. Next step: make animations")


def _section(name: str, start: float, seconds: float, stages: list[list[float]], **_: object) -> dict[str, object]:
    return {"name": name, "start": start, "end": round(start + seconds, 3), "stages": stages}


def markup(film: Film, alt: str) -> str:
    """The film as a video element that a presenter steps through: one fragment a section."""
    sections = escape(json.dumps(film.sections, separators=(",", ":")))
    steps = "".join(
        f'<span class="fragment film-step" data-step="{step}"></span>' for step in range(len(film.sections))
    )
    return (
        f'<video data-picture data-sections="{sections}" muted playsinline preload="auto" aria-label="{escape(alt)}" '
        f'poster="{_inline(film.poster, "image/png")}" src="{_inline(film.video, "video/mp4")}">'
        f'<track kind="captions" srclang="en" label="English" src="{_inline(film.captions, "text/vtt")}"></video>'
        f"{steps}"
    )


def _inline(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
