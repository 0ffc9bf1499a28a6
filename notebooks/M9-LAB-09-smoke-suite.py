# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-09 · A smoke suite that anybody can rerun
#
# | | |
# |---|---|
# | **Objective** | Establish a smoke-test protocol for every family, and make its outcome reproducible: by you, by a colleague, in a year |
# | **Before this** | M9-LAB-08: you have met the five layers of `validate_checkpoint`, and faults that show in no error |
# | **Time** | 60 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 11, 12 and 26 |
#
# **At the end you will be able to**
#
# - write nine cheap checks, each named for what it protects against, and run them over any family with one loop;
# - prove that a check can fail, and that each of the nine sees something that those before it do not;
# - set a tolerance by measurement, and say what it lets through;
# - pin a run in a manifest, rerun it in a fresh process, and name the one field that changed;
# - take the suite home, to a checkpoint and a project of your own.

# %%
from course_helpers.labs import lab_09_charts as charts
from course_helpers.labs import lab_09_figures as figures

figures.protocol()

# %% [markdown]
# When a new machine is built, it is switched on before anybody measures anything: does smoke come out? A **smoke
# suite** is that for software: the few cheap checks after which it makes sense to go on. It does not prove that a model
# is good. It says that nothing is badly wrong, in a second or two, and it says so *every time*, because it is a script
# and not a habit.
#
# Three parts: the suite (and proof that it works), a run that can be repeated to the bit, and a template for you.

# %% [markdown]
# # Part 1: the suite
#
# ## 1 · One switch
#
# The suite runs over all seven bundled families in any case. With a network, it also runs on a model from the hub that
# needs no account: set the environment variable `COURSE_CHECKPOINTS` to `hub`, or write `"hub"` below.

# %%
import dataclasses
import json
import os
import shutil
import textwrap
import time
from pathlib import Path

import torch

from course_helpers import (
    FAMILIES,
    CheckpointError,
    generate,
    load_model,
    load_tokenizer,
    open_checkpoint,
)
from course_helpers.families import family_of
from course_helpers.labs import validation_checkpoint
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-llama3", "hub": "HuggingFaceTB/SmolLM2-135M"}[CHECKPOINTS]

# %%
sources = list(dict.fromkeys((SOURCE, *(family.tiny for family in FAMILIES.values()))))
workspace = Path("workspace/lab-09")  # for the files that this lab makes; emptied at the end
shutil.rmtree(workspace, ignore_errors=True)
workspace.mkdir(parents=True)
print("the suite will run over:", *sources)


# %% [markdown]
# A check needs what earlier checks have found: the model, the tokenizer. They stand in a **subject**, which also holds
# the checkpoint's **card** (`card.json`: what somebody wrote down while the model was known to be right) and what is
# measured on the way. `harm` is for section 6.

# %%
class Subject:
    """One checkpoint on its way through the suite."""

    def __init__(self, source, harm=None):
        self.source, self.harm = source, harm
        card = resolve(source) / "card.json"
        self.card = json.loads(card.read_text()) if card.exists() else {}
        self.config = self.model = self.tokenizer = None  # the checks fill these in
        self.measured = {}


# %% [markdown]
# ## 2 · The ground: is it there, and whole?
#
# Every check is a function of the subject. It returns two things: whether it passed, and what it saw. A
# `CheckpointError` on the way counts as red, too; so the first two need hardly any code, since the package refuses what
# is wrong.
#
# **opens** protects against *a file that was cut short*: the tables of contents, the shards (the pieces of a large
# checkpoint) and their index must agree. No weight is read yet.
#
# **config** protects against *a field that is guessed*: `config.json` is read strictly, so a field that changes the
# numbers is understood or refused.

# %%
def opens(subject):
    with open_checkpoint(subject.source) as checkpoint:
        subject.raw, subject.tensors = checkpoint.config, len(checkpoint.names())
    return True, f"{subject.tensors} tensors"


def config(subject):
    subject.config = family_of(subject.raw).config.from_hf(subject.raw)
    return True, family_of(subject.raw).title


# %% [markdown]
# **placed** protects against *a tensor that is left out*, or has another shape than the config promises. (`load_model`
# refuses both; the count shows that we looked.) We load in float32: there, two ways to compute the same thing agree to
# six digits, so small mistakes can show.
#
# **words** protects against *another model's tokenizer*: text must come back as it was, every id must have a row in the
# embedding (the table that turns a token into a vector), and the tokens that end a text must be special ones.

# %%
TEXT = "Once upon a time: a naïve café, 12 + 30 = 42!"


def placed(subject):
    subject.model = load_model(subject.source, torch.float32)
    report = subject.model.load_report
    accounted = len(report.rows) + len(report.dropped)
    if subject.harm:
        subject.harm(subject.model)
    return accounted == subject.tensors, f"{len(report.rows)} tensors placed"


def words(subject):
    tokenizer = subject.tokenizer = load_tokenizer(subject.source)
    ids = tokenizer.encode(TEXT)
    back = tokenizer.decode(ids) == TEXT
    rows = max(*ids, *tokenizer.stop_ids) < subject.config.vocab_size
    ends = bool(tokenizer.stop_ids) and tokenizer.special_ids.issuperset(tokenizer.stop_ids)
    return back and rows and ends, f"text back {back}, ids have rows {rows}, ends {ends}"


# %% [markdown]
# ## 3 · Behaviour: does it do what every model must?
#
# These three need to know nothing about the model. They compare it with itself, computed in another way.
#
# How long must the text be on which they do it? Some families look back over a **window** only (a layer sees the last
# so many tokens), and keep in their cache no more than that.
#
# **Predict, then run.** `TEXT` has about 30 tokens. In which families would a check on it never see a full window?

