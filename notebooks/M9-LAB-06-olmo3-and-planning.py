# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-06 · OLMo 3, and planning for models that are too large
#
# | | |
# |---|---|
# | **Objective** | Build what is special about OLMo 3 and measure what each of its traps costs; then plan 7B and 32B: config, memory, machines |
# | **Before this** | M9-LAB-03: you have stretched Llama 3's rotary positions (M9-LAB-05, on windows and the ring cache, helps) |
# | **Time** | 60 minutes to read and run, 45 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 9, 12, 22 and 24 |
#
# **At the end you will be able to**
#
# - write OLMo 3's block, its QK-norm and its YaRN from nothing, and say where each differs from Llama and Qwen3;
# - explain why YaRN belongs in some of the layers only, and show the damage when it goes into all;
# - name the mistakes that load without an error, and those that even the loss hardly shows;
# - work out what a 7B and a 32B take, on which machine they fit, and how they are spread over several;
# - run one model on two processes, each of which holds half of it.

# %%
from course_helpers.labs import lab_06_charts as charts
from course_helpers.labs import lab_06_figures as figures

figures.opening()

# %% [markdown]
# OLMo 3 is a family whose makers publish everything: weights, code, training data. Four things set it apart from a
# Llama. Its **norms** (a norm rescales the numbers of a token to a common size) stand behind the parts they serve, not
# before; queries and keys, which attention compares, have a norm, too; three layers of four see a window only; and in
# the others the positions are stretched. **Its weights run in a Llama's order, too, without an error.** Part 1 builds
# the four, and measures what each is worth. Part 2 asks what the real sizes take, before anything is downloaded.

# %% [markdown]
# # Part 1: the model
#
# ## 1 · One switch
#
# `tiny-olmo3` comes with the lab: 4 layers, a window of 48 tokens, trained on short stories. To run the same cells on
# the released 7B, which needs no account but 20 GB of memory and 15 GB of disk, set the environment variable
# `COURSE_CHECKPOINTS` to `hub`.

# %%
import json
import math
import os
import textwrap

import torch
import torch.nn.functional as F
from torch import nn

from course_helpers import FAMILIES, generate, load_model, load_tokenizer
from course_helpers.architectures.config import FULL, SLIDING
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-olmo3", "hub": "allenai/Olmo-3-1025-7B"}[CHECKPOINTS]
DTYPE = {"bundled": torch.float32, "hub": torch.bfloat16}[CHECKPOINTS]
TOLERANCE = {"bundled": 1e-5, "hub": 5e-2}[CHECKPOINTS]  # of the largest logit

model = load_model(SOURCE, dtype=DTYPE)
tokenizer = load_tokenizer(SOURCE)
config = model.config
print("loading", SOURCE)
print("layers: ", *(kind.removesuffix("_attention") for kind in config.layer_plan[:8]))

# %% [markdown]
# A **full** layer looks back over the whole text, a **sliding** one over its window only (M9-LAB-05). Three to one,
# from the first layer to the last.

# %% [markdown]
# ## 2 · The norm comes after
#
# A block has two **sublayers**, attention and the feed-forward. The **residual** is the plain line past them: each
# sublayer *adds* to it. Llama normalises what a sublayer reads (*pre-norm*); OLMo 3 what it gives back:
#
# $$\text{pre-norm: } x + f(\text{norm}(x)) \qquad\qquad \text{OLMo 3: } x + \text{norm}(f(x))$$
#
# Both use **RMSNorm**: divide by the root of the mean square (plus a tiny `eps`, so that it is never 0), then multiply
# by learned weights. OLMo 3 rounds last:

# %%
class OurNorm(nn.Module):
    """RMSNorm. In 16 bits, the result is rounded after the weights were applied, not before."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * wide).to(x.dtype)


# %% [markdown]
# In 32 bits the order makes no difference. In 16 bits it decides the last bit. Ours against the package's, and against
# Llama's:

# %%
from course_helpers.architectures.layers import RMSNorm
from course_helpers.architectures.olmo3 import Olmo3RMSNorm

draw = torch.Generator().manual_seed(6)
x = torch.randn(100, 64, generator=draw).bfloat16()
weight = torch.randn(64, generator=draw).bfloat16()

normed = {}
for kind in (OurNorm, Olmo3RMSNorm, RMSNorm):
    norm = kind(64, 1e-6)
    norm.weight = nn.Parameter(weight)
    normed[kind] = norm(x)

norm_is_right = torch.equal(normed[OurNorm], normed[Olmo3RMSNorm])
print("ours = the package's, to the bit:", norm_is_right)
print("ours = Llama's, to the bit:      ", torch.equal(normed[OurNorm], normed[RMSNorm]))


# %% [markdown]
# Now the block. Every sublayer is followed by its norm, and the residual stays outside of both:

# %%
from course_helpers.architectures.layers import GatedFeedForward
from course_helpers.architectures.olmo3 import Olmo3Attention


class OurBlock(nn.Module):
    make_attention = Olmo3Attention  # the package's, until section 3

    def __init__(self, config, layer):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention = self.make_attention(config)
        self.attention_post_norm = OurNorm(width, eps)
        self.feed_forward = GatedFeedForward(width, config.intermediate_size)
        self.feed_forward_post_norm = OurNorm(width, eps)

    def forward(self, x_BTE, context, cache=None):
        x_BTE = x_BTE + self.attention_post_norm(self.attention(x_BTE, context, cache))
        return x_BTE + self.feed_forward_post_norm(self.feed_forward(x_BTE))


# %% [markdown]
# (The letters are the tensor's shape: B texts, T tokens, E the width. `context` holds what all layers of one type
# share: masks and rotary positions.)
#
# Why after? **Predict, then run.** We make the matrix that ends the feed-forward ten times as large. What happens to
# what the block adds to the residual, in Llama's order, and in this one?

# %%
from course_helpers.labs.lab_06 import NormsBefore

context = model.contexts(0, 20, None, None)[config.layer_plan[0]]
x_BTE = model.token_embedding(torch.arange(20)[None]).detach()  # the vectors of 20 tokens


@torch.no_grad()
def added(block):
    """Root mean square of what a block adds to the residual."""
    return (block(x_BTE, context, None) - x_BTE).float().pow(2).mean().sqrt().item()


growth = {}
for name, kind in (("Llama's order", NormsBefore), ("OLMo 3's order", OurBlock)):
    block = kind(config, 0).to(DTYPE)
    block.load_state_dict(model.blocks[0].state_dict())
    before = added(block)
    block.feed_forward.down.weight.data *= 10
    growth[name] = added(block) / before
    print(f"{name:<15} it adds {growth[name]:4.1f} times as much")

# %% [markdown]
# The norm takes out whatever size the sublayer has. No layer can flood the residual, however large its matrices have
# grown; its say is set by the norm's own weights. The makers give a calmer training as the reason (OLMo 2's report,
# arXiv 2501.00656). (In the first row it is not quite ten times, because attention adds what it added before.)
#
# In the file, the order shows in the names alone, and one name is a trap:

# %%
from course_helpers import open_checkpoint


def norms_of(source):
    """Names of the norms of layer 0 that are as wide as the model."""
    with open_checkpoint(source) as checkpoint:
        names = [name for name in checkpoint.names() if name.startswith("model.layers.0.")]
    return [name.split(".")[-2] for name in names if "layernorm" in name]


print("OLMo 3:", *norms_of(SOURCE))
print("Llama: ", *norms_of("tiny-llama3"))

# %% [markdown]
# `post_attention_layernorm` is in both files. In a Llama it stands *before the feed-forward*, here *behind attention*.
# A table of names made for Llama would put it into the wrong place, with the right shape.

# %%
from course_helpers.labs import validation_checkpoint

with torch.no_grad():
    block = OurBlock(config, 0).to(DTYPE)
    block.load_state_dict(model.blocks[0].state_dict())
    block_is_right = torch.equal(block(x_BTE, context), model.blocks[0](x_BTE, context, None))
held = norm_is_right and block_is_right and growth["OLMo 3's order"] < 1.01
validation_checkpoint("M9-LAB-06", "our post-norm block equals the package's", held)

# %% [markdown]
# ## 3 · One norm over all heads
#
# Attention compares **queries** (what a token looks for) with **keys** (what it offers), in several **heads** at once.
# If queries and keys grow, so do the scores, and attention ends up staring at one token. **QK-norm** normalises both
# before they are compared. Qwen3 does it head by head, OLMo 3 before the heads are cut apart:

# %%
figures.norm_of_heads()

# %%
from course_helpers.architectures.layers import Attention


class OurAttention(Attention):
    """Attention whose queries and keys are normalised over all heads together."""

    def __init__(self, config):
        H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        super().__init__(config.hidden_size, H, K, D)
        self.query_norm = OurNorm(H * D, config.rms_norm_eps)
        self.key_norm = OurNorm(K * D, config.rms_norm_eps)

    def project(self, x_BTE):
        query = self.query_norm(self.query(x_BTE))  # first the norm ...
        key = self.key_norm(self.key(x_BTE))
        value = self.value(x_BTE)
        return tuple(self.in_heads(part) for part in (query, key, value))  # ... then the cut


OurBlock.make_attention = OurAttention

# %% [markdown]
# (H query heads, K key/value heads, D numbers in each.) **Predict, then run.** Afterwards, has every head a mean square
# of 1, before the weights are applied? And how many times the weights of Qwen3's way does the 7B need, with 32 heads?

# %%
attention = OurAttention(config).to(DTYPE)
attention.load_state_dict(model.blocks[-1].attention.state_dict())
attention.query_norm.weight.data.fill_(1)  # leave the weights out of it
with torch.no_grad():
    heads = attention.project(x_BTE)[0].float().pow(2).mean(-1)  # (B, H, T)
each_is_1 = torch.allclose(heads, torch.ones_like(heads), atol=0.01)
together_1 = torch.allclose(heads.mean(1), torch.ones_like(heads[:, 0]), atol=0.01)
print(f"each head has a mean square of 1: {each_is_1}; all heads together: {together_1}")

PRESETS = {name.split("-")[-1]: one for name, one in FAMILIES["olmo3"].presets.items()}
for size, preset in PRESETS.items():
    layers, D = preset.num_hidden_layers, preset.head_dim
    together = layers * (preset.num_attention_heads + preset.num_key_value_heads) * D
    print(f"{size:>3}: {together:,} parameters, head by head it would be {layers * 2 * D:,}")

# %% [markdown]
# Thirty-two times: a weight for each number of each head. And a head may stay louder than its neighbours: what is fixed
# is the size of all of them together. Remember that one
# number is needed from *all* heads. It comes back in section 10, when the heads are on different machines.

# %%
attention.load_state_dict(model.blocks[-1].attention.state_dict())
with torch.no_grad():
    ours, theirs = attention.project(x_BTE), model.blocks[-1].attention.project(x_BTE)
    same = all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
held = same and together_1 and not each_is_1
validation_checkpoint("M9-LAB-06", "one QK-norm over all heads, to the bit", held)

# %% [markdown]
# ## 4 · YaRN: positions stretched
#
# A reminder of **RoPE**: each pair of numbers of a query or key is turned by an angle that grows with the token's
# position, by $\theta^{-2i/D}$ radians a position in pair *i* (the base $\theta$ is 500,000 here): the first pairs fast,
# the last ones slowly. So a score depends on how far apart two tokens are. OLMo 3 was first trained on 8,192 positions and then made to reach 65,536. Beyond 8,192,
# a slow pair would come to angles that it has never seen; a fast pair has been round many times, and knows them all.
#
# **YaRN** (arXiv 2309.00071) slows down what is slow, and keeps what is fast. For each pair it asks: how often did it
# turn in the original length? 32 times or more: kept. Once or less: slowed by the whole factor. Between, a **ramp**, a
# straight line over the pairs' numbers. (Llama 3's scaling, M9-LAB-03, blends by the turns themselves.)

# %%
def our_yarn(rope, head_dim):
    """Radians per position for each pair, and the attention factor."""
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    theta = rope.rope_theta
    plain = 1.0 / theta ** (2 * pairs / head_dim)

    def pair_with(turns):
        """Which pair turns so often in the original length? (Not a whole number.)"""
        length = rope.original_max_position_embeddings
        return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with(rope.beta_fast)), 0)  # up to here: kept
    high = min(math.ceil(pair_with(rope.beta_slow)), head_dim - 1)  # from here on: slowed
    slowed = ((pairs - low) / (high - low)).clamp(0, 1)  # the ramp, from 0 to 1
    return plain / rope.factor * slowed + plain * (1 - slowed), rope.attention_factor


big = PRESETS["7B"]
yarn, plain = big.rope(FULL), big.rope(SLIDING)
before, _ = plain.inverse_frequencies(big.head_dim)
after, _ = our_yarn(yarn, big.head_dim)
original, longest = yarn.original_max_position_embeddings, big.max_position_embeddings
charts.yarn_ramp("OLMo 3 7B", before, after, original, longest)

# %% [markdown]
# **The attention factor.** Over a longer text, attention is spread over more tokens. YaRN sharpens it again: cos and
# sin are both multiplied by $0.1 \ln(\text{factor}) + 1$, a formula that its authors found by trying. Queries and keys
# are both turned, so a score gets that twice.
#
# **Predict, then run.** The factor of stretching is 8. By how much are all scores multiplied?

# %%
by_hand = 0.1 * math.log(yarn.factor) + 1
print(f"attention factor {yarn.attention_factor:.4f}, by hand {by_hand:.4f}")
print(f"scores are multiplied by {yarn.attention_factor**2:.3f}")

equal = {}
for name, one in {"this model": config, **PRESETS}.items():
    frequencies, factor = our_yarn(one.rope(FULL), one.head_dim)
    theirs = one.rope(FULL).inverse_frequencies(one.head_dim)
    equal[name] = torch.equal(frequencies, theirs[0]) and factor == theirs[1]
print("as the package computes it, to the bit:", equal)

# %% [markdown]
# ### In the full layers only
#
# Which layers ever meet a distance that is new to them? A sliding layer looks back over its window, however long the
# text has become:

# %%
for name, one in {"this model": config, "the released 7B": big}.items():
    first = one.rope(FULL).original_max_position_embeddings
    longest = one.max_position_embeddings
    print(f"{name}: {first:,} positions by its config, stretched to {longest:,}")
    for kind in (SLIDING, FULL):
        farthest = (one.window(kind) or longest) - 1
        rope, new = one.rope(kind).rope_type, "new" if farthest >= first else "known"
        print(f"   {kind:<18} farthest distance {farthest:>6,}: {new:<6} RoPE: {rope}")

# %% [markdown]
# A sliding layer has nothing to be stretched for. Stretching it changes every distance that it has learned, for
# nothing. So the full layers have YaRN, and the sliding ones keep their RoPE. (The tiny model has had its YaRN from the
# first step of its training, the released ones got it near the end.)
#
# The config of a checkpoint says `rope_scaling` *once*, for the whole model. Nothing in it tells that three layers out
# of four must ignore it, and even a well-known library once got this wrong (transformers, pull request 45945). The last
# piece of our model:

# %%
from course_helpers.architectures.olmo3 import Olmo3Model


class OurOlmo3(Olmo3Model):
    """The package's embedding, loop and head; our norms, attention, blocks and positions."""

    block, norm = OurBlock, OurNorm

    def rotation(self, layer_type, positions_BT, dtype):
        rope, size = self.config.rope(layer_type), self.config.head_dim
        if layer_type == FULL:
            frequencies, factor = our_yarn(rope, size)
        else:
            pairs = torch.arange(size // 2, dtype=torch.float32)
            frequencies, factor = 1.0 / rope.rope_theta ** (2 * pairs / size), 1.0
        angles = positions_BT[:, None, :, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * factor, angles.sin() * factor


# %% [markdown]
# To compare whole models we need several around the same weights. Built on torch's **meta device**, a model has shapes
# and no memory; `assign=True` then gives it the tensors of ours, without copying them.

# %%
def with_same_weights(kind, its_config):
    """Another model around the very same weights."""
    with torch.device("meta"):
        other = kind(its_config)
    other.load_state_dict(model.state_dict(), strict=True, assign=True)
    return other


# %% [markdown]
# Eight stories that the tiny model has never seen are on its card, each about twice as long as its window. (The 7B reads
# the same ones.)

# %%
card = json.loads((resolve("tiny-olmo3") / "card.json").read_text())
stories = [
    [*tokenizer.encode(text), *tokenizer.stop_ids[:1]] for text in card["baseline"]["texts"]
]
ids_BT = torch.tensor([stories[0]])
ours = with_same_weights(OurOlmo3, config)
with torch.no_grad():
    same = torch.equal(ours(ids_BT), model(ids_BT))
shortest = min(map(len, stories))
print(f"tokens in the shortest story: {shortest}, in the window: {config.sliding_window}")
held = same and all(equal.values())
validation_checkpoint("M9-LAB-06", "YaRN in full layers only, to the bit", held)

# %% [markdown]
# ## 5 · What each mistake costs
#
# Eleven ways to get OLMo 3 wrong. Each gets the very same weights. Does it load, with torch's strictest setting? What
# is its **loss** on the eight stories, the mean surprise per token (in *nats*, natural logarithms; lower is better)?
# And do its **logits** move, the scores that it gives to every possible next token?

# %%
from course_helpers.labs.lab_06 import wrong_versions
from course_helpers.training import text_loss


def loss_of(one):
    """Nats per token, over all stories."""
    nats, tokens = text_loss(one, stories)
    return nats / tokens


def tell(one, new_tokens=60):
    """Greedy text, always the likeliest next token, from an opening."""
    ids = [tokenizer.encode("One sunny morning")]
    return tokenizer.decode(generate(one, ids, new_tokens, stop_ids=tokenizer.stop_ids)[0])


versions = wrong_versions(config)
if max(map(len, stories)) <= config.sliding_window:  # with the released model
    del versions["sliding layers see everything"]  # nothing would change
print("\n".join(versions))

# %% [markdown]
# **Predict, then run.** How many of them are refused? Which one hurts most? And which does the loss hardly see?

# %%
right, told = loss_of(model), tell(model)
losses, texts, moved = {}, {}, {}
with torch.no_grad():
    true_logits = model(ids_BT)
    for name, (kind, its_config) in versions.items():
        try:
            wrong = with_same_weights(kind, its_config)
        except RuntimeError:  # torch's, for a tensor that does not fit
            losses[name] = None
            continue
        losses[name], texts[name] = loss_of(wrong), tell(wrong)
        change = (wrong(ids_BT) - true_logits).abs().max() / true_logits.abs().max()
        moved[name] = change.item()

refused = [name for name, loss in losses.items() if loss is None]
print(f"{len(texts)} of {len(losses)} load without a word; refused: {', '.join(refused)}")
charts.damage(losses, right)

# %% [markdown]
# Ten of eleven load. The one that is refused has *fewer weights*, those of a single head; with weights of the right
# length the same mistake goes through.
#
# YaRN in all layers more than quadruples the loss. On a released OLMo 3 it is not as loud, and so it can live longer: a public
# measurement (a comment on vLLM's pull request 43419) has the share of right answers in a general test (MMLU) fall from
# 64.2 % to 60.5 %. Now the quiet end of the chart:

# %%
from course_helpers.labs.lab_06 import common_beginning

print(f"{'':<31}{'loss x':>7}   logits moved   words as the right model's")
for name in texts:
    same_words = f"{common_beginning(texts[name], told)} of {len(told.split())}"
    seen = "yes" if moved[name] > 1e-3 else "no"
    print(f"{name:<31}{losses[name] / right:>7.1f}   {seen:<12}   {same_words}")

# %% [markdown]
# A missing attention factor changes the loss by less than one part in a hundred, and with the factor on cos only the
# model still says the same. Without windows it says almost the same, at nearly three times the loss: sixty tokens
# hardly reach beyond the window. **A text shows what hurts at once, a loss what hurts on the texts you happened to
# take. A comparison of logits with an implementation known to be right shows all of it.** (The package's own are
# compared with Transformers' by its tests, windows and YaRN included.)

# %%
print("RIGHT\n" + textwrap.fill(told, 100))
for name in ("YaRN in all layers", "QK-norm per head, same weights"):
    print(f"\n{name.upper()}\n" + textwrap.fill(texts[name], 100))

# %%
hurts = losses["YaRN in all layers"] > right
quiet = losses["attention factor left out"] < 1.05 * right
all_seen = all(change > 1e-3 for change in moved.values())
validation_checkpoint("M9-LAB-06", "all mistakes but one load", hurts and len(refused) == 1)
validation_checkpoint("M9-LAB-06", "logits show what the loss does not", quiet and all_seen)

# %% [markdown]
# ## 6 · Base and cache
#
# Without a cache, every new token makes the model read the whole text again. With one, each layer keeps the keys and
# values that it has computed. A sliding layer keeps one window of them, in a **ring**: a new token takes the place of
# the one that has just left the window (M9-LAB-05).
#
# The cache may save work; it may not change a number. We give half of a long text at once, the rest token by token,
# until the ring has gone round many times, and compare every logit with those of the base model.

# %%
LENGTH, AT_ONCE = {"bundled": (400, 200), "hub": (4128, 4112)}[CHECKPOINTS]
long_text = [token for story in stories for token in story] * 8
long_BT = torch.tensor([long_text[:LENGTH]])

with torch.inference_mode():
    base = model(long_BT)
    cache = model.make_cache(batch_size=1, max_length=LENGTH)
    pieces = [model(long_BT[:, :AT_ONCE], cache=cache)]
    for place in range(AT_ONCE, LENGTH):
        pieces.append(model(long_BT[:, place : place + 1], cache=cache))

farthest = (torch.cat(pieces, dim=1) - base).abs().max() / base.abs().max()
logits_equal = farthest.item() < TOLERANCE
print("text:", LENGTH, "tokens; window:", config.sliding_window)
print(f"all logits the same, within {TOLERANCE:g} of the largest: {logits_equal}")

# %% [markdown]
# The greedy texts must be equal, too, and the bytes as foretold. **Predict, then run.** How many positions does each of
# the first four layers hold, after that text?

# %%
from course_helpers.memory import kv_cache_bytes

NEW = {"bundled": 140, "hub": 24}[CHECKPOINTS]
prompt = [tokenizer.encode("Once upon a time")]
options = {"stop_ids": tokenizer.stop_ids}
with_cache = generate(model, prompt, NEW, **options)
without = generate(model, prompt, NEW, use_cache=False, **options)
print("same text:", with_cache == without, "  tokens:", len(with_cache[0]))

for layer, kind in enumerate(config.layer_plan[:4], start=1):
    print(f"layer {layer}, {kind:<18} {cache.layers[layer - 1].size:>5} positions")
foretold = kv_cache_bytes(config, LENGTH, dtype=DTYPE)
print("bytes as the formula says:", cache.nbytes == foretold)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs.lab_06 import cache_by_layer_type, seconds_per_token

lengths = {"bundled": (64, 128, 256, 500), "hub": (64, 256, 1024)}[CHECKPOINTS]
rates = {"base": {}, "cache": {}}
for length in lengths:
    for name, cached in (("base", False), ("cache", True)):
        rates[name][length] = 1 / seconds_per_token(model, long_text[:length], cached)

steps = range(0, 4 * config.sliding_window + max(lengths), max(lengths) // 64)
kinds = {place: cache_by_layer_type(config, place, DTYPE) for place in steps if place}
per_position = kv_cache_bytes(config, 1, dtype=DTYPE) / 1024
held = {
    "full layers": {place: part[FULL] / 1024 for place, part in kinds.items()},
    "sliding layers": {place: part[SLIDING] / 1024 for place, part in kinds.items()},
    "if all were full": {place: per_position * place for place in kinds},
}
charts.base_and_cache(rates, held, config.sliding_window)

# %% [markdown]
# The base model slows down with every token, the cache hardly. And of the cache, only the full layers' share keeps
# growing.

# %%
in_16_bits = DTYPE.itemsize < 4  # then a tie between two words may fall either way
same_text = with_cache == without or in_16_bits
held = logits_equal and same_text and cache.nbytes == foretold
validation_checkpoint("M9-LAB-06", "base and cache agree beyond the window", held)

# %% [markdown]
# # Part 2: scale
#
# ## 7 · 7B and 32B, without a byte
#
# A model that is too large does not announce it. It downloads for an hour, and then the process is killed. All that
# decides it follows from the config, so we can know before.
#
# We build both models on the meta device, and count.
#
# **Predict, then run.** 7 and 32 billion, in bfloat16, 2 bytes a number. How many GiB are the weights?

# %%
from course_helpers.memory import weight_bytes

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "8 bits": 1}  # of one number
RELEASED = {"7B": 7_298_011_136, "32B": 32_233_522_176}  # what the published files add up to


def parameters_of(config):
    """Parameters, counted on a model that takes no memory."""
    with torch.device("meta"):
        return Olmo3Model(config).num_parameters()


counts = {size: parameters_of(preset) for size, preset in PRESETS.items()}
for size, count in counts.items():
    released = "as released" if count == RELEASED[size] else "NOT as released"
    sizes = "".join(f"   {name} {count * each / GIB:6.2f} GiB" for name, each in BYTES.items())
    print(f"{size:>3} {count:>14,} {released}{sizes}")
as_package = all(weight_bytes(PRESETS[size]) == 2 * count for size, count in counts.items())
print("sizes as the package's:", as_package)

# %% [markdown]
# (The third are numbers rounded to one byte each: section 9 comes back to them.) Where the two configs differ:

# %%
FIELDS = {
    "hidden_size": "the width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "query heads",
    "num_key_value_heads": "key/value heads: what the cache keeps",
    "head_dim": "numbers in a head",
    "intermediate_size": "inner width of the feed-forward",
    "sliding_window": "positions that a sliding layer keeps",
    "max_position_embeddings": "the longest text",
}
print(" " * 26 + "".join(f"{size:>9}" for size in PRESETS))
for field, meaning in FIELDS.items():
    values = "".join(f"{getattr(preset, field):>9,}" for preset in PRESETS.values())
    print(f"{field:<26}{values}   {meaning}")

# %% [markdown]
# ## 8 · The cache, by type of layer
#
# One position in one layer: a key and a value, in each key/value head. In a full layer that is paid for every token of
# the text, in a sliding one for the window at most:
#
# $$2 \times K \times D \times \text{bytes} \times \big(\text{full layers} \times T + \text{sliding layers} \times \min(T, W)\big)$$
#
# **Predict, then run.** The 32B has over four times the parameters and twice the layers. How large is its cache
# compared with the 7B's?

# %%
def cache_bytes(config, tokens, each=2):
    """Bytes of the cache for one text of so many tokens."""
    one = 2 * config.num_key_value_heads * config.head_dim * each
    kept = {FULL: tokens, SLIDING: min(tokens, config.sliding_window)}
    return one * sum(kept[kind] for kind in config.layer_plan)


for size, preset in PRESETS.items():
    one = 2 * preset.num_key_value_heads * preset.head_dim * 2 // 1024
    full, sliding = (preset.layer_plan.count(kind) for kind in (FULL, SLIDING))
    print(f"{size:>3}: {full} full layers grow by {full * one} KiB a token, without end")
    until = f"for {preset.sliding_window:,} tokens"
    print(f"     {sliding} sliding ones by {sliding * one} KiB, {until}")
    for tokens in (4096, 65_536):
        print(f"     {tokens:>6,} tokens: {cache_bytes(preset, tokens) / GIB:5.2f} GiB")

agree = [
    cache_bytes(preset, tokens) == kv_cache_bytes(preset, tokens)
    for preset in PRESETS.values()
    for tokens in (1, 4096, 4097, 65_536)
]
print("as the package's, to the byte:", all(agree))

# %% [markdown]
# **Half.** Its 40 query heads share 8 key/value heads; in the 7B every query head has its own. A larger model need not
# have the larger cache: read `num_key_value_heads`.

# %%
charts.memory_with_windows({f"OLMo 3 {size}": preset for size, preset in PRESETS.items()})

# %%
smaller = cache_bytes(PRESETS["32B"], 65_536) * 2 == cache_bytes(PRESETS["7B"], 65_536)
held = counts == RELEASED and as_package and all(agree) and smaller
validation_checkpoint("M9-LAB-06", "7B and 32B counted, the cache to the byte", held)

# %% [markdown]
# ## 9 · Which machine?
#
# The course's **planner** does this arithmetic for every family: program, weights, cache, and the **activations** (what
# the layers pass on), against what a machine has. Some machines it knows by their data sheets.
#
# It counts in GB, 10⁹ bytes, as data sheets do: 13.59 GiB are 14.6 GB. **Predict, then run.** A text of 4,096 tokens.
# Which is the smallest machine for the 7B? Does a T4, the GPU of free notebooks, with 16 GB, do? And which ones run
# the 32B?

# %%
from course_helpers.dtypes import short
from course_helpers.loaders.hub_budget import readable
from course_helpers.planner import plan
from course_helpers.planning.machines import MACHINES


def outcomes(machine, context=4096):
    """Size -> what the planner says of it."""
    found = plan("run", machine, family="olmo3", context=context)
    works = {one.hub_id: f"{short(one.dtype)}, {readable(one.peak)}" for one in found.choices}
    fails = {one.hub_id: "no: " + one.reasons[0].split(":")[0] for one in found.refused}
    return {hub_id.split("-")[-1]: text for hub_id, text in (works | fails).items()}


fits = {name: outcomes(name) for name in MACHINES}
print(f"{'machine':<15}{'memory':>9}   {'7B':<22}32B")
for name, found in fits.items():
    print(f"{name:<15}{readable(MACHINES[name].memory):>9}   {found['7B']:<22}{found['32B']}")

# %% [markdown]
# (Of a laptop's or desktop's memory, a tenth is left to the system.) The T4 holds the weights, and not the cache of
# such a text beside them. The planner also tells what would help, and has tried it:

# %%
t4 = plan("run", "T4", family="olmo3", context=4096)
for refusal in t4.refused:
    print(refusal.hub_id, "would do:", "; ".join(refusal.remedies))
short_text = plan("run", "T4", family="olmo3", context=1024).best
print("with 1,024 tokens, for instance:\n  ", short_text.line)

# %% [markdown]
# A T4 has no bfloat16, so the planner turns to float16. **And your machine?** All families, 4,096 tokens; memory only.
# On the command line, `python -m course_helpers plan --objective chat` also times your machine, and foretells tokens
# per second.

# %% tags=["nbval-ignore-output"]
from course_helpers.planning.calibration import machine_of

here = plan("run", machine_of("cpu", calibrate=False), context=4096)
print(f"{here.request.machine.name}: {readable(here.request.machine.memory)} may be filled")
here

# %% [markdown]
# Can one trust it? Its foretelling was compared with seven measured runs, each in a fresh process
# (`benchmarks/results/planning.md`). The ratio is foretold / measured:

# %% tags=["nbval-ignore-output"]
from pathlib import Path

import course_helpers

measured = Path(course_helpers.__file__).parents[1] / "benchmarks" / "results" / "planning.json"
rows = json.loads(measured.read_text(encoding="utf-8"))["rows"]
for what in ("peak", "tokens_per_second"):
    ratios = [row[what]["ratio"] for row in rows]
    print(f"{what:<18} {len(ratios)} runs, ratios from {min(ratios):.2f} to {max(ratios):.2f}")

# %% [markdown]
# Memory is arithmetic, and comes out to a few per cent. Speed is a forecast, from a short timing of the same machine.
# **Plan memory to the gigabyte, and leave speed some room.**
#
# ### Rounder numbers: int8
#
# If the weights are too many bytes, they can have fewer each. **Quantization** stores numbers in coarse steps. The
# plainest kind, *weight-only int8*, gives each row of a matrix one **scale**, the size of a step: the row's largest
# weight / 127. Each weight is then a whole number of steps, from -127 to 127, and that is one byte. The model still
# computes in bfloat16. The first numbers of one row:

# %%
bundled = load_model("tiny-olmo3", torch.bfloat16)
row = bundled.blocks[0].feed_forward.down.weight[0].detach().float()
scale = row.abs().max() / 127
whole = (row / scale).round()
for name, numbers in {"weights": row, "in steps": whole, "again": whole * scale}.items():
    print(f"{name:<10}" + "".join(f"{number:>9.4g}" for number in numbers[:6].tolist()))
off = (whole * scale - row).abs().max() / scale
print(f"scale {scale.item():.4g}; none is off by more than half a step: {off.item() <= 0.501}")

# %% [markdown]
# `load_model` does it for every matrix. **Predict, then run.** How many of the bytes are left, exactly a half? And the
# loss on the eight stories: does it grow by less than 1 %, by 10 %, or twofold? Do the logits move?

# %%
words = load_tokenizer("tiny-olmo3")
eight = [[*words.encode(text), *words.stop_ids[:1]] for text in card["baseline"]["texts"]]
forms = {"float32": (torch.float32, "plain"), "bfloat16": (torch.bfloat16, "plain")}
forms["int8"] = (torch.bfloat16, "int8")
held_bytes, found_loss, found_logits = {}, {}, {}
for name, (dtype, form) in forms.items():
    one = load_model("tiny-olmo3", dtype, weights=form)
    held_bytes[name] = one.load_report.nbytes
    nats, tokens = text_loss(one, eight)
    found_loss[name] = nats / tokens
    with torch.inference_mode():
        found_logits[name] = one(torch.tensor([eight[0]])).float()

first = found_logits["float32"]
for name, size in held_bytes.items():
    grown = abs(found_loss[name] / found_loss["float32"] - 1) < 0.01
    stirred = (found_logits[name] - first).abs().max() > 1e-3 * first.abs().max()
    share = size / held_bytes["bfloat16"]
    print(f"{name:<9}{size:>10,} bytes, {share:.3f} of bfloat16; ", end="")
    print(f"loss within 1 %: {grown}; logits moved: {stirred.item()}")

# %% [markdown]
# A little more than half: the scales are 2 bytes a row, and the norms stay as they are. The logits move, by bfloat16
# alone as well, and the loss hardly notices. On 200 stories (`benchmarks/results/int8.md`) no bundled model's loss
# changes by more than two standard errors. A mixture of experts is moved most: a small error can make a router choose
# another expert, and that is no small change any more. (These models are tiny. One huge weight makes all steps of its
# row coarse, and a large model can have such: measure yours.)
#
# **Predict, then run.** Three computers, 4,096 tokens. With half the bytes, do models of twice the size fit?

# %%
print(f"{'memory':<9}{'largest in bfloat16':<37}{'largest in int8':<33}loading")
largest = {}
for gb in (8, 16, 24):
    cells = {}
    for form in ("plain", "int8"):
        options = {"dtype": torch.bfloat16, "weights": form, "memory": int(0.9 * gb * 1e9)}
        best = plan("run", "laptop-16GB", context=4096, **options).choices[-1]
        largest[gb, form] = best
        cells[form] = f"{best.hub_id.split('/')[-1]}, {readable(best.peak)}"
    print(f"{gb:>2} GB    {cells['plain']:<37}{cells['int8']:<33}{best.strategy}")

# %% [markdown]
# About twice, yes. But look at how they are loaded. The files hold bfloat16, and each matrix is rounded after it was
# read; with `stream` the plain model would be in memory first, and nothing would be won. With `mmap` its matrices are
# pages of the file, which the system can take back when each has been read once (M9-LAB-01). A GPU has no such pages:
# there the plain model must fit first, and int8 only leaves more room for the text. **The peak decides, not the end.**

# %%
doubled = all(
    largest[gb, "int8"].parameters > 1.5 * largest[gb, "plain"].parameters for gb in (8, 16, 24)
)
half = 0.5 < held_bytes["int8"] / held_bytes["bfloat16"] < 0.52
int8_is_right = half and doubled and abs(found_loss["int8"] / found_loss["float32"] - 1) < 0.01
print("half the bytes, nearly the loss, larger models:", int8_is_right)

# %%
smallest = {}
for size in PRESETS:
    works = [MACHINES[name] for name in fits if not fits[name][size].startswith("no")]
    smallest[size] = min(works, key=lambda machine: machine.memory)
    print(f"{size:>3} at 4,096 tokens: the smallest is {smallest[size].name}")

weights_alone_fit = 2 * counts["7B"] < MACHINES["T4"].memory
held = weights_alone_fit and fits["T4"]["7B"].startswith("no") and short_text is not None
held = held and int8_is_right
validation_checkpoint("M9-LAB-06", "the planner says what fits where", held)

# %% [markdown]
# ## 10 · Several machines
#
# No 40 GB machine runs the 32B. Two of them together have 80 GB. There are two ways to put one model on several **devices**:

# %%
figures.two_ways_to_share()

# %% [markdown]
# **Tensor parallel** cuts every matrix: each device gets some heads and a part of the feed-forward, and their results
# are summed. That sum, after which every device has the whole, is an **all-reduce**. Heads cannot be halved.
#
# **Predict, then run.** Over how many devices can each size be spread, so that all get equally many heads?

# %%
spread = {}
for size, preset in PRESETS.items():
    heads, shared = preset.num_attention_heads, preset.num_key_value_heads
    spread[size] = [n for n in range(1, 65) if heads % n == 0 and shared % n == 0]
    print(f"{size:>3}: {heads} query and {shared} key/value heads: {spread[size]} devices")

# %% [markdown]
# The larger model can be cut into fewer pieces: 8 key/value heads, 8 devices.
#
# We can try it without a second machine: cut one attention into parts, let each work alone, and add up. Section 3's
# warning comes true here. The QK-norm divides by the mean square of *all* heads, and no device has them all. So the
# sums of squares must be exchanged first:

# %%
from course_helpers.architectures.rope import apply_rotary


def all_reduce(parts):
    """What the network does: every device gets the sum of all parts."""
    return sum(parts)


def norm_over_devices(norm, parts):
    """QK-norm of queries or keys that lie on several devices."""
    squares = all_reduce([part.float().pow(2).sum(-1, keepdim=True) for part in parts])
    width, weights = sum(part.shape[-1] for part in parts), norm.weight.chunk(len(parts))
    scale = torch.rsqrt(squares / width + norm.eps)
    return [(weights[n] * part.float() * scale).to(part.dtype) for n, part in enumerate(parts)]


def norm_alone(norm, parts):
    """The same if every device knows its own heads only."""
    weights = norm.weight.chunk(len(parts))
    width = weights[0].shape
    return [F.rms_norm(part, width, weights[n], norm.eps) for n, part in enumerate(parts)]


# %%
def attention_on(attention, devices, x_BTE, context, qk_norm):
    """Each device's result. Rows of query, key, value are cut, columns of the output."""

    def cut(linear):
        return [F.linear(x_BTE, rows) for rows in linear.weight.chunk(devices)]

    def turn(x):
        return apply_rotary(attention.in_heads(x), context.cos_B1TD, context.sin_B1TD)

    queries = qk_norm(attention.query_norm, cut(attention.query))
    keys = qk_norm(attention.key_norm, cut(attention.key))
    values, columns = cut(attention.value), attention.output.weight.chunk(devices, dim=1)
    settings = {"attn_mask": context.mask, "is_causal": context.is_causal, "enable_gqa": True}
    results = []
    for query, key, value, output in zip(queries, keys, values, columns, strict=True):
        heads = turn(query), turn(key), attention.in_heads(value)
        mixed = F.scaled_dot_product_attention(*heads, **settings)
        results.append(F.linear(mixed.transpose(1, 2).flatten(2), output))
    return results


# %% [markdown]
# **Predict, then run.** One right way, two shortcuts: no exchange before the QK-norm; or each device applies the block's
# post-norm to its own part, before the sum. Is $\text{norm}(a) + \text{norm}(b)$ the same as $\text{norm}(a + b)$?

# %%
block, devices = model.blocks[0], 2
with torch.no_grad():
    whole = block.attention_post_norm(block.attention(x_BTE, context))
    shared = attention_on(block.attention, devices, x_BTE, context, norm_over_devices)
    alone = attention_on(block.attention, devices, x_BTE, context, norm_alone)
    tried = {
        "exchange, sum, norm": block.attention_post_norm(all_reduce(shared)),
        "no exchange": block.attention_post_norm(all_reduce(alone)),
        "norm, then sum": all_reduce([block.attention_post_norm(part) for part in shared]),
    }

split_equal = {}
for name, found in tried.items():
    off = (found - whole).abs().max() / whole.abs().max()
    split_equal[name] = off.item() < TOLERANCE
    print(f"{name:<20} as on one device: {split_equal[name]}")

# %% [markdown]
# Neither shortcut raises an error. A Llama knows neither trap: it has no QK-norm, and its norms read the residual, which
# every device has in full. **Where a norm stands decides what must be sent.** For each token of the 32B:

# %%
big = PRESETS["32B"]
numbers, layers = big.hidden_size, big.num_hidden_layers

sums = 2 * numbers * 2  # after attention and after the feed-forward: two vectors in bfloat16
squares = 2 * 4  # of the queries and of the keys: two numbers in float32
tensor_parallel, pipeline = layers * (sums + squares), numbers * 2
print(f"tensor parallel: {sums:,} + {squares} bytes a layer, {tensor_parallel:,} for a token")
print(f"                 in {layers * 3} exchanges, for each of which all must wait")
print(f"pipeline:        {pipeline:,} bytes at each border between two devices")

# %% [markdown]
# (An all-reduce over a ring of *N* devices makes each send $2(N-1)/N$ times those bytes.) A **pipeline** gives each
# device whole layers, and hardly sends anything. But a token goes through one device after the other. How long would it
# take at least, on H100s, if reading weights and cache once were all that takes time?
#
# **Predict, then run.** With eight devices instead of one, does the memory of each become an eighth? And the time?

# %%
from course_helpers.labs.lab_06 import pipeline_parameters, tensor_parallel_parameters

TOKENS = 65_536
read = MACHINES["H100"].speeds[torch.bfloat16].bandwidth / 1e3  # bytes a ms, by its data sheet
in_turn = (2 * counts["32B"] + cache_bytes(big, TOKENS)) / read
ways, rows = {}, {}
print("          GiB on the fullest device     ms a token at least")
print("devices       tensor     pipeline       tensor     pipeline")
for n in spread["32B"]:
    weights, kept = 2 * tensor_parallel_parameters(big, n), cache_bytes(big, TOKENS) // n
    stage = 2 * pipeline_parameters(big, n) + kept  # the layers' types take turns
    ways[n] = {"tensor parallel": weights + kept, "pipeline": stage}
    rows[n] = {"weights": weights / GIB, "cache": kept / GIB}
    columns = ((weights + kept) / GIB, stage / GIB, (weights + kept) / read, in_turn)
    print(f"{n:>7}" + "".join(f"{column:>13.1f}" for column in columns))

# %%
ceilings = {f"{gb} GB": gb * 1e9 / GIB for gb in (24, 40, 80)}
stages = [way["pipeline"] / GIB for way in ways.values()]
title = f"OLMo 3 32B in bfloat16, weights and cache for {TOKENS:,} tokens"
charts.per_device(title, rows, ceilings, stages)

# %% [markdown]
# Tensor parallel: an eighth of both, since all devices read at once; but it needs fast wires between them. A pipeline:
# a little more memory (its fullest device has the embedding or the head beside its layers), and not a millisecond less.
# It is content with a slow network, and keeps its devices busy only with several texts under way. Two 40 GB machines
# hold the model either way. (The program and the activations come on top.)

# %%
counted_once = (
    tensor_parallel_parameters(big, 1) == pipeline_parameters(big, 1) == counts["32B"]
)
only_the_right_one = split_equal == {name: name == "exchange, sum, norm" for name in tried}
held = counted_once and only_the_right_one and spread["32B"] == [1, 2, 4, 8]
validation_checkpoint("M9-LAB-06", "cut in two and summed, the block is the same", held)

# %% [markdown]
# ## 11 · Two processes, really
#
# So far the devices were a list in one program. Now we start two programs. **torchrun**, torch's own launcher, gives each
# a number, its **rank**, and an address where they meet; torch.distributed does the all-reduces. In a terminal, on this
# machine or with one GPU a rank (`--device cuda`):
#
# ```
# torchrun --nproc-per-node 2 -m course_helpers generate tiny-olmo3 --prompt "Once upon a time"
# ```
#
# Who holds what is a table for each family, in `course_helpers/parallelism/plans.py`. OLMo 3's:

# %%
cut_plan = FAMILIES["olmo3"].parallel
for module, style in cut_plan.items():
    print(f"{module:<34}{style}")

# %% [markdown]
# Each row is what section 10 did by hand: rows, columns, and an exchange before the QK-norm. From such a table follows
# what every rank holds, before there is a rank. And a rank **reads** only what it holds: of a matrix cut by rows, one
# piece of the file; cut by columns, a piece of every row.
#
# **Predict, then run.** Two processes share the bundled model. Does each hold exactly half of the weights? Of the cache?
# And is their text the one that a single process writes?

# %%
from course_helpers.labs.lab_06_ranks import on_ranks
from course_helpers.parallelism.costs import rank_cost

PROMPT, NEW = "Once upon a time", 24
small = load_model("tiny-olmo3", torch.float32)
tokenizer_small = load_tokenizer("tiny-olmo3")
prompt, stops = tokenizer_small.encode(PROMPT), tokenizer_small.stop_ids
alone = generate(small, [prompt], NEW, stop_ids=stops)[0]
ranks = on_ranks(2, "tiny-olmo3", PROMPT, NEW)

total, whole_cache = 4 * small.num_parameters(), small.make_cache(1, 1024).nbytes
cost = rank_cost(small.config, 2, torch.float32)
for rank in ranks:
    weights, cache = rank["weights"] / total, rank["cache"] / whole_cache
    print(f"rank {rank['rank']} holds {weights:.2%} of the weights, {cache:.2%} of the cache")
print(f"by the plan: {cost.held:,} bytes, of them {cost.copied:,} copied")
print(tokenizer_small.decode(ranks[0]["tokens"]))

# %% [markdown]
# Half, and a little: the post-norms are in both. The tokens are the same, in both ranks, because after each sum both
# have the same numbers. On one machine's two cores this gains nothing: it costs a start, and over a hundred waits for each
# token of a large model. It is worth it where one device **cannot hold** the model, and its wires are fast. By the same
# plan, for the large ones:

# %%
from course_helpers.parallelism.costs import cost_table

print(cost_table(["allenai/Olmo-3-1125-32B", "Qwen/Qwen3-30B-A3B"], ranks=(2, 4, 8)))

# %% [markdown]
# OLMo 3 waits for twice as many sums as a model without its QK-norm would: those of queries and of keys go separately
# here, and the embedding's is counted, too. Qwen3-30B-A3B has 4 key/value heads: on 8 ranks, two share one, and both
# keep its cache. The runbook has the recipes for 2, 4 and 8 GPUs, and for several machines.

# %%
as_planned = all(rank["weights"] == cost.held for rank in ranks)
half_a_cache = all(2 * rank["cache"] == whole_cache for rank in ranks)
same_tokens = all(rank["tokens"] == alone for rank in ranks)
held = as_planned and half_a_cache and same_tokens
validation_checkpoint("M9-LAB-06", "two processes share a model: as planned, same tokens", held)

# %% [markdown]
# ## 12 · The plan on one page
#
# What a plan should hold before anybody downloads 64 GB: every figure computed above. Write such a table for each model
# that you mean to run, and keep it beside the run. And begin with the smallest size that does what you need: everything
# in part 1 was found on a model of two megabytes.

# %%
constraints = {}
for size, preset in PRESETS.items():
    one = 2 * preset.num_key_value_heads * preset.head_dim * 2
    constraints[size] = {
        "parameters": f"{counts[size]:,}",
        "weights, bfloat16": readable(2 * counts[size]),
        "weights, float32": readable(4 * counts[size]),
        "cache a token, full layers": readable(preset.layer_plan.count(FULL) * one),
        "cache, sliding layers, at most": readable(
            preset.layer_plan.count(SLIDING) * one * preset.sliding_window
        ),
        "cache at 65,536 tokens": readable(cache_bytes(preset, TOKENS)),
        "smallest machine, 4,096 tokens": smallest[size].name,
        "devices it can be cut for": " ".join(map(str, spread[size])),
        "YaRN in layers": f"{preset.layer_plan.count(FULL)} of {preset.num_hidden_layers}",
    }
print(f"{'':<33}{'7B':<22}32B")
for line in constraints["7B"]:
    print(f"{line:<33}{constraints['7B'][line]:<22}{constraints['32B'][line]}")

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-06",
    {
        "source": SOURCE,
        "held_out_loss": {"right": right} | losses,
        "farthest_logit_relative": moved,
        "tokens_per_second": rates,
        "constraints": constraints,
        "machines_4096_tokens": fits,
        "bytes_per_device_32b_65536_tokens": ways,
        "bytes_sent_per_token_32b": {"tensor parallel": tensor_parallel, "pipeline": pipeline},
    },
)

# %% [markdown]
# ## Recap
#
# - OLMo 3: **norm after** the sublayer, residual outside; **QK-norm over all heads**; three sliding layers to a full
#   one; **YaRN in the full layers only**, with an attention factor on cos and sin.
# - Of eleven mistakes ten load without an error, and two hardly move the loss. Compare logits.
# - A cache must not change a number. With windows, only the full layers' part of it grows.
# - Weights follow from the parameters, the cache from key/value heads, layers and windows: a larger model can have the
#   smaller cache.
# - int8 weights are half of bfloat16's bytes, at hardly any loss here; a model is loaded plain before, and that counts.
# - A norm over numbers that lie on several devices costs an exchange; without it, the model is wrong in silence.
# - On several ranks, each reads and holds its part, and all write the same text. It is for models that one device cannot
#   hold.
#
# **You can now** port an OLMo 3 and prove it right; plan a model's memory to the byte before you download it; say which
# machine it needs; and lay it out, and run it, over several.
#
# **Next:** M9-LAB-07 puts Llama and Qwen3 into the training loop of chapter 5.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The block
#
# Without looking at section 2: write OLMo 3's block out of its parts. `attention` and `feed_forward` are functions of
# one tensor, and so are the norms that belong to them.

# %% tags=["exercise"]
def post_norm_block(x, attention, attention_norm, feed_forward, feed_forward_norm):
    """What comes out of the block for x."""
    raise NotImplementedError


# %% tags=["solution"]
def post_norm_block(x, attention, attention_norm, feed_forward, feed_forward_norm):
    x = x + attention_norm(attention(x))
    return x + feed_forward_norm(feed_forward(x))


# %%
from course_helpers.labs.lab_06_exercises import check_post_norm_block

check_post_norm_block(post_norm_block)


# %% [markdown]
# ### Exercise 2 · The longest text
#
# You have `budget` bytes for weights and cache together, both at `bytes_each` bytes a number. How many tokens can a
# text have at most? (The rest, the program and the activations, has been taken off already.) If the weights alone do
# not fit: 0. `parameters_of(config)` is section 7's; section 8 has the formula for the cache. It has a bend: mind
# both sides of it.

# %% tags=["exercise"]
def longest_text(config, budget, bytes_each):
    """The most tokens, a whole number, for which weights and cache fit into the budget."""
    raise NotImplementedError


# %% tags=["solution"]
def longest_text(config, budget, bytes_each):
    room = budget - parameters_of(config) * bytes_each
    one = 2 * config.num_key_value_heads * config.head_dim * bytes_each
    full, sliding = (config.layer_plan.count(kind) for kind in (FULL, SLIDING))
    tokens = room // (one * (full + sliding))  # while all layers grow
    if tokens > config.sliding_window:  # the windows are full, and only the full layers grow
        tokens = (room - one * sliding * config.sliding_window) // (one * full)
    return max(0, min(tokens, config.max_position_embeddings))


# %%
from course_helpers.labs.lab_06_exercises import check_longest_text

check_longest_text(longest_text)


# %% [markdown]
# ### Exercise 3 · From config.json to cos and sin
#
# The trap of this family in one function. `rotary` is what stands in a config.json: `rope_theta`, `head_dim` (D), and a
# `rope_scaling` with `factor`, `original_max_position_embeddings`, `beta_fast` and `beta_slow`. This file gives no
# `attention_factor`. Return the tables cos and sin, each of shape (positions, D), for the layers of one type. Pair *i*
# is made of the numbers *i* and *i + D/2*.

# %% tags=["exercise"]
def rotary_tables(rotary, layer_type, positions):
    """cos and sin for positions 0, 1, 2, ... in the layers of one type."""
    raise NotImplementedError


# %% tags=["solution"]
def rotary_tables(rotary, layer_type, positions):
    theta, size, scaling = rotary["rope_theta"], rotary["head_dim"], rotary["rope_scaling"]
    pairs = torch.arange(size // 2, dtype=torch.float32)
    frequencies, factor = theta ** (-2 * pairs / size), 1.0
    if layer_type == FULL:
        length = scaling["original_max_position_embeddings"] / (2 * math.pi)
        low, high = (
            size * math.log(length / scaling[turns]) / (2 * math.log(theta))
            for turns in ("beta_fast", "beta_slow")
        )
        low, high = math.floor(low), math.ceil(high)
        slowed = ((pairs - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies / scaling["factor"] * slowed + frequencies * (1 - slowed)
        factor = 0.1 * math.log(scaling["factor"]) + 1
    angles = torch.arange(positions)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * factor, angles.sin() * factor


# %%
from course_helpers.labs.lab_06_exercises import check_rotary_tables

check_rotary_tables(rotary_tables)
