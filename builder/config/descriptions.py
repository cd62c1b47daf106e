"""One sentence for each configuration key, for the schema, the comments of ``init`` and ``--help``.

A module of its own, so that ``--help`` does not import pydantic.
"""

from typing import Literal

#: Values of ``start``: ``auto``, or a tier, the fastest first.
Start = Literal["auto", "snapshot", "zygote", "preload", "plain"]

DESCRIPTIONS = {
    "model": "Model to serve: a local directory or a Hugging Face Hub id.",
    "revision": "Hub revision: a branch, tag or commit; the build resolves it to a commit.",
    "served_name": "Model name that the server answers to. Default: the Hub id, or the last part of the directory.",
    "engine": "Engine that serves the model: transformers, vllm, sglang, or a registered one.",
    "engine_version": "Engine version that compose installs. Default: the version in the engine's adapter.",
    "accelerator": "Hardware that the server computes on: cuda or cpu.",
    "weights": "Source of the weights: a volume at /model (mount), the image (bake), a download at start (download).",
    "base_image": "Base image: an engine image (derive) or a Python image (compose).",
    "method": "derive adds layers to an engine image, compose installs wheels on a Python image, auto detects which.",
    "wheelhouse": "Directory of wheels; compose installs only from it.",
    "requirements": "Additional requirement lines for compose.",
    "run": "Shell commands that the build runs on the base image as root, with each secret at /run/secrets/ID.",
    "network": "Network of the build steps: none or default.",
    "secrets": "Build secrets, in the form of docker build --secret: id=NAME,src=FILE or id=NAME,env=VARIABLE.",
    "tags": "Tags of the image: full references.",
    "port": "TCP port that the server listens on.",
    "args": "Engine arguments of every start; arguments of docker run follow them.",
    "env": "Environment variables of the image.",
    "labels": "Additional labels of the image.",
    "user": "Numeric id of the user that runs the server, in group 0.",
    "record": "Start the built image once to record its imports: auto (if this host can), off or require.",
    "snapshot": "Capture the engine after its imports, and restore it at each start: auto, off or require.",
    "start": "Start-up tier to begin with: auto or the name of a tier. WARMIMAGE_START overrides it.",
    "max_size": "Largest size of the image, such as 12GB. A larger image ends the build with exit code 5.",
}
