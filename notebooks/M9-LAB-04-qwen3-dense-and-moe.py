# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-04 · Qwen3, dense and mixture of experts, with and without cache
#
# | | |
# |---|---|
# | **Objective** | Run and compare Qwen3's four variants under shared prompts: dense and mixture of experts, each without and with a KV cache; know what each one computes, keeps and holds |
# | **Before this** | M9-LAB-03: you know grouped queries, the RoPE base and the tied head |
# | **Time** | 60 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 9 and 20 |
#
# **At the end you will be able to**
#
# - say what Qwen3 changes in Llama 3's attention, and show what QK-norm protects from;
# - write a KV cache, and predict what it saves in work and what it costs in memory;
# - write a mixture-of-experts layer, and count the parameters it holds and those that one token uses;
# - read a router: which expert gets which tokens, and how evenly the work is shared;
# - compare variants fairly: same prompts, same settings, same texts, then speed and memory.

# %%
from course_helpers.labs import lab_04_charts as charts
from course_helpers.labs import lab_04_figures as figures

figures.four_variants()

# %% [markdown]
# Two ideas that have nothing to do with each other, so there are four combinations. A **KV cache** saves work on *tokens*: what
# was computed for earlier tokens is kept. A **mixture of experts** (MoE) saves work on *weights*: a layer holds many small
# feed-forwards, and each token goes through a few of them. Qwen3 comes dense and as a mixture, and both run with or without a
# cache. We build both ideas, and fill one table with all four.

# %% [markdown]
# ## 1 · One switch, two models
#
# Both models come with the lab. They learned the same stories and have the same tokenizer. With a network, set the environment
# variable `COURSE_CHECKPOINTS` to `hub`, and the dense one is Qwen's own (8 GB of memory). The released mixture takes 61 GB
# in 16 bits and twice as much here: if you have that, write its name into the dictionary.

# %%
import copy
import json
import math
import os
import textwrap

import torch
import torch.nn.functional as F

from course_helpers import CheckpointError, generate, load_model, load_tokenizer
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {
    "bundled": {"dense": "tiny-qwen3", "MoE": "tiny-qwen3-moe"},
    "hub": {"dense": "Qwen/Qwen3-0.6B", "MoE": "tiny-qwen3-moe"},  # or "Qwen/Qwen3-30B-A3B"
}[CHECKPOINTS]
NEW_TOKENS = {"bundled": 140, "hub": 24}[CHECKPOINTS]

# %%
models = {kind: load_model(source, dtype=torch.float32) for kind, source in SOURCE.items()}
tokenizers = {kind: load_tokenizer(source) for kind, source in SOURCE.items()}
dense, moe = models["dense"], models["MoE"]
card = json.loads((resolve("tiny-qwen3-moe") / "card.json").read_text())
STORIES = card["baseline"]["texts"]  # stories that neither model has seen in training
for kind, model in models.items():
    print(f"{kind:<6} {SOURCE[kind]:<15} {model.num_parameters():>10,} parameters")

# %% [markdown]
# The **config** says how a model is built. Side by side, with a reminder of what each number means:

# %%
MEANING = {
    "hidden_size": "width: numbers that stand for one token",
    "num_hidden_layers": "layers, one after the other",
    "num_attention_heads": "query heads: attention done several times in parallel",
    "num_key_value_heads": "key/value heads, which the query heads share",
    "head_dim": "numbers in one head",
    "rope_theta": "how slowly queries and keys turn with their position",
    "tie_word_embeddings": "the output head is the token embedding, used again",
    "intermediate_size": "inner width of an ordinary feed-forward",
    "num_experts": "small feed-forwards in each layer",
    "num_experts_per_tok": "of which each token uses so many",
    "moe_intermediate_size": "inner width of one expert",
    "norm_topk_prob": "whether the weights of those asked are scaled to sum to 1",
}
configs = {kind: model.config.to_hf() for kind, model in models.items()}
print(f"{'':<22}{'dense':>10}{'MoE':>11}")
for name, meaning in MEANING.items():
    one, other = (str(config.get(name, "-")) for config in configs.values())
    print(f"{name:<22}{one:>10}{other:>11}   {meaning}")

# %% [markdown]
# Eight experts, each a third as wide as an ordinary feed-forward, two of them asked for each token. (`intermediate_size` is for
# layers without experts; this mixture has none.) Everything above the last four lines has nothing to do with experts.
#
# The table that this lab fills: parameters **held** in memory, parameters **active** for one token, how many **texts** are alike
# with and without cache, **vectors** computed to write up to the 50th token, and the bytes of a **cache** for 256 tokens. Beside
# it grows a list of **checks**, the same for both models.

# %%
from course_helpers.labs.lab_04 import variant_table

COLUMNS = ("held", "active", "texts", "vectors", "cache bytes")
variants = {
    f"{kind}{cache}": {"held": model.num_parameters()}
    for kind, model in models.items()
    for cache in ("", " + cache")
}
checks = {kind: {} for kind in models}  # what must hold: whether it does
print(variant_table(variants, COLUMNS))

# %% [markdown]
# ### The shared prompts
#
# A comparison is fair if only one thing differs. So all variants get the same three prompts and the same settings: **greedy**
# (always the likeliest next token, so that nothing is left to chance), as many new tokens at most, the same **stop id** (the
# token that ends a text). They run here, with a clock beside them; the lab looks at texts, work, memory and speed in turn.
#
# With and without cache, nothing else differs, and texts must be equal. Dense and mixture differ in their width, too, so we compare
# their sizes, work and loss, and not their texts.

# %%
from course_helpers.labs.lab_04 import decode_all

PROMPTS = ("Once upon a time", "One sunny morning", "Mia had a red kite")

prompts, runs = {}, {}
for kind, model in models.items():
    tokenizer = tokenizers[kind]
    prompts[kind] = [tokenizer.encode(prompt) for prompt in PROMPTS]
    for name, use_cache in ((kind, False), (f"{kind} + cache", True)):
        settings = NEW_TOKENS, tokenizer.stop_ids
        runs[name] = decode_all(model, prompts[kind], *settings, use_cache=use_cache)

for name in ("dense", "MoE"):
    text = tokenizers[name].decode(runs[name].ids[0])
    print(textwrap.fill(f"{name}: {text}", 96), "\n")

