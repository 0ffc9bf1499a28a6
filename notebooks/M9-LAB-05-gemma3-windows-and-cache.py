# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-05 · Gemma 3: windows, two rotary bases, and a cache that stops growing
#
# | | |
# |---|---|
# | **Objective** | Build Gemma 3 piece by piece, measure what each piece is worth, and evaluate it with and without a KV cache: throughput and memory against the length of the text |
# | **Before this** | M9-LAB-03: you have built a Llama 3 with rotary positions and grouped queries. M9-LAB-04 helps: there the KV cache was new |
# | **Time** | 75 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 9 and 21 |
#
# **At the end you will be able to**
#
# - name everything in which Gemma 3 differs from Llama 3 and Qwen3, and write each piece in a few lines;
# - draw a sliding window, say how far information travels through it, and find a window that is wrong by one;
# - say why near and far layers need different rotary bases, and read off a chart what each base can tell apart;
# - build a ring cache, predict its bytes for any model, and compare pathways fairly: equal prompts, equal settings.

# %%
from course_helpers.labs import lab_05_figures as figures

figures.gemma_idea()

# %% [markdown]
# Most of what a reader needs to understand the next word stands close by. Gemma 3 is built on that: **five of six
# layers see only the last 512 or 1,024 tokens** (a *token* is a piece of text, about a word), and one sees everything.
# The picture shows the gain. For a long text, what a model must keep in memory shrinks to less than a fifth (section
# 12).
#
# The price is care. A window that is wrong, or a cache that forgets the wrong thing, raises no error, and on a short
# text you cannot see it at all. So this lab has three parts: the pieces, the windows, and the cache.

# %% [markdown]
# # Part 1: the pieces
#
# ## 1 · One switch
#
# A small Gemma 3 comes with the lab. To run the same cells on Google's smallest one, set the environment variable
# `COURSE_CHECKPOINTS` to `hub`. That needs an account with the licence accepted, 16 GB of memory, and patience: its
# window is ten times as wide, so every text must be ten times as long.

# %%
import copy
import dataclasses
import os
import textwrap

import torch
import torch.nn.functional as F
from torch import nn

from course_helpers import FAMILIES, generate, load_model, load_tokenizer
from course_helpers.labs import lab_05_charts as charts
from course_helpers.labs import validation_checkpoint
from course_helpers.labs.lab_05 import card_losses, endless, story_rows

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-gemma3", "hub": "google/gemma-3-270m"}[CHECKPOINTS]

model = load_model(SOURCE, dtype=torch.float32)
tokenizer = load_tokenizer(SOURCE)
config, PRESETS = model.config, FAMILIES["gemma3"].presets
print("loading", SOURCE)

# %% [markdown]
# The **config** is the list of numbers in `config.json` that make a pile of matrices one particular model. These are
# the fields to know; a Llama 3 has no windows, one rotary base, and no such scalar:

# %%
FULL, SLIDING = "full_attention", "sliding_attention"
E, W = config.hidden_size, config.sliding_window
H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
near, far, kinds = config.rope(SLIDING), config.rope(FULL), config.layer_types

TO_KNOW = {
    "sliding_window": (W, "how many tokens a local layer sees, the newest included"),
    "layer_types": (f"{kinds.count(SLIDING)} + {kinds.count(FULL)}", "local and global layers"),
    "rope_local_base_freq": (f"{near.rope_theta:,.0f}", "the rotary base of the local layers"),
    "rope_theta": (f"{far.rope_theta:,.0f}", "the rotary base of the global layers"),
    "query_pre_attn_scalar": (config.query_pre_attn_scalar, "scores are divided by its root"),
    "num_key_value_heads": (K, f"key/value heads that the {H} query heads share"),
    "head_dim": (D, f"numbers in a head; {H} x {D} is not the width, {E}"),
}
for name, (value, meaning) in TO_KNOW.items():
    print(f"{name:<23}{value!s:>10}   {meaning}")

# %% [markdown]
# (In the files, local layers are called *sliding*, and global ones *full*. A layer's **attention** compares a *query*
# of each token with the *keys* of others, and takes their *values* in proportion; a **head** is one such comparison
# of its own.) Three things more are in no field at all: the embedding is scaled, the norms count from 1, and there
# are four of them in a layer. A program that forgets the scaling or the 1 loads the weights without a complaint, and
# is wrong.
#
# Texts for all that follows: eight stories that the model has not seen in training, from its card, as token ids.

# %%
rows = story_rows(tokenizer, beyond=W)  # each row longer than the window
ids = endless(rows, 3 * W - 20)  # one text, nearly three windows long
print(f"{len(rows)} texts, all longer than the window of {W} tokens")
print(f"one long text of {ids.shape[1]} tokens, which begins:")
print(textwrap.shorten(tokenizer.decode(rows[0]), 90))


