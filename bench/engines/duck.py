"""The bench's work in DuckDB: files to fact, rejects, features and membership, as Parquet files.

The features are written down here a second time, from their meaning in `lakehouse/tables/feature.py`, so that the
comparison of rows also checks the pipeline.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb

from bench.engines.work import ZONE, Arguments, Steps, run_engine
from bench.rules import segment_conditions

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# fmt: off
GRID = (
    "lost", "lost", "at_risk", "cannot_lose", "cannot_lose",
    "hibernating", "hibernating", "at_risk", "at_risk", "cannot_lose",
    "about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal",
    "promising", "potential_loyalists", "potential_loyalists", "loyal", "champions",
    "new_customers", "potential_loyalists", "potential_loyalists", "loyal", "champions",
)
# fmt: on


def work(args: Arguments, steps: Steps) -> None:
    con = duckdb.connect(str(args.out / "bench.duckdb"))
    con.execute(f"SET threads = {args.threads}; SET memory_limit = '{args.memory_gb}GB'; SET TimeZone = 'UTC'")
    con.execute(f"SET preserve_insertion_order = false; SET temp_directory = '{args.out / 'tmp'}'")
    con.execute(f"CREATE VIEW delivered AS {DELIVERED.format(lines=args.lines)}")
    with steps("silver"):
        if args.layers:
            _copy(
                con, f"SELECT *, filename FROM read_parquet('{args.lines}/*.parquet', filename=true)", args.out / "raw"
            )
        _copy(con, REJECTS, args.out / "rejects")
        con.execute(f"CREATE TABLE repeated AS {REPEATED}")
        if args.layers:
            _copy(con, LINES, args.out / "lines")
            con.execute(f"CREATE VIEW lines AS SELECT * FROM '{args.out / 'lines.parquet'}'")
        else:
            con.execute(f"CREATE VIEW lines AS {LINES}")
    with steps("fact"):
        _copy(con, FACT, args.out / "fact")
    con.execute(f"CREATE VIEW fact AS SELECT * FROM '{args.out / 'fact.parquet'}'")
    con.execute(f"CREATE VIEW product AS SELECT * FROM '{args.products}'")
    with steps("features"):
        for name in SHAPES:
            con.execute(f"CREATE TABLE {name} AS {SHAPES[name].format(as_of=args.as_of)}")
        con.execute(f"CREATE TABLE measured AS {_measured(args.as_of)}")
        con.execute(f"CREATE TABLE cuts AS {CUTS}")
        _copy(con, _features(args.as_of), args.out / "features")
    with steps("membership"):
        _copy(con, _membership(args.out / "features.parquet"), args.out / "membership")
    con.close()


def _copy(con: duckdb.DuckDBPyConnection, query: str, to: Path) -> None:
    con.execute(f"COPY ({query}) TO '{to}.parquet' (FORMAT parquet, COMPRESSION zstd)")


DELIVERED = """
SELECT *, CAST(regexp_extract(filename, '(\\d+)\\.parquet$', 1) AS BIGINT) AS delivery_seq,
  file_row_number AS row_number, hash(basket_id, product_code, line_no) AS transaction_id
FROM read_parquet('{lines}/*.parquet', filename=true, file_row_number=true)
"""

REASONS = {
    "missing_basket": "coalesce(trim(basket_id), '') = ''",
    "missing_product": "coalesce(trim(product_code), '') = ''",
    "missing_time": "sold_at IS NULL",
    "missing_quantity": "quantity IS NULL",
    "missing_amount": "net_amount IS NULL AND unit_price IS NULL",
    "invalid_line_id": "coalesce(line_no NOT BETWEEN 0 AND 1000000000, false)",
    "time_too_early": "coalesce(sold_at < TIMESTAMP '1990-01-01', false)",
    "time_in_future": "coalesce(sold_at > CAST(now() AS TIMESTAMP) + INTERVAL 2 DAYS, false)",
    "negative_price": "coalesce(unit_price < 0 OR (net_amount < 0 AND quantity > 0), false)",
    "absurd_quantity": "coalesce(abs(quantity) >= 10000000, false)",
    "absurd_amount": "coalesce(abs(unit_price) >= 1000000 OR abs(net_amount) >= 1000000000, false)",
    "overlong_code": "coalesce(greatest(strlen(basket_id), strlen(product_code), strlen(customer_no)) > 200, false)",
}
IS_REFUSED = "(" + " OR ".join(f"({test})" for test in REASONS.values()) + ")"

REJECTS = f"""
SELECT filename, row_number, [x FOR x IN [
  {", ".join(f"CASE WHEN {test} THEN '{reason}' END" for reason, test in REASONS.items())}] IF x IS NOT NULL] AS reasons
