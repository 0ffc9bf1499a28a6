"""M9-LAB-06's two processes: started by torchrun, as in a terminal, and asked what each of them holds."""

import json
import os
import subprocess
import sys
from typing import Any

import torch

from .. import generate, load_tokenizer
from ..parallel import load_parallel, processes
from ..parallelism.apply import is_cut
from ..parallelism.ranks import leave

#: Before every line that is meant for the notebook.
MARK = "found: "


def on_ranks(count: int, source: str, prompt: str, new_tokens: int) -> list[dict[str, Any]]:
    """What each of `count` processes holds of a checkpoint, and the text that they write together, greedy, in float32.
    Raises RuntimeError, with what the processes said, if they failed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*launcher, "-m", __name__, source, prompt, str(new_tokens)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0"}  # torch for Windows comes without libuv
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=300)
    if result.returncode:
        raise RuntimeError(f"the processes failed:\n{result.stderr}")
    lines = [line.removeprefix(MARK) for line in result.stdout.splitlines() if line.startswith(MARK)]
    return sorted(map(json.loads, lines), key=lambda found: found["rank"])


def main() -> None:
    source, prompt, new_tokens = sys.argv[1:]
    tokenizer = load_tokenizer(source)
    with processes(timeout=120) as ranks:
        model = load_parallel(source, ranks, torch.float32)
        tokens = generate(model, [tokenizer.encode(prompt)], int(new_tokens), stop_ids=tokenizer.stop_ids)
        found = {
            "rank": ranks.rank,
            "weights": sum((one.to_local() if is_cut(one) else one).nbytes for one in model.parameters()),
            "cache": model.make_cache(1, 1024).nbytes,
            "tokens": tokens[0],
        }
        everything = ranks.gather(found)
        for one in everything if ranks.rank == 0 else ():
            print(MARK + json.dumps(one), flush=True)
    leave(0)


if __name__ == "__main__":
    main()
