# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-CODE-02 · The family adapter: one workflow, any family
#
# | | |
# |---|---|
# | **Objective** | Build the adapter pattern from nothing: a selector, a loader for config and tokenizer, one generate for all families; then add a family that the package does not know, and see everything work on it |
# | **Before this** | M9-LAB-09: you have run one smoke suite over all families |
# | **Time** | 50 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 8, 19 and 27 |
#
# **At the end you will be able to**
#
# - say what a code base pays for `if family == ...`, and put all that differs between families into one row each;
# - write a workflow that knows no family: select, read the config, load, bind the tokenizer, generate;
# - write down what every adapter promises, and show for each promise that it can be broken;
# - swap families under one harness, compare them on a ruler that is fair, and go back when the swap was no good;
# - add a family in a few dozen lines, prove it against Transformers, and touch nothing else.

# %%
from course_helpers.labs import code_02_charts as charts
from course_helpers.labs import code_02_figures as figures

figures.one_workflow()

# %% [markdown]
# A **family** is a set of models with one architecture: GPT-2, Llama, Qwen3. The workflow around a model is always the same,
# the top row of the picture. What is done inside each step is not. An **adapter** holds the insides for one family, in a form
# that fits the workflow, as a travel plug fits a wall. Chapter 5's bridge notebooks go through the workflow once for Llama and
# once more for Qwen3, each with code of its own. Here it stands once, and you write both: the workflow, and the adapters.

# %% [markdown]
# ## 1 · One switch
#
# All seven checkpoints of the course (a checkpoint: weights, config and tokenizer) go through everything below. With a network
# and 8 GB of memory, set the environment variable `COURSE_CHECKPOINTS` to `hub`: three released models that need no account
# join them in the tables.

# %%
import json
import math
import os
import shutil
import textwrap
from pathlib import Path

import torch

from course_helpers import (
    FAMILIES,
    CheckpointError,
    load_model,
    load_tokenizer,
    open_checkpoint,
)
from course_helpers.labs import validation_checkpoint
from course_helpers.loaders.sources import resolve

# %%
CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

bundled = [family.tiny for family in FAMILIES.values()]
released = ["openai-community/gpt2", "HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen3-0.6B"]
SOURCE = {"bundled": bundled, "hub": bundled + released}[CHECKPOINTS]

workspace = Path("workspace/code-02")  # for the files that this lab makes; emptied at the end
shutil.rmtree(workspace, ignore_errors=True)
workspace.mkdir(parents=True)
print(len(SOURCE), "checkpoints:", ", ".join(SOURCE))

# %% [markdown]
# ## 2 · What `if family == ...` costs
#
# Here is how most code for several families begins: somebody had GPT-2, Llama came, and each place that differed got an `if`.
# These four functions do the very first step of a model, from token ids to the vectors that enter the first layer. (A **token**
# is a piece of text; the **embedding** is the table that holds a vector for each.) GPT-2 adds a vector for the position.

# %%
def width_of(config, family):
    if family == "gpt2":
        return config["n_embd"]
    return config["hidden_size"]


def longest_text(config, family):
    if family == "gpt2":
        return config["n_positions"]
    return config["max_position_embeddings"]


def embedding_of(checkpoint, family):
    if family == "gpt2":
        return checkpoint.read("wte.weight").float()
    return checkpoint.read("model.embed_tokens.weight").float()


def first_vectors(checkpoint, ids, family):
    x = embedding_of(checkpoint, family)[ids]
    if family == "gpt2":
        x = x + checkpoint.read("wpe.weight")[: len(ids)].float()
    return x


# %% [markdown]
# It works for both. Then Qwen3 and Gemma 3 arrive, and nobody edits these four functions.
#
# **Predict, then run.** What happens: an error about a name, an error about a shape, or something else?

# %%
def as_in_the_package(source):
    """Whether the functions say what the package's model says: sizes, vectors, their ratio."""
    model, ids = load_model(source, torch.float32), [5, 17, 40]
    with torch.no_grad():
        wanted = model.embed(torch.tensor([ids]), torch.arange(3)[None])[0]
    with open_checkpoint(source) as checkpoint:
        config, family = checkpoint.config, checkpoint.config["model_type"]
        found = first_vectors(checkpoint, ids, family)
    sizes = width_of(config, family), longest_text(config, family)
    same_sizes = sizes == (wanted.shape[-1], model.config.max_position_embeddings)
    return same_sizes, torch.allclose(found, wanted), (wanted.norm() / found.norm()).item()


alike = {}
for source in ("tiny-gpt2", "tiny-llama3", "tiny-qwen3", "tiny-gemma3"):
    sizes, vectors, ratio = as_in_the_package(source)
    alike[source] = vectors
    print(f"{source:<12}sizes: {sizes}  vectors: {vectors!s:<6}right / found: {ratio:.1f}")

# %% [markdown]
# Nothing happens, and that is the worst of the three. Gemma 3 multiplies its embeddings by the root of its width
# ($\sqrt{96} \approx 9.8$). It has no `if` of its own, so it fell through to the line meant for Llama: right names, right shapes,
# wrong vectors. Qwen3 fell through, too, and was right by luck. **The last `return` is a guess about every family that will ever come.**
#
# So somebody adds an `if`, and looks for all the other places. How many are there?

# %%
from course_helpers.labs.code_02 import branches, cells_run

FUNCTIONS = ("width_of", "longest_text", "embedding_of", "first_vectors")
asked = branches(cells_run(), FUNCTIONS)
titles = list({family.model: family.title for family in FAMILIES.values()}.values())
print("places that ask for the family:", sum(asked.values()), "in", len(asked), "functions")
print("architectures:", len(titles))
print("decisions that somebody must have made:", sum(asked.values()) * len(titles))
figures.branches_or_rows(FUNCTIONS, titles)

# %% [markdown]
# And this is one step of a model. An adapter does not make fewer decisions. It puts them **in one place**, a row for each family,
# and it has **no default**: a decision that nobody made is an error at once, not a guess. How far can that be taken? We ask the
# package's core, the ten files that carry the workflow, for the names of families:

# %%
import course_helpers
from course_helpers.labs.code_02 import names_spoken

