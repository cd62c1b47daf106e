"""``sglang.launch_server``."""

from .adapter import HIDE_GPU, NO_THREADS, TORCH_LIBRARIES, EngineAdapter

SGLANG = EngineAdapter(
    name="sglang",
    distribution="sglang",
    version="0.5.23",
    requirements={"cuda": ("sglang=={version}",)},
    python=">=3.10,<3.14",
    command=(
        "python3",
        "-m",
        "sglang.launch_server",
        "--model-path",
        "{path}",
        "--served-model-name",
        "{name}",
        "--host",
        "0.0.0.0",
        "--port",
        "{port}",
    ),
    environment={"HF_HUB_OFFLINE": "1"},
    import_environment={"cuda": HIDE_GPU, "cpu": NO_THREADS},
    health_path="/health",
    unprobed_flags=("--ssl-keyfile", "--ssl-certfile"),
    unchecked_flags=("--load-format", "--model-path", "--model"),
    modules=("torch", "transformers", "sglang.launch_server", "sglang.srt.entrypoints.http_server"),
    required_modules=("torch", "sglang.launch_server"),
    model_modules=("sglang.srt.models.{model_type}",),
    native_libraries=TORCH_LIBRARIES,
    shared_memory=1 << 30,
    start_methods=("spawn",),
)
