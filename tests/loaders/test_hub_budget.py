"""What a download costs is said before it begins, and one that could not end well does not begin."""

import json

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_helpers import load_model, load_tokenizer, load_weights
from course_helpers.loaders import hub_budget
from course_helpers.loaders.hub_budget import LIMIT, download_limit, free_disk, memory_of, readable
from tests.loaders.test_hub import BUNDLED, NAME, other_weights, publish, refused

FILES = BUNDLED["tiny-llama2"]  # bfloat16, in two shards
SIZES = {name: len(content) for name, content in FILES.items()}
WEIGHTS = sum(size for name, size in SIZES.items() if name.endswith(".safetensors"))
ALL = sum(SIZES.values())
FIRST = {"config.json", "model.safetensors.index.json"}


def said(capsys) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


def test_the_paragraph_says_what_is_fetched_and_what_is_not(hub, capsys):
    commit = publish(hub, FILES | {"pytorch_model.bin": b"x" * 10**6}, licence="mit")
    first = sum(SIZES[name] for name in FIRST)
    load_model(NAME)
    text = said(capsys)
    assert text.startswith(f"{NAME} at {commit[:12]}: {readable(ALL - first)} to fetch in {len(FILES) - 2} files, ")
    assert f"{readable(first)} in the cache already. Licence: mit; not gated. Disk: " in text
    assert f"Memory: {readable(WEIGHTS)} for the weights, " in text and "Warning" not in text

    hub.repositories[NAME].commit(other_weights(FILES))
    load_model(NAME)  # of the next commit only what changed
    assert f"{readable(WEIGHTS)} to fetch in 2 files, {readable(ALL - WEIGHTS)} in the cache already" in said(capsys)


def test_a_tokenizer_costs_no_memory(hub, capsys):
    publish(hub, FILES)
    load_tokenizer(NAME)
    assert "Memory" not in said(capsys)


@pytest.mark.parametrize(("dtype", "share"), [(None, 1), (torch.bfloat16, 1), (torch.float32, 2), (torch.float64, 4)])
def test_memory_is_that_of_the_dtype_asked_for(dtype, share, hub, capsys):
    publish(hub, FILES)
    load_model(NAME, dtype=dtype)
    assert f"Memory: {readable(WEIGHTS * share)} for the weights" in said(capsys)


def test_weights_for_a_model_in_hand_take_its_dtype(hub, capsys):
    publish(hub, FILES)
    model = load_model("tiny-llama2", dtype=torch.float32)
    report = load_weights(model, NAME)
    assert f"Memory: {readable(2 * WEIGHTS)} for the weights" in said(capsys) and report.origin.startswith(NAME)


@pytest.mark.parametrize(("field", "share"), [({"dtype": "bfloat16"}, 2), ({"torch_dtype": "bfloat16"}, 2), ({}, 1)])
def test_the_dtype_of_the_files_is_in_the_config_where_the_hub_does_not_count(field, share, hub, capsys):
    """As transformers 5 writes it, as 4 did, and nowhere, which means float32."""
    config = {name: value for name, value in json.loads(FILES["config.json"]).items() if "dtype" not in name}
    publish(hub, FILES | {"config.json": json.dumps(config | field).encode()})
    load_model(NAME, dtype=torch.float32)
    assert f"Memory: {readable(share * WEIGHTS)} for the weights" in said(capsys)


def assert_nothing_was_fetched(hub) -> None:
    assert set(hub.got()) == FIRST


@pytest.mark.parametrize("limit", ["0", "0.001", "0.0019"])
def test_more_than_the_limit_is_refused_with_the_way_out(limit, hub, monkeypatch, capsys):
    publish(hub, FILES)
    monkeypatch.setenv(LIMIT, limit)
    error = refused()
    assert error.expected == f"at most {readable(float(limit) * 1e9)}" and readable(ALL)[:3] in error.found
    assert f"{LIMIT}=1 to fetch it all the same" in error.next_step and "families" in error.next_step
    assert_nothing_was_fetched(hub)
    monkeypatch.setenv(LIMIT, "1")
    load_model(NAME)
    monkeypatch.setenv(LIMIT, "0")
    load_model(NAME)  # what is in the cache costs nothing


@pytest.mark.parametrize("limit", ["", "many", "-1", "nan", "20 GB"])
def test_a_limit_that_is_no_number_is_refused(limit, hub, monkeypatch):
    publish(hub, FILES)
    monkeypatch.setenv(LIMIT, limit)
    assert refused().field == LIMIT
    assert_nothing_was_fetched(hub)


@given(limit=st.floats(0, 1e6))
def test_the_limit_is_in_gigabytes(limit):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(LIMIT, repr(limit))
        assert download_limit() == limit * 1e9
        monkeypatch.delenv(LIMIT)
        assert download_limit() == 20e9


def test_what_does_not_fit_on_the_disk_is_refused(hub, monkeypatch):
    publish(hub, FILES)
    monkeypatch.setattr(hub_budget, "free_disk", lambda folder: 1_000_000)
    error = refused()
    assert "1.0 MB free at " in error.found and "to fetch" in error.expected and "HF_HOME" in error.next_step
    assert_nothing_was_fetched(hub)


def machine(monkeypatch, available: int, total: int) -> None:
    monkeypatch.setattr(hub_budget, "memory_of", lambda device: (available, total))


def test_what_does_not_fit_in_memory_now_is_warned_of(hub, monkeypatch, capsys):
    publish(hub, FILES)
    machine(monkeypatch, available=1000, total=10**9)
    load_model(NAME)
    text = said(capsys)
    assert "1.0 kB available on cpu. Warning" in text and 'strategy="mmap"' in text


def test_what_no_machine_of_this_size_could_hold_is_refused_where_no_mapping_helps(hub, monkeypatch, capsys):
    publish(hub, FILES)
    machine(monkeypatch, available=1000, total=2000)
    error = refused(dtype=torch.float32)
    assert "2.0 kB in all, on cpu" in error.found and readable(2 * WEIGHTS) in error.expected
    assert 'strategy="mmap"' in error.next_step
    assert_nothing_was_fetched(hub)
    load_model(NAME, strategy="mmap")  # in its own dtype, the files themselves are the memory
    assert "Warning" in capsys.readouterr().err.splitlines()[-1]


def test_figures_of_this_machine_are_real(tmp_path):
    available, total = memory_of(torch.device("cpu"))
    assert 0 < available <= total and total >= psutil.virtual_memory().total
    assert 0 < free_disk(tmp_path / "not" / "there yet") == free_disk(tmp_path) or free_disk(tmp_path) > 0


@given(size=st.integers(0, 10**13))
def test_sizes_are_readable_and_right(size):
    number, unit = readable(size).split()
    factor = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(number) * factor == pytest.approx(size, abs=0.051 * factor if factor > 1 else 0)
    assert float(number) < 1000.1 or unit == "GB"
