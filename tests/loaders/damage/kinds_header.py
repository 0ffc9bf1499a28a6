"""Damage to the header of a safetensors file, which is JSON before the data."""

import json
from random import Random

from tests.loaders.damage.case import Case
from tests.loaders.damage.kind import BYTES, SAFETENSORS, Damage, Kind


def split(raw: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(text: bytes, data: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def encoded(header: dict) -> bytes:
    return json.dumps(header).encode()


def header(change) -> Damage:
    """Change the header of one file; `change` gets it with the name of one of its tensors."""

    def damage(case: Case, random: Random) -> None:
        path = random.choice(case.weight_files())
        content, data = split(path.read_bytes())
        names = [name for name in content if name != "__metadata__"]
        change(content, random.choice(names), random)
        path.write_bytes(joined(encoded(content), data))

    return damage


def field(name: str, value) -> Damage:
    return header(lambda content, tensor, random: content[tensor].update({name: value(content[tensor])}))


def text(change) -> Damage:
    """Change the header's text and its length."""

    def damage(case: Case, random: Random) -> None:
        path = random.choice(case.weight_files())
        path.write_bytes(change(*split(path.read_bytes()), random))

    return damage


def shift(start: int, end: int) -> Damage:
    return field("data_offsets", lambda row: [row["data_offsets"][0] + start, row["data_offsets"][1] + end])


def exchange_places(case: Case, random: Random) -> None:
    """Two tensors of one shape, each with the other's data."""
    for path in case.weight_files():
        content, data = split(path.read_bytes())
        rows = {}
        for name, row in content.items():
            if name != "__metadata__" and len(row["shape"]) > 1:
                other = rows.setdefault(str(row["shape"]), row)
                if other is not row:
                    row["data_offsets"], other["data_offsets"] = other["data_offsets"], row["data_offsets"]
                    path.write_bytes(joined(encoded(content), data))
                    return
    raise AssertionError("no two tensors of one shape")


def twice(content: dict, data: bytes, random: Random) -> bytes:
    name = random.choice([name for name in content if name != "__metadata__"])
    whole = encoded(content).decode()
    entry = f"{json.dumps(name)}: {json.dumps(content[name])}"
    return joined(whole.replace(entry, f"{entry}, {entry}").encode(), data)


def longer(by: int) -> Damage:
    def damage(case: Case, random: Random) -> None:
        path = random.choice(case.weight_files())
        raw = path.read_bytes()
        path.write_bytes((int.from_bytes(raw[:8], "little") + by).to_bytes(8, "little") + raw[8:])

    return damage


def surrogate(content: dict, name: str, random: Random) -> None:
    content["\ud800" + name] = content.pop(name)


def kind(name: str, damage: Damage, must: str = "refused", **others) -> Kind:
    return Kind(f"header: {name}", SAFETENSORS, damage, must, **others)


KINDS = (
    kind("a giant length", text(lambda h, data, random: joined(encoded(h), data, 2 ** random.randint(40, 63)))),
    kind("a length one too long", longer(1)),
    kind("a length one too short", longer(-1)),
    kind("length zero", text(lambda h, data, random: joined(b"", data))),
    kind("a list", text(lambda h, data, random: joined(b"[" + encoded(h) + b"]", data)), says="JSON object"),
    kind("UTF-16", text(lambda h, data, random: joined(json.dumps(h).encode("utf-16"), data)), says="UnicodeDecode"),
    kind("not UTF-8", text(lambda h, data, random: joined(encoded(h).replace(b"weight", b"w\xffight", 1), data))),
    kind("a name twice", text(twice), says="twice"),
    kind("half a surrogate pair in a name", header(surrogate), says="surrogates"),
    kind("nested a thousand times", text(lambda h, data, random: joined(b'{"a":' * 50_000, data)), says="Recursion"),
    kind("NaN in a shape", field("shape", lambda row: [float("nan")]), says="NaN"),
    kind("places that overlap", shift(-4, -4), says="starts at"),
    kind("a gap between places", shift(4, 4), says="starts at"),
    kind("a place beyond the end", shift(10**9, 10**9)),
    kind("a place that ends before it starts", field("data_offsets", lambda row: row["data_offsets"][::-1])),
    kind("a negative place", field("data_offsets", lambda row: [-4, row["data_offsets"][1]])),
    kind("a place of 2**64", field("data_offsets", lambda row: [2**64, 2**64])),
    kind("a negative shape", field("shape", lambda row: [-size for size in row["shape"]]), says="negative"),
    kind("a shape that wraps around 64 bits", field("shape", lambda row: [2**32, 2**32])),
    kind("a dimension of 2**63", field("shape", lambda row: [2**63])),
    kind("a shape of numbers with thousands of digits", field("shape", lambda row: [10**4000])),
    kind("a thousand dimensions", field("shape", lambda row: [2**62] * 1000), says="dimensions"),
    kind("an empty tensor of giant dimensions", field("shape", lambda row: [0, 2**40, 2**40]), says="dimensions"),
    kind("a fractional shape", field("shape", lambda row: [float(size) for size in row["shape"]])),
    kind("true in a shape", field("shape", lambda row: [True, *row["shape"]])),
    kind("a scalar", field("shape", lambda row: [])),
    kind("an empty tensor", field("shape", lambda row: [0])),
    kind("an unknown type", field("dtype", lambda row: "F12")),
    kind("an integer type of the same size", field("dtype", lambda row: "I32"), says="real numbers"),
    kind("a type of half the size", field("dtype", lambda row: "F16")),
    kind("no type", header(lambda h, name, random: h[name].pop("dtype"))),
    kind("a field that nobody knows", field("scale", lambda row: 2.0)),
    kind("metadata that is no text", header(lambda h, name, random: h.update(__metadata__={"format": 1}))),
    kind("two tensors' places exchanged", exchange_places, BYTES),
    kind(
        "written with other spaces",
        text(lambda h, d, random: joined(encoded(h) + b" " * random.randint(0, 9), d)),
        "equal",
    ),
)
