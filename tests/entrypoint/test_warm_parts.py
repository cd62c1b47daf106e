"""The parts of ``warm`` that deal with the rest of the machine: pressure, pins, files of targets, the node's label."""

from __future__ import annotations

import http.server
import json
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from warmimage import engines
from warmimage.entrypoint.warm import backoff
from warmimage.entrypoint.warm.backoff import BackOff, Pause
from warmimage.entrypoint.warm.node_label import Label
from warmimage.entrypoint.warm.pins import Pins
from warmimage.entrypoint.warm.pressure import Pressure, stalled
from warmimage.entrypoint.warm.rate_limit import RateLimiter
from warmimage.entrypoint.warm.targets import Places
from warmimage.entrypoint.warm.tracker import TrackedFile

from tests.support.page_cache import undisturbed

from .plans import loading_plan, make_plan
from .warming import MIB, events, model, wait_for, warming

pytestmark = pytest.mark.timeout(180)


# -- pressure and rate


def test_pressure_is_read_as_the_kernel_writes_it() -> None:
    text = "some avg10=13.81 avg60=3.64 avg300=2.64 total=4529756\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert stalled(text) == 4.529756
    assert stalled(None) is None
    assert stalled("") is None


@pytest.mark.skipif(not os.path.exists("/proc/pressure/memory"), reason="this kernel keeps no account of pressure")
def test_this_host_tells_its_pressure() -> None:
    pressure = Pressure("io")
    assert pressure.known
    time.sleep(0.01)
    assert 0 <= pressure.share() <= 1


