"""A film in words: subtitles for the player (WebVTT), and a transcript for who cannot watch it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .film import Section


def clock(seconds: float) -> str:
    """Seconds as WebVTT writes them: 00:01:02.345."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def webvtt(sections: Sequence["Section"]) -> str:
    """The captions with their times."""
    captions = [caption for section in sections for caption in section.captions]
    cues = [
        f"{number}\n{clock(caption.start)} --> {clock(caption.end)}\n{escaped(caption.text)}\n"
        for number, caption in enumerate(captions, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def escaped(text: str) -> str:
    """Text in which no player sees a tag or the end of a cue's times."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def transcript(title: str, sections: Sequence["Section"], seen: Mapping[str, Sequence[str]]) -> str:
    """The film as a text in Markdown: each section's time, captions, and what can be read at its end."""
    parts = [f"# {title}\n\nA film without sound. What it says, and what can be read in it.\n"]
    for section in sections:
        start, end = (f"{int(moment // 60)}:{moment % 60:04.1f}" for moment in (section.start, section.end))
        said = " ".join(caption.text for caption in section.captions)
        on_screen = "; ".join(f"`{text.replace('`', '')}`" for text in seen.get(section.name, ()))
        parts.append(f"## {section.name} ({start} to {end})\n\n{said}\n")
        parts += [f"On the screen: {on_screen}.\n"] if on_screen else []
    return "\n".join(parts)
