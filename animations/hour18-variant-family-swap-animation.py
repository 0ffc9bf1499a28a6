"""Hour 18: one workflow, six families. Select, load, bind, generate never move; what is inside the model does.

    python -m animations.render --film swap

Everything on the screen comes from `swap_story`: bundled checkpoints that are really loaded, tokenizers that really cut
the prompt, texts that are really written, and a wrong tokenizer that the package really refuses.
"""

from itertools import pairwise

from manim import LEFT, Animation, AnimationGroup, FadeIn, FadeOut, LaggedStart, Mobject, VGroup

from animations.canvas import LABEL, px, words
from animations.family_mobjects import (
    LIFT,
    PROMPT_ROW,
    TEXT_ROW,
    Tabs,
    Writing,
    cells,
    continued,
    row_label,
    row_place,
    stations,
)
from animations.family_panels import layers, reading, refusal, table
from animations.film import OPENING, QUICK, SLOW, STEP, Film
from animations.style import Card, Token
from animations.swap_story import PROMPT, SETTINGS, Mistake, Stop, mistake, news, stops
from course_helpers.palette import ALARM, GOLD, MUTED, NAVY

#: The tokens of the prompt that the film follows into the experts; the last stays.
SENT = (0, 3, -1)
SELECT, LOAD, BIND, GENERATE = range(4)
CALLS = ('source = "…"', "load_model(source)", "load_tokenizer(source)", "generate(model, ids)")