FROM delivered WHERE {IS_REFUSED}
"""

# Only hashes are grouped; full rows are sorted only where a hash comes twice.
REPEATED = f"SELECT transaction_id FROM delivered WHERE NOT {IS_REFUSED} GROUP BY ALL HAVING count(*) > 1"

LINES = f"""
WITH typed AS (
  SELECT transaction_id, 'bench' AS merchant_id, trim(basket_id) AS basket_id, upper(trim(product_code)) AS product_id,
    line_no AS line_number, nullif(trim(customer_no), '') AS customer_id, nullif(trim(store_no), '') AS store_id,
    lower(coalesce(nullif(trim(channel), ''), 'store')) AS channel_id, sold_at,
    timezone('{ZONE}', timezone('UTC', sold_at)) AS local, CAST(local AS DATE) AS sold_on, hour(local) AS sold_hour,
    CAST(quantity AS DECIMAL(18,3)) AS quantity,
    CAST(net_amount + discount + coupon AS DECIMAL(18,2)) AS gross_amount, CAST(net_amount AS DECIMAL(18,2)) AS amount,
    CAST(discount AS DECIMAL(18,2)) AS discount_amount, CAST(coupon AS DECIMAL(18,2)) AS coupon_amount,
    'EUR' AS currency, CASE WHEN quantity < 0 THEN 'return' ELSE 'sale' END AS txn_type,
    nullif(trim(sold_in_basket), '') AS original_basket_id,
    customer_id IS NOT NULL AND quantity > 0 AND unit_price > 0 AS is_valid_purchase, delivery_seq, row_number
  FROM delivered WHERE NOT {IS_REFUSED}
)
SELECT * FROM typed WHERE transaction_id NOT IN (SELECT transaction_id FROM repeated)
UNION ALL
SELECT * FROM typed WHERE transaction_id IN (SELECT transaction_id FROM repeated)
QUALIFY row_number() OVER (
  PARTITION BY basket_id, product_id, line_number ORDER BY delivery_seq DESC, row_number DESC) = 1
"""

FACT = """
SELECT transaction_id, merchant_id, coalesce(customer_id, 'guest') AS account_id,
  CASE WHEN customer_id IS NOT NULL THEN hash(merchant_id, customer_id) END AS customer_key, customer_id, basket_id,
  product_id, store_id, channel_id, txn_type, 'posted' AS status_id, sold_at AS posted_ts, sold_on AS business_date,
  sold_hour AS hour_of_day, quantity, gross_amount, amount, discount_amount, coupon_amount, currency,
  amount AS base_amount, original_basket_id, is_valid_purchase
FROM lines
"""

SHAPES = {
    "basket": """
SELECT customer_key, any_value(customer_id) AS customer_id, hash(coalesce(original_basket_id, basket_id)) AS basket,
  coalesce(min(CASE WHEN is_valid_purchase THEN moment END), min(moment)) AS moment,
  max(CASE WHEN is_valid_purchase THEN store_id END) AS store_id,
  max(CASE WHEN is_valid_purchase THEN channel_id END) AS channel_id,
  count(*) FILTER (is_valid_purchase) > 0 AS is_bought,
  sum(CASE WHEN is_valid_purchase THEN amount ELSE 0 END) AS paid, sum(amount) AS net,
  sum(CASE WHEN amount < 0 THEN -amount ELSE 0 END) AS back,
  sum(CASE WHEN is_valid_purchase THEN gross_amount ELSE 0 END) AS shelf,
  sum(CASE WHEN is_valid_purchase THEN discount_amount ELSE 0 END) AS discount,
  sum(CASE WHEN is_valid_purchase THEN coupon_amount ELSE 0 END) AS coupon,
  sum(CASE WHEN is_valid_purchase AND brand_type = 'Private' THEN amount ELSE 0 END) AS private,
  sum(CASE WHEN is_valid_purchase AND brand_type IS NOT NULL THEN amount ELSE 0 END) AS branded,
  sum(CASE WHEN is_valid_purchase THEN quantity ELSE 0 END) AS items
