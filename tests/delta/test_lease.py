"""One run at a time in a catalog, here the session's own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pyspark.sql import SparkSession

from jobs.context import Job
from lakehouse import lease as leases
from lakehouse.errors import RunLocked
from lakehouse.lake import Lake
from lakehouse.lease import lease
from lakehouse.settings import Settings


@pytest.fixture
def lake(spark: SparkSession) -> Iterator[Lake]:
    yield Lake(spark, Settings(catalog="spark_catalog"))
    spark.sql("DROP SCHEMA IF EXISTS aside CASCADE")


def test_a_job_that_writes_keeps_another_out_until_it_ends(lake: Lake) -> None:
    one, two = Job(lake.settings), Job(lake.settings)
    one.lake = two.lake = lake
    with one.locked(), pytest.raises(RunLocked, match=f"run {one.run.run_id}"), two.locked():
        pytest.fail("two at once")
    with two.locked():
        pass


def test_of_runs_that_ask_at_once_one_is_let_in(lake: Lake) -> None:
    with lease(lake, "before", 0):
        pass

    def ask(run_id: str) -> bool:
        return leases._change(lake, lake.aside("_lease"), run_id, f"expires_at < {leases._in(timedelta())}")

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, "abcd")) == 1


def test_what_a_run_that_died_held_is_free_in_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = lease(lake, "silent", 0)
    with monkeypatch.context() as patched:
        patched.setattr(leases, "_LASTS", timedelta(seconds=-5))
        silent.__enter__()
    with lease(lake, "next", 0):
        with pytest.raises(RunLocked, match="Run silent could not say in time"):
            silent.__exit__(None, None, None)
        with pytest.raises(RunLocked, match="run next"), lease(lake, "third", 0):
            pytest.fail("two at once")


def test_a_run_that_lives_renews_what_it_holds(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_RENEWED_AFTER", 0.1)
    with lease(lake, "long", 0):
        table = lake.aside("_lease")
        first = versions = len(lake.spark.sql(f"DESCRIBE HISTORY {table}").collect())
        for _ in range(100):
            if (versions := len(lake.spark.sql(f"DESCRIBE HISTORY {table}").collect())) > first:
                break
        assert versions > first
