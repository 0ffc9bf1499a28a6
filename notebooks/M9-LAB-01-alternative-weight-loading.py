# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-01 · Four roads to the same GPT-2
#
# | | |
# |---|---|
# | **Objective** | Load one GPT-2 through the three formats of today (a PyTorch state dict, Transformers, safetensors) and from the original, OpenAI's TensorFlow files; compare correctness, cost and safety |
# | **Before this** | CH5-LAB-04: you have trained a small GPT and generated text with it |
# | **Time** | 60 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 4 GB of memory, 2 GB of disk (4 GB for the hub's model). No GPU, no account, no network |
# | **Slides** | 4 and 13 |
#
# **At the end you will be able to**
#
# - say what is inside each kind of checkpoint file, and open every one of them safely;
# - find the place of each tensor in a model, also when the file stores it fused or turned on its side;
# - prove that a model was loaded right, and recognise one that was loaded wrong *without any error*;
# - choose a road for a task, and say what it costs.

# %%
from course_helpers.labs import figures

figures.four_roads()

# %% [markdown]
# Training a language model takes days and a lot of money, so almost nobody starts from zero: we *load* what somebody
# else has trained. The result of a training is a **checkpoint**: a folder with the model's numbers (its **weights**)
# and a few small files that say how to use them. The same weights are handed around in several formats. In theory the
# format does not matter. In practice, choosing one decides whether you can be attacked, how much memory you need, and
# how a mistake shows: as a clear error, or as a model that quietly talks nonsense.

# %% [markdown]
# ## 1 · One switch
#
# The lab comes with a small GPT-2 that was trained, on a CPU, to tell short stories. It is a real GPT-2 in every
# detail but its size. With a network you can run the very same cells on the original: set the environment variable
# `COURSE_CHECKPOINTS` to `hub` before you start Jupyter, or write `"hub"` below.

# %%
import os
import textwrap
from pathlib import Path

import torch

from course_helpers import FAMILIES, generate, load_model, load_tokenizer, open_checkpoint
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-gpt2", "hub": "openai-community/gpt2"}[CHECKPOINTS]
PROMPT = {"bundled": "Once upon a time", "hub": "Every effort moves"}[CHECKPOINTS]

torch.set_printoptions(precision=3, sci_mode=False)
folder = resolve(SOURCE)  # the folder of the checkpoint on this machine
workspace = Path("workspace/lab-01")  # for the files that this lab makes
workspace.mkdir(parents=True, exist_ok=True)
print("loading", SOURCE)

# %% [markdown]
# What lies in the folder?

# %%
WHAT_IT_IS = {
    "config.json": "the model's sizes: how many layers, how wide, how many tokens",
    "model.safetensors": "the weights",
    "vocab.json": "the tokenizer: text piece -> number",
    "merges.txt": "the tokenizer: which pieces are joined, in which order",
    "tokenizer_config.json": "the tokenizer: settings",
    "generation_config.json": "which token ends a text",
    "card.json": "how this checkpoint was trained, and how good it is",
}
for name, meaning in WHAT_IT_IS.items():
    if (folder / name).exists():
        print(f"{name:<24}{(folder / name).stat().st_size:>12,} bytes   {meaning}")

# %% [markdown]
# Nearly all bytes are weights. But without `config.json` they are just numbers: the file does not say how many heads a
# layer has, and a model built with the wrong number of heads would accept the same tensors and compute something else.
# **A checkpoint is weights *and* config *and* tokenizer, always from the same place.**

# %% [markdown]
# ## 2 · The model that waits for its weights
#
# We build our own GPT-2 from the config. On torch's `meta` device a tensor has a shape but no memory, so this works for
# a model of any size and takes no time: a plan of a house, not the house.

# %%
import json

family = FAMILIES["gpt2"]
config = family.config.from_hf(json.loads((folder / "config.json").read_text()))
print(config)

with torch.device("meta"):
    plan = family.model(config)
print(f"\n{plan.num_parameters():,} numbers to fill in")

# %% [markdown]
# A **parameter** is one named tensor of the model. The dictionary of all of them, name to tensor, is the model's **state
# dict**. Here are those of the first block and of what lies outside the blocks:

# %%
for name, tensor in plan.state_dict().items():
    if name.startswith("blocks.0.") or not name.startswith("blocks."):
        print(f"{name:<42}{tuple(tensor.shape)}")

# %% [markdown]
# `nn.Linear` keeps its matrix as **(output, input)**. Remember that: it is where the trouble will start.
#
# There is no tensor for the output head. GPT-2 uses the token embedding a second time to turn the last hidden state
# into scores: the head is **tied**. Two names, one tensor: the original small GPT-2 would be a third larger without it.

