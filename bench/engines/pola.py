"""The bench's work in Polars: files to fact, rejects, features and membership, as Parquet files.

Lazy frames on the streaming engine. The features follow the same meanings as in `duck.py`, written independently.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from bench.engines.duck import GRID, WEEKDAYS
from bench.engines.work import ZONE, Arguments, Steps, run_engine
from bench.rules import segment_conditions

MONEY = pl.Decimal(18, 2)
EPOCH = date(1970, 1, 1)


def work(args: Arguments, steps: Steps) -> None:
    delivered = _delivered(args)
    with steps("silver"):
        if args.layers:
            _write(delivered, args, "raw")
        refused = delivered.with_columns(reasons=_reasons()).filter(pl.col("reasons").list.len() > 0)
        _write(refused.select("filename", "row_number", "reasons"), args, "rejects")
        lines = _lines(delivered.filter(~pl.any_horizontal(*_tests().values())))
        if args.layers:
            _write(lines, args, "lines")
            lines = pl.scan_parquet(args.out / "lines.parquet")
    with steps("fact"):
        _write(_fact(lines), args, "fact")
    with steps("features"):
        fact = pl.scan_parquet(args.out / "fact.parquet").filter(
            pl.col("customer_key").is_not_null() & (pl.col("business_date") < args.as_of)
        )
        _write(_features(fact, pl.scan_parquet(args.products), args.as_of), args, "features")
    with steps("membership"):
        _write(_membership(pl.scan_parquet(args.out / "features.parquet")), args, "membership")


def _write(frame: pl.LazyFrame, args: Arguments, name: str) -> None:
    frame.sink_parquet(args.out / f"{name}.parquet", compression="zstd", compression_level=1)


def _delivered(args: Arguments) -> pl.LazyFrame:
    files = sorted(args.lines.glob("*.parquet"))
    # Row numbers are per file, so files are read one by one and put together.
    return pl.concat(
        [
            pl.scan_parquet(f, row_index_name="row_number").with_columns(
                pl.lit(f.name).alias("filename"), pl.lit(int(f.stem.rpartition("_")[2])).alias("delivery_seq")
            )
            for f in files
        ]
    )


def _tests() -> dict[str, pl.Expr]:
    def blank(column: str) -> pl.Expr:
        return pl.col(column).str.strip_chars().fill_null("") == ""

    soon = pl.lit(datetime.now(UTC).date() + timedelta(days=2)).cast(pl.Datetime("us"))
    codes = [pl.col(c).str.len_bytes() > 200 for c in ("basket_id", "product_code", "customer_no")]
    found = {
        "missing_basket": blank("basket_id"),
        "missing_product": blank("product_code"),
        "missing_time": pl.col("sold_at").is_null(),
        "missing_quantity": pl.col("quantity").is_null(),
        "missing_amount": pl.col("net_amount").is_null() & pl.col("unit_price").is_null(),
        "invalid_line_id": ~pl.col("line_no").is_between(0, 1_000_000_000),
        "time_too_early": pl.col("sold_at") < pl.lit(date(1990, 1, 1)).cast(pl.Datetime("us")),
        "time_in_future": pl.col("sold_at") > soon,
        "negative_price": (pl.col("unit_price") < 0) | ((pl.col("net_amount") < 0) & (pl.col("quantity") > 0)),
        "absurd_quantity": pl.col("quantity").abs() >= 10_000_000,
        "absurd_amount": (pl.col("unit_price") >= 1_000_000) | (pl.col("net_amount") >= 1_000_000_000),
        "overlong_code": pl.any_horizontal(*codes),
    }
    return {name: test.fill_null(value=False) for name, test in found.items()}


def _reasons() -> pl.Expr:
    named = [pl.when(test).then(pl.lit(name)) for name, test in _tests().items()]
    return pl.concat_list(*named).list.drop_nulls()


def _lines(accepted: pl.LazyFrame) -> pl.LazyFrame:
    key = ("basket_id", "product_id", "line_number")
    local = pl.col("sold_at").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE)
    customer = pl.col("customer_no").str.strip_chars().replace("", None)
    typed = accepted.select(
        pl.struct("basket_id", "product_code", "line_no").hash().alias("transaction_id"),
        pl.lit("bench").alias("merchant_id"),
        pl.col("basket_id").str.strip_chars(),
        pl.col("product_code").str.strip_chars().str.to_uppercase().alias("product_id"),
        pl.col("line_no").alias("line_number"),
        customer.alias("customer_id"),
        pl.col("store_no").str.strip_chars().alias("store_id"),
        pl.col("channel").str.strip_chars().fill_null("store").str.to_lowercase().alias("channel_id"),
        pl.col("sold_at"),
        local.dt.date().alias("sold_on"),
        local.dt.hour().cast(pl.Int32).alias("sold_hour"),
        pl.col("quantity").cast(pl.Decimal(18, 3)),
        (pl.col("net_amount") + pl.col("discount") + pl.col("coupon")).cast(MONEY).alias("gross_amount"),
        pl.col("net_amount").cast(MONEY).alias("amount"),
        pl.col("discount").cast(MONEY).alias("discount_amount"),
        pl.col("coupon").cast(MONEY).alias("coupon_amount"),
        pl.lit("EUR").alias("currency"),
        pl.when(pl.col("quantity") < 0).then(pl.lit("return")).otherwise(pl.lit("sale")).alias("txn_type"),
        pl.col("sold_in_basket").str.strip_chars().alias("original_basket_id"),
        (customer.is_not_null() & (pl.col("quantity") > 0) & (pl.col("unit_price") > 0)).alias("is_valid_purchase"),
        "delivery_seq",
        "row_number",
    )
    repeated = typed.group_by("transaction_id").len().filter(pl.col("len") > 1).select("transaction_id")
    once = typed.join(repeated, on="transaction_id", how="anti")
    best = typed.join(repeated, on="transaction_id", how="semi").sort("delivery_seq", "row_number", descending=True)
    return pl.concat([once, best.unique(subset=list(key), keep="first", maintain_order=True)])


def _fact(lines: pl.LazyFrame) -> pl.LazyFrame:
    return lines.select(
        "transaction_id",
        "merchant_id",
        pl.col("customer_id").fill_null("guest").alias("account_id"),
        pl.when(pl.col("customer_id").is_not_null())
        .then(pl.struct("merchant_id", "customer_id").hash())
        .alias("customer_key"),
        "customer_id",
        "basket_id",
        "product_id",
        "store_id",
        "channel_id",
        "txn_type",
        pl.lit("posted").alias("status_id"),
        pl.col("sold_at").alias("posted_ts"),
        pl.col("sold_on").alias("business_date"),
        pl.col("sold_hour").alias("hour_of_day"),
        "quantity",
        "gross_amount",
        "amount",
        "discount_amount",
        "coupon_amount",
        "currency",
        pl.col("amount").alias("base_amount"),
        "original_basket_id",
        "is_valid_purchase",
    )


def _features(fact: pl.LazyFrame, products: pl.LazyFrame, as_of: date) -> pl.LazyFrame:
    today = (as_of - EPOCH).days
    valid = pl.col("is_valid_purchase")

    def cents(name: str) -> pl.Expr:
        return (pl.col(name) * 100).cast(pl.Int64)

    def when_valid(value: pl.Expr) -> pl.Expr:
        return pl.when(valid).then(value).otherwise(0)

    coded = fact.join(
        products.rename({"product_code": "product_id"}).drop("product_name"), on="product_id", how="left"
    ).select(
        "customer_key",
        "customer_id",
        pl.coalesce("original_basket_id", "basket_id").hash().alias("basket"),
        (pl.col("business_date").cast(pl.Int32).cast(pl.Int64) * 32 + pl.col("hour_of_day")).alias("moment"),
        valid,
        pl.when(valid).then(pl.col("store_id")).alias("store_id"),
        pl.when(valid).then(pl.col("channel_id")).alias("channel_id"),
        cents("amount").alias("net"),
        when_valid(cents("amount")).alias("paid"),
        when_valid(cents("gross_amount")).alias("shelf"),
        when_valid(cents("discount_amount")).alias("discount"),
        when_valid(cents("coupon_amount")).alias("coupon"),
        pl.when(valid & (pl.col("brand_type") == "Private")).then(cents("amount")).otherwise(0).alias("private"),
        pl.when(valid & pl.col("brand_type").is_not_null()).then(cents("amount")).otherwise(0).alias("branded"),
        when_valid(pl.col("quantity").cast(pl.Float64)).alias("items"),
        "department",
        "category",
        "brand_type",
        "manufacturer",
    )
    summed = ("net", "paid", "shelf", "discount", "coupon", "private", "branded", "items")
    # Shared by four branches; collected once because the streaming engine does not keep a shared part.
    held = coded.collect(engine="streaming").lazy()
    baskets = (
        held.group_by("customer_key", "basket")
        .agg(
            pl.col("customer_id").first(),
            pl.coalesce(pl.col("moment").filter(valid).min(), pl.col("moment").min()).alias("moment"),
            pl.col("store_id").max(),
            pl.col("channel_id").max(),
            valid.any().alias("is_bought"),
            *[pl.col(c).sum() for c in summed],
            pl.when(pl.col("net") < 0).then(-pl.col("net")).otherwise(0).sum().alias("back"),
        )
        .with_columns(day=pl.col("moment") // 32, hour=pl.col("moment") % 32)
        .collect(engine="streaming")
        .lazy()
    )
    customers = _customers(baskets, today)
    parts = [customers, _gaps(baskets, today), _visits(baskets), *_products(held)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.join(part, on="customer_key", how="left")
    measured = joined.collect(engine="streaming")
    return _columns(measured, as_of, today)


def _customers(baskets: pl.LazyFrame, today: int) -> pl.LazyFrame:
    bought, day, hour = pl.col("is_bought"), pl.col("day"), pl.col("hour")
    quarter = pl.from_epoch(day, time_unit="d").dt.quarter()
    parts = {"morning": (6, 12), "afternoon": (12, 17), "evening": (17, 22)}
    windows = (7, 30, 90, 365)
    edges = [pl.when(day >= today - d).then(day + d + 1) for d in (*windows, 180)]
    summed = ("net", "paid", "shelf", "discount", "coupon", "private", "branded", "items", "back")
    return (
        baskets.group_by("customer_key")
        .agg(
            pl.col("customer_id").first(),
            day.filter(bought).min().alias("first_day"),
            day.filter(bought).max().alias("last_day"),
            (bought & ~((pl.col("back") > 0) & (pl.col("net") <= 0))).sum().cast(pl.Int64).alias("frequency"),
            bought.sum().cast(pl.Int64).alias("baskets"),
            pl.col("channel_id").filter(bought).n_unique().alias("channels"),
            *[pl.col(c).sum() for c in summed],
            *[(bought & (hour >= a) & (hour < b)).sum().alias(p) for p, (a, b) in parts.items()],
            *[(bought & ((day + 3) % 7 == i)).sum().alias(w) for i, w in enumerate(WEEKDAYS)],
            *[pl.col("paid").filter(quarter == q).sum().alias(f"q{q}") for q in range(1, 5)],
            *[pl.col("net").filter(day >= today - d).sum().alias(f"spend_{d}") for d in windows],
            *[(bought & (day >= today - d)).sum().cast(pl.Int64).alias(f"visits_{d}") for d in windows],
            pl.col("net").filter((day >= today - 180) & (day < today - 90)).sum().alias("before_90"),
            pl.min_horizontal(*edges).min().alias("moves_on"),
        )
        .filter(pl.col("baskets") > 0)
    )


def _gaps(baskets: pl.LazyFrame, today: int) -> pl.LazyFrame:
    days = baskets.filter("is_bought").select("customer_key", "day").unique().sort("customer_key", "day")
    gap = pl.when(pl.col("customer_key") == pl.col("customer_key").shift(1)).then(
        pl.col("day") - pl.col("day").shift(1)
    )
    return (
        days.with_columns(gap=gap)
        .group_by("customer_key")
        .agg(
            pl.len().cast(pl.Int64).alias("purchase_days"),
            (pl.col("gap") ** 2).sum().alias("squares"),
            (pl.col("gap") * 100_000 + pl.col("day")).max().alias("longest"),
            pl.col("gap").filter(pl.col("day") >= today - 60).max().alias("returned_after"),
            (pl.col("day") + 61)
            .filter(pl.col("gap").is_not_null() & (pl.col("day") >= today - 60))
            .min()
            .alias("return_moves_on"),
        )
        .with_columns(longest_gap=pl.col("longest") // 100_000, longest_gap_day=pl.col("longest") % 100_000)
    )


def _visits(baskets: pl.LazyFrame) -> pl.LazyFrame:
    return (
        baskets.filter(pl.col("is_bought") & pl.col("store_id").is_not_null())
        .group_by("customer_key", "store_id")
        .agg(pl.len().cast(pl.Int64).alias("visits"), pl.col("day").max().alias("last"))
        .with_columns(rank=pl.col("visits") * 100_000 + pl.col("last"))
        .group_by("customer_key")
        .agg(
            pl.len().cast(pl.Int64).alias("stores"),
            # Among equals the first in alphabetical order.
            pl.col("store_id").filter(pl.col("rank") == pl.col("rank").max()).min().alias("favourite_store_id"),
            pl.col("visits").max().alias("favourite_baskets"),
        )
    )


def _products(lines: pl.LazyFrame) -> list[pl.LazyFrame]:
    known = lines.filter("is_valid_purchase")
    categories = (
        known.filter(pl.col("category").is_not_null())
        .group_by("customer_key", "category")
        .agg(pl.col("paid").sum(), pl.col("department").first())
        .group_by("customer_key")
        .agg(
            pl.len().cast(pl.Int64).alias("categories"),
            pl.col("department").n_unique().cast(pl.Int64).alias("departments"),
            pl.col("paid").sum().alias("known_paid"),
            pl.col("paid").max().alias("favourite_paid"),
            pl.col("category").filter(pl.col("paid") == pl.col("paid").max()).min().alias("favourite_category"),
        )
    )
    makers = (
        known.select("customer_key", "manufacturer", "brand_type")
        .unique()
        .group_by("customer_key")
        .agg(
            pl.col("manufacturer").drop_nulls().n_unique().cast(pl.Int64).alias("makers"),
            pl.col("brand_type").drop_nulls().n_unique().cast(pl.Int64).alias("brand_types"),
        )
    )
    return [categories, makers]


def _columns(measured: pl.DataFrame, as_of: date, today: int) -> pl.LazyFrame:
    fifths = (0.2, 0.4, 0.6, 0.8)

    def cuts(name: str) -> list[float]:
        return [float(measured[name].cast(pl.Float64).quantile(q, "linear")) for q in fifths]  # type: ignore[arg-type]

    def ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
        divisor = below.cast(pl.Float64)
        return pl.when(divisor != 0).then(above.cast(pl.Float64) / divisor)

    def points(value: pl.Expr, at: list[float], *, equal: bool = False) -> pl.Expr:
        passed = [(value >= p if equal else value > p).cast(pl.Int32) for p in at]
        return sum(passed[1:], passed[0])

    def first_greatest(named: dict[str, str | int]) -> pl.Expr:
        top = pl.max_horizontal(*named)
        chosen: pl.Expr = pl.lit(None)
        for column, name in reversed(list(named.items())):
            chosen = pl.when(pl.col(column) == top).then(pl.lit(name)).otherwise(chosen)
        return chosen

    def money(name: str) -> pl.Expr:
        return (pl.col(name) / 100).round(2).cast(MONEY)

    def day(name: str) -> pl.Expr:
        return pl.col(name).cast(pl.Int32).cast(pl.Date)

    c = pl.col
    gaps, between = c("purchase_days") - 1, c("last_day") - c("first_day")
    usual = pl.when(gaps >= 2).then((between - c("longest_gap")).cast(pl.Float64) / (gaps - 1))
    r, f, m = cuts("last_day"), cuts("frequency"), cuts("net")
    scored = measured.lazy().with_columns(
        r_score=1 + points(c("last_day").cast(pl.Float64), r, equal=True),
        f_score=1 + points(c("frequency").cast(pl.Float64), f),
        m_score=1 + points(c("net").cast(pl.Float64), m),
        cadence_days=usual.clip(7, 120).fill_null(30.0),
        recency_days=today - c("last_day"),
        busiest=pl.max_horizontal("q1", "q2", "q3", "q4"),
    )
    cadence, silence, tenure = c("cadence_days"), c("recency_days"), today - c("first_day")
    parts = c("morning") + c("afternoon") + c("evening")
    weekend = c("saturday") + c("sunday")
    recent, before = c("spend_90"), c("before_90")
    cell = (c("r_score") - 1) * 5 + (c("f_score") + c("m_score") + 1) // 2 - 1
    baskets = c("baskets")
    return scored.select(
        pl.lit("bench").alias("merchant_id"),
        "customer_key",
        "customer_id",
        pl.lit(as_of).alias("as_of"),
        pl.min_horizontal("moves_on", "return_moves_on").cast(pl.Int32).cast(pl.Date).alias("windows_move_on"),
        day("first_day").alias("first_purchase_on"),
        day("last_day").alias("last_purchase_on"),
        "recency_days",
        "frequency",
        money("net").alias("monetary_net"),
        money("paid").alias("monetary_gross"),
        "r_score",
        "f_score",
        "m_score",
        (c("r_score") * 100 + c("f_score") * 10 + c("m_score")).alias("rfm_score"),
        cell.replace_strict(dict(enumerate(GRID)), return_dtype=pl.String).alias("rfm_group"),
        "baskets",
        "purchase_days",
        "items",
        ratio(c("paid"), baskets * 100).alias("basket_value_mean"),
        ratio(c("items"), baskets).alias("basket_size_mean"),
        ratio(between, gaps).alias("inter_purchase_days_mean"),
        ratio(gaps * c("squares") - between * between, gaps * (gaps - 1)).sqrt().alias("inter_purchase_days_sd"),
        c("longest_gap").alias("longest_gap_days"),
        day("longest_gap_day").alias("longest_gap_ended_on"),
        c("returned_after").alias("returned_after_days"),
        c("categories").fill_null(0).alias("distinct_categories"),
        c("departments").fill_null(0).alias("distinct_departments"),
        c("brand_types").fill_null(0).alias("distinct_brand_types"),
        c("makers").fill_null(0).alias("distinct_manufacturers"),
        c("stores").fill_null(0).alias("distinct_stores"),
        c("channels").cast(pl.Int64).alias("distinct_channels"),
        ratio(baskets - parts, baskets).alias("night_share"),
        *[ratio(c(p), baskets).alias(f"{p}_share") for p in ("morning", "afternoon", "evening")],
        ratio(baskets - weekend, baskets).alias("weekday_share"),
        ratio(weekend, baskets).alias("weekend_share"),
        first_greatest({w: w for w in WEEKDAYS}).alias("favourite_weekday"),
        "favourite_store_id",
        ratio(c("favourite_baskets"), baskets).alias("favourite_store_share"),
        ratio(c("discount"), c("shelf")).alias("discount_share"),
        ratio(c("coupon"), c("shelf")).alias("coupon_share"),
        ratio(c("private"), c("branded")).alias("private_label_share"),
        ratio(c("back"), c("paid")).alias("return_rate"),
        *[money(f"spend_{d}").alias(f"spend_{d}d") for d in (7, 30, 90, 365)],
        money("before_90").alias("spend_previous_90d"),
        *[c(f"visits_{d}").alias(f"visits_{d}d") for d in (7, 30, 90, 365)],
        ratio(recent - before, recent.abs() + before.abs()).alias("spend_trend"),
        ratio(c("q4"), c("paid")).alias("fourth_quarter_share"),
        pl.when(c("busiest") > 0).then(first_greatest({f"q{q}": q for q in range(1, 5)})).alias("busiest_quarter"),
        ratio(pl.when(c("busiest") > 0).then(c("busiest")), c("paid")).alias("busiest_quarter_share"),
        "favourite_category",
        ratio(c("favourite_paid"), c("known_paid")).alias("favourite_category_share"),
        tenure.alias("tenure_days"),
        "cadence_days",
        pl.when(tenure <= 30)
        .then(pl.lit("new"))
        .when(silence > 4 * cadence)
        .then(pl.lit("lost"))
        .when(silence > 2 * cadence)
        .then(pl.lit("lapsing"))
        .when(c("returned_after") > 4 * cadence)
        .then(pl.lit("won_back"))
        .otherwise(pl.lit("active"))
        .alias("lifecycle_stage"),
        pl.when(silence > 2 * cadence)
        .then(pl.lit("stopped"))
        .when(c("purchase_days") == 1)
        .then(pl.lit("first"))
        .when(c("returned_after") > 2 * cadence)
        .then(pl.lit("resumed"))
        .otherwise(pl.lit("regular"))
        .alias("purchase_pattern"),
    )


def _membership(features: pl.LazyFrame) -> pl.LazyFrame:
    named = [pl.when(pl.sql_expr(rule)).then(pl.lit(name)) for name, rule in segment_conditions().items()]
    segments = pl.concat_list(*named).list.drop_nulls()
    return features.select(
        pl.col("merchant_id").alias("website_id"), "customer_key", "customer_id", segments.alias("segment_ids")
    ).with_columns(primary_segment_id=pl.col("segment_ids").list.first())


if __name__ == "__main__":
    run_engine(work)
