"""Colours and fonts of the site: those of the course, from their one source."""

from course_helpers import palette
from slides import fonts

from .stage import Stage

#: Every colour of the palette: the constants that hold one.
COLOURS = [name for name, value in vars(palette).items() if name.isupper() and str(value).startswith("#")]
#: The fonts of the palette, and what is shown where they are missing.
FONTS = {"SERIF": "Georgia, serif", "SANS": "system-ui, sans-serif", "MONO": "ui-monospace, monospace"}


def write_look(stage: Stage) -> None:
    """The style sheet of variables, and the fonts it names, where `npm ci` has brought them."""
    rules = [f"  --{name.lower().replace('_', '-')}: {getattr(palette, name)};" for name in COLOURS]
    rules += [f'  --{name.lower()}: "{getattr(palette, name)}", {others};' for name, others in FONTS.items()]
    faces = [_face(stage, family, style) for (family, style), path in fonts.FILES.items() if path.is_file()]
    stage.write("assets/palette.css", ":root {\n" + "\n".join(rules) + "\n}\n" + "\n".join(faces))


def _face(stage: Stage, family: str, style: str) -> str:
    path = fonts.FILES[family, style]
    stage.copy(path, f"assets/fonts/{path.name}")
    return (
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: 100 900; font-display: swap; '
        f'src: url("fonts/{path.name}") format("woff2"); }}'
    )