# %% [markdown]
# ## 3 · Road one: a PyTorch state dict
#
# For years this was the usual road: `torch.save(model.state_dict(), "pytorch_model.bin")`. We make such a file from the
# checkpoint, so that all roads start from the same numbers.

# %%
with open_checkpoint(SOURCE) as checkpoint:
    tensors = {name: checkpoint.read(name) for name in checkpoint.names()}

(workspace / "pytorch").mkdir(exist_ok=True)
(workspace / "pytorch/config.json").write_text((folder / "config.json").read_text())
torch.save(tensors, workspace / "pytorch/pytorch_model.bin")

state_dict = torch.load(workspace / "pytorch/pytorch_model.bin", weights_only=True)
for name, tensor in sorted(state_dict.items()):
    if name.startswith("h.0.") or not name.startswith("h."):
        print(f"{name:<26}{tuple(tensor.shape)}")

# %% [markdown]
# Other names, which was to be expected (`wte` is *word token embedding*, `wpe` *word position embedding*, `h` the hidden
# layers). But look closer.
#
# **Predict, then run.** Our block has `query`, `key` and `value`: three square matrices. Where are they in the list above?
# And our `feed_forward.up` is four times as *high* as it is wide. Is theirs?

# %%
theirs = state_dict["h.0.attn.c_attn.weight"]
ours = plan.blocks[0].attention.query.weight
print("theirs, one tensor:  ", tuple(theirs.shape))
print("ours, three of these:", tuple(ours.shape))
print("their feed-forward:  ", tuple(state_dict["h.0.mlp.c_fc.weight"].shape))
print("ours:                ", tuple(plan.blocks[0].feed_forward.up.weight.shape))
figures.fused_matrix(theirs)

# %% [markdown]
# Two surprises, both historical. The first GPT-2 was written in TensorFlow, with a layer called `Conv1D` that stores its
# matrix as **(input, output)**: every matrix is *turned on its side*. And query, key and value are computed in one
# multiplication, so they are stored as one tensor, side by side: they are **fused**.
#
# Turning and cutting takes two calls:

# %%
turned = theirs.T  # (3 x width, width): output first
query, key, value = turned.chunk(3)  # cut along the output side
print("query, key, value:", tuple(query.shape), tuple(key.shape), tuple(value.shape))

# %% [markdown]
# ### The trap in the square
#
# What if we forget to turn a matrix? For most tensors, PyTorch stops us: the shapes do not fit. One matrix is different.
#
# **Predict, then run.** `h.0.attn.c_proj.weight` is the attention's output matrix. Look at its shape in the list above. If
# we copy it without turning it, which error will we see?

# %%
right = load_model(SOURCE, dtype=torch.float32)
wrong = load_model(SOURCE, dtype=torch.float32)

with torch.no_grad():
    for layer, block in enumerate(wrong.blocks):
        not_turned = state_dict[f"h.{layer}.attn.c_proj.weight"]
        block.attention.output.weight.copy_(not_turned)
print("no error at all")

# %% [markdown]
# A square matrix has the same shape on its side. So the wrong model loads, runs, and gives a text:

# %%
tokenizer = load_tokenizer(SOURCE)


def tell(model, prompt=PROMPT):
    """Greedy text: always the likeliest next token, so the same story every time."""
    ids = tokenizer.encode(prompt)
    ids = generate(model, [ids], max_new_tokens=140, stop_ids=tokenizer.stop_ids)[0]
    return textwrap.fill(tokenizer.decode(ids), 100)


print("RIGHT\n" + tell(right))
print("\nWRONG\n" + tell(wrong))

# %% [markdown]
# **Passing the shape check means little.** This mistake has been made in public more than once, and it gives no
# error message anywhere. Only two things find it: comparing *numbers* with a trusted implementation, and reading what
# the model writes. This lab does both.

# %% [markdown]
# ### Mapping as data
#
# So every tensor needs a rule: its name there, its name here, and what to do on the way. We could write the rules as a
# hundred lines of assignments. A table is easier to read, to test, and to run backwards (to *save* a model, too):

# %%
weight_map = family.weight_maps[0]
for name, rule in weight_map.expand(config).items():
    if name.startswith("h.0.") or not name.startswith("h."):
        targets = ", ".join(target.removeprefix("blocks.0.") for target in rule.targets)
        print(f"{name:<24} {rule.describe():<22} -> {targets}")

# %% [markdown]
# `load_model` walks through this table. First it makes a plan and checks it: is every tensor of the file used exactly
# once, is every parameter filled, does every shape fit? Only then does it copy. Its report accounts for both sides.

# %%
model_from_pytorch = load_model(workspace / "pytorch")
print(model_from_pytorch.load_report.summary())


