"""What is a hub id, and under which name and commit its files are known; the download itself is in `hub_download`.

Four files serve it: `hub_files` says which files make one checkpoint, `hub_cache` which of them are here already,
`hub_budget` what the others cost, `hub_errors` what to do when the hub says no. They are imported when a hub id is met,
and not before.
"""

import re
from pathlib import Path

import torch

#: owner/name, as the hub spells a model.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: Where the hub's cache keeps the files of one commit: models--owner--name/snapshots/<commit>.
MODEL_FOLDER, SNAPSHOTS = "models--", "snapshots"


def download(
    hub_id: str,
    revision: str | None = None,
    weights: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Path:
    """The local folder of a hub model at one commit, downloaded if it is not there yet.

    `revision`: a branch, a tag or a commit; the default branch unless given. It is resolved to a commit once, before
    anything is fetched, and every file is of that commit. `weights=False` fetches only config and tokenizer. `dtype`
    and `device`: what the model will be loaded as, for the check of memory before the download.

    Raises CheckpointError when the model does not exist, needs its terms accepted, is too large (`hub_budget`), cannot
    be reached and is not complete in the local cache, or broke off half-way.
    """
    from .hub_download import download_snapshot

    return download_snapshot(hub_id, revision, weights, dtype, torch.device(device))


def pinned_name(path: Path) -> str | None:
    """ "owner/name at <commit>" for a path in the hub's cache, None for any other."""
    for folder in (path, *path.parents):
        owner = folder.parent.parent.name
        if folder.parent.name == SNAPSHOTS and owner.startswith(MODEL_FOLDER):
            return f"{owner.removeprefix(MODEL_FOLDER).replace('--', '/')} at {folder.name}"
    return None
