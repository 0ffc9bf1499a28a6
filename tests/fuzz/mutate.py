"""Changes of valid inputs, by a seeded random generator: of bytes, and of JSON as a tree."""

import json
from random import Random
from typing import Any

#: Values that programs trip over.
NUMBERS = (0, -1, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400, 10**4000)
FRACTIONS = (0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"))
TEXTS = ("", "a", "\0", "\ud800", "../x", "/etc/passwd", "a\\b", "c:x", "\u202e", "x" * 5000, "F32", "BF16", "null")
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [1] * 300)
INTERESTING = NUMBERS + FRACTIONS + TEXTS + OTHERS


def bytes_changed(raw: bytes, random: Random) -> bytes:
    """One to six changes of single bytes, or of pieces."""
    content = bytearray(raw)
    for _ in range(random.randint(1, 6)):
        place, size = random.randrange(len(content) + 1), random.choice((1, 1, 2, 4, 8, 64))
        piece = content[place : place + size]
        change = random.randrange(7)
        if change == 0 and piece:
            content[place] ^= 1 << random.randrange(8)
        elif change == 1 and piece:
            content[place] = random.randrange(256)
        elif change == 2:
            del content[place : place + size]
        elif change == 3:
            content[place:place] = random.randbytes(size)
        elif change == 4:
            other = random.randrange(len(content) + 1)
            content[other:other] = piece
        elif change == 5 and piece:
            content[place : place + size] = random.choice((b"\0", b"\xff", b"\x7f", b"9")) * len(piece)
        elif random.random() < 0.1:
            del content[place:]
    return bytes(content)


def json_changed(raw: bytes, random: Random) -> bytes:
    """One to four changes of the tree that some JSON is; of its bytes where it is none, and now and then anyway."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        return bytes_changed(raw, random)
    for _ in range(random.randint(1, 4)):
        tree = changed(tree, random)
    try:
        text = json.dumps(tree)
    except (ValueError, RecursionError):  # a number with more digits than Python writes
        return bytes_changed(raw, random)
    if random.random() < 0.1:
        text = repeated(text, random)
    encoded = text.encode("utf-16" if random.random() < 0.02 else "utf-8", "surrogatepass")
    return bytes_changed(encoded, random) if random.random() < 0.15 else encoded


def repeated(text: str, random: Random) -> str:
    """A name twice in one object."""
    places = [place for place, letter in enumerate(text) if letter == "{"]
    names = [part for part in text.split('"')[1::2] if part] or ["a"]
    if not places:
        return text
    place = random.choice(places) + 1
    return text[:place] + f'"{random.choice(names)}": {json.dumps(random.choice(OTHERS))}, ' + text[place:]


def changed(tree: Any, random: Random) -> Any:
    """The tree with one change somewhere: a step down into it, or a change here."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = random.choice(list(tree))
        if random.random() < 0.7:
            return tree | {key: changed(tree[key], random)}
        return with_other_names(tree, key, random)
    if isinstance(tree, list) and tree and random.random() < 0.8:
        place = random.randrange(len(tree))
        ways = (
            [*tree[:place], changed(tree[place], random), *tree[place + 1 :]],
            [*tree[:place], *tree[place + 1 :]],
            [*tree, random.choice(tree)],
            tree[::-1],
        )
        return random.choice(ways)
    if type(tree) in (int, float) and abs(tree) < 2**62 and random.random() < 0.5:
        return random.choice((tree + 1, tree - 1, -tree, tree * 2, tree // 2, float(tree), str(tree), [tree]))
    return random.choice(INTERESTING)


def with_other_names(tree: dict, key: str, random: Random) -> dict:
    """One name gone, changed or added, or two values exchanged."""
    other, way = random.choice(list(tree)), random.randrange(4)
    if way == 0:
        return {name: value for name, value in tree.items() if name != key}
    if way == 1:
        new = random.choice((key + "x", key[:-1], other, *TEXTS))
        return {(new if name == key else name): value for name, value in tree.items()}
    if way == 2:
        return tree | {random.choice(TEXTS): random.choice((tree[key], *INTERESTING))}
    return tree | {key: tree[other], other: tree[key]}