known = {name for family in FAMILIES.values() for name in family.config.model_types()}
core = ["generation", "validation", "training", "manifest", "loaders/load", "loaders/save"]
core += ["loaders/assign", "architectures/base", "architectures/cache", "architectures/layers"]
package = Path(course_helpers.__file__).parent
spoken = {file: names_spoken(package / f"{file}.py", known | set(FAMILIES)) for file in core}

print("files of the core that name a family:", sum(map(bool, spoken.values())), "of", len(core))
print("families.py names", len(names_spoken(package / "families.py", set(FAMILIES))), "of them")

# %%
validation_checkpoint(
    "M9-CODE-02",
    "the branching code is wrong in silence for a family it never met",
    alike["tiny-llama3"] and not alike["tiny-gemma3"],
)
silent = not any(spoken.values())
validation_checkpoint("M9-CODE-02", "the package's core names no family", silent)

# %% [markdown]
# ## 3 · The adapter
#
# What differs between families, once more, and nothing else: how `config.json` is read; which class computes; which tensor of
# the file becomes which parameter (the **weight map** of M9-CODE-01); how the tokenizer is found, which turns text into token ids
# and back. Four answers, and the names under which a `config.json` may ask for them:

# %%
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Adapter:
    """All that differs between families: one row for each of them."""

    model_types: tuple  # what config.json may call the family
    read_config: Callable  # the parsed config.json -> a config, or an error
    model: type  # config -> model
    weight_maps: tuple  # the layouts its files come in
    load_tokenizer: Callable  # source -> tokenizer


ADAPTERS = {}  # model_type -> Adapter


def register(adapter):
    for name in adapter.model_types:
        if ADAPTERS.get(name, adapter) != adapter:
            raise ValueError(f"{name} has another adapter already")
    ADAPTERS.update(dict.fromkeys(adapter.model_types, adapter))


# %% [markdown]
# A row that leaves an answer out does not come into being, and a second, different row for a family is refused:

# %%
from course_helpers.architectures import gemma3, gpt2, llama, olmo3, qwen3
from course_helpers.loaders import weight_maps as maps

LLAMA = Adapter(
    model_types=("llama",),
    read_config=llama.LlamaConfig.from_hf,
    model=llama.LlamaModel,
    weight_maps=(maps.LLAMA, maps.LLAMA_META),
    load_tokenizer=load_tokenizer,
)
register(LLAMA)

second = replace(LLAMA, weight_maps=(maps.LLAMA,))
for attempt in (lambda: Adapter(("gpt2",), model=gpt2.GPT2Model), lambda: register(second)):
    try:
        attempt()
    except (TypeError, ValueError) as error:
        print(textwrap.fill(f"{type(error).__name__}: {error}", 96))

# %% [markdown]
# The other families, built the same way. The classes and tables are those that you know from M9-LAB-02 to M9-LAB-06; here they
# are only named.

# %%
rows = (
    (gpt2.GPT2Config, gpt2.GPT2Model, (maps.GPT2, maps.GPT2_TF)),
    (qwen3.Qwen3Config, qwen3.Qwen3Model, (maps.QWEN3,)),
    (qwen3.Qwen3MoeConfig, qwen3.Qwen3MoeModel, (maps.QWEN3_MOE, maps.QWEN3_MOE_FUSED)),
    (gemma3.Gemma3Config, gemma3.Gemma3Model, (maps.GEMMA3,)),
    (olmo3.Olmo3Config, olmo3.Olmo3Model, (maps.OLMO3,)),
)
for config, model, layouts in rows:
    names = config.model_types()
    register(Adapter(names, config.from_hf, model, layouts, load_tokenizer))

for name, adapter in ADAPTERS.items():
    layouts = " | ".join(layout.layout for layout in adapter.weight_maps)
    print(f"{name:<13}{adapter.model.__name__:<15}{layouts}")

# %% [markdown]
# Two things to see. Llama 2 and Llama 3 share a row: what differs between them (key/value heads, rotary scaling, tokenizer)
# stands in their *files*, and is read from there. (Gemma 3 has one row and two names: text only, and text with pictures.) And all
# rows have the same tokenizer loader, because ours goes by the files it finds. It still is a part of the row: a family with a way
# of its own must not need an edit elsewhere.
#
# ### The selector
#
# Who says which family a checkpoint is? Its `config.json`, in `model_type`. Not the folder's name, which anybody can change, and
# not the names of the tensors, which families share. And what is not known is refused:

# %%
def select(config):
    """The adapter for a parsed config.json. Raises LookupError for a family without one."""
    model_type = config.get("model_type")
    if model_type not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise LookupError(
            f"no adapter for model_type {model_type!r}; there are: {known}. "
            "A similar family is another family: add a row, do not borrow one"
        )
    return ADAPTERS[model_type]


for config in ({"model_type": "gemma3"}, {"model_type": "qwen2"}, {}):
    try:
        print(config, "->", select(config).model.__name__)
    except LookupError as error:
        print(textwrap.fill(f"{config} -> {error}", 96))

# %% [markdown]
# ### Load
#
# The workflow up to a loaded model. `make_plan` and its rules are what you built in M9-CODE-01: every tensor of the file gets its
# place, or all problems are reported before a number is copied. (`region` is the whole parameter, or one expert's part of it.)

# %%
from course_helpers.loaders.assign import make_plan


@torch.no_grad()
def fill(model, checkpoint, weight_maps):
    """Every tensor of the file into its place. Raises CheckpointError before the first."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    plan = make_plan(checkpoint, weight_maps, model.config, shapes)
    for name, rule in plan.steps.items():
        wanted = [shapes[target] for target in rule.targets]
        pieces = rule.to_ours(checkpoint.read(name), wanted)
        for target, piece in zip(rule.targets, pieces, strict=True):
            rule.region(model.get_parameter(target)).copy_(piece)


# %% [markdown]
# Tokenizer and weights must belong together. The cheap test: they agree on the token that ends a text. (Section 6 shows how far
# that gets.)

# %%
@dataclass(frozen=True)
class Loaded:
    """A checkpoint, ready to use: what the outer workflow holds in its hands."""

    source: str
    adapter: Adapter
    config: object
    model: torch.nn.Module
    tokenizer: object


def ends_of(config):
    """The token ids that end a text, as config.json has them: one, several, or none."""
    ends = config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())


def bind(config, tokenizer):
    """The tokenizer, if it can be this model's. Raises ValueError."""
    ends, stops = ends_of(config), tokenizer.stop_ids
    if not ends & set(stops):
        why = f"the model ends texts with {sorted(ends)}, the tokenizer with {list(stops)}"
        raise ValueError(f"{why}: it is another model's")
    return tokenizer