class VariantFamilySwap(Film):
    """The film."""

    title = "One workflow, six families"
    stages = ("1  Select family", "2  Load weights", "3  Bind tokenizer", "4  Generate")
    loop = ("swap to Gemma 3", "swap to Gemma 3")

    def storyboard(self) -> None:
        """The workflow, a first family through it, five swaps, one mistake, and all six side by side."""
        self.families, self.output = stops(), []
        self.one_workflow()
        self.first_family(self.families[0])
        for before, now in pairwise(self.families):
            self.swap(before, now)
        self.wrong_tokenizer(mistake())
        self.refused(mistake())
        self.bound_again(mistake().model)
        self.equal_settings()

    # The sections.

    def one_workflow(self) -> None:
        """Four calls, which stay where they are until the end; under them, the families and the inside of a model."""
        self.section("one workflow", "From a checkpoint to a text in four steps: select, load, bind, generate.", SELECT)
        self.ground, self.stations = stations(CALLS)
        calls = [station.call.line for station in self.stations]
        self.play(FadeIn(self.ground), run_time=QUICK)
        self.play(LaggedStart(*(FadeIn(call, shift=LIFT) for call in calls), lag_ratio=0.3, run_time=SLOW))
        self.wait(OPENING)
        self.tabs, self.cells = Tabs([stop.title for stop in self.families]), cells(self.families[0].parts)
        empty = [VGroup(*cell.mobjects) for cell in self.cells.values()]
        arrive = LaggedStart(*map(FadeIn, (self.tabs, *empty)), lag_ratio=0.15, run_time=SLOW)
        self.say("Six model families will go through them. Five things inside a model differ.", arrive)

    def first_family(self, now: Stop) -> None:
        """GPT-2, which everybody here knows, step by step."""
        inside, outside = news(now)
        self.section(f"{now.title} goes through", inside)
        self.select(now)
        self.load(now, list(now.parts))
        self.labels = VGroup(row_label(PROMPT_ROW, "prompt"), row_label(TEXT_ROW, "written"))
        self.bind(now, FadeIn(self.labels), caption=outside)
        self.generate(now, *self.stations[GENERATE].tell(SETTINGS, "the same for every family"))

    def swap(self, before: Stop, now: Stop) -> None:
        """Another family: one word changes outside, and inside whatever this family does in its own way."""
        inside, outside = news(now)
        self.section(f"swap to {now.title}", inside)
        changed = [self.cells[title] for title in now.changed(before)]
        self.select(now)
        self.load(now, now.changed(before), *(mark for cell in changed for mark in cell.mark()))
        self.set_in_motion(now, now.changed(before))
        self.bind(now, *(mark for cell in changed for mark in cell.unmark()), caption=outside)
        self.generate(now)

    def wrong_tokenizer(self, wrong: Mistake) -> None:
        """The step that is easily forgotten: the model is another one, the tokenizer is still that of the last."""
        model, other = wrong.model.title, wrong.tokenizer.title
        caption = f"A step forgotten: {model} is loaded, and {other}'s tokenizer still in use."
        self.section("the wrong tokenizer", caption)
        self.misread(wrong)
        bits = f"{wrong.bits:.0f} bits for 100 bytes, where {wrong.own_bits:.0f} are enough."
        self.say(f"It reads other words and writes noise: {bits}")
        self.write((wrong.written,), ALARM)

    def refused(self, wrong: Mistake) -> None:
        """The validation sees it, and says what it is."""
        self.section("refused", "Nothing crashed. The validation refuses the pair before anybody reads such a text.")
        passed, told = layers(wrong), refusal(wrong)
        self.play(*map(FadeOut, (*self.panel, *self.output, self.labels)), run_time=QUICK)
        self.play(LaggedStart(*(FadeIn(row, shift=LIFT) for row in passed), lag_ratio=0.35, run_time=SLOW))
        station = self.stations[BIND].tell("refused", f"by the layer “{wrong.failed}”", ALARM)
        self.play(*station, LaggedStart(*map(FadeIn, told), lag_ratio=0.2, run_time=STEP))
        token, text = wrong.facts["found"].split(", ", 1)
        self.say(f"Token {token} ends the texts of {wrong.model.title}. In this tokenizer it is plain text: {text}.")

    def bound_again(self, now: Stop) -> None:
        """The model is as it was; bound to its own tokenizer, it writes what it wrote before."""
        caption = f"With the tokenizer that came with its weights, {now.title} tells its story again."
        self.section("bound again", caption, clear=True, keep=[self.tabs, *self.workflow()])
        self.output = []
        inside = [FadeIn(mobject) for cell in self.cells.values() for mobject in cell.mobjects]
        call = self.stations[BIND].ask(CALLS[BIND])
        self.bind(now, FadeIn(self.labels), *call, *inside)
        self.generate(now)

    def equal_settings(self) -> None:
        """All six texts under each other, and above them what has not changed."""
        caption = "Same prompt, same settings, same four calls. The checkpoint decided everything else."
        self.section("equal settings", caption, clear=True, keep=self.workflow())
        cuts = len({stop.tokens for stop in self.families})
        models = len({stop.model_class for stop in self.families})
        told = self.stations[SELECT].ask("source = family.tiny")
        told += self.stations[SELECT].tell(f"{len(self.families)} families", "one row each in FAMILIES")
        told += self.stations[LOAD].tell(f"{models} model classes", "built from config.json")
        told += self.stations[BIND].tell(f"{cuts} ways to cut the prompt", "read from the tokenizer's files")
        told += self.stations[GENERATE].tell("1 way to generate", SETTINGS)
        heading, rows = table(self.families)
        self.play(*told, FadeIn(heading), *(station.rest() for station in self.stations), run_time=STEP)
        self.play(LaggedStart(*(FadeIn(row, shift=LIFT) for row in rows), lag_ratio=0.4, run_time=2 * SLOW))

    # The steps of the workflow.

    def select(self, now: Stop) -> None:
        """The source is the one word that changes; its config.json says which classes it needs."""
        station = self.stations[SELECT]
        source = station.ask(f'source = "{now.source}"')
        told = station.tell(now.model_class, f"model_type {now.model_type}")
        tab = self.tabs.select(self.families.index(now))
        self.play(*self.at_work(SELECT), *source, *told, *tab, run_time=STEP)

    def load(self, now: Stop, titles: list[str], *marks: Animation) -> None:
        """Tensors travel from the station into the cells, and what differs takes its new shape."""
        station = self.stations[LOAD]
        told = station.tell(f"{now.parameters:,} parameters", f"from {now.tensors} tensors")
        tensors = [Card(26, 26, GOLD, GOLD, radius=6).move_to(station.frame.get_bottom()) for _ in titles]
        ends = [self.cells[title].place.at() for title in titles]
        travel = [tensor.animate.move_to(end) for tensor, end in zip(tensors, ends, strict=True)]
        self.play(*self.at_work(LOAD), *told, LaggedStart(*travel, lag_ratio=0.1), run_time=STEP)
        morphs = [AnimationGroup(*self.cells[title].show(now.parts[title])) for title in titles]
        self.play(*map(FadeOut, tensors), *marks, LaggedStart(*morphs, lag_ratio=0.12), run_time=SLOW)
        for title in titles:
            self.cells[title].settle(self)

    def set_in_motion(self, now: Stop, titles: list[str]) -> None:
        """What moves inside a model: the dials turn with the text, the router sends tokens to their experts."""
        turning = [move for title in titles for move in self.cells[title].turn(run_time=SLOW)]
        if turning:
            self.play(*turning, run_time=SLOW)
        part = now.parts["Feed-forward"]
        for token in SENT if "experts" in part.drawn else ():
            cell = self.cells["Feed-forward"]
            self.play(*cell.send(part, token), run_time=STEP)
            cell.settle(self)

    def bind(self, now: Stop, *others: Animation, caption: str = "") -> None:
        """The checkpoint's own tokenizer cuts the same prompt in its own way."""
        told = self.stations[BIND].tell(f"{len(now.tokens)} tokens", now.tokenizer)
        changes = [*self.at_work(BIND), *told, *map(FadeOut, self.output), *others]
        self.say(caption, *changes) if caption else self.play(*changes)
        row = VGroup(*(Token(token.text, token.id) for token in now.tokens)).arrange(buff=px(10))
        self.output = [row_place(PROMPT_ROW).place(row, LEFT)]
        self.play(LaggedStart(*(FadeIn(token, shift=LIFT) for token in row), lag_ratio=0.12, run_time=STEP))

    def generate(self, now: Stop, *told: Animation) -> None:
        """The same call, the same settings, and the text that this model really writes."""
        self.write(now.written, NAVY, *self.at_work(GENERATE), *told)

    def write(self, pieces: tuple[str, ...], colour: str, *others: Animation) -> None:
        """Token by token, after the last word of the prompt."""
        lead, line = continued(PROMPT.split()[-1], pieces, colour)
        self.play(FadeIn(lead, run_time=QUICK), Writing(line, pieces, run_time=SLOW), *others)
        self.output += [lead, line]

    def at_work(self, stage: int) -> list[Animation]:
        """The animations that light a station and its stage."""
        # What does not move is drawn once if it lies behind all that moves.
        self.bring_to_back(*(part for cell in self.cells.values() for part in cell.mobjects if part in self.mobjects))
        others = [station.rest() for number, station in enumerate(self.stations) if number != stage]
        return [*self.go(stage), self.stations[stage].light(), *others]

    def workflow(self) -> list[Mobject]:
        """What stays on the screen all the time."""
        return [self.ground, *(part for station in self.stations for part in station.mobjects)]

    # The beats of the mistake.

    def misread(self, wrong: Mistake) -> None:
        """The call with the wrong source; the prompt as it is cut, and what the ids mean to this model."""
        station = self.stations[BIND]
        told = station.ask(f'load_tokenizer("{wrong.tokenizer.source}")', ALARM)
        told += station.tell(f"{len(wrong.tokenizer.tokens)} tokens", f"still {wrong.tokenizer.title}'s")
        inside = [FadeOut(mobject) for cell in self.cells.values() for mobject in cell.mobjects]
        self.play(*self.at_work(BIND), *told, *inside, *map(FadeOut, self.output), run_time=STEP)
        prompt = row_place(PROMPT_ROW).place(words(PROMPT, LABEL, MUTED), LEFT)
        self.output, self.panel = [prompt], reading(wrong)
        self.play(station.light(ALARM), FadeIn(prompt), run_time=QUICK)
        for row in self.panel:
            self.play(LaggedStart(*(FadeIn(part, shift=-LIFT) for part in row), lag_ratio=0.08, run_time=STEP))
