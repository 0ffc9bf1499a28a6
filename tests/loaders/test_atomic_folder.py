"""A save that is killed, at whatever moment, leaves the old checkpoint or the new one; and one that fails, the old."""

import contextlib
import errno
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from course_helpers import CheckpointError, load_model, save_checkpoint
from course_helpers.loaders import atomic_folder
from course_helpers.loaders.atomic_folder import DRAFT, OLD, exchange, host, replacing
from tests.tiny_models import EXAMPLES, ours, same_parameters

#: Two models that share no file size: a mixture of their files could not load as either.
MODELS = [ours(EXAMPLES["gpt2"], seed=1), ours(EXAMPLES["llama3"], seed=2)]
PATHS = ["exchange", "two renames"]
both_paths = pytest.mark.parametrize("path", PATHS)
KILLED = 9

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests kill copies of this process")


@pytest.fixture
def folder(tmp_path):
    return save_checkpoint(MODELS[0], tmp_path / "model")


def take(path: str) -> None:
    """Let this process replace folders in one of the two ways."""
    if path == "two renames":
        atomic_folder.exchange = lambda one, other: False


def in_a_copy(work: Callable[[], None]) -> int:
    """Start work in a copy of this process; return its id."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return pid


def ended(pid: int) -> int:
    """Wait for a copy; its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def found(folder: Path) -> int:
    """Which of the two models is in a folder, to the bit."""
    model = load_model(folder)
    matches = [same_parameters(model, one) and model.config == one.config for one in MODELS]
    assert sum(matches) == 1
    return matches.index(True)


def save_for_ever(folder: Path) -> None:
    while True:
        for model in reversed(MODELS):
            save_checkpoint(model, folder, max_shard_bytes=6_000)


@both_paths
def test_a_kill_at_25_random_moments_loses_nothing(path, folder):
    """Twice 25 moments: one for each way to replace a folder."""
    moment, seen = random.Random(path), set()
    started = time.perf_counter()
    save_checkpoint(MODELS[0], folder, max_shard_bytes=6_000)
    pace = time.perf_counter() - started  # of one save on this machine, and as busy as it is now
    kills = 0
    # Both models must turn up, or the moments were all of one kind. A machine that gets busier gets later moments.
    while kills < 25 or (seen != {0, 1} and kills < 200):
        pid = in_a_copy(lambda: (take(path), save_for_ever(folder)))
        time.sleep(moment.uniform(0, 3 * pace))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        seen.add(found(folder))
        kills, pace = kills + 1, pace if seen == {0, 1} else 1.1 * pace
    assert seen == {0, 1}
    save_checkpoint(MODELS[0], folder)
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


class Counted:
    """The steps of a save that touch the disk, counted; at one of them, something happens instead."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, instead: Callable[[], None]):
        self.at, self.instead, self.steps = at, instead, []
        for owner, name in (
            (os, "fsync"),
            (os, "mkdir"),
            (Path, "rename"),
            (Path, "chmod"),
            (atomic_folder, "exchange"),
            (atomic_folder.shutil, "rmtree"),
            (os, "replace"),
        ):
            patch.setattr(owner, name, self.counted(name, getattr(owner, name)))

    def counted(self, name: str, real: Callable) -> Callable:
        def step(*arguments, **options):
            self.steps.append(name)
            if len(self.steps) == self.at:
                self.instead()
            return real(*arguments, **options)

        return step


def number_of_steps(path: str, folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        if path == "two renames":
            patch.setattr(atomic_folder, "exchange", lambda one, other: False)
        counted = Counted(patch, 0, lambda: None)
        save_checkpoint(MODELS[0], folder)
    return counted.steps


@both_paths
def test_a_kill_at_every_step_loses_nothing(path, folder):
    steps, seen = number_of_steps(path, folder), []
    assert {"exchange", "fsync", "mkdir", "chmod"} < set(steps) and ("rename" in steps) == (path == "two renames")

    def work(at: int) -> None:
        take(path)
        Counted(pytest.MonkeyPatch(), at, lambda: os._exit(KILLED))
        save_checkpoint(MODELS[1], folder)

    for at in range(1, len(steps) + 1):
        assert ended(in_a_copy(lambda at=at: work(at))) == KILLED, steps[at - 1]
        seen.append(found(folder))
        if seen[-1] == 1:
            save_checkpoint(MODELS[0], folder)
    # Until the folders change places it is the old one; from then on, the new one.
    assert seen == sorted(seen) and set(seen) == {0, 1}


@both_paths
def test_an_error_at_every_step_leaves_the_old_checkpoint(path, folder):
    steps = number_of_steps(path, folder)
    if path == "two renames":
        steps = [step for step in steps if step != "exchange"]

    def fail() -> None:
        if counted.steps[-1] != "rmtree":  # which is told to ignore errors
            raise OSError(errno.EIO, "the disk is gone")

    for at in range(1, len(steps) + 1):
        with pytest.MonkeyPatch.context() as patch:
            if path == "two renames":
                patch.setattr(atomic_folder, "exchange", lambda one, other: False)
            counted = Counted(patch, at, fail)
            outcome = "refused"
            with contextlib.suppress(CheckpointError):
                save_checkpoint(MODELS[1], folder)
                outcome = "saved"
        assert len(counted.steps) >= at
        # What comes after the exchange is cleaning up, and cannot undo it.
        assert found(folder) == (outcome == "saved"), counted.steps[at - 1]
        if outcome == "saved":
            save_checkpoint(MODELS[0], folder)


def test_an_error_says_everything_and_leaves_no_draft(folder, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(CheckpointError, match="could not be saved") as caught:
            save_checkpoint(MODELS[1], folder)
    error = caught.value
    assert "quota" in error.cause and error.file == folder and "Disk quota exceeded" in error.found
    assert found(folder) == 0 and [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_limit_on_file_sizes_is_met_cleanly(folder):
    """The kernel refuses a write half-way, as on a full disk; in a copy, for the limit cannot be lifted again."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
        try:
            save_checkpoint(MODELS[1], folder)
        except CheckpointError as error:
            os._exit(17 if "larger than this system" in error.cause and "File too large" in str(error) else 18)

    assert ended(in_a_copy(work)) == 17
    assert found(folder) == 0 and [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_full_disk_is_noticed_before_writing_begins(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage())
    with pytest.raises(CheckpointError, match="the disk is full") as caught:
        save_checkpoint(MODELS[1], folder)
    assert "bytes" in caught.value.found and found(folder) == 0
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


class Usage:
    free = 1000


def test_an_interruption_leaves_the_old_checkpoint(folder, monkeypatch):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(MODELS[1], folder)
    assert found(folder) == 0 and [entry.name for entry in folder.parent.iterdir()] == [folder.name]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_without_the_right_to_write_is_said(folder):
    folder.parent.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match="no right to write"):
            save_checkpoint(MODELS[1], folder)
    finally:
        folder.parent.chmod(0o755)
    assert found(folder) == 0


