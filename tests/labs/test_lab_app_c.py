"""M9-LAB-APP-C: its exercise checks diagnose, its texts are what it says, its figures tell their numbers."""

import dataclasses
import math

import pytest
import torch
from stories import LABELS, stories

from course_helpers import FAMILIES, CheckpointError, load_model
from course_helpers.classification import SequenceClassifier, freeze_all_but
from course_helpers.labs import ExerciseHint, lab_app_c, lab_app_c_charts, lab_app_c_figures
from course_helpers.labs.lab_app_c_exercises import (
    BEST,
    CASES,
    MARGIN,
    check_choose_base,
    check_freeze,
    check_last_real,
    memory_of,
    right_base,
    small_classifier,
)
from course_helpers.memory import training_bytes


def empty(*arguments):
    raise NotImplementedError


def silent(*arguments):
    return None


def positions(find):
    """A last_real that reads where `find(real_BT)` says."""
    return lambda x_BTE, real_BT: x_BTE[torch.arange(len(x_BTE)), find(real_BT)]


def last(real_BT):
    return torch.tensor([max(index for index, real in enumerate(row) if real) for row in real_BT.tolist()])


def freezes(thaw=lambda base, blocks: [*base.blocks[len(base.blocks) - blocks :]], *, also=(), without=(), start=True):
    """A freeze that is right, or thaws something else, or does not freeze first."""

    def freeze(classifier, blocks):
        base = classifier.base
        if start:
            classifier.requires_grad_(False)
        parts = {"head": classifier.head, "norm": base.final_norm}
        for part in (*(part for name, part in parts.items() if name not in without), *thaw(base, blocks)):
            part.requires_grad_(True)
        for name in also:
            if getattr(base, name) is not None:
                getattr(base, name).requires_grad_(True)
        return sum(part.numel() for part in classifier.parameters() if part.requires_grad)

    return freeze


def counts(count):
    """A freeze that is right and counts something else."""

    def freeze(classifier, blocks):
        freeze_all_but(classifier, blocks)
        return count(classifier, [part for part in classifier.parameters() if part.requires_grad])

    return freeze


def chooses(possible=None, score=lambda one: one.validation, margin=None, order=lambda one: one.parameters):
    """A choose_base that is right, or has another idea of what fits, what counts, or what is equal."""

    def choose(candidates, memory, given):
        fits = possible or (
            lambda one, memory: memory_of(one) <= memory and one.longest <= one.context and not one.gated
        )
        left = [one for one in candidates if fits(one, memory)]
        best = max((score(one) for one in left), default=0)
        near = [one for one in left if score(one) >= best - (given if margin is None else margin)]
        return min(near, key=order).name if near else None

    return choose


def fits(memory_needed=memory_of, context=lambda one: one.longest <= one.context, gated=False):
    return lambda one, memory: memory_needed(one) <= memory and context(one) and (gated or not one.gated)


def stops_where_nothing_fits(candidates, memory, margin):
    found = right_base(candidates, memory, margin)
    return found if found else min([])


def best_of_all(candidates, memory, margin):
    best = max(one.validation for one in candidates)
    return next((one.name for one in candidates if fits()(one, memory) and one.validation >= best - margin), None)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (check_last_real, positions(last)),
        (check_freeze, freezes()),
        (check_choose_base, right_base),
        (check_choose_base, chooses()),
    ],
)
def test_right_answers_pass(check, right, capsys):
    check(right)
    assert "right" in capsys.readouterr().out


