"""Do all ranks have the same checkpoint? Told from a little of every tensor, before any is loaded."""

import hashlib
import json

import torch

from ..loaders.sources import Checkpoint

#: Values looked at in the middle of each tensor.
SAMPLE = 256


def fingerprint(checkpoint: Checkpoint) -> str:
    """A hash of the config, of every tensor's name, type and shape, and of some values out of its middle.

    Another training of the same model differs in nearly every value, so this tells them apart, and reads next to
    nothing. Damage in a few values elsewhere it cannot see: for that there are manifests, and `verify`.
    """
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True, default=str).encode())
    rows = {
        name: checkpoint.shape(name)[0]
        for name in checkpoint.names()
        if checkpoint.shape(name) and checkpoint.size(name)
    }
    largest = max((checkpoint.size(name) // count for name, count in rows.items()), default=0)
    scratch = torch.empty(largest, dtype=torch.uint8, device="cpu")
    for name in sorted(checkpoint.names()):
        digest.update(f"{name} {checkpoint.shape(name)} {checkpoint.dtype(name)}".encode())
        if name in rows:
            row = checkpoint.peek_part(name, 0, rows[name] // 2, rows[name] // 2 + 1, scratch)
            digest.update(row.flatten()[:SAMPLE].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
