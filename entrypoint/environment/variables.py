"""What becomes of variables that a container sets and its snapshot was not captured with: the table of the documents.

A test compares it with what ``environment`` and ``reapply_env`` do.
"""

from __future__ import annotations

from dataclasses import dataclass

from .reapply import READERS
from .reapply_devices import DEVICE_HANDLERS

#: No module and no library reads it before the engine starts, or none keeps anything of it.
NO_EFFECT = "no effect at import"

#: What modules derived from it is derived again.
DERIVED_AGAIN = "derived again"

#: The tier declines, names it, and says what to put into ``warmimage.yaml``.
DECLINES = "declines"


@dataclass(frozen=True)
class Variable:
    """One row.

    Attributes:
        names: the variables; ``*`` at the end of a name stands for all that begin like it and have no row of their own.
        effect: one of the three above.
        reason: what reads it, and what is done.
    """

    names: tuple[str, ...]
    effect: str
    reason: str


TABLE = (
    Variable(("TZ",), DERIVED_AGAIN, "The C library and `time` read the time zone again."),
    Variable(
        ("LANG", "LC_ALL", "LC_CTYPE"),
        DERIVED_AGAIN,
        "The locale is set as at an interpreter's start, coercion to `C.UTF-8` included: `C.UTF-8`, `C`, `POSIX` and "
        "a locale that the image lacks are all the same. Another text encoding than UTF-8 declines.",
    ),
    Variable(("LC_*",), DERIVED_AGAIN, "The categories of the locale follow the variables where they do at a start."),
    Variable(("LANGUAGE",), NO_EFFECT, "`gettext` reads it whenever it translates."),
    Variable(("PYTHONUNBUFFERED",), DERIVED_AGAIN, "Standard output and error are made again without a buffer."),
    Variable(("PYTHONDONTWRITEBYTECODE",), DERIVED_AGAIN, "`sys.dont_write_bytecode` is set; `sys.flags` cannot be."),
    Variable(
        ("PYTHONHASHSEED",),
        DECLINES,
        "The interpreter hashes by the seed that it was captured with. `random` and an empty value ask for no seed: no "
        "change where the image sets none.",
    ),
    Variable(("PYTHONPATH",), DECLINES, "Another directory could hold another version of an imported module."),
    Variable(("PYTHON*",), DECLINES, "The interpreter reads them at its start."),
    Variable(
        ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"),
        DERIVED_AGAIN,
        "The constants of `huggingface_hub` are computed again, and what other modules copied of them.",
    ),
    Variable(("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"), DERIVED_AGAIN, "The logger's level is set again."),
    Variable(
        ("TRANSFORMERS_*", "VLLM_*"),
        NO_EFFECT,
        "The engine reads most of them when it needs them. One that a module read when it was imported declines.",
    ),
    Variable(
        ("XDG_CONFIG_HOME", "VLLM_CONFIG_ROOT", "VLLM_USAGE_STATS_SERVER"),
        DERIVED_AGAIN,
        "vLLM's paths and address for usage statistics are computed again.",
    ),
    Variable(("XDG_*",), NO_EFFECT, "No module of the engines reads the others when it is imported."),
    Variable(
        ("VLLM_CACHE_ROOT", "VLLM_DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"),
        NO_EFFECT,
        "vLLM asks for them when it needs them.",
    ),
    Variable(
        ("VLLM_LOGGING_LEVEL", "VLLM_LOGGING_STREAM", "VLLM_LOGGING_COLOR", "NO_COLOR"),
        DERIVED_AGAIN,
        "vLLM's configuration of its log is computed again.",
    ),
    Variable(
        ("VLLM_WORKER_MULTIPROC_METHOD",),
        NO_EFFECT,
        "`spawn` is what the tiers answer with a fork. `fork` and `forkserver` decline as the user's own choice.",
    ),
    Variable(("LOG_LEVEL",), DERIVED_AGAIN, "The one package that reads it, in vLLM, sets its loggers' level again."),
    Variable(
        ("HOME",),
        DERIVED_AGAIN,
        "Paths below it are computed again. A home that has Python packages of its own (`.local/lib`) declines.",
    ),
    Variable(
        ("USER", "LOGNAME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR"),
        DERIVED_AGAIN,
        "Python's directory for temporary files and PyTorch's for compiled code are computed again.",
    ),
    Variable(
        ("LD_LIBRARY_PATH",),
        DECLINES,
        "The loader reads it once. A directory without libraries, or none at all, is no change.",
    ),
    Variable(("LD_PRELOAD",), DECLINES, "A library that is not loaded cannot be put in front of the others any more."),
    Variable(("LD_*", "MALLOC_*", "GLIBC_TUNABLES"), DECLINES, "The C library reads them once, at its start."),
    Variable(("PATH", "HOSTNAME"), NO_EFFECT, "Programs are looked for when they are started."),
    Variable(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_CPU_AFFINITY"),
        DERIVED_AGAIN,
        "The libraries' pools are sized, and placed, again.",
    ),
    Variable(("OMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*"), DECLINES, "OpenMP and BLAS read them when they are loaded."),
    Variable(("CUDA_VISIBLE_DEVICES",), DERIVED_AGAIN, "The imports do not see it; what they found out is forgotten."),
    Variable(("CUDA_*",), NO_EFFECT, "The driver reads them when it is first used. `CUDA_HOME`, where read, declines."),
    Variable(
        ("OTEL_*",),
        NO_EFFECT,
        "Read when tracing begins, except where a module of OpenTelemetry was imported, as in vLLM, and read it: "
        "the names, limits and propagators of `opentelemetry.sdk` decline.",
    ),
    Variable(
        ("PROMETHEUS_MULTIPROC_DIR",),
        NO_EFFECT,
        "It declines where `prometheus_client` was imported, as in vLLM: it decides then how counters are kept.",
    ),
    Variable(("SSL_CERT_FILE", "SSL_CERT_DIR"), DERIVED_AGAIN, "Certificates that an import has read are read again."),
    Variable(
        ("TQDM_*", "NETWORKX_*", "SAGEMAKER_*"),
        DECLINES,
        "The package takes every variable of that name when it is imported; without the package, no effect.",
    ),
)


def row(name: str) -> Variable | None:
    """Return a variable's row: the one with its name, else the one with the longest beginning of it."""
    best, length = None, -1
    for variable in TABLE:
        for pattern in variable.names:
            fits = name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
            size = len(pattern) - 1 if pattern.endswith("*") else len(pattern) + 1
            if fits and size > length:
                best, length = variable, size
    return best


def is_derived(name: str) -> bool:
    """Return whether a change of a variable is made good, so that it costs no tier but for the values in its row."""
    return name in READERS or name in DEVICE_HANDLERS
