"""docs/variables.md, from the table in the entrypoint."""

from __future__ import annotations

from warmimage.entrypoint.environment.variables import TABLE

_PAGE = """\
# Variables of a container

{header}
In tier `snapshot` the build imported the engine's modules, with the image's own variables. A container may set others.
Each variable has one of three outcomes:

- `no effect at import`: no module kept a value of it, so it works as in tier `plain`.
- `derived again`: the values that modules kept are computed again before the engine starts.
- `declines`: the tier declines and names the variable, and the next tier starts the engine. To keep the tier, put the
  variable into `env` of `warmimage.yaml`, as the message shows, and build the image again.

The capture records which module reads which variable. The tier declines for a variable that a module read and that the
table does not have. It also declines if a module outside the known list read a variable of the table.
The same rules hold for a process that the engine starts with variables of its own (tiers `snapshot` and `zygote`): for
`declines` that process is a new interpreter. Variables that only native code reads do not matter there.

| variable | outcome | why |
| --- | --- | --- |
{rows}
"""


def variables_text(header: str) -> str:
    """Return docs/variables.md.

    Args:
        header: the line that marks the page as generated.
    """
    rows = (
        f"| {' '.join(f'`{name}`' for name in variable.names)} | {variable.effect} | {variable.reason} |"
        for variable in TABLE
    )
    return _PAGE.format(header=header, rows="\n".join(rows))
