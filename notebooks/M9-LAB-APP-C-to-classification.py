# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-APP-C · The hand-off to classification finetuning
#
# | | |
# |---|---|
# | **Objective** | Prepare validated bases with their tokenizers for the classification module, and prove that they work: train a head on two of them |
# | **Before this** | M9-LAB-APP-B: you have taken a checkpoint through the whole runbook |
# | **Time** | 60 minutes to read and run, 45 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 29 and 30 |
#
# **At the end you will be able to**
#
# - choose a base by its constraints, and say why its tokenizer is no separate choice;
# - hand on six artifacts, each with a computed tick, so that a changed byte is refused;
# - put a classification head on any family, read the last *real* token, and prove that what is frozen has not moved;
# - say how much of an accuracy comes from the base, how much from the words, and how much is chance.

# %%
from course_helpers.labs import lab_app_c_charts as charts
from course_helpers.labs import lab_app_c_figures as figures

figures.hand_off()

# %% [markdown]
# **Finetuning** means: training goes on from a model that has been trained already, the **base**, on a task of its own.
# It inherits everything, also what is wrong: the silent faults of M9-LAB-08 raise no error there, and none here. The
# classifier is then worse than it could be, and nobody looks for the reason where it is. So the next module starts from
# files that are known to be right.
#
# Part 1 makes these files, for two families. Part 2 turns a language model into a classifier. Part 3 trains it, and
# asks what the base was good for.

# %% [markdown]
# # Part 1: what is handed on
#
# ## 1 · One switch
#
# The bases are two small models that come with the course. With a network, the same cells take the released ones: set
# the environment variable `COURSE_CHECKPOINTS` to `hub`, or write `"hub"` below. (They are more than a hundred times as
# large, so part 3 then asks for patience.)

# %%
import json
import math
import os
import shutil
import textwrap
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from course_helpers import FAMILIES, load_model, load_tokenizer
from course_helpers.labs import lab_app_c as lab
from course_helpers.labs import validation_checkpoint

# %%
CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {
    "bundled": {"GPT-2": "tiny-gpt2", "Qwen3": "tiny-qwen3"},
    "hub": {"GPT-2": "openai-community/gpt2", "Qwen3": "Qwen/Qwen3-0.6B-Base"},
}[CHECKPOINTS]

workspace = Path("workspace/lab-app-c")  # for the files that this lab makes; emptied at the end
shutil.rmtree(workspace, ignore_errors=True)
workspace.mkdir(parents=True)
print("bases:", ", ".join(SOURCE.values()))

# %% [markdown]
# ## 2 · Which base?
#
# Four things decide, in this order. May we use it (licence, account)? Do our texts fit into its **context**, the most
# tokens it reads at once? Does it fit the machine? Only then: how good is it? The course's **planner** knows the
# first three for every released size. We ask for a base for a classifier of texts of up to 256 tokens, on a laptop with
# 8 GB. (It counts what it takes to *run* the base; section 7 counts what training adds.)
#
# **Predict, then run.** Which families are left, if nobody in the class has an account?

# %%
from course_helpers.planner import plan

answer = plan("classify", "laptop-8GB", context=256)
SHAPE = "{:<30}{:>7}{:>10}{:>9}{:>11}   {}"
print(SHAPE.format("base", "size", "context", "tokens", "embedding", "licence"))
for choice in answer.choices:
    family = FAMILIES[choice.family]
    version = choice.hub_id.removesuffix("-Base")  # the presets are named without it
    config = family.presets[version]
    share = config.vocab_size * config.hidden_size / choice.parameters
    size, context = f"{choice.parameters / 1e9:.2f} B", f"{config.max_position_embeddings:,}"
    tokens, share = f"{config.vocab_size:,}", f"{share:.0%}"
    print(SHAPE.format(choice.hub_id, size, context, tokens, share, family.licence))

# %%
left = list(dict.fromkeys(choice.family for choice in answer.choices))
print("left:", ", ".join(left))
smallest = {}
for refusal in sorted(answer.refused, key=lambda refusal: refusal.parameters):
    smallest.setdefault(refusal.family, refusal)
for family in (name for name in FAMILIES if name not in left):
    print(f"out:  {family:<10} {smallest[family].reasons[0].split(':')[0]}")

# %% [markdown]
# ("B" is billions of parameters; "tokens" is the **vocabulary**, how many different ones there are; "embedding" is the
# share of the parameters that sits in the **token embedding**, one row of numbers for each token. For a family that is out,
# you see what speaks against its smallest size.) Two are left, and we take the smallest size of each.
#
# And the tokenizer? **It is no separate choice.** A base understands the ids of its own tokenizer and of no other; so
# base and tokenizer are chosen, and handed on, as one. What a tokenizer changes is how *long* a text is, and with that
# whether it fits:

# %%
COUNTS = (120, 12, 50)  # stories of each label: to train on, to look at meanwhile, for the end
texts = lab.story_sets(COUNTS)[0][0]  # section 8 shows them
SHAPE = "{:<16}{:>7}{:>10}{:>21}   {}"
print(SHAPE.format("bundled base", "tokens", "context", "longest, in tokens", "fits"))
for name in dict.fromkeys((*SOURCE.values(), *(family.tiny for family in FAMILIES.values()))):
    tokenizer, config = load_tokenizer(name), load_model(name).config
    longest = max(len(tokenizer.encode(text)) for text in texts)
    context = config.max_position_embeddings
    print(SHAPE.format(name, config.vocab_size, context, longest, longest <= context))