def test_a_file_where_a_parent_folder_should_be_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(CheckpointError, match="could not be saved") as caught:
        save_checkpoint(MODELS[0], tmp_path / "a" / "model")
    assert caught.value.file == tmp_path / "a" / "model"


@contextlib.contextmanager
def sleeping_process() -> Iterator[int]:
    pid = in_a_copy(lambda: time.sleep(100))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        ended(pid)


def dead_process() -> int:
    pid = in_a_copy(lambda: None)
    ended(pid)
    return pid


def left(folder: Path, pid: int, ending: str, machine: str | None = None) -> Path:
    path = folder.with_name(f".{folder.name}.{machine or host()}-{pid}-abcd1234{ending}")
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("ending", [DRAFT, OLD])
def test_what_a_dead_process_left_is_removed_and_what_is_a_living_ones_is_not(ending, folder):
    dead = left(folder, dead_process(), ending)
    others = [left(folder, dead_process(), ending, "elsewhere"), left(folder.with_name("model.2"), 1, ending)]
    with sleeping_process() as pid:
        living = left(folder, pid, ending)
        save_checkpoint(MODELS[1], folder)
        assert not dead.exists() and living.exists() and all(other.exists() for other in others)
    assert found(folder) == 1


def test_a_number_that_went_to_a_younger_process_counts_as_dead(folder, monkeypatch):
    with sleeping_process() as pid:
        draft = left(folder, pid, DRAFT)
        monkeypatch.setattr(atomic_folder.psutil.Process, "create_time", lambda self: draft.stat().st_ctime + 61)
        save_checkpoint(MODELS[1], folder)
    assert not draft.exists()


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_checkpoint_that_was_moved_aside_is_found_where_it_belongs(form, folder):
    """What a kill between the two renames leaves."""
    folder.rename(folder.with_name(f".{folder.name}.{host()}-{dead_process()}-abcd1234{OLD}"))
    left(folder, dead_process(), DRAFT)
    assert not folder.exists()
    assert found(folder if form == "folder" else folder / "model.safetensors") == 0
    assert folder.exists()


def test_nothing_is_brought_back_while_its_maker_works(folder):
    with sleeping_process() as pid:
        folder.rename(folder.with_name(f".{folder.name}.{host()}-{pid}-abcd1234{OLD}"))
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            load_model(folder)
    assert found(folder) == 0


def test_a_link_goes_on_pointing_to_the_folder(tmp_path, folder):
    link = tmp_path / "latest"
    link.symlink_to(folder, target_is_directory=True)
    assert save_checkpoint(MODELS[1], link) == link
    assert link.is_symlink() and found(folder) == found(link) == 1


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="no such call on this system")
def test_two_folders_exchange_their_names(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(OSError) as caught:
        exchange(tmp_path / "a", tmp_path / "absent")
    assert caught.value.errno == errno.ENOENT


def test_an_unhappy_block_changes_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("")
    with pytest.raises(RuntimeError, match="no"), replacing(tmp_path / "folder") as draft:
        (draft / "new").write_text("")
        raise RuntimeError("no")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_a_model_may_be_saved_over_the_file_it_is_a_window_onto(folder):
    model: nn.Module = load_model(folder, strategy="mmap")
    save_checkpoint(model, folder)
    assert found(folder) == 0 and same_parameters(model, MODELS[0])
