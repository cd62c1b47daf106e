"""The seed's way, kept as a warning: import torch and transformers on a thread while the main thread imports, too.

vLLM #40331 did this and was reverted the same day (#40438, #40442).  Run in an image of vLLM, with the argument

``cli``: the main thread imports what ``vllm serve`` imports, as in the seed.  Whether it breaks is a matter of
milliseconds: only when it first asks for transformers while the thread is still inside ``transformers/__init__.py``.

``name``: the main thread asks for one name of transformers at that very moment, so that it always breaks.  Python lets
it wait for the thread, and then goes on with the module object it had found before, which transformers has replaced
meanwhile by another: the name is not there.

Exit code 1 and the error on standard error when an import broke.
"""

import importlib
import sys
import threading
import time

failures: list[Exception] = []


def preload() -> None:
    """What the seed's thread did."""
    for module in ("torch", "transformers"):
        try:
            importlib.import_module(module)
        except Exception as error:
            failures.append(error)


def main(way: str) -> None:
    """What the main thread did meanwhile."""
    if way == "cli":
        importlib.import_module("vllm.entrypoints.cli.main")
        importlib.import_module("vllm.entrypoints.openai.api_server")
        return
    importlib.import_module("torch")
    time.sleep(0.05)
    from transformers import PreTrainedConfig  # noqa: F401


thread = threading.Thread(target=preload)
thread.start()
try:
    main(sys.argv[1])
except ImportError as error:
    failures.append(error)
thread.join()
if failures:
    print(f"ImportError: {failures[0]}", file=sys.stderr)
    sys.exit(1)