# %%
def longest_window(config):
    """How far back the layers look that do not see everything; 0 if all do."""
    windows = [config.window(layer_type) for layer_type in set(config.layer_plan)]
    return max((window for window in windows if window), default=0)


def ids_for(subject):
    """TEXT again and again, until the longest window is full and has had to forget."""
    ids = subject.tokenizer.encode(TEXT)
    wanted = max(len(ids), longest_window(subject.config) + 16)
    return torch.tensor([(ids * (wanted // len(ids) + 1))[:wanted]])


for source in sources:
    with open_checkpoint(source) as checkpoint:
        window = longest_window(family_of(checkpoint.config).config.from_hf(checkpoint.config))
    tokens = len(load_tokenizer(source).encode(TEXT))
    print(f"{source:<16}{tokens} tokens of TEXT, window {window or 'none'}")

# %% [markdown]
# In Gemma 3 and OLMo 3: the text is shorter than their window. A suite with one short sentence never asks whether
# their caches forget the right tokens. **A smoke text must be long enough to reach what you want to protect.**
#
# **forward** protects against *no numbers*: the **logits** (a score for every token of the vocabulary, at every
# position) must have the right shape, and be finite.
#
# **cached** protects against *a cache that changes the text*: all but four tokens in one piece, then four one by one,
# must give the logits of one long pass.
#
# **batched** protects against *padding that is seen*: a row in a batch, and a shorter row behind padding, must be what
# each is alone. How near "the same" has to be is the tolerance; section 7 measures it.

# %%
TOLERANCE = 5e-5  # of the largest logit


def apart(found, expected):
    """The largest difference, as a part of the largest logit."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def forward(subject):
    subject.ids = ids_for(subject)
    subject.logits = subject.model(subject.ids)
    shape = (*subject.ids.shape, subject.config.vocab_size)
    finite = bool(subject.logits.isfinite().all())
    return subject.logits.shape == shape and finite, f"shape {shape}, finite {finite}"


# %%
def cached(subject):
    length = subject.ids.shape[1]
    cache = subject.model.make_cache(1, length)
    pieces = subject.ids.split([length - 4] + [1] * 4, dim=1)
    logits = torch.cat([subject.model(piece, cache=cache) for piece in pieces], dim=1)
    subject.measured["cached"] = apart(logits, subject.logits)
    return subject.measured["cached"] < TOLERANCE, f"{length} tokens"


def batched(subject):
    length, short = subject.ids.shape[1], 9
    padding = torch.tensor([0, length - short])  # how many tokens of it each row begins with
    rows = subject.ids.repeat(2, 1)
    rows[1] = 0  # the padding: any token will do, nobody may look at it
    rows[1, -short:] = subject.ids[0, :short]
    logits = subject.model(rows, left_padding_B=padding)
    found = torch.cat((logits[0], logits[1, -short:]))
    expected = torch.cat((subject.logits[0], subject.logits[0, :short]))
    subject.measured["batched"] = apart(found, expected)
    return subject.measured["batched"] < TOLERANCE, f"rows of {length} and {short} tokens"


# %% [markdown]
# ## 4 · Known answers: is it this very model?
#
# A model with two layers exchanged is a perfectly consistent model, and the checks so far would pass it. The last two
# ask for what was written down.
#
# **greedy** protects against *another text*: always taking the likeliest token (greedy decoding) must write what the
# card has pinned. Ten tokens are enough, *if they are counted*: a model that stops at once, or writes special tokens,
# which are invisible in a text, has written a beginning of the pinned text, too.
#
# **loss** protects against *probabilities that are off*: the **loss** of a fixed text must be what it was. It is the sum
# of its tokens' surprise: of -ln(probability), in **nats**; 0 for a text that was certain.
#
# Where there is no card there is nothing to compare with. That is no pass and no failure: the check returns `None`,
# *unknown*.

# %%
from course_helpers.validation_layers.baseline import losses


def greedy(subject):
    if "greedy" not in subject.card:
        return None, "no text was pinned"
    pinned, tokenizer = subject.card["greedy"][0], subject.tokenizer
    prompt = tokenizer.encode(pinned["prompt"])
    started = time.perf_counter()
    ids = generate(subject.model, [prompt], 10, stop_ids=tokenizer.stop_ids)[0]
    subject.measured["tokens_per_second"] = 10 / (time.perf_counter() - started)
    text, new = tokenizer.decode(ids), ids[len(prompt) :]
    ordinary = [token for token in new if token not in tokenizer.special_ids]
    return pinned["text"].startswith(text) and len(ordinary) == 10, text


def loss(subject):
    if "baseline" not in subject.card:
        return None, "no loss was pinned"
    baseline = subject.card["baseline"]
    found, tokens = losses(subject.model, subject.tokenizer, baseline["texts"][:2])
    pairs = zip(found, baseline["loss_per_text"], strict=False)
    off = max(abs(now - then) for now, then in pairs)
    subject.measured |= {"loss": off, "loss_per_token": sum(found) / tokens}
    return off < baseline["within"], f"{len(found)} texts"


# %% [markdown]
# ## 5 · One loop over everything
#
# The protocol is a table: name → check, the ground first. A red check of the ground ends the run, and so does a red
# **forward** (without a model and its numbers there is nothing to ask the others). After that all are asked, so that
# one run says as much as it can. A check that *crashes* is red as well: a smoke suite that dies of a bad model has
# missed its purpose.

# %%
PROTOCOL = {check.__name__: check for check in (opens, config, placed, words, forward, cached)}
PROTOCOL |= {check.__name__: check for check in (batched, greedy, loss)}
STOPS = ("opens", "config", "placed", "words", "forward")
WORD = {True: "green", False: "RED", None: "unknown"}


@torch.no_grad()
def smoke(source, harm=None):
    """Every check on one checkpoint: its name -> one word; and the subject."""
    subject, outcome = Subject(source, harm), dict.fromkeys(PROTOCOL, "not reached")
    subject.saw, subject.seconds = {}, {}
    for name, check in PROTOCOL.items():
        started = time.perf_counter()
        try:
            passed, subject.saw[name] = check(subject)
        except Exception as error:
            passed, subject.saw[name] = False, getattr(error, "what", repr(error))
        subject.seconds[name] = time.perf_counter() - started
        outcome[name] = WORD[passed]
        if passed is False and name in STOPS:
            break
    return outcome, subject


# %% [markdown]
# **Predict, then run.** Nine checks and seven families, from GPT-2 with its learned positions to OLMo 3 with its
# windows. How many of the nine need to know which family it is?

# %% tags=["nbval-ignore-output"]
table, subjects = {}, {}
for source in sources:
    table[source], subjects[source] = smoke(source)

charts.matrix(table, {source: subject.seconds for source, subject in subjects.items()})

# %% [markdown]
# None: you have just read all of them, and no family's name is in there. What differs between families is in the
# package's registry, behind one interface; so one suite serves all, and a family that is added tomorrow is covered
# without an edit.
#
# Under each mark is what the check took: most for **cached** and **greedy**, which take token after token. Below is what
# each model wrote; and, to be sure that the runner survives it, a model that crashes.

# %%
for source in sources:
    print(f"{source:<16}", subjects[source].saw["greedy"][:70])
crash, victim = smoke(SOURCE, lambda model: 1 / 0)
print(f"{'a crash':<16}", crash["placed"], victim.saw["placed"])

red = [(source, name) for source, row in table.items() for name in row if row[name] == "RED"]
validation_checkpoint("M9-LAB-09", "nine checks, seven families, all green", not red, str(red))

# %% [markdown]
# ## 6 · A check that cannot fail proves nothing
#
# So many green marks. They would look just the same if every check said `return True`. So we break models on purpose,
# in nine ways, one aimed at each check, in every family. (That is called **mutation testing**.) Four faults are in the
# files:

# %%
from course_helpers.labs.lab_09 import copy_of


def change_config(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def cut_short(folder):
    weights = min(folder.glob("*.safetensors"))
    os.truncate(weights, weights.stat().st_size // 2)


def epsilon_forgotten(folder):  # the small number that keeps a norm from dividing by 0
    change_config(folder, lambda raw: {key: raw[key] for key in raw if "eps" not in key})


def other_tokenizer(folder):
    other = resolve("tiny-qwen3" if "gemma3" in folder.name else "tiny-gemma3")
    for name in ("tokenizer.model", "vocab.json", "merges.txt", "original/tokenizer.model"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(other / name, folder / name)


# %% [markdown]
# And five are in the model, after it was loaded. Two of them are faults of *code*, which no look at any file could
# find: a model that forgets where it is when it continues from a cache, and one that sees padding.

# %%
def not_a_number(model):
    model.final_norm.weight.data[0] = torch.nan


def begins_at_zero(model):  # positions are counted from 0 again in every call
    rotation, embed = model.rotation, model.embed
    model.rotation = lambda kind, places, dtype: rotation(kind, places - places[:, :1], dtype)
    model.embed = lambda ids, places: embed(ids, places - places[:, :1])


def padding_is_seen(model):
    right = model.forward
    model.forward = lambda ids, left_padding_B=None, **options: right(ids, **options)


def two_layers_exchanged(model):
    first, second = model.blocks[:2]
    model.blocks[0], model.blocks[1] = second, first


def logits_too_large(model):  # a hook may change what the model returns: here, by a quarter
    model.register_forward_hook(lambda module, given, logits: 1.25 * logits)


# %%
IN_FILES = {
    "half of a file is missing": cut_short,
    "the epsilon is forgotten": epsilon_forgotten,
    "vocab_size of another model": lambda folder: change_config(
        folder, lambda raw: raw | {"vocab_size": 1000}
    ),
    "another family's tokenizer": other_tokenizer,
}
IN_MODEL = {
    "one weight is no number": not_a_number,
    "decoding begins at position 0": begins_at_zero,
    "padding is seen": padding_is_seen,
    "two layers are exchanged": two_layers_exchanged,
    "logits a quarter too large": logits_too_large,
}

# %% [markdown]
# The copies lose the hashes of their cards: hashes (check sums that change with any byte) would stop every changed file
# at once, as M9-LAB-08 has shown, and then no other check would ever have its turn.
#
# **Predict, then run.** Look at the last fault: every logit a quarter too large. Which token is the likeliest then?
# Which checks can see it?

# %%
tiny = [family.tiny for family in FAMILIES.values()]
broken, far = {}, {}
for fault, harm in (IN_FILES | IN_MODEL).items():
    runs = []
    for source in tiny:
        if fault in IN_FILES:
            harm(folder := copy_of(source, workspace / "copies" / source))
            runs.append(smoke(folder))
        else:
            runs.append(smoke(source, harm))
    broken[fault] = [outcome for outcome, _ in runs]
    far[fault] = [subject.measured for _, subject in runs]

counts = {fault: {name: sum(row[name] == "RED" for row in rows) for name in PROTOCOL}
          for fault, rows in broken.items()}
for fault, rows in broken.items():
    for name in PROTOCOL:
        if all(row[name] == "not reached" for row in rows):
            counts[fault][name] = None
charts.caught(counts, len(tiny))

# %% [markdown]
# The frames go down in a staircase: **each check is the first to see something**. Take one away, and one kind of fault
# gets through to the next, or all the way.
#
# One tokenizer does get past **words**, as the next cell shows: Llama 2 ends its texts with token 2, and in the
# vocabulary of Gemma 3, which it was given, token 2 happens to be a special one as well. Nothing looks wrong, until the
# known answers are asked.
#
# The last row answers the question. A factor leaves the order of the tokens alone, so the greedy text is the pinned
# one, word for word, and yet the probabilities are wrong: whoever samples from this model, or trains it further, has
# another model. **A text that looks right is not enough; the loss is.** And the row of the exchanged layers shows why
# the known answers are needed at all: the model agrees with itself in every way, and writes nonsense.

# %%
names = list(PROTOCOL)
first = {fault: next(name for name in names if counts[fault][name]) for fault in counts}
for fault, name in first.items():
    print(f"{fault:<31}{name:<9}in {counts[fault][name]} of {len(tiny)}")

staircase = list(first.values()) == names
none_escapes = all("RED" in row.values() for rows in broken.values() for row in rows)
print("every broken model is seen:", none_escapes)
given = zip(tiny, broken["another family's tokenizer"], strict=True)
passed = [source for source, row in given if row["words"] == "green"]
print("another's tokenizer, not seen by words:", *passed)
print("Llama 2 ends texts with: ", *load_tokenizer("tiny-llama2").stop_ids)
print("special tokens of Gemma 3:", *sorted(load_tokenizer("tiny-gemma3").special_ids))
staircase_holds = staircase and none_escapes
validation_checkpoint("M9-LAB-09", "each check sees what no earlier one does", staircase_holds)

# %% [markdown]
# ## 7 · How near is near enough?
#
# "Cached equals uncached" cannot mean *to the last bit*. A computer adds floating-point numbers one after the other and
# rounds after each step, so the order of a sum decides about its last digits:

# %%
print((0.1 + 0.2) + 0.3 == 0.1 + (0.2 + 0.3))

# %% [markdown]
# One token at a time or ninety at once, one thread or eight, this processor or that: each may add in another order. A
# tolerance must be wider than that, and narrower than the smallest mistake that matters. Both can be measured.
#
# The right models of section 5 show what rounding does, the broken ones of section 6 what mistakes do. And one fault
# more, as quiet as they come: an **epsilon ten times too large**. (A norm rescales what passes through; the epsilon keeps
# it from dividing by 0, and hardly matters elsewhere.)
#
# **Predict, then run.** Does the loss see that one in every family?

# %% tags=["nbval-ignore-output"]
def epsilon_times_ten(model):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps *= 10


@torch.no_grad()
def loss_with(source, harm):
    subject = Subject(source, harm)
    for check in (opens, config, placed, words, loss):
        check(subject)
    return subject.measured["loss"]


quiet = [loss_with(source, epsilon_times_ten) for source in tiny]


# %% tags=["nbval-ignore-output"]
def distances(fault, check):
    return [measured[check] for measured in far[fault]]


right = [subjects[source].measured for source in tiny]
AIMED = {
    "cached": ("decoding begins at 0", distances("decoding begins at position 0", "cached")),
    "batched": ("padding is seen", distances("padding is seen", "batched")),
    "loss": ("logits x 1.25", distances("logits a quarter too large", "loss")),
}
within = subjects[tiny[0]].card["baseline"]["within"]  # nats, the same on all cards
ROOM = {"cached": TOLERANCE, "batched": TOLERANCE, "loss": within}

rows = {}
for check, (fault, values) in AIMED.items():
    rows[f"{check}: right"] = [measured[check] / ROOM[check] for measured in right]
    if check == "loss":
        rows["loss: epsilon x 10"] = [off / ROOM["loss"] for off in quiet]
    rows[f"{check}: {fault}"] = [value / ROOM[check] for value in values]
unit = f"one tolerance: {TOLERANCE} of the largest logit, or {within} nats (loss)"
charts.margins(rows, unit)

# %% [markdown]
# Between rounding and a mistake of behaviour lie five powers of ten: a tolerance anywhere well inside would do, and ours
# does not have to be argued about. The loss has less room. The right models are off by what the card itself has rounded
# away (it keeps four digits after the point), and the quietest mistakes come close.
#
# No: in two families that epsilon moves neither text by more than the tolerance. No text sees everything. Whoever
# changes an epsilon in a file meets the hashes; whoever changes it in *code* may get through. **Know what your suite
# lets through.**

# %%
worst = {check: max(measured[check] for measured in right) for check in ROOM}
inside = all(worst[check] < ROOM[check] / 5 for check in ROOM)
outside = all(min(values) > 100 * ROOM[check] for check, (_, values) in AIMED.items())
print("rounding stays below a fifth of every tolerance:  ", inside)
print("right losses agree to the card's last digit:      ", worst["loss"] < 0.0001)
print("each aimed fault is beyond a hundred tolerances:  ", outside)
seen = sum(off > ROOM["loss"] for off in quiet)
print("families in which the loss sees epsilon x 10:     ", seen, "of", len(quiet))
between = inside and outside
validation_checkpoint("M9-LAB-09", "tolerances stand between rounding and mistakes", between)

# %% [markdown]
# ## 8 · What is to be expected, written down
#
# Green says "as before". For people it helps to know *what* that is: an **expected range** for each family (slide 11).
# The loss and its range are on the card. Memory follows from the config (M9-LAB-APP-A). The speed is measured, and
# holds for one machine: write down which, and be alarmed by a factor of three, not by a third.

# %% tags=["nbval-ignore-output"]
from course_helpers.memory import kv_cache_bytes, weight_bytes

MIB = 2**20
expected, loss_range = {}, {}
for source in tiny:
    subject = subjects[source]
    expected[source] = {
        "loss": losses(subject.model, subject.tokenizer, subject.card["baseline"]["texts"]),
        "weights_mib": weight_bytes(subject.config, torch.float32) / MIB,
        "cache_mib": kv_cache_bytes(subject.config, 256, dtype=torch.float32) / MIB,
        "tokens_per_second": subject.measured["tokens_per_second"],
    }
    nats, tokens = expected[source]["loss"]
    expected[source]["loss"] = sum(nats) / tokens
    loss_range[source] = subject.card["baseline"]["range"]
charts.ranges(expected, loss_range)

# %%
for source in tiny:
    low, high = loss_range[source]
    within = low <= expected[source]["loss"] <= high
    model = subjects[source].model
    held = sum(parameter.nbytes for parameter in model.parameters()) / MIB
    cache = model.make_cache(1, 256).nbytes / MIB
    foretold = expected[source]["weights_mib"], expected[source]["cache_mib"]
    print(f"{source:<16}loss {low:.3f} to {high:.3f}: {within}   ", end="")
    print(f"memory {held + cache:4.1f} MiB, as the config says: {(held, cache) == foretold}")

# %% [markdown]
# (The gold of Gemma 3 is so short because five of its six layers have a window, and keep no more than the window.)
#
# # Part 2: a run that can be repeated
#
# ## 9 · The manifest
#
# "It worked on my machine." *What* worked? Which files, which settings, which text came out? A **run manifest** writes
# all of that down. `record_run` validates a checkpoint, continues prompts, and pins everything that led to the result:

# %%
from course_helpers.manifest import record_run

PROMPTS = ["Once upon a time", "One sunny morning"]
SETTINGS = {"dtype": torch.float32, "seed": 7, "max_new_tokens": 20}

manifest = record_run(SOURCE, PROMPTS, reason="smallest model that tells a story", **SETTINGS)
path = manifest.save(workspace / "run.json")
print(manifest.results[0].text)

# %% [markdown]
# It is a JSON file, made to be read. Here is what each part holds (of a hash, its first eight digits), and why it is
# pinned.

# %%
WHY = {
    "files/weights": "another file is another model, whatever its name",
    "files/config": "the same weights compute something else",
    "files/tokenizer": "other ids for the same text",
    "config_sha256": "the config as it is understood by this version",
    "tokenizer": "what it does to a text full of traps",
    "versions": "the libraries that did the work",
    "settings": "how tokens were chosen, with which numbers",
    "results": "what must come out again: ids and texts",
    "validation": "which of the five layers of checks passed",
    "telemetry": "true once, on one machine, and never compared",
}
raw = json.loads(path.read_text())
for place, why in WHY.items():
    part = raw["files"][place.partition("/")[2]] if "/" in place else raw[place]
    part = part[0] if isinstance(part, list) else part
    inside_it = part[:8] if isinstance(part, str) else ", ".join(part)
    print(f"{place:<17}{textwrap.shorten(inside_it, 40, placeholder=' …'):<42}{why}")
chosen = {key: raw["settings"][key] for key in ("temperature", "seed", "dtype")}
print("\nhow tokens were chosen:", chosen)
print("no path of this machine is in it:", str(Path.cwd()) not in path.read_text())

# %% [markdown]
# Not every difference weighs the same. This is what `verify`, which does a recorded run again, makes of one. The
# settings stand in no box: the run is done again *with* them.

# %%
figures.what_is_compared()

# %% [markdown]
# ## 10 · The second run
#
# A second run in the same notebook proves little: the model is still in memory, and so is every variable that you have
# forgotten. We start a **fresh process**, which knows nothing but the manifest. It records the run again, and sends
# back a hash of the logits, to the last bit.
#
# **Predict, then run.** Which parts of the two manifests will differ? And the logits: will they agree to six digits, or
# to the last bit?

# %%
from course_helpers.labs.lab_09 import flat, run_fresh

AGAIN = """
import hashlib, sys, torch
from course_helpers.manifest import RunManifest, load_pinned, record_run

first, settings = RunManifest.load(sys.argv[1]), {}
for name in ("seed", "max_new_tokens", "temperature", "top_k", "top_p", "use_cache"):
    settings[name] = getattr(first.settings, name)
prompts = [result.prompt for result in first.results]
source, revision = first.source.name, first.source.revision
settings |= {"revision": revision, "dtype": torch.float32}
record_run(source, prompts, reason=first.reason, **settings).save(sys.argv[2])

model, tokenizer = load_pinned(first)  # or nothing, if a single file is another
with torch.inference_mode():
    logits = model(torch.tensor([first.results[0].prompt_ids]))
print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
"""
digest = run_fresh(AGAIN, path, workspace / "second.json")

# %%
import hashlib

from course_helpers.manifest import load_pinned


def differences(old, new):
    """The places at which two manifests, laid flat, differ."""
    return {place for place in old | new if old.get(place, ...) != new.get(place, ...)}


one, other = (
    flat(json.loads((workspace / name).read_text())) for name in ("run.json", "second.json")
)
differ = differences(one, other)
print("more than 40 values compared:", len(one) > 40)
print("parts that differ:", sorted({place.partition("/")[0] for place in differ}))

pinned_model, _ = load_pinned(manifest)
with torch.inference_mode():
    logits = pinned_model(torch.tensor([manifest.results[0].prompt_ids]))
bits = hashlib.sha256(logits.numpy().tobytes()).hexdigest() == digest
print("logits equal to the last bit:", bits)

# %% [markdown]
# Only the telemetry, which is true of one moment on one machine. All else is the same, and on the same machine even the
# last bit is. **That is what "reproducible" means here: not "it works again", but "nothing else came out".**

# %%
same = bits and {place.partition("/")[0] for place in differ} <= {"telemetry"}
validation_checkpoint("M9-LAB-09", "a fresh process repeats it to the bit", same, str(differ))

# %% [markdown]
# ## 11 · One thing changed
#
# `verify` does the run again and compares it with the manifest, cheapest part first; what cannot be the same run is not
# even begun. On the command line it is `python -m course_helpers verify run.json`. It must hold for the
# run as it was. And for one in which we change a single thing?
#
# **Predict, then run.** Seven changes. Write *holds*, *warns* or *differs* behind each:
#
# 1. another seed, the number that random draws start from (the run is greedy);
# 2. no cache;
# 3. another version of torch in the manifest;
# 4. temperature 0.8: tokens are drawn by chance, the more freely the higher the temperature;
# 5. a run that was *recorded* at temperature 0.8, with another seed;
# 6. the last bit of the weight file flipped;
# 7. one more space at the end of the config file.

# %%
from course_helpers.manifest import verify

plain = dataclasses.replace(manifest, validation={})  # the five layers ran twice already
drawn = record_run(SOURCE, PROMPTS[:1], temperature=0.8, validate=False, **SETTINGS)


def with_settings(recorded, **changes):
    settings = dataclasses.replace(recorded.settings, **changes)
    return dataclasses.replace(recorded, settings=settings)


other_torch = dataclasses.replace(plain, versions=plain.versions | {"torch": "2.0"})
one_bit, one_space = (copy_of(SOURCE, workspace / name) for name in ("one-bit", "one-space"))

# %%
from course_helpers.labs.lab_09 import flip_last_bit

flip_last_bit(one_bit / "model.safetensors")
with open(one_space / "config.json", "a") as file:
    file.write(" ")

CHANGES = {
    "nothing": (plain, None),
    "1  another seed": (with_settings(plain, seed=8), None),
    "2  no cache": (with_settings(plain, use_cache=False), None),
    "3  another torch": (other_torch, None),
    "4  temperature 0.8": (with_settings(plain, temperature=0.8), None),
    "5  drawn, another seed": (with_settings(drawn, seed=8), None),
    "6  one bit of the weights": (plain, one_bit),
    "7  a space in the config": (plain, one_space),
}
FIELDS = ("device", "files", "config", "tokenizer", "versions", "prompt 1", "prompt 2")
SAID = {"same": "green", "DIFFERS": "RED", "warning": "warning", "not reached": "not reached"}

# %%
compared, notes = {}, {}
for change, (recorded, where) in CHANGES.items():
    verification = verify(recorded, where)
    outcome = {row.field: SAID[row.outcome] for row in verification.rows}
    compared[change] = {field: outcome.get(field, "not reached") for field in FIELDS}
    notes[change] = next((row for row in verification.rows if row.outcome != "same"), None)
charts.matrix(compared, named={"green": "same", "RED": "differs"})

# %%
for change, note in notes.items():
    print(f"{change:<27}{f'{note.outcome}: {note.field}' if note else 'the run holds'}")

# %% [markdown]
# - **1 and 2 hold.** Greedy decoding draws nothing, so no seed matters; and a right cache changes nothing.
# - **3 is a warning.** Another version may change something, or nothing. The texts beside it say which.
# - **4 and 5 differ.** How tokens are chosen is part of the run. Where tokens are drawn, so is the seed.
# - **6 and 7 are stopped before anything is loaded.** A hash does not ask whether a change matters. The space in the
#   config changes nothing at all; but whoever wants the same run wants the same files, and a difference that is
#   explained once is cheaper than one that is waved through.
#
# **On another processor** the last bits of the logits may be others (section 7). Texts do not change with them, unless
# the two likeliest tokens were as good as equal. The manifest says how near it came to that: the smallest distance
# between the two, over all steps.

# %%
margins = [result.closest.margin for result in manifest.results]
largest = logits.abs().max().item()
rounding = worst["cached"] * largest
print("closest step wider than 100 x what rounding does:", min(margins) > 100 * rounding)

held = [change for change, note in notes.items() if note is None]
named = [note.field for change, note in notes.items() if note is not None]
as_told = (held, named) == (
    ["nothing", "1  another seed", "2  no cache"],
    ["versions", "prompt 1", "prompt 1", "files", "files"],
)
found = f"held: {held}, named: {named}"
validation_checkpoint("M9-LAB-09", "verify names the one thing that changed", as_told, found)

# %% [markdown]
# # Part 3: yours
#
# ## 12 · A checkpoint of your own
#
# Now a model that nobody has pinned, because you have just made it: we train the model of this lab for a few steps on a
# sentence of our own, save it, and write its card *while we know it to be right*. A card for the suite is short.

# %%
from course_helpers import save_checkpoint
from course_helpers.validation_layers.baseline import describe

STORY = "Once upon a time there was a small model that passed every check and told the truth."

tokenizer = load_tokenizer(SOURCE)
mine = load_model(SOURCE, torch.float32).train()
ids = torch.tensor([tokenizer.encode(STORY)])
for _ in range(4):  # plain gradient descent
    error = torch.nn.functional.cross_entropy(mine(ids[:, :-1])[0], ids[0, 1:])
    parameters = list(mine.parameters())
    gradients = torch.autograd.grad(error, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.data -= 0.05 * gradient

folder = save_checkpoint(mine.eval(), workspace / "mine", tokenizer)
prompt = tokenizer.encode("Once upon a time")
written = generate(mine, [prompt], 40, stop_ids=tokenizer.stop_ids)[0]
sample = {"prompt": "Once upon a time", "max_new_tokens": 40, "text": tokenizer.decode(written)}
card = {"greedy": [sample], "baseline": describe(mine, tokenizer, [STORY, sample["text"]])}
(folder / "card.json").write_text(json.dumps(card, indent=2))

outcome, _ = smoke(folder)
print("green:", sum(word == "green" for word in outcome.values()), "of", len(outcome))

# %% [markdown]
# And a broken one: the same, saved with two layers exchanged, and with the card of the right one.

# %%
two_layers_exchanged(mine)
bad = save_checkpoint(mine, workspace / "broken", tokenizer)
shutil.copyfile(folder / "card.json", bad / "card.json")

bad_outcome, _ = smoke(bad)
print("red:", *[name for name, word in bad_outcome.items() if word == "RED"])

# %% [markdown]
# ## 13 · The template
#
# What you have built in this lab as cells exists as a file to take home: `tests/smoke/test_smoke.py`, for **pytest**,
# the program that finds and runs the functions whose names begin with `test_`. It needs nothing but `course_helpers`,
# and takes the checkpoints from one environment variable. These are its tests:

# %%
import ast

from course_helpers.labs.lab_09 import TEMPLATE, run_template

tree = ast.parse(TEMPLATE.read_text(encoding="utf-8"))
tests = {node.name: node for node in tree.body if node.__class__.__name__ == "FunctionDef"}
tests = {name: node for name, node in tests.items() if name.startswith("test_")}
print(*tests, sep="\n")
print()
print(ast.unparse(tests["test_text_is_the_same_with_and_without_a_cache"]))

# %% [markdown]
# (`tests/smoke/README.md` says the same in prose.) Some ask what we asked, and three ask more: is attention causal (no token sees a later one), is a *saved* copy the
# same, does a step of training lower the loss? We copy it to a folder of its own, as you would for a project, and let
# pytest run it on both checkpoints, in a fresh process.
#
# **Predict, then run.** Which of its tests fail for the model with two layers exchanged?

# %%
results = run_template(workspace / "project", {"mine": folder, "broken": bad})
for name, outcomes in results.items():
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    print(f"{name:<8}{passed} of {len(outcomes)} passed")
failed = [test for test, outcome in results["broken"].items() if outcome == "failed"]
print("failed for the broken one:", *failed)

# %% [markdown]
# One, the one with the card: a model with two layers exchanged is consistent, can be saved, and learns. The package's
# `validate_checkpoint`, which asks more than a smoke suite, comes to the same verdict on both:

# %%
from course_helpers import validate_checkpoint

good, verdict = validate_checkpoint(folder), validate_checkpoint(bad)
print("the package on mine:  ", "passes" if good.ok else f"fails at {good.failed}")
print("the package on broken:", f"fails at {verdict.failed}")

mine_ok = all(word == "green" for word in outcome.values()) and good.ok
mine_ok = mine_ok and set(results["mine"].values()) == {"passed"}
bad_seen = bad_outcome["greedy"] == bad_outcome["loss"] == "RED"
bad_seen = bad_seen and verdict.failed == "baseline"
bad_seen = bad_seen and failed == ["test_text_is_what_the_card_says"]
agree = mine_ok and bad_seen
validation_checkpoint("M9-LAB-09", "suite, template and package agree", agree)

# %% [markdown]
# At home it is two lines: in a terminal, or for the machine that tests every change of your project (continuous
# integration), as the step before anything expensive:
#
# ```bash
# cp tests/smoke/test_smoke.py my_project/
# SMOKE_SOURCE=path/to/mine python -m pytest -q my_project/test_smoke.py
# ```
#
# ## 14 · When it is red

# %%
figures.fallback()

# %% [markdown]
# Keep a **fallback**: a checkpoint that is known to be good, so that work goes on while you look for the cause (slide
# 12). In code it is a list, and the first green one wins. What it must not do is fall back *in silence*.

# %%
def first_green(*candidates):
    """The first checkpoint without a red check, and what was wrong with those before it."""
    refused = {}
    for candidate in candidates:
        outcome, _ = smoke(candidate)
        red = [name for name, word in outcome.items() if word == "RED"]
        if not red:
            return candidate, refused
        refused[candidate] = red
    raise CheckpointError("no candidate passes the smoke suite", found=str(refused))


chosen, refused = first_green(bad, folder, "tiny-gpt2")
print("chosen: ", Path(chosen).name)
print("refused:", {Path(candidate).name: red for candidate, red in refused.items()})
goes_on = chosen == folder and list(refused) == [bad]
validation_checkpoint("M9-LAB-09", "work goes on with the last good one, and says so", goes_on)

# %% [markdown]
# | First red | Ask first | Next step |
# |---|---|---|
# | opens | is the download complete? | fetch the file again, by its hash |
# | config | whose config is it, and which field? | take it from where the weights came from |
# | placed | one tensor, or all of them? | one: the weights; all: the config (M9-LAB-08, section 2) |
# | words | is the tokenizer of the same model? | take all tokenizer files from one place |
# | forward | finite in bfloat16? in float32? | the type of the file; then look for the NaN with `verify=True` |
# | cached | from which position on? | `use_cache=False` until it is found |
# | batched | right without padding? | one row at a time until it is found |
# | greedy | is the loss red, too? | yes: `first_mismatch` against a good copy; no: did decode settings change? |
# | loss | off by how much? | little: a constant of the config; much: a factor, a matrix (M9-LAB-08, section 10) |
#
# Some of it can be known before anything is downloaded: `python -m course_helpers doctor --family olmo3` prints what this
# machine can run, and the traps of that family.

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-09",
    {
        "source": SOURCE,
        "checks": table,
        "seconds": {source: subject.seconds for source, subject in subjects.items()},
        "faults": counts,
        "first_to_see": first,
        "expected": expected,
        "loss_range": loss_range,
        "distances_in_tolerances": rows,
        "verify": compared,
        "template": results,
    },
)

# %% [markdown]
# ## Recap
#
# - A smoke suite is the few cheap checks after which going on makes sense: **ground, behaviour, known answers**, in
#   this order.
# - No check knows a family. One suite, one loop, seven families.
# - A check is worth something once you have seen it fail. Each of the nine sees what no earlier one does.
# - A tolerance stands between rounding and mistakes, and both can be measured. Know what it lets through.
# - A manifest pins files, config, tokenizer, settings and texts. A fresh process repeats the run, or the one field that
#   changed has a name.
# - Write the card while the model is well. Keep something to fall back on, and never fall back in silence.
#
# **You can now** write a smoke suite and defend each of its checks; prove that it can fail; hand somebody a run that
# they can repeat; and say, when something is red, where to look first.
#
# **Next:** M9-CODE-02 writes the adapter that all families stand behind, and adds a new family to it, live.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · Cached equals uncached
#
# Write the check of section 3 from nothing, for several texts. It must compare *every position of every text*, and it
# must be able to fail. `model(ids, cache=cache)` takes (1, tokens) ids; `model.make_cache(1, length)` makes an empty
# cache.

# %% tags=["exercise"]
def same_with_cache(model, texts):
    """True if a cache changes nothing; `texts` is a list of lists of ids."""
    raise NotImplementedError


# %% tags=["solution"]
def same_with_cache(model, texts):
    for text in texts:
        ids = torch.tensor([text])
        cache = model.make_cache(1, len(text))  # a new one for every text
        pieces = ids.split([len(text) // 2] + [1] * (len(text) - len(text) // 2), dim=1)
        found = torch.cat([model(piece, cache=cache) for piece in pieces], dim=1)
        if not apart(found, model(ids)) < 5e-5:
            return False
    return True


# %%
from course_helpers.labs.lab_09_exercises import check_same_with_cache

check_same_with_cache(same_with_cache)


# %% [markdown]
# ### Exercise 2 · What the suite does not see
#
# Here is a GPT-2 that passes all nine checks, and cannot read a long text:

# %%
def from_position_200(model):
    model.position_embedding.weight.data[200:] = torch.nan


outcome, patient = smoke("tiny-gpt2", from_position_200)
print("red:", [name for name, word in outcome.items() if word == "RED"])
long = torch.tensor([patient.tokenizer.encode(TEXT * 7)])
print(f"finite on {long.shape[1]} tokens:", bool(patient.model(long).isfinite().all()))


# %% [markdown]
# Our texts never come as far as position 200, and a suite sees only what its texts touch. Write the tenth check:
# **every token of the vocabulary and every position** (`model.config.vocab_size` and
# `model.config.max_position_embeddings`) must give finite logits. For so small a model that is cheap.

# %% tags=["exercise"]
def whole_range(model):
    """True if every token and every position gives finite logits."""
    raise NotImplementedError


# %% tags=["solution"]
def whole_range(model):
    tokens, length = model.config.vocab_size, model.config.max_position_embeddings
    rows = -(-tokens // length)  # rounded up
    ids = torch.arange(rows * length) % tokens  # the last row begins again at token 0
    return bool(model(ids.view(rows, length)).isfinite().all())


# %%
from course_helpers.labs.lab_09_exercises import check_whole_range

check_whole_range(whole_range, lambda: load_model("tiny-gpt2", torch.float32))
print("sees the patient:", not whole_range(patient.model))


# %% [markdown]
# ### Exercise 3 · Which differences matter?
#
# Two manifests, laid flat by `flat`: place → value. Sort the places that differ into those that **break** the run, and
# those that are only to be **said**; leave out those that mean nothing. The rules:
#
# - `reason`, `telemetry/…`, `source/…` and `results/…/closest…` mean nothing;
# - `versions/…` and `settings/threads` are to be said;
# - if both runs are greedy (`settings/temperature` is 0), `settings/seed`, `settings/top_k` and `settings/top_p` mean
#   nothing;
# - everything else breaks. A place that only one of the two has is a difference, too.

# %% tags=["exercise"]
def what_differs(old, new):
    """{"breaks": [places], "warns": [places]} of two flat manifests."""
    raise NotImplementedError


# %% tags=["solution"]
def what_differs(old, new):
    found = {"breaks": [], "warns": []}
    means_nothing = ("reason", "telemetry/", "source/")
    both_greedy = old["settings/temperature"] == new["settings/temperature"] == 0
    for place in differences(old, new):
        if place.startswith(means_nothing) or "/closest" in place:
            continue
        if both_greedy and place in ("settings/seed", "settings/top_k", "settings/top_p"):
            continue
        said = place.startswith("versions/") or place == "settings/threads"
        found["warns" if said else "breaks"].append(place)
    return found


# %%
from course_helpers.labs.lab_09_exercises import check_what_differs

check_what_differs(what_differs)
print("the two runs of section 10:", what_differs(one, other))

# %%
shutil.rmtree(workspace)
print("cleaned up:", not workspace.exists())
