"""What is to be resident: the files of a snapshot, the image's hot files, the weights."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..model import weights
from ..settings import CLOSURE, PLAN, ROOT, SNAPSHOT, Settings, load

#: Where the model is in an image without a plan, the warmer's own.
MODEL = "/model"

#: How many folders deep models are looked for below a folder that holds none itself: a hub's cache has three.
_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """The files of one target.

    Attributes:
        paths: in the order in which they are read.
        problems: one line for each file that should be there and cannot be warmed, and why.
        declined: why there are none to warm, or an empty string.
    """

    paths: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    declined: str = ""


@dataclass(frozen=True)
class Places:
    """Where the targets' files are.

    Attributes:
        directories: model directories; empty for what the image's plan says, without one for ``MODEL``.
        environment: this process's variables.
        plan: path of the image's plan.
        closure: path of the image's closure.
        snapshot: folder of the image's snapshot.
        root: the product's own folder in the image.
    """

    directories: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    plan: str = PLAN
    closure: str = CLOSURE
    snapshot: str = SNAPSHOT
    root: str = ROOT

    def find(self, target: str) -> Found:
        """Return the files of a target, as they are now; nothing is raised."""
        return {"snapshot": self._snapshot, "image": self._image, "weights": self._weights}[target]()

    def _snapshot(self) -> Found:
        folder = self.environment.get("WARMIMAGE_SNAPSHOT_DIR", "") or self.snapshot
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return Found(declined="the image has no snapshot")
        return Found(tuple(path for name in names if os.path.isfile(path := os.path.join(folder, name))))

    def _image(self) -> Found:
        """Return what a start of the engine reads of the image, as it was recorded when the image was built."""
        try:
            with open(self.closure, encoding="utf-8") as file:
                data = json.load(file)
            recorded = [str(path) for path in (*data["files"], *data["libraries"], *data.get("read", ()))]
        except FileNotFoundError:
            return Found(declined="the image has no closure")
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Found(declined=f"the closure cannot be read: {error!r}")
        return Found(tuple(dict.fromkeys([*self._own(), *recorded])))

    def _own(self) -> Iterator[str]:
        """Yield what PID 1 reads before the engine: its interpreter and its own modules."""
        settings = self._settings()
        if isinstance(settings, Settings):
            yield os.path.realpath(settings.plan.python)
        yield from (self.plan, self.closure)
        for folder, _, names in os.walk(os.path.join(self.root, "entrypoint")):
            yield from (os.path.join(folder, each) for each in sorted(names))

    def _settings(self) -> Settings | str:
        """Return the settings of a start with no arguments, or why there are none."""
        try:
            return load((), self.environment, "", self.plan)
        except (OSError, ValueError) as error:
            return f"the image's plan cannot be read: {error!r}"

    def _weights(self) -> Found:
        settings = self._settings()
        told = weights.Loading("") if isinstance(settings, str) else weights.loading(settings)
        directories = self.directories if os.path.exists(self.plan) else self.directories or (MODEL,)
        if directories:
            if told.refusal:
                return Found(declined=told.refusal)
            return _joined([_in_directory(directory, told) for directory in directories])
        if isinstance(settings, str):
            return Found(problems=(settings,))
        model = weights.find(settings)
        if model.declined and told.format not in told.unread and "://" not in told.model:
            return Found(problems=(model.declined,))  # it should be there
        return _of_model(model)


def _in_directory(directory: str, told: weights.Loading) -> Found:
    """Return the files of the model in a folder; of a folder without weights, those of the models below it.

    Of several kinds of weights, those that the image's engine loads, as it is told.
    """
    try:
        model = weights.in_directory(directory, told.format, preferred=told.preferred)
    except (OSError, ValueError) as error:
        return Found(problems=(f"{directory}: {getattr(error, 'strerror', error)}",))
    if model.weights:
        return _of_model(model)
    below = []
    for folder in _folders_below(directory):
        try:
            each = weights.in_directory(folder, told.format, preferred=told.preferred)
        except (OSError, ValueError):  # such as lost+found at the top of a volume: no model that this user could serve
            continue
        if each.weights:
            below.append(_of_model(each))
    return _joined(below) if below else _of_model(model)


def _folders_below(directory: str) -> Iterator[str]:
    for folder, names, _ in os.walk(directory):
        depth = len(os.path.relpath(folder, directory).split(os.sep)) if folder != directory else 0
        names[:] = sorted(name for name in names if not name.startswith(".")) if depth < _DEPTH else []
        yield from (os.path.join(folder, name) for name in names)


def _of_model(model: weights.Model) -> Found:
    problems = model.skipped
    if not (model.weights or model.skipped or model.declined):
        problems = (f"no weights in {model.directory}",)
    return Found(model.files, problems, model.declined or "")


def _joined(parts: Sequence[Found]) -> Found:
    """Return several folders' files as one target's."""
    paths = _flat(part.paths for part in parts)
    declined = [part.declined for part in parts if part.declined]
    return Found(paths, _flat(part.problems for part in parts), declined[0] if declined and not paths else "")


def _flat(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(each for part in lists for each in part)
