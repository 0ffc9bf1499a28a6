"""Damage to tensors: their names, shapes, types and values, in every format that holds tensors."""

import re
from random import Random

import torch
from torch import Tensor

from tests.formats import in_pairs
from tests.loaders.damage.case import META, Case
from tests.loaders.damage.kind import (
    BYTES,
    EVERYWHERE,
    TENSORS,
    VERIFY,
    Damage,
    Kind,
)

NOT_META = tuple(format for format in EVERYWHERE if format not in META)
HF = tuple(format for format in TENSORS if format not in META and format != "own state dict")  # the family's own names


def one(change, fits=lambda name, shape: True) -> Damage:
    """Change one tensor of those that fit."""

    def damage(case: Case, random: Random) -> None:
        name = random.choice([name for name, shape in case.shapes().items() if fits(name, shape)])
        case.change(name, lambda tensor: change(tensor, random))

    return damage


def all_of(change) -> Damage:
    return lambda case, random: case.edit(lambda tensors: tensors.update({n: change(t) for n, t in tensors.items()}))


def at(value: float) -> Damage:
    """One value put somewhere in one tensor."""

    def put(tensor: Tensor, random: Random) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[random.randrange(tensor.numel())] = value
        return tensor

    return one(put, matrix)


def matrix(name: str, shape: torch.Size) -> bool:
    return len(shape) == 2 and min(shape) > 1


def square(name: str, shape: torch.Size) -> bool:
    return matrix(name, shape) and shape[0] == shape[1]


def oblong(name: str, shape: torch.Size) -> bool:
    return matrix(name, shape) and shape[0] != shape[1]


def drop(case: Case, random: Random) -> None:
    name = random.choice(list(case.shapes()))
    case.edit(lambda tensors: tensors.pop(name, None))


def rename(change) -> Damage:
    """Give one tensor another name."""

    def damage(case: Case, random: Random) -> None:
        name = random.choice(list(case.shapes()))
        new = change(name, random)
        case.edit(lambda tensors: tensors.update({new: tensors.pop(name)}) if name in tensors else None)

    return damage


def one_letter(name: str, random: Random) -> str:
    place = random.randrange(len(name))
    return name[:place] + ("x" if name[place] != "x" else "y") + name[place + 1 :]


def prefixed(prefix: str, some: bool) -> Damage:
    def damage(case: Case, random: Random) -> None:
        chosen = {name for name in case.shapes() if not some or random.random() < 0.5}
        chosen = chosen or set(list(case.shapes())[:1])
        case.edit(lambda ts: [ts.update({prefix + name: ts.pop(name)}) for name in list(ts) if name in chosen])

    return damage


def add(name: str, shape: tuple[int, ...] = (3,)) -> Damage:
    """Another tensor, beside the first, in every file that has that."""

    def damage(case: Case, random: Random) -> None:
        first = next(iter(case.shapes()))
        case.edit(lambda tensors: tensors.update({name: torch.ones(shape)}) if first in tensors else None)

    return damage


def flip_exponent(tensor: Tensor, random: Random) -> Tensor:
    """The highest bit of the exponent of a value below 1: times 2**128."""
    tensor = tensor.clone().contiguous()
    bits = tensor.view({4: torch.int32, 2: torch.int16}[tensor.itemsize]).view(-1)
    places = (tensor.view(-1).abs() < 1).nonzero().flatten().tolist()
    bits[random.choice(places)] ^= 1 << 8 * tensor.itemsize - 2
    return tensor


LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.0\.")


def exchange_layers(case: Case, random: Random) -> None:
    """The tensors of the first two layers under each other's names."""
    names = [n for n in case.shapes() if LAYER.search(n)]
    pairs = {name: LAYER.sub(r"\1\2.1.", name) for name in names if ".mlp." not in name or "experts" not in name}
    pairs = {one: other for one, other in pairs.items() if case.shapes().get(other) == case.shapes()[one]}
    values: dict[str, Tensor] = {}
    collect(case, values)
    swap = pairs | {other: one for one, other in pairs.items()}
    case.edit(lambda tensors: tensors.update({n: values[swap[n]].clone() for n in tensors if n in swap}))


