"""Check functions for the exercises of M9-LAB-08: each failure names the likely mistake."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch

from ..architectures.llama import LlamaConfig, LlamaModel
from ..architectures.rope import RopeParameters
from ..errors import CheckpointError
from ..loaders.files import read_json
from ..loaders.load import load_model
from ..loaders.manifest_files import MANIFEST, sha256
from ..loaders.sources import resolve
from ..tokenizers import load_tokenizer
from ..training import initialize
from ..validation_layers.baseline import losses
from .checkpoint import hint
from .exercises import answer, called
from .lab_08 import DEPARTMENTS, Patient, different_files, edit_json, every, healthy_copy
from .lab_08_patients import MYSTERIES, fewer_merges

#: Query and output are square, key and value are not.
SMALL = LlamaConfig(
    vocab_size=32,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=32,
    rms_norm_eps=1e-5,
    rope_parameters=RopeParameters(rope_theta=10_000.0),
    tie_word_embeddings=True,
)
TURNED = ("blocks.0.attention.query.weight", "blocks.2.attention.output.weight")
SYMMETRIC, DAMAGED = "blocks.1.attention.query.weight", "blocks.1.attention.output.weight"


@torch.no_grad()
def good_model() -> LlamaModel:
    """A model with random weights, of which one square is its own transpose."""
    model = initialize(LlamaModel(SMALL), seed=1)
    square = model.get_parameter(SYMMETRIC)
    square.copy_(square + square.T)
    return model


@torch.no_grad()
def sick_model() -> LlamaModel:
    """The same with two squares turned, and one damaged in another way."""
    model = good_model()
    for name in TURNED:
        parameter = model.get_parameter(name)
        parameter.copy_(parameter.T.clone())
    model.get_parameter(DAMAGED)[3] = 0
    return model


def check_transposed_squares(transposed_squares: Callable[[LlamaModel, LlamaModel], Collection[str]]) -> None:
    """Exercise 1: which parameters are the good model's, turned over."""
    sick, good = sick_model(), good_model()
    try:
        found = answer(transposed_squares, sick, good)
    except RuntimeError as error:
        hint(
            True,
            f"torch stopped with: {str(error).splitlines()[0]}. Not every matrix is square: look at its shape first",
        )
    names = dict(good.named_parameters())
    usable = isinstance(found, list | tuple | set) and all(isinstance(name, str) for name in found)
    hint(not usable, "return the names of the parameters, in a list")
    unknown = [name for name in found if name not in names]
    hint(bool(unknown), f"there is no parameter called {unknown and unknown[0]!r}: take names from named_parameters()")
    pairs = zip(
        (*sick.parameters(), *good.parameters()), (*sick_model().parameters(), *good_model().parameters()), strict=True
    )
    hint(any(not torch.equal(one, two) for one, two in pairs), "one of the models was changed: only look, do not mend")
    vectors = [name for name in found if names[name].dim() < 2]
    hint(bool(vectors), f"{vectors and vectors[0]} is a vector: it has no other side. Ask for two dimensions")
    hint(
        SYMMETRIC in found,
        f"{SYMMETRIC} is equal to the good one as it is (it happens to be its own transpose): equal means not ill",
    )
    hint(
        DAMAGED in found,
        f"{DAMAGED} differs, but not by being turned: compare with the good one's .T, not only with the good one",
    )
    wrong = sorted(set(found) - set(TURNED))
    hint(bool(wrong), f"{wrong and wrong[0]} is not turned over: it is equal to the good one")
    hint(not found, "nothing was found, and two are turned: is the good one's .T what you compare with?")
    left = sorted(set(TURNED) - set(found))
    hint(bool(left), f"one is missing: {left and left[0]}. Go through all parameters before you return")
    healthy = answer(transposed_squares, good_model(), good_model())
    hint(bool(healthy), "two equal models, and your function still finds something")
    print("Exercise 1: right. Two squares found, and nobody accused who is well.")


#: Where a mystery may be said to lie, and what helps somebody who looks in the wrong place or department.
PLACES = {
    "X": tuple(
        name
        for part in ("gate", "up")
        for name in (f"blocks.2.feed_forward.{part}.weight", f"model.layers.2.mlp.{part}_proj.weight")
    ),
    "Y": ("tokenizer.json",),
    "Z": ("rope_scaling",),
}
DEPARTMENT_HINTS = {
    "X": "its tokenizer gives the ids of the good copy, and all layers but the last pass. So it is inside the model",
    "Y": "first_mismatch finds its model equal to the good one, to the bit. What else is between a text and its loss?",
    "Z": "it opens, it fits, its logits are finite and its ids are those of the good copy. Which department is left?",
}
PLACE_HINTS = {
    "X": "look at the rows of first_mismatch: the first that is not ok has the name of a parameter, in `ours`",
    "Y": "compare its files with the good copy's, by hash: different_files(folder, original)",
    "Z": "all weights are equal, so it is the config: compare it with the good copy's, field by field",
}


