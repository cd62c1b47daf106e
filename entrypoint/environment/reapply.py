"""What the engines' modules derived from variables when they were imported, and how each is derived again.

A handler gets no value: it reads ``os.environ``, which has the new ones by then, by the module's own code where it can.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import python_locale
from .module_constants import assign, run_again, update_copies


@dataclass(frozen=True)
class Handler:
    """How to derive again what follows from some variables.

    Attributes:
        apply: does it.  Nothing happens for modules that are not imported.
        variables: the variables' names.
        readers: the modules whose reading of these variables the handler makes good.
    """

    apply: Callable[[], None]
    variables: tuple[str, ...]
    readers: tuple[str, ...] = ()


#: Variables that the imports set and that follow from others: their value is computed again where one of those differs.
MADE_FROM = {"TORCHINDUCTOR_CACHE_DIR": ("LNAME", "LOGNAME", "TEMP", "TMP", "TMPDIR", "USER", "USERNAME")}


def _time_zone() -> None:
    time.tzset()


def _write_bytecode() -> None:
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))


def _buffering() -> None:
    """Make standard output and error as ``create_stdio`` of Python/pylifecycle.c does with and without ``-u``."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, f"__{name}__")
        if before is None or before.write_through == unbuffered:
            continue
        before.flush()
        buffer: Any = open(number, "wb", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        raw = getattr(buffer, "raw", buffer)
        raw.name = f"<{name}>"
        stream: Any = io.TextIOWrapper(
            buffer,
            encoding=before.encoding,
            errors=before.errors,
            newline="\n",
            line_buffering=not unbuffered and (raw.isatty() or number == 2),
            write_through=unbuffered,
        )
        stream.mode = "w"
        if getattr(sys, name) is before:
            setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _temporary_directory() -> None:
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is None or tempfile.tempdir is None:
        return
    tempfile.tempdir = None
    found = tempfile.gettempdir()
    assign("vllm.model_executor.model_loader.weight_utils", "temp_dir", found)
    assign("torch._inductor.wrapper_benchmark", "PROFILE_DIR", found)
    assign("torch._inductor.wrapper_benchmark", "PROFILE_PATH", f"{found}/compiled_module_profile.json")


def _inductor_directories() -> None:
    directories: Any = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    if directories is None:
        return
    if "torch._dynamo.package" in sys.modules:  # its import makes the directory, and sets the variable to it
        assign("torch._dynamo.package", "DynamoCache._path_prefix", os.path.join(directories.cache_dir(), "dynamo"))
    headers = os.path.join(directories.default_cache_dir(), "precompiled_headers")
    assign("torch._inductor.codecache", "_HEADER_DIR", headers)
    assign("torch._inductor.codecache", "_HEADER_LOCK_DIR", os.path.join(headers, "locks"))


def _user_site() -> None:
    """Compute again where packages of a user would be; that there are none in use is checked before."""
    site: Any = sys.modules.get("site")
    if site is None or site.USER_BASE is None:
        return
    before = {name: getattr(site, name) for name in ("USER_BASE", "USER_SITE")}
    site.USER_BASE = site.USER_SITE = None
    site.getusersitepackages()
    update_copies({name: (old, getattr(site, name)) for name, old in before.items()})
    known = getattr(sys.modules.get("sysconfig"), "_CONFIG_VARS", None)
    if known and "userbase" in known:
        known["userbase"] = site.USER_BASE


def _hub_constants() -> None:
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is None:
        return
    changed = run_again("huggingface_hub.constants")
    if "ENDPOINT" in changed:
        _hub_endpoint(constants, changed["ENDPOINT"][0])
    modules: Any = sys.modules.get("transformers.utils.hub")
    if hasattr(modules, "HF_MODULES_CACHE"):
        old, new = modules.HF_MODULES_CACHE, os.path.join(constants.HF_HOME, "modules")
        update_copies({"HF_MODULES_CACHE": (old, os.getenv("HF_MODULES_CACHE", new))})
    loader: Any = sys.modules.get("vllm.model_executor.model_loader.weight_utils")
    if hasattr(loader, "enable_xet_high_performance"):
        loader.enable_xet_high_performance()  # its import sets a constant of the hub's, and so it does again
    utils: Any = sys.modules.get("huggingface_hub.utils")
    if utils is not None and "HF_HUB_DISABLE_PROGRESS_BARS" in changed:
        assign("transformers.utils.logging", "_tqdm_active", not utils.are_progress_bars_disabled())


def _hub_endpoint(constants: Any, old: object) -> None:
    """Tell the endpoint to the client that the import has made, and to those whom the client trusts with its token."""
    api: Any = getattr(sys.modules.get("huggingface_hub.hf_api"), "api", None)
    if api is not None and api.endpoint == old:
        api.endpoint = constants.ENDPOINT
    client: Any = sys.modules.get("huggingface_hub.utils._http")
    if hasattr(client, "_HUB_ORIGINS"):
        stays = constants._HF_DEFAULT_ENDPOINT, constants._HF_DEFAULT_STAGING_ENDPOINT, "https://hf.co"
        client._HUB_ORIGINS = frozenset(map(client._url_origin, (*stays, constants.ENDPOINT)))


def _hub_log() -> None:
    module: Any = sys.modules.get("huggingface_hub.utils.logging")
    if module is not None:
        module._get_library_root_logger().setLevel(module._get_default_logging_level())


def _transformers_log() -> None:
    module: Any = sys.modules.get("transformers.utils.logging")
    if module is not None and module._default_handler:
        module._reset_library_root_logger()
        module._configure_library_root_logger()


def _vllm_log() -> None:
    module: Any = sys.modules.get("vllm.logger")
    if module is None:
        return
    import logging  # PID 1 reads this module's tables, and starts the engine sooner without it

    config, envs = module.DEFAULT_LOGGING_CONFIG, module.envs
    for formatter in config["formatters"].values():
        if "log_level" in formatter:
            formatter["log_level"] = envs.VLLM_LOGGING_LEVEL
    colored = "vllm_color" in config["formatters"] and module._use_color()
    config["handlers"]["vllm"].update(
        formatter="vllm_color" if colored else "vllm", level=envs.VLLM_LOGGING_LEVEL, stream=envs.VLLM_LOGGING_STREAM
    )
    config["loggers"]["vllm"]["level"] = envs.VLLM_LOGGING_LEVEL
    logger: Any = logging.root.manager.loggerDict.get("vllm")  # not getLogger, which would make it
    if getattr(logger, "handlers", ()):  # only older versions configure it when they are imported
        module._configure_vllm_root_logger()


def _vllm_directories() -> None:
    envs: Any = sys.modules.get("vllm.envs")
    if envs is None:
        return
    usage = "vllm.usage.usage_lib"
    assign(usage, "_config_home", envs.VLLM_CONFIG_ROOT)
    assign(usage, "_USAGE_STATS_JSON_PATH", os.path.join(envs.VLLM_CONFIG_ROOT, "usage_stats.json"))
    assign(usage, "_USAGE_STATS_DO_NOT_TRACK_PATH", os.path.join(envs.VLLM_CONFIG_ROOT, "do_not_track"))
    assign(usage, "_USAGE_STATS_SERVER", envs.VLLM_USAGE_STATS_SERVER)
    run_again("vllm.ray.ray_env")


def _hosting_log() -> None:
    module: Any = sys.modules.get("model_hosting_container_standards.logging_config")
    if module is not None:
        module.configure_root_logger()
        module.get_logger()


def _certificates() -> None:
    """Read the certificates again that a client made for all its connections when it was imported."""
    module: Any = sys.modules.get("aiohttp.connector")
    if hasattr(module, "_make_ssl_context"):
        module._SSL_CONTEXT_VERIFIED = module._make_ssl_context(True)
        module._SSL_CONTEXT_UNVERIFIED = module._make_ssl_context(False)


def copy_environment() -> None:
    """Renew the one copy of the whole environment that an import keeps: the standard library's, for CGI."""
    wsgi: Any = sys.modules.get("wsgiref.handlers")
    if wsgi is not None:
        wsgi.BaseHandler.os_environ = wsgi.read_environ()


_ACCELERATE = "accelerate.commands.config.config_args"  # of its command alone, which no server runs
_HUB = "huggingface_hub.constants"
_NAMES = ("LNAME", "LOGNAME", "USER", "USERNAME")
_TEMPORARY = ("TEMP", "TMP", "TMPDIR")

#: In the order in which they are to run: what follows from a directory for temporary files comes after it.
HANDLERS = (
    Handler(_time_zone, ("TZ",)),
    Handler(python_locale.apply, python_locale.VARIABLES, ("locale",)),
    Handler(_write_bytecode, ("PYTHONDONTWRITEBYTECODE",)),
    Handler(_buffering, ("PYTHONUNBUFFERED",)),
    Handler(_temporary_directory, _TEMPORARY, ("tempfile",)),
    Handler(
        _inductor_directories,
        (*_NAMES, *_TEMPORARY, "TORCHINDUCTOR_CACHE_DIR"),
        ("torch._inductor.codecache", "torch._inductor.runtime.cache_dir_utils"),
    ),
    Handler(_user_site, ("HOME",), ("site", "sysconfig")),
    Handler(
        _hub_constants,
        (
            "DISABLE_TELEMETRY",
            "DO_NOT_TRACK",
            "HF_ASSETS_CACHE",
            "HF_ENDPOINT",
            "HF_HOME",
            "HF_HUB_CACHE",
            "HF_HUB_DISABLE_EXPERIMENTAL_WARNING",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
            "HF_HUB_DISABLE_PROGRESS_BARS",
            "HF_HUB_DISABLE_SYMLINKS",
            "HF_HUB_DISABLE_SYMLINKS_WARNING",
            "HF_HUB_DISABLE_TELEMETRY",
            "HF_HUB_DISABLE_UPDATE_CHECK",
            "HF_HUB_DISABLE_XET",
            "HF_HUB_DOWNLOAD_TIMEOUT",
            "HF_HUB_ETAG_TIMEOUT",
            "HF_HUB_OFFLINE",
            "HF_HUB_USER_AGENT_ORIGIN",
            "HF_INFERENCE_ENDPOINT",
            "HF_MODULES_CACHE",
            "HF_TOKEN_PATH",
            "HF_XET_CACHE",
            "HF_XET_HIGH_PERFORMANCE",
            "HOME",
            "HUGGINGFACE_ASSETS_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "TRANSFORMERS_OFFLINE",
            "XDG_CACHE_HOME",
        ),
        (_HUB, "transformers.utils.hub", _ACCELERATE),
    ),
    Handler(_hub_log, ("HF_HUB_VERBOSITY",), ("huggingface_hub.utils.logging",)),
    Handler(_transformers_log, ("TRANSFORMERS_VERBOSITY",), ("transformers.utils.logging",)),
    Handler(
        _vllm_directories, ("HOME", "VLLM_CONFIG_ROOT", "VLLM_USAGE_STATS_SERVER", "XDG_CONFIG_HOME"), ("vllm.envs",)
    ),
    Handler(
        _vllm_log,
        ("FORCE_COLOR", "NO_COLOR", "VLLM_LOGGING_COLOR", "VLLM_LOGGING_LEVEL", "VLLM_LOGGING_STREAM"),
        ("vllm.envs",),
    ),
    Handler(
        _hosting_log,
        ("LOG_LEVEL", "SAGEMAKER_CONTAINER_LOG_LEVEL"),
        ("model_hosting_container_standards.logging_config",),
    ),
    Handler(_certificates, ("SSL_CERT_DIR", "SSL_CERT_FILE"), ("aiohttp.connector", "ssl")),
)

#: Every variable that is derived again, and the modules whose reading of it that makes good.
READERS: dict[str, frozenset[str]] = {
    name: frozenset(reader for handler in HANDLERS if name in handler.variables for reader in handler.readers)
    for handler in HANDLERS
    for name in handler.variables
}
