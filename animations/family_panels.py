"""Pictures that fill the place of the model: what a wrong tokenizer does, who refuses it, and all families' texts."""

from manim import DOWN, LEFT, RIGHT, Line, VGroup

from course_helpers.palette import ALARM, ALARM_TINT, CHARCOAL, HAIRLINE, MUTED, NAVY, SLATE, SOUND, SOUND_TINT, WHITE
from course_helpers.validation import LAYERS

from .canvas import BOLD, HEAD, LABEL, MEDIUM, SMALLEST, Box, Words, code, lines, px, words
from .family_mobjects import MODEL, OUTPUT, TABS
from .family_pictures import PICTURES, Dial
from .style import EDGE, Card, Token
from .swap_parts import Part
from .swap_story import PROMPT, Mistake, Stop

#: The width of the titles before the rows of the misread prompt.
TITLES = 200
#: The table of all families takes the place of the tabs, the model, and the output.
TABLE = Box(TABS.left, OUTPUT.bottom, TABS.right, TABS.top)
#: Its columns: the family, the five things inside, and what was written.
NAME, INSIDE, TEXT = 176, 132, 880
#: The size at which a picture is drawn, and its height in the table.
DRAWN, GLYPH = Box(0, 0, 307, 290), 84
#: The refusal takes the place of the model and the output.
PANEL = Box(MODEL.left, OUTPUT.bottom, MODEL.right, MODEL.top).inset(0, 60)
#: What is shown of a refusal, line by line.
SHOWN = ("field", "expected", "found", "likely cause")


def reading(mistake: Mistake) -> list[VGroup]:
    """The prompt as one tokenizer cuts it, its ids, and what the same ids mean to a model of another family."""
    rows = MODEL.inset(0, 64).rows([50, 50, 50], gap=44)
    titles = (f"{mistake.tokenizer.title} cuts", "ids", f"{mistake.model.title} reads")
    places = [row.columns([TITLES, row.width - TITLES])[1].columns(len(mistake.read)) for row in rows]
    made = [VGroup(_label(row, title)) for row, title in zip(rows, titles, strict=True)]
    for token, meant, *column in zip(mistake.tokenizer.tokens, mistake.read, *places, strict=True):
        pieces = [Token(token.text, size=SMALLEST), code(str(token.id), LABEL, NAVY)]
        pieces.append(Token(meant, size=SMALLEST, fill=ALARM_TINT, edge=ALARM))
        for group, piece, place in zip(made, pieces, column, strict=True):
            group.add(place.place(piece))
        for group, upper, lower in zip(made[1:], column[:-1], column[1:], strict=True):
            group.add(Line(upper.at(0.5, 0), lower.at(0.5, 1)).set_stroke(SLATE, EDGE))
    return made


def _label(row: Box, text: str):
    return row.columns([TITLES, row.width - TITLES])[0].place(words(text, LABEL, MUTED), LEFT)


def layers(mistake: Mistake) -> VGroup:
    """The layers of the validation: passed, failed, not reached."""
    left = PANEL.columns([500, 1200], gap=60)[0]
    rows = VGroup()
    for name, row in zip(LAYERS, left.rows(len(LAYERS), gap=14), strict=True):
        passed, failed = name in mistake.passed, name == mistake.failed
        outcome = "passed" if passed else "failed" if failed else "not reached"
        fill, ink = (SOUND_TINT, SOUND) if passed else (ALARM_TINT, ALARM) if failed else (None, MUTED)
        card = Card.over(row, fill=fill or WHITE, edge=ink if failed else HAIRLINE, radius=10)
        inner = row.inset(20, 0)
        name_line = inner.place(words(name, LABEL, CHARCOAL, weight=MEDIUM), LEFT)
        rows.add(VGroup(card, name_line, inner.place(words(outcome, LABEL, ink), RIGHT)))
    return rows


def refusal(mistake: Mistake) -> VGroup:
    """The words with which the package refuses the pair."""
    right = PANEL.columns([500, 1200], gap=60)[1]
    heading, *rows = right.rows([70, *[50] * len(SHOWN)], gap=14)
    said = words(f"{mistake.failed}: {mistake.reason}", HEAD, ALARM, weight=MEDIUM, fit=heading.width)
    told = VGroup(heading.place(said, LEFT))
    for name, row in zip(SHOWN, rows, strict=True):
        title, value = row.columns([200, row.width - 200])
        told.add(title.place(words(name, LABEL, MUTED), LEFT))
        told.add(value.place(code(mistake.facts[name], LABEL, CHARCOAL, fit=value.width), LEFT))
    return told


def table(stops: tuple[Stop, ...]) -> tuple[VGroup, list[VGroup]]:
    """A heading, and a row for each family: its inside in small, and how it continued the prompt."""
    heading, *rows = TABLE.rows([52, *[104] * len(stops)])
    titles = list(stops[0].parts)
    _, *columns, text = heading.columns([NAME, *[INSIDE] * len(titles), TEXT], gap=8)
    head = VGroup(text.place(words(f"{PROMPT} …", LABEL, NAVY, weight=MEDIUM), LEFT))
    head.add(*(column.place(words(title, SMALLEST, MUTED)) for title, column in zip(titles, columns, strict=True)))
    return head, [table_row(stop, row) for stop, row in zip(stops, rows, strict=True)]


def table_row(stop: Stop, row: Box) -> VGroup:
    """One family."""
    name, *columns, text = row.columns([NAME, *[INSIDE] * len(stop.parts), TEXT], gap=8)
    upper, lower = name.inset(0, 16).rows(2)
    made = VGroup(
        Line(row.at(0, 1), row.at(1, 1)).set_stroke(HAIRLINE, EDGE),
        upper.place(words(stop.title, LABEL, NAVY, weight=BOLD), LEFT),
        lower.place(words(f"{len(stop.tokens)} tokens", SMALLEST, MUTED), LEFT),
    )
    for (title, part), column in zip(stop.parts.items(), columns, strict=True):
        made.add(column.place(glyph(title, part)))
    return made.add(story(stop, text))


def story(stop: Stop, box: Box) -> VGroup:
    """How a family continued the prompt, after the prompt's last word, in one line or two."""
    lead = f"… {PROMPT.split()[-1]}"
    texts = broken(f"{lead}{stop.continuation}", box.width)
    text = box.place(lines(*(words(line, LABEL, NAVY) for line in texts), gap=0), LEFT)
    first = words(texts[0].removeprefix(lead).strip(), LABEL, NAVY).align_to(text[0], RIGHT + DOWN)
    return VGroup(words(lead, LABEL, MUTED).align_to(text[0], LEFT + DOWN), first, *text[1:])


def broken(text: str, width: float) -> list[str]:
    """A text in lines that are no wider than so many pixels."""
    made = [""]
    for word in text.split():
        longer = f"{made[-1]} {word}".strip()
        if words(longer, LABEL).width > px(width):
            made.append(word)
        else:
            made[-1] = longer
    return made


def glyph(title: str, part: Part) -> VGroup:
    """The picture of a part without its words, in small."""
    pieces = PICTURES[title](part, DRAWN).pieces
    pieces.pop("token", None)  # a word in a box
    for piece in pieces.values():
        if isinstance(piece, Dial):
            piece.turned()
    family = VGroup(*pieces.values()).get_family()
    shapes = [piece for piece in family if piece.has_points() and not isinstance(piece, Words)]
    return VGroup(*shapes).scale(GLYPH / DRAWN.height, scale_stroke=True)