# %% [markdown]
# ## 2 · Heads wider than the model
#
# In GPT-2 and Llama the heads share the width out: head size = width / heads. Many programs compute it so, and never ask.
#
# **Predict, then run.** Our dense model is 112 wide and has 4 query heads. How many rows has its query matrix?

# %%
from course_helpers import FAMILIES

attention = dense.blocks[0].attention
print("rows of queries:", attention.query.weight.shape[0], "  width:", dense.config.hidden_size)

presets = FAMILIES["qwen3"].presets | FAMILIES["qwen3_moe"].presets
for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B"):
    config = presets[name]
    heads, width, size = config.num_attention_heads, config.hidden_size, config.head_dim
    guess = width // heads
    print(f"{name:<20} {heads} heads x {size} = {heads * size}, width {width}, guess {guess}")
print("head sizes of all released Qwen3:", {config.head_dim for config in presets.values()})

# %% [markdown]
# In Qwen3 `head_dim` is a field of its own, and 128 everywhere. Only for some sizes (the 8B, for one) does the old rule give the
# right number. `attention.output`, the matrix behind the heads, brings the wider vector back to the width. If the
# rule is applied to the small one, the shapes give it away, and the loader names the tensor:

# %%
guess = dense.config.hidden_size // dense.config.num_attention_heads
refusal = None
try:
    load_model(SOURCE["dense"], config=configs["dense"] | {"head_dim": guess})
except CheckpointError as error:
    refusal = error
    print(f"{error.what}: {error.tensor}\nexpected {error.expected}, found {error.found}")

# %%
from course_helpers.labs import validation_checkpoint

passed = refusal is not None and guess != dense.config.head_dim
validation_checkpoint("M9-LAB-04", "a guessed head size is refused", passed)

# %% [markdown]
# ## 3 · QK-norm
#
# Attention compares each **query** (what a token looks for) with each **key** (what a token offers): their product, divided by
# the root of the head size, is a **score**. **Softmax** turns a token's scores into weights that sum to 1. Nothing limits a
# score. If queries and keys get longer in training, scores grow, softmax gives everything to one key, and training stops
# learning or breaks. Qwen3 adds one step against it (Qwen3 technical report, arXiv 2505.09388: "to ensure stable training"):

# %%
figures.query_path()

# %% [markdown]
# **RMSNorm** divides a vector by its root mean square, then multiplies each number by a learned weight. Every Llama has it on
# the way into a layer. Here it stands a second time: on each query and each key, head by head, before **RoPE** turns them by
# their position.

# %%
from course_helpers.architectures.rope import apply_rotary


def rms_norm(x, norm):
    """Bring x to a mean square of 1, then weigh each number."""
    return norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps)


def queries_and_keys(attention, x_BTE, context, qk_norm=True, factor=1):
    """Queries (B, H, T, D) and keys (B, K, T, D) as they meet; `factor` enlarges matrices."""
    query, key = (
        factor * matrix(x_BTE).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for matrix in (attention.query, attention.key)
    )
    if qk_norm:
        query, key = rms_norm(query, attention.query_norm), rms_norm(key, attention.key_norm)
    turn = context.cos_B1TD, context.sin_B1TD
    return apply_rotary(query, *turn), apply_rotary(key, *turn)


# %% [markdown]
# The letters are the shapes: B texts, T tokens, E width, H query heads, K key/value heads, D numbers in a head. `context` brings
# the cosines and sines of the turns. The rest of attention is as you know it:

# %%
def scores_of(attention, query_BHTD, key_BKTD):
    """(B, H, T, T): each query with each key; minus infinity where the key comes later."""
    shared = query_BHTD.shape[1] // key_BKTD.shape[1]  # query heads on one key head
    key_BHTD = key_BKTD.repeat_interleave(shared, dim=1)
    scores = query_BHTD @ key_BHTD.transpose(-1, -2) / math.sqrt(attention.head_dim)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf)


def attend(attention, x_BTE, context):
    """Qwen3's attention, written out."""
    query, key = queries_and_keys(attention, x_BTE, context)
    weights_BHTT = scores_of(attention, query, key).softmax(dim=-1)
    value = attention.value(x_BTE).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    value = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    return attention.output((weights_BHTT @ value).transpose(1, 2).flatten(2))


# %% [markdown]
# Is it the package's attention? We send a story through the dense model, layer by layer, and keep what each attention gets.

# %%
@torch.no_grad()
def attention_inputs(model, ids):
    """What the attention of every layer gets, (B, T, E), and the context: the turns."""
    context = model.contexts(0, len(ids), None, None)["full_attention"]
    x_BTE, inputs = model.embed(torch.tensor([ids]), context.positions_BT), []
    for block in model.blocks:
        inputs.append(block.attention_norm(x_BTE))
        x_BTE = block(x_BTE, context, None)
    return inputs, context


story = tokenizers["dense"].encode(STORIES[0])
inputs, context = attention_inputs(dense, story)
with torch.no_grad():
    pairs = [
        (attend(block.attention, x, context), block.attention(x, context))
        for block, x in zip(dense.blocks, inputs, strict=True)
    ]
same = [torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs]
print("our attention is the package's, in every layer:", all(same))

# %%
validation_checkpoint("M9-LAB-04", "attention with QK-norm equals the package's", all(same))

# %% [markdown]
# ### What it protects from
#
# A vector of D numbers with a mean square of 1 has the length √D. The norm's weights lengthen it by the largest of them at most,
# and RoPE only turns: it changes no length. That goes for queries and keys. So, after the division by √D, no score can be larger
# than √D times the largest weight of the query norm times that of the key norm, whatever the matrices are.
#
# **Predict, then run.** We multiply the query and key matrices by 2, 4, 8 and 16, as if training had let them grow. What
# happens to the largest score with QK-norm? And without it?

# %%
@torch.no_grad()
def largest(factor, qk_norm):
    """Over all layers: the largest score by size, and the mean of the largest weights."""
    scores, weights = [], []
    for block, x in zip(dense.blocks, inputs, strict=True):
        query, key = queries_and_keys(block.attention, x, context, qk_norm, factor)
        score = scores_of(block.attention, query, key)
        scores.append(score[score.isfinite()].abs().max().item())
        weights.append(score.softmax(dim=-1).amax(dim=-1).mean().item())
    return max(scores), sum(weights) / len(weights)


