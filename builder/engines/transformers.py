"""``transformers serve``: the embedded default engine."""

from .adapter import CUDA_CACHE_STARTS, CUDA_CACHES, HIDE_GPU, NO_THREADS, TORCH_LIBRARIES, EngineAdapter

TRANSFORMERS = EngineAdapter(
    name="transformers",
    distribution="transformers",
    version="5.23.0",
    requirements={
        # prometheus_client is for the image's own command ``warm``; the rest of what that needs comes with [serving].
        "cpu": ("transformers[serving]=={version}", "torch==2.13.0", "prometheus_client==0.26.0"),
        "cuda": ("transformers[serving]=={version}", "torch==2.13.0", "prometheus_client==0.26.0"),
    },
    python=">=3.11,<3.14",
    # The server answers to nothing but the very string it was given as its model.
    command=("transformers", "serve", "{name}", "--host", "0.0.0.0", "--port", "{port}", "--device", "{accelerator}"),
    serves_by_name=True,
    environment={"HF_HUB_OFFLINE": "1"},
    import_environment={"cuda": HIDE_GPU, "cpu": NO_THREADS},
    health_path="/health",
    modules=(
        "torch",
        "transformers",
        "transformers.cli.transformers",
        "transformers.cli.serving.server",
        "transformers.cli.serving.chat_completion",
        "transformers.cli.serving.model_manager",
        "uvicorn",
        "fastapi",
        "accelerate",
    ),
    required_modules=("torch", "transformers", "transformers.cli.transformers"),
    model_modules=("transformers.models.{model_type}.modeling_{model_type}",),
    native_libraries=TORCH_LIBRARIES,
    caches={"cuda": CUDA_CACHES},
    cache_starts={"cuda": CUDA_CACHE_STARTS},
)
