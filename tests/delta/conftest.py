"""A lakehouse of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.declare import SCHEMAS
from lakehouse.lake import Lake
from lakehouse.settings import Settings


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Iterator[Lake]:
    """An empty lakehouse under a temporary folder, whose names leave the session with the test."""
    yield Lake(spark, Settings(data_dir=tmp_path / "lake", parallel_steps=1))
    for schema in SCHEMAS:
        spark.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