# %%
def load(source, tokenizer=None):
    """Select, read, build, fill, bind. `tokenizer`: a source, if it is not the model's own."""
    with open_checkpoint(source) as checkpoint:
        adapter = select(checkpoint.config)
        config = adapter.read_config(checkpoint.config)
        model = adapter.model(config).eval()
        fill(model, checkpoint, adapter.weight_maps)
    words = bind(config, adapter.load_tokenizer(tokenizer or source))
    return Loaded(str(source), adapter, config, model, words)


# %% [markdown]
# ### Generate
#
# The second half of the workflow needs even less. The model gives **logits**, a score for every token that could come next. The
# loop is **greedy**: it always takes the highest. And it uses the **KV cache**: what was computed for earlier tokens is kept. The
# cache is made by the model, because families differ in what they keep. Look for a family's name in it:

# %%
@torch.inference_mode()
def generate(loaded, prompt, new_tokens=40, use_cache=True):
    """The prompt and its greedy continuation, as text."""
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenizer.encode(prompt)
    cache = model.make_cache(1, len(ids) + new_tokens) if use_cache else None
    step = ids
    for _ in range(new_tokens):
        logits = model(torch.tensor([step]), cache=cache)  # (1, tokens, vocabulary)
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in tokenizer.stop_ids:
            break
        step = ids[-1:] if use_cache else ids
    return tokenizer.decode(ids)


# %% [markdown]
# **Predict, then run.** Seven bundled checkpoints go through it. How many different adapters will be at work, and how many kinds
# of tokenizer files?

# %%
PROMPT = "Once upon a time"

ready = {source: load(source) for source in SOURCE}
texts = {source: generate(loaded, PROMPT) for source, loaded in ready.items()}
for source, text in texts.items():
    print(f"{source[-14:]:<15}{textwrap.shorten(text, 80, placeholder=' ...')}")

mine = [ready[source] for source in bundled]
print("\nadapters at work:", len({id(loaded.adapter) for loaded in mine}))
print("kinds of tokenizer files:", *sorted({loaded.tokenizer.kind for loaded in mine}))

# %% [markdown]
# Six, because Llama 2 and Llama 3 share one; and three kinds of files. They speak; are they right? We compare with the package, which is built on the same
# idea: a registry of rows (`FAMILIES`), a selector, one `generate`. Weights to the bit, texts to the letter, and row by row:

# %%
from course_helpers.generation import generate as generate_in_package


def same_as_package(source):
    """Weights to the bit, text to the letter."""
    loaded, model = ready[source], load_model(source, torch.float32)
    mine, theirs = dict(loaded.model.named_parameters()), dict(model.named_parameters())
    weights = list(mine) == list(theirs)
    weights = weights and all(map(torch.equal, mine.values(), theirs.values()))
    tokenizer = load_tokenizer(source)
    ids = [tokenizer.encode(PROMPT)]
    ids = generate_in_package(model, ids, 40, stop_ids=tokenizer.stop_ids)[0]
    return weights, tokenizer.decode(ids) == texts[source]


compared = {source: same_as_package(source) for source in SOURCE}
same_rows = all(
    (mine.model, mine.read_config, mine.weight_maps)
    == (family.model, family.config.from_hf, family.weight_maps)
    for family in FAMILIES.values()
    for mine in (ADAPTERS[name] for name in family.config.model_types())
)
print("weights to the bit:", all(weights for weights, _ in compared.values()))
print("texts to the letter:", all(text for _, text in compared.values()))
print("our rows say what the package's rows say:", same_rows)

# %%
validation_checkpoint(
    "M9-CODE-02",
    "one workflow, and every family as the package has it",
    same_rows and all(map(all, compared.values())),
    str(compared),
)

# %% [markdown]
# ## 4 · The contract
#
# `generate` trusts the adapter: that logits have a column for every token, that the cache changes nothing, that a text ends.
# Such a trust should be written down. From outside, every family is the same three calls: *encode* a text, *forward* through the
# model, *generate*. A **contract** is the list of what they promise, whatever happens inside. Three promises of the model first:

