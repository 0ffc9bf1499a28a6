"""What several ranks hold, on disk: written by all of them at once, and read by any other number of them.

This is torch.distributed.checkpoint: each rank writes its own parts, and a table says which part of which tensor is in
which file. Whoever reads asks for other parts, and gets them out of as many files as it takes. It is the form for
going on later; to hand a model on, `export_sharded` turns it into the family's Hugging Face layout.
"""

import json
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from ..architectures.base import LanguageModel
from ..errors import CheckpointError
from ..families import family_of
from ..loaders.save import save_checkpoint, write_files
from .apply import parallelize, shares_of
from .ranks import Ranks
from .reading import place

#: What a finished folder has: the table of torch.distributed.checkpoint, which is written last.
TABLE = ".metadata"


def save_sharded(model: LanguageModel, folder: str | Path, ranks: Ranks) -> Path:
    """Write a shared model; every rank must call this, and return only when all have written.

    The folder must not exist: it appears under its name when it is complete. Raises CheckpointError in every rank.
    """
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.unfinished")
    ranks.together(lambda: begin(folder, draft, model, ranks.rank == 0))
    ranks.together(lambda: dcp.save(parameters(model), checkpoint_id=draft))
    ranks.together(lambda: draft.rename(folder) if ranks.rank == 0 else None)
    return folder


def begin(folder: Path, draft: Path, model: LanguageModel, first: bool) -> None:
    if folder.exists():
        raise CheckpointError(
            "there is something where the sharded checkpoint should go",
            file=folder,
            expected="a name that is free",
            found="a folder or a file",
            cause="an earlier save under the same name",
            next_step="choose another name, or remove what is there; nothing was changed",
        )
    if first:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write_files(model, draft, None)


def load_sharded(folder: str | Path, ranks: Ranks) -> LanguageModel:
    """Read what `save_sharded` wrote, with any number of ranks that the model can be cut into. Each reads only what it
    is to hold. Raises CheckpointError in every rank."""
    model, dtype = ranks.together(lambda: empty(Path(folder)))
    shares = ranks.together(lambda: shares_of(model, ranks.size))
    parallelize(model, shares, ranks)
    give_memory(model, dtype, ranks.device)
    ranks.together(lambda: dcp.load(parameters(model), checkpoint_id=folder))
    return model.eval()


def export_sharded(folder: str | Path, target: str | Path) -> Path:
    """Turn what `save_sharded` wrote into a checkpoint in the family's Hugging Face layout, in one process that needs
    memory for the whole model. Raises CheckpointError."""
    model, dtype = empty(Path(folder))
    give_memory(model, dtype, torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")  # that there is one process only is meant
        dcp.load(parameters(model), checkpoint_id=folder, no_dist=True)
    return save_checkpoint(model.eval(), target)


def empty(folder: Path) -> tuple[LanguageModel, torch.dtype]:
    """The model that a folder holds, still without memory, and the type of its weights. Raises CheckpointError."""
    if not (folder / TABLE).is_file():
        raise CheckpointError(
            "this is not a finished sharded checkpoint",
            file=folder,
            expected=f"a folder with the file {TABLE}, which is written last",
            found="none",
            cause="a save that broke off, or a checkpoint of another kind",
            next_step="take an earlier one; checkpoints of other kinds are loaded with load_parallel",
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = family_of(config)
    with torch.device("meta"):
        model = family.model(family.config.from_hf(config))
    return model, getattr(torch, config["torch_dtype"])


def give_memory(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Memory for every parameter, or for this rank's part of it."""
    for name, parameter in list(model.named_parameters()):
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        place(model, name, torch.empty(local.shape, dtype=dtype, device=device))


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is written and read."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
