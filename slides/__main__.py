"""`python -m slides COMMAND`: build the deck, take pictures of it, check it, or watch the sources and rebuild.

build                    the page, the PDF, the handout and the PowerPoint file, in slides/build/
page                     the page alone
pictures [--scale 4]     one PNG a slide (scale 4: 7680 x 4320) in slides/build/8k/
draft 6 [9 ...]          pictures of some slides at 1920 x 1080, with sources that may still be incomplete
"""

import argparse
import sys
import tempfile
from pathlib import Path

from course_helpers.labs.records import write_text

from . import checks, deck, drafts, export, powerpoint, previews, watch
from .browser import NoBrowser
from .page import build_handout, build_page

BUILD = Path(__file__).parent / "build"
PAGE = BUILD / "module9.html"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m slides", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("page")
    commands.add_parser("previews")
    commands.add_parser("watch")
    pictures = commands.add_parser("pictures")
    pictures.add_argument("numbers", nargs="*", type=int, help="slides; all without")
    pictures.add_argument("--scale", type=float, default=4)
    pictures.add_argument("--output", type=Path, default=BUILD / "8k")
    draft = commands.add_parser("draft")
    draft.add_argument("numbers", nargs="+", type=int)
    draft.add_argument("--scale", type=float, default=1)
    draft.add_argument("--output", type=Path, required=True)
    check = commands.add_parser("check")
    check.add_argument("numbers", nargs="*", type=int, help="slides, perhaps incomplete; the whole built deck without")
    chosen = parser.parse_args(arguments)
    try:
        RUN[chosen.command](chosen)
    except (deck.DeckError, NoBrowser, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _build(_: argparse.Namespace) -> None:
    slides = deck.read_deck()
    write_text(PAGE, build_page(slides))
    export.write_pdf(PAGE, BUILD / "module9.pdf")
    export.write_handout(build_handout(slides), BUILD / "module9-notes.pdf")
    powerpoint.write_powerpoint(PAGE, slides, BUILD / "module9.pptx")
    for path in sorted(BUILD.glob("module9*")):
        _say(f"{path.name:20} {path.stat().st_size / 1e6:6.1f} MB")


def _page(_: argparse.Namespace) -> None:
    write_text(PAGE, build_page(deck.read_deck()))
    _say(f"{PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")


def _pictures(chosen: argparse.Namespace) -> None:
    numbers = chosen.numbers or range(1, deck.SLIDES + 1)
    export.write_pictures(PAGE, chosen.output, numbers, chosen.scale, _say)


def _draft(chosen: argparse.Namespace) -> None:
    page = chosen.output / "draft.html"
    write_text(page, build_page(drafts.read_drafts(chosen.numbers)))
    for place, path in enumerate(
        export.write_pictures(page, chosen.output, range(1, len(chosen.numbers) + 1), chosen.scale, lambda _: None)
    ):
        target = path.with_name(f"slide-{chosen.numbers[place]:02d}.png")
        path.rename(target)
        _say(str(target))


def _check(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        slides = drafts.read_drafts(chosen.numbers) if chosen.numbers else deck.read_deck()
        page = Path(folder) / "page.html"
        write_text(page, build_page(slides))
        faults = checks.check_page(page, slides)
    if faults:
        raise deck.DeckError("\n".join(map(str, faults)))
    _say(f"{len(slides)} slides, no faults")


def _previews(_: argparse.Namespace) -> None:
    _page(_)
    for path in previews.write_previews(PAGE):
        _say(f"{path.name:20} {path.stat().st_size / 1e6:6.1f} MB")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


RUN = {
    "build": _build,
    "page": _page,
    "pictures": _pictures,
    "draft": _draft,
    "check": _check,
    "previews": _previews,
    "watch": lambda _: watch.watch(PAGE),
}

if __name__ == "__main__":
    sys.exit(main())