# %%
def some_ids(loaded, length=80):
    """A random text, longer than the window of any bundled model; the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(loaded.config.vocab_size, (1, length), generator=generator)


def shapes_hold(loaded):
    ids = some_ids(loaded)
    logits = loaded.model(ids)
    wanted = (*ids.shape, loaded.config.vocab_size)
    return tuple(logits.shape) == wanted and bool(logits.isfinite().all())


def looks_back_only(loaded):
    ids, other = some_ids(loaded), some_ids(loaded)
    other[0, -1] = (ids[0, -1] + 1) % loaded.config.vocab_size  # another last token
    return torch.allclose(loaded.model(ids)[:, :-1], loaded.model(other)[:, :-1], atol=1e-4)


def cache_changes_nothing(loaded):
    ids, cache = some_ids(loaded), loaded.model.make_cache(1, 80)
    pieces = (ids[:, :72], *ids[:, 72:].split(1, dim=1))  # a long piece, then one by one
    parts = [loaded.model(piece, cache=cache) for piece in pieces]
    whole = loaded.model(ids)
    return bool((torch.cat(parts, dim=1) - whole).abs().max() < 5e-5 * whole.abs().max())


# %% [markdown]
# Then three of the tokenizer, and the list:

# %%
SAMPLE = "  Two spaces. A naïve fox said: 12 + 30 = 42!"


def text_comes_back(loaded):
    return loaded.tokenizer.decode(loaded.tokenizer.encode(SAMPLE)) == SAMPLE


def ids_have_rows(loaded):
    ids = [*loaded.tokenizer.encode(SAMPLE), *loaded.tokenizer.stop_ids]
    return all(0 <= token < loaded.config.vocab_size for token in ids)


def texts_end(loaded):
    stops = set(loaded.tokenizer.stop_ids)
    return bool(stops & ends_of(loaded.config)) and stops <= set(loaded.tokenizer.special_ids)


# %%
CONTRACT = {
    "logits for every token": shapes_hold,
    "no look ahead": looks_back_only,
    "cached = uncached": cache_changes_nothing,
    "text comes back": text_comes_back,
    "ids have rows": ids_have_rows,
    "texts end": texts_end,
}


@torch.no_grad()
def kept(loaded):
    """For every promise, whether it is kept."""
    return {promise: check(loaded) for promise, check in CONTRACT.items()}


# %% [markdown]
# Applied to all, with one loop. And since a check that cannot fail proves nothing, also to six adapters that are broken on
# purpose, each in one way that raises no error.
#
# **Predict, then run.** Each of the six breaks the promise that it was made for. One of them must break a second promise with it:
# which?

# %%
from course_helpers.labs.code_02 import broken_adapters, verdicts

promises = {source: kept(loaded) for source, loaded in ready.items()}
faulty = {title: kept(loaded) for title, loaded in broken_adapters(ready["tiny-qwen3"]).items()}
print(verdicts(promises))
print()
print(verdicts(faulty))

# %%
charts.contract_grid(promises, faulty)

# %% [markdown]
# The peek: in one pass a token sees the one after it; token by token, there is none yet. So the cached way differs, too. That is
# why "cached = uncached" is worth so much: much that is wrong inside shows there.
#
# ### What the contract does not say
#
# **Predict, then run.** A model of random weights, with the right tokenizer: does it keep all six promises?

# %%
from course_helpers import save_checkpoint
from course_helpers.training import initialize

empty = initialize(qwen3.Qwen3Model(ready["tiny-qwen3"].config), seed=1)
save_checkpoint(empty, workspace / "untrained", load_tokenizer("tiny-qwen3"))
untrained = load(workspace / "untrained")
print(verdicts({"untrained": kept(untrained)}))
print(textwrap.shorten(generate(untrained, PROMPT, 12), 90))

# %% [markdown]
# All six. **A contract says that the parts fit, not that they are right.** It is what the workflow may rely on; whether the
# model is *this* model, only known answers show (M9-LAB-09), and whether it is any good, only a measurement. That comes next.

# %%
each_seen = all(not all(outcome.values()) for outcome in faulty.values())
diagonal = [
    not outcome[promise] for outcome, promise in zip(faulty.values(), CONTRACT, strict=True)
]
validation_checkpoint(
    "M9-CODE-02",
    "every family keeps the contract, and each promise can be broken",
    all(all(outcome.values()) for outcome in promises.values()) and each_seen and all(diagonal),
    str(promises),
)

# %% [markdown]
# ## 5 · Swap families under one harness
#
# Now that the outside is the same for all, families can be compared: same texts, same settings. The texts are eight stories that
# no bundled model has seen in training (each checkpoint's `card.json` holds them). The **loss** is the model's surprise: $-\ln$ of the probability that
# it gave to the right token, summed over a text, in *nats*. (Divided by $\ln 2$ it is in *bits*: 1 bit is the surprise of a coin
# toss.) The usual figure divides the sum by the number of tokens:

# %%
from course_helpers.training import text_loss

card = json.loads((resolve("tiny-qwen3") / "card.json").read_text())
STORIES = card["baseline"]["texts"]
BYTES = sum(len(story.encode()) for story in STORIES)


def marked(loaded, text):
    """A text from its begin mark (where a family has none: the stop mark) to its stop mark."""
    stop, begin = loaded.tokenizer.stop_ids[0], loaded.tokenizer.bos_id
    begin = stop if begin is None else begin
    return [begin, *loaded.tokenizer.encode(text, bos=False), stop]


def measure(loaded):
    """The same two figures for any family."""
    nats, tokens = text_loss(loaded.model, [marked(loaded, story) for story in STORIES])
    return {
        "prompt": len(loaded.tokenizer.encode(PROMPT)),
        "bytes a token": BYTES / tokens,
        "nats a token": nats / tokens,
        "bits in 100 bytes": 100 * nats / BYTES / math.log(2),
    }


# %% [markdown]
# Families cut the same text into different tokens, so a token is not the same amount of work: who makes more of them from a story
# has, on the whole, easier questions. A byte of text is the same for all (M9-LAB-07 met this on its way).
#
# **Predict, then run.** Gemma 3 has the lowest loss per token of the seven. Which place does it take per byte? (The first column
# counts the tokens of our prompt; places are in brackets.)

# %%
table = {source: measure(loaded) for source, loaded in ready.items()}
by = {
    figure: sorted(SOURCE, key=lambda source: table[source][figure])
    for figure in ("nats a token", "bits in 100 bytes")
}
print(f"{'':<15}prompt  bytes a token   nats a token   bits in 100 bytes")
for source, row in table.items():
    prompt, size, nats, bits = row.values()
    token, byte = (order.index(source) + 1 for order in by.values())
    places = f"{nats:>11.3f} ({token}.){bits:>14.2f} ({byte}.)"
    print(f"{source[-14:]:<15}{prompt:>6}{size:>15.2f}{places}")

# %%
charts.two_rulers(table)

# %% [markdown]
# Fourth. Its tokenizer makes the most tokens of a story, and each costs less. With different tokenizers, **compare per byte, never
# per token.** Even so this is a comparison of seven checkpoints, not of seven families: they differ in size and in training, too,
# and the differences here are small.
#
# ### Keep the way back
#
# A swap in earnest needs two more things: a gate, and a way back. The new model is loaded, held to the contract and measured
# *before* the old one is let go, and the old one is kept. Here that is the job of a desk that answers questions:

# %%
class Desk:
    """Answers with one model at a time, and can go back to the one before."""

    def __init__(self, source):
        self.current, self.previous = load(source), None

    def switch(self, source, worse=1.1):
        """Take another model, if it keeps the contract and is not much worse. Or raise."""
        new = load(source)  # whatever is refused here leaves the desk as it is
        broken = [promise for promise, held in kept(new).items() if not held]
        if broken:
            raise ValueError(f"{source} breaks: {', '.join(broken)}")
        bits, now = (measure(one)["bits in 100 bytes"] for one in (new, self.current))
        if bits > worse * now:
            name = Path(source).name
            raise ValueError(f"{name}: {bits:.0f} bits in 100 bytes, now {now:.0f}")
        self.current, self.previous = new, self.current

    def roll_back(self):
        if self.previous is None:
            raise LookupError("there is no model to go back to")
        self.current, self.previous = self.previous, self.current


# %% [markdown]
# **Predict, then run.** Three swaps: another family, then the untrained model, then a family without an adapter. After each, who
# answers?

# %%
unknown = workspace / "unknown"
unknown.mkdir(exist_ok=True)
shutil.copy(resolve("tiny-qwen3") / "model.safetensors", unknown)
(unknown / "config.json").write_text(json.dumps({"model_type": "qwen2"}))

desk = Desk("tiny-llama3")
answer = generate(desk.current, PROMPT)
answering = []
for source in ("tiny-gemma3", workspace / "untrained", unknown):
    try:
        desk.switch(source)
        outcome = "taken"
    except (LookupError, ValueError) as error:
        outcome = "refused, " + textwrap.shorten(str(error), 60, placeholder=" ...")
    answering.append(desk.current.source)
    print(f"{Path(source).name:<12}{outcome}\n            answers: {answering[-1]}")

desk.roll_back()
print("back to:", desk.current.source, "| same text:", generate(desk.current, PROMPT) == answer)

# %%
validation_checkpoint(
    "M9-CODE-02",
    "a bad swap changes nothing, and a good one can be taken back",
    answering == ["tiny-gemma3"] * 3 and generate(desk.current, PROMPT) == answer,
    str(answering),
)

# %% [markdown]
# ## 6 · What must not fit
#
# An adapter is only as good as its refusals. A family without a row you have seen: the selector refuses it. Two more mix-ups: the
# **config of one family beside the weights of another**, and the **tokenizer of another model**.
#
# **Predict, then run.** Which step of `load` refuses which of the three below?

# %%
from course_helpers.labs.code_02 import refusal


def mix(config_from, weights_from):
    """A folder with the config of one checkpoint and the weights of another."""
    folder = workspace / f"{config_from}-{weights_from}"
    folder.mkdir(exist_ok=True)
    shutil.copy(resolve(config_from) / "config.json", folder)
    shutil.copy(resolve(weights_from) / "model.safetensors", folder)
    return folder


refusals = {}
for what, attempt in {
    "a Llama's config, GPT-2's weights": lambda: load(mix("tiny-llama3", "tiny-gpt2")),
    "Qwen3's config, a Llama's weights": lambda: load(mix("tiny-qwen3", "tiny-llama3")),
    "Qwen3's model, GPT-2's tokenizer": lambda: load("tiny-qwen3", tokenizer="tiny-gpt2"),
}.items():
    try:
        attempt()
    except (CheckpointError, ValueError) as error:
        refusals[what] = error
        print(f"== {what}\n{refusal(error)}\n")

# %% [markdown]
# `fill` refuses the first two, `bind` the third. Each message says what was expected and what was found, and `load` returns
# no model.
# (Mix-ups inside one architecture, where every shape fits, are the patients of M9-LAB-08.)
#
# ### One tokenizer for all?
#
# The bundled tokenizers learned from the same kind of stories, and have about a thousand tokens each. So what does the tokenizer
# of another model cost, if nobody refuses it? We measure all 49 pairs on two stories, past `bind`, and note which of them
# `bind` would have refused.
#
# **Predict, then run.** The right pairs need about 10 bits for 100 bytes of text. What do the wrong ones need, and is there a
# wrong pair that costs nothing?

# %%
def bits_with(model_of, tokenizer_of):
    """Bits in 100 bytes of two stories, with any tokenizer."""
    pair = replace(ready[model_of], tokenizer=ready[tokenizer_of].tokenizer)
    nats, _ = text_loss(pair.model, [marked(pair, story) for story in STORIES[:2]])
    return 100 * nats / sum(len(story.encode()) for story in STORIES[:2]) / math.log(2)


def refused_by_bind(model_of, tokenizer_of):
    try:
        bind(ready[model_of].config, ready[tokenizer_of].tokenizer)
    except ValueError:
        return True
    return False


pairs = {(one, other): bits_with(one, other) for one in bundled for other in bundled}
refused = {pair for pair in pairs if refused_by_bind(*pair)}
charts.tokenizer_grid(bundled, pairs, refused)

# %%
foreign = {pair for pair in pairs if pair[0] != pair[1]}
harmful = {pair for pair in foreign if pairs[pair] > 1.5 * pairs[pair[0], pair[0]]}
let_through = foreign - refused
same_ids = all(
    ready[one].tokenizer.encode(story) == ready[other].tokenizer.encode(story)
    for one, other in let_through
    for story in STORIES
)
print("foreign pairs:", len(foreign), "  harmful:", len(harmful), "  refused:", len(refused))
print("harmful and not refused:", len(harmful - refused))
print("let through, with the same ids for every story:", len(let_through), same_ids)

# %% [markdown]
# Wrong pairs need three to fifty times as much. Six cost nothing: Qwen3, its MoE and OLMo 3 cut these stories alike.
#
# The most expensive pairs are not the most dangerous. Here is the bundled Llama 3 with a tokenizer that makes it nearly fifty times as
# surprised, and with one that makes it three times as surprised:

# %%
for words in ("tiny-llama2", "tiny-gpt2"):
    wrong = replace(ready["tiny-llama3"], tokenizer=ready[words].tokenizer)
    print(f"tiny-llama3 with the tokenizer of {words}:")
    text = " ".join(generate(wrong, PROMPT, 46).split())
    print(textwrap.indent(textwrap.fill(text, 90), "  ") + "\n")

# %% [markdown]
# The second reads like a story. Nobody would look for a fault there, and a loss measured with it is three times too high. **A fluent text
# proves no tokenizer.**
#
# Here the stop ids tell every harmful pair apart, and the six pairs that pass give the same ids for these texts. Do not count on
# it: two tokenizers can end texts alike and differ in everything else (M9-CODE-01 made one). Then only the measurement sees it,
# which is why the desk of section 5 has one.

# %%
validation_checkpoint(
    "M9-CODE-02",
    "what does not belong together is refused, with a message",
    len(refusals) == 3 and not harmful - refused and bool(harmful),
)

# %% [markdown]
# ## 7 · A new family, live
#
# Now the proof of the pattern: a family that this package does not have. **Qwen2** (and 2.5) is Qwen3's predecessor. We need a
# checkpoint, and an independent judge of our numbers; Transformers, a library with its own Qwen2, is both. The model is tiny and
# random. One thing we do ourselves: Transformers starts biases at zero, and a forgotten bias of zero would change nothing.

# %%
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

sizes = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 160}
sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
sizes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
sizes |= {"max_position_embeddings": 256, "tie_word_embeddings": True}
sizes |= {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 2}
sizes |= {"bos_token_id": 1000, "eos_token_id": 1000, "initializer_range": 0.2}
torch.manual_seed(0)
reference = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes)).eval()
started = [vector for name, vector in reference.named_parameters() if name.endswith("bias")]
print(len(started), "biases, all zero at first:", not any(vector.any() for vector in started))
with torch.no_grad():
    for vector in started:
        vector.normal_(std=0.5)

stranger = workspace / "random-qwen2"
reference.save_pretrained(stranger)
load_tokenizer("tiny-qwen3").save(stranger)  # a tokenizer of the right kind and size
print(*sorted(file.name for file in stranger.iterdir()))

# %% [markdown]
# Today it is refused, as it should be:

# %%
try:
    load(stranger)
except LookupError as error:
    print(textwrap.fill(str(error), 96))

# %% [markdown]
# ### Which family is nearest?
#
# The file says so itself. We hold its tensor names against each weight map that we have: how many of them has the map no row for,
# and how many rows find no tensor?

# %%
raw = json.loads((stranger / "config.json").read_text())
for kind in (llama.LlamaConfig, qwen3.Qwen3Config):
    try:
        shape = kind.from_hf(raw | {"model_type": kind.model_type})
        print(f"{kind.__name__:<12} reads its config")
    except CheckpointError as error:
        print(f"{kind.__name__:<12} refuses its config: {error.field}")

with open_checkpoint(stranger) as checkpoint:
    found = set(checkpoint.names())
print("\n          no row for   no tensor for")
for title in ("LLAMA", "QWEN3", "GEMMA3", "OLMO3"):
    rows = set(getattr(maps, title).expand(shape)) - {"lm_head.weight"}  # tied: no tensor
    print(f"{title:<8}{len(found - rows):>4} tensors{len(rows - found):>8} rows")

without_row = found - set(maps.LLAMA.expand(shape))
first = sorted(name for name in without_row if ".layers.0." in name)
print("\nwhat LLAMA has no row for, in layer 0:", *first, sep="\n  ")

# %% [markdown]
# By its tensors it is a Llama with biases on queries, keys and values (a **bias** is a vector that is added to the result of a
# matrix). Its config file is more like Qwen3's. So the deltas, with the source of each:
#
# | | Llama 3 | Qwen3 | **Qwen2** | known from |
# |---|---|---|---|---|
# | bias on query, key, value | no | no | **yes** | the file's names |
# | bias on the attention output | no | no | no | the file's names |
# | norm on queries and keys | no | yes | **no** | the file's names |
# | `head_dim` (numbers in a head), if left out | width / heads | 128 | **width / heads** | Transformers' Qwen2 |
# | sliding windows (layers that look back a little only) | refused | read | **read** | Transformers' Qwen2 |
#
# ### The architecture
#
# Three small classes for what differs; all else is inherited. `Attention(bias=True)` gives all four matrices a bias, so the output
# gets a matrix without.

# %%
from course_helpers.architectures.layers import Attention, Linear


class Qwen2Attention(Attention):
    """Biases on queries, keys and values; none on the output."""

    def __init__(self, config):
        heads, shared = config.num_attention_heads, config.num_key_value_heads
        super().__init__(config.hidden_size, heads, shared, config.head_dim, bias=True)
        self.output = Linear(heads * config.head_dim, config.hidden_size, bias=False)


class Qwen2Block(llama.Block):
    def make_attention(self, config):
        return Qwen2Attention(config)


class Qwen2Model(llama.LlamaModel):
    block = Qwen2Block


# %% [markdown]
# ### The config
#
# Read as Qwen3's, windows included, but with Llama's rule for a `head_dim` that is left out. `accepted` lists fields that would
# change the numbers, with the values that this class computes; any other value is refused. (`ClassVar` says that the three belong
# to the class, and are no fields of a config.)

# %%
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(qwen3.Qwen3Config):
    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    accepted: ClassVar[dict] = {"hidden_act": ("silu",)}

    @classmethod
    def derived(cls, data):
        return super().derived(data) | llama.LlamaConfig.derived(data)


# %% [markdown]
# ### The weight map and the row
#
# `derive` is `base | overrides` of M9-CODE-01: Llama's table, three rows more. (`{trunk}` stands for the prefix `model.`, which some
# files leave out.) And with the adapter's row, the family exists.

# %%
QWEN2_WEIGHTS = maps.LLAMA.derive(
    {
        "{trunk}layers.{layer}.self_attn.q_proj.bias": "blocks.{layer}.attention.query.bias",
        "{trunk}layers.{layer}.self_attn.k_proj.bias": "blocks.{layer}.attention.key.bias",
        "{trunk}layers.{layer}.self_attn.v_proj.bias": "blocks.{layer}.attention.value.bias",
    }
)

QWEN2 = Adapter(
    model_types=("qwen2",),
    read_config=Qwen2Config.from_hf,
    model=Qwen2Model,
    weight_maps=(QWEN2_WEIGHTS,),
    load_tokenizer=load_tokenizer,
)
ADAPTERS.pop("qwen2", None)  # so that this cell can be run again
register(QWEN2)

# %% [markdown]
# **Predict, then run.** `load`, `generate`, `kept` and `Desk` were written before this family was. How many of them must be edited
# now? And how far are our logits from Transformers'?

# %%
newcomer = load(stranger)
ids = some_ids(newcomer)


@torch.no_grad()
def distance(model):
    """The largest difference to the reference's logits, as a part of its largest logit."""
    wanted = reference(ids).logits
    return ((model(ids) - wanted).abs().max() / wanted.abs().max()).item()


