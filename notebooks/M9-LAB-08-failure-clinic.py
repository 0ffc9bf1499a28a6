# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # M9-LAB-08 · The failure clinic
#
# | | |
# |---|---|
# | **Objective** | Diagnose and mend the failures that loading and running models of many families brings: shape, tokenizer, dtype and device, file format, and the silent ones |
# | **Before this** | M9-LAB-07, and with it the families of M9-LAB-02 to M9-LAB-06 |
# | **Time** | 60 minutes to read and run, 40 more for the exercises |
# | **Hardware** | any laptop: CPU, 2 GB of free memory. No GPU, no account, no network |
# | **Slides** | 11, 12 and 25 |
#
# **At the end you will be able to**
#
# - go from a symptom to a cause in four steps: symptom, hypothesis, check, fix;
# - take the tools in the right order, the cheap ones first, and write that order down as code;
# - find the first place where a model differs from a good one, and say why it does;
# - mend what can be mended, know what must be fetched again, and prove that it worked;
# - say what no tool can see unless somebody wrote down what to expect.

# %%
from course_helpers.labs import lab_08_charts as charts
from course_helpers.labs import lab_08_figures as figures

figures.the_way()

# %% [markdown]
# A model that does not work looks like a mystery of deep learning. It hardly ever is one. Somebody has put a file beside
# another that it does not belong to, asked for a number type that is too small, lost a mark at the beginning of a text.
# **Most failures are integration errors, and those are found by looking, in the right order.**
#
# This lab is a clinic. Twenty checkpoints (weights, config and tokenizer, as they lie on disk) have come in; each is a
# copy of one that you know from the earlier labs, with *one* thing broken. First we treat four together, one a
# department, and a fifth that shows nothing at all. Then you write the doctor, and the rest of the waiting room is yours.

# %% [markdown]
# ## 1 · One switch, and a healthy control
#
# The first four patients are copies of one small Llama. With a network they can be copies of SmolLM2, a Llama that needs
# no account: set the environment variable `COURSE_CHECKPOINTS` to `hub`, or write `"hub"` below (4 GB of disk). All others
# are copies of the checkpoints that come with the course.

# %%
import dataclasses
import json
import os
import shutil
import textwrap
import time
from collections import Counter
from pathlib import Path

import torch

from course_helpers import CheckpointError, generate, load_model, load_tokenizer
from course_helpers.labs import validation_checkpoint
from course_helpers.loaders.sources import resolve

CHECKPOINTS = os.environ.get("COURSE_CHECKPOINTS", "bundled")  # "bundled" or "hub"

SOURCE = {"bundled": "tiny-llama3", "hub": "HuggingFaceTB/SmolLM2-135M"}[CHECKPOINTS]

workspace = Path("workspace/lab-08")  # for the patients; emptied at the end
shutil.rmtree(workspace, ignore_errors=True)
print("the first patients are copies of", SOURCE)

# %% [markdown]
# A clinic needs to know what health looks like. `validate_checkpoint` asks five **layers** of questions, and stops at the
# first that fails (slide 11). Beside every copy lies a `card.json` with a **baseline**: a few texts, and how likely the good
# model found each of them. That is written as a **loss**, the surprise in *nats*, here summed over
# all tokens of the text: 0 for a text that was certain.
#
# The cards list no hashes (check sums that change when any byte of a file does). Many checkpoints that are passed on come
# without, and with them this lab would be over at once: section 11 shows it.

# %%
from course_helpers import validate_checkpoint
from course_helpers.labs.lab_08 import healthy_copy

healthy = healthy_copy(SOURCE, workspace / "healthy")
report = validate_checkpoint(healthy)

ASKS = {
    "files": "does it open, do its tables of contents and its parts agree?",
    "shapes": "has every tensor a place, is every value a number?",
    "forward": "are the logits, the scores of all tokens, finite? do they only look back?",
    "generation": "do tokenizer and model belong together? the same text twice?",
    "baseline": "is known text as likely as the card says?",
}
for check in report.checks:
    print(f"{check.name:<12}{'passed' if check.ok else 'FAILED':<9}{ASKS[check.name]}")

validation_checkpoint("M9-LAB-08", "the healthy control passes every layer", report.ok)

# %% [markdown]
# And we need the owner's view. What does somebody see who simply loads a checkpoint and lets it write? Either a refusal or
# a text, here a **greedy** one: always the likeliest next token, so the same text every time.

# %%
from course_helpers.labs.lab_08 import admit
from course_helpers.labs.lab_08_patients import cases


def write(folder, tokens=24, prompt="Once upon a time", dtype=torch.float32):
    """What a checkpoint writes when one just lets it."""
    model, tokenizer = load_model(folder, dtype), load_tokenizer(folder)
    ids = [tokenizer.encode(prompt)]
    return tokenizer.decode(generate(model, ids, tokens, stop_ids=tokenizer.stop_ids)[0])


def symptom(patient, **options):
    """What the owner of a patient sees."""
    try:
        return write(patient.folder, dtype=patient.dtype or torch.float32, **options)
    except CheckpointError as error:
        return "refused: " + error.what


ADMISSIONS = cases(SOURCE)
first_four = {number: ADMISSIONS[number] for number in ("01", "02", "03", "04")}
ward = admit(workspace / "ward", first_four)
healthy_text = write(healthy)
print(textwrap.fill("healthy: " + healthy_text, 88))

# %% [markdown]
# # Part 1: four patients, four departments
#
# ## 2 · Shape
#
# **Symptom.**

# %%
patient = ward["01"]
print(symptom(patient))