# %% [markdown]
# The same texts, and not the same lengths. **Count the tokens of your longest text with the base's own tokenizer**, never
# with another one.

# %%
ours = {"gpt2", "qwen3"}
free = not any(FAMILIES[name].gated for name in ours)
held = ours == set(left) and free
validation_checkpoint("M9-LAB-APP-C", "two bases are chosen by their constraints", held)

# %% [markdown]
# ## 3 · Six artifacts
#
# An **artifact** is a file that somebody else will rely on. `export_base` writes the first four in one go: it sends the
# source through the five layers of checks of `validate_checkpoint` (M9-LAB-09), writes weights, config and tokenizer, reads all of it
# back, compares it to the bit, and **pins** it: `run.json`, the **manifest**, holds a hash of every file (SHA-256, a
# fingerprint of its bytes). Beside them it leaves `card.json`: what a later validation compares with.

# %%
from course_helpers.classification_files import export_base, load_base

manifests = {}
for name, source in SOURCE.items():
    manifests[name] = export_base(source, workspace / name)
    pinned = [file for files in manifests[name].files.values() for file in files]
    print(f"{name}: {sum(manifests[name].validation.values())} layers passed")
    print(textwrap.fill(f"pinned: {', '.join(pinned)}", 96, subsequent_indent="  "))

# %% [markdown]
# The fifth artifact is a decision. Texts have different lengths, and a batch is a rectangle: short rows are filled up
# with **padding**. With which id, and on which side? Many models never had a pad token. Here is what the files say:

# %%
for name in SOURCE:
    config = json.loads((workspace / name / "config.json").read_text())
    pad, stop = config.get("pad_token_id"), config["eos_token_id"]
    print(f"{name}: pad_token_id {pad}, eos_token_id {stop}")

# %% [markdown]
# No pad. (`eos` is *end of sequence*, the stop mark that ends a text.) So we decide: padding goes **on the right**, with
# the stop mark's id, which every vocabulary has, and **what is read is the last real token**. Section 6 shows that the id
# then makes no difference. A decision that stands in no file is forgotten, so it is written down.

# %%
decisions = {
    name: {
        "source": source,
        "pad_id": load_tokenizer(workspace / name).stop_ids[0],
        "padding": "right",
        "reads": "the last real token",
        "context": load_model(workspace / name).config.max_position_embeddings,
        "labels": list(lab.labels()),
    }
    for name, source in SOURCE.items()
}
(workspace / "decisions.json").write_text(json.dumps(decisions, indent=2))
for name, decision in decisions.items():
    print(name, {key: decision[key] for key in ("pad_id", "padding", "context")})


# %% [markdown]
# The sixth is the **way back**: a copy that training never touches. Here it is the folder itself: the next module loads
# from it and writes elsewhere. Now the checklist, with ticks that are computed, each by asking the files.

# %%
from course_helpers.classification import sha256_of
from course_helpers.labs.lab_app_a import run_checklist


def same_weights(one, other):
    """Whether two models hold the same numbers, bit by bit."""
    hashes = [
        {name: sha256_of(tensor) for name, tensor in model.named_parameters()}
        for model in (one, other)
    ]
    return hashes[0] == hashes[1]


# %%
def artifacts(name):
    """Six lines for one base: what must hold, whether it does, what was seen."""
    folder, manifest, decision = workspace / name, manifests[name], decisions[name]
    model, tokenizer = load_base(folder)  # refuses any file but the pinned one
    source = load_model(SOURCE[name])
    probe = tokenizer.encode(texts[0]) == load_tokenizer(SOURCE[name]).encode(texts[0])
    layers, pad = manifest.validation, decision["pad_id"]
    pinned = {file for part in manifest.files.values() for file in part}
    notes = {path.name for path in folder.iterdir()} - pinned
    all_pinned = notes == {"run.json", "card.json"}
    return [
        ("validated base", all(layers.values()), f"{len(layers)} layers"),
        ("config: the source's", model.config == source.config, type(model.config).__name__),
        ("tokenizer: the source's ids", probe, tokenizer.kind),
        ("manifest: every file pinned", all_pinned, f"{len(pinned)} files"),
        ("pad and stop: decided", 0 <= pad < model.config.vocab_size, f"id {pad}, right"),
        ("way back: equal to the source", same_weights(model, source), "to the bit"),
    ]


ticks = {name: run_checklist(name, {"artifacts": artifacts}) for name in SOURCE}
for result in ticks.values():
    print(result)

# %%
all_hold = all(result.ok for result in ticks.values())
validation_checkpoint("M9-LAB-APP-C", "six artifacts are there for each base", all_hold)

# %% [markdown]
# ## 4 · A hand-off must be able to fail
#
# We spoil three copies of a base: one bit of one weight is flipped, the tokenizer comes from another family, one number in
# the config is edited. (A **bit** is the smallest piece of a file: there are 8 in a byte.)
#
# **Predict, then run.** Which of the three do the ordinary `load_model` and `load_tokenizer` notice? And `load_base`?

# %%
spoilt = {what: workspace / what for what in ("one-bit", "other-tokenizer", "other-config")}
for copy in spoilt.values():
    shutil.copytree(workspace / "Qwen3", copy)

weights = next(spoilt["one-bit"].glob("*.safetensors"))
content = bytearray(weights.read_bytes())
first = 8 + int.from_bytes(content[:8], "little")  # after the header and its length (M9-LAB-01)
content[first] ^= 1  # the lowest bit of the first number
weights.write_bytes(content)

