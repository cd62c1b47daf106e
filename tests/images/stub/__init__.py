"""Images of a server that is quick to start: one as warmimage builds them, and one without warmimage inside."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
from warmimage.config.model import Config
from warmimage.inputs.base_image import default_base
from warmimage.plan import Plan
from warmimage.rendering import quoting

from tests.builder import facts

IMAGE = "warmimage-test/stub:1"
FOREIGN = "warmimage-test/stub-foreign:1"

_SERVER = ("/usr/bin/env", "python3", "-I", "-S", "/stub/server.py")


def plan() -> Plan:
    """Return the stub's plan: tier ``preload`` is baked in, and declines, as the image has no closure."""
    made = facts.plan_of(Config(model="tiny-llama", engine="transformers", accelerator="cpu", snapshot="off"))
    engine = replace(made.engine, name="stub", version="1", command=(*_SERVER, "--port", "8000"), directory="/")
    model = replace(made.model, name="stub", link=None)
    return replace(made, engine=engine, model=model, wheels=None, tiers=("preload", "plain"), environment={})


def build(client: docker.DockerClient) -> tuple[str, str]:
    """Build both images on the base that the product takes by default, and return their references."""
    stub = plan()
    root = stub.folders.root
    lines = [
        f"FROM {default_base(client)}",
        "COPY server.py /stub/server.py",
        f"RUN mkdir -p /run/warmimage {stub.folders.home} && chmod 1777 /run/warmimage {stub.folders.home}",
        "USER 1000:0",
    ]
    ours = [
        f"COPY entrypoint/ {root}/entrypoint/",
        f"COPY plan.json {root}/plan.json",
        f"LABEL dev.warmimage.plan={quoting.dockerfile(stub.to_json())}",
        f'ENTRYPOINT ["/usr/bin/env", "python3", "-I", "-S", "{root}/entrypoint"]',
    ]
    theirs = ['ENTRYPOINT ["/usr/bin/env", "python3", "-I", "-S", "/stub/server.py"]', 'CMD ["--port", "8000"]']
    with TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copy(Path(__file__).parent / "server.py", context)
        (context / "plan.json").write_text(stub.to_json(), encoding="utf-8")
        with as_file(files("warmimage.entrypoint")) as source:
            shutil.copytree(source, context / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
        for tag, more in ((IMAGE, ours), (FOREIGN, theirs)):
            (context / "Dockerfile").write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
            client.images.build(path=folder, tag=tag, rm=True)
    return IMAGE, FOREIGN
