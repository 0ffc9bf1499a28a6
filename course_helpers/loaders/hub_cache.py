"""What is in the hub's local cache, and whether it is a whole checkpoint. Nothing here asks the network.

The library keeps a model in one folder: in blobs/ the contents, in snapshots/<commit>/ the files of a commit, in
refs/<branch> the commit that a branch stood at.
"""

import contextlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from ..errors import CheckpointError
from .files import read_json
from .hub import MODEL_FOLDER, SNAPSHOTS
from .hub_files import INDEX, USUAL, named_shards, small_files, weight_files, weights_begin_with

COMMIT = re.compile(r"[0-9a-f]{40}")


def storage_of(hub_id: str) -> Path:
    """The folder of a model, whether it is there or not."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE).expanduser().resolve()
    return cache / (MODEL_FOLDER + hub_id.replace("/", "--"))


def from_cache(hub_id: str, revision: str | None, weights: bool, reason: str) -> Path:
    """The folder of a model that is complete in the cache, for when the hub cannot be asked. Raises CheckpointError
    with the list of what is missing."""
    folder, missing = in_cache(hub_id, revision, weights)
    if folder is None or missing:
        commit = folder.name if folder else revision or "main"
        next_step = "connect to the network (and unset HF_HUB_OFFLINE), or use a bundled one: checkpoints/"
        raise incomplete(hub_id, commit, missing, reason, next_step)
    if "HF_HUB_OFFLINE" not in reason:
        print(f"{hub_id}: {reason}; from the local cache, commit {folder.name[:12]}", file=sys.stderr)
    return folder


def in_cache(
    hub_id: str, revision: str | None, weights: bool, sizes: Mapping[str, int | None] | None = None
) -> tuple[Path | None, list[str]]:
    """The folder of a revision in the cache, and which of its files are missing there or have another size.

    `sizes`: all files of the commit. Where nobody knows them, those that are here, and those that an index among them
    names, must do: then nothing tells of a tokenizer file that is missing, but the tokenizer that needs it.
    """
    storage, commit = storage_of(hub_id), revision or "main"
    if not COMMIT.fullmatch(commit) and (storage / "refs" / commit).is_file():
        commit = (storage / "refs" / commit).read_text(encoding="utf-8").strip()
    folder = storage / SNAPSHOTS / commit
    if not COMMIT.fullmatch(commit) or not folder.is_dir():
        return None, ["all files"]
    if sizes is None:
        sizes = tree_of(hub_id, commit) or files_here(folder)
    wanted = small_files(sizes)
    if weights:
        begin = weights_begin_with(sizes)
        ready = begin and (folder / begin[0]).is_file()
        wanted += weight_files(hub_id, sizes, folder) if ready else begin or ["the weights"]
    return folder, [name for name in wanted if not whole(folder / name, sizes.get(name))]


def tree_of(hub_id: str, commit: str) -> dict[str, int | None] | None:
    """All files of a commit and their sizes, as the library wrote them down when it fetched some (version 2 does)."""
    if hasattr(huggingface_hub, "get_cached_repo_tree"):
        with contextlib.suppress(errors.CachedRepoTreeNotFoundError):
            return {file.path: file.size for file in huggingface_hub.get_cached_repo_tree(hub_id, revision=commit)}
    return None


def files_here(folder: Path) -> dict[str, int | None]:
    """The files in a folder, and those that an index among them names. Their sizes are not known."""
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    indexes = [name for name in here if name in USUAL and name.endswith(INDEX)]
    named = [shard for name in indexes for shard in named_shards(read_json(folder / name))]
    return dict.fromkeys((*here, *named))


def whole(path: Path, size: int | None) -> bool:
    return path.is_file() and (size is None or path.stat().st_size == size)


def incomplete(hub_id: str, commit: str, missing: list[str], cause: str, next_step: str) -> CheckpointError:
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    return CheckpointError(
        "the checkpoint is not complete in the local cache",
        file=f"{hub_id} at {commit}",
        expected="all files of the checkpoint, whole",
        found=f"missing: {shown}",
        cause=cause,
        next_step=next_step,
    )
