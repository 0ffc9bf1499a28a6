# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-APP-A · The loading checklist, and where the memory goes
#
# | | |
# |---|---|
# | **Objective** | Verify that a checkpoint is loaded safely: config, tokenizer, memory profile, first prompt; and know the peak of a load before it happens |
# | **Before this** | M9-LAB-01: you have opened a checkpoint and mapped its tensors onto a model |
# | **Time** | 60 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 4 GB of free memory, 2 GB of disk. No GPU, no account, no network |
# | **Slides** | 6, 7 and 14 |
#
# **At the end you will be able to**
#
# - put any checkpoint through a checklist whose ticks are computed, and read what a missing tick means;
# - predict the memory that weights, cache, loading and training take, and measure whether you were right;
# - tell private memory from file-backed memory, and say why a load can take no time at all;
# - choose among four ways of loading, and avoid the one trap that leaves a model half empty without an error.

# %%
from course_helpers.labs import lab_app_a_charts as charts
from course_helpers.labs import lab_app_a_figures as figures

figures.four_questions()

# %% [markdown]
# Pilots who have flown for thirty years still read the checklist before they start: not because they do not know it,
# but because the one time they forget a line is the time that counts. Loading a model is like that. Every line below
# stands for a mistake that has been made in public, often by people who knew better, and **most of them raise no
# error**.
#
# The lab has two parts. In part 1 we build the checklist, line by line, and send seven checkpoints through it. Part 2
# takes its third line apart: where does the memory go while a model is loaded, and how much must there be?

# %% [markdown]
# # Part 1: the checklist
#
# ## 1 · One switch
#
# We use a small Qwen3 that comes with the lab. With a network you can run the same cells on the original, which needs
# no account: set the environment variable `COURSE_CHECKPOINTS` to `hub`, or write `"hub"` below. The checklist that we
# end up with takes a checkpoint of any family, one of your own, too.

# %%
import json
import math
import os
import shutil
import sys
import textwrap
from pathlib import Path

import torch

from course_helpers import FAMILIES, CheckpointError, generate, load_model, load_tokenizer
from course_helpers.families import family_of
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-qwen3", "hub": "Qwen/Qwen3-0.6B"}[CHECKPOINTS]

torch.set_printoptions(precision=3, sci_mode=False)
folder = resolve(SOURCE)
workspace = Path("workspace/lab-app-a")  # for the files that this lab makes; emptied at the end
shutil.rmtree(workspace, ignore_errors=True)
workspace.mkdir(parents=True)
print("loading", SOURCE)

# %% [markdown]
# ## 2 · The config
#
# `config.json` holds the **config**: the numbers that turn a list of matrices into one particular model. Here are those
# that change what a Qwen3 computes.

# %%
WHAT_IT_MEANS = {
    "vocab_size": "V, tokens that have an embedding: a vector of their own",
    "hidden_size": "E, the width: numbers that stand for one token on its way through",
    "num_hidden_layers": "blocks, one after the other",
    "num_attention_heads": "H, query heads: how many things a layer looks for at once",
    "num_key_value_heads": "K, key/value heads: what they look at; H / K queries share one",
    "head_dim": "D, numbers in one head; here H x D is not the width",
    "intermediate_size": "F, the inner width of the feed-forward",
    "tie_word_embeddings": "the output head is the token embedding, used a second time",
    "rms_norm_eps": "a small number that keeps every norm from dividing by 0",
    "rope_theta": "how slowly queries and keys turn with their position (RoPE)",
    "hidden_act": "the activation function: the bend in the feed-forward",
}
raw = json.loads((folder / "config.json").read_text())
for name, meaning in WHAT_IT_MEANS.items():
    print(f"{name:<22}{raw.get(name)!s:>10}   {meaning}")

# %% [markdown]
# The first eight decide the *shapes* of the tensors, so a wrong one mostly shows. The last three leave no trace in any
# shape: the same weights load, and compute something else. That is why a config must be read **strictly**: a field that
# changes the numbers is either understood or refused, and never guessed.
#
# **Predict, then run.** We spoil the config in three ways. A loose reader would take a library's default, ignore the
# field, or go on with the nearest thing it knows. What does a strict one say?

# %%
family = family_of(raw)
config = family.config.from_hf(raw)

spoilt = {
    "eps forgotten": {name: value for name, value in raw.items() if name != "rms_norm_eps"},
    "another bend": raw | {"hidden_act": "gelu"},
    "another RoPE": raw | {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}},
}
for what, data in spoilt.items():
    try:
        family.config.from_hf(data)
        print(what, "was read without a word")
    except CheckpointError as error:
        print(f"{what:<15}refused: {error.field}, {error.what}")

# %% [markdown]
# ### Count the parameters before there are any
#
# Parameters are counted number by number: a matrix of 3 x 4 counts 12. If you can work out from the config how many
# there must be, you have understood every field that has a shape, and you hold a strong check: the file must hold
# exactly as many.
#
# Each layer of a Qwen3 has four attention matrices (query, key, value, output), three in its feed-forward (gate, up,
# down), and four **norms**, vectors that rescale what passes through: one before the attention, one before the
# feed-forward, and one of head size each for queries and keys. (M9-LAB-02 to M9-LAB-04 build all of this.)
#
# **Predict, then run.** Take a pencil. With the letters of the table: how many numbers are in the embedding, in a
# layer's attention, in its feed-forward, in its norms?

# %%
V, E, F = raw["vocab_size"], raw["hidden_size"], raw["intermediate_size"]
H, K, D = raw["num_attention_heads"], raw["num_key_value_heads"], raw["head_dim"]
layers = raw["num_hidden_layers"]

by_hand = {
    "embedding": V * E,
    # query, key and value, output
    "attention": layers * (E * H * D + 2 * E * K * D + H * D * E),
    # gate, up, down
    "feed-forward": layers * 3 * E * F,
    # two a layer, one for the queries and one for the keys; one at the end
    "norms": layers * (2 * E + 2 * D) + E,
}
for part, count in by_hand.items():
    print(f"{part:<14}{count:>12,}")
