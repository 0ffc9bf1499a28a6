"""A manifest comes back as it was written, and what is no manifest is refused; what is tampered with shows."""

import copy
import dataclasses
import json
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError
from course_helpers.dtypes import DTYPES
from course_helpers.manifest import RunManifest, record_run, verify
from course_helpers.manifests.form import KINDS, PARTS, SCHEMA, Pin
from tests.loaders.refusals import check_answers

names = st.from_regex(r"[a-z0-9_-]{1,8}(\.[a-z]{1,3})?", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(st.none() | st.booleans() | st.integers() | finite | st.text(), st.lists)
hashes = st.text(st.sampled_from("0123456789abcdef"), min_size=64, max_size=64)
plain = {str: st.text(), int: st.integers(), bool: st.booleans(), float: finite}
pins = st.dictionaries(names, st.builds(Pin, bytes=st.integers(0), sha256=hashes), max_size=3)

#: Fields of which not every value will do.
LIMITED = {
    "schema": st.just(SCHEMA),
    "files": st.fixed_dictionaries(dict.fromkeys(PARTS, pins)),
    "kind": st.sampled_from(KINDS),
    "weights": st.none(),
    "dtype": st.sampled_from(sorted(DTYPES)),
    "threads": st.integers(1, 64),
    "telemetry": st.dictionaries(st.text(), anything, max_size=3),
    "config_sha256": hashes,
    "sha256": hashes,
}


def values(kind: typing.Any, name: str = "") -> st.SearchStrategy:
    """Any value of a declared type that a manifest may hold under a name."""
    inner = typing.get_args(kind)
    if name in LIMITED:
        return LIMITED[name]
    if dataclasses.is_dataclass(kind):
        return st.builds(kind, **{field: values(hint, field) for field, hint in typing.get_type_hints(kind).items()})
    if typing.get_origin(kind) is tuple:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(st.text(), values(inner[1]), max_size=3)
    return st.none() | values(inner[0]) if inner else plain[kind]


@settings(max_examples=40)
@given(manifest=values(RunManifest))
def test_a_manifest_comes_back_as_it_was_written(manifest, tmp_path_factory):
    path = manifest.save(tmp_path_factory.mktemp("form") / "run.json")
    assert RunManifest.load(path) == manifest
    written = path.read_bytes()
    assert RunManifest.load(path).save(path).read_bytes() == written


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict:
    """A short real run, greedy, as JSON."""
    manifest = record_run("tiny-gpt2", ["Once upon a time"], max_new_tokens=3, top_k=7, top_p=0.9, validate=False)
    return json.loads(manifest.save(tmp_path_factory.mktemp("run") / "run.json").read_text())


def places(value: object, place: tuple = ()) -> typing.Iterator[tuple]:
    """Every place in a manifest, the inner ones too; of lists the first place."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*place, key)
        yield from places(child, (*place, key))


def at(content: dict, place: tuple) -> tuple[typing.Any, typing.Any]:
    """A copy of a manifest, and the part of the copy that holds a place."""
    tampered = part = copy.deepcopy(content)
    for key in place[:-1]:
        part = part[key]
    return tampered, part


def load(content: object, folder: Path) -> RunManifest:
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return RunManifest.load(folder / "run.json")


def refusal(content: object, folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load(content, folder)
    check_answers(caught.value)
    return caught.value


#: Where names are free; what is in telemetry is free, too.
FREE = ("telemetry", "versions", "validation")
OPTIONAL = ("revision", "weights", "closest", "top_k", "top_p")


def test_a_field_that_is_missing_or_unknown_is_refused(content, tmp_path):
    for place in places(content):
        named = not isinstance(place[-1], int) and (place[0] not in FREE or len(place) == 1)
        if named and (place[0] != "files" or len(place) != 3):  # with fewer files the form is right; `verify` objects
            tampered, part = at(content, place)
            del part[place[-1]]
            assert place[-1] in str(refusal(tampered, tmp_path))
            tampered, part = at(content, place)
            part["surplus"] = part[place[-1]]
            assert "surplus" in str(refusal(tampered, tmp_path)) or place[0] == "files"


def test_a_value_of_another_type_is_refused(content, tmp_path):
    for place in places(content):
        if place[0] == "telemetry" and len(place) > 1:
            continue
        for wrong in (None, True, 1, 1.5, "text", [], {}, [None], {"a": None}):
            tampered, part = at(content, place)
            optional = wrong is None and place[-1] in OPTIONAL
            if not optional and type(wrong) is not type(part[place[-1]]) and part[place[-1]] is not None:
                part[place[-1]] = wrong
                refusal(tampered, tmp_path)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("schema",), 2),
        (("schema",), True),
        (("source", "revision"), 7),
        (("source", "kind"), "elsewhere"),
        (("source", "weights"), "other.safetensors"),
        (("settings", "dtype"), "int8"),
        (("settings", "threads"), 0),
        (("settings", "threads"), 10**9),
        (("config_sha256",), "0" * 63),
        (("tokenizer", "sha256"), "G" * 64),
        (("files", "config"), {"../config.json": {"bytes": 1, "sha256": "0" * 64}}),
        (("files", "config"), {"/config.json": {"bytes": 1, "sha256": "0" * 64}}),
        (("files", "weights", "model.safetensors", "sha256"), "0"),
        (("files", "weights", "model.safetensors", "bytes"), -1),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(content, tmp_path, place, wrong):
    tampered, part = at(content, place)
    part[place[-1]] = wrong
    assert refusal(tampered, tmp_path).field.startswith(".".join(place[:2]))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"schema": 1, "schema": 1}', '{"schema": NaN}', "\udc80"])
def test_what_is_no_manifest_is_refused(text, tmp_path):
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError) as caught:
        RunManifest.load(tmp_path / "run.json")
    check_answers(caught.value)


def test_a_manifest_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        RunManifest.load(tmp_path / "run.json")


#: What a manifest says beside the run: why, when, with which versions; how close it was; settings without effect here.
BESIDE = {"reason", "telemetry", "versions", "closest", "revision", "threads", "seed", "max_new_tokens"}
BESIDE |= {"top_k", "top_p", "stop_ids", "use_cache", "temperature"}


def other(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, str):
        return ("1" if value[:1] == "0" else "0") + value[1:] if len(value) == 64 else value + "x"
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int | float) else value


def test_every_field_that_is_tampered_with_shows(content, tmp_path):
    """Each number and text of the manifest of a greedy run is changed in turn: it is refused, or the run does not hold.
    What is left says nothing about the result."""
    seen = set()
    for place in places(content):
        tampered, part = at(content, place)
        part[place[-1]] = other(part[place[-1]])
        if tampered == content or BESIDE & set(place):
            continue
        seen.add(place[0])
        try:
            verification = verify(load(tampered, tmp_path))
        except CheckpointError:
            continue
        assert not verification.ok, f"{place}: {verification}"
    assert seen == {"schema", "source", "files", "config_sha256", "tokenizer", "settings", "results"}
