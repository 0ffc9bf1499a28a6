"""The film of the loading pipeline, rendered small: its sections, its pictures, its words."""

import pytest

from tests.animations.checks import NEAR, compare_with_stored, worries  # isort: skip

import av

from animations.loading_story import story

SECTIONS = (
    "opening",
    "four formats",
    "one door",
    "names, one by one",
    "transpose",
    "split",
    "shape checks",
    "a wrong shape",
    "stream into the model",
    "sanity run",
    "recap",
)


@pytest.fixture(scope="module")
def recording(recorded):
    return recorded("loading")


def test_it_has_its_sections_and_lasts_between_one_minute_and_two(recording):
    sections = recording.film.sections
    assert tuple(section.name for section in sections) == SECTIONS
    assert 60 <= sections[-1].end <= 120
    assert all(3 <= section.end - section.start <= 20 for section in sections)


def test_every_section_ends_with_a_picture_that_can_be_read(recording):
    assert worries(recording) == []
    for name, picture in recording.pictures.items():
        assert len(picture.texts) > len(recording.film.stages) + 1, f"{name} ends with an empty stage"


def test_the_five_stages_are_those_of_the_deck(recording):
    assert recording.film.stages == (
        "checkpoint source",
        "format adapter",
        "shape checks",
        "model assignment",
        "sanity run",
    )


def test_what_it_shows_is_what_the_package_said(recording):
    told, pictures = story(), recording.pictures
    shown = {name: {text.text for text in picture.texts} for name, picture in pictures.items()}
    assert {layout.title for layout in told.layouts} <= shown["four formats"]
    assert {f'"{layout.format}"' for layout in told.layouts} <= shown["one door"]
    assert {row.source for row in told.rows} <= shown["shape checks"]
    assert f"{told.tensors} of {told.tensors}" in shown["shape checks"]
    error = told.refusal.error
    assert {error.what, error.tensor, str(error.expected), str(error.found), error.cause} <= shown["a wrong shape"]
    assert {told.refusal.before, told.refusal.after} <= shown["a wrong shape"]
    assert f"{told.memory.model_mb:.0f} MiB" in shown["stream into the model"]
    assert f"peak {told.memory.naive_peak_mb:.0f} MiB" in shown["stream into the model"]
    tokens = [piece.replace(" ", "␣") for piece, _ in (*told.run.prompt_tokens, *told.run.new_tokens)]
    ordered = [text.text for text in pictures["sanity run"].texts]
    assert [text for text in ordered if text in tokens] == tokens


def test_the_last_frame_looks_as_it_did(recording):
    assert compare_with_stored("loading", recording.frame) <= NEAR


def test_the_file_is_a_film_that_players_know(recording):
    with av.open(str(recording.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (854, 480)
        frames = sum(1 for _ in container.decode(video=0))
    seconds = recording.film.sections[-1].end
    assert frames == pytest.approx(seconds * 15, rel=0.02)