FROM (SELECT customer_key, customer_id, basket_id, original_basket_id, product_id, store_id, channel_id,
        is_valid_purchase, CAST(amount * 100 AS BIGINT) AS amount, CAST(gross_amount * 100 AS BIGINT) AS gross_amount,
        CAST(discount_amount * 100 AS BIGINT) AS discount_amount, CAST(coupon_amount * 100 AS BIGINT) AS coupon_amount,
        CAST(quantity * 1000 AS BIGINT) AS quantity,
        datediff('day', DATE '1970-01-01', business_date) * 32 + hour_of_day AS moment
      FROM fact WHERE customer_key IS NOT NULL AND business_date < DATE '{as_of}') f
LEFT JOIN product p ON f.product_id = p.product_code
GROUP BY 1, 3""",
    "dated": """
SELECT customer_key, moment // 32 AS day, lag(day) OVER (PARTITION BY customer_key ORDER BY day) AS before
FROM basket WHERE is_bought GROUP BY 1, 2""",
    "store": """
SELECT store_id, row_number() OVER (ORDER BY store_id) AS code FROM (SELECT DISTINCT store_id FROM basket)""",
    # Most baskets, then the last day, then the first in the alphabet, in one number.
    "visit": """
SELECT customer_key, count(*) AS stores, max(baskets) AS favourite_baskets,
  max(baskets * 1000000000000 + last_day * 1000000 + 999999 - code) AS favourite
