"""All checks, as data, in the order of the report."""

from __future__ import annotations

from . import containers, disk, docker_daemon, gpu, kernel, memory, network, snapshot
from .run import Check

CHECKS = (
    Check("docker", docker_daemon.daemon, seconds=4),
    Check("docker.storage", docker_daemon.storage, needs=("docker",)),
    # A docker command may call the daemon, and would hang with one that never answers.
    Check("buildkit", docker_daemon.builder, needs=("docker",)),
    Check("image", containers.image, needs=("docker",)),
    Check("image.machine", containers.machine, needs=("docker", "image")),
    Check("model", containers.model),
    # In sequence: the first measures the disk, the second writes to it.
    Check("container", containers.container, needs=("docker",), after=("image",), seconds=6),
    Check("snapshot.image", snapshot.image, needs=("image", "container")),
    Check("snapshot.cpu", snapshot.cpu, needs=("snapshot.image",)),
    Check("snapshot.mm_map", snapshot.mm_map, needs=("container",), after=("image",)),
    Check("kernel", kernel.kernel, needs=("container",)),
    Check("kernel.children", kernel.facility("children", "CONFIG_PROC_CHILDREN"), needs=("container",)),
    Check("kernel.smaps_rollup", kernel.facility("smaps_rollup", "Linux 4.14"), needs=("container",)),
    Check("kernel.pidfd", kernel.facility("pidfd", "Linux 5.3"), needs=("container",)),
    Check("kernel.pressure", kernel.facility("pressure", "CONFIG_PSI"), needs=("container",)),
    Check("pagecache.cachestat", kernel.cachestat, needs=("container",)),
    Check("pagecache.others", kernel.others, needs=("container",)),
    Check("pagecache.nowait", kernel.nowait, needs=("container",)),
    Check("memory.cgroup", memory.cgroup, needs=("container",)),
    Check("memory.daemon", memory.daemon, needs=("docker",)),
    Check("memory.container", memory.container, needs=("container",), after=("model",)),
    Check("memory.shm", memory.shared, needs=("image", "container")),
    Check("gpu.driver", gpu.driver, after=("image",)),
    Check("gpu.cuda", gpu.cuda, needs=("image",), after=("gpu.driver", "container")),
    Check("gpu.runtime", gpu.runtime, needs=("docker",), after=("image",)),
    Check("gpu.container", gpu.container, needs=("docker",), after=("image", "container")),
    Check("disk.space", disk.space, needs=("docker",), after=("image", "container")),
    Check("disk.rate", disk.image_rate, needs=("docker", "container")),
    Check("model.rate", disk.model_rate, needs=("model",), after=("container",)),
    Check("network.registry", network.registry, after=("docker", "image")),
    Check("network.hub", network.hub),
    Check("network.index", network.index, seconds=8),
)
