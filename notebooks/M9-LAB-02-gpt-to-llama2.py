# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-02 · From GPT-2 to Llama 2, one change at a time
#
# | | |
# |---|---|
# | **Objective** | Turn a GPT-2 into a Llama 2 in seven small stages, each with a milestone; then translate the config, bind the tokenizer, load real weights, and prove the result |
# | **Before this** | M9-LAB-APP-A, and M9-CODE-01 read. You have built a GPT-2 from scratch, or read how it is done |
# | **Time** | 75 minutes to read and run, 45 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 5, 16 and 17 |
#
# **At the end you will be able to**
#
# - name the seven changes between the two models, and say what each one costs in parameters before you measure it;
# - convert a model in stages, with a milestone after each: checks that can fail;
# - translate a config field by field, and say which fields no tensor can check for you;
# - tell Hugging Face's order of query and key rows from Meta's, and go from one to the other and back;
# - find two mistakes that were made at once, where the loss knows only that something is wrong.

# %%
from course_helpers.labs import lab_02_charts as charts
from course_helpers.labs import lab_02_figures as figures

figures.two_models()

# %% [markdown]
# Read the picture from below; gold is what the seven changes touch. Both models turn **tokens** (pieces of text) into
# vectors, let a pile of equal **blocks** work on them, and end in scores for the next token. In a block, **attention**
# lets a token gather from those before it, and a **feed-forward** part works on each token alone; both *add* what they
# find to the vector that runs through. A **norm** before each brings that vector to a fixed size.
#
# From 2019 to 2023 that plan did not change. Seven parts of it did, and their numbers are the stages of this lab. The
# classic mistake is to make all seven changes at once, run it, get nonsense, and not know which of them was wrong. So
# the rule is: **one change, one milestone, then the next.**

# %% [markdown]
# ## 1 · One switch, two ends, three prompts
#
# We start from a GPT-2 that we trust and end at a Llama 2 that we trust: both from the package, whose numbers are
# tested against other libraries. Set the environment variable `COURSE_CHECKPOINTS` to `hub`, or write it below, and the
# same cells run on the original GPT-2 and on a Llama of its size that needs no account (have 12 GB of memory). Meta's
# own 7B has the same parts; it wants an account, and 27 GB in float32.

# %%
import math
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from course_helpers import FAMILIES, generate, load_model, load_tokenizer, open_checkpoint
from course_helpers.labs import validation_checkpoint
from course_helpers.labs.lab_02 import close, loss

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {
    "bundled": {"gpt2": "tiny-gpt2", "llama2": "tiny-llama2"},
    "hub": {"gpt2": "openai-community/gpt2", "llama2": "JackFram/llama-160m"},
}[CHECKPOINTS]
NEW_TOKENS = {"bundled": 140, "hub": 40}[CHECKPOINTS]


# %%
trusted = {name: load_model(source, dtype=torch.float32) for name, source in SOURCE.items()}
tokenizers = {name: load_tokenizer(source) for name, source in SOURCE.items()}
for name, model in trusted.items():
    print(f"{SOURCE[name]:<16}{model.num_parameters():>12,} parameters")

# %% [markdown]
# **Regression prompts** are prompts that are fixed once and never touched again: whatever we rebuild must still
# continue them as before. Three, continued **greedily** (always the likeliest next token, so there is no chance in it):

# %%
PROMPTS = ("Once upon a time", "One sunny morning", "Mia had a red kite")


def package_texts(name):
    """How the trusted model continues the regression prompts."""
    tokenizer = tokenizers[name]
    ids = [tokenizer.encode(prompt) for prompt in PROMPTS]
    rows = generate(trusted[name], ids, NEW_TOKENS, stop_ids=tokenizer.stop_ids)
    return [tokenizer.decode(row) for row in rows]


def show_beginning(text):
    print(textwrap.fill(textwrap.shorten(text, 220, placeholder=" ..."), 100))


texts = {name: package_texts(name) for name in trusted}
for name in texts:
    print(f"{name.upper()}\n{textwrap.fill(texts[name][0], 100)}\n")

# %% [markdown]
# Two models, two trainings, two stories. No rebuilding can turn the first text into the second: **the conversion is one
# of code, and the weights are taken from Llama at the end.** What the prompts check is that our code, given GPT-2's
# weights, tells the first story, and, given Llama's, the second.
#
# ## 2 · The trusted baseline, written small
#
# Here is the GPT-2 that you know. All that the stages will change is read from a `recipe`, which comes two cells
# further down. Attention first: each of several **heads** compares a *query* of every token with the *keys* of the
# tokens before it, and mixes their *values* accordingly. (Letters at the end of a name are its shape: B texts, T
# tokens, E numbers wide.)

# %%
class Attention(nn.Module):
    """Causal attention with several heads; `rotate` stays None until stage 6."""

    def __init__(self, recipe):
        super().__init__()
        self.heads, self.rotate = recipe.heads, recipe.rotate
        self.query, self.key, self.value, self.output = (
            nn.Linear(recipe.width, recipe.width, bias=recipe.bias) for _ in range(4)
        )

    def in_heads(self, x_BTE):
        return x_BTE.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)

    def forward(self, x_BTE, angle_TP=None):
        query, key, value = (
            self.in_heads(part(x_BTE)) for part in (self.query, self.key, self.value)
        )
        if self.rotate is not None:
            query, key = self.rotate(query, angle_TP), self.rotate(key, angle_TP)
        score = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        future = torch.ones(score.shape[-2:], dtype=torch.bool).triu(1)  # above the diagonal
        mixed = score.masked_fill(future, -math.inf).softmax(-1) @ value
        return self.output(mixed.transpose(1, 2).flatten(2))


# %% [markdown]
# The feed-forward: widen, bend, narrow. The bend is the **activation function**, without which two matrices would be no
# more than one; GPT-2's is called GELU. And the recipe, with GPT-2's parts as defaults:

# %%
class FeedForward(nn.Module):
    """Widen, bend, narrow."""

    def __init__(self, recipe):
        super().__init__()
        self.up = nn.Linear(recipe.width, recipe.hidden, bias=recipe.bias)
        self.down = nn.Linear(recipe.hidden, recipe.width, bias=recipe.bias)
        self.activation = recipe.activation

    def forward(self, x_BTE):
        return self.down(self.activation(self.up(x_BTE)))


gelu = partial(F.gelu, approximate="tanh")  # the form of it that GPT-2 was trained with


# %%
@dataclass(frozen=True)
class Recipe:
    """All that decides what a model computes, but for its weights. A stage changes one line."""

    vocab: int  # tokens that have an embedding: a vector of their own
    width: int  # numbers that stand for one token on its way through
    layers: int  # blocks
    heads: int
    hidden: int  # the inner width of the feed-forward
    positions: int  # how long a text can be

    norm: Callable = nn.LayerNorm
    eps: float = 1e-5  # a small number in the norm that keeps it from dividing by 0
    activation: Callable = gelu
    bias: bool = True  # whether linear layers add a vector after multiplying by their matrix
    feed_forward: Callable = FeedForward
    rotate: Callable | None = None  # None: positions are learned vectors
    theta: float = 10_000.0  # the base of rotary positions; see stage 6
    tied: bool = True  # whether the head is the token embedding, used a second time


