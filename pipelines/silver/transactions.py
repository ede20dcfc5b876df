"""Basket lines: typed, dated in the shop's zone, told apart by kind, and each recorded line kept once.

Deduplication is the dearest work of the whole flow, so full rows are never shuffled. A narrow pass over hashes of the
natural key finds the few lines that may have been delivered more than once; only those go through exact windows on
the natural key, and all others pass straight through. A hash that says "maybe" for too many rows costs time, never
an answer.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.silver import TransactionLine, TransactionReject
from pipelines.silver.rules import FeedRules, RuleBook, blank_is_null, code, matches_any, rule_book, starts_with_any

_COLUMNS = TransactionLine.__table__.column_names  # type: ignore[attr-defined]
_REJECTED = TransactionReject.__table__.column_names  # type: ignore[attr-defined]

# Candidate hashes are broadcast by bucket, which bounds the broadcast however many lines are delivered again.
# 200,000 candidates fill 2.4 % of the buckets, so that 2.4 % of the other lines take the exact way needlessly.
_BUCKETS = 1 << 23

_EARLIEST = "1990-01-01"
_MAX_QUANTITY = 10_000_000
_MAX_PRICE = 1_000_000
_MAX_AMOUNT = 1_000_000_000
_MAX_CODE_BYTES = 200
_MAX_LINE = 1_000_000_000

_ENTRY = "struct<delivery_seq:bigint,delivery_id:bigint,row_number:bigint,row_hash:bigint>"


def conform_transactions(
    raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> dict[str, DataFrame]:
    """Conform delivered basket lines and keep each recorded line once.

    Which row wins: of rows with the same key (merchant, basket, product, line) the one of the latest delivery, within
    it the last row. The line number is the feed's own, else the occurrence among equal (basket, product) rows of one
    delivery in file order. Where the feed says a later delivery replaces the basket, every line of an earlier
    delivery of that basket loses, and those the later one lacks leave the table.

    Every row that lost is listed in `superseded` of the line that stands for it (the winner of the same key, or, for
    a replaced basket, the first line of the new one), so rows delivered = lines + entries in `superseded` + rejects,
    by count and by sum of `row_hash`, however deliveries are split into batches and however often one is replayed.

    Args:
        raw_changes: New rows of `bronze.raw_transactions`. A delivery arrives in one piece.
        sources: Rules per source.
        previous: Content of `silver.transaction_line`, None when all raw rows are given.

    Returns:
        `silver.transaction_line`: upserts, with `_deleted` for lines that a replaced basket no longer has.
        `silver.transaction_reject`: refused rows with one reason code per broken rule.
    """
    book = rule_book(sources, "transactions")
    lines = raw_changes.where(~_is_refused(book)).select(*_typed(book))
    return {
        "silver.transaction_line": _keep_once(lines, previous, book),
        "silver.transaction_reject": _reject(raw_changes, book),
    }


# Typing ----------------------------------------------------------------------------------------------------------


def _typed(book: RuleBook) -> list[Column]:
    local = book.choose(lambda r: F.from_utc_timestamp("sold_at", r.timezone), "timestamp", same=lambda r: r.timezone)
    line = F.coalesce(F.col("line_id").cast("int"), F.lit(1))
    known = {
        "merchant_id": book.value(lambda r: r.merchant_id),
        "basket_id": _basket(),
        "product_id": _product(),
        "line_number": line,
        "customer_id": _customer(),
        "store_id": blank_is_null("store_id"),
        "channel_id": F.coalesce(F.lower(blank_is_null("channel")), book.value(lambda r: r.default_channel)),
        "product_name": blank_is_null("product_name"),
        "country": blank_is_null("country"),
        "txn_type": _txn_type(book),
        "sold_on": F.to_date(local),
        "sold_hour": F.hour(local),
        "gross_amount": _gross(book),
        "amount": _amount(book),
        "discount_amount": _or_zero("discount_amount"),
        "coupon_amount": (_or_zero("coupon_amount") + _or_zero("coupon_match_amount")).cast("decimal(18,2)"),
        "currency": book.value(lambda r: r.currency),
        "original_basket_id": blank_is_null("original_basket_id"),
        "is_valid_purchase": _is_valid_purchase(book),
        "delivery_id": F.xxhash64("file_id", "delivery"),
        "superseded": F.lit(None).cast(f"array<{_ENTRY}>"),
    }
    known["transaction_id"] = F.xxhash64(*(known[k] for k in ("merchant_id", "basket_id", "product_id", "line_number")))
    typed = [known.get(c, F.col(c)).alias(c) for c in _COLUMNS]
    has_line = F.col("line_id").isNotNull().alias("_has_line")
    return [*typed, has_line]


def _basket() -> Column:
    return blank_is_null("basket_id")


def _product() -> Column:
    return code("product_id")


def _customer() -> Column:
    return blank_is_null("customer_id")


def _or_zero(name: str) -> Column:
    return F.coalesce(F.col(name), F.lit(0).cast("decimal(18,2)"))


def _reductions() -> Column:
    # A manufacturer's coupon is paid to the shop, so it is part of what the shop received; the shop's match is not.
    return _or_zero("discount_amount") + _or_zero("coupon_match_amount")


def _amount(book: RuleBook) -> Column:
    priced = F.round(F.col("quantity") * F.col("unit_price"), 2).cast("decimal(18,2)")
    given = F.coalesce("amount", priced)
    return book.choose(lambda r: priced if r.is_priced else given, "decimal(18,2)", same=lambda r: r.is_priced)


def _gross(book: RuleBook) -> Column:
    amount = _amount(book)
    plus = (amount + _reductions()).cast("decimal(18,2)")
    return book.choose(lambda r: plus if r.has_reductions else amount, "decimal(18,2)", lambda r: r.has_reductions)


def _goes_back() -> Column:
    nothing_moved = F.col("quantity") == 0
    return (F.col("quantity") < 0) | (nothing_moved & (F.coalesce(F.col("amount") < 0, F.lit(False))))


def _price_sign(compare: str) -> Column:
    """Compare the price with zero, never null: the unit price, else the amount at shelf price."""
    zero = F.lit(0)
    compared = {">": zero.__lt__, "<": zero.__gt__, "=": zero.__eq__}[compare]
    by_unit, by_amount = compared(F.col("unit_price")), compared(F.col("amount") + _reductions())
    return F.coalesce(F.when(F.col("unit_price").isNotNull(), by_unit).otherwise(by_amount), F.lit(False))


def _is_cancellation(book: RuleBook) -> Column:
    return book.choose(
        lambda r: starts_with_any(_basket(), r.cancellation_prefixes), "boolean", same=lambda r: r.cancellation_prefixes
    )


def _is_adjustment(book: RuleBook) -> Column:
    """Bookkeeping: special baskets, fees and corrections that are no charge to a buyer, stock written off or found."""

    def of(r: FeedRules) -> Column:
        booked = starts_with_any(_basket(), r.adjustment_prefixes)
        charged = (F.col("quantity") > 0) & _price_sign(">")
        corrected = matches_any(_product(), r.adjustment_codes) & ~charged if r.adjustment_codes else F.lit(False)
        return booked | corrected

    written_off = (F.col("quantity") < 0) & _price_sign("=")
    by_source = book.choose(of, "boolean", same=lambda r: (r.adjustment_prefixes, r.adjustment_codes))
    return by_source | written_off


def _txn_type(book: RuleBook) -> Column:
    return (
        F.when(_is_cancellation(book), "cancellation")
        .when(_is_adjustment(book), "adjustment")
        .when(_goes_back(), "return")
        .otherwise("sale")
    )


def _is_valid_purchase(book: RuleBook) -> Column:
    is_sale = ~_is_cancellation(book) & ~_is_adjustment(book)
    return _customer().isNotNull() & is_sale & (F.col("quantity") > 0) & _price_sign(">")


# Refusing --------------------------------------------------------------------------------------------------------


def _refusals(book: RuleBook) -> dict[str, Column]:
    """Reason code to the condition that refuses a row; no condition is ever null."""
    plain = ~F.coalesce(_is_cancellation(book) | _is_adjustment(book), F.lit(False))
    amount_below = F.coalesce(F.col("amount") < 0, F.lit(False)) & (F.col("quantity") > 0)
    price_below = F.coalesce(F.col("unit_price") < 0, F.lit(False))
    limit_q = F.lit(_MAX_QUANTITY).cast("decimal(18,3)")
    limit_p = F.lit(_MAX_PRICE).cast("decimal(18,4)")
    limit_a = F.lit(_MAX_AMOUNT).cast("decimal(18,2)")
    money = ("amount", "discount_amount", "coupon_amount", "coupon_match_amount")
    absurd = [_beyond("unit_price", limit_p), *(_beyond(m, limit_a) for m in money)]
    too_long = [F.octet_length(c) > _MAX_CODE_BYTES for c in ("basket_id", "product_id", "customer_id", "store_id")]
    line = F.col("line_id").try_cast("int")
    found = {
        "unknown_source": ~book.known(),
        "missing_basket": _basket().isNull(),
        "missing_product": _product().isNull(),
        "missing_time": F.col("sold_at").isNull(),
        "missing_quantity": F.col("quantity").isNull(),
        "missing_amount": F.col("amount").isNull() & F.col("unit_price").isNull(),
        "invalid_line_id": F.col("line_id").isNotNull() & ~F.coalesce(line.between(0, _MAX_LINE), F.lit(False)),
        "time_too_early": F.col("sold_at") < F.lit(_EARLIEST).cast("timestamp"),
        "time_in_future": F.col("sold_at") > F.col("loaded_at") + F.expr("INTERVAL 2 DAYS"),
        "negative_price": plain & (price_below | amount_below),
        "absurd_quantity": _beyond("quantity", limit_q),
        "absurd_amount": _any(absurd),
        "overlong_code": _any(too_long),
    }
    return {reason: F.coalesce(c, F.lit(False)) for reason, c in found.items()}


def _beyond(name: str, limit: Column) -> Column:
    return F.coalesce((F.col(name) >= limit) | (F.col(name) <= -limit), F.lit(False))


def _any(conditions: list[Column]) -> Column:
    found = F.coalesce(conditions[0], F.lit(False))
    for c in conditions[1:]:
        found = found | F.coalesce(c, F.lit(False))
    return found


def _is_refused(book: RuleBook) -> Column:
    return _any(list(_refusals(book).values()))


def _reject(raw: DataFrame, book: RuleBook) -> DataFrame:
    codes = [F.when(condition, reason) for reason, condition in _refusals(book).items()]
    refused = raw.where(_is_refused(book)).withColumn("reasons", F.array_compact(F.array(*codes)))
    return refused.select(*_REJECTED)


# Keeping each line once ------------------------------------------------------------------------------------------


def _keep_once(lines: DataFrame, previous: DataFrame | None, book: RuleBook) -> DataFrame:
    by_line = _bucket(F.col("transaction_id"))
    by_basket = _bucket(F.xxhash64("merchant_id", "basket_id"))
    marked = lines.join(F.broadcast(_repeated_lines(lines, by_line)), by_line == F.col("_line_bucket"), "left")
    maybe = F.col("_line_bucket").isNotNull()
    known = _known_baskets(lines, previous, by_basket) if previous is not None else None
    baskets = _redelivered_baskets(lines, known, by_basket, book)
    if baskets is not None:
        marked = marked.join(F.broadcast(baskets), by_basket == F.col("_basket_bucket"), "left")
        maybe = maybe | F.col("_basket_bucket").isNotNull()
    once = marked.where(~maybe).select(*_COLUMNS, F.lit(False).alias("_deleted"))
    doubtful = marked.where(maybe).select(*_COLUMNS, "_has_line", F.lit(True).alias("_new"))
    if known is not None:
        held = known.select(*_COLUMNS, F.lit(True).alias("_has_line"), F.lit(False).alias("_new"))
        doubtful = doubtful.unionByName(held)
    return once.unionByName(_resolve(doubtful, book))


def _bucket(hashed: Column) -> Column:
    return hashed.bitwiseAND(F.lit(_BUCKETS - 1))


def _repeated_lines(lines: DataFrame, by_line: Column) -> DataFrame:
    """Buckets of lines that the batch names more than once. Only the hash is shuffled."""
    hashes = lines.select("transaction_id").groupBy("transaction_id").agg(F.count(F.lit(1)).alias("_times"))
    return hashes.where("_times > 1").select(by_line.alias("_line_bucket")).distinct()


def _known_baskets(lines: DataFrame, previous: DataFrame, by_basket: Column) -> DataFrame:
    """Lines we hold of baskets that the batch names (and a few others that share a bucket)."""
    named = lines.select(by_basket.alias("_basket_bucket")).distinct()
    return previous.join(F.broadcast(named), by_basket == F.col("_basket_bucket"), "left_semi")


def _redelivered_baskets(
    lines: DataFrame, known: DataFrame | None, by_basket: Column, book: RuleBook
) -> DataFrame | None:
    """Buckets of baskets that more than one delivery names; None when there can be none."""
    found: list[DataFrame] = []
    if book.any_feed(_replaces_baskets):
        whole = lines.where(book.where(_replaces_baskets))
        hashes = whole.select(F.xxhash64("merchant_id", "basket_id").alias("_basket"), "delivery_seq")
        spans = hashes.groupBy("_basket").agg(
            F.min("delivery_seq").alias("_first"), F.max("delivery_seq").alias("_last")
        )
        found.append(spans.where("_first < _last").select(_bucket(F.col("_basket")).alias("_basket_bucket")))
    if known is not None:
        found.append(known.select(by_basket.alias("_basket_bucket")))
    if not found:
        return None
    return (found[0] if len(found) == 1 else found[0].unionByName(found[1])).distinct()


def _replaces_baskets(rules: FeedRules) -> bool:
    return rules.later_delivery == "basket"


def _resolve(doubtful: DataFrame, book: RuleBook) -> DataFrame:
    """Decide exactly, by the natural key, among delivered rows (`_new`) and lines we hold.

    All windows partition by basket or finer, so the rows are shuffled once.
    """
    basket = ("merchant_id", "basket_id")
    key = (*basket, "product_id", "line_number")
    in_basket, in_line = Window.partitionBy(*basket), Window.partitionBy(*key)
    whole = book.where(_replaces_baskets)
    newest = F.when(whole, F.max(F.when(whole, F.col("delivery_seq"))).over(in_basket))
    rows = doubtful.withColumn("_newest", newest).withColumn("_replaced", F.col("delivery_seq") < F.col("_newest"))
    rows = rows.withColumn("_replaced", F.coalesce("_replaced", F.lit(False)))

    # Lines without a number of their own are told apart by their order in the delivery.
    numbered = F.col("_new") & ~F.col("_has_line") & book.where(lambda r: r.repeats_are_lines)
    in_delivery = Window.partitionBy(*basket, "product_id", "_new", "_has_line", "delivery_id").orderBy("row_number")
    rows = rows.withColumn(
        "line_number", F.when(numbered, F.row_number().over(in_delivery)).otherwise(F.col("line_number"))
    )

    first_stands = book.where(lambda r: r.later_delivery == "none")
    order = F.when(first_stands, -F.col("delivery_seq")).otherwise(F.col("delivery_seq"))
    best_first = in_line.orderBy(
        F.col("_replaced"), order.desc(), F.desc("row_number"), F.desc("delivery_id"), F.desc("_new")
    )
    rows = rows.withColumn("_wins", ~F.col("_replaced") & (F.row_number().over(best_first) == 1))

    # A delivery handled before and given again names the very row we hold; that row is no duplicate of itself.
    same_row = Window.partitionBy(*key, "delivery_id", "row_number")
    held_again = ~F.col("_new") & F.max("_new").over(same_row)
    own = F.array(F.struct("delivery_seq", "delivery_id", "row_number", "row_hash").cast(_ENTRY))
    none = F.array().cast(f"array<{_ENTRY}>")
    lost = F.concat(F.when(F.col("_wins") | held_again, none).otherwise(own), F.coalesce(F.col("superseded"), none))
    rows = rows.withColumn("_lost", lost)

    # A replaced basket's rows are listed on its first line, so that it does not matter which of several deliveries
    # came in the same batch; rows that lost within the newest delivery are listed on the line itself.
    rows = rows.withColumn("_older", F.when(F.col("_newest").isNotNull(), _entries("<")).otherwise(none))
    rows = rows.withColumn("_same", F.when(F.col("_newest").isNotNull(), _entries(">=")).otherwise(F.col("_lost")))
    first_line = in_basket.orderBy(F.desc(F.col("_wins") & whole), "product_id", "line_number")
    is_first = F.col("_wins") & whole & (F.row_number().over(first_line) == 1)
    rows = rows.withColumn("_is_first", is_first).withColumn(
        "_older", F.flatten(F.collect_list("_older").over(in_basket))
    )
    rows = rows.withColumn("_same", F.flatten(F.collect_list("_same").over(in_line)))
    rows = rows.withColumn("_has_winner", F.max("_wins").over(in_line))
    listed = F.array_sort(
        F.array_distinct(F.concat("_same", F.when(F.col("_is_first"), F.col("_older")).otherwise(none)))
    )
    rows = rows.withColumn("_listed", F.when(F.size(listed) > 0, listed))

    gone = ~F.col("_new") & ~F.col("_has_winner")
    changed = F.col("_wins") & (F.col("_new") | ~F.col("_listed").eqNullSafe(F.col("superseded")))
    final = {
        "transaction_id": F.xxhash64("merchant_id", "basket_id", "product_id", "line_number"),
        "superseded": F.col("_listed"),
    }
    columns = [final.get(c, F.col(c)).alias(c) for c in _COLUMNS]
    return rows.where(gone | changed).select(*columns, gone.alias("_deleted"))


def _entries(compare: str) -> Column:
    newest = F.col("_newest")
    return F.filter("_lost", lambda e: e["delivery_seq"] < newest if compare == "<" else e["delivery_seq"] >= newest)
