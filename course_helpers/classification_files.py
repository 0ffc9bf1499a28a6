"""What goes from one module to the next: a base that is ready for finetuning, and a classifier made from it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .architectures.base import LanguageModel
from .classification import SequenceClassifier, frozen_digests
from .dtypes import DTYPES, short
from .errors import CheckpointError
from .labs.records import write_json
from .loaders.atomic_folder import recovered, replacing
from .loaders.disk import read_json
from .loaders.load import load_model
from .loaders.manifest_files import MANIFEST as CARD
from .loaders.manifest_files import sha256
from .loaders.safetensors_file import SafetensorsFile
from .loaders.save import check_target, checkpoint_draft
from .loaders.sources import resolve
from .manifest import MANIFEST, PROMPTS, record_run
from .manifests.form import RunManifest
from .manifests.pins import describe, load_pinned, pin_tokenizer
from .tokenizers import Tokenizer, load_tokenizer
from .validation import validate_checkpoint

FORMAT = 1
DESCRIPTION, TENSORS = "classifier.json", "classifier.safetensors"
#: The fields of the description, and what makes each one right.
FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == FORMAT,
    "labels": lambda value: isinstance(value, list) and all(isinstance(label, str) for label in value),
    "dtype": lambda value: value in DTYPES,
    "trained_sha256": lambda value: isinstance(value, str),
    "frozen_sha256": lambda value: isinstance(value, str),
}


def export_base(source: object, folder: str | Path, revision: str | None = None) -> RunManifest:
    """Write a base for finetuning: weights, config, tokenizer, a run manifest that pins all three (run.json), and a
    card that says how likely held-out text is to it, for later validations.

    The source must pass every layer of `validate_checkpoint`, and what was written must be, to the bit, what passed;
    otherwise CheckpointError is raised, and nothing is left behind. What was in the folder is replaced as a whole, if
    it was a checkpoint.
    """
    folder, path = Path(folder), resolve(source, revision)
    report = validate_checkpoint(path)
    if not report.ok:
        raise not_valid(source, f"validation layer {report.failed}", str(report))
    model, tokenizer, origin = load_model(path), load_tokenizer(path), describe(path)
    with checkpoint_draft(model, folder, tokenizer) as draft:
        write_json(draft / CARD, {"baseline": report.baseline})
        reason = f"a base for finetuning, from {origin.kind} {origin.name}"
        manifest = record_run(draft, PROMPTS, reason=reason, validate=False)
        check_written(model, tokenizer, draft, manifest)
        manifest = dataclasses.replace(
            manifest,
            source=dataclasses.replace(manifest.source, name=folder.resolve().name),  # and not the draft's
            validation={check.name: check.ok for check in report.checks},
        )
        manifest.save(draft / MANIFEST)
    return manifest


def check_written(model: LanguageModel, tokenizer: Tokenizer, draft: Path, manifest: RunManifest) -> None:
    """Raises CheckpointError if model or tokenizer do not come back from the disk as they are in memory."""
    written = load_model(draft)
    parameters = dict(written.named_parameters())
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter, parameters[name]):
            raise not_valid(draft, name, "another value after saving and loading")
    if written.config != model.config or manifest.tokenizer.probe_ids != pin_tokenizer(tokenizer).probe_ids:
        raise not_valid(draft, "config or tokenizer", "another one after saving and loading")


def load_base(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """Model and tokenizer of an exported base, if every file is still the pinned one. Raises CheckpointError."""
    folder = Path(folder)
    recovered(folder)
    return load_pinned(RunManifest.load(folder / MANIFEST), folder)


def not_valid(source: object, field: str, found: str) -> CheckpointError:
    return CheckpointError(
        "this checkpoint is not valid, and finetuning would not mend it",
        file=source,
        field=field,
        expected="every layer of validate_checkpoint passes, for exactly what is written",
        found=found,
        cause="the report says which check failed, and why",
        next_step="mend or replace the checkpoint; `python -m course_helpers validate` shows the report",
    )


def save_classifier(classifier: SequenceClassifier, folder: str | Path) -> Path:
    """Write what was trained (the head, and what `freeze_all_but` left), the base's config, the labels, and the hash of
    the frozen part. So it takes little room, and `load_classifier` takes no other base. The folder is replaced as a
    whole. Raises CheckpointError where something else is in it, or it cannot be written."""
    from safetensors.torch import save_file

    folder = Path(folder)
    check_target(folder)
    trained = {name: parameter.detach() for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    with replacing(folder) as draft:
        save_file({name: tensor.contiguous() for name, tensor in trained.items()}, draft / TENSORS)
        write_json(draft / "config.json", classifier.config.to_hf())
        description = {
            "format": FORMAT,
            "labels": list(classifier.labels),
            "dtype": short(classifier.base.dtype),
            "trained_sha256": sha256(draft / TENSORS),
            "frozen_sha256": together(frozen_digests(classifier)),
        }
        write_json(draft / DESCRIPTION, description)
    return folder


def load_classifier(folder: str | Path, base: object) -> SequenceClassifier:
    """The classifier in a folder, on its base: any source that `load_model` takes. In eval mode, frozen as it was.

    Raises CheckpointError for a base of another config, or whose frozen part is not, to the bit, the one that the head
    was trained on: it would answer, and mean nothing.
    """
    folder = Path(folder)
    recovered(folder)
    description, config = read_json(folder / DESCRIPTION), read_json(folder / "config.json")
    for name, right in FIELDS.items():
        if not right(description.get(name)):
            raise other_base(folder / DESCRIPTION, name, "what `save_classifier` writes", repr(description.get(name)))
    found = sha256(folder / TENSORS) if (folder / TENSORS).exists() else "no such file"
    if found != description["trained_sha256"]:
        raise other_base(folder / TENSORS, f"trained_sha256 of {DESCRIPTION}", description["trained_sha256"], found)
    classifier = SequenceClassifier(load_model(base, DTYPES[description["dtype"]]), description["labels"])
    if (found := classifier.config.to_hf()) != config:
        name = next(name for name in config | found if config.get(name) != found.get(name))
        raise other_base(base, name, config.get(name), found.get(name))
    file, parameters = SafetensorsFile(folder / TENSORS), dict(classifier.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in file.tensors)
    if (found := together(frozen_digests(classifier))) != description["frozen_sha256"]:
        raise other_base(base, "frozen_sha256 of the base", description["frozen_sha256"], found)
    with torch.no_grad():
        for name in file.tensors:
            parameters[name].copy_(file.read(name))
    return classifier.eval()


def together(digests: dict[str, str]) -> str:
    """One hash for many: of their names and values, in order of the names."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def other_base(file: object, field: str, expected: object, found: object) -> CheckpointError:
    return CheckpointError(
        "the classifier cannot be put together from these files",
        file=file,
        field=field,
        expected=expected,
        found=found,
        cause="another base than the one it was trained on, or a file that was damaged or edited",
        next_step="give the base that it was trained on, unchanged, and the folder as `save_classifier` wrote it",
    )
