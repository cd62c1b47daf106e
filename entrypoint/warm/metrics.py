"""The state as metrics and as JSON: names and meanings in docs/warming.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from .status import WarmStatus
from .tracker import TargetTotals

PREFIX = "warmimage_warm_"

#: Metrics of each target: name, kind, help, value.
_OF_TARGETS: tuple[tuple[str, str, str, Callable[[TargetTotals], float]], ...] = (
    ("wanted_bytes", "gauge", "Size of the target's files.", lambda each: each.wanted),
    ("resident_bytes", "gauge", "Of wanted, what is in the page cache.", lambda each: each.resident),
    ("sampled_bytes", "gauge", "Of resident, what is an estimate from samples.", lambda each: each.sampled),
    ("unknown_bytes", "gauge", "Of wanted, what the kernel tells this user nothing of.", lambda each: each.unknown),
    ("missing_bytes", "gauge", "Of wanted, what is to be read.", lambda each: each.missing),
    ("over_budget_bytes", "gauge", "Of wanted, what the budget leaves out.", lambda each: each.over_budget),
    ("files", "gauge", "Files of the target.", lambda each: each.files),
    ("problem_files", "gauge", "Files that cannot be warmed.", lambda each: len(each.problems)),
    ("read_bytes", "counter", "Bytes read.", lambda each: each.read),
    ("evicted_bytes", "counter", "Bytes that were gone after they had been resident.", lambda each: each.evicted),
    ("rewarms", "counter", "Times that evicted bytes were read again.", lambda each: each.rewarms),
)


def families(state: WarmStatus, label_failures: int) -> Iterator[Any]:
    """Yield the state as ``prometheus_client`` takes it from a collector.

    Args:
        state: one moment: all values fit together.
        label_failures: how often the node's label could not be set.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
    for name, kind, told, value in _OF_TARGETS:
        family = kinds[kind](PREFIX + name, told, labels=["target"])
        for target, each in state.targets.items():
            family.add_metric([target], value(each))
        yield family
    arrived = GaugeMetricFamily(
        PREFIX + "time_to_warm_seconds", "From the start until all of the target was resident.", labels=["target"]
    )
    for target, each in state.targets.items():
        if each.warm_after is not None:
            arrived.add_metric([target], each.warm_after)
    yield arrived
    pauses = CounterMetricFamily(
        PREFIX + "backoffs", "Times that reading paused as others waited for a resource.", labels=["resource"]
    )
    pressure = GaugeMetricFamily(
        PREFIX + "pressure_ratio", "Share of time that others waited when last measured.", labels=["resource"]
    )
    for resource, count in state.backoffs.items():
        pauses.add_metric([resource], count)
        pressure.add_metric([resource], state.pressure[resource])
    yield from (pauses, pressure)
    yield CounterMetricFamily(PREFIX + "backoff_seconds", "Time that reading paused.", value=state.backoff_seconds)
    yield CounterMetricFamily(
        PREFIX + "label_failures", "Times that the node's label could not be set.", value=label_failures
    )
    for name, told, number in (
        ("read_rate_bytes_per_second", "Bytes read per second since the last scrape.", state.rate),
        ("budget_bytes", "Bytes that may be resident.", state.budget.size),
        ("locked_bytes", "Bytes that are pinned in memory.", state.locked),
        ("complete", "Whether all is resident that should be.", state.complete),
        ("ready", "Whether the server may start.", state.ready),
        ("limited", "Whether a memory limit keeps a part out of memory.", bool(state.limited)),
    ):
        yield GaugeMetricFamily(PREFIX + name, told, value=float(number))


def status(state: WarmStatus) -> dict[str, Any]:
    """Return the state as JSON takes it; durations in seconds, sizes in bytes."""
    data = asdict(state)
    for name, each in state.targets.items():
        data["targets"][name]["warm"] = each.warm
        data["targets"][name]["problems"] = list(each.problems[:20])
    return data
