"""Lakehouses for tests that write tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

from lakehouse.declare import SCHEMAS
from lakehouse.lake import Lake
from lakehouse.settings import Settings


@contextmanager
def opened_lake(spark: SparkSession, folder: Path, like: Path | None = None) -> Iterator[Lake]:
    """A lakehouse in a folder, empty or a copy of another, whose names leave the session with the block."""
    if like is not None:
        shutil.copytree(like, folder)
    yield Lake(spark, Settings(data_dir=folder, parallel_steps=1))
    for row in spark.sql("SHOW SCHEMAS").collect():
        if row[0] in SCHEMAS:
            spark.sql(f"DROP SCHEMA {row[0]} CASCADE")
