"""``vllm serve``."""

from .adapter import (
    CONSOLIDATED,
    CUDA_CACHE_STARTS,
    CUDA_CACHES,
    HIDE_GPU,
    NO_THREADS,
    TORCH_LIBRARIES,
    UNREAD_FORMATS,
    EngineAdapter,
    Loading,
    Parallelism,
)

VLLM = EngineAdapter(
    name="vllm",
    distribution="vllm",
    version="0.33.0",
    requirements={"cuda": ("vllm=={version}",)},  # the registry has no vLLM wheel for CPU under vLLM's own name
    python=">=3.10,<3.14",
    command=("vllm", "serve", "{path}", "--served-model-name", "{name}", "--host", "0.0.0.0", "--port", "{port}"),
    environment={"HF_HUB_OFFLINE": "1"},
    import_environment={"cuda": HIDE_GPU, "cpu": NO_THREADS},
    health_path="/health",
    unprobed_flags=("--uds", "--ssl-keyfile", "--ssl-certfile", "--headless"),
    unchecked_flags=("--load-format", "--model"),
    quick_flags=("--help", "-h", "--version", "-v"),
    modules=(
        "torch",
        "transformers",
        "vllm.entrypoints.cli.main",
        "vllm.entrypoints.openai.api_server",
        "vllm.v1.engine.async_llm",
        "vllm.v1.engine.core",
    ),
    required_modules=("torch", "vllm.entrypoints.cli.main"),
    model_modules=("vllm.model_executor.models.{model_type}",),
    loading=Loading(
        model_flags=("--model",),
        revision_flags=("--revision",),
        cache_flags=("--download-dir",),
        format_flags=("--load-format",),
        preferred_weights=CONSOLIDATED,
        unread_formats=UNREAD_FORMATS,
        modelscope_variable="VLLM_USE_MODELSCOPE",
        modelscope_values=("true",),
    ),
    native_libraries=TORCH_LIBRARIES,
    kernels_at_import=("cpu",),  # one of _C, _C_AVX512 and _C_AVX2 (vllm/platforms/cpu.py)
    shared_memory=1 << 30,
    parallelism=Parallelism(
        factors=(("--tensor-parallel-size", "-tp"), ("--pipeline-parallel-size", "-pp")),
        replicas=(("--data-parallel-size-local", "-dpl"), ("--data-parallel-size", "-dp")),
    ),
    metrics_path="/metrics",
    # VLLM_CACHE_ROOT holds the caches of torch.compile and DeepGEMM, and facts about the model's class.  On CPU only
    # the facts are kept: they save a quarter of a restored start, but code compiled for one CPU may not run on another.
    caches={
        "cpu": {"modelinfos": ("VLLM_CACHE_ROOT", "<cache>/vllm", "modelinfos")},
        "cuda": {"vllm": ("VLLM_CACHE_ROOT", "<cache>/vllm", ""), **CUDA_CACHES},
    },
    cache_starts={"cuda": CUDA_CACHE_STARTS},
    # Of 0.32: its check of the variable refuses any other, and its CPU platform forces spawn.
    start_methods=("fork", "spawn"),
    start_method_variable="VLLM_WORKER_MULTIPROC_METHOD",
)