# %% [markdown]
# **Hypothesis. Predict, then run.** A wrong shape can be the fault of the weights (a damaged or foreign tensor) or of the
# config (it promises another size). How many tensors have the wrong shape in the one case, and how many in the other?
#
# **Check.** A `CheckpointError` answers the same questions every time, as attributes; `problems` lists everything that was
# found, not only the first.

# %%
from course_helpers import open_checkpoint


def refusal(folder):
    """Why a checkpoint is refused; None if it is not."""
    try:
        load_model(folder)
    except CheckpointError as error:
        return error


error = refusal(patient.folder)
with open_checkpoint(patient.folder) as checkpoint:
    tensors = len(checkpoint.names())
print(f"{len(error.problems)} of {tensors} tensors do not fit. The first three:")
for problem in error.problems[:3]:
    print(f"  {problem.tensor:<42} expected {problem.expected!s:<12} found {problem.found}")
print("likely cause:", error.cause)

# %% [markdown]
# All of them: then it is not the tensors. Every expected number is *twice* the one that was found: this is the config of a
# model twice as wide. **If all are off, it is the config**; if one is, look at both sides. (A model's file beside the config
# of another size stands first among the risks of slide 12.)
#
# **Fix.** Config and weights from one place. Then the same check.

# %%
shutil.copyfile(resolve(SOURCE) / "config.json", patient.folder / "config.json")
print("refused now:", refusal(patient.folder) is not None)
cured = {"01": write(patient.folder) == healthy_text}
print("writes what the healthy one writes:", cured["01"])

# %% [markdown]
# ## 3 · Tokenizer
#
# **Symptom.** This one loads without a word. And then:

# %%
patient = ward["02"]
print(symptom(patient))

# %% [markdown]
# **Hypothesis.** These are words of stories, and pieces of them, in no order. Damaged *weights* would hardly find a whole
# "yellow". So perhaps the **tokenizer** (it turns text into numbers, the *ids* of its tokens, and back) is another model's.
#
# **Predict, then run.** Does another model's tokenizer give a text back as it came?
#
# **Check.** Two questions that cost nothing. Does text survive the way there and back? And which token does the config name
# as the end of a text?

# %%
config = json.loads((patient.folder / "config.json").read_text())
end = config["eos_token_id"]
text = "Once upon a time there was a kite."

for name, folder in {"healthy": healthy, "patient": patient.folder}.items():
    tokenizer = load_tokenizer(folder)
    back = tokenizer.decode(tokenizer.encode(text)) == text
    special = end in tokenizer.special_ids
    print(f"{name}: text comes back: {back}; token {end} is a special one: {special}")
    print(f"{'':<9}{tokenizer.encode(text)}")

# %% [markdown]
# The way back proves nothing: a tokenizer understands its own numbers. But the ids are all others, and (with the bundled model)
# the token that should end a text is an ordinary piece of a word. These files do not belong together.
#
# **Fix.** The stranger's files out, and in with those from where the weights come from.

# %%
for name in load_tokenizer(patient.folder).files:
    (patient.folder / name).unlink()
for name, path in load_tokenizer(SOURCE).files.items():
    shutil.copyfile(path, patient.folder / name)

same_ids = load_tokenizer(patient.folder).encode(text) == load_tokenizer(healthy).encode(text)
cured["02"] = same_ids and write(patient.folder) == healthy_text
print("the same ids, and the same text:", cured["02"])

# %% [markdown]
# ## 4 · Dtype and device
#
# **Symptom.** The owner of this one has a GPU that is fast in float16, and so loads the model in that type. (A **dtype** is
# the type of the numbers: float16 and bfloat16 take 2 bytes each, float32 takes 4.)

# %%
patient = ward["03"]
print(symptom(patient))

# %% [markdown]
# **Hypothesis.** The same token again and again, from the first one on: as if all scores were equal, or
# no numbers at all (NaN, "not a number").
#
# **Predict, then run.** float16 ends at 65,504; what is larger becomes infinite. bfloat16 goes as far as float32, with fewer
# digits. If an *overflow* is the cause, in which of the three types are the logits finite? And if a damaged weight is the cause?
#
# **Check.** One forward pass in each type.

# %%
def finite(model):
    """Whether a forward pass over 32 tokens gives finite logits."""
    with torch.inference_mode():
        return bool(model(torch.arange(32)[None]).isfinite().all())


for dtype in (torch.float16, torch.bfloat16, torch.float32):
    print(f"{dtype!s:<16} finite: {finite(load_model(patient.folder, dtype))}")

# %% [markdown]
# An overflow, then. Where? We watch what every module with weights returns, ask for the first that is not finite, and how large
# its result is in bfloat16. (A **hook** is a function that torch calls after a module has run.)

# %%
def returned(model, ids):
    """The largest value that each module with weights returned, in the order of the pass."""
    largest = {}

    def note(name):
        def hook(module, given, result):
            largest[name] = result.abs().max().item()

        return hook

    inner = [(name, part) for name, part in model.named_modules() if hasattr(part, "weight")]
    hooks = [part.register_forward_hook(note(name)) for name, part in inner]
    with torch.inference_mode():
        model(ids)
    for hook in hooks:
        hook.remove()
    return largest


# %%
ids = torch.tensor([load_tokenizer(patient.folder).encode(text)])
small = returned(load_model(patient.folder, torch.float16), ids)
wide = returned(load_model(patient.folder, torch.bfloat16), ids)
where = next(name for name, value in small.items() if not value < float("inf"))
print("first module that returns no finite number:", where)
print("what it returns in bfloat16 is beyond 65,504:", wide[where] > 65_504)

