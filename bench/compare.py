"""Whether engines agree: counts, sums, every feature of every customer, and every membership.

Results are read where they lie (Parquet files, Delta folders) by DuckDB; nothing here is part of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

TOLERANCE = 1e-9
"""Relative difference up to which two floating point numbers are the same number added up in another order."""

_PER_ENGINE = frozenset({"customer_key", "built_at"})
"""Columns that differ by design: each engine hashes in its own way, and the build time is the clock's."""


@dataclass(frozen=True)
class Result:
    """Where one engine left its results.

    Attributes:
        name: Engine, or run of an engine.
        fact: SQL that reads the fact lines.
        features: SQL that reads the features.
        membership: SQL that reads who is in which segment.
        rejected: Rows refused; `None` when the run did not see all rows.
        duplicates: Rows dropped because another row stands for them; `None` likewise.
    """

    name: str
    fact: str
    features: str
    membership: str
    rejected: int | None = None
    duplicates: int | None = None


def parquet_result(name: str, out: Path, delivered: int) -> Result:
    """What `duck.py` and `pola.py` leave in a folder."""
    con = duckdb.connect()
    rejected = _one(con, f"SELECT count(*) FROM '{out / 'rejects.parquet'}'")
    kept = _one(con, f"SELECT count(*) FROM '{out / 'fact.parquet'}'")
    return Result(
        name,
        f"SELECT * FROM '{out / 'fact.parquet'}'",
        f"SELECT * FROM '{out / 'features.parquet'}'",
        f"SELECT * FROM '{out / 'membership.parquet'}'",
        int(rejected),
        delivered - int(rejected) - int(kept),
    )


def delta_sql(table: Path) -> str:
    """SQL that reads the newest version of a Delta table."""
    from deltalake import DeltaTable

    files = DeltaTable(str(table)).file_uris()
    if not files:
        return "SELECT 1 WHERE false"
    listed = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
    return f"SELECT * FROM read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"


def summary(result: Result) -> dict[str, object]:
    """Counts and sums of one result."""
    con = _open(result)
    fact = con.execute(
        """SELECT count(*), sum(amount), sum(gross_amount), sum(quantity), count(DISTINCT basket_id),
             count(*) FILTER (is_valid_purchase), count(customer_id),
             sum(datediff('day', DATE '2000-01-01', business_date)), sum(hour_of_day) FROM fact"""
    ).fetchone()
    assert fact is not None
    names = ("accepted", "amount", "gross", "quantity", "baskets", "purchases", "known", "days", "hours")
    sizes = con.execute("SELECT unnest(segment_ids) AS s, count(*) FROM membership GROUP BY 1 ORDER BY 1").fetchall()
    scores = con.execute("SELECT rfm_score, count(*) FROM features GROUP BY 1 ORDER BY 1").fetchall()
    return {
        **{n: str(v) if not isinstance(v, int) else v for n, v in zip(names, fact, strict=True)},
        "rejected": result.rejected,
        "duplicates": result.duplicates,
        "customers": _one(con, "SELECT count(*) FROM features"),
        "segments": dict(sizes),
        "rfm_scores": {str(k): v for k, v in scores},
    }


def differences(left: Result, right: Result) -> list[str]:
    """Everything in which two results differ, in words; empty when they agree."""
    a, b = summary(left), summary(right)
    found = [
        f"{name}: {left.name} {_short(a[name])}, {right.name} {_short(b[name])}"
        for name in a
        if None not in (a[name], b[name]) and _normal(a[name]) != _normal(b[name])
    ]
    return found + _row_differences(left, right)


def _row_differences(left: Result, right: Result) -> list[str]:
    con = duckdb.connect()
    con.execute(f"CREATE VIEW l AS {left.features}")
    con.execute(f"CREATE VIEW r AS {right.features}")
    types = dict(con.execute("SELECT column_name, column_type FROM (DESCRIBE r)").fetchall())
    shared = [c for c, _ in con.execute("SELECT column_name, column_type FROM (DESCRIBE l)").fetchall() if c in types]
    compared = [c for c in shared if c not in _PER_ENGINE and c != "customer_id"]
    counts = ", ".join(f"count(*) FILTER ({_differs(c, types[c])})" for c in compared)
    row = con.execute(
        f"""SELECT count(*) FILTER (l.customer_id IS NULL), count(*) FILTER (r.customer_id IS NULL), {counts}
            FROM l FULL JOIN r ON l.customer_id = r.customer_id"""
    ).fetchone()
    assert row is not None
    found = [f"features: {n:,} customers only in {who.name}" for n, who in ((row[0], right), (row[1], left)) if n]
    for column, n in zip(compared, row[2:], strict=True):
        if n:
            example = con.execute(
                f"""SELECT l.customer_id, l.{column}, r.{column} FROM l JOIN r ON l.customer_id = r.customer_id
                    WHERE {_differs(column, types[column])} ORDER BY 1 LIMIT 1"""
            ).fetchone()
            found.append(f"features.{column}: {n:,} customers differ, e.g. {example} ({left.name}, {right.name})")
    con.execute(f"CREATE VIEW lm AS {left.membership}")
    con.execute(f"CREATE VIEW rm AS {right.membership}")
    moved = _one(
        con,
        """SELECT count(*) FROM lm FULL JOIN rm USING (customer_id)
           WHERE coalesce(lm.segment_ids, []) IS DISTINCT FROM coalesce(rm.segment_ids, [])""",
    )
    return [*found, f"membership: {moved:,} customers differ"] if moved else found


def _differs(column: str, kind: str) -> str:
    if kind in ("DOUBLE", "FLOAT"):
        a, b = f"l.{column}", f"r.{column}"
        near = f"abs({a} - {b}) <= {TOLERANCE} * greatest(1, abs({a}), abs({b}))"
        return f"NOT coalesce({near}, {a} IS NULL AND {b} IS NULL)"
    return f"l.{column} IS DISTINCT FROM r.{column}"


def _open(result: Result) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for name in ("fact", "features", "membership"):
        con.execute(f"CREATE VIEW {name} AS {getattr(result, name)}")
    return con


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _normal(value: object) -> object:
    return float(value) if isinstance(value, str) else value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 200 else text[:200] + "..."
