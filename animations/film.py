"""The base class of the films: named sections, captions with their times, and the frame around the stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import manimpango
from manim import Animation, FadeIn, FadeOut, Group, LaggedStart, Mobject, Scene

from course_helpers import palette

from .camera import RememberingCamera
from .canvas import BODY, CAPTION, Words, words
from .style import StageRail

#: Seconds: a small change, a step of the story, a change to be followed with the eyes, and the rest after a section.
QUICK, STEP, SLOW, HOLD = 0.4, 0.8, 1.4, 1.2
#: Words a second that an unhurried reader takes in while looking at a picture, too.
READING = 3.2
#: The breath before the first thing moves, and the long look at the last picture.
OPENING, CLOSING = 0.8, 3.0


@dataclass
class Caption:
    """A sentence, and the seconds of the film in which it can be read."""

    text: str
    start: float
    end: float = 0.0


@dataclass
class Section:
    """A part of the film that a presenter steps to."""

    name: str
    start: float
    end: float = 0.0
    captions: list[Caption] = field(default_factory=list)
    #: When (seconds of the film) which stage is lit on the rail: the one lit already, and those that follow.
    stages: list[tuple[float, int]] = field(default_factory=list)


class Film(Scene):
    """A film. Subclasses say their `stages`, and tell their story in `storyboard`, section by section."""

    #: What the film is called, and the names of the stages on the rail.
    title = ""
    stages: tuple[str, ...] = ()
    #: The sections, first and last, that the README's loop shows.
    loop: tuple[str, str] = ("", "")

    def __init__(self, *watchers: "Watcher", **options):
        """Watchers are called with the film and the section when a section has ended, before anything is taken away."""
        super().__init__(camera_class=RememberingCamera, **options)
        self.watchers = watchers

    def setup(self) -> None:
        """Check the fonts, and prepare the rail."""
        missing = {palette.SANS, palette.MONO} - set(manimpango.list_fonts())
        if missing:
            raise RuntimeError(f"fonts are missing: {', '.join(sorted(missing))}; make system-packages installs them")
        self.sections: list[Section] = []
        self.rail = StageRail(self.stages)
        self.line: Words | None = None

    def storyboard(self) -> None:
        """The film itself: sections in order."""
        raise NotImplementedError

    def construct(self) -> None:
        """Play the storyboard, and stay on the last picture."""
        self.storyboard()
        self.end_section(hold=CLOSING)

    def section(
        self,
        name: str,
        caption: str,
        stage: int | None = None,
        clear: bool = False,
        keep: Sequence[Mobject] = (),
        first: Sequence[Animation] = (),
    ) -> None:
        """Rest, end the section before, and begin this one with its caption, and with a stage lit on the rail. `clear`:
        what was on the stage leaves, but for what is to stay: so a section's last picture is never an empty one.
        `first` happens meanwhile, so that the stage is not empty either."""
        if self.sections:
            self.end_section()
        self.next_section(name)
        lit = [stage for section in self.sections for _, stage in section.stages][-1:]
        self.sections.append(Section(name, now := self.renderer.time, stages=[(now, stage) for stage in lit]))
        animations = [] if stage is None else self.go(stage)
        if stage is not None and self.rail not in self.mobjects:
            animations = [FadeIn(self.rail)]
        self.say(caption, *animations, *(self.leave(*keep) if clear else []), *first)

    def go(self, stage: int) -> list[Animation]:
        """The animations that light a stage on the rail; the section notes when."""
        self.sections[-1].stages.append((self.renderer.time, stage))
        return self.rail.go(stage)

    def say(self, text: str, *animations) -> None:
        """Show another caption. Other animations may run at the same time."""
        captions = self.sections[-1].captions
        if captions:
            self.rest(0.0)
            captions[-1].end = self.renderer.time
        captions.append(Caption(text, self.renderer.time))
        line = CAPTION.place(words(text, BODY, palette.MUTED, fit=CAPTION.width))
        # One after the other: two lines through each other cannot be read.
        turn = [FadeOut(self.line)] if self.line else []
        self.play(LaggedStart(*turn, FadeIn(line), lag_ratio=1, run_time=QUICK), *animations)
        self.line = line

    def rest(self, seconds: float) -> None:
        """Hold the picture, and longer than that if the caption cannot have been read by then."""
        caption = self.sections[-1].captions[-1]
        unread = caption.start + QUICK + len(caption.text.split()) / READING - self.renderer.time
        if (longest := max(seconds, unread)) > 0:
            self.wait(max(longest, 0.1))

    def end_section(self, hold: float = HOLD) -> None:
        """Hold the picture, and note when the section ended."""
        self.rest(hold)
        now = self.sections[-1]
        now.end = now.captions[-1].end = self.renderer.time
        for watcher in self.watchers:
            watcher(self, now)

    def loop_span(self) -> tuple[float, float]:
        """The seconds of the film that the README's loop shows. Ask when the film has been rendered."""
        times = {section.name: section for section in self.sections}
        return times[self.loop[0]].start, times[self.loop[1]].end

    def leave(self, *keep: Mobject) -> list[Animation]:
        """The animation that fades out everything but the rail, the caption, and what is to stay."""
        stay = {id(part) for mobject in (self.rail, self.line, *keep) if mobject for part in mobject.get_family()}
        leaving = [mobject for mobject in self.mobjects if id(mobject) not in stay]
        return [FadeOut(Group(*leaving), run_time=QUICK)] if leaving else []

    def clear_stage(self, *keep: Mobject) -> None:
        """Fade out everything but the rail, the caption, and what is to stay."""
        if leaving := self.leave(*keep):
            self.play(*leaving)


#: What is called with a film and a section when the section has ended.
Watcher = Callable[[Film, Section], None]