# %% [markdown]
# Inside the feed-forward (the part of a block that treats every token by itself), `up` makes numbers that float16 does not
# have, and `down` makes them small again. Nothing is wrong with the file: its numbers suit bfloat16. So it is with Gemma 3, whose released models overflow in float16 (transformers,
# issue 36822).
#
# **Fix.** The type that the weights were made in.

# %%
mended = dataclasses.replace(patient, dtype=torch.bfloat16)
cured["03"] = finite(load_model(mended.folder, mended.dtype))
print("finite:", cured["03"])

# %% tags=["nbval-ignore-output"]
print(textwrap.fill(symptom(mended), 88))  # in 16 bits, another machine may prefer another word

# %% [markdown]
# ### Two patients that are not files
#
# Two failures of this department are not on the disk. The first is a device that is not there. A good loader says so *before*
# it reads 14 GB for it:

# %%
try:
    load_model(SOURCE, device="cuda:7")
except ValueError as error:
    print(str(error).partition(" here:")[0])

# %% [markdown]
# The second: a model a part of which has no memory. Big models are built on torch's **meta device**, where a tensor has a shape
# and no numbers, and are then filled from the file (M9-LAB-APP-A). Here one layer was missing in the file, and
# `strict=False` said that this is fine.
#
# **Predict, then run.** Does loading fail, does the forward pass fail, or does neither?

# %%
good = load_model("tiny-llama2")
with torch.device("meta"):
    hollow = type(good)(good.config)

everything = good.state_dict()
lost = "blocks.3."
part = {name: value for name, value in everything.items() if not name.startswith(lost)}
missing = hollow.load_state_dict(part, strict=False, assign=True).missing_keys
try:
    hollow(torch.tensor([[1, 2, 3]]))
    complaint = "none"
except RuntimeError as error:
    complaint = str(error)
print("forward pass:", complaint)

empty = [name for name, parameter in hollow.named_parameters() if parameter.is_meta]
print("without memory:", len(empty), "parameters, all in", ".".join(empty[0].split(".")[:2]))
print("what load_state_dict returned, and nobody read:", empty == missing)

# %% [markdown]
# The message speaks of devices; the cause is a missing file. **"Expected device meta" means: never filled.** The check is the
# line with `is_meta`; the fix is `load_model`, which refuses a checkpoint that leaves a parameter empty.

# %%
try:
    load_model(part, config=good.config.to_hf())
    refused = False
except CheckpointError as error:
    refused = True
    print(f"refused: {error.what}, and {len(error.problems)} in all")

found_empty = "device meta" in complaint and refused and empty == missing
validation_checkpoint("M9-LAB-08", "a model that is half empty is found", found_empty)

# %% [markdown]
# ## 5 · File format
#
# **Symptom.**

# %%
patient = ward["04"]
error = refusal(patient.folder)
found = error.found if CHECKPOINTS == "bundled" else "far less"
print(f"{error.what}: expected {error.expected}, found {found}")

# %% [markdown]
# **Hypothesis.** A cut-off download? But nearly six *million terabytes* were expected.
#
# **Predict, then run.** A safetensors file begins with 8 bytes that say how long its table of contents is (M9-LAB-01). What
# must those 8 bytes have been?
#
# **Check.** The first bytes of the file.

# %%
def first_bytes(path, count=40):
    with open(path, "rb") as file:
        return file.read(count)


start = first_bytes(error.file)
print(start)
print("the first 8 of them as a number:", int.from_bytes(start[:8], "little"))

# %% [markdown]
# A web page: the server wanted a login and answered with a form, and the program saved the answer under the name of the
# weights. The first bytes tell the usual impostors apart. (git LFS keeps large files in another place; where it is not
# installed, one gets three lines of text that say where.)

# %%
IMPOSTORS = {
    b"<!DOCTYPE": "a web page: a login or an error, saved under the weights' name",
    b"<html": "a web page: a login or an error, saved under the weights' name",
    b"version https://git-lfs": "a pointer of git LFS: the file itself was never fetched",
    b"PK\x03\x04": "a zip archive: PyTorch's format under another name",
    b"\x80\x02": "a pickle: PyTorch's old format under another name",
}


def looks_like(path):
    """What a file is that is no safetensors file; None if its first bytes say nothing."""
    start = first_bytes(path) if Path(path).is_file() else b""
    return next((what for bytes_, what in IMPOSTORS.items() if start.startswith(bytes_)), None)


print(looks_like(error.file))

# %% [markdown]
# **Fix.** What is not there cannot be mended; it must be fetched again. But which files? We compare the SHA-256 (a check sum)
# of each with the one that the *original's* card lists, and fetch only those that differ. What the original does not have goes.
# (The original stands here for the place that you download from.)

# %%
from course_helpers.labs.lab_08 import different_files, strangers


def fetch_again(patient):
    """Replace every file that is not, by its hash, the original's. Says which."""
    original = resolve(patient.source)
    for path in strangers(patient.folder, original):
        path.unlink()
    names = different_files(patient.folder, original)
    for name in names:
        shutil.copyfile(original / name, patient.folder / name)
    return names


print("fetched:", *fetch_again(patient))
cured["04"] = refusal(patient.folder) is None and write(patient.folder) == healthy_text
validation_checkpoint("M9-LAB-08", "four patients leave cured", all(cured.values()), str(cured))

# %% [markdown]
# ## 6 · The one that shows nothing
#
# **Symptom.** A Qwen3, and beside it the good one. The owner says: "It used to be better."

