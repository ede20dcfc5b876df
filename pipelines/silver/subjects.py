"""What the smaller subjects have in common: which rows are acceptable, and which of several about one thing wins.

A row that names a thing again, in the same or a later delivery, is a duplicate of the one that wins: the latest
delivery, within it the last row. The winner counts the rows it stands for and keeps the exclusive or of their hashes,
so `gold.audit_recon` can prove that none was lost. Work follows what changed: only the things that changed rows name
are looked at again, over all rows about them, so a repeat of the same changes gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.joins import rows_named
from lakehouse.tables.silver import VISITOR_EVENTS, Consent
from pipelines.silver.rules import RuleBook, any_of, blank_is_null, code, is_ahead

MERCHANT: Final = "merchant_id"


@dataclass(frozen=True)
class Subject:
    """How rows of a subject are told apart and when they are refused.

    Attributes:
        key: Silver column to the expression over a landed row that fills it; together with the merchant they name
            a thing. A row for which one is null is refused as `missing_<column>`.
        refusals: Further reason codes to the condition that refuses a row.
    """

    key: Mapping[str, Callable[[], Column]]
    refusals: Mapping[str, Callable[[], Column]]

    def reasons(self, book: RuleBook) -> dict[str, Column]:
        """Reason code to condition; no condition is ever null."""
        missing = {f"missing_{name}": of().isNull() for name, of in self.key.items()}
        others = {name: F.coalesce(of(), F.lit(False)) for name, of in self.refusals.items()}
        return {"unknown_feed": ~book.known()} | missing | others

    def is_refused(self, book: RuleBook) -> Column:
        """Whether a landed row is refused."""
        return any_of(self.reasons(book).values())


def text_key(name: str) -> Callable[[], Column]:
    """A trimmed text of a landed row."""
    return lambda: blank_is_null(name)


def code_key(name: str) -> Callable[[], Column]:
    """A trimmed upper case code of a landed row."""
    return lambda: code(name)


def _channel_unknown() -> Column:
    return ~F.lower(F.trim("channel")).isin(*Consent.channel.spec.values)


def choice() -> Column:
    """What a landed row says of consent, in lower case."""
    return F.lower(F.trim("status"))


def _event_type() -> Column:
    return F.lower(F.trim("event_type"))


def _not_ahead(time: str) -> dict[str, Callable[[], Column]]:
    return {"time_in_future": lambda: is_ahead(time)}


_CUSTOMER: Final = {"customer_id": text_key("customer_id")}

SUBJECTS: Final[Mapping[str, Subject]] = {
    "products": Subject({"product_id": code_key("product_id")}, {}),
    "customers": Subject(_CUSTOMER, _not_ahead("changed_at")),
    "contact_points": Subject(_CUSTOMER, {}),
    "consents": Subject(
        _CUSTOMER | {"channel": lambda: F.lower(blank_is_null("channel"))},
        {
            "unknown_channel": _channel_unknown,
            "unknown_choice": lambda: F.col("status").isNull() | ~choice().isin("granted", "denied"),
            "missing_changed_at": lambda: F.col("changed_at").isNull(),
            **_not_ahead("changed_at"),
        },
    ),
    "campaigns": Subject(
        {"campaign_id": text_key("campaign_id")},
        {
            "missing_period": lambda: F.col("starts_on").isNull() | F.col("ends_on").isNull(),
            "period_runs_backwards": lambda: F.col("ends_on") < F.col("starts_on"),
        },
    ),
    "campaign_contacts": Subject({"campaign_id": text_key("campaign_id"), **_CUSTOMER}, {}),
    "coupons": Subject(
        {
            "coupon_id": text_key("coupon_id"),
            "product_id": code_key("product_id"),
            "campaign_id": text_key("campaign_id"),
        },
        {},
    ),
    "coupon_redemptions": Subject(
        {
            **_CUSTOMER,
            "coupon_id": text_key("coupon_id"),
            "campaign_id": text_key("campaign_id"),
            "redeemed_at": lambda: F.col("redeemed_at"),
        },
        _not_ahead("redeemed_at"),
    ),
    "promotions": Subject(
        {
            "product_id": code_key("product_id"),
            "store_id": text_key("store_id"),
            "week": lambda: F.col("week"),
        },
        {"week_out_of_range": lambda: ~F.col("week").between(1, 6000)},
    ),
    "visitor_events": Subject(
        {"visitor_id": text_key("visitor_id"), "event_id": text_key("event_id")},
        {
            "unknown_event": lambda: F.col("event_type").isNull() | ~_event_type().isin(*VISITOR_EVENTS),
            "missing_happened_at": lambda: F.col("happened_at").isNull(),
            **_not_ahead("happened_at"),
            "login_without_customer": lambda: (_event_type() == "login") & blank_is_null("customer_id").isNull(),
            "negative_amount": lambda: (F.col("amount") < 0) | (F.col("quantity") < 0),
        },
    ),
    "settlements": Subject(
        {"settlement_id": text_key("settlement_id")},
        {
            "missing_settled_on": lambda: F.col("settled_on").isNull(),
            "missing_amount": lambda: F.col("gross_amount").isNull() | F.col("net_amount").isNull(),
            "missing_currency": lambda: code("currency").isNull(),
            **_not_ahead("settled_on"),
        },
    ),
    # Rates, as campaigns and promotions, are made known beforehand, and none counts before its day.
    "exchange_rates": Subject(
        {
            "from_currency": code_key("from_currency"),
            "to_currency": code_key("to_currency"),
            "valid_on": lambda: F.col("valid_on"),
        },
        {"unusable_rate": lambda: ~F.coalesce(F.col("rate").try_cast("decimal(18,8)") > 0, F.lit(False))},
    ),
}


def accept(raw: DataFrame, subject: str, book: RuleBook) -> DataFrame:
    """Acceptable rows of a subject: landed columns with the key conformed, and the merchant."""
    return with_key(raw.where(~SUBJECTS[subject].is_refused(book)), subject, book)


def with_key(raw: DataFrame, subject: str, book: RuleBook) -> DataFrame:
    """Landed rows with the key conformed, and the merchant; acceptable or not."""
    key = {MERCHANT: book.value(lambda r: r.merchant_id)} | {n: of() for n, of in SUBJECTS[subject].key.items()}
    return raw.select(*[c for c in raw.columns if c not in key], *[c.alias(name) for name, c in key.items()])


def touched(rows: DataFrame, changed: DataFrame, previous: DataFrame | None, *key: str) -> DataFrame:
    """Rows about what changed rows name; all rows on a first run. `key` names things, so nothing multiplies."""
    if previous is None:
        return rows
    return rows_named(rows, changed, key)


def keep_latest(
    rows: DataFrame,
    *key: str,
    day: str | None = None,
    said_at: str | None = None,
    count: str = "delivered_count",
    hashes: str = "delivered_hash",
) -> DataFrame:
    """The winning row of each key, with how many rows it stands for and the exclusive or of their hashes.

    Full rows go through a window only where a key may be named more than once; with few repeats, as usual, nearly all
    rows take the way past it.

    Args:
        rows: Rows with `delivery_seq`, `batch_id`, `row_number` and `row_hash`.
        key: Columns that name a thing.
        day: A date among them that takes few values, such as the first days of weeks: what shares the rest of the key
            is then told apart by bits, which takes a fraction of the groups.
        said_at: Column that tells since when a row holds. Where all rows about a thing tell it, the one that holds
            since last wins, whenever it was delivered.
        count: Name of the number of rows.
        hashes: Name of the exclusive or.
    """
    by_hash = F.xxhash64(*[k for k in key if k != day])
    # Days 64 apart share a bit, weeks 64 apart too. Those then look repeated and take the longer way to the same end.
    bit = (
        F.call_function("shiftleft", F.lit(1).cast("bigint"), F.pmod(F.unix_date(day), F.lit(64)))
        if day
        else F.lit(1).cast("bigint")
    )
    repeated = (
        rows.select(by_hash.alias("_key"), bit.alias("_bit"))
        .groupBy("_key")
        .agg(F.count(F.lit(1)).alias("_n"), F.bit_or("_bit").alias("_bits"))
        .where(F.col("_n") > F.bit_count("_bits"))
    )
    # `repeated` names a hash once, so the join keeps each row once.
    marked = rows.withColumn("_hash", by_hash).join(
        F.broadcast(repeated.select(F.col("_key").alias("_hash"), F.lit(True).alias("_again"))), on="_hash", how="left"
    )
    once = marked.where(F.col("_again").isNull()).select(
        "*", F.lit(1).cast("bigint").alias(count), F.col("row_hash").alias(hashes)
    )
    of_key = Window.partitionBy(*key)
    repeated, order = marked.where(F.col("_again")), newest_first()
    if said_at:
        is_told = F.count(said_at).over(of_key) == F.count(F.lit(1)).over(of_key)
        repeated = repeated.withColumn("_since", F.when(is_told, F.col(said_at)))
        order = [F.col("_since").desc(), *order]
    newest = of_key.orderBy(*order)
    several = (
        repeated.select(
            "*",
            F.count(F.lit(1)).over(of_key).alias(count),
            F.bit_xor("row_hash").over(of_key).alias(hashes),
            F.row_number().over(newest).alias("_rank"),
        )
        .where("_rank = 1")
        .drop("_rank", "_since")
    )
    return once.unionByName(several).drop("_hash", "_again")


def newest_first() -> list[Column]:
    """Order in which rows about one thing win; total, so equal inputs give equal outputs."""
    return [
        F.col("delivery_seq").desc(),
        F.col("batch_id").desc(),
        F.col("row_number").desc(),
        F.col("row_hash").desc(),
    ]


def union_all(frames: list[DataFrame]) -> DataFrame:
    """Rows of all frames, columns by name."""
    return reduce(lambda a, b: a.unionByName(b), frames)
