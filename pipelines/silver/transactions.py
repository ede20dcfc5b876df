"""Basket lines: typed, dated in the shop's zone, told apart by kind, and each recorded line kept once.

Deduplication is the dearest work of the whole flow, so full rows are never shuffled. A narrow pass over hashes of the
natural key finds the few lines that may have been delivered more than once; only those go through exact windows on
the natural key, and all others pass straight through. A hash that says "maybe" for too many rows costs time, never
an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.hold import Once, as_is
from lakehouse.tables.silver import TransactionLine, TransactionReject
from pipelines.silver.rules import FeedRules, RuleBook, blank_is_null, is_ahead, matches_any, rule_book, starts_with_any

if TYPE_CHECKING:
    from pipelines.gold.finance_conf import Finance

_COLUMNS = TransactionLine.__table__.column_names  # type: ignore[attr-defined]
_REJECTED = TransactionReject.__table__.column_names  # type: ignore[attr-defined]

# Candidate hashes are broadcast by bucket, which bounds the broadcast however many lines are delivered again.
# 200,000 candidates fill 2.4 % of the buckets, so that 2.4 % of the other lines take the exact way needlessly.
_BUCKETS = 1 << 23

_EARLIEST = "1990-01-01"
_MAX_PRICE = 1_000_000
_MAX_CODE_BYTES = 200
_MAX_LINE = 1_000_000_000

_BOUNDS = {"line_amount": Decimal(1_000_000_000), "line_quantity": Decimal(10_000_000)}
"""What a line may not reach, where `conf/finance.yml` is not given."""

_ENTRY = "struct<delivery_seq:bigint,delivery_id:bigint,row_number:bigint,row_hash:bigint>"


def conform_transactions(
    raw_changes: DataFrame,
    *,
    sources: Any,
    finance: Finance | None = None,
    previous: DataFrame | None = None,
    hold: Once = as_is,
) -> dict[str, DataFrame]:
    """Conform delivered basket lines and keep each recorded line once.

    Which row wins: of rows with the same key (merchant, basket, product, line) the one of the latest delivery, within
    it the last row. The line number is the feed's own, else the occurrence among equal (basket, product) rows of one
    delivery in file order. The product is no part of the key where the feed declares one without it; a row without a
    line number is then refused. Where the feed says a later delivery replaces the basket, every line of an earlier
    delivery of that basket loses, and those the later one lacks leave the table.

    Every row that lost is listed in `superseded` of the line that stands for it (the winner of the same key, or, for
    a replaced basket, the first line of the new one), so rows delivered = lines + entries in `superseded` + rejects,
    by count and by sum of `row_hash`, however deliveries are split into batches and however often one is replayed.

    Args:
        raw_changes: New rows of `bronze.raw_transactions`. A delivery arrives in one piece.
        sources: Rules per source.
        finance: Its limits of one line; a line that reaches one is refused.
        previous: Content of `silver.transaction_line`, None when all raw rows are given.
        hold: Returns a frame that is made once, however often it is read.

    Returns:
        `silver.transaction_line`: upserts, with `_deleted` for lines that a replaced basket no longer has.
        `silver.transaction_reject`: refused rows with one reason code per broken rule.
    """
    book = rule_book(sources, "transactions")
    acceptable = _requirements(book, {i: finance.limit(i) if finance else usual for i, usual in _BOUNDS.items()})
    return {
        "silver.transaction_line": _keep_once(raw_changes, previous, book, acceptable, hold),
        "silver.transaction_reject": _reject(raw_changes, acceptable),
    }


# Typing ----------------------------------------------------------------------------------------------------------
#
# The steps below are separate selects for a reason: what several columns need is computed once, in the select before.
# Spark compiles the whole chain into one method, and the JVM never compiles a method of more than 8,000 bytes, so that
# a chain that repeats itself runs ten times slower.


def _typed(raw: DataFrame, book: RuleBook, acceptable: Mapping[str, Column]) -> DataFrame:
    """Acceptable rows as lines, and whether each has a number of its own."""
    local = book.choose(lambda r: F.from_utc_timestamp("sold_at", r.timezone), "timestamp", same=lambda r: r.timezone)
    # A manufacturer's coupon is paid to the shop, so it is part of what the shop received; the shop's match is not.
    parsed = raw.where(_are_met(acceptable)).select(
        *_AS_DELIVERED,
        "quantity",
        "unit_price",
        *(column.alias(name) for name, column in _key(book).items()),
        book.value(lambda r: r.currency).alias("currency"),
        F.col("line_id").isNotNull().alias("_has_line"),
        *(blank_is_null(c).alias(c) for c in _OPTIONAL_TEXTS),
        _prefixed(book, blank_is_null("original_basket_id")).alias("original_basket_id"),
        _line_type(book).alias("_line_type"),
        F.coalesce(F.lower(blank_is_null("channel")), book.value(lambda r: r.default_channel)).alias("channel_id"),
        local.alias("_local"),
        _amount(book).alias("amount"),
        _or_zero("discount_amount").alias("discount_amount"),
        _or_zero("coupon_amount").alias("_coupon"),
        _or_zero("coupon_match_amount").alias("_match"),
        F.xxhash64("source", "feed", "file_id", "delivery").alias("delivery_id"),
    )
    taken_off = parsed.select(*[_signed(c) if c in _REDUCTIONS else F.col(c) for c in parsed.columns])
    added = F.col("amount") + F.col("discount_amount") + F.col("_match")
    with_reductions = book.where(lambda r: r.has_reductions)
    summed = taken_off.select(
        *taken_off.columns,
        F.when(with_reductions, added).otherwise(F.col("amount")).cast("decimal(18,2)").alias("gross_amount"),
        (F.col("_coupon") + F.col("_match")).cast("decimal(18,2)").alias("coupon_amount"),
    )
    told_apart = summed.select(*summed.columns, _txn_type(book).alias("txn_type"))
    charged = F.when(F.col("unit_price").isNotNull(), F.col("unit_price") > 0).otherwise(F.col("gross_amount") > 0)
    sold = (F.col("txn_type") == "sale") & F.col("customer_id").isNotNull() & (F.col("quantity") > 0)
    # What goes back is negative, however the feed writes it; corrections by hand go either way.
    goes_back = F.col("txn_type").isin("return", "cancellation") & ~_is_no_merchandise(book, F.col("product_id"))
    is_turned = goes_back & (F.col("gross_amount") > 0)
    final = {
        **{c: F.when(is_turned, -F.col(c)).otherwise(F.col(c)).cast("decimal(18,2)") for c in _MONEY},
        # What is bought on the receipt of an exchange is a basket of its own, whatever basket the receipt names.
        "original_basket_id": F.when(F.col("txn_type") != "sale", F.col("original_basket_id")),
        "quantity": F.when(goes_back, -F.abs("quantity")).otherwise(F.col("quantity")).cast("decimal(18,3)"),
        "transaction_id": F.xxhash64("merchant_id", "basket_id", "product_id", "line_number"),
        "sold_on": F.to_date("_local"),
        "sold_hour": F.hour("_local"),
        "is_valid_purchase": sold & charged,
        "superseded": F.lit(None).cast(f"array<{_ENTRY}>"),
    }
    return told_apart.select(*(final.get(c, F.col(c)).alias(c) for c in _COLUMNS), "_has_line")


def _key(book: RuleBook) -> dict[str, Column]:
    """What tells lines apart, of rows as they were delivered."""
    return {
        "merchant_id": book.value(lambda r: r.merchant_id),
        "basket_id": _prefixed(book, F.trim("basket_id")),
        "product_id": F.upper(F.trim("product_id")),
        "line_number": F.coalesce(F.col("line_id").try_cast("int"), F.lit(1)),
    }


def _prefixed(book: RuleBook, basket: Column) -> Column:
    """A delivered basket number as the merchant's, who may have two systems that both count from one."""
    if not book.any_feed(lambda r: bool(r.basket_prefix)):
        return basket
    return F.concat(book.value(lambda r: r.basket_prefix), basket)


