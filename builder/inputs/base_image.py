"""The base image: which one, and what is in it.  Probed once, so that what it lacks is known before the build."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, ContainerError, ImageNotFound
from docker.models.images import Image
from packaging.specifiers import SpecifierSet

from ..config.model import Config
from ..console import note, phase
from ..docker_api import daemon
from ..engines import EngineAdapter
from ..errors import ConfigError, EnvironmentLacks, WarmimageError

DEFAULT_BASE = "python:3.12-slim-bookworm"

#: Image made of Debian's packages where no registry can be reached.
DEBIAN_SUITE = "bookworm"
DEBIAN_BASE = f"warmimage-base/debian:{DEBIAN_SUITE}"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Pythons that ``entrypoint/`` runs on.
ENTRYPOINT_PYTHON = SpecifierSet(">=3.10,<3.14")

# Finds the interpreter of the engine's console script, else the image's python3, and asks it about itself.
_PROBE_SHELL = """
script=$(command -v "$1" 2>/dev/null) && python=$(sed -n '1s/^#! *\\([^ ]*python[^ ]*\\).*/\\1/p' "$script")
[ -x "${python:-}" ] || python=$(command -v python3 || command -v python) || { echo '{}'; exit 0; }
exec "$python" -c "$2" "$3"
"""
_PROBE_PYTHON = """
import json, platform, sys
try:
    from importlib.metadata import version
    found = version(sys.argv[1])
except Exception:
    found = None
print(json.dumps({"python": sys.executable, "python_version": "%d.%d" % sys.version_info[:2], "engine_version": found,
                  "libc": platform.libc_ver(), "machine": platform.machine()}))
"""


@dataclass(frozen=True)
class Base:
    """A base image and what is in it.

    Attributes:
        reference: as it stands in the Dockerfile's FROM, pinned by digest where a registry is known to have it.
        image: as the user or the default named it.
        digest: the registry's digest, or ``None`` for an image that no registry is known to have.
        python: path of its Python interpreter: the engine's, where the engine is installed.
        python_version: such as ``3.12``.
        glibc: its C library's version, such as ``2.36``.
        machine: its CPU architecture, such as ``x86_64``.
        engine_version: the version of the engine that it holds, or ``None``.
        path: its ``PATH``.
    """

    reference: str
    image: str
    digest: str | None
    python: str
    python_version: str
    glibc: str
    machine: str
    engine_version: str | None
    path: str


def resolve(config: Config, adapter: EngineAdapter, client: docker.DockerClient) -> Base:
    """Get the base image onto the engine and look what is in it.

    Raises:
        ConfigError: it lacks the Python or the engine that it must have.
        WarmimageError: it can be neither pulled nor made.
    """
    name = config.base_image or default_base(client)
    if _IMAGE_ID.fullmatch(name):
        raise ConfigError(
            "a build cannot start from an image id",
            where="base_image",
            got=name,
            expected="a name with a tag or a digest",
            fix=f"docker tag {name} NAME:TAG, then --base-image NAME:TAG",
        )
    with phase(f"base image {name}"):
        image = daemon.pull(client, name)
        facts = _probe(client, name, adapter)
        digest = daemon.registry_digest(client, image, name)
    pinned = f"{daemon.repository(name)}@{digest}" if digest else name
    if not facts:
        raise ConfigError(
            "the base image has no Python",
            where="base_image",
            got=name,
            expected=f"Python {adapter.python}",
            fix=f"--base-image {DEFAULT_BASE}",
        )
    libc, libc_version = facts.pop("libc")
    base = Base(
        pinned,
        name,
        digest,
        facts["python"],
        facts["python_version"],
        libc_version,
        facts["machine"],
        facts["engine_version"],
        _path(image),
    )
    _check(config, adapter, base, libc)
    return base


def _check(config: Config, adapter: EngineAdapter, base: Base, libc: str) -> None:
    allowed = ENTRYPOINT_PYTHON if base.engine_version else ENTRYPOINT_PYTHON & SpecifierSet(adapter.python)
    if not allowed.contains(f"{base.python_version}.0"):
        raise ConfigError(
            f"the base image's Python does not fit {adapter.name}",
            where="base_image",
            got=f"Python {base.python_version} in {base.image}",
            expected=f"Python {allowed}",
            fix=f"--base-image {DEFAULT_BASE}",
        )
    if libc != "glibc":
        raise ConfigError(
            "PyTorch has no wheels for the base image's C library",
            where="base_image",
            got=f"{libc or 'no glibc'} in {base.image}",
            expected="glibc (Debian, Ubuntu, Red Hat)",
            fix=f"--base-image {DEFAULT_BASE}",
        )
    if config.method == "derive" and not base.engine_version:
        raise ConfigError(
            f"the base image does not contain {adapter.name}",
            where="base_image",
            got=base.image,
            expected=f"an image in which Python finds the distribution {adapter.distribution!r}",
            fix="--method compose, or --base-image with the engine's own image",
        )


def _path(image: Image) -> str:
    """Return the ``PATH`` that an image sets, or Docker's own where it sets none, as imported images do."""
    variables = dict(entry.split("=", 1) for entry in image.attrs["Config"].get("Env") or [])
    return str(variables.get("PATH") or DEFAULT_PATH)


