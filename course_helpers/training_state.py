"""A training on disk, so that it can go on as if it had never stopped.

The folder is a checkpoint of the model's family, which `load_model` loads, with two files more:

training.json          settings, steps done, place in the data, history
training.safetensors   AdamW's two moments and step count of every parameter; the state of torch's random generators

Nothing in it can run code. It is replaced as a whole (`loaders.atomic_folder`): whoever is killed, at whatever moment,
leaves the state before or the state after.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .architectures.base import LanguageModel
from .errors import CheckpointError
from .labs.records import write_json
from .loaders.atomic_folder import recovered
from .loaders.disk import read_json
from .loaders.load import load_weights
from .loaders.manifest_files import sha256
from .loaders.safetensors_file import SafetensorsFile
from .loaders.save import checkpoint_draft
from .tokenizers import Tokenizer
from .training import TrainingSettings
from .training_history import History

FORMAT = 1
DESCRIPTION, TENSORS = "training.json", "training.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # torch's names of what AdamW remembers for each parameter
PARTS = ("sha256", "settings", "data", "history")  # of the description
EDITED = "a file that was edited by hand"
RANDOM = "random_generator."


def write_state(
    folder: Path,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer | None,
    description: Mapping[str, Any],
) -> None:
    """Replace the state in a folder. Raises CheckpointError, as `save_checkpoint` does; then the old one is there."""
    from safetensors.torch import save_file

    tensors = moments(model, optimizer) | random_states(model.device)
    extra = sum(tensor.nbytes for tensor in tensors.values())
    with checkpoint_draft(model, folder, tokenizer, extra_bytes=extra) as draft:
        save_file(tensors, draft / TENSORS)
        hashes = {path.name: sha256(path) for path in sorted(draft.glob("*.safetensors"))}
        write_json(draft / DESCRIPTION, {"format": FORMAT, "sha256": hashes, **description})


def moments(model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What AdamW remembers, by the names of the parameters; a tied head is none, and is not there twice."""
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment].contiguous()
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's own generators, on the CPU and on the model's device."""
    states = {RANDOM + "cpu": torch.get_rng_state()}
    return states | ({RANDOM + "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def read_description(folder: Path) -> dict[str, Any] | None:
    """What a folder says of the training in it; None where there is none. Raises CheckpointError if it cannot be
    understood, or if the files beside it are not those it was written with."""
    recovered(folder)
    path = folder / DESCRIPTION
    if not path.exists():
        return None
    description = read_json(path)
    if description.get("format") != FORMAT:
        raise refused(path, "format", FORMAT, description.get("format"), "another version of this package wrote it")
    for part in PARTS:
        if not isinstance(description.get(part), dict):
            raise refused(path, part, "an object", repr(description.get(part))[:200], EDITED)
    if description["history"].keys() != History().to_json().keys():
        raise refused(path, "history", list(History().to_json()), list(description["history"]), EDITED)
    for name, expected in description["sha256"].items():
        found = sha256(folder / name) if (folder / name).exists() else "no such file"
        if found != expected:
            cause = "damage, or a file of another state in its place"
            raise refused(folder / name, f"sha256.{name} in {DESCRIPTION}", expected, found, cause)
    return description


def check_settings(folder: Path, description: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Raises CheckpointError for a state that was written under other settings."""
    before, now = description["settings"], as_json(settings)
    for name in before | now:
        if before.get(name) != now.get(name):
            cause = "settings that were changed after the training was begun"
            raise refused(folder / DESCRIPTION, f"settings.{name}", now.get(name), before.get(name), cause)


def as_json(settings: TrainingSettings) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def restore(folder: Path, model: LanguageModel, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Put weights, moments and random generators back. Raises CheckpointError, before anything is changed, for a state
    of another model."""
    file = SafetensorsFile(folder / TENSORS)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shapes = {
        f"{name}.{moment}": () if moment == "step" else tuple(parameter.shape)
        for name, parameter in trained.items()
        for moment in (MOMENTS if steps else ())
    }
    shapes |= {name: tuple(state.shape) for name, state in random_states(model.device).items()}
    found = {name: entry.shape for name, entry in file.tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            cause = "the state of another model, of another choice of frozen parts, or of another kind of device"
            raise refused(file.path, name, shapes.get(name, "no such tensor"), found.get(name, "nothing"), cause)
    tensors = {name: file.read(name) for name in shapes}
    load_weights(model, folder)  # all or nothing; from here on nothing can fail
    for name, parameter in trained.items() if steps else ():
        own = {moment: tensors[f"{name}.{moment}"] for moment in MOMENTS}
        optimizer.state[parameter] = {
            moment: tensor if moment == "step" else tensor.to(parameter.device) for moment, tensor in own.items()
        }
    torch.set_rng_state(tensors[RANDOM + "cpu"])
    if model.device.type == "cuda":
        torch.cuda.set_rng_state(tensors[RANDOM + "cuda"], model.device)


def refused(file: Path, field: str, expected: object, found: object, cause: str) -> CheckpointError:
    return CheckpointError(
        "this is not a state that the training can go on from",
        file=file,
        field=field,
        expected=expected,
        found=found,
        cause=cause,
        next_step="give the model, data and settings it was begun with, or begin anew in another folder",
    )