FROM (SELECT customer_key, store_id, count(*) AS baskets, max(moment // 32) AS last_day
      FROM basket WHERE is_bought AND store_id IS NOT NULL GROUP BY 1, 2) JOIN store USING (store_id) GROUP BY 1""",
    "category": """
SELECT customer_key, count(*) AS categories, count(DISTINCT department) AS departments, sum(paid) AS known,
  max(paid) AS favourite_paid, min(category) FILTER (paid = top) AS favourite
FROM (SELECT customer_key, category, any_value(department) AS department, sum(gross) AS paid,
        max(paid) OVER (PARTITION BY customer_key) AS top
      FROM (SELECT customer_key, category, department, CAST(amount * 100 AS BIGINT) AS gross FROM fact f
            JOIN product p ON f.product_id = p.product_code
            WHERE is_valid_purchase AND business_date < DATE '{as_of}')
      GROUP BY 1, 2) GROUP BY 1""",
    "maker": """
SELECT customer_key, count(DISTINCT manufacturer) AS makers, count(DISTINCT brand_type) AS brand_types
FROM (SELECT DISTINCT customer_key, manufacturer, brand_type FROM fact f
      JOIN product p ON f.product_id = p.product_code
      WHERE is_valid_purchase AND business_date < DATE '{as_of}') GROUP BY 1""",
}


def _measured(as_of: date) -> str:
    """One row per customer with everything added up over baskets."""
    today = (as_of - date(1970, 1, 1)).days
    parts = {"morning": (6, 12), "afternoon": (12, 17), "evening": (17, 22)}
    columns = [
        "min(day) FILTER (is_bought) AS first_day",
        "max(day) FILTER (is_bought) AS last_day",
        "count(*) FILTER (is_bought AND NOT (back > 0 AND net <= 0)) AS frequency",
        "count(*) FILTER (is_bought) AS baskets",
        "count(DISTINCT channel_id) FILTER (is_bought) AS channels",
        *[f"sum({c}) AS {c}" for c in ("paid", "net", "back", "shelf", "discount", "coupon", "private", "branded")],
        "sum(items) AS items",
        *[f"count(*) FILTER (is_bought AND hour >= {a} AND hour < {b}) AS {p}" for p, (a, b) in parts.items()],
        *[f"count(*) FILTER (is_bought AND (day + 3) % 7 = {i}) AS {w}" for i, w in enumerate(WEEKDAYS)],
        *[f"coalesce(sum(paid) FILTER (quarter = {q}), 0) AS q{q}" for q in range(1, 5)],
        f"coalesce(sum(net) FILTER (day >= {today - 180} AND day < {today - 90}), 0) AS before_90",
    ]
    for d in (7, 30, 90, 365):
        columns.append(f"coalesce(sum(net) FILTER (day >= {today - d}), 0) AS spend_{d}")
        columns.append(f"count(*) FILTER (is_bought AND day >= {today - d}) AS visits_{d}")
    edges = ", ".join(f"CASE WHEN day >= {today - d} THEN day + {d + 1} END" for d in (7, 30, 90, 180, 365))
    return f"""
WITH b AS (SELECT *, moment // 32 AS day, moment % 32 AS hour,
             quarter(DATE '1970-01-01' + CAST(moment // 32 AS INTEGER)) AS quarter FROM basket),
  gaps AS (SELECT customer_key, count(*) AS purchase_days, max(day - before) AS longest_gap,
             sum((day - before) * (day - before)) AS squares,
             max((day - before) * 100000 + day) % 100000 AS longest_gap_day,
             max(day - before) FILTER (day >= {today - 60}) AS returned_after,
             min(day + 61) FILTER (before IS NOT NULL AND day >= {today - 60}) AS return_moves_on
           FROM dated GROUP BY 1),
  summed AS (SELECT customer_key, any_value(customer_id) AS customer_id, {", ".join(columns)},
               min(least({edges})) AS moves_on FROM b GROUP BY 1)
SELECT summed.*, gaps.* EXCLUDE (customer_key), stores, store_id AS favourite_store_id, favourite_baskets
FROM summed JOIN gaps USING (customer_key) LEFT JOIN visit USING (customer_key)
  LEFT JOIN store ON store.code = 999999 - visit.favourite % 1000000 WHERE summed.baskets > 0
"""


CUTS = """
SELECT quantile_cont(CAST(last_day AS DOUBLE), [0.2, 0.4, 0.6, 0.8]) AS r,
  quantile_cont(CAST(frequency AS DOUBLE), [0.2, 0.4, 0.6, 0.8]) AS f,
  quantile_cont(CAST(net AS DOUBLE), [0.2, 0.4, 0.6, 0.8]) AS m
FROM measured
"""


def _features(as_of: date) -> str:
    today = (as_of - date(1970, 1, 1)).days

    def ratio(above: str, below: str) -> str:
        return f"CAST({above} AS DOUBLE) / nullif(CAST({below} AS DOUBLE), 0)"

    def points(value: str, cuts: str, sign: str = ">") -> str:
        return "(" + " + ".join(f"CAST({value} {sign} {cuts}[{i}] AS INTEGER)" for i in range(1, 5)) + ")"

    def named(values: dict[str, str]) -> str:
        top = f"greatest({', '.join(values)})"
        return "CASE " + " ".join(f"WHEN {v} = {top} THEN {n}" for v, n in values.items()) + " END"

    money = "CAST(round({} / 100, 2) AS DECIMAL(18,2))".format
    day = "DATE '1970-01-01' + CAST({} AS INTEGER)".format
    gaps = "(purchase_days - 1)"
    between = "(last_day - first_day)"
    usual = f"CAST({between} - longest_gap AS DOUBLE) / ({gaps} - 1)"
    quarters = {f"q{q}": str(q) for q in range(1, 5)}
    busiest = f"greatest({', '.join(quarters)})"
    grid = ", ".join(f"'{g}'" for g in GRID)
    return f"""
WITH scored AS (
  SELECT m.*, {today} - last_day AS recency_days,
    1 + {points("CAST(last_day AS DOUBLE)", "c.r", ">=")} AS r_score,
    1 + {points("frequency", "c.f")} AS f_score, 1 + {points("CAST(net AS DOUBLE)", "c.m")} AS m_score,
    CASE WHEN {gaps} >= 2 THEN least(greatest({usual}, 7), 120) ELSE 30 END AS cadence_days
  FROM measured m, cuts c)
SELECT 'bench' AS merchant_id, customer_key, customer_id, DATE '{as_of}' AS as_of,
  {day("least(moves_on, return_moves_on)")} AS windows_move_on,
  {day("first_day")} AS first_purchase_on, {day("last_day")} AS last_purchase_on, recency_days, frequency,
  {money("net")} AS monetary_net, {money("paid")} AS monetary_gross, r_score, f_score, m_score,
  r_score * 100 + f_score * 10 + m_score AS rfm_score,
  [{grid}][(r_score - 1) * 5 + (f_score + m_score + 1) // 2] AS rfm_group,
  baskets, purchase_days, items / 1000 AS items, {ratio("paid", "baskets * 100")} AS basket_value_mean,
  {ratio("items", "baskets * 1000")} AS basket_size_mean, {ratio(between, gaps)} AS inter_purchase_days_mean,
  sqrt({ratio(f"{gaps} * squares - {between} * {between}", f"{gaps} * ({gaps} - 1)")}) AS inter_purchase_days_sd,
  longest_gap AS longest_gap_days, CASE WHEN longest_gap IS NOT NULL THEN {day("longest_gap_day")} END
    AS longest_gap_ended_on, returned_after AS returned_after_days,
  categories AS distinct_categories, departments AS distinct_departments, brand_types AS distinct_brand_types,
  makers AS distinct_manufacturers, stores AS distinct_stores, channels AS distinct_channels,
  {ratio("baskets - morning - afternoon - evening", "baskets")} AS night_share,
  {ratio("morning", "baskets")} AS morning_share, {ratio("afternoon", "baskets")} AS afternoon_share,
  {ratio("evening", "baskets")} AS evening_share,
  {ratio("baskets - saturday - sunday", "baskets")} AS weekday_share,
  {ratio("saturday + sunday", "baskets")} AS weekend_share,
  {named({w: f"'{w}'" for w in WEEKDAYS})} AS favourite_weekday,
  favourite_store_id, {ratio("favourite_baskets", "baskets")} AS favourite_store_share,
  {ratio("discount", "shelf")} AS discount_share, {ratio("coupon", "shelf")} AS coupon_share,
  {ratio("private", "branded")} AS private_label_share, {ratio("back", "paid")} AS return_rate,
  {", ".join(f"{money(f'spend_{d}')} AS spend_{d}d" for d in (7, 30, 90, 365))},
  {money("before_90")} AS spend_previous_90d,
  visits_7 AS visits_7d, visits_30 AS visits_30d, visits_90 AS visits_90d, visits_365 AS visits_365d,
  {ratio("spend_90 - before_90", "abs(spend_90) + abs(before_90)")} AS spend_trend,
  {ratio("q4", "paid")} AS fourth_quarter_share,
  CASE WHEN {busiest} > 0 THEN {named(quarters)} END AS busiest_quarter,
  {ratio(f"CASE WHEN {busiest} > 0 THEN {busiest} END", "paid")} AS busiest_quarter_share,
  category.favourite AS favourite_category, {ratio("favourite_paid", "known")} AS favourite_category_share,
  {today} - first_day AS tenure_days, cadence_days,
  CASE WHEN {today} - first_day <= 30 THEN 'new' WHEN recency_days > 4 * cadence_days THEN 'lost'
    WHEN recency_days > 2 * cadence_days THEN 'lapsing'
    WHEN returned_after > 4 * cadence_days THEN 'won_back' ELSE 'active' END
    AS lifecycle_stage,
  CASE WHEN recency_days > 2 * cadence_days THEN 'stopped' WHEN purchase_days = 1 THEN 'first'
    WHEN returned_after > 2 * cadence_days THEN 'resumed' ELSE 'regular' END
    AS purchase_pattern
FROM scored LEFT JOIN category USING (customer_key) LEFT JOIN maker USING (customer_key)
"""


def _membership(features: Path) -> str:
    tests = ", ".join(f"CASE WHEN {rule} THEN '{name}' END" for name, rule in segment_conditions().items())
    return f"""
SELECT merchant_id AS website_id, customer_key, customer_id, [x FOR x IN [{tests}] IF x IS NOT NULL] AS segment_ids,
  segment_ids[1] AS primary_segment_id
FROM '{features}'
"""


if __name__ == "__main__":
    run_engine(work)
