"""A page for each lab, from the executed notebook as it is committed: nothing is executed."""

import base64
import re
from dataclasses import dataclass
from html import escape

from course_helpers.labs.checkpoint import CHECKPOINT_MIME_TYPE
from course_helpers.labs.order import RUN_ORDER, STAGES, Lab
from course_helpers.labs.pair import Cell, Notebook, read_notebook, tags

from . import markdown
from .stage import Stage, href, lab_page


@dataclass(frozen=True)
class Picture:
    """A figure of a notebook: the file in the site, its description, and its width on the page."""

    place: str
    alt: str
    width: int


@dataclass(frozen=True)
class Summary:
    """What other pages say about a lab."""

    id: str
    title: str  # without the id
    facts: dict[str, str]  # the table at the top: Objective, Before this, Time, Hardware, Slides
    picture: Picture

    @property
    def page(self) -> str:
        return lab_page(self.id)


def write_lab(stage: Stage, lab: Lab) -> Summary:
    """Write the page, its figures and the two files to download."""
    notebook = read_notebook(lab)
    writer = _Writer(stage, lab)
    parts = [writer.cell(cell) for cell in notebook.cells]
    title, rest = parts[0].split("\n\n", 1)
    parts[0] = f"{title}\n\n{_downloads(stage, lab)}\n\n{rest}"
    stage.page(lab_page(lab.id), "\n\n".join(part for part in parts if part), description=_description(notebook))
    heading = notebook.cells[0].source.splitlines()[0]
    return Summary(lab.id, heading.partition(" · ")[2], facts(notebook), writer.pictures[0])


def facts(notebook: Notebook) -> dict[str, str]:
    """The table at the top of a lab, by its row names."""
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", notebook.cells[0].source, flags=re.MULTILINE)
    return dict(rows)


def stage_of(lab: str) -> str:
    """The part of the course that a lab belongs to."""
    return next(stage for stage, labs in STAGES.items() if lab in labs)


def _description(notebook: Notebook) -> str:
    return '"' + facts(notebook)["Objective"].replace('"', "'") + '"'


def _downloads(stage: Stage, lab: Lab) -> str:
    links = []
    for path, words in ((lab.notebook, "Notebook with outputs"), (lab.source, "Python source")):
        place = stage.copy(path, f"labs/files/{path.name}")
        links.append(f'<a href="{href(lab_page(lab.id), place)}" download>{words}</a>')
    where = f"Step {RUN_ORDER.index(lab.id) + 1} of {len(RUN_ORDER)} · {escape(stage_of(lab.id))}"
    return f'<p class="lab-bar"><span>{where}</span>{"".join(links)}<code>make run LABS={lab.id}</code></p>'


class _Writer:
    """Cell by cell; keeps count of the figures."""

    def __init__(self, stage: Stage, lab: Lab):
        self.stage, self.lab, self.pictures, self.begun = stage, lab, [], False
        self.page = lab_page(lab.id)
        self.document = f"notebooks/{lab.notebook.name}"

    def cell(self, cell: Cell) -> str:
        kinds = tags(cell)
        if cell.cell_type == "markdown":
            if "solution-note" in kinds:
                return _folded("About the solutions", markdown.html(cell.source, self.resolve))
            first, self.begun = not self.begun, True
            return markdown.page_text(cell.source, self.resolve, title=first)
        body = markdown.code(cell.source) + "".join(map(self.output, cell.outputs))
        if "solution" in kinds:
            return _folded("Solution", body)
        label = '<p class="label">Exercise: your code goes here</p>' if "exercise" in kinds else ""
        return markdown.raw(f'<div class="cell{" exercise" if label else ""}">{label}{body}</div>')

    def resolve(self, target: str) -> str | None:
        return self.stage.link(self.page, self.document, target)

    def output(self, output: Cell) -> str:
        if output.output_type == "stream":
            return _printed(output.text)
        data = output.get("data", {})
        if CHECKPOINT_MIME_TYPE in data:
            return _checkpoint(data[CHECKPOINT_MIME_TYPE])
        if "image/png" in data:
            return self.picture(output)
        if "text/markdown" in data:
            return f'<div class="output">{markdown.html(data["text/markdown"], self.resolve)}</div>'
        return _printed(data.get("text/plain", ""))

    def picture(self, output: Cell) -> str:
        about = output.metadata["image/png"]
        place = f"labs/figures/{self.lab.id.lower()}-{len(self.pictures) + 1:02d}.png"
        self.stage.write(place, base64.b64decode(output.data["image/png"]))
        picture = Picture(place, about["alt"], about["width"])
        self.pictures.append(picture)
        return image(self.page, picture)


def image(page: str, picture: Picture, **attributes: str) -> str:
    """A figure as an element of a page."""
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    source, alt = href(page, picture.place), escape(picture.alt)
    return f'<img class="figure" src="{source}" alt="{alt}" width="{picture.width}" loading="lazy"{more}>'


def _printed(text: str) -> str:
    return f'<pre class="output">{escape(text.rstrip())}</pre>' if text.strip() else ""


def _checkpoint(data: dict) -> str:
    passed = "passed" if data["passed"] else "failed"
    detail = f"<span>{escape(data['detail'])}</span>" if data["detail"] else ""
    return (
        f'<p class="checkpoint {passed}"><b>Validation checkpoint {passed}</b> {escape(data["checkpoint"])}{detail}</p>'
    )


def _folded(title: str, body: str) -> str:
    return markdown.raw(f'<details class="solution"><summary>{title}</summary>\n{body}\n</details>')
