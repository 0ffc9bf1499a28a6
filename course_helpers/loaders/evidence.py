"""What a checkpoint says by the way about its config, held against config.json.

Many a wrong config.json fits every shape: another number of heads, another rotary base, another precision. Some files
carry tensors that are computed and not learned, and that are left out for this reason; they were computed from the
right config, and so they are witnesses. So is the type that config.json says the weights have, and the place in memory
of each of them.
"""

from collections.abc import Iterable, Iterator

import torch

from ..architectures.config import ModelConfig
from ..errors import CheckpointError
from .files import place
from .sources import Checkpoint

FREQUENCIES, CAUSAL_MASK = ("inv_freq", "rope.freqs"), ".attn.bias"
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def evidence_against(
    checkpoint: Checkpoint, config: ModelConfig, used: Iterable[str], dropped: Iterable[str]
) -> Iterator[CheckpointError]:
    """Every sign that tensors and config are not of one model, though all names and shapes fit. `used`, `dropped`:
    names of the tensors that become parameters, and of those that are left out."""
    used = list(used)
    yield from constant_problems(checkpoint, config, dropped)
    yield from precision_problems(checkpoint, used)
    yield from shared_problems(checkpoint, used)


def constant_problems(checkpoint: Checkpoint, config: ModelConfig, dropped: Iterable[str]) -> Iterator[CheckpointError]:
    """Computed tensors that were computed for another config."""
    for name in dropped:
        found = checkpoint.shape(name)
        if name.endswith(FREQUENCIES):
            expected = (config.head_dim // 2,)
            if found != expected:
                yield contradiction(checkpoint, name, f"shape {expected}, for heads of {config.head_dim}", found)
            elif not plausible(checkpoint.map(name).float(), config):
                yield contradiction(checkpoint, name, "the frequencies that config.json gives", "others")
        elif name.endswith(CAUSAL_MASK):
            expected = (1, 1, config.max_position_embeddings, config.max_position_embeddings)
            if found != expected:
                yield contradiction(checkpoint, name, f"a causal mask of shape {expected}", found)


def plausible(frequencies: torch.Tensor, config: ModelConfig) -> bool:
    """Whether rotary frequencies can be those of a model, rounded to 16 bits perhaps. Where config.json stretches them,
    it cannot be said: programs stored them before or after that."""
    kinds = [config.rope(kind) for kind in dict.fromkeys(config.layer_plan)]
    return any(
        rope.rope_type != "default"
        or torch.allclose(frequencies, rope.inverse_frequencies(config.head_dim)[0], rtol=0.01, atol=1e-6)
        for rope in kinds
    )


def contradiction(checkpoint: Checkpoint, name: str, expected: str, found: object) -> CheckpointError:
    return CheckpointError(
        "config.json and a constant in the weights' file contradict each other",
        file=checkpoint.where(name),
        tensor=name,
        expected=expected,
        found=found,
        cause="a config.json with other heads, another rotary base or another length than the model was trained with",
        next_step="take config.json from the same place as the weights",
    )


def precision_problems(checkpoint: Checkpoint, used: Iterable[str]) -> Iterator[CheckpointError]:
    """Files of the one 16-bit type beside a config.json that says the other: the two share a size and nothing else, so
    data under the wrong label is read as other numbers without a word."""
    config = checkpoint.config or {}
    claimed = HALF.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch."))
    for name in used if checkpoint.folder is not None and claimed else ():
        found = checkpoint.dtype(name)
        if found in HALF.values() and found != claimed:
            yield CheckpointError(
                "config.json and the file name different 16-bit types",
                file=checkpoint.where(name),
                tensor=name,
                field="torch_dtype",
                expected=f"{claimed}, says config.json",
                found=found,
                cause="data of one type under the label of the other, or weights that were converted afterwards",
                next_step="if they were converted, correct torch_dtype (dtype) in config.json; if not, download again",
            )


def shared_problems(checkpoint: Checkpoint, used: Iterable[str]) -> Iterator[CheckpointError]:
    """Two parameters that lie in the same memory: in a pickle, one wrong byte makes one tensor point to another's data.
    (A head that is tied to the embedding is no parameter, and not among `used`.)"""
    first: dict[tuple, str] = {}
    for name in used:
        if checkpoint.file_of[name].path is None:  # in memory, whoever made two names of one tensor meant it
            continue
        tensor = checkpoint.file_of[name].tensors[name]
        where = place(getattr(tensor, "parts", (tensor,))[0])
        if where is not None and first.setdefault(where, name) != name:
            yield CheckpointError(
                "two tensors of the checkpoint are the same memory",
                file=checkpoint.where(name),
                tensor=name,
                expected="values of its own",
                found=f"those of {first[where]}",
                cause="a damaged file; or weights that were shared, in a model that config.json does not describe",
                next_step="download the file again; for a head that is tied, set tie_word_embeddings to true",
            )
