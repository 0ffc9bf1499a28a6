"""The command line: text on standard output, everything else on standard error, and an honest exit status."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from course_helpers import FAMILIES
from course_helpers.__main__ import main
from course_helpers.loaders.hub_budget import readable
from tests.bundled import FOLDERS, each
from tests.loaders.fake_hub import Repository, files_of, running


@each
def test_generate_writes_the_text_of_the_card(folder, capsys):
    card = json.loads((folder / "card.json").read_text())
    for sample in card["greedy"]:
        words = ["generate", str(folder), "--prompt", sample["prompt"], "--dtype", "float32"]
        assert main([*words, "--max-new-tokens", str(sample["max_new_tokens"])]) == 0
        assert capsys.readouterr().out == sample["text"] + "\n"


def test_sampling_follows_the_seed(capsys):
    texts = []
    for seed in ("1", "1", "2"):
        words = ["generate", "tiny-gpt2", "--prompt", "Once", "--temperature", "1.2", "--seed", seed]
        assert main([*words, "--max-new-tokens", "20"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_a_character_of_several_tokens_is_written_whole(capsys):
    assert main(["generate", "tiny-gpt2", "--prompt", "日本 🙂", "--max-new-tokens", "1"]) == 0
    assert capsys.readouterr().out.startswith("日本 🙂")


def test_load_accounts_for_every_tensor(capsys):
    assert main(["load", "tiny-gpt2", "--strategy", "mmap", "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert "as bfloat16" in printed
    assert "h.3.attn.c_attn.weight" in printed and "transpose, split in 3" in printed


def test_verify_looks_at_every_byte(tmp_path, capsys):
    shutil.copytree(FOLDERS["tiny-gpt2"], tmp_path, dirs_exist_ok=True)
    assert main(["load", str(tmp_path), "--verify"]) == 0
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # another number, as good as any
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert main(["load", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["load", str(tmp_path), "--verify"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "model.safetensors" in printed.err


def test_a_hub_model_is_announced_on_standard_error_and_reported_on_standard_output(tmp_path):
    with running() as hub:
        hub.repositories["owner/name"] = Repository()
        files = files_of(FOLDERS["tiny-gpt2"])
        commit = hub.repositories["owner/name"].commit(files, "main", "v1")
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "course_helpers", "load", "owner/name", "--revision", "v1"]
        environment = os.environ | settings | {"TRANSFORMERS_OFFLINE": "0"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    size = readable(sum(map(len, files.values())) - len(files["config.json"]))
    assert f"owner/name at {commit[:12]}: {size} to fetch" in result.stderr
    assert "Licence: apache-2.0; not gated. Disk: " in result.stderr and "Memory: 3.8 MB" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("gpt2: ") and lines[-1] == f"from owner/name at {commit}"
    assert "to fetch" not in result.stdout


def test_validate_writes_json_too(tmp_path, capsys):
    assert main(["validate", "tiny-gpt2", "--json", str(tmp_path / "report.json")]) == 0
    assert "valid" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is True


def test_families_lists_every_family_and_hub_id(capsys):
    assert main(["families"]) == 0
    printed = capsys.readouterr().out
    for family in FAMILIES.values():
        assert family.title in printed and family.tiny in printed
        assert all(hub_id in printed for hub_id in family.presets)


@pytest.mark.parametrize(
    "words",
    [
        ["load", "nowhere"],
        ["validate", "nowhere"],
        ["generate", "nowhere", "--prompt", "a"],
        ["generate", "tiny-gpt2", "--prompt", "a", "--chat"],
        ["generate", "tiny-gpt2", "--prompt", ""],
        ["generate", "tiny-gpt2", "--prompt", "a", "--temperature", "-1"],
    ],
)
def test_failures_have_a_status_and_a_reason(words, capsys):
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out + printed.err
    assert "Traceback" not in printed.err
    if words[0] != "validate":
        assert printed.out.strip() == ""


def test_as_a_program():
    command = [sys.executable, "-m", "course_helpers", "generate", "tiny-gpt2", "--prompt", "Once upon a time"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    card = json.loads((FOLDERS["tiny-gpt2"] / "card.json").read_text())
    assert card["greedy"][0]["text"].startswith(result.stdout.rstrip("\n"))
