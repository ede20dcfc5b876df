"""Notebooks run in the slow tests; that what they import is there is known sooner."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[2].joinpath("notebooks").glob("*.ipynb"))
OURS = {"lakehouse", "pipelines", "features", "segments", "models", "connectors", "apps", "jobs"}


def imported(notebook: Path) -> Iterator[tuple[str, str | None]]:
    """Modules of ours that cells import, with the name taken from each."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        code = "".join(line for line in cell["source"] if not line.startswith(("%", "!")))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
                yield from ((node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((a.name, None) for a in node.names if a.name.split(".")[0] in OURS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_a_notebook_imports_is_there(notebook: Path) -> None:
    found = list(imported(notebook))

    assert found
    for module, name in found:
        loaded = importlib.import_module(module)
        assert name is None or hasattr(loaded, name) or importlib.import_module(f"{module}.{name}")
