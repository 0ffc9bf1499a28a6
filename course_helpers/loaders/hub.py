"""Fetching a checkpoint from the Hugging Face hub, with errors that say what to do.

The download itself (progress bars, resuming, the local cache) is huggingface_hub's work.
"""

import re
from pathlib import Path

from ..errors import CheckpointError

#: owner/name, as the hub spells a model.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SMALL_FILES = ("*.json", "*.txt", "*.jinja", "tokenizer.model", "original/tokenizer.model", "vocab.bpe", "LICENSE*")
#: Endings of weight files; the first kind that a model has is fetched, and no other.
WEIGHT_KINDS = ("*.safetensors", "*.bin", "*.pth")


def download(hub_id: str, revision: str | None = None, weights: bool = True) -> Path:
    """The local folder of a hub model, downloaded if it is not there yet.

    One kind of weights is fetched, safetensors where there are any. `weights=False` fetches only config and tokenizer.
    Raises CheckpointError when the model does not exist, needs a licence to be accepted, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        patterns = SMALL_FILES + (weight_patterns(hub_id, revision) if weights else ())
        # Weights in sub-folders are other formats of the same model, and would only cost time.
        inner = [f"*/{kind}" for kind in WEIGHT_KINDS]
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=inner))
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
    except (HfHubHTTPError, OSError) as error:
        raise refused(
            hub_id,
            "the hub cannot be reached and the model is not in the local cache",
            "connect to the network (and unset HF_HUB_OFFLINE), or use a bundled one: checkpoints/",
        ) from error


def weight_patterns(hub_id: str, revision: str | None) -> tuple[str, ...]:
    """The kind of weights to fetch. Without a network, all kinds: then the local cache decides."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = [file.rfilename for file in HfApi().model_info(hub_id, revision=revision, timeout=10).siblings]
    except HfHubHTTPError:
        raise
    except Exception:  # no connection: each version of the library has its own exceptions for it
        return WEIGHT_KINDS
    outer = [name for name in names if "/" not in name]
    return next(((kind,) for kind in WEIGHT_KINDS if any(name.endswith(kind[1:]) for name in outer)), ())


def refused(hub_id: str, cause: str, next_step: str) -> CheckpointError:
    return CheckpointError(
        "the checkpoint could not be fetched from the hub", file=hub_id, cause=cause, next_step=next_step
    )