print(f"{'predicted':<14}{sum(by_hand.values()):>12,}")

# %% [markdown]
# Now the two that can contradict us: a model built from the config, and the file. On torch's **`meta` device** a tensor
# has a shape and no memory, so the model costs nothing to build. The load report lists every tensor of the file that
# was used.

# %%
with torch.device("meta"):
    plan = family.model(config)

report = load_model(folder).load_report
in_file = sum(math.prod(row.shape) for row in report.rows)
print(f"model built from the config {plan.num_parameters():>12,}")
print(f"tensors used from the file  {in_file:>12,}")
print("all three agree:", sum(by_hand.values()) == plan.num_parameters() == in_file)


# %% [markdown]
# Where are they? It depends on the size. In a small model with a large vocabulary, the embedding is a large part of the
# whole. That is one reason why small models tie their output head to it: a head of its own would cost as much again.

# %%
def parts_of(config):
    """Parameters by part, counted on the meta device."""
    with torch.device("meta"):
        model = family_of(config.to_hf()).model(config)
    counts = {"embedding": 0, "attention": 0, "feed-forward": 0, "norms": 0}
    for name, parameter in model.named_parameters():
        # A norm inside the attention is a norm, so that comes first.
        signs = {"norm": "norms", "embedding": "embedding", ".attention.": "attention"}
        part = next((part for sign, part in signs.items() if sign in name), "feed-forward")
        counts[part] += parameter.numel()
    return counts


real = family.presets["Qwen/Qwen3-0.6B"]
print("counted = by hand:", parts_of(config) == by_hand)
charts.shares({SOURCE: parts_of(config), "Qwen3-0.6B": parts_of(real)})


# %% [markdown]
# What we have checked becomes the first part of the checklist: a function that returns its **lines**, each with what
# must hold, whether it does, and what was seen. It knows no family: the registry finds the right one.

# %%
from course_helpers import open_checkpoint
from course_helpers.labs.lab_app_a import run_checklist


def check_config(source):
    """Two lines: the config is understood, and the file holds what it promises."""
    with open_checkpoint(source) as checkpoint:
        family = family_of(checkpoint.config)
        config = family.config.from_hf(checkpoint.config)
    with torch.device("meta"):
        promised = family.model(config).num_parameters()
    found = sum(math.prod(row.shape) for row in load_model(source).load_report.rows)

    heads = f"{config.num_attention_heads} heads on {config.num_key_value_heads}"
    sizes = f"{config.num_hidden_layers} layers, width {config.hidden_size}, {heads}"
    return [
        ("every field is understood", True, f"{family.title}: {sizes}"),
        ("parameters: promised = found", promised == found, f"{promised:,}"),
    ]


print(run_checklist(SOURCE, {"config": check_config}))

# %% [markdown]
# ## 3 · The tokenizer
#
# A **tokenizer** turns text into numbers, the ids of its **tokens** (frequent pieces of text), and back. Those ids pick
# rows of the embedding. A tokenizer from another model picks other rows: no error, but the model is spoken to in a
# language in which every word is exchanged.
#
# Which files make up the tokenizer depends on the family. `load_tokenizer` looks at the files, not at the family's
# name:

# %%
tokenizer = load_tokenizer(SOURCE)
print("kind: ", tokenizer.kind)
print("files:", ", ".join(tokenizer.files))

# %% [markdown]
# **Round trip.** Text that is encoded and decoded must come back, whatever is in it. Here is what a tokenizer has most
# trouble with: spaces at the edges, other alphabets, and the name of a special token, typed by somebody as plain text.

# %%
TEXTS = (
    "Once upon a time there was a brave child named Nora who had a blue boat.",
    "  two spaces before, one after ",
    "Größe, naïve, 東京, 🦊",
    "not the end: <|endoftext|>",
)
ids = tokenizer.encode(TEXTS[0])
print(" | ".join(tokenizer.decode([token]) for token in ids))
for text in TEXTS:
    print(tokenizer.decode(tokenizer.encode(text)) == text, repr(text))

# %% [markdown]
# **Ids within the vocabulary.** Every id must have a row in the embedding. Count both sides: the tokenizer's tokens and
# the embedding's rows.
#
# **Predict, then run.** Must the two numbers be equal?

# %%
print("tokens of the tokenizer:  ", tokenizer.vocab_size)
print("rows of the embedding:    ", config.vocab_size)
print("highest id in the texts:  ", max(max(tokenizer.encode(text)) for text in TEXTS))

# %% [markdown]
# They need not be. More rows than tokens is harmless: Qwen3 rounds its vocabulary up to a number that suits the
# hardware, and the spare rows are never used. More tokens than rows is fatal, and `load_tokenizer` refuses it.
#
# **Marks.** Some models were trained on texts that begin with a mark; without it they write noticeably worse. Every
# model needs to know which tokens end an answer; otherwise it talks on. Three files have an opinion on this:

# %%
for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
    data = json.loads((folder / name).read_text())
    keys = ("bos_token_id", "bos_token", "eos_token_id", "eos_token")
    found = {key: data[key] for key in keys if key in data}
    print(f"{name:<24}{found}")

names = {token: name for name, token in tokenizer.backend.special.items()}
print("\nbegin:", names.get(tokenizer.bos_id))
print("stop: ", [names[token] for token in tokenizer.stop_ids])


# %% [markdown]
# `bos` is *beginning of sequence*, `eos` its end. The files disagree: `config.json` names a begin mark, and the
# tokenizer says `null`. The tokenizer is right, because it made the training texts: **a Qwen3 text begins with no
# mark.** A program that trusts `config.json` puts a stop mark in front of every prompt. No error tells you.

