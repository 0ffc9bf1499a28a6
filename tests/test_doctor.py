"""The doctor: every line both ways, on computers that are made up; and once on this one."""

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from course_helpers import FAMILIES, doctor
from course_helpers.doctor import preflight
from course_helpers.planning.family_checklists import CHECKLISTS, needed_fields
from course_helpers.planning.machines import GB, Memory
from course_helpers.preflight import checks
from course_helpers.preflight.checks import GENERAL, NEEDED, too_old
from course_helpers.preflight.surroundings import (
    REQUIREMENTS,
    Device,
    Surroundings,
    cached_models,
    look_around,
    read_requirements,
)

GOOD = Surroundings(
    python=(3, 12, 1),
    requirements={"torch": "2.6", "psutil": "5.9", "jupyterlab": "4.2"},
    versions=dict.fromkeys(NEEDED, "9.9") | {"jupyterlab": "4.2.0"},
    memory=Memory(24 * GB, 20 * GB),
    devices=(Device("cpu", "some processor", 24 * GB, True),),
    cores=4,
    threads=4,
    cache=Path("cache"),
    cached={"owner/name": 5 * GB},
    free_disk=100 * GB,
    writable=True,
    environment={},
    token=True,
    bundled=tuple(family.tiny for family in FAMILIES.values()),
)
T4 = Device("cuda:0", "T4", 16 * GB, False)
#: The name of a line -> what makes it amiss, its state then, a word of what was found, a word of the next step.
AMISS = {
    "Python": ({"python": (3, 10, 9)}, "failed", "3.10.9", "3.11"),
    "torch": ({"versions": GOOD.versions | {"torch": "2.5.1+cu124"}}, "failed", "2.5.1", "torch>=2.6"),
    "psutil": ({"versions": {"torch": "2.6"}}, "failed", "not installed", "psutil>=5.9"),
    "optional libraries": (
        {"versions": GOOD.versions | {"jupyterlab": "4.1"}},
        "warning",
        "jupyterlab",
        "requirements.txt",
    ),
    "bundled models": ({"bundled": ("tiny-gpt2",)}, "warning", "1 of 7", "clone"),
    "memory": ({"memory": Memory(8 * GB, GB, 8 * GB)}, "warning", "limit of this container", "close"),
    "threads": ({"threads": 1}, "warning", "1 for 4 cores", "OMP_NUM_THREADS"),
    "cuda:0": ({"devices": (*GOOD.devices, T4)}, "warning", "not in hardware", "float16"),
    "cache": ({"writable": False}, "warning", "1 models, 5.0 GB", "HF_HOME"),
    "disk": ({"free_disk": GB}, "warning", "1.0 GB", "hf cache ls"),
    "offline switches": (
        {"environment": {"HF_HUB_OFFLINE": "True"}},
        "warning",
        "HF_HUB_OFFLINE on",
        "unset HF_HUB_OFFLINE",
    ),
    "llama2": ({"memory": Memory(8 * GB, 8 * GB)}, "warning", "0 of 3", "tiny-llama2"),
    "gemma3: licence": ({"token": False}, "warning", "gated", "hf auth login"),
}


def lines_of(around, family=None):
    return {line.what: line for line in preflight(family, surroundings=around).lines}


@pytest.fixture(scope="module")
def good():
    return lines_of(GOOD)


def test_nothing_is_amiss_on_a_good_computer(good):
    amiss = [line for line in good.values() if line.state != "ok" or line.next_step]
    assert [line.what for line in amiss] == ["qwen3_moe"]  # 61 GB and more


@pytest.mark.parametrize("what", AMISS)
def test_what_is_amiss_is_said_with_the_next_step(good, what):
    changes, state, found, step = AMISS[what]
    around = dataclasses.replace(GOOD, **changes)
    if what in FAMILIES or (":" in what and what.split(":")[0] in FAMILIES):
        lines = lines_of(around, what.split(":")[0])
    else:
        lines = {line.what: line for check in GENERAL for line in check(around)}
    assert lines[what].state == state
    assert found in lines[what].found and step in lines[what].next_step
    assert what == "cuda:0" or good[what].state == "ok"


