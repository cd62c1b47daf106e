"""An image's ENTRYPOINT: ``python -I -S /opt/warmimage/entrypoint [ENGINE ARGUMENT]...``."""

import sys

if not __package__:
    # Run as a folder, Python puts the folder itself on sys.path and knows no package: give the modules theirs.
    sys.path[0] = sys.path[0].rstrip("/").rpartition("/")[0] or "/"
    __package__, __spec__ = "entrypoint", None  # Python 3.12 and later warn when the two disagree


def run() -> int:
    """Do what the container was started for: a command of the image's own, or the server."""
    if sys.argv[1:2] == ["capture"] and len(sys.argv) > 2:
        from .tiers.snapshot import capture

        return capture.main(sys.argv[2:])
    if sys.argv[1:2] == ["warm"]:
        from .warm import command

        return command.main(sys.argv[2:])
    if sys.argv[1:2] == ["collect"] and len(sys.argv) == 3:
        from . import caches

        return caches.collect(sys.argv[2])
    if sys.argv[1:2] == ["prefetch"]:
        from . import prefetch

        return prefetch.main(sys.argv[2:])
    return _serve()


def _serve() -> int:
    """Run the supervisor, or where this Python cannot even load it, the engine's own command."""
    try:
        from .main import main
    except Exception as error:
        import json
        import os

        print(f"warmimage: supervisor skipped: {error!r}; starting the engine as it is", file=sys.stderr, flush=True)
        with open(os.path.join(sys.path[0], "plan.json"), encoding="utf-8") as file:
            engine = json.load(file)["engine"]
        os.chdir(engine["directory"])
        command = [*engine["command"], *engine["args"], *sys.argv[1:]]
        os.execvp(command[0], command)  # noqa: S606 - the engine's own command
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
