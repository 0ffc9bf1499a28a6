"""M9-LAB-07: its checks diagnose, its verdict on several runs is strict, its texts and charts are what they say."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from stories import stories

from course_helpers.architectures.llama import LlamaModel
from course_helpers.labs import ExerciseHint, lab_07_charts, lab_07_figures
from course_helpers.labs import lab_07 as lab
from course_helpers.labs.lab_07 import Spread, differing, story_texts
from course_helpers.labs.lab_07_exercises import (
    SMALL,
    check_batch_loss,
    check_bits_per_byte,
    check_matching_feed_forward,
)
from course_helpers.training import text_loss

BIT = math.log(2)  # nats


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def losses(logits_BTV, ids_BT, of_logits=slice(None, -1), of_ids=slice(1, None)):
    """Surprises by torch's own function, (B, T - 1), for some alignment of logits and ids."""
    return F.cross_entropy(logits_BTV[:, of_logits].transpose(1, 2), ids_BT[:, of_ids], reduction="none")


def batch_loss(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT)[real_BT[:, 1:]].mean()


def not_shifted(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT, slice(None), slice(None))[real_BT].mean()


def shifted_back(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT, slice(1, None), slice(None, -1))[real_BT[:, 1:]].mean()


def padding_counted(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT).mean()


def mask_not_shifted(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT)[real_BT[:, :-1]].mean()


def divided_by_all(logits_BTV, ids_BT, real_BT):
    return (losses(logits_BTV, ids_BT) * real_BT[:, 1:]).sum() / real_BT[:, 1:].numel()


def divided_by_tokens(logits_BTV, ids_BT, real_BT):
    return losses(logits_BTV, ids_BT)[real_BT[:, 1:]].sum() / real_BT.sum()


def mean_of_means(logits_BTV, ids_BT, real_BT):
    rows = zip(losses(logits_BTV, ids_BT), real_BT[:, 1:], strict=True)
    return torch.stack([row[real].mean() for row, real in rows]).mean()


def scaled(function, factor):
    return lambda *arguments: function(*arguments) * factor


def match(
    config, target, *, matrices=3, layers=None, embeddings=None, shared=None, head_dim=None, norms=None, rounding=round
):
    """A matching_feed_forward that is right, or has another value for one of its parts."""
    width, layers_ = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads + (shared or config.num_key_value_heads)
    head_dim = config.head_dim if head_dim is None else head_dim
    embeddings = (1 if config.tie_word_embeddings else 2) if embeddings is None else embeddings
    norms = 2 * layers_ + 1 if norms is None else norms
    rest = target - embeddings * config.vocab_size * width - norms * width - layers_ * 2 * heads * head_dim * width
    return 8 * rounding(rest / ((layers or layers_) * matrices * width) / 8)


def matches(**wrong):
    return lambda config, target: match(config, target, **wrong)


def rows_of(tokenizer, texts, begin=True, stop=True, begin_with_stop=False, bos=False):
    """Texts with their marks, or without some of them; `bos`: with those that the tokenizer sets besides."""
    end = tokenizer.stop_ids[0]
    first = end if tokenizer.bos_id is None or begin_with_stop else tokenizer.bos_id
    return [[first] * begin + tokenizer.encode(text, bos=bos) + [end] * stop for text in texts]


def bits(per=lambda texts, rows: sum(len(text.encode()) for text in texts), unit=BIT, **marks):
    """A bits_per_byte that is right, or divides by something else, or lacks a mark."""

    def bits_per_byte(model, tokenizer, texts):
        rows = rows_of(tokenizer, texts, **marks)
        return text_loss(model, rows)[0] / unit / per(texts, rows)

    return bits_per_byte


