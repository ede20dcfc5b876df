"""The corner shop taken through the whole product once, shared by the tests that only look."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from tests.support.flow import Ran, run_shop
from tests.support.shop import open_shop


@pytest.fixture(scope="session")
def shop_run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Three months delivered at once and run from files to report."""
    folder = tmp_path_factory.mktemp("shop")
    return run_shop(open_shop(folder), folder / "lake")
