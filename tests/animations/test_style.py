"""The films' vocabulary: text that stands on a line, boxes that add up, marks that are where their numbers are. And the
checks that both films go through, tried on films that are wrong."""

import itertools

import numpy as np
import pytest

from tests.animations.checks import (  # isort: skip
    NEAR,
    digest,
    foreign_colours,
    outside_frame,
    overlapping,
    play,
    too_quick,
    too_small,
)

from manim import DOWN, LEFT, RIGHT, UP, FadeIn, Square, VGroup

from animations.canvas import FRAME, STAGE, Box, beside, code, px, words
from animations.film import CLOSING, HOLD, Film
from animations.style import Arrow, Block, Card, File, MemoryBar, StageRail, Tensor, Token


class Plain(Film):
    """Two sections, and nothing wrong."""

    title = "plain"
    stages = ("one", "two")

    def storyboard(self):
        self.section("first", "The first caption.", stage=0)
        self.say("Another caption.")
        self.section("second", "The last caption.", stage=1, clear=True)
        self.play(FadeIn(self.content()))

    def content(self):
        return STAGE.place(words("as it should be"))


class Empty(Plain):
    def content(self):
        return VGroup()


class Talkative(Plain):
    said = "A caption of so many words that nobody can have read it in the second that a section is held."

    def storyboard(self):
        self.section("first", self.said, stage=0)
        self.say("And it goes on at once.")


class Overlapping(Plain):
    def content(self):
        return VGroup(STAGE.place(words("one text")), STAGE.place(words("and another")))


class Outside(Plain):
    def content(self):
        return words("too far to the right").move_to(FRAME.at(1, 0.5))


class Small(Plain):
    def content(self):
        return words("shrunk").scale(0.5)


class Garish(Plain):
    def content(self):
        return Square().set_fill("#FF00FF", 1)


def test_a_film_of_nothing_wrong_passes_every_check(tmp_path):
    recording = play(Plain, tmp_path)
    assert list(recording.pictures) == ["first", "second"]
    for picture in recording.pictures.values():
        assert not [*outside_frame(picture), *overlapping(picture), *too_small(picture), *foreign_colours(picture)]
    assert "as it should be" in [text.text for text in recording.pictures["second"].texts]


@pytest.mark.parametrize(
    ("film", "check"),
    [(Overlapping, overlapping), (Outside, outside_frame), (Small, too_small), (Garish, foreign_colours)],
)
def test_each_check_finds_what_it_is_for(film, check, tmp_path):
    assert check(play(film, tmp_path).pictures["second"])


def test_captions_follow_one_another_without_a_gap(tmp_path):
    film = play(Plain, tmp_path).film
    captions = [caption for section in film.sections for caption in section.captions]
    assert [caption.text for caption in captions] == ["The first caption.", "Another caption.", "The last caption."]
    assert captions[0].start == 0
    assert captions[-1].end == pytest.approx(film.renderer.time)
    for before, after in itertools.pairwise(captions):
        assert before.end == after.start
    first, second = film.sections
    assert first.end == second.start and first.end - first.start >= HOLD and second.end - second.start >= CLOSING


def test_a_caption_stays_until_it_can_have_been_read(tmp_path):
    recording = play(Talkative, tmp_path)
    assert too_quick(recording) == []
    recording.film.sections[0].captions[0].end = 1.0
    assert too_quick(recording) == [Talkative.said]


def test_a_digest_tells_pictures_apart(tmp_path):
    same, again, empty = (np.array(digest(play(film, tmp_path).frame)) for film in (Plain, Plain, Empty))
    assert (same == again).all() and np.abs(same - empty).max() > NEAR


def test_a_missing_font_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("manimpango.list_fonts", lambda: ["Inter"])
    with pytest.raises(RuntimeError, match="JetBrains Mono"):
        play(Plain, tmp_path)


def test_words_share_a_baseline_whatever_their_letters_are():
    row = beside(words("mmap"), words("Cast"), words("xyz"), words("HX"))
    assert len({round(word.get_y(), 6) for word in row}) == 1
    assert len({round(word.height, 6) for word in row}) == 1
    low, high = row[3].ink()  # capitals stand on the line, and their middle is that of the box
    assert (low[1] + high[1]) / 2 == pytest.approx(row[3].get_y(), abs=0.01)


def test_words_that_do_not_fit_are_set_smaller_and_never_too_small():
    wide = words("a line of some length", 40)
    narrow = words("a line of some length", 40, fit=wide.width / px(1) * 0.8)
    assert narrow.width == pytest.approx(wide.width * 0.8, rel=1e-3) and narrow.size == pytest.approx(32, rel=1e-3)
    with pytest.raises(ValueError, match="does not fit"):
        words("a line of some length", 40, fit=50)


def test_words_that_become_others_say_so():
    number = code("1")
    assert number.become(code("22")).content == "22"


def test_boxes_are_cut_without_rest():
    left, right = Box(0, 0, 100, 50).columns([1, 3], gap=20)
    assert (left.left, left.right, right.left, right.right) == (0, 20, 40, 100)
    top, bottom = Box(0, 0, 100, 50).rows(2, gap=10)
    assert (top.top, top.bottom, bottom.top, bottom.bottom) == (50, 30, 20, 0)
    assert np.allclose(STAGE.place(Card(100, 50), LEFT + UP).get_corner(LEFT + UP), STAGE.at(0, 1))


def test_memory_is_as_high_as_its_number():
    bar = MemoryBar(400, height=200)
    for amount in (100, 300):
        bar.show(amount)
        assert bar.bar.height == pytest.approx(px(200) * amount / 400)
        assert bar.bar.get_top()[1] == pytest.approx(bar.level(amount)[1])
        assert bar.bar.get_bottom()[1] == pytest.approx(bar.track.get_bottom()[1])
        assert bar.mark(amount, "here")[0].get_y() == pytest.approx(bar.level(amount)[1])


def test_the_rail_moves_one_dot_for_each_stage():
    rail = StageRail(("one", "two", "three"))
    assert len(rail.go(0)) == 6 and len(rail.go(2)) == 7  # a dot and a name each; and the way so far


@pytest.mark.parametrize("text", ["\n", " word", "<|im_start|>"])
def test_a_token_has_a_picture_for_every_text(text):
    token = Token(text, 7)
    assert token.card.width > token.text.width and token.id.content == "7"


def test_parts_lie_inside_what_holds_them():
    block = Block("block 0", ["query", "key", "value", "output"], columns=2)
    file = File("model.safetensors", ["header", "bytes"], 300, 200, shares=[1, 3])
    for whole, parts in ((block.card, block.slots.values()), (file.page, file.parts)):
        for part in parts:
            assert whole.get_left()[0] < part.get_left()[0] and part.get_right()[0] < whole.get_right()[0]
            assert whole.get_bottom()[1] < part.get_bottom()[1] and part.get_top()[1] < whole.get_top()[1]
    assert file.parts[1].height > 2 * file.parts[0].height
    assert Tensor("a.name", "(1, 2)").card.height > Tensor("a.name").card.height


def test_an_arrow_ends_where_it_points():
    arrow = Arrow(px(10) * LEFT, px(90) * RIGHT)
    assert arrow.get_right()[0] == pytest.approx(px(90)) and arrow.get_left()[0] == pytest.approx(-px(10))
    assert Arrow(px(10) * UP, px(90) * DOWN).get_bottom()[1] == pytest.approx(-px(90))