config = json.loads((spoilt["other-config"] / "config.json").read_text())
config["rope_theta"] /= 2
(spoilt["other-config"] / "config.json").write_text(json.dumps(config))

for file in load_tokenizer("tiny-gemma3").files.values():
    shutil.copyfile(file, spoilt["other-tokenizer"] / file.name)

# %%
def load_ordinarily(folder):
    return load_model(folder), load_tokenizer(folder)


refused = {what: lab.refusal(load_base, copy) for what, copy in spoilt.items()}
for what, copy in spoilt.items():
    print(f"{what}\nordinarily: {lab.in_short(lab.refusal(load_ordinarily, copy))}")
    print(f"load_base:  {lab.in_short(refused[what])}\n")

# %% [markdown]
# The ordinary way takes all three: each is a possible model (`rope_theta` says how fast positions turn queries and keys, and
# no shape shows it). `load_base` refuses each, and names the file. Nothing was loaded before all hashes were compared.
#
# What this does *not* protect from: whoever can write into the folder can write a new manifest, too. Keep `run.json`
# where the weights do not lie, in version control for instance, and load with `load_pinned(manifest, folder)`.

# %%
from course_helpers.manifest import RunManifest, load_pinned

kept = RunManifest.load(workspace / "Qwen3" / "run.json")
again, _ = load_pinned(kept, workspace / "Qwen3")
print("the unspoilt folder by the kept manifest:", type(again).__name__)
found = lab.refusal(load_pinned, kept, spoilt["one-bit"])
print("the flipped bit by the kept manifest:    ", found.what)
held = all(refused.values()) and found is not None
validation_checkpoint("M9-LAB-APP-C", "one flipped bit is refused, by name", held)

# %% [markdown]
# # Part 2: from a language model to a classifier
#
# ## 5 · Another head
#
# A **head** is the last matrix of a model. A language model's is called *unembedding*: it turns each **hidden state**,
# the vector that the blocks have made of a token, into one score (a **logit**) for every token of the vocabulary. A
# classifier needs one score for each **label**, for the text as a whole. Everything below the head can stay.

# %%
tokenizers = {name: load_tokenizer(workspace / name) for name in SOURCE}
models = {name: load_base(workspace / name)[0].float().eval() for name in SOURCE}

E = models["Qwen3"].config.hidden_size
pieces = [tokenizers["Qwen3"].decode([id]) for id in tokenizers["Qwen3"].encode(texts[0])]
figures.two_heads(pieces, models["Qwen3"].config.vocab_size, E, lab.labels())

# %% [markdown]
# Attention looks back only, so the first token knows nothing of the others, and the last one has seen all. That is the
# position to read. Where in the row it stands depends on the padding, so the classifier is told the **lengths**: how
# many tokens of each row are real. (`B` batch, `T` tokens, `E` width, `C` labels.)
#
# This is the whole of it:

