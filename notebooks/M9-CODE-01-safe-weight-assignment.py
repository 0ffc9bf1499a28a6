# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-CODE-01 · A weight loader that cannot go wrong in silence
#
# | | |
# |---|---|
# | **Objective** | Build a safe weight loader from nothing: checked assignment, a mapping as data, plan before action, checks of config and tokenizer; then meet the package's own |
# | **Before this** | M9-LAB-APP-A: you have run the loading checklist, and you know the difference between private memory and a mapped file |
# | **Time** | 50 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 6 and 15 |
#
# **At the end you will be able to**
#
# - write an assignment that refuses a wrong tensor and says which one it was;
# - write the mapping from any checkpoint to any model as a table, and run it backwards;
# - account for every tensor on both sides before a single weight is read, so that a refused load changes nothing;
# - say which mistakes no shape can show, and find them by what the model does;
# - check that config, tokenizer and weights belong together.

# %%
from course_helpers.labs.code_01_figures import names_to_parameters

names_to_parameters()

# %% [markdown]
# In M9-LAB-01 `load_model` did the work. It is no magic: names at the left, parameters at the right, and a **rule** for each
# way between them. The picture shows six tensors of a GPT-2 file. In this lab you write all of it yourself, in cells of a
# few lines. At the end your loader and the package's are put side by side, with good checkpoints and with broken ones.

# %% [markdown]
# ## 1 · One switch, two checkpoints
#
# A Llama first, because its file is the simpler one; then a GPT-2. To run the same cells on models from the hub, set the
# environment variable `COURSE_CHECKPOINTS` to `hub` before you start Jupyter (the Llama is then SmolLM2, which has Llama's
# architecture and needs no account; have 8 GB of memory).

# %%
import os
import textwrap

import torch

from course_helpers import FAMILIES, generate, load_model, load_tokenizer, open_checkpoint
from course_helpers.families import family_of

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {
    "bundled": {"llama": "tiny-llama3", "gpt2": "tiny-gpt2"},
    "hub": {"llama": "HuggingFaceTB/SmolLM2-135M", "gpt2": "openai-community/gpt2"},
}[CHECKPOINTS]
PROMPT = {"bundled": "Once upon a time", "hub": "Every effort moves"}[CHECKPOINTS]

torch.set_printoptions(precision=3, sci_mode=False)
llama_file = open_checkpoint(SOURCE["llama"])
gpt2_file = open_checkpoint(SOURCE["gpt2"])
print("tensors in the Llama's file:", len(llama_file.names()))
print("tensors in GPT-2's file:    ", len(gpt2_file.names()))

# %% [markdown]
# `open_checkpoint` reads the table of contents of a file and none of the weights. What we get can tell the `names()` of its
# tensors, the `shape(name)` and the `dtype(name)` of each, and can `read(name)` one of them. That is all a loader needs.
#
# On the other side stands a model. Its **parameters** are named tensors, too, filled with random numbers so far. (`family_of`
# finds the architecture that `config.json` names.)

# %%
def fresh(checkpoint):
    """A model of the size that the checkpoint's config.json asks for, with random weights."""
    family = family_of(checkpoint.config)
    return family.model(family.config.from_hf(checkpoint.config))


llama = fresh(llama_file)
gate, norm = llama.blocks[0].feed_forward.gate.weight, llama.blocks[0].attention_norm.weight
print("a matrix:", tuple(gate.shape), "  a vector:", tuple(norm.shape))

# %% [markdown]
# ## 2 · Assign, with a name
#
# The heart of every loader is one line: put a tensor's numbers into a parameter. PyTorch's way to do so is `copy_`, which
# also converts the type (this file holds 16-bit numbers, the model 32-bit ones).
#
# **Predict, then run.** We make a mistake on purpose and copy the *vector* into the *matrix*. What happens?

# %%
vector = llama_file.read("model.layers.0.input_layernorm.weight")
with torch.no_grad():  # assigning is not a step that training should take back
    gate.copy_(vector)

print("no error. All rows of the matrix are now the vector:", bool((gate == vector).all()))

# %% [markdown]
# PyTorch **broadcasts**: where a tensor is too small but could be repeated to fit, it is repeated. In a computation that is
# handy. In a loader it is a disaster that nobody notices. The other usual way is no better:

# %%
up = llama.blocks[0].feed_forward.up.weight
up.data = vector
print("no error. The matrix's shape is now", tuple(up.shape))

# %% [markdown]
# And where the shapes cannot be made to fit, there is an error at last:

# %%
try:
    with torch.no_grad():
        gate.copy_(llama_file.read("model.layers.2.mlp.down_proj.weight"))
except RuntimeError as error:
    print(error)

# %% [markdown]
# Which tensor? Of which layer? Is `a` the file's or the model's? A model of 8 billion parameters has about 290 tensors. **An error
# without a name is half an error**: you know that something is wrong, and nothing about what. So we write our own line:

# %%
def assign(parameter, tensor, name):
    """Copy a tensor into a parameter of the same shape. Raises ValueError, with the name."""
    if tensor.shape != parameter.shape:
        expected, found = tuple(parameter.shape), tuple(tensor.shape)
        raise ValueError(f"{name}: expected shape {expected}, found {found}")
    with torch.no_grad():
        parameter.copy_(tensor)


for name in ("model.layers.0.input_layernorm.weight", "model.layers.2.mlp.down_proj.weight"):
    try:
        assign(gate, llama_file.read(name), name)
    except ValueError as error:
        print(error)

# %% [markdown]
# Both mistakes are refused now, and each message answers three questions: *which tensor, what was expected, what was found*.
# Keep those three; every loader you ever write should have them.

# %% [markdown]
# ## 3 · A table instead of a hundred lines
#
# Now the names. The file calls a matrix `model.layers.0.self_attn.q_proj.weight`; our model calls it
# `blocks.0.attention.query.weight`. One could write an assignment for each. But all layers are alike, so eleven rows say
# everything, with `{layer}` where the number goes:

# %%
LAYER, BLOCK = "model.layers.{layer}.", "blocks.{layer}."

