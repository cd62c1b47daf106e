"""What the entrypoint's modules import: the standard library alone, and nothing on a thread."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from warmimage.entrypoint.warm.http_api import PACKAGES

from .harness import SOURCE

#: All that an image gets: ``compile.py`` is a step of the wheel's build.
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "compile.py")


def foreign(tree: ast.AST) -> Iterator[str]:
    """Yield the absolutely imported packages that are not the standard library's."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        yield from (name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_standard_library_is_imported(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.parent.name == "warm" and path.name in ("http_api.py", "metrics.py"):  # the sidecar alone
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        found = list(foreign(tree))
        assert {name.partition(".")[0] for name in found} <= set(PACKAGES)
        assert found == [name for function in functions for name in foreign(function)], "in functions, so when asked"
        return
    expected = []
    if path.name == "download.py":  # runs in the engine's interpreter, and only there
        expected = ["huggingface_hub"]
        (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
        assert list(foreign(main)) == expected
    assert list(foreign(tree)) == expected


def test_no_function_that_runs_on_a_thread_imports() -> None:
    """Invariant 2: no package is imported on one thread while another may import it."""
    tree = ast.parse((SOURCE / "tiers" / "preload" / "libraries.py").read_text())
    targets = {
        keyword.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "target" and isinstance(keyword.value, ast.Name)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in targets]
    assert {function.name for function in functions} == targets != set()
    for function in functions:
        for node in ast.walk(function):
            assert not isinstance(node, ast.Import | ast.ImportFrom)
            assert not (isinstance(node, ast.Name) and node.id in ("__import__", "importlib"))
