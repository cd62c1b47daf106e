"""Run inside an image, as ``python -c``: import its closure by ``python -c`` and in tier ``zygote``, in turn.

Standard library only.  Writes a line of JSON for each run: ``arm``, ``seconds`` from the start of the process to the
end of the imports, ``cpu_seconds``, ``modules``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = "/opt/warmimage"

#: What both arms do when everything is imported: say when that was, and go without tearing anything down.
LAST = (
    "import json, os, sys, time; used = os.times(); "
    "print(json.dumps([time.monotonic(), used.user + used.system, len(sys.modules)]), flush=True); os._exit(0)\n"
)


def main(rounds: int) -> None:
    """Run both arms this many times, and once more before, so that every file is in the page cache."""
    with open(f"{ROOT}/closure.json", encoding="utf-8") as file:
        closure = json.load(file)
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "program.py")
        with open(program, "w", encoding="utf-8") as file:
            file.write(LAST)
        statements = "".join(f"import {module}\n" for module in closure["modules"])
        # As the tier has it: the libraries that the engine preloads are there from the start.
        preload = {"LD_PRELOAD": closure["preload"]} if closure.get("preload") else {}
        timeline = os.path.join(folder, "timeline.jsonl")
        arms = {
            "python -c": ([sys.executable, "-c", statements + LAST], {}),
            "zygote": ([sys.executable, f"{ROOT}/entrypoint/__main__.py", "zygote", timeline, program], preload),
        }
        for number in range(rounds + 1):
            for arm in list(arms)[:: 1 if number % 2 else -1]:
                command, variables = arms[arm]
                began = time.monotonic()
                done = subprocess.run(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, check=True)
                # The engine's modules may write to standard output, too.
                ended, cpu, modules = json.loads(done.stdout.splitlines()[-1])
                if number:
                    row = {"arm": arm, "seconds": ended - began, "cpu_seconds": cpu, "modules": modules}
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