FACTORS = (1, 2, 4, 8, 16)
rows = {"with QK-norm": True, "without": False}
found = {name: [largest(factor, norm) for factor in FACTORS] for name, norm in rows.items()}
bounds = [
    math.sqrt(dense.config.head_dim)
    * block.attention.query_norm.weight.abs().max().item()
    * block.attention.key_norm.weight.abs().max().item()
    for block in dense.blocks
]
growth = {name: [score for score, _ in row] for name, row in found.items()}
weight = {name: [weight for _, weight in row] for name, row in found.items()}
charts.score_growth(FACTORS, growth, max(bounds), weight)

# %% [markdown]
# With the norm nothing happens: a factor on the matrix is a factor on the vector, and the norm divides it out again. Without
# it, scores grow with the *square* of the factor (query and key both grow), and soon each query attends to one key only. What
# does the whole model say to it? We change a copy, and look at its **loss**: the mean surprise per token, in *nats* (minus the
# natural logarithm of the probability that the model gave to the token that came).

# %%
from course_helpers.training import text_loss


def loss(model, kind):
    """Mean loss on the stories, nats per token."""
    total, count = text_loss(model, [tokenizers[kind].encode(text) for text in STORIES])
    return total / count


def changed(model, change):
    """A copy of the model, with every layer changed."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        change(block)
    return model


# %% [markdown]
# Eight times the matrices; and, as a mistake that is easily made, no QK-norm at all:

# %%
def eight_times(block):
    block.attention.query.weight.data *= 8
    block.attention.key.weight.data *= 8


def left_out(block):
    block.attention.query_norm = block.attention.key_norm = torch.nn.Identity()


CHANGES = {
    "as trained": lambda block: None,
    "matrices eight times": eight_times,
    "QK-norm left out": left_out,
}
dense_losses = {name: loss(changed(dense, change), "dense") for name, change in CHANGES.items()}
for name, value in dense_losses.items():
    print(f"{name:<22} {value:.2f}")

# %% [markdown]
# Left out, the loss is twice as high. Code that holds both norms and forgets to use them loads without a word: no shape shows it.
#
# ### Why before RoPE?
#
# RoPE makes a score depend on the *distance* of two tokens alone, not on where they stand. The norm's weights differ from number
# to number, and RoPE mixes numbers in pairs. **Predict, then run.** The same query and key, three tokens apart, at 50 places.
# In which order is the score the same everywhere?

# %%
def placed(vector, norm, start, norm_first):
    """One query or key at 50 places of the text, the first at `start`: (1, 1, 50, D)."""
    places = torch.arange(start, start + 50)[None]
    turn = dense.rotation("full_attention", places, torch.float32)
    vector = vector.expand(1, 1, 50, -1)
    if norm_first:
        return apply_rotary(rms_norm(vector, norm), *turn)
    return rms_norm(apply_rotary(vector, *turn), norm)


def spread(norm_first):
    """How much the score of one query and key, three tokens apart, changes along the text."""
    last = dense.blocks[-1].attention
    query, key = torch.randn(2, last.head_dim, generator=torch.Generator().manual_seed(4))
    queries = placed(query, last.query_norm, 3, norm_first)
    keys = placed(key, last.key_norm, 0, norm_first)
    scores = (queries * keys).sum(-1)
    return (scores.max() - scores.min()).item()


with torch.no_grad():
    order = {"norm, then RoPE": spread(True), "RoPE, then norm": spread(False)}
for name, value in order.items():
    print(f"{name}: the same score everywhere: {value < 1e-3}")

# %% [markdown]
# Norm first. After the turn, each weight of the norm meets another mixture of numbers at every place, and the distance alone no
# longer decides.

# %%
bounded = all(value <= max(bounds) for value in growth["with QK-norm"])
unbounded = growth["without"][-1] > 100 * growth["without"][0]
unchanged = abs(dense_losses["matrices eight times"] - dense_losses["as trained"]) < 1e-3
relative = order["norm, then RoPE"] < 1e-3 < order["RoPE, then norm"]
holds = bounded and unbounded and unchanged and relative
validation_checkpoint("M9-LAB-04", "QK-norm bounds every score", holds)

# %% [markdown]
# ## 4 · The KV cache
#
# To write one token, a model reads the whole text so far. Then the text is one token longer, and it reads everything again. What
# of that work is new? In causal attention a token looks back and never ahead, so nothing that comes later can change what was
# computed for it. We check it on the keys of the last layer: of the first 20 tokens, and of the same 20 within a longer text.

# %%
@torch.no_grad()
def last_keys(model, ids):
    """The keys of the last layer, (K, T, D)."""
    inputs, context = attention_inputs(model, ids)
    return queries_and_keys(model.blocks[-1].attention, inputs[-1], context)[1][0]


short, long = last_keys(dense, story[:20]), last_keys(dense, story)
keys_stay = torch.allclose(short, long[:, :20], atol=1e-5)
print(f"keys of {long.shape[1]} tokens; the first 20 are those of the short text: {keys_stay}")

# %% [markdown]
# So keys can be kept, and values as well. Queries need not be: a query asks on behalf of its own token, and the tokens before have
# had their answer. That is the whole idea: **keep keys and values, compute only what is new.**

# %%
figures.kept_or_again(4, 6)


# %% [markdown]
# A cache for one layer in its simplest form: what comes in is put behind what is there, and everything is given back. The first
# pass takes the whole prompt (*prefill*), each later one a single token (*decoding*). The package's blocks ask whatever cache
# they are given, so ours will do:

# %%
class GrowingCache:
    """Keys and values of one layer, as long as the text."""

    key = value = None

    def update(self, key_BKTD, value_BKTD):
        if self.key is not None:
            key_BKTD = torch.cat((self.key, key_BKTD), dim=2)
            value_BKTD = torch.cat((self.value, value_BKTD), dim=2)
        self.key, self.value = key_BKTD, value_BKTD
        return key_BKTD, value_BKTD


@torch.no_grad()
def next_logits(model, ids, start, caches):
    """Scores for the token after `ids`, which continue a text at position `start`."""
    context = model.contexts(start, len(ids), None, None)["full_attention"]
    x_BTE = model.embed(torch.tensor([ids]), context.positions_BT)
    for block, cache in zip(model.blocks, caches, strict=True):
        x_BTE = block(x_BTE, context, cache)
    return F.linear(model.final_norm(x_BTE[:, -1:]), model.head_weight)[0, -1]


# %% [markdown]
# Mind `start`: the new token must be turned by its place in the *text*, not in the pass. Now the loop, and the comparison with the
# package, which here runs without any cache. (**Logits** are the model's scores for every token of the vocabulary; greedy takes
# the largest.)

# %%
def write(model, prompt, new_tokens, stop_ids, remembers=True):
    """Greedy text with our cache: the prompt once, then one token at a time."""
    caches = [GrowingCache() for _ in model.blocks]
    ids, new = list(prompt), list(prompt)
    for _ in range(new_tokens):
        start = len(ids) - len(new) if remembers else 0
        new = [int(next_logits(model, new, start, caches).argmax())]
        ids += new
        if new[0] in stop_ids:
            break
    return ids


for kind, model in models.items():
    written = write(model, prompts[kind][0], NEW_TOKENS, tokenizers[kind].stop_ids)
    same = written == runs[kind].ids[0]
    checks[kind]["our own cache writes the same text"] = same
    print(f"{kind:<6} {len(written)} tokens, the same as without a cache: {same}")

# %% [markdown]
# **Predict, then run.** A common mistake: the cache is there, but the position is forgotten, and every new token counts as the
# first of the text. Is there an error? What does the model write?

# %%
forgetful = write(dense, prompts["dense"][0], 40, tokenizers["dense"].stop_ids, remembers=False)
print(textwrap.fill(tokenizers["dense"].decode(forgetful), 96))

# %% [markdown]
# No error: keys and values have the right shapes, and the attention looks at the wrong distances. So the package's cache owns the
# position, and nobody can forget it. It also takes its memory once, for the longest text that will come, and writes into it in
# place; ours copies everything at every token.
#
# Equal texts are a coarse test: they only say that the likeliest token stayed the likeliest. So we compare all logits, too, in one
# pass over a finished text and token by token through the cache. Sums in another order are rounded differently, so we allow one
# part in 100,000 of the largest logit.

# %%
@torch.inference_mode()
def cached_logits_agree(model, ids):
    """Whether token by token with the cache gives the logits of one pass, up to rounding."""
    cache = model.make_cache(batch_size=1, max_length=len(ids))
    ids_BT = torch.tensor([ids])
    steps = [model(ids_BT[:, [place]], cache=cache) for place in range(len(ids))]
    at_once = model(ids_BT)
    farthest = (torch.cat(steps, dim=1) - at_once).abs().max()
    return bool(farthest < 1e-5 * at_once.abs().max())


for kind, model in models.items():
    pairs = list(zip(runs[kind].ids, runs[f"{kind} + cache"].ids, strict=True))
    same = sum(one == other for one, other in pairs)
    agree = cached_logits_agree(model, pairs[0][0])
    checks[kind]["cached = uncached: all texts"] = same == len(pairs)
    checks[kind]["cached = uncached: all logits"] = agree
    print(f"{kind:<6} same text: {same} of {len(pairs)}, and same logits: {agree}")
    for name in (kind, f"{kind} + cache"):
        variants[name]["texts"] = f"{same} of {len(pairs)} alike"

# %%
equal = all(all(check.values()) for check in checks.values())
validation_checkpoint("M9-LAB-04", "cached and uncached are equal", keys_stay and equal)

# %% [markdown]
# ### The work it saves
#
# Let a prompt have *p* tokens, and let *n* new ones be written. **Predict, then run.** How many token vectors go through the
# model, without the cache and with it? And how many scores does one head compute, if a pass over *T* tokens that sees *S* keys computes
# *T* times *S*? We predict both with a formula, then count inside the running model, up to the 50th token of a text.

# %%
from course_helpers.labs.lab_04 import work_of_each_step

for kind, model in models.items():
    p, text = len(prompts[kind][0]), runs[kind].ids[0][:50]
    n, heads = len(text) - p, model.config.num_hidden_layers * model.config.num_attention_heads
    predicted = {
        kind: (sum(p + i for i in range(n)), sum((p + i) ** 2 for i in range(n))),
        f"{kind} + cache": (p + n - 1, p * p + sum(p + i for i in range(1, n))),
    }
    for name, (vectors, scores) in predicted.items():
        steps = work_of_each_step(model, text, p, use_cache=name != kind)
        counted = sum(step.positions for step in steps) // model.config.num_hidden_layers
        all_scores = sum(step.scores for step in steps)
        agree = (counted, all_scores) == (vectors, scores * heads)
        checks[kind][f"work of {name}: predicted = counted"] = agree
        variants[name]["vectors"] = counted
        print(f"{name:<14} vectors {vectors:>6,}   scores {scores:>7,}   counted: {agree}")

# %% [markdown]
# The number of vectors without a cache grows with the *square* of the text, and with a cache it is the text's length. Scores go
# from a cube to a square. For one token late in a long text, that is the difference between reading the text again and reading
# one word.
#
# ### The memory it costs
#
# For each token, each layer keeps one key and one value of `head_dim` numbers for each key/value head. **Predict, then run.**
# Which of these changes it: the number of query heads? the width? the number of experts?

# %%
from course_helpers.memory import kv_cache_bytes

ROOM = 256  # tokens
for kind, model in models.items():
    config = model.config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    held = model.make_cache(batch_size=1, max_length=ROOM).nbytes
    variants[kind]["cache bytes"], variants[f"{kind} + cache"]["cache bytes"] = 0, held
    checks[kind]["memory of the cache: predicted = held"] = held == ROOM * per_token
    print(f"{kind:<6} predicted {ROOM * per_token:,} bytes, held {held:,}")

for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B"):
    print(f"{name:<20} {kv_cache_bytes(presets[name], 1) // 1024:>4} KiB a token in 16 bits")

# %% [markdown]
# None of the three. A mixture of 30 billion parameters keeps *less* for a token than a dense model of 0.6 billion, because it has
# 4 key/value heads instead of 8. The table so far:

# %%
print(variant_table(variants, COLUMNS))
equal = all(all(check.values()) for check in checks.values())
validation_checkpoint("M9-LAB-04", "cache: work and memory as predicted", equal)

# %% [markdown]
# ### The time it saves
#
# How long does the *next* token take, when the text is already so long? **Predict, then run.** Draw both curves first.

# %% tags=["nbval-ignore-output"]
from course_helpers.labs.lab_04 import seconds_per_token

LENGTHS = {"bundled": (16, 250, 500, 750, 1000), "hub": (16, 64, 128, 256)}[CHECKPOINTS]
seconds = {kind: seconds_per_token(model, LENGTHS) for kind, model in models.items()}
charts.time_against_length(LENGTHS, seconds)

# %% [markdown]
# Without a cache the time grows with the text. With it the curve is nearly flat: one new vector, however long the text. (It still
# looks at every key that is kept; at these sizes that is a small part of the work.)

# %% [markdown]
# ## 5 · A mixture of experts
#
# A **feed-forward** is the part of a layer in which each token is worked on by itself. Qwen3's is a SwiGLU: three matrices,
# `down(silu(gate(x)) * up(x))`, where SiLU is a smooth bend. Most of a model's parameters are there, and a dense model uses all of
# them for every token. A mixture has many small ones instead, the **experts**, and a **router** that decides who answers.
#
# ### One token by hand
#
# First what the experts of the first layer get: a story on its way through that layer, behind attention and norm. (New letters:
# N tokens in a row, X experts, k of them asked for each token.)

# %%
with torch.no_grad():
    block, ids = moe.blocks[0], tokenizers["MoE"].encode(STORIES[0])
    (x_BTE, *_), context = attention_inputs(moe, ids)
    embedded = moe.embed(torch.tensor([ids]), context.positions_BT)
    behind_attention = embedded + block.attention(x_BTE, context)
    x_NE = block.feed_forward_norm(behind_attention)[0]

layer = block.feed_forward
named = dense.named_parameters()
inside = sum(weight.numel() for name, weight in named if "feed_forward." in name)
share = inside / dense.num_parameters()
print(f"in feed-forwards: {share:.0%} of the dense model's parameters")
print("tokens x width:", tuple(x_NE.shape), "  router:", tuple(layer.router.weight.shape))

# %% [markdown]
# The router is one matrix with a row for each expert, so every token gets a score from each. Softmax over *all* experts makes
# probabilities of them. The likeliest few are asked, and their probabilities, divided by their sum, are the **weights** of their
# answers. **Predict, then run.** Do the two weights depend on the six experts that are not asked?

# %%
place = [tokenizers["MoE"].decode([token]) for token in ids].index(" a")
with torch.no_grad():
    scores_X = layer.router(x_NE[place])
    top, chosen = scores_X.softmax(dim=-1).topk(layer.experts_per_token)
    weights = top / top.sum()
    package_chosen, package_weights = layer.route(x_NE)

routed = torch.equal(chosen, package_chosen[place])
routed = routed and torch.allclose(weights, package_weights[place])
print("experts asked:", chosen.tolist(), "  as the package's router says:", routed)

lower_X = (scores_X - 1).index_copy(0, chosen, scores_X[chosen])  # the six others score less
new_top = lower_X.softmax(dim=-1)[chosen]
same_weights = torch.allclose(new_top / new_top.sum(), weights)
same_top = torch.allclose(new_top, top)
print("the same probabilities:", same_top, "  the same weights:", same_weights)

# %%
from course_helpers.labs.lab_04 import routing_of

rows = [tokenizers["MoE"].encode(text) for text in STORIES]
tokens = [tokenizers["MoE"].decode([token]) for row in rows for token in row]
routings = routing_of(moe, rows)  # for every layer: where all tokens of all stories go
figures.one_token(" a", routings[0], place, weights.tolist())

# %% [markdown]
# They do not: if the six others score less, the two become likelier, and dividing by the sum takes that out again. In a checkpoint
# that does *not* divide, they do. Section 7 returns to this.
#
# ### All tokens, in a loop
#
# The plainest mixture there can be: for each token, ask its experts, one after the other, and add up. The package keeps the
# matrices of all experts of a layer in two tensors, `gate_up` with gate above up, and `down`.

# %%
def ask(experts, number, x_E):
    """One expert's answer: a small SwiGLU."""
    gate, up = F.linear(x_E, experts.gate_up[number]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, experts.down[number])


