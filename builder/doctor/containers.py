"""Containers that report what they may do: the entrypoint's ``doctor-probe``, run by the image's own Python."""

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
from .finding import Observation
from .run import Facts
from .target import Target

#: Directory in the container for the script.
_DIRECTORY = "warmimage-doctor"

_SECONDS = 6


@dataclass(frozen=True)
class ExaminedImage:
    """The image to check the host against.

    Attributes:
        plan: its plan.
        size_bytes: its size.
        environment: the variables that it sets.
    """

    plan: Plan
    size_bytes: int
    environment: dict[str, str]


class ContainerFails(Exception):
    """A container of the image gave no report; the text is the reason."""


def image(target: Target, _facts: Facts) -> Observation:
    """Which image is the host checked against?  The fact is an ``ExaminedImage``."""
    if not target.image:
        return Observation("not_asked", "none given")
    with closing(target.client()) as client:
        try:
            with daemon.api_errors(f"cannot inspect {target.image}"):
                docker_image = client.images.get(target.image)
            plan = images.plan_of(docker_image, target.image)
        except WarmimageError as error:
            problem = error.problems[0]
            absent = "no such image" in problem.what
            reason = problem.what + (f": {problem.got}" if problem.got and not absent else "")
            fix = "docker pull, or warmimage build" if absent else problem.fix
            return Observation("unusable", reason, "an image built by warmimage", {"fix": fix})
    summary = f"{target.image}: {plan.engine.name} {plan.engine.version} on {plan.accelerator}, {', '.join(plan.tiers)}"
    variables = dict(str(entry).partition("=")[::2] for entry in docker_image.attrs["Config"].get("Env") or [])
    return Observation("ours", summary, fact=ExaminedImage(plan, daemon.size_bytes(docker_image), variables))


def machine(_target: Target, facts: Facts) -> Observation:
    """Is the image for this processor?"""
    wanted, here = facts["image"].plan.base.machine, str(facts["docker"]["Architecture"])
    same = wanted == {"amd64": "x86_64", "arm64": "aarch64"}.get(here, here)
    return Observation("same" if same else "other", here, wanted)


def model(target: Target, _facts: Facts) -> Observation | None:
    """Is the model directory whole?  The fact is the size of its weights in bytes."""
    if not target.model_dir:
        return None
    if not target.model_dir.is_dir():
        return Observation("damaged", f"{target.model_dir} is not a directory", "", {"fix": "--model DIR"})
    problem = next(models.check_directory(target.model_dir), None)
    if problem:
        got = f"{problem.what}{': ' + problem.got if problem.got else ''}"
        return Observation("damaged", got, problem.expected, {"fix": problem.fix or "name a model directory"})
    paths = weight_files(str(target.model_dir))
    size = sum(os.path.getsize(path) for path in paths)
    return Observation("whole", f"{target.model_dir}: {len(paths)} weight files, {human_bytes(size)}", fact=size)


def container(target: Target, facts: Facts) -> Observation:
    """Does a container of the image run?  The fact is its report, or without an image that of this process."""
    with closing(target.client()) as client:
        choice = probed_image(client, target, facts)
        if not choice:
            here = doctor_probe.collect() if target.local else None
            outcome, reason = "no_image", "the Docker daemon has no image built by this version of warmimage"
            if target.image:
                outcome, reason = "skipped", "not checked: needs image"
            return Observation(outcome, f"{reason}; kernel and memory are those of this process", fact=here)
        reference, plan = choice
        # Page cache and disk are measured with the closure's files, which a start reads.
        root = plan.folders.root
        arguments = ["--measure", "--closure", f"{root}/closure.json", "--snapshot", f"{root}/snapshot"]
        try:
            report = ask(client, target, reference, plan, arguments, cap_drop=["ALL"] if plan.user else [])
        except ContainerFails as error:
            fix_arguments = {"python": plan.python, "image": reference}
            return Observation(
                "fails", f"a container of {reference} does not run: {error}", fix_arguments=fix_arguments
            )
    return Observation("runs", f"a container of {reference} runs as uid {report['privileges']['uid']}", fact=report)


def probed_image(client: docker.DockerClient, target: Target, facts: Facts) -> tuple[str, Plan] | None:
    """Return the image to start containers from: the target's, else the newest one built by warmimage."""
    if target.image:
        examined = facts.get("image")
        return (target.image, examined.plan) if examined else None
    for docker_image in client.images.list(filters={"label": "dev.warmimage.plan"}):
        reference = docker_image.tags[0] if docker_image.tags else str(docker_image.id)
        with suppress(WarmimageError):  # of another version, or a broken label
            return reference, images.plan_of(docker_image, reference)
    return None


def ask(
    client: docker.DockerClient, target: Target, reference: str, plan: Plan, arguments: list[str], **options: Any
) -> dict[str, Any]:
    """Run the script in a container of an image built by warmimage, and return its report.

    Args:
        client: a client of the Docker daemon.
        target: gives the container's labels and further options.
        reference: the image.
        plan: its plan.
        arguments: the script's arguments.
        options: how to create the container.

    Raises:
        ContainerFails: the container does not run, or gives no report.
        APIError: the daemon refuses to create it.
    """
    container = client.containers.create(
        reference,
        arguments,
        entrypoint=[plan.python, "-I", "-S", f"/{_DIRECTORY}/entrypoint", "doctor-probe"],
        network_mode="none",
        labels=target.labels,
        healthcheck={"test": ["NONE"]},
        **{**options, **target.container},
    )
    try:
        container.put_archive("/", _package())
        try:
            container.start()
        except APIError as error:
            raise ContainerFails(str(error.explanation or error)[:200]) from None
        try:
            code = int(container.wait(timeout=_SECONDS)["StatusCode"])
        except RequestException:
            raise ContainerFails(f"still running after {_SECONDS} s") from None
        output = container.logs(stdout=True, stderr=False).decode(errors="replace").strip()
        if code or not output.startswith("{"):
            log = container.logs().decode(errors="replace").strip()[-200:]
            raise ContainerFails(f"exit code {code}: {log}")
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
        return report
    finally:
        with suppress(NotFound):
            container.remove(force=True)


def _package() -> bytes:
    """Return the entrypoint package as a tar archive."""
    packed = io.BytesIO()
    with as_file(files("warmimage.entrypoint")) as source, tarfile.open(fileobj=packed, mode="w") as archive:
        directory = tarfile.TarInfo(_DIRECTORY)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        archive.add(source, f"{_DIRECTORY}/entrypoint", filter=_readable)
    return packed.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Make an entry readable for every user; leave out files that are not Python modules."""
    if entry.isdir() and not entry.name.endswith("__pycache__"):
        entry.mode = 0o755
        return entry
    entry.mode = 0o644
    return entry if entry.name.endswith(".py") else None