# %%
class Classifier(nn.Module):
    """Any base, and a head that reads the last real token of each row."""

    def __init__(self, base, labels, seed=0):
        super().__init__()
        self.base = base
        E, C = base.config.hidden_size, len(labels)
        self.head = nn.Linear(E, C)
        start_CE = torch.randn(C, E, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.head.weight.copy_(0.02 * start_CE)
            self.head.bias.zero_()

    def forward(self, ids_BT, lengths_B):
        x_BTE = self.base(ids_BT, hidden_states=True)  # what the old head would have read
        rows_B = torch.arange(len(lengths_B))
        last_BE = x_BTE[rows_B, lengths_B - 1]  # counted from 0
        return self.head(last_BE)


# %% [markdown]
# `hidden_states=True` stops before the old head. The package's `SequenceClassifier` does the same, checks its inputs, and
# can also read rows that are padded on the left. Do they agree? Four stories, padded to the longest:

# %%
from course_helpers.classification import SequenceClassifier, padded

equal = []
for name, model in models.items():
    rows = [tokenizers[name].encode(text) for text in texts[:4]]
    ids_BT, lengths_B = padded(rows, pad_id=decisions[name]["pad_id"])
    mine, package = (kind(model, lab.labels()) for kind in (Classifier, SequenceClassifier))
    with torch.no_grad():
        equal.append(torch.equal(mine(ids_BT, lengths_B), package(ids_BT, lengths_B)))
    print(f"{name}: lengths {lengths_B.tolist()}, scores equal to the bit: {equal[-1]}")
validation_checkpoint("M9-LAB-APP-C", "our classifier equals the package's", all(equal))

# %% [markdown]
# ## 6 · The last *real* token
#
# A mistake that is easily made: `x_BTE[:, -1]`, the last *column*. In a padded row, a pad stands there.
# (The chapter's own `ch06.ipynb` reads it, and pads all messages to one length: so an answer depends on that length, too.)

# %%
figures.four_readings()

# %% [markdown]
# **Predict, then run.** One text alone has a hidden state at its last token. We add 1, 4, 16, 64 pads beside it, and read in
# each of the four ways. In which does the vector stay the same?

# %%
PADS = (0, 1, 4, 16, 64)


@torch.no_grad()
def read(model, row, pads, way, pad_id):
    """What a head would get of one row with so many pads, read in one of four ways."""
    side = "right" if "right" in way else "left"
    ids_BT, lengths_B = padded([row], side, pad_id, width=len(row) + pads)
    told = {"left_padding_B": torch.tensor([pads])} if way == "left, model told" else {}
    x_TE = model(ids_BT, hidden_states=True, **told)[0]
    return x_TE[lengths_B[0] - 1 if way == "right, length - 1" else -1]


WAYS = ("right, last column", "right, length - 1", "left, last column", "left, model told")


# %%
moved = {}
for name, model in models.items():
    row, pad = tokenizers[name].encode(texts[0]), decisions[name]["pad_id"]
    alone = read(model, row, 0, "right, last column", pad)
    moved[name] = {}
    for way in WAYS:
        found = [read(model, row, pads, way, pad) - alone for pads in PADS]
        moved[name][way] = [(part.norm() / alone.norm()).item() for part in found]

stays = {(name, way): max(moved[name][way]) < 1e-4 for name in models for way in WAYS}
for way in WAYS:
    print(f"{way:<20}", "   ".join(f"{name} stays: {stays[name, way]}" for name in models))

# %%
charts.away_from_alone(PADS, moved)

# %% [markdown]
# A distance of 1 means: as far away as the vector is long. (The two ways that stay lie on each other, at 0.) **One pad is enough
# to read something else entirely**: the pad. The text itself never looks at the pads after it. On the left, they come
# before it: they are read as text, and push every position aside, which is less wrong, and harder to see. Only a model
# that is told masks them, and does not count them. And the id of the pad? Where the last real token is read, it must not matter:

# %%
any_id = []
for name, model in models.items():
    row = tokenizers[name].encode(texts[0])
    candidates = (0, decisions[name]["pad_id"], model.config.vocab_size // 2)
    states = [read(model, row, 16, "right, length - 1", pad) for pad in candidates]
    close = [torch.allclose(states[0], state, rtol=1e-4, atol=1e-4) for state in states]
    any_id.append(all(close))
    print(f"{name}: ids {candidates} as padding, the same hidden state: {any_id[-1]}")

CORRECT = ("right, length - 1", "left, model told")
as_drawn = all(stay == (way in CORRECT) for (_, way), stay in stays.items())
held = as_drawn and all(any_id)
validation_checkpoint("M9-LAB-APP-C", "the last real token is read, whatever the padding", held)

# %% [markdown]
# ## 7 · What is trained
#
# All of it could be. But every trained number costs a **gradient** (in which direction it should move) and the
# optimizer's two running means (of the gradient, and of its square), and with few texts a whole model can learn them by heart. So most of the base is
# **frozen**: `requires_grad` is off, no gradient, no step. We leave the last two blocks, the final **norm** (it brings
# vectors to a common size), and the new head.

# %%
from course_helpers.classification import freeze_all_but

BLOCKS = 2


def freeze(classifier, blocks):
    """Leave the head, the final norm and the last blocks to be trained; return their names."""
    classifier.requires_grad_(False)  # everything off ...
    base = classifier.base
    first = len(base.blocks) - blocks
    for part in (classifier.head, base.final_norm, *base.blocks[first:]):
        part.requires_grad_(True)  # ... and these on again
    return [name for name, part in classifier.named_parameters() if part.requires_grad]


gpt2, qwen3 = (model.config for model in models.values())
print(f"GPT-2: E {gpt2.n_embd}, F {gpt2.n_inner}")
print(f"Qwen3: E {qwen3.hidden_size}, F {qwen3.intermediate_size}", end=", ")
print(f"H {qwen3.num_attention_heads}, K {qwen3.num_key_value_heads}, D {qwen3.head_dim}")

# %% [markdown]
# A trap: both models have a **tied** head, their unembedding *is* the token embedding, used a second time. Whoever thaws
# "the head of the language model" thaws the embedding. Our head is a matrix of its own, so nothing is tied to it.
#
# **Predict, then run.** Take a pencil, and the sizes above. GPT-2's block has four attention matrices of $E \times E$, two
# of the feed-forward of $F \times E$, a bias for each output, and two norms with weight and bias. Qwen3's has $H$ heads for
# queries and $K$ for keys and values, each of size $D$: queries and output of $HD \times E$, keys and values of
# $KD \times E$; three matrices of $F \times E$; four norms without bias (two of width $E$, two of $D$). Add the final norm
# and our head of two rows: how many parameters are trained?

# %%
def gpt2_block(config):
    """Parameters of one block of a GPT-2, from the config alone."""
    E, F = config.n_embd, config.n_inner
    matrices, biases, norms = 4 * E * E + 2 * E * F, 4 * E + F + E, 2 * 2 * E
    return matrices + biases + norms


def qwen3_block(config):
    """Parameters of one block of a Qwen3."""
    E, F, D = config.hidden_size, config.intermediate_size, config.head_dim
    H, K = config.num_attention_heads, config.num_key_value_heads
    return 2 * H * D * E + 2 * K * D * E + 3 * F * E + 2 * E + 2 * D


BY_HAND = {"GPT-2": (gpt2_block, 2), "Qwen3": (qwen3_block, 1)}  # and vectors of the final norm


# %%
agree = []
for name, model in models.items():
    E, C = model.config.hidden_size, len(lab.labels())
    block, vectors = BY_HAND[name]
    predicted = BLOCKS * block(model.config) + vectors * E + (C * E + C)
    mine, package = (kind(model, lab.labels()) for kind in (Classifier, SequenceClassifier))
    names = freeze(mine, BLOCKS)
    counted = sum(part.numel() for part in mine.parameters() if part.requires_grad)
    agree += [predicted == counted, set(names) == set(freeze_all_but(package, BLOCKS))]
    print(f"{name}: predicted {predicted:,}, counted {counted:,}, in {len(names)} tensors")
print("the package freezes the same:", all(agree))


# %%
def ready(base):
    """The package's classifier on a base, with only its end left to be trained."""
    classifier = SequenceClassifier(base, lab.labels())
    freeze_all_but(classifier, BLOCKS)
    return classifier


charts.what_is_trained({name: lab.parts(ready(model)) for name, model in models.items()})

# %% [markdown]
# Our models have four blocks, so two are much. The released GPT-2 has twelve: there, one or two are a small part. What is
# saved? Kept for the whole training, in bytes of float32 (4 each): the weights of all, and for what is trained the gradient
# and two means.

# %%
for name, model in models.items():
    numbers = [(part.numel(), part.requires_grad) for part in ready(model).parameters()]
    everything, some = sum(n for n, _ in numbers), sum(n for n, trained in numbers if trained)
    print(f"{name}: {4 * (everything + 3 * some):,} bytes; all trained: {16 * everything:,}")
validation_checkpoint("M9-LAB-APP-C", "what is trained is predicted, to the number", all(agree))

# %% [markdown]
# # Part 3: happy or sad
#
# ## 8 · The task
#
# Each of our stories ends well or badly, and the grammar that tells them knows which: a label that nobody had to write by
# hand. It decides the last two steps of a story, the outcome and the ending; until then, both are open.

# %%
train_set, validation_set, test_set = lab.story_sets(COUNTS)
train, train_labels = train_set
validation, validation_labels = validation_set
test, test_labels = test_set

for label in lab.labels():
    story = train[train_labels.index(label)]
    print(f"{label}:\n{textwrap.fill(story, 96)}\n")

# %% [markdown]
# Three questions to put to any data set, before a model sees it. Are the classes **balanced**? (If nine of ten were happy,
# always saying "happy" would give 90 %.) Do the sets **overlap**? And **how far does one get without reading**? For the
# last one we count words: which stand more often in happy stories, which in sad ones? (*Naive Bayes*: it knows no order.)
#
# **Predict, then run.** Chance gives 50 %. What does counting words give?

# %%
sets = {"train": train_labels, "validation": validation_labels, "test": test_labels}
for what, labels in sets.items():
    print(f"{what:<11}{len(labels):>4} stories, {labels.count('happy')} of them happy")
everything = (*train, *validation, *test)
print("stories that stand twice:", len(everything) - len(set(everything)))

words = lab.share_right(lab.by_counting_words(train_set, test), test_labels)
print(f"counting words: {words:.0%} right")

known = {sentence for story in train for sentence in lab.sentences(story)}
seen = sum(lab.sentences(story)[-1] in known for story in test)
print(f"last sentences of the test that the training has, word for word: {seen} of {len(test)}")

# %% [markdown]
# The words give about four of five labels away. So **that, and not 50 %, is the height to clear**. And mind what a test from the
# same grammar cannot show: its stories are new, but made of the same patterns of sentences. High accuracy will mean that
# the pipeline works, not that a model understands stories.
#
# The bases have read stories of this kind, told with another seed, and **never a label**: they were trained to predict
# the next token.

# %%
even = all(labels.count("happy") == labels.count("sad") for labels in sets.values())
held = even and len(set(everything)) == len(everything) and 0.7 < words < 0.9
validation_checkpoint("M9-LAB-APP-C", "even classes, sets apart, height known", held)

# %% [markdown]
# ## 9 · Training
#
# The loop is that of M9-LAB-07 with another loss: the surprise at the true label, $-\ln p$, where the **softmax** (it turns
# scores into probabilities) goes over two labels instead of a vocabulary. (With the natural logarithm its unit is the
# **nat**.) One answer a text. A head that knows nothing gives each label about half, so it begins near
# $\ln 2 \approx 0.69$.

# %%
from course_helpers.training import TrainingSettings, initialize

RATE = {"bundled": 3e-3, "hub": 2e-4}[CHECKPOINTS]  # how large a step is
SETTINGS = TrainingSettings(steps=40, learning_rate=RATE, warmup_steps=5)


def encoded(name, texts):
    """Rows of ids by the base's own tokenizer, none longer than its context."""
    rows = [tokenizers[name].encode(text) for text in texts]
    assert max(map(len, rows)) <= decisions[name]["context"]
    return rows


@torch.no_grad()
def loss_on(classifier, rows, labels):
    """Mean surprise at the true labels, in nats."""
    scores_BC = classifier(*padded(rows))
    return F.cross_entropy(scores_BC, classifier.label_ids(labels)).item()


for name, model in models.items():
    loss = loss_on(ready(model), encoded(name, validation), validation_labels)
    print(f"{name}: a fresh head begins near ln 2: {abs(loss - math.log(2)) < 0.25}")

# %% [markdown]
# We train the last two blocks of each base, 40 steps of 6 stories, so that each story is seen once. Then the same **from
# random weights**: the same shapes, stories and steps. Only the numbers at the start differ.
#
# **Predict, then run.** Where does the loss end from the base, and where from random weights?

# %%
from course_helpers.classification import train_classifier


def finetune(name, base):
    """A trained classifier, the loss of every step, and (steps done, validation loss)."""
    classifier = ready(base)
    rows, looked_at = encoded(name, train), encoded(name, validation)
    looks = [(0, loss_on(classifier, looked_at, validation_labels))]

    def look(step, loss):
        if (step + 1) % 20 == 0:
            looks.append((step + 1, loss_on(classifier, looked_at, validation_labels)))

    options = {"batch_size": 6, "seed": 0, "on_step": look}
    losses = train_classifier(classifier, rows, train_labels, SETTINGS, **options)
    return classifier, losses, looks


def base_again(name):
    """The base from its folder, in float32: 16 bits can be too coarse for small steps."""
    return load_base(workspace / name)[0].float()


# %% tags=["nbval-ignore-output"]
DEVIATION = {"bundled": 0.05, "hub": 0.02}[CHECKPOINTS]  # how far random weights spread

trained, losses, looks = {}, {}, {}
for name in SOURCE:
    blank = initialize(base_again(name), seed=0, deviation=DEVIATION)
    runs = {
        "the base": finetune(name, base_again(name)),
        "random weights": finetune(name, blank),
    }
    trained[name] = {start: run[0] for start, run in runs.items()}
    losses[name] = {start: run[1] for start, run in runs.items()}
    looks[name] = {start: run[2] for start, run in runs.items()}

charts.curves(losses, looks, math.log(2))

# %%
halved, below = [], []
for name, runs in looks.items():
    _, from_base = runs["the base"][-1]
    _, from_nothing = runs["random weights"][-1]
    halved.append(from_base < 0.5 * math.log(2))
    below.append(from_base < 0.7 * from_nothing)
    print(f"{name}: less than half of ln 2: {halved[-1]}", end="   ")
    print(f"far below random weights: {below[-1]}")
learned = all(halved) and all(below)
validation_checkpoint("M9-LAB-APP-C", "both families learn, and from their base", learned)

# %% [markdown]
# (Thick: the validation stories; thin: the batch of each step.) From the base the loss falls; from random weights it stays
# near a guess.
#
# ### Has the frozen part moved?
#
# What is frozen can move all the same. One way is a gradient from before the freezing, which the optimizer still applies:

# %%
layer = nn.Linear(2, 1)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
layer.requires_grad_(False)  # frozen now, but the gradient is still there
before = layer.weight.clone()
optimizer.step()
print("frozen, and moved:", not torch.equal(before, layer.weight))

# %% [markdown]
# Then the classifier is not what it says it is. Asking is cheap: the way back lies in its folder, so compare.
#
# **Predict, then run.** How many of the frozen tensors differ, and how many of the trained ones do not?

# %%
def moved_since(classifier, original):
    """For frozen and for trained tensors of the base: (how many differ, how many there are)."""
    before, found = dict(original.named_parameters()), {"frozen": [], "trained": []}
    for name, tensor in classifier.base.named_parameters():
        kind = "trained" if tensor.requires_grad else "frozen"
        found[kind].append(not torch.equal(tensor, before[name]))
    return {kind: (sum(differs), len(differs)) for kind, differs in found.items()}


proof = {name: moved_since(trained[name]["the base"], base_again(name)) for name in SOURCE}
for name, kinds in proof.items():
    text = "   ".join(f"{kind}: {n} of {total} differ" for kind, (n, total) in kinds.items())
    print(f"{name}: {text}")

# %% [markdown]
# And does the check see the smallest step? We nudge one frozen number by a millionth of itself. (The package compares
# hashes before and after every training, and raises an error if one has changed.)

# %%
from course_helpers.classification import frozen_digests

classifier = trained["Qwen3"]["the base"]
before, table = frozen_digests(classifier), classifier.base.token_embedding.weight
with torch.no_grad():
    number = table[5, 5].clone()
    table[5, 5] *= 1 + 1e-6
    after = frozen_digests(classifier)
    table[5, 5] = number
noticed = [name for name in before if before[name] != after[name]]
mended = frozen_digests(classifier) == before
print("noticed:", noticed, "  mended again:", mended)

still = all(kinds["frozen"][0] == 0 for kinds in proof.values())
learnt = all(kinds["trained"][0] == kinds["trained"][1] for kinds in proof.values())
held = still and learnt and mended and noticed == ["base.token_embedding.weight"]
validation_checkpoint("M9-LAB-APP-C", "what is frozen has not moved; a nudge is found", held)

# %% [markdown]
# ## 10 · What did the base know?
#
# One more comparison: the **head alone**. If the whole base is frozen, its hidden states never change. So they are
# computed *once* for each text, and the head is trained on them for as long as it likes, in a moment.

# %%
@torch.no_grad()
def states(name, texts):
    """(N, E): what a head reads of each text, from the untouched base."""
    rows = encoded(name, texts)
    batches = [padded(rows[start : start + 8]) for start in range(0, len(rows), 8)]
    hidden = [models[name](ids_BT, hidden_states=True) for ids_BT, _ in batches]
    pairs = zip(hidden, batches, strict=True)
    return torch.cat([x_BTE[range(len(x_BTE)), sizes - 1] for x_BTE, (_, sizes) in pairs])


def head_alone(name, steps=300):
    """Answers to the test of a head on the untouched base: untrained, and trained."""
    head, x_NE, asked_NE = ready(models[name]).head, states(name, train), states(name, test)
    middle, spread = x_NE.mean(0), x_NE.std(0)  # numbers of one size: one rate suits all
    x_NE, asked_NE = (x_NE - middle) / spread, (asked_NE - middle) / spread
    targets = torch.tensor([lab.labels().index(label) for label in train_labels])
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.1)
    answers = [head(asked_NE).argmax(1)]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(x_NE), targets).backward()
        optimizer.step()
    answers.append(head(asked_NE).argmax(1))
    return [[lab.labels()[index] for index in row.tolist()] for row in answers]


