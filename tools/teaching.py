"""What an instructor needs on paper, made from what is there: the plan of the two hours, and questions with answers.

The slides say how many minutes they take, what to ask and what the answer is; the labs say what to predict and what
comes out, what to write and how it can be solved; the last run says how many seconds every lab takes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course_helpers.labs.order import Lab, find_labs
from course_helpers.labs.pair import Cell, Notebook, read_notebook, tags
from slides.deck import Slide, read_deck

ROOT = Path(__file__).parents[1]
PREDICT = "**Predict, then run.**"
LONGEST_OUTPUT = 12  # lines of a printed answer
#: The end of a paragraph that only leads on to the next cell: its last sentence, if that ends in a colon.
LEAD_IN = re.compile(r"(?:^|(?<=[.!?)*])\s+)(?:(?![.!?][)*]*\s).)+:$", re.DOTALL)
HEAD = "| From | Minutes | Slide | Have open | It runs | Show |\n|---|---|---|---|---|---|"
BEFORE = """\
Run the labs of an hour before it begins, and keep them open: there is time to show, not to wait. The two hours have no
pause; put it between them. Late? A slide with a lab can be left to the lab: say its one sentence, and go on.
"""


@dataclass(frozen=True)
class Question:
    """One question: where it is asked, the words, and the answer in Markdown."""

    where: str
    text: str
    answer: str


def timing_plan(slides: list[Slide] | None = None) -> str:
    """The two hours, slide by slide, with the labs to have open and how long they run."""
    seconds, provenance = _measured()
    slides = slides or read_deck()
    parts = [
        "# Timing plan\n",
        f"Minutes are those of the slides; seconds are those of the last run of all labs: {provenance}.\n",
        BEFORE,
    ]
    for hour in (1, 2):
        parts.append(f"## Hour {hour}\n\n{HEAD}")
        at = 0.0
        for slide in (slide for slide in slides if slide.hour == hour):
            lab = slide.anchor.lab if slide.anchor else ""
            runs = f"{seconds[lab]:.0f} s" if lab in seconds else ""
            title = slide.title.replace(" - ", "\u00a0– ")
            parts.append(
                f"| {_clock(at)} | {slide.minutes:g} | {slide.number} · {title} | {lab} | {runs} | {_show(slide)} |"
            )
            at += slide.minutes
        parts.append(f"| {_clock(at)} | | end of hour {hour} | | | |\n")
    parts += ["## The labs, before or after\n", "| Lab | Time | It runs |", "|---|---|---|"]
    for lab in find_labs():
        time = re.search(r"\*\*Time\*\* \| (.+) \|", read_notebook(lab).cells[0].source)[1]
        parts.append(
            f"| {lab.id} | {time} | {seconds[lab.id]:.0f} s |" if lab.id in seconds else f"| {lab.id} | {time} | |"
        )
    return "\n".join(parts) + "\n"


def _show(slide: Slide) -> str:
    """What the notes say to show, on one line."""
    said = re.search(r"\*\*Show\.\*\* (.+?)(?:\n\n|$)", slide.notes, flags=re.DOTALL)
    return " ".join(said[1].split()) if said else ""


def _clock(minutes: float) -> str:
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}"


def _measured() -> tuple[dict[str, float], str]:
    record = json.loads((ROOT / "results" / "run.json").read_text(encoding="utf-8"))
    origin = record["provenance"]
    return (
        {outcome["lab"]: outcome["seconds"] for outcome in record["labs"]},
        f"{origin['cpu']}, {origin['cores']} cores, {origin['date'][:10]}",
    )


def question_bank(slides: list[Slide] | None = None) -> str:
    """All questions with their answers folded away, as Markdown."""
    parts = [
        "# Question bank\n",
        "Made from the slides' notes and from the labs. Every answer is folded: click it open.\n",
    ]
    parts += ["## From the slides\n", *map(_folded, slide_questions(slides or read_deck()))]
    for lab in find_labs():
        parts += [f"## From {lab.id}\n", *map(_folded, lab_questions(lab))]
    return "\n".join(parts) + "\n"


def _folded(question: Question) -> str:
    stop = "" if question.where.endswith("?") else "."
    folded = f"<details><summary>Answer</summary>\n\n{question.answer}\n\n</details>\n"
    return f"**{question.where}{stop}** {question.text}\n\n{folded}"


def slide_questions(slides: list[Slide]) -> Iterator[Question]:
    """What the notes ask: the words up to the last question mark, and what follows it, perhaps in parentheses."""
    for slide in slides:
        asked = re.search(r"\*\*Ask\.\*\* (.+?)(?:\n\n|$)", slide.notes, flags=re.DOTALL)[1]
        question, mark, answer = asked.strip().rpartition("? ")
        if answer.startswith("(") and answer.endswith(")"):
            answer = answer[1:-1]
        yield Question(f"Slide {slide.number}", question + mark.strip(), answer)


def lab_questions(lab: Lab) -> Iterator[Question]:
    """Predictions with what came out, then exercises with their solutions."""
    notebook = read_notebook(lab)
    section = ""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        before, asked, text = cell.source.partition(PREDICT)
        section = (re.findall(r"^## (.+)$", before, flags=re.MULTILINE) or [section])[-1]
        answer = asked and _what_came_out(notebook, index + 1)
        if answer:  # one lab asks what only a later section answers
            yield Question(f"Predict, in {section}", text.strip(), answer)
    yield from _exercises(notebook)


def _what_came_out(notebook: Notebook, start: int) -> str:
    parts = []
    for cell in notebook.cells[start:]:
        if cell.cell_type == "markdown":
            parts.append(_without_lead_in(re.split(r"\n\n|\n#", cell.source.strip())[0], bool(parts)))
            break
        parts += filter(None, map(_output, cell.outputs))
    return "\n\n".join(part for part in parts if part and not part.startswith("#"))


def _without_lead_in(paragraph: str, may_be_nothing: bool) -> str:
    """A paragraph without a last sentence that leads on to what the answer does not hold."""
    rest = LEAD_IN.sub("", paragraph)
    return rest if rest or may_be_nothing else paragraph


def _output(output: Cell) -> str:
    about = output.get("metadata", {}).get("image/png")
    if about:
        return f"*The figure:* {about['alt']}"
    if output.output_type != "stream":
        return ""
    lines = output.text.rstrip().splitlines()
    more = ["..."] if len(lines) > LONGEST_OUTPUT else []
    return "\n".join(["```text", *lines[:LONGEST_OUTPUT], *more, "```"])


def _exercises(notebook: Notebook) -> Iterator[Question]:
    words, stub = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("### Exercise"):
            title, _, words = cell.source.removeprefix("### ").partition("\n")
        elif "exercise" in tags(cell):
            stub = cell.source
        elif "solution" in tags(cell):
            yield Question(title, f"{words.strip()}\n\n{_python(stub)}", _python(cell.source))


def _python(source: str) -> str:
    return f"```python\n{source}\n```"
