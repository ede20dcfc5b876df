"""What the acquirer says it settled, held against what was sold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold_finance import FactDailySales as D
from lakehouse.tables.gold_finance import FactSettlements as Out
from lakehouse.tables.gold_finance import RefFeeSchedule as Fee
from lakehouse.tables.gold_finance import StageReconciliations as R
from lakehouse.tables.gold_finance import StageSettlements as S
from pipelines.silver.rules import blank_is_null, code, rule_book
from pipelines.silver.subjects import accept, keep_latest, touched

if TYPE_CHECKING:
    from pipelines.gold.finance_conf import Finance


def conform_settlements(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per merchant and settlement number that changed: the latest delivery, within it the last row, wins.

    Rows without number, day, amounts or currency are refused, see `silver.subject_reject`.
    """
    book = rule_book(sources, "settlements")
    key = (str(S.merchant_id), str(S.settlement_id))
    rows = touched(accept(raw, "settlements", book), accept(raw_changes, "settlements", book), previous, *key)
    latest = keep_latest(rows, *key)
    return latest.select(
        *key,
        F.coalesce(F.lower(blank_is_null("channel")), F.lit("unknown")).alias(S.channel_id),
        S.settled_on,
        S.gross_amount,
        # Of a feed that does not tell the fee, what was not paid out was withheld.
        F.coalesce("fee_amount", F.col(S.gross_amount) - F.col(S.net_amount)).cast("decimal(18,2)").alias(S.fee_amount),
        S.net_amount,
        code("currency").alias(S.currency),
        book.where(lambda r: r.is_sample).alias(S.is_sample),
        S.delivered_count,
        S.delivered_hash,
    )


def reconcile_settlements(daily_sales: DataFrame, settlements: DataFrame, *, finance: Finance) -> DataFrame:
    """Sold against settled for each merchant that settles, by channel, currency and day.

    A merchant without a single settlement has nothing to reconcile and is absent. Differences within the configured
    limit count as matched.
    """
    settles = settlements.select(S.merchant_id).distinct()
    by = [str(R.merchant_id), str(R.channel_id), str(R.currency), str(R.business_date)]
    # `settles` names a merchant once, so the join keeps each day's row once.
    sold = (
        daily_sales.join(F.broadcast(settles), on=str(D.merchant_id), how="left_semi")
        .groupBy(*by)
        .agg(F.sum(D.net_amount).cast("decimal(18,2)").alias(R.sold_amount))
    )
    settled = (
        settlements.withColumnRenamed(S.settled_on, R.business_date)
        .groupBy(*by)
        .agg(F.sum(S.gross_amount).cast("decimal(18,2)").alias(R.settled_amount))
    )
    zero = F.lit(0).cast("decimal(18,2)")
    # Both sides are grouped by the join key, so each key meets at most one row.
    both = sold.join(settled, on=by, how="full_outer").withColumn(
        R.difference_amount,
        (F.coalesce(R.settled_amount, zero) - F.coalesce(R.sold_amount, zero)).cast("decimal(18,2)"),
    )
    return both.select(*by, R.sold_amount, R.settled_amount, R.difference_amount, _status(finance).alias(R.status_id))


def build_fact_settlements(settlements: DataFrame, reconciliations: DataFrame, fees: DataFrame) -> DataFrame:
    """Every settlement with the fee it should have cost and how its day came out.

    Periods of the fee schedule do not overlap within a channel and currency, and a day of a channel is reconciled
    once, so neither join multiplies.
    """
    schedule = fees.select(
        F.col(Fee.channel_id),
        F.col(Fee.currency),
        F.col(Fee.valid_from),
        F.col(Fee.valid_to),
        F.col(Fee.rate).alias("_rate"),
        F.col(Fee.fixed_amount).alias("_fixed"),
    )
    in_force = (
        (settlements[str(S.channel_id)] == schedule[str(Fee.channel_id)])
        & (settlements[str(S.currency)] == schedule[str(Fee.currency)])
        & (settlements[str(S.settled_on)] >= schedule[str(Fee.valid_from)])
        & (schedule[str(Fee.valid_to)].isNull() | (settlements[str(S.settled_on)] < schedule[str(Fee.valid_to)]))
    )
    priced = settlements.join(F.broadcast(schedule), on=in_force, how="left").select(
        *[settlements[c] for c in S.__table__.column_names],  # type: ignore[attr-defined]
        "_rate",
        "_fixed",
    )
    day = reconciliations.select(
        R.merchant_id, R.channel_id, R.currency, F.col(R.business_date).alias(S.settled_on), R.status_id
    )
    on = [str(S.merchant_id), str(S.channel_id), str(S.currency), str(S.settled_on)]
    expected = F.round(F.col(S.gross_amount) * F.col("_rate") + F.col("_fixed"), 2).cast("decimal(18,2)")
    return priced.join(day, on=on, how="left").select(
        Out.merchant_id,
        Out.settlement_id,
        Out.channel_id,
        Out.settled_on,
        Out.currency,
        Out.gross_amount,
        Out.fee_amount,
        Out.net_amount,
        expected.alias(Out.expected_fee_amount),
        (F.col(S.fee_amount) - expected).cast("decimal(18,2)").alias(Out.fee_difference_amount),
        (F.col(S.gross_amount) - F.col(S.fee_amount) == F.col(S.net_amount)).alias(Out.is_arithmetic_right),
        F.coalesce(R.status_id, F.lit("unsold")).alias(Out.status_id),
        Out.is_sample,
    )


def _status(finance: Finance) -> Column:
    small = F.abs(F.col(R.difference_amount)) <= F.lit(finance.limit("settlement_difference"))
    return (
        F.when(F.col(R.settled_amount).isNull(), "unsettled")
        .when(F.col(R.sold_amount).isNull(), "unsold")
        .when(small, "matched")
        .when(F.col(R.difference_amount) < 0, "short")
        .otherwise("over")
    )
