"""Damage to an index and to the shards that it names, and links."""

import json
import shutil
from pathlib import Path
from random import Random

from tests.loaders.damage.case import Case, sound
from tests.loaders.damage.kind import (
    BYTES,
    EQUAL,
    FOLDERS,
    META_PARTS,
    SHARDED,
    Damage,
    Kind,
)


def index(change) -> Damage:
    """Change the parsed index."""
    return lambda case, random: case.change_json(case.index, lambda content: change(content, random))


def raw(change) -> Damage:
    """Change the bytes of the index."""
    return lambda case, random: case.index.write_bytes(change(case.index.read_text()))


def leads_to(place) -> Damage:
    """One shard under another name in the index; there is a sound copy of the shard wherever that may lead."""

    def damage(case: Case, random: Random) -> None:
        shard = random.choice(case.weight_files()).name
        (case.folder / "sub").mkdir()
        for copy in (case.folder / "sub" / shard, case.folder.parent / shard):
            shutil.copy(case.folder / shard, copy)
        name = place(case, shard)
        case.change_json(
            case.index,
            lambda content: content.update(
                weight_map={t: name if s == shard else s for t, s in content["weight_map"].items()}
            ),
        )

    return damage


def swap(case: Case, random: Random) -> None:
    one, other = random.sample(case.weight_files(), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def stale(case: Case, random: Random) -> None:
    """A shard of another run: the same names, shapes and types, other values."""
    path = random.choice(case.weight_files())
    path.write_bytes(sound(case.family, case.format, 1).files[path.name])


def linked(case: Case, random: Random) -> None:
    """One shard is a link to a sound copy of it, elsewhere."""
    path = random.choice(case.weight_files())
    (case.folder / "elsewhere").mkdir()
    target = case.folder / "elsewhere" / path.name
    path.rename(target)
    path.symlink_to(target)


def cached(case: Case, random: Random) -> None:
    """As the cache of the hub: every file is a link into a folder of blobs."""
    (case.folder / "blobs").mkdir()
    for number, path in enumerate([path for path in case.folder.iterdir() if path.is_file()]):
        path.rename(case.folder / "blobs" / str(number))
        path.symlink_to(Path("blobs") / str(number))


def both(case: Case, random: Random) -> None:
    """All tensors once more in one file, as another program saved them into the folder."""
    tensors: dict = {}
    for path in case.weight_files():
        tensors |= case.read(path)
    case.write(case.folder / case.index.name.removesuffix(".index.json"), tensors)


def another_kind(case: Case, random: Random) -> None:
    """A pickle under an index of safetensors files, or the other way round."""
    path = random.choice(case.weight_files())
    other = path.with_suffix(".bin" if path.suffix == ".safetensors" else ".safetensors")
    case.write(other, case.read(path))
    path.unlink()
    text = case.index.read_text()
    case.index.write_text(text.replace(f'"{path.name}"', f'"{other.name}"'))


def in_two_shards(case: Case, random: Random) -> None:
    one, other = random.sample(case.weight_files(), 2)
    tensors = case.read(one)
    case.write(other, case.read(other) | {next(iter(tensors)): next(iter(tensors.values()))})


def another_shard(content: dict, random: Random) -> None:
    names = content["weight_map"]
    one = random.choice(list(names))
    names[one] = random.choice(sorted(set(names.values()) - {names[one]}))


def wrong_total(value) -> Damage:
    return index(lambda content, random: content.update(metadata={"total_size": value}))


def twice(text: str) -> bytes:
    name, shard = next(iter(json.loads(text)["weight_map"].items()))
    entry = f"{json.dumps(name)}: {json.dumps(shard)}"
    return text.replace(entry, f'{json.dumps(name)}: "other.bin", {entry}', 1).encode()


def missing_shard(case: Case, random: Random) -> None:
    random.choice(case.weight_files()).unlink()


def unlisted(case: Case, random: Random) -> None:
    path = case.weight_files()[0]
    shutil.copy(path, path.with_name(f"model-00099-of-00099{path.suffix}"))


def kind(name: str, damage: Damage, must: str = "refused", **others) -> Kind:
    return Kind(f"index: {name}", SHARDED, damage, must, **others)


CANNOT = "cannot be one"
KINDS = (
    kind("leads to the parent folder", leads_to(lambda case, shard: f"../{shard}"), says=CANNOT),
    kind("leads to a sub-folder", leads_to(lambda case, shard: f"sub/{shard}"), says=CANNOT),
    kind("leads there with a backslash", leads_to(lambda case, shard: f"sub\\{shard}"), says=CANNOT),
    kind("an absolute path", leads_to(lambda case, shard: str(case.folder / shard)), says=CANNOT),
    kind("a drive of Windows", leads_to(lambda case, shard: f"c:{shard}"), says=CANNOT),
    kind("a zero byte in a name", leads_to(lambda case, shard: f"{shard}\0{shard}"), says=CANNOT),
    kind("a number for a name", leads_to(lambda case, shard: 7), says=CANNOT),
    kind("a file of no known kind", leads_to(lambda case, shard: "config.json"), says=CANNOT),
    kind("a pickle among safetensors, or the reverse", another_kind, says=CANNOT),
    kind("a tensor twice", raw(twice), says="twice"),
    kind(
        "not UTF-8", raw(lambda text: text.replace("weight_map", "weight_m\udcffp").encode("utf-8", "surrogateescape"))
    ),
    kind("cut", raw(lambda text: text[: len(text) // 2].encode()), says="JSON"),
    kind("empty", raw(lambda text: b""), says="JSON"),
    kind("a list", raw(lambda text: b"[]"), says="JSON"),
    kind("without tensors", index(lambda content, random: content.update(weight_map={})), says="no tensors"),
    kind(
        "a tensor that no shard has",
        index(lambda c, r: c["weight_map"].update({"x": next(iter(c["weight_map"].values()))})),
    ),
    kind("without a tensor that a shard has", index(lambda c, r: c["weight_map"].pop(r.choice(list(c["weight_map"]))))),
    kind("a tensor in another shard", index(another_shard), says="disagree"),
    kind("another sum of bytes", wrong_total(1000), says="as large as"),
    kind("a sum of bytes that is text", wrong_total("1000"), says="as large as"),
    kind("a shard is missing", missing_shard, says="missing"),
    kind("two shards exchanged", swap, says="disagree"),
    kind("a shard of another run", stale, BYTES),
    kind("a tensor in two shards", in_two_shards, says="disagree"),
    kind("a shard that is a link to elsewhere", linked, says="link"),
    kind("all tensors once more in one file", both, says="two checkpoints"),
    kind("a shard that it does not list", unlisted, EQUAL),
    Kind("all files are links, as in the hub's cache", FOLDERS, cached, EQUAL),
    Kind("Meta: a part is missing", META_PARTS, missing_shard),
    Kind("Meta: a part of another run", META_PARTS, stale, says="not parts of one model"),
    Kind(
        "Meta: a part twice",
        META_PARTS,
        lambda c, r: shutil.copy(c.weight_files()[0], c.folder / "consolidated.02.pth"),
    ),
    Kind("Meta: the parts exchanged", META_PARTS, swap, BYTES),
    Kind("Meta: a part that is a link to elsewhere", META_PARTS, linked, says="link"),
)