LLAMA = {
    "model.embed_tokens.weight": "token_embedding.weight",
    LAYER + "input_layernorm.weight": BLOCK + "attention_norm.weight",
    LAYER + "self_attn.q_proj.weight": BLOCK + "attention.query.weight",
    LAYER + "self_attn.k_proj.weight": BLOCK + "attention.key.weight",
    LAYER + "self_attn.v_proj.weight": BLOCK + "attention.value.weight",
    LAYER + "self_attn.o_proj.weight": BLOCK + "attention.output.weight",
    LAYER + "post_attention_layernorm.weight": BLOCK + "feed_forward_norm.weight",
    LAYER + "mlp.gate_proj.weight": BLOCK + "feed_forward.gate.weight",
    LAYER + "mlp.up_proj.weight": BLOCK + "feed_forward.up.weight",
    LAYER + "mlp.down_proj.weight": BLOCK + "feed_forward.down.weight",
    "model.norm.weight": "final_norm.weight",
}


# %% [markdown]
# A small function fills in the numbers. Are these really all the names of the file?

# %%
def expand(table, layers):
    """The table for so many layers: every name of the file -> the parameter's name."""
    names = {}
    for theirs, ours in table.items():
        for layer in range(layers) if "{layer}" in theirs else [0]:
            names[theirs.format(layer=layer)] = ours.format(layer=layer)
    return names


layers = llama.config.num_hidden_layers
names = expand(LLAMA, layers)
print(len(LLAMA), "rows become", len(names), "names")
print("the very names of the file:", set(names) == set(llama_file.names()))
print("every parameter once:      ", sorted(names.values()) == sorted(llama.state_dict()))
print("with the 32 layers of 8B:  ", len(expand(LLAMA, 32)), "names from the same rows")

# %% [markdown]
# Table and loop, and the model is loaded:

# %%
llama = fresh(llama_file)
parameters = dict(llama.named_parameters())
for theirs, ours in names.items():
    assign(parameters[ours], llama_file.read(theirs), theirs)

tokenizer = load_tokenizer(SOURCE["llama"])


def tell(model, tokenizer, new_tokens=100):
    """Greedy text: always the likeliest next token, so the same text every time."""
    prompt = tokenizer.encode(PROMPT)
    ids = generate(model, [prompt], new_tokens, stop_ids=tokenizer.stop_ids)[0]
    return tokenizer.decode(ids)


print(textwrap.fill(tell(llama, tokenizer), 100))

# %% [markdown]
# It speaks. A text is a good sign, and no proof. The proof is a comparison of numbers with a loader that we trust, to the
# last bit. **Logits** are the model's scores for every possible next token:

# %%
trusted_llama = load_model(SOURCE["llama"], dtype=torch.float32)
llama_ids = torch.tensor([tokenizer.encode(tell(trusted_llama, tokenizer))])


@torch.no_grad()
def same_logits(model, other, ids):
    """Whether two models give the same scores, bit for bit."""
    return torch.equal(model(ids), other(ids))


llama_is_right = same_logits(llama, trusted_llama, llama_ids)
print("our loop and load_model agree to the bit:", llama_is_right)

# %% [markdown]
# ### A table can be extended
#
# Why data and not code? First, because families are alike. Qwen3 differs from Llama in two tensors a layer: a norm for the
# queries and one for the keys. `base | overrides` is a new table, with the rows of both; where both have a row, the one at
# the right wins.

# %%
QWEN3 = LLAMA | {
    LAYER + "self_attn.q_norm.weight": BLOCK + "attention.query_norm.weight",
    LAYER + "self_attn.k_norm.weight": BLOCK + "attention.key_norm.weight",
}

with open_checkpoint("tiny-qwen3") as qwen3_file:
    qwen3 = fresh(qwen3_file)
    its = expand(QWEN3, qwen3.config.num_hidden_layers)
    print("the very names of the file:", set(its) == set(qwen3_file.names()))
    print("every parameter once:      ", sorted(its.values()) == sorted(qwen3.state_dict()))

# %% [markdown]
# Second, a table can be read from right to left. That gives the other half of the work, *saving* a model under the names
# that other programs expect, without a line that could contradict the first half:

# %%
back = {ours: theirs for theirs, ours in names.items()}
exported = {back[ours]: parameter.detach() for ours, parameter in llama.named_parameters()}

same = [torch.equal(tensor, llama_file.read(name).float()) for name, tensor in exported.items()]
print(f"{sum(same)} of {len(llama_file.names())} tensors are again what stands in the file")

# %% [markdown]
# ## 4 · Tensors that must be turned and cut
#
# GPT-2's file is older, and a name is not enough. Its matrices are stored as **(input, output)**, but `nn.Linear`, PyTorch's
# layer for a matrix, keeps (output, input): they must be turned, that is, **transposed**. And query, key and value lie side by
# side in one tensor: it must be cut in three. So a row gets two more things to say, and becomes a small class:

# %%
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """What becomes of one tensor of the file."""

    targets: tuple  # names of our parameters; if there are several, the tensor is cut
    turn: bool = False  # stored as (input, output)

    def pieces(self, tensor):
        """The tensors for our parameters: views, nothing is copied."""
        tensor = tensor.T if self.turn else tensor
        return tensor.chunk(len(self.targets))

    def shape(self, shapes):
        """The shape that the file's tensor must have, given those of our parameters."""
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return whole[::-1] if self.turn else whole


# %% [markdown]
# `.T` and `chunk` are **views**: other ways to look at the same memory. The pieces begin where the tensor begins, and turning
# takes no memory, however large the matrix is. The only copy is the one that `assign` makes.

# %%
weight = gpt2_file.read("h.0.attn.c_attn.weight")
pieces = Row(("query", "key", "value"), turn=True).pieces(weight)
print(tuple(weight.shape), "becomes", [tuple(piece.shape) for piece in pieces])
print("in the same memory:", pieces[0].data_ptr() == weight.data_ptr())

# %% [markdown]
# And the table:

# %%
H = "h.{layer}."
QKV = ("attention.query", "attention.key", "attention.value")

