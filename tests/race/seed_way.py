"""The seed's way, kept as a warning: import torch and transformers on a thread while the main thread imports the CLI.

vLLM #40331 did this and was reverted the same day (#40438, #40442).  Run in an image of vLLM; exit code 1 and the
traceback when the two threads' imports broke each other.
"""

import importlib
import sys
import threading


def preload() -> None:
    """What the seed's thread did."""
    for module in ("torch", "transformers"):
        try:
            importlib.import_module(module)
        except Exception as error:
            failures.append(error)


failures: list[Exception] = []
threading.Thread(target=preload, daemon=True).start()
importlib.import_module("vllm.entrypoints.cli.main")
importlib.import_module("vllm.entrypoints.openai.api_server")
if failures:
    print(f"on the thread: {failures[0]!r}", file=sys.stderr)
    sys.exit(1)