print("as Transformers computes it, within 1e-5:", distance(newcomer.model) < 1e-5)
print(verdicts({"qwen2": kept(newcomer)}))
cached, plain = (generate(newcomer, PROMPT, 30, use_cache=cache) for cache in (True, False))
print("generate, cached = uncached:", cached == plain)

# %% [markdown]
# None of them, and the logits agree to five digits. What did it take?

# %%
from course_helpers.labs.code_02 import code_lines

NEW = ("Qwen2Attention", "Qwen2Block", "Qwen2Model", "Qwen2Config", "QWEN2_WEIGHTS", "QWEN2")
lines = code_lines(cells_run(), NEW)
for name, count in lines.items():
    print(f"{name:<16}{count:>3}")
print(f"{'together':<16}{sum(lines.values()):>3} lines; in the workflow, none was changed")

# %%
validation_checkpoint(
    "M9-CODE-02",
    "a new family computes what Transformers computes",
    distance(newcomer.model) < 1e-5 and all(kept(newcomer).values()) and cached == plain,
)

# %% [markdown]
# ### If a delta is forgotten
#
# Suppose somebody misses the biases, and takes the nearest parent: Llama's classes and table.
#
# **Predict, then run.** Refused, or loaded and wrong? And if the same person then tells the loader to ignore the biases, to make
# the error go away?