# %%
class Block(nn.Module):
    """Norm, attention, add; norm, feed-forward, add. The order, called pre-norm, stays."""

    def __init__(self, recipe):
        super().__init__()
        self.attention_norm = recipe.norm(recipe.width, eps=recipe.eps)
        self.attention = Attention(recipe)
        self.feed_forward_norm = recipe.norm(recipe.width, eps=recipe.eps)
        self.feed_forward = recipe.feed_forward(recipe)

    def forward(self, x_BTE, angle_TP):
        x_BTE = x_BTE + self.attention(self.attention_norm(x_BTE), angle_TP)
        return x_BTE + self.feed_forward(self.feed_forward_norm(x_BTE))


def rotary_angles(recipe, length):
    """How far every pair of numbers is turned at every position: stage 6 explains it."""
    head_dim = recipe.width // recipe.heads
    frequency_P = recipe.theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    return torch.arange(length)[:, None] * frequency_P


# %%
class Model(nn.Module):
    """Token ids in, logits out: a score for every token that could come next."""

    def __init__(self, recipe):
        super().__init__()
        self.recipe = recipe
        self.token_embedding = nn.Embedding(recipe.vocab, recipe.width)
        if recipe.rotate is None:
            self.position_embedding = nn.Embedding(recipe.positions, recipe.width)
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.layers))
        self.final_norm = recipe.norm(recipe.width, eps=recipe.eps)
        if not recipe.tied:
            self.output_head = nn.Linear(recipe.width, recipe.vocab, bias=False)

    def forward(self, ids_BT):
        x_BTE, angle_TP, length = self.token_embedding(ids_BT), None, ids_BT.shape[1]
        if self.recipe.rotate is None:
            x_BTE = x_BTE + self.position_embedding(torch.arange(length))
        else:
            angle_TP = rotary_angles(self.recipe, length)
        for block in self.blocks:
            x_BTE = block(x_BTE, angle_TP)
        head = self.token_embedding if self.recipe.tied else self.output_head
        return self.final_norm(x_BTE) @ head.weight.T


# %% [markdown]
# Sixty lines of model, and not a speed-up in them: nothing should stand between you and the numbers. (No cache of keys
# and values, for one. Optimize after the conversion, never during it.) Is it GPT-2? We give it the trusted weights. Our
# modules have the names of the package's, so `load_state_dict` needs no table.

# %%
config = trusted["gpt2"].config
gpt2 = Recipe(
    vocab=config.vocab_size,
    width=config.n_embd,
    layers=config.n_layer,
    heads=config.n_head,
    hidden=config.n_inner,
    positions=config.n_positions,
)


@torch.no_grad()
def tell(model, name, prompt):
    """The greedy loop of chapter 5: the whole text again for every new token."""
    ids = tokenizers[name].encode(prompt)
    for _ in range(NEW_TOKENS):
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        if ids[-1] in tokenizers[name].stop_ids:
            break
    return tokenizers[name].decode(ids)


# %%
baseline = Model(gpt2)
print(baseline.load_state_dict(trusted["gpt2"].state_dict()))

text_ids = {name: torch.tensor([tokenizers[name].encode(texts[name][0])]) for name in texts}
with torch.no_grad():
    same_logits = close(baseline(text_ids["gpt2"]), trusted["gpt2"](text_ids["gpt2"]))
same_texts = [tell(baseline, "gpt2", prompt) for prompt in PROMPTS] == texts["gpt2"]
print("same logits:     ", same_logits)
print("same three texts:", same_texts)

# %% [markdown]
# `close` means: apart by at most a hundred-thousandth of the largest value. Two programs that add the same numbers in
# another order differ by less, and every mistake of this lab moves the logits by more. From here on the small model is
# our ground.

# %%
same = same_logits and same_texts
validation_checkpoint("M9-LAB-02", "the small GPT-2 equals the package's", same)

# %% [markdown]
# ## 3 · What a milestone is
#
# Every new part is first compared with a reference: same input, same output. Then we build a *fresh* model of the new
# recipe, with random weights, and hold it to six checks:
#
# 1. **one change**: the recipe differs from the one before in a single field;
# 2. **the parameter count** changed by what *you* predicted;
# 3. **the shape**: one row of logits for every token;
# 4. **causal**: another last token changes no logit before it;
# 5. **connected**: a gradient (which way to move in training) reaches every parameter, so none is left lying unused;
# 6. **the first loss**. The **loss** is the mean surprise per token, in *nats*: minus the natural logarithm of the
#    probability that the model gave to the token that came. A fresh model knows nothing, so it should be near $\ln V$, the surprise
#    of guessing among *V* tokens. Far above it: the model is sure of itself without a reason.

# %%
from course_helpers.labs.lab_02 import (
    Stage,
    changed_fields,
    parameters_that_rest,
    sees_only_the_past,
)


def fresh(recipe, seed=0):
    """A model with GPT-2's first weights: normal, with a standard deviation of 0.02."""
    torch.manual_seed(seed)
    model = Model(recipe)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    return model


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# %%
LEDGER = []  # one line a stage


def milestone(name, recipe, predicted):
    """Six checks on a fresh model. Only what passes them all gets a line in the ledger."""
    model, ids = fresh(recipe), text_ids["gpt2"]
    before = LEDGER[-1] if LEDGER else Stage("", recipe, count(model), 0, 0.0, 0)
    change, first_loss = count(model) - before.parameters, loss(model, ids)
    checks = {
        "one change": len(changed_fields(before.recipe, recipe)) == (1 if LEDGER else 0),
        "parameters as predicted": change == predicted,
        "shape": model(ids).shape == (*ids.shape, recipe.vocab),
        "causal": sees_only_the_past(model, ids),
        "connected": not parameters_that_rest(model, ids),
        "first loss": abs(first_loss - math.log(recipe.vocab)) < 0.5,
    }
    if failed := [what for what, holds in checks.items() if not holds]:
        raise AssertionError(f"{name}: failed at {', '.join(failed)}; change {change:+,}")
    LEDGER.append(Stage(name, recipe, count(model), change, first_loss, len(checks)))
    numbers = f"{count(model):>11,} parameters {change:>+9,}   first loss {first_loss:.2f}"
    print(f"{name:<22}{numbers}   {len(checks)} checks passed")


print(f"guessing: {math.log(gpt2.vocab):.2f}")
milestone("GPT-2", gpt2, predicted=0)

# %% [markdown]
# A check that cannot fail proves nothing. Two bad stages: a wrong prediction, and two changes at once that no count
# shows. And a mistake that the sixth check is for: torch's own first weights for an embedding, whose standard deviation
# is 1, under a tied head.

# %%
for what, recipe, predicted in (
    ("a wrong prediction", replace(gpt2, layers=gpt2.layers + 1), 0),
    ("two changes at once", replace(gpt2, heads=2 * gpt2.heads, eps=1e-6), 0),
):
    try:
        milestone(what, recipe, predicted)
    except AssertionError as error:
        print(error)

torch.manual_seed(0)
careless = loss(Model(gpt2), text_ids["gpt2"]) / math.log(gpt2.vocab)
print("careless first weights: loss over ten times guessing:", careless > 10)