def _product_in_key(book: RuleBook, product: Column) -> Column:
    if not book.any_feed(_is_product_free):
        return product
    return F.when(book.where(_is_product_free), F.lit("")).otherwise(product)


def _is_product_free(rules: FeedRules) -> bool:
    return bool(rules.key) and "product_id" not in rules.key


def _line_type(book: RuleBook) -> Column:
    """The delivered kind of a line in upper case; not read where no feed says what kinds mean."""
    is_asked = book.any_feed(lambda r: bool(r.return_types or r.cancellation_types))
    return F.upper(F.trim("line_type")) if is_asked else F.lit(None).cast("string")


_AS_DELIVERED = ("sold_at", "source", "feed", "delivery_seq", "row_number", "row_hash", "batch_id")
_OPTIONAL_TEXTS = ("customer_id", "store_id", "product_name", "country")
_MONEY = ("gross_amount", "amount", "discount_amount", "coupon_amount")
_REDUCTIONS = ("discount_amount", "_coupon", "_match")


def _or_zero(name: str) -> Column:
    return F.coalesce(F.col(name), F.lit(0).cast("decimal(18,2)"))


def _signed(reduction: str) -> Column:
    """A reduction with the sign of what was paid, or of the pieces where nothing was: tills write either."""
    is_minus = (F.col("amount") < 0) | ((F.col("amount") == 0) & (F.col("quantity") < 0))
    return F.when(is_minus, -F.abs(reduction)).otherwise(F.abs(reduction)).alias(reduction)