# %%
quiet = admit(workspace / "ward", {"16": ADMISSIONS["16"]})["16"]
for name, folder in {"good": resolve(quiet.source), "patient": quiet.folder}.items():
    print(f"{name:<8}", textwrap.fill(write(folder, 50), 88, subsequent_indent=" " * 9))

# %% [markdown]
# Fluent, and soon beside the point. No error, no NaN, the tokenizer is the right one.
#
# **Hypothesis. Predict, then run.** Which of the five layers will be the first to notice?

# %%
report = validate_checkpoint(quiet.folder)
for check in report.checks:
    print(f"{check.name:<12}{'passed' if check.ok else 'FAILED'}")

# %% [markdown]
# Only the last: everything fits, everything runs, and the text that the good model found likely has become unlikely. So
# *something* is wrong. What? A model has a few dozen parts, and the first one that does something else is where to look. That
# is a job for the **first-divergence debugger**: `first_mismatch` takes two models, compares all weights, then sends one text
# through both and compares what every part is given and returns, in order.

# %%
from course_helpers import first_mismatch

words = load_tokenizer(quiet.source)
good = load_model(quiet.source, torch.float32)
card = json.loads((quiet.folder / "card.json").read_text())["baseline"]

ids = words.encode(card["texts"][0])
divergence = first_mismatch(load_model(quiet.folder, torch.float32), good, ids)
weights = [row for row in divergence.rows if row.what == "weight"]
print("weights that differ:", sum(not row.ok for row in weights), "of", len(weights))
print("first difference:   ", divergence.first.ours, f"({divergence.first.what})")
print("from position:      ", divergence.position)
for cause, next_step in divergence.causes:
    print("likely cause:       ", cause)
    print("next step:          ", textwrap.fill(next_step, 84, subsequent_indent=" " * 21))

# %% [markdown]
# All weights are right. The first thing that differs is the table of **rotary positions** (RoPE turns queries and keys by an
# angle that grows with the position; `rope_theta` is the base of the speeds). At position 0 nothing is turned, so the
# difference begins at position 1. The debugger even measures the base: 0.01 times the right one. And its next step tells how
# such a thing happens: a program that looks for the field in the old place finds none, and takes 10,000.
#
# **Fix.** The field from the original config, then the same tool.

# %%
from course_helpers.labs.lab_08 import edit_json

right = json.loads((resolve(quiet.source) / "config.json").read_text())["rope_theta"]
edit_json(quiet.folder, rope_theta=right)

again = first_mismatch(load_model(quiet.folder, torch.float32), good, ids)
print(again)
named = divergence.first.ours.startswith("rotary") and "rope_theta" in divergence.causes[0][0]
named_and_mended = named and again.ok
validation_checkpoint("M9-LAB-08", "the debugger names the wrong rotary base", named_and_mended)

# %% [markdown]
# # Part 2: the doctor
#
# ## 7 · The waiting room
#
# All twenty, freshly ill. The four from the ward come in again as 01 to 04, and the quiet one as 16. This is all that their
# owners can tell us.

# %%
patients = admit(workspace / "patients", ADMISSIONS)
complaints = {str(patient): symptom(patient) for patient in patients.values()}
figures.waiting_room(complaints)

# %% [markdown]
# **Predict, then run.** Take paper and write a department behind every number: file format, shape, dtype/device, tokenizer,
# silent. Those that tell a good story are ill, too, every one of them. Keep the paper until section 9.

# %% [markdown]
# ## 8 · The tree
#
# In which order should a doctor look? **Cheap before dear**, and first what makes the next look possible: a model whose shapes
# are wrong cannot run, and one that returns NaN cannot be judged by its text. The result is a tree.

# %%
figures.decision_tree()

# %% [markdown]
# Now as code. Five **looks**, one a layer; each is given the visit so far, and raises a `CheckpointError` when it does not like
# what it sees. The first two are one call each, since the package's own errors are what we want:

# %%
@dataclasses.dataclass
class Visit:
    """One examination; what a look finds out, the next can use."""

    patient: object
    model: object = None
    tokenizer: object = None
    off: float = 0.0  # nats by which one of the card's texts is off, at most
    seconds: dict = dataclasses.field(default_factory=dict)  # layer -> what the look took


def look_at_files(visit):
    """Headers, the index, and whether every shard (part) is there: no weight is read."""
    with open_checkpoint(visit.patient.folder):
        pass


def look_at_shapes(visit):
    """Every tensor against the config; `verify=True` also looks at every value."""
    visit.model = load_model(visit.patient.folder, visit.patient.dtype, verify=True)


# %% [markdown]
# The third runs the model in the type that its owner asked for. After it we go on in float32, where two computations of the
# same thing agree to five digits and more, so that small mistakes can show.

# %%
def look_at_logits(visit):
    """One forward pass: numbers, or not?"""
    if not finite(visit.model):
        raise CheckpointError("the logits are not finite", found=str(visit.model.dtype))
    visit.model.float()


SAMPLE = "Once upon a time: a naïve café, 12 + 30 = 42!"


def look_at_words(visit):
    """Tokenizer and model: does text come back, has every id an embedding, what ends a text?"""
    tokenizer = visit.tokenizer = load_tokenizer(visit.patient.folder)
    ids, rows = tokenizer.encode(SAMPLE), visit.model.config.vocab_size
    if tokenizer.decode(ids) != SAMPLE or max(*ids, *tokenizer.stop_ids) >= rows:
        raise CheckpointError("text does not survive", expected=f"ids below {rows}")
    if not tokenizer.special_ids.issuperset(tokenizer.stop_ids):
        raise CheckpointError("an ordinary token ends texts", field="eos_token_id")