def _probe(client: docker.DockerClient, name: str, adapter: EngineAdapter) -> dict[str, Any]:
    facts: dict[str, Any]
    try:
        output = client.containers.run(
            name,
            ["-c", _PROBE_SHELL, "sh", adapter.command[0], _PROBE_PYTHON, adapter.distribution],
            entrypoint="/bin/sh",
            network_mode="none",
            remove=True,
            user="0",
            stdout=True,
            stderr=False,
        )
        facts = json.loads(output.decode().strip().splitlines()[-1])
    except (ContainerError, APIError, IndexError, ValueError) as error:
        silent = isinstance(error, (IndexError, ValueError))
        raise ConfigError(
            "the base image cannot be inspected",
            where="base_image",
            got=f"{name}: {'its Python gives no answer' if silent else str(error)[-200:]}",
            expected="an image with /bin/sh and Python",
            fix=f"--base-image {DEFAULT_BASE}",
        ) from None
    return facts


def default_base(client: docker.DockerClient) -> str:
    """Return the default base, pulled; where no registry can be reached, one made from Debian's packages.

    Raises:
        EnvironmentLacks: no registry can be reached, and nothing is here to make an image with.
        WarmimageError: the registry refuses, or has no such image: another image would hide that.
    """
    try:
        daemon.pull(client, DEFAULT_BASE)
        return DEFAULT_BASE
    except daemon.RegistryUnreachable as error:
        reason = error.problems[0].got
    try:
        client.images.get(DEBIAN_BASE)
        note(f"no registry can be reached ({reason}): using {DEBIAN_BASE}, made from Debian's packages before")
        return DEBIAN_BASE
    except ImageNotFound:
        pass
    if not shutil.which("mmdebstrap"):
        raise EnvironmentLacks(
            f"the default base image {DEFAULT_BASE} cannot be pulled, and mmdebstrap is not installed",
            got=reason,
            fix="--base-image IMAGE, or apt-get install mmdebstrap",
        ) from None
    note(f"no registry can be reached ({reason}): building {DEBIAN_BASE} from Debian's packages")
    _make_debian_base(client)
    return DEBIAN_BASE


def _make_debian_base(client: docker.DockerClient) -> None:
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN_SUITE]
    with phase(f"mmdebstrap {DEBIAN_SUITE}"):
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            raise WarmimageError(
                "mmdebstrap could not create a base image",
                got=made.stderr.decode(errors="replace")[-300:].strip(),
                fix="--base-image IMAGE",
            )
        repository, tag = DEBIAN_BASE.split(":")
        changes = [f"ENV PATH={DEFAULT_PATH}", 'CMD ["python3"]']
        client.api.import_image_from_data(made.stdout, repository=repository, tag=tag, changes=changes)
