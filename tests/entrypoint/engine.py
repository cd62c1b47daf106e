"""A stand-in for an engine: a console script that does what its arguments say, in their order.

A word in front of which ``preload?`` stands counts only in tier ``preload``.  Words it does not know are ignored, as
are options, but for ``--port``, which the words ``listen`` and ``serve`` obey.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

TIER = "preload" if "launch" in sys.orig_argv else "plain"
LISTENER = socket.socket()


def mark(path):
    """Append a line that says in which tier this process was started."""
    with open(path, "a") as file:
        file.write(TIER + "\n")


def out(text):
    """Write to standard output, at once."""
    os.write(1, text.encode() + b"\n")


def err(text):
    """Write to standard error, at once."""
    os.write(2, text.encode() + b"\n")


def end(code):
    """End with an exit code."""
    sys.exit(int(code))


def number_of(name):
    """Return a signal's number: ``SIGTERM``, or ``37``."""
    return int(name) if name.isdigit() else signal.Signals[name]


def kill(name):
    """Be killed by a signal."""
    os.kill(os.getpid(), number_of(name))


def count(name):
    """From now on write a line for each signal of this name."""
    signal.signal(number_of(name), lambda _number, _frame: out("got " + name))


def trap(name, code):
    """End with an exit code on a signal."""
    signal.signal(number_of(name), lambda _number, _frame: sys.exit(int(code)))


def sleep(seconds):
    """Sleep, signals notwithstanding."""
    time.sleep(float(seconds))


def until(event, value=""):
    """Wait until the timeline has an event, one with a value."""

    def has_come():
        with open(os.environ["WARMIMAGE_TIMELINE"]) as file:
            return any(f'"event": "{event}"' in row and f'"{value}' in row for row in file)

    wait_for(has_come)


def wait_for(done):
    """Wait until a condition holds, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def orphans(number):
    """Leave grandchildren behind that end by themselves, the last one killed, all after their parent has ended."""
    child = os.fork()
    if child == 0:
        for index in range(int(number)):
            if os.fork() == 0:
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL if index == 0 else signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)


def leave():
    """Leave a child behind that runs on, and takes no notice of SIGTERM."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 3)
        time.sleep(60)
        os._exit(0)


def processes():
    """Return the states and parents of all other processes but PID 1."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue  # it has ended and been reaped since the listing
            found.append([state, int(parent)])
    return found


def alone():
    """Wait for all other processes to be gone, and write those that are not."""
    wait_for(lambda: not processes())
    out(json.dumps(processes()))


def port():
    """Return the port asked for."""
    return int(sys.argv[len(sys.argv) - sys.argv[::-1].index("--port")])


def listen():
    """Listen, but answer nothing yet."""
    LISTENER.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    LISTENER.bind(("127.0.0.1", port()))
    LISTENER.listen()


def serve(answers):
    """Answer one connection after the other, as a comma-separated list of status codes and ``close`` says."""
    for answer in answers.split(","):
        connection, _ = LISTENER.accept()
        connection.recv(4096)
        if answer != "close":
            connection.sendall(f"HTTP/1.1 {answer} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        connection.close()


def health(script):
    """Run the health check beside what follows, and write its exit code."""
    if os.fork() == 0:
        done = subprocess.run([sys.executable, "-I", "-S", script, "healthcheck"], stdout=subprocess.PIPE, check=False)
        out(f"health {done.returncode} {done.stdout.decode().strip()}")
        os._exit(0)


def join():
    """Wait for the health check."""
    os.wait()


WORDS = {
    function.__name__: function
    for function in (
        mark,
        out,
        err,
        end,
        kill,
        count,
        trap,
        sleep,
        until,
        orphans,
        leave,
        alone,
        listen,
        serve,
        health,
        join,
    )
}

if __name__ == "__main__":
    if "--help" in sys.argv:
        out("usage: engine")
        sys.exit(0)
    for argument in sys.argv[1:]:
        condition, _, rest = argument.rpartition("?")
        if condition not in ("", TIER):
            continue
        word, *parameters = rest.split(":")
        if word in WORDS:
            WORDS[word](*parameters)
