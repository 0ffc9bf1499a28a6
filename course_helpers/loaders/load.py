"""From a source to a model: the two functions that everything else in `loaders` serves."""

import functools
import sys
import time
from collections import deque
from collections.abc import Callable

import torch

from ..architectures.base import LanguageModel
from ..architectures.compiled import compile_decoding
from ..architectures.config import ModelConfig
from ..architectures.packing import check_form, check_plain, nbytes, pack
from ..errors import CheckpointError, ConfigError
from ..families import Family, family_of
from .assign import make_plan
from .reading import ReadAhead
from .report import LoadReport, TensorRow
from .rules import Rule
from .sources import Checkpoint, open_checkpoint
from .strategies import STRATEGIES, Job
from .verify import check_every_byte

BACKENDS = ("auto", "mmap", "pread")


def load_model(
    source: object,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    strategy: str = "stream",
    *,
    config: object = None,
    revision: str | None = None,
    verify: bool = False,
    backend: str = "auto",
    weights: str = "plain",
    compile: bool = False,
) -> LanguageModel:
    """Load any checkpoint of any family into our model, in eval mode.

    `source`: what `open_checkpoint` takes. `dtype`: that of the checkpoint's tensors unless another is asked for
    (the widest, where they differ). `strategy`: naive, sequential, mmap or stream: equal models, different peaks of
    memory. `verify`: look at every byte first (see `verify.py`); it costs about one more read of the files. `backend`:
    how strategy mmap gets at the files: "mmap", or "pread", which reads them as strategy stream does; "auto" is "pread"
    on Windows, where mappings of many gigabytes can end the process, and "mmap" elsewhere. `weights`: "packed" (the
    same numbers, laid out to be read faster) or "int8" (rounded to half of bfloat16's bytes), both for a model that
    will only generate (see `architectures/packing.py`). `compile`: decode by steps that torch.compile made, of plain
    weights; the first token takes longer for it, tens of seconds, each time that rows or the cache's room are new (see
    `architectures/compiled.py`). A CourseWarning where this machine cannot compile: the model then decodes as usual.

    The model's `load_report` accounts for every tensor. Raises CheckpointError (and returns no model) for anything that
    would make a wrong one, and ValueError for a device that this computer has not or a form that the model cannot have.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; there are: {', '.join(BACKENDS)}")
    check_form(weights, dtype)
    if compile and weights != "plain":
        raise ValueError(f"compile=True is for plain weights, not for {weights}: leave one of the two options out")
    if backend == "auto":
        backend = "pread" if sys.platform == "win32" else "mmap"
    device, started = usable(device), time.perf_counter()
    with open_checkpoint(source, config, revision, dtype=dtype, device=device) as checkpoint:
        job = prepare(checkpoint, dtype, device, verify=verify, backend=backend)
        check_form(weights, job.dtype)
        model = pack(STRATEGIES[strategy](job).eval(), weights)
        model.load_report = report(job, model, strategy, time.perf_counter() - started)
    if compile:
        compile_decoding(model)
    return model


def usable(device: torch.device | str) -> torch.device:
    """The device, before anything is read for it. Raises ValueError if torch cannot put a tensor there."""
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"torch cannot use the device {str(device)!r} here: {reason}; take cpu, or install a torch made for it"
        ) from error


def load_weights(
    model: LanguageModel,
    source: object,
    *,
    config: object = None,
    revision: str | None = None,
    verify: bool = False,
) -> LoadReport:
    """Replace the weights of a model in hand: all of them, or (with CheckpointError, or interrupted) none.

    Every new tensor is read before the first old one is overwritten, so a file that turns out to be unreadable
    half-way leaves the model as it was; for that the peak is twice the model. `config`: as for `load_model`; it must
    say what the model's own config says.
    """
    started = time.perf_counter()
    check_plain(model, "take other weights")
    check_has_memory(model)
    with open_checkpoint(source, config, revision, dtype=model.dtype, device=model.device) as checkpoint:
        if checkpoint.config is not None:
            check_same_config(checkpoint, model.config)
        job = prepare(checkpoint, model.dtype, model.device, model.config, verify)
        with ReadAhead(checkpoint, job.plan.steps) as ahead:
            staged = deque(job.parameters(ahead.take))
        exchange(model, staged)
        return report(job, model, "all or nothing", time.perf_counter() - started)


def check_has_memory(model: LanguageModel) -> None:
    """Refuse a model that is empty, or half empty: copying into the meta device does nothing, and says nothing. Raises
    CheckpointError."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise CheckpointError(
                "the model in hand has no memory for its weights",
                tensor=name,
                expected="a parameter with values to replace",
                found="a parameter on the meta device",
                cause="the model was built on the meta device, and not filled, or not all of it",
                next_step="load it with load_model, or give it memory first: model.to_empty(device='cpu')",
            )