# %% [markdown]
# Now the test set, once. (Whoever looks at it again and again, and keeps what does best on it, has trained on it.)
#
# **Predict, then run.** Put them in order: the untrained head, the head alone, the last two blocks, random weights, and
# counting words.

# %% tags=["nbval-ignore-output"]
from course_helpers.classification import classify

said, right = {}, {}
for name in SOURCE:
    rows, (untrained, alone) = encoded(name, test), head_alone(name)
    said[name] = {
        "untrained head": untrained,
        "random, last 2 blocks": classify(trained[name]["random weights"], rows, batch_size=8),
        "base, head alone": alone,
        "base, last 2 blocks": classify(trained[name]["the base"], rows, batch_size=8),
    }
    ways = said[name].items()
    right[name] = {way: lab.share_right(found, test_labels) for way, found in ways}
charts.compared(right, words)

# %%
clear = []
for name, found in right.items():
    base, random = found["base, last 2 blocks"], found["random, last 2 blocks"]
    clear += [base > 0.85, base > words, base > random + 0.2]
    print(f"{name}: above 85 %: {clear[-3]}   above counting words: {clear[-2]}", end="   ")
    print(f"20 points above random weights: {clear[-1]}")
standard_error = math.sqrt(0.95 * 0.05 / len(test))
print(f"standard error of 95 % on {len(test)} texts: {100 * standard_error:.1f} points")
print(f"of the difference of two such: {100 * math.sqrt(2) * standard_error:.1f} points")
validation_checkpoint("M9-LAB-APP-C", "the base clears the height; random does not", all(clear))