def same(found, expected):
    """Equal but for rounding: no difference is larger than 1e-5 of the largest number."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


# %% [markdown]
# ## 2 · An embedding that is multiplied
#
# The **embedding** is a table with a vector for every token. In Gemma it has two jobs: its rows enter the first
# layer, and at the end they serve as the **output head** (they are *tied*): the last vector is compared with every
# row, which gives the **logits**, the scores of all possible next tokens. The two jobs want numbers of different
# sizes. So on the way in, the rows are multiplied by the root of the width.

# %%
def embed(weight, ids):
    """Rows of the embedding, times the square root of the width."""
    scale = torch.tensor(weight.shape[1] ** 0.5).to(weight.dtype)  # in the weights' type
    return F.embedding(ids, weight) * scale


def size(x):
    """The root of the mean square: how large the numbers are."""
    return x.square().mean().sqrt().item()


weight = model.token_embedding.weight.detach()
print(f"size of the numbers in a row: {size(F.embedding(ids, weight)):.2f}")
print(f"after the scaling:            {size(embed(weight, ids)):.2f}")

# %% [markdown]
# Look at the comment in the code: the factor is *rounded to the type of the weights*. The released weights are
# **bfloat16**, a 16-bit type that keeps 8 significant binary digits. Between 16 and 32 its numbers are 1/8 apart.
#
# **Predict, then run.** The 270M model is 640 wide. What becomes of its factor, √640 = 25.298?

# %%
print(f"{'':<22}{'width':>6}{'exact':>9}{'bfloat16':>10}{'error':>9}")
for name, one in {SOURCE: config, **PRESETS}.items():
    width, exact = one.hidden_size, one.hidden_size**0.5
    rounded = torch.tensor(exact).to(torch.bfloat16).item()
    error = 100 * (rounded / exact - 1)
    print(f"{name:<22}{width:>6}{exact:>9.3f}{rounded:>10.3f}{error:>+7.2f} %")

half = load_model(SOURCE, dtype=torch.bfloat16)
embedded = []
for each in (model, half):
    mine, theirs = embed(each.token_embedding.weight, ids), each.embed(ids, None)
    embedded.append(torch.equal(mine, theirs))
print("\nequals the package's, to the bit, in float32 and in bfloat16:", embedded)

# %% [markdown]
# 25.25: every input a fifth of a percent smaller than exact arithmetic would have it. Whoever computes the factor in
# float32 for a bfloat16 model gets another model: by very little, and for every token.

# %% [markdown]
# ## 3 · Norms that begin at 1, and four of them
#
# A **norm** keeps the numbers on their way through the model at an even size. **RMSNorm** divides a vector by the
# root of its mean square (a small *epsilon* under the root prevents a division by 0), then scales each number by a
# weight. Gemma stores that weight *less 1*: it scales by 1 + w. A fresh weight is 0 and changes nothing, and whatever
# pulls weights towards 0 in training pulls the norm towards doing nothing.

# %%
class Norm(nn.Module):
    """RMSNorm that scales by 1 + weight; all of it in float32, and rounded at the end."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1 + self.weight.float())).to(x.dtype)


ours = Norm(E, config.rms_norm_eps)
normed = []
for each in (model, half):
    theirs = each.blocks[0].attention_norm
    ours.weight.data = theirs.weight.data
    x = each.embed(ids, None)
    normed.append(torch.equal(ours(x), theirs(x)))
print("equals the package's, to the bit, in float32 and in bfloat16:", normed)

# %% [markdown]
# **Predict, then run.** What is the mean of all norm weights in our Gemma's file, and what in a Llama's?

# %%
for name in ("tiny-gemma3", "tiny-llama3"):
    named = load_model(name, dtype=torch.float32).named_parameters()
    norms = torch.cat([parameter for name_of, parameter in named if "norm" in name_of])
    print(f"{name}: {abs(norms.mean().item()):.1f}")

# %% [markdown]
# Near 0 here, near 1 there. The same names, the same shapes: a Llama's norm with these weights multiplies nearly
# everything by nearly nothing. It happens the other way round, too: GGUF files of Gemma hold 1 + w already, and
# programs that add 1 once more have written nonsense (vLLM's pull requests 26189 and 31464). A look at the numbers
# does not always tell: in released models they have moved far (8.7 in a final norm, mold's pull request 1078).
#
# And there are more of them. Beside the norm *before* attention and feed-forward, there is one *after* each, before
# the result is added to the **stream**, the vector that each token carries from layer to layer:

# %%
figures.two_blocks()

# %% [markdown]
# A post-norm sees to it that no layer can shout down the others: whatever attention computes, what is added has the
# size that the norm gives it. (One name is a trap: `post_attention_layernorm` is this norm in Gemma's files, and the
# one *before the feed-forward* in Llama's. M9-CODE-01 has an exercise on it.)
#
# ## 4 · The block
#
# Two more norms sit inside attention: **QK-norm**, for queries and keys, each head on its own (Qwen3 has it as well).
# After it come the **rotary positions**: queries and keys are turned by an angle that grows with their position, so
# that a score depends on how far apart two tokens are. Then scores, mask, softmax (which makes shares of them),
# values.

# %%
from course_helpers.architectures.rope import apply_rotary


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        sizes = (H * D, K * D, K * D)
        self.query, self.key, self.value = (nn.Linear(E, size, bias=False) for size in sizes)
        self.output = nn.Linear(H * D, E, bias=False)
        self.query_norm, self.key_norm = (Norm(D, config.rms_norm_eps) for _ in range(2))
        self.scale = config.query_pre_attn_scalar**-0.5

    def project(self, x, cos, sin):
        """Queries, keys and values by head; the first two normalised and turned."""
        parts = (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(-1, (-1, D)).transpose(1, 2) for part in parts)
        query, key = self.query_norm(query), self.key_norm(key)
        return apply_rotary(query, cos, sin), apply_rotary(key, cos, sin), value

    def forward(self, x, sees, cos, sin):
        query, key, value = self.project(x, cos, sin)
        key, value = (part.repeat_interleave(H // K, dim=1) for part in (key, value))
        scores = (query @ key.transpose(-1, -2)) * self.scale
        shares = scores.masked_fill(~sees, -torch.inf).softmax(-1)
        return self.output((shares @ value).transpose(1, 2).flatten(2))


# %% [markdown]
# `self.scale` is the other novelty. In Llama and Qwen3, scores are divided by the root of the head's size. Here the
# config says by what, and for most released sizes it says the same number. So a program that ignores the field is
# right, until somebody loads the 27B model: heads of 128, a scalar of 168 (its config.json). Our small model differs,
# too, on purpose:

# %%
for name, one in {SOURCE: config, **PRESETS}.items():
    alike = "the same" if one.query_pre_attn_scalar == one.head_dim else "NOT the same"
    scalar = one.query_pre_attn_scalar
    print(f"{name:<22} heads of {one.head_dim:>3}, scalar {scalar:>3}: {alike}")


# %% [markdown]
# The **feed-forward**, which works on each token alone, is gated as in Llama: one projection decides how much of
# another passes. The bend in the gate is not SiLU but **GELU**, and of its two forms the approximate one, with a
# tanh:

# %%
class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(E, config.intermediate_size, bias=False)
        self.up = nn.Linear(E, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, E, bias=False)

    def forward(self, x):
        return self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention, self.feed_forward = Attention(config), FeedForward(config)
        for name in ("attention", "attention_post", "feed_forward", "feed_forward_post"):
            self.add_module(f"{name}_norm", Norm(E, config.rms_norm_eps))

    def forward(self, x, sees, cos, sin):
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), sees, cos, sin))
        return x + self.feed_forward_post_norm(self.feed_forward(self.feed_forward_norm(x)))


