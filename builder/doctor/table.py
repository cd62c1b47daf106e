"""The table of severities: the status and the fix of each outcome of each check.

No other module decides a status.  A check fills in the braces of a fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .finding import Finding, Observation, Status, redacted

#: Outcomes that any check can have.
_ANY: Mapping[str, tuple[Status, str]] = {
    "broken": ("warning", "please report it"),
    "late": ("warning", "run it again on an idle machine; if it times out again, check the part that it names"),
    "skipped": ("info", ""),
}

GROUPS = ("docker", "image", "snapshot", "kernel", "page cache", "memory", "gpu", "disk", "network")


@dataclass(frozen=True)
class Item:
    """One check's entry.

    Attributes:
        group: one of ``GROUPS``.
        title: the check's name for people.
        outcomes: status and fix by outcome.
    """

    group: str
    title: str
    outcomes: Mapping[str, tuple[Status, str]]


_MM_MAP_FIX = (
    "a kernel with CONFIG_CHECKPOINT_RESTORE, and a seccomp profile and sandbox that allow prctl(PR_SET_MM_MAP)"
)
_NEXT_TIER = "; until then the image starts in its next tier"
_REACH_FIX = "check the network, the proxy (HTTPS_PROXY, the daemon's own) and the certificates: docs/networks.md"
_CUDA_FIX = "update the NVIDIA driver to {driver} or later, or build from an engine image of an older CUDA"

ITEMS: Mapping[str, Item] = {
    "docker": Item(
        "docker",
        "daemon",
        {
            "answers": ("ok", ""),
            "unusable": ("missing", "{fix}"),
            "late": ("missing", "restart it (systemctl restart docker); its log: journalctl -u docker"),
        },
    ),
    "docker.storage": Item(
        "docker",
        "storage",
        {
            "shared": ("ok", ""),
            "fuse": (
                "warning",
                "use overlay2 on Linux 5.11 or later: with this driver a user-space process serves each read",
            ),
            "copies": ("warning", "use overlay2: with this driver containers do not share the page cache"),
            "unknown": ("info", ""),
        },
    ),
    "buildkit": Item("docker", "BuildKit", {"found": ("ok", ""), "none": ("missing", "{fix}")}),
    "image": Item(
        "image",
        "image",
        {
            "ours": ("ok", ""),
            "not_asked": ("info", "warmimage doctor IMAGE checks this host against an image"),
            "unusable": ("missing", "{fix}"),
        },
    ),
    "image.machine": Item(
        "image",
        "processor",
        {
            "same": ("ok", ""),
            "other": ("missing", "build the image for this host's processor"),
        },
    ),
    "container": Item(
        "image",
        "container",
        {
            "runs": ("ok", ""),
            "no_image": ("info", "warmimage build --model DIR, then run this again"),
            "fails": ("missing", "docker run --rm --entrypoint {python} {image} --version"),
        },
    ),
    "model": Item(
        "image",
        "model directory",
        {
            "whole": ("ok", ""),
            "damaged": ("missing", "{fix}"),
        },
    ),
    "snapshot.image": Item(
        "snapshot",
        "snapshot in the image",
        {
            "captured": ("ok", ""),
            "no_tier": ("info", ""),
            "declined": ("warning", "remove the reason and build the image again" + _NEXT_TIER),
            "absent": ("missing", "build the image again: its plan has tier snapshot, but its snapshot is missing"),
            "damaged": ("missing", "build the image again: a later layer has changed its snapshot"),
        },
    ),
    "snapshot.cpu": Item(
        "snapshot",
        "CPU extensions",
        {
            "covered": ("ok", ""),
            "lacks": (
                "warning",
                "capture the snapshot on such a host: docs/snapshot.md#capturing-on-a-node" + _NEXT_TIER,
            ),
        },
    ),
    "snapshot.mm_map": Item(
        "snapshot",
        "PR_SET_MM_MAP",
        {
            "there": ("ok", ""),
            "absent": ("info", _MM_MAP_FIX),
            "absent_needed": ("warning", _MM_MAP_FIX + _NEXT_TIER),
        },
    ),
    "kernel": Item("kernel", "kernel", {"release": ("ok", "")}),
    "kernel.children": Item(
        "kernel",
        "/proc children",
        {
            "there": ("ok", ""),
            "absent": (
                "warning",
                "use a kernel with CONFIG_PROC_CHILDREN: tier zygote and PID 1 find child processes with it",
            ),
        },
    ),
    "kernel.smaps_rollup": Item(
        "kernel",
        "smaps_rollup",
        {
            "there": ("ok", ""),
            "absent": (
                "info",
                "use Linux 4.14 or later: without it memory is reported as RSS, which counts shared pages twice",
            ),
        },
    ),
    "kernel.pidfd": Item(
        "kernel",
        "pidfd",
        {
            "there": ("ok", ""),
            "absent": ("info", "use Linux 5.3 or later and a seccomp profile that allows pidfd_open"),
        },
    ),
    "kernel.pressure": Item(
        "kernel",
        "pressure (PSI)",
        {
            "there": ("ok", ""),
            "absent": ("info", "boot with psi=1, if the kernel supports it"),
        },
    ),
    "pagecache.cachestat": Item(
        "page cache",
        "cachestat",
        {
            "there": ("ok", ""),
            "absent": ("info", "use Linux 6.5 or later"),
            "hidden": ("info", "use Docker 26 or later, whose seccomp profile allows cachestat"),
        },
    ),
    "pagecache.others": Item(
        "page cache",
        "cached image files",
        {
            "asked": ("ok", ""),
            "sampled": ("info", ""),
            "unknown": ("info", ""),
            "unaccounted": (
                "warning",
                "use a kernel with CONFIG_TASK_IO_ACCOUNTING: without it prefetch cannot see what is cached",
            ),
        },
    ),
    "pagecache.nowait": Item(
        "page cache",
        "RWF_NOWAIT on image files",
        {
            "there": ("ok", ""),
            "absent": ("info", ""),
            "no_image": ("info", ""),
        },
    ),
    "memory.cgroup": Item("memory", "cgroup", {"v2": ("ok", ""), "v1": ("info", "")}),
    "memory.daemon": Item(
        "memory",
        "limit over all containers",
        {
            "none": ("ok", ""),
            "unknown": ("info", ""),
            "limited": ("info", "the limit is on the cgroup {group}"),
        },
    ),
    "memory.container": Item(
        "memory",
        "memory of a container",
        {
            "enough": ("ok", ""),
            "short": (
                "warning",
                "raise the limit: the page cache counts towards it, and data that does not fit is read twice",
            ),
        },
    ),
    "memory.shm": Item(
        "memory",
        "shared memory",
        {
            "enough": ("ok", ""),
            "default_short": ("info", "warmimage run sets it; with docker run use --shm-size {size}"),
        },
    ),
    "gpu.driver": Item(
        "gpu",
        "driver",
        {
            "loaded": ("ok", ""),
            "none": ("info", ""),
            "remote": ("info", ""),
            "unreadable": ("warning", "nvidia-smi"),
            "needed": ("missing", "install the NVIDIA driver on the host, or build with --accelerator cpu"),
        },
    ),
    "gpu.cuda": Item(
        "gpu",
        "CUDA of the image",
        {
            "covered": ("ok", ""),
            "no_cuda": ("info", ""),
            "no_driver": ("info", ""),
            "minor": (
                "info",
                "runs with minor version compatibility; code that is compiled at run time may need driver {driver}",
            ),
            "refused": (
                "missing",
                "update the driver to {driver} or later: the NVIDIA runtime refuses to start the image",
            ),
            "forward": (
                "warning",
                "works on data centre GPUs only (forward compatibility); else update the driver to {driver} or later",
            ),
            "old": ("missing", _CUDA_FIX),
            "unknown": ("info", ""),
        },
    ),
    "gpu.runtime": Item(
        "gpu",
        "GPUs in the daemon",
        {
            "named": ("ok", ""),
            "none": ("info", ""),
            "needed": ("warning", "install the NVIDIA container toolkit, then restart Docker"),
        },
    ),
    "gpu.container": Item(
        "gpu",
        "GPUs in a container",
        {
            "given": ("ok", ""),
            "not_given": ("missing", "install the NVIDIA container toolkit, then restart Docker"),
        },
    ),
    "disk.space": Item(
        "disk",
        "free space for images",
        {
            "enough": ("ok", ""),
            "unknown": ("info", ""),
            "tight": ("warning", "docker system prune, or enlarge the disk"),
            "full": ("missing", "docker system prune, or enlarge the disk"),
        },
    ),
    "disk.rate": Item(
        "disk",
        "reading the image",
        {
            "fast": ("ok", ""),
            "warm": ("info", ""),
            "small": ("info", ""),
            "slow": ("warning", "use a faster disk for {path}: a cold start reads the image's files from it"),
        },
    ),
    "model.rate": Item(
        "disk",
        "reading the model",
        {
            "fast": ("ok", ""),
            "warm": ("info", ""),
            "small": ("info", ""),
            "slow": ("warning", "use a faster volume for the model, or keep the weights on the node"),
        },
    ),
    "network.registry": Item(
        "network",
        "image registry",
        {
            "answers": ("ok", ""),
            "local": ("info", ""),
            "silent": ("warning", _REACH_FIX),
        },
    ),
    "network.hub": Item(
        "network",
        "Hugging Face Hub",
        {
            "answers": ("ok", ""),
            "offline": ("info", ""),
            "silent": ("warning", "--model DIR does not need the Hub; " + _REACH_FIX),
        },
    ),
    "network.index": Item(
        "network",
        "package index",
        {
            "answers": ("ok", ""),
            "none": ("info", ""),
            "silent": ("warning", "--wheelhouse DIR does not need an index; " + _REACH_FIX),
        },
    ),
}


def grade(name: str, observation: Observation) -> Finding:
    """Return the finding for what a check has observed."""
    item = ITEMS[name]
    status, fix = {**_ANY, **item.outcomes}[observation.outcome]
    return Finding(
        id=name,
        group=item.group,
        title=item.title,
        status=status,
        found=redacted(observation.found),
        expected=redacted(observation.expected),
        fix=redacted(fix.format_map(observation.fix_arguments)),
    )