def check_diagnose(diagnose: Callable[[Mapping[str, Patient]], Mapping], patients: Mapping[str, Patient]) -> None:
    """Exercise 2: department and place of three patients."""
    found = answer(diagnose, patients)
    hint(
        not isinstance(found, Mapping), f"expected a dict, letter -> (department, place), got a {type(found).__name__}"
    )
    for letter, case in MYSTERIES.items():
        hint(letter not in found, f"{letter} has no diagnosis yet")
        pair = found[letter]
        usable = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        hint(not usable, f'{letter}: say (department, place), two texts, as in ("silent", "rms_norm_eps")')
        department, place = pair
        hint(
            department not in DEPARTMENTS,
            f"{letter}: {department!r} is no department; there are: {', '.join(DEPARTMENTS)}",
        )
        hint(department != case.department, f"{letter} is not a case for {department!r}: {DEPARTMENT_HINTS[letter]}")
        hint(
            letter == "X" and "feed_forward" in place and place not in PLACES["X"],
            f"X: the right part of a block, but not {place}: layers are counted from 0, and the name ends in .weight",
        )
        hint(
            letter == "Y" and place in ("vocab.json", "merges.txt", "tokenizer_config.json"),
            f"Y: {place} is the good copy's, byte for byte. {PLACE_HINTS['Y']}",
        )
        hint(
            letter == "Z" and "rotary" in place,
            "Z: that is where it shows. Which field of config.json makes the full layers turn as the sliding ones do?",
        )
        hint(
            letter == "Z" and place == "rope_theta",
            "Z: the base is right, or the sliding layers, which have the same, would be wrong, too",
        )
        hint(place not in PLACES[letter], f"{letter}: it is not {place!r}. {PLACE_HINTS[letter]}")
    print("Exercise 2: right. Three patients, three places.")


def off_by(folder: Path, first: int | None = None) -> float:
    """Nats by which one of the card's texts, or of the first few, is off, at most."""
    card = read_json(folder / MANIFEST)["baseline"]
    found, _ = losses(load_model(folder, torch.float32), load_tokenizer(folder), card["texts"][:first])
    return max(abs(now - then) for now, then in zip(found, card["loss_per_text"][:first], strict=True))


def saved_anew(folder: Path) -> Path:
    """A healthy checkpoint in other bytes: the same numbers, stored in twice as many."""
    healthy_copy("tiny-qwen3", folder)
    every("", lambda weight: weight.float())(folder)
    edit_json(folder, torch_dtype="float32")
    return folder


def other_epsilon(folder: Path) -> Path:
    edit_json(healthy_copy("tiny-qwen3", folder), rms_norm_eps=1e-5)
    return folder


def lost_merges(folder: Path) -> Path:
    fewer_merges(healthy_copy("tiny-qwen3", folder))
    return folder


WELL = "so it is well; yours calls it ill"
#: Who comes to the learner's doctor: folder, how it is made, whether it is ill, and what helps if that is not seen. The
#: third is the learner's own patient, which lies there already.
VISITORS: tuple[tuple[str, Callable[[Path], Path], bool, str], ...] = (
    ("well", lambda folder: healthy_copy("tiny-qwen3", folder), False, f"an untouched copy, {WELL}"),
    (
        "other",
        lambda folder: healthy_copy("tiny-llama3", folder),
        False,
        f"a checkpoint of another family, with its own card, {WELL}. Ask the card, not numbers that you know",
    ),
    ("ill", lambda folder: folder, True, "your own patient, and your doctor lets it go"),
    (
        "anew",
        saved_anew,
        False,
        f"the same model, only saved again in float32, {WELL}. Its bytes are others, what it computes is not",
    ),
    (
        "mute",
        lost_merges,
        True,
        "a tokenizer without its last merges, and yours lets it go: use the tokenizer of the folder",
    ),
    (
        "quiet",
        other_epsilon,
        True,
        "another epsilon, and yours lets it go. It moves a text by a thousandth of a nat: compare text by text "
        "(loss_per_text), in float32, and allow what the card allows (within)",
    ),
)


def check_patient(harm: Callable[[Path], object], catches: Callable[[Path], bool], workspace: Path) -> None:
    """Exercise 3: a silent fault, and a check that tells the ill from the well."""
    ill = healthy_copy("tiny-qwen3", workspace / "ill")
    card = sha256(ill / MANIFEST)
    called(harm, ill)
    hint(sha256(ill / MANIFEST) != card, "harm has changed card.json: that is the doctor's, break something else")
    check_silent(ill)

    for name, make, is_ill, advice in VISITORS:
        folder = make(workspace / name)
        try:
            found = answer(catches, folder)
        except CheckpointError as error:
            hint(True, f"catches was stopped by a refusal ({error.what}): what does a refusal say about the patient?")
        hint(not isinstance(found, bool), f"answer True or False, not a {type(found).__name__}")
        hint(found != is_ill, advice)
    print("Exercise 3: right. Three are ill, three are well, and your doctor knows which.")


def check_silent(folder: Path) -> None:
    """The learner's patient loads, writes, and is wrong."""
    try:
        load_tokenizer(folder)
        load_model(folder)
    except CheckpointError as error:
        hint(True, f"your patient is refused ({error.what}): break it so that every shape and name still fits")
    unchanged = not different_files(folder, resolve("tiny-qwen3"))
    hint(unchanged, "your patient is as well as before: no file has changed. Was the change written to the folder?")
    allowed = read_json(folder / MANIFEST)["baseline"]["within"]
    hint(
        off_by(folder) <= allowed,
        f"your patient is hardly ill: its texts are off by less than {allowed} nats, which is no more than rounding",
    )
