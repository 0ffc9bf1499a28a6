"""Code on slides, by reference: an excerpt is cut out of the package when the deck is built, so it cannot drift.

A `## Code` section is lines of the form

    include: course_helpers/loaders/assign.py#assign
    include: course_helpers/loaders/assign.py#Plan.check from "for name" to "raise"

The first takes a whole function or class without its docstring; the second only the lines from the first that begins
with one text to the next that begins with the other. Any other line is shown as it is: a comment or an empty line.
"""

import ast
import re
import textwrap
from pathlib import Path

from .deck import DeckError

ROOT = Path(__file__).parents[1]
LONGEST_LINE, MOST_LINES = 84, 19  # what a code slide holds at its size
_INCLUDE = re.compile(r'include: (?P<file>[\w/.-]+)#(?P<name>[\w.]+)(?: from "(?P<start>.+?)")?(?: to "(?P<end>.+?)")?')


def excerpt(section: str) -> tuple[str, list[str]]:
    """The code of a `## Code` section, and each file with the names that were taken from it. Raises DeckError."""
    code: list[str] = []
    places: dict[str, list[str]] = {}
    for row in section.splitlines():
        if not row.startswith("include:"):
            if row.strip() and not row.lstrip().startswith("#"):
                raise DeckError(f"code: {row!r} is neither an include nor a comment")
            code.append(row)
            continue
        match = _INCLUDE.fullmatch(row)
        if not match:
            raise DeckError(f'code: {row!r} is not of the form include: FILE#NAME [from "…"] [to "…"]')
        code += _cut(_lines_of(match["file"], match["name"]), match["start"], match["end"], row)
        names = places.setdefault(match["file"], [])
        if match["name"] not in names:
            names.append(match["name"])
    _check_size(code)
    return "\n".join(code), [f"{file}, {', '.join(names)}" for file, names in places.items()]


def _lines_of(file: str, name: str) -> list[str]:
    """The source of a function, class or method without its docstring, dedented."""
    path = ROOT / file
    if not path.is_file():
        raise DeckError(f"code: there is no {file}")
    text = path.read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        found = [child for child in node.body if part in _names(child)]
        if not found:
            raise DeckError(f"code: {file} has no {name}")
        node = found[0]
    lines = text.splitlines()
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))]) - 1
    kept = lines[first : node.end_lineno]
    document = node.body[0] if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) else None
    if document is not None:
        del kept[document.lineno - 1 - first : document.end_lineno - first]
    return textwrap.dedent("\n".join(kept)).splitlines()


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def _cut(lines: list[str], start: str | None, end: str | None, row: str) -> list[str]:
    first = _find(lines, start, 0, row) if start else 0
    last = _find(lines, end, first, row) if end else len(lines) - 1
    return lines[first : last + 1]


def _find(lines: list[str], text: str, after: int, row: str) -> int:
    for index in range(after, len(lines)):
        if lines[index].strip().startswith(text):
            return index
    raise DeckError(f"code: no line begins with {text!r}: {row}")


def _check_size(code: list[str]) -> None:
    long = [line for line in code if len(line) > LONGEST_LINE]
    if long:
        raise DeckError(f"code: {len(long[0])} columns, a slide holds {LONGEST_LINE}: {long[0]!r}")
    if len(code) > MOST_LINES:
        raise DeckError(f"code: {len(code)} lines, a slide holds {MOST_LINES}")


def highlight(code: str) -> str:
    """The code as HTML spans; class names are prefixed because Pygments' own collide with other styles."""
    from pygments import highlight as colour
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return colour(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True, classprefix="hl-"))