# %%
def check_tokenizer(source):
    """Four lines: recognised, lossless, within the embedding, with marks that exist."""
    tokenizer = load_tokenizer(source)
    with open_checkpoint(source) as checkpoint:
        rows = family_of(checkpoint.config).config.from_hf(checkpoint.config).vocab_size
    encoded = [tokenizer.encode(text) for text in TEXTS]
    highest = max(max(ids) for ids in (*encoded, tokenizer.stop_ids))
    begins = all((ids[0] == tokenizer.bos_id) == tokenizer.adds_bos for ids in encoded)
    stops = bool(tokenizer.stop_ids) and tokenizer.special_ids.issuperset(tokenizer.stop_ids)
    back = [tokenizer.decode(ids) == text for ids, text in zip(encoded, TEXTS, strict=True)]

    marks = f"begin {tokenizer.bos_id}" if tokenizer.adds_bos else "no begin mark"
    marks += ", stop " + " ".join(map(str, tokenizer.stop_ids))
    return [
        ("recognised from its files", True, tokenizer.kind),
        ("text comes back", all(back), f"{sum(back)} of {len(back)} texts"),
        ("every id has an embedding", highest < rows, f"highest {highest}, rows {rows}"),
        ("marks exist and are used", begins and stops, marks),
    ]


print(run_checklist(SOURCE, {"tokenizer": check_tokenizer}))

# %% [markdown]
# ## 4 · The memory profile
#
# Two things stay in memory while a model runs. The **weights**, as many bytes as parameters times bytes a number: 4 in
# float32, 2 in bfloat16. And the **KV cache**: for every token so far, each layer keeps the keys and values it has
# computed, so that the next token does not compute them again. Its size follows from the config, too:
#
# $$2 \text{ (key and value)} \times \text{layers} \times K \times D \times \text{tokens} \times \text{bytes}$$
#
# **Predict, then run.** For our model and 256 tokens: which is larger, the weights or the cache?

# %%
from course_helpers.labs.lab_app_a import storage_bytes

model = load_model(SOURCE)
cache = model.make_cache(batch_size=1, max_length=256)
each = model.dtype.itemsize

print(f"weights   predicted {sum(by_hand.values()) * each:>12,} bytes")
print(f"          held      {storage_bytes(model.parameters()):>12,}")
print(f"cache     predicted {2 * layers * K * D * 256 * each:>12,}")
print(f"          held      {cache.nbytes:>12,}")

# %% [markdown]
# Predicted to the byte. The same formula at the size of the released model, over the whole length of text it was made
# for:

# %%
charts.memory_against_context("Qwen3-0.6B", real)


# %% [markdown]
# The small model is the cheap part. A machine on which the weights fit can still run out in the middle of a long text,
# and with several texts at once the cache is multiplied. **Plan for both.** (Later labs shrink it: fewer key/value
# heads, windows.)

# %%
def check_memory(source):
    """Two lines: weights and cache take what the config says, to the byte."""
    from course_helpers.memory import kv_cache_bytes, weight_bytes

    model = load_model(source)
    weights = weight_bytes(model.config, model.dtype)
    held = storage_bytes(model.parameters())
    cache = kv_cache_bytes(model.config, 256, dtype=model.dtype)
    made = model.make_cache(batch_size=1, max_length=256).nbytes
    return [
        ("weights: predicted = held", weights == held, f"{held:,} bytes"),
        ("cache: predicted = held", cache == made, f"{made:,} bytes for 256 tokens"),
    ]


print(run_checklist(SOURCE, {"memory": check_memory}))

# %% [markdown]
# What the process as a whole takes cannot be seen on so small a model: Python and torch alone weigh a hundred times as
# much. Part 2 does it with a large one.
#
# ## 5 · The first prompt
#
# Everything so far looked at the model from outside. Now let it speak. Our checkpoints carry a `card.json` with texts
# that they wrote when they were made; **greedy** texts (always the likeliest next token), so they must come again, word
# for word.

# %%
def sample_of(source):
    """A prompt, how far to continue it, and the text that must come out if that is known."""
    card = resolve(source) / "card.json"
    if card.exists():
        return json.loads(card.read_text())["greedy"][0]
    return {"prompt": "Once upon a time", "max_new_tokens": 24, "text": None}


def tell(model, tokenizer, sample, **options):
    """The greedy continuation of a sample's prompt."""
    ids = [tokenizer.encode(sample["prompt"])]
    stop = tokenizer.stop_ids
    ids = generate(model, ids, sample["max_new_tokens"], stop_ids=stop, **options)[0]
    return tokenizer.decode(ids)


sample = sample_of(SOURCE)
model = load_model(SOURCE, dtype=torch.float32)
text = tell(model, tokenizer, sample)
print(textwrap.fill(text, 100))
print("\nas on the card:", text == sample["text"] if sample["text"] else "there is no card")

# %% [markdown]
# A model from the internet has no such card. Two checks need none. Greedy text must be the same **with and without the
# cache**, since the cache only saves work. And the model must be better than guessing: its **loss**, the mean surprise
# per token (the negative logarithm of the probability it gave to the token that came, in *nats*, to base e), would be
# $\ln V$ if it took every token for equally likely.

# %%
from course_helpers.training import text_loss


def surprise(model, tokenizer):
    """Mean loss, nats per token, on an ordinary sentence."""
    total, count = text_loss(model, [tokenizer.encode(TEXTS[0])])
    return total / count


print(f"guessing would have a loss of {math.log(config.vocab_size):.2f}")
print(f"this model has                {surprise(model, tokenizer):.2f}")
print("same text without the cache: ", tell(model, tokenizer, sample, use_cache=False) == text)


