"""Phases of a start: they are in order, add up to the whole, and belong to the tier that came up."""

from __future__ import annotations

import pytest
from warmimage import timeline
from warmimage.timeline import Event


def event(name: str, at: float, **fields: object) -> Event:
    return {"event": name, "t": at, **fields}


STARTED = event("started", 100.0, wall=1000.5)


def seconds(found: list[timeline.Phase]) -> dict[str, float]:
    return {phase.name: round(phase.seconds, 6) for phase in found}


def test_phases_add_up_to_the_time_from_created_to_ready() -> None:
    events = [
        STARTED,
        event("prefetch.started", 100.1),
        event("tier.started", 100.25),
        event("engine.entered", 101.0),
        event("engine.listening", 106.0),
        event("prefetch.ended", 107.0),
        event("ready", 110.0),
        event("engine.ended", 500.0),
    ]
    found = timeline.phases(events, created=1000.0)
    assert list(seconds(found).items()) == [
        ("container", 0.5),
        ("checks", 0.25),
        ("interpreter", 0.75),
        ("loading", 5.0),
        ("health", 4.0),
    ]
    assert sum(phase.seconds for phase in found) == pytest.approx((110.0 - 100.0) + (1000.5 - 1000.0))


def test_without_the_time_of_creation_phases_begin_with_pid_1() -> None:
    events = [STARTED, event("tier.started", 100.25), event("ready", 110.0)]
    assert seconds(timeline.phases(events)) == {"checks": 0.25, "health": 9.75}


def test_tier_plain_has_no_phase_that_its_engine_does_not_mark() -> None:
    events = [STARTED, event("tier.started", 100.25), event("engine.listening", 106.0), event("ready", 110.0)]
    assert seconds(timeline.phases(events)) == {"checks": 0.25, "loading": 5.75, "health": 4.0}


def test_a_failed_tiers_phases_are_not_counted_as_those_of_the_one_that_came_up() -> None:
    events = [
        STARTED,
        event("tier.started", 100.25, tier="preload"),
        event("engine.entered", 101.0),
        event("engine.listening", 102.0),
        event("tier.failed", 120.0, tier="preload"),
        event("tier.started", 120.5, tier="plain"),
        event("engine.listening", 126.0),
        event("ready", 130.0),
    ]
    found = timeline.phases(events, created=1000.0)
    assert seconds(found) == {"container": 0.5, "checks": 20.5, "loading": 5.5, "health": 4.0}
    assert sum(phase.seconds for phase in found) == pytest.approx(30.5)


def test_of_a_repeated_event_the_first_counts() -> None:
    events = [STARTED, event("tier.started", 101.0), event("ready", 102.0), event("ready", 103.0)]
    assert seconds(timeline.phases(events)) == {"checks": 1.0, "health": 1.0}


def test_an_empty_timeline_has_no_phases() -> None:
    assert timeline.phases([], created=1000.0) == []


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert timeline.parse(['{"event": "started", "t": 1}', "", '{"event": "rea']) == [event("started", 1)]


def test_events_are_found_by_name_in_order() -> None:
    events = [STARTED, event("a", 1), event("b", 2), event("a", 3)]
    assert timeline.find(events, "a") == [event("a", 1), event("a", 3)]