@torch.no_grad()
def mixture(layer, x_NE):
    """The answers of each token's experts, weighted and summed."""
    answer_NE = torch.zeros_like(x_NE)
    chosen_Nk, weight_Nk = layer.route(x_NE)
    for n, x_E in enumerate(x_NE):
        for number, weight in zip(chosen_Nk[n], weight_Nk[n], strict=True):
            answer_NE[n] += weight * ask(layer.experts, number, x_E)
    return answer_NE


with torch.no_grad():
    looped = torch.allclose(mixture(layer, x_NE), layer(x_NE[None])[0], atol=1e-5)
print("our loop equals the package's layer:", looped)

# %%
passed = routed and same_weights and looped
validation_checkpoint("M9-LAB-04", "router and experts equal the package's", passed)

# %% [markdown]
# The loop is right and slow: every token waits for the one before. The package sorts the tokens by expert, so that all of an
# expert's tokens lie together, and multiplies group by group. Exercise 3 is yours to write it.
#
# ### Held and active
#
# Every expert must be in memory, because the next token may ask for it. A token uses only those it is sent to. **Active** are all
# parameters but those of the experts that are not asked. **Predict, then run.** In each of 4 layers, 6 of 8 experts rest, each
# of three matrices 96 x 96. What share of the parameters is active?