# %% [markdown]
# ### What this format can hide
#
# A `.bin` or `.pth` file is a **pickle**: not data, but a small program that rebuilds Python objects. Loading it *runs* that
# program, and it may call any function there is. Here is a harmless one; an attacker would not choose `print`.

# %%
class Surprise:
    def __reduce__(self):  # pickle asks: how are you rebuilt? By calling this:
        return (print, ("I am code from the checkpoint file, running on your machine.",))


torch.save({"wte.weight": Surprise()}, workspace / "surprise.bin")

# Never do this with a file from the internet:
_ = torch.load(workspace / "surprise.bin", weights_only=False)

# %% [markdown]
# We only *loaded* a file. With `weights_only=True`, torch's default since version 2.6, a small interpreter that knows
# tensors and nothing else reads the pickle instead, and refuses the rest. Our loader never loads in any other way:

# %%
from course_helpers import CheckpointError

try:
    open_checkpoint(workspace / "surprise.bin")
except CheckpointError as error:
    print(type(error).__name__ + ":", error)

# %% [markdown]
# ## 4 · Road two: Transformers
#
# Hugging Face's library builds its own model class and loads the weights into it, in one line. Convenient, and tested by
# thousands: exactly what we want as a **trusted reference**.

# %%
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
reference.eval()
print(type(reference).__name__)
print(type(reference.transformer.h[0].attn.c_attn).__name__, "is still the layer inside")

# %% [markdown]
# The live model has a state dict like any other, so our weight map can read it. Two details differ from the file:

# %%
live = reference.state_dict()
embedding, head = live["transformer.wte.weight"], live["lm_head.weight"]
print("a prefix:       ", next(iter(live)))
print("a tensor more:  ", "lm_head.weight", tuple(head.shape))
print("but not a copy: ", embedding.data_ptr() == head.data_ptr())

model_from_transformers = load_model(reference)
print()
print(model_from_transformers.load_report.summary())
print(dict(model_from_transformers.load_report.dropped))

# %% [markdown]
# The prefix `transformer.` is a matter of taste: the same weights are handed around with it and without. The head
# is listed under a second name, although it is the embedding's own memory. A loader that takes both at their word
# makes a copy: 154 MB too many for the original GPT-2, and two tensors that drift apart in the next training.
#
# **What this road hides:** almost everything, and that is its purpose. Defaults are filled in, and tensors that do not fit
# may be left out with no more than a warning. You trade control for convenience.

# %% [markdown]
# ## 5 · Road three: safetensors, opened by hand
#
# A safetensors file is so simple that we can read it without any library. First come 8 bytes: a number, the length of
# the header. Then the header: text in JSON, a table of contents. Then the tensors' bytes. That is all.

# %%
path = folder / "model.safetensors"
with open(path, "rb") as file:
    header_bytes = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(header_bytes))

metadata = header.pop("__metadata__", None)
print(f"the header takes {header_bytes:,} bytes and lists {len(header)} tensors")
print(f"a note for whoever reads it: {metadata}")
for name in ("wte.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"):
    print(f"{name:<24}{header[name]}")

# %% [markdown]
# The types are `F32` (4 bytes a number), `BF16` and `F16` (2 bytes), and a few more. `data_offsets` says where the bytes
# begin and end, *counted from the end of the header*. Here is the whole file, drawn to scale:

# %%
import re
from collections import Counter

groups = Counter()
for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    group = re.sub(r"^h\.(\d+)\..*|\.(weight|bias)$", r"\1", name)
    start, end = row["data_offsets"]
    groups[f"block {group}" if group.isdigit() else group] += end - start

figures.byte_map(header_bytes, groups)

# %% [markdown]
# Now one tensor. We jump to its first byte and read just as many bytes as it has. Nothing else of the file is touched:
# this is why safetensors loads large models with little memory.

# %%
row = header["h.0.attn.c_attn.bias"]
start, end = row["data_offsets"]
with open(path, "rb") as file:
    file.seek(8 + header_bytes + start)
    raw = file.read(end - start)

by_hand = torch.frombuffer(bytearray(raw), dtype=torch.float32).view(row["shape"])
print(by_hand[:8])
print("equal to the state dict's:", torch.equal(by_hand, state_dict["h.0.attn.c_attn.bias"]))

# %% [markdown]
# **What this format can hide:** no code, for there is nothing that could run. It can still hold wrong numbers. And a header
# can lie: offsets that overlap, or point beyond the end of the file. So our reader checks the table before it reads
# a tensor. An interrupted download, for example:

# %%
(workspace / "half").mkdir(exist_ok=True)
(workspace / "half/config.json").write_text((folder / "config.json").read_text())
half_of_it = path.read_bytes()[: path.stat().st_size // 2]
(workspace / "half/model.safetensors").write_bytes(half_of_it)

try:
    load_model(workspace / "half")
except CheckpointError as error:
    print(error)

# %%
model_from_safetensors = load_model(folder)
print(model_from_safetensors.load_report.summary())

# %% [markdown]
# ## 6 · Road four: the original, as OpenAI published it
#
# GPT-2 was born as a **TensorFlow checkpoint**, in 2019. Every other copy of it was made from those files. They are read with
# TensorFlow, usually: a large library, installed for one afternoon. We need none of it, for the format is as plain as that
# of safetensors, only older. And the two surprises of section 3 will turn out to come from here.
#
# To have such a checkpoint without a network, we write ours in OpenAI's layout: its table of names, run backwards. (Our tests
# hold this writer to TensorFlow's own: the files are the same to the byte.)

# %%
import shutil

from course_helpers.loaders.tf_writer import write_bundle
from course_helpers.loaders.weight_maps import GPT2_TF


def write_original(model, target):
    """Write a GPT-2 as OpenAI did: weights, index, and hparams.json for the config."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tensors = {
        name: rule.to_theirs([parameters[part] for part in rule.targets])
        for name, rule in GPT2_TF.expand(model.config).items()
        if "output_head.weight" not in rule.targets  # tied: there is none
    }
    target.mkdir(exist_ok=True)
    write_bundle(target / "model.ckpt", tensors)
    config = model.config
    hparams = {"n_vocab": config.vocab_size, "n_ctx": config.n_positions}
    hparams |= {name: getattr(config, name) for name in ("n_embd", "n_head", "n_layer")}
    (target / "hparams.json").write_text(json.dumps(hparams))


# %%
original = workspace / "original"
write_original(right, original)
shutil.copy(folder / "vocab.json", original / "encoder.json")  # the same tokenizer files,
shutil.copy(folder / "merges.txt", original / "vocab.bpe")  # under OpenAI's names
for path in sorted(original.iterdir()):
    print(f"{path.name:<36}{path.stat().st_size:>12,} bytes")
print("\nhparams.json:", (original / "hparams.json").read_text())

# %% [markdown]
# `model.ckpt.data-00000-of-00001` holds the tensors' bytes and nothing else: file 0 of 1. The table of contents is a file of its own,
# `model.ckpt.index`. It is a **sorted table** of names, a format that comes from databases and knows how to save space: a name
# leaves out what it shares with the one before it, and a number takes only as many bytes as it needs, 7 bits in each.

# %%
index = (original / "model.ckpt.index").read_bytes()
MARK = "db4775248b80fb57"  # what the last 8 bytes of every such table are
mark = index[:-9:-1].hex()
print("the last 8 bytes, read from the end:", mark, "  as expected:", mark == MARK)


def number(data, at):
    """A number at a place, and the next place. The highest bit says: there is more."""
    value, shift = data[at] & 127, 7
    while data[at] > 127:
        at += 1
        value |= (data[at] & 127) << shift
        shift += 7
    return value, at + 1


print(number(b"\x05", 0), number(b"\x80\x01", 0), number(b"\xff\xff\x03", 0))

# %% [markdown]
# The names are in the first block of the file, up to where the second begins; the last 48 bytes, the footer, say where that is.
# Each entry is three numbers (how many letters to take from the name before, how many follow, how long the value is), then
# these letters, then the value.

# %%
end, _ = number(index, len(index) - 48)
block = index[: end - 5]  # 5 bytes of check sum follow each block
end = len(block) - 4 * int.from_bytes(block[-4:], "little") - 4  # without the list at its end
name, at, table = "", 0, {}
print("shared  what is really stored")
while at < end:
    shared, at = number(block, at)
    fresh, at = number(block, at)
    length, at = number(block, at)
    letters = block[at : at + fresh].decode()
    name = name[:shared] + letters
    table[name] = block[at + fresh : at + fresh + length]
    at += fresh + length
    if len(table) < 10:
        print(f"{shared:>6}  {letters}")

# %% [markdown]
# The first name is empty: its value is the header. Put together, the others are OpenAI's names for what we know already: `g` and `b`
# for a norm's gain and bias, `w` for a matrix. The values are tiny messages: numbers, each behind the number of its field
# (1 the type, 2 the shape, 4 the first byte, 5 how many bytes, 6 the check sum).
#
# **Predict, then run.** In section 3, the fused matrix of a layer was (width, 3 x width). How many dimensions will the original have?

# %%
def fields(message):
    """The fields of a message: number -> values."""
    found, at = {}, 0
    while at < len(message):
        tag, at = number(message, at)
        field, form = tag // 8, tag % 8
        if form == 5:  # four plain bytes
            value, at = int.from_bytes(message[at : at + 4], "little"), at + 4
        else:
            value, at = number(message, at)
        if form == 2:  # the number was a length: a message within the message
            value, at = message[at : at + value], at + value
        found.setdefault(field, []).append(value)
    return found


for name in ("model/h0/attn/c_attn/w", "model/h0/attn/c_attn/b", "model/wte"):
    row = fields(table[name])
    shape = [fields(length)[1][0] for length in fields(row[2][0])[2]]
    first = row.get(4, [0])[0]  # a number that is 0 is left out
    print(f"{name:<24}shape {shape!s:<16}from byte {first:>9,}, {row[5][0]:>11,} bytes")

# %% [markdown]
# **A dimension of 1, before the two others.** OpenAI wrote each matrix product as a *convolution* that looks at one token at a time,
# and the weights of a convolution are (how many tokens, input, output). This is where the name `Conv1D` comes from, and why GPT-2's
# matrices lie on their side to this day. Now the values:

# %%
row = fields(table["model/h0/attn/c_attn/w"])
with open(original / "model.ckpt.data-00000-of-00001", "rb") as file:
    file.seek(row.get(4, [0])[0])
    raw = file.read(row[5][0])

kernel = torch.frombuffer(bytearray(raw), dtype=torch.float32).view(1, config.n_embd, -1)
by_hand = kernel[0].T.chunk(3)  # drop the 1, turn, cut in three
print("query, key, value:", [tuple(part.shape) for part in by_hand])
pairs = zip(by_hand, (query, key, value), strict=True)
print("equal to section 3's:", [torch.equal(part, other) for part, other in pairs])

# %% [markdown]
# ### A check sum for every tensor
#
# Field 6 has no counterpart in the other formats: a **CRC32C**, a number of 32 bits computed from all the tensor's bytes. Change
# any one bit, and it is another number. The definition is seven lines; TensorFlow stores the result turned and shifted.

# %%
def crc32c(data):
    """The check sum, one bit at a time: the remainder of a division in which 1 + 1 = 0."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


row = fields(table["model/h0/attn/c_attn/b"])
with open(original / "model.ckpt.data-00000-of-00001", "rb") as file:
    file.seek(row.get(4, [0])[0])
    bias = bytearray(file.read(row[5][0]))

stored = (row[6][0] - 0xA282EAD8) % 2**32  # shifted back
stored = (stored << 15 | stored >> 17) % 2**32  # turned back
print(f"in the index {stored:08x}, computed {crc32c(bias):08x}")
bias[100] ^= 1  # the smallest change there is
print(f"with one bit changed:   {crc32c(bias):08x}")

# %% [markdown]
# What is that good for? **Predict, then run.** A disk, a cable or a memory chip flips *one* bit of a large file now and then. We
# flip one in the token embedding, in the safetensors file and in the original. Which of the two will be loaded, and what
# will the model write?

# %%
def flip_a_bit(path, place):
    """Change the highest bit of the exponent of the float32 that starts at a place."""
    content = bytearray(path.read_bytes())
    content[place + 3] ^= 0b0100_0000
    path.write_bytes(content)


shutil.copytree(folder, workspace / "flipped", dirs_exist_ok=True)
shutil.copytree(original, workspace / "flipped-original", dirs_exist_ok=True)
word = tokenizer.encode(PROMPT)[0]  # we take the row of the prompt's first token
place = 8 + header_bytes + header["wte.weight"]["data_offsets"][0] + 4 * word * config.n_embd
flip_a_bit(workspace / "flipped/model.safetensors", place)
place = fields(table["model/wte"])[4][0] + 4 * word * config.n_embd
flip_a_bit(workspace / "flipped-original/model.ckpt.data-00000-of-00001", place)

flipped = load_model(workspace / "flipped", dtype=torch.float32)
print("safetensors was loaded, and writes:\n" + tell(flipped))

# %%
refused = False
try:
    load_model(workspace / "flipped-original")
except CheckpointError as error:
    refused = True
    print(error)

# %% [markdown]
# The format decides whether damage is *seen*. Where it does not, something else must look: `verify=True` reads every byte before
# it builds a model, compares the file with the SHA-256 that was published beside it, if there is one, and refuses values that no
# training arrives at.

# %%
try:
    load_model(workspace / "flipped", verify=True)
except CheckpointError as error:
    print(error.what)

for name in ("flipped", "flipped-original"):
    shutil.rmtree(workspace / name)

# %% [markdown]
# ### The same with the package
#
# The table for OpenAI's names is another layout of the same family. Nothing else is new: the plan, the checks, the report.

# %%
model_from_tensorflow = load_model(original)
print(model_from_tensorflow.load_report.summary())
for name, rule in GPT2_TF.expand(config).items():
    if name.startswith(("model/h0/attn", "model/wte")):
        more = ", ..." if len(rule.targets) > 1 else ""
        print(f"{name:<24} {rule.describe():<34} -> {rule.targets[0]}{more}")

words = tokenizer.encode(PROMPT)
same_tokens = load_tokenizer(original).encode(PROMPT) == words
models = (model_from_tensorflow, model_from_safetensors)
with torch.no_grad():
    logits = [model(torch.tensor([words])) for model in models]
print("same token ids:", same_tokens, "  logits equal to the bit:", torch.equal(*logits))

# %% [markdown]
# ## 7 · The same checks for all four
#
# Four models, from four formats. Are they the same model? The comparison must not depend on the road, so we put all
# of them through the same four checks, cheapest first, with Transformers' own computation as the judge:
#
# 1. **names**: the same parameters are there;
# 2. **shapes**: each has the same shape;
# 3. **logits**: for the same tokens, the scores of all next tokens are equal to the judge's, up to the rounding of 32-bit
#    numbers (we allow 0.00001);
# 4. **text**: the same prompt gives the same greedy text, word for word.
#
# **Predict, then run.** The last row is the model from the trap. Which of the four checks will it fail?

# %%
roads = {
    "PyTorch state dict": model_from_pytorch,
    "Transformers": model_from_transformers,
    "safetensors": model_from_safetensors,
    "TensorFlow": model_from_tensorflow,
    "the trap": wrong,
}
shapes = {name: tensor.shape for name, tensor in plan.named_parameters()}
ids = torch.tensor([tokenizer.encode(tell(right))])


@torch.no_grad()
def check(model):
    """The four checks: names, shapes, logits, text."""
    found = {name: tensor.shape for name, tensor in model.named_parameters()}
    difference = (model(ids) - reference(ids).logits).abs().max().item()
    same_text = tell(model) == tell(right)
    return found.keys() == shapes.keys(), found == shapes, difference < 1e-5, same_text


results = {road: check(model) for road, model in roads.items()}

# %%
print(f"{'':<22}{'names':<9}{'shapes':<9}{'logits':<9}text")
for road, passed in results.items():
    words = [f"{'equal' if ok else 'DIFFER':<9}" for ok in passed]
    print(f"{road:<22}" + "".join(words).rstrip())

# %% [markdown]
# The trap passes every check that looks at the *outside* of the tensors. **A loading path is validated when the numbers that
# come out are right, not when the numbers that go in have the right shape.**

# %%
from course_helpers.labs import validation_checkpoint

good_roads = [all(passed) for road, passed in results.items() if road != "the trap"]
caught = results["the trap"] == (True, True, False, False)

validation_checkpoint("M9-LAB-01", "four roads give one model", good_roads == [True] * 4)
validation_checkpoint("M9-LAB-01", "the transposed square is caught by numbers only", caught)
validation_checkpoint("M9-LAB-01", "a flipped bit is caught by its check sum", refused)

# %% [markdown]
# ## 8 · What does each road cost?
#
# On a model of 4 MB nobody waits. So we make a checkpoint with the sizes of the original small GPT-2 (124 million
# parameters, filled with random numbers, because weight does not depend on wisdom) and send it down all four roads.

# %%
from course_helpers import save_checkpoint
from course_helpers.training import initialize

big = folder
if CHECKPOINTS == "bundled":
    model = initialize(family.model(family.presets["openai-community/gpt2"]), seed=1)
    big = save_checkpoint(model, workspace / "big")

with open_checkpoint(big) as checkpoint:
    tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    print(f"{checkpoint.nbytes:,} bytes of weights, {checkpoint.nbytes / 2**20:.0f} MiB")

big_pytorch = workspace / "big-pytorch"
big_pytorch.mkdir(exist_ok=True)
(big_pytorch / "config.json").write_text((big / "config.json").read_text())
torch.save(tensors, big_pytorch / "pytorch_model.bin")

big_original = workspace / "big-original"
write_original(load_model(big), big_original)

# %% [markdown]
# A process that has loaded one model still holds memory, and would make the next one look cheaper or dearer. So each road is
# measured in a fresh Python process. The **peak** is the most memory that the process held at once, above what it held
# before. If the peak does not fit, the machine kills the process, however small the model is in the end.

# %% tags=["nbval-ignore-output"]
from course_helpers.memory import measure_in_subprocess

import_ours = "from course_helpers import load_model"
import_theirs = "from transformers import GPT2LMHeadModel"
folder_name, pytorch_name, original_name = map(repr, map(str, (big, big_pytorch, big_original)))
costs = {
    "PyTorch state dict": measure_in_subprocess(f"load_model({pytorch_name})", import_ours),
    "Transformers": measure_in_subprocess(
        f"load_model(GPT2LMHeadModel.from_pretrained({folder_name}))",
        f"{import_ours}; {import_theirs}",
    ),
    "safetensors": measure_in_subprocess(f"load_model({folder_name})", import_ours),
    "TensorFlow": measure_in_subprocess(f"load_model({original_name})", import_ours),
}
model_mb = sum(tensor.nbytes for tensor in tensors.values()) / 2**20

# %% tags=["nbval-ignore-output"]
figures.bars(
    {
        "load time": {road: use.seconds for road, use in costs.items()},
        "peak, in models": {road: use.added_peak_mb / model_mb for road, use in costs.items()},
    },
    units=("s", "x"),
    alt="Two bar charts, load time and peak memory, with a bar for each of the four roads.",
)

# %% [markdown]
# How to read it (your numbers will differ a little from those stored here):
#
# - **safetensors** reads one tensor at a time into its final place, so the peak stays near 1: the model itself.
# - **PyTorch state dict** has a higher peak although the reading goes tensor by tensor here, too. The file is *mapped* into
#   memory, and pages that were read count as ours until the system needs them back.
# - **Transformers** pays for a model of its own first; copying it into ours makes the second. Nobody would do this in
#   production: there you keep the model that the library built. As a judge in tests it is worth its price.
# - **TensorFlow** goes tensor by tensor as well, and its peak is near 1. What it takes longer than safetensors is the price
#   of the check sums: every byte is looked at once more.

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-01",
    {
        "source": SOURCE,
        "model_mb": model_mb,
        "roads": {
            road: {"seconds": use.seconds, "peak_mb": use.added_peak_mb}
            for road, use in costs.items()
        },
    },
)

