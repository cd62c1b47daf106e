"""The image's ``capture`` command: import the engine in a process of the image's user, and dump it.

Runs as root in a container of the image, with the capabilities SYS_ADMIN and SYS_PTRACE and no seccomp filter.  The
captured process has none of that, and ``no_new_privs``: a container that restores it need not have more than it had.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence

from .. import program
from ..accelerator import Accelerator
from ..closure import Closure
from ..criu_folder import file_capability
from ..settings import ROOT, Settings, load
from ..timeline import say
from . import criu, verification
from .manifest import NAME, Manifest, cpu_features, identity, read_contract

#: Exit codes: it cannot be captured (EX_SOFTWARE of sysexits.h), or not with what this container may do (EX_NOPERM).
EXIT_NOT_CAPTURED, EXIT_NOT_PERMITTED = 70, 77

#: PIDs of the captured process begin here: at a restore its PID must be free.
_FIRST_PID = 20000

#: Threads that the process may have.  None of the others is Python's: CUDA's driver and jemalloc leave one each.
MOST_THREADS = 4

#: Files that only this process can have open, and that CRIU makes anew: those by which CUDA's driver wakes its thread.
_OWN_FILES = ("anon_inode:[eventfd]", "anon_inode:[eventpoll]")

#: What the kernel calls memory that is mapped and no file.
_MEMORY = ("/dev/zero (deleted)", "/memfd:", "/SYSV")

#: Variables that a container or a shell sets by itself.
_OF_THE_CONTAINER = ("HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "TERM")

#: Variables that hold no secret, and by which a process finds its files, its language and its GPUs.
_ALWAYS = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TZ")
_ALWAYS_BEGIN = ("LC_", "NVIDIA_", "PYTHON")

#: Bytes of command line that process listings will have room for.
_ROOM = 4000

#: Capabilities with which CRIU dumps a process of its own user: SYS_PTRACE, SYS_ADMIN, CHECKPOINT_RESTORE.
_DUMP_CAPABILITIES = 1 << 19 | 1 << 21 | 1 << 40

_MS_REMOUNT, _MS_BIND, _PR_SET_NO_NEW_PRIVS = 32, 4096, 38

#: Version of the structures that ``capset`` takes (``_LINUX_CAPABILITY_VERSION_3``).
_CAPABILITIES_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class NotCaptured(Exception):
    """There is no snapshot; the message says why."""


def main(directory: str, also: Sequence[str] = ()) -> int:
    """Capture into a directory, and return the exit code.

    Args:
        directory: where to write; it is made.
        also: names of variables that the imports may see beside the image's own.
    """
    if os.getuid() != 0:
        say("error: capture runs as root: docker run --user 0 --cap-add SYS_ADMIN --cap-add SYS_PTRACE ...")
        return EXIT_NOT_PERMITTED
    code = EXIT_NOT_CAPTURED
    try:
        settings = load((), os.environ, "")
        user = settings.plan["user"]
        os.makedirs(directory, exist_ok=True)
        _clear(directory)
        os.chown(directory, user, 0)
        _raise_pids()
        manifest = _capture(directory, settings, user, also)
        with open(os.path.join(directory, NAME), "w", encoding="utf-8") as file:
            file.write(manifest.to_json())
        _make_readable(directory)
        say(f"captured {manifest.modules} modules, {manifest.bytes >> 20} MiB")
        code = 0
    except PermissionError as error:
        say(f"error: not captured: {error}; give the container SYS_ADMIN, SYS_PTRACE and seccomp=unconfined")
        code = EXIT_NOT_PERMITTED
    except (NotCaptured, OSError, ValueError, KeyError) as error:
        say(f"error: not captured: {error}")
    return code


def _capture(directory: str, settings: Settings, user: int, also: Sequence[str]) -> Manifest:
    if not os.path.isdir(criu.FOLDER):
        raise NotCaptured("the image has no CRIU")
    found = program.find(settings)
    if not found:
        raise NotCaptured(program.absent(settings))
    note = os.path.join("/tmp", "snapshot-point.json")  # noqa: S108 - of this container alone
    names = {*settings.plan["environment"], *Closure.read().variables, *also}
    pid = _start(found.interpreter, user, note, images_own(os.environ, names))
    try:
        contract, facts = read_contract(note)
        refuse_uncapturable(pid)
        files = mapped_files(pid)
        _dump(pid, directory, user)
    finally:
        criu.kill(pid)
    verification.record(directory, facts["sources"])
    engine = settings.engine
    with os.scandir(directory) as entries:
        size = sum(entry.stat().st_size for entry in entries)
    return Manifest(
        engine={"name": engine["name"], "version": engine["version"]}, criu=criu.version(), kernel=os.uname().release,
        machine=os.uname().machine, cpu_features=tuple(cpu_features()), uid=user, python=found.interpreter,
        closure=Closure.digest(), files=files, contract=contract, modules=facts["modules"], bytes=size,
        accelerator=Accelerator.here(),
    )  # fmt: skip


def images_own(variables: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Return an environment without what this container alone has: on a node that may be tokens, and they would stay.

    Args:
        variables: the container's environment.
        names: of the image's variables.
    """
    return {
        name: value
        for name, value in variables.items()
        if name not in _OF_THE_CONTAINER and (name in names or name in _ALWAYS or name.startswith(_ALWAYS_BEGIN))
    }


