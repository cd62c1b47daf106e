"""docs/variables.md, from the table in the entrypoint."""

from __future__ import annotations

from warmimage.entrypoint.environment.variables import TABLE

_PAGE = """\
# Variables of a container

{header}
In tier `snapshot` the engine's modules were imported when the image was built, with the image's own variables.
A container sets others. For each the outcome is one of three:

- `no effect at import`: no module kept anything of it, so it works as in tier `plain`;
- `derived again`: what modules kept of it is computed again before the engine starts;
- `declines`: the tier names it and the next tier starts the engine. To keep the tier, put the variable into `env` of
  `warmimage.yaml`, as the message says, and build the image again.

What decides is what the imports have read, which is recorded at capture. A variable that is not in the table, and that
a module read, declines. So does one in the table that was read by a module of which the derivation does not know.
The same holds for a process that the engine starts with other variables of its own (tiers `snapshot` and `zygote`):
where the table says `declines`, that process is a new interpreter. What native code alone reads is of no concern there.

| variable | outcome | why |
| --- | --- | --- |
{rows}
"""


def variables_text(header: str) -> str:
    """Return docs/variables.md.

    Args:
        header: the line that says that the page is generated.
    """
    rows = (
        f"| {' '.join(f'`{name}`' for name in variable.names)} | {variable.effect} | {variable.reason} |"
        for variable in TABLE
    )
    return _PAGE.format(header=header, rows="\n".join(rows))