# %% [markdown]
# Is it the package's block? We give both the same weights and the same input, with the plain **causal mask**: each
# token sees itself and all before it, none after.

# %%
from course_helpers.architectures.layers import AttentionContext

block = Block(config)
print(block.load_state_dict(model.blocks[0].state_dict()))

length = ids.shape[1]
positions = torch.arange(length)[None]
cos, sin = model.rotation(SLIDING, positions, torch.float32)
context = AttentionContext(positions, is_causal=True, cos_B1TD=cos, sin_B1TD=sin)
causal = torch.ones(length, length).tril().bool()
x = embed(weight, ids)
with torch.no_grad():
    mine = block(x, causal, cos, sin)
    block_is_right = same(mine, model.blocks[0](x, context, None))
print("equals the package's block:", block_is_right)

# %% [markdown]
# **Predict, then run.** All query weights of a layer grow a hundredfold (in a Llama, every score would grow with
# them, and each query would stare at one key). What changes here?

# %%
shouting = copy.deepcopy(block)
with torch.no_grad():
    shouting.attention.query.weight *= 100
    unmoved = same(shouting(x, causal, cos, sin), mine)
print("the same output:", unmoved)

# %% [markdown]
# Nothing: the norm takes the size out again. That is what QK-norm is for; no score can grow without bound.

# %%
passed = all(embedded) and all(normed) and block_is_right and unmoved
validation_checkpoint("M9-LAB-05", "embedding, norms and block are the package's", passed)


# %% [markdown]
# # Part 2: windows
#
# ## 5 · Five near, one far
#
# Every sixth layer is global, the others are local. That is a rule of one line, and it holds for these sizes:

# %%
def layer_plan(layers, period=6):
    """Every sixth layer sees everything."""
    return tuple(SLIDING if number % period else FULL for number in range(1, layers + 1))


follows = []
for name, one in {SOURCE: config, **PRESETS}.items():
    plan = layer_plan(one.num_hidden_layers)
    follows.append(plan == one.layer_types)
    globals_at = [number for number, kind in enumerate(plan, 1) if kind == FULL]
    window = f"window {one.sliding_window:>5}"
    print(f"{name:<22}{len(plan):>3} layers, {window}, global: {globals_at}")
print("as in the configs:", all(follows))


# %% [markdown]
# (26 and 34 layers are no multiple of six: a few local ones are left over at the end.)
#
# Who may look at whom is the **mask**: a square of True and False, a row for each query, a column for each key. To
# the rule "not into the future" a local layer adds "not further back than the window":

# %%
def sees(length, window=None):
    """True where the query (row) may look at the key (column)."""
    query, key = torch.arange(length)[:, None], torch.arange(length)
    past = key <= query
    return past if window is None else past & (query - key < window)


# %% [markdown]
# **Predict, then run.** The window is 4. How many keys does query 11 see, and which is the farthest?

# %%
figures.masks({"global layer": sees(12), "local layer, window 4": sees(12, 4)})

# %% [markdown]
# Four: 8, 9, 10 and 11. **The window counts the query itself.** Others count differently: flash-attention's
# `window_size` says how many keys are seen *beside* the query, so there this window is written (3, 0). Who mixes up
# the two is off by one; section 9 shows what that looks like. The package's mask, beside ours:

# %%
from course_helpers.architectures.cache import attention_mask


def package_mask(length, window):
    """The package's mask; it makes none where the plain causal one will do."""
    mask, is_causal = attention_mask(0, length, None, torch.device("cpu"), window)
    return sees(length) if is_causal else mask[0, 0]


pairs = [(length, window) for length in range(2, 30) for window in (1, 2, 5, 13, 29, 40, None)]
same_masks = [torch.equal(sees(*pair), package_mask(*pair)) for pair in pairs]
print(f"{sum(same_masks)} of {len(same_masks)} masks are equal")


# %% [markdown]
# ## 6 · Two rotary bases
#
# Rotary positions (**RoPE**) turn the numbers of a query or key in pairs. Each **pair** turns at a speed of its own:
# the first by one radian a position, each later one more slowly, down to almost nothing. How slow the last ones get
# is set by the **base**. Gemma 3 has two: 10,000 in the local layers, 1,000,000 in the global ones, and from the 4B
# size on all pairs of the global layers are slowed by 8 besides.

# %%
def frequencies(base, head_dim, slowed_by=1.0):
    """Radians a position by which each pair turns."""
    return 1.0 / base ** (torch.arange(0, head_dim, 2) / head_dim) / slowed_by


def rotation(base, length):
    """cos and sin of every position's angles, each angle for both numbers of its pair."""
    angles = torch.arange(length)[:, None] * frequencies(base, D)
    angles = torch.cat((angles, angles), dim=-1)[None, None]
    return angles.cos(), angles.sin()


