"""What tier ``snapshot`` needs of a container: one capability, no ``no_new_privs``, and CRIU in the image."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from typing import Any

from docker.errors import APIError

from ..criu import PREFIX
from .containers import ContainerFails, ask, probed_image
from .examination import Facts
from .finding import Seen
from .subject import Subject

#: Where an image with tier ``snapshot`` has CRIU: the binary for root, and those with a file capability.
CRIU = f"{PREFIX}/criu"
CRIU_WITH = {name: f"{PREFIX}/criu-{name.lower().replace('_', '-')}" for name in ("CHECKPOINT_RESTORE", "SYS_ADMIN")}

#: Names of the capabilities by their bit, as ``linux/capability.h`` numbers them.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

_SECCOMP = {0: "off", 1: "strict", 2: "filter"}


def names(mask: int) -> str:
    """Return the names of the capabilities in a bit mask."""
    return ", ".join(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1) or "none"


def capability(subject: Subject, facts: Facts) -> Seen:
    """Does a container that drops every capability but one hold that one?  The fact is what the container found."""
    with closing(subject.client()) as client:
        chosen = probed_image(client, subject, facts)
        if not chosen:
            return Seen("skipped", "not looked at: needs an image of ours on the engine")
        reference, plan = chosen
        needed = "snapshot" in plan.tiers
        refusals = []
        # The last attempt asks for nothing: what a container is then, the other findings still tell.
        for asked in (*subject.capabilities, ""):
            options: dict[str, Any] = {"cap_drop": ["ALL"], "cap_add": [asked] if asked else []}
            try:
                program = CRIU_WITH.get(asked, CRIU) if plan.user else CRIU
                found = ask(client, subject, reference, plan, ["--criu", program] if needed else [], **options)
                found["program"] = program
            except APIError as error:
                message = str(error.explanation or error)
                if "capab" not in message.lower():
                    raise
                refusals.append(f"{asked} refused ({message})")
                continue
            except ContainerFails as error:
                refusals.append(f"{asked or 'a container without any'} does not start ({error})")
                continue
            if asked and not found["privileges"]["clone3"]:
                refusals.append(f"{asked} does not restore (the seccomp profile forbids clone3)")
                continue
            return _judged(asked, found, refusals, needed=needed)
    return Seen("fails", "; ".join(refusals))


def _judged(asked: str, found: dict[str, Any], refusals: list[str], *, needed: bool) -> Seen:
    # A user that is not root gets it as a file capability of CRIU, for which the bounding set is what counts.
    held = found["privileges"]["effective" if found["privileges"]["uid"] == 0 else "bounding"]
    before = f"; {'; '.join(refusals)}" if refusals else ""
    if asked and held >> CAPABILITIES.index(asked) & 1:
        return Seen(asked.lower(), f"{asked} can be granted{before}", "CHECKPOINT_RESTORE", fact=found)
    text = f"a container holds {names(held)}{before}"
    return Seen("none_needed" if needed else "none", text, "CHECKPOINT_RESTORE or SYS_ADMIN", fact=found)


def no_new_privs(_subject: Subject, facts: Facts) -> Seen:
    """Is ``no_new_privs`` set on containers?  It defeats file capabilities."""
    found = facts["snapshot.capability"]
    if not found["privileges"]["no_new_privs"]:
        return Seen("unset", "not set")
    return Seen("set_needed" if "criu" in found else "set", "set: file capabilities have no effect", "not set")


def inside(_subject: Subject, facts: Facts) -> Seen:
    """Who is the image's user in the probing container, and what holds it?"""
    held = facts["snapshot.capability"]["privileges"]
    seccomp = _SECCOMP.get(held["seccomp"], str(held["seccomp"]))
    text = f"uid {held['uid']}, effective {names(held['effective'])}, bounding {names(held['bounding'])}"
    return Seen("seen", f"{text}, seccomp {seccomp}")


def criu(_subject: Subject, facts: Facts) -> Seen:
    """Does an image with tier ``snapshot`` hold a CRIU that answers?"""
    plan = facts["image"].plan
    if "snapshot" not in plan.tiers:
        return Seen("no_tier", "no snapshot tier in this image")
    found = facts["snapshot.capability"]["criu"]
    path = facts["snapshot.capability"]["program"]
    if not found.get("exists"):
        return Seen("absent", f"no {path}", path)
    if not found["executable"]:
        return Seen("not_executable", f"{path} may not be executed", "an executable file")
    if "error" in found:
        refused = found["error"].startswith("EPERM")
        return Seen("not_granted" if refused else "silent", f"{path}: {found['error']}", "an answer to --version")
    return Seen("answers", found["version"])


def criu_host(_subject: Subject, _facts: Facts) -> Seen:
    """Is CRIU on this host?  Nothing needs it; it tells what the kernel has been tried with."""
    program = shutil.which("criu")
    if not program:
        return Seen("any", "none; nothing needs it")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=3, check=False)
    return Seen("any", f"{program}: {(done.stdout or done.stderr).strip()}")
