"""Bodies of masks and the row filter, run on local Spark with group membership given by the test."""

from __future__ import annotations

import re
from pathlib import Path

from pyspark.sql import SparkSession

from lakehouse.access import load_access
from lakehouse.columns import Pii
from lakehouse.declare import table_of
from lakehouse.unity import filter_body, mask_body, plan

ACCESS = load_access(Path(__file__).parents[2] / "conf")


def as_member_of(body: str, *groups: str) -> str:
    """The body as someone in `groups` runs it."""
    return re.sub(r"is_account_group_member\('([^']*)'\)", lambda m: str(m[1] in groups).lower(), body)


def test_masks_and_row_filter_show_what_access_says(spark: SparkSession) -> None:
    cases = {
        "privacy_contact": as_member_of(mask_body(ACCESS, Pii.CONTACT, "string"), "privacy"),
        "crm_contact": as_member_of(mask_body(ACCESS, Pii.CONTACT, "string"), "crm-data"),
        "crm_identifier": as_member_of(mask_body(ACCESS, Pii.IDENTIFIER, "string"), "crm-data"),
        "nobody_identifier": as_member_of(mask_body(ACCESS, Pii.IDENTIFIER, "string")),
        "nobody_quasi": as_member_of(mask_body(ACCESS, Pii.QUASI, "string")),
        "pipeline_quasi": as_member_of(mask_body(ACCESS, Pii.QUASI, "string"), ACCESS.pipeline_group),
        "marketing_row": as_member_of(filter_body(ACCESS), "marketing"),
        "nobody_row": as_member_of(filter_body(ACCESS)),
        "privacy_row": as_member_of(filter_body(ACCESS), "privacy"),
    }
    frame = spark.createDataFrame(
        [("v", "complete_journey"), ("v", "unheard_of"), ("v", None)], "value string, merchant string"
    )
    known, unheard, unknown = frame.selectExpr(*[f"{body} AS {name}" for name, body in cases.items()]).collect()
    assert known["privacy_contact"] == known["crm_identifier"] == known["pipeline_quasi"] == "v"
    assert known["crm_contact"] == known["nobody_identifier"] == "***"
    assert known["nobody_quasi"] is None
    assert (known["marketing_row"], unheard["marketing_row"], unknown["marketing_row"]) == (True, False, False)
    assert not any(r["nobody_row"] for r in (known, unheard, unknown))
    assert all(r["privacy_row"] for r in (known, unheard, unknown))


def test_only_columns_that_an_earlier_release_did_not_declare_are_added(spark: SparkSession) -> None:
    script = next(s.sql for s in plan(["silver.customer"], catalog="c", access=ACCESS) if s.kind == "column")
    place = "`c`.`silver`.`customer`"
    assert place in script
    spark.sql("CREATE TABLE older (customer_id STRING, city STRING) USING parquet")
    try:
        for _ in range(2):
            held = [("silver", "customer", c) for c in spark.table("older").columns]
            spark.createDataFrame(
                held, "table_schema string, table_name string, column_name string"
            ).createOrReplaceTempView("known_columns")
            spark.sql(script.replace(place, "older").replace("`c`.information_schema.columns", "known_columns"))
        declared = {str(c) for c in table_of("silver.customer").pii_columns if c.spec.optional}
        assert set(spark.table("older").columns) == {"customer_id", "city"} | declared
    finally:
        spark.sql("DROP TABLE older")
