"""`python -m tools.site`: build the site into site/build/, or show a built one.

build [--output FOLDER] [--no-pictures]   everything; without pictures of the slides no browser is needed
serve [--port 8000]                       the built site on this machine, at http://127.0.0.1:8000
"""

import argparse
import functools
import http.server
import sys
from pathlib import Path

from slides.deck import DeckError

from .build import OUTPUT, build
from .stage import ROOT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.site", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build")
    making.add_argument("--output", type=Path, default=OUTPUT)
    making.add_argument("--no-pictures", dest="pictures", action="store_false")
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, default=8000)
    chosen = parser.parse_args(arguments)
    return _serve(chosen.port) if chosen.command == "serve" else _build(chosen.output, chosen.pictures)


def _build(output: Path, pictures: bool) -> int:
    try:
        missing = build(output, pictures)
    except DeckError as error:
        print(error, file=sys.stderr)
        return 1
    for link in missing:
        print(f"not there, so not linked: {link}", file=sys.stderr)
    pages = sum(1 for _ in output.rglob("*.html"))
    shown = output.relative_to(ROOT) if output.is_relative_to(ROOT) else output
    print(f"{pages} pages in {shown}: open {shown / 'index.html'}", file=sys.stderr)
    return 0


def _serve(port: int) -> int:
    if not OUTPUT.is_dir():
        print("site/build is not there. Next step: make site", file=sys.stderr)
        return 1
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(OUTPUT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", file=sys.stderr)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
