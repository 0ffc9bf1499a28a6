"""What the film about loading tells: every name, shape, size, message and word in it, found out by doing it.

The bundled GPT-2 is written in four formats, opened, mapped, checked, refused once, loaded and run. Memory over time is
what M9-LAB-APP-A measured. No Manim here.
"""

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_helpers import CheckpointError, generate, load_model, load_tokenizer, open_checkpoint
from course_helpers.architectures.base import LanguageModel
from course_helpers.loaders.load import load_weights
from course_helpers.loaders.rules import Rule
from course_helpers.loaders.save import export
from course_helpers.loaders.sources import BUNDLED
from course_helpers.loaders.weight_maps import GPT2

from .loading_formats import WRITERS, Layout, fingerprint, layout

CHECKPOINT = "tiny-gpt2"
MEASURED = BUNDLED.parent / "results" / "M9-LAB-APP-A.json"
#: The rows of the weight map that are shown, by the ends of their names; the turned one is shown from close by, too.
SHOWN = ("wte.weight", "h.0.ln_1.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_fc.weight")
TURNED = "h.0.attn.c_attn.weight"


@dataclass(frozen=True)
class Row:
    """A tensor of the checkpoint, what is done to it, and the parameters it becomes."""

    source: str
    shape: tuple[int, ...]
    done: str
    targets: tuple[str, ...]
    target_shape: tuple[int, ...]


@dataclass(frozen=True)
class Refusal:
    """One matrix is the wrong way round: what the loader said, and the model in hand before and after."""

    error: CheckpointError
    before: str
    after: str


@dataclass(frozen=True)
class Memory:
    """Private memory in MiB, as a lab measured it while a checkpoint was loaded."""

    source: str
    model_mb: float
    seconds: tuple[float, ...]
    private_mb: tuple[float, ...]
    load_seconds: float
    peak_mb: float
    naive_peak_mb: float


@dataclass(frozen=True)
class Run:
    """The sanity run: a prompt's tokens, what the model added, and whether that is what the checkpoint's card says."""

    prompt: str
    prompt_tokens: tuple[tuple[str, int], ...]
    new_tokens: tuple[tuple[str, int], ...]
    expected: bool


@dataclass(frozen=True)
class Story:
    """All of it."""

    layouts: tuple[Layout, ...]
    rows: tuple[Row, ...]
    listing: tuple[tuple[str, tuple[int, ...], str], ...]  # some tensors: name, shape, dtype
    tensors: int
    parameters: int
    blocks: int
    order: tuple[str, ...]  # in which the model's parts are complete, as they are loaded
    refusal: Refusal
    memory: Memory
    run: Run


@functools.cache
def story() -> Story:
    """Do everything, once."""
    model = load_model(CHECKPOINT)
    rules = GPT2.expand(model.config, trunk="")
    with tempfile.TemporaryDirectory() as folder, open_checkpoint(CHECKPOINT) as checkpoint:
        names = checkpoint.names()
        shown = [name for name in rules if name in SHOWN]
        return Story(
            layouts=tuple(layout(model, title, write, Path(folder, title)) for title, write in WRITERS.items()),
            rows=tuple(row(checkpoint.shape(name), name, rules[name], model) for name in shown),
            listing=tuple((name, checkpoint.shape(name), str(checkpoint.dtype(name))[6:]) for name in names[:5]),
            tensors=len(names),
            parameters=sum(1 for _ in model.parameters()),
            blocks=model.config.num_hidden_layers,
            order=filling_order(model),
            refusal=refused(model, Path(folder, "turned")),
            memory=measured(),
            run=sanity_run(model),
        )


def row(shape: tuple[int, ...], name: str, rule: Rule, model: LanguageModel) -> Row:
    """A row of the weight map, filled in for this model."""
    target_shape = tuple(model.get_parameter(rule.targets[0]).shape)
    return Row(name, shape, rule.describe(), rule.targets, target_shape)


def part_of(parameter: str) -> str:
    """The part of the model, as it is drawn, that a parameter belongs to."""
    if "embedding" in parameter:
        return "embeddings"
    if not parameter.startswith("blocks."):
        return "final_norm"
    _, number, module, *_ = parameter.split(".")
    return f"blocks.{number}.{'attention' if module.startswith('attention') else 'feed_forward'}"


def filling_order(model: LanguageModel) -> tuple[str, ...]:
    """The parts in the order in which their last tensor comes, says the report of the load."""
    last = {part_of(target): number for number, row in enumerate(model.load_report.rows) for target in row.targets}
    return tuple(sorted(last, key=last.get))


def refused(model: LanguageModel, folder: Path) -> Refusal:
    """Turn one matrix, try to load that into the model in hand, and see what is said and what has changed."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = export(model)
    tensors[TURNED] = tensors[TURNED].T.contiguous()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_hf()))
    save_file(tensors, folder / "model.safetensors")
    before = fingerprint(model)
    try:
        load_weights(model, folder)
    except CheckpointError as error:
        return Refusal(error, before, fingerprint(model))
    raise AssertionError("a matrix that is the wrong way round was not refused")


def measured(path: Path = MEASURED) -> Memory:
    """What the lab measured for strategies `stream` and `naive`."""
    record = json.loads(path.read_text(encoding="utf-8"))
    results = record["results"]
    stream, naive = (results["strategies"][name] for name in ("stream", "naive"))
    line = stream["timeline"]
    return Memory(
        source=record["lab"],
        model_mb=results["model_mb"],
        seconds=tuple(line["seconds"]),
        private_mb=tuple(line["private_mb"]),
        load_seconds=stream["load_seconds"],
        peak_mb=stream["peak_private_mb"],
        naive_peak_mb=naive["peak_private_mb"],
    )


def sanity_run(model: LanguageModel) -> Run:
    """Continue the first prompt of the checkpoint's card to the end of the sentence, likeliest token after token."""
    card = json.loads((BUNDLED / CHECKPOINT / "card.json").read_text(encoding="utf-8"))["greedy"][0]
    tokenizer = load_tokenizer(CHECKPOINT)
    prompt = tokenizer.encode(card["prompt"])
    ids = generate(model, torch.tensor([prompt]), max_new_tokens=40, stop_ids=tokenizer.stop_ids)[0].tolist()
    pieces = [(tokenizer.decode([id]), id) for id in ids]
    end = next((number for number, (piece, _) in enumerate(pieces) if piece.endswith(".")), len(pieces) - 1)
    text, known = tokenizer.decode(ids[: end + 1]), len(prompt)
    return Run(card["prompt"], tuple(pieces[:known]), tuple(pieces[known : end + 1]), card["text"].startswith(text))
