r"""Little stories, told by a grammar: the text that every model of this module is trained on.

A story has six steps: an opening, a wish, a trouble, an action, an outcome and an ending. First a *plot* is
chosen, later a *turn* (which trouble it is), and last the *label*, "happy" or "sad", which decides the
outcome and the ending. Each step is one template from a list. A template has three kinds of parts:

    plain text       the same every time
    [sunny|warm]     a detail: one of these, chosen afresh and then forgotten
    {hero}           a fact: chosen at its first mention, then kept to the end of the story

A fact can have forms: {hero.he}, {hero.him} and {hero.his} follow the name, and {colour.a} puts "a" or "an"
in front. A capital letter in the slot, {Hero.he}, gives a capital letter in the text. Because a fact is
chosen once and comes back sentences later, a model can only tell a good story if it carries facts over
dozens of tokens.

How much information is in a story? Every choice is even: one of n options has probability 1/n. The
probability of a derivation (the list of all choices) is the product of these, and the probability of a
*text* is the sum over its derivations. Here each text has exactly one derivation, so the two are equal, and
-log_probability is the information content of the text in nats. The reason is that every choice can be read
off the text. Take the ways in which the next step of a story can be written, given the steps before it: no
way is equal to another, and none begins with all of another. So a reader who goes from left to right knows
where each step ends and which choices made it. (In coding theory: each step is a prefix code.) The plot is
known from the opening, whose object belongs to one plot only; the turn is known from the trouble and the
label from the outcome. `tests/checkpoints/test_stories.py` checks this for all pairs of templates.

    python checkpoints/stories.py --count 5 --seed 1
    python checkpoints/stories.py --stats
"""

import argparse
import hashlib
import math
import random as random_module
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

LABELS = ("happy", "sad")
PART = re.compile(r"\{(\w+)(?:\.(\w+))?\}|\[([^\]]+)\]")
WORD = re.compile(r"[a-z]+")


def _table(values: str) -> dict[str, dict[str, str]]:
    """The values of a fact, each with its forms, from a comma-separated list."""
    return {
        value: {"": value, "a": ("an " if value[0] in "aeiou" else "a ") + value.lower()}
        for value in values.split(", ")
    }


def _people(girls: str, boys: str) -> dict[str, dict[str, str]]:
    """First names with the pronouns that go with them."""
    she = {"he": "she", "him": "her", "his": "her"}
    he = {"he": "he", "him": "him", "his": "his"}
    return {name: {"": name, **she} for name in girls.split(", ")} | {
        name: {"": name, **he} for name in boys.split(", ")
    }


# Within one table no value may begin with another ("car", "cart"): a reader must know where a value ends.
# Heroes and friends are different people, so that a friend never bears the name of the hero.
SHARED_TABLES = {
    "hero": _people(
        "Mia, Lily, Zoe, Nora, Ruby, Ella, Ivy, Hana",
        "Tom, Ben, Omar, Leo, Max, Finn, Sam, Hugo",
    ),
    "friend": _people("Anna, Rosa, Kim, Tess, Lucy, Jo", "Jack, Noah, Theo, Paul, Amir, Dan"),
    "family": _table("grandma, grandpa, aunt, uncle"),
    "colour": _table("red, blue, green, yellow, orange, purple, pink, silver"),
}


@dataclass(frozen=True)
class Plot:
    """One kind of story: `tables` of facts, and the templates of each step under its heading."""

    tables: dict[str, dict[str, dict[str, str]]]
    turns: tuple[str, ...]
    templates: dict[str, tuple[str, ...]]

    def steps(self, turn: str, label: str) -> tuple[tuple[str, ...], ...]:
        """The six lists of templates of a story, in reading order."""
        own = (f"{turn}: trouble", f"{turn}: action", f"{turn}: {label}")
        return tuple(self.templates[heading] for heading in ("opening", "wish", *own, f"{label} ending"))


def _plot(script: str, **tables: str) -> Plot:
    """Read a plot from its script: headings start with '#', every other line is one template."""
    templates: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(str.strip, script.splitlines())):
        if line.startswith("#"):
            heading = line.removeprefix("# ")
            templates[heading] = ()
        else:
            templates[heading] += (" ".join(line.split()),)
    turns = tuple(heading.removesuffix(": trouble") for heading in templates if heading.endswith(": trouble"))
    return Plot(SHARED_TABLES | {fact: _table(values) for fact, values in tables.items()}, turns, templates)


