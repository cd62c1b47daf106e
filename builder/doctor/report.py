"""Findings as a page for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from .finding import Finding, Status
from .table import GROUPS

#: Version of the JSON's format.
SCHEMA = 1

_STYLES: dict[Status, str] = {"ok": "green", "info": "dim", "warning": "yellow", "missing": "red"}


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 4 if a requirement is not met, else 0."""
    return 4 if any(finding.status == "missing" for finding in findings) else 0


def to_json(image: str | None, findings: Sequence[Finding], seconds: float) -> str:
    """Return the report as JSON."""
    data = {
        "schema": SCHEMA,
        "image": image,
        "seconds": round(seconds, 2),
        "exit_code": exit_code(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(data, indent=2)


def show(findings: Sequence[Finding], seconds: float) -> None:
    """Print the page for people on standard output: a table by groups, then the fixes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    page = Console(highlight=False, emoji=False, markup=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for group in GROUPS:
        rows = [finding for finding in findings if finding.group == group]
        if not rows:
            continue
        table.add_row(Text(group, style="bold"), "", "")
        for finding in rows:
            wanted = f" (expected: {finding.expected})" if finding.expected and finding.status != "ok" else ""
            shown = Text(f"  {finding.status}", style=_STYLES[finding.status])
            table.add_row(shown, finding.title, Text(finding.found + wanted))
        table.add_row("", "", "")
    page.print(table)
    for status in ("missing", "warning", "info"):
        for finding in findings:
            if finding.status == status and finding.fix:
                page.print(Text(f"{status}: {finding.group}, {finding.title}\n  fix: {finding.fix}"), soft_wrap=True)
    counts = {name: sum(finding.status == name for finding in findings) for name in _STYLES}
    page.print(f"{', '.join(f'{count} {name}' for name, count in counts.items())} ({seconds:.1f} s)")
