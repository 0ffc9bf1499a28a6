"""What goes wrong in one rank ends all of them, with a reason, and in time."""

import json
import os
import random
import shutil
import signal
import threading
import time
from datetime import timedelta

import pytest
import torch
from safetensors.torch import load_file, save_file

from course_helpers import RankError
from course_helpers.parallelism.ranks import Ranks, processes, stopped_by_launcher
from tests.bundled import FOLDERS
from tests.parallel.kill import TIMEOUT, kill_one
from tests.parallel.launch import scenario, start, wait, work

SOURCE = FOLDERS["tiny-llama2"]  # two shards
SHARD = "model-00002-of-00002.safetensors"


def lose_shard(folder):
    (folder / SHARD).unlink()


def cut_shard_short(folder):
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-100])


def train_on(folder):
    tensors = {name: tensor * 1.01 for name, tensor in load_file(folder / SHARD).items()}
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})


def turn_differently(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 5e5}))


def keep(folder):
    pass


#: What happens to rank 1's copy, and what both ranks must say.
CASES = {
    "shard lost": (lose_shard, "a shard is missing"),
    "shard cut short": (cut_shard_short, "the file ends before its data does"),
    "trained on": (train_on, "the ranks do not have the same checkpoint"),
    "other config": (turn_differently, "the ranks do not have the same checkpoint"),
    "the same": (keep, "loaded"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[dict]:
    """What each rank said in each case, one case after the other: none leaves the processes in a bad state."""
    folder = tmp_path_factory.mktemp("refusals")
    for case, (damage, _) in CASES.items():
        for rank in range(2):
            copy = shutil.copytree(SOURCE, folder / case / str(rank))
            (copy / "card.json").unlink()  # it lists hashes of the files, and would find the damage first
        damage(folder / case / "1")
    ended = work("refusals", 2, folder)
    assert [one.status for one in ended] == [0, 0], ended[1].err[-2000:]
    return [torch.load(folder / f"refusals-{rank}-of-2.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_what_one_rank_has_wrong_every_rank_says(said, case):
    for rank in said:
        assert CASES[case][1] in rank[case]
    assert case == "the same" or "rank 1" in said[0][case]


@pytest.mark.parametrize("rank", range(2))
def test_a_rank_that_never_comes_is_given_up_in_time(rank, tmp_path):
    """The launcher spoke of two, and the other ends before it joins. Rank 0 waits for callers, rank 1 calls."""
    ranks = start([scenario("endless", tmp_path, TIMEOUT) if one == rank else ["platform"] for one in range(2)])
    assert ranks[rank].stdout.readline() == "joining\n"
    began = time.perf_counter()
    one = wait(ranks)[rank]
    assert time.perf_counter() - began < TIMEOUT
    assert one.status == 1 and f"rank {rank} of 2 has lost the others" in one.err and "never started" in one.err


@pytest.mark.parametrize("rank", range(2))
def test_a_rank_that_is_told_to_stop_while_it_joins_stops(rank, tmp_path):
    """Not when torch has waited long enough, which is when python would hear of a signal otherwise."""
    ranks = start([scenario("endless", tmp_path, 600) if one == rank else ["platform"] for one in range(2)])
    assert ranks[rank].stdout.readline() == "joining\n"
    time.sleep(3)  # so that it has imported what it needs, and waits
    ranks[rank].terminate()
    began = time.perf_counter()
    one = wait(ranks)[rank]
    assert time.perf_counter() - began < TIMEOUT
    assert one.status == 1 and f"rank {rank} was told to stop" in one.err


def meet(connect, since=None):
    return Ranks(0, 2, torch.device("cpu"), timedelta(seconds=5)).meet(connect, since)


@pytest.mark.parametrize(("before", "at_most"), [(0, 5), (4, 1)])
def test_meeting_has_one_deadline_whatever_torch_does_and_what_came_before_counts(before, at_most):
    endless, began = threading.Event(), time.monotonic()
    with pytest.raises(RankError, match=r"rank 0 of 2 has lost the others\n.*had met after 4\.5 s"):
        meet(endless.wait, began - before)
    assert time.monotonic() - began < at_most
    endless.set()


def test_meeting_passes_on_what_comes_of_it():
    assert meet(lambda: "all here") == "all here"
    with pytest.raises(ZeroDivisionError):
        meet(lambda: 1 / 0)


def test_ranks_that_believe_in_different_numbers_of_ranks_end(tmp_path):
    for one in wait(start([scenario("endless", tmp_path, 8)] * 2, sizes=[2, 3])):
        assert one.status == 1 and "has lost the others" in one.err


def test_a_rank_that_does_not_answer_is_given_up(tmp_path):
    """Rank 1 sleeps 30 s; the time-out is shorter."""
    silent, asleep = wait(start([scenario("silence", tmp_path, 12)] * 2))
    assert silent.status == 1 and "did not answer for 12 s" in silent.err
    assert asleep.status == 1 and "has lost the others" in asleep.err


@pytest.mark.parametrize("seed", range(3))
def test_a_rank_that_dies_ends_the_other_with_a_reason(seed, tmp_path):
    """`python -m tests.parallel.kill` does this 20 times."""
    kill = kill_one(random.Random(seed), tmp_path)
    assert kill.held, kill


def test_what_the_launcher_does_is_said():
    """torchrun ends the others with SIGTERM, which would leave no word."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RankError, match="rank 3 was told to stop"), stopped_by_launcher(3):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_launcher_nobody_waits(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start this with torchrun"), processes():
        pytest.fail("there is nobody to share with")
