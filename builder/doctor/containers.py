"""Containers that report what they may do: the entrypoint's ``doctor-probe``, run in the image by its own Python."""

from __future__ import annotations

import io
import json
import os
import tarfile
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import docker
from docker.errors import APIError, NotFound
from requests.exceptions import RequestException

from ..console import human_bytes
from ..docker_api import daemon
from ..entrypoint import doctor_probe
from ..entrypoint.model.volume import weight_files
from ..errors import WarmimageError
from ..image import read as images
from ..inputs import model as models
from ..plan import Plan
from .finding import Seen
from .probe import Facts
from .target import Subject

#: Where the script is put in the container: a folder of nobody else's.
_FOLDER = "warmimage-doctor"

_SECONDS = 6


@dataclass(frozen=True)
class Examined:
    """The image that was named.

    Attributes:
        plan: the plan it was built from.
        size_bytes: its size.
        environment: the variables that it sets.
    """

    plan: Plan
    size_bytes: int
    environment: dict[str, str]


class ContainerFails(Exception):
    """A container of the image could not say anything; the text is why."""


def image(subject: Subject, _facts: Facts) -> Seen:
    """Which image is the host checked against?  The fact is what the image says of itself."""
    if not subject.image:
        return Seen("not_asked", "none named")
    with closing(subject.client()) as client:
        try:
            with daemon.api_errors(f"cannot look at {subject.image}"):
                found = client.images.get(subject.image)
            plan = images.plan_of(found, subject.image)
        except WarmimageError as error:
            problem = error.problems[0]
            absent = "no such image" in problem.what
            said = problem.what + (f": {problem.got}" if problem.got and not absent else "")
            fix = "docker pull it, or warmimage build" if absent else problem.fix
            return Seen("unusable", said, "an image built by warmimage", {"fix": fix})
    said = f"{subject.image}: {plan.engine.name} {plan.engine.version} on {plan.accelerator}, {', '.join(plan.tiers)}"
    variables = dict(str(entry).partition("=")[::2] for entry in found.attrs["Config"].get("Env") or [])
    return Seen("ours", said, fact=Examined(plan, daemon.size_bytes(found), variables))


def machine(_subject: Subject, facts: Facts) -> Seen:
    """Is the image for this processor?"""
    wanted, here = facts["image"].plan.base.machine, str(facts["docker"]["Architecture"])
    same = wanted == {"amd64": "x86_64", "arm64": "aarch64"}.get(here, here)
    return Seen("same" if same else "other", here, wanted)


def model(subject: Subject, _facts: Facts) -> Seen | None:
    """Is the model directory whole?  The fact is the size of its weights in bytes."""
    if not subject.model_dir:
        return None
    if not subject.model_dir.is_dir():
        return Seen("damaged", f"{subject.model_dir} is not a directory", "", {"fix": "--model DIR"})
    problem = next(models.check_directory(subject.model_dir), None)
    if problem:
        got = f"{problem.what}{': ' + problem.got if problem.got else ''}"
        return Seen("damaged", got, problem.expected, {"fix": problem.fix or "name a model directory"})
    paths = weight_files(str(subject.model_dir))
    size = sum(os.path.getsize(path) for path in paths)
    return Seen("whole", f"{subject.model_dir}: {len(paths)} weight files, {human_bytes(size)}", fact=size)


def container(subject: Subject, facts: Facts) -> Seen:
    """Does a container of the image run?  The fact is what it found, or without an image what this process finds."""
    with closing(subject.client()) as client:
        chosen = probed_image(client, subject, facts)
        if not chosen:
            here = doctor_probe.collect() if subject.local else None
            outcome, reason = "no_image", "no image of ours, of this version, in the daemon"
            if subject.image:
                outcome, reason = "skipped", "not looked at: needs image"
            return Seen(outcome, f"{reason}; kernel and memory are this process's", fact=here)
        reference, plan = chosen
        # Page cache and disk are tried on the files of the closure, since a start reads those.
        root = plan.folders.root
        words = ["--measure", "--closure", f"{root}/closure.json", "--snapshot", f"{root}/snapshot"]
        try:
            found = ask(client, subject, reference, plan, words, cap_drop=["ALL"] if plan.user else [])
        except ContainerFails as error:
            named = {"python": plan.python, "image": reference}
            return Seen("fails", f"a container of {reference} does not run: {error}", words=named)
    return Seen("runs", f"a container of {reference} runs as uid {found['privileges']['uid']}", fact=found)


def probed_image(client: docker.DockerClient, subject: Subject, facts: Facts) -> tuple[str, Plan] | None:
    """Return the image to start containers of: the one that was named, else the newest of ours in the daemon."""
    if subject.image:
        report = facts.get("image")
        return (subject.image, report.plan) if report else None
    for found in client.images.list(filters={"label": "dev.warmimage.plan"}):
        reference = found.tags[0] if found.tags else str(found.id)
        with suppress(WarmimageError):  # of another version, or a broken label
            return reference, images.plan_of(found, reference)
    return None


def ask(
    client: docker.DockerClient, subject: Subject, reference: str, plan: Plan, words: list[str], **options: Any
) -> dict[str, Any]:
    """Run the script in a container of an image of ours, and return what it found.

    Args:
        client: a client of the Docker daemon.
        subject: whose labels and further words the container gets.
        reference: the image.
        plan: its plan.
        words: the script's arguments.
        options: how to create the container.

    Raises:
        ContainerFails: the container does not run, or says nothing.
        APIError: the daemon refuses to create it.
    """
    made = client.containers.create(
        reference,
        words,
        entrypoint=[plan.python, "-I", "-S", f"/{_FOLDER}/entrypoint", "doctor-probe"],
        network_mode="none",
        labels=subject.labels,
        healthcheck={"test": ["NONE"]},
        **{**options, **subject.container},
    )
    try:
        made.put_archive("/", _package())
        try:
            made.start()
        except APIError as error:
            raise ContainerFails(str(error.explanation or error)[:200]) from None
        try:
            code = int(made.wait(timeout=_SECONDS)["StatusCode"])
        except RequestException:
            raise ContainerFails(f"no end within {_SECONDS} s") from None
        output = made.logs(stdout=True, stderr=False).decode(errors="replace").strip()
        if code or not output.startswith("{"):
            said = made.logs().decode(errors="replace").strip()[-200:]
            raise ContainerFails(f"exit code {code}: {said}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found
    finally:
        with suppress(NotFound):
            made.remove(force=True)


def _package() -> bytes:
    """Return the entrypoint package as a tar archive."""
    packed = io.BytesIO()
    with as_file(files("warmimage.entrypoint")) as source, tarfile.open(fileobj=packed, mode="w") as archive:
        folder = tarfile.TarInfo(_FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        archive.add(source, f"{_FOLDER}/entrypoint", filter=_readable)
    return packed.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Give an entry modes that every user can read by; leave out what is no Python module."""
    if entry.isdir() and not entry.name.endswith("__pycache__"):
        entry.mode = 0o755
        return entry
    entry.mode = 0o644
    return entry if entry.name.endswith(".py") else None
