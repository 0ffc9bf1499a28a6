"""`torchrun -m course_helpers generate`: the texts of one process, once, and an exit status that tells."""

import json
import subprocess
import sys

import pytest

from course_helpers.__main__ import main
from course_helpers.labs.lab_06_ranks import on_ranks
from tests.bundled import FOLDERS
from tests.parallel.launch import PATIENCE, ROOT, environment, free_port, start, wait

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_torchrun_writes_the_text_of_the_card_once():
    sample = json.loads((FOLDERS["tiny-qwen3-moe"] / "card.json").read_text())["greedy"][0]
    words = ["-m", "course_helpers", "generate", "tiny-qwen3-moe", "--prompt", sample["prompt"], "--dtype", "float32"]
    result = subprocess.run(
        [*TORCHRUN, *words, "--max-new-tokens", str(sample["max_new_tokens"])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in environment(0, 1, 0).items() if name not in ("RANK", "WORLD_SIZE")},
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == sample["text"] + "\n"


def test_rank_0_speaks_for_all_also_when_nobody_chose_the_seed():
    words = ["course_helpers", "generate", "tiny-llama3", "--prompt", "Once", "--temperature", "1.5"]
    ended = wait(start([[*words, "--max-new-tokens", "4"]] * 2))
    assert [one.status for one in ended] == [0, 0], ended
    assert ended[0].out.startswith("Once") and ended[1].out == ""


def test_load_reports_what_was_loaded():
    ended = wait(start([["course_helpers", "load", "tiny-gpt2"]] * 2))
    assert [one.status for one in ended] == [0, 0], ended
    assert "transpose, split in 3" in ended[0].out and ended[1].out == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["generate", "tiny-gpt2", "--prompt", ""], "at least one token"),
        (["validate", "tiny-gpt2"], "without it, in one process"),
        (["load", "tiny-gpt2", "--strategy", "mmap"], "leave --strategy out"),
        (["load", "tiny-gpt2", "--device", "meta"], "on cpu or cuda"),
    ],
)
def test_failures_have_a_status_and_a_reason(words, reason, monkeypatch, capsys):
    for name, value in environment(0, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out.strip() == ""
    assert "rank 0: " in printed.err and reason in printed.err and "Traceback" not in printed.err


def test_a_failure_ends_every_rank():
    for rank, one in enumerate(wait(start([["course_helpers", "load", "nowhere"]] * 2))):
        assert one.status == 1 and one.out == "" and "Traceback" not in one.err
        assert f"rank {rank}: there is no such checkpoint" in one.err


def test_different_commands_are_refused_in_every_rank():
    """Two hosts, two prompts: without this check both would answer a mixture."""
    words = [["course_helpers", "generate", "tiny-gpt2", "--prompt", prompt] for prompt in ("Once", "Twice")]
    for one in wait(start(words)):
        assert one.status == 1 and "do not have the same command" in one.err and "Twice" in one.err


def test_a_lab_is_told_why_its_processes_failed():
    with pytest.raises(RuntimeError, match="there is no such checkpoint"):
        on_ranks(2, "nowhere", "Once", 4)