# %% [markdown]
# With the same labels and steps, random weights stay near chance: what the base has got from reading does the work. Most
# of it lies ready in the hidden states, where the head alone finds it, with a few hundred numbers.
#
# And do not rank the two families by these numbers. The **standard error** is how far an accuracy on so few texts usually
# lies off by chance alone. Only a difference of more than twice its own is worth a thought, and a second seed.
#
# What is wrong, and how? The two kinds of mistakes seldom cost the same, and the texts often show a pattern.

# %% tags=["nbval-ignore-output"]
confused = {}
for name, ways in said.items():
    found = ways["base, last 2 blocks"]
    confused[name] = lab.confusion(found, test_labels)
    misses = [row for row in zip(test, test_labels, found, strict=True) if row[1] != row[2]]
    print(f"{name}: {len(misses)} of {len(test)} are wrong")
    for text, label, taken_for in misses[:2]:
        end = " ".join(lab.sentences(text)[-2:])
        line = f"  {label}, taken for {taken_for}: ... {end}"
        print(textwrap.fill(line, 96, subsequent_indent="    "))
charts.confusions(confused, lab.labels())

# %% [markdown]
# ## 11 · Handed on, and back
#
# `save_classifier` writes what was trained, the labels, and a hash of the frozen part; not the base once more. So many
# classifiers can share one base. A head on another base would answer, too, and mean nothing: `load_classifier` refuses it.
# (It compares the *frozen* part: what was trained comes with the classifier.)
#
# **Predict, then run.** After saving and loading, in how many stories does the answer change? How large is the file, next
# to the base's?