class Waiting:
    """The text of a pressure file in which others wait for a share of all time."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._total, self._moment = 0.0, time.monotonic()

    def read(self, path: str) -> str | None:
        if not path.startswith("/proc/pressure/"):
            return None
        now = time.monotonic()
        self._total += (now - self._moment) * self.share * 1e6
        self._moment = now
        return f"some avg10=0.00 avg60=0.00 avg300=0.00 total={self._total:.0f}\n"


@pytest.mark.parametrize("pressed", ["memory", "io"])
def test_readers_are_held_while_others_wait(monkeypatch: pytest.MonkeyPatch, pressed: str) -> None:
    monkeypatch.setattr(backoff, "CHECK", 0.0)
    monkeypatch.setattr(backoff, "FIRST", 0.05)
    waits = {"memory": Waiting(0), "io": Waiting(0)}
    stop, pauses = threading.Event(), list[Pause]()
    rate_limiter = RateLimiter(None, stop)
    made = BackOff(rate_limiter, stop, pauses.append, {name: Pressure(name, each.read) for name, each in waits.items()})
    time.sleep(0.01)
    made.step()
    assert pauses == []
    waits[pressed].share = 0.9
    time.sleep(0.02)
    stepping = threading.Thread(target=made.step)
    stepping.start()
    (pause,) = wait_for(lambda: pauses)
    assert pause.resource == pressed == made.holding
    assert pause.share > backoff.LIMITS[pressed]
    turns: list[bool] = []

    def take_turn() -> None:
        with rate_limiter.acquire(1) as go:
            turns.append(go)

    reader = threading.Thread(target=take_turn)
    reader.start()
    reader.join(0.2)
    assert reader.is_alive(), "nobody reads while others wait"
    waits[pressed].share = 0.0
    stepping.join(20)
    reader.join(20)
    assert turns == [True]
    assert pauses[1].share < backoff.LIMITS[pressed]
    assert made.count[pressed] == 1
    assert made.holding == ""


def test_a_stop_ends_every_wait() -> None:
    stop = threading.Event()
    rate_limiter = RateLimiter(1, stop)
    with rate_limiter.acquire(1 << 40) as go:
        assert go
    rate_limiter.pause(0)
    ended: list[bool] = []

    def wait() -> None:
        with rate_limiter.acquire(1) as go:
            ended.append(go)

    reader = threading.Thread(target=wait)
    reader.start()
    stop.set()
    reader.join(20)
    assert ended == [False]


def test_a_low_rate_is_read_in_small_blocks() -> None:
    stop = threading.Event()
    assert RateLimiter(None, stop).block == 4 * MIB
    assert RateLimiter(1 << 40, stop).block == 4 * MIB
    assert RateLimiter(4 * MIB, stop).block == MIB
    assert RateLimiter(1, stop).block == 64 << 10


# -- pins


def locked_bytes() -> int:
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmLck:"))


@undisturbed
def test_what_is_pinned_cannot_be_evicted(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and os.geteuid():
        pytest.skip("this user may lock little")
    (path,) = model(tmp_path / "model", 4 * MIB)
    before = locked_bytes()
    pins = Pins()
    file = TrackedFile(str(path), 4 * MIB, share=4 * MIB)
    pins.keep([file])
    assert (pins.size, pins.refused, locked_bytes() - before) == (4 * MIB, "", 4 * MIB)
    pins.keep([file])
    assert locked_bytes() - before == 4 * MIB, "not a second time"
    path.unlink()
    path.write_bytes(b"another")
    pins.keep([TrackedFile(str(path), 7, share=7)])
    assert (pins.size, locked_bytes() - before) == (7, 4096), "the file that has taken its place"
    pins.keep([])
    assert (pins.size, locked_bytes()) == (0, before)


def test_a_limit_on_locked_memory_is_said_and_costs_nothing_else(tmp_path: Path) -> None:
    (path,) = model(tmp_path / "model", 4 * MIB)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "from warmimage.entrypoint.warm.pins import Pins\nfrom warmimage.entrypoint.warm.tracker import TrackedFile\n"
        f"pins = Pins(); pins.keep([TrackedFile({str(path)!r}, {4 * MIB}, share={4 * MIB})])\n"
        "print(pins.size, pins.refused)"
    )
    setpriv = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]
    for folder in (path, *path.parents):
        if folder != Path("/tmp"):  # whose mode is not ours
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        [*(setpriv if os.geteuid() == 0 else ()), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split(maxsplit=1)[0] == "0"
    assert "more than RLIMIT_MEMLOCK or memory allow" in done.stdout


# -- files of targets


def test_hot_files_are_those_of_the_closure_and_what_starts_the_container(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "entrypoint").mkdir(parents=True)
    (root / "entrypoint" / "main.py").write_text("")
    closure = {"files": ["/lib/b.so", "/lib/a.py"], "libraries": ["/lib/torch.so", "/lib/b.so"]}
    (root / "closure.json").write_text(json.dumps(closure))
    places = Places(closure=str(root / "closure.json"), plan=str(root / "plan.json"), root=str(root))
    found = places.find("image")
    assert found.paths == (
        str(root / "plan.json"),
        str(root / "closure.json"),
        str(root / "entrypoint" / "main.py"),
        "/lib/b.so",
        "/lib/a.py",
        "/lib/torch.so",
    )


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}'])
def test_a_damaged_closure_is_declined(tmp_path: Path, text: str) -> None:
    closure = tmp_path / "closure.json"
    closure.write_text(text)
    found = Places(closure=str(closure)).find("image")
    assert found.paths == ()
    assert found.declined.startswith("the closure cannot be read: ")


def test_a_snapshot_is_all_files_of_its_folder(tmp_path: Path) -> None:
    assert Places(snapshot=str(tmp_path / "none")).find("snapshot").declined == "the image has no snapshot"
    (tmp_path / "pages-1.img").write_text("x")
    (tmp_path / "folder").mkdir()
    found = Places(environment={"WARMIMAGE_SNAPSHOT_DIR": str(tmp_path)}, snapshot="/none").find("snapshot")
    assert found.paths == (str(tmp_path / "pages-1.img"),)


def test_models_below_a_folder_are_found_as_in_a_hub_cache(tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "models--org--name"
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "abc").write_bytes(b"weights")
    for revision in ("one", "two"):
        (hub / "snapshots" / revision).mkdir(parents=True)
        (hub / "snapshots" / revision / "model.safetensors").symlink_to("../../blobs/abc")
    (tmp_path / "hub" / "lost+found").mkdir(mode=0)
    found = Places((str(tmp_path / "hub"),)).find("weights")
    assert [Path(path).parent.name for path in found.paths] == ["one", "two"]
    assert not found.problems
    with warming(tmp_path, [tmp_path / "hub"], once=True) as (warmer, timeline):
        wait_for(lambda: events(timeline, "warm.ready"))
    assert warmer.state().targets["weights"].wanted == len(b"weights"), "one file is read once"


def test_folders_that_are_named_are_read_as_the_images_engine_does(tmp_path: Path) -> None:
    for folder in ("one", "two/deep/model"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("consolidated.safetensors", "model-00001-of-00001.safetensors"):
            (tmp_path / folder / name).write_text(name + folder)

    def found(*arguments: str, engine: str = "vllm") -> tuple[set[str], str]:
        plan = make_plan(command=(engine,), args=arguments, loading=loading_plan(engines.get(engine)))
        (tmp_path / "plan.json").write_text(plan.to_json())
        places = Places((str(tmp_path / "one"), str(tmp_path / "two")), plan=str(tmp_path / "plan.json"))
        answer = places.find("weights")
        assert len(answer.paths) in (0, 2)
        return {os.path.basename(path) for path in answer.paths}, answer.declined

    assert found() == ({"consolidated.safetensors"}, "")
    assert found(engine="transformers") == ({"model-00001-of-00001.safetensors"}, "")
    assert found("--load-format", "safetensors") == ({"model-00001-of-00001.safetensors"}, "")
    paths, declined = found("--load-format", "runai_streamer")
    assert not paths
    assert declined.startswith("load format runai_streamer: it ")


def test_a_file_outside_the_volume_is_left_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "model"
    model(folder, 10)
    (folder / "model-00002-of-00002.safetensors").symlink_to("../secret")
    found = Places((str(folder),)).find("weights")
    assert not any("00002-of-00002" in path for path in found.paths)
    (problem,) = found.problems
    assert problem.endswith(f"{tmp_path / 'secret'} is outside the volume")


# -- the node's label


class Api(http.server.BaseHTTPRequestHandler):
    """Answers as the Kubernetes API does to a patch of a node."""

    labels: ClassVar[dict[str, str]] = {}
    refuse: ClassVar[int] = 0
    asked: ClassVar[list[str]] = []

    def do_PATCH(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(f"{self.path} {self.headers['Content-Type']} {self.headers['Authorization']}")
        if self.refuse < 0:
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        if not self.refuse:
            for key, value in body["metadata"]["labels"].items():
                if value is None:
                    self.labels.pop(key, None)
                else:
                    self.labels[key] = value
        answer = json.dumps({"kind": "Node"}).encode()
        self.send_response(self.refuse or 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        """Keep test output quiet."""


@contextmanager
def api(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the API over TLS with a certificate of its own, and yield a pod's variables."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "ca.crt"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=kubernetes",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    (folder / "token").write_text("a-token\n")
    Api.labels.clear()
    Api.asked.clear()
    Api.refuse = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(server.server_address[1]),
                "NODE_NAME": "node-1",
            }
        finally:
            server.shutdown()
            thread.join()


def test_the_label_is_set_and_taken_away_over_tls(tmp_path: Path) -> None:
    with api(tmp_path) as variables:
        label = Label("example.com/warm", variables, str(tmp_path))
        assert label.say(True)
        assert Api.labels == {"example.com/warm": "true"}
        Api.labels.clear()  # somebody takes it away
        assert label.say(True)
        assert Api.labels == {"example.com/warm": "true"}, "it is said again and again"
        assert label.say(False)
        assert Api.labels == {}
        assert Api.asked[0] == "/api/v1/nodes/node-1 application/merge-patch+json Bearer a-token"
        Api.refuse = 403
        assert not label.say(True)
        assert label.failure.endswith(
            "HTTP 403 from the Kubernetes API: the service account may not patch the node node-1"
        )
        assert label.failures == 1
        Api.refuse = -1
        assert not label.say(True)
        assert label.failure == "the Kubernetes API cannot be asked: this is not HTTP\r\n"
        (tmp_path / "ca.crt").unlink()
        assert not label.say(True)
        assert label.failure.startswith("the Kubernetes API cannot be asked: ")


def test_an_api_that_is_somebody_else_is_not_told_the_token(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with api(tmp_path) as variables:
        with api(other):
            pass  # makes another certificate
        label = Label("warm", variables, str(other))
        assert not label.say(True)
        assert "CERTIFICATE_VERIFY_FAILED" in label.failure
        assert Api.asked == []


def test_outside_of_a_pod_there_is_no_label() -> None:
    assert Label("warm", {}).failure == "this is no pod of Kubernetes (no KUBERNETES_SERVICE_HOST)"
    label = Label("warm", {"KUBERNETES_SERVICE_HOST": "::1"})
    assert label.failure == "NODE_NAME is not set: take it from the field spec.nodeName"
    assert not label.say(True)


def test_ports_in_use_and_free_ones() -> None:
    from warmimage.entrypoint.warm import http_api

    with http_api.listen(0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(OSError, match=r"in use"):
            http_api.listen(port).close()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