# Openings for all plots that begin with an object. The object belongs to one plot only.
HAD_A_THING = """
    # opening
    {hero} had {colour.a} {thing}, a present from {hero.his} {family}.
    {hero} had {colour.a} {thing} and loved it more than [cake|summer|anything|Sundays].
    Once upon a time, {hero} had {colour.a} {thing} from {hero.his} {family}.
    Once upon a time there was a [kind|brave|busy|happy|hungry] child named {hero} who had {colour.a} {thing}.
    One [sunny|bright|warm|quiet|cold] morning, {hero} [woke up early|jumped out of bed] and picked up \
        {hero.his} {colour} {thing}.
"""

PLOTS = {
    "flying": _plot(
        HAD_A_THING
        + """
    # wish
    To let it touch the [trees|clouds|sun|sky], {hero.he} ran to the {place} with {hero.his} friend {friend}.
    {Hero.his} friend {friend} said, "Let us take it to the {place} and see how \
        [high|far] it goes!"
    "Today it will touch the [trees|clouds|sun|sky]!" said {hero.his} friend {friend}, and they went to \
        the {place}.
    # tree: trouble
    Up it went, up and up, until {tree.a} tree [took|caught] it and would not let go.
    Then the [cold|big|quick] wind grew tired and dropped the {thing} into {tree.a} tree.
    # tree: action
    {friend} found [a rope|an old chair|a box], and {hero} climbed up, one [small|slow|brave] step at a time.
    They threw a [shoe|hat|sock] at it, and then the tree had that too.
    {friend} [shouted|sang|danced|jumped] under the {tree} tree, but only \
        [an angry|a very old] squirrel came down.
    # tree: happy
    Then the {colour} {thing} fell right on top of [a cat|a dog|a farmer].
    At last the {tree} tree let go, and the {colour} {thing} came down as [quietly|slowly] as a leaf.
    # tree: sad
    Then it began to rain, and the {colour} {thing} came down from the {tree} tree in [two|three|six] pieces.
    But it was too high, and the {colour} {thing} had to stay in the {tree} tree when [night|the rain] came.
    # wind: trouble
    Then a [cold|big|quick] wind pulled the {thing} out of {hero.his} hands.
    {hero} [sneezed|laughed] and let go for one second, and the wind carried the {thing} away.
    # wind: action
    "Come back!" shouted {hero}, and the friends ran after it, [past|around] the [mill|school|farm] \
        and over the [bridge|road].
    {friend} [shouted|laughed], {hero} ran, and they followed it all the way to the [river|mill|farm].
    # wind: happy
    There [a farmer|a doctor|a captain] caught the {colour} {thing} in a [hat|net|basket] and \
        gave it back with a bow.
    The wind grew tired and put the {colour} {thing} on a [bush|wall], as [quietly|slowly] as a leaf.
    # wind: sad
    The {colour} {thing} became as small as [a bird|a snail|a button], and then there was only sky.
    The {colour} {thing} fell into the lake, and nobody had a [boat|net|rope].
    # happy ending
    "Again!" [shouted|sang] {friend}, and the {thing} went up [two|three|six] more times.
    That [night|evening] {hero} told {hero.his} {family} the whole story.
    {hero} and {friend} walked home from the {place}, singing a [silly|long|happy] song.
    # sad ending
    {hero} walked home from the {place} [slowly|quietly], and even {friend} had no [joke|story|song].
    That night {hero} looked at the empty [wall|place] over {hero.his} bed and [said nothing|could not sleep].
    "I loved that {thing}," {hero} told {hero.his} {family}, and {friend} looked down at {friend.his} shoes.
    """,
        thing="kite, balloon, glider, paper plane",
        place="hill, field, park, garden",
        tree="oak, apple, cherry, lemon",
    ),
    "lost": _plot(
        HAD_A_THING
        + """
    # wish
    {Hero.he} took it to the {place}, because it had never [been there|seen a crow|seen a goat] before.
    "You are coming with me," {hero.he} told it, and they went to the {place} by [bus|train|boat].
    It went everywhere with {hero.him}, and that [day|morning|evening] it went to the {place}.
    # hole: trouble
    But there was a [small|big] hole in {hero.his} [pocket|bag], and on the way home the {thing} was gone.
    At home {hero.he} put a hand into {hero.his} [pocket|bag] and found only a [small|big] hole.
    # hole: action
    {hero} went back with {hero.his} friend {friend}, and they looked under every [bush|stone|chair|hat].
    {Hero.his} friend {friend} drew a [big|small|silly] picture of it, and they showed it to everyone \
        at the {place}.
    # hole: happy
    A [doctor|farmer|captain] with six dogs had found the {colour} {thing}, and only [one dog|two dogs] \
        had licked it.
    There it was, the {colour} {thing}, sitting on a [chair|wall|stone] as if it were waiting for a \
        [bus|train].
    # hole: sad
    They found [a shoe|a sock], a spoon and a very old [sandwich|apple], but not the {colour} {thing}.
    They looked until [evening|dinner|night], but nobody had seen the {colour} {thing}.
    # thief: trouble
    There {thief.a} saw the {thing}, liked it very much, and [ran away|went off] with it.
    {Hero.he} put it down for one [second|minute], and {thief.a} came and took it.
    # thief: action
    {hero} and {hero.his} friend {friend} followed the {thief} around the {place} [two|three|six] times.
    "[Please|Stop], let us trade," said {hero.his} friend {friend}, and held out \
        [a cookie|an apple|a sandwich|a carrot] to the {thief}.
    # thief: happy
    The {thief} looked at them for a [second|minute], dropped the {colour} {thing}, and [sneezed|took a bow].
    At last the {thief} grew [tired|hungry] and gave the {colour} {thing} back.
    # thief: sad
    The {thief} was too [quick|small], and nobody ever saw the {colour} {thing} again.
    But the {thief} only [laughed|sneezed] and carried the {colour} {thing} away, over the [hill|river|road].
    # happy ending
    {hero} held the {thing} with [two hands|both hands] all the way home, and {friend} [sang|danced].
    That [night|evening] {hero.his} {family} told {hero} and the {thing} a long story.
    "Next time, hold my hand," {hero} told the {thing}, and {friend} [laughed|took a bow].
    # sad ending
    That [night|evening] {hero} left the [window|door] open, just in case the {thing} came home.
    "You can have mine," said {friend}, and that was kind, but it was not the same.
    That [night|evening] the bed was too big for one, and {hero} did not want a [story|song].
    """,
        thing="teddy, scarf, whistle, doll",
        place="market, library, zoo, station",
        thief="crow, goat, monkey, fox",
    ),
    "boat": _plot(
        HAD_A_THING
        + """
    # wish
    {Hero.he} took it to the {water}, where {captain.a} climbed [in|on top] and became the captain.
    "We need a captain," {hero.he} said at the {water}, and {captain.a} looked [ready|happy|brave] enough.
    At the {water} {hero.he} asked {captain.a} to be the captain, because it had a [kind|brave|good] face.
    # drift: trouble
    The {thing} went well, too well, and soon it was [very|too] far out.
    Then a [cold|big|quick] wind came and pushed the {thing} far out on the {water}.
    # drift: action
    {hero} saw {swimmer.a} and [shouted|called], "Please, [can|will] you help?"
    {hero} threw [two|three|six] stones to make waves, and {swimmer.a} came to see what the noise was.
    # drift: happy
    The {swimmer} put its head under the {colour} {thing} and pushed it [home|back].
    The {swimmer} climbed on top of the {colour} {thing}, and [soon|together] they all came back.
    # drift: sad
    The {swimmer} [sneezed|laughed] and went the other way, and nobody ever saw the {colour} {thing} again.
    The {swimmer} tried, but the {colour} {thing} was [gone|too far out], and the captain with it.
    # leak: trouble
    Far out on the {water}, the {thing} began to drink through a [small|big] hole.
    Then the {thing} hit a [big|small] stone, and water began to come in.
    # leak: action
    {hero} jumped in up to {hero.his} knees and held out a [stick|net|broom|spoon].
    {hero} took off {hero.his} [shoes|hat] and ran in to [stop|help] it.
    # leak: happy
    {Hero.he} caught the {colour} {thing} just in time and closed the hole with [gum|a leaf|a sock].
    Just in time {hero.he} pulled out the {colour} {thing}, and the {captain} was not even [wet|angry].
    # leak: sad
    {Hero.he} got the {captain} out, but the {colour} {thing} went down and did not come up again.
    The {captain} got away on a [leaf|stick], but the {colour} {thing} went down with a small, [sad|slow] \
        noise.
    # happy ending
    {hero} made the {captain} a [medal|hat|chair] out of a leaf.
    Soon the {colour} {thing} went out again, and the {captain} looked very [happy|brave|tall].
    "Same time [next summer|on Sunday], captain?" asked {hero}, and the {captain} did not say no.
    # sad ending
    {hero} sat by the {water} until [dinner|night] and looked at the place where the {thing} had been.
    {hero} walked home [slowly|quietly|alone], with no {thing} to carry.
    At home {hero} drew a picture of the {thing}, and {hero.his} {family} said it was a [good|brave] {thing}.
    """,
        thing="boat, raft, ship, canoe",
        water="pond, lake, river, stream",
        captain="snail, beetle, ladybug, mouse",
        swimmer="duck, frog, turtle, dog",
    ),
    "baking": _plot(
        """
    # opening
    Once upon a time, {hero} made {flavour.a} {food} for {hero.his} {family}.
    Once upon a time there was a [kind|brave|busy|happy|hungry] child named {hero} who made {flavour.a} \
        {food} \
        for {hero.his} {family}.
    One [sunny|bright|warm|quiet|cold] [morning|Sunday], {hero} wanted to make {flavour.a} {food} \
        for {hero.his} {family}.
    {hero} had {flavour.a} {food} in the oven for {hero.his} {family}.
    # wish
    {Hero.his} friend {friend} came to help, and soon there was flour on the [floor|cat|lamp|door|window].
    {Hero.his} friend {friend} came to help, and they both licked the spoon [two|three|six] times.
    "It smells like [summer|a party|home]," said {hero.his} friend {friend}, and put on a very \
        [tall|big|silly] hat.
    # smoke: trouble
    They began to [sing|play] and forgot the time, and [black|green|yellow] smoke came out of the oven.
    {hero} was telling a long [joke|story] when [black|green|yellow] smoke came out of the oven.
    # smoke: action
    {friend} opened the [window|door], and {hero} took off the black parts with a [spoon|stick].
    {hero} pulled it out, and {friend} put [leaves|flour|honey] on top to hide the black parts.
    # smoke: happy
    But under the top, the {flavour} {food} was [warm|soft] and good.
    {friend} had a bite of the {flavour} {food} and asked for [two|three|six] more.
    # smoke: sad
    But the {flavour} {food} was black all the way down and as hard as a [stone|shoe|wall].
    {friend} had a bite of the {flavour} {food} and [quietly|slowly] put down the spoon.
    # visitor: trouble
    They put it by the window to cool, and {visitor.a} came and sat down [next to|in front of] it.
    It stood by the [window|door] to cool, and {visitor.a} looked in with big eyes.
    # visitor: action
    "Please, not the {food}!" [shouted|said] {hero}, and {friend} held out \
        [an old sandwich|a cookie|a carrot].
    {hero} ran to stop the {visitor}, and {friend} held up [a broom|a spoon|an angry hand].
    # visitor: happy
    The {visitor} [smelled|licked] the {flavour} {food}, sneezed, and went away.
    The {visitor} had only one [small|slow] bite of the {flavour} {food} and then left it alone.
    # visitor: sad
    But the {visitor} ate the whole {flavour} {food} and [sneezed|took a bow].
    The {visitor} jumped [up|in], and the {flavour} {food} fell on the floor with a [sad|soft] noise.
    # happy ending
    They shared it with {hero.his} {family}, and nobody said a word until the plate was empty.
    "This is the best {food} in town," said {hero.his} {family}, and nobody wanted dinner.
    {hero}, {friend} and {hero.his} {family} ate it by the window and told silly stories until \
        [night|dinner|bed].
    # sad ending
    There was nothing for {hero.his} {family}, only a picture with flour on it.
    {hero} and {friend} sat on the floor and did not [say a word|want to play].
    "I wanted it to be good," said {hero}, and {hero.his} {family} got no {food} at all.
    """,
        food="cake, pie, pudding, pizza",
        flavour="apple, lemon, honey, cherry, carrot, banana",
        visitor="cat, dog, goat, monkey",
    ),
    "garden": _plot(
        """
    # opening
    Once upon a time, {hero} planted {plant.a} seed {spot}.
    Once upon a time there was a [kind|brave|busy|happy|hungry] child named {hero} who planted {plant.a} \
        seed \
        {spot}.
    One [sunny|bright|warm|quiet|cold] [morning|Sunday], {hero} found {plant.a} seed and planted it {spot}.
    {hero} had {plant.a} seed from {hero.his} {family}, and it went into the ground {spot}.
    # wish
    Every [day|morning|evening] {hero.he} gave it water and told it a [story|joke], and soon \
        [two|three|six] leaves came up.
    {Hero.he} sang to it every [day|morning|evening], and soon [two|three|six] leaves came up.
    "Good morning, {plant}," {hero.he} said every day, and soon [two|three|six] leaves came up.
    # dry: trouble
    But the rain stayed away for [two|three|six] weeks, and the leaves grew [yellow|black].
    Then the [sun|summer] grew too hot, and the little plant hung its head.
    # dry: action
    {hero} and {hero.his} friend {friend} carried water from the [river|pond|lake], one [spoon|hat|shoe] \
        at a time.
    {hero} gave it water from the [river|pond|lake], and {hero.his} friend {friend} held a [hat|scarf] \
        over it.
    # dry: happy
    The next [day|Sunday|morning], the {plant} plant had its head up again.
    That night the rain came at last, and the {plant} plant [danced|sang] in the wind.
    # dry: sad
    But the ground stayed [hard|hot], and the {plant} plant never stood up again.
    It was not enough, and one by one the leaves of the {plant} plant fell [down|off].
    # eater: trouble
    One [night|evening|morning] {eater.a} came and ate a leaf for dinner.
    But {eater.a} sat down next to it and began to look [hungry|happy].
    # eater: action
    {hero} and {hero.his} friend {friend} made a wall around it out of [stones|shoes].
    {hero} and {hero.his} friend {friend} put up a [big|small] sign that said, \
        "Please eat the [grass|wall|flour]."
    # eater: happy
    The {eater} looked at it for a [minute|long time] and then left the {plant} plant alone.
    The {eater} [sneezed|laughed], went home, and never came near the {plant} plant again.
    # eater: sad
    The {eater} only [laughed|sneezed], and in the morning the {plant} plant was just a stick.
    But the {eater} came back with [two|three|six] friends, and they ate the whole {plant} plant.
    # happy ending
    It grew into the best {plant} plant in town, and {hero} and {friend} gave it a [medal|hat].
    "Look how big you are!" said {hero} to the {plant} plant {spot}, and {friend} took a bow.
    At the end of the summer, {friend} had to stand on a [chair|wall] to give it water.
    # sad ending
    The ground {spot} was empty, and {hero} told {hero.his} {family} that it had been a [good|brave] plant.
    "We can try again next summer," said {friend}, but {hero} had wanted this one.
    {hero} put a [small|big] stone {spot}, and nobody ever forgot the {plant} plant.
    """,
        plant="sunflower, pumpkin, bean, tomato",
        spot="by the wall, near the bridge, under the window, behind the school",
        eater="rabbit, mouse, goat, snail",
    ),
    "found": _plot(
        """
    # opening
    Once upon a time, {hero} found a little {animal} {where}.
    Once upon a time there was a [kind|brave|busy|happy|hungry] child named {hero} who found a little \
        {animal} \
        {where}.
    One [cold|quiet|warm] [night|evening], {hero} saw two small eyes {where}, the eyes of {animal.a}.
    {hero} found a very small {animal} {where}, all [wet|tired|hungry] and cold.
    # wish
    {Hero.he} took it home, made it a bed in {bed.a}, and named it {pet}.
    "Your name is {pet}," {hero.he} told it, and put it to bed in {bed.a}.
    {Hero.he} carried it home in {bed.a} and named it {pet}, because it looked like {pet.a}.
    # foot: trouble
    But {pet} had hurt a foot and could not [walk|jump|play].
    {pet} tried to [walk|jump|play], but one foot hurt too much.
    # foot: action
    {Hero.his} friend {friend} wanted to be a doctor one day, so {friend.he} came with a big [bag|book|spoon].
    {Hero.his} friend {friend} [sang to it|told it stories|held its foot], and they sat next to the {bed} \
        all night.
    # foot: happy
    The next [day|Sunday], the little {animal} [ran|danced|jumped] around the house and broke a \
        [lamp|plate|chair].
    Soon the little {animal} stood up, took [two|three|six] steps, and asked for [dinner|cake|a story].
    # foot: sad
    But the foot did not get better, and the little {animal} had to go to a doctor far away.
    But the foot was too bad, and the little {animal} had to live on a farm \
        far away over the [hill|river|lake].
    # mother: trouble
    But [at night|every night] {pet} looked out of the window and called for its mother.
    But {pet} would not [eat|sleep|play], because it wanted its mother.
    # mother: action
    {hero} and {hero.his} friend {friend} put up a sign on every [tree|door|wall] in town.
    So {hero} and {hero.his} friend {friend} went out with a [lamp|bag|big hat] to look for her.
    # mother: happy
    In the morning a big {animal} sat at the [door|window], and {pet} ran right to her.
    Soon they saw the mother {animal}, with [two|three|six] more behind her.
    # mother: sad
    But in the night the little {animal} ran away to look for her all alone.
    They did not find her, and in the morning the little {animal} was gone too.
    # happy ending
    From then on {pet} came to [dinner|cake] every Sunday and told {hero} and {friend} long stories.
    "Come again soon, {pet}," said {hero}, and the next day it did, with [two|three|six] friends.
    {hero} and {friend} danced around the empty {bed}, and {pet} danced with them.
    # sad ending
    The {bed} stayed empty, and the house was very [quiet|big] without {pet}.
    "Good night, {pet}," {hero} said to the empty {bed}, that night and every night.
    {hero} put {hero.his} face into the {bed}, and it smelled of {animal}.
    """,
        animal="hedgehog, squirrel, fox, mouse, rabbit, bear",
        where="under a bush, by the road, in the wet grass, behind the mill",
        bed="box, basket, hat, drawer",
        pet="Button, Cookie, Pudding, Carrot, Banana, Sandwich",
    ),
    "race": _plot(
        HAD_A_THING
        + """
    # wish
    "I can beat you to the {finish}," said {hero.his} friend {friend}, and {hero} said, \
        "[Ready, steady|One, two, three], go!"
    Now {hero.he} wanted to beat {hero.his} friend {friend} in the [big|long] race to the {finish}.
    {Hero.his} friend {friend} said that even a [snail|turtle|tree] was faster, so they had a race to the \
        {finish}.
    # wheel: trouble
    {hero} was in front when a wheel came off and went into a [bush|pond|garden].
    Then a wheel fell off the {thing} and went down the [hill|road] alone.
    # wheel: action
    {hero} ran after the wheel and put it back on with [gum|a rope|a scarf].
    {hero} pushed the wheel back on and hoped that a [sock|scarf|rope] would hold it.
    # wheel: happy
    It held, and the {colour} {thing} went past {friend} like [the wind|a train|a bird] and was first at \
        the {finish}.
    {friend} saw this and came back to help, and they pushed the {colour} {thing} to the {finish}.
    # wheel: sad
    It came off again, and {friend} was at the {finish}, [singing|laughing].
    When the {colour} {thing} got to the {finish} at last, everyone had gone home to [dinner|bed].
    # help: trouble
    Near the end, {friend} fell into a [bush|pond] and [called|shouted] for help.
    Then {friend} hit a [big|small] stone and fell, and could not get up.
    # help: action
    {hero} looked at the {finish}, and then {hero.he} looked back at {friend}.
    {hero} was in front now, and the {finish} was so near, just past [the school|two trees|an old dog].
    # help: happy
    But {hero.he} [went|ran] back, pulled {friend} up, and gave {friend.him} a place on the {colour} {thing}.
    But {hero.he} stopped the {colour} {thing} and [went|ran] back, and they came in last, together and \
        laughing.
    # help: sad
    So {hero.he} went on alone and was first, but {friend} would not [look at|play with] {hero.him} after \
        that.
    So the {colour} {thing} came in first, but {friend} walked home alone and did not [say a word|look back].
    # happy ending
    They both got a cookie as big as a [plate|wheel|hat] from {hero.his} {family}.
    "Best race ever," said {friend}, and {hero} gave the {thing} a [bow|medal|cookie].
    {hero} and {friend} went home together and sang to every [tree|dog|duck] on the way.
    # sad ending
    {hero} did not look at the {thing} for [two|three|six] weeks.
    {hero} pushed the {thing} home in the rain and [told nobody|did not sing].
    That [night|evening] {hero} sat next to the {thing}, and even {hero.his} {family} could not make \
        {hero.him} laugh.
    """,
        thing="bike, scooter, wagon, cart",
        finish="bridge, tower, old oak, mill",
    ),
    "new friend": _plot(
        HAD_A_THING
        + """
    # wish
    At the {place} a new child named {friend} sat all alone [under a tree|on a wall|in the grass].
    It is hard to play alone, but then a new child came to the {place}, named {friend}.
    {Hero.he} took it to the {place}, where a new child named {friend} \
        [sat all alone|sang to a snail|held a snail].
    # shy: trouble
    {hero} wanted to say [hello|a word], but only a [very small|silly] noise came out.
    "Hello," said {hero}, but {friend} hid behind [a tree|a book|a bush|a very small dog].
    # shy: action
    So {hero} put the {thing} on the ground between them and waited for a [minute|long time].
    So {hero} held out the {thing} and hoped and [waited|hoped].
    # shy: happy
    {friend} took one [small|slow|brave] step, and then one more, and soon they both held the {colour} \
        {thing}.
    {friend} looked at the {colour} {thing}, laughed, and asked, "Can [I|we] play now?"
    # shy: sad
    {friend} did not look at the {colour} {thing} and walked away without a [word|bow].
    {friend} liked the {colour} {thing}, but {friend.he} had to go far away, by [bus|train|boat].
    # broken: trouble
    They played [all morning|all day], but then {friend} dropped the {thing}, and it broke.
    Soon they both wanted it, and they both pulled, and the {thing} broke in [two|three|six] pieces.
    # broken: action
    "I am sorry," said {friend} in a very small voice, and {hero} looked at the pieces.
    Nobody said a word, and {friend} [slowly|quietly] held out the pieces to {hero}.
    # broken: happy
    "We can make it better," said {hero}, and [soon|slowly] the {colour} {thing} was in one piece again.
    Then {hero} began to laugh, and out of the {colour} {thing} they made [a boat|a tower|a silly hat].
    # broken: sad
    "Go away," said {hero}, so {friend} put down the {colour} {thing} and [went|ran] home.
    {hero} took what was left of the {colour} {thing}, said nothing, and [left|walked away].
    # happy ending
    The next [day|morning] {hero} and {friend} played again, and the day after that too.
    From then on, there was a place next to {hero}, and it was for {friend}.
    Night came to the {place}, but {hero} and {friend} did not want to go home to [bed|dinner].
    # sad ending
    The next [day|morning] {hero} came back with a [cookie|cake], but {friend} was not there.
    That [night|evening] {hero} looked out of the window alone, and the {thing} was on the floor.
    {hero} waited for [two|three|six] weeks, but {friend} never came to the {place} again.
    """,
        thing="drum, puppet, robot, toy train",
        place="hill, park, library, market",
    ),
}