# %%
from course_helpers.classification_files import load_classifier, save_classifier

same_scores = []
for name in SOURCE:
    classifier = trained[name]["the base"]
    folder = save_classifier(classifier, workspace / f"{name}-happy-or-sad")
    back = load_classifier(folder, workspace / name)
    batch = padded(encoded(name, test[:32]))
    with torch.no_grad():
        one, other = classifier(*batch), back(*batch)
    same_scores.append(torch.equal(one, other))
    changed = int((one.argmax(1) != other.argmax(1)).sum())
    numbers = sum(part.numel() for part in back.parameters() if part.requires_grad)
    share = numbers / sum(part.numel() for part in back.parameters())
    print(f"{name}: {changed} answers changed, scores the same to the bit: {same_scores[-1]}")
    print(f"  {share:.0%} of the numbers are in the classifier's file")

head_folder = workspace / "Qwen3-happy-or-sad"
others = {"one flipped bit": spoilt["one-bit"], "the other family": workspace / "GPT-2"}
refusals = [lab.refusal(load_classifier, head_folder, base) for base in others.values()]
for what, error in zip(others, refusals, strict=True):
    print(f"on {what}: {lab.in_short(error).splitlines()[0]}")

# %%
pairs = [(load_base(workspace / name)[0], load_model(SOURCE[name])) for name in SOURCE]
untouched = all(same_weights(base, source) for base, source in pairs)
print("after all this, the bases are still the sources', to the bit:", untouched)
held = all(same_scores) and None not in refusals and untouched
validation_checkpoint("M9-LAB-APP-C", "a classifier comes back, on its own base only", held)

# %% [markdown]
# ## 12 · What Module 10 takes over
#
# The two folders, `decisions.json`, and these lines. Where chapter 6 (`ch06.ipynb`, `gpt_class_finetune.py`) downloads
# GPT-2 and puts a new layer in its head's place, they load a base that is known to be right, of either family:

# %%
notes = json.loads((workspace / "decisions.json").read_text())
for name, decision in notes.items():
    base, tokenizer = load_base(workspace / name)
    classifier = SequenceClassifier(base.float(), decision["labels"])
    names = freeze_all_but(classifier, blocks=1)
    rows = [tokenizer.encode(text) for text in test[:2]]
    batch = padded(rows, decision["padding"], decision["pad_id"])
    scores = classifier(*batch, decision["padding"])
    print(f"{name}: scores of shape {tuple(scores.shape)}, {len(names)} tensors to train")