# %%
from course_helpers.labs.lab_04 import CountedWork
from course_helpers.sizes import WholeSteps


def resting(config):
    """Parameters of the experts that a token does not ask, where every layer has experts."""
    experts = getattr(config, "num_experts", 0) - getattr(config, "num_experts_per_tok", 0)
    one = 3 * config.hidden_size * getattr(config, "moe_intermediate_size", 0)
    return config.num_hidden_layers * experts * one


def counted(model):
    """Products of one token with matrices, counted while the model runs."""
    ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.no_grad(), WholeSteps(), CountedWork() as work:
        model(ids)
    return work.matrix_products


# %% [markdown]
# A token meets each active weight of a matrix in one multiplication. So the multiplications can be *counted*, while the model
# runs, and must equal the active parameters without those that multiply no vector as a matrix: the norms, and the embedding,
# of which one row is looked up (a tied one is used again as the head, and so does count).

# %%
def looked_up(model):
    """Parameters of an embedding that is not the head as well: of these, one row is used."""
    tied = model.config.tie_word_embeddings
    return 0 if tied else model.token_embedding.weight.numel()


def held_and_active(model):
    """Parameters held, parameters active, and whether the count inside the model agrees."""
    held = model.num_parameters()
    active = held - resting(model.config)
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)
    return held, active, counted(model) == active - norms - looked_up(model)