class Choice(NamedTuple):
    """One choice: what it was about, what was chosen, and the probability that this was chosen."""

    what: str
    value: str
    probability: float


@dataclass(frozen=True)
class Story:
    """A story: its text, "happy" or "sad", log probability (nats), plot, and choices in reading order."""

    text: str
    label: str
    log_probability: float
    plot: str
    choices: tuple[Choice, ...]


def tell(random: random_module.Random) -> Story:
    """Tell one story. All that is random comes from `random.random()`, the one call Python keeps stable."""
    choices: list[Choice] = []
    facts: dict[str, dict[str, str]] = {}

    def choose(what: str, options: tuple[str, ...]) -> str:
        value = options[int(random.random() * len(options))]
        choices.append(Choice(what, value, 1 / len(options)))
        return value

    def fill(part: re.Match) -> str:
        slot, form, detail = part.groups()
        if detail:
            return choose("detail", tuple(detail.split("|")))
        fact = slot.lower()
        if fact not in facts:
            facts[fact] = plot.tables[fact][choose(fact, tuple(plot.tables[fact]))]
        word = facts[fact][form or ""]
        return word if slot == fact else word[0].upper() + word[1:]

    def say(heading: str) -> str:
        return PART.sub(fill, choose(heading, plot.templates[heading]))

    plot_name = choose("plot", tuple(PLOTS))
    plot = PLOTS[plot_name]
    sentences = [say("opening"), say("wish")]
    turn = choose("turn", plot.turns)
    sentences += [say(f"{turn}: trouble"), say(f"{turn}: action")]
    label = choose("label", LABELS)
    sentences += [say(f"{turn}: {label}"), say(f"{label} ending")]
    log_probability = math.fsum(math.log(choice.probability) for choice in choices)
    return Story(" ".join(sentences), label, log_probability, plot_name, tuple(choices))


