"""What M9-CODE-02 runs beside its cells: code that is counted, adapters that break a promise, tables of tokens.

The check functions of its exercises are in `code_02_exercises.py`, its pictures in `code_02_figures.py`.
"""

import ast
import dataclasses
import linecache
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError


def cells_run() -> list[str]:
    """The cells that were run in this notebook, as Python keeps them for its error messages. (Not IPython's `In`, which
    is empty where a program runs the notebook without a history.)"""
    kept = linecache.cache.items()
    return [
        "".join(entry[2]) for file, entry in kept if len(entry) == 4 and ("ipykernel" in file or "<ipython" in file)
    ]


def definition(history: Sequence[str], name: str) -> tuple[ast.stmt, str]:
    """The statement that defines a name, and its text, in the cell run last of those that do. Raises NameError."""
    for cell in reversed(history):
        try:
            statements = ast.parse(cell).body
        except SyntaxError:  # a cell with a magic in it
            continue
        for statement in statements:
            targets = getattr(statement, "targets", [])
            if name in (getattr(statement, "name", None), *(getattr(target, "id", None) for target in targets)):
                first = min([statement.lineno, *(mark.lineno for mark in getattr(statement, "decorator_list", []))])
                return statement, "\n".join(cell.splitlines()[first - 1 : statement.end_lineno])
    raise NameError(f"no cell that was run defines {name}")


def branches(history: Sequence[str], names: Iterable[str], on: str = "family") -> dict[str, int]:
    """For each of these functions, how often it decides by the value of the variable `on`."""

    def asks(node: ast.AST) -> bool:
        decides = isinstance(node, ast.If | ast.IfExp)
        return decides and any(isinstance(part, ast.Name) and part.id == on for part in ast.walk(node.test))

    return {name: sum(map(asks, ast.walk(definition(history, name)[0]))) for name in names}


def code_lines(history: Sequence[str], names: Iterable[str]) -> dict[str, int]:
    """Lines of code of these definitions as they are written, without empty lines, comments and docstrings."""
    return {name: lines_of_code(definition(history, name)[1]) for name in names}


def lines_of_code(text: str) -> int:
    """Lines that hold code; a docstring is the first statement of a body and nothing but a string."""
    prose = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            prose |= set(range(body[0].lineno, body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(number not in prose and line.strip()[:1] not in ("", "#") for number, line in lines)


def names_spoken(file: Path, names: Iterable[str]) -> list[str]:
    """Which of these words stand in a Python file as values, not as prose."""
    tree, wanted = ast.parse(file.read_text(encoding="utf-8")), set(names)
    values = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return sorted(wanted & values)


def refusal(error: Exception, width: int = 96) -> str:
    """An error of a loader, whole: the lines of a CheckpointError without the machine's paths."""
    if not isinstance(error, CheckpointError):
        return textwrap.fill(f"{type(error).__name__}: {error}", width)
    lines = [line for line in str(error).splitlines() if not line.startswith("  file ")]
    lines = [line for line in lines if not line.startswith(("    - ", "  and "))]
    others = len(error.problems) - 1
    lines += [f"  and {others} more problem{'s' if others > 1 else ''}"] if others else []
    return "\n".join(textwrap.fill(line, width, subsequent_indent=" " * 15) for line in lines)


class Through(nn.Module):
    """A model behind a faulty adapter: its logits pass through `change`, and it may forget what the cache holds."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor] | None = None, forgets: bool = False):
        super().__init__()
        self.model, self.change, self.forgets = model, change or (lambda logits: logits), forgets
        self.make_cache = model.make_cache

    def forward(self, ids_BT: Tensor, cache: Any = None) -> Tensor:
        return self.change(self.model(ids_BT, cache=None if self.forgets else cache))


class Words:
    """A tokenizer behind a faulty adapter: `changes` take the place of its methods and attributes."""

    def __init__(self, tokenizer: Any, **changes: Any):
        self.tokenizer = tokenizer
        vars(self).update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def broken_adapters(loaded: Any) -> dict[str, Any]:
    """What was loaded, broken in one way each: the title says how. Nothing raises an error by itself."""
    model, tokenizer, size = loaded.model, loaded.tokenizer, loaded.config.vocab_size

    def extra(text: str) -> list[int]:
        return [*tokenizer.encode(text), size]

    def without_extra(ids: Iterable[int]) -> str:
        return tokenizer.decode(id for id in ids if id != size)

    return {
        title: dataclasses.replace(loaded, **changes)
        for title, changes in {
            "a column of logits too few": {"model": Through(model, lambda logits: logits[..., :-1])},
            "a peek at later tokens": {"model": Through(model, peek)},
            "a cache that nobody reads": {"model": Through(model, forgets=True)},
            "a tokenizer that lowers case": {
                "tokenizer": Words(tokenizer, encode=lambda text: tokenizer.encode(text.lower()))
            },
            "a token added, and no row for it": {
                "tokenizer": Words(tokenizer, encode=extra, decode=without_extra),
            },
            "no stop ids": {"tokenizer": Words(tokenizer, stop_ids=())},
        }.items()
    }


def peek(logits_BTV: Tensor) -> Tensor:
    """Every position hears a little of the one after it, as a mask that is one column off would have it."""
    mixed_BTV = logits_BTV.clone()
    mixed_BTV[:, :-1] += 0.1 * logits_BTV[:, 1:]
    return mixed_BTV


def verdicts(outcome: Mapping[str, Mapping[str, bool]]) -> str:
    """For each row, which promises were broken, in a line."""
    width = max(map(len, outcome))
    lines = []
    for name, kept in outcome.items():
        broken = [promise for promise, held in kept.items() if not held]
        lines.append(f"{name:<{width}}  {'keeps all' if not broken else 'breaks: ' + ', '.join(broken)}")
    return "\n".join(lines)