def _amount(book: RuleBook) -> Column:
    priced = F.round(F.col("quantity") * F.col("unit_price"), 2).cast("decimal(18,2)")
    return F.when(_is_given(book), F.col("amount")).otherwise(priced)


def _is_given(book: RuleBook) -> Column:
    return F.col("amount").isNotNull() & ~book.where(lambda r: r.is_priced)


def _txn_type(book: RuleBook) -> Column:
    """Bookkeeping is: special baskets, stock written off, and fees and corrections.

    A fee that charges a buyer is a sale, and one that goes back and names its sale a return.
    """
    is_worthless, goes_back = F.col("gross_amount") == 0, F.col("quantity") < 0
    is_charge = (F.col("quantity") > 0) & (F.col("gross_amount") > 0)
    is_said = _is_of_type(book, F.col("_line_type"), lambda r: r.return_types)
    is_taken_back = is_said | goes_back | ((F.col("quantity") == 0) & (F.col("amount") < 0))
    is_refund = goes_back & F.col("original_basket_id").isNotNull()
    is_corrected = _is_no_merchandise(book, F.col("product_id")) & ~is_charge & ~is_refund
    return (
        F.when(_is_cancellation(book, F.col("basket_id"), F.col("_line_type")), "cancellation")
        .when(_is_booking(book, F.col("basket_id")) | is_corrected | (goes_back & is_worthless), "adjustment")
        .when(is_taken_back, "return")
        .otherwise("sale")
    )


def _is_cancellation(book: RuleBook, basket: Column, line_type: Column) -> Column:
    by_number = _of_feeds(book, lambda r: r.cancellation_prefixes, lambda found: starts_with_any(basket, found))
    return by_number | _is_of_type(book, line_type, lambda r: r.cancellation_types)


def _is_of_type(book: RuleBook, line_type: Column, of: Callable[[FeedRules], tuple[str, ...]]) -> Column:
    return _of_feeds(book, of, lambda found: F.coalesce(line_type.isin(list(found)), F.lit(False)))


def _is_booking(book: RuleBook, basket: Column) -> Column:
    return _of_feeds(book, lambda r: r.adjustment_prefixes, lambda found: starts_with_any(basket, found))


def _is_no_merchandise(book: RuleBook, product: Column) -> Column:
    return _of_feeds(book, lambda r: r.adjustment_codes, lambda found: matches_any(product, found))


def _of_feeds(
    book: RuleBook, of: Callable[[FeedRules], tuple[str, ...]], test: Callable[[tuple[str, ...]], Column]
) -> Column:
    """A test with the values of the row's feed; false for feeds without values, which cost nothing."""
    found = F.lit(False)
    for values in dict.fromkeys(of(r) for r in book.rules if of(r)):
        found = found | (book.where(lambda r, v=values: of(r) == v) & test(values))
    return found