def mean_of_texts(model, tokenizer, texts):
    return sum(bits()(model, tokenizer, [text]) for text in texts) / len(texts)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_batch_loss, batch_loss),
        (check_batch_loss, lambda *arguments: batch_loss(*arguments).item()),
        (check_matching_feed_forward, match),
        (check_bits_per_byte, bits()),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "wrong", "advice"),
    [
        (check_batch_loss, empty, "still empty"),
        (check_batch_loss, silent, "return statement"),
        (check_batch_loss, lambda logits, ids, real: losses(logits, ids), "expected one number"),
        (check_batch_loss, not_shifted, r"about the \*next\* token"),
        (check_batch_loss, shifted_back, "shifted the wrong way"),
        (check_batch_loss, padding_counted, "padding was counted"),
        (check_batch_loss, mask_not_shifted, "real_BT moves on by one"),
        (check_batch_loss, divided_by_all, "divide by all places"),
        (check_batch_loss, divided_by_tokens, "first token of each text is no target"),
        (check_batch_loss, mean_of_means, "a mean of the texts' means"),
        (check_batch_loss, scaled(batch_loss, 16), "that is the sum"),
        (check_batch_loss, scaled(batch_loss, 1 / math.log(2)), "that is in bits"),
        (check_batch_loss, scaled(batch_loss, -1), "minus"),
        (check_batch_loss, scaled(batch_loss, 1.1), "nats for 16 targets"),
        (check_matching_feed_forward, empty, "still empty"),
        (check_matching_feed_forward, silent, "return statement"),
        (check_matching_feed_forward, lambda *arguments: float(match(*arguments)), "whole number"),
        (check_matching_feed_forward, matches(matrices=2), "three matrices, not two"),
        (check_matching_feed_forward, matches(layers=1), "number of layers"),
        (check_matching_feed_forward, matches(embeddings=2), "a tied head is the embedding"),
        (check_matching_feed_forward, matches(embeddings=1), "a head of its own"),
        (check_matching_feed_forward, matches(embeddings=0), "where is the embedding"),
        (check_matching_feed_forward, matches(shared=6), "fewer heads than queries"),
        (check_matching_feed_forward, matches(head_dim=4), "not the width in this model"),
        (check_matching_feed_forward, matches(head_dim=0), "where are the attention matrices"),
        (check_matching_feed_forward, matches(norms=0), "were norms left out"),
        (check_matching_feed_forward, matches(norms=6), "were norms left out"),
        (check_matching_feed_forward, matches(rounding=math.floor), "rounded down"),
        (check_matching_feed_forward, matches(rounding=math.ceil), "rounded up"),
        (check_matching_feed_forward, lambda *arguments: match(*arguments) + 3, "no multiple of 8"),
        (check_matching_feed_forward, lambda *arguments: 80, "expected 400, got 80"),
        (check_bits_per_byte, empty, "still empty"),
        (check_bits_per_byte, silent, "return statement"),
        (check_bits_per_byte, lambda *arguments: "many", "expected one number"),
        (check_bits_per_byte, bits(lambda texts, rows: sum(len(row) - 1 for row in rows)), "that is per token"),
        (check_bits_per_byte, bits(unit=1), "that is in nats"),
        (check_bits_per_byte, bits(unit=1 / math.log(2)), "divided"),
        (check_bits_per_byte, bits(lambda texts, rows: sum(map(len, texts))), "that is per letter"),
        (check_bits_per_byte, bits(stop=False), "the stop mark is missing"),
        (check_bits_per_byte, bits(begin=False), "the begin mark is missing"),
        (check_bits_per_byte, bits(begin=False, stop=False), "both marks are missing"),
        (check_bits_per_byte, bits(begin_with_stop=True), "tiny-llama3: this tokenizer has a begin mark of its own"),
        (check_bits_per_byte, bits(bos=None), "tiny-llama3: the begin mark stands twice"),
        (check_bits_per_byte, mean_of_texts, "a mean of the texts' own figures"),
        (check_bits_per_byte, bits(lambda texts, rows: 1), "that is the whole surprise"),
        (check_bits_per_byte, lambda *arguments: 1.0, "bits per byte, got 1.0000"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint, match=advice):
        check(wrong)


def test_the_matched_width_is_that_of_a_model_that_is_built():
    """Against a real model, not a count: the nearest of its neighbours."""

    def size(width):
        return LlamaModel(dataclasses.replace(SMALL, intermediate_size=width)).num_parameters()

    target = size(56) + 1000
    found = match(SMALL, target)
    assert abs(size(found) - target) == min(abs(size(width) - target) for width in range(8, 200, 8))


def test_the_texts_are_those_of_the_grammar():
    assert story_texts(3, 5) == [story.text for story in stories(3, 5)]
    assert story_texts(2, 5) == story_texts(3, 5)[:2] != story_texts(2, 6)


def test_a_missing_grammar_is_said_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "BUNDLED", tmp_path)
    with pytest.raises(FileNotFoundError, match="Clone the whole repository"):
        lab.grammar.__wrapped__()


