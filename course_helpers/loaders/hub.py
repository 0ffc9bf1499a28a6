"""Fetching a checkpoint from the Hugging Face hub, with errors that say what to do.

The download itself (progress bars, resuming, the local cache) is huggingface_hub's work.
"""

import re
from pathlib import Path

from ..errors import CheckpointError

#: owner/name, as the hub spells a model.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SMALL_FILES = ["*.json", "*.txt", "tokenizer.model", "original/tokenizer.model", "vocab.bpe", "LICENSE*"]


def download(hub_id: str, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a hub model, downloaded if it is not there yet.

    One kind of weights is fetched, safetensors where there are any. `weights=False` fetches only config and tokenizer.
    Raises CheckpointError when the model does not exist, needs a licence to be accepted, or cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = list(SMALL_FILES)
    try:
        if weights and not HF_HUB_OFFLINE:
            names = HfApi().list_repo_files(hub_id, revision=revision)
            kinds = ("*.safetensors", "*.bin", "*.pth")
            # Files in sub-folders are other formats of the same weights, and would only cost time.
            top = [name for name in names if "/" not in name]
            patterns += next(([kind] for kind in kinds if any(name.endswith(kind[1:]) for name in top)), [])
        elif weights:
            patterns += ["*.safetensors", "*.bin"]
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*.safetensors"])
        )
    except GatedRepoError as error:
        raise refused(
            hub_id,
            "the model's owner asks you to accept a licence first",
            "accept it on the model's page on the hub, then run `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise refused(
            hub_id,
            "the hub has no such model, or it is private",
            "check the spelling (owner/name); for a private one run `hf auth login`",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise refused(
            hub_id,
            "the hub cannot be reached and the model is not in the local cache",
            "connect to the network (and unset HF_HUB_OFFLINE), or use a bundled one: checkpoints/",
        ) from error


def refused(hub_id: str, cause: str, next_step: str) -> CheckpointError:
    return CheckpointError(
        "the checkpoint could not be fetched from the hub", file=hub_id, cause=cause, next_step=next_step
    )
