"""The parser tells stories of the grammar from all others."""

import itertools

import pytest
import stories
from hypothesis import given, settings
from hypothesis import strategies as st
from story_parser import parse

seeds = st.integers(0, 10**6)


def story(seed: int) -> stories.Story:
    return next(stories.stories(1, seed))


def test_the_parser_finds_the_choices_that_made_a_story():
    for told in stories.stories(500, 77):
        assert parse(told.text) == told


@given(seed=seeds, data=st.data())
def test_a_story_that_is_cut_off_or_goes_on_is_none(seed, data):
    text = story(seed).text
    end = data.draw(st.integers(0, len(text) - 1))
    assert parse(text[:end]) is None
    assert parse(text + " The end.") is None


@settings(max_examples=200)
@given(seed=seeds, data=st.data())
def test_a_story_with_a_changed_fact_is_none(seed, data):
    """Put another name in the place of one mention, while the others stay."""
    told = story(seed)
    names = {choice.value for choice in told.choices if choice.what in ("hero", "friend")}
    words = told.text.split(" ")
    mentions = [i for i, word in enumerate(words) if word.strip(',."?!') in names]
    counts = {name: sum(words[i].strip(',."?!') == name for i in mentions) for name in names}
    mentions = [i for i in mentions if counts[words[i].strip(',."?!')] > 1]
    if not mentions:
        return
    place = data.draw(st.sampled_from(mentions))
    old = words[place].strip(',."?!')
    other = data.draw(st.sampled_from(sorted({"Mia", "Tom", "Anna", "Jack"} - names)))
    words[place] = words[place].replace(old, other)
    assert parse(" ".join(words)) is None


@pytest.mark.parametrize("text", ["", " ", "Once upon a time", "The cat sat on the mat."])
def test_other_texts_are_none(text):
    assert parse(text) is None


def test_no_two_stories_in_a_row_are_one():
    one, two = itertools.islice(stories.stories(2, 5), 2)
    assert parse(f"{one.text} {two.text}") is None