# %%
careless = replace(QWEN2, model=llama.LlamaModel, weight_maps=(maps.LLAMA,))
ADAPTERS["qwen2"] = careless
try:
    load(stranger)
except CheckpointError as error:
    forgotten = error
    print(refusal(error))

biases = [name for name in QWEN2_WEIGHTS.rows if name.endswith("bias")]
ignored = dict.fromkeys(biases, "not needed, or so somebody thought")
ADAPTERS["qwen2"] = replace(careless, weight_maps=(maps.LLAMA.derive({}, dropped=ignored),))
silenced = load(stranger)
ADAPTERS["qwen2"] = QWEN2

print("\nsilenced: loads, keeps the contract:", all(kept(silenced).values()))
print("silenced: logits are off by more than a tenth:", distance(silenced.model) > 0.1)

# %% [markdown]
# The table is an account of every tensor, so what is left over is an error. Whoever silences it gets a model that keeps the
# contract and is wrong. **A new family needs an oracle**: somebody else's numbers, as here, or texts that are known to be right.

# %%
validation_checkpoint(
    "M9-CODE-02",
    "forgotten tensors are refused; silenced, only the oracle sees them",
    len(forgotten.problems) == 9 and distance(silenced.model) > 0.1,
)

# %% [markdown]
# ## 8 · The whole package, with one row
#
# The package's registry is a plain dict, too. One row more (not among the lines counted above), and everything that asks it knows the family: loading, saving,
# generating, training, validation.