# %% [markdown]
# ## Stage 1 · LayerNorm becomes RMSNorm
#
# LayerNorm does four things to each token's vector: subtract the mean, divide by the spread (the standard deviation),
# multiply every number by a learned weight, add a learned bias. RMSNorm does two: divide by the **r**oot of the
# **m**ean **s**quare, multiply by a weight. It was found to train as well for less work (Zhang and Sennrich, 2019).
#
# $$\text{RMSNorm}(x) = w \cdot \frac{x}{\sqrt{\text{mean}(x^2) + \varepsilon}}$$

# %%
class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


x = torch.tensor([1.2, -0.3, 2.2, 0.8, 1.5, -1.0, 0.4, 2.8])
with torch.no_grad():
    rows = {"after LayerNorm": nn.LayerNorm(8)(x), "after RMSNorm": RMSNorm(8, 1e-5)(x)}
charts.vectors({"before": x} | rows)

# %% [markdown]
# LayerNorm moves the bars, so that two of them change their sign. RMSNorm only makes all of them longer or shorter: the
# *direction* of the vector stays, its length is set.
#
# Where $\varepsilon$ stands matters. **Predict, then run.** A vector of numbers as small as 0.001, with $\varepsilon$ =
# 0.00001: how large is the result with $\varepsilon$ inside the root, and how large with $\varepsilon$ added to the
# finished root?

# %%
small = torch.full((8,), 0.001)
inside = small / (small.pow(2).mean() + 1e-5).sqrt()
outside = small / (small.pow(2).mean().sqrt() + 1e-5)
print(f"inside the root:  {inside[0]:.2f}")
print(f"outside the root: {outside[0]:.2f}")

# %% [markdown]
# Inside, small vectors stay small; outside, they are blown up to nearly 1. For large ones there is next to no
# difference, which makes this mistake so quiet. We meet it again in section 12.
#
# The milestone needs a component that is known to be right, so we compare with torch's own and with the package's:

# %%
from course_helpers.architectures import layers as package_layers

generator = torch.Generator().manual_seed(0)
x_BTE = torch.randn(2, 7, gpt2.width, generator=generator)
weight = torch.rand(gpt2.width, generator=generator)
references = {"torch": nn.RMSNorm, "the package": package_layers.RMSNorm}
norms_agree = {}
with torch.no_grad():
    for who, reference in references.items():
        theirs, ours = reference(gpt2.width, eps=1e-5), RMSNorm(gpt2.width, eps=1e-5)
        theirs.weight.copy_(weight)
        ours.weight.copy_(weight)
        norms_agree[who] = close(ours(x_BTE), theirs(x_BTE))
print(norms_agree)

# %% [markdown]
# **Predict, then run.** How many norms are there, and what does each of them lose? Replace the right side with your own
# formula if you like: the milestone will not pass if it is wrong.

# %%
E, L, V = gpt2.width, gpt2.layers, gpt2.vocab

rms = replace(gpt2, norm=RMSNorm)
milestone("norm: RMSNorm", rms, predicted=-(2 * L + 1) * E)

# %% [markdown]
# Two in each block and one at the end; each loses a bias of E numbers.
#
# ## Stage 2 · GELU becomes SiLU
#
# Both bends let large numbers through and hold back negative ones. SiLU is the simpler formula: the input times its own
# *sigmoid*, a function that goes smoothly from 0 to 1.

# %%
def silu(x):
    return x * torch.sigmoid(x)


silu_agrees = close(silu(x_BTE), F.silu(x_BTE))
print("equal to torch's:", silu_agrees)
charts.curves({"GELU": gelu, "SiLU": silu})

# %% [markdown]
# **Predict, then run.** How many parameters does an activation have?

# %%
bend = replace(rms, activation=silu)
milestone("activation: SiLU", bend, predicted=0)

# %% [markdown]
# None. So here is a stage that leaves *no trace* in a file: no shape, no name, no count. What if somebody makes this
# change and forgets that the weights were trained with the other bend?
#
# **Predict, then run.** The trained GPT-2 with SiLU in the place of GELU. Does it load? Does the loss notice? Can one
# read what it writes?

# %%
bent = Model(replace(gpt2, activation=silu))
print(bent.load_state_dict(trusted["gpt2"].state_dict()))
for what, model in {"before": baseline, "now": bent}.items():
    print(f"loss {what:<7}{loss(model, text_ids['gpt2']):.2f}")
print()
show_beginning(tell(bent, "gpt2", PROMPTS[0]))

# %% [markdown]
# "All keys matched", twice the loss, and sentences that fall apart. **Weights belong to the architecture that they were trained in, to the
# last curve of it.** That is why we convert code, and never a trained model half-way.
#
# ## Stage 3 · The biases go
#
# A linear layer multiplies by a matrix and adds a vector, its **bias**. Llama's have the matrix only. Beside a matrix a
# bias is small, and large models were reported to train more steadily without any (Google's PaLM, 2022).
#
# **Predict, then run.** In one block: four matrices of attention with E outputs each, one of the feed-forward with F
# outputs, one with E. How many numbers go, in all L blocks?

# %%
F_gpt2 = gpt2.hidden

plain = replace(bend, bias=False)
milestone("biases: none", plain, predicted=-L * (4 * E + F_gpt2 + E))

# %% [markdown]
# But for positions, attention has now reached its final form. It stays **multi-head attention**, in which every query
# head has a key and a value head of its own; Llama 2 7B and 13B keep that (70B and Llama 3 share key heads: M9-LAB-03).
# Is the part right? With the same random matrices it must return what the package's returns:

# %%
from course_helpers.architectures.layers import AttentionContext

