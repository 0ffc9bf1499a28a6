"""Tests of the story grammar: the facts of a story agree, and its probability is what it says."""

import functools
import math
import random
import re
import statistics
from itertools import combinations, product

import pytest
import stories

SAMPLE_SIZE = 5000
MARKS = re.compile(r"[.,!?\"\s]+")


@pytest.fixture(scope="module")
def sample():
    return list(stories.stories(SAMPLE_SIZE, seed=7))


def facts_of(story):
    """The facts that the choices of a story record, such as {"hero": "Mia", "colour": "red"}."""
    tables = stories.PLOTS[story.plot].tables
    return {choice.what: choice.value for choice in story.choices if choice.what in tables}


@functools.cache
def values_of(slot_name):
    """All values that a fact has in any plot."""
    return {value for plot in stories.PLOTS.values() for value in plot.tables.get(slot_name, {})}


def mentions(text, value):
    """Whether the value is in the text as whole words. Capitals count: "Pudding" is a name."""
    return f" {value} " in without_marks(text)


@functools.lru_cache(maxsize=8)
def without_marks(text):
    """The text's words with one space on either side; kept, because a text is asked about many values in a row."""
    return f" {MARKS.sub(' ', text)} "


# --- the same stories every time


def test_same_seed_same_stories_and_other_seed_others():
    assert list(stories.stories(50, 3)) == list(stories.stories(50, 3))
    assert list(stories.stories(50, 3)) != list(stories.stories(50, 4))


def test_larger_count_only_adds_stories():
    assert list(stories.stories(20, 5)) == list(stories.stories(60, 5))[:20]


def test_pinned_hash():
    """Computed once, to detect a change by accident: trained checkpoints belong to exactly this corpus."""
    expected = "1e2211dc6fa2fd31aa5e9e5d384543f2b3ecdd569e195022a7d6fc97759e0314"
    assert stories.corpus_hash(200, seed=0) == expected


def test_tell_uses_only_the_given_random():
    random.seed(1)
    state = random.getstate()
    stories.tell(random.Random(2))
    assert random.getstate() == state


# --- the probability of a story


def test_log_probability_is_the_product_of_the_recorded_choices(sample):
    for story in sample[:500]:
        assert math.exp(story.log_probability) == pytest.approx(
            math.prod(choice.probability for choice in story.choices), rel=1e-9
        )


def test_exact_entropy_agrees_with_sample_mean(sample):
    nats = [-story.log_probability for story in sample]
    standard_error = statistics.stdev(nats) / math.sqrt(len(nats))
    assert standard_error < 0.05
    assert abs(statistics.fmean(nats) - stories.entropy_per_story()) < 4 * standard_error
    assert 25 < stories.entropy_per_story() < 45


def alternatives(plot, template):
    """A template as a list of sets: what can stand at each place (facts are not yet tied together)."""
    places, position = [], 0
    for part in stories.PART.finditer(template):
        slot, form, detail = part.groups()
        places.append({template[position : part.start()]})
        if detail:
            places.append(set(detail.split("|")))
        else:
            forms = {values[form or ""] for values in plot.tables[slot.lower()].values()}
            places.append({word if slot.islower() else word[0].upper() + word[1:] for word in forms})
        position = part.end()
    return [*places, {template[position:]}]


def may_clash(first, second):
    """Can a text of `first` equal or begin a text of `second` (or the other way round)?

    Walks through both at once, character by character. What is left over of the longer one is carried along.
    """
    todo, seen = [(0, 0, "", "")], set()
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        i, j, left, right = state
        common = min(len(left), len(right))
        if left[:common] != right[:common]:
            continue
        left, right = left[common:], right[common:]
        if not left and i < len(first):
            todo += [(i + 1, j, value, right) for value in first[i]]
        elif not right and j < len(second):
            todo += [(i, j + 1, left, value) for value in second[j]]
        else:
            return True  # one of them has come to its end, and there was no difference
    return False


def test_may_clash_can_tell():
    assert may_clash([{"a ", "the "}, {"cat"}], [{"the cat sat"}])
    assert may_clash([{"car", "cart"}, {"."}], [{"cart."}])
    assert not may_clash([{"a ", "the "}, {"cat."}], [{"the cat sat."}])