# %%
from course_helpers.families import Family

QWEN2_FAMILY = Family(
    title="Qwen2, Qwen2.5",
    config=Qwen2Config,
    model=Qwen2Model,
    weight_maps=(QWEN2_WEIGHTS,),
    presets={},  # released sizes, for planning
    tiny=None,  # a bundled checkpoint
    tokenizer="byte-level BPE (tokenizer.json)",
    licence="Apache-2.0, most sizes",
    gated=False,
)
FAMILIES["qwen2"] = QWEN2_FAMILY
lines |= code_lines(cells_run(), ("QWEN2_FAMILY",))
print("lines for this row:", lines["QWEN2_FAMILY"], "  together:", sum(lines.values()))

model = load_model(stranger)
save_checkpoint(model, workspace / "saved", load_tokenizer(stranger))
again = transformers.AutoModelForCausalLM.from_pretrained(workspace / "saved").eval()
with torch.no_grad():
    round_trip = torch.equal(again(ids).logits, reference(ids).logits)
print("saved by us, read by Transformers, the same logits:", round_trip)

# %% [markdown]
# Now training and validation. A random model is no language model, so a validation worth its name must stop it. We raise one that
# can speak: a Llama is a Qwen2 whose biases are zero. We take the bundled Llama 3, add zero biases, and let the course's training
# loop (M9-LAB-07) move them for a few steps.

# %%
from course_helpers.labs.lab_07 import story_texts
from course_helpers.training import TrainingSettings, train
from course_helpers.training_data import TextBatches

parent = load("tiny-llama3")
raw = parent.config.to_hf() | {"model_type": "qwen2"}
child = Qwen2Model(Qwen2Config.from_hf(raw)).eval()
biases = child.load_state_dict(parent.model.state_dict(), strict=False).missing_keys
with torch.no_grad():
    for name in biases:
        child.get_parameter(name).zero_()
    born = torch.equal(child(ids), parent.model(ids))
print("a Llama with zero biases, to the bit:", born, "  new parameters:", len(biases))

batches = TextBatches.from_texts(story_texts(40, seed=5), parent.tokenizer, 96, batch_size=8)
train(child, batches, TrainingSettings(8, 1e-4, warmup_steps=2))
print("all biases have moved:", all(child.get_parameter(name).any() for name in biases))

# %% [markdown]
# **Predict, then run.** First the random one, then this one go through the five layers of `validate_checkpoint`, and then to our
# desk's gate. At which layer does the random one stop?

# %%
from course_helpers import validate_checkpoint

save_checkpoint(child, workspace / "tiny-qwen2", parent.tokenizer)
report = validate_checkpoint(workspace / "tiny-qwen2")
for source, outcome in (("random", validate_checkpoint(stranger)), ("trained", report)):
    layers = (f"{check.name} {'ok' if check.ok else 'NO'}" for check in outcome.checks)
    print(f"{source:<8}", *layers)

desk.switch(workspace / "tiny-qwen2")
print("\nanswers:", Path(desk.current.source).name, "as a", type(desk.current.model).__name__)
grown, tokenizer = load_model(workspace / "tiny-qwen2"), parent.tokenizer
told = [tokenizer.encode(PROMPT)]
told = generate_in_package(grown, told, 40, stop_ids=tokenizer.stop_ids)[0]
print("our text is the package's:", generate(desk.current, PROMPT) == tokenizer.decode(told))

# %% [markdown]
# At the last. Files, shapes, forward and generation are in order; only the baseline, a measurement on plain English, tells that the
# random one knows nothing.

# %%
figures.what_was_added(lines)