# %%
sizes = {
    "PyTorch state dict": (big_pytorch / "pytorch_model.bin").stat().st_size,
    "Transformers": (big / "model.safetensors").stat().st_size,
    "safetensors": (big / "model.safetensors").stat().st_size,
    "TensorFlow": sum(path.stat().st_size for path in big_original.glob("model.ckpt.*")),
}
shutil.rmtree(workspace)

# %% [markdown]
# ## 9 · The comparison
#
# All that we measured, in one table: the four checks on the small model, the costs on the large one.

# %% tags=["nbval-ignore-output"]
columns = ("names", "shapes", "logits", "text")
print(f"{'':<22}" + "".join(f"{column:<9}" for column in columns) + "  load     peak      file")
for road, use in costs.items():
    words = "".join(f"{'equal' if ok else 'DIFFER':<9}" for ok in results[road])
    peak = use.added_peak_mb / model_mb
    print(f"{road:<22}{words}{use.seconds:6.2f} s {peak:6.2f} x {sizes[road] / 2**20:5.0f} MiB")


# %% [markdown]
# And what no measurement shows:
#
# | | PyTorch state dict | Transformers | safetensors | TensorFlow |
# |---|---|---|---|---|
# | **Is a** | pickle: a program that rebuilds tensors | library that builds its own model | table of contents and plain bytes | table of contents in a file of its own, and plain bytes |
# | **Can run code** | yes, unless `weights_only=True` | not with safetensors files | no, there is nothing to run | not these two files; the graph beside them (`model.ckpt.meta`) is a program, and nobody needs it for the weights |
# | **One tensor without the others** | when mapped | no: you get a whole model | yes, always | yes, always |
# | **Notices a flipped bit** | no: the file has check sums, and `torch.load` does not look at them | no | no | yes: a check sum for each tensor |
# | **What you see** | names, shapes, types | a model that works | names, shapes, types and every byte | names, shapes, types and every byte |
# | **What it can hide** | code; other objects; the layout | defaults, prefixes, tied and left-out tensors | wrong numbers; the layout | wrong numbers that were saved; the layout |
# | **Choose it for** | old checkpoints that exist in no other form | a reference, and production with this library | everything else | OpenAI's original files |
#
# None of the four says that `c_proj` must be turned. That knowledge is in none of the formats: it belongs to the *family*, and
# somebody has to write it down, in a weight map.

