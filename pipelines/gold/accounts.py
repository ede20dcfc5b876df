"""Accounts and their balances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.joins import with_gone
from lakehouse.keys import key_of_customer
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.gold_finance import DimAccount as A
from lakehouse.tables.gold_finance import FactBalanceSnapshots as B
from pipelines.gold.daily import cents, from_cents
from pipelines.gold.registers import rows_from

if TYPE_CHECKING:
    from pipelines.bronze.sources import Sources

GUEST = "/guest"
"""Follows the merchant in the account of its guests. A customer's number, whatever it is, follows a colon."""


def build_dim_account(customers: DataFrame, *, sources: Sources, previous: DataFrame | None = None) -> DataFrame:
    """A loyalty account per known customer and one guest account per merchant; `_deleted` for those there no more."""
    currencies = {m.id: sources.of_merchant(m.id)[0].currency for m in sources.merchants}
    currency = F.coalesce(*[F.when(F.col("merchant_id") == m, F.lit(c)) for m, c in currencies.items()], F.lit("XXX"))
    loyalty = customers.select(
        F.concat_ws(":", "merchant_id", "customer_id").alias(A.account_id),
        "merchant_id",
        key_of_customer().alias(A.customer_key),
        F.lit("loyalty").alias(A.account_type),
        currency.alias(A.currency),
        F.col("first_seen_at").alias(A.opened_at),
        F.lit("open").alias(A.status_id),
    )
    guests = rows_from(
        customers,
        "gold.dim_account",
        (
            {
                "account_id": f"{merchant}{GUEST}",
                "merchant_id": merchant,
                "customer_key": None,
                "account_type": "guest",
                "currency": code,
                "opened_at": None,
                "status_id": "open",
            }
            for merchant, code in currencies.items()
        ),
    )
    return with_gone(loyalty.unionByName(guests), previous, [A.account_id])


def build_balance_snapshots(facts: DataFrame, fact_changes: DataFrame, *, previous: DataFrame | None) -> DataFrame:
    """Months of the accounts that changed; of all accounts on a first run.

    Args:
        facts: `gold.fact_transactions`.
        fact_changes: Its changed rows.
        previous: Present content of `gold.fact_balance_snapshots`, None on a first run.

    Returns:
        `gold.fact_balance_snapshots` rows plus `_deleted` for months whose last line is gone.
    """
    if previous is None:
        return _months(facts).withColumn("_deleted", F.lit(False))
    accounts = fact_changes.select(T.account_id).distinct()
    # An account is named once in `accounts`, so the joins do not multiply.
    months = _months(facts.join(accounts, on=str(T.account_id), how="left_semi"))
    key = [str(B.account_id), str(B.currency), str(B.month_end)]
    stored = previous.join(accounts, on=str(B.account_id), how="left_semi")
    gone = stored.join(months.select(*key), on=key, how="left_anti")
    return months.withColumn("_deleted", F.lit(False)).unionByName(gone.withColumn("_deleted", F.lit(True)))


def _months(facts: DataFrame) -> DataFrame:
    sold = F.when(F.col(T.txn_type) == "sale", F.col(T.amount))
    back = F.when(F.col(T.txn_type) != "sale", F.col(T.amount))
    movements = facts.select(
        T.account_id,
        T.merchant_id,
        T.currency,
        F.last_day(T.business_date).alias(B.month_end),
        sold.alias("_sold"),
        back.alias("_back"),
    )
    by_month = movements.groupBy(B.account_id, B.merchant_id, B.currency, B.month_end).agg(
        F.count(F.lit(1)).alias(B.line_count),
        F.coalesce(cents("_sold"), F.lit(0)).alias("_sold"),
        F.coalesce(cents("_back"), F.lit(0)).alias("_back"),
    )
    so_far = Window.partitionBy(B.account_id, B.currency).orderBy(B.month_end).rowsBetween(Window.unboundedPreceding, 0)
    running = by_month.select(
        "*",
        (F.col("_sold") + F.col("_back")).alias("_moved"),
        F.sum(F.col("_sold") + F.col("_back")).over(so_far).alias("_balance"),
    )
    return running.select(
        B.account_id,
        B.merchant_id,
        B.currency,
        B.month_end,
        B.line_count,
        from_cents("_sold").alias(B.bought_amount),
        from_cents("_back").alias(B.returned_amount),
        from_cents("_moved").alias(B.movement_amount),
        from_cents("_balance").alias(B.balance_amount),
    )