def stories(count: int, seed: int) -> Iterator[Story]:
    """`count` stories. A seed gives the same stories on every machine; a larger count only adds more."""
    random = random_module.Random(seed)
    return (tell(random) for _ in range(count))


@lru_cache(maxsize=1)
def entropy_per_story() -> float:
    """The entropy of a story in nats, exact: the mean of -log_probability over all stories there can be.

    No story can be predicted better than this on average, so it is also the lowest total loss of any model.
    """

    def rest_of_story(plot: Plot, steps: tuple[tuple[str, ...], ...], known: frozenset[str]) -> float:
        """Nats in the remaining steps, when the facts in `known` are already chosen."""
        if not steps:
            return 0.0
        nats = 0.0
        for template in steps[0]:
            parts = list(PART.finditer(template))
            new = frozenset(part[1].lower() for part in parts if part[1]) - known
            nats += sum(math.log(len(part[3].split("|"))) for part in parts if part[3])
            nats += sum(math.log(len(plot.tables[fact])) for fact in new)
            nats += rest_of_story(plot, steps[1:], known | new)
        return math.log(len(steps[0])) + nats / len(steps[0])

    total = 0.0
    for plot in PLOTS.values():
        for turn in plot.turns:
            for label in LABELS:
                ways = len(PLOTS) * len(plot.turns) * len(LABELS)
                total += (math.log(ways) + rest_of_story(plot, plot.steps(turn, label), frozenset())) / ways
    return total


