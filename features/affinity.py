"""What a customer buys: favourite category, breadth, and affinity per category."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.measures import ratio
from features.purchases import cents, history, product_hash
from features.rules import FeatureRules
from lakehouse.tables.feature import CustomerCategory, FeatureCustomer
from lakehouse.tables.gold import DimProduct, FactTransactions

_C = FeatureCustomer
_Fact = FactTransactions
_Product = DimProduct
_CODE_BITS = 20
_BITS = 63

_MARKED: Mapping[str, str] = {
    _Product.department: _C.distinct_departments,
    _Product.brand_type: _C.distinct_brand_types,
}
"""Columns with few values: the first 63 are marked as bits of one number, only values beyond them are grouped by."""

_GROUPED: Mapping[str, str] = {
    _Product.category: _C.distinct_categories,
    _Product.manufacturer_id: _C.distinct_manufacturers,
}
"""Columns with many values, counted by grouping."""

_KINDS = {column: number for number, column in enumerate([*_GROUPED, *_MARKED])}


def product_codes(products: DataFrame) -> DataFrame:
    """Products with a number for category, department, brand type and manufacturer.

    Returns:
        merchant_id, product_hash, category, and `<column>_code`: 1, 2, ... in alphabetical order within the merchant,
        null where the value is unknown.
    """

    def code(column: str) -> Column:
        alphabetical = Window.partitionBy(_Product.merchant_id).orderBy(F.col(column).asc_nulls_last())
        return F.when(F.col(column).isNotNull(), F.dense_rank().over(alphabetical)).alias(f"{column}_code")

    return products.select(
        _Product.merchant_id, product_hash().alias("product_hash"), _Product.category, *[code(c) for c in _KINDS]
    )


def breadth(lines: DataFrame, products: DataFrame) -> DataFrame:
    """One row per customer: the favourite category, and how many different ones of each kind were bought.

    Args:
        lines: From `features.purchases.history`.
        products: `gold.dim_product` rows.

    Returns:
        customer_key, favourite_category_code, favourite_category_share, distinct_categories, distinct_departments,
        distinct_brand_types, distinct_manufacturers. Customers without a valid purchase are absent.
    """
    codes = product_codes(products).drop("merchant_id", "category")
    met = (
        lines.where(_Fact.is_valid_purchase)
        .select(_Fact.customer_key, product_hash().alias("product_hash"), cents(_Fact.amount).alias("paid"))
        # Unique on its key, and small: no row is multiplied.
        .join(F.broadcast(codes), on="product_hash", how="left")
        .drop("product_hash")
        .repartition(_Fact.customer_key)
        .select(
            _Fact.customer_key,
            "paid",
            *[_bit_of(c).alias(c) for c in _MARKED],
            F.explode(F.array(*[_value(c) for c in _KINDS])).alias("value"),
        )
        .where(F.col("value").isNotNull())
    )
    is_category = F.col("value") < _of_kind(1)
    per_value = met.groupBy(_Fact.customer_key, "value").agg(
        F.sum(F.when(is_category, F.col("paid")).otherwise(0)).alias("paid"), *[F.bit_or(c).alias(c) for c in _MARKED]
    )
    kind, code = F.shiftright("value", 32), F.col("value").bitwiseAND((1 << 32) - 1)
    is_known = is_category & (code > 0)
    # Value above, code below: one number whose maximum is the favourite, alphabetical first of equals.
    top = F.call_function("shiftleft", F.greatest("paid", F.lit(0).cast("bigint")), F.lit(_CODE_BITS)) + (
        F.lit((1 << _CODE_BITS) - 1) - code
    )
    per_customer = per_value.groupBy(_Fact.customer_key).agg(
        F.max(F.when(is_known, top)).alias("top"),
        F.sum(F.when(is_known, F.col("paid"))).alias("known_paid"),
        *[F.count_if((kind == number) & (code > 0)).alias(f"{c}_count") for c, number in _KINDS.items()],
        *[F.bit_or(c).alias(c) for c in _MARKED],
    )
    return per_customer.select(
        _Fact.customer_key,
        (F.lit((1 << _CODE_BITS) - 1) - F.col("top").bitwiseAND((1 << _CODE_BITS) - 1)).alias(
            "favourite_category_code"
        ),
        ratio(F.shiftright("top", _CODE_BITS), F.col("known_paid")).alias(_C.favourite_category_share),
        *[F.col(f"{c}_count").alias(name) for c, name in _GROUPED.items()],
        *[(F.bit_count(c) + F.col(f"{c}_count")).cast("bigint").alias(name) for c, name in _MARKED.items()],
    )


def category_names(products: DataFrame) -> DataFrame:
    """One row per merchant and category: merchant_id, favourite_category_code and favourite_category."""
    return (
        product_codes(products)
        .where(F.col("category_code").isNotNull())
        .groupBy(_Product.merchant_id, F.col("category_code").cast("bigint").alias("favourite_category_code"))
        .agg(F.min(_Product.category).alias(_C.favourite_category))
    )


def build_customer_categories(
    facts: DataFrame, products: DataFrame, *, as_of: date, feature_rules: FeatureRules
) -> DataFrame:
    """The categories each customer spends most in, against what the merchant's customers buy on the whole.

    Args:
        facts: `gold.fact_transactions`.
        products: `gold.dim_product`; lines of unknown category do not count.
        as_of: Only purchases before this day count.
        feature_rules: How many categories a customer keeps.

    Returns:
        `feature.customer_category`. `affinity_index` is lift: the share of the category in the customer's value
        divided by its share in the value of all known customers of the merchant.
    """
    named = products.where(F.col(_Product.category).isNotNull()).select(
        product_hash().alias("product_hash"), _Product.category
    )
    bought = (
        history(facts, as_of)
        .where(_Fact.is_valid_purchase)
        .select(
            _Fact.merchant_id,
            _Fact.customer_key,
            F.xxhash64(_Fact.basket_id).alias("basket"),
            F.col(_Fact.business_date).alias("day"),
            cents(_Fact.amount).alias("paid"),
            product_hash().alias("product_hash"),
        )
        .join(F.broadcast(named), on="product_hash", how="inner")
    )
    key = (_Fact.merchant_id, _Fact.customer_key, _Product.category)
    per_basket = (
        bought.repartition(_Fact.customer_key)
        .groupBy(*key, "basket")
        .agg(F.sum("paid").alias("paid"), F.min("day").alias("day"))
    )
    per_category = per_basket.groupBy(*key).agg(
        F.sum("paid").alias("paid"), F.count(F.lit(1)).alias("baskets"), F.max("day").alias("last_bought_on")
    )
    of_customer = Window.partitionBy(_Fact.customer_key)
    ranked = per_category.select(
        "*",
        F.row_number().over(of_customer.orderBy(F.col("paid").desc(), _Product.category)).alias("rank"),
        F.sum("paid").over(of_customer).alias("customer_paid"),
    ).where(F.col("rank") <= feature_rules.top_categories)
    in_merchant = bought.groupBy(_Fact.merchant_id, _Product.category).agg(F.sum("paid").alias("category_paid"))
    of_merchant = Window.partitionBy(_Fact.merchant_id)
    norm = in_merchant.select(
        _Fact.merchant_id,
        _Product.category,
        ratio(F.col("category_paid"), F.sum("category_paid").over(of_merchant)).alias("norm"),
    )
    share = ratio(F.col("paid"), F.col("customer_paid"))
    return ranked.join(F.broadcast(norm), on=[_Fact.merchant_id, _Product.category], how="inner").select(
        _Fact.merchant_id,
        _Fact.customer_key,
        F.lit(as_of).alias(CustomerCategory.as_of),
        _Product.category,
        CustomerCategory.rank,
        (F.col("paid").cast("decimal(18,0)") / 100).cast("decimal(18,2)").alias(CustomerCategory.spend),
        CustomerCategory.baskets,
        share.alias(CustomerCategory.spend_share),
        ratio(share, F.col("norm")).alias(CustomerCategory.affinity_index),
        CustomerCategory.last_bought_on,
    )


def _value(column: str) -> Column:
    """Kind and code of a product's value as one number; the category is always there, as code 0 when unknown."""
    code = F.col(f"{column}_code").cast("bigint")
    packed = _of_kind(_KINDS[column]) + code
    if column == _Product.category:
        return F.coalesce(packed, _of_kind(_KINDS[column]))
    return F.when(code > _BITS, packed) if column in _MARKED else packed


def _of_kind(number: int) -> Column:
    return F.lit(number << 32).cast("bigint")


def _bit_of(column: str) -> Column:
    code = F.col(f"{column}_code")
    bit = F.call_function("shiftleft", F.lit(1).cast("bigint"), F.least(code, F.lit(_BITS)) - 1)
    return F.when(code <= _BITS, bit).otherwise(F.lit(0).cast("bigint"))
