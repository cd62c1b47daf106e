"""Captured for a CPU with fewer extensions than this one has.

Native libraries choose between variants of their functions by the CPU: some when they are loaded, some at first use.
The choices made before the capture are part of the snapshot, so a host without an extension that was chosen cannot
restore it.  For a baseline the capture hides the extensions beyond it from libraries that choose when they are loaded.
Libraries that choose at first use, as PyTorch does for its kernels, choose on the host that restores, for its full
speed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterable, Mapping

#: Baseline -> the extensions, as /proc/cpuinfo names them, that a capture for it hides where the CPU has them.  A host
#: needs all others that the CPU has.  x86-64-v3 is the psABI's level of AVX2 and FMA (2013 and later).
_HIDDEN = {
    "x86-64-v3": re.compile(
        r"avx512.*|avx_(vnni|ifma|ne_convert).*|avx10.*|amx.*|vaes|vpclmulqdq|gfni|sha.*|adx|rdseed|movdir.*|serialize"
        r"|waitpkg|cldemote|rtm"
    )
}

#: glibc's names of them (sysdeps/x86/include/cpu-features.h).
_GLIBC = (
    "AVX512F",
    "AVX512VL",
    "AVX512BW",
    "AVX512DQ",
    "AVX512CD",
    "AVX512ER",
    "AVX512PF",
    "VAES",
    "VPCLMULQDQ",
    "RTM",
)

#: OpenSSL's mask of CPUID leaf 7: AVX512F, DQ, RDSEED, ADX, IFMA, CD, SHA, BW, VL in EBX; VBMI, VBMI2, GFNI, VAES,
#: VPCLMULQDQ in ECX (OPENSSL_ia32cap(3)).
_OPENSSL_EBX, _OPENSSL_ECX = (16, 17, 18, 19, 21, 28, 29, 30, 31), (1, 6, 8, 9, 10)
_OPENSSL = sum(1 << bit for bit in _OPENSSL_EBX) | sum(1 << bit for bit in _OPENSSL_ECX) << 32

#: Variables by which libraries choose as on a CPU of the baseline; they are set for the imports alone.
_VARIABLES = {
    "x86-64-v3": {
        "ARROW_USER_SIMD_LEVEL": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX512_ICL",
        "OPENSSL_ia32cap": f"~0x0:~0x{_OPENSSL:x}",
    }
}

#: The variables that the dynamic loader reads before the interpreter begins.
TUNABLES, BIND_NOW = "GLIBC_TUNABLES", "LD_BIND_NOW"


#: What Intel's libraries remember of the processor from when they are loaded: 16 bytes, zero before they have looked.
_INTEL_FEATURES = "__intel_mkl_feature_indicator_x"


def forget_processor() -> None:
    """Have MKL look at the processor once more when it next chooses between variants of its functions.

    It remembers the extensions from when it is loaded, and chooses by them at first use: on the host that restores.
    No variable hides them from it.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row.rstrip("\n").split(maxsplit=5) for row in file]
    for path in sorted({row[5] for row in rows if len(row) == 6 and ".so" in row[5] and "x" in row[1]}):
        with contextlib.suppress(OSError, ValueError):  # no library that the loader knows by this path, or without MKL
            library = ctypes.CDLL(path, os.RTLD_NOLOAD | os.RTLD_LAZY)
            (ctypes.c_uint64 * 2).in_dll(library, _INTEL_FEATURES)[:] = [0, 0]


def required(baseline: str, features: Iterable[str]) -> tuple[str, ...]:
    """Return the extensions that a host must have.

    Args:
        baseline: what is captured for; empty for the capturing CPU.
        features: the capturing CPU's.
    """
    hidden = _HIDDEN.get(baseline)
    return tuple(name for name in features if not hidden or not hidden.fullmatch(name))


def variables(baseline: str) -> dict[str, str]:
    """Return the variables that hide extensions beyond a baseline from the libraries that imports load."""
    return dict(_VARIABLES.get(baseline, {}))


def for_loader(baseline: str, environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which the dynamic loader and the C library keep to a baseline.

    All functions are bound at once: to bind one at its first call, the loader saves as many registers as the capturing
    CPU has, in memory of that size, which another CPU may overrun (sysdeps/x86_64/dl-trampoline.h).

    Args:
        baseline: what is captured for.
        environment: the captured process's own.
    """
    added = {BIND_NOW: "1"}
    if baseline in _HIDDEN:
        hidden = "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _GLIBC)
        added[TUNABLES] = ":".join(filter(None, (environment.get(TUNABLES), hidden)))
    return {**environment, **added}


def without_loaders(baseline: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what ``for_loader`` has added; an ``LD_BIND_NOW`` of its own is lost with that."""
    own = {name: value for name, value in variables.items() if name != BIND_NOW}
    if baseline in _HIDDEN:
        value = own.pop(TUNABLES, "").rpartition("glibc.cpu.hwcaps=")[0].removesuffix(":")
        own.update({TUNABLES: value} if value else {})
    return own
