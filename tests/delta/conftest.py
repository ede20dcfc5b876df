"""A lakehouse of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.lake import Lake
from tests.support.lakes import opened_lake


@pytest.fixture(scope="module")
def prepared() -> Path | None:
    """Folder of a lakehouse that each test of a module gets a copy of; a module that has one says so."""
    return None


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path, prepared: Path | None) -> Iterator[Lake]:
    """A lakehouse under a temporary folder, empty unless the module prepares one."""
    with opened_lake(spark, tmp_path / "lake", prepared) as lake:
        yield lake
