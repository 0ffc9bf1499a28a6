"""What only a pickle can hold: code, other objects, and tensors that are not what they seem."""

import os
from random import Random

import torch

from tests.loaders.damage.case import Case
from tests.loaders.damage.kind import EQUAL, LEGACY, META, PICKLES, ZIPPED, Damage, Kind


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: str):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


def holds(change) -> Damage:
    """One file with something else in it: `change` of the state dict."""

    def damage(case: Case, random: Random) -> None:
        path = random.choice(case.weight_files())
        case.write(path, change(case.read(path), case))

    return damage


def of_one(change) -> Damage:
    """A state dict with something else in one tensor's place."""

    def damage(case: Case, random: Random) -> None:
        places = [(path, name) for path in case.weight_files() for name in case.read(path) if matrix(name, case)]
        path, name = random.choice(places)
        tensors = case.read(path)
        case.write(path, tensors | {name: change(tensors[name])})

    return damage


def matrix(name: str, case: Case) -> bool:
    """Whether a name is that of a matrix that becomes a parameter."""
    return len(case.shapes().get(name, ())) == 2


def overlapping(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().as_strided(tensor.shape, (tensor.stride(0) - 1, 1))


def one_memory(tensors: dict, case: Case) -> dict:
    """Two tensors of one shape that lie in one place."""
    first: dict = {}
    for name, tensor in tensors.items():
        if matrix(name, case):
            other = first.setdefault(tensor.shape, name)
            if other != name:
                return tensors | {name: tensors[other]}
    raise AssertionError("no two tensors of one shape")


ONE_FILE = tuple(format for format in ZIPPED + LEGACY if "sharded" not in format)
WRAPPED = (*ONE_FILE, *META)

KINDS = (
    Kind(
        "pickle: code beside the tensors",
        PICKLES,
        holds(lambda ts, c: ts | {"x": Payload(f"{c.folder}/ran")}),
        says="mkdir",
    ),
    Kind("pickle: code instead of tensors", PICKLES, holds(lambda ts, c: Payload(f"{c.folder}/ran")), says="mkdir"),
    Kind("pickle: a whole module", PICKLES, holds(lambda ts, c: torch.nn.Linear(2, 2)), says="Linear"),
    Kind("pickle: a list of tensors", PICKLES, holds(lambda ts, c: list(ts.values())), says="state dict"),
    Kind("pickle: a number", PICKLES, holds(lambda ts, c: 17), says="state dict"),
    Kind("pickle: an empty dictionary", PICKLES, holds(lambda ts, c: {})),
    Kind(
        "pickle: names that are numbers", PICKLES, holds(lambda ts, c: dict(enumerate(ts.values()))), says="state dict"
    ),
    Kind("pickle: dictionaries in a dictionary", PICKLES, holds(lambda ts, c: {"layers": ts}), says="state dict"),
    Kind("pickle: a sparse tensor", PICKLES, of_one(lambda t: t.to_sparse()), says="sparse"),
    Kind("pickle: a tensor without memory", PICKLES, of_one(lambda t: t.to("meta")), says="without memory"),
    Kind("pickle: a quantized tensor", PICKLES, of_one(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8))),
    Kind("pickle: complex numbers", PICKLES, of_one(lambda t: t.to(torch.complex64)), says="complex|real"),
    Kind("pickle: values that overlap", PICKLES, of_one(overlapping), says="overlap"),
    Kind(
        "pickle: two tensors in one place",
        ONE_FILE,
        holds(one_memory),
        says="same memory",
        families=("llama2", "olmo3"),
    ),
    Kind("pickle: a transposed view", PICKLES, of_one(lambda t: t.T.contiguous().T), EQUAL),
    Kind("pickle: a parameter", PICKLES, of_one(lambda t: torch.nn.Parameter(t)), EQUAL),
    Kind("pickle: a training checkpoint around it", WRAPPED, holds(lambda ts, c: {"model": ts, "step": 3}), EQUAL),
)
