"""A short loop of a film for a page that plays no video: a GIF, small enough to be committed."""

from pathlib import Path

import av
from PIL import Image, ImageColor

from course_helpers import palette

WIDTH, RATE = 800, 8
#: Between a colour and white: how many shades there are for the edges of letters and for what fades.
SHADES = 6
NEARLY_WHITE = 247
MOST_BYTES = 2 * 2**20
#: Milliseconds that the last picture stays before the loop begins again.
REST = 2000


def write_loop(film: Path, target: Path, start: float, end: float) -> None:
    """Write the part of a film from `start` to `end` (seconds) as a GIF. Raises ValueError if it is too large."""
    pictures = frames(film, start, end)
    colours = course_colours()
    flat = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    times = [1000 // RATE] * (len(flat) - 1) + [REST]
    flat[0].save(target, save_all=True, append_images=flat[1:], duration=times, loop=0, optimize=True)
    if (size := target.stat().st_size) > MOST_BYTES:
        raise ValueError(f"the loop has {size / 2**20:.1f} MiB, more than {MOST_BYTES / 2**20:.0f}: make it shorter")


def frames(film: Path, start: float, end: float) -> list[Image.Image]:
    """Pictures of a film, RATE a second, scaled down."""
    pictures, due = [], start
    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            if frame.time > end:
                break
            if frame.time >= due:
                picture = frame.to_image()
                pictures.append(
                    picture.resize((WIDTH, picture.height * WIDTH // picture.width), Image.Resampling.LANCZOS)
                )
                due += 1 / RATE
    return pictures


def course_colours() -> Image.Image:
    """A picture that carries the course's colours, and their shades, as its palette: white stays white, gold gold."""
    named = sorted({value for value in vars(palette).values() if isinstance(value, str) and value.startswith("#")})
    colours = {
        tuple(round(255 + (part - 255) * step / SHADES) for part in ImageColor.getrgb(name))
        for name in named
        for step in range(SHADES + 1)
    }
    # White comes out of a film's compression a little grey, and must not find a shade nearer than itself.
    kept = [*sorted(colour for colour in colours if min(colour) <= NEARLY_WHITE), (255, 255, 255)]
    carrier = Image.new("P", (1, 1))
    carrier.putpalette([part for colour in kept for part in colour])
    return carrier