# %%
def check_first_prompt(source, sample=None):
    """Two lines, and a third where it is known what the model should say."""
    sample = sample or sample_of(source)
    model, tokenizer = load_model(source, dtype=torch.float32), load_tokenizer(source)
    text = tell(model, tokenizer, sample)
    short = sample | {"max_new_tokens": min(64, sample["max_new_tokens"])}  # this way is slow
    again = tell(model, tokenizer, short, use_cache=False).rstrip("\ufffd")  # half a character
    same, compared = text.startswith(again), len(tokenizer.encode(again))
    loss, guess = surprise(model, tokenizer), math.log(model.config.vocab_size)
    lines = [
        ("better than guessing", loss < guess / 2, f"loss {loss:.2f}, a guess {guess:.2f}"),
        ("same without the cache", same, f"{compared} tokens"),
    ]
    if sample["text"] is None:
        return lines
    known = text == sample["text"]
    return [*lines, ("the text that was expected", known, textwrap.shorten(text, 44))]


# %% [markdown]
# ## 6 · The checklist
#
# Four functions, one list:

# %%
CHECKLIST = {
    "config": check_config,
    "tokenizer": check_tokenizer,
    "memory": check_memory,
    "first prompt": check_first_prompt,
}
print(run_checklist(SOURCE, CHECKLIST))

# %% [markdown]
# ### A checklist must be able to fail
#
# A test that has never failed has proved nothing. So we break three copies of a checkpoint (without its card, like one
# from the internet) and let the list find out: one gets another family's tokenizer, one a config with another
# `rope_theta`, and of one we keep half of the weights.
#
# **Predict, then run.** Which part finds which? Does any of the three get through?

# %%
good = resolve("tiny-qwen3")
no_card = shutil.ignore_patterns("card.json")
broken = {what: workspace / what for what in ("other-tokenizer", "other-theta", "half-a-file")}
for copy in broken.values():
    shutil.copytree(good, copy, ignore=no_card)

for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
    shutil.copyfile(resolve("tiny-gemma3") / name, broken["other-tokenizer"] / name)

changed = json.loads((good / "config.json").read_text()) | {"rope_theta": 10_000.0}
(broken["other-theta"] / "config.json").write_text(json.dumps(changed))

