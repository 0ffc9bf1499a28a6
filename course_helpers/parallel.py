"""One model on several processes: tensor parallelism, for models that one machine or one GPU cannot hold.

    torchrun --nproc-per-node 2 -m course_helpers generate tiny-qwen3 --prompt "Once upon a time"

or, in a program that torchrun starts:

    with processes() as ranks:
        model = load_parallel("tiny-qwen3", ranks)
        tokens = generate(model, prompts)        # the same call, and the same tokens in every rank

Every process holds its share of each large matrix and a copy of the small ones (`parallelism/plans.py` says which, a
table for each family), reads from the files only what it holds, and keeps a cache for its own heads only. All of them
run the same code on the same tokens; twice a layer they add up what each has worked out.
"""

import time

import torch

from .architectures.base import LanguageModel
from .errors import RankError
from .loaders.load import prepare, report
from .loaders.sources import Checkpoint, open_checkpoint
from .loaders.strategies import Job
from .parallelism.apply import parallelize, shares_of
from .parallelism.fingerprint import fingerprint
from .parallelism.ranks import Ranks, is_launched, processes
from .parallelism.reading import read_own_parts
from .parallelism.shares import Share
from .parallelism.states import export_sharded, load_sharded, save_sharded

__all__ = [
    "RankError",
    "Ranks",
    "export_sharded",
    "is_launched",
    "load_parallel",
    "load_sharded",
    "processes",
    "save_sharded",
]


def load_parallel(
    source: object,
    ranks: Ranks,
    dtype: torch.dtype | None = None,
    *,
    config: object = None,
    revision: str | None = None,
    verify: bool = False,
) -> LanguageModel:
    """Load a checkpoint into a model that all ranks hold together, in eval mode; each must call this. The parameters
    are those of `load_model`, without strategies: there is one, and it reads only this rank's part.

    The whole checkpoint is checked in every rank before anything is read, and that all ranks have the same one. Raises
    CheckpointError in every rank if any of them cannot load its part: there never is half a model.
    """
    started = time.perf_counter()
    checkpoint = ranks.together(lambda: open_checkpoint(source, config, revision, dtype=dtype, device=ranks.device))
    with checkpoint:
        ranks.same(
            "checkpoint (hash of config, names, shapes and samples)", ranks.together(lambda: fingerprint(checkpoint))
        )
        job, shares = ranks.together(lambda: planned(checkpoint, ranks, dtype, verify))
        model = parallelize(job.empty, shares, ranks).eval()
        ranks.together(lambda: read_own_parts(job, model, shares, ranks.rank, ranks.size))
        model.load_report = report(job, model, f"rank {ranks.rank} of {ranks.size}", time.perf_counter() - started)
    return model


def planned(
    checkpoint: Checkpoint, ranks: Ranks, dtype: torch.dtype | None, verify: bool
) -> tuple[Job, dict[str, Share]]:
    """Everything that can be checked without reading weights. Raises CheckpointError."""
    job = prepare(checkpoint, dtype, ranks.device, verify=verify)
    return job, shares_of(job.empty, ranks.size)