# %% [markdown]
# With it, the six outcomes of this module are complete:
#
# | You can now | Where you did it |
# |---|---|
# | compare and run several ways of loading weights, safely | M9-LAB-01, M9-LAB-APP-A, M9-CODE-01 |
# | turn GPT into Llama in stages, each with a validation checkpoint | M9-LAB-02, M9-LAB-03 |
# | load without running out of memory | M9-LAB-APP-A |
# | run Qwen, Gemma and OLMo under one evaluation | M9-LAB-04, M9-LAB-05, M9-LAB-06 |
# | build one pipeline for many families | M9-LAB-07, M9-LAB-09, M9-CODE-02 |
# | hand validated artifacts to finetuning | here, and M9-LAB-APP-B |

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-APP-C",
    {
        "source": SOURCE,
        "artifacts": {
            name: {what: ok for what, ok, _ in result.lines} for name, result in ticks.items()
        },
        "decisions": decisions,
        "refused": {what: error.what for what, error in refused.items()},
        "moved by padding": {"pads": PADS, "distance": moved},
        "trained": {name: lab.parts(trained[name]["the base"]) for name in SOURCE},
        "validation loss": looks,
        "test accuracy": right,
        "counting words": words,
        "standard error": standard_error,
        "confusion": {
            name: {" taken for ".join(pair): count for pair, count in square.items()}
            for name, square in confused.items()
        },
    },
)

# %%
shutil.rmtree(workspace)
print("cleaned up:", not workspace.exists())

# %% [markdown]
# ## Recap
#
# - Finetuning inherits what is wrong with a base. So hand on six artifacts, each with a computed tick: validated base,
#   config, tokenizer, manifest, the pad and stop decision, and a way back.
# - Base and tokenizer are one choice: licence, context, machine, and only then quality.
# - A classifier is a base with another head, which reads the last *real* token. One pad in its place, and it reads
#   something else.
# - Freezing saves memory and keeps the base. That nothing moved is proved by comparing, not by `requires_grad`.
# - An accuracy says something only next to chance, to counting words, to random weights, and to its standard error.
#
# **You can now** prepare a base of any family for finetuning, put a head on it, prove what was trained, and say what the
# base was worth.
#
# **Next:** Module 10, classification finetuning (chapter 6).

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The last real token, whatever the side
#
# Libraries often pass no lengths but a **mask**: `real_BT` is `True` where a token is real. The padding may be on the right
# or on the left. Return the hidden state of each row's last real token, (B, E).

# %% tags=["exercise"]
def last_real(x_BTE, real_BT):
    """(B, E): the hidden state at the last `True` of each row."""
    raise NotImplementedError


# %% tags=["solution"]
def last_real(x_BTE, real_BT):
    B, T = real_BT.shape
    position_B = (torch.arange(T) * real_BT).argmax(dim=1)  # a pad counts as position 0
    return x_BTE[torch.arange(B), position_B]


# %%
from course_helpers.labs.lab_app_c_exercises import check_last_real

check_last_real(last_real)


# %% [markdown]
# ### Exercise 2 · Freeze, whatever was frozen before
#
# Section 7's function once more, for any base (with a tied head or one of its own), any number of blocks (none, too), and a
# classifier in which an earlier experiment has frozen something. The head, the final norm and the last blocks are trained.
# Return how many *parameters* that is.

# %% tags=["exercise"]
def freeze_and_count(classifier, blocks):
    """Freeze all but head, final norm and the last blocks; return the parameters trained."""
    raise NotImplementedError


# %% tags=["solution"]
def freeze_and_count(classifier, blocks):
    base = classifier.base
    classifier.requires_grad_(False)
    last = base.blocks[len(base.blocks) - blocks :]  # [-blocks:] would be all of them for 0
    for part in (classifier.head, base.final_norm, *last):
        part.requires_grad_(True)
    return sum(part.numel() for part in classifier.parameters() if part.requires_grad)


# %%
from course_helpers.labs.lab_app_c_exercises import check_freeze

check_freeze(freeze_and_count)


# %% [markdown]
# ### Exercise 3 · Which base?
#
# Several bases were tried. Each candidate has `name`, `parameters` (of base and head), `trained` (how many of them are not
# frozen), `context`, `longest` (the longest text, in tokens of its own tokenizer), `gated` (needs an account), and the
# accuracies `validation` and `test`.
#
# No account is at hand. In float32, weights, gradients and the optimizer's two means must fit into `memory` bytes. Of those
# left, the best wins; but a lead of `margin` or less is no finding, and then the fewest parameters win. Return the name, or
# `None` if nothing is left. (Two accuracies. Which one may decide?)

# %% tags=["exercise"]
def choose_base(candidates, memory, margin):
    """The name of the base to take, or None."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_base(candidates, memory, margin):
    def possible(one):
        needed = 4 * (one.parameters + 3 * one.trained)  # gradient and means: of some only
        return not one.gated and one.longest <= one.context and needed <= memory

    left = [one for one in candidates if possible(one)]
    if not left:
        return None
    best = max(one.validation for one in left)  # the test is asked at the end
    return min(
        (one for one in left if one.validation >= best - margin), key=lambda one: one.parameters
    ).name


# %%
from course_helpers.labs.lab_app_c_exercises import check_choose_base

check_choose_base(choose_base)