for kind, model in models.items():
    held, active, agrees = held_and_active(model)
    checks[kind]["active parameters: predicted = counted"] = agrees
    for name in (kind, f"{kind} + cache"):
        variants[name]["active"] = active
    share = f"{active / held:.0%}"
    print(f"{kind:<6} held {held:>9,}  active {active:>9,} = {share}  counted: {agrees}")

# %% [markdown]
# The mixture holds two thirds more than the dense model, and works with almost a quarter less. Now the released sizes. On torch's
# **meta device** a tensor has a shape and no memory, so a model of 30 billion parameters can be built, and even run for counting:

# %%
released, read = {}, {}
for name in ("Qwen/Qwen3-4B", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B"):
    family = FAMILIES["qwen3_moe" if "A3B" in name else "qwen3"]
    with torch.device("meta"):
        model = family.model(presets[name])
    short, held = name.removeprefix("Qwen/"), model.num_parameters()
    released[short] = held, held - resting(model.config)
    read[short] = 2 * (released[short][1] - looked_up(model))  # bytes for one token, in 16 bits
    if "A3B" in name:
        large_too = held_and_active(model)[2]

for name, (held, active) in released.items():
    print(f"{name:<16} held {held:>14,}   active {active:>14,}")
print("the mixture's active parameters, counted:", large_too)

# %%
charts.held_and_active(released, 10**9, "billions")

# %% [markdown]
# That is what the name says: **30B** to hold, **A3B**, three billion active. It needs the memory of a 32B and the arithmetic of
# a 3B. When one text is written at a time, the machine mostly waits for weights to arrive from memory, and every active one must
# come, once a token (of an embedding one row): 6.1 GB in 16 bits, against 64.0 GB for the dense 32B.

# %%
for name, size in read.items():
    print(f"{name:<16} to be read for one token: {size / 1e9:>4.1f} GB")
as_counted = all(all(check.values()) for check in checks.values()) and large_too
validation_checkpoint("M9-LAB-04", "active parameters as counted", as_counted)

# %% [markdown]
# ## 6 · Who gets which token?
#
# Nobody told the router what an expert is for. What has it learned? One story, token by token; shades are probabilities, frames
# the experts that were asked (a dot stands for a space):

# %%
last = max(routings)
charts.router_map(tokens[:32], {"first layer": routings[0], "last layer": routings[last]})

# %% [markdown]
# In the first layer the same word has the same first choice (the darker frame): look for the two `a`. In the last layer it has not.
# We ask all eight stories: which tokens have an expert that is their first choice in more than half of their uses, in the first
# layer?

# %%
from course_helpers.labs.lab_04 import favourites

for expert, liked in favourites(tokens, routings[0]).items():
    words = ", ".join(f"{token!r} {first} of {uses}" for token, first, uses in liked)
    print(f"expert {expert}: {words}")

# %% [markdown]
# One expert for *her*, *he* and *his*, one for *the* and *it*, one for full stops: some have found a kind of word, by training
# alone; others, such as expert 3, have no theme that one could name. None has a subject, as the name *expert* suggests. (The
# report on Mixtral, arXiv 2401.04088, found no subjects in a large one, either.)
#
# **Predict, then run.** Deeper layers know more about the context of a token. If you only know the token, and guess the expert
# that it goes to most often, how often are you right, in the first layer and in the last? (Tokens used three times or more.)

# %%
from course_helpers.labs.lab_04 import faithfulness

guessable = {layer: faithfulness(tokens, routing) for layer, routing in routings.items()}
for number, share in guessable.items():
    busiest = routings[number].chosen_Nk[:, 0].bincount().max() / len(tokens)
    print(f"layer {number}: right {share:.0%}   (always the busiest expert: {busiest:.0%})")

# %% [markdown]
# From layer to layer the word itself says less, and the rest of the text more. The same word goes to different experts in
# different places.
#
# ### Is the work shared evenly?
#
# With two of eight experts for each token, an even share would be a quarter of all tokens for each (dashed). **Predict, then run.**
# How far above it is the busiest expert of a layer (gold)?

# %%
charts.expert_usage(routings)

# %%
even = moe.config.num_experts_per_tok / moe.config.num_experts
for number, routing in routings.items():
    share = routing.counts_X / len(tokens)
    least, most = share.min() / even, share.max() / even
    print(f"layer {number}: from {least:.1f} to {most:.1f} times the even share")

# %% [markdown]
# Far from it: in three of four layers one expert has about twice its share, and in layer 1 another has a fifth. On one machine
# nobody notices. On many, each with some of the experts, everybody waits for the busiest; and an idle expert is memory for
# nothing. Large mixtures are therefore trained with a second loss that rewards even work (Qwen3's report names a *global-batch
# load balancing loss*). Ours was trained without one: this is what routers do when they are left alone.

# %%
shares = {number: routing.counts_X / len(tokens) for number, routing in routings.items()}
everyone_answers = all(bool((share > 0).all()) for share in shares.values())
asked = layer.experts_per_token
as_many = all(abs(share.sum().item() - asked) < 1e-4 for share in shares.values())
from_word_to_context = guessable[0] > guessable[last]
seen = everyone_answers and as_many and from_word_to_context
validation_checkpoint("M9-LAB-04", "every expert is used, the first layer by the word", seen)

# %% [markdown]
# ## 7 · Four mistakes with the same shapes
#
# Nothing about routing is written in a tensor's shape. Four ways to get it wrong:
#
# - the weights are **not divided** by their sum: `norm_topk_prob` is taken for false, the default of Transformers'
#   `Qwen3MoeConfig`, while all released Qwen3 mixtures say true;
# - each token asks **one expert** only;
# - each token asks **all experts**;
# - the experts are **one place off**: each has its neighbour's matrices.
#
# **Predict, then run.** Which one would you notice when you read the text?

# %%
def one_place_off(block):
    for parameter in block.feed_forward.experts.parameters():
        parameter.data = parameter.data.roll(1, dims=0)


def asks(number):
    return lambda block: setattr(block.feed_forward, "experts_per_token", number)


MISTAKES = {
    "as trained": lambda block: None,
    "not divided": lambda block: setattr(block.feed_forward, "normalize", False),
    "one expert each": asks(1),
    "all experts": asks(moe.config.num_experts),
    "one place off": one_place_off,
}

# %%
losses = {}
for name, change in MISTAKES.items():
    model = changed(moe, change)
    losses[name] = loss(model, "MoE")
    prompt, tokenizer = prompts["MoE"][0], tokenizers["MoE"]
    text = generate(model, [prompt], 24, stop_ids=tokenizer.stop_ids)[0]
    text = tokenizer.decode(text[len(prompt) :])
    print(f"{name:<16} loss {losses[name]:.2f}   ...{textwrap.shorten(text, 66)}")

# %% [markdown]
# Only the last. The other three write fluent stories, a little worse on average than they should; and asking all experts is *not*
# better than asking two, because the model has never seen their sum. No reader finds that, only a comparison: with a noted loss,
# with noted texts, or with another implementation. The package takes no chances with a config that leaves the field out:

# %%
forgetful = {name: value for name, value in configs["MoE"].items() if name != "norm_topk_prob"}
try:
    FAMILIES["qwen3_moe"].config.from_hf(forgetful)
    refused = False
except CheckpointError as error:
    refused = True
    print(f"refused: {error.what} ({error.field})")

# %% [markdown]
# ### Softmax first, or choice first?
#
# Some code chooses the best scores first and takes the softmax of those alone. **Predict, then run.** Is that the same?

# %%
with torch.no_grad():
    k, scores_NX = layer.experts_per_token, layer.router(x_NE)
    best_first = scores_NX.topk(k, dim=-1).values.softmax(dim=-1)
    probability_Nk = scores_NX.softmax(dim=-1).topk(k, dim=-1).values
    divided = probability_Nk / probability_Nk.sum(dim=-1, keepdim=True)

same_if_divided = torch.allclose(best_first, divided, atol=1e-6)
same_if_not = torch.allclose(best_first, probability_Nk, atol=1e-6)
print("the same as softmax, choice, division:   ", same_if_divided)
print("the same as softmax, choice, no division:", same_if_not)

# %% [markdown]
# With the division it is the same, because the sum over all experts cancels. Without it, it is another model. So a short cut that
# is right for every Qwen3 mixture is wrong for the next one whose config says false.

# %%
hidden = all(0 < losses[name] - losses["as trained"] < 0.1 for name in list(MISTAKES)[1:4])
seen = losses["one place off"] > 2
found = refused and same_if_divided and not same_if_not and hidden and seen
validation_checkpoint("M9-LAB-04", "routing mistakes are found by numbers only", found)

# %% [markdown]
# ## 8 · Four variants, side by side
#
# The runs of section 1, at last with the clock. **Predict, then run.** Which of the four is the fastest? Is the mixture faster
# than the dense model, with a quarter less to compute?

# %% tags=["nbval-ignore-output"]
speed = {name: run.tokens_per_second for name, run in runs.items()}
weights = {name: row["held"] * 4 / 2**10 for name, row in variants.items()}
kept = {name: row["cache bytes"] / 2**10 for name, row in variants.items()}
charts.variants_measured(
    {"speed": speed, "weights in memory": weights, f"cache for {ROOM} tokens": kept},
    ["tokens/s", "KiB", "KiB"],
)

# %% [markdown]
# The cache helps both, and the longer the text, the more (section 4). The mixture computes less than the dense model and is
# *slower* here. What does a pass for one token consist of? We count its calls of torch, and time two calls by themselves:

# %% tags=["nbval-ignore-output"]
from functools import partial
from timeit import timeit

for kind, model in models.items():
    cache = model.make_cache(batch_size=1, max_length=2)
    with torch.no_grad(), CountedWork() as one:
        model(torch.zeros(1, 1, dtype=torch.int64), cache=cache)
    each = one.matrix_products / one.calls
    print(f"{kind:<6} {one.calls} calls, {each:,.0f} products with weights in each, on average")

with torch.inference_mode():
    for width in (1, 48):
        call = partial(F.linear, torch.randn(1, width), torch.randn(width, width))
        microseconds = timeit(call, number=5000) / 5000 * 1e6
        print(f"one call with {width**2:>5,} products: {microseconds:.1f} microseconds")

# %% [markdown]
# A call takes its time however little there is to compute. So on so small a model you measure the *number of calls*, and sorting
# tokens by expert takes more of them. The saving is real where weights are large: then time follows the bytes that
# must be read (section 5). **Measure at the size that you will run.**

# %%
print(variant_table(variants, COLUMNS))
same_loss = abs(losses["as trained"] - dense_losses["as trained"]) < 0.01
print("\nlosses less than 0.01 apart:", same_loss)

# %% [markdown]
# Read it by rows. *Dense, with cache* is the one to start with. The *mixture* pays with memory for less work a token, here at the
# same loss. *Without cache* is what you compare with, and what training does anyway: there, all tokens are known at once. And the
# checklist, for the next family, too (`Checklist` is that of M9-LAB-APP-A):

# %%
from course_helpers.labs.lab_app_a import Checklist

parts = {kind: [(what, ok, "") for what, ok in check.items()] for kind, check in checks.items()}
checklist = Checklist("Qwen3, four variants", parts)
print(checklist)
passed = checklist.ok and same_loss
validation_checkpoint("M9-LAB-04", "four variants under one protocol", passed, checklist.failed)

# %% [markdown]
# ## 9 · Talking to a Qwen3
#
# The models so far continue a text: they are **base** models. The released Qwen3 without `-Base` in the name have been trained on
# conversations as well, and those have a form, the **chat template**, which the tokenizer's files bring along. `chat_text` shows it:

# %%
tokenizer = tokenizers["dense"]
question = [{"role": "user", "content": "Tell me a story."}]
thinking = tokenizer.chat_text(question)
direct = tokenizer.chat_text(question, enable_thinking=False)
print(thinking, "\n--- with enable_thinking=False ---\n", direct, sep="")

# %% [markdown]
# `<|im_start|>` and `<|im_end|>` are **special tokens**, one id each, that mark where a turn begins and ends. The last line is an
# open turn for the model to fill. A Qwen3 first writes its thoughts, between `<think>` and `</think>`. With
# `enable_thinking=False` the prompt gets *longer*, not shorter: it holds an empty thought already, and the model goes on behind it.
#
# ### The end is part of the tokenizer
#
# Base and chat models have the same vocabulary, and different ends: a base model ends a text with `<|endoftext|>`, a chat model its
# turn with `<|im_end|>`. **Predict, then run.** We let our base model run with the chat model's stop. Where does it end?

# %%
stop = tokenizer.backend.special["<|im_end|>"]
right_end = runs["dense + cache"].ids[0]
wrong_end = generate(dense, prompts["dense"][:1], NEW_TOKENS, stop_ids=stop)[0]
print("the stop that its files name:", len(right_end), "tokens")
print("the chat model's stop:       ", len(wrong_end), "tokens, which go on:")
print(textwrap.fill("..." + tokenizer.decode(wrong_end[len(right_end) - 8 :]), 96))

# %% [markdown]
# It never meets that stop. The story ends, and the model, asked to go on, writes pieces of others until the limit. Both tokenizers
# cut a text into the same ids, so no such test shows a mix-up: take the tokenizer from the same folder as the weights. And if a
# model talks without end, look at its stop ids before you look at its weights.

# %%
longer = len(direct) > len(thinking) and direct.startswith(thinking)
ran_on = len(wrong_end) >= len(right_end) and right_end == wrong_end[: len(right_end)]
holds = longer and ran_on
validation_checkpoint("M9-LAB-04", "template and stop belong to the tokenizer", holds)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-04",
    {
        "source": SOURCE,
        "variants": variants,
        "tokens_per_second": speed,
        "seconds_for_the_next_token": {"lengths": LENGTHS, **seconds},
        "released_held_and_active": released,
        "largest_score_by_factor": {"factors": FACTORS, **growth, "bound": max(bounds)},
        "expert_usage": {number: share.tolist() for number, share in shares.items()},
        "guessable_from_the_token": guessable,
        "losses_of_routing_mistakes": losses,
    },
)