def corpus_hash(count: int, seed: int) -> str:
    """SHA-256 (hexadecimal) of the labels and texts of `count` stories: is a corpus the same?"""
    digest = hashlib.sha256()
    for story in stories(count, seed):
        digest.update(f"{story.label}\t{story.text}\n".encode())
    return digest.hexdigest()


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.lower())


def vocabulary() -> set[str]:
    """All words that a story can contain, in lower case, read from the templates and the tables."""
    found: set[str] = set()
    for plot in PLOTS.values():
        for templates in plot.templates.values():
            for template in templates:
                for slot, form, detail in PART.findall(template):
                    table = plot.tables[slot.lower()] if slot else {}
                    found.update(word for forms in table.values() for word in words(forms[form]))
                    found.update(words(detail))
                found.update(words(PART.sub(" ", template)))
    return found


def main() -> None:
    """Print stories with their labels, or numbers about the corpus."""
    parser = argparse.ArgumentParser(description="Tell little stories.")
    parser.add_argument("--count", type=int, default=5, help="how many stories (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="which stories (default 1)")
    parser.add_argument("--stats", action="store_true", help="print numbers about 5,000 stories or more")
    arguments = parser.parse_args()
    if not arguments.stats:
        for story in stories(arguments.count, arguments.seed):
            print(f"[{story.label}] {story.text}\n")
        return
    sample = list(stories(max(arguments.count, 5000), arguments.seed))
    print(f"different words    {len(vocabulary())}")
    print(f"words per story    {sum(len(words(story.text)) for story in sample) / len(sample):.1f}")
    print(f"entropy per story  {entropy_per_story():.2f} nats (exact)")
    print(f"happy stories      {sum(story.label == 'happy' for story in sample) / len(sample):.1%}")


if __name__ == "__main__":
    main()
