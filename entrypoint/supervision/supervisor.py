"""PID 1: starts the engine, passes signals on, reaps orphans, sees when the server is ready, ends with its exit code.

One thread and one event loop; everything that could block is a child process or a non-blocking socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..kernel import proc
from ..timeline import Timeline, say
from .process_monitor import Processes
from .readiness import ReadinessProbe

#: Signals that are about this process itself, or that a process raises against itself; all others are passed on.
OWN_SIGNALS = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}

#: Signals by which a person or a runtime asks a server to stop.
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}


_PR_SET_CHILD_SUBREAPER = 36


class Verification(Protocol):
    """Verifies, during the engine's start, what the engine was started from."""

    #: What is damaged; ``None`` where nothing is, or that is not known yet.
    problem: str | None

    def poll(self) -> bool:
        """Return whether the verification has ended; does not wait."""


@dataclass(frozen=True)
class Started:
    """An engine that has been started.

    Attributes:
        pid: PID of its process, a child of this one.
        verification: verifies what it was started from; ``None`` where nothing need be verified.
    """

    pid: int
    verification: Verification | None = None


@dataclass(frozen=True)
class Outcome:
    """How the engine's process ended.

    Attributes:
        status: its wait status.
        ready: whether the server had become ready.
        stopped: whether a stop signal had been passed on to it.
        seconds: time from its start to its end.
        problem: why it was killed: what its tier started it from is damaged; ``None`` where it was not killed for that.
    """

    status: int
    ready: bool
    stopped: bool
    seconds: float
    problem: str | None = None

    @property
    def signal(self) -> int:
        """The number of the signal that killed it, or 0."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0

    @property
    def code(self) -> int:
        """The container's exit code: the engine's own, or 128 + signal as shells and container runtimes count."""
        return 128 + self.signal if self.signal else os.WEXITSTATUS(self.status)

    def __str__(self) -> str:
        if self.signal:
            return f"was killed by {signal_name(self.signal)}"
        return f"ended with exit code {self.code}"


class Supervisor:
    """Runs one engine process at a time, and helpers at the same time, as PID 1 of a container.

    An engine is run, and a stop signal is seen, only within ``signals``.

    Args:
        timeline: where its events go.

    Attributes:
        engine: PID of the engine's process, 0 while there is none.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._processes = Processes(timeline)
        self._pending: list[int] = []
        self._helpers: dict[int, str] = {}
        self.engine = 0
        self._stopped = 0
        self._wakeup = -1

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take this process's signals, to pass them on to the engine; on leaving, put the handlers back."""
        self._wakeup, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        before: dict[int, Any] = {}
        for number in signal.valid_signals() - OWN_SIGNALS | {signal.SIGCHLD}:
            with contextlib.suppress(OSError):  # the two signals that the C library keeps for itself
                before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for taken, handler in before.items():
                signal.signal(taken, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(before_fd)
            os.close(write_end)
            os.close(self._wakeup)
            self._wakeup = -1

    def helper(self, name: str, work: Callable[[Timeline], None]) -> int:
        """Run ``work`` in a forked child that ends with it, and return its PID.

        The child is stopped by ``stop_helpers``; how it ends never matters to the engine.
        """
        pid = os.fork()
        if pid == 0:
            reset_signals()
            code = 1
            try:
                work(self._timeline.fork(name))
                code = 0
            except BaseException as error:
                self._timeline.fork(name).event(f"{name}.failed", reason=repr(error))
                say(f"{name} skipped: {error!r}")
            finally:
                os._exit(code)
        self._helpers[pid] = name
        return pid

    def stop_helpers(self) -> None:
        """Ask every helper to end."""
        for pid in self._helpers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def run(
        self,
        start: Callable[[], Started],
        probe: ReadinessProbe | None,
        on_ready: Callable[[float], None],
    ) -> Outcome:
        """Start the engine and return when it has ended.

        Args:
            start: starts it, by ``spawn`` or otherwise.  A problem that the verification finds ends the engine, and the
                server is not ready before the verification has ended.
            probe: how to see that the server is ready; ``None`` where that cannot be seen.
            on_ready: called once with the seconds since the engine's start when the server is ready.

        Returns:
            How the engine ended, its status taken unchanged.
        """
        began = time.monotonic()
        started = start()
        self.engine, verification = started.pid, started.verification
        verified = verification is None
        listening = ready = False
        status: int | None = None
        while status is None:
            self._wait(probe if not ready else None)
            if verification and not verified and not self._stopped:  # a stop signal ends the verification, too
                verified = verification.poll()
                if verification.problem:
                    os.kill(self.engine, signal.SIGKILL)
            if probe and probe.listening and not listening:
                listening = True
                self._timeline.event("engine.listening")
            sound = verified and not (verification and verification.problem)
            if probe and probe.ready and sound and not ready:
                ready = True
                on_ready(time.monotonic() - began)
                self._processes.step(now=True)
            self._pass_signals_on()
            status = self._reap()
        if probe:
            probe.close()
        self.engine = 0
        problem = verification.problem if verification else None
        return Outcome(status, ready, bool(self._stopped), time.monotonic() - began, problem)

    def clear(self, seconds: float = 5.0) -> int:
        """End what a failed engine left behind, and return how many processes that were.

        Its processes would hold the port, memory or GPU that the next tier needs.  Only PID 1 adopts them, so elsewhere
        there is nothing to find.

        Args:
            seconds: how long they may take to end by SIGTERM before they are killed.
        """
        left = self._adopted()
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
            for pid in self._adopted():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience
            while self._adopted() and time.monotonic() < deadline:
                time.sleep(0.01)
                self._reap()
        return len(left)

    def _adopted(self) -> list[int]:
        """Return the children of this process that it did not start as helpers."""
        return [pid for pid in proc.children() if pid not in self._helpers]

    def take_signals(self) -> int:
        """Pass on the signals that have come since the last call.

        Returns:
            The number of the last stop signal, whether or not there was an engine to pass it on to; 0 for none.
        """
        self._pass_signals_on()
        return self._stopped

    def _note(self, number: int, _frame: object) -> None:
        self._pending.append(number)

    def _wait(self, probe: ReadinessProbe | None) -> None:
        readable = [self._wakeup]
        writable: list[int] = []
        timeout = None
        if probe:
            timeout = min(probe.wait(), self._processes.wait())
            if probe.descriptor >= 0:
                (writable if probe.writes else readable).append(probe.descriptor)
        if not self._pending:
            select.select(readable, writable, [], timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        if probe:
            probe.step()
            self._processes.step()

    def _pass_signals_on(self) -> None:
        pending, self._pending = self._pending, []
        for number in pending:
            if number == signal.SIGCHLD:
                continue
            self._timeline.event("signal", name=signal_name(number))
            if number in STOP_SIGNALS:
                self._stopped = number
                self.stop_helpers()
            if self.engine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.engine, number)

    def _reap(self) -> int | None:
        """Reap every child that has ended; return the engine's wait status if it is one of them."""
        engine_status = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return engine_status
            if pid == 0:
                return engine_status
            if pid == self.engine:
                engine_status = status
            elif not self._helpers.pop(pid, None):
                self._timeline.event("orphan.reaped", child=pid)

    def adopt_orphans(self) -> None:
        """Become the parent of what loses its own below this process, as PID 1 of a container is anyway."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def spawn(self, command: Sequence[str], environment: Mapping[str, str], directory: str) -> int:
        """Start a program as a child that leads a process group, and return its PID.

        Args:
            command: its command line; the first word is looked up on the ``PATH`` of ``environment``.
            environment: its whole environment.
            directory: its working directory.
        """
        # Held back until the child has the default dispositions: a signal passed on to it at once must not meet _note.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            return pid
        try:
            reset_signals()
            _take_terminal()
            os.chdir(directory)
            os.execvpe(command[0], list(command), dict(environment))  # noqa: S606
        except OSError as error:
            subject = directory if error.filename == directory else command[0]  # not the last directory of PATH tried
            say(f"error: cannot start the engine: {error.strerror}: {subject}")
        finally:
            os._exit(127)


def signal_name(number: int) -> str:
    """Return a signal's name; the real-time signals between the first and the last have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reset_signals() -> None:
    """Undo what Python and the supervisor did to this process's signals, as ``exec`` alone would not."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) is not signal.SIG_DFL:
            with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and the C library's own
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _take_terminal() -> None:
    """Lead a process group of its own, the terminal's foreground one if there is a terminal.

    Else Ctrl-C would reach the engine twice: from the terminal, and passed on by PID 1 (the reasoning is tini's).
    """
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):  # no terminal
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(terminal, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