def test_the_report_fails_only_if_something_needed_does(monkeypatch, capsys, tmp_path):
    parser = argparse.ArgumentParser()
    doctor.add_options(parser)
    path = tmp_path / "report.json"
    for around, status in (
        (GOOD, 0),
        (dataclasses.replace(GOOD, threads=1), 0),
        (dataclasses.replace(GOOD, python=(3, 9, 0)), 1),
    ):
        monkeypatch.setattr(doctor, "look_around", lambda around=around: around)
        assert doctor.run(parser.parse_args(["--family", "gpt2", "--json", str(path)])) == status
        content = json.loads(path.read_text())
        assert content["ok"] is (status == 0)
        printed = capsys.readouterr().out
        assert all(line["what"] in printed and line["found"] in printed for line in content["lines"])
        assert printed.count("[FAIL]") == status


def test_a_wrong_limit_is_said_and_does_not_stop_the_report(monkeypatch):
    monkeypatch.setenv("COURSE_DOWNLOAD_LIMIT_GB", "much")
    line = lines_of(GOOD, "gpt2")["download limit"]
    assert line.state == "warning" and "'much'" in line.found and line.next_step


def test_the_network_is_asked_only_on_request(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert "network" not in lines_of(GOOD, "gpt2")
    line = {line.what: line for line in preflight("gpt2", surroundings=GOOD, network=True).lines}["network"]
    assert line.state == "warning" and "no network here" in line.found and "proxy" in line.next_step


@pytest.mark.parametrize("name", FAMILIES)
def test_the_checklist_of_a_family(name):
    report = preflight(name, surroundings=GOOD)
    lines = [line for line in report.lines if line.section.startswith("Checklist")]
    whats = [line.what for line in lines]
    assert whats[: len(FAMILIES[name].presets)] and {"config.json", "tokenizer", "type", "trap 1"} <= set(whats)
    assert len([what for what in whats if "/" in what]) == len(FAMILIES[name].presets)
    assert all(("load_model(" in line.found) == (line.state == "ok") for line in lines if "/" in line.what)
    assert [line.found for line in lines if line.what.startswith("trap")] == list(CHECKLISTS[name].traps)
    # Left out, each of these fields makes the config be refused; nothing else does.
    config = next(iter(FAMILIES[name].presets.values())).to_hf()
    for field in needed_fields(FAMILIES[name].config):
        if field != "rope_parameters":
            with pytest.raises(ValueError, match="lacks a field"):
                FAMILIES[name].config.from_hf({key: value for key, value in config.items() if key != field})


def test_an_unknown_family():
    with pytest.raises(ValueError, match="olmo3"):
        preflight("llama9", surroundings=GOOD)


@pytest.mark.parametrize(
    ("version", "least", "old"),
    [
        ("2.13.0+cpu", "2.6", False),
        ("2.5", "2.6", True),
        ("4", "4.0.1", True),
        ("5.0.0rc1", "5.0", False),
        (None, "1", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version, least, old):
    assert too_old(version, least) is old


def test_this_computer(monkeypatch, tmp_path):
    """What is found here is what is there; the token is not in it."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    around = look_around()
    assert (
        around.token
        and around.versions.keys() <= around.requirements.keys()
        and NEEDED.keys() <= around.requirements.keys()
    )
    assert set(around.bundled) == set(GOOD.bundled) and around.devices[0].name == "cpu" and around.free_disk > 0
    lines = [line for check in GENERAL for line in check(around)]
    assert not any("hf_secret" in line.found + line.next_step for line in lines)
    assert all(line.state != "failed" for line in lines)
    assert read_requirements(REQUIREMENTS) == around.requirements and REQUIREMENTS.is_file()
    assert read_requirements(tmp_path / "missing") == around.requirements  # from the package's metadata


def test_models_in_the_cache_are_weighed(tmp_path):
    blobs = tmp_path / "models--owner--some--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(bytes(10))
    (blobs / "b").write_bytes(bytes(20))
    assert cached_models(tmp_path) == {"owner/some/name": 30} and cached_models(tmp_path / "missing") == {}


def test_a_gpu_is_planned_for_where_there_is_one():
    machine = checks.machine_of(dataclasses.replace(GOOD, devices=(*GOOD.devices, T4)))
    assert (machine.device, machine.memory) == ("cuda:0", 16 * GB)
    assert (
        'dtype=torch.float16, device="cuda:0"'
        in lines_of(dataclasses.replace(GOOD, devices=(*GOOD.devices, T4)), "qwen3")["qwen3"].found
    )
