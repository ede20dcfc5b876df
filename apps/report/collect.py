"""Tables to the values of the report: a dozen small aggregations, side by side, and nothing about one customer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Final

from pyspark.sql import functions as F

from apps.report import answers, questions, words
from apps.report.data import MerchantReport, ReportData
from lakehouse.declare import table_of
from lakehouse.lake import Lake

_AT_ONCE: Final = 4

_BEHIND: Final = {
    "headline": ("gold.fact_transactions",),
    "segments": ("gold.customer_segment_size", "gold.customer_segment"),
    "rfm": ("feature.customer",),
    "flows": ("feature.lifecycle_flow",),
    "cohorts": ("feature.cohort_retention",),
    "clusters": ("feature.cluster_profile",),
    "recon": ("gold.audit_recon",),
    "checks": ("gov.fact_data_quality",),
    "steps": ("ingest.audit_transforms",),
}
"""Tables each section is made from."""


def collect(lake: Lake, run_id: str, as_of: date) -> ReportData:
    """Read everything the report of one run shows.

    Args:
        lake: Where the tables are. Those that do not exist yet read as empty.
        run_id: Run whose steps are shown; when it recorded none, those of the newest run that did.
        as_of: Slice of the feature tables, exclusive edge of sales.

    Returns:
        One entry per merchant that has sales or features, the retailer with most revenue first.
    """
    moves = lake.read("feature.lifecycle_flow").where(F.col("to_as_of") == F.lit(as_of)).collect()
    before = max((r["from_as_of"] for r in moves), default=None)
    wanted: dict[str, Callable[[], answers.Rows]] = {
        "sales": lambda: questions.sales(lake, as_of, before).collect(),
        "rfm": lambda: questions.rfm(lake, as_of, before).collect(),
        "segments": lambda: questions.segments(lake, as_of).collect(),
        "overlaps": lambda: questions.overlaps(lake, as_of).collect(),
        "segment_moves": lambda: questions.segment_moves(lake, as_of).collect(),
        "cohorts": lambda: questions.slice_of(lake, "feature.cohort_retention", as_of).collect(),
        "profiles": lambda: questions.slice_of(lake, "feature.cluster_profile", as_of).collect(),
        "traits": lambda: questions.traits(lake, as_of).collect(),
        "sources": lambda: lake.read("ingest.dim_source_system").collect(),
        "merchants": lambda: lake.read("gold.dim_merchant").collect(),
        "recon": lambda: lake.read("gold.audit_recon").collect(),
        "checks": lambda: questions.checks(lake).collect(),
        "rejects": lambda: questions.rejects(lake).collect(),
        "parsing": lambda: questions.parsing(lake).collect(),
        "steps": lambda: questions.steps(lake, run_id).collect(),
    }
    # Each is a small job that leaves cores idle; a few at once take half the time of one after the other.
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        asked = {name: pool.submit(question) for name, question in wanted.items()}
        found = {name: future.result() for name, future in asked.items()}
    found["moves"] = moves
    merchants = {r["merchant_id"] for name in ("sales", "rfm") for r in found[name]}
    empty = _why_empty(lake, as_of)
    shops = [answers.merchant(m, found, as_of, before, empty) for m in sorted(merchants)]
    steps, steps_of = answers.timings(found["steps"], run_id)
    titles = answers.source_titles(found["sources"], {r["merchant_id"]: r["merchant_name"] for r in found["merchants"]})
    samples, terms = answers.source_notes(found["sources"], titles)
    return ReportData(
        run_id=run_id,
        as_of=as_of,
        generated_at=datetime.now(UTC).replace(microsecond=0),
        merchants=tuple(sorted(shops, key=_revenue, reverse=True)),
        previous_as_of=before,
        quality=answers.quality(found, empty, titles),
        steps=steps,
        steps_of=steps_of,
        samples=samples,
        terms=terms,
    )


def _why_empty(lake: Lake, as_of: date) -> dict[str, str]:
    said = {}
    for section, names in _BEHIND.items():
        absent = [name for name in names if not lake.exists(name)]
        if absent:
            said[section] = f"{words.listed(absent)} {'has' if len(absent) == 1 else 'have'} not been built yet."
        elif section == "flows":
            said[section] = "The next run with a later day shows who moved since this one."
        elif any(c == "as_of" for c in table_of(names[0]).columns):
            said[section] = f"{names[0]} has no rows for this retailer as of {words.day(as_of)}."
        else:
            said[section] = f"{names[0]} has no rows yet."
    return said


def _revenue(shop: MerchantReport) -> float:
    return (shop.headline.revenue.value or 0.0) if shop.headline else 0.0
