"""The notebooks run from top to bottom on a lakehouse the product made, and show no customer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lakehouse.session import TEST_CONF

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra: uv sync --extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra: uv sync --extra notebooks")

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def data_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of a lakehouse: the one SEGMENTATION_DATA_DIR names, else the corner shop's."""
    named = os.environ.get("SEGMENTATION_DATA_DIR")
    if named:
        return Path(named).resolve()
    folder: Path = request.getfixturevalue("shop_run").job.settings.data_dir
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTATION_DATA_DIR", str(data_dir))
    spark = {"master": "local[2]", "driver_memory": "1g", "shuffle_partitions": 2, "conf": dict(TEST_CONF)}
    monkeypatch.setenv("SEGMENTATION_SPARK", json.dumps(spark))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    # Started where a person opens it: in its own folder.
    runner = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    runner.execute()
    shown = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in o.get("data", {}) for o in shown) >= 2
    assert not [o for o in shown if _text(o).count("@example.")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_kept_without_outputs(path: Path) -> None:
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert not [c for c in code if c.outputs or c.execution_count]


def _text(output: Any) -> str:
    return str(output.get("text", "")) + "".join(str(v) for k, v in output.get("data", {}).items() if "text" in k)