WRONG = [
    (check_last_real, empty, "still empty"),
    (check_last_real, silent, "return statement"),
    (check_last_real, lambda x_BTE, real_BT: x_BTE.tolist(), "expected a tensor"),
    (check_last_real, lambda x_BTE, real_BT: x_BTE[:, last(real_BT)], "index rows and positions together"),
    (check_last_real, lambda x_BTE, real_BT: x_BTE[:, -1], "index -1"),
    (check_last_real, positions(lambda real_BT: real_BT.sum(1) - 1), "only if they begin in column 0"),
    (check_last_real, positions(lambda real_BT: real_BT.sum(1)), "forget to subtract 1"),
    (check_last_real, positions(lambda real_BT: (last(real_BT) + 1).clamp(max=5)), "one too far"),
    (check_last_real, positions(lambda real_BT: last(real_BT) - 1), "one too early"),
    (check_last_real, positions(lambda real_BT: real_BT.int().argmax(1)), "first real token"),
    (check_last_real, lambda x_BTE, real_BT: (x_BTE * real_BT[..., None]).sum(1) / real_BT.sum(1)[:, None], "the mean"),
    (check_last_real, lambda x_BTE, real_BT: x_BTE.mean(1), "mean over all columns"),
    (check_last_real, positions(lambda real_BT: torch.tensor([5, 0, 0, 0])), "is not read at"),
    (check_freeze, empty, "still empty"),
    (check_freeze, silent, "return statement"),
    (check_freeze, freezes(start=False), "Freeze everything first"),
    (check_freeze, freezes(also=["token_embedding"]), "it *is* the embedding"),
    (check_freeze, freezes(also=["output_head"]), "own head is trained"),
    (check_freeze, freezes(lambda base, blocks: base.blocks[-blocks:]), "-0 is 0"),
    (check_freeze, freezes(lambda base, blocks: base.blocks[:blocks]), "the *last* ones"),
    (check_freeze, freezes(without=["head"]), "head is frozen"),
    (check_freeze, freezes(without=["norm"]), "final norm is frozen"),
    (check_freeze, freezes(lambda base, blocks: []), "is frozen and should be trained"),
    (check_freeze, freezes(lambda base, blocks: base.blocks[1:]), "should be frozen"),
    (check_freeze, counts(lambda classifier, trained: 0.5), "whole number"),
    (check_freeze, counts(lambda classifier, trained: len(trained)), "number of tensors"),
    (check_freeze, counts(lambda classifier, trained: sum(p.numel() for p in classifier.parameters())), "frozen"),
    (
        check_freeze,
        counts(lambda classifier, trained: sum(p.numel() for p in classifier.parameters() if not p.requires_grad)),
        "number of frozen",
    ),
    (
        check_freeze,
        counts(lambda classifier, trained: sum(p.numel() for p in classifier.base.parameters() if p.requires_grad)),
        "head was not counted",
    ),
    (check_freeze, counts(lambda classifier, trained: 7), "not 7"),
    (check_choose_base, empty, "still empty"),
    (check_choose_base, silent, "return statement"),
    (check_choose_base, chooses(fits(gated=True)), "need an account"),
    (check_choose_base, chooses(fits(context=lambda one: True)), "its own tokenizer"),
    (check_choose_base, chooses(fits(context=lambda one: one.longest < one.context)), "equal is enough"),
    (check_choose_base, chooses(fits(lambda one: 4 * one.parameters)), "a gradient and two means"),
    (check_choose_base, chooses(fits(lambda one: 16 * one.parameters)), "for what is frozen, too"),
    (check_choose_base, chooses(fits(lambda one: memory_of(one) + 1)), "that is enough"),
    (check_choose_base, chooses(score=lambda one: -one.parameters), "better by more than the margin"),
    (check_choose_base, chooses(score=lambda one: one.test), "no test any more"),
    (check_choose_base, chooses(margin=0), "of equals take the smaller"),
    (check_choose_base, best_of_all, "among those left"),
    (check_choose_base, chooses(fits(lambda one: 4 * (one.parameters + 2 * one.trained))), "both means"),
    (check_choose_base, stops_where_nothing_fits, "it should return None"),
    (check_choose_base, lambda candidates, memory, margin: candidates[0], "not the whole candidate"),
    (
        check_choose_base,
        lambda candidates, memory, margin: right_base(candidates, memory, margin) or candidates[0].name,
        "does not fit",
    ),
    (check_choose_base, lambda *arguments: "other" if right_base(*arguments) else None, "got 'other'"),
]


