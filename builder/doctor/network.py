"""The network: do the registry of the base image, the Hub and the package index answer?  Any answer counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from ..config import load
from ..errors import ConfigError
from ..inputs.base_image import DEFAULT_BASE
from .finding import Observation, redacted
from .run import Facts
from .target import Target

#: Time limits in seconds: to connect, and for the answer.
_PATIENCE = (3.0, 3.0)

_DOCKER_HUB = "registry-1.docker.io"


def registry(_target: Target, facts: Facts) -> Observation:
    """Does the registry of the base image answer?"""
    if "image" in facts:
        base = facts["image"].plan.base
        if not base.digest:
            return Observation("local", f"none: {base.image} comes from no known registry")
        reference = base.image
    else:
        reference = _configured_base()
    host = registry_of(reference)
    info = facts.get("docker", {})
    insecure = info.get("RegistryConfig", {}).get("IndexConfigs", {}).get(host, {}).get("Secure") is False
    schemes = ("https", "http") if insecure or host.partition(":")[0] in ("localhost", "127.0.0.1") else ("https",)
    refusals = []
    for scheme in schemes:
        refusal = _no_answer(f"{scheme}://{host}/v2/", proxies=_proxies_of(info))
        if not refusal:
            return Observation("answers", host)
        refusals.append(refusal)
    return Observation("silent", f"{host}: {refusals[-1]}", f"an answer to https://{host}/v2/")


def registry_of(reference: str) -> str:
    """Return the host that a reference's image is pulled from."""
    first, slash, _ = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return _DOCKER_HUB
    return _DOCKER_HUB if first in ("docker.io", "index.docker.io") else first


def _configured_base() -> str:
    """Return the base image of the configuration here, else the default."""
    named = os.environ.get("WARMIMAGE_BASE_IMAGE")
    if named:
        return named
    file = os.environ.get("WARMIMAGE_FILE")
    try:
        value = load.read(Path(file) if file else None).values.get("base_image")
    except ConfigError:  # render and build report it
        value = None
    return value if isinstance(value, str) and value else DEFAULT_BASE


def _proxies_of(info: Mapping[str, Any]) -> dict[str, str]:
    """Return the daemon's own proxies, with which it pulls.

    The API hides a proxy's login, so proxies with a login cannot be used from here and are left out.
    """
    proxies = {"http": info.get("HttpProxy"), "https": info.get("HttpsProxy"), "no_proxy": info.get("NoProxy")}
    return {name: str(value) for name, value in proxies.items() if value and "xxxxx" not in str(value)}


def hub(_target: Target, _facts: Facts) -> Observation:
    """Does the Hugging Face Hub answer?"""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Observation("offline", "not checked: HF_HUB_OFFLINE is set")
    refusal = _no_answer(constants.ENDPOINT)
    return (
        Observation("silent", f"{constants.ENDPOINT}: {refusal}")
        if refusal
        else Observation("answers", constants.ENDPOINT)
    )


def index(_target: Target, _facts: Facts) -> Observation:
    """Does the package index that pip is configured for answer?"""
    settings = _pip_settings()
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return Observation(
            "none", f"pip is configured without an index; it uses {settings.get('find-links') or 'nothing'}"
        )
    addresses = [settings.get("index-url") or "https://pypi.org/simple", *settings.get("extra-index-url", "").split()]
    answers: list[str] = []
    refusals: list[str] = []
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme == "file":
            refusal = "" if Path(parts.path).is_dir() else "no such directory"
        else:
            refusal = _no_answer(address.rstrip("/") + "/", verify=settings.get("cert") or True)
        (refusals if refusal else answers).append(redacted(f"{address}: {refusal}" if refusal else address))
    if refusals:
        return Observation("silent", "; ".join(refusals))
    return Observation("answers", ", ".join(answers))


def _pip_settings() -> dict[str, str]:
    """Return pip's settings by name.  Variables win over files, as in pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    settings = dict(_rows(done.stdout))
    order = ("global", "install", "download", ":env:")
    return {key: value for section in order for (at, key), value in settings.items() if at == section}


def _rows(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    for row in text.splitlines():
        name, equals, value = row.partition("=")
        section, _, key = name.partition(".")
        if equals:
            yield (section, key), value.strip("'\"").replace("\\n", " ").strip()


def _no_answer(address: str, *, proxies: dict[str, str] | None = None, verify: bool | str = True) -> str:
    """Return why an address does not answer, or an empty string.  A refusal is an answer, a gateway's error is not."""
    try:
        answer = requests.head(address, timeout=_PATIENCE, proxies=proxies or None, verify=verify)
    except requests.exceptions.ProxyError as error:
        return f"the proxy refuses it ({_last(error)})"
    except requests.exceptions.SSLError as error:
        return f"this machine does not trust its certificate ({_last(error)})"
    except requests.exceptions.Timeout:
        return f"no answer within {_PATIENCE[0]:.0f} s"
    except requests.exceptions.RequestException as error:
        return _last(error)
    if answer.status_code == 407 or answer.status_code >= 500:
        return f"HTTP {answer.status_code}"
    return ""


def _last(error: Exception) -> str:
    """Return the innermost reason of an error."""
    reason: object = error
    while isinstance(reason, Exception) and reason.args:
        inner = getattr(reason.args[0], "reason", None) or next(
            (entry for entry in reason.args if isinstance(entry, Exception)), None
        )
        if inner is None:
            break
        reason = inner
    text = re.sub(r"^\w+\(host=.*?\): |^<.*?>: ", "", str(reason))
    return redacted(text or type(reason).__name__)[:160]