@torch.no_grad()
def exchange(model: LanguageModel, staged: deque[tuple[str, Rule, torch.Tensor]]) -> None:
    """Put new values into a model, one tensor after the other. Interrupted half-way, put the old ones back: they take
    the place in memory of the new ones that are done."""
    done = []
    try:
        while staged:
            name, rule, values = staged.popleft()
            region = rule.region(model.get_parameter(name))
            done.append((region, region.clone()))
            region.copy_(values)
    except BaseException:
        for region, values in done:
            region.copy_(values)
        raise


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
    checkpoint: Checkpoint,
    dtype: torch.dtype | None,
    device: torch.device,
    config: ModelConfig | None = None,
    verify: bool = False,
    backend: str = "mmap",
) -> Job:
    """Check the whole checkpoint against its config. Raises CheckpointError; reads no weights, but with `verify`."""
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
    empty = build_empty(checkpoint, config, build)
    shapes = {name: parameter.shape for name, parameter in empty.named_parameters()}
    plan = make_plan(checkpoint, family.weight_maps, config, shapes)
    if verify:
        check_every_byte(checkpoint, plan.steps)
    stored = functools.reduce(torch.promote_types, {checkpoint.dtype(name) for name in plan.steps})
    return Job(build, empty, checkpoint, plan, dtype or stored, device, backend)


def build_empty(checkpoint: Checkpoint, config: ModelConfig, build: Callable[[], LanguageModel]) -> LanguageModel:
    """A model whose parameters have shapes but no memory. Raises ConfigError where there can be no such model."""
    tensors = len(checkpoint.names())
    if config.num_hidden_layers > tensors:
        raise impossible(checkpoint, f"{config.num_hidden_layers} layers, and only {tensors} tensors")
    largest = max((size for name in checkpoint.names() for size in checkpoint.shape(name)), default=0)
    if config.head_dim > largest:  # tables as long as that are computed while a model is built
        raise impossible(
            checkpoint, f"heads of {config.head_dim}, and no tensor with more than {largest} rows or columns"
        )
    try:
        with torch.device("meta"):
            return build()
    except (ArithmeticError, RuntimeError) as error:
        raise impossible(checkpoint, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


def impossible(checkpoint: Checkpoint, found: str) -> ConfigError:
    return ConfigError(
        "no model can be built from this config",
        file=checkpoint.origin,
        expected="sizes that fit the weights",
        found=found,
        cause="a config.json of another size, or edited by hand",
        next_step="take config.json from the same place as the weights",
    )


def read_config(checkpoint: Checkpoint) -> tuple[Family, ModelConfig]:
    """The family and the config that a checkpoint's config.json describes. Raises ConfigError, with the file's name."""
    try:
        family = family_of(checkpoint.config)
        return family, family.config.from_hf(checkpoint.config)
    except ConfigError as error:
        error.file = error.file or checkpoint.origin
        raise
    except ArithmeticError as error:  # a value that fits its type, and leads beyond the range of numbers
        raise impossible(checkpoint, f"{type(error).__name__}: {error}") from error


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
        nbytes=nbytes(model),
        seconds=seconds,
        weights=model.weights,
    )
