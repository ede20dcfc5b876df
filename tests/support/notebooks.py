"""Notebooks run from top to bottom in a process of their own, as a person would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from lakehouse.session import TEST_CONF

ROOT = Path(__file__).parents[2]


def run_notebooks(names: Sequence[str], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the code cells of some notebooks show, by name.

    They run one after the other in one kernel, so that Spark starts once, and in their folder, as where a person opens
    them.
    """
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra: uv sync --extra notebooks")
    spark = {"master": "local[2]", "driver_memory": "1g", "shuffle_partitions": 2, "conf": dict(TEST_CONF)}
    monkeypatch.setenv("SEGMENTATION_DATA_DIR", str(data_dir))
    monkeypatch.setenv("SEGMENTATION_SPARK", json.dumps(spark))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    books = {name: nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4) for name in names}
    whole = nbformat.v4.new_notebook(cells=[c for b in books.values() for c in b.cells])
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(whole, timeout=600, kernel_name="python3", resources=resources).execute()
    return {n: [o for c in b.cells if c.cell_type == "code" for o in c.outputs] for n, b in books.items()}


def pictures(shown: Sequence[Any]) -> int:
    """How many pictures a notebook shows."""
    return sum("image/png" in o.get("data", {}) for o in shown)


def text_of(output: Any) -> str:
    """What an output says."""
    return str(output.get("text", "")) + "".join(str(v) for k, v in output.get("data", {}).items() if "text" in k)