weights_file = broken["half-a-file"] / "model.safetensors"
os.truncate(weights_file, weights_file.stat().st_size // 2)

# %%
vouched_for = sample_of("tiny-qwen3")  # the text of the unbroken one
TOLD = CHECKLIST | {"first prompt": lambda source: check_first_prompt(source, vouched_for)}

outcomes = {what: run_checklist(copy, TOLD) for what, copy in broken.items()}
for what, outcome in outcomes.items():
    print(f"{what:<17}{'passed' if outcome.ok else 'FAILED'}   {outcome.failed}")

print("\nother-theta says:")
theta = load_model(broken["other-theta"], dtype=torch.float32)
print(textwrap.fill(tell(theta, load_tokenizer("tiny-qwen3"), vouched_for), 100))

# %% [markdown]
# Half a file is seen at once. The other tokenizer shows in the loss: worse than guessing, since the model is sure of
# words that do not come. The wrong `rope_theta` fits every shape, has every parameter, and even writes: only a text
# that somebody has vouched for tells it from the right one. **Keep the first output of every model that you trust.** It
# is the cheapest test you will ever own.

# %% [markdown]
# ### Seven checkpoints
#
# The functions know no family, so the list runs on all of them. Yours, if you have one, goes into the same line.

# %%
sources = dict.fromkeys((SOURCE, *(row.tiny for row in FAMILIES.values())))
lists = {source: run_checklist(source, CHECKLIST) for source in sources}

ROW = "{:<16}{:>11}{:>14}   {:<16}{:<26}{}"
print(ROW.format("checkpoint", "parameters", "bytes", "tokenizer", "marks", "lines that hold"))
for source, result in lists.items():
    (_, _, parameters), (_, _, size) = result.parts["config"][1], result.parts["memory"][0]
    (_, _, kind), (_, _, marks) = result.parts["tokenizer"][0], result.parts["tokenizer"][3]
    held = sum(passed for _, passed, _ in result.lines)
    size = size.removesuffix(" bytes")
    print(ROW.format(source, parameters, size, kind, marks, f"{held} of {len(result.lines)}"))

# %% [markdown]
# Three kinds of tokenizer, texts that begin with a mark and texts that do not, seven architectures, one list. The
# package's own version goes further (causality, hashes of the files) and is one command, in Python or on the command
# line (`python -m course_helpers validate tiny-qwen3`):

# %%
from course_helpers import validate_checkpoint
from course_helpers.labs import validation_checkpoint

print("the package agrees:", validate_checkpoint(SOURCE).ok)
all_hold = all(result.ok for result in lists.values())
all_found = not any(outcome.ok for outcome in outcomes.values())
validation_checkpoint("M9-LAB-APP-A", "every line holds for every checkpoint", all_hold)
validation_checkpoint("M9-LAB-APP-A", "the checklist finds three broken copies", all_found)

# %% [markdown]
# # Part 2: where the memory goes
#
# "It fits: the model has 14 GB, and I have 24." Then the process is killed half-way through the load. What counts is
# not what a model takes *afterwards*, but the **peak**: the most that the process holds at any moment on the way.
#
# ## 7 · Two kinds of memory
#
# Memory is handed out in **pages** of a few KiB. What a process really holds of them is its **resident** memory, and
# there are two kinds of it:

# %%
figures.two_kinds_of_memory()

# %% [markdown]
# - **Private** (the system says *anonymous*): our own copy. It exists nowhere else, so it stays until we let go of it.
#   If there is not enough, the process is killed.
# - **File-backed**: a window onto a file (*memory-mapped*, `mmap`). The system keeps what was read of a file in its
#   *page cache* in any case, and the window shows those very pages. When memory gets short, it drops them without
#   asking and reads them again when needed. So these bytes are cheap. But they are the *file's*, not ours: section 10
#   shows what that means.
#
# ## 8 · A model large enough to see
#
# We make a checkpoint with the shape of Qwen3-0.6B, but only 4 of its 28 layers and a vocabulary of 16,384, filled
# with random numbers: weight does not depend on wisdom. (With the `hub` switch, the real one is used.)

# %% tags=["nbval-ignore-output"]
import dataclasses

from course_helpers.labs.lab_app_a import write_random_checkpoint

shape = dataclasses.replace(
    real, num_hidden_layers=4, layer_types=real.layer_types[:4], vocab_size=16_384
)
big = folder
if CHECKPOINTS == "bundled":
    big = write_random_checkpoint(workspace / "big", shape, torch.bfloat16)

# %%
MIB = 2**20
report = load_model(big, strategy="mmap").load_report  # reads no tensor: see section 10
sizes = {row.source: math.prod(row.shape) * row.dtype.itemsize for row in report.rows}

largest = max(sizes, key=sizes.get)
print(f"the file's tensors: {sum(sizes.values()) / MIB:.1f} MiB in {len(sizes)} tensors")
print(f"the largest:        {sizes[largest] / MIB:.1f} MiB, {largest}")

# %% [markdown]
# ## 9 · Four ways to load it
#
# All four give the same model, bit for bit. They differ in the order in which things happen, and so in what they hold
# at their worst moment.
#
# - **naive**: build the model (torch fills it with random numbers), read the whole file beside it, copy. What most
#   tutorials do.
# - **sequential**: build the model, then read and copy one tensor at a time. The *whole file* at the side shrinks to
#   *one tensor*.
# - **mmap**: build the model on the meta device, so without memory, and let each parameter *be* a window onto the file.
# - **stream**: build it without memory, too, and read each tensor into private memory that then becomes the parameter:
#   never two of anything.
#
# Is it really the same model? On a small one that is quickly seen:

# %%
first, *others = (
    load_model("tiny-qwen3", strategy=strategy)
    for strategy in ("naive", "sequential", "mmap", "stream")
)
for other in others:
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    print("equal, bit for bit:", all(torch.equal(one, two) for one, two in pairs))
del first, others

# %% [markdown]
# **Predict, then run.** With *M* for the model and *t* for the largest tensor: what are the four peaks of private
# memory? And what is file-backed? Draw four bars before you look.

# %%
figures.four_strategies()

# %%
M, t = sum(sizes.values()) / MIB, max(sizes.values()) / MIB
predicted = {  # (private, file-backed)
    "naive": (2 * M, 0),
    "sequential": (M + t, 0),
    "mmap": (0, M),
    "stream": (M, 0),
}
for strategy, (private, file_backed) in predicted.items():
    print(f"{strategy:<11} private {private:6.1f} MiB   file-backed {file_backed:6.1f} MiB")

# %% [markdown]
# Measuring this has two traps. A process that has loaded one model still holds memory, so **each load gets a fresh
# process**. And a peak lasts for a moment, so looking now and then misses it: the tool looks every millisecond, and
# asks the system for its own high-water mark. `measure_load` loads the model, runs it on one token, and runs it once
# more.

# %% tags=["nbval-ignore-output"]
from course_helpers.labs.lab_app_a import measure_load

loads = {strategy: measure_load(big, strategy) for strategy in predicted}
for strategy, load in loads.items():
    kinds = f"private {load.private_mb:6.1f} MiB   file-backed {load.file_mb:6.1f} MiB"
    print(f"{strategy:<11} {kinds}")

# %% tags=["nbval-ignore-output"]
charts.predicted_beside_measured(predicted, loads)

# %% [markdown]
# The formulas hold to within a few MiB. **A peak is no surprise once you know what is held at the same time.** For a
# model of 14 GB, naive needs 28, and a machine with 24 kills the process; stream needs 14.
#
# A GPU has a second account of the same kind. `load_model(source, device="cuda")` sends each tensor across as it is
# read, and `track_memory` also reports what torch has *allocated* there for tensors and *reserved* from the GPU in all.
#
# The same measurement, over time:

# %% tags=["nbval-ignore-output"]
charts.timelines(loads, M)

# %% [markdown]
# Read the panels from the top:
#
# - **naive**: the slow slope is torch filling the new model with random numbers that are about to be overwritten: most
#   of the time is spent on work that is thrown away. Then the file comes on top, and only at the end of the load does
#   it go.
# - **sequential**: the same slope, but beside it one tensor at most.
# - **mmap**: loaded before anything is read.
# - **stream**: one straight line up to the model's size, and not a byte more.

# %%
close = {
    strategy: abs(load.use.added_peak_mb - sum(predicted[strategy])) < 0.08 * M
    for strategy, load in loads.items()
}
as_predicted = all(close.values())
validation_checkpoint("M9-LAB-APP-A", "four peaks as predicted", as_predicted, str(close))

# %% [markdown]
# ## 10 · The load that takes no time
#
# mmap came back at once, and its memory grew only afterwards. To map a file is to promise that its bytes will be there:
# nothing is read. At the **first use** of each page the processor stops, the system puts the page into the window, and
# the program goes on without noticing. So the work is not saved, it is done later, in the first forward pass.
#
# How much work that is depends on where the bytes are. Our file has just been written, so it lies in the page cache (it
# is *warm*). We can ask the system to drop it from there, so that the bytes must come from the disk (*cold*).
#
# **Predict, then run.** A cold mmap beside a warm one: the load, the first pass, the second pass, the peak. Which of
# the four change?

# %% tags=["nbval-ignore-output"]
from course_helpers.labs.lab_app_a import drop_from_page_cache

dropped = drop_from_page_cache(big)
cold = measure_load(big, "mmap")

print(f"{'':<12}{'load':>9}{'1st pass':>11}{'2nd pass':>11}{'peak':>13}")
rows = {"stream": loads["stream"], "mmap": loads["mmap"], "mmap, cold": cold}
for name, load in rows.items():
    first, second = load.pass_seconds
    times = f"{load.load_seconds:>7.2f} s{first:>9.2f} s{second:>9.2f} s"
    print(f"{name:<12}{times}{load.use.added_peak_mb:>9.0f} MiB")
print("could be dropped:", dropped)

# %% [markdown]
# It is the first pass that changes: there the disk is waited for. The load still comes back at once. **Never compare
# loading times without the first use of what was loaded**, and say whether the file was warm. (Some systems drop
# nothing on request. Then the last two rows are alike.)
#
# With a warm file, mmap and stream are about as soon at the answer; but mmap makes no copy. It is the best choice where
# many processes share one model (all their windows show the *same* pages), where only a part of a model is used, or
# where you want to look at a tensor and go. Its price:
#
# ### The model that changes under your feet
#
# We load one copy of a checkpoint twice, mapped and streamed. Then another program writes new bytes into the same file.
#
# **Predict, then run.** What does each of the two models hold afterwards?

# %%
copy = Path(shutil.copytree(good, workspace / "copy", ignore=no_card))
models = {strategy: load_model(copy, strategy=strategy) for strategy in ("mmap", "stream")}
before = {name: model.token_embedding.weight.clone() for name, model in models.items()}

file_path = copy / "model.safetensors"
with open(file_path, "r+b") as file:  # open for writing, without emptying it
    header_bytes = int.from_bytes(file.read(8), "little")
    file.seek(8 + header_bytes)
    file.write(bytes(file_path.stat().st_size - 8 - header_bytes))  # zeros

for name, model in models.items():
    weight = model.token_embedding.weight
    same = torch.equal(weight, before[name])
    print(f"{name:<7} unchanged: {same!s:<6} first numbers: {weight[0, :4].tolist()}")
changed_by_file = not torch.equal(models["mmap"].token_embedding.weight, before["mmap"])

# %% [markdown]
# The mapped model has become a model of zeros, and nobody told it. (On Windows our mmap reads instead, because mapping
# large files is not safe there; so there it keeps its values.)
#
# It can be worse. If the file gets *shorter*, there is no byte behind the window any more, and the system ends the
# process on the spot: no exception, no message. So we show it in a process of its own, without torch, on a file of one
# MiB:

# %%
import signal
import subprocess

VICTIM = """
import mmap, os, sys
with open(sys.argv[1], "w+b") as file:
    file.write(bytes(2**20))
    file.flush()
    window = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(sys.argv[1], 0)
    print("first byte:", window[0])
"""
if sys.platform == "win32":
    print("Windows does not let a mapped file be cut off")
else:
    command = [sys.executable, "-c", VICTIM, str(workspace / "short")]
    end = subprocess.run(command, capture_output=True)
    print("what it printed:", end.stdout, end.stderr)
    print("how it ended:   ", signal.Signals(-end.returncode).name)

# %% [markdown]
# The cure is on the side of the writer: write a *new* file, then give it the old one's name. Whoever has the old file
# mapped keeps it; whoever opens it next gets the new one. `save_checkpoint` does exactly that. And if you cannot trust
# the writer: **stream**.

# %%
from course_helpers import save_checkpoint

source = load_model("tiny-qwen3")
home = save_checkpoint(source, workspace / "saved")
mapped = load_model(home, strategy="mmap")
kept = mapped.token_embedding.weight.clone()

with torch.no_grad():
    source.token_embedding.weight.zero_()
save_checkpoint(source, home)  # over the file that is mapped

survived = torch.equal(mapped.token_embedding.weight, kept)
renewed = load_model(home).token_embedding.weight.abs().max().item() == 0
print("the mapped model is as it was:", survived)
print("the file holds the new model: ", renewed)
as_told = survived and renewed and (changed_by_file or sys.platform == "win32")
validation_checkpoint("M9-LAB-APP-A", "a mapped model is its file", as_told)

# %% [markdown]
# ## 11 · Another type, another file
#
# **A cast while streaming.** The file is bfloat16; we want a float32 model. A tool that first loads and then converts
# holds both: 2 + 4 bytes a number, and the peak is *3 M*. Stream casts each tensor on its way.
#
# **Predict, then run.** With *M* and *t* still those of the bfloat16 file: what is the peak of the streamed float32
# model?

# %% tags=["nbval-ignore-output"]
cast = measure_load(big, "stream", torch.float32)
print(f"predicted: 2 M + t = {2 * M + t:6.1f} MiB")
print(f"measured:            {cast.private_mb:6.1f} MiB")
print(f"load, then convert:  {3 * M:6.1f} MiB")

# %% [markdown]
# **The same weights as a `.bin` file.** The PyTorch format (M9-LAB-01) is a pickle in a zip archive. The usual
# `torch.load` reads all of it before the first tensor can be used.
#
# **Predict, then run.** Must a `.bin` file therefore have a higher peak than a safetensors file?

# %% tags=["nbval-ignore-output"]
big_bin = workspace / "big-bin"
big_bin.mkdir()
shutil.copyfile(big / "config.json", big_bin / "config.json")
with open_checkpoint(big) as checkpoint:
    torch.save({name: checkpoint.map(name) for name in sizes}, big_bin / "pytorch_model.bin")

from_bin = measure_load(big_bin, "stream")
for name, load in (("safetensors", loads["stream"]), (".bin", from_bin)):
    kinds = f"private {load.private_mb:6.1f} MiB   file-backed {load.file_mb:6.1f} MiB"
    print(f"{name:<12} {kinds}")

# %% [markdown]
# It must not. The archive says where each tensor's bytes lie, so they can be read one by one, too. **The way of reading
# decides the peak, the format only what is possible.** What `.bin` cannot do is be harmless (M9-LAB-01, section 3).

# %%
cast_ok = abs(cast.use.added_peak_mb - (2 * M + t)) < 0.08 * M
found = f"{cast.use.added_peak_mb:.0f} MiB"
validation_checkpoint("M9-LAB-APP-A", "a cast while streaming costs one tensor", cast_ok, found)

# %% [markdown]
# ## 12 · Tied weights: one tensor, two names
#
# A tied head must *be* the embedding. A loader that fills "both" makes a copy, and the copy drifts away in the next
# training.
#
# **Predict, then run.** What would the copy cost for the released Qwen3-0.6B, in MiB of bfloat16, and in % of the
# model?

# %%
from course_helpers.memory import weight_bytes

model = load_model("tiny-qwen3")
head, embedding = model.head_weight, model.token_embedding.weight
print("the same memory: ", head.data_ptr() == embedding.data_ptr())
outside = [name for name, _ in model.named_parameters() if not name.startswith("blocks.")]
print("outside blocks:  ", outside)

tied = weight_bytes(real)
untied = weight_bytes(dataclasses.replace(real, tie_word_embeddings=False))
print(f"\nQwen3-0.6B tied {tied / MIB:,.0f} MiB, with a copy {untied / MIB:,.0f} MiB")
copied = untied - tied
print(f"the copy would cost {copied / MIB:,.0f} MiB, {100 * copied / tied:.0f} % of the model")

# %% [markdown]
# No head among the names, so nothing can drift. In a small model with a large vocabulary, the copy would be a quarter
# of everything.
#
# ## 13 · The trap of the empty buffer
#
# The lean strategies build the model on the meta device. That has one trap, and it is a silent one.
#
# A model holds more than parameters. A **buffer** is a tensor that is not learned but *computed*: a mask, or the table
# of frequencies by which rotary positions turn queries and keys. It is often not saved, since it follows from the
# config. So who fills it, if the model was built without memory?
#
# Many programs write their rotary positions like this:

# %%
from torch import nn

from course_helpers.architectures.rope import RotaryEmbedding


class RotaryWithBuffer(nn.Module):
    """Rotary positions whose frequencies are a buffer, computed when the model is built."""

    def __init__(self, rope, head_dim):
        super().__init__()
        frequencies = rope.rope_theta ** -(torch.arange(0, head_dim, 2) / head_dim)
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)  # not saved
        self.attention_factor = 1.0

    forward = RotaryEmbedding.forward  # the rest is as in the package