@pytest.mark.parametrize(("check", "wrong", "advice"), WRONG)
def test_each_mistake_gets_the_advice_that_helps(check, wrong, advice):
    with pytest.raises(ExerciseHint) as found:
        check(wrong)
    assert advice in str(found.value)


@pytest.mark.parametrize("tied", [True, False])
def test_the_classifier_of_exercise_2_needs_thawing(tied):
    classifier = small_classifier(tied)
    frozen = {name for name, parameter in classifier.named_parameters() if not parameter.requires_grad}
    assert {"head.weight", "head.bias"} <= frozen
    assert (classifier.base.output_head is None) == tied


def test_what_exercise_3_counts_is_what_a_training_of_everything_holds():
    """`memory_of`, with nothing frozen, against the package's own sum but for AdamW's counters."""
    model = load_model("tiny-qwen3")
    all_trained = dataclasses.replace(BEST, parameters=model.num_parameters(), trained=model.num_parameters())
    counters = 4 * sum(1 for _ in model.parameters())
    assert memory_of(all_trained) == training_bytes(model.config) - counters


@pytest.mark.parametrize("case", CASES)
def test_each_case_of_exercise_3_turns_on_one_thing(case):
    (right, wrong), memory = CASES[case]
    assert right_base([right, wrong], memory, MARGIN) == right.name
    assert len([field for field in vars(right) if vars(right)[field] != vars(wrong)[field]]) <= 4


def test_the_sets_are_even_and_apart():
    counts = (30, 5, 10)
    sets = lab_app_c.story_sets(counts)
    for (texts, labels), count in zip(sets, counts, strict=True):
        assert [labels.count(label) for label in LABELS] == [count, count] and len(set(texts)) == 2 * count
    assert len({text for texts, _ in sets for text in texts}) == 2 * sum(counts)
    known = {story.text: story.label for story in stories(lab_app_c.STORIES, lab_app_c.SEED)}
    assert all(known[text] == label for texts, labels in sets for text, label in zip(texts, labels, strict=True))


def test_the_stories_are_none_that_the_bases_were_trained_or_judged_on():
    """A seed of their own; so are those of `checkpoints/build.py`, whose first stories are compared here."""
    own = {story.text for story in stories(200, lab_app_c.SEED)}
    assert not any(own & {story.text for story in stories(2_000, seed)} for seed in (1, 2))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('"Come," said Mia, and went. It rained.', ['"Come," said Mia, and went.', "It rained."]),
        ('"Good night," Finn said.', ['"Good night," Finn said.']),
        ('A sign said, "Do not eat." But it ate.', ['A sign said, "Do not eat."', "But it ate."]),
        ('It stopped. "Why?" asked Leo.', ["It stopped.", '"Why?" asked Leo.']),
    ],
)
def test_sentences_end_where_they_end(text, parts):
    assert lab_app_c.sentences(text) == parts


def test_no_letter_is_lost_between_sentences():
    for story in stories(100, 4):
        assert " ".join(lab_app_c.sentences(story.text)) == story.text


def test_counting_words_is_naive_bayes():
    """Against the formula, written out for one word."""
    train = (["a b", "a c", "b d"], ["happy", "happy", "sad"])
    assert lab_app_c.by_counting_words(train, ["a", "d d", "nothing"]) == ["happy", "sad", "happy"]
    happy, sad = 2 * (2 + 1) / (2 + 2), 1 * (0 + 1) / (1 + 2)  # of the text "a"
    assert math.log(happy) > math.log(sad)
    assert lab_app_c.by_counting_words((["x", "y"], ["sad", "happy"]), ["z"]) == ["happy"]  # a tie: by the alphabet