def reading_pools():
    """For every point where a reader must tell templates apart: all (plot, template) that can come there."""
    plots = stories.PLOTS.values()
    pools = {"opening": [(plot, text) for plot in plots for text in plot.templates["opening"]]}
    for name, plot in stories.PLOTS.items():
        pools[f"{name} wish"] = [(plot, text) for text in plot.templates["wish"]]
        headings = [f"{turn}: trouble" for turn in plot.turns]
        pools[f"{name} trouble"] = [(plot, text) for heading in headings for text in plot.templates[heading]]
        for label in stories.LABELS:
            pools[f"{name} {label} ending"] = [(plot, text) for text in plot.templates[f"{label} ending"]]
        for turn in plot.turns:
            pools[f"{name} {turn} action"] = [(plot, text) for text in plot.templates[f"{turn}: action"]]
            pools[f"{name} {turn} outcome"] = [
                (plot, text) for label in stories.LABELS for text in plot.templates[f"{turn}: {label}"]
            ]
    return pools


def test_templates_can_always_be_told_apart():
    """First half of the proof that a text has one derivation: the template can be read off the text."""
    for name, pool in reading_pools().items():
        for (plot, template), (other_plot, other) in combinations(pool, 2):
            clash = may_clash(alternatives(plot, template), alternatives(other_plot, other))
            assert not clash, f"{name}: {template!r} and {other!r}"


def test_choices_inside_a_template_can_be_read_off():
    """Second half: no option begins with another one, and the first mention of a fact shows which it is."""

    def tell_apart(options):
        pairs = product(options, repeat=2)
        return not any(first.startswith(second) for first, second in pairs if first != second)

    for plot in stories.PLOTS.values():
        for turn, label in product(plot.turns, stories.LABELS):
            for template in (template for step in plot.steps(turn, label) for template in step):
                for slot, form, detail in stories.PART.findall(template):
                    options = detail.split("|")
                    if slot and form not in {"he", "him", "his"}:
                        options = [values[form] for values in plot.tables[slot.lower()].values()]
                    assert len(set(options)) == len(options) and tell_apart(options), (template, slot, detail)


def test_pronouns_never_come_before_the_name():
    """A pronoun does not show who it is, so the fact must be known by then: from this template or before."""
    for plot in stories.PLOTS.values():
        for turn, label in product(plot.turns, stories.LABELS):
            always_known = set()
            for step in plot.steps(turn, label):
                known_after = []
                for template in step:
                    known = set(always_known)
                    for slot, form, _ in stories.PART.findall(template):
                        if slot:
                            assert form not in {"he", "him", "his"} or slot.lower() in known, template
                            known.add(slot.lower())
                    known_after.append(known)
                always_known = set.intersection(*known_after)


def test_equal_texts_have_equal_derivations():
    """On openings, where texts do repeat: what the sample says about the proof above."""
    openings = {}
    for story in stories.stories(20_000, seed=11):
        wish = next(index for index, choice in enumerate(story.choices) if choice.what == "wish")
        choices = story.choices[:wish]
        said = stories.PLOTS[story.plot].templates["opening"]
        assert choices[1].value in said
        facts, details = facts_of(story), iter([c.value for c in choices if c.what == "detail"])

        def fill(part, plot=stories.PLOTS[story.plot], facts=facts, details=details):
            return next(details) if part[3] else plot.tables[part[1]][facts[part[1]]][part[2] or ""]

        opening = stories.PART.sub(fill, choices[1].value)
        assert story.text.startswith(opening + " ")
        assert openings.setdefault(opening, choices) == choices
    assert len(openings) < 19_000  # there were repeats to compare


# --- the story holds together


def test_recorded_facts_are_in_the_text_and_others_are_not(sample):
    """Another object, plant or pet may only be there where a template or a detail says so in plain words."""
    slots = ("colour", "thing", "food", "flavour", "plant", "pet", "family")
    every_value = {value for slot in slots for value in values_of(slot)}
    for story in sample[:2000]:
        facts = facts_of(story)
        assert all(mentions(story.text, value) for value in facts.values()), story
        not_facts = [choice.value for choice in story.choices if choice.what not in facts]
        written = " ".join(stories.PART.sub(" ", value) for value in not_facts)
        # "named it Pudding, because it looked like a pudding"
        same_letters = {value.lower() for value in facts.values()}
        for other in every_value - set(facts.values()) - same_letters:
            assert (
                not mentions(story.text, other)
                or mentions(written, other)
                or (any(other in value.split() for value in facts.values()))
            ), (other, story.text)


def test_names_belong_to_the_hero_and_the_friend_only(sample):
    for story in sample:
        facts = facts_of(story)
        named = {name for name in values_of("hero") | values_of("friend") if mentions(story.text, name)}
        assert named == {facts[slot] for slot in ("hero", "friend") if slot in facts}