# %% [markdown]
# ## Recap
#
# - A checkpoint is weights, config and tokenizer from one place. Mixing places is the most frequent cause of failure.
# - Formats differ in safety and cost; the layout of the tensors (names, fused, turned) is another matter, and the
#   weight map takes care of it.
# - A check sum beside each tensor catches a damaged byte. Without one, a flipped bit loads like any other number.
# - A square matrix that was not turned passes every shape check. Validate with numbers: logits, then text.
# - Check everything, then assign. A refused checkpoint must leave the model as it was.
#
# **You can now** open a state dict, a live model, a safetensors file and a TensorFlow checkpoint; map one layout onto another; recognise and prevent a
# silent mistake; and defend your choice of a format with measurements.
#
# **Next:** M9-LAB-APP-A, the checklist for safe loading; then M9-LAB-02, where this GPT-2 becomes a Llama.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · Read one tensor by hand
#
# Write a function that reads one `float32` tensor from a safetensors file with no library but `json` and `torch`.

# %% tags=["exercise"]
def read_tensor(path, name):
    """The float32 tensor called `name` of the safetensors file at `path`."""
    raise NotImplementedError


# %% tags=["solution"]
def read_tensor(path, name):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        row = json.loads(file.read(length))[name]
        start, end = row["data_offsets"]
        file.seek(8 + length + start)
        raw = file.read(end - start)
    return torch.frombuffer(bytearray(raw), dtype=torch.float32).view(row["shape"])


