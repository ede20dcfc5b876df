"""The public data sets that are declared, from files to features, against figures counted without this product."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from bench.engines.ours import needed_steps
from jobs.context import Job
from jobs.flow import build_steps
from jobs.progress import Progress
from pipelines.bronze.ingest import land_source
from pipelines.bronze.records import FeedResult

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        "SEGMENTATION_REAL_SALES" not in os.environ,
        reason="takes minutes in a session made for few rows; SEGMENTATION_REAL_SALES=1 runs it",
    ),
]


def run_sales(data_dir: Path, name: str, as_of: date, last: Iterable[str], **variables: str) -> tuple[Job, FeedResult]:
    """Land the sales of a source and make some tables of them, with all that is before these."""
    job = Job.start(data_dir=data_dir, sources=(name,), variables=variables, base_currency="GBP")
    with job.locked():
        source = job.sources.source(name)
        (landed,) = land_source(job.lake, source, ["transactions"], run=job.run, declared=job.sources)
        build_steps(job, Progress(Console(file=io.StringIO())), needed_steps(last), as_of=as_of)
    return job, landed


@pytest.mark.shared_data
def test_online_retail_has_the_customers_and_the_value_its_files_have(
    spark: SparkSession, tmp_path: Path, shared_data: Path
) -> None:
    """Counted with pandas: sheet 2 for invoices in both, no `C` or `A`, a customer, quantity and price above zero."""
    folder = shared_data / "online_retail_ii"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    last = ("feature.customer",)
    job, landed = run_sales(tmp_path, "online_retail_ii", date(2011, 12, 10), last, online_retail_ii=str(folder))
    assert (landed.rows_accepted, landed.rows_rejected, landed.refused_files) == (1_067_371, 0, ())
    facts = job.lake.read("gold.fact_transactions").where("is_valid_purchase")
    bought = facts.agg(F.countDistinct("customer_key"), F.sum("gross_amount")).collect()[0]
    assert tuple(bought) == (5_878, Decimal("17431551.16"))
    customers = job.lake.read("feature.customer").agg(F.count("*"), F.sum("monetary_gross")).collect()[0]
    assert tuple(customers) == (5_878, Decimal("17431551.16"))