GPT2 = {
    "wte.weight": Row(("token_embedding.weight",)),
    "wpe.weight": Row(("position_embedding.weight",)),
    H + "ln_1.weight": Row((BLOCK + "attention_norm.weight",)),
    H + "ln_1.bias": Row((BLOCK + "attention_norm.bias",)),
    H + "attn.c_attn.weight": Row(tuple(f"{BLOCK}{part}.weight" for part in QKV), turn=True),
    H + "attn.c_attn.bias": Row(tuple(f"{BLOCK}{part}.bias" for part in QKV)),
    H + "attn.c_proj.weight": Row((BLOCK + "attention.output.weight",), turn=True),
    H + "attn.c_proj.bias": Row((BLOCK + "attention.output.bias",)),
    H + "ln_2.weight": Row((BLOCK + "feed_forward_norm.weight",)),
    H + "ln_2.bias": Row((BLOCK + "feed_forward_norm.bias",)),
    H + "mlp.c_fc.weight": Row((BLOCK + "feed_forward.up.weight",), turn=True),
    H + "mlp.c_fc.bias": Row((BLOCK + "feed_forward.up.bias",)),
    H + "mlp.c_proj.weight": Row((BLOCK + "feed_forward.down.weight",), turn=True),
    H + "mlp.c_proj.bias": Row((BLOCK + "feed_forward.down.bias",)),
    "ln_f.weight": Row(("final_norm.weight",)),
    "ln_f.bias": Row(("final_norm.bias",)),
}


# %% [markdown]
# Still data: sixteen rows, whatever the size of the model. `expand` learns to take both kinds, a plain name and a `Row`:

# %%
def expand(table, layers):
    """The table for so many layers: every name of the file -> its Row."""
    rows = {}
    for theirs, row in table.items():
        row = row if isinstance(row, Row) else Row((row,))
        for layer in range(layers) if "{layer}" in theirs else [0]:
            targets = tuple(target.format(layer=layer) for target in row.targets)
            rows[theirs.format(layer=layer)] = replace(row, targets=targets)
    return rows


rows = expand(GPT2, fresh(gpt2_file).config.num_hidden_layers)
for name in ("wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight"):
    targets = ", ".join(target.split(".")[-2] for target in rows[name].targets)
    print(f"{name:<24}{gpt2_file.shape(name)!s:<12} turn: {rows[name].turn!s:<6} -> {targets}")


# %% [markdown]
# The loop of section 3, as a function that takes any table, and the comparison with the trusted loader:

# %%
def load_trusting(model, checkpoint, table):
    """Assign every tensor that the table names. The first problem stops it in the middle."""
    parameters = dict(model.named_parameters())
    for name, row in expand(table, model.config.num_hidden_layers).items():
        for target, piece in zip(row.targets, row.pieces(checkpoint.read(name)), strict=True):
            assign(parameters[target], piece, name)
    return model


trusted_gpt2 = load_model(SOURCE["gpt2"], dtype=torch.float32)
gpt2_tokenizer = load_tokenizer(SOURCE["gpt2"])
gpt2_ids = torch.tensor([gpt2_tokenizer.encode(tell(trusted_gpt2, gpt2_tokenizer))])

gpt2 = load_trusting(fresh(gpt2_file), gpt2_file, GPT2)
gpt2_is_right = same_logits(gpt2, trusted_gpt2, gpt2_ids)
print("our loop and load_model agree to the bit:", gpt2_is_right)

# %% [markdown]
# ## 5 · Plan, check, assign
#
# With a good file the loop works. What does it do with a bad one? The most common case is a download that went wrong, or a
# config of another size: one tensor does not fit.
#
# **Predict, then run.** In the file below, one matrix of the *last* layer has the wrong shape. We load it into a model that is
# in use, once with our loop and once with PyTorch's own `load_state_dict`. Both refuse. How many of the parameters have
# changed afterwards?

# %%
last = f"model.layers.{layers - 1}.mlp.gate_proj.weight"
damaged = {name: llama_file.read(name) + 1 for name in llama_file.names()}  # other weights
damaged[last] = damaged[last].T  # one of them on its side


def changed_after(load, model):
    """Try to load; say what happened, and how many parameters are not what they were."""
    before = [parameter.clone() for parameter in model.parameters()]
    try:
        load(model)
        outcome = "loaded"
    except (ValueError, RuntimeError, OSError):
        outcome = "refused"
    pairs = zip(before, model.parameters(), strict=True)
    changed = sum(not torch.equal(old, new) for old, new in pairs)
    return f"{outcome}, {changed} of {len(before)} parameters changed"


# %%
in_use = load_trusting(fresh(llama_file), llama_file, LLAMA)
bad_file = open_checkpoint(damaged)
outcome = changed_after(lambda model: load_trusting(model, bad_file, LLAMA), in_use)
print("our loop:       ", outcome)

in_use = load_trusting(fresh(llama_file), llama_file, LLAMA)
renamed = {names[theirs]: tensor for theirs, tensor in damaged.items()}
print("load_state_dict:", changed_after(lambda model: model.load_state_dict(renamed), in_use))

# %% [markdown]
# Both say "refused" and leave a **chimera** behind: a model with the head of one animal and the body of another. It runs. It
# answers. Whoever catches the error and goes on (a server that reloads a model, a notebook cell that you run again) has a
# broken model and does not know it. So the order must be another one:
#
# 1. **plan**: match all names, on both sides;
# 2. **check**: collect *all* problems, not just the first;
# 3. **assign**: only if there is none.
#
# Steps 1 and 2 need names and shapes, which stand in the file's table of contents. No weight is read.

# %% [markdown]
# ### All problems at once
#
# `found` and `wanted` are what is in the file and what is in the model: name and shape. Two things can be wrong with the file's
# names, one with its shapes, and two with the table itself:

