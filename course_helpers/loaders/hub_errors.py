"""What the hub's refusals mean, and what to do about each. No message repeats what was sent: a token stays secret."""

import difflib
import errno
from collections.abc import Iterator

from huggingface_hub import errors
from huggingface_hub.errors import HTTPError

from ..errors import CheckpointError

#: Everything that huggingface_hub raises for a model that cannot be fetched. HTTPError is its HTTP library's own base
#: class: of no connection, a time-out, a connection that broke off. UnicodeError: a token that cannot be sent.
LIBRARY_ERRORS = (HTTPError, OSError, UnicodeError, errors.HFValidationError)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LOG_IN = "run `hf auth login` with a token of your account"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from: the library wraps the hub's answer in its own."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def root(error: BaseException) -> BaseException:
    """The hub's own answer; where there was none, what the HTTP library says; otherwise what the system says."""
    links = [link for link in chain(error) if not isinstance(link, errors.LocalEntryNotFoundError)] or [error]
    for kind in (errors.HfHubHTTPError, HTTPError):
        if found := [link for link in links if isinstance(link, kind)]:
            return found[0]
    return links[0]


def unreachable(error: BaseException) -> str | None:
    """Why nobody answered at all, in words; None if there was an answer that a copy in the cache would not change."""
    if any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain(error)):
        return "offline mode is on (HF_HUB_OFFLINE=1)"
    answer = root(error)
    if isinstance(answer, errors.HfHubHTTPError):
        status = answer.response.status_code
        return f"the hub is in trouble (status {status})" if status >= 500 or status in (408, 429) else None
    if isinstance(answer, HTTPError) and not is_unsendable(answer):
        return f"there is no connection to the hub ({type(answer).__name__})"
    return None


def is_unsendable(answer: BaseException) -> bool:
    """Whether the access token could not even be sent. The library beneath says so with the token in its text."""
    return isinstance(answer, UnicodeError) or "Illegal header value" in str(answer)


def explain(error: BaseException, hub_id: str, revision: str | None) -> CheckpointError:
    """The CheckpointError that says why a model could not be fetched, and what to do."""
    answer = root(error)
    cause, next_step = local_trouble(answer) or hub_trouble(answer, hub_id, revision)
    if isinstance(answer, errors.RevisionNotFoundError):
        place = {"field": "revision", "expected": "a branch, a tag or a commit of this model", "found": repr(revision)}
    else:
        place = {"expected": "the files of the model", "found": kind_of_answer(answer)}
    return CheckpointError(
        "the checkpoint could not be fetched from the hub", file=hub_id, **place, cause=cause, next_step=next_step
    )


def kind_of_answer(answer: BaseException) -> str:
    """The hub's status, or the name of the error: never its text, which may hold what was sent."""
    if isinstance(answer, errors.HfHubHTTPError):
        return f"status {answer.response.status_code}"
    return type(answer).__name__


def local_trouble(answer: BaseException) -> tuple[str, str] | None:
    """Cause and next step where this machine, and not the hub, stood in the way."""
    if isinstance(answer, OSError) and answer.errno in NO_SPACE:
        return "the disk is full", "make room, or let HF_HOME name a folder on a larger disk; then run it again"
    if is_unsendable(answer):
        return "the access token has a character that no token has", f"{LOG_IN}, or correct HF_TOKEN"
    if isinstance(answer, PermissionError):
        return "the cache folder must not be written to", "let HF_HOME name a folder of your own"
    if isinstance(answer, errors.HFValidationError):
        return "this is not how the hub spells a model", "check the spelling: owner/name"
    return None


def hub_trouble(answer: BaseException, hub_id: str, revision: str | None) -> tuple[str, str]:
    """Cause and next step for what the hub answered, or for a connection that broke off."""
    status = answer.response.status_code if isinstance(answer, errors.HfHubHTTPError) else None
    if isinstance(answer, errors.GatedRepoError):
        accept = "accept the terms on the model's page on the hub"
        if status == 401:
            return "the model's owner asks you to accept a licence first", f"{accept}, then {LOG_IN}"
        return (
            "this account has not accepted the model's licence, or is still waiting to be let in",
            f"{accept}, or wait for the owner's answer; for another account, run `hf auth login`",
        )
    if isinstance(answer, errors.RevisionNotFoundError):
        return "a typing mistake, or a branch that is gone", "leave revision out for the newest, or look it up there"
    if isinstance(answer, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private", did_you_mean(hub_id)
    if isinstance(answer, errors.DisabledRepoError):
        return "the hub has taken the model down", "use another copy of the model, or a bundled one: checkpoints/"
    if status == 401:
        return "the hub does not know the access token", f"{LOG_IN} that is valid, or unset HF_TOKEN for a public model"
    if status == 403:
        return "the access token is not allowed to read this model", f"{LOG_IN} that may read it"
    if status == 429:
        return (
            "too many requests in a short time",
            f"wait {waiting_time(answer)}, or {LOG_IN}: it allows more",
        )
    if status is not None:
        return f"the hub is in trouble (status {status})", "try again later: finished files are not fetched twice"
    return (
        "the connection broke off, or there is none",
        "check the network and run it again: finished files are not fetched twice",
    )


def did_you_mean(hub_id: str) -> str:
    """The hub ids of FAMILIES that are spelt nearly so, where there are any."""
    from ..families import FAMILIES

    known = {name.lower(): name for family in FAMILIES.values() for name in family.presets}
    near = [known[name] for name in difflib.get_close_matches(hub_id.lower(), known, n=3, cutoff=0.7)]
    asked = f"did you mean {' or '.join(near)}? Otherwise " if near and hub_id not in near else ""
    return f"{asked}check the spelling (owner/name); for a private model, {LOG_IN}"


def waiting_time(answer: errors.HfHubHTTPError) -> str:
    """How long the hub asks to wait, where it says so."""
    seconds = answer.response.headers.get("Retry-After", "")
    return f"{seconds} seconds" if seconds.isdigit() else "some minutes"
