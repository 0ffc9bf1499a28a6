"""Timing this computer: speeds that were put in come out again, and what is kept is trusted only while it holds."""

import dataclasses
import json
import os

import psutil
import pytest
import torch

from course_helpers.planning import calibration
from course_helpers.planning.calibration import (
    LONG,
    PROMPT,
    ROWS,
    cache_file,
    calibrated,
    machine_of,
    measure,
    measure_speed,
    probes,
    solve,
    unmeasured,
)
from course_helpers.planning.costs import Work, anatomy, step_seconds
from course_helpers.planning.machines import BRAIN, MACHINES, SHARE, SINGLE, Speed, memory_here

KNOWN = Speed(11e9, {1: 1.0, 2: 1.5, 4: 3.0, 8: 4.0, 16: 7.0}, 7e-6, 4e-6, 3e9)
GROUPS = "0::/shelf/job\n"


@pytest.mark.parametrize("dtype", [SINGLE, BRAIN], ids=str)
def test_known_speeds_come_out_again(dtype):
    parts = {name: anatomy(config) for name, config in probes().items()}
    seconds = {name: sum(step_seconds(one, dtype, Work(PROMPT), KNOWN).values()) for name, one in parts.items()}
    seconds["long cache"] = sum(step_seconds(parts["cache"], dtype, Work(LONG), KNOWN).values())
    seconds |= {f"{rows} rows": KNOWN.factor(rows) * 0.01 for rows in ROWS}
    found = solve(seconds, parts, dtype)
    assert found.rows == pytest.approx(KNOWN.rows)
    # What weighs little in a probe is taken for nothing there.
    for name, accuracy in {"bandwidth": 0.02, "operation": 0.1, "expert": 0.15, "cache": 0.001}.items():
        assert getattr(found, name) == pytest.approx(getattr(KNOWN, name), rel=accuracy), name


def small_probes():
    """The same, so small that they take no time."""
    tiny = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 64, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    plans = {
        name: {"layer_types": config.layer_types[:1]} if hasattr(config, "layer_types") else {}
        for name, config in probes().items()
    }
    return {name: dataclasses.replace(config, **tiny, **heads, **plans[name]) for name, config in probes().items()}


@pytest.mark.parametrize("dtype", [SINGLE, BRAIN], ids=str)
def test_a_device_is_timed(monkeypatch, dtype):
    tiny = small_probes()
    monkeypatch.setattr(calibration, "probes", lambda: tiny)
    speed = measure_speed(dtype, "cpu", rounds=1)
    figures = [speed.bandwidth, speed.operation, speed.expert, speed.cache, *speed.rows.values()]
    assert all(0 < figure < float("inf") for figure in figures)
    assert speed.rows.keys() == set(ROWS) and min(speed.rows.values()) >= 1.0


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A cache folder of its own, and a measurement that is quick and counted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def fake(dtype, device, rounds):
        calls.append(dtype)
        return KNOWN

    monkeypatch.setattr(calibration, "measure_speed", fake)
    monkeypatch.setattr(calibration, "measure_base", lambda device: 123)
    return calls


def test_figures_are_kept(home):
    first = machine_of("cpu")
    assert len(home) == 2 and first.measured and first.base == 123 and first.speeds == {BRAIN: KNOWN, SINGLE: KNOWN}
    assert dataclasses.replace(machine_of("cpu"), memory=0) == dataclasses.replace(first, memory=0)
    assert len(home) == 2
    calibrated("cpu")
    assert len(home) == 4


def test_without_calibration_nothing_is_timed(home):
    machine = machine_of("cpu", calibrate=False)
    assert home == [] and set(machine.speeds.values()) == {None} and not machine.measured
    calibrated("cpu")
    assert machine_of("cpu", calibrate=False).measured


@pytest.mark.parametrize("damage", ["", "[]", '{"conditions": 1}', "threads", "speeds"])
def test_what_no_longer_holds_is_measured_again(home, damage):
    machine_of("cpu")
    path = cache_file("cpu")
    content = json.loads(path.read_text())
    if damage == "threads":
        content["conditions"]["threads"] += 1
    if damage == "speeds":
        content["speeds"] = {"float33": {}}
    path.write_text(json.dumps(content) if damage in ("threads", "speeds") else damage)
    assert machine_of("cpu").measured and len(home) == 4


def test_the_code_that_figures_depend_on_is_there():
    assert (calibration.CODE / "llama.py").is_file()


def test_other_code_is_timed_again(home, monkeypatch, tmp_path):
    machine_of("cpu")
    (tmp_path / "code.py").write_text("changed = True")
    monkeypatch.setattr(calibration, "CODE", tmp_path)
    machine_of("cpu")
    assert len(home) == 4


def test_a_home_that_cannot_be_written_to(home, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert measure("cpu").speeds == machine_of("cpu").speeds


@pytest.mark.parametrize("name", ["teapot", "cuda:77", "xpu"])
def test_a_machine_that_there_is_not(home, name):
    with pytest.raises(ValueError, match="T4"):
        machine_of(name)


def test_machines_by_data_sheet():
    assert machine_of("T4") is MACHINES["T4"] and BRAIN not in MACHINES["T4"].speeds
    speed = MACHINES["H100"].speeds[BRAIN]
    assert speed.factor(200) == 1.0 < speed.factor(400)  # 989e12 operations/s over 3.35e12 bytes/s: 295 rows
    assert speed.factor(590) == pytest.approx(2.0, rel=0.01)
    assert MACHINES["laptop-8GB"].memory == 8e9 * SHARE


def groups(root, limits):
    for path, (name, limit, used, files) in limits.items():
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name[0]).write_text(f"{limit}\n")
        (folder / name[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(files)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"": (V2, "max", 5, "anon 5\n")}, None),
        (
            "0::/\n",
            {"": (V2, 4_000_000, 3_000_000, "inactive_file 500000\nactive_file 500000\n")},
            (4_000_000, 2_000_000),
        ),
        (GROUPS, {"shelf": (V2, 3_000_000, 0, ""), "shelf/job": (V2, "max", 0, "")}, (3_000_000, 3_000_000)),
        (
            "4:memory:/job\n",
            {"memory": (V1, 2**63 - 4096, 0, ""), "memory/job": (V1, 7_000_000, 9_000_000, "")},
            (7_000_000, 0),
        ),
        (
            "4:memory:/elsewhere\n",
            {"memory": (V1, 6_000_000, 1_000_000, "total_inactive_file 1000000\n")},
            (6_000_000,) * 2,
        ),
        ("", {}, None),
    ],
)
def test_the_limit_of_a_container(tmp_path, own, limits, expected):
    groups(tmp_path / "cgroup", limits)
    (tmp_path / "own").write_text(own)
    found = memory_here(tmp_path / "cgroup", tmp_path / "own")
    if expected is None:
        assert found.total == psutil.virtual_memory().total and found.limit is None
    else:
        assert (found.total, found.available) == expected and found.limit == found.total
    assert memory_here(tmp_path, tmp_path / "missing").limit is None


def test_this_computer_leaves_room_for_others():
    machine = unmeasured("cpu")
    assert machine.memory == int(memory_here().total * SHARE) and machine.host is None
    assert machine.speeds.keys() == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize(("running", "words"), [(0.1, ""), (1.0, ""), (3.9, "3.9 other programs were at work")])
def test_figures_from_a_busy_machine_say_so(monkeypatch, running, words):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (running, 0.0, 0.0), raising=False)
    found = calibration.disturbance()
    assert words in found and bool(found) == bool(words)
