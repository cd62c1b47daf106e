"""The image's only script: ``python -I -S /opt/warmimage/entrypoint [COMMAND] [ARGUMENT]...``.

Without a command of ``_COMMANDS`` it is the image's ENTRYPOINT: it starts the server, and every argument is the
engine's.  With one, it is a build step, a helper, a health check, or the engine's own process under a tier.
"""

import os
import sys
from importlib import import_module

if not __package__:
    # Run as a script, Python knows no package: give the modules theirs.  It has put this directory on sys.path, unless
    # PYTHONSAFEPATH or -I kept it from doing so for a file.
    _OWN = os.path.dirname(os.path.abspath(__file__))
    if not sys.path or os.path.abspath(sys.path[0]) != _OWN:
        sys.path.insert(0, "")
    sys.path[0] = os.path.dirname(_OWN)
    __package__, __spec__ = "entrypoint", None  # Python 3.12 and later warn when the two disagree

#: Command -> module whose ``main`` takes the arguments and returns an exit code, and the least arguments it takes.  An
#: engine argument that looks like a command with too few arguments stays the engine's.
_COMMANDS = {
    # of the image
    "warm": ("warm.command", 0),
    "prefetch": ("startup.prefetch", 0),
    "collect": ("startup.compile_caches", 1),
    "healthcheck": ("healthcheck", 0),
    # build steps
    "record-closure": ("image_build.record_closure", 2),
    "capture": ("tiers.snapshot.capture", 1),
    # in the engine's interpreter: started by PID 1, or by the capture
    "download": ("model.download", 3),
    "launch": ("tiers.preload.launch", 2),
    "zygote": ("tiers.zygote.process", 2),
    "captured-process": ("tiers.snapshot.captured_process", 1),
    # in a container that ``warmimage doctor`` starts
    "doctor-probe": ("doctor_probe", 0),
}


def run() -> int:
    """Run a command of the image's own, or the server."""
    name, least = _COMMANDS.get(sys.argv[1] if len(sys.argv) > 1 else "", ("", 0))
    if not name or len(sys.argv) - 2 < least:
        return _serve()
    code: int = import_module(f".{name}", __package__).main(sys.argv[2:])
    return code


def _serve() -> int:
    """Run the supervisor, or where this Python cannot even load it, the engine's own command."""
    try:
        from .startup.main import main
    except Exception as error:
        import json

        print(f"warmimage: supervisor skipped: {error!r}; starting the engine as it is", file=sys.stderr, flush=True)
        # Untyped: a Python that cannot load the supervisor may not be able to load the module ``plan`` either.
        with open(os.path.join(sys.path[0], "plan.json"), encoding="utf-8") as file:
            engine = json.load(file)["engine"]
        os.chdir(engine["directory"])
        command = [*engine["command"], *engine["args"], *sys.argv[1:]]
        os.execvp(command[0], command)  # noqa: S606 - the engine's own command
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