# %% [markdown]
# The fifth asks for the loss of every text on the card. Each must be what it was, within half a thousandth of a nat. (Rounding
# moves it by a twenty-fifth of that, as was measured when the package was made.)

# %%
from course_helpers.validation_layers.baseline import losses


def look_at_losses(visit):
    """Known texts: as likely as they were?"""
    card = json.loads((visit.patient.folder / "card.json").read_text())["baseline"]
    found, _ = losses(visit.model, visit.tokenizer, card["texts"])
    pairs = zip(found, card["loss_per_text"], strict=True)
    visit.off = max(abs(now - then) for now, then in pairs)
    if visit.off > card["within"]:
        raise CheckpointError("known text is not as likely as it was", field="baseline")


LOOKS = {
    "files": look_at_files,
    "shapes": look_at_shapes,
    "forward": look_at_logits,
    "generation": look_at_words,
    "baseline": look_at_losses,
}

# %% [markdown]
# A look that fails says *that* something is wrong. The branches of the tree say what it means. The first four are quick: the
# error knows nearly everything.

# %%
def branch(layer, error, visit):
    """Department and diagnosis, for what the first four looks refuse."""
    if layer == "files":
        impostor = str(error.file).endswith(".safetensors") and looks_like(error.file)
        return "file format", impostor or f"{error.what}; {error.cause}"
    if layer == "shapes" and error.field == "torch_dtype":
        return "dtype/device", error.cause
    if layer == "shapes" and "values" in error.what:
        return "silent", f"{error.tensor} holds {error.found}"
    if layer == "shapes":
        return "shape", error.cause
    if layer == "generation":
        return "tokenizer", f"{error.what}: config and tokenizer of two models"
    wide = load_model(visit.patient.folder, torch.bfloat16)
    if finite(wide):
        return "dtype/device", f"{error.found} overflows, bfloat16 does not"
    return "silent", "not finite in bfloat16 either: damaged weights"


# %% [markdown]
# The last branch needs a good copy to compare with: another implementation, an older download, the original. First the cheap
# question, whether both tokenizers give the same ids:

# %%
def other_ids(tokenizer, good, texts):
    """How two tokenizers first differ on some texts; None if they do not."""
    if tokenizer.adds_bos != good.adds_bos:
        return "texts do not begin with the mark that the good copy gives them"
    for text in texts:
        for one, other in zip(tokenizer.encode(text), good.encode(text), strict=False):
            piece, theirs = tokenizer.decode([one]), good.decode([one])
            if one != other and piece != theirs:
                return f"id {one} is {piece!r} here, and {theirs!r} in the good copy"
            if one != other:
                theirs = good.decode([other])
                return f"text is cut at {piece!r}, where the good copy has {theirs!r}"


# %% [markdown]
# Only if they do, the debugger is asked:

# %%
def compare(visit):
    """Department and diagnosis, for a model that only its losses betray."""
    source = visit.patient.source
    words = load_tokenizer(source)
    texts = json.loads((visit.patient.folder / "card.json").read_text())["baseline"]["texts"]
    if difference := other_ids(visit.tokenizer, words, texts):
        return "tokenizer", difference
    good = load_model(source, torch.float32)
    report = first_mismatch(visit.model, good, words.encode(texts[0]))
    cause, _ = report.causes[0]
    return "silent", f"{report.first.ours}: {cause}"


# %% [markdown]
# And the doctor, who is short:

# %%
def triage(patient):
    """The first look that notices, the department, the diagnosis; and the visit itself."""
    visit = Visit(patient)
    for layer, look in LOOKS.items():
        started = time.perf_counter()
        try:
            look(visit)
        except CheckpointError as error:
            by_losses = layer == "baseline"
            department, diagnosis = compare(visit) if by_losses else branch(layer, error, visit)
            return layer, department, diagnosis, visit
        finally:
            visit.seconds[layer] = time.perf_counter() - started
    return None, "healthy", "as far as anybody can tell", visit


# %% [markdown]
# ## 9 · The round
#
# First the healthy ones: a doctor who calls everybody ill is right about every patient. Then all twenty. *What was done* is the
# truth; the doctor was not shown it.
#
# **Predict, then run.** How many of the twenty does each layer stop?

# %%
from course_helpers.labs.lab_08 import Patient

well = {
    source: triage(Patient("00", source, healthy_copy(source, workspace / "well")))[1]
    for source in dict.fromkeys(case.source for case in ADMISSIONS.values())
}
print(*(f"{source}: {verdict}" for source, verdict in well.items()), sep="\n")

# %%
found = {number: triage(patient) for number, patient in patients.items()}

print(f"{'patient':<19}{'stopped by':<12}{'department':<14}what was done, and the diagnosis")
for number, (layer, department, diagnosis, _) in found.items():
    print(f"{patients[number]!s:<19}{layer:<12}{department:<14}{ADMISSIONS[number].truth}")
    print("   ", textwrap.shorten(diagnosis, 100, placeholder=" …"))

stopped = Counter(layer for layer, *_ in found.values())
print("\nstopped by", ", ".join(f"{layer}: {stopped[layer]}" for layer in LOOKS))

# %% [markdown]
# Is each in the right department? And does the package's `validate_checkpoint` stop where our looks do? We ask it about the
# first patient that each look has stopped.

# %%
right = [found[number][1] == case.department for number, case in ADMISSIONS.items()]
print(f"{sum(right)} of {len(right)} in the right department")

