"""Every producer of the product, run through a Spark Connect session: what Databricks serverless runs."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from features.rules import load_feature_rules
from lakehouse.declare import Changes, Scd2, table_of
from lakehouse.lake import Lake
from lakehouse.session import connect_session
from lakehouse.settings import load_settings
from lakehouse.steps import Step, plan_steps
from pipelines.bronze.load_sources import load_sources
from pipelines.gold.finance_conf import load_finance
from segments.earlier import NOT_KNOWN
from segments.load import load_segments
from tests.support.rows import rows

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

pytestmark = [pytest.mark.spark, pytest.mark.connect]

AS_OF = date(2020, 2, 1)


@pytest.fixture(scope="module")
def offered() -> dict[str, Any]:
    """What a run offers to producers."""
    settings = load_settings("local")
    conf = settings.conf_dir
    return {
        "as_of": AS_OF,
        "run_id": "run-1",
        "started_at": datetime(2020, 2, 1, 3),
        "settings": settings,
        "previous": None,
        "is_full": True,
        "clusters": {},
        "outlooks": {},
        "base_currency": settings.base_currency,
        "sources": load_sources(conf),
        "finance": load_finance(conf),
        "feature_rules": load_feature_rules(conf),
        "segments": load_segments(conf / "segments"),
        "earlier": NOT_KNOWN,
        "asked": (),
    }


@pytest.mark.parametrize("step", plan_steps(), ids=lambda s: s.producer)
def test_a_producer_runs_on_connect(step: Step, connect_spark: ConnectSession, offered: dict[str, Any]) -> None:
    import inspect

    function = step.function()
    asked = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    one: dict[str, Any] = {}
    frames = [
        rows(connect_spark, str(r), [one | {"_deleted": False} if isinstance(r, Changes) else one]) for r in step.reads
    ]
    with Lake(connect_spark, offered["settings"]).holding() as hold:
        made = function(*frames, **{n: (offered | {"hold": hold})[n] for n in asked})
        by_name = made if isinstance(made, dict) else {step.outputs[0].name: made}
        assert set(by_name) == {o.name for o in step.outputs}
        for name, frame in by_name.items():
            t = table_of(name)
            # Of a history the lakehouse itself fills the key of each version, its end and whether it is the last.
            managed = {t.key[0], "valid_to", "is_current"} if isinstance(t.kind, Scd2) else set()
            assert set(t.column_names) - managed <= set(frame.columns)
            frame.collect()


def test_lines_are_conformed_on_connect_as_elsewhere(connect_spark: ConnectSession) -> None:
    from tests.spark.test_silver_transactions import LINE, REJECT, conform, raw

    again = raw(n=2, d=2, row_hash=7, quantity=Decimal(3))
    made = conform(connect_spark, [raw(n=1), raw(n=1, d=2), again, raw(n=3, basket_id=None)])
    assert sorted(r["quantity"] for r in made[LINE]) == [Decimal(3)]
    assert [r["reasons"] for r in made[REJECT]] == [["missing_basket"]]


# The session itself, on the same server.


@pytest.mark.delta
def test_connect_writes_and_reads_delta_by_path(connect_spark: ConnectSession, tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    connect_spark.createDataFrame(pa.table({"id": [1, 2], "n": [10, 20]})).write.format("delta").save(path)
    connect_spark.sql(
        f"MERGE INTO delta.`{path}` t USING (SELECT 2L AS id, 2L AS n) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET *"
    )
    assert connect_spark.read.format("delta").load(path).agg(F.sum("n")).collect() == [(12,)]


def test_connect_has_the_semantics_of_the_local_engine(connect_spark: ConnectSession) -> None:
    assert connect_spark.sql("SELECT current_timezone()").collect() == [("UTC",)]
    assert not hasattr(connect_spark, "_jvm")


def test_a_classic_session_works_after_a_connect_session(connect_address: str, spark: SparkSession) -> None:
    with connect_session(connect_address) as remote:
        assert remote.range(3).agg(F.sum("id")).collect() == [(3,)]
    assert spark.range(3).agg(F.sum("id")).collect() == [(3,)]
