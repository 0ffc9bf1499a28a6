"""What is made of the speed benchmark's figures: the page, its sentences, and the pictures."""

import re

import pytest

from benchmarks.speed_charts import PICTURES, draw
from benchmarks.speed_table import table
from benchmarks.speed_view import View
from course_helpers.palette import CHARCOAL, GOLD, NAVY, PEARL, SKY, contrast
from tests.benchmarks.made_up import case, measure, report, seconds

AHEAD = measure("decode 32 → 128", 1, seconds(0.01, 0.005, 0.02, 0.03), floor=0.008)
BEHIND = measure("prefill 512", 512, seconds(1.0, 0.1, 0.8, 2.0))
CLOSE = measure("first token", 1, seconds(0.1, 0.1, 0.099, 0.2))
LONG = [
    measure(f"context {length}", 1, seconds(length / 1e5, 1, length / 1e5 * 2, 1), floor=0.004)
    for length in (1024, 8192)
]
REPORT = report(case("Model A", AHEAD, BEHIND, CLOSE, *LONG), case("Model B", AHEAD))


def view(one: dict) -> View:
    return View(case("Model A"), one)


def test_ratios_are_those_of_the_rounds():
    ahead = view(AHEAD)
    assert ahead.best("course_helpers") == "course_helpers, plain"  # int8 is faster, and is another model
    assert ahead.best("transformers", "llms-from-scratch") == "transformers, sdpa, dynamic"
    assert ahead.lead() == pytest.approx(2.0)
    assert ahead.times_floor("course_helpers, plain") == pytest.approx(0.0101 / 0.008)
    assert ahead.times_product("course_helpers, plain", "F.linear") == pytest.approx(0.0101 / 0.008 * 8 / 10)
    assert ahead.times_product("course_helpers, plain", "another") is None
    assert view(BEHIND).times_product("course_helpers, plain", "F.linear") is None
    assert ahead.rate("course_helpers, plain") == pytest.approx(1 / 0.0101)
    assert view(BEHIND).times_floor("course_helpers, plain") is None
    noisy = measure("decode", 1, {"course_helpers, plain": [1, 10, 2], "transformers, sdpa, dynamic": [2, 10, 6]}, 1.0)
    assert view(noisy).lead() == 2  # of 2, 1 and 3; the medians' ratio would be 3


def test_a_peer_ahead_is_said_plainly():
    assert view(AHEAD).verdict() is None
    assert view(BEHIND).verdict() == (
        "Model A, float32, prefill 512, batch 1: **transformers, sdpa, dynamic is ahead of this package**, "
        "634 tokens/s against 507 tokens/s (25%)."
    )
    assert view(CLOSE).verdict().endswith("100.0 ms against 101.0 ms (1%), which is within the spread of the rounds.")
    level = measure("decode", 1, seconds(1.0, 1.0, 0.996, 2.0), floor=0.5)
    assert view(level).lead() == 1 and view(level).verdict() is None  # less than half a hundredth is none


def test_the_page_marks_it_and_has_a_row_for_each_case():
    text = table(REPORT, {"speed-decode.svg": "A picture."})
    assert "![A picture.](speed-decode.svg)" in text
    assert text.count("is ahead of this package") == 2  # prefill, first token
    (decode,) = re.findall(r"## Decode 32 → 128, batch 1\n\n(.*?)\n\n", text, re.DOTALL)
    rows = decode.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| Model A, float32", "| Model B, float32"]
    assert "| **99.0 (98.0-100)** | 198 (196-200) | 49.5 (49.0-50.0) (sdpa, dynamic) |" in rows[0]
    assert rows[0].endswith("| 2.00 | 125 | 1.26 | 2.52 | 1.01 |")
    (prefill,) = re.findall(r"## Prefill 512\n\n(.*?)\n\n", text, re.DOTALL)
    assert "| ▼ 0.80 |" in prefill and "▼" not in decode
    assert "- Model A, float32: llms-from-scratch: it has none." in text
    assert "| Model A, float32 | 2e-07 of 0.0001; 9/9 |" in text
    assert "- course_helpers, int8: the course_helpers way." in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_a_case_without_ours_has_its_row_all_the_same():
    peers = {"transformers, sdpa, dynamic": [0.02] * 3}
    (row,) = re.findall(
        r"\| Model C, .*", table(report(case("Model C", measure("decode 32 → 128", 1, peers, 0.008))), {})
    )[:1]
    assert row.endswith("| 125 |  | 2.50 |  |")


def test_no_peer_ahead_is_said_as_well():
    assert "Nowhere, in 1 comparisons." in table(report(case("Model B", AHEAD)), {})


def test_loading_is_told_on_a_gpu_only():
    assert "## Loading" not in table(REPORT, {})
    text = table(report(case("Model A", AHEAD), device="Some GPU"), {})
    assert text.split("\n")[2].startswith("Some GPU, 80.0 GiB, CUDA 13") and "| Model A, float32 | 1.0 GB |" in text


def test_pictures_say_what_was_found(tmp_path):
    pictures = draw(REPORT, tmp_path, "speed")
    assert list(pictures) == [f"speed-{name}.svg" for name in PICTURES]
    decode, prefill, context = pictures.values()
    assert "Decoding takes 1.3 times the machine's limit; the best peer, 2.5 times" in decode
    assert "Model B, float32: this course 1.26, Transformers 2.52, llms-from-scratch 3.79 times the limit." in decode
    assert "A prompt of 512 tokens: 0.8 times as fast as the best peer" in prefill
    assert "From 1024 to 8192 positions, a token costs 8.0 times as much; the limit, 1.0 times" in context
    first = {name: (tmp_path / name).read_bytes() for name in pictures}
    assert draw(REPORT, tmp_path, "speed") == pictures
    assert first == {name: (tmp_path / name).read_bytes() for name in pictures}  # to the byte


def test_no_figures_no_pictures(tmp_path):
    assert draw(report(), tmp_path, "speed") == {} and not list(tmp_path.iterdir())


def test_marks_can_be_told_apart():
    """Colours by their lightness, too, and shapes as well; the dark outline holds on the ground."""
    assert contrast(NAVY, GOLD) > 3 and contrast(NAVY, SKY) > 3 and contrast(CHARCOAL, PEARL) > 7