# %%
right = load_model("tiny-qwen3", dtype=torch.float32)
tiny_tokenizer = load_tokenizer("tiny-qwen3")


def put_in_buffers(model):
    """Exchange the package's rotary positions for those with a buffer."""
    for kind in model.rotary_embeddings:
        rotary = RotaryWithBuffer(model.config.rope(kind), model.config.head_dim)
        model.rotary_embeddings[kind] = rotary


def build_empty():
    """The same model, with such buffers, on the meta device."""
    with torch.device("meta"):
        model = type(right)(right.config)
        put_in_buffers(model)
    return model


# %% [markdown]
# `to_empty` gives every meta tensor real memory, without writing anything into it. Then we load the weights with
# `strict=True`, torch's strictest setting.
#
# **Predict, then run.** Does it complain?

# %%
hollow = build_empty().to_empty(device="cpu")
print(hollow.load_state_dict(right.state_dict(), strict=True))

with torch.no_grad():
    for buffer in hollow.buffers():
        buffer.zero_()  # fresh memory holds anything; zeros, so that you see what we saw

print("\nRIGHT\n" + textwrap.fill(tell(right, tiny_tokenizer, vouched_for), 100))
print("\nHOLLOW\n" + textwrap.fill(tell(hollow, tiny_tokenizer, vouched_for), 100))

