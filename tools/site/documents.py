"""Pages from the documents of the repository, from the files they link to, and from what was measured."""

import ast
import json
import re
from html import escape
from pathlib import Path

from course_helpers.labs.order import RUN_ORDER
from slides.deck import Slide
from tools import teaching

from . import markdown
from .notebooks import Summary
from .stage import PAGES, Stage, href, result_page, source_page

LANGUAGES = {
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".css": "css",
}
LARGEST_SOURCE = 200_000  # characters; a larger file is named, not shown
HIDDEN = "\n  exclude: true"  # of the search: what is found there is found in the labs and the reference


def write_documents(stage: Stage) -> dict[str, str]:
    """README, runbook and the like, and all tables of measurements; returns the latter's titles and pages."""
    for name, place in PAGES.items():
        if (stage.root / name).is_file():
            stage.page(place, document(stage, name, place))
    measured = {}
    for name in stage.measured():
        place = result_page(name)
        text = document(stage, name, place)
        stage.page(place, text)
        measured[text.partition("\n")[0].removeprefix("# ")] = place
    return measured


def write_plans(stage: Stage, slides: list[Slide]) -> None:
    """The timing plan and the question bank of the instructor's pack."""
    stage.page("timing.html", markdown.page_text(teaching.timing_plan(slides)))
    stage.page("questions.html", markdown.page_text(teaching.question_bank(slides)))


def document(stage: Stage, name: str, place: str) -> str:
    """The text of a Markdown file of the repository, its links led to the site's pages."""
    text = (stage.root / name).read_text(encoding="utf-8")
    return markdown.page_text(text, lambda target: stage.link(place, name, target))


def write_sources(stage: Stage) -> None:
    """A page for every file and folder that something links to, and for what those link to."""
    done = 0
    while done < len(stage.linked):
        name = stage.linked[done]
        done += 1
        path, place = stage.root / name, source_page(name)
        if path.is_dir():
            text = _folder(stage, name, place)
        elif path.suffix == ".md":
            text = document(stage, name, place)
        else:
            text = _source(name, path)
        stage.page(place, text, title=path.name, search=HIDDEN)


def _source(name: str, path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    if len(text) > LARGEST_SOURCE:
        return f"# `{path.name}`\n\n`{name}` has {len(text):,} characters: open it in the repository.\n"
    coloured = markdown.code(text, LANGUAGES.get(path.suffix, "text"))
    return f"# `{path.name}`\n\n`{name}`\n\n{markdown.raw(coloured)}\n"


def _folder(stage: Stage, name: str, place: str) -> str:
    entries = []
    for path in sorted((stage.root / name).iterdir()):
        if path.name.startswith((".", "__")) or path.name in ("build", "node_modules"):
            continue
        target = f"{name}/{path.name}"
        words = f"<code>{escape(path.name)}</code>"
        if path.suffix in (".py", ".md"):
            words = f'<a href="{stage.link(place, "", target)}">{words}</a>'
        entries.append(f"<li>{words}{_first_line(path)}</li>")
    return f"# `{name}`\n\n<ul>{''.join(entries)}</ul>\n"


def _first_line(path: Path) -> str:
    if path.suffix != ".py":
        return ""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return f": {escape(said.splitlines()[0])}" if said else ""


def write_labs_index(stage: Stage, cards: str) -> None:
    """The list of labs as pictures."""
    text = (
        f"# The labs\n\n{len(RUN_ORDER)} notebooks, in the order in which they are run. Each page shows one as it was "
        "executed: text, code, outputs and figures. To work in one, take the learner's copy, which has neither "
        f"solutions nor outputs: `make learner`, then `make lab`.\n\n{cards}\n"
    )
    stage.page("labs/index.html", text, hide="[toc]")


def write_run(stage: Stage, labs: list[Summary], measured: dict[str, str]) -> None:
    """What every lab has shown in the last complete run, from results/run.json."""
    record = json.loads((stage.root / "results" / "run.json").read_text(encoding="utf-8"))
    pages = {lab.id: lab for lab in labs}
    rows = [_run_row(outcome, pages) for outcome in record["labs"]]
    points = sum(len(outcome["checkpoints"]) for outcome in record["labs"])
    passed = sum(point["passed"] for outcome in record["labs"] for point in outcome["checkpoints"])
    origin = record["provenance"]
    tables = [
        f"[{title}]({href('results/index.html', place.replace('.html', '.md'))})" for title, place in measured.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    text = (
        f"# What was measured\n\n**{passed} of {points} validation checkpoints held** when the labs last ran from "
        f"first to last: {record['seconds'] / 60:.1f} minutes, {origin['date'][:10]}, {origin['cpu']}, "
        f"{origin['cores']} cores, Python {origin['python']}, {versions}.\n\n"
        f"More tables: {', '.join(tables)}. The figures of the deck and of the labs come from the same records, and "
        "say so.\n\n## Lab by lab\n\n"
        f'<div class="wide"><table><thead><tr><th>Lab</th>'
        f"<th>Validation checkpoints</th><th>Seconds</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
    )
    stage.page("results/index.html", text)


def _run_row(outcome: dict, pages: dict[str, Summary]) -> str:
    lab = outcome["lab"]
    name = f'<a href="{href("results/index.html", pages[lab].page)}">{lab}</a>' if lab in pages else lab
    points = "".join(
        f'<li class="{"passed" if point["passed"] else "failed"}">{escape(point["name"])}'
        f"{'' if point['passed'] else ': failed'}</li>"
        for point in outcome["checkpoints"]
    )
    return f'<tr><td>{name}</td><td><ul class="points">{points}</ul></td><td>{outcome["seconds"]:.0f}</td></tr>'


def plain(text: str) -> str:
    """A table cell's Markdown without its marks."""
    return re.sub(r"[*`]", "", text)