BASE = {SLIDING: 10_000.0, FULL: 1_000_000.0}
large = PRESETS["google/gemma-3-4b-pt"]
package = {kind: model.rotary_embeddings[kind].inverse_frequencies for kind in BASE}
same_bases = [same(frequencies(BASE[kind], D), package[kind]) for kind in BASE]
slowed = large.rope(FULL).inverse_frequencies(large.head_dim)[0]
same_bases.append(same(frequencies(BASE[FULL], large.head_dim, slowed_by=8), slowed))
print("local, global, and global of the 4B model:", same_bases)

# %% [markdown]
# Why two? A pair that has made a full turn is back where it was: it shows the same angle for several distances, like
# a clock without a date. To know *how far* away a token is, a layer needs pairs that do not come round within what it
# sees. But pairs that hardly move say nothing about neighbours.
#
# **Predict, then run.** Take the sizes of the 270M model: heads of 256 (128 pairs), windows of 512, texts up to
# 32,768. About how many of the 128 pairs do not come round within the whole text, with the local base, and with the
# global one: 10, 50 or 100?

# %%
small = PRESETS["google/gemma-3-270m"]
REACH = {"a window": small.sliding_window, "the longest text": small.max_position_embeddings}

turns_in = {}
for name, kind in (("local layers", SLIDING), ("global layers", FULL)):
    turns_in[f"{name}, base {BASE[kind]:,.0f}"] = frequencies(BASE[kind], small.head_dim)
for name, frequency in turns_in.items():
    turn = 2 * torch.pi / frequency  # positions for a full turn
    counts = [f"{int((turn > reach).sum()):>3} in {what}" for what, reach in REACH.items()]
    print(f"{name:<30} pairs that do not come round: {', '.join(counts)}")

charts.wavelengths(turns_in, *REACH.values())

# %% [markdown]
# With the local base 9 pairs could tell all positions of a long text apart, with the global one 48. Within a window
# the local base has 66 slow pairs, which is plenty, and 62 quick ones for the neighbours. **Each layer gets the clock
# that fits what it sees.** (The numbers are in the Gemma 3 report, arXiv 2503.19786: trained on texts of 32,768
# tokens, and from 4B up the global layers then slowed by 8, to reach 131,072.)

# %% [markdown]
# ## 7 · The whole model
#
# All pieces are there. A mask and a rotation for each kind of layer, made once; then layer after layer; a last norm,
# and the embedding as the head.

# %%
blocks = []
for theirs in model.blocks:
    block = Block(config)
    block.load_state_dict(theirs.state_dict())
    blocks.append(block)
final_norm = Norm(E, config.rms_norm_eps)
final_norm.load_state_dict(model.final_norm.state_dict())


@torch.no_grad()
def logits_of(ids):
    """Token ids (1, T) -> logits (1, T, V)."""
    length = ids.shape[1]
    looks = {SLIDING: sees(length, W), FULL: sees(length)}
    turns = {kind: rotation(BASE[kind], length) for kind in BASE}
    x = embed(weight, ids)
    for block, kind in zip(blocks, layer_plan(len(blocks)), strict=True):
        x = block(x, looks[kind], *turns[kind])
    return final_norm(x) @ weight.T


# %% [markdown]
# The text is nearly three windows long: on a short one, the windows would not be tested.

# %%
with torch.no_grad():
    logits = model(ids)
whole = same(logits_of(ids), logits)
print("equals the package's model:", whole)


def tell(model, new_tokens=2 * W + 14, **options):
    """Greedy text: always the likeliest next token, so the same text every time."""
    prompt, stop = [tokenizer.encode("Once upon a time")], tokenizer.stop_ids
    return tokenizer.decode(generate(model, prompt, new_tokens, stop_ids=stop, **options)[0])


right_text = tell(model)
print(textwrap.fill(right_text, 100))

passed = whole and all(follows) and all(same_masks) and all(same_bases)
validation_checkpoint("M9-LAB-05", "our Gemma 3 computes what the package's computes", passed)

# %% [markdown]
# (The package's model itself is compared with Hugging Face's Transformers, windows and caches included, by the tests
# of this repository.)
#
# ## 8 · How far it sees
#
# A local layer sees one window. But what it passes on has been gathered from the window of each token that it saw, so
# the next layer knows of more. A global layer at the end sees everything at once.
#
# **Predict, then run.** With a window of 5: how many positions does the newest one know of after two local layers,
# and after five?

# %%
T, window = 30, 5
knows = torch.eye(T).bool()  # before the first layer: each position of itself
after = []
for kind in layer_plan(6):
    mask = sees(T, window if kind == SLIDING else None)
    knows = (mask.float() @ knows.float()) > 0  # of all that those know of whom it sees
    after.append(knows[-1])

figures.reach(torch.stack(after), layer_plan(6), window)

# %% [markdown]
# 9 and 21: each layer adds *W - 1*, since the farthest position of one window is the nearest of the next.
#
# Does the real model keep to that? The **gradient** tells: how much the newest position's vector would change if that
# of an earlier position did. If nothing connects them, it is not small but *exactly* 0. We take 64-bit numbers, so
# that nothing small is lost.

# %%
T = 6 * W
plan = layer_plan(len(blocks))[:6]
looks = {kind: sees(T, W if kind == SLIDING else None) for kind in BASE}
turns = {kind: rotation(BASE[kind], T) for kind in BASE}
start = embed(weight, endless(rows, T)).double()
generator = torch.Generator().manual_seed(0)
direction = torch.randn(E, dtype=torch.float64, generator=generator)

curves = []
for depth in range(1, 7):
    x = first = start.clone().requires_grad_()
    for block, kind in zip(blocks[:depth], plan, strict=False):
        x = copy.deepcopy(block).double()(x, looks[kind], *turns[kind])
    (gradient,) = torch.autograd.grad((x[0, -1] * direction).sum(), first)
    curves.append(gradient[0].norm(dim=-1).flip(0).tolist())  # by the distance back

