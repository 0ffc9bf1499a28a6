"""Pictures that fill the place of the model: what a wrong tokenizer does, who refuses it, and all families' texts."""

from manim import LEFT, RIGHT, Line, VGroup

from course_helpers.palette import ALARM, ALARM_TINT, CHARCOAL, HAIRLINE, MUTED, NAVY, SOUND, SOUND_TINT
from course_helpers.validation import LAYERS

from .canvas import BODY, BOLD, HEAD, LABEL, MEDIUM, SMALLEST, Box, code, words
from .family_mobjects import LABELS, MODEL, OUTPUT, TABS
from .style import EDGE, Card, Token
from .swap_story import PROMPT, Mistake, Stop

#: The table of all texts takes the place of the tabs, the model, and the output.
TABLE = Box(TABS.left, OUTPUT.bottom, TABS.right, TABS.top)
TABLE_COLUMNS = (190, 160, 1410)
#: What is shown of a refusal, line by line.
SHOWN = ("field", "expected", "found", "likely cause")


def reading(mistake: Mistake) -> tuple[VGroup, VGroup, VGroup]:
    """The prompt as one tokenizer cuts it, its ids, and what the same ids mean to a model of another family."""
    cut, ids, read = MODEL.inset(36, 70).rows(3, gap=30)
    labels = (f"{mistake.tokenizer.title} cuts", "ids", f"{mistake.model.title} reads")
    rows = [VGroup(_label(row, label)) for row, label in zip((cut, ids, read), labels, strict=True)]
    tokens = mistake.tokenizer.tokens
    places = [row.columns([LABELS, row.width - LABELS])[1].columns(len(tokens)) for row in (cut, ids, read)]
    for index, (token, meant) in enumerate(zip(tokens, mistake.read, strict=True)):
        rows[0].add(places[0][index].place(Token(token.text, size=SMALLEST)))
        rows[1].add(places[1][index].place(code(str(token.id), LABEL, NAVY)))
        rows[2].add(places[2][index].place(Token(meant, size=SMALLEST, fill=ALARM_TINT, edge=ALARM)))
    return tuple(rows)


def _label(row: Box, text: str):
    return row.columns([LABELS, row.width - LABELS])[0].place(words(text, SMALLEST, MUTED), LEFT)


def layers(mistake: Mistake) -> VGroup:
    """The layers of the validation: passed, failed, not reached."""
    left = MODEL.columns([560, 1200])[0].inset(36, 44)
    rows = VGroup()
    for name, row in zip(LAYERS, left.rows(len(LAYERS), gap=14), strict=True):
        passed, failed = name in mistake.passed, name == mistake.failed
        outcome = "passed" if passed else "failed" if failed else "not reached"
        fill, ink = (SOUND_TINT, SOUND) if passed else (ALARM_TINT, ALARM) if failed else (None, MUTED)
        card = Card.over(row, fill=fill or "#FFFFFF", edge=ink if failed else HAIRLINE, radius=10)
        inner = row.inset(20, 0)
        name_line = inner.place(words(name, LABEL, CHARCOAL, weight=MEDIUM), LEFT)
        rows.add(VGroup(card, name_line, inner.place(words(outcome, LABEL, ink), RIGHT)))
    return rows


def refusal(mistake: Mistake) -> VGroup:
    """The words with which the package refuses the pair."""
    right = MODEL.columns([560, 1200])[1].inset(36, 44)
    heading, *rows = right.rows([70, *[50] * len(SHOWN)], gap=14)
    lines = VGroup(
        heading.place(words(f"{mistake.failed}: {mistake.reason}", HEAD, ALARM, weight=MEDIUM, fit=heading.width), LEFT)
    )
    for name, row in zip(SHOWN, rows, strict=True):
        title, value = row.columns([200, row.width - 200])
        lines.add(title.place(words(name, LABEL, MUTED), LEFT))
        lines.add(value.place(code(mistake.facts[name], LABEL, CHARCOAL, fit=value.width), LEFT))
    return lines


def table(stops: tuple[Stop, ...]) -> tuple[VGroup, list[VGroup]]:
    """The prompt as heading, and a row for each family: how many tokens the prompt is for it, and what it wrote."""
    heading, *rows = TABLE.rows([70, *[96] * len(stops)], gap=0)
    title, _, text = heading.columns(TABLE_COLUMNS)
    head = VGroup(title.place(words("prompt", LABEL, MUTED), LEFT), text.place(words(f"{PROMPT} …", BODY, MUTED), LEFT))
    lines = []
    for stop, row in zip(stops, rows, strict=True):
        title, count, text = row.columns(TABLE_COLUMNS)
        rule = Line(row.at(0, 1), row.at(1, 1)).set_stroke(HAIRLINE, EDGE)
        name = title.place(words(stop.title, LABEL, NAVY, weight=BOLD), LEFT)
        tokens = count.place(words(f"{len(stop.tokens)} tokens", LABEL, MUTED), LEFT)
        written = "… " + stop.continuation.strip()
        lines.append(VGroup(rule, name, tokens, text.place(words(written, BODY, NAVY, fit=text.width), LEFT)))
    return head, lines