def collect(case: Case, values: dict[str, Tensor]) -> None:
    case.edit(lambda tensors: values.update({name: tensor.detach().clone() for name, tensor in tensors.items()}))


def swap_names(one: str, other: str) -> Damage:
    """Every tensor of one kind exchanged with its neighbour of another kind and the same shape."""

    def damage(case: Case, random: Random) -> None:
        values: dict[str, Tensor] = {}
        collect(case, values)

        def change(tensors: dict[str, Tensor]) -> None:
            for name in list(tensors):
                partner = name.replace(one, other) if one in name else name.replace(other, one)
                if partner != name:
                    tensors[name] = values[partner].clone()

        case.edit(change)

    return damage


def another_run(case: Case, random: Random) -> None:
    """One matrix of a model that was trained from another seed."""
    others = case.another_run()
    names = [name for name, shape in case.shapes().items() if name in others and matrix(name, shape)]
    name = random.choice(names)
    case.change(name, lambda tensor: others[name].to(tensor.dtype))


def rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).to(tensor.dtype)


LLAMA = ("llama2", "llama3")

KINDS = (
    Kind("a tensor is missing", TENSORS, drop, says="missing|same tensors|vocabulary"),
    Kind("a tensor too many", TENSORS, add("classifier.weight"), says="classifier"),
    Kind("a name with another letter", TENSORS, rename(one_letter), positions=True),
    Kind("one name with a prefix", TENSORS, rename(lambda name, random: "module." + name), says="module|vocabulary"),
    Kind("some names with a prefix", TENSORS, prefixed("module.", True)),
    Kind("all names with a prefix", TENSORS, prefixed("module.", False)),
    Kind("a row too many", TENSORS, one(lambda t, random: torch.cat((t, t[:1])))),
    Kind("a row too few", TENSORS, one(lambda t, random: t[:-1].clone(), matrix)),
    Kind("an oblong matrix transposed", TENSORS, one(lambda t, random: t.T.contiguous(), oblong)),
    Kind(
        "a square matrix transposed",
        NOT_META,
        one(lambda t, random: t.T.contiguous(), square),
        BYTES,
        families=("gpt2", "llama2"),
    ),
    Kind("a matrix in one dimension", TENSORS, one(lambda t, random: t.reshape(-1), matrix)),
    Kind("whole numbers for values", TENSORS, one(lambda t, random: t.to(torch.int32)), says="real numbers|int32"),
    Kind(
        "8 bits a value",
        TENSORS,
        one(lambda t, random: t.to(torch.float8_e4m3fn), matrix),
        says="real|float8|cannot be read",
    ),
    Kind("NaN", EVERYWHERE, at(float("nan")), VERIFY, says="[12] NaN", positions=True),
    Kind("infinity", EVERYWHERE, at(float("-inf")), VERIFY, says="[12] infinite"),
    Kind("a matrix of zeros", EVERYWHERE, one(lambda t, random: torch.zeros_like(t), matrix), VERIFY, says="zeros"),
    Kind("a bit flipped in an exponent", EVERYWHERE, one(flip_exponent, matrix), VERIFY, says="beyond", positions=True),
    Kind("two layers exchanged", NOT_META, exchange_layers, BYTES, families=LLAMA),
    Kind("a matrix of another run", HF, another_run, BYTES),
    Kind("gate and up exchanged", HF, swap_names("gate_proj", "up_proj"), BYTES, families=LLAMA),
    Kind("keys and values exchanged", HF, swap_names("k_proj", "v_proj"), BYTES, families=LLAMA),
    Kind(
        "query rows in pairs, as Meta has them",
        HF,
        one(lambda t, random: in_pairs(t, 8), lambda name, shape: "q_proj" in name),
        BYTES,
        families=LLAMA,
    ),
    Kind(
        "norms with the 1 that the family adds",
        HF,
        one(lambda t, random: t + 1, lambda name, shape: "norm" in name),
        BYTES,
        families=("gemma3",),
    ),
    Kind("values rounded to bfloat16", NOT_META, all_of(rounded), BYTES),
)
