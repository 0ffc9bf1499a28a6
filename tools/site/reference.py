"""The reference: public names from their docstrings, all modules in a line each, and every family with its sizes."""

import ast
from html import escape
from pathlib import Path

from . import markdown
from .stage import Stage

#: The public names of the package, by what they are for; a test holds this to `course_helpers.__all__`.
GROUPS = {
    "Load": ("load_model", "load_tokenizer", "open_checkpoint", "load_weights"),
    "Generate": ("generate", "stream"),
    "Check": ("validate_checkpoint", "first_mismatch", "track_memory"),
    "Save": ("save_checkpoint",),
    "What is refused, and how": ("CheckpointError", "ConfigError", "UnsafeFileError", "RankError", "CourseWarning"),
    "Families": ("FAMILIES",),
}
PAGE, MODULES, FAMILIES_PAGE = "reference/index.html", "reference/modules.html", "reference/families.html"
FAMILIES_TEXT = """\
### `FAMILIES`

A dictionary, `course_helpers.FAMILIES`: a name for every family, and one row that says all that differs between
families. A family of your own is one more row, set before the first load:
[add a family](../contributing.md#adding-a-family-in-four-steps). [All families and sizes](families.md).

::: course_helpers.families.Family
    options:
      heading_level: 4
"""
LAB_PARTS = "labs"  # the modules behind single labs are no reference


def write_reference(stage: Stage) -> None:
    """All three pages."""
    parts = [
        "# Reference",
        "What `from course_helpers import …` gives you. [All modules](modules.md) are listed apart.",
    ]
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        parts += [FAMILIES_TEXT if name == "FAMILIES" else f"::: course_helpers.{name}" for name in names]
    stage.page(PAGE, "\n\n".join(parts))
    stage.page(MODULES, _modules(stage))
    stage.page(FAMILIES_PAGE, _families())


def _modules(stage: Stage) -> str:
    package = stage.root / "course_helpers"
    folders = sorted({path.parent for path in package.rglob("*.py") if path.parent.name != LAB_PARTS})
    parts = ["# All modules", "Each with the first line of its docstring; the name leads to the source."]
    for folder in folders:
        rows = [_module(stage, path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
        parts += [f"## `{folder.relative_to(stage.root).as_posix()}`", f'<dl class="modules">{"".join(rows)}</dl>']
    return "\n\n".join(parts)


def _module(stage: Stage, path: Path) -> str:
    name = path.relative_to(stage.root).as_posix()
    said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    return f'<dt><a href="{stage.link(MODULES, "", name)}">{escape(path.name)}</a></dt><dd>{markdown.html(said)}</dd>'


def _families() -> str:
    from course_helpers import FAMILIES
    from course_helpers.family_table import FOOTNOTE, sizes

    parts = ["# Families and sizes", f"Counted on the configs, not copied. {FOOTNOTE}"]
    found = list(sizes())
    for name, family in FAMILIES.items():
        rows = [_size(size) for size in found if size.family is family]
        heads = "".join(f"<th>{head}</th>" for head in ("Model", "Parameters", "GiB", "KV KiB/token", "KV MiB at 32k"))
        about = (
            f"`{name}` · tokenizer: {family.tokenizer} · licence: {family.licence}{' · gated' if family.gated else ''}"
        )
        bundled = f" · bundled: `{family.tiny}`" if family.tiny else ""
        parts += [
            f"## {family.title}",
            about + bundled,
            f'<div class="wide numbers"><table><thead><tr>{heads}</tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>",
        ]
    return "\n\n".join(parts)


def _size(size) -> str:
    cells = (
        f"<code>{escape(size.hub_id)}</code>",
        f"{size.parameters:,}",
        f"{size.weight_gib:.2f}",
        f"{size.cache_kib_per_token:g}",
        f"{size.cache_mib_at_32k:,.0f}",
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
