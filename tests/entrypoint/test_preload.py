"""Tier ``preload`` inside the engine's process: a script notices no difference, and libraries load beside it."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from .harness import Image

pytestmark = pytest.mark.timeout(60)

#: Prints what a script can know about how it is run.
REPORT = '''"""A script."""
import json, os, signal, sys
import __main__
def annotated(number: int) -> None: ...
print(json.dumps({
    "name": __name__, "file": __file__, "argv": sys.argv, "path": sys.path, "doc": __main__.__doc__,
    "main": __main__.__dict__ is globals(), "spec": __spec__ and __spec__.name, "package": __package__,
    "annotations": repr(annotated.__annotations__), "environment": dict(os.environ), "cwd": os.getcwd(),
    "flags": list(sys.flags), "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
}))
sys.exit(3)
'''


def compare(image: Image, by_hand: list[str], launched: list[str], **variables: str) -> dict[str, Any]:
    """Run the report by hand and in the tier; check that both are the same and return it."""
    environment = image.environment(**variables)
    launch = [image.python, image.main, "launch", "", *launched]
    done = [
        subprocess.run(command, cwd=image.root, env=environment, capture_output=True, text=True, check=False)
        for command in (by_hand, launch)
    ]
    assert [run.returncode for run in done] == [3, 3], done
    assert [run.stderr for run in done] == ["", ""]
    expected, found = (json.loads(run.stdout) for run in done)
    assert found == expected
    return dict(expected)


def test_console_script_is_run_as_the_interpreter_would(image: Image) -> None:
    script = image.script("served", REPORT)
    words = ["a b", "--port=1"]
    report = compare(image, [str(script), *words], [str(script), *words])
    assert (report["name"], report["argv"]) == ("__main__", [str(script), *words])
    assert report["path"][0] == str(image.bin)

    link = image.root / "link"
    link.symlink_to(script)
    assert compare(image, [str(link)], [str(link)])["path"][0] == str(image.bin), "the script's own folder"
    compare(image, [str(script)], [str(script)], PYTHONSAFEPATH="1", PYTHONPATH=str(image.model))


def test_module_is_run_as_the_interpreter_would(image: Image) -> None:
    package = image.model / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "served.py").write_text(REPORT)
    words = ["-m", "package.served", "-m", "x"]
    for variables in ({}, {"PYTHONSAFEPATH": "1"}):
        report = compare(
            image, [image.python, *words], [image.python, *words], PYTHONPATH=str(image.model), **variables
        )
        assert report["argv"] == [str(package / "served.py"), "-m", "x"]
        assert report["spec"] == "package.served"


SPAWNING = """
import multiprocessing
def double(number):
    return number * 2
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [1, 2]))
"""


def test_spawned_processes_find_the_script(image: Image) -> None:
    script = image.script("spawning", SPAWNING)
    done = image.python_run(image.main, "launch", "", str(script))
    assert (done.stdout, done.stderr) == ("[2, 4]\n", "")


FORKING_SERVER = """
import multiprocessing, os, sys
def child():
    print("heavy" in sys.modules, os.environ.get("START_METHOD"), flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=child)
    process.start()
    process.join()
"""


def test_forkserver_imports_beside_an_engine_that_accepts_it(image: Image) -> None:
    (image.root / "heavy.py").write_text("")
    script = str(image.script("forking", FORKING_SERVER))
    image.write_plan(
        command=["forking"],
        modules=["heavy"],
        start_methods=["spawn", "forkserver"],
        start_method_variable="START_METHOD",
    )
    launch = [image.main, "launch", str(image.timeline), script]
    done = image.python_run(*launch, PYTHONPATH=str(image.root))
    assert (done.stdout, done.stderr) == ("True forkserver\n", "")
    assert len(image.events("forkserver.prepared")) == 1

    image.timeline.unlink()
    done = image.python_run(*launch, PYTHONPATH=str(image.root), START_METHOD="spawn")
    assert (done.stdout, done.stderr) == ("False spawn\n", ""), "the user's own choice wins"
    assert image.events("forkserver.declined")[0]["reason"] == "START_METHOD=spawn is the user's own choice"


#: Starts the preload of the closure's libraries and reports from a forked child whether they are mapped.
FORKING = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from entrypoint import timeline
from entrypoint.tiers.preload import libraries
began = time.monotonic()
def mapped():
    with open("/proc/self/maps") as file:
        return {library!r} in file.read()
before = mapped()
thread = libraries.preload(timeline.Timeline({timeline!r}, "engine"))
returned = time.monotonic() - began
if os.fork() == 0:
    print(json.dumps([before, mapped(), returned]), flush=True)
    os._exit(0)
os.wait()
sys.exit(thread.is_alive())
"""


def forked(image: Image, library: str) -> list[Any]:
    code = FORKING.format(root=str(image.root), library=os.path.basename(library), timeline=str(image.timeline))
    done = image.python_run("-W", "error", "-S", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout))


def test_libraries_of_the_closure_are_opened(image: Image) -> None:
    names = (ctypes.util.find_library(name) for name in ("stdc++", "crypto", "z"))
    library = next((name for name in names if name), None)
    if not library:
        pytest.skip("no common shared library found")
    image.closure({"files": [], "libraries": [library, "/no/such/library.so"]})
    assert forked(image, library)[:2] == [False, True]
    (event,) = image.events("libraries.opened")
    assert (event["opened"], event["of"]) == (1, 2)


def test_slow_library_holds_up_the_fork_and_nothing_else(image: Image) -> None:
    """Invariant 3: a process of ours forks no child while a second thread of ours runs."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    source, library = image.root / "slow.c", image.root / "libslow.so"
    source.write_text("#include <unistd.h>\n__attribute__((constructor)) static void slow(void) { usleep(700000); }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    image.closure({"files": [], "libraries": [str(library)]})
    before, in_child, returned = forked(image, str(library))
    assert not before
    assert in_child, "a child is forked with the library open, never with the dynamic loader's lock held"
    assert returned < 0.5
    assert image.events("libraries.opened")[0]["seconds"] >= 0.7


@pytest.mark.parametrize("closure", [{}, [], {"libraries": []}], ids=str)
def test_closure_without_libraries_is_declined(image: Image, closure: object) -> None:
    image.closure(closure)
    assert image.run(image.mark, "end:0", WARMIMAGE_PREFETCH="off").code == 0
    assert image.started == ["preload"]
    assert len(image.events("libraries.declined")) == 1


def test_modules_beside_the_launcher_are_not_the_engines_to_import(image: Image) -> None:
    script = image.script("importing", "import ladder")
    done = image.python_run(image.main, "launch", "", str(script))
    assert "No module named 'ladder'" in done.stderr
