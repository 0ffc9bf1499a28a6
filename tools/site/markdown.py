"""Markdown as GitHub and Jupyter read it, to what MkDocs takes: headings stay, everything between them becomes HTML.

MkDocs' own Markdown differs from theirs (lists without an empty line before them, for one). So CommonMark is read by
markdown-it, formulas become MathML, which browsers draw without a script, and code is coloured by Pygments.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

Resolve = Callable[[str], str | None]
LAB_ID = re.compile(r"M9-(?:LAB|CODE)-(?:APP-[A-Z]|\d\d)")
SHORT = 32  # characters of a command that stays on one line, on a phone too


def page_text(markdown: str, resolve: Resolve = lambda target: target, title: bool = True) -> str:
    """Text for a page: headings as Markdown, the rest as blocks of HTML.

    A page has one title: without `title`, a heading of the first level is that of a part, beside its sections.
    """
    reader = _reader()
    tokens = reader.parse(markdown)
    parts, block, environment = [], [], {}
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token.type == "heading_open" and token.level == 0:
            parts += [raw(_block(reader, block, environment, resolve))]
            parts += [_heading(int(token.tag[1]), _escaped(tokens[place + 1].content), title)]
            block = []
            place += 3
            continue
        block.append(token)
        place += 1
    parts += [raw(_block(reader, block, environment, resolve))]
    return "\n\n".join(part for part in parts if part) + "\n"


def raw(block: str) -> str:
    """HTML that MkDocs need not read: `Stage.page` keeps it aside, and it is put back when the page is made."""
    return f"<!--raw-->{block}<!--/raw-->" if block else ""


def html(markdown: str, resolve: Resolve = lambda target: target) -> str:
    """The same as HTML, headings included: for text inside something else."""
    return _block(_reader(), _reader().parse(markdown), {}, resolve)


def code(text: str, language: str = "python") -> str:
    """Coloured code, in the markup that the theme styles and gives a copy button."""
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return highlight(text.strip("\n"), lexer, HtmlFormatter(wrapcode=True, cssclass="highlight"))


def _block(reader: MarkdownIt, tokens: Sequence[Token], environment: dict, resolve: Resolve) -> str:
    if not tokens:
        return ""
    for token in tokens:
        _resolved(token.children or [], resolve)
    return f"<div>\n{reader.renderer.render(tokens, reader.options, environment)}</div>"


def _resolved(tokens: list[Token], resolve: Resolve) -> None:
    for token in tokens:
        for name in ("href", "src"):
            target = token.attrGet(name)
            if target is None:
                continue
            found = resolve(str(target))
            if found is not None:
                token.attrSet(name, found)
            elif name == "href":  # words that lead nowhere are better than a link that does
                token.attrs.pop("href")
            else:
                token.type, token.content = "text", token.content or ""
        _resolved(token.children or [], resolve)


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    reader.use(dollarmath_plugin, renderer=_formula, allow_space=False, double_inline=True)
    reader.add_render_rule("text", lambda self, tokens, index, *_: _unbroken(escape(tokens[index].content)))
    reader.add_render_rule("code_inline", lambda self, tokens, index, *_: _inline_code(tokens[index].content))
    reader.add_render_rule("fence", lambda self, tokens, index, *_: _fence(tokens[index]))
    reader.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return reader


def _formula(content: str, options: dict) -> str:
    from latex2mathml.converter import convert  # comes with `make site`; texts without formulas need it not

    return convert(content, display="block" if options["display_mode"] else "inline")


def _unbroken(text: str) -> str:
    """Names of labs, which a browser would break at their hyphens."""
    return LAB_ID.sub(r'<span class="unbroken">\g<0></span>', text)


def _inline_code(content: str) -> str:
    kind = ' class="unbroken"' if len(content) <= SHORT else ""
    return f"<code{kind}>{escape(content)}</code>"


def _fence(token: Token) -> str:
    return code(token.content, token.info.strip().partition(" ")[0])


def _heading(level: int, text: str, title: bool) -> str:
    return f"## {text} {{.part}}" if level == 1 and not title else f"{'#' * level} {text}"


def _escaped(heading: str) -> str:
    """A heading's text, so that MkDocs sees no tags in it."""
    return heading.replace("<", "&lt;")