# Refusing --------------------------------------------------------------------------------------------------------


def _requirements(book: RuleBook, bounds: Mapping[str, Decimal]) -> dict[str, Column]:
    """Reason code to what an acceptable row satisfies.

    Null where a value is missing that another rule asks for, so that a row is acceptable when all are true.
    """
    limit_q = F.lit(bounds["line_quantity"]).cast("decimal(18,3)")
    limit_p = F.lit(_MAX_PRICE).cast("decimal(18,4)")
    limit_a = F.lit(bounds["line_amount"]).cast("decimal(18,2)")
    zero = F.lit(0).cast("decimal(18,2)")
    money = ("amount", "discount_amount", "coupon_amount", "coupon_match_amount")
    codes = (F.octet_length(c) for c in ("basket_id", "product_id", "customer_id", "store_id"))
    key, kind = _key(book), _line_type(book)
    is_other = _is_booking(book, key["basket_id"]) | _is_no_merchandise(book, key["product_id"])
    is_back = _is_cancellation(book, key["basket_id"], kind) | _is_of_type(book, kind, lambda r: r.return_types)
    is_sale_line = ~(is_other | is_back)
    is_negative = (F.col("unit_price") < 0) | ((F.col("amount") < 0) & (F.col("quantity") > 0))
    line = F.col("line_id").try_cast("int")
    # As it comes out: of a row that is refused it may be more than money columns hold. By itself, and only where there
    # is no amount, because decimals of so many digits are slow, and so would be all that are compared with them.
    priced = F.when(~_is_given(book), F.abs(F.col("quantity") * F.col("unit_price")) < limit_a)
    return {
        "unknown_source": book.known(),
        "missing_basket": F.col("basket_id").isNotNull() & (F.trim("basket_id") != ""),
        "missing_product": F.col("product_id").isNotNull() & (F.trim("product_id") != ""),
        "missing_time": F.col("sold_at").isNotNull(),
        "missing_quantity": F.col("quantity").isNotNull(),
        # Where amounts are quantity times price, one that is delivered stands for no price.
        "missing_amount": _is_given(book) | F.col("unit_price").isNotNull(),
        "invalid_line_id": F.col("line_id").isNull() | F.coalesce(line.between(0, _MAX_LINE), F.lit(False)),
        "time_too_early": F.col("sold_at") >= F.lit(_EARLIEST).cast("timestamp"),
        "time_in_future": ~is_ahead("sold_at"),
        "negative_price": ~(F.coalesce(is_negative, F.lit(False)) & is_sale_line),
        "absurd_quantity": (F.col("quantity") < limit_q) & (F.col("quantity") > -limit_q),
        "absurd_amount": (F.greatest(zero, *money) < limit_a)
        & (F.least(zero, *money) > -limit_a)
        & F.coalesce(priced, F.lit(True))
        & (F.col("unit_price").isNull() | ((F.col("unit_price") < limit_p) & (F.col("unit_price") > -limit_p))),
        "overlong_code": F.greatest(*codes) <= _MAX_CODE_BYTES,
        **_promised(book),
    }


def _promised(book: RuleBook) -> dict[str, Column]:
    """What only rows of feeds that say so must satisfy."""
    found = {}
    if book.any_feed(_is_product_free):
        # Without the product nothing else tells lines apart, and those without a number would all be line 1.
        found["missing_line"] = ~book.where(_is_product_free) | F.col("line_id").isNotNull()
    if book.any_feed(lambda r: not r.has_returns):
        found["negative_quantity"] = ~(book.where(lambda r: not r.has_returns) & (F.col("quantity") < 0))
    if book.any_feed(lambda r: not r.has_guests):
        names_one = F.coalesce(F.trim("customer_id") != "", F.lit(False))
        found["missing_customer"] = book.where(lambda r: r.has_guests) | names_one
    return found


def _are_met(acceptable: Mapping[str, Column]) -> Column:
    return reduce(lambda a, b: a & b, acceptable.values())