same = True
for look in LOOKS:
    first = next(patients[number] for number, (layer, *_) in found.items() if layer == look)
    failed = validate_checkpoint(first.folder, first.dtype).failed
    print(f"{first!s:<15}our look: {look:<12}the package's layer: {failed}")
    same = same and failed == look

told_apart = all(right) and set(well.values()) == {"healthy"}
validation_checkpoint("M9-LAB-08", "every patient in the right department", told_apart)
validation_checkpoint("M9-LAB-08", "our five looks stop where the package's stop", same)

# %% [markdown]
# Five of these are classics of the earlier labs: GPT-2's matrices are stored turned over (14, M9-LAB-01); Meta's files keep the
# rows of queries and keys in pairs (15, M9-LAB-02); the window bounds how far a layer looks back (17, M9-LAB-06); Gemma's
# norms multiply by 1 + weight (18, M9-LAB-05); a head, the matrix that makes scores of a token's last state, is *tied* when it
# is the embedding itself (09, M9-LAB-03).

# %% [markdown]
# ### One that is wrong
#
# Look at 20. The debugger found the right *place*, and told the wrong *story*: it knows many mistakes, and takes what it does
# not know for weights of another training. A person looks further. If these are not block 0's weights, whose are they?

# %%
number = "20"
print(textwrap.fill(found[number][2], 96))
swapped, good = load_model(patients[number].folder), load_model(patients[number].source)
for ours_block, block in enumerate(swapped.blocks):
    for index, theirs_block in enumerate(good.blocks):
        one, other = block.attention.query.weight, theirs_block.attention.query.weight
        if ours_block != index and torch.equal(one, other):
            print(f"our block {ours_block} is their block {index}")

# %% [markdown]
# **A tool's place is a fact, its cause is a hypothesis.** Treat it like one of yours: check it.
#
# ## 10 · How quiet is quiet?
#
# Nine patients got as far as the last look. By how much did they give themselves away there? (The axis is logarithmic:
# from one label to the next it is a hundred times as much.) And what if there had been no card? Then only what holds of
# *any* model of English can be asked: does it predict better than a compressor, are words likelier in their order than
# shuffled, does more context help?
#
# **Predict, then run.** How many of the nine does that find?

# %%
from course_helpers.validation import run
from course_helpers.validation_layers import baseline
from course_helpers.validation_layers.subject import Subject


def noticed_without_card(visit):
    """Whether the package's last layer refuses a model when it has no card to compare with."""
    subject = Subject(visit.patient.folder, model=visit.model, tokenizer=visit.tokenizer)
    return not run("baseline", baseline.check, subject).ok


late = [number for number, (layer, *_) in found.items() if layer == "baseline"]
titles = {number: f"{number} {ADMISSIONS[number].truth}" for number in late}
alone = {titles[number]: noticed_without_card(found[number][3]) for number in late}
off = {titles[number]: found[number][3].off for number in late}
print(f"{len(late)} stopped by the card, {sum(alone.values())} of them without it, too")
charts.loudness(off, alone, card["within"])

# %% [markdown]
# From the loudest to the quietest lie nearly six powers of ten. **What no tool sees without a baseline is most of this chart.**
# So write the baseline down while the model is well: `report.baseline` of `validate_checkpoint` is made for that.
#
# The quietest is the wrong epsilon, the small number that keeps a norm from dividing by 0. Would you have heard it?

# %%
prompt = "One sunny morning"
told = [write(source, 100, prompt) for source in ("tiny-qwen3", patients["19"].folder)]
print("its whole story is the good model's, word for word:", told[0] == told[1])

# %% [markdown]
# Nobody would. And one patient even the card could not have caught:

# %%
from course_helpers.labs.lab_08_patients import RARE

rare = patients["13"]
blind = Visit(rare)
blind.model = load_model(rare.folder, torch.float32)  # without verify
for look in (look_at_logits, look_at_words, look_at_losses):
    look(blind)
print("without verify=True, every later look passes")
print(textwrap.fill("ordinary text: " + symptom(rare), 88))
print("and this one:  " + symptom(rare, prompt="Once upon a time, Mia had a" + RARE))

# %% [markdown]
# There is a NaN in one row of its embedding, that of a token which is in none of the card's texts. Everything is well
# until a customer writes about a pumpkin. Only a look at *every byte* finds that.
#
# (`look_at_logits` sent the tokens 0 to 31 through the model, and the pumpkin is not among them.)
#
# ## 11 · Who noticed?

# %% tags=["nbval-ignore-output"]
counts = {layer: {} for layer in LOOKS}
for layer, department, *_ in found.values():
    counts[layer][department] = counts[layer].get(department, 0) + 1