# %%
farthest = [max(back for back, value in enumerate(curve) if value > 0) for curve in curves]
predicted = [depth * (W - 1) for depth in range(1, 6)] + [T - 1]
print("farthest position that matters, predicted:", predicted)
print("                                measured: ", farthest)
whisper = max(curves[4][4 * (W - 1) + 1 :]) / max(curves[4][:W])
print("beyond four windows, less than 1/10,000 of what neighbours say:", whisper < 1e-4)
validation_checkpoint(
    "M9-LAB-05", "each local layer adds window - 1", farthest == predicted, str(farthest)
)
charts.influence(curves, plan, W)

# %% [markdown]
# To the position. Note the scale, though: what arrives over four or five windows is a whisper. **That a model could
# know of something five windows away does not mean that it hears it.** Far things come through the global layer,
# whose line stays high.

# %% [markdown]
# ## 9 · What each piece is worth
#
# Now we leave the pieces out, or get them slightly wrong, one at a time. What would tell you? Not the loader. Here is
# a window that is one too wide:

# %%
from course_helpers.architectures.gemma3 import Gemma3Model

wider = Gemma3Model(dataclasses.replace(config, sliding_window=W + 1))
print("one too wide:", wider.load_state_dict(model.state_dict(), strict=True))

# %% [markdown]
# All others load as silently. We try these: an embedding that is not scaled, norms without their 1, norms left out,
# other bends in the feed-forward, wrong windows, wrong plans of layers, exchanged bases, a wrong scale of the scores.
# Three things could still tell:
#
# - the **loss** on the eight stories: the mean surprise per token, in *nats* (the negative logarithm of the
#   probability that the model gave to the token that came). To two decimals, as people print it;
# - a **short test**: the logits of the first tokens, fewer than a window;
# - the **card**: the loss of *each text*, noted when the model was made, to be met within 0.0005 nats.
#
# **Predict, then run.** What does most harm: no scaling, no 1 in the norms, or exchanged bases? Which faults can a
# short test never see?

# %%
from course_helpers.labs.lab_05_faults import TOLERANCE, damage, read

right = read(model, rows, short=W - 8)
noted = card_losses() if CHECKPOINTS == "bundled" else right.losses  # no card on the hub
pairs = zip(right.losses, noted, strict=True)
meets = max(abs(loss - on_card) for loss, on_card in pairs) < TOLERANCE
print("the right model meets its card:", meets)

# %%
from course_helpers.labs.lab_05_faults import code_faults, config_faults

faults = code_faults() | config_faults(model)
found = damage(model, faults, rows, short=W - 8)

print(f"{'right model':<36}loss {right.loss:5.2f}")
for name, one in found.items():
    short, card = ("seen" if seen else "-" for seen in (one.short, one.on_card))
    print(f"{name:<36}loss {one.loss:5.2f}   short test: {short:<5} card: {card}")

# %%
charts.damages(found, right.loss)

# %% [markdown]
# Read it from both ends.
#
# - **Loud**: norms without their 1, no scaling, no post-norms. Any test finds them.
# - **Quiet**: the wrong scale of the scores, another bend. The loss printed to two decimals hides them.
# - **Silent on short texts**: the width of the window, as long as the test is shorter than the window. *Ignoring it
#   altogether* doubles the loss, and yet a test on one sentence passes.
#
# The window that is wrong by one deserves a closer look. **Predict, then run.** From which position on do the logits
# differ? And does the story that the model writes?

# %%
for name in ("window: one too wide", "window: one too narrow"):
    wrong = faults[name](model)
    with torch.no_grad():
        apart = (wrong(ids) - logits)[0].abs().amax(-1)  # by position
    first = int((apart > 1e-3).nonzero()[0])
    print(f"{name}, where the window is {W}")
    before = bool((apart[:first] == 0).all())
    print(f"  equal to the last bit before position {first}:        ", before)
    print("  then a logit moves by more than 0.5:             ", bool(apart.max() > 0.5))
    print("  another token is the likeliest at fewer than 1 %:", found[name].changed < 0.01)
    print("  the story is the same, word for word:            ", tell(wrong) == right_text)
    print("  the loss is lower than the right model's:        ", found[name].loss < right.loss)

# %% [markdown]
# Logits move, and yet the story is the same, and of the two wrong windows one even has a *lower* loss on these texts.
# **A good text and a good loss prove no window.** What does: an exact comparison, with a reference or with numbers
# that somebody has vouched for, on texts *longer than the window*.

# %%
silent = {name for name, one in found.items() if not one.short}
width_faults = {"window: one too wide", "window: one too narrow", "window: ignored"}
passed = meets and silent == width_faults and all(one.on_card for one in found.values())
validation_checkpoint(
    "M9-LAB-05", "window faults hide from short texts, not from the card", passed, str(silent)
)


# %% [markdown]
# # Part 3: the cache
#
# ## 10 · A cache that stops growing
#
# A reminder of M9-LAB-04. To write a token, each layer needs the keys and values of all tokens before it. They never
# change, so they are kept: the **KV cache**. The prompt is read in one pass (**prefill**), then tokens are written
# one by one (**decoding**), and the cache grows with every token, in every layer.
#
# But a local layer never looks further back than its window. What has left the window is kept for nobody. So we take
# just *W* slots, and let position *p* lie in slot *p mod W* (the remainder of the division by *W*): a **ring**. A new
# position takes the place of the one that has just left the window.
#
# **Predict, then run.** A ring of 4 slots. Position 10 comes. Into which slot does it go, and which one must leave?

# %%
class Ring:
    """What a local layer keeps of the last `window` positions."""

    def __init__(self, window, *shape):
        self.slots = torch.zeros(window, *shape)
        self.held = [None] * window  # which position lies in which slot

    def write(self, position, vector):
        slot = position % len(self.held)
        self.slots[slot] = vector
        self.held[slot] = position


