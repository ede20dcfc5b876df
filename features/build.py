"""Builds a slice of `feature.customer`: whole, or only for customers whose features can have changed.

Every column is one of two sorts. What was bought depends on a customer's events and on which of them the trailing
windows hold; it is made from the facts, or carried over from the slice before. Ages, scores, stage and campaigns
depend on `as_of`, on the other customers or on small tables; they are made for every row from stored days. So a slice
carried forward equals one built from nothing.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features import affinity, behaviour, engagement, lifecycle, rfm
from features.measures import Measure, combine_all, reduce_all, total
from features.purchases import baskets_of, history, places, product_hash
from features.rules import FeatureRules
from lakehouse.hold import Once, as_is
from lakehouse.tables.feature import FeatureCustomer
from lakehouse.tables.gold import DimCustomer, FactTransactions

_C = FeatureCustomer
_Fact = FactTransactions


def build_customer_features(
    facts: DataFrame,
    fact_changes: DataFrame,
    products: DataFrame,
    product_changes: DataFrame,
    customers: DataFrame,
    campaigns: DataFrame,
    contacts: DataFrame,
    redemptions: DataFrame,
    promotions: DataFrame,
    promotion_changes: DataFrame,
    *,
    as_of: date,
    started_at: datetime,
    previous: DataFrame | None,
    feature_rules: FeatureRules,
    hold: Once = as_is,
) -> DataFrame:
    """One row per customer who has bought before `as_of`; see `feature.customer` for the columns.

    Args:
        facts: `gold.fact_transactions`.
        fact_changes: Its rows that changed since the newest slice was built, also those that are gone.
        products: `gold.dim_product`.
        product_changes: Its rows that changed since then.
        customers: `gold.dim_customer`; gives the customer number, from the current version.
        campaigns: `silver.campaign`.
        contacts: `silver.campaign_contact`.
        redemptions: `silver.coupon_redemption`.
        promotions: `silver.promotion`.
        promotion_changes: Its rows that changed since then.
        as_of: Exclusive edge of what counts.
        started_at: Start of the run, UTC.
        previous: `feature.customer` when the changes are only what is new since its newest slice, else None.
        feature_rules: Cut points and life-cycle thresholds.
        hold: Returns a frame that is made once, however often it is read.
    """
    past = history(facts, as_of)
    placed = engagement.begun_promotions(promotions, as_of)
    answered = engagement.campaign_response(campaigns, contacts, redemptions, as_of)
    if previous is None:
        # Cut points need every customer before any customer can be scored. Both readers of these use all columns, so
        # Spark plans one exchange for both and makes the rows once; a reader of fewer columns would make them again. So
        # would a held frame below: with one, Spark does not see that two exchanges are the same.
        bought = purchase_features(past, products, customers, placed, as_of, feature_rules).repartition(
            _C.merchant_id, _C.customer_key
        )
        cuts = rfm.cut_points(bought, as_of, feature_rules, reading=bought.columns)
        return _complete(bought, cuts, answered.hint("shuffle_hash"), as_of, started_at, feature_rules)
    before = _newest_slice(previous)
    changed = hold(
        _either(
            fact_changes.select(_Fact.customer_key),
            _came_into_view(facts, previous, as_of),
            _windows_moved(before, as_of, feature_rules),
            _products_changed(past, product_changes),
            engagement.customers_with_promotions(past, promotion_changes, placed),
            _promotions_began_or_ended(before, placed),
        )
    )
    touched = past.join(F.broadcast(changed), on="customer_key", how="left_semi")
    again = hold(purchase_features(touched, products, customers, placed, as_of, feature_rules, hold))
    kept = before.join(F.broadcast(changed), on="customer_key", how="left_anti")
    # Rows that are only carried over are not moved about: they are read twice, once for the columns that cuts need.
    bought = kept.select(*again.columns).unionByName(again)
    cuts = rfm.cut_points(bought, as_of, feature_rules)
    return _complete(bought, cuts, answered, as_of, started_at, feature_rules)


def purchase_features(
    lines: DataFrame,
    products: DataFrame,
    customers: DataFrame,
    promotions: DataFrame,
    as_of: date,
    rules: FeatureRules,
    hold: Once = as_is,
) -> DataFrame:
    """The columns that depend on a customer's own events only, and on how long a return is remembered.

    Args:
        lines: From `features.purchases.history`, every line of each customer it holds any line of.
        products: `gold.dim_product`.
        customers: `gold.dim_customer`.
        promotions: From `engagement.begun_promotions`.
        as_of: Edge of the trailing windows.
        rules: For `won_back_days`.
        hold: Makes frames once; for callers who do not rely on Spark finding equal exchanges in what is returned.
    """
    known_places = hold(places(lines))
    baskets = baskets_of(lines, products, known_places)
    measures: list[Measure] = [
        *rfm.measures(),
        *behaviour.measures(as_of, rules),
        total("bought_lines", F.col("lines")),
        Measure("channel_bits", "bit_or", F.when(F.col("is_bought"), F.col("channel_bit")).otherwise(0)),
    ]
    store = F.coalesce("store_code", F.lit(0)).alias("store_code")
    per_store = baskets.groupBy("customer_key", store).agg(*reduce_all(measures))
    visits = behaviour.visit_measures()
    per_customer = (
        per_store.groupBy("customer_key")
        .agg(*combine_all(measures), *reduce_all(visits))
        .where(F.col("bought_baskets") > 0)
    )
    identity = (
        customers.where(F.col(DimCustomer.is_current))
        .select(DimCustomer.customer_key, DimCustomer.merchant_id, DimCustomer.customer_id)
        .hint("shuffle_hash")
    )
    stores = known_places.groupBy("merchant_id", F.col("store_code").cast("bigint").alias("favourite_store_code")).agg(
        F.min("store_id").alias(_C.favourite_store_id)
    )
    # One row per key on every right side, so none multiplies.
    joined = (
        per_customer.join(identity, on="customer_key", how="inner")
        .join(affinity.breadth(lines, products).hint("shuffle_hash"), on="customer_key", how="left")
        .join(engagement.promotion_response(lines, promotions).hint("shuffle_hash"), on="customer_key", how="left")
        .join(F.broadcast(engagement.promoting_merchants(promotions)), on="merchant_id", how="left")
    )
    made = {**rfm.columns(), **behaviour.columns(rules), **behaviour.visit_columns(), **engagement.promotion_columns()}
    passed = ["favourite_category_code", _C.favourite_category_share, _C.distinct_categories, _C.distinct_departments,
              _C.distinct_brand_types, _C.distinct_manufacturers]  # fmt: skip
    wide = joined.select(
        _C.merchant_id,
        _C.customer_key,
        _C.customer_id,
        *[column.alias(name) for name, column in made.items()],
        *passed,
    )
    return (
        wide.join(F.broadcast(stores), on=["merchant_id", "favourite_store_code"], how="left")
        .join(F.broadcast(affinity.category_names(products)), on=["merchant_id", "favourite_category_code"], how="left")
        .drop("favourite_store_code", "favourite_category_code")
    )


def _complete(
    bought: DataFrame, cuts: DataFrame, answered: DataFrame, as_of: date, started_at: datetime, rules: FeatureRules
) -> DataFrame:
    # One row per merchant, and per customer, on the right sides, so none multiplies.
    scored = bought.join(F.broadcast(cuts), on=_C.merchant_id, how="inner").join(
        answered, on=[_C.merchant_id, _C.customer_key], how="left"
    )
    made = {
        _C.as_of: F.lit(as_of),
        _C.built_at: F.lit(started_at),
        **rfm.scores(as_of),
        **lifecycle.columns(as_of, rules),
        **engagement.campaign_columns(),
    }
    return scored.select(*[made[c].alias(c) if c in made else F.col(c) for c in _C.__table__.column_names])


def _newest_day(previous: DataFrame) -> DataFrame:
    return previous.agg(F.max_by(_C.as_of, _C.built_at).alias("newest_as_of"))


def _newest_slice(previous: DataFrame) -> DataFrame:
    """The slice built last, which is the one the changes are counted from; not always the one of the latest day."""
    return previous.where(F.col(_C.as_of) == _newest_day(previous).scalar())


def _either(*reasons: DataFrame) -> DataFrame:
    """Keys of customers whose own features may differ from those in the newest slice."""
    keys = reduce(DataFrame.unionByName, reasons)
    return keys.where(F.col(_Fact.customer_key).isNotNull()).distinct()


def _came_into_view(facts: DataFrame, previous: DataFrame, as_of: date) -> DataFrame:
    """Customers of facts that were already there, but not yet past when the newest slice was built."""
    day = F.col(_Fact.business_date)
    return facts.where((day >= _newest_day(previous).scalar()) & (day < F.lit(as_of))).select(_Fact.customer_key)


def _windows_moved(before: DataFrame, as_of: date, rules: FeatureRules) -> DataFrame:
    """Customers with an event that leaves a window, or whose merchant chose another window.

    Everyone when the new slice lies before the newest.
    """
    is_other = ~F.col(_C.returned_within_days).eqNullSafe(rules.by_merchant("won_back_days", F.lit))
    moved = (F.col(_C.windows_move_on) <= F.lit(as_of)) | (F.col(_C.as_of) > F.lit(as_of)) | is_other
    return before.where(moved).select(_C.customer_key)


def _products_changed(past: DataFrame, product_changes: DataFrame) -> DataFrame:
    """Customers who bought a product that is described differently now."""
    changed = product_changes.select(product_hash().alias("product_hash")).distinct()
    bought = past.select(_Fact.customer_key, product_hash().alias("product_hash"))
    return bought.join(F.broadcast(changed), on="product_hash", how="left_semi").select(_Fact.customer_key)


def _promotions_began_or_ended(before: DataFrame, placed: DataFrame) -> DataFrame:
    """Customers of merchants whose promotions were unknown and are known now, or the other way round."""
    promoting = F.broadcast(engagement.promoting_merchants(placed))
    now = F.coalesce("has_promotions", F.lit(False))
    return (
        before.join(promoting, on="merchant_id", how="left")
        .where(F.col(_C.display_line_share).isNotNull() != now)
        .select(_C.customer_key)
    )