def _reject(raw: DataFrame, acceptable: Mapping[str, Column]) -> DataFrame:
    broken = [F.when(~satisfied, reason) for reason, satisfied in acceptable.items()]
    refused = raw.where(~F.coalesce(_are_met(acceptable), F.lit(False)))
    return refused.withColumn("reasons", F.array_compact(F.array(*broken))).select(*_REJECTED)


# Keeping each line once ------------------------------------------------------------------------------------------


def _keep_once(
    raw: DataFrame, previous: DataFrame | None, book: RuleBook, acceptable: Mapping[str, Column], hold: Once
) -> DataFrame:
    # Rows are told apart before they are typed, so that the few doubtful ones are all that is typed a second time.
    key = _key(book)
    basket = F.xxhash64(key["merchant_id"], key["basket_id"])
    line = F.xxhash64(*{**key, "product_id": _product_in_key(book, key["product_id"])}.values())
    marked = raw.join(F.broadcast(_repeated_lines(raw, line)), _bucket(line) == F.col("_line_bucket"), "left")
    maybe = F.col("_line_bucket").isNotNull()
    known = hold(_known_baskets(raw, previous, basket, hold)) if previous is not None else None
    baskets = _redelivered_baskets(raw, known, basket, book)
    if baskets is not None:
        marked = marked.join(F.broadcast(baskets), _bucket(basket) == F.col("_basket_bucket"), "left")
        maybe = maybe | F.col("_basket_bucket").isNotNull()
    once = _typed(marked.where(~maybe), book, acceptable).select(*_COLUMNS, F.lit(False).alias("_deleted"))
    doubtful = _typed(marked.where(maybe), book, acceptable).select(*_COLUMNS, "_has_line", F.lit(True).alias("_new"))
    if known is not None:
        held = known.select(*_COLUMNS, F.lit(True).alias("_has_line"), F.lit(False).alias("_new"))
        doubtful = doubtful.unionByName(held)
    return once.unionByName(_resolve(doubtful, book))


def _bucket(hashed: Column) -> Column:
    return hashed.bitwiseAND(F.lit(_BUCKETS - 1))


def _repeated_lines(raw: DataFrame, line: Column) -> DataFrame:
    """Buckets of lines that the batch names more than once. Only the hash is shuffled.

    Rows that will be refused are counted as well: to leave them out, every column would have to be read. Those that
    lack a part of the key are not, for they are many that look alike.
    """
    named = raw.where(F.col("basket_id").isNotNull() & F.col("product_id").isNotNull())
    repeated = named.groupBy(line.alias("_line")).agg(F.count(F.lit(1)).alias("_times")).where("_times > 1")
    return repeated.select(_bucket(F.col("_line")).alias("_line_bucket")).distinct()


def _known_baskets(raw: DataFrame, previous: DataFrame, basket: Column, hold: Once) -> DataFrame:
    """Lines we hold of baskets that the batch names (and a few others that share a bucket with one of these)."""
    named = raw.select(basket.alias("_basket")).distinct()
    buckets = named.select(_bucket(F.col("_basket")).alias("_basket_bucket")).distinct()
    of_held = F.xxhash64("merchant_id", "basket_id")
    lines = previous.select("sold_on", of_held.alias("_basket"))
    # By bucket first, which leaves few to compare exactly; baskets that only share one lie on any day.
    alike = lines.join(F.broadcast(buckets), _bucket(F.col("_basket")) == F.col("_basket_bucket"), "left_semi")
    found = hold(
        alike.join(named, on="_basket", how="left_semi")
        .groupBy(_bucket(F.col("_basket")).alias("_basket_bucket"))
        .agg(F.min("sold_on").alias("first"), F.max("sold_on").alias("last"))
    )
    # Whole lines are asked for only of the span of days that holds such baskets.
    days = [found.agg(F.min("first")).scalar(), found.agg(F.max("last")).scalar()]
    near = previous.where(F.col("sold_on").between(*days))
    held = F.broadcast(found.select("_basket_bucket"))
    return near.join(held, _bucket(of_held) == F.col("_basket_bucket"), "left_semi")


