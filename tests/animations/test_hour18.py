"""The film of the family swap, rendered small: its sections, its pictures, its words."""

import pytest

from tests.animations.checks import NEAR, compare_with_stored, worries  # isort: skip

import av

from animations.swap_story import NEW_TOKENS, PROMPT, mistake, stops

SWAPS = [f"swap to {stop.title}" for stop in stops()[1:]]
SECTIONS = (
    "one workflow",
    "GPT-2 goes through",
    *SWAPS,
    "the wrong tokenizer",
    "refused",
    "bound again",
    "equal settings",
)
CALLS = ("load_model(source)", "generate(model, ids)")


@pytest.fixture(scope="module")
def recording(recorded):
    return recorded("swap")


@pytest.fixture(scope="module")
def shown(recording):
    """What can be read at the end of each section."""
    return {name: [text.text for text in picture.texts] for name, picture in recording.pictures.items()}


def test_it_has_its_sections_and_lasts_between_one_minute_and_two(recording):
    sections = recording.film.sections
    assert tuple(section.name for section in sections) == SECTIONS
    assert 60 <= sections[-1].end <= 120
    assert all(3 <= section.end - section.start <= 15 for section in sections)


def test_every_section_ends_with_a_picture_that_can_be_read(recording):
    assert worries(recording) == []
    for name, picture in recording.pictures.items():
        assert len(picture.texts) > len(recording.film.stages) + 1, f"{name} ends with an empty stage"


def test_the_stages_are_those_of_the_deck(recording):
    assert [stage.split("  ")[1] for stage in recording.film.stages] == [
        "Select family",
        "Load weights",
        "Bind tokenizer",
        "Generate",
    ]


def test_the_workflow_never_moves(recording):
    for call in (*CALLS, *recording.film.stages):
        places = {
            (round(text.left), round(text.bottom))
            for picture in recording.pictures.values()
            for text in picture.texts
            if text.text == call
        }
        assert len(places) == 1, call
        assert all(any(text.text == call for text in picture.texts) for picture in recording.pictures.values()), call


@pytest.mark.parametrize("stop", stops(), ids=[stop.key for stop in stops()])
def test_every_familys_section_ends_with_its_own_values(stop, shown):
    name = f"swap to {stop.title}" if f"swap to {stop.title}" in shown else f"{stop.title} goes through"
    texts = shown[name]
    said = {line for part in stop.parts.values() for line in part.said}
    told = {f'source = "{stop.source}"', stop.model_class, f"{stop.parameters:,} parameters", stop.tokenizer}
    told |= {f"from {stop.tensors} tensors", f"{len(stop.tokens)} tokens", f"greedy, {NEW_TOKENS} new tokens"}
    assert said | told | {stop.continuation.strip()} <= set(texts)
    cut = [text.replace(" ", "␣") for token in stop.tokens for text in (token.text, str(token.id))]
    assert [texts[start : start + len(cut)] for start in range(len(texts)) if texts[start] == cut[0]] == [cut]


def test_what_leaves_is_gone(shown):
    """Nothing of the family before is left: no line of its parts that the next one does not say, too."""
    for before, now in zip(stops()[:-1], stops()[1:], strict=True):
        old = {line for part in before.parts.values() for line in part.said}
        new = {line for part in now.parts.values() for line in part.said}
        assert not (old - new) & set(shown[f"swap to {now.title}"])


def test_the_wrong_tokenizer_is_shown_as_it_is_read(shown):
    wrong, texts = mistake(), shown["the wrong tokenizer"]
    pieces = [piece.replace(" ", "␣") for piece in wrong.read]
    assert [text for text in texts if text in pieces][-len(pieces) :] == pieces
    assert {f'load_tokenizer("{wrong.tokenizer.source}")', PROMPT, wrong.written.strip()} <= set(texts)


def test_the_refusal_is_in_the_packages_words(shown):
    wrong, texts = mistake(), set(shown["refused"])
    assert {*wrong.passed, wrong.failed, f"{wrong.failed}: {wrong.reason}"} <= texts
    assert {value for name, value in wrong.facts.items() if name not in ("file", "next step")} <= texts


def test_after_the_refusal_everything_is_as_it_was_before(recording, shown):
    before, after = (set(shown[name]) - captions_of(recording) for name in (SWAPS[-1], "bound again"))
    assert before == after


def captions_of(recording):
    return {caption.text for section in recording.film.sections for caption in section.captions}


def test_all_families_stand_side_by_side_at_the_end(shown):
    texts = shown["equal settings"]
    for stop in stops():
        assert {stop.title, f"{len(stop.tokens)} tokens"} <= set(texts)
        assert stop.continuation.split()[-1] in " ".join(texts)


def test_the_last_frame_looks_as_it_did(recording):
    assert compare_with_stored("swap", recording.frame) <= NEAR


def test_the_file_is_a_film_that_players_know(recording):
    with av.open(str(recording.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (854, 480)
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == pytest.approx(recording.film.sections[-1].end * 15, rel=0.02)


def test_captions_cover_the_whole_time(recording):
    captions = [caption for section in recording.film.sections for caption in section.captions]
    assert captions[0].start == 0 and captions[-1].end == recording.film.sections[-1].end
    assert [caption.end for caption in captions[:-1]] == [caption.start for caption in captions[1:]]
    hasty = [caption.text for caption in captions if caption.end - caption.start < len(caption.text) / 25]
    assert not hasty, "too short to be read"
