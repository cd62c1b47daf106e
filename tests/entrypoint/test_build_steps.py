"""The scripts that run while an image is built: bytecode and closure."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from warmimage.entrypoint.closure import Closure

from .harness import Image
from .plans import make_imports

pytestmark = pytest.mark.timeout(60)


def test_bytecode_is_compiled_unchecked_and_a_bad_file_is_counted(image: Image, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "good.py").write_text("x = 1\n")
    (folder / "bad.py").write_text('print "Python 2"\n')
    driver = tmp_path / "driver.py"
    driver.write_text(
        f"import sys; sys.path.insert(0, {str(image.root)!r})\n"
        f"from entrypoint.image_build import bytecode; bytecode.roots = lambda: [{str(folder)!r}]\n"
        "if __name__ == '__main__': sys.exit(bytecode.main())\n"
    )
    done = image.python_run(str(driver))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("compiled 1 directories; 1 files are not valid Python")
    assert done.stdout.count("\n") == 1, "no traceback in the build's log"
    (compiled,) = folder.rglob("*.pyc")
    assert compiled.name.startswith("good.")
    assert struct.unpack("<I", compiled.read_bytes()[4:8]) == (0b01,), "hash-based, and never checked (PEP 552)"


def record(image: Image, **engine: object) -> tuple[int, str, dict[str, Any] | None]:
    """Run the closure's build step on some modules."""
    (image.root / "quitting.py").write_text("raise SystemExit(0)")
    (image.root / "failing.py").write_text("import no_such_module")
    (image.root / "engine_module.py").write_text(
        "import ctypes, os\nassert os.environ['HIDDEN'] == 'yes'\nopen(__file__).close(); open('/proc/stat').close()"
    )
    imports, output = image.root / "imports.json", image.root / "recorded.json"
    imports.write_text(make_imports(import_environment={"HIDDEN": "yes"}, **engine).to_json())
    done = image.python_run(image.main, "record-closure", str(imports), str(output), PYTHONPATH=str(image.root))
    return done.returncode, done.stderr, json.loads(output.read_text()) if output.exists() else None


def test_closure_names_the_images_variables_and_no_proxy(image: Image) -> None:
    proxies = {"HTTPS_PROXY": "http://user:secret@proxy", "no_proxy": "10.0.0.0/8"}
    imports, output = image.root / "imports.json", image.root / "recorded.json"
    imports.write_text(make_imports(import_environment={"HIDDEN": "yes"}).to_json())
    done = image.python_run(
        image.main, "record-closure", str(imports), str(output), OF_THE_IMAGE="its value", **proxies
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = Closure.read(str(output)).variables
    assert {"OF_THE_IMAGE", "PATH"} <= set(names)
    assert not {"HIDDEN", *proxies} & set(names)
    assert "its value" not in output.read_text()


def test_closure_lists_files_and_libraries_and_what_was_skipped(image: Image) -> None:
    modules = ["engine_module", "failing", "quitting"]
    code, said, closure = record(
        image, modules=modules, required_modules=modules[:1], native_libraries=["_ctypes.*.so", "no_such*.so"]
    )
    assert (code, closure is not None) == (0, True)
    assert closure
    assert closure["modules"] == ["engine_module"]
    assert closure["skipped"] == [
        {"module": "failing", "reason": "ModuleNotFoundError: No module named 'no_such_module'"},
        {"module": "quitting", "reason": "SystemExit: 0"},
    ]
    assert [row.split(":")[2].split()[0] for row in said.splitlines()] == ["failing", "quitting"]
    names = [os.path.basename(path) for path in closure["files"]]
    assert any(name.startswith("engine_module.") for name in names)
    assert any(name.startswith("libc") for name in names)
    assert len(set(closure["files"])) == len(closure["files"])
    assert sum(os.path.getsize(path) for path in closure["files"]) == closure["bytes"]
    (library,) = closure["libraries"]
    assert os.path.basename(library).startswith("_ctypes.")
    assert library not in closure["files"], "libraries are opened, not read"
    assert str(image.root / "engine_module.py") in closure["read"], "its bytecode is imported, its source is read"
    assert not set(closure["read"]) & set(closure["files"])
    assert not any(path.startswith("/proc/") for path in closure["read"])


@pytest.mark.parametrize("module", ["failing", "quitting"])
def test_image_whose_engine_cannot_be_imported_is_not_built(image: Image, module: str) -> None:
    code, said, closure = record(image, modules=[module], required_modules=[module])
    assert (code, closure) == (1, None)
    assert "warmimage: error: the engine cannot be imported in this image" in said
    assert "Traceback" not in said