# %%
from course_helpers.labs.lab_01 import check_read_tensor

check_read_tensor(read_tensor)


# %% [markdown]
# ### Exercise 2 · Cut up the fused matrix
#
# Write a function that turns GPT-2's fused attention weight, (width, 3 x width), into the three matrices of our model, in the
# order query, key, value, each as `nn.Linear` wants it.

# %% tags=["exercise"]
def split_c_attn(weight):
    """The (width, width) matrices of query, key and value, output first."""
    raise NotImplementedError


# %% tags=["solution"]
def split_c_attn(weight):
    return weight.T.chunk(3)


# %%
from course_helpers.labs.lab_01 import check_split_c_attn

check_split_c_attn(split_c_attn)


# %% [markdown]
# ### Exercise 3 · All or nothing
#
# Write a loader that fills a GPT-2 `model` from a dictionary of `tensors` in the file's layout, and refuses with a
# `ValueError` whenever a tensor is missing, unknown, or of the wrong shape. A refused checkpoint must leave the model
# *exactly* as it was: so first check everything, and copy only then.
#
# The table helps: `rules = family.weight_maps[0].expand(model.config)` gives a rule for each name of the file; the rule has
# `rule.targets` (our names), `rule.source_shape(shapes)` (the shape it expects in the file, given the shapes of our
# parameters) and `rule.to_ours(tensor, shapes)` (the tensors for our parameters). The head is tied and has no parameter of
# its own, so leave `lm_head.weight` out of the rules.