# %% [markdown]
# "All keys matched": strict looks at what is in the file, and the buffer is not. With frequencies of zero nothing
# turns, and **the model no longer knows which word came first**. The grammar still half holds, so it looks like a bad
# model, not like a bug.
#
# Three ways to be safe, from repair to cure:

# %%
# 1. Ask which buffers no file can fill ...
not_in_file = [name for name, _ in hollow.named_buffers() if name not in right.state_dict()]
print("nobody fills:", not_in_file)

# ... and compute them again, outside the meta device.
put_in_buffers(hollow)
repaired = tell(hollow, tiny_tokenizer, vouched_for) == vouched_for["text"]
print("repaired:    ", repaired)

# 2. Let torch fill empty memory with NaN ("not a number"), so that the mistake is loud.
torch.use_deterministic_algorithms(True)
loud = build_empty().to_empty(device="cpu")
torch.use_deterministic_algorithms(False)
print("loud:        ", all(buffer.isnan().all().item() for buffer in loud.buffers()))

# 3. Or have no such buffers: ours are plain attributes, always computed on the CPU.
print("ours:        ", [name for name, _ in right.named_buffers()])

# %% [markdown]
# There is a fourth, by accident: leave out `to_empty` and let `load_state_dict(..., assign=True)` put the tensors in
# place. Then the buffer stays on the meta device, and the first forward pass stops with an error. An error is the
# better outcome.

# %%
halfway = build_empty()
halfway.load_state_dict(right.state_dict(), assign=True)
try:
    halfway(torch.tensor([[1, 2, 3]]))
except NotImplementedError as error:
    print(type(error).__name__ + ":", error)

found_and_filled = bool(not_in_file) and repaired
validation_checkpoint("M9-LAB-APP-A", "an empty buffer is found and filled", found_and_filled)

# %% [markdown]
# ## 14 · What training adds
#
# To *load* and run a model you need its weights. To *train* it you need three things more for every weight: its
# **gradient** (in which direction it should move), and two **moments**, the running means of the gradient and of its
# square, by which the optimizer AdamW decides how far. Each is as large as the weights.
#
# **Predict, then run.** We take one training step with a small model. How many times the weights is held afterwards?

# %%
from course_helpers.memory import training_parts

student = load_model("tiny-qwen3", dtype=torch.float32)
optimizer = torch.optim.AdamW(student.parameters())
ids = torch.tensor([tiny_tokenizer.encode(TEXTS[0])])
loss = torch.nn.functional.cross_entropy(student(ids)[0, :-1], ids[0, 1:])
loss.backward()
optimizer.step()