# %%
def problems_of(rows, found, wanted):
    """Everything that speaks against a load, in words."""
    problems = [f"{name}: missing in the file" for name in rows if name not in found]
    problems += [f"{name}: the model has no place for it" for name in found if name not in rows]
    for name, row in rows.items():
        if not wanted.keys() >= set(row.targets):
            problems.append(f"{name}: the table leads to no parameter")
            continue
        expected = row.shape([wanted[target] for target in row.targets])
        if name in found and found[name] != expected:
            problems.append(f"{name}: expected shape {expected}, found {found[name]}")
    filled = [target for row in rows.values() for target in row.targets]
    for name in wanted:
        if filled.count(name) != 1:
            problems.append(f"{name}: our parameter, filled {filled.count(name)} times")
    return problems


# %% [markdown]
# The second kind, a tensor without a place, is the one that many loaders do not look for. It looks harmless: why not
# leave it out? Because the model that was trained *had* it. A Qwen2 has biases that a Llama has not; leave them out, and it
# loads as a Llama that talks nonsense.
#
# Yet two kinds of tensors are left out with a good reason, and the reason is written down:
#
# - A **tied head**: Llama 3.2 and GPT-2 use the token embedding as the output head, too. Some files hold it a second time, as
#   `lm_head.weight`. Our model has no parameter for it.
# - **Constants**: old GPT-2 files carry the causal mask, under the misleading name `attn.bias`; old Llama files carry the
#   frequencies of the rotary positions. The model computes both itself.

# %%
LEFT_OUT = {
    "h.{layer}.attn.bias": "the causal mask, a constant",
    "h.{layer}.attn.masked_bias": "the value of masked scores, a constant",
    "model.layers.{layer}.self_attn.rotary_emb.inv_freq": "computed from the config",
}


def plan_load(table, model, found):
    """Rows for what is loaded, reasons for what is left out, all problems. Reads no weight."""
    layers = model.config.num_hidden_layers
    reasons = {name: row.targets[0] for name, row in expand(LEFT_OUT, layers).items()}
    if model.output_head is None:
        reasons["lm_head.weight"] = "tied: the embedding serves as the head"
    else:
        table = table | {"lm_head.weight": "output_head.weight"}
    rows = expand(table, layers)
    left_out = {name: reasons[name] for name in found if name in reasons}
    rest = {name: shape for name, shape in found.items() if name not in left_out}
    wanted = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    return rows, left_out, problems_of(rows, rest, wanted)


# %% [markdown]
# And the loader: plan, check, and only then assign.

# %%
def load_safely(model, checkpoint, table):
    """Everything or nothing. Raises ValueError with all problems; returns what was left out."""
    found = {name: checkpoint.shape(name) for name in checkpoint.names()}
    rows, left_out, problems = plan_load(table, model, found)
    if problems:
        raise ValueError("\n".join(problems))
    parameters = dict(model.named_parameters())
    for name, row in rows.items():  # one tensor at a time, so that only one is in memory
        for target, piece in zip(row.targets, row.pieces(checkpoint.read(name)), strict=True):
            assign(parameters[target], piece, name)
    return left_out


llama, gpt2 = fresh(llama_file), fresh(gpt2_file)
load_safely(llama, llama_file, LLAMA)
load_safely(gpt2, gpt2_file, GPT2)
llama_is_right &= same_logits(llama, trusted_llama, llama_ids)
gpt2_is_right &= same_logits(gpt2, trusted_gpt2, gpt2_ids)
print("both still right to the bit:", llama_is_right and gpt2_is_right)

# %% [markdown]
# Now a file with four faults. A loader that stops at the first would send you round four times:

