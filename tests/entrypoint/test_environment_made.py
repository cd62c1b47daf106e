"""What imports make of the environment is made of the container's own value, not taken for a change of it."""

from __future__ import annotations

import os
from pathlib import Path

from warmimage.entrypoint.environment import Contract
from warmimage.entrypoint.trace.process import NamedTimeline

#: OpenCV's import puts its folder in front of what the container has.
OPENCV = Contract(
    variables={"LD_LIBRARY_PATH": "/cv2:/driver", "PATH": "/bin"}, reads={"LD_LIBRARY_PATH": "cv2"},
    hidden={"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
    made={"LD_LIBRARY_PATH": "/cv2:/driver"}, before={"LD_LIBRARY_PATH": "/driver"},
)  # fmt: skip


def test_the_containers_own_value_is_no_change() -> None:
    assert OPENCV.broken({"LD_LIBRARY_PATH": "/driver", "PATH": "/bin"}) == ""
    assert OPENCV.completed({"LD_LIBRARY_PATH": "/driver"})["LD_LIBRARY_PATH"] == "/cv2:/driver"
    assert OPENCV.broken({"LD_LIBRARY_PATH": "/cv2:/driver", "PATH": "/bin"}) == "", "as the engine's processes have it"


def test_another_value_is_one() -> None:
    reason = "LD_LIBRARY_PATH has changed since cv2 read it"
    assert OPENCV.broken({"LD_LIBRARY_PATH": "/other", "PATH": "/bin"}) == reason


def test_what_was_hidden_from_the_imports_may_change() -> None:
    variables = {"LD_LIBRARY_PATH": "/driver", "PATH": "/bin"}
    assert OPENCV.broken({**variables, "CUDA_VISIBLE_DEVICES": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "0"}) == ""


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
