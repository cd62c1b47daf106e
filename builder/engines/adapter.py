"""An engine, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Directory in the image whose entries, named as the model is served, link to the model.
SERVED_DIRECTORY = "/opt/warmimage/served"


@dataclass(frozen=True)
class Loading:
    """The arguments and variables that choose the engine's model, so that its files can be read ahead.

    Attributes:
        model_flags: flags that name another model: a path, or a name at a hub.
        revision_flags: flags that name the hub's branch, tag or commit.
        cache_flags: flags that name the cache directory of the hub's client.
        format_flags: flags that name the load format.
        preferred_weights: patterns of weights that the format ``auto`` takes before all others.
        unread_formats: load formats that read no weights through the page cache, and why, in a few words.
        modelscope_variable: the variable that switches from the Hugging Face Hub to ModelScope.
        modelscope_values: its values that do so, in lower case; the engine ignores case.
    """

    model_flags: tuple[str, ...] = ()
    revision_flags: tuple[str, ...] = ()
    cache_flags: tuple[str, ...] = ()
    format_flags: tuple[str, ...] = ()
    preferred_weights: tuple[str, ...] = ()
    unread_formats: Mapping[str, str] = field(default_factory=dict)
    modelscope_variable: str = ""
    modelscope_values: tuple[str, ...] = ("true", "1", "yes", "y")


@dataclass(frozen=True)
class Parallelism:
    """The arguments that decide how many GPUs one server uses.  A flag has several names.

    Attributes:
        factors: flags whose values multiply: tensor and pipeline parallelism.
        replicas: flags for the number of data-parallel ranks in one server.  The first flag with a value counts.
        sharing_flag: with this flag, data-parallel ranks share the GPUs of tensor parallelism.
    """

    factors: tuple[tuple[str, ...], ...] = ()
    replicas: tuple[tuple[str, ...], ...] = ()
    sharing_flag: str = ""


@dataclass(frozen=True)
class EngineAdapter:
    """How one engine is installed, launched, watched and preloaded.

    In ``command`` and ``model_modules``, ``{path}`` stands for the model's directory in the image, ``{name}`` for the
    served model name, ``{port}`` for the port, ``{accelerator}`` for ``cuda`` or ``cpu``, ``{model_type}`` for the
    model's type as its ``config.json`` names it.

    Attributes:
        name: the engine's name on the command line and in the plan.
        distribution: Python distribution that an image must hold to be an image of this engine.
        version: the version that ``compose`` installs by default.
        requirements: per accelerator, the requirement lines of ``compose``; ``{version}`` is filled in.  An
            accelerator that is not named can only be derived from an engine image.
        python: Python versions that the engine's wheels support, as a version specifier.
        command: the engine's own command line.
        serves_by_name: whether the command's model argument is also the only model name the server answers to, so that
            it is launched in a directory where that name is a link to the model.
        environment: variables of the image that the engine needs to serve a local model.
        import_environment: per accelerator, variables that keep the accelerator untouched while modules are imported.
        health_path: HTTP path that answers 200 when the server is ready.
        port_flags: flags that set the port.
        unprobed_flags: flags that make readiness undetectable over plain HTTP on that port.
        unchecked_flags: flags after which the engine does not load the volume's weight files.
        quick_flags: flags after which the engine prints something and ends.
        loading: the arguments and variables that choose its model.
        modules: the modules to preload, in load order.
        model_modules: modules to preload for the model's architecture.
        required_modules: those of ``modules`` without which an image is broken.
        kernels_at_import: accelerators on which imports pick native code by the CPU: a snapshot is of that CPU then.
        native_libraries: shared objects that use no Python, as patterns relative to ``sys.path`` entries, that may be
            opened before the imports.
        shared_memory: bytes of ``/dev/shm`` that the engine's processes need; 0 if they share none.
        parallelism: arguments that decide how many GPUs one server uses.
        metrics_path: HTTP path of the engine's Prometheus metrics; empty if it has none.
        metrics_flag: the flag without which the engine does not serve them; empty if it always does.
        caches: per accelerator, the engine's compile caches by our names: the variable that sets the directory, the
            default directory, and a directory below either.  ``<home>``, ``<cache>`` (``XDG_CACHE_HOME``) and
            ``<user>`` stand for those of the container.
        cache_starts: per accelerator, how many starts it takes to fill all caches; 1 if not given.
        start_methods: the ``multiprocessing`` start methods that the engine accepts; empty when it starts no process.
        start_method_variable: the variable by which it takes one, or an empty string.
    """

    name: str
    distribution: str
    version: str
    requirements: Mapping[str, tuple[str, ...]]
    python: str
    command: tuple[str, ...]
    health_path: str
    modules: tuple[str, ...]
    required_modules: tuple[str, ...]
    model_modules: tuple[str, ...] = ()
    serves_by_name: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    import_environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    port_flags: tuple[str, ...] = ("--port",)
    unprobed_flags: tuple[str, ...] = ()
    unchecked_flags: tuple[str, ...] = ()
    quick_flags: tuple[str, ...] = ("--help", "-h", "--version")
    loading: Loading = Loading()
    native_libraries: tuple[str, ...] = ()
    kernels_at_import: tuple[str, ...] = ()
    shared_memory: int = 0
    parallelism: Parallelism = Parallelism()
    metrics_path: str = ""
    metrics_flag: str = ""
    caches: Mapping[str, Mapping[str, tuple[str, str, str]]] = field(default_factory=dict)
    cache_starts: Mapping[str, int] = field(default_factory=dict)
    start_methods: tuple[str, ...] = ()
    start_method_variable: str = ""

    @property
    def directory(self) -> str:
        """The working directory that the engine is started in."""
        return SERVED_DIRECTORY if self.serves_by_name else "/"


#: PyTorch's libraries that use no Python, largest first: what every engine here spends its first seconds mapping.
TORCH_LIBRARIES = ("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_cuda.so")

#: Hides the GPU from imports, and lets PyTorch count devices without a CUDA context (measured on an H200: without the
#: first two, importing vLLM leaves 48 threads and /dev/nvidia-uvm open).
HIDE_GPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

#: What PyTorch, Triton, CUDA's driver and the kernel libraries of engines compile at a first start, and keep.
CUDA_CACHES = {
    "triton": ("TRITON_CACHE_DIR", "<home>/.triton/cache", ""),
    "inductor": ("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_<user>", ""),  # noqa: S108 - PyTorch's own choice
    "torch_extensions": ("TORCH_EXTENSIONS_DIR", "<cache>/torch_extensions", ""),
    "flashinfer": ("FLASHINFER_WORKSPACE_BASE", "<home>", ".cache/flashinfer"),
    "tvm_ffi": ("TVM_FFI_CACHE_DIR", "<cache>/tvm-ffi", ""),
    "cuda": ("CUDA_CACHE_PATH", "<home>/.nv/ComputeCache", ""),
}

#: Starts that fill ``CUDA_CACHES``: a start that finds compiled graphs keeps Triton's kernels in another place than a
#: start that compiles the graphs.
CUDA_CACHE_STARTS = 2

#: Weights in Mistral's own format, which vLLM and SGLang load if the directory also holds the common format.
CONSOLIDATED = ("consolidated*.safetensors",)

#: Load formats that vLLM and SGLang share and that do not read weights through the page cache.
UNREAD_FORMATS = {
    "dummy": "it makes the weights up",
    "fastsafetensors": "it reads past the page cache",
    "instanttensor": "it reads past the page cache",
    "runai_streamer": "it streams the weights without the page cache",
    "runai_streamer_sharded": "it streams the weights without the page cache",
    "tensorizer": "it streams the weights without the page cache",
}

#: Starts no threads for a library that imports load and do not use yet.
NO_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
