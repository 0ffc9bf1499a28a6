"""Conversations as the model read them in training: the checkpoint's own Jinja template, rendered as transformers does.

What people write in a conversation is plain text. Before the template is rendered, names of special tokens in it are
put between two marks; so those that the template writes itself can be told from those that a user typed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from .errors import CheckpointError
from .tokenizer_backends import special_pattern

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}

#: Unicode's private-use characters of the last plane but one: the marks are two that nobody has used.
PRIVATE = range(0xF0000, 0xFFFFE)

#: What a template that asks for ASCII does not get as it is. The marks it gets: escaped, they would mark nothing.
ESCAPED = f"[^\0-\x7f{chr(PRIVATE[0])}-{chr(PRIVATE[-1])}]"


class ChatTemplate:
    """A checkpoint's template. `special`: names and ids of its special tokens; `variables`: bos_token and the like."""

    def __init__(self, source: str, special: Mapping[str, int], variables: Mapping[str, str], file: object = None):
        self.template = compiled(source, str(file))
        self.special, self.variables = special, variables

    def pieces(self, messages: Sequence[Message], **variables: Any) -> list[str | int]:
        """A conversation in pieces: plain text as strings, special tokens as ids. Raises ValueError if the template
        refuses it (roles out of order, for example) or cannot work with it."""
        if not messages or not all(isinstance(message, Mapping) for message in messages):
            raise ValueError('a conversation is a list of messages, each {"role": ..., "content": ...}')
        # A key without a value is a missing key to most templates; what programs exchange has many of them.
        messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
        taken = set().union(*strings([messages, variables]))
        begin, end = islice((chr(code) for code in PRIVATE if chr(code) not in taken), 2)
        names = special_pattern(self.special)
        given = marked({"tools": None, "documents": None, "messages": messages} | variables, names, begin, end)
        try:
            text = self.template.render(**(dict(self.variables) | given))
        except Exception as error:  # a template is a program of its own, and may fail in any way
            raise ValueError(f"the chat template cannot write this conversation: {error}") from error
        pieces: list[str | int] = []
        # One mark is enough: a template may cut a text, and with it the other one off.
        for part in re.split(f"({begin}(?:{names})|(?:{names}){end}|{names})", text):
            if part in self.special:
                pieces.append(self.special[part])
                continue
            part = part.replace(begin, "").replace(end, "")
            if pieces and isinstance(pieces[-1], str):
                pieces[-1] += part
            elif part:
                pieces.append(part)
        return pieces


def strings(value: Any) -> Iterator[str]:
    """All strings in nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from strings([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def marked(value: Any, names: str, begin: str, end: str) -> Any:
    """A copy in plain lists and dictionaries, with the names of special tokens between two marks. Raises ValueError for
    anything but JSON's types: a template is foreign code, and objects have methods."""
    if isinstance(value, str):
        return re.sub(names, lambda found: f"{begin}{found[0]}{end}", str(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {marked(key, names, begin, end): marked(item, names, begin, end) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, names, begin, end) for item in value]
    raise ValueError(f"a conversation is made of JSON's types, and has a {type(value).__name__} in it")


@lru_cache
def compiled(source: str, file: str) -> Any:
    """The template, ready to be rendered. Raises CheckpointError if it is none."""
    try:
        return environment().from_string(source)
    except Exception as error:  # Jinja's own, and Python's for numbers or nesting beyond its limits
        raise CheckpointError(
            "the chat template cannot be read",
            file=file,
            field="chat_template" if file.endswith(".json") else None,
            expected="a Jinja template",
            found=f"{error} (line {getattr(error, 'lineno', '?')})",
            cause="a file that was edited by hand, or an interrupted download",
            next_step="download the tokenizer again, from the same checkpoint as the weights",
        ) from error


@lru_cache
def environment() -> Any:
    """Where templates run: those functions that templates of the hub are written for, and no way out of them."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
        return re.sub(ESCAPED, lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[generation_tag(), loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    made.globals["dict"] = Dictionaries()
    made.globals["namespace"] = namespace_class()
    return made


class Dictionaries:
    """Python's `dict` for templates, without the ways that lead from a class to all others."""

    def __call__(self, *arguments: Any, **items: Any) -> dict:
        return dict(*arguments, **items)

    def fromkeys(self, *arguments: Any) -> dict:
        return dict.fromkeys(*arguments)


def namespace_class() -> type:
    """Jinja's `namespace`, closed to the names that Python keeps for itself."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class ClosedNamespace(Namespace):
        def __init__(*arguments: Any, **items: Any) -> None:
            Namespace.__init__(arguments[0])
            for name, value in dict(*arguments[1:], **items).items():
                arguments[0][name] = value

        def __setitem__(self, name: str, value: Any) -> None:
            if str(name).startswith("_"):
                raise SecurityError(f"a template must not store {name!r} in a namespace")
            Namespace.__setitem__(self, name, value)

    return ClosedNamespace


def generation_tag() -> type:
    """The tags {% generation %} and {% endgeneration %}, with which some templates enclose what the model wrote. They
    are for training; here what is between them is written as it is."""
    from jinja2.ext import Extension
    from jinja2.nodes import CallBlock

    class Generation(Extension):
        tags: frozenset = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("write"), [], [], body).set_lineno(line)

        def write(self, caller: Any) -> str:
            return caller()

    return Generation
