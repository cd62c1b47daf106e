"""One sentence for each configuration key: the text of the schema, of ``init``'s comments and of ``--help``.

Apart from ``config`` so that ``--help`` need not import pydantic.
"""

from typing import Literal

#: What ``start`` may say: a tier, the fastest first.
Start = Literal["auto", "snapshot", "zygote", "preload", "plain"]

DESCRIPTIONS = {
    "model": "Model to serve: a local directory, or a Hugging Face Hub id.",
    "revision": "Hub revision: a branch, tag or commit; resolved to a commit.",
    "served_name": "Model name that the server answers to. Default: the model as given, its last part for a directory.",
    "engine": "Engine to serve with: transformers, vllm, sglang, or a registered one.",
    "engine_version": "Engine version that compose installs. Default: the adapter's.",
    "accelerator": "What the server computes on: cuda or cpu.",
    "weights": "Where weights come from: a volume at /model (mount), the image (bake), or a download at start.",
    "base_image": "Image to start from: an engine image (derive) or a Python image (compose).",
    "method": "derive adds layers to an engine image, compose installs wheels on a Python image, auto looks which.",
    "wheelhouse": "Directory of wheels that compose installs from, and from nowhere else.",
    "requirements": "Further requirement lines for compose.",
    "run": "Shell commands run on the base image as root, with every secret mounted at /run/secrets/ID.",
    "network": "Network of the build's own steps: none or default.",
    "secrets": "Build secrets, as docker build --secret takes them: id=NAME,src=FILE or id=NAME,env=VARIABLE.",
    "tags": "References to tag the image with.",
    "port": "TCP port that the server listens on.",
    "args": "Engine arguments of every start, before those given to docker run.",
    "env": "Environment variables of the image.",
    "labels": "Labels of the image, beside its own.",
    "user": "Numeric user id that the server runs as, in group 0.",
    "record": "Start the built image once to see what it imports: auto (where this host can), off or require.",
    "snapshot": "Capture the imported engine in the build, to restore at each start: auto, off or require.",
    "start": "Start-up tier to begin with: auto or a tier's name. WARMIMAGE_START wins over it.",
    "max_size": "Fail with exit code 5 when the image is larger than this, such as 12GB.",
}