def _redelivered_baskets(raw: DataFrame, known: DataFrame | None, basket: Column, book: RuleBook) -> DataFrame | None:
    """Buckets of baskets that more than one delivery names; None when there can be none."""
    found: list[DataFrame] = []
    if book.any_feed(_replaces_baskets):
        # Whatever feed of the retailer delivered it before.
        retailers = {r.merchant_id for r in book.rules if _replaces_baskets(r)}
        replacing = F.when(book.where(_replaces_baskets), F.col("delivery_seq"))
        spans = (
            raw.where(book.where(lambda r: r.merchant_id in retailers))
            .groupBy(basket.alias("_basket"))
            .agg(F.min("delivery_seq").alias("_first"), F.max(replacing).alias("_last"))
        )
        found.append(spans.where("_first < _last").select(_bucket(F.col("_basket")).alias("_basket_bucket")))
    if known is not None:
        found.append(known.select(_bucket(F.xxhash64("merchant_id", "basket_id")).alias("_basket_bucket")))
    if not found:
        return None
    return (found[0] if len(found) == 1 else found[0].unionByName(found[1])).distinct()


def _are_copies_equal(rules: FeedRules) -> bool:
    """Whether nothing identifies a line and rows that are equal in every cell are copies."""
    return not rules.key and not rules.repeats_are_lines


def _replaces_baskets(rules: FeedRules) -> bool:
    return rules.later_delivery == "basket"


def _resolve(doubtful: DataFrame, book: RuleBook) -> DataFrame:
    """Decide exactly, by the natural key, among delivered rows (`_new`) and lines we hold.

    All windows partition by basket or finer, so the rows are shuffled once.
    """
    basket = ("merchant_id", "basket_id")
    product = "product_id"
    if book.any_feed(_is_product_free):
        product = "_product"
        doubtful = doubtful.withColumn(product, _product_in_key(book, F.col("product_id")))
    key = (*basket, product, "line_number")
    in_basket, in_line = Window.partitionBy(*basket), Window.partitionBy(*key)
    whole = book.where(_replaces_baskets)
    newest = F.max(F.when(whole, F.col("delivery_seq"))).over(in_basket)
    rows = doubtful.withColumn("_newest", newest).withColumn("_replaced", F.col("delivery_seq") < F.col("_newest"))
    rows = rows.withColumn("_replaced", F.coalesce("_replaced", F.lit(False)))

    # Lines without a number of their own are told apart by their order in the delivery; where nothing identifies a
    # line and equal rows are copies, by the first of those that are equal in every cell.
    unnumbered = F.col("_new") & ~F.col("_has_line")
    alike = (*basket, "product_id", "_new", "_has_line", "delivery_id")
    in_delivery = Window.partitionBy(*alike).orderBy("row_number")
    number = F.when(unnumbered & book.where(lambda r: r.repeats_are_lines), F.row_number().over(in_delivery))
    if book.any_feed(_are_copies_equal):
        rows = rows.withColumn("_row", F.min("row_number").over(Window.partitionBy(*alike, "row_hash")))
        by_content = F.dense_rank().over(Window.partitionBy(*alike).orderBy("_row"))
        number = number.when(unnumbered & book.where(_are_copies_equal), by_content)
    rows = rows.withColumn("line_number", number.otherwise(F.col("line_number")))

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
    first_line = in_basket.orderBy(F.desc("_wins"), F.desc(whole), "product_id", "line_number")
    is_first = F.col("_wins") & F.col("_newest").isNotNull() & (F.row_number().over(first_line) == 1)
    rows = rows.withColumn("_is_first", is_first).withColumn(
        "_older", F.flatten(F.collect_list("_older").over(in_basket))
    )
    rows = rows.withColumn("_same", F.flatten(F.collect_list("_same").over(in_line)))
    # A line that stands for one of another product is stored beside it, so that one leaves the table.
    rows = rows.withColumn("_has_winner", F.max("_wins").over(Window.partitionBy(*basket, "product_id", "line_number")))
    listed = F.sort_array(
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