ring, history = Ring(4), []
for position in range(12):
    ring.write(position, torch.tensor(float(position)))
    history.append(list(ring.held))
figures.ring_over_time(history)

# %% [markdown]
# Slot 2, and 6 leaves: from then on the ring holds 7, 8, 9 and 10, which is what query 10 sees. Nothing is moved, and
# nothing is allocated.
#
# Now with real keys. The package's ring is a layer of the cache that `make_cache` builds; `update` stores keys and
# values and returns those to be looked at, and `advance` says that a token went through.

# %%
with torch.no_grad():
    x = blocks[0].attention_norm(embed(weight, ids))
    cos, sin = rotation(BASE[SLIDING], ids.shape[1])
    query, key, value = blocks[0].attention.project(x, cos, sin)

cache = model.make_cache(batch_size=1, max_length=ids.shape[1])
layer, keys, values = cache.layers[0], Ring(W, K, D), Ring(W, K, D)
steps = []
for at in range(ids.shape[1]):
    layer.update(key[:, :, at : at + 1], value[:, :, at : at + 1])
    cache.advance(1, None)
    keys.write(at, key[0, :, at])
    values.write(at, value[0, :, at])
    kept = layer.key_BKSD[0].transpose(0, 1), layer.value_BKSD[0].transpose(0, 1)
    steps.append(torch.equal(keys.slots, kept[0]) and torch.equal(values.slots, kept[1]))
print(f"our ring and the package's, slot by slot: equal in {sum(steps)} of {len(steps)} steps")
print("keys in the ring now:", tuple(kept[0].shape))


# %% [markdown]
# In the ring the keys lie in a jumble: the newest is somewhere in the middle. **Predict, then run.** Must they be
# sorted before attention?

# %%
def attend(query, key, value):
    """One query of head 0 over keys and values (S, D)."""
    return ((query @ key.T) * blocks[0].attention.scale).softmax(-1) @ value


newest = query[0, 0, -1]
in_order = attend(newest, key[0, 0, -W:], value[0, 0, -W:])
as_it_lies = attend(newest, keys.slots[:, 0], values.slots[:, 0])
order_is_free = same(as_it_lies, in_order)
print(f"slots 0 to {W - 1} hold the positions {keys.held[0]} ... {keys.held[-1]};", end=" ")
print(f"the newest, {max(keys.held)}, lies in slot {keys.held.index(max(keys.held))}")
print("the same result:", order_is_free)

# %% [markdown]
# No: attention is a sum over keys, and a sum has no order. Where a key stood in the text is written *into the key*,
# which was turned by its position before it was stored. (Remember this for the next section.)
#
# A prompt of many tokens comes in one piece. Then the early queries of the piece need keys that the late ones
# overwrite.
#
# **Predict, then run.** Into an empty ring comes a prompt of W + 20 tokens, then a piece of 10. How many keys must
# attention be given each time, and how many are kept?

# %%
cache = model.make_cache(batch_size=1, max_length=ids.shape[1])
layer, at = cache.layers[0], 0
for tokens in (W + 20, 10, 1):
    given, _ = layer.update(key[:, :, at : at + tokens], value[:, :, at : at + tokens])
    cache.advance(tokens, None)
    at += tokens
    keys_given = given.shape[2]
    print(f"a piece of {tokens:>2}: attention is given {keys_given} keys, W + {keys_given - W}")
print(f"slots in the ring, as before: {layer.size}, W")

# %% [markdown]
# The piece itself, and before it the *W - 1* positions that its first query still sees (a single token finds them in
# the ring, with its own). Kept is one window.
#
# Is the result always the same? We send the long text through the model in one pass without a cache, and through the
# cache in pieces of different lengths. In 64-bit numbers, since a mistake stays a mistake, and rounding all but
# vanishes.

# %%
exact = copy.deepcopy(model).double()
with torch.no_grad():
    in_one_pass = exact(ids)

agree = {}
for piece in (1, 7, W, W + 2):
    cache = exact.make_cache(batch_size=1, max_length=ids.shape[1])
    with torch.no_grad():
        parts = [exact(part, cache=cache) for part in ids.split(piece, dim=1)]
    agree[piece] = bool((torch.cat(parts, dim=1) - in_one_pass).abs().max() < 1e-5)
    print(f"pieces of {piece:>3} tokens: all logits within 1e-5: {agree[piece]}")

passed = all(steps) and order_is_free and all(agree.values())
validation_checkpoint(
    "M9-LAB-05", "the ring is the package's, and loses nothing that is needed", passed
)

# %% [markdown]
# ## 11 · Four broken rings
#
# The cached pathway has mistakes of its own, which no test of the uncached model can find. We decode a text that is
# 12 tokens longer than the window, with caches that are broken in one way each:
#
# - **one slot too few**: a ring of W - 1;
# - **window forgotten**: the prompt is masked rightly, but while decoding a local layer looks at all that is kept;
# - **wrong slot**: the new position takes the place of one that is still needed;
# - **turned by the slot**: keys and queries are turned by *p mod W* in place of *p*.
#
# **Predict, then run.** At which position does each one first give wrong logits? (Positions count from 0.)

# %%
from course_helpers.labs.lab_05 import broken_caches, decoded_logits, first_wrong

text = ids[:, : W + 12]
first = {}
for what, decoder, cache in broken_caches(exact, W + 12):
    decoded = decoded_logits(decoder, text, cache, prefill=W - 4)
    first[what] = first_wrong(decoded, in_one_pass[0, : W + 12])
    print(f"broken: {what:<38} first wrong position: {first[what]}")

# %% [markdown]
# Position W - 1 is the first that needs a full window, position W the first that something must leave for. **Every
# test of a sliding cache must decode past the window**; a quick look at a short answer ends before. And this is what
# it looks like when nobody does, with the rotation by slots:

# %%
from course_helpers.labs.lab_05 import turned_by_slot

told = tell(turned_by_slot(model))
words = zip(told.split(), right_text.split(), strict=False)
different = [number for number, (one, other) in enumerate(words) if one != other]
print(textwrap.fill(told, 100))
print(f"\nthe first {different[0]} words are those of the right text")

# %% [markdown]
# It begins well, every quick look approves, and then it loses the thread. When a model is good for a page and strange
# afterwards, ask where its window ends.

# %%
as_predicted = list(first.values()) == [None, W - 1, W, W, W]
validation_checkpoint(
    "M9-LAB-05", "broken rings show at the window, not before", as_predicted, str(first)
)


# %% [markdown]
# ## 12 · What it saves
#
# Bytes of a cache: 2 (keys and values) × key/value heads × head size × bytes a number, for every position that a
# layer keeps. With rings, a local layer keeps the text or the window, whichever is shorter.

# %%
def cache_positions(config, length, rings=True):
    """Positions kept, all layers together."""
    local = min(length, config.sliding_window) if rings else length
    return sum(local if kind == SLIDING else length for kind in config.layer_types)


def cache_size(config, length, each, rings=True):
    """Bytes of the cache for one text; `each`: bytes of one number."""
    per_position = 2 * config.num_key_value_heads * config.head_dim * each
    return per_position * cache_positions(config, length, rings)


# %% [markdown]
# The same formula, and caches that are really made. Beside the package's there is one without rings (`full_cache`:
# every layer keeps all positions, and a local one is shown the last *W* of them, so it gives the same answers).

# %%
from course_helpers.labs.lab_05 import full_cache