@pytest.mark.parametrize(
    ("better", "worse", "clear"),
    [
        ((2.0, 2.1, 2.2), (2.5, 3.0, 2.6), True),
        ((2.0, 2.1, 2.2), (2.3, 3.0, 2.6), False),  # apart, but by less than the better group's own width
        ((2.0, 2.1, 2.2), (2.1, 3.0, 2.6), False),  # they overlap
        ((2.5, 3.0, 2.6), (2.0, 2.1, 2.2), False),  # the other way round
    ],
)
def test_a_finding_stands_out_from_the_spread(better, worse, clear):
    assert Spread(better).clearly_below(Spread(worse)) == clear


def test_a_spread_is_described_by_mean_width_and_gaps():
    one, other = Spread((1.0, 2.0, 1.5)), Spread((4.0, 3.0))
    assert (one.mean, one.width) == (1.5, 1.0)
    assert one.gaps_to(other) == (1.0, 3.0)


def test_what_differs_between_two_descriptions():
    assert differing({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}) == {
        "b": (2, 4),
        "c": (3, None),
        "d": (None, 5),
    }
    assert differing({"a": 1}, {"a": 1}) == {}


@pytest.mark.parametrize("draw", ["one_loop", "two_masks", "two_ways_to_cut"])
def test_drawings_have_words_for_those_who_cannot_see_them(draw):
    image = getattr(lab_07_figures, draw)()
    assert image.data.startswith(b"\x89PNG") and len(image.alt) > 100


def test_the_drawn_window_names_its_tokens():
    image = lab_07_figures.shifted_window(["One", " two", " three"])
    assert image.data.startswith(b"\x89PNG")
    assert "Inputs: One, two. Targets, one below each input: two, three." in image.alt


def test_charts_tell_their_figures_in_words_too():
    runs = {"one": [[(0, 7.0), (10, 3.0)], [(0, 7.1), (10, 3.25)]], "other": [[(0, 7.0), (10, 2.5)]] * 2}
    told = {
        lab_07_charts.curves(
            runs, 512
        ): "from 7.0 nats per token. At the end, one number a seed: one: 3.00, 3.25; other: 2.50, 2.50",
        lab_07_charts.suspicious({"sound": [7.0, 3.0], "leaky": [7.0, 0.5]}, 6.9, 0.24): "leaky: from 7.0 to 0.5",
        lab_07_charts.by_position(
            {"short": [3.0, 2.0], "long": [3.0, 2.0, 4.0, 6.0]}, 32, 16
        ): "short: 2.50 within the trained 32, an error beyond; long: 2.50 within the trained 32, 5.00 beyond",
        lab_07_charts.two_rulers(
            {"a": (1.0, 0.4), "b": (2.0, 0.3)}, ("token", "byte")
        ): "by token: a, b; by byte: b, a",
    }
    for image, words in told.items():
        assert image.data.startswith(b"\x89PNG") and words in image.alt
