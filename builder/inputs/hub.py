"""The Hugging Face Hub: a model's state, its files, and its client's errors as one clear error."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..entrypoint.model.download import patterns
from ..errors import ConfigError, WarmimageError

#: Packages whose errors mean that the Hub gave no usable answer: its client and the client's HTTP libraries.
_CLIENTS = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3")

#: Time limit of the Hub's answers in seconds.
_TIMEOUT = 20


class HubUnreachable(WarmimageError):
    """The Hub gave no usable answer."""


@dataclass(frozen=True)
class State:
    """One state of a Hub model.

    Attributes:
        revision: its commit.
        config: its ``config.json``, on this machine.
        sizes: size in bytes of each of its files, 0 when unknown.
    """

    revision: str
    config: Path
    sizes: Mapping[str, int]


def look_up(name: str, revision: str | None) -> State:
    """Resolve a Hub id to a commit.  Call it within ``errors``."""
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=_TIMEOUT)
    commit = str(info.sha)
    config = Path(hf_hub_download(name, "config.json", revision=commit))
    return State(commit, config, {item.rfilename: item.size or 0 for item in info.siblings or []})


def download(name: str, revision: str | None) -> Path:
    """Download the files of a Hub model that engines use, and return their directory.  Call it within ``errors``."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
    names = [item.rfilename for item in info.siblings or []]
    return Path(snapshot_download(name, revision=revision, ignore_patterns=patterns(names)))


@contextmanager
def errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn errors of the Hub's client in the block into one clear error."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except WarmimageError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:200] or type(error).__name__
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if isinstance(error, HFValidationError):
            raise ConfigError(f"not a Hub id: {name!r}", where="model", expected="OWNER/NAME", got=message) from None
        if isinstance(error, RevisionNotFoundError):
            raise ConfigError(
                f"the Hub model {name!r} has no such revision",
                where="revision",
                got=repr(revision),
                expected="a branch, a tag or a commit",
                fix="remove --revision, or name a revision of the model",
            ) from None
        if isinstance(error, GatedRepoError) or (
            status in (401, 403) and not isinstance(error, RepositoryNotFoundError)
        ):
            raise ConfigError(
                f"the Hub model {name!r} is not readable with your login",
                where="model",
                got=message,
                fix="hf auth login, with an account that has access to it",
            ) from None
        if isinstance(error, RepositoryNotFoundError):
            raise ConfigError(
                f"the Hub has no model {name!r} that you can read",
                where="model",
                fix="hf auth login, or --model DIR",
            ) from None
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise ConfigError(
                f"the Hub model {name!r} has no config.json", where="model", expected="a transformers model"
            ) from None
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in message:
            raise WarmimageError(
                f"the disk is full: {name} cannot be downloaded",
                where=str(getattr(error, "filename", None) or ""),
                got=message,
                fix="free disk space, or set HF_HOME to a directory on a larger disk",
            ) from None
        if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith(_CLIENTS):
            raise HubUnreachable(
                f"the Hub cannot be reached, and {name} is needed",
                where="model",
                got=message,
                fix="--model DIR with the files on this machine",
            ) from None
        raise
