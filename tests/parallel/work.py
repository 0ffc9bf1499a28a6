"""What the ranks of a test do. Each leaves what it found in a file of its own; the test compares."""

import sys
from pathlib import Path
from typing import Any

import torch

from course_helpers import FAMILIES, generate
from course_helpers.architectures.base import LanguageModel
from course_helpers.parallel import Ranks, load_parallel, processes
from course_helpers.parallelism.apply import is_cut

TINY = list(dict.fromkeys(family.tiny for family in FAMILIES.values()))
TIMEOUT = 60.0


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


SCENARIOS = {"models": models, "formats": formats}


def main() -> None:
    scenario, folder, *words = sys.argv[1:]
    torch.set_num_threads(1)
    with processes(timeout=TIMEOUT) as ranks:
        found = SCENARIOS[scenario](ranks, Path(folder), *words)
        torch.save(found, Path(folder) / f"{scenario}-{ranks.rank}-of-{ranks.size}.pt")


if __name__ == "__main__":
    main()