# %% [markdown]
# ## Recap
#
# - Qwen3 is a Llama 3 with a **head size of its own** and an **RMSNorm on each query and key head**, before RoPE. The norm bounds
#   every score, however large the matrices grow.
# - A **KV cache** keeps keys and values, because nothing that comes later changes them. The vectors computed grow with the text, no
#   longer with its square; memory grows by 2 x layers x key/value heads x head size numbers for each token.
# - A **mixture of experts** replaces the feed-forward. It is *held* whole and *used* in part; cache and attention do not notice.
# - The **router** is a softmax over all experts, the likeliest few, and, if the config says so, weights that sum to 1.
# - Routers are not fair by themselves. In the first layer the word decides who answers; deeper, its context does, too.
# - Same prompts, same settings, same texts: then compare speed and memory.
#
# **You can now** run any Qwen3 in four variants and prove that they agree; write the cache, the norm, the router and the experts;
# predict memory, work and active parameters from a config; and find routing mistakes that no text shows.
#
# **Next:** M9-LAB-05, where Gemma 3 keeps its cache from growing.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · Active parameters
#
# Say how many parameters of a mixture are active for one token: all but those of the experts that are not asked. Some checkpoints
# have ordinary feed-forwards in some layers; `config.is_sparse(layer)` tells whether a layer has experts.
#
# (Hint: the total can be counted on the meta device with `FAMILIES["qwen3_moe"].model`.)