# %%
switched = isinstance(desk.current.model, Qwen2Model)
validation_checkpoint(
    "M9-CODE-02",
    "saving, training and validating work on the new family with no edit",
    round_trip and born and report.ok and switched,
    str(report),
)

# %% [markdown]
# Now the registries go back to what they were, so that nothing in this process knows the family by accident.

# %%
del FAMILIES["qwen2"], ADAPTERS["qwen2"]
shutil.rmtree(workspace)
print("families:", len(FAMILIES), "  adapters:", len(ADAPTERS))
print("cleaned up:", not workspace.exists())

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-CODE-02",
    {
        "source": SOURCE,
        "rulers": table,
        "contract": promises,
        "broken adapters": faulty,
        "tokenizer pairs, bits in 100 bytes": {", ".join(pair): pairs[pair] for pair in pairs},
        "refused pairs": sorted(map(", ".join, refused)),
        "lines of a new family": lines,
    },
)

# %% [markdown]
# ## Recap
#
# - A branch on the family's name is a decision without an owner, and its last line guesses for every family to come. **A row in a
#   registry** makes the same decisions in one place, and has no default.
# - The outer workflow is *select, read, fill, bind, generate*. It goes by `model_type`, and knows no family.
# - A **contract** says what the workflow may rely on. It does not say that the model is right, or good.
# - Compare families per byte of text; swap behind a gate; keep the one before.
# - A new family is its deltas: a config, a class or two, rows of a weight map, an adapter. And an oracle.
#
# **You can now** build an adapter layer for your own project; name its promises and test them on every family; refuse what does
# not fit in words that help; and bring in a new architecture without touching the code around it.
#
# **Next:** M9-LAB-APP-B runs the whole module from end to end.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The selector
#
# Write it again, without looking. You get the parsed config, the name of the folder that it lay in, and the registry. Return the
# adapter, or raise a `LookupError` whose message says which type was asked for, and which there are.

# %% tags=["exercise"]
def pick(config, folder, adapters):
    """The adapter for a checkpoint; `adapters`: model_type -> adapter."""
    raise NotImplementedError


# %% tags=["solution"]
def pick(config, folder, adapters):
    model_type = config.get("model_type")  # the folder's name says nothing
    if model_type not in adapters:
        raise LookupError(f"no adapter for {model_type!r}; there are: {', '.join(adapters)}")
    return adapters[model_type]


# %%
from course_helpers.labs.code_02_exercises import check_pick

check_pick(pick)

# %% [markdown]
# ### Exercise 2 · Another layout, as data
#
# Some programs store every matrix as a *kernel*, (input, output), and put matrices that are used together side by side. Here is a
# small Llama as such a program writes it, its first layer and what is outside of the layers:

# %%
from course_helpers.labs.code_02_exercises import kernel_tensors, random_llama

for name, tensor in kernel_tensors(random_llama()).items():
    if not name.startswith(("layer_1", "layer_2")):
        print(f"{name:<24}{tuple(tensor.shape)}")

# %% [markdown]
# The model is 24 wide, with 4 query heads and 2 key/value heads of 6, and 40 in its feed-forward. The order of joined matrices is
# in their names. Write the rows of its weight map. Our parameters are called as in `maps.LLAMA.rows`; a row that must be turned or
# cut is a `Rule(targets, transpose=True)`, with a tuple of one or several targets.
#
# (One row goes wrong in silence if you treat it like `maps.LLAMA` does. Which?)

# %%
from course_helpers.loaders.rules import Rule


# %% tags=["exercise"]
def kernel_rows():
    """Name in the file -> our parameter's name, or a Rule; with {layer} for the number."""
    raise NotImplementedError


# %% tags=["solution"]
def kernel_rows():
    ours, theirs = "blocks.{layer}.", "layer_{layer}/"

    def kernel(*parts):  # (input, output); several stand side by side
        return Rule(tuple(f"{ours}{part}.weight" for part in parts), transpose=True)

    return {
        "embed/table": "token_embedding.weight",
        theirs + "norm_1/scale": ours + "attention_norm.weight",
        theirs + "qkv/kernel": kernel("attention.query", "attention.key", "attention.value"),
        theirs + "out/kernel": kernel("attention.output"),
        theirs + "norm_2/scale": ours + "feed_forward_norm.weight",
        theirs + "up_gate/kernel": kernel("feed_forward.up", "feed_forward.gate"),
        theirs + "down/kernel": kernel("feed_forward.down"),
        "norm/scale": "final_norm.weight",
    }


# %%
from course_helpers.labs.code_02_exercises import check_kernel_rows

check_kernel_rows(kernel_rows)

# %% [markdown]
# ### Exercise 3 · A whole family
#
# Make one: `capped_llama`, a Llama with one delta that Gemma 2 also has. Its logits pass through a **soft cap**,
# `cap * tanh(logits / cap)`: small ones hardly change, and none gets beyond the cap. The cap stands in `config.json`, as
# `final_logit_softcapping`, a number with a decimal point. Its tensors are those of a Llama (`maps.LLAMA`).
#
# Write what it takes (you may define classes inside or outside the function), and return the adapter. Mind three things: a config
# without a cap must be refused, not guessed; `forward` is called in several ways (with a `cache`, with `last_only=True`); and with
# `hidden_states=True` it returns no logits.

# %% tags=["exercise"]
def capped_llama():
    """The Adapter of the family capped_llama."""
    raise NotImplementedError


# %% tags=["solution"]
def capped_llama():
    @dataclass(frozen=True, kw_only=True)
    class CappedConfig(llama.LlamaConfig):
        final_logit_softcapping: float  # no default: it changes every number
        model_type: ClassVar[str] = "capped_llama"
        architecture: ClassVar[str] = "CappedLlamaForCausalLM"

    class CappedLlama(llama.LlamaModel):
        def forward(self, *ids, hidden_states=False, **options):
            result = super().forward(*ids, hidden_states=hidden_states, **options)
            cap = self.config.final_logit_softcapping
            return result if hidden_states else cap * torch.tanh(result / cap)

    name = CappedConfig.model_types()
    return Adapter(name, CappedConfig.from_hf, CappedLlama, (maps.LLAMA,), load_tokenizer)


# %%
from course_helpers.labs.code_02_capped import check_capped_llama

check_capped_llama(capped_llama)
