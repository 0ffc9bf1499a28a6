"""From a source to a model: the two functions that everything else in `loaders` serves."""

import functools
import time
from collections.abc import Mapping
from typing import Any

import torch

from ..architectures.base import LanguageModel
from ..architectures.config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..families import Family, family_of
from .assign import make_plan
from .report import LoadReport, TensorRow
from .sources import Checkpoint, open_checkpoint
from .strategies import STRATEGIES, Job, copy_into


def load_model(
    source: object,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    strategy: str = "stream",
    *,
    config: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> LanguageModel:
    """Load any checkpoint of any family into our model, in eval mode.

    `source`: what `open_checkpoint` takes. `dtype`: that of the checkpoint's tensors unless another is asked for
    (the widest, where they differ). `strategy`: naive, sequential, mmap or stream: equal models, different peaks of
    memory. The model's `load_report` accounts for every tensor. Raises CheckpointError (and returns no model) for
    anything that would make a wrong one.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    started = time.perf_counter()
    with open_checkpoint(source, config, revision, dtype=dtype, device=device) as checkpoint:
        job = prepare(checkpoint, dtype, torch.device(device))
        model = STRATEGIES[strategy](job).eval()
        model.load_report = report(job, model, strategy, time.perf_counter() - started)
    return model


def load_weights(
    model: LanguageModel,
    source: object,
    *,
    config: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> LoadReport:
    """Replace the weights of a model in hand: all of them, or (with CheckpointError) none.

    Every new tensor is read before the first old one is overwritten, so a file that turns out to be unreadable
    half-way leaves the model as it was; for that the peak is twice the model. `config`: as for `load_model`; it must
    say what the model's own config says.
    """
    started = time.perf_counter()
    with open_checkpoint(source, config, revision, dtype=model.dtype, device=model.device) as checkpoint:
        if checkpoint.config is not None:
            check_same_config(checkpoint, model.config)
        job = prepare(checkpoint, model.dtype, model.device, model.config)
        staged = list(job.parameters(checkpoint.read))
        copy_into(model, iter(staged))
        return report(job, model, "all or nothing", time.perf_counter() - started)


def check_same_config(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuse weights that were trained under another config, even if every shape fits. Raises CheckpointError."""
    _, found = read_config(checkpoint)
    # Special token ids are for whoever feeds the model; it computes the same whatever they are.
    names = ("model_type", *(name for name in vars(config) if not name.endswith("_token_id")))
    different = [name for name in names if getattr(found, name, None) != getattr(config, name)]
    if different:
        raise CheckpointError(
            "the checkpoint's config is not the model's: the same weights would compute something else",
            file=checkpoint.origin,
            field=different[0],
            expected=repr(getattr(config, different[0])),
            found=repr(getattr(found, different[0], None)),
            cause="another family, or another size or variant of this one",
            next_step="load it with load_model, which builds a model of the checkpoint's own config",
        )


def prepare(
    checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device, config: ModelConfig | None = None
) -> Job:
    """Check the whole checkpoint against its config. Raises CheckpointError; reads no weights."""
    if checkpoint.config is None and config is None:
        raise CheckpointError(
            "the weights have no config.json beside them",
            file=checkpoint.origin,
            expected="config.json in the same folder, or the config argument",
            found="neither",
            cause="only the weight file was copied",
            next_step="copy config.json from where the weights came from; guessing it would give a wrong model",
        )
    family, config = read_config(checkpoint) if config is None else (family_of(config.to_hf()), config)
    build = functools.partial(family.model, config)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in build().named_parameters()}
    plan = make_plan(checkpoint, family.weight_maps, config, shapes)
    stored = functools.reduce(torch.promote_types, {checkpoint.dtype(name) for name in plan.steps})
    return Job(build, checkpoint, plan, dtype or stored, device)


def read_config(checkpoint: Checkpoint) -> tuple[Family, ModelConfig]:
    """The family and the config that a checkpoint's config.json describes. Raises ConfigError, with the file's name."""
    try:
        family = family_of(checkpoint.config)
        return family, family.config.from_hf(checkpoint.config)
    except ConfigError as error:
        error.file = error.file or checkpoint.origin
        raise


def report(job: Job, model: LanguageModel, strategy: str, seconds: float) -> LoadReport:
    checkpoint, plan = job.checkpoint, job.plan
    return LoadReport(
        origin=checkpoint.origin,
        format=checkpoint.format,
        layout=plan.weight_map.layout,
        strategy=strategy,
        family=model.config.model_type,
        dtype=model.dtype,
        rows=tuple(
            TensorRow(name, checkpoint.shape(name), checkpoint.dtype(name), rule.describe(), rule.targets)
            for name, rule in plan.steps.items()
        ),
        dropped=plan.dropped,
        parameters=model.num_parameters(),
        nbytes=sum(parameter.nbytes for parameter in model.parameters()),
        seconds=seconds,
    )
