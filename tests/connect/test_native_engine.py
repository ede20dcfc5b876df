"""The product's transforms on a native engine behind Spark Connect, checked row by row against DuckDB's own answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.run import Plan, run


def test_unchanged_transforms_answer_the_same_on_a_native_engine(tmp_path: Path) -> None:
    pytest.importorskip("pysail", reason="the extra `bench` is not installed")

    plan = Plan("tiny", tmp_path, ("duckdb", "ours-sail"), rounds=1, threads=2, memory_gb=1.0, incremental=False)

    assert run(plan)["differences"] == []