held = {
    "weights": storage_bytes(student.parameters()),
    "gradients": storage_bytes(parameter.grad for parameter in student.parameters()),
    "AdamW's moments": storage_bytes(
        tensor for state in optimizer.state.values() for tensor in state.values()
    ),
}
formula = training_parts(student.config, torch.float32)
for part, size in held.items():
    print(f"{part:<16}{size:>12,} bytes held, {formula[part]:>12,} by the formula")
print(f"together {sum(held.values()) / held['weights']:.3f} x the weights")

# %% [markdown]
# (The few bytes more are AdamW's counter of steps, one for each tensor.)
#
# Mind this when you read "this model needs so many GB". Some tables add a gradient for every weight, and count a tied
# head twice, although the question was what it takes to *load* the model:

# %%
honest, inflated = tied / 2**30, 2 * untied / 2**30
print(f"Qwen3-0.6B in bfloat16: to load it      {honest:.2f} GiB")
print(f"with gradients, and a tied head twice:  {inflated:.2f} GiB")
charts.stacked_sizes(
    {
        "run it, bfloat16": {"weights": tied},
        "run it, float32": {"weights": weight_bytes(real, torch.float32)},
        "train it, float32": training_parts(real, torch.float32),
    }
)

# %% [markdown]
# Not in any of these bars: the cache (section 4), and the **activations**, what the layers pass on to each other, which
# come and go.

# %%
once = held == formula
validation_checkpoint("M9-LAB-APP-A", "training state is counted once, to the byte", once)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-APP-A",
    {
        "source": SOURCE,
        "checklist": {
            source: {what: ok for what, ok, _ in result.lines}
            for source, result in lists.items()
        },
        "model_mb": M,
        "largest_tensor_mb": t,
        "predicted_mb": predicted,
        "strategies": {strategy: load.record() for strategy, load in loads.items()},
        "cast to float32": cast.record() | {"predicted_mb": 2 * M + t},
        "mmap, cold": cold.record() | {"dropped from the page cache": dropped},
        "stream from .bin": from_bin.record(),
        "qwen3_0.6b_bytes": {
            "weights": tied,
            "tied head copied": untied,
            "training, float32": training_parts(real),
        },
    },
)

# %%
shutil.rmtree(workspace)
print("cleaned up:", not workspace.exists())

# %% [markdown]
# ## Recap
#
# - A checkpoint passes when **config, tokenizer, memory and first prompt** all hold. Each line of the list catches what
#   the others cannot.
# - Some mistakes are in no file: only a text that somebody has vouched for shows them.
# - Peaks can be predicted: naive *2 M*, sequential *M + t*, stream *M* (and *t* when it casts), mmap no private memory
#   at all.
# - Private memory is ours and stays; file-backed memory belongs to the file: cheap, shared, late, and changed by
#   whoever writes to the file.
# - A model built on the meta device is filled by the file *except for what is not in the file*.
# - Loading needs the weights, training four times as much. Ask what a figure counts.
#
# **You can now** run a loading checklist and defend its ticks; predict and measure the peak of a load; choose a
# strategy for a machine; and find a buffer that nobody has filled.
#
# **Next:** M9-CODE-01 writes the safe assignment from nothing; then M9-LAB-02 turns GPT-2 into Llama.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · How large is the cache?
#
# Write section 4's formula as a function, for any model whose layers all keep every token. `config` has the fields of
# `config.json`, as attributes.

# %% tags=["exercise"]
def cache_bytes(config, length, batch_size, bytes_each):
    """Bytes of a KV cache for `batch_size` texts of `length` tokens each."""
    raise NotImplementedError


# %% tags=["solution"]
def cache_bytes(config, length, batch_size, bytes_each):
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return per_token * length * batch_size * bytes_each


# %%
from course_helpers.labs.lab_app_a_exercises import check_cache_bytes

check_cache_bytes(cache_bytes)


# %% [markdown]
# ### Exercise 2 · Predict every peak
#
# Section 9 had formulas for a model of the file's own type, section 11 one for a cast. Write the function that knows
# them all: the peak of *private* memory of a load. `tensors` says how many numbers each tensor has; `in_file` and
# `in_model` are the bytes of one number there and here.
#
# One thing is new: what must `mmap` do when the types differ? It makes a model of private memory, and reads tensor by
# tensor, as `stream` does.

# %% tags=["exercise"]
def peak_bytes(strategy, tensors, in_file, in_model):
    """Private bytes at the worst moment; `strategy` is naive, sequential, mmap or stream."""
    raise NotImplementedError


# %% tags=["solution"]
def peak_bytes(strategy, tensors, in_file, in_model):
    total, largest = sum(tensors.values()), max(tensors.values())
    model, one_tensor = total * in_model, largest * in_file
    if strategy == "naive":
        return model + total * in_file
    if strategy == "sequential":
        return model + one_tensor
    if in_file != in_model:  # stream, mmap: the tensor that is cast waits beside the model
        return model + one_tensor
    return 0 if strategy == "mmap" else model


# %%
from course_helpers.labs.lab_app_a_exercises import check_peak_bytes

check_peak_bytes(peak_bytes)


# %% [markdown]
# ### Exercise 3 · A streaming loader of your own
#
# Fill an empty `model` (all parameters on the meta device) tensor by tensor: `read(name)` reads one from the file, and
# it is to become the parameter `name` of the model, in the type `dtype`. You may use `set_parameter(model, name,
# tensor)`, which puts a tensor in a parameter's place.
#
# The check watches what is in memory: **never two tensors of the file at once.** It is easier to break that rule than
# it looks.

# %%
from course_helpers.loaders.assign import set_parameter


# %% tags=["exercise"]
def stream_into(model, names, read, dtype):
    """Fill `model` from `read(name)` for each of `names`, cast to `dtype`."""
    raise NotImplementedError


# %% tags=["solution"]
def stream_into(model, names, read, dtype):
    for name in names:
        # No variable holds what was read: it is gone before the next one is asked for.
        set_parameter(model, name, read(name).to(dtype))


# %%
from course_helpers.labs.lab_app_a_exercises import check_stream_into

check_stream_into(stream_into)
