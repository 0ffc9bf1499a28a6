"""Documents for class as pages that a double click opens and that print well: one file each, no network, no script."""

import posixpath
import re
from collections.abc import Mapping
from html import escape

from course_helpers import palette

from .site import markdown

HEADING = re.compile(r"<h2>(.*?)</h2>")
CONTENTS_FROM = 6  # sections: a page with fewer is found through without a list

STYLE = f"""
body {{ font: 16px/1.55 {palette.SANS}, system-ui, sans-serif; color: {palette.CHARCOAL}; background: {palette.PEARL};
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2, h3 {{ font-family: "{palette.SERIF}", Georgia, serif; color: {palette.NAVY}; line-height: 1.25; }}
h2 {{ margin-top: 2em; }}
p, ul, ol {{ max-width: 46rem; }}
a {{ color: {palette.SKY_INK}; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; background: {palette.WHITE}; font-size: 0.9rem; }}
th, td {{ border: 1px solid {palette.HAIRLINE}; padding: 0.35rem 0.6rem; text-align: left; vertical-align: top; }}
th {{ background: {palette.SOFT_GREY}; color: {palette.NAVY}; }}
code, pre {{ font-family: "{palette.MONO}", ui-monospace, monospace; font-size: 0.85em; }}
pre {{ background: {palette.SOFT_GREY}; padding: 0.6rem 0.8rem; overflow-x: auto; white-space: pre-wrap; }}
.unbroken {{ white-space: nowrap; }}
details {{ margin: 0.3rem 0 1.2rem; padding-left: 0.8rem; border-left: 3px solid {palette.GOLD}; max-width: 46rem; }}
summary {{ cursor: pointer; color: {palette.NAVY}; font-weight: 600; }}
nav {{ columns: 3 12rem; }}
@media print {{ body {{ margin: 0; max-width: none; }} tr, details {{ break-inside: avoid; }} }}
"""


def page(text: str, document: str = "", places: Mapping[str, str] | None = None) -> str:
    """A Markdown text as a whole page of HTML.

    `document` is where the text lies in the repository; `places` says which of its documents lie beside the page, and
    under which name. What a link to any other file says stays, as words.
    """

    def resolve(target: str) -> str | None:
        if "://" in target:
            return target
        path, _, _ = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(document), path)) if path else document
        return (places or {}).get(name)

    body, contents = _with_contents(markdown.html(text, resolve))
    title = escape(re.search(r"^# (.+)$", text, flags=re.MULTILINE)[1])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    first, end, rest = body.partition("</h1>")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
        f"<body>\n{first}{end}{contents}{rest}\n</body></html>\n"
    )


def _with_contents(body: str) -> tuple[str, str]:
    """The text with an anchor at each section, and the list of sections where there are many."""
    titles = HEADING.findall(body)
    numbers = iter(range(len(titles)))
    body = HEADING.sub(lambda found: f'<h2 id="section-{next(numbers)}">{found[1]}</h2>', body)
    if len(titles) < CONTENTS_FROM:
        return body, ""
    links = (f'<div><a href="#section-{number}">{title}</a></div>' for number, title in enumerate(titles))
    return body, f"\n<nav>{''.join(links)}</nav>"