def _start(python: str, user: int, note: str, environment: dict[str, str]) -> int:
    """Start the process that is to be captured, and return its PID when it has stopped at the snapshot point."""
    preload = Closure.read().preload
    if preload:
        environment["LD_PRELOAD"] = ":".join(filter(None, (preload, environment.get("LD_PRELOAD"))))
    script = os.path.join(ROOT, "entrypoint", "snapshot", "point.py")
    log = os.open(f"{note}.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _become(user)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.chdir("/")
            os.execve(python, [python, script, note, " " * _ROOM], environment)  # noqa: S606
        except BaseException as error:
            os.write(log, repr(error).encode())
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, os.WUNTRACED)
    said = os.pread(log, 2000, 0).decode(errors="replace")
    os.close(log)
    if not os.WIFSTOPPED(status):
        raise NotCaptured(f"the engine's imports ended with wait status {status}: {said or _last_event(note)}")
    return pid


def _become(user: int) -> None:
    """Become the image's user, with no capability, for good."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(user, user, user)
    # Root would keep what this container has.  With no_new_privs it gets none of it again by an exec.
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    if _libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")


def refuse_uncapturable(pid: int) -> None:
    """Check that a stopped process has nothing that another container would not have.

    Raises:
        NotCaptured: it has; the message names it.
    """
    threads = os.listdir(f"/proc/{pid}/task")
    if len(threads) > MOST_THREADS:
        names = []
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                names.append(file.read().strip())
        raise NotCaptured(f"it has {len(threads)} threads: {', '.join(names)}")
    targets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in sorted(os.listdir(f"/proc/{pid}/fd"), key=int)]
    for target in targets:
        both_ends = target.startswith("pipe:[") and targets.count(target) > 1
        if target not in (os.devnull, *_OWN_FILES) and not both_ends:
            raise NotCaptured(f"it has {target} open")
    for path in _mapped(pid):
        if path.endswith(" (deleted)") or path.startswith(("/dev/", "/tmp/", "/memfd:")):  # noqa: S108 - only named
            raise NotCaptured(f"it has mapped {path}, which is no file of the image")


def mapped_files(pid: int) -> tuple[tuple[str, int, int], ...]:
    """Return what identifies each file that a process has mapped."""
    return tuple(identity(path) for path in _mapped(pid))


def _mapped(pid: int) -> list[str]:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        rows = (row.rstrip("\n").split(None, 5) for row in file)
        paths = {row[5] for row in rows if len(row) == 6 and row[5].startswith("/")}
    return sorted(path for path in paths if not path.startswith(_MEMORY))


def _dump(pid: int, directory: str, user: int) -> None:
    """Dump a stopped process as its own user: this machine's root may not even read another user's limits."""
    with_capabilities = "/tmp/criu-dump"  # noqa: S108 - of this container alone
    shutil.copyfile(os.path.join(criu.FOLDER, "criu"), with_capabilities)
    os.chmod(with_capabilities, 0o755)  # noqa: S103 - it is executed by another user
    _give_capabilities(with_capabilities)
    log = os.path.join(directory, "dump.log")
    command = [
        with_capabilities, "dump", "--unprivileged", "--skip-file-rwx-check", "--shell-job", "--tree", str(pid),
        "--images-dir", directory, "-v1", "--log-file", log,
    ]  # fmt: skip
    dumper = os.fork()
    if dumper == 0:
        try:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(user, user, user)
            os.execve(with_capabilities, command, {"XDG_RUNTIME_DIR": directory})  # noqa: S606
        except BaseException as error:
            say(f"CRIU cannot be executed: {error!r}")
        finally:
            os._exit(127)
    _, status = os.waitpid(dumper, 0)
    if status:
        raise NotCaptured(f"CRIU: {criu.last_error(log, status)}")
    for name in os.listdir(directory):
        # Of a namespace of clocks, which to make would take another capability; and what only the dump needed.
        if name.startswith(("timens-", "stats-", "dump.log", "criu.kdat")):
            os.unlink(os.path.join(directory, name))


def _give_capabilities(path: str) -> None:
    """Set as file capabilities those for dumping that this container has."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        bounding = next(int(row.split()[1], 16) for row in file if row.startswith("CapBnd"))
    mask = _DUMP_CAPABILITIES & bounding
    os.setxattr(path, "security.capability", file_capability(mask))


def _raise_pids() -> None:
    """Have the next process get a high PID."""
    _libc.mount(None, b"/proc/sys", None, _MS_REMOUNT | _MS_BIND, None)  # runtimes mount it read-only
    with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as file:
        file.write(str(_FIRST_PID))


def _clear(directory: str) -> None:
    """Remove an earlier capture, the manifest first: it says that the rest is whole."""
    found = [name for name in os.listdir(directory) if name.endswith(".img")]
    for name in (NAME, verification.NAME, *found):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


def _make_readable(directory: str) -> None:
    """Give what was dumped to root, for everybody to read: the server's user must not change what it will run."""
    for path in (directory, *(os.path.join(directory, name) for name in os.listdir(directory))):
        os.chown(path, 0, 0)
        os.chmod(path, 0o755 if path == directory else 0o644)


def _last_event(note: str) -> str:
    """Return what the process said before it ended."""
    with contextlib.suppress(OSError), open(f"{note}.timeline", encoding="utf-8") as file:
        events = [json.loads(row) for row in file]
        return str(events[-1].get("reason", events[-1]["event"])) if events else ""
    return ""
