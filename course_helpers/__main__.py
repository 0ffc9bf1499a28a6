"""`python -m course_helpers`: load, validate and run checkpoints from the command line. Started by torchrun, `generate`
and `load` share one model among all its processes.

Text goes to standard output, everything else to standard error; the exit status is 0 only when it worked.
"""

import argparse
import sys
from pathlib import Path

from . import CheckpointError, doctor, load_model, load_tokenizer, manifest, stream, validate_checkpoint
from .architectures.packing import WEIGHTS
from .dtypes import DTYPES
from .errors import RankError
from .labs import progress
from .loaders.strategies import STRATEGIES
from .parallelism import command as parallel
from .planning import command as planning


def add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder, a weight file, a bundled name (tiny-gpt2) or a hub id (owner/name)")
    parser.add_argument("--dtype", choices=DTYPES, help="that of the checkpoint unless given")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps; default: cpu")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model; its newest unless given")


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser)
    parser.add_argument("--strategy", choices=STRATEGIES, default="stream")
    parser.add_argument("--verify", action="store_true", help="look at every byte before anything is loaded")
    parser.add_argument("--weights", choices=WEIGHTS, default="plain", help="packed: faster; int8: smaller, rounded")
    parser.set_defaults(compile=False)  # only some commands have the option
    parallel.add_options(parser)


def load_from(arguments: argparse.Namespace):
    dtype = DTYPES.get(arguments.dtype)
    asked = {"revision": arguments.revision, "verify": arguments.verify}
    if arguments.ranks is not None:
        return parallel.load(arguments, dtype, **asked)
    asked |= {"weights": arguments.weights, "compile": arguments.compile}
    return load_model(arguments.source, dtype, arguments.device, arguments.strategy, **asked)


def run_load(arguments: argparse.Namespace) -> int:
    report = load_from(arguments).load_report
    print(report)
    print(f"from {report.origin}")
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    dtype = DTYPES.get(arguments.dtype)
    report = validate_checkpoint(arguments.source, dtype, arguments.device, arguments.revision)
    print(report)
    print(report.measured)
    if arguments.json:
        arguments.json.write_text(report.to_json() + "\n", encoding="utf-8")
    return 0 if report.ok else 1


def run_generate(arguments: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(arguments.source, arguments.revision)
    if arguments.chat:
        ids = tokenizer.chat([{"role": "user", "content": arguments.prompt}])
    else:
        ids = tokenizer.encode(arguments.prompt)
    model = load_from(arguments)
    shown = ""
    new_ids: list[int] = []
    settings = {"temperature": arguments.temperature, "seed": arguments.seed, "stop_ids": tokenizer.stop_ids}
    for token in stream(model, ids, arguments.max_new_tokens, **settings):
        new_ids.append(token)
        text = tokenizer.decode(new_ids if arguments.chat else ids + new_ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # half of a character: wait for its other bytes
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return 0


def run_families(arguments: argparse.Namespace) -> int:
    from .family_table import family_table

    print(family_table())
    return 0


def add_generate_options(parser: argparse.ArgumentParser) -> None:
    add_loading_options(parser)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--max-new-tokens", type=int, default=120)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default): always the likeliest token")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--chat", action="store_true", help="wrap the prompt in the family's chat format")
    parser.add_argument("--compile", action="store_true", help="decode by compiled steps: for long answers")


def add_validate_options(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser)
    parser.add_argument("--json", type=Path, help="also write the report there")


def no_options(parser: argparse.ArgumentParser) -> None:
    pass


#: Command -> what it does, its options, and what runs it and returns the exit status.
COMMANDS = {
    "generate": ("continue a prompt", add_generate_options, run_generate),
    "validate": ("check a checkpoint, layer by layer", add_validate_options, run_validate),
    "load": ("load a checkpoint and account for every tensor", add_loading_options, run_load),
    "families": ("what can be loaded", no_options, run_families),
    "doctor": ("what this machine can run, before anything is downloaded", doctor.add_options, doctor.run),
    "progress": ("which validation checkpoints of the labs you have passed", progress.add_options, progress.run),
    "plan": ("which model, how: from an objective and a machine", planning.add_options, planning.run),
    "record": ("run prompts and pin all that led to the texts", manifest.add_record_options, manifest.run_record),
    "verify": ("do a recorded run again and compare", manifest.add_verify_options, manifest.run_verify),
}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m course_helpers", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (about, add_options, run) in COMMANDS.items():
        command = commands.add_parser(name, help=about)
        add_options(command)
        command.set_defaults(run=run)
    arguments = parser.parse_args(words)
    try:
        return parallel.run(arguments) if parallel.is_launched() else arguments.run(arguments)
    except (CheckpointError, RankError, ValueError) as error:
        print(f"{parallel.speaker()}{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    (parallel.leave if parallel.is_launched() else sys.exit)(main())
