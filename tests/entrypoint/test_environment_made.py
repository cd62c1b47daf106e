"""What imports make of the environment is made of the container's own value, not taken for a change of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from warmimage.entrypoint.environment import import_environment, reapply_devices
from warmimage.entrypoint.environment.import_environment import Contract
from warmimage.entrypoint.import_trace.process import NamedTimeline

#: OpenCV's import puts its folder in front of what the container has.
OPENCV = Contract(
    variables={"LD_LIBRARY_PATH": "/cv2:/driver", "PATH": "/bin"},
    reads={"LD_LIBRARY_PATH": "cv2"},
    hidden={"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
    made={"LD_LIBRARY_PATH": "/cv2:/driver"},
    before={"LD_LIBRARY_PATH": "/driver"},
)


def test_the_containers_own_value_is_no_change() -> None:
    assert OPENCV.conflict({"LD_LIBRARY_PATH": "/driver", "PATH": "/bin"}) is None
    assert OPENCV.with_import_effects({"LD_LIBRARY_PATH": "/driver"})["LD_LIBRARY_PATH"] == "/cv2:/driver"
    assert OPENCV.conflict({"LD_LIBRARY_PATH": "/cv2:/driver", "PATH": "/bin"}) is None, (
        "as the engine's processes have it"
    )


def test_another_value_gets_the_imports_part_too() -> None:
    assert OPENCV.with_import_effects({"LD_LIBRARY_PATH": "/other"})["LD_LIBRARY_PATH"] == "/cv2:/other"
    assert OPENCV.with_import_effects({})["LD_LIBRARY_PATH"] == "/cv2:"


def test_another_value_is_a_change_where_it_names_libraries(tmp_path: Path) -> None:
    assert OPENCV.conflict({"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/bin"}) is None
    (tmp_path / "libz.so.1").touch()
    reason = f"LD_LIBRARY_PATH names {tmp_path}, where libraries lie, at one time and not at the other"
    assert OPENCV.conflict({"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/bin"}) == reason


def test_what_the_imports_made_of_other_variables_is_made_again_when_those_change() -> None:
    made = {"TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor_a"}
    contract = Contract({"USER": "a", **made}, {}, made=made)
    assert contract.with_import_effects({"USER": "a"}) == {"USER": "a", **made}
    assert contract.with_import_effects({"USER": "b"}) == {"USER": "b"}


def test_what_was_hidden_from_the_imports_may_change() -> None:
    variables = {"LD_LIBRARY_PATH": "/driver", "PATH": "/bin"}
    assert OPENCV.conflict({**variables, "CUDA_VISIBLE_DEVICES": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "0"}) is None


def test_pools_are_sized_anew_for_another_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    here = len(os.sched_getaffinity(0))
    sized: dict[str, str | None] = {}

    def note(name: str) -> Callable[[str | None], None]:
        return lambda value: sized.update({name: value})

    monkeypatch.setattr(
        import_environment, "DEVICE_HANDLERS", {name: note(name) for name in reapply_devices.DEVICE_HANDLERS}
    )
    variables = {"OMP_NUM_THREADS": "3", "GOMP_CPU_AFFINITY": "0"}
    assert Contract(variables, {}).cpus == here
    assert Contract(variables, {}).reapply(variables) == {}
    assert sized == {}
    assert Contract(variables, {}, cpus=here + 7).reapply(variables) == {}
    assert sized == {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": None, "TORCHINDUCTOR_COMPILE_THREADS": None}


@pytest.mark.parametrize(
    ("value", "mkl", "threads"),
    [(None, True, 4), (None, False, 4), ("6", True, 4), ("6", False, 6), ("2,1", True, 2), ("2", False, 2)],
)
def test_torch_has_the_number_of_threads_of_a_new_process(
    monkeypatch: pytest.MonkeyPatch, value: str | None, mkl: bool, threads: int
) -> None:
    """On eight processors of four cores, as PyTorch with and without MKL counts them."""
    told: list[int] = []
    backends = SimpleNamespace(mkl=SimpleNamespace(is_available=lambda: mkl))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=told.append, backends=backends))
    monkeypatch.setattr(reapply_devices, "_cores", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(reapply_devices, "_mapped", lambda *_names: [])
    reapply_devices.DEVICE_HANDLERS["OMP_NUM_THREADS"](value)
    assert told == [threads]


def test_there_is_a_core_and_not_more_of_them_than_processors() -> None:
    assert 1 <= reapply_devices._cores() <= len(os.sched_getaffinity(0))


def test_a_trace_whose_file_was_closed_writes_into_no_other_one(tmp_path: Path) -> None:
    path, other = tmp_path / "timeline.jsonl", tmp_path / "other"
    timeline = NamedTimeline(str(path), 1)
    number = timeline.descriptor
    os.close(number)
    taken = os.open(other, os.O_WRONLY | os.O_CREAT)
    os.dup2(taken, number)
    timeline.event("trace.entered")
    assert other.read_bytes() == b""
    assert '"trace.entered"' in path.read_text()
    timeline.close()
    os.close(number)
    if taken != number:
        os.close(taken)
