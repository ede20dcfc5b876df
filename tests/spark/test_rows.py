"""Cells become values: each is read right or its row is refused with the reason."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet as pq
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from pipelines.bronze import time_patterns
from pipelines.bronze.preflight import inspect
from pipelines.bronze.rows import read_delivered, type_rows
from pipelines.bronze.scratch import Scratch
from pipelines.bronze.sources import Source
from tests.support.feeds import make_source, put

pytestmark = pytest.mark.spark

COMMA = {"delimiter": ";", "decimal_mark": ","}
AMOUNTS: dict[str, Any] = {
    "id": {"to": "basket_id"},
    "pieces": {"type": "int", "to": "quantity"},
    "paid": {"type": "decimal(18,2)", "to": "amount"},
}


def typed(spark: SparkSession, path: Path, **feed: Any) -> list[Row]:
    """Rows of one file in delivered order, of a shop in New York."""
    source = make_source(path, **feed)
    zones = {"timezone": "America/New_York", "value_timezone": "America/New_York"}
    return typed_of(spark, path, source.model_copy(update=zones))


def typed_of(spark: SparkSession, path: Path, source: Source) -> list[Row]:
    feed = source.feeds[0]
    with Scratch(path.parent / "scratch", 0) as scratch:
        part = scratch.parts(feed, inspect(path, feed), 0)[0]
        rows = type_rows(read_delivered(spark, feed, [part]), source, feed, part, 1, datetime(2026, 1, 1))
        return rows.orderBy("row_number").collect()


def amounts(spark: SparkSession, path: Path, **feed: Any) -> list[tuple[Any, Any, Any]]:
    rows = typed(spark, path, subject="transactions", columns=AMOUNTS, **feed)
    return [(r.quantity, r.amount, r.parse_errors) for r in rows]


def test_a_declared_comma_makes_points_thousands_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    cells = {
        "1.234": (1234, Decimal(1234)),
        "1.000": (1000, Decimal(1000)),
        "-1.234.567": (-1234567, Decimal(-1234567)),
        "1.000,00": (1000, Decimal(1000)),
        "12,0": (12, Decimal(12)),
        "7": (7, Decimal(7)),
        "-2,5": (None, Decimal("-2.50")),
        "1.234,56": (None, Decimal("1234.56")),
        **dict.fromkeys(("12.5", "12.0", "1.23", "0.123", "1234.567", "1.2345", "1,234.50", "1,234,567"), (None, None)),
    }
    lines = "\n".join(f"{n};{c};{c}" for n, c in enumerate(cells))
    path = put(tmp_path, "a.csv", f"id;pieces;paid\n{lines}\n")
    for (pieces, paid), row in zip(cells.values(), amounts(spark, path, options=COMMA), strict=True):
        refused = [f"mistyped:{n}" for n, v in (("pieces", pieces), ("paid", paid)) if v is None]
        assert row == (pieces, paid, refused or None)


def test_a_declared_point_refuses_commas(spark: SparkSession, tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'id,pieces,paid\n1,"1,000","1,234.50"\n2,12.0,1.234\n')
    refused = ["mistyped:pieces", "mistyped:paid"]
    assert amounts(spark, path) == [(None, None, refused), (12, Decimal("1.23"), None)]


def test_numbers_of_a_workbook_keep_their_point_beside_text_with_commas(spark: SparkSession, tmp_path: Path) -> None:
    book = Workbook()
    for row in (["id", "pieces", "paid"], ["1", 3, 12.5], ["2", "1.234,00", "1.234,5"], ["3", 1, 1.234]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    found = amounts(spark, tmp_path / "a.xlsx", format="excel", options={"decimal_mark": ","})
    assert found == [
        (3, Decimal("12.50"), None),
        (1234, Decimal("1234.50"), None),
        (1, None, ["mistyped:paid"]),
    ]


def test_an_error_of_a_workbook_is_no_text(spark: SparkSession, tmp_path: Path) -> None:
    book = Workbook()
    for row in (["id", "pieces", "paid"], ["#N/A", 1, 1], ["N/A", 1, "#DIV/0!"], ["#1", 1, True]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    found = typed(spark, tmp_path / "a.xlsx", subject="transactions", columns=AMOUNTS, format="excel")
    assert [(r.basket_id, r.parse_errors) for r in found] == [
        (None, ["mistyped:id"]),
        ("N/A", ["mistyped:paid"]),
        ("#1", ["mistyped:paid"]),
    ]
    path = put(tmp_path, "a.csv", "id,pieces,paid\n#N/A,1,1\n")
    assert [r.basket_id for r in typed(spark, path, subject="transactions", columns=AMOUNTS)] == ["#N/A"]


def test_days_and_times_are_those_of_the_shop(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"id": {"to": "basket_id"}, "day": {"type": "date", "to": "sold_at"}}
    path = put(tmp_path, "a.csv", "id,day\n1,2011-03-01\n2,2011-07-01 23:30\n")
    days = [r.sold_at for r in typed(spark, path, subject="transactions", columns=columns)]
    assert days == [datetime(2011, 3, 1, 5), datetime(2011, 7, 1, 4)]
    utc = make_source(path, subject="transactions", columns=columns)
    shop = utc.model_copy(update={"timezone": "America/New_York", "value_timezone": "UTC"})
    assert [r.sold_at for r in typed_of(spark, path, shop)] == days

    pq.write_table(pa.table({"id": ["1"], "day": [datetime(2011, 3, 1).date()]}), tmp_path / "a.parquet")
    stored = typed(spark, tmp_path / "a.parquet", subject="transactions", columns=columns, format="parquet")
    assert [r.sold_at for r in stored] == days[:1]

    path = put(tmp_path, "b.csv", "id,day\n1,2011-03-01 23:30:00\n")
    columns = {"id": {"to": "settlement_id"}, "day": {"type": "timestamp", "to": "settled_on"}}
    assert [str(r.settled_on) for r in typed(spark, path, subject="settlements", columns=columns)] == ["2011-03-01"]


def test_a_text_that_fills_a_time_or_a_number_is_read_as_its_field(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"id": {"to": "basket_id"}, "at": {"to": "sold_at"}, "paid": {"to": "amount"}}
    path = put(tmp_path, "a.csv", "id;at;paid\n1;2011-03-01 10:00:00;1.234,5\n2;10:00;1.5\n")
    first, second = typed(spark, path, subject="transactions", columns=columns, options=COMMA)
    assert (first.sold_at, first.amount) == (datetime(2011, 3, 1, 15), Decimal("1234.50"))
    assert second.parse_errors == ["mistyped:at", "mistyped:paid"]


def test_only_a_time_of_day_may_follow_a_day(spark: SparkSession, tmp_path: Path) -> None:
    cells = {
        "2011-03-02": True,
        "2011-3-2": True,
        "2011-03-02 10:11": True,
        "2011-03-02T10:11:12.5Z": True,
        "2011-03-02 garbage": False,
        "2011-03-02T": False,
        "2011-03-02 25:00:00": False,
        "2011-03-02, 2011-03-03": False,
        "2011-03-021": False,
    }
    path = put(tmp_path, "a.csv", "id\tday\n" + "".join(f"{n}\t{c}\n" for n, c in enumerate(cells)))
    columns = {"id": {"to": "settlement_id"}, "day": {"type": "date", "to": "settled_on"}}
    rows = typed(spark, path, subject="settlements", columns=columns, options={"delimiter": "\t"})
    assert [r.parse_errors is None for r in rows] == list(cells.values())
    assert {str(r.settled_on) for r in rows if r.parse_errors is None} == {"2011-03-02"}


def test_a_time_that_names_its_zone_is_in_no_other(spark: SparkSession, tmp_path: Path) -> None:
    wall = ("2011-03-02 10:00", "2011-03-02T10:00:00.000")
    named = (
        "2011-03-02 15:00:00Z",
        "2011-03-02 15:00:00 UTC",
        "2011-03-02 16:00:00 Europe/Paris",
        "2011-03-02T16:00:00+01:00",
        "2011-03-02T16:00:00.000+0100",
        "2011-03-02 16:00:00+01",
        "2011-03-02 15:00:00 GMT",
        "2011-03-02 12:00:00 America/Argentina/Buenos_Aires",
        "2011-03-02 10:00:00 Etc/GMT+5",
    )
    doubtful = [f"2011-03-02 15:00:00{zone}" for zone in (" BST", " IST", " CST", "EST", " PST", " Nowhere/City", "+1")]
    path = put(tmp_path, "a.csv", "id,when\n" + "".join(f"{n},{c}\n" for n, c in enumerate([*wall, *named, *doubtful])))
    rows = typed(spark, path)
    read = len(wall) + len(named)
    assert [r.changed_at for r in rows[:read]] == [datetime(2011, 3, 2, 15)] * read
    assert [r.parse_errors for r in rows[read:]] == [["mistyped:when"]] * len(doubtful)


def test_a_json_line_is_one_object_and_nothing_after_it(spark: SparkSession, tmp_path: Path) -> None:
    good = [
        '{"id": "} {"}',
        r'{"id": "\"} {\""}',
        ' {"id": {"b": [1, {"c": "]}"}]}} ',
        '{"id": "x, {}]"}',
        '{"id": "// c"}',
    ]
    bad = [
        '{"id": 1}, {"id": 2}',
        '{"id": 1} {"id": 2}',
        '{"id": 1}{"id": 2}',
        '{"id": 1} trailing',
        '{"id": 1} // c',
        '{"id": 1}}',
        '{"id": 1}]',
        '{"id": 1},',
        '{"id": 1}, 5',
        '{"id": 1',
        '[{"id": 1}]',
        "null",
    ]
    path = put(tmp_path, "a.jsonl", "\n".join([*good, *bad]) + "\n")
    rows = typed(spark, path, format="jsonl", columns={"id": {"to": "customer_id"}})
    assert [r.payload for r in rows if r.parse_errors is None] == good
    assert [r.parse_errors for r in rows[len(good) :]] == [["malformed:row"]] * len(bad)
    assert [r.customer_id for r in rows[:2]] == ["} {", '"} {"']


def test_a_key_of_json_may_be_spelled_anew_by_any_record(spark: SparkSession, tmp_path: Path) -> None:
    columns = {
        "customer_id": {"to": "customer_id", "required": True, "aliases": ["Kunde"]},
        "n": {},
        "ch": {"to": "channel"},
    }
    usual = ['{"customer_id": "1", "n": 2, "more": 3}'] * 250
    late = [
        '{"Customer-ID": "2", "N": 2, "Ch": "shop", "More": 3}',
        '{"KUNDE": "3"}',
        '{"customer_id": null, "ch": "", "more": {"customer_id": 4}}',
        '{"customer_id": "4", "CUSTOMER ID": "4"}',
        '{"customer_id": "5", "Kunde": null}',
    ]
    path = put(tmp_path, "a.jsonl", "\n".join([*usual, *late]))
    rows = typed(spark, path, format="jsonl", columns=columns)
    assert {(r.customer_id, r.parse_errors, *r.extra.items()) for r in rows[:250]} == {
        ("1", None, ("n", "2"), ("more", "3"))
    }
    assert [(r.customer_id, r.channel, r.extra, r.parse_errors) for r in rows[250:]] == [
        ("2", "shop", {"N": "2", "More": "3"}, None),
        ("3", None, None, None),
        (None, None, {"more": '{"customer_id":4}'}, ["missing:customer_id"]),
        (None, None, None, ["malformed:row"]),
        (None, None, None, ["malformed:row"]),
    ]
    assert [r.payload for r in rows[250:]] == late
    by_column = {"delivery": {"by": "column", "column": "n"}}
    assert {r.delivery for r in typed(spark, path, format="jsonl", columns=columns, **by_column)[:251]} == {"2"}


def test_numbers_that_name_deliveries_stand_in_their_order_however_large(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"id": {"to": "basket_id"}, "export": {}}
    by_export = {"subject": "transactions", "columns": columns, "delivery": {"by": "column", "column": "export"}}

    def places(*exports: object) -> list[tuple[str, int, Any]]:
        cells = "\n".join(f"{n},{e}" for n, e in enumerate(exports))
        found = typed(spark, put(tmp_path, "a.csv", f"id,export\n{cells}\n"), **by_export)
        return [(r.delivery, r.delivery_seq, r.parse_errors) for r in found]

    assert places(202402, 202401, "", 202402) == [
        ("202402", 2, None), ("202401", 1, None), ("a.csv", 0, None), ("202402", 2, None),
    ]  # fmt: skip
    assert places(7, "x", "999.0", 0) == [("7", 7, None), ("x", 0, None), ("999.0", 999, None), ("0", 0, None)]
    assert all(errors == ["too_many:export"] for _, _, errors in places(*range(1, 1001)))


def test_numbers_of_java_alone_are_none(spark: SparkSession, tmp_path: Path) -> None:
    cells = {"1.5": 1.5, "-.5": -0.5, "1.": 1.0, "+2e3": 2000.0, " 7 ": 7.0, **dict.fromkeys(("1d", "5.5f", "0x1p3"))}
    cells |= dict.fromkeys(("NaN", "Infinity", "-", ".", "e3"))
    path = put(tmp_path, "a.csv", "id,rate\n" + "".join(f"{n},{c}\n" for n, c in enumerate(cells)))
    columns = {"id": {"to": "basket_id"}, "rate": {"type": "double", "to": "amount"}}
    rows = typed(spark, path, subject="transactions", columns=columns)
    assert [None if r.amount is None else float(r.amount) for r in rows] == list(cells.values())
    assert [r.parse_errors for r in rows] == [None if v is not None else ["mistyped:rate"] for v in cells.values()]


def test_a_column_of_nulls_only_is_null_in_whatever_type_is_declared(spark: SparkSession, tmp_path: Path) -> None:
    columns = AMOUNTS | {"at": {"type": "timestamp", "to": "sold_at"}, "note": {}}
    nothing = pa.nulls(1)
    pq.write_table(pa.table({"id": ["1"], "pieces": nothing, "at": nothing, "note": nothing}), tmp_path / "a.parquet")
    (row,) = typed(spark, tmp_path / "a.parquet", format="parquet", subject="transactions", columns=columns)
    assert (row.basket_id, row.quantity, row.sold_at, row.extra, row.parse_errors) == (
        "1",
        None,
        None,
        {"note": None},
        None,
    )
    pq.write_table(pa.table({"id": nothing}), tmp_path / "b.parquet")
    (row,) = typed(
        spark, tmp_path / "b.parquet", format="parquet", columns={"id": {"to": "customer_id", "required": True}}
    )
    assert row.parse_errors == ["missing:id"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_empty_cell_makes_a_row_another_wherever_it_stands(spark: SparkSession, tmp_path: Path, form: str) -> None:
    cells = [("R1", "7", "0.50"), ("R1", "0.50", ""), ("R1", "", "0.50"), ("", "R1", "0.50"), ("R1", "", "0.50")]
    if form == "csv":
        content = "\n".join(["id,pieces,paid", *[",".join(c) for c in cells]])
    else:
        named = [{k: v for k, v in zip(AMOUNTS, c, strict=True) if v} for c in cells]
        content = "\n".join(map(json.dumps, named))
    columns = {name: {"to": said["to"]} for name, said in AMOUNTS.items()} | {"id": {"to": "basket_id"}}
    path = put(tmp_path, f"a.{form}", content + "\n")
    hashes = [r.row_hash for r in typed(spark, path, subject="transactions", columns=columns, format=form)]
    assert len(set(hashes)) == 4
    assert hashes[2] == hashes[4]


def test_white_space_around_a_cell_is_none_of_it(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"id": {"to": "basket_id", "required": True}, "pieces": {"type": "int", "to": "quantity"}}
    path = put(tmp_path, "a.csv", "id,pieces\nC1\t, \t7\t\n \u2003 ,1\nC2,  \n\u00a0 C3 \u3000,\u00a07\né\u00a0é,\n")
    first, blank, none, other, inside = typed(spark, path, subject="transactions", columns=columns)
    assert (first.basket_id, first.quantity, first.parse_errors) == ("C1", 7, None)
    assert blank.parse_errors == ["missing:id"]
    assert (none.basket_id, none.quantity, none.parse_errors) == ("C2", None, None)
    assert (other.basket_id, other.quantity, other.parse_errors) == ("C3", 7, None)
    assert inside.basket_id == "é\u00a0é"
    assert "C1\\t" in first.payload


def test_a_mark_of_files_that_were_joined_is_no_part_of_a_cell(spark: SparkSession, tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "\ufeffid,pieces\nC1,1\n\ufeffC2,2\n")
    rows = typed(spark, path, subject="transactions", columns={"id": {"to": "basket_id"}, "pieces": {}})
    assert [r.basket_id for r in rows] == ["C1", "C2"]


def test_of_parquet_cells_of_other_bytes_are_refused_and_columns_of_no_plain_values_not_read(
    spark: SparkSession, tmp_path: Path
) -> None:
    latin = pa.array([b"caf\xe9", " café ".encode(), None, b"\xff "], pa.binary()).view(pa.string())
    columns = {"id": latin, "tags": [["a"]] * 4, "at": pa.array([0] * 4, pa.time64("us")), "n": [1, 2, 3, 4]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = typed(spark, tmp_path / "a.parquet", format="parquet", columns={"id": {"to": "customer_id"}})
    assert [r.parse_errors for r in rows] == [["undecodable:id"], None, None, ["undecodable:id"]]
    assert [r.customer_id for r in rows[1:3]] == ["café", None]
    assert rows[1].extra == {"n": "2"}


def test_every_letter_a_declaration_may_use_is_read_by_spark(spark: SparkSession) -> None:
    runs = time_patterns._READABLE.pattern.split("|")
    longest = [r[0] * int(r[-2]) if r.endswith("}") else r for r in runs]
    one = spark.createDataFrame([("x",)], "text string")
    read = one.select(*[F.try_to_timestamp("text", F.lit(p)).alias(f"p{i}") for i, p in enumerate(longest)])
    assert set(read.collect()[0]) == {None}
