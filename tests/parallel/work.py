"""What the ranks of a test do. Each leaves what it found in a file of its own; the test compares."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor.debug import CommDebugMode

from course_helpers import FAMILIES, CheckpointError, generate
from course_helpers.architectures.base import LanguageModel
from course_helpers.parallel import RankError, Ranks, load_parallel, load_sharded, processes, save_sharded
from course_helpers.parallelism.apply import is_cut
from course_helpers.parallelism.ranks import leave

TINY = list(dict.fromkeys(family.tiny for family in FAMILIES.values()))


def prompt_ids() -> torch.Tensor:
    """Two texts longer than the smallest window (48) of the bundled models."""
    return torch.randint(4, 1000, (2, 60), generator=torch.Generator().manual_seed(0))


def parts(model: LanguageModel) -> dict[str, torch.Tensor]:
    """This rank's part of every parameter."""
    return {name: (one.to_local() if is_cut(one) else one).detach() for name, one in model.named_parameters()}


def models(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Every family's bundled model: its parts, its logits, and what it writes."""
    found = {}
    for name in TINY:
        model, ids = load_parallel(name, ranks, torch.float32), prompt_ids()
        rows = [ids[0, :20].tolist(), ids[1, :7].tolist()]
        with torch.no_grad():
            with CommDebugMode() as sent:
                logits = model(ids)
            hidden = model(ids, hidden_states=True)
        found[name] = {
            "parts": parts(model),
            "logits": logits,
            "hidden": hidden,
            "greedy": generate(model, rows, 8),
            "uncached": generate(model, rows, 2, use_cache=False),
            "sampled": generate(model, rows, 3, temperature=2.0),
            "cache": model.make_cache(1, 100).nbytes,
            "sums": sent.get_comm_counts().get(torch.ops.c10d_functional.all_reduce, 0),
            "report": str(model.load_report),
        }
    return found


def formats(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Every checkpoint in a folder: this rank's part of it, and the logits."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        model = load_parallel(path, ranks)
        with torch.no_grad():
            logits = model(torch.arange(20)[None])
        found[path.name] = {"parts": parts(model), "logits": logits}
    return found


def save(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Load every bundled model and write it sharded; then try to write it over what is there."""
    found = {}
    for name in TINY:
        model = load_parallel(name, ranks)
        save_sharded(model, folder / "saved" / name, ranks)
        try:
            save_sharded(model, folder / "saved" / name, ranks)
        except CheckpointError as error:
            found[name] = str(error)
    return found


def reshard(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Read what other ranks wrote; write it again."""
    found = {}
    for path in sorted((folder / "saved").iterdir()):
        model = load_sharded(path, ranks)
        found[path.name] = {"parts": parts(model), "text": generate(model, [[5, 6, 7]], 3)}
        save_sharded(model, folder / f"saved again by {ranks.size}" / path.name, ranks)
    return found


def refusals(ranks: Ranks, folder: Path) -> dict[str, str]:
    """Checkpoints that are not the same in every rank: what each says, one after the other in the same processes."""
    found = {}
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            load_parallel(case / str(ranks.rank), ranks)
            found[case.name] = "loaded"
        except CheckpointError as error:
            found[case.name] = str(error)
    return found


def silence(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Rank 1 is alive and does not answer."""
    model = load_parallel("tiny-llama2", ranks)
    if ranks.rank == 1:
        time.sleep(30)
    return {"tokens": generate(model, [[5, 6, 7]], 4)}


def endless(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Load and write, over and over, until something ends it; says what it does."""
    while True:
        print("loading", flush=True)
        model = load_parallel("tiny-llama3", ranks, torch.float32)
        print("writing", flush=True)
        generate(model, [[5, 6, 7]], 40)


SCENARIOS = {work.__name__: work for work in (models, formats, save, reshard, refusals, silence, endless)}


def main() -> int:
    scenario, folder, timeout = sys.argv[1:]
    torch.set_num_threads(1)
    print("joining", flush=True)
    try:
        with processes(timeout=float(timeout)) as ranks:
            found = SCENARIOS[scenario](ranks, Path(folder))
            torch.save(found, Path(folder) / f"{scenario}-{ranks.rank}-of-{ranks.size}.pt")
    except RankError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