def test_shares_and_confusions_count_every_text():
    found, labels = ["happy", "sad", "sad", "sad"], ["happy", "happy", "sad", "sad"]
    assert lab_app_c.share_right(found, labels) == 0.75
    assert lab_app_c.confusion(found, labels) == {("happy", "happy"): 1, ("happy", "sad"): 1, ("sad", "sad"): 2}


def test_a_refusal_in_short_names_no_folder_and_no_hash():
    def load(file, found):
        raise CheckpointError("another file", file=file, field="weights", expected="ab12", found=found, cause="mixed")

    error = lab_app_c.refusal(load, "/somewhere/model", "cd34")
    text = lab_app_c.in_short(error)
    assert all(part in text for part in ("another file", "weights", "mixed"))
    assert not any(part in text for part in ("somewhere", "ab12", "cd34"))
    assert lab_app_c.in_short(lab_app_c.refusal(lambda: None)) == "loaded, without a word"
    error.problems = (error, error, error)
    assert lab_app_c.in_short(error).endswith("and 2 more files")


@pytest.mark.parametrize("name", [family.tiny for family in FAMILIES.values()])
def test_the_parts_of_a_classifier_are_all_of_it(name):
    classifier = SequenceClassifier(load_model(name), LABELS)
    trained = freeze_all_but(classifier, 1)
    found = lab_app_c.parts(classifier)
    assert sum(count for _, count, _ in found) == sum(part.numel() for part in classifier.parameters())
    numbers = dict(classifier.named_parameters())
    assert sum(count for _, count, is_trained in found if is_trained) == sum(numbers[name].numel() for name in trained)
    names = [name for name, _, _ in found]
    assert (names[0], names[-1]) == ("embedding", "head") and len(names) == len(classifier.base.blocks) + 3


def test_the_drawings_draw():
    alts = {
        name: getattr(lab_app_c_figures, name)(*arguments).alt
        for name, arguments in {
            "hand_off": (),
            "two_heads": (["a", "b", "c", "d", "e", "f"], 1024, 112, LABELS),
            "four_readings": (),
        }.items()
    }
    assert "run.json" in alts["hand_off"] and "decisions.json" in alts["hand_off"]
    assert "1,024 x 112" in alts["two_heads"] and "2 x 112" in alts["two_heads"]
    assert "right, last column: 'pad' in column 4; right, length - 1: '.' in column 2" in alts["four_readings"]


def test_the_charts_tell_their_numbers():
    ways = {"right, last column": [0.0, 1.25], "right, length - 1": [0.0, 0.0]}
    alt = lab_app_c_charts.away_from_alone([0, 9], {"one": ways, "two": ways}).alt
    assert "one, right, last column: 1.25 with 9 pads" in alt
    alt = lab_app_c_charts.what_is_trained({"one": [("embedding", 300, False), ("head", 100, True)]}).alt
    assert "25.0 % of 400" in alt
    runs = {"the base": [0.7, 0.1], "random weights": [0.7, 0.7]}
    looks = {"the base": [(0, 0.72), (2, 0.12)], "random weights": [(0, 0.7), (2, 0.69)]}
    alt = lab_app_c_charts.curves({"one": runs, "two": runs}, {"one": looks, "two": looks}, math.log(2)).alt
    assert "two from the base: 0.72 to 0.12" in alt and "A guess: 0.69" in alt
    rows = {"untrained head": 0.5, "base": 0.98}
    alt = lab_app_c_charts.compared({"one": rows, "two": rows}, 0.82).alt
    assert "one: untrained head 50 %, base 98 %" in alt and "counting words, 82 %" in alt
    squares = {("happy", "happy"): 9, ("happy", "sad"): 1, ("sad", "sad"): 10}
    alt = lab_app_c_charts.confusions({"one": squares, "two": squares}, LABELS).alt
    assert "one, happy taken for sad: 1" in alt and "two, sad taken for happy: 0" in alt