ours = fresh(plain).blocks[0].attention
theirs = package_layers.Attention(E, plain.heads, plain.heads, E // plain.heads)
theirs.load_state_dict(ours.state_dict())
no_positions = AttentionContext(positions_BT=torch.arange(7)[None], is_causal=True)
with torch.no_grad():
    attention_agrees = close(ours(x_BTE), theirs(x_BTE, no_positions))
print("attention equals the package's:", attention_agrees)

# %% [markdown]
# ## Stage 4 · The feed-forward gets a gate
#
# GPT-2's feed-forward sends x one way: up, bend, down. A **gated** one sends it two ways and multiplies: one way, bent,
# says for each of the inner numbers *how far its gate is open*, the other *what would come through*. With SiLU as the
# bend it is called SwiGLU (Shazeer, 2020).

# %%
figures.two_feed_forwards(E, F_gpt2)


# %%
class SwiGLU(nn.Module):
    def __init__(self, recipe):
        super().__init__()
        self.gate = nn.Linear(recipe.width, recipe.hidden, bias=recipe.bias)
        self.up = nn.Linear(recipe.width, recipe.hidden, bias=recipe.bias)
        self.down = nn.Linear(recipe.hidden, recipe.width, bias=recipe.bias)
        self.activation = recipe.activation

    def forward(self, x_BTE):
        return self.down(self.activation(self.gate(x_BTE)) * self.up(x_BTE))


gated = replace(plain, feed_forward=SwiGLU)
ours = fresh(gated).blocks[0].feed_forward
theirs = package_layers.GatedFeedForward(E, F_gpt2)
theirs.load_state_dict(ours.state_dict())
with torch.no_grad():
    feed_forward_agrees = close(ours(x_BTE), theirs(x_BTE))
print("equal to the package's:", feed_forward_agrees)

# %% [markdown]
# **Predict, then run.** What does the third matrix of every block cost?

# %%
milestone("feed-forward: gated", gated, predicted=L * E * F_gpt2)

# %% [markdown]
# Over a quarter more parameters in our small model, and a third more in a large one, where blocks of 12 E² numbers are
# nearly everything. So Llama pays for the third matrix elsewhere:
#
# ## Stage 5 · The feed-forward gets narrower
#
# Two matrices of E x 4E hold 8 E² numbers. Three of the same total must be E x 8/3 E. Since 8/3 seldom gives a number
# that computers like, Meta rounds it up to a multiple: of 256, for 7B and 13B.
#
# **Predict, then run.** Llama 2 7B has a width E of 4,096. What is its `intermediate_size`, the inner width?

# %%
def two_thirds_of_four(width, multiple):
    """8/3 of the width, rounded up to a multiple."""
    return math.ceil(int(8 * width / 3) / multiple) * multiple


for name in ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf"):
    size = FAMILIES["llama2"].presets[name]
    found = two_thirds_of_four(size.hidden_size, 256)
    right = found == size.intermediate_size
    print(f"{name:<26}{size.hidden_size:>6,} -> {found:>6,}  as in its config: {right}")

# %%
multiple = {"bundled": 8, "hub": 256}[CHECKPOINTS]
F_llama = two_thirds_of_four(E, multiple)

narrow = replace(gated, hidden=F_llama)
milestone(f"its width: {F_llama}", narrow, predicted=-3 * L * E * (F_gpt2 - F_llama))
both_stages = LEDGER[-1].change + LEDGER[-2].change
print(f"stages 4 and 5 together: {both_stages:+,}")

# %% [markdown]
# Together the two stages cost next to nothing; what is left comes from rounding up. Two stages, and not one "SwiGLU"
# stage: with both at once you could have a wrong gate *and* a wrong width, and a parameter count that comes out right
# by luck.

# %% [markdown]
# ## Stage 6 · Learned positions become rotary ones
#
# Attention by itself does not know which token came first. GPT-2 learns a vector for each position and adds it to the
# token's. Llama adds nothing. It **turns** queries and keys: **rotary positions**, RoPE for short (Su and others,
# 2021).
#
# The numbers of a head are taken in pairs, and each pair is a point on a plane, a hand on a dial. At position *m*, the
# hand of pair *i* is turned by the angle $m \cdot \theta^{-2i/D}$, where *D* is the size of a head and $\theta$ (the
# **base**) is 10,000. Pair 0 turns fast, the last pair hardly at all, like the hands of a clock:

# %%
angle_TP = rotary_angles(gpt2, 101)
pairs = angle_TP.shape[1]
shown = [0, pairs // 4, pairs // 2, pairs - 1]
charts.clock_hands(angle_TP, positions=[0, 1, 2, 3, 4, 8, 16, 100], pairs=shown)

# %% [markdown]
# Which two numbers are a pair? There are two ways to choose, and the weights must have been made for yours. Hugging
# Face's files pair number *i* with *i + D/2*: the first half of a head with the second. (Section 11 is about the other
# way.) To turn a point $(a, b)$ by an angle is school trigonometry: $(a \cos - b \sin,\; b \cos + a \sin)$. (New
# letters: H heads, D numbers in a head, P pairs.)

# %%
def rotate_halves(x_BHTD, angle_TP):
    """Turn every pair (i, i + D/2) by its angle."""
    first, second = x_BHTD.chunk(2, dim=-1)
    cos, sin = angle_TP.cos(), angle_TP.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


# %%
from course_helpers.architectures.rope import RopeParameters, RotaryEmbedding, apply_rotary

head_dim = gpt2.width // gpt2.heads
query_BHTD = torch.randn(2, gpt2.heads, 101, head_dim, generator=generator)
turned = rotate_halves(query_BHTD, angle_TP)

rope = RotaryEmbedding(RopeParameters(rope_theta=10_000.0), head_dim)
cos_sin = rope(torch.arange(101)[None], torch.float32)
rotation_agrees = close(turned, apply_rotary(query_BHTD, *cos_sin))
same_length = close(turned.norm(dim=-1), query_BHTD.norm(dim=-1))
print("equal to the package's:   ", rotation_agrees)
print("every vector keeps its length:", same_length)

# %% [markdown]
# ### Why turn?
#
# An attention score is the product of a query and a key. If one is turned by $m$ steps and the other by $n$, the
# product depends on the *difference* of the two angles: on how far apart the tokens are, and not on where they stand.
#
# To see it, take a text in which every token is the same, so that only the position can make a difference between two
# scores. One head of the first block, in both trained models. **Predict, then run.** What will the picture of Llama's
# scores look like, if a score depends on the distance alone?

# %%
@torch.no_grad()
def scores_of_equal_tokens(model, token, length, head=0):
    """Scores (T, T) of one head in the first block, for one token many times over."""
    x_TE = model.token_embedding.weight[token].expand(length, -1)
    learned = hasattr(model, "position_embedding")
    if learned:
        x_TE = x_TE + model.position_embedding.weight[:length]
    block = model.blocks[0]
    x_TE = block.attention_norm(x_TE)
    query_HTD, key_HTD = (
        part(x_TE).unflatten(-1, (-1, block.attention.head_dim)).transpose(0, 1)
        for part in (block.attention.query, block.attention.key)
    )
    if not learned:
        angles = rotary_angles(gpt2, length)
        query_HTD, key_HTD = rotate_halves(query_HTD, angles), rotate_halves(key_HTD, angles)
    return (query_HTD @ key_HTD.transpose(-1, -2))[head] / math.sqrt(block.attention.head_dim)


token = {name: tokenizers[name].encode(" boat")[-1] for name in trusted}
scores = {name: scores_of_equal_tokens(trusted[name], token[name], 48) for name in trusted}
notes = ("every pair of places has a score of its own", "one score for each distance")
charts.score_maps({"GPT-2": scores["gpt2"], "Llama 2": scores["llama2"]}, notes)

# %% [markdown]
# Stripes. Along a diagonal the distance is the same, and so is the score. Seen as a number: how much do the scores on
# one diagonal differ?

# %%
def differ_along_diagonals(score_TT):
    """How far two scores at the same distance are apart, as a share of the largest score."""
    diagonals = [score_TT.diagonal(-distance) for distance in range(len(score_TT))]
    return max(one.max() - one.min() for one in diagonals) / score_TT.abs().max()


relative = {name: bool(differ_along_diagonals(scores[name]) < 1e-4) for name in scores}
for name, same in relative.items():
    print(f"{name:<8}the same along every diagonal: {same}")

# %% [markdown]
# What a head has learned about "three tokens back" holds at the beginning of a text and at the end of it. GPT-2 can only
# learn it place by place.
#
# **Predict, then run.** What does the stage change in the parameters?

# %%
rotary = replace(narrow, rotate=rotate_halves)
milestone("positions: rotary", rotary, predicted=-gpt2.positions * E)

# %% [markdown]
# A whole table goes and nothing comes: angles are computed, not learned. With it goes a wall. **Predict, then run.**
# One token more than GPT-2 has positions, for the model of stage 5 and for that of stage 6:

# %%
too_long = torch.zeros(1, gpt2.positions + 1, dtype=torch.long)
for name, recipe in (("stage 5", narrow), ("stage 6", rotary)):
    try:
        with torch.no_grad():
            print(name, "gives logits for", fresh(recipe)(too_long).shape[1], "tokens")
    except IndexError as error:
        print(name, "stops:", error)

# %% [markdown]
# RoPE has an angle for every position. Whether a model has *learned* anything about distances beyond its training texts
# is another matter, and no error will tell.
#
# ## Stage 7 · The head gets a matrix of its own
#
# The **output head** (no relative of attention's heads) is the matrix that turns the last vector into scores. GPT-2's
# is the token embedding, used a second time: the two are *tied*. Llama 2 keeps two separate matrices.
#
# **Predict, then run.** What does that cost?

# %%
llama = replace(rotary, tied=False)
milestone("head: its own", llama, predicted=V * E)

# %% [markdown]
# This is the last change of the architecture, and the ledger so far is an account of the whole way. The sum of all
# changes must lead from GPT-2's count to Llama's:

# %%
first, *stages = LEDGER
for stage in LEDGER:
    print(f"{stage.name:<28}{stage.change:>+10,}{stage.parameters:>12,}")

end = first.parameters + sum(stage.change for stage in stages)
if CHECKPOINTS == "bundled":  # the hub's two models have vocabularies of different sizes
    print("Llama 2, as the package counts:", trusted["llama2"].num_parameters() == end)

# %%
parts = [*norms_agree.values(), silu_agrees, attention_agrees, feed_forward_agrees]
parts.append(rotation_agrees)
distance_only = same_length and relative == {"gpt2": False, "llama2": True}
seven = len(stages) == 7 and all(stage.checks == 6 for stage in stages)
validation_checkpoint("M9-LAB-02", "every part equals its reference", all(parts), str(parts))
validation_checkpoint("M9-LAB-02", "a score depends on the distance only", distance_only)
validation_checkpoint("M9-LAB-02", "seven stages, each past its milestone", seven)

# %% [markdown]
# ## 8 · The config, translated
#
# Seven stages gave us a recipe. Llama's own `config.json` must lead to the same one, and its fields have other names.
# A **translation table** writes down every pair, once, where everybody can see it:

# %%
TABLE = (  # GPT-2's field, Llama's field, our recipe's
    ("vocab_size", "vocab_size", "vocab"),
    ("n_embd", "hidden_size", "width"),
    ("n_layer", "num_hidden_layers", "layers"),
    ("n_inner", "intermediate_size", "hidden"),
    ("tie_word_embeddings", "tie_word_embeddings", "tied"),
    (None, "attention_bias", "bias"),
    ("n_head", "num_attention_heads", "heads"),
    ("n_positions", "max_position_embeddings", "positions"),
    ("layer_norm_epsilon", "rms_norm_eps", "eps"),
    ("activation_function", "hidden_act", "activation"),
    (None, "rope_theta", "theta"),
)
fields = {name: model.config.to_hf() for name, model in trusted.items()}
values = {ours: fields["llama2"][theirs] for _, theirs, ours in TABLE}

from_config = replace(llama, **values | {"activation": {"silu": silu}[values["activation"]]})
assert fields["llama2"]["num_key_value_heads"] == from_config.heads  # multi-head attention
print("our recipe and config.json differ in:", changed_fields(llama, from_config))

# %% [markdown]
# Only the length of a text differs, which no stage was about. (On the hub the vocabulary and epsilon do, too, and
# `hidden`: that small Llama kept 4E.) Now the table with its values, and a question for each field: *would a wrong
# value show in the name or the shape of any tensor?* We do not guess. For every field, a model with another value is
# built without memory (torch's `meta` device), and its tensors are compared.
#
# **Predict, then run.** Which of the eleven fields leave no trace?

# %%
def outline(recipe):
    """Names and shapes of all tensors, without their memory."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Model(recipe).state_dict().items()}


OTHER = {"tied": True, "bias": True, "activation": gelu}  # another value; for numbers: twice
print(f"{'GPT-2':<22}{'':>12}   {'Llama 2':<26}{'':>8}   a wrong value shows")
shows = {}
for old, new, ours in TABLE:
    other = OTHER[ours] if ours in OTHER else 2 * getattr(from_config, ours)
    shows[ours] = outline(replace(from_config, **{ours: other})) != outline(from_config)
    left = f"{old or '-':<22}{fields['gpt2'].get(old, '-')!s:>12}"
    right = f"{new:<26}{fields['llama2'][new]!s:>8}"
    print(f"{left}   {right}   {'yes' if shows[ours] else 'NO'}")
silent = [name for name, visible in shows.items() if not visible]

# %% [markdown]
# Five fields are silent: heads, length, epsilon, activation, base. They must be **read, never guessed**, and GPT-2's
# names must not be looked up in Llama's file with a default for what is missing. Two rows deserve a second look.
# GPT-2's `n_positions` is the size of a table, Llama's `max_position_embeddings` a promise about training: same idea,
# another nature. And `n_inner` may be missing or `null` in GPT-2 files, and then means 4E; Llama has no such rule.
#
# Last, the whole model. The package builds a Llama from the same config; it gets *our* random weights:

# %%
ours = fresh(from_config)
theirs = FAMILIES["llama2"].model(trusted["llama2"].config)
print(theirs.load_state_dict(ours.state_dict()))

ids = text_ids["llama2"]
with torch.no_grad():
    angles = rotary_angles(from_config, 7)
    context = theirs.contexts(0, 7, None, None)["full_attention"]  # its mask and rotations
    block_agrees = close(ours.blocks[0](x_BTE, angles), theirs.blocks[0](x_BTE, context, None))
    model_agrees = close(ours(ids), theirs(ids))
print("a block equals the package's:    ", block_agrees)
print("the model equals the package's:  ", model_agrees)

# %%
silent_five = {"heads", "positions", "eps", "activation", "theta"} == set(silent)
random_agrees = block_agrees and model_agrees
validation_checkpoint("M9-LAB-02", "with random weights, the package's Llama", random_agrees)
validation_checkpoint("M9-LAB-02", "five config fields leave no trace in a file", silent_five)

# %% [markdown]
# ## 9 · The tokenizer
#
# Both tokenizers are **BPE**: they begin with single symbols, and were built by merging the most frequent pair of
# pieces, again and again. GPT-2's symbols are bytes. Llama 2's is a **SentencePiece** model, whose symbols are
# characters. It writes a space as `▁` and puts one in front of every text; a character that it does not know becomes
# bytes, as `<0xF0>`. And every text begins with a **mark**, `<s>`, which stands for no text at all.

# %%
processor = tokenizers["llama2"].backend.processor  # the SentencePiece library's own object
for text in (PROMPTS[0], "Zoe 🦊"):
    old, new = (tokenizers[name].encode(text) for name in ("gpt2", "llama2"))
    print("GPT-2   ", old, "|".join(tokenizers["gpt2"].decode([id]) for id in old))
    print("Llama 2 ", new, "|".join(processor.id_to_piece(id) for id in new), "\n")

# %% [markdown]
# (Each � is one byte of the fox, which is no character by itself.) Both are numbers below the size of the vocabulary,
# and that is all that they have in common. A wrong number is no
# error for an embedding: it is another word.
#
# **Predict, then run.** The same story for the trusted Llama in three encodings: its own; its own without the mark; and
# GPT-2's. Rank the three losses, and set them beside guessing.

# %%
story = texts["llama2"][0]
encodings = {
    "its own tokenizer": tokenizers["llama2"].encode(story),
    "the same, no mark": tokenizers["llama2"].encode(story, bos=False),
    "GPT-2's tokenizer": tokenizers["gpt2"].encode(story),
}
losses = {
    what: loss(trusted["llama2"], torch.tensor([ids]) % from_config.vocab)
    for what, ids in encodings.items()
}
for what, value in losses.items():
    print(f"{what:<20}{value:6.2f}")
print(f"{'guessing':<20}{math.log(from_config.vocab):6.2f}")

# %% [markdown]
# Worse than guessing: the model is sure of the wrong words. And the forgotten mark is the quiet relative of that
# mistake: the model still speaks, only worse. It has never seen a text that begins without one.

# %%
lossless = all(
    tokenizers[name].decode(tokenizers[name].encode(text)) == text
    for name in tokenizers
    for text in (*texts["gpt2"], *texts["llama2"], "Zoë 🦊")
)
own, no_mark, strange = losses.values()
marked = encodings["its own tokenizer"][0] == tokenizers["llama2"].bos_id
told_apart = own < no_mark < math.log(from_config.vocab) < strange
fine = lossless and marked
validation_checkpoint("M9-LAB-02", "texts come back, and begin with their mark", fine)
validation_checkpoint("M9-LAB-02", "the loss tells tokenizers apart", told_apart, str(losses))

# %% [markdown]
# ## 10 · The weights
#
# At last, real ones. Large checkpoints come in several files, called **shards**, and an index says which tensor is in
# which. `open_checkpoint` reads the index and shows all shards as one.

# %%
from collections import Counter

from course_helpers.loaders.weight_maps import LLAMA

checkpoint = open_checkpoint(SOURCE["llama2"])
shards = Counter(Path(checkpoint.where(name)).name for name in checkpoint.names())
for shard, tensors in sorted(shards.items()):
    print(f"{shard:<36}{tensors:>4} tensors")

rules = LLAMA.expand(trusted["llama2"].config)  # the table of M9-CODE-01, as the package has it
for name in ("model.layers.0.mlp.gate_proj.weight", "lm_head.weight"):
    print(f"{name:<38}-> {rules[name].targets[0]}")

# %% [markdown]
# Plan, check, assign, as in M9-CODE-01: all names on both sides, all shapes, and only then the first number.

# %%
@torch.no_grad()
def load(model, checkpoint, rules):
    """Fill our model from a Llama's file. Everything fits, or nothing is changed."""
    wanted = {name: tensor.shape for name, tensor in model.named_parameters()}
    # Old files hold the rotary frequencies, too; they follow from the config.
    names = [name for name in checkpoint.names() if not name.endswith("inv_freq")]
    targets = {name: rules[name].targets[0] for name in names if name in rules}
    problems = [name for name in names if name not in rules]
    problems += [name for name in wanted if name not in targets.values()]
    problems += [
        name for name, target in targets.items() if checkpoint.shape(name) != wanted.get(target)
    ]
    if problems:
        raise ValueError(f"does not fit: {', '.join(problems)}")
    for name, target in targets.items():
        model.get_parameter(target).copy_(checkpoint.read(name))
    return model


# %%
ours = load(Model(from_config), checkpoint, rules)
with torch.no_grad():
    trained_agrees = close(ours(ids), trusted["llama2"](ids))
told = [tell(ours, "llama2", prompt) for prompt in PROMPTS]
print("logits equal the package's: ", trained_agrees)
print("the three regression prompts:", told == texts["llama2"])
print("\n" + textwrap.fill(told[0], 100))

# %% [markdown]
# The model that began as your GPT-2 tells Llama's stories, word for word. The package could share a mistake with us, so
# the last judge is a program that neither wrote: Transformers, which reads the same folder its own way.

# %%
import transformers

from course_helpers.loaders.sources import resolve

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
reference = transformers.AutoModelForCausalLM.from_pretrained(
    resolve(SOURCE["llama2"]), dtype=torch.float32
)
with torch.no_grad():
    independent = close(ours(ids), reference(ids).logits)
print("logits equal Transformers':", independent)

# %%
weights_right = trained_agrees and told == texts["llama2"]
validation_checkpoint("M9-LAB-02", "Llama's weights give its logits and texts", weights_right)
validation_checkpoint("M9-LAB-02", "Transformers gives the same logits", independent)

# %% [markdown]
# ### The five silent fields, once more
#
# The config section said that five fields leave no trace. With trained weights we can see what that means. Each gets a
# plausible wrong value: that of another family, or of a library's default.
#
# **Predict, then run.** All five load. For which does the loss notice? For which are the logits as before?

# %%
wrong_values = {
    "heads": 2 * from_config.heads,
    "activation": gelu,
    "theta": 500_000.0,  # Llama 3's
    "eps": from_config.eps / 10 if from_config.eps == 1e-5 else 1e-5,  # another usual one
    "positions": 2 * from_config.positions,
}
print(f"{'field':<12}{'logits equal':<14}loss ({loss(ours, ids):.2f} is right)")
noticed = {}
for name, value in wrong_values.items():
    wrong = load(Model(replace(from_config, **{name: value})), checkpoint, rules)
    with torch.no_grad():
        equal = close(wrong(ids), ours(ids))
    noticed[name] = {"logits_equal": equal, "loss": loss(wrong, ids)}
    print(f"{name:<12}{equal!s:<14}{noticed[name]['loss']:.2f}")

# %% [markdown]
# `positions` really changes nothing, it is a promise. `heads` and `theta` ruin the model without a word. The other two
# are worse: the logits are wrong, and the loss hardly sees it, or not at all. **Compare logits, not only the loss.**

# %% [markdown]
# ## 11 · Two layouts: Hugging Face's rows and Meta's
#
# There is one more thing about rotary positions that no shape shows. In Meta's own files (`consolidated.00.pth`) a pair
# is two *neighbours*, numbers 2i and 2i + 1 of a head. In Hugging Face's files, it is *i* and *i + D/2*. Neither is
# better. But the numbers of a query are made by the **rows** of the query matrix, one row a number. So the two kinds of
# files hold the same rows, head by head, in another order. A head of 8 rows:

# %%
def meta_order(head_dim):
    """Which of our rows stands in each place of Meta's head."""
    return torch.arange(head_dim).view(2, head_dim // 2).T.flatten()


order = meta_order(8)
print("Meta's places hold our rows", order.tolist())
figures.riffle(order.tolist())

# %% [markdown]
# It is how a dealer shuffles: cut the deck in two halves, and let them fall into each other card by card. The way back
# is the **inverse permutation**, and `argsort` of an order is its inverse.
#
# The package can write Meta's layout. Is our order the one that it writes?

# %%
from course_helpers.loaders.weight_maps import LLAMA_META


def reorder(matrix, heads, order):
    """Put the rows of every head, each head for itself, into another order."""
    return matrix.unflatten(0, (heads, -1))[:, order].flatten(0, 1)


H = from_config.heads
order = meta_order(from_config.width // H)
back = order.argsort()
query = ours.blocks[0].attention.query.weight.detach()
rule = LLAMA_META.expand(trusted["llama2"].config)["layers.0.attention.wq.weight"]

as_meta = reorder(query, H, order)
meta_agrees = torch.equal(as_meta, rule.to_theirs([query]))
inverse = torch.equal(reorder(as_meta, H, back), query)
print("as the package writes it:   ", meta_agrees)
print("and back, to the bit:       ", inverse)
moved = (as_meta != query).any(dim=1).sum().item()
print("rows that moved:            ", moved, "of", len(query))

# %% [markdown]
# Meta's rotation is the same trigonometry, with neighbours as partners:

# %%
def rotate_pairs(x_BHTD, angle_TP):
    """Turn every pair (2 i, 2 i + 1) by its angle: the rotation of Meta's code."""
    first, second = x_BHTD[..., 0::2], x_BHTD[..., 1::2]
    cos, sin = angle_TP.cos(), angle_TP.sin()
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.flatten(-2)


@torch.no_grad()
def with_layout(rows, rotate):
    """Our Llama with its query and key rows in this order and this rotation."""
    model = load(Model(replace(from_config, rotate=rotate)), checkpoint, rules)
    for block in model.blocks if rows == "Meta's rows" else ():
        for linear in (block.attention.query, block.attention.key):
            linear.weight.copy_(reorder(linear.weight, H, order))
    return model


# %% [markdown]
# **Predict, then run.** Two orders of rows, two rotations: four models, all with the same names, shapes and numbers.
# How many of them are right?

# %%
meetings = {
    (rows, f"{rotate.__name__.removeprefix('rotate_')} turned"): with_layout(rows, rotate)
    for rows in ("HF's rows", "Meta's rows")
    for rotate in (rotate_halves, rotate_pairs)
}
layout_losses = {what: loss(model, ids) for what, model in meetings.items()}
with torch.no_grad():
    right = [what for what, model in meetings.items() if close(model(ids), ours(ids))]
print("equal logits:", *(" with ".join(what) for what in right), sep="\n  ")
charts.layouts(layout_losses, math.log(from_config.vocab))

# %% [markdown]
# Two, the first and the last, and those are equal: there is no right order and no right rotation, only **a rotation
# that fits its rows**. Reordering rows *and* partners cancels out, for a score is a sum over pairs, and a sum does not
# care in which order they come. (So values and outputs must *not* be reordered: nobody turns them.)
#
# The wrong ones are far from noise. Look where the text goes wrong:

# %%
wrong_rows = meetings["Meta's rows", "halves turned"]
print("RIGHT")
show_beginning(told[0])
print("\nMETA'S ROWS, TURNED AS HALVES")
show_beginning(tell(wrong_rows, "llama2", PROMPTS[0]))


# %%
@torch.no_grad()
def surprise(model):
    """Nats at every token of the text."""
    return F.cross_entropy(model(ids)[0, :-1], ids[0, 1:], reduction="none")


curves = {"right": surprise(ours), "Meta's rows, turned as halves": surprise(wrong_rows)}
charts.surprise_by_position(curves, math.log(from_config.vocab))

# %% [markdown]
# The text begins well and falls apart later. The first token has only itself to look at, and a token and itself are
# turned alike, so no rotation can hurt it. The farther a token must look back, the more the wrong partners count. That
# is why this mistake has been shipped more than once (llama2.c, issue 286; nanotron, issue 427): a short prompt looks
# fine.
#
# The repair is the inverse permutation, and it repairs to the bit:

# %%
with torch.no_grad():
    print("wrong rows, right first token:", close(wrong_rows(ids)[:, :1], ours(ids)[:, :1]))
    for block in wrong_rows.blocks:
        for linear in (block.attention.query, block.attention.key):
            linear.weight.copy_(reorder(linear.weight, H, back))
    repaired = torch.equal(wrong_rows(ids), ours(ids))
print("repaired, to the bit:         ", repaired)

fits = [("HF's rows", "halves turned"), ("Meta's rows", "pairs turned")]
layouts_right = right == fits and meta_agrees and inverse and repaired
validation_checkpoint("M9-LAB-02", "a rotation fits only its own order of rows", layouts_right)

# %% [markdown]
# ## 12 · Two changes at once
#
# Now the mistake that this lab is built against. Somebody converts in one go, and two things are wrong: epsilon stands
# outside the root, and the rotation takes neighbours. We build the right model, each mistake alone, and both.

# %%
class EpsilonOutside(RMSNorm):
    """A mistake: the root first, then epsilon."""

    def forward(self, x):
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)


MISTAKES = {
    "right": {},
    "epsilon": {"norm": EpsilonOutside},
    "rotation": {"rotate": rotate_pairs},
    "both": {"norm": EpsilonOutside, "rotate": rotate_pairs},
}
models = {
    what: load(Model(replace(from_config, **mistake)), checkpoint, rules)
    for what, mistake in MISTAKES.items()
}

# %% [markdown]
# **Predict, then run.** All we have is the end-to-end number, the loss. Can it tell *rotation* from *both*? And when
# the rotation has been found and repaired, will it tell you that there is more?

# %%
end_to_end = {what: f"{loss(model, ids):.2f}" for what, model in models.items()}
for what, value in end_to_end.items():
    print(f"{what:<10}{value}")

# %% [markdown]
# It can do neither. The large mistake hides the small one; and after the large one is repaired, the loss is back to its
# right value, with the small mistake still in every norm of the model. You would ship it.
#
# **A check of a part cannot be fooled like that**, because each part gets what the *right* model gives to its part. A
# mistake elsewhere does not reach it. `record` takes down what the parts of the trusted model were given and returned:

# %%
from course_helpers.mismatch.points import record

PARTS = {
    "norm": "blocks.0.attention_norm",
    "attention": "blocks.0.attention",
    "feed-forward": "blocks.0.feed_forward",
    "final norm": "final_norm",
}


@torch.no_grad()
def part_checks(model):
    """For every part: given the right input, does it return the right output?"""
    angles, verdict = rotary_angles(model.recipe, ids.shape[1]), {}
    for part, name in PARTS.items():
        call, module = calls[name][0], model.get_submodule(name)
        found = module(call.given, angles) if part == "attention" else module(call.given)
        verdict[part] = close(found, call.output)
    return verdict


with torch.no_grad():
    calls = record(trusted["llama2"], PARTS.values(), ids)
verdicts = {what: part_checks(model) for what, model in models.items()}
charts.verdicts(verdicts, end_to_end)

# %% [markdown]
# One look, both mistakes, each by its name. That is what a milestone after every stage buys. (The last norm agrees in
# every row: the vectors that reach it are large, and beside them epsilon vanishes. So check a part where it is
# *sensitive*: in the first block.)
#
# And if you come too late, to a model that somebody else has converted in one go? The package's `first_mismatch` walks
# both models from the first layer on and stops where they part. It finds *one* mistake, since behind it everything
# differs. So repair, and ask again:

# %%
from course_helpers.labs.lab_02 import debug

steps = []
for what in ("both", "rotation", "right"):
    report = debug(trusted["llama2"], models[what], ids)
    steps.append(report.first and f"{report.first.ours} ({report.first.what})")
    print(f"{what}: {steps[-1] or 'no mismatch'}")
    for cause, _ in report.causes[:1]:
        print(textwrap.indent(textwrap.fill(cause.partition(": ")[2], 90), "    "))

# %% [markdown]
# First the norm. Then, after its repair, attention: what comes in is right, its queries and keys agree, and what it
# makes of them differs. That leaves the rotation, with two rarer causes. Two questions, two answers.

# %%
blamed = {
    what: [part for part, agrees in found.items() if not agrees]
    for what, found in verdicts.items()
}
localised = blamed == {
    "right": [],
    "epsilon": ["norm"],
    "rotation": ["attention"],
    "both": ["norm", "attention"],
}
norm_output, rotation_input, nothing = steps
walked = (norm_output, nothing) == ("blocks.0.attention_norm (output)", None)
walked &= rotation_input == "blocks.0.attention.output (input)"
validation_checkpoint("M9-LAB-02", "checks of parts name both mistakes", localised, str(blamed))
validation_checkpoint("M9-LAB-02", "the debugger finds one, then the other", walked, str(steps))

# %% [markdown]
# ## 13 · The map
#
# The whole way, as the ledger has it: what each stage changed, what it cost, and the milestone that it passed.

# %%
figures.conversion_map(
    LEDGER,
    [
        ("config", "config.json leads to the recipe of stage 7"),
        ("tokenizer", "text comes back and begins with its mark"),
        ("weights", "logits of two libraries, three texts word for word"),
    ],
)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-02",
    {
        "source": SOURCE,
        "ledger": [stage.record() for stage in LEDGER],
        "config": {
            new: [fields["gpt2"].get(old), fields["llama2"][new]] for old, new, _ in TABLE
        },
        "silent_fields": noticed,
        "tokenizer_losses": losses,
        "layout_losses": {" with ".join(what): value for what, value in layout_losses.items()},
        "mistakes": {
            what: {"loss": end_to_end[what], "differs": blamed[what]} for what in blamed
        },
    },
)

# %%
checkpoint.close()

# %% [markdown]
# ## Recap
#
# - Seven changes lead from GPT-2 to Llama 2: **RMSNorm, SiLU, no biases, a gate, a narrower feed-forward, rotary
#   positions, a head of its own.** The plan of the transformer stays.
# - **One change, one milestone**: a reference for the part, a parameter count predicted before it is measured, causality,
#   gradients, a first loss near $\ln V$.
# - Weights belong to their architecture to the last curve. Code is converted; weights are loaded.
# - Five config fields leave no trace in a file: heads, length, epsilon, activation, base. **Read them, never guess.**
# - A rotation fits one order of the query and key rows. Hugging Face's are halves, Meta's are pairs; `argsort` leads back.
# - A large mistake hides a small one from an end-to-end number. **Check each part, with the right input.**
#
# **You can now** convert a model one change at a time; translate its config; predict its size; load its shards into
# code of your own; tell the two layouts apart; and take apart a conversion that somebody made in one go.
#
# **Next:** M9-LAB-03 goes on to Llama 3, 3.1 and 3.2: shared key heads, a larger base, stretched rotations, another
# tokenizer.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · RMSNorm, in half precision, too
#
# Write stage 1's norm as a function. New is the type: real Llamas run in `bfloat16`, numbers with about three digits.
# Llama's rule is: the square and its mean in float32; then back to the type of `x`; and *then* times the weight. The
# check compares to the last bit.

# %% tags=["exercise"]
def rms_norm(x, weight, eps):
    """weight * x / sqrt(mean(x^2) + eps), over the last dimension, in the type of x."""
    raise NotImplementedError


# %% tags=["solution"]
def rms_norm(x, weight, eps):
    precise = x.float()
    precise = precise * torch.rsqrt(precise.pow(2).mean(-1, keepdim=True) + eps)
    return weight * precise.to(x.dtype)


# %%
from course_helpers.labs.lab_02_exercises import check_rms_norm

check_rms_norm(rms_norm)


# %% [markdown]
# ### Exercise 2 · How large is a Llama?
#
# Count the parameters of a Llama from its config alone. `config` has the fields of `config.json` as attributes:
# `vocab_size`, `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`,
# `head_dim`, `tie_word_embeddings`. Two of the checked models have fewer key/value heads than query heads: their key
# and value matrices have `num_key_value_heads * head_dim` outputs.

# %% tags=["exercise"]
def count_parameters(config):
    """All parameters of a Llama, each counted once."""
    raise NotImplementedError


# %% tags=["solution"]
def count_parameters(config):
    width = config.hidden_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * width * queries + 2 * width * keys  # query and output; key and value
    feed_forward = 3 * width * config.intermediate_size
    block = attention + feed_forward + 2 * width  # two norms
    embeddings = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    return embeddings + config.num_hidden_layers * block + width  # and the last norm


# %%
from course_helpers.labs.lab_02_exercises import check_count

check_count(count_parameters)


# %% [markdown]
# ### Exercise 3 · Turn one vector
#
# Rotary positions without a table: turn a single vector `x` of length D for the position at which it stands. Partners
# are *i* and *i + D/2*, and pair *i* turns by `position * theta ** (-2 * i / D)` radians.

# %% tags=["exercise"]
def rotate(x, position, theta):
    """The query or key `x`, turned for its position."""
    raise NotImplementedError


# %% tags=["solution"]
def rotate(x, position, theta):
    head_dim = len(x)
    angle = position * theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    first, second = x[: head_dim // 2], x[head_dim // 2 :]
    return torch.cat(
        (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
    )


# %%
from course_helpers.labs.lab_02_exercises_rotary import check_rotate

check_rotate(rotate)


# %% [markdown]
# ### Exercise 4 · Write a file for Meta's code
#
# M9-CODE-01 read Meta's order; you write it. You get a whole state dict, under Meta's names
# (`layers.0.attention.wq.weight`, ...), with the rows still in Hugging Face's order. Return a new one in which every
# tensor that needs it has been reordered, head by head, and nothing else has. Which ones need it?

# %% tags=["exercise"]
def to_meta(tensors, heads):
    """A new dict: the same tensors, with rows in the order that Meta's rotation wants."""
    raise NotImplementedError


# %% tags=["solution"]
def to_meta(tensors, heads):
    def shuffled(matrix):
        rows, width = matrix.shape
        halves = matrix.view(heads, 2, rows // heads // 2, width)
        return halves.transpose(1, 2).reshape(rows, width)

    turned = ("attention.wq.weight", "attention.wk.weight")
    return {
        name: shuffled(tensor) if name.endswith(turned) else tensor
        for name, tensor in tensors.items()
    }


# %%
from course_helpers.labs.lab_02_exercises_rotary import check_to_meta

check_to_meta(to_meta)