def test_pronouns_agree(sample):
    """Where hero and friend (if any) take the same pronoun, no other one is in the text."""
    tables, checked = stories.SHARED_TABLES, 0
    for story in sample:
        facts = facts_of(story)
        pronouns = {tables[slot][facts[slot]]["he"] for slot in ("hero", "friend") if slot in facts}
        # a mother is "she" whoever the hero is
        if pronouns == {"he"} and "mother" not in story.text:
            assert not {"she", "her", "hers"} & set(stories.words(story.text)), story.text
            checked += 1
        elif pronouns == {"she"}:
            assert not {"he", "him", "his"} & set(stories.words(story.text)), story.text
            checked += 1
    assert checked > SAMPLE_SIZE / 4


def test_objects_of_plots_differ():
    """The object tells the plot, so no object may be in two plots."""
    objects = [plot.tables.get("thing") or plot.tables.get("food") or {} for plot in stories.PLOTS.values()]
    names = [name for table in objects for name in table]
    assert len(names) == len(set(names)) >= 20


def test_label_decides_the_events(sample):
    for story in sample:
        told = {choice.what for choice in story.choices}
        other = "sad" if story.label == "happy" else "happy"
        assert f"{story.label} ending" in told and f"{other} ending" not in told
        assert not any(what.endswith(f": {other}") for what in told)


def test_labels_and_plots_are_balanced(sample):
    happy = sum(story.label == "happy" for story in sample)
    assert abs(happy - SAMPLE_SIZE / 2) < 4 * math.sqrt(SAMPLE_SIZE / 4)
    share = 1 / len(stories.PLOTS)
    for plot in stories.PLOTS:
        count = sum(story.plot == plot for story in sample)
        assert abs(count - SAMPLE_SIZE * share) < 4 * math.sqrt(SAMPLE_SIZE * share * (1 - share))


def test_no_single_word_gives_the_label_away(sample):
    happy = [story.label == "happy" for story in sample]
    bags = [set(stories.words(story.text)) for story in sample]
    for word in stories.vocabulary():
        right = sum((word in bag) == label for bag, label in zip(bags, happy, strict=True))
        assert max(right, SAMPLE_SIZE - right) < 0.7 * SAMPLE_SIZE, word


# --- the language


def test_vocabulary_is_what_the_stories_use(sample):
    used = {word for story in sample for word in stories.words(story.text)}
    assert used <= stories.vocabulary()
    assert stories.vocabulary() - used == set()
    assert 300 <= len(stories.vocabulary()) <= 500


def test_text_is_plain(sample):
    for story in sample:
        assert story.text.isascii()
        assert re.fullmatch(r'[A-Za-z .,!?"]+', story.text), story.text
        assert "  " not in story.text and story.text.count('"') % 2 == 0


def test_sentences_begin_with_a_capital_and_end_with_a_mark(sample):
    for story in sample:
        assert re.match(r'"?[A-Z]', story.text) and re.search(r'[.!?]"?$', story.text)
        # after "!" or "?" inside quotes the sentence may go on: "Come back!" shouted Mia
        assert not re.search(r'\. [a-z"]*[a-z]|\." [a-z]|[!?] [a-z]', story.text), story.text


def test_articles_and_doubled_words(sample):
    for story in sample:
        assert not re.search(r"\b[Aa] [aeiou]", story.text), story.text
        assert not re.search(r"\b[Aa]n [^aeiou]", story.text), story.text
        assert not re.search(r"\b(\w+) \1\b", story.text.lower().replace("hoped and hoped", "")), story.text


def test_length(sample):
    lengths = [len(stories.words(story.text)) for story in sample]
    assert min(lengths) >= 50 and max(lengths) <= 110
    assert 70 < statistics.fmean(lengths) < 90
    sentences = [len(re.findall(r'[.!?]"?(?= ["A-Z]|$)', story.text)) for story in sample]
    assert min(sentences) >= 5 and max(sentences) <= 8


def test_prompts_that_the_labs_use_are_common(sample):
    once = sum(story.text.startswith("Once upon a time") for story in sample)
    assert 0.3 < once / SAMPLE_SIZE < 0.6
    assert any(story.text.startswith("One sunny morning") for story in sample)
    assert any(re.match(r"[A-Z][a-z]+ had an? [a-z]+ kite", story.text) for story in sample)


def test_command_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["stories.py", "--count", "2", "--seed", "1"])
    stories.main()
    printed = capsys.readouterr().out
    assert all(f"[{story.label}] {story.text}" in printed for story in stories.stories(2, 1))
    monkeypatch.setattr("sys.argv", ["stories.py", "--stats"])
    stories.main()
    assert f"{stories.entropy_per_story():.2f} nats" in capsys.readouterr().out
