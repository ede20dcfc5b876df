"""What the report reads: a few frames in, the report's values out, worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from rich.console import Console

from apps.report.collect import collect
from apps.report.data import Flow, Overlap, Period, Reconciliation, ReportData, SampleNote, SegmentMove
from apps.report.render import render
from apps.report.story import about_segments
from jobs.summary import Told, ended_retailers, print_segments, print_summary, segment_sizes
from tests.support.rows import rows

pytestmark = pytest.mark.spark

DAY, BEFORE = date(2024, 3, 1), date(2024, 2, 1)


class Frames:
    """Stands for the lakehouse: the named tables hold these rows, all others do not exist."""

    def __init__(self, spark: SparkSession, content: Mapping[str, list[dict[str, Any]]]):
        self._spark, self._content = spark, content

    def read(self, name: str) -> DataFrame:
        return rows(self._spark, name, self._content.get(name, []))

    def exists(self, name: str) -> bool:
        return name in self._content


def line(basket: str, day: date, amount: str, customer: int | None, kind: str = "sale") -> dict[str, Any]:
    return {
        "merchant_id": "a",
        "currency": "EUR",
        "basket_id": basket,
        "business_date": day,
        "txn_type": kind,
        "amount": Decimal(amount),
        "customer_key": customer,
        "is_valid_purchase": kind == "sale" and customer is not None and Decimal(amount) > 0,
    }


def scored(customer: int, as_of: date, r: int, f: int, net: str, group: str, **more: Any) -> dict[str, Any]:
    return {
        "merchant_id": "a",
        "customer_key": customer,
        "customer_id": f"SECRET-{customer}",
        "as_of": as_of,
        "r_score": r,
        "f_score": f,
        "monetary_net": Decimal(net),
        "rfm_group": group,
        **more,
    }


def sized(segment: str, as_of: date, members: int) -> dict[str, Any]:
    return {
        "segment_id": segment,
        "website_id": "a",
        "as_of": as_of,
        "members": members,
        "customers": 3,
        "share": 0.5,
        "net_amount": Decimal("60.00"),
        "value_share": 0.75,
        "entered": 2,
        "exited": 1,
    }


CONTENT: dict[str, list[dict[str, Any]]] = {
    "gold.fact_transactions": [
        line("1", date(2024, 1, 2), "10.00", 1),
        line("1", date(2024, 1, 2), "5.00", 1),
        line("2", date(2024, 1, 31), "20.00", None),
        line("3", date(2024, 2, 10), "40.00", 2),
        line("4", date(2024, 2, 11), "-5.00", 1, "return"),
        line("7", date(2024, 2, 11), "0.00", 2),  # nothing but a gift: no order, as for features
        line("5", date(2024, 2, 12), "99.00", 1, "adjustment"),
        line("6", date(2024, 3, 1), "1000.00", 3),  # on the day itself: not yet
    ],
    "feature.customer": [
        scored(1, DAY, 5, 5, "30.00", "champions", recency_days=1, frequency=9),
        scored(2, DAY, 5, 5, "50.00", "loyal", recency_days=1, frequency=9),
        scored(3, DAY, 1, 1, "10.00", "lost", recency_days=60, frequency=1),
        scored(1, BEFORE, 5, 5, "15.00", "champions"),
        scored(9, date(2023, 1, 1), 5, 5, "15.00", "champions"),
    ],
    "feature.lifecycle_flow": [
        {"merchant_id": "a", "from_as_of": BEFORE, "to_as_of": DAY, "from_stage": s, "to_stage": t, "customers": n}
        for s, t, n in (("active", "active", 1), ("absent", "new", 2))
    ],
    "feature.cohort_retention": [
        {
            "merchant_id": "a",
            "as_of": DAY,
            "cohort_month": date(2024, 1, 1),
            "month_number": n,
            "customers": 2,
            "active": active,
        }
        for n, active in ((0, 2), (1, 1))
    ],
    "feature.customer_cluster": [
        {"merchant_id": "a", "customer_key": k, "as_of": DAY, "cluster_id": c} for k, c in ((1, 0), (2, 0), (3, 1))
    ],
    "feature.cluster_profile": [
        {
            "merchant_id": "a",
            "as_of": DAY,
            "cluster_id": c,
            "cluster_name": name,
            "customers": n,
            "share": n / 3,
            "value_share": v,
        }
        for c, name, n, v in ((1, "rare", 1, 0.1), (0, "frequent", 2, 0.9))
    ],
    "gold.customer_segment_size": [
        sized("vip", DAY, 2),
        sized("vip", BEFORE, 1),
        sized("old", DAY, 3),
        sized("back", DAY, 600),
        sized("back", date(2024, 1, 1), 100),
        sized("next", DAY, 0),
    ],
    "gold.customer_membership": [
        {"website_id": "a", "customer_key": n, "segment_ids": ids, "is_present": True}
        for n, ids in ((1, ["old", "vip"]), (2, ["old", "vip"]), (3, ["old"]))
    ],
    "gold.customer_segment_history": [
        {"segment_id": s, "website_id": "a", "customer_key": n, "entered_on": entered, "exited_on": exited}
        for s, n, entered, exited in (
            ("vip", 1, BEFORE, DAY),
            ("old", 1, DAY, None),
            ("next", 1, DAY, None),
            ("next", 2, BEFORE, None),
        )
    ],
    "gold.customer_segment": [
        {"segment_id": "next", "name": "Next", "is_active": True, "priority": 3, "refresh_status": "completed"},
        {"segment_id": "vip", "name": "VIP", "is_active": True, "priority": 1, "refresh_status": "completed"},
        {"segment_id": "old", "name": "Old", "is_active": False, "priority": 2, "refresh_status": "completed"},
        {"segment_id": "back", "name": "Back", "is_active": True, "priority": 4, "refresh_status": "completed"},
    ],
    "gov.fact_data_quality": [
        {
            "dataset_id": "gold.x",
            "check_name": "c",
            "check_status": status,
            "severity": "warning",
            "column_name": "k",
            "checked_ts": datetime(2024, 1, hour, tzinfo=UTC),
            "element_count": 1000,
            "unexpected_count": 3,
        }
        for status, hour in (("passed", 1), ("failed", 2))
    ],
    "silver.transaction_reject": [
        {"source": "s", "reasons": ["quantity_zero", "no_price"]},
        {"source": "s", "reasons": ["quantity_zero"]},
    ],
    "silver.subject_reject": [{"subject": "consents", "source": "s", "reasons": ["unknown_choice"]}],
    "ingest.raw_records": [{"source_system_id": "s", "feed": "f", "payload_hash": "one", "batch_id": 2}],
    "ingest.ref_parsing_errors": [
        {"source": "s", "feed": "f", "file_id": "one", "batch_id": batch, "column_name": column, "reason": "mistyped"}
        for batch, column in ((1, "sold_at"), (1, "amount"), (2, "sold_at"))  # read anew with a mended declaration
    ],
    "gold.dim_merchant": [{"merchant_id": "a", "merchant_name": "A Shop", "currency": "EUR"}],
    "gold.audit_recon": [
        {
            "subject": "transactions",
            "merchant_id": "a",
            "delivered_rows": 10,
            "accepted_rows": 6,
            "duplicate_rows": 1,
            "rejected_rows": 3,
            "unparsed_rows": 2,
            "is_balanced": True,
        }
    ],
    "ingest.audit_transforms": [
        {
            "run_id": run,
            "step": "pipelines.gold.x:build_x",
            "status": "succeeded",
            "started_at": datetime(2024, 3, 1, 6, tzinfo=UTC),
            "seconds": 2.5,
            "rows_written": written,
        }
        for run, written in (("run-1", 7), ("run-1", 5), ("run-0", 1))
    ],
    "ingest.dim_source_system": [
        {
            "source_system_id": "a_made_up",
            "merchant_id": "a",
            "description": "made up",
            "is_sample": True,
            "label": "Sample.",
            "file_count": 1,
        },
        {
            "source_system_id": "declared_only",
            "description": "never delivered",
            "is_sample": True,
            "label": "Sample.",
            "terms": "None.",
            "file_count": 0,
        },
    ],
}


@pytest.fixture(scope="module")
def report(spark: SparkSession) -> ReportData:
    return collect(Frames(spark, CONTENT), "run-1", DAY)  # type: ignore[arg-type]


def test_headline_counts_net_sales_and_orders_before_the_day(report: ReportData) -> None:
    headline = report.merchants[0].headline
    assert headline is not None
    assert (headline.revenue.value, headline.revenue.previous) == (70.0, 35.0)
    assert (headline.orders.value, headline.orders.previous) == (3, 2)
    assert (headline.customers.value, headline.customers.previous) == (3, 1)
    assert headline.basket.value == pytest.approx(70 / 3)
    assert headline.known_share == pytest.approx(50 / 70)
    assert (headline.first_day, headline.last_day) == (date(2024, 1, 2), date(2024, 2, 11))


def test_months_carry_sales_orders_and_buying_customers(report: ReportData) -> None:
    # February ends early: the newest sale is of the 11th.
    assert report.merchants[0].periods == (
        Period(date(2024, 1, 1), 35.0, 2, 1),
        Period(date(2024, 2, 1), 35.0, 1, 1, is_partial=True),
    )


def test_rfm_cells_and_groups_are_of_the_day_with_the_earlier_day_beside(report: ReportData) -> None:
    shop = report.merchants[0]
    assert [(c.recency, c.frequency, c.customers, c.mean_value) for c in shop.rfm_cells] == [
        (1, 1, 1, 10.0),
        (5, 5, 2, 40.0),
    ]
    assert [(g.name, g.customers.value, g.customers.previous, g.value) for g in shop.rfm_groups] == [
        ("loyal", 1, 0, 50.0),
        ("champions", 1, 1, 30.0),
        ("lost", 1, 0, 10.0),
    ]


def test_active_segments_come_with_their_size_before(report: ReportData) -> None:
    vip = report.merchants[0].segments[0]
    assert (vip.name, vip.members.value, vip.members.previous, vip.entered) == ("VIP", 2, 1, 2)


def test_a_segment_that_was_switched_off_is_not_compared_with_a_day_before_that(
    spark: SparkSession, report: ReportData
) -> None:
    shop = report.merchants[0]
    back = next(s for s in shop.segments if s.segment_id == "back")
    assert (back.members.value, back.members.previous, back.since) == (600, None, BEFORE)
    assert "VIP</b> changed most: 1 customer more than on 1 February 2024." in str(about_segments(shop))
    job: Any = SimpleNamespace(lake=SimpleNamespace(for_rows=lambda _: Frames(spark, CONTENT)))
    sizes = segment_sizes(job)
    assert {r["name"]: r["members_before"] for r in sizes} == {"VIP": 1, "Next": None, "Back": None}
    console = Console(file=StringIO(), record=True, width=120)
    print_segments(sizes, console)
    assert "customers, value in EUR" in console.export_text()


def test_a_run_names_retailers_whose_data_ended_long_before_its_day(spark: SparkSession) -> None:
    sold = {"ended": [date(2023, 12, 31), date(2023, 6, 1)], "lately": [date(2024, 1, 1)], "later": [date(2024, 3, 5)]}
    days = [{"merchant_id": m, "business_date": d} for m, found in sold.items() for d in found]
    lake = SimpleNamespace(for_rows=lambda _: Frames(spark, {"gold.fact_daily_sales": days}))
    ended = ended_retailers(SimpleNamespace(lake=lake), DAY)  # type: ignore[arg-type]
    assert ended == {"ended": 61}
    console = Console(file=StringIO(), record=True, width=120)
    print_summary(Told(str(DAY), [], 0, 0, None, [], "", ended=ended), console, 0, nothing_new=False)
    assert "note the newest sale of ended lies 61 days before that" in console.export_text()


def test_segments_come_with_their_past_their_overlap_and_who_moved_between_them(report: ReportData) -> None:
    shop = report.merchants[0]
    assert [(s.segment_id, s.history) for s in shop.segments] == [
        ("vip", ((BEFORE, 1), (DAY, 2))),
        ("next", ((DAY, 0),)),
        ("back", ((date(2024, 1, 1), 100), (DAY, 600))),
    ]
    assert shop.overlaps == (Overlap("old", "vip", 2, pytest.approx(2 / 3)),)
    assert shop.segment_moves == (SegmentMove("VIP", "Next", 1),)


def test_absence_is_no_state(report: ReportData) -> None:
    movement = report.merchants[0].movement
    assert movement is not None
    assert movement.since == BEFORE == report.previous_as_of
    assert set(movement.flows) == {Flow("active", "active", 1), Flow(None, "new", 2)}


def test_clusters_are_ordered_by_value_and_set_apart_by_their_traits(report: ReportData) -> None:
    frequent, rare = report.merchants[0].clusters
    assert (frequent.name, rare.name) == ("frequent", "rare")
    of = {t.feature: t for t in rare.traits}
    # Two equal customers and one other: they lie 1/sqrt(2) below the mean and it lies sqrt(2) above, in deviations.
    assert of["recency_days"].z_score == pytest.approx(2**0.5)
    assert of["recency_days"].mean == 60
    assert "discount_share" not in of  # unknown for everybody


def test_quality_takes_the_newest_outcome_of_a_check_and_counts_reasons(report: ReportData) -> None:
    quality = report.quality
    assert (quality.checks_passed, quality.checks_failed, quality.warnings) == (0, 0, 1)
    assert quality.failed[0].observed == "3 of 1,000 rows"
    assert {(r.stage, r.reason, r.rows) for r in quality.rejections} == {
        ("rule", "unknown_choice", 1),
        ("rule", "quantity_zero", 2),
        ("rule", "no_price", 1),
        ("parsing", "sold_at: mistyped", 1),
    }


def test_rows_that_could_not_be_read_count_as_delivered_and_refused(report: ReportData) -> None:
    assert report.quality.reconciliations == (Reconciliation("transactions", "A Shop", 12, 6, 5, 1, True),)


def test_sources_that_delivered_nothing_are_not_named(report: ReportData) -> None:
    assert report.samples == (SampleNote("A Shop made up", "made up", "Sample."),)
    assert report.terms == ()


def test_steps_are_those_of_the_run(report: ReportData) -> None:
    (step,) = report.steps
    assert (step.step, step.layer, step.seconds, step.rows_written) == ("Build x", "gold", 2.5, 12)
    assert report.steps_of is None


def test_nothing_of_a_customer_reaches_the_page(report: ReportData) -> None:
    page = render(report)
    assert "SECRET" not in page
    assert "Includes sample data" in page


def test_an_empty_lakehouse_makes_a_page_that_says_so(spark: SparkSession) -> None:
    empty = collect(Frames(spark, {}), "run-1", DAY)  # type: ignore[arg-type]
    assert empty.merchants == ()
    assert "No retailer has customers yet." in render(empty)