lengths = [W // 2, W, 2 * W, 4 * W, 8 * W, 16 * W, 21 * W]
NAMES = {"every layer keeps all": False, "ring in the local layers": True}
formula = {
    name: [cache_size(config, length, 4, rings) for length in lengths]
    for name, rings in NAMES.items()
}
held = {
    "every layer keeps all": [full_cache(model, length).nbytes for length in lengths],
    "ring in the local layers": [model.make_cache(1, length).nbytes for length in lengths],
}
bytes_agree = formula == held
print("predicted to the byte, for", sum(map(len, held.values())), "caches:", bytes_agree)
charts.cache_growth(lengths, held, formula, f"{SOURCE}, float32: marks made, lines computed")

# %% [markdown]
# Up to the window the two are one. Beyond it, five of six layers stop growing and the sixth goes on: the line still
# rises, at a sixth of the slope.
#
# **Predict, then run.** The released gemma-3-1b has 26 layers, of which 4 are global, one key/value head of 256 and a
# window of 512. For a text of 32,768 tokens in bfloat16, its cache without rings would take 832 MiB. And with them?

# %%
from course_helpers.memory import kv_cache_bytes

MIB, LONG = 2**20, 32_768
released = {}
for name, one in PRESETS.items():
    released[name] = cache_size(one, LONG, 2, rings=False), cache_size(one, LONG, 2)
    full, ring = (size / MIB for size in released[name])
    share = one.layer_types.count(FULL) * LONG / cache_positions(one, LONG)
    saved = f"{full / ring:.1f} times less, {share:.0%} of it in the global layers"
    print(f"{name:<22}{full:>6,.0f} MiB, with rings {ring:>4,.0f}: {saved}")
agree = [kv_cache_bytes(one, LONG) == released[name][1] for name, one in PRESETS.items()]
print("the package's formula agrees:", all(agree))

# %%
charts.released_caches(released, LONG)

# %% [markdown]
# 139 MiB: 128 for the four global layers, 11 for the twenty-two local ones. However long the text, the saving stays
# below layers divided by global layers, 26 / 4 = 6.5. **What is left of the cache is nearly all in the global
# layers.**

# %%
passed = bytes_agree and all(agree)
validation_checkpoint("M9-LAB-05", "cache bytes as predicted, to the byte", passed)

# %% [markdown]
# ## 13 · The race: with and without a cache
#
# A fair comparison changes one thing and holds all others: **the same prompts, the same number of new tokens, the
# same way to choose them (greedy), the same type, the same machine**. And the texts must come out equal; otherwise we
# compare two different models. Three pathways:
#
# - **no cache**: for every new token the whole text is computed again;
# - **every layer keeps all**: a cache without rings;
# - **ring in the local layers**: Gemma's.
#
# Prefill and decoding are timed apart: all three must read the prompt once, so a mean over both would hide what we
# want to see. Memory is counted, not sampled: the cache's bytes, and all tensors alive at the same time while one
# token is made.
#
# **Predict, then run.** How do the three lines run as the prompt grows, for speed and for memory?

# %% tags=["nbval-ignore-output"]
from course_helpers.labs.lab_05 import race

PROMPTS = [W // 2, W, 2 * W, 4 * W, 8 * W, 16 * W][: 6 if CHECKPOINTS == "bundled" else 3]
race(model, rows, PROMPTS[:1], new_tokens=3)  # once for nothing: first calls are slow
runs = race(model, rows, PROMPTS, new_tokens=4, rounds=3)  # the best of three
print(f"{'the longest prompt':<26}{'first token':>13}{'then':>18}{'held':>14}")
for name, by_length in runs.items():
    one = by_length[PROMPTS[-1]]
    speed = f"{one.tokens_per_second:,.0f} tokens/s"
    kib = one.held_bytes / 1024
    print(f"{name:<26}{1000 * one.first_seconds:>10.0f} ms{speed:>18}{kib:>10,.0f} KiB")

# %% tags=["nbval-ignore-output"]
charts.race(runs)

# %% [markdown]
# - **Speed**: without a cache every token costs more than the one before. With one, a token costs about the same
#   however long the text is, with or without rings: either way a local layer looks at one window.
# - **Memory**: both caches hold far less than the pathway without one, which must carry the whole text through every
#   layer at once. Between the two caches, the ring pulls away as soon as the window is full.
#
# These are the lines of a small model on one CPU. On another machine, and for a large model, they bend elsewhere.
# Measure on the machine that you mean.

# %%
texts_equal = all(len({runs[name][length].ids for name in runs}) == 1 for length in PROMPTS)
beyond = sum(length > W for length in PROMPTS)
print("all three wrote the same tokens:", texts_equal)
print(f"prompts longer than the window:  {beyond} of {len(PROMPTS)}")

longest = {name: by_length[PROMPTS[-1]] for name, by_length in runs.items()}
held_bytes = [one.held_bytes for one in longest.values()]
print("memory, from most to least:", " > ".join(longest))
fair = texts_equal and held_bytes == sorted(held_bytes, reverse=True)

stories = {tell(model, new_tokens=W + 20, use_cache=use) for use in (True, False)}
print("the story is the same with and without a cache:", len(stories) == 1)
passed = fair and len(stories) == 1
validation_checkpoint("M9-LAB-05", "equal texts on every pathway; the ring holds least", passed)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-05",
    {
        "source": SOURCE,
        "window": W,
        "damage": {
            "right loss": right.loss,
            **{name: dataclasses.asdict(one) for name, one in found.items()},
        },
        "influence": {"farthest": farthest, "curves": curves},
        "first wrong position": first,
        "cache bytes": {"lengths": lengths, **held},
        "released caches at 32768": {
            name: {"full": full, "ring": ring} for name, (full, ring) in released.items()
        },
        "race": {
            name: {length: dataclasses.asdict(one) for length, one in by_length.items()}
            for name, by_length in runs.items()
        },
    },
)

# %% [markdown]
# ## Recap
#
# - Gemma 3 is a Llama with an embedding that is scaled (and the factor rounded), norms that scale by 1 + w, four of
#   them a block, QK-norm, a scale of the scores from the config, GELU, windows, and two rotary bases. Of all
#   this, the tensors show only that there are more norms.
# - A window of *W* counts the query itself. Each local layer adds *W - 1* positions to what the newest one knows of;
#   the far ones arrive as a whisper.
# - The local base turns fast enough for neighbours, the global one slowly enough for the whole text.
# - Window and ring faults are equal to the last bit until the window is full. Test beyond it, and exactly.
# - A ring of one window replaces the cache of a local layer: position *p* in slot *p mod W*, in any order, since a
#   key knows its place. The global layers go on growing.
# - Equal prompts, equal settings, equal texts: then, and only then, compare speed and memory.
#
# **You can now** build a Gemma 3 from its config and defend every line; find a window that is wrong by one; predict
# its cache to the byte for any length; and run a comparison of pathways that a sceptic will accept.
#
# **Next:** M9-LAB-06 meets the same windows in OLMo 3, with norms in other places and YaRN in the global layers only.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The mask of a local layer
#
# Write it without looking at section 5: a tensor of True and False, `length` x `length`, a row for each query, True
# where it may look.

# %% tags=["exercise"]
def sliding_mask(length, window):
    """Who sees whom in a layer whose queries see `window` positions, their own included."""
    raise NotImplementedError


# %% tags=["solution"]
def sliding_mask(length, window):
    back = torch.arange(length)[:, None] - torch.arange(length)  # how far back each key lies
    return (back >= 0) & (back < window)


# %%
from course_helpers.labs.lab_05_exercises import check_sliding_mask

check_sliding_mask(sliding_mask)


# %% [markdown]
# ### Exercise 2 · The cache of any mixture of layers
#
# Bytes of the cache for one text of `length` tokens, as in section 12, but for a model whose layers follow no rule:
# `config.layer_types` says of each whether it is `"sliding_attention"` or `"full_attention"`. The text may be shorter
# than the window, too.

# %% tags=["exercise"]
def cache_bytes(config, length, bytes_each):
    """Bytes of keys and values for one text; `bytes_each` is what one number takes."""
    raise NotImplementedError


# %% tags=["solution"]
def cache_bytes(config, length, bytes_each):
    kept = 0
    for kind in config.layer_types:
        kept += min(length, config.sliding_window) if kind == "sliding_attention" else length
    return 2 * config.num_key_value_heads * config.head_dim * kept * bytes_each


# %%
from course_helpers.labs.lab_05_exercises import check_cache_bytes

check_cache_bytes(cache_bytes)


# %% [markdown]
# ### Exercise 3 · A ring that takes whole pieces
#
# Section 10's ring took one position at a time. Write one that takes any piece, a prompt longer than the ring
# included, and that can be read in the order of the text.
#
# - `write(slots, start, new)`: `new` (tokens, D) are the vectors of the positions `start`, `start + 1`, and so on.
#   Put them where they belong in `slots` (W, D), in place. Of a long piece only the last W are to be kept.
# - `read(slots, length)`: `length` positions have been written in all. Return those that are kept, oldest first, in a
#   new tensor.

# %% tags=["exercise"]
def write(slots, start, new):
    """Store a piece of any length in the ring `slots`."""
    raise NotImplementedError


def read(slots, length):
    """What the ring keeps after `length` positions, in the order of the text."""
    raise NotImplementedError


# %% tags=["solution"]
def write(slots, start, new):
    window, end = len(slots), start + len(new)
    stay = new[-window:]  # what would be overwritten at once is not written at all
    slots[torch.arange(end - len(stay), end) % window] = stay


def read(slots, length):
    window = len(slots)
    oldest = max(0, length - window)
    return slots[torch.arange(oldest, length) % window]  # an index of this kind makes a copy


# %%
from course_helpers.labs.lab_05_exercises import check_ring

check_ring(write, read)
