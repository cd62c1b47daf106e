"""What depends on processors and accelerators as well as on variables, and how each is derived again.

What depends on variables alone is in ``reapply_env``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from .module_constants import assign

#: Modules that remember whether there is an accelerator, and of which kind, in functions with a cache.
_ABOUT_DEVICES = ("torch.utils._triton", "torch._inductor.utils", "torch._dynamo.device_interface")


def _compile_threads(_value: str | None) -> None:
    config = sys.modules.get("torch._inductor.config")
    if config is not None:
        config.compile_threads = config.decide_compile_threads()  # type: ignore[attr-defined]


def _dynamic_threads(value: str | None) -> None:
    assign("torch._inductor.config", "cpp.dynamic_threads", value == "1")


def _openmp_threads(value: str | None) -> None:
    """Size OpenMP's pools, which are made at their first use."""
    first = (value or "").split(",")[0]
    threads = int(first) if first.isdigit() else len(os.sched_getaffinity(0))
    for library in _mapped("libgomp", "libiomp", "libomp"):
        library.omp_set_num_threads(threads)
    _torch_threads(threads, first.isdigit())


def _torch_threads(threads: int, asked: bool) -> None:
    """Tell PyTorch too: OpenMP takes a number for this thread alone, and PyTorch gives its own to every later one.

    Args:
        threads: of OpenMP's pools.
        asked: whether that is somebody's choice, not the number of processors.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or threads < 1:
        return
    # MKL takes one thread for each core and no more, and without it PyTorch's own default is one for each core.
    limited = torch.backends.mkl.is_available() or not asked
    torch.set_num_threads(min(threads, _cores()) if limited else threads)


def _cores() -> int:
    """Return how many cores the processors that this process may use belong to."""
    cores = set()
    for processor in os.sched_getaffinity(0):
        try:
            with open(
                f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list", encoding="ascii"
            ) as file:
                cores.add(file.read())
        except OSError:
            cores.add(str(processor))
    return len(cores)


_BIND = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _openmp_places(value: str | None) -> None:
    """Bind the threads of GNU OpenMP's pool, this one first, as the library does when it is loaded.

    That is done in a parallel region of the pool itself (``GOMP_parallel``, of the library's ABI), so it holds for the
    pool of this thread; other threads' pools inherit this thread's place.
    """
    if not value:
        return
    places = _processors(value)
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    for library in _mapped("libgomp"):

        def bind(_data: int, library: ctypes.CDLL = library) -> None:
            os.sched_setaffinity(0, {places[library.omp_get_thread_num() % len(places)]})

        library.GOMP_parallel(_BIND(bind), None, int(threads) if threads.isdigit() else len(places), 0)


def _processors(text: str) -> list[int]:
    """Return the processors of a list such as ``0 3 1-2 4-15:2`` (GNU libgomp manual, ``GOMP_CPU_AFFINITY``)."""
    found: list[int] = []
    for entry in text.replace(",", " ").split():
        span, _, stride = entry.partition(":")
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1, int(stride or 1))
    return found


def _blas_threads(value: str | None) -> None:
    threads = int(value) if value and value.isdigit() else len(os.sched_getaffinity(0))
    for library in _mapped("openblas"):
        for name in ("openblas_set_num_threads", "scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"):
            if hasattr(library, name):
                getattr(library, name)(threads)
                break


def _devices(_value: str | None) -> None:
    """Forget what was found out while the accelerator was hidden."""
    for module in filter(None, map(sys.modules.get, _ABOUT_DEVICES)):
        for found in list(vars(module).values()):
            clear = getattr(found, "cache_clear", None)
            if callable(clear) and getattr(found, "__module__", "") == module.__name__:
                clear()


class _Library(ctypes.Structure):
    """The beginning of ``struct dl_phdr_info`` (link.h)."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


_NOTE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)


def _mapped(*names: str) -> list[ctypes.CDLL]:
    """Return the shared libraries of this process whose file names contain one of ``names``.

    The dynamic loader is asked by the names that it knows them by: in a restored process it would not know the files.
    """
    paths: list[str] = []

    def note(library: Any, _size: int, _data: int) -> int:
        paths.append(os.fsdecode(library.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(_NOTE(note), None)
    return [
        ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        for path in paths
        if any(name in os.path.basename(path) for name in names)
    ]


#: Variable -> what to do with its new value, ``None`` for one that is not set.
DEVICE_HANDLERS: dict[str, Callable[[str | None], None]] = {
    "CUDA_VISIBLE_DEVICES": _devices,
    "GOMP_CPU_AFFINITY": _openmp_places,
    "OMP_NUM_THREADS": _openmp_threads,
    "OPENBLAS_NUM_THREADS": _blas_threads,
    "TORCHINDUCTOR_COMPILE_THREADS": _compile_threads,
    "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": _dynamic_threads,
}

#: Those of which the value is the number of processors where the variable is not set.
OF_PROCESSORS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
