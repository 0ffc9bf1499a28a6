"""Downloading one commit of a hub model: huggingface_hub fetches, this decides what, from where and whether.

Progress bars, the local cache and going on after a lost connection are the library's work. What it does not promise is
added here: one commit for all files, a word about the cost first, and no half checkpoint afterwards. A run that was
stopped keeps every file that was finished; one that it was in the middle of is fetched again from its start.
"""

import contextlib
import glob
import os
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
import torch

from .files import read_json
from .hub import SNAPSHOTS
from .hub_budget import Cost
from .hub_cache import COMMIT, from_cache, in_cache, incomplete, storage_of, tree_of
from .hub_errors import LIBRARY_ERRORS, explain, unreachable
from .hub_files import CONFIGS, INDEX, small_files, weight_files, weights_begin_with

SECONDS = 10  # to wait for the hub's answer to the first question
ITEM_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def download_snapshot(
    hub_id: str, revision: str | None, weights: bool, dtype: torch.dtype | None, device: torch.device
) -> Path:
    """See `hub.download`. A commit that is complete in the cache is taken from there without asking the hub."""
    if revision is not None and COMMIT.fullmatch(revision) and (sizes := tree_of(hub_id, revision)) is not None:
        folder, missing = in_cache(hub_id, revision, weights, sizes)
        if folder is not None and not missing:
            return folder
    try:
        return Download(hub_id, revision, ask(hub_id, revision)).run(weights, dtype, device)
    except NoAnswer as error:
        reason = str(error)
    except LIBRARY_ERRORS as error:
        raise explain(error, hub_id, revision) from presentable(error)
    return from_cache(hub_id, revision, weights, reason)


class NoAnswer(Exception):
    """The hub was not there to be asked; the message says why."""


def ask(hub_id: str, revision: str | None) -> huggingface_hub.ModelInfo:
    """What the hub knows of a model: the commit that a revision stands at, and its files. Raises NoAnswer."""
    try:
        api = huggingface_hub.HfApi()
        return api.model_info(hub_id, revision=revision, files_metadata=True, timeout=SECONDS)
    except LIBRARY_ERRORS as error:
        if reason := unreachable(error):
            raise NoAnswer(reason) from None
        raise


def presentable(error: BaseException) -> BaseException | None:
    """The error, to be shown as the cause; None where its text could show the access token: the library beneath quotes
    a header that it finds wrong."""
    token = huggingface_hub.get_token()
    text = " ".join(map(repr, (error, error.__cause__, error.__context__)))
    return None if "Bearer" in text or (token and token in text) else error


class Download:
    """The files of one commit, as the hub lists them."""

    def __init__(self, hub_id: str, revision: str | None, info: huggingface_hub.ModelInfo):
        self.hub_id, self.revision, self.info, self.commit = hub_id, revision or "main", info, info.sha
        self.files = {file.rfilename: file for file in info.siblings or ()}

    def run(self, weights: bool, dtype: torch.dtype | None, device: torch.device) -> Path:
        """Fetch what is missing, once it is known what that costs."""
        sizes = {name: file.size for name, file in self.files.items()}
        cached, missing = in_cache(self.hub_id, self.commit, weights, sizes)
        if cached is not None and not missing:
            self.remember(cached)
            return cached
        folder = storage_of(self.hub_id) / SNAPSHOTS / self.commit
        small, begin = small_files(self.files), weights_begin_with(self.files) if weights else []
        # Without these, nobody could say which files are needed, nor how large the model will be.
        self.fetch(name for name in (*small, *begin) if name in CONFIGS or name.endswith(INDEX))
        self.remember(folder, over_another=False)
        large = weight_files(self.hub_id, self.files, folder) if weights else []
        cost = self.cost(folder, small, large, dtype, device)
        if cost.to_fetch:
            cost.check()
        self.fetch(small)
        self.fetch(large)  # the weights last: where they are, everything is
        if missing := [name for name in (*small, *large) if not (folder / name).is_file()]:
            raise incomplete(self.hub_id, self.commit, missing, "the connection broke off", "run it again")
        self.remember(folder)
        return folder

    def fetch(self, names: Iterable[str]) -> None:
        """Download exactly these files, but for those that are in the cache."""
        patterns = [glob.escape(name) for name in names]
        if patterns:
            huggingface_hub.snapshot_download(self.hub_id, revision=self.commit, allow_patterns=patterns)

    def cost(
        self, folder: Path, small: list[str], large: list[str], dtype: torch.dtype | None, device: torch.device
    ) -> Cost:
        """What there is to fetch, and how much memory the weights will take."""
        sizes = {name: self.files[name].size or 0 for name in (*small, *large)}
        cached = {name: size for name, size in sizes.items() if self.is_cached(folder, name)}
        stored = sum(sizes[name] for name in large if not name.endswith(".json"))
        item = self.stored_item_size(folder, stored)
        asked = item if dtype is None else dtype.itemsize
        return Cost(
            name=f"{self.hub_id} at {self.commit[:12]}",
            to_fetch=sum(sizes.values()) - sum(cached.values()),
            files=len(sizes) - len(cached),
            cached=sum(cached.values()),
            licence=licence(self.info),
            gated=bool(self.info.gated),
            folder=folder,
            memory=stored * asked // item if large else None,
            converted=asked != item,
            device=device,
        )

    def is_cached(self, folder: Path, name: str) -> bool:
        """Whether a file is in the cache, from this commit, or from another one where it was the same."""
        file = self.files[name]
        blob = folder.parent.parent / "blobs" / str(file.lfs.sha256 if file.lfs else file.blob_id)
        return (folder / name).is_file() or blob.is_file()

    def stored_item_size(self, folder: Path, stored: int) -> int:
        """Bytes of one number in the weight files: as the hub has counted them, or as config.json says (float32 where
        it does not, as in transformers). Meta's own files have 16 bits, OpenAI's 32, and no field for it."""
        counted = self.info.safetensors.total if self.info.safetensors else 0
        if counted:
            return max(1, round(stored / counted))
        if "config.json" in self.files:
            config = read_json(folder / "config.json")
            return ITEM_SIZES.get(str(config.get("dtype") or config.get("torch_dtype")), 4)
        return 2 if self.files.keys() & set(CONFIGS) else 4

    def remember(self, folder: Path, over_another: bool = True) -> None:
        """Write down which commit the revision stood at (refs/<revision> in the library's cache), for when there is no
        network. Asked for a commit, the library would not. `over_another`: also where another one is written there:
        only once this one is complete."""
        refs = folder.parent.parent / "refs"
        path = refs / self.revision
        plain = path.resolve().is_relative_to(refs.resolve())
        if not plain or self.revision == self.commit or (path.exists() and not over_another):
            return
        scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a cache that must not be written to serves all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(self.commit, encoding="utf-8")
            scratch.replace(path)


def licence(info: huggingface_hub.ModelInfo) -> str:
    """What the model's card says, in the hub's short form."""
    card = info.card_data or {}
    name = card.get("license_name") if card.get("license") == "other" else card.get("license")
    tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    return str(name or next(iter(tags), "not stated"))
