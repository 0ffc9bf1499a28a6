"""Run manifests: a run written down so that anybody can do it again, and see whether the same comes out.

    manifest = record_run("tiny-llama3", ["Once upon a time"], reason="smallest that tells a story")
    manifest.save("run.json")
    print(verify(RunManifest.load("run.json")))          # the same run again, compared field by field
    model, tokenizer = load_pinned(manifest)             # or nothing, if a single file is another

`manifests/form.py` says what a manifest holds, `manifests/pins.py` what is refused, `manifests/verify.py` what is
compared; `manifests/run.py` does the run.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .dtypes import DTYPES, short
from .labs.records import provenance, write_text
from .loaders.load import load_model
from .loaders.sources import resolve
from .manifests.form import SCHEMA, RunManifest, Settings
from .manifests.pins import describe, digest, load_pinned, pin_files, pin_tokenizer
from .manifests.run import run, versions
from .manifests.verify import Verification, verify
from .memory import track_memory
from .tokenizers import load_tokenizer
from .validation import validate_checkpoint

__all__ = ["RunManifest", "Verification", "load_pinned", "record_run", "verify", "write_manifest"]

MANIFEST = "run.json"  # its name beside a checkpoint
PROMPTS = ("Once upon a time", "One sunny morning")
MACHINE = ("date", "platform", "cpu", "cores")  # of what is known about where a number comes from
#: Arguments of `record_run` that the command line has under the same names.
RECORD_OPTIONS = (
    *("device", "revision", "seed", "max_new_tokens", "temperature", "top_k", "top_p"),
    *("use_cache", "validate", "reason"),
)


def record_run(
    source: str | Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Iterable[int] | None = None,
    use_cache: bool = True,
    validate: bool = True,
    reason: str = "",
) -> RunManifest:
    """Validate a checkpoint, continue the prompts one by one, and pin all that led to the result.

    `source`: a folder, a weight file, a bundled name or a hub id, with a tokenizer; its files must not change while
    this runs. `seed` is set anew for every prompt; `dtype` is the checkpoint's unless given, `stop_ids` the
    tokenizer's. Validation takes a second load and some seconds on top; `validate=False` leaves it out. Raises
    CheckpointError for a checkpoint or tokenizer that cannot be loaded (one that loads and fails validation is recorded
    as such), and ValueError for settings that make no sense.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError("prompts must be a list of at least one text")
    path = resolve(source, revision, dtype=dtype, device=device)
    files = pin_files(path)
    with track_memory(interval=None) as memory:
        model, tokenizer = load_model(path, dtype, device), load_tokenizer(path)
        settings = Settings(
            dtype=short(model.dtype),
            device=str(device),
            threads=torch.get_num_threads(),
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=float(temperature),
            top_k=top_k,
            top_p=None if top_p is None else float(top_p),
            stop_ids=tuple(tokenizer.stop_ids if stop_ids is None else stop_ids),
            use_cache=use_cache,
        )
        results, seconds = run(model, tokenizer, prompts, settings)
    report = validate_checkpoint(path) if validate else None
    return RunManifest(
        schema=SCHEMA,
        reason=reason,
        source=describe(path),
        files=files,
        config_sha256=digest(model.config.to_hf()),
        tokenizer=pin_tokenizer(tokenizer),
        versions=versions(),
        settings=settings,
        results=results,
        validation={check.name: check.ok for check in report.checks} if report else {},
        telemetry={
            "load_seconds": model.load_report.seconds,
            "generate_seconds": seconds,
            "tokens_per_second": sum(len(result.new_ids) for result in results) / seconds,
            "peak_mb": memory.added_peak_mb,
            **{name: value for name, value in provenance().items() if name in MACHINE},
        },
    )


def write_manifest(folder: str | Path, reason: str = "", prompts: Sequence[str] = PROMPTS) -> Path:
    """Record a run of the checkpoint in a folder and write it there, as run.json; return its path."""
    return record_run(folder, prompts, reason=reason).save(Path(folder) / MANIFEST)


def add_record_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder, a weight file, a bundled name or a hub id")
    parser.add_argument("--prompt", dest="prompts", action="append", help="once or several times")
    parser.add_argument("--output", type=Path, required=True, help="the manifest to write")
    parser.add_argument("--reason", default="", help="why this model and these settings")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model; its newest unless given")
    parser.add_argument("--dtype", choices=DTYPES, help="that of the checkpoint unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default): always the likeliest token")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--no-cache", dest="use_cache", action="store_false")
    parser.add_argument("--no-validation", dest="validate", action="store_false")


def run_record(arguments: argparse.Namespace) -> int:
    """Write a manifest and print the texts. Status 1 if the checkpoint fails validation: that is recorded, too."""
    settings = {name: getattr(arguments, name) for name in RECORD_OPTIONS}
    dtype = DTYPES.get(arguments.dtype)
    manifest = record_run(arguments.source, arguments.prompts or PROMPTS, dtype=dtype, **settings)
    manifest.save(arguments.output)
    print("\n".join(result.text for result in manifest.results))
    failed = [name for name, ok in manifest.validation.items() if not ok]
    if failed:
        print(f"validation failed: {', '.join(failed)}; the manifest says so", file=sys.stderr)
    return 1 if failed else 0


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="a file that `record` wrote")
    parser.add_argument("--source", help="where the checkpoint lies, if not where the manifest says or beside it")
    parser.add_argument("--json", type=Path, help="also write the comparison there")


def run_verify(arguments: argparse.Namespace) -> int:
    """Print the comparison. Status 0 only if the run holds."""
    manifest = RunManifest.load(arguments.manifest)
    beside = arguments.manifest.parent if manifest.source.kind == "folder" else None
    verification = verify(manifest, arguments.source or beside)
    print(verification)
    if arguments.json:
        write_text(arguments.json, verification.to_json() + "\n")
    return 0 if verification.ok else 1
