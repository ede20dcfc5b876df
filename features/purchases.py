"""From fact lines to a customer's baskets: the part of a build that is proportional to the facts.

One shuffle, by customer. Text becomes a small number before it (product, store, channel) and is looked up again at the
end, for one row per customer.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.gold import DimProduct, FactTransactions

_Fact = FactTransactions
_MAX_CHANNELS = 63


def history(facts: DataFrame, as_of: date) -> DataFrame:
    """Fact lines of known customers before `as_of`; guests are no customers, adjustments are no purchases."""
    is_before = F.col(_Fact.business_date) < F.lit(as_of)
    is_trade = F.col(_Fact.txn_type) != "adjustment"
    return facts.where(F.col(_Fact.customer_key).isNotNull() & is_before & is_trade)


def places(lines: DataFrame) -> DataFrame:
    """One row per merchant, store and channel seen, with a number for both.

    Returns:
        merchant_id, store_id, channel_id, place_key (hash to join on), store_code (1, 2, ... in alphabetical order
        within the merchant; 0 when the store is unknown), place (store_code * 64 + channel_code). Channels beyond the
        63rd of a merchant share a code.
    """
    seen = lines.groupBy(_Fact.merchant_id, _Fact.store_id, _Fact.channel_id).agg(F.lit(1).alias("seen"))
    by_store = Window.partitionBy(_Fact.merchant_id).orderBy(F.col(_Fact.store_id).asc_nulls_first())
    by_channel = Window.partitionBy(_Fact.merchant_id).orderBy(_Fact.channel_id)
    no_store = F.max(F.col(_Fact.store_id).isNull().cast("int")).over(Window.partitionBy(_Fact.merchant_id))
    coded = seen.select(
        _Fact.merchant_id,
        _Fact.store_id,
        _Fact.channel_id,
        _place_key().alias("place_key"),
        (F.dense_rank().over(by_store) - no_store).alias("store_code"),
        F.least(F.dense_rank().over(by_channel), F.lit(_MAX_CHANNELS)).alias("channel_code"),
    )
    return coded.withColumn("place", (F.col("store_code") * 64 + F.col("channel_code")).cast("bigint"))


def baskets_of(lines: DataFrame, products: DataFrame, known_places: DataFrame) -> DataFrame:
    """One row per customer and basket, with the days since the customer's purchase day before.

    A return that names its sale belongs to the basket it was bought in, so that a basket knows what is left of it; any
    other belongs to its own receipt, which is a row with nothing bought unless something was bought on it as well. A
    basket has one day and hour, of its first line, and one place.

    Args:
        lines: From `history`.
        products: `gold.dim_product` rows; a product that is not there counts as merchandise of unknown brand.
        known_places: From `places`, over at least these lines.

    Returns:
        customer_key; day (days since 1970-01-01 of the purchase, of the return where nothing was bought); hour;
        is_bought; is_kept (bought and not wholly given back); store_code; channel_bit; gap (days since the purchase
        day before; null for the first, and for a second basket of a day); is_day_start (first basket of a purchase
        day); lines bought; and in cents paid, net (of returns), back, shelf, discount, coupon, private and branded;
        items in thousandths.
    """
    narrow = _narrow(lines, products, known_places)
    moment = F.coalesce(F.min(F.when(F.col("is_valid"), F.col("moment"))), F.min("moment"))
    net = F.col("net")
    baskets = (
        narrow.repartition("customer_key")
        .groupBy("customer_key", "basket")
        .agg(
            moment.alias("moment"),
            F.max("place").alias("place"),
            F.sum(F.col("is_valid").cast("bigint")).alias("lines"),
            F.sum(F.when(F.col("is_valid"), net).otherwise(0)).alias("paid"),
            F.sum(net).alias("net"),
            F.sum(F.when(net < 0, -net).otherwise(0)).alias("back"),
            F.sum("shelf").alias("shelf"),
            F.sum("discount").alias("discount"),
            F.sum("coupon").alias("coupon"),
            F.sum("private").alias("private"),
            F.sum("branded").alias("branded"),
            F.sum("items").alias("items"),
        )
    )
    day = F.shiftright("moment", 5)
    is_bought = F.col("lines") > 0
    dated = baskets.select(
        "customer_key",
        day.alias("day"),
        F.col("moment").bitwiseAND(31).alias("hour"),
        is_bought.alias("is_bought"),
        (is_bought & ~((F.col("back") > 0) & (net <= 0))).alias("is_kept"),
        F.shiftright("place", 6).alias("store_code"),
        _bit(F.col("place").bitwiseAND(63)).alias("channel_bit"),
        "lines", "paid", "net", "back", "shelf", "discount", "coupon", "private", "branded", "items",
    )  # fmt: skip
    # Ties within a day do not matter: only the first basket of a day gets a gap, whichever it is.
    earlier = Window.partitionBy("customer_key").orderBy("day").rowsBetween(Window.unboundedPreceding, -1)
    before = F.max(F.when(F.col("is_bought"), F.col("day"))).over(earlier)
    is_day_start = F.col("is_bought") & (F.col("before").isNull() | (F.col("day") > F.col("before")))
    return (
        dated.withColumn("before", before)
        .withColumn("is_day_start", is_day_start)
        .withColumn("gap", F.when(F.col("is_day_start"), F.col("day") - F.col("before")))
        .drop("before")
    )


def cents(amount: str) -> Column:
    """A `decimal(18,2)` column as whole cents."""
    return (F.col(amount) * 100).cast("bigint")


def product_hash() -> Column:
    """Key of a product within all merchants, to join on: a number, where the codes are text."""
    return F.xxhash64(DimProduct.merchant_id, DimProduct.product_id)


def _narrow(lines: DataFrame, products: DataFrame, known_places: DataFrame) -> DataFrame:
    is_valid, is_back = F.col(_Fact.is_valid_purchase), F.col(_Fact.txn_type).isin("return", "cancellation")
    marks = products.select(
        product_hash().alias("product_hash"),
        F.col(DimProduct.brand_type).isNotNull().alias("is_branded"),
        (F.lower(DimProduct.brand_type) == "private").alias("is_private"),
        F.col(DimProduct.is_merchandise).alias("is_item"),
    )
    coded = (
        lines.select(
            "*",
            product_hash().alias("product_hash"),
            _place_key().alias("place_key"),
            cents(_Fact.amount).alias("cents"),
        )
        # Both are small and unique on their key: no row is multiplied.
        .join(F.broadcast(marks), on="product_hash", how="left")
        .join(F.broadcast(known_places.select("place_key", "place")), on="place_key", how="left")
    )
    basket = F.coalesce(_Fact.original_basket_id, _Fact.basket_id)

    def when_valid(value: Column, also: Column | None = None) -> Column:
        return F.when(is_valid if also is None else is_valid & also, value).otherwise(F.lit(0).cast("bigint"))

    return coded.select(
        _Fact.customer_key,
        F.xxhash64(basket).alias("basket"),
        (F.unix_date(_Fact.business_date).cast("bigint") * 32 + F.col(_Fact.hour_of_day)).alias("moment"),
        is_valid.alias("is_valid"),
        F.when(is_valid, F.col("place")).alias("place"),
        # A line that is neither bought nor given back, such as one of no pieces, is worth nothing to the customer.
        F.when(is_valid | is_back, F.col("cents")).otherwise(F.lit(0).cast("bigint")).alias("net"),
        when_valid(cents(_Fact.gross_amount)).alias("shelf"),
        when_valid(cents(_Fact.discount_amount)).alias("discount"),
        when_valid(cents(_Fact.coupon_amount)).alias("coupon"),
        when_valid(F.col("cents"), F.col("is_private")).alias("private"),
        when_valid(F.col("cents"), F.col("is_branded")).alias("branded"),
        when_valid((F.col(_Fact.quantity) * 1000).cast("bigint"), F.coalesce("is_item", F.lit(True))).alias("items"),
    )


def _place_key() -> Column:
    # xxhash64 passes over nulls, so a missing store needs a stand-in that no store has.
    return F.xxhash64(_Fact.merchant_id, F.coalesce(_Fact.store_id, F.lit("\0")), _Fact.channel_id)


def _bit(position: Column) -> Column:
    # `F.shiftleft` takes only a fixed number of bits.
    return F.call_function("shiftleft", F.lit(1).cast("bigint"), position.cast("int"))