visits = [visit for *_, visit in found.values()]
milliseconds = {}
for layer in LOOKS:
    took = sorted(1000 * visit.seconds[layer] for visit in visits if layer in visit.seconds)
    milliseconds[layer] = took[len(took) // 2]  # the median

TOOLS = {
    "files": "open_checkpoint",
    "shapes": "load_model(verify=True)",
    "forward": "a forward pass",
    "generation": "load_tokenizer",
    "baseline": "losses, first_mismatch",
}
charts.who_noticed(counts, TOOLS, milliseconds)

# %% [markdown]
# Read it from the top. More than half of the patients never get as far as the last look, and no mathematics was needed for
# them: files that do not belong together, labels that lie, a type that is too small. **Check config, tokenizer and files
# before you debug an equation** (slide 12). And five of the nine that are left were put out of order by a line of a config or
# of a tokenizer file.
#
# The times show that one look stands too late: that of the tokenizer is cheaper than a load, and far cheaper where the model
# has 16 GB. (We kept to the package's order, so that the two could be compared.) For a large model, ask it second.
#
# **Predict, then run.** How many of the twenty would a list of **hashes** have stopped, in the very first look?

# %%
from course_helpers.labs.lab_08 import listed

by_hash = {
    number: listed(patient.folder, resolve(patient.source))
    for number, patient in patients.items()
    if (resolve(patient.source) / "card.json").exists()  # a model from the hub lists no hashes
}
stopped = all(by_hash.values())
print(f"{sum(by_hash.values())} of {len(by_hash)}")
validation_checkpoint("M9-LAB-08", "hashes stop every changed file at once", stopped)

# %% [markdown]
# All of them. A hash knows nothing about models, and says only "this is not the file". That is enough: whoever keeps hashes
# needs this clinic for the mistakes in *code*, and for files that were wrong from the beginning.
#
# ## 12 · Recovery
#
# Two ways back. **Fetch again** what is not the original by its hash: it always works if there is an original. **Mend** what
# is there: needed when there is none (a file of your own, converted by a script that is gone), and possible where the mistake
# can be undone.
#
# Three of the cures need a few lines. The rows of queries and keys (15) are put in order by the package's own **rule** for
# Meta's files. The bytes of 10 only need their right name, for not one of them has changed. And the vocabulary's size (08) is
# written in the file: it is how many rows the embedding has.

# %%
from course_helpers.labs.lab_08 import edit_tensors, every, exchanged, rebuild_index
from course_helpers.loaders.rules import Rule


def permute_back(folder):
    head_dim = json.loads((folder / "config.json").read_text())["head_dim"]
    rule = Rule(("",), interleaved=True, head_dim=head_dim)  # pairs of rows to halves
    for name in ("q_proj", "k_proj"):
        every(name, lambda weight: rule.to_ours(weight, [weight.shape])[0])(folder)


def relabel(folder):
    def rename(tensors):
        tensors |= {name: value.view(torch.bfloat16) for name, value in tensors.items()}

    edit_tensors(folder, rename)


def count_rows(folder):
    with open_checkpoint(folder) as checkpoint:
        rows, _ = checkpoint.shape("model.embed_tokens.weight")
    edit_json(folder, vocab_size=rows)


# %% [markdown]
# Every other cure is a line:

# %%
MEND = {
    "06": ("write the index anew", rebuild_index),
    "08": ("config from the tensor", count_rows),
    "09": ("untie the head", lambda folder: edit_json(folder, tie_word_embeddings=False)),
    "10": ("read the bytes as bfloat16", relabel),
    "14": ("transpose back", every("h.1.attn.c_proj.weight", lambda weight: weight.T)),
    "15": ("pairs to halves", permute_back),
    "18": ("take the 1 away again", every("norm", lambda weight: weight - 1)),
    "20": ("exchange them back", exchanged("h.0.", "h.1.")),
}

# %% [markdown]
# A changed dtype (03) is no change of the file at all. Everybody else gets the files that differ.
#
# **Predict, then run.** After its cure every patient sees the same doctor again. One cure of the list does not work. Which one,
# and why? (Think of what 16 bits can hold.)

# %%
outcome = {}
for number, patient in patients.items():
    if number == "03":
        cure, patient = "load as bfloat16", dataclasses.replace(patient, dtype=torch.bfloat16)
    elif number in MEND:
        cure, mend = MEND[number]
        mend(patient.folder)
    else:
        cure = "fetch again: " + ", ".join(fetch_again(patient))
    _, verdict, diagnosis, visit = triage(patient)
    outcome[number] = (cure, verdict)
    print(f"{patient!s:<18}{verdict:<9}{cure}")

# %% [markdown]
# Patient 18, the Gemma 3 whose norms were stored with the 1 that its code adds anyway. A bfloat16 has 8 binary digits, so above
# 1 it counts in steps of 1/128, and a weight of 0.030 comes back as 4/128 = 0.031. The rest was lost when the sum was *stored*.
#
# **What was rounded away can only be fetched again.** (So norms with their 1 are best stored in float32.)

# %%
patient = patients["18"]
with open_checkpoint(patient.folder) as mine, open_checkpoint(patient.source) as theirs:
    norms = [name for name in theirs.names() if "norm" in name]
    back = torch.cat([mine.read(name) == theirs.read(name) for name in norms])
print(f"values of the norms that came back: {int(back.sum())} of {back.numel()}")

print("fetched:", *fetch_again(patient))
outcome["18"] = ("fetch again", triage(patient)[1])
left = [number for number, (_, verdict) in outcome.items() if verdict != "healthy"]
validation_checkpoint("M9-LAB-08", "every patient leaves healthy", not left, str(left))

# %% tags=["nbval-ignore-output"]
from course_helpers.labs import record_results

record_results(
    "M9-LAB-08",
    {
        "source": SOURCE,
        "first_to_notice": counts,
        "milliseconds_per_look": milliseconds,
        "faults": [
            {
                "patient": str(patients[number]),
                "department": department,
                "what_was_done": ADMISSIONS[number].truth,
                "noticed_by": layer,
                "diagnosis": diagnosis,
                "nats_off": visit.off,
                "noticed_without_card": layer != "baseline" or alone[titles[number]],
                "noticed_by_hash": by_hash.get(number),
                "cure": outcome[number][0],
            }
            for number, (layer, department, diagnosis, visit) in found.items()
        ],
    },
)

# %% [markdown]
# ## Recap
#
# | Department | What you see | The first question | The usual cure |
# |---|---|---|---|
# | file format | a refusal, absurd sizes | what are the first bytes? | fetch again, by hash; write the index anew |
# | shape | a refusal with two shapes | one tensor, or all of them? | config and weights from one place |
# | dtype/device | one token for ever, NaN, "device meta" | finite in bfloat16? who was never filled? | the type of the file; a strict loader |
# | tokenizer | words without order, or a slightly worse text | the same ids as a good copy? | the tokenizer of the weights |
# | silent | nothing | are known texts as likely as they were? | the first place that differs, then undo it |
#
# - Symptom, hypothesis, check, fix: in this order, and the fix is done when *the same check* passes.
# - Cheap looks first. They stop more than half of the patients.
# - The place that a debugger names is a fact; the cause is its hypothesis.
# - What you did not write down while it was well, you cannot hold against it when it is ill: hashes, and a baseline.
#
# **You can now** examine a checkpoint in five looks; tell a tokenizer's fault from a model's; find the first part of a model
# that goes wrong; and cure it, or say why it cannot be cured.
#
# **Next:** M9-LAB-09 turns these looks into a smoke suite that runs by itself, for every family.

# %% [markdown]
# ## Exercises
#
# Each has a check that tells you what is wrong, not only that something is. Write your function, run its cell, then the
# check.

# %% [markdown] tags=["solution-note"]
# The solutions are in the folded cells (click the three dots). A folded cell replaces your function when it is run, so
# leave it out while you try.

# %% [markdown]
# ### Exercise 1 · The transposed squares
#
# A square matrix that was taken transposed (rows for columns) fits everywhere. Find them all: given two models of one config,
# a `sick` one and a `good` one, return the names of the parameters that are the good one's *turned over*. A parameter that is
# equal to the good one's is not ill, and one that is damaged in another way is a matter for another doctor.

# %% tags=["exercise"]
def transposed_squares(sick, good):
    """Names of the parameters of `sick` that are those of `good`, transposed."""
    raise NotImplementedError


# %% tags=["solution"]
def transposed_squares(sick, good):
    reference = dict(good.named_parameters())
    found = []
    for name, parameter in sick.named_parameters():
        right = reference[name]
        square = right.dim() == 2 and right.shape[0] == right.shape[1]
        if square and not torch.equal(parameter, right) and torch.equal(parameter, right.T):
            found.append(name)
    return found


# %%
from course_helpers.labs.lab_08_exercises import check_transposed_squares

check_transposed_squares(transposed_squares)


# %% [markdown]
# ### Exercise 2 · Three without a chart
#
# Three new patients, `"X"`, `"Y"` and `"Z"`, lie in the workspace. They all load, and they all write. Diagnose them with
# whatever this lab has: `symptom`, `triage`, `validate_checkpoint`, `first_mismatch`, a look at the config. `patients` is a
# dict of them; `patients["X"].source` names a good copy.
#
# Return for each its department and its *place*: the name of a parameter of the model for damaged weights, the field of
# `config.json` for a config, the name of the file for a tokenizer. Say, `{"X": ("silent", "rms_norm_eps"), "Y": ...}`.

# %%
from course_helpers.labs.lab_08_patients import MYSTERIES

mysteries = admit(workspace / "mysteries", MYSTERIES)
for mystery in mysteries.values():
    print(mystery, "|", textwrap.shorten(symptom(mystery), 76, placeholder=" …"))


# %% tags=["exercise"]
def diagnose(patients):
    """Letter -> (department, place)."""
    raise NotImplementedError


# %% tags=["solution"]
def diagnose(patients):
    for letter, patient in patients.items():
        _, department, diagnosis, _ = triage(patient)
        print(letter, department, "|", textwrap.shorten(diagnosis, 84, placeholder=" …"))
    # X is told in full: gate holds up. Y has the right model and other ids: its tokenizer.json
    # lacks merges. Z's full layers turn like the sliding ones: its config has no rope_scaling.
    return {
        "X": ("silent", "blocks.2.feed_forward.gate.weight"),
        "Y": ("tokenizer", "tokenizer.json"),
        "Z": ("silent", "rope_scaling"),
    }


# %%
from course_helpers.labs.lab_08_exercises import check_diagnose

check_diagnose(diagnose, mysteries)


# %% [markdown]
# ### Exercise 3 · A patient of your own
#
# Now you are the disease, and then the doctor. Write two functions. `harm(folder)` breaks a healthy checkpoint (a
# `tiny-qwen3`) in **one** way that no error shows: it must still load. `catches(folder)` says True for a checkpoint that is
# ill and False for one that is well, with nothing but the folder to go by: its `card.json` holds a baseline.
#
# The check takes more than one healthy checkpoint to your doctor, and more than one ill one. `edit_json`, `edit_tensors`,
# `every`, `exchanged` and `losses` are there for you.

# %% tags=["exercise"]
def harm(folder):
    """Break the checkpoint in the folder, silently."""
    raise NotImplementedError


def catches(folder):
    """Whether the checkpoint in the folder is ill."""
    raise NotImplementedError


# %% tags=["solution"]
def harm(folder):
    # Both norms have the length of a head, so each fits in the other's place.
    exchanged("q_norm", "k_norm")(folder)


def catches(folder):
    card = json.loads((folder / "card.json").read_text())["baseline"]
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    found, _ = losses(model, tokenizer, card["texts"])
    pairs = zip(found, card["loss_per_text"], strict=True)
    return any(not abs(now - then) <= card["within"] for now, then in pairs)


# %%
from course_helpers.labs.lab_08_exercises import check_patient

check_patient(harm, catches, workspace / "exercise")

# %%
shutil.rmtree(workspace)
print("cleaned up:", not workspace.exists())