# %% tags=["exercise"]
def active_parameters(config):
    """Parameters that one token makes use of, as a whole number."""
    raise NotImplementedError


# %% tags=["solution"]
def active_parameters(config):
    with torch.device("meta"):
        total = FAMILIES["qwen3_moe"].model(config).num_parameters()
    layers = sum(config.is_sparse(layer) for layer in range(config.num_hidden_layers))
    resting = config.num_experts - config.num_experts_per_tok
    return total - layers * resting * 3 * config.hidden_size * config.moe_intermediate_size


# %%
from course_helpers.labs.lab_04_exercises import check_active_parameters

check_active_parameters(active_parameters)


# %% [markdown]
# ### Exercise 2 · The router of any checkpoint
#
# Section 5 routed one token, with weights that sum to 1. Write it for N tokens at once, and for checkpoints of both kinds.

# %% tags=["exercise"]
def route(scores_NX, k, normalize):
    """Ids of the k likeliest experts of each token, (N, k), and their weights, (N, k)."""
    raise NotImplementedError


# %% tags=["solution"]
def route(scores_NX, k, normalize):
    weight_Nk, chosen_Nk = scores_NX.softmax(dim=-1).topk(k, dim=-1)
    if normalize:
        weight_Nk = weight_Nk / weight_Nk.sum(dim=-1, keepdim=True)
    return chosen_Nk, weight_Nk


# %%
from course_helpers.labs.lab_04_exercises import check_route

check_route(route)


# %% [markdown]
# ### Exercise 3 · Grouped dispatch
#
# The loop of section 5 asks an expert about one token at a time. Turn it round: ask each expert *once*, about all tokens that
# chose it, and not at all if none did. `ask(expert, rows)` gives the answers to some rows, in the same order; every answer must
# get back to its token, with that token's weight for this expert.
#
# (Hint: `(chosen_Nk == expert).nonzero(as_tuple=True)` gives the tokens, and for each of them which of its k places it was.)

# %% tags=["exercise"]
def dispatch(x_NE, chosen_Nk, weight_Nk, ask, num_experts):
    """The weighted sum of its experts' answers for each token, (N, E)."""
    raise NotImplementedError


# %% tags=["solution"]
def dispatch(x_NE, chosen_Nk, weight_Nk, ask, num_experts):
    answer_NE = torch.zeros_like(x_NE)
    for expert in range(num_experts):
        token, place = (chosen_Nk == expert).nonzero(as_tuple=True)
        if len(token):
            answers = ask(expert, x_NE[token])
            answer_NE[token] += weight_Nk[token, place][:, None] * answers
    return answer_NE


# %%
from course_helpers.labs.lab_04_dispatch import check_dispatch

check_dispatch(dispatch)
