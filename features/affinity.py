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
_WORD = 64
_CODE_BITS = 20

_WORDS: Mapping[str, int] = {_Product.department: 1, _Product.brand_type: 1, _Product.manufacturer_id: 4}
"""64-bit words in which the values met are marked; values beyond them are counted by grouping instead."""


def product_codes(products: DataFrame) -> DataFrame:
    """Products with a number for category, department, brand type and manufacturer.

    Returns:
        merchant_id, product_hash, category, and `<column>_code`: 1, 2, ... in alphabetical order within the merchant,
        null where the value is unknown.
    """
    coded = [_Product.category, *_WORDS]

    def code(column: str) -> Column:
        alphabetical = Window.partitionBy(_Product.merchant_id).orderBy(F.col(column).asc_nulls_last())
        return F.when(F.col(column).isNotNull(), F.dense_rank().over(alphabetical)).alias(f"{column}_code")

    return products.select(
        _Product.merchant_id, product_hash().alias("product_hash"), _Product.category, *[code(c) for c in coded]
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
    codes = product_codes(products)
    bought = lines.where(_Fact.is_valid_purchase)
    attributes = codes.select("product_hash", "category_code", *[_offset(c).alias(c) for c in _WORDS])
    coded = (
        bought.select(_Fact.customer_key, product_hash().alias("product_hash"), cents(_Fact.amount).alias("paid"))
        # Unique on its key, and small: no row is multiplied.
        .join(F.broadcast(attributes), on="product_hash", how="left")
        .drop("product_hash")
    )
    per_category = (
        coded.repartition(_Fact.customer_key)
        .groupBy(_Fact.customer_key, "category_code")
        .agg(F.sum("paid").alias("paid"), *[F.bit_or(_mark(c, w)).alias(_word(c, w)) for c, w in _all_words()])
    )
    known = F.col("category_code").isNotNull()
    # Value above, code below: one number whose maximum is the favourite, alphabetical first of equals.
    top = F.call_function("shiftleft", F.greatest("paid", F.lit(0).cast("bigint")), F.lit(_CODE_BITS)) + (
        F.lit((1 << _CODE_BITS) - 1) - F.col("category_code")
    )
    met = per_category.groupBy(_Fact.customer_key).agg(
        F.max(top).alias("top"),
        F.sum(F.when(known, F.col("paid"))).alias("known_paid"),
        F.count("category_code").alias("distinct_categories"),
        *[F.bit_or(_word(c, w)).alias(_word(c, w)) for c, w in _all_words()],
    )
    beyond = _beyond_words(bought, codes)
    return met.join(beyond.hint("shuffle_hash"), on="customer_key", how="left").select(
        "customer_key",
        (F.lit((1 << _CODE_BITS) - 1) - F.col("top").bitwiseAND((1 << _CODE_BITS) - 1)).alias(
            "favourite_category_code"
        ),
        ratio(F.shiftright("top", _CODE_BITS), F.col("known_paid")).alias(_C.favourite_category_share),
        "distinct_categories",
        *[
            (sum((F.bit_count(_word(c, w)) for w in range(n)), F.lit(0)) + F.coalesce(f"{c}_beyond", F.lit(0)))
            .cast("bigint")
            .alias(_distinct(c))
            for c, n in _WORDS.items()
        ],
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
        .agg(F.sum("paid").alias("paid"), F.max("day").alias("day"))
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


def _beyond_words(bought: DataFrame, codes: DataFrame) -> DataFrame:
    """Customers with values that have no bit, and how many; no facts are read when every value has one."""
    beyond = [
        F.when(F.col(f"{c}_code") > n * _WORD, F.struct(F.lit(c).alias("kind"), F.col(f"{c}_code").alias("code")))
        for c, n in _WORDS.items()
    ]
    values = codes.select("product_hash", F.explode(F.array_compact(F.array(*beyond))).alias("value")).select(
        "product_hash", F.xxhash64("value.kind").alias("kind_hash"), "value.kind", "value.code"
    )
    met = (
        bought.select(_Fact.customer_key, product_hash().alias("product_hash"))
        .join(F.broadcast(values), on="product_hash", how="inner")
        .groupBy(_Fact.customer_key, "kind", "code")
        .agg(F.lit(1).alias("met"))
    )
    counted = [F.count_if(F.col("kind") == c).alias(f"{c}_beyond") for c in _WORDS]
    return met.groupBy(_Fact.customer_key).agg(*counted)


def _offset(column: str) -> Column:
    """A code as a bit position from 0; null when it is unknown or has no bit."""
    code = F.col(f"{column}_code")
    return F.when(code <= _WORDS[column] * _WORD, code - 1)


def _mark(column: str, word: int) -> Column:
    position = F.col(column)
    bit = F.call_function("shiftleft", F.lit(1).cast("bigint"), F.pmod(position, F.lit(_WORD)).cast("int"))
    is_here = F.shiftright(position, 6) == word
    return F.when(is_here, bit).otherwise(F.lit(0).cast("bigint"))


def _all_words() -> list[tuple[str, int]]:
    return [(c, w) for c, n in _WORDS.items() for w in range(n)]


def _word(column: str, word: int) -> str:
    return f"{column}_{word}"


def _distinct(column: str) -> str:
    return {
        _Product.department: _C.distinct_departments,
        _Product.brand_type: _C.distinct_brand_types,
        _Product.manufacturer_id: _C.distinct_manufacturers,
    }[column]
