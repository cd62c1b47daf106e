"""Arms: what is compared.  Tiers of one image, each with variables of its own, and at most one other image."""

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
    """One thing to start again and again.

    Attributes:
        name: as it was written, ``#2`` after it where it came before.
        image: reference of its image.
        plan: the image's plan; ``None`` for an image of others.
        tier: the tier that is to come up; ``None`` where any may.
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
        """Return what the result says of it, without what may be secret."""
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
    """Return the arms that ``--arms`` names: tiers of one image of ours.

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
    asked = text.split(",") if text else list(reversed(plan.tiers))
    seen: Counter[str] = Counter()
    arms = []
    for written in asked:
        tier, *settings = written.strip().split("+")
        if tier not in plan.tiers:
            raise UsageError(
                "the image has no such tier", where="--arms", got=tier or "nothing", expected=", ".join(plan.tiers)
            )
        own: dict[str, str] = {}
        for setting in settings:
            if not _VARIABLE.match(setting):
                raise UsageError(
                    "an arm's variable needs a name and a value", where="--arms", expected="TIER+NAME=VALUE"
                )
            name, _, value = setting.partition("=")
            if name == "WARMIMAGE_START":
                raise UsageError("an arm's tier is its first word", where="--arms", got=f"{tier}+{name}")
            if _SECRET.search(name):
                raise UsageError(
                    "an arm's name is shown, and must hold no secret", where="--arms", got=name, fix=f"--env {name}=..."
                )
            own[name] = value
        seen[written.strip()] += 1
        count = seen[written.strip()]
        arms.append(
            Arm(
                name=written.strip() + (f"#{count}" if count > 1 else ""),
                image=reference,
                plan=plan,
                tier=tier,
                environment={**environment, **own, "WARMIMAGE_START": tier},
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
    """Return the arm of another image: one of ours, or any other that serves the OpenAI API.

    Args:
        reference: the image.
        plan: its plan, where it is ours.
        like: the plan of the image that it is compared with: the model's path is the same.
        environment: variables that every arm has.
        arguments: the image's own arguments.
        port: TCP port that it listens on, where it is not ours.
        unprivileged: whether its user is not root.
    """
    if plan:
        needs, health = needs_of(plan, arguments), plan.engine.health_path
    else:
        # Which engine it holds is not known, and room in /dev/shm costs nothing until it is used.
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
