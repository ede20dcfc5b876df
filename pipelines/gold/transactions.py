"""The fact every feature is made from."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.keys import key_of_customer
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.gold_finance import RefExchangeRates as R
from pipelines.gold.accounts import GUEST

_STATUS = {"sale": "posted", "return": "returned", "cancellation": "cancelled", "adjustment": "adjusted"}


def build_fact_transactions(
    line_changes: DataFrame,
    rates: DataFrame,
    rate_changes: DataFrame,
    *,
    base_currency: str,
    previous: DataFrame | None = None,
) -> DataFrame:
    """Changed lines with keys and the amount in the base currency, and lines for which that is another amount by now.

    Of the changed ones a narrow map, no shuffle; the others are only read where a rate of their currency changed.

    Args:
        line_changes: Changed rows of `silver.transaction_line`.
        rates: `gold.ref_exchange_rates`, a few hundred rows: they become one array per currency.
        rate_changes: Its changed rows, also those that are gone.
        base_currency: ISO 4217 code of the settings; another one is a first run.
        previous: Present content of `gold.fact_transactions`, None on a first run.

    Returns:
        `gold.fact_transactions` rows plus `_deleted`. `base_amount` is the amount times the rate in force, or divided
        by that of the base currency to the line's, rounded once and half away from zero; null where neither holds on
        the day. A real rate goes before a sample, then one to the base currency before the other way.
    """
    of_currency = F.broadcast(_rates_of(rates, base_currency))
    priced = line_changes.join(of_currency, on="currency", how="left")
    customer = F.col(T.customer_id)
    made = priced.select(
        T.transaction_id,
        T.merchant_id,
        F.concat(T.merchant_id, F.coalesce(F.concat(F.lit(":"), customer), F.lit(GUEST))).alias(T.account_id),
        F.when(customer.isNotNull(), key_of_customer(T.merchant_id, T.customer_id)).alias(T.customer_key),
        T.customer_id,
        T.basket_id,
        T.product_id,
        T.store_id,
        T.channel_id,
        T.txn_type,
        reduce(lambda c, kv: c.when(F.col(T.txn_type) == kv[0], kv[1]), _STATUS.items(), F).alias(T.status_id),
        F.col("sold_at").alias(T.posted_ts),
        F.col("sold_on").alias(T.business_date),
        F.col("sold_hour").alias(T.hour_of_day),
        T.quantity,
        T.gross_amount,
        T.amount,
        T.discount_amount,
        T.coupon_amount,
        T.currency,
        _in_base(base_currency, "sold_on").alias(T.base_amount),
        T.original_basket_id,
        T.is_valid_purchase,
        "_deleted",
    )
    if previous is None:
        return made
    either = rate_changes.select(F.explode(F.array(R.from_currency, R.to_currency)).alias("currency"))
    currencies = either.where(F.col("currency") != F.lit(base_currency))
    maybe = previous.join(F.broadcast(currencies), on="currency", how="left_semi")
    again = maybe.join(of_currency, on="currency", how="left").select(
        *previous.columns, _in_base(base_currency, T.business_date).alias("_base")
    )
    # A rate came late or was corrected. What changed anyway is made above.
    moved = again.where(~F.col(T.base_amount).eqNullSafe(F.col("_base"))).join(
        made.select(T.transaction_id), on=str(T.transaction_id), how="left_anti"
    )
    stale = moved.withColumn(T.base_amount, F.col("_base")).withColumn("_deleted", F.lit(False))
    return made.unionByName(stale.select(*made.columns))


def _rates_of(rates: DataFrame, base: str) -> DataFrame:
    """One row per currency with its rates to and from the base currency as an array, those to be taken first first."""
    is_to_base = F.col(R.to_currency) == F.lit(base)
    currency = F.when(is_to_base, F.col(R.from_currency)).otherwise(F.col(R.to_currency))
    is_real = ~F.coalesce(R.is_sample, F.lit(False))
    told = F.struct(is_real.alias("is_real"), is_to_base.alias("is_to_base"), R.valid_from, R.rate)
    of_base = rates.where(is_to_base | (F.col(R.from_currency) == F.lit(base)))
    return of_base.groupBy(currency.alias("currency")).agg(
        F.sort_array(F.collect_list(told), asc=False).alias("_rates")
    )


def _in_base(base: str, day: str) -> Column:
    in_force = F.get(F.filter("_rates", lambda r: r[str(R.valid_from)] <= F.col(day)), F.lit(0))
    amount, rate = F.col(T.amount), in_force[str(R.rate)]
    converted = F.when(in_force["is_to_base"], F.round(amount * rate, 2)).otherwise(F.round(amount / rate, 2))
    return F.when(F.col(T.currency) == F.lit(base), amount).otherwise(converted.cast("decimal(18,2)"))
