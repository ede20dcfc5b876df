"""The corner shop taken through the whole product once, shared by the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse.declare import SCHEMAS
from tests.support.flow import Ran, run_shop
from tests.support.shop import open_shop


@pytest.fixture(scope="module")
def shop_run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Three months delivered at once and run from files to report."""
    folder: Path = tmp_path_factory.mktemp("shop")
    yield run_shop(open_shop(folder), folder / "lake")
    forget_tables(spark)


def forget_tables(spark: SparkSession) -> None:
    """Take the names of one lakehouse out of the session, so that the next may use them."""
    for schema in SCHEMAS:
        spark.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
