"""Commands under torchrun: every process runs the same one, and the first of them speaks."""

import argparse
import contextlib
import os

import torch

from ..architectures.base import LanguageModel
from .ranks import TIMEOUT, is_launched, leave, processes

__all__ = ["add_options", "is_launched", "leave", "load", "run", "speaker"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that several processes can run together."""
    parser.set_defaults(ranks=None)
    help = f"seconds to wait for another process of torchrun that does not answer (default: {TIMEOUT:g})"
    parser.add_argument("--rank-timeout", type=float, default=TIMEOUT, help=help)


def speaker() -> str:
    """Who speaks, before a message: nobody in particular, where there is one process only."""
    return f"rank {os.environ['RANK']}: " if is_launched() else ""


def run(arguments: argparse.Namespace) -> int:
    """One command in all processes: the same exit status everywhere, text from rank 0 only. Raises ValueError for a
    command that cannot be shared."""
    if not hasattr(arguments, "ranks"):
        raise ValueError("torchrun can share the commands generate and load; start this one without it, in one process")
    if arguments.strategy != "stream":
        raise ValueError("several processes load in one way only, each its own part: leave --strategy out")
    if arguments.weights != "plain":
        raise ValueError("several processes hold their weights as they are: leave --weights out")
    if arguments.compile:
        raise ValueError("several processes decode uncompiled: leave --compile out")
    with processes(arguments.device, arguments.rank_timeout) as ranks:
        asked = {name: value for name, value in vars(arguments).items() if name not in ("ranks", "run")}
        ranks.same("command", str(sorted(asked.items())))
        arguments.ranks = ranks
        with contextlib.nullcontext() if ranks.rank == 0 else silent():
            return arguments.run(arguments)


@contextlib.contextmanager
def silent():
    """What is printed goes nowhere; errors still do."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def load(arguments: argparse.Namespace, dtype: torch.dtype | None, **asked: object) -> LanguageModel:
    """`load_model`, by all processes together."""
    from ..parallel import load_parallel

    return load_parallel(arguments.source, arguments.ranks, dtype, **asked)
