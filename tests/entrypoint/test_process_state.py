"""What a newborn process takes over, where the kernel refuses a part of it."""

from __future__ import annotations

import resource

import pytest
from warmimage.entrypoint.tiers.zygote import process_state


def test_a_limit_that_is_refused_keeps_no_other_one_from_being_set(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(process_state._LIMITS)
    wanted = [[7, 7] for _ in numbers]
    asked: list[int] = []

    def refuse(number: int, _limit: tuple[int, int]) -> None:
        asked.append(number)
        if number == resource.RLIMIT_CORE:
            raise ValueError("not allowed to raise maximum limit")
        if number == resource.RLIMIT_NPROC:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(OSError, match="RLIMIT_CORE: not allowed") as caught:
        process_state._apply_limits(wanted)
    assert asked == numbers
    assert "RLIMIT_NPROC: [Errno 1] Operation not permitted" in str(caught.value)
