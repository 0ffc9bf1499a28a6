"""JSON that can be read in one way only, and files that are files."""

import json
import os
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_helpers import CheckpointError, open_checkpoint
from course_helpers.loaders.disk import NotStrictJson, ordinary_size, parse_object, read_json
from tests.loaders.refusals import check_answers

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), values, max_size=4), st.booleans())
def test_any_object_is_read_as_python_reads_it(content, plain):
    try:
        raw = json.dumps(content, ensure_ascii=plain).encode()
    except UnicodeEncodeError:
        return
    assert parse_object(raw) == json.loads(raw) == content


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw):
    try:
        assert isinstance(parse_object(raw), dict)
    except NotStrictJson as error:
        assert str(error)


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["x", "y"]), max_size=3),
)
def test_a_name_that_stands_twice_is_refused_at_any_depth(outer, inner):
    nested = "{" + ", ".join(f'"{name}": 1' for name in inner) + "}"
    raw = ("{" + ", ".join(f'"{name}": [{nested}]' for name in outer) + "}").encode()
    if len(set(outer)) == len(outer) and len(set(inner)) == len(inner):
        assert list(parse_object(raw)) == outer
    else:
        with pytest.raises(NotStrictJson, match="twice") as caught:
            parse_object(raw)
        assert caught.value.name in "abcxy"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"3",
        b"null",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32"),
        b'{"\xff": 1}',
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": -Infinity}',
        b'{"\\ud800": 1}',
        b'{"a": "\\udfff"}',
        b'{"a": ' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:14]),
)
def test_what_two_readers_may_understand_differently_is_refused(raw, tmp_path):
    with pytest.raises(NotStrictJson):
        parse_object(raw)
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(CheckpointError, match="not a JSON object") as caught:
        read_json(tmp_path / "x.json")
    check_answers(caught.value)
    assert caught.value.file == tmp_path / "x.json"


def test_a_pair_of_surrogates_is_one_character():
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_a_giant_file_is_not_read(tmp_path):
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(100_000_001)  # a hole: it takes no room
    with pytest.raises(CheckpointError, match="100000001 bytes"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_the_size_of_a_file(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(size))
    (tmp_path / "link").symlink_to("x")
    assert ordinary_size(tmp_path / "x") == ordinary_size(tmp_path / "link") == size


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe", "dead link", "loop", "device", "impossible name"])
def test_what_is_no_ordinary_file_is_refused_and_not_opened(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    if kind == "dead link":
        path.symlink_to("nowhere")
    if kind == "loop":
        path.symlink_to("x")
    if kind == "device":
        path.symlink_to("/dev/zero")
    if kind == "impossible name":
        path = tmp_path / "\0"
    with pytest.raises(CheckpointError, match="no file here that can be read") as caught:
        ordinary_size(path)
    check_answers(caught.value)
    assert caught.value.file == path


@pytest.mark.parametrize("name", ["model.ckpt.index", "model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_pipe_under_any_name_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(source)
        check_answers(caught.value)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the administrator may read everything")
def test_a_file_of_another_user_is_refused(tmp_path):
    (tmp_path / "x").write_text(string.ascii_letters)
    (tmp_path / "x").chmod(0)
    with pytest.raises(CheckpointError, match="Permission"):
        ordinary_size(tmp_path / "x")