# %% tags=["exercise"]
def load_all_or_nothing(model, tensors):
    """Fill `model` from `tensors`, or raise ValueError and leave it untouched."""
    raise NotImplementedError


# %% tags=["solution"]
def load_all_or_nothing(model, tensors):
    parameters = dict(model.named_parameters())
    rules = family.weight_maps[0].expand(model.config)
    rules.pop("lm_head.weight")

    if rules.keys() != tensors.keys():
        raise ValueError(f"missing or unknown: {sorted(rules.keys() ^ tensors.keys())}")
    staged = []
    for name, rule in rules.items():
        shapes = [parameters[target].shape for target in rule.targets]
        if tensors[name].shape != torch.Size(rule.source_shape(shapes)):
            raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}")
        staged += zip(rule.targets, rule.to_ours(tensors[name], shapes), strict=True)

    with torch.no_grad():
        for target, tensor in staged:
            parameters[target].copy_(tensor)


# %%
from course_helpers.labs.lab_01 import check_load_all_or_nothing

check_load_all_or_nothing(load_all_or_nothing)


# %% [markdown]
# ### Exercise 4 · From OpenAI's layout to Hugging Face's
#
# Somebody had to do this once, in 2019, so that you can write `from_pretrained("gpt2")`. Write a function that takes one tensor
# of OpenAI's, with its name, and gives it back with the name and in the shape of section 3: `model/h3/attn/c_attn/w`, (1, width,
# 3 x width), becomes `h.3.attn.c_attn.weight`, (width, 3 x width). Mind the norms (`g`), and the two embeddings: their names have no
# ending at all.

# %% tags=["exercise"]
def to_hugging_face(name, tensor):
    """The name and the tensor as Hugging Face's GPT-2 has them."""
    raise NotImplementedError


# %% tags=["solution"]
def to_hugging_face(name, tensor):
    _, *parts = name.split("/")
    if parts[0].startswith("h"):
        parts[:1] = ["h", parts[0][1:]]
    if parts[-1] in ("wte", "wpe"):
        parts.append("w")
    parts[-1] = "bias" if parts[-1] == "b" else "weight"
    return ".".join(parts), tensor[0] if tensor.dim() == 3 else tensor


# %%
from course_helpers.labs.lab_01 import check_to_hugging_face

check_to_hugging_face(to_hugging_face)
