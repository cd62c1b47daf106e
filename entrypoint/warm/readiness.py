"""Is everything resident, and if not, why not: one line that names the cause."""

from __future__ import annotations

from collections.abc import Mapping

from . import sizes
from .budget import Budget
from .tracker import TargetTotals

#: Seconds without any progress after which a volume is said to hang.
STALL = 60.0


def complete(totals: Mapping[str, TargetTotals], budget: Budget) -> bool:
    """Return whether all is resident: what is wanted, or of it what the budget that was given allows."""
    return all(each.warm for each in totals.values()) and not limited(totals, budget)


def limited(totals: Mapping[str, TargetTotals], budget: Budget) -> str:
    """Return which limit keeps a part of what is wanted out of memory, an empty string where none does that unasked."""
    if budget.given or not sum(each.over_budget for each in totals.values()):
        return ""
    wanted = sizes.format_binary(sum(each.wanted for each in totals.values()))
    return f"{wanted} are wanted, more than memory holds: {budget.bound}"


def reason(
    totals: Mapping[str, TargetTotals],
    budget: Budget,
    doing: str,
    idle: float,
    holding: str,
    kept: str,
    *,
    complete: bool,
    looked: bool,
) -> str:
    """Return in one line what is resident, and what stands in the way of the rest.

    Args:
        totals: the targets.
        budget: what may be resident.
        doing: what is being done, such as ``reading PATH``; empty while nothing is.
        idle: seconds since anything was read or looked at.
        holding: the resource for whose pressure reading pauses, or an empty string.
        kept: why the page cache does not keep what was read, or an empty string.
        complete: whether all is resident.
        looked: whether all has been looked at once.
    """
    for name, each in totals.items():
        if each.problems:
            more = f" (and {len(each.problems) - 1} more)" if len(each.problems) > 1 else ""
            return f"{name}: {each.problems[0]}{more}"
    cause = limited(totals, budget) or kept
    if cause:
        return cause
    planned = sum(each.wanted - each.over_budget for each in totals.values())
    resident = sum(each.resident for each in totals.values())
    unknown = sum(each.unknown for each in totals.values())
    blind = f"; of {sizes.format_binary(unknown)} the kernel does not tell this user" if unknown else ""
    far = f"{sizes.format_binary(resident)} of {sizes.format_binary(planned)} are resident{blind}"
    if not looked:
        far = "nothing has been looked at yet"
    if complete:
        within = f" within {budget.bound}" if any(each.over_budget for each in totals.values()) else ""
        return f"warm{within}: {far}"
    if holding:
        others = "memory" if holding == "memory" else "storage"
        return f"paused, as others wait for {others}: {far}"
    if doing and idle > STALL:
        return f"nothing has moved for {idle:.0f} s, {doing}: does the volume hang? {far}"
    return f"not warm yet: {far}"
