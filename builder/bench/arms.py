"""The arms of a comparison: tiers of one image, each with its own variables, and at most one other image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import engines
from ..docker_api.container_options import Needs, needs_of
from ..errors import UsageError
from ..plan import Plan
from .result import ArmFacts

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SECRET = re.compile(r"(?:key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Arm:
    """One arm, which is started in every round.

    Attributes:
        name: the arm as the command line names it, with ``#2`` if it comes twice.
        image: reference of its image.
        plan: the image's plan; ``None`` if warmimage did not build it.
        tier: the expected tier; ``None`` for any.
        environment: variables of the container.
        arguments: engine arguments.
        needs: what its container needs.
        health_path: HTTP path that answers 200 when the server is ready.
    """

    name: str
    image: str
    plan: Plan | None
    tier: str | None
    environment: Mapping[str, str]
    arguments: tuple[str, ...]
    needs: Needs
    health_path: str

    def facts(self) -> ArmFacts:
        """Return the arm's facts for the result, without secrets."""
        return ArmFacts(
            name=self.name,
            image=self.image,
            tier=self.tier,
            variables=tuple(sorted(self.environment)),
            arguments=without_secrets(self.arguments),
        )


def arms_of(
    text: str, reference: str, plan: Plan, environment: Mapping[str, str], arguments: Sequence[str]
) -> list[Arm]:
    """Return the arms of ``--arms``: tiers of one image.

    Args:
        text: tiers, separated by commas, each with variables after ``+``: ``plain,preload+WARMIMAGE_PREFETCH=off``.
            Empty for every tier of the image, the slowest first.
        reference: the image.
        plan: its plan.
        environment: variables that every arm has.
        arguments: engine arguments.

    Raises:
        UsageError: a tier is not in the image, or a variable has no name.
    """
    entries = text.split(",") if text else list(reversed(plan.tiers))
    seen: Counter[str] = Counter()
    arms = []
    for entry in entries:
        tier, *settings = entry.strip().split("+")
        if tier not in plan.tiers:
            raise UsageError(
                "the image has no such tier", where="--arms", got=tier or "nothing", expected=", ".join(plan.tiers)
            )
        variables: dict[str, str] = {}
        for setting in settings:
            if not _VARIABLE.match(setting):
                raise UsageError(
                    "an arm's variable needs a name and a value", where="--arms", expected="TIER+NAME=VALUE"
                )
            name, _, value = setting.partition("=")
            if name == "WARMIMAGE_START":
                raise UsageError("an arm's tier is set by its first part", where="--arms", got=f"{tier}+{name}")
            if _SECRET.search(name):
                raise UsageError(
                    "an arm's name is public and must not hold a secret",
                    where="--arms",
                    got=name,
                    fix=f"--env {name}=...",
                )
            variables[name] = value
        seen[entry.strip()] += 1
        count = seen[entry.strip()]
        arms.append(
            Arm(
                name=entry.strip() + (f"#{count}" if count > 1 else ""),
                image=reference,
                plan=plan,
                tier=tier,
                environment={**environment, **variables, "WARMIMAGE_START": tier},
                arguments=tuple(arguments),
                needs=needs_of(plan, arguments),
                health_path=plan.engine.health_path,
            )
        )
    return arms


def against(
    reference: str,
    plan: Plan | None,
    like: Plan,
    environment: Mapping[str, str],
    arguments: Sequence[str],
    port: int,
    unprivileged: bool,
) -> Arm:
    """Return the arm of another image, which warmimage built or which serves the OpenAI API.

    Args:
        reference: the image.
        plan: its plan; ``None`` if warmimage did not build it.
        like: the plan of the image to compare with, which has the same model path.
        environment: variables that every arm has.
        arguments: the image's own arguments.
        port: its TCP port, if warmimage did not build it.
        unprivileged: whether its user is not root.
    """
    if plan:
        needs, health = needs_of(plan, arguments), plan.engine.health_path
    else:
        # The engine is unknown.  Room in /dev/shm costs nothing until it is used.
        shared_memory = max(adapter.shared_memory for adapter in engines.adapters().values())
        needs = Needs(port, like.model.path, False, max(shared_memory, like.engine.shared_memory), unprivileged)
        health = "/health"
    return Arm(reference, reference, plan, None, dict(environment), tuple(arguments), needs, health)


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return engine arguments with the values of options that name a secret replaced by ``***``."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hide and not argument.startswith("--"):
            shown.append("***")
            continue  # an option may take several
        hide = False
        if argument.startswith("--") and _SECRET.search(name):
            hide = not equals
            shown.append(f"{name}=***" if equals else argument)
        else:
            shown.append(argument)
    return tuple(shown)