# %%
damaged.pop("model.norm.weight")
damaged["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(llama.config.hidden_size)
damaged["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(3, 3)

try:
    load_safely(llama, open_checkpoint(damaged), LLAMA)
except ValueError as error:
    print(error)

print()
bad_file = open_checkpoint(damaged)
outcome = changed_after(lambda model: load_safely(model, bad_file, LLAMA), llama)
print("our safe loader:", outcome)
nothing_changed = outcome.startswith("refused, 0 of ")

# %% [markdown]
# Refused, and the model is bit for bit what it was. And with a tied head and a mask in the file?

# %%
tensors = {name: gpt2_file.read(name) for name in gpt2_file.names()}
tensors |= {"lm_head.weight": tensors["wte.weight"], "h.0.attn.bias": torch.ones(4, 4).tril()}

left_out = load_safely(gpt2, open_checkpoint(tensors), GPT2)
for name in ("lm_head.weight", "h.0.attn.bias"):
    print(f"{name:<18} left out: {left_out[name]}")

# %% [markdown]
# ### What it costs
#
# Safety that doubles the memory would not be used. A wrapper counts what is read:

# %%
class Watched:
    """A checkpoint that keeps a list of the bytes of every tensor read from it."""

    def __init__(self, checkpoint, fails_after=None):
        self.checkpoint, self.fails_after, self.reads = checkpoint, fails_after, []
        self.names, self.shape = checkpoint.names, checkpoint.shape

    def read(self, name):
        if len(self.reads) == self.fails_after:
            raise OSError(f"the disk cannot read {name}")
        tensor = self.checkpoint.read(name)
        self.reads.append(tensor.nbytes)
        return tensor


refused, accepted = Watched(open_checkpoint(damaged)), Watched(llama_file)
changed_after(lambda model: load_safely(model, refused, LLAMA), llama)
load_safely(llama, accepted, LLAMA)
print("tensors read for the refused file:", len(refused.reads))
print("tensors read for the right file:  ", len(accepted.reads), "of", len(llama_file.names()))
print(f"largest one: {max(accepted.reads):,} bytes of {sum(accepted.reads):,}")

# %% [markdown]
# A refusal costs nothing, and a load needs the model and *one* tensor at a time: the largest is what comes on top at the
# peak. (Reading everything first, the *naive* way of M9-LAB-APP-A, needs room for two models.)
#
# One hole remains. **Predict, then run.** The file is right, but the disk fails after ten tensors. What now?

# %%
failing = Watched(llama_file, fails_after=10)
with torch.no_grad():
    for parameter in llama.parameters():
        parameter.add_(1)  # other weights than the file's, so that a change shows

outcome = changed_after(lambda model: load_safely(model, failing, LLAMA), llama)
print("assign as you read:", outcome)


# %% [markdown]
# Ten parameters are new, the rest is old: the chimera again. No check of names can foresee it. Closing the hole has a
# price: read *all* tensors first, and only then assign, with room for a second model.

# %%
def read_first(checkpoint):
    """A copy in memory: if reading fails, it fails here, before anything is assigned."""
    return open_checkpoint({name: checkpoint.read(name) for name in checkpoint.names()})


failing = Watched(llama_file, fails_after=10)
outcome = changed_after(lambda model: load_safely(model, read_first(failing), LLAMA), llama)
print("read, then assign:", outcome)
nothing_changed &= outcome.startswith("refused, 0 of ")

# %% [markdown]
# The package offers both. `load_model` fills a *new* model, one tensor at a time, and hands it over only when it is whole: if
# anything fails there is no model, so none can be broken. `load_weights` refills a model in use, and reads everything first.

# %% [markdown]
# ## 6 · What shapes cannot tell
#
# Our loader refuses all that names and shapes can show. Here are two mistakes that it cannot see.
#
# **The square.** `attn.c_proj.weight` has as many inputs as outputs. We forget to turn it:

# %%
WRONG_GPT2 = GPT2 | {H + "attn.c_proj.weight": Row((BLOCK + "attention.output.weight",))}

turned_wrong = fresh(gpt2_file)
load_safely(turned_wrong, gpt2_file, WRONG_GPT2)
print("no problem found")

# %%
from course_helpers.labs.code_01_figures import two_matrices

right_matrix = gpt2.blocks[0].attention.output.weight.detach()
wrong_matrix = turned_wrong.blocks[0].attention.output.weight.detach()
same_numbers = torch.equal(right_matrix.flatten().sort()[0], wrong_matrix.flatten().sort()[0])
print("the same shape:", right_matrix.shape == wrong_matrix.shape)
print("the same numbers:", same_numbers)
two_matrices(right_matrix, wrong_matrix)

# %% [markdown]
# Can you tell which is which? The same shape and the same numbers, hence the same mean and the same spread. Only their places
# differ, as the ring shows, and no check of names and shapes looks at places.
#
# **The order of the rows.** Llama marks positions by turning pairs of numbers in every query and key (**rotary positions**).
# Meta's own files keep the two numbers of a pair side by side; Hugging Face's keep them half a head apart. The same weights, with
# the rows of two matrices in another order. Meta's files also use other names, which a table settles in a minute:

# %%
META = {
    "tok_embeddings.weight": "token_embedding.weight",
    "layers.{layer}.attention_norm.weight": "blocks.{layer}.attention_norm.weight",
    "layers.{layer}.attention.wq.weight": "blocks.{layer}.attention.query.weight",
    "layers.{layer}.attention.wk.weight": "blocks.{layer}.attention.key.weight",
    "layers.{layer}.attention.wv.weight": "blocks.{layer}.attention.value.weight",
    "layers.{layer}.attention.wo.weight": "blocks.{layer}.attention.output.weight",
    "layers.{layer}.ffn_norm.weight": "blocks.{layer}.feed_forward_norm.weight",
    "layers.{layer}.feed_forward.w1.weight": "blocks.{layer}.feed_forward.gate.weight",
    "layers.{layer}.feed_forward.w3.weight": "blocks.{layer}.feed_forward.up.weight",
    "layers.{layer}.feed_forward.w2.weight": "blocks.{layer}.feed_forward.down.weight",
    "norm.weight": "final_norm.weight",
}

# %% [markdown]
# We make such a file from our Llama, with the package's table for Meta's layout run backwards, and load it by the table above:

# %%
from course_helpers.loaders.weight_maps import LLAMA_META

trusted = dict(trusted_llama.named_parameters())
meta_file = open_checkpoint(
    {
        name: rule.to_theirs([trusted[target].detach() for target in rule.targets])
        for name, rule in LLAMA_META.expand(trusted_llama.config).items()
        if trusted.keys() >= set(rule.targets)
    }
)

rows_wrong = fresh(llama_file)
load_safely(rows_wrong, meta_file, META)
print("no problem found")

# %% [markdown]
# **Predict, then run.** Two wrong models, no error. Which of the two texts will look worse, and from which word on?

# %%
for title, model, its_tokenizer in (
    ("GPT-2, square not turned", turned_wrong, gpt2_tokenizer),
    ("Llama, rows in Meta's order", rows_wrong, tokenizer),
):
    print(title.upper() + "\n" + textwrap.fill(tell(model, its_tokenizer, 70), 100) + "\n")

# %%
from course_helpers.labs.code_01_figures import drift


@torch.no_grad()
def differences(model, right, ids):
    """For every position of a text: how far the farthest logit is from the right one."""
    return (model(ids) - right(ids)).abs().amax(dim=-1)[0]


moved = {
    "GPT-2, square not turned": differences(turned_wrong, trusted_gpt2, gpt2_ids),
    "Llama, rows in Meta's order": differences(rows_wrong, trusted_llama, llama_ids),
}
drift(moved)

# %% [markdown]
# Look at the first bar of the second row: there is none. The first token has nothing to look back at but itself, so its query and
# key decide nothing, and it is *right*. The farther apart two tokens are, the more they are turned against each other, and the
# more the order of the rows matters: the text begins well and breaks down later. A check with a prompt of one token would pass.
# **Compare over a whole text, never at one token.**

# %% [markdown]
# ### Judge a model by what it does
#
# The comparison above needs the right model. Often there is none at hand, only a number that somebody wrote down when all was
# well. A good one is the **loss**: the mean of minus the logarithm of the probability that the model gives to the token that
# really comes next, in **nats**. 0 means certain and right; guessing among V tokens costs log(V).

# %%
import math

from torch.nn.functional import cross_entropy


@torch.no_grad()
def loss(model, ids):
    """Mean surprise, in nats, at each next token of a text."""
    return cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item()


noted = {"gpt2": loss(trusted_gpt2, gpt2_ids), "llama": loss(trusted_llama, llama_ids)}
guessing = math.log(llama.config.vocab_size)


def behaves(model, ids, noted_loss, tolerance=0.05):
    """Whether a model finds a text as likely as the right one did."""
    return abs(loss(model, ids) - noted_loss) < tolerance


# %% [markdown]
# **Predict, then run.** Two right models, two wrong ones. How far apart will the losses be?

# %%
from course_helpers.labs.code_01_figures import surprise

load_safely(llama, llama_file, LLAMA)  # its weights were changed above
candidates = {
    "GPT-2, right": (gpt2, gpt2_ids, "gpt2"),
    "GPT-2, square not turned": (turned_wrong, gpt2_ids, "gpt2"),
    "Llama, right": (llama, llama_ids, "llama"),
    "Llama, rows in Meta's order": (rows_wrong, llama_ids, "llama"),
}
losses = {}
for title, (model, ids, kind) in candidates.items():
    losses[title] = loss(model, ids)
    print(f"{title:<28}{'accepted' if behaves(model, ids, noted[kind]) else 'REFUSED'}")
surprise(losses, guessing)

# %% [markdown]
# One number and one known text, and both silent mistakes are found. A loader that ends without such a **behaviour check** has
# checked that the boxes have the right size, and not what is in them.

# %% [markdown]
# ## 7 · Config and tokenizer
#
# A checkpoint is weights *and* config *and* tokenizer. The shapes of the weights tell much of what the config must say, so we
# can cross-check the two. From the tensors alone:

# %%
def sizes_in_tensors(checkpoint):
    """What the shapes of a Llama's tensors say about its config."""
    block = "model.layers.0."
    vocabulary, width = checkpoint.shape("model.embed_tokens.weight")
    numbers = {name.split(".")[2] for name in checkpoint.names() if ".layers." in name}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(numbers),
        "intermediate_size": checkpoint.shape(block + "mlp.gate_proj.weight")[0],
        "query heads x head_dim": checkpoint.shape(block + "self_attn.q_proj.weight")[0],
        "key heads x head_dim": checkpoint.shape(block + "self_attn.k_proj.weight")[0],
    }


def sizes_in_config(config):
    """The same sizes as config.json has them."""
    plain = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
    return {name: getattr(config, name) for name in plain} | {
        "query heads x head_dim": config.num_attention_heads * config.head_dim,
        "key heads x head_dim": config.num_key_value_heads * config.head_dim,
    }


# %%
in_tensors, in_config = sizes_in_tensors(llama_file), sizes_in_config(llama.config)
other = sizes_in_config(FAMILIES["llama3"].presets["meta-llama/Llama-3.2-1B"])

print(f"{'':<26}{'tensors':>9}{'config':>9}{'Llama 3.2 1B':>21}")
for name, size in in_tensors.items():
    columns = [in_config[name], other[name]]
    verdicts = [f"{value:>9} {'fits' if size == value else 'DIFFERS':<8}" for value in columns]
    print(f"{name:<26}{size:>9}{''.join(verdicts).rstrip()}")

# %% [markdown]
# Mind the last two rows. The tensors give only a **product**: 4 heads of 32 numbers make the same matrix as 8 heads of 16. And
# other settings have no tensor at all: the base of the rotary positions (`rope_theta`), the small number in the norms (`eps`).
#
# **Predict, then run.** Three wrong configs. For which of them will our loader find a problem? For which will the logits change?

# %%
rope = llama.config.rope_parameters
heads, shared = llama.config.num_attention_heads, llama.config.num_key_value_heads
head_dim = llama.config.head_dim
wrong_configs = {
    "twice the heads": dict(
        num_attention_heads=2 * heads, num_key_value_heads=2 * shared, head_dim=head_dim // 2
    ),
    "rope_theta 10000": dict(rope_parameters=replace(rope, rope_theta=10_000.0)),
    "eps 0.000001": dict(rms_norm_eps=1e-6),
}
print(f"{'':<20}{'loads':<8}{'same logits':<14}same loss (within 0.05)")
for title, change in wrong_configs.items():
    model = family_of(llama_file.config).model(replace(llama.config, **change))
    load_safely(model, llama_file, LLAMA)
    same = same_logits(model, trusted_llama, llama_ids)
    print(f"{title:<20}{'yes':<8}{same!s:<14}{behaves(model, llama_ids, noted['llama'])}")

# %% [markdown]
# All three load. The first two are found by the behaviour check. The third is the nastiest kind: a hair's breadth off, and the
# loss does not notice. Only a comparison of logits shows it. Therefore the package *never guesses* such a field. A config that
# does not say it is refused, although a default would be convenient:

# %%
from course_helpers import CheckpointError

silent_config = dict(llama_file.config)
del silent_config["rms_norm_eps"]
try:
    load_model(SOURCE["llama"], config=silent_config)
except CheckpointError as error:
    print(error.what)
    print("field:   ", error.field)
    print("expected:", error.expected)

attention = qwen3.blocks[0].attention
length, rows = len(attention.query_norm.weight), len(attention.query.weight)
print(f"\nQwen3: a norm of {length}, {rows} rows of queries: {rows // length} heads")

# %% [markdown]
# The last line shows that some families tell more: Qwen3 has a norm for each query *head*, so its length is `head_dim`, and the
# number of heads follows.

# %% [markdown]
# ### Whose tokenizer is it?
#
# The model knows numbers, not words. Which number stands for which piece of text, only its own tokenizer can say. A few numbers
# are **special tokens**, which stand for no text: one begins a text (`bos`), another ends it (`eos`, or a stop id). What can be
# checked without running the model?

# %%
def tokenizer_problems(tokenizer, config, embeddings, text):
    """What speaks against a tokenizer beside these weights, in words."""
    ends = config.eos_token_id  # one, or several
    ends = ends if isinstance(ends, tuple) else (ends,)
    special = [id for id in (tokenizer.bos_id, *tokenizer.stop_ids) if id is not None]
    problems = []
    if tokenizer.vocab_size > embeddings:
        problems.append(f"{tokenizer.vocab_size} tokens, but {embeddings} embeddings")
    if any(id >= embeddings for id in special):
        problems.append("a special token without an embedding")
    if tokenizer.bos_id != config.bos_token_id:
        problems.append(f"begins with {tokenizer.bos_id}, config says {config.bos_token_id}")
    if not set(ends) & set(tokenizer.stop_ids):
        problems.append(f"ends with {tokenizer.stop_ids}, config says {ends}")
    if tokenizer.decode(tokenizer.encode(text)) != text:
        problems.append("does not give back the text that it was given")
    return problems


text = tell(trusted_llama, tokenizer)
embeddings = llama.token_embedding.weight.shape[0]
print(tokenizer_problems(tokenizer, llama.config, embeddings, text) or "no problem")
print(tokenizer_problems(tokenizer, llama.config, embeddings // 2, text))  # half as large

# %% [markdown]
# Now the tokenizers of all families, beside the Llama's weights. Bundled ones are all of about the same size, so size alone will
# not do:

# %%
for family in FAMILIES.values():
    found = load_tokenizer(family.tiny)
    problems = tokenizer_problems(found, llama.config, embeddings, text)
    print(f"{family.tiny:<16}{'; '.join(problems) or 'no problem'}")


# %% [markdown]
# Every stranger is caught by its special tokens, and by them alone: each of them gives the text back without a fault, because
# it understands its own numbers. What if even the special tokens agreed?
#
# **Predict, then run.** The tokenizer below has the same tokens, the same size, the same special ids, and only numbers the
# others in reverse, as another training run might have. Which check will find it?

# %%
class Renumbered:
    """A tokenizer with the same pieces and special ids, and other numbers for the rest."""

    def __init__(self, tokenizer):
        self.tokenizer, self.vocab_size = tokenizer, tokenizer.vocab_size
        self.bos_id, self.stop_ids = tokenizer.bos_id, tokenizer.stop_ids
        ordinary = [id for id in range(self.vocab_size) if id not in tokenizer.special_ids]
        self.other = dict(zip(ordinary, reversed(ordinary), strict=True))

    def encode(self, text):
        return [self.other.get(id, id) for id in self.tokenizer.encode(text)]

    def decode(self, ids):
        return self.tokenizer.decode([self.other.get(id, id) for id in ids])


stranger = Renumbered(tokenizer)
print("checks:", tokenizer_problems(stranger, llama.config, embeddings, text) or "no problem")
stranger_behaves = behaves(llama, torch.tensor([stranger.encode(text)]), noted["llama"])
print("behaves:", stranger_behaves)

# %% [markdown]
# Again, the behaviour check has the last word. Loading is done when the model, with *this* config and *this* tokenizer, finds a
# known text as likely as it should.

# %%
from course_helpers.labs import validation_checkpoint

found_out = [
    not behaves(turned_wrong, gpt2_ids, noted["gpt2"]),
    not behaves(rows_wrong, llama_ids, noted["llama"]),
    not stranger_behaves,
]

validation_checkpoint("M9-CODE-01", "a refused load changes nothing", nothing_changed)
validation_checkpoint(
    "M9-CODE-01",
    "what shapes cannot tell is found by behaviour",
    all(found_out),
)

# %% [markdown]
# ## 8 · The package's own
#
# The package does what you have just built, in the same order and with the same kind of table. First the plan:

# %%
from course_helpers.loaders.assign import make_plan

for checkpoint, model, table in ((llama_file, llama, LLAMA), (gpt2_file, gpt2, GPT2)):
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weight_maps = family_of(checkpoint.config).weight_maps
    plan = make_plan(checkpoint, weight_maps, model.config, shapes)
    mine = expand(table, model.config.num_hidden_layers)
    same = [(rule.targets, rule.transpose) for rule in plan.steps.values()] == [
        (mine[name].targets, mine[name].turn) for name in plan.steps
    ]
    print(f"{model.config.model_type}: {len(plan.steps)} steps, equal to our table: {same}")

# %% [markdown]
# Its `Rule` is our `Row` with a few more things that a tensor may need (Meta's order of rows, experts in a mixture). `load_model`
# plans, checks, fills a new model one tensor at a time, and keeps an account of it all, the **LoadReport**:

# %%
report = trusted_gpt2.load_report
print(report.summary())
for row in report.rows:
    if row.source in ("wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight"):
        targets = ", ".join(target.split(".")[-2] for target in row.targets)
        print(f"  {row.source:<24}{row.shape!s:<12} {row.done:<22} -> {targets}")

# %% [markdown]
# ### Five broken checkpoints
#
# Now both loaders get the same five files. Each is the Llama with one thing broken:

# %%
good = {name: llama_file.read(name) for name in llama_file.names()}
embedding, gate = "model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight"
query, bias = (f"model.layers.0.self_attn.q_proj.{part}" for part in ("weight", "bias"))
broken = {
    "the last layer is missing": {
        name: tensor for name, tensor in good.items() if f".layers.{layers - 1}." not in name
    },
    "a matrix on its side": good | {gate: good[gate].T},
    "biases, as Qwen2 has them": good | {bias: torch.zeros(heads * head_dim)},
    "numbers in 8 bits (quantized)": good | {query: (good[query] * 100).to(torch.int8)},
    "a head of its own, but tied": good | {"lm_head.weight": good[embedding] * 2},
}

# %% [markdown]
# **Predict, then run.** Which of the five does *our* loader let through?

# %%
refused_by = {"ours": 0, "package": 0}
for title, tensors in broken.items():
    print("==", title)
    try:
        load_safely(fresh(llama_file), open_checkpoint(tensors), LLAMA)
        print("OURS     loaded without a word")
    except ValueError as error:
        problems = str(error).splitlines()
        refused_by["ours"] += 1
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        print("OURS     " + problems[0] + more)
    try:
        load_model(tensors, config=llama_file.config)
        print("PACKAGE  loaded without a word")
    except CheckpointError as error:
        refused_by["package"] += 1
        lines = str(error).splitlines()[:8]  # without the list of the other problems
        lines = [textwrap.fill(line, 90, subsequent_indent=" " * 15) for line in lines]
        print("PACKAGE  " + textwrap.indent("\n".join(lines), " " * 7).strip())
    print()

# %% [markdown]
# Ours knows names and shapes. The package looks at more; what the last two files show:
#
# - the **type**: an 8-bit weight means nothing without the scale it was divided by, and `copy_` converts it without asking;
# - the **values of a head that is said to be tied**: we left it out because the config says so. Here the config is wrong, and the
#   model would lose a trained head.
#
# And a message of the package goes on where ours ends: after *which, expected, found* come the *likely cause* and the *next
# step*. All of them are also attributes (`error.tensor`, `error.expected`, ...), and `error.problems` lists every problem.

# %% [markdown]
# ### The same numbers
#
# The last comparison: our two models, the package's, and those of Transformers, a library with a loader of its own.

# %%
import transformers

from course_helpers.loaders.sources import resolve

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

agree = {}
for kind, model, trusted_model, ids in (
    ("llama", llama, trusted_llama, llama_ids),
    ("gpt2", gpt2, trusted_gpt2, gpt2_ids),
):
    folder = resolve(SOURCE[kind])
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        theirs = reference(ids).logits
        farthest = ((model(ids) - theirs).abs().max() / theirs.abs().max()).item()
    agree[kind] = same_logits(model, trusted_model, ids), farthest < 1e-6
    print(f"{kind:<6} as the package's, to the bit: {agree[kind][0]}")
    print(f"{'':<6} as Transformers', within a millionth: {agree[kind][1]}")

# %%
right = llama_is_right and gpt2_is_right and all(map(all, agree.values()))
validation_checkpoint("M9-CODE-01", "our loader equals the package's to the bit", right)
validation_checkpoint("M9-CODE-01", "the package refuses all five", refused_by["package"] == 5)

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-CODE-01",
    {
        "source": SOURCE,
        "loss_per_token": losses,
        "largest_logit_difference_by_position": {name: moved[name].tolist() for name in moved},
        "refused_of_five_broken": refused_by,
    },
)

# %%
for checkpoint in (llama_file, gpt2_file, meta_file):
    checkpoint.close()

# %% [markdown]
# ## Recap
#
# - **Assign** only what has exactly the right shape, and put the tensor's name into the error.
# - **Map** with a table: rows with a placeholder for the layer, `base | overrides` for a relative, backwards for saving.
# - **Plan, check, assign**, in this order. All problems are collected; a refused file costs no read and changes nothing.
# - What is left out is left out for a **reason that is written down**; what is not known is refused.
# - Shapes do not see a square on its side, rows in another order, another number of heads, another epsilon or another
#   tokenizer. A **behaviour check** over a whole text sees most of them; a comparison of logits sees them all.
#
# **You can now** write a loader for any layout; account for every tensor on both sides; keep a model in use safe from a bad
# file; and name the mistakes that need a look at numbers, and look.
#
# **Next:** M9-LAB-02, where a GPT-2 becomes a Llama, one part at a time.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The rows of Gemma 3
#
# Gemma 3 has Qwen3's tensors, and *four* norms in a block instead of two: one before and one after attention, one before and
# one after the feed-forward part. In our model they are called, in this order, `attention_norm`, `attention_post_norm`,
# `feed_forward_norm` and `feed_forward_post_norm`. In the file:

# %%
with open_checkpoint("tiny-gemma3") as gemma3_file:
    for name in gemma3_file.names():
        if name.startswith("model.layers.0.") and "layernorm" in name:
            print(name)


# %% [markdown]
# Write the table, given Qwen3's. Careful: one name in this list stands for something else than in a Llama's file.

# %% tags=["exercise"]
def gemma3_table(qwen3):
    """The table for Gemma 3: name in the file -> name of our parameter, with {layer}."""
    raise NotImplementedError


# %% tags=["solution"]
def gemma3_table(qwen3):
    theirs, ours = "model.layers.{layer}.", "blocks.{layer}."
    return qwen3 | {
        theirs + "post_attention_layernorm.weight": ours + "attention_post_norm.weight",
        theirs + "pre_feedforward_layernorm.weight": ours + "feed_forward_norm.weight",
        theirs + "post_feedforward_layernorm.weight": ours + "feed_forward_post_norm.weight",
    }


# %%
from course_helpers.labs.code_01 import check_gemma3_table

check_gemma3_table(gemma3_table, QWEN3)


# %% [markdown]
# ### Exercise 2 · Meta's order of rows
#
# Repair the Llama of section 6. In Meta's file the rows of *one head* are in pairs: `0a 0b 1a 1b 2a 2b ...`. Our model wants
# first all the `a`, then all the `b`: `0a 1a 2a ... 0b 1b 2b ...`. Every head for itself. Write a function that brings a query or
# key matrix with so many `heads` into our order.
#
# (Hint: `view` gives the rows the shape heads x pairs x 2. Which two of these must change places?)

# %% tags=["exercise"]
def pairs_to_halves(weight, heads):
    """The matrix (heads * head_dim, width) with the rows of each head in our order."""
    raise NotImplementedError


# %% tags=["solution"]
def pairs_to_halves(weight, heads):
    rows, width = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)


# %%
from course_helpers.labs.code_01 import check_pairs_to_halves

check_pairs_to_halves(pairs_to_halves)


# %% [markdown]
# ### Exercise 3 · A check that trusts nothing
#
# `gate` and `up` of the feed-forward part have the same shape. Somebody has swapped the two rows of the table, perhaps for one
# layer only. Write a check that finds this *and every other* silent mistake of this lab, by behaviour alone.
#
# You get a model, a text as `ids` (1, T), and the logits (1, T, V) that were `noted` when all was well, in 32 bits. Say True
# for a model that is right, and False for one that is not. The model may hold its weights in 16 bits (`bfloat16`): then every
# number is rounded to about 1 part in 250, the logits end up some per cent of the largest one away, and it is still right. And
# mind section 6: where in the text does a mistake show?

# %% tags=["exercise"]
def is_right(model, ids, noted):
    """Whether the model gives the noted logits, up to the rounding of its own type."""
    raise NotImplementedError


# %% tags=["solution"]
def is_right(model, ids, noted):
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    with torch.no_grad():
        farthest = (model(ids).float() - noted).abs().max()  # over all positions
    return bool(farthest < tolerance * noted.abs().max())


# %%
from course_helpers.labs.code_01 import check_is_right

check_is_right(is_right)
