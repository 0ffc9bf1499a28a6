"""Film of slide 7: how weights get from a checkpoint into a model, in five stages. A storyboard, section by section.

Nothing is claimed here that was not done: `loading_story` has done it; `loading_pictures`, `loading_model` and
`loading_recap` draw it.
"""

import numpy as np
from manim import (
    DOWN,
    LEFT,
    RIGHT,
    UP,
    ApplyMatrix,
    Create,
    FadeIn,
    FadeOut,
    Group,
    GrowFromCenter,
    GrowFromEdge,
    LaggedStart,
    UpdateFromAlphaFunc,
    VGroup,
    linear,
    there_and_back,
)

from animations import loading_model as model
from animations import loading_pictures as pictures
from animations.canvas import BODY, BOLD, HUGE, LABEL, PER_UNIT, STAGE, Box, Words, above, code, lines, px, words
from animations.film import OPENING, QUICK, SLOW, STEP, Film
from animations.loading_memory import MemoryPicture, measured_where
from animations.loading_recap import recap
from animations.loading_story import TURNED, story
from animations.style import Arrow, Card, Tensor, Token
from course_helpers.palette import GOLD, GOLD_INK, MUTED, NAVY, NAVY_TINT, SOUND


class WeightLoadingPipeline(Film):
    """Checkpoint source, format adapter, shape checks, model assignment, sanity run."""

    title = "From a checkpoint to a first sentence"
    stages = ("checkpoint source", "format adapter", "shape checks", "model assignment", "sanity run")
    loop = ("stream into the model", "sanity run")

    def storyboard(self) -> None:
        """The sections, in order."""
        self.story = story()
        self.opening()
        self.four_sources()
        self.one_door()
        self.name_by_name()
        self.turned_over()
        self.cut_in_three()
        self.checked()
        self.refused()
        self.streamed()
        self.sanity_run()
        self.recap()

    def opening(self) -> None:
        """The title, and the five stages taking their places."""
        self.section("opening", "How weights get from files into a model, in five stages.")
        title = words(self.title, HUGE, NAVY, weight=BOLD)
        rule = Card(120, 6, GOLD, GOLD, radius=3)
        STAGE.place(lines(title, rule, gap=28, side=np.zeros(3)))
        self.play(FadeIn(title, shift=px(20) * UP), run_time=STEP)
        self.play(GrowFromCenter(rule), run_time=QUICK)
        self.wait(OPENING)
        self.play(FadeIn(self.rail, lag_ratio=0.15), run_time=SLOW)

    def four_sources(self) -> None:
        """Four checkpoints of one model, each in its own shape; the same two things in all of them."""
        boxes = STAGE.columns(len(self.story.layouts), gap=44)
        self.folders = [pictures.Folder(layout, box) for layout, box in zip(self.story.layouts, boxes, strict=True)]
        come = [FadeIn(shown, shift=px(30) * UP, run_time=STEP) for shown in self.folders]
        self.section("four formats", "One trained model can lie on disk in four ways.", 0, clear=True, first=come[:1])
        for animation in come[1:]:
            self.play(animation)
        # What they have in common: a nod from each part that holds names, then from each that holds numbers.
        self.say("Each holds the same: names with shapes, and numbers. Only the places differ.")
        for kind in ("of_names", "of_numbers"):
            nods = [
                part.animate(rate_func=there_and_back).scale(1.06)
                for each in self.folders
                for part in getattr(each, kind)
            ]
            self.play(LaggedStart(*nods, lag_ratio=0.1), run_time=SLOW)
        self.wait(QUICK)

    def one_door(self) -> None:
        """Every format goes through one function; what comes out is of one kind."""
        self.section("one door", "An adapter reads any of them, and hands out the same thing: named tensors.", stage=1)
        space, foot = STAGE.rows([9, 1], gap=20)
        left, middle, right = space.columns([0.9, 0.8, 2], gap=96)
        rows = [box.inset(0, 6).rows([0.6] + [1] * len(self.story.layouts), gap=44)[1:] for box in (left, right)]
        tickets = [pictures.ticket(layout, box) for layout, box in zip(self.story.layouts, rows[0], strict=True)]
        outcomes = [pictures.found(layout, box) for layout, box in zip(self.story.layouts, rows[1], strict=True)]
        moves = [
            FadeOut(big, target_position=small, scale=0.3) for big, small in zip(self.folders, tickets, strict=True)
        ]
        self.play(*moves, *(FadeIn(small, scale=1.5) for small in tickets), run_time=SLOW)
        door = pictures.Door(self.story.layouts, [small.get_y() for small in tickets], middle)
        self.play(FadeIn(door, scale=0.9), run_time=STEP)
        for start, reader, end in zip(tickets, door.readers, outcomes, strict=True):
            self.play(self.through(start, door, reader, end), run_time=1.1)
        self.play(FadeIn(foot.place(pictures.questions())), run_time=STEP)
        self.say("The names are still the file's own. They are mapped next.")
        self.wait(STEP)

    def through(self, start: VGroup, door: pictures.Door, reader: VGroup, end: VGroup) -> LaggedStart:
        """The way of one format: an arrow in, its reader, an arrow out, and the tensor it becomes."""
        sides = [np.array([side[0], start.get_y(), 0]) for side in (door.get_left(), door.get_right())]
        gap = px(10) * RIGHT
        enter = Arrow(start.get_right() + gap, sides[0] - gap, MUTED)
        leave = Arrow(sides[1] + gap, end.get_left() - gap, GOLD)
        steps = [
            GrowFromEdge(enter, LEFT),
            FadeIn(reader),
            GrowFromEdge(leave, LEFT),
            FadeIn(end, shift=px(40) * RIGHT),
        ]
        return LaggedStart(*steps, lag_ratio=0.5)

    def name_by_name(self) -> None:
        """Rows of the real weight map, one after the other."""
        head, space = STAGE.rows([1, 11], gap=12)
        boxes = space.rows(len(self.story.rows), gap=26)
        rows = [pictures.MapRow(row, box) for row, box in zip(self.story.rows, boxes, strict=True)]
        titles = rows[0].titles(head)
        told = "A weight map says which parameter each tensor becomes, and how."
        self.section("names, one by one", told, 1, clear=True, first=[FadeIn(titles)])
        for row in rows:
            steps = [FadeIn(part, shift=px(24) * RIGHT) for part in (row.source, row.way, row.ours)]
            self.play(LaggedStart(*steps, lag_ratio=0.45), run_time=1.1)
        # One of them has the longest way to go.
        self.say("Matrices in GPT-2's blocks have to be turned. This one is also cut in three.")
        self.turned = rows[[row.source for row in self.story.rows].index(TURNED)]
        self.play(*(row.animate.set_opacity(0.15) for row in rows if row is not self.turned), run_time=STEP)
        self.wait(QUICK)

    def turned_over(self) -> None:
        """GPT-2's query, key and value: side by side in the file, and turned over the diagonal."""
        row = next(row for row in self.story.rows if row.source == TURNED)
        names = [target.split(".")[-2] for target in row.targets]
        matrix = self.matrix = pictures.Turned(names, STAGE.height / (len(names) + 0.7), STAGE.at(0.5, 0.46))
        grow = FadeIn(matrix, target_position=self.turned.source, scale=0.3, run_time=STEP)
        told = "GPT-2 stores query, key and value side by side in one matrix."
        self.section("transpose", told, 1, clear=True, first=[grow])
        title = above(matrix, code(row.source, BODY, GOLD_INK), gap=80)
        marks = VGroup(title, *matrix.dimensions((row.shape[1], "outputs"), (row.shape[0], "inputs")))
        self.play(FadeIn(marks), run_time=STEP)
        self.wait(STEP)
        # Over the diagonal: a transpose is a turn, not a calculation.
        self.say("Transpose: our linear layers want output by input.", FadeOut(marks))
        over = ApplyMatrix(matrix.OVER, matrix.squares, about_point=matrix.squares.get_center())
        moves = [name.animate.move_to(place) for name, place in zip(matrix.names, matrix.turned(), strict=True)]
        self.play(over, *moves, run_time=SLOW)
        self.marks = VGroup(*matrix.dimensions((row.shape[0], "inputs"), (row.shape[1], "outputs")))
        self.play(FadeIn(self.marks), run_time=QUICK)

    def cut_in_three(self) -> None:
        """The turned matrix comes apart into three parameters."""
        row = next(row for row in self.story.rows if row.source == TURNED)
        self.section(
            "split", "Split: three parameters, and not one number has changed.", 1, first=[FadeOut(self.marks)]
        )
        left, right = STAGE.columns([1, 1.6], gap=60)
        shape = pictures.shape_text(row.target_shape)
        tiles = [Tensor(name, shape, right.width, NAVY_TINT, NAVY) for name in row.targets]
        parts, arrows, apart = self.matrix.parts(), [], []
        for part, place, tile in zip(parts, right.rows(len(tiles), gap=30), tiles, strict=True):
            place.place(tile, RIGHT)
            target = part.copy().move_to([left.at()[0], tile.get_y(), 0])
            apart.append(part.animate.move_to(target))
            arrows.append(Arrow(target.get_right() + px(16) * RIGHT, tile.get_left() + px(16) * LEFT, GOLD))
        self.play(*apart, run_time=STEP)
        for arrow, tile in zip(arrows, tiles, strict=True):
            steps = GrowFromEdge(arrow, LEFT), FadeIn(tile, shift=px(30) * RIGHT)
            self.play(LaggedStart(*steps, lag_ratio=0.4), run_time=STEP)

    def checked(self) -> None:
        """Every tensor is looked at before the first byte is copied."""
        self.table, self.side = STAGE.columns([2.1, 1], gap=90)
        rows = self.story.rows
        head, *self.places, foot = self.table.inset(0, 50).rows([0.6] + [1] * len(rows) + [0.6], gap=14)
        checks = [
            model.Check(row.source, row.shape, row.shape, box) for row, box in zip(rows, self.places, strict=True)
        ]
        more = foot.inset(24, 0).place(words(f"and {self.story.tensors - len(checks)} more", LABEL, MUTED), LEFT)
        table = [FadeIn(part) for part in (model.Check.heading(head), *(check.without_mark() for check in checks))]
        told = "Before one byte is copied, every tensor is checked: name, shape, type."
        self.section("shape checks", told, 2, clear=True, first=[LaggedStart(*table, lag_ratio=0.1)])
        count, fit = self.counter(0), words("tensors fit", BODY, SOUND)
        copied = words("0 bytes copied so far", BODY, MUTED)
        told = self.side.place(VGroup(lines(count, fit, gap=8, side=np.zeros(3)), copied).arrange(DOWN, buff=px(24)))
        self.play(FadeIn(told), run_time=QUICK)
        self.play(
            LaggedStart(*(Create(check.mark) for check in checks), lag_ratio=0.5),
            UpdateFromAlphaFunc(count, lambda mobject, alpha: mobject.become(self.counter(alpha).move_to(mobject))),
            run_time=2.4,
        )
        self.play(FadeIn(more), run_time=QUICK)
        self.checks, self.counted = checks, VGroup(told, more)

    def counter(self, share: float) -> Words:
        """How many tensors have been checked."""
        total = self.story.tensors
        return words(f"{round(share * total)} of {total}", HUGE, SOUND, weight=BOLD)

    def refused(self) -> None:
        """One matrix the wrong way round: the loader says so, and the model in hand stays what it was."""
        refusal = self.story.refusal
        self.section("a wrong shape", "Now one matrix lies in the file the wrong way round.", stage=2)
        number = next(index for index, row in enumerate(self.story.rows) if row.source == refusal.error.tensor)
        bad = model.Check(refusal.error.tensor, refusal.error.expected, refusal.error.found, self.places[0])
        others = [check for check in self.checks if check is not self.checks[number]]
        self.play(FadeOut(Group(*others, self.counted)), self.checks[number].animate.move_to(bad), run_time=STEP)
        self.play(FadeOut(self.checks[number]), FadeIn(bad), run_time=QUICK)
        self.wait(QUICK)
        self.say("It is refused: what is wrong, where, and why.")
        beneath = Box(self.table.left, self.table.bottom, self.table.right, self.places[1].top - 20)
        told = model.error_card(refusal, beneath)
        self.play(FadeIn(told, shift=px(30) * UP), run_time=STEP)
        self.wait(SLOW)
        # All or nothing.
        name_box, model_box, print_box = self.side.rows([0.35, 3.4, 0.8], gap=20)
        name = name_box.place(words("the model in hand", BODY, NAVY, weight=BOLD))
        whole = model.ModelPicture(self.story.blocks, model_box).filled()
        self.say("All or nothing: the model in hand is what it was before.")
        self.play(FadeIn(name), FadeIn(whole), run_time=STEP)
        self.play(FadeIn(print_box.place(model.fingerprints(refusal))), run_time=STEP)
        self.wait(STEP)

    def streamed(self) -> None:
        """Tensors go into the blocks; memory, as it was measured, grows to one model and no further."""
        memory = self.story.memory
        left, middle, right = STAGE.columns([0.85, 1.5, 1], gap=110)
        source = pictures.page_of_tensors(self.story.layouts[1], left.inset(0, 90))
        self.model = model.ModelPicture(self.story.blocks, middle)
        picture = MemoryPicture(memory, right)
        told = "Checked: now each tensor is read straight into its place."
        self.section("stream into the model", told, 3, clear=True, first=[FadeIn(source), FadeIn(self.model)])
        self.play(FadeIn(picture), run_time=STEP)
        self.wait(QUICK)
        seconds = 7.0
        self.say(measured_where(memory, seconds))
        stream = model.Stream(source.parts[-1].get_right(), [self.model.slots[name] for name in self.story.order])
        self.play(
            UpdateFromAlphaFunc(self.model, lambda mobject, alpha: stream.fill(alpha)),
            UpdateFromAlphaFunc(stream, lambda mobject, alpha: stream.move(alpha)),
            UpdateFromAlphaFunc(picture, lambda mobject, alpha: mobject.play_to(alpha * memory.load_seconds)),
            run_time=seconds,
            rate_func=linear,
        )
        self.remove(stream)
        self.say("One model in memory. The naive way holds two: the model, and the whole file.")
        self.wait(SLOW)

    def sanity_run(self) -> None:
        """The prompt goes in, and the text comes out, token by token."""
        run = self.story.run
        left, right = STAGE.columns([self.model.width, STAGE.width / PER_UNIT - self.model.width], gap=90)
        go_left = self.model.animate(run_time=STEP).move_to(left.at(0, 0.5), aligned_edge=LEFT)
        told = f"A known prompt goes in: “{run.prompt}”."
        self.section("sanity run", told, 4, clear=True, keep=[self.model], first=[go_left])
        key, upper, lower = right.inset(0, 10).rows([0.8, 4.4, 0.8], gap=24)
        self.play(FadeIn(key.place(model.token_key(), LEFT)), run_time=QUICK)
        row = model.chips([*run.prompt_tokens, *run.new_tokens], upper, len(run.prompt_tokens))
        prompt, new = row[: len(run.prompt_tokens)], row[len(run.prompt_tokens) :]
        self.play(LaggedStart(*(FadeIn(chip, shift=px(16) * DOWN) for chip in prompt), lag_ratio=0.3), run_time=STEP)
        self.wait(QUICK)
        self.say("Token by token, always the likeliest one, the text comes out.")
        for number, chip in enumerate(new):
            self.one_token(chip, seconds=STEP if number < 2 else QUICK)
        self.wait(QUICK)
        self.say("The expected text: the weights are where they belong.")
        self.play(FadeIn(lower.place(model.verdict(run), LEFT)), run_time=STEP)

    def one_token(self, chip: Token, seconds: float) -> None:
        """A forward pass through the model, and the token that comes of it."""
        pulse = model.Pulse(self.model)
        come = FadeIn(chip, target_position=self.model.get_corner(DOWN + RIGHT), scale=0.6)
        go = UpdateFromAlphaFunc(pulse, lambda mobject, alpha: mobject.show(alpha))
        self.play(LaggedStart(go, come, lag_ratio=0.6), run_time=seconds)
        self.remove(pulse)

    def recap(self) -> None:
        """The five stages in one picture: the poster."""
        sentence, *cards = recap(self.story, STAGE)
        told = "Five stages, and nothing is guessed in any of them."
        self.section("recap", told, len(self.stages), clear=True, first=[FadeIn(sentence, run_time=STEP)])
        self.play(LaggedStart(*(FadeIn(card, shift=px(24) * UP) for card in cards), lag_ratio=0.35), run_time=2.4)
