"""Files as they really arrive: every kind of bad one, changed, delivered again, deleted while it is read, streamed."""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet as pq
from pyspark.sql import functions as F
from rich.console import Console

from jobs.context import Job
from jobs.summary import print_status
from lakehouse.declare import table_of
from lakehouse.errors import SourceError
from lakehouse.lake import Lake
from lakehouse.runner import Run, run_steps
from lakehouse.steps import plan_steps
from pipelines.bronze import landing, preflight, scratch, survey
from pipelines.bronze.ingest import land_source
from pipelines.bronze.load_sources import load_sources
from pipelines.bronze.records import AUDIT, ERRORS, PLAN, FeedResult
from pipelines.bronze.sources import Sources
from pipelines.bronze.stream import stream_feed
from pipelines.bronze.uploads import ingest_file
from pipelines.gold.finance_conf import load_finance
from tests.support.feeds import COLUMNS, csv_text, make_source, put
from tests.support.shop import HEADER, Shop, open_shop

GOOD = ",".join(HEADER)
RAW = "bronze.raw_transactions"


def line(
    receipt: str, *, sold: str = "2024-01-05 10:00:00", paid: str = "8.90", pieces: str = "1", sku: str = "P01"
) -> str:
    return f"{receipt},1,{sku},C001,A,{sold},{pieces},{paid},0.00"


def text(*lines: str, header: str = GOOD) -> str:
    return "\n".join([header, *lines]) + "\n"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path / "shop", months=0)


def sources_of(shop: Shop) -> Sources:
    return load_sources(shop.conf, {"shop": str(shop.folder)})


def land(lake: Lake, shop: Shop) -> FeedResult:
    run = Run.begin(as_of=date(2024, 2, 1))
    return land_source(lake, sources_of(shop).source("corner_shop"), ["sales"], run=run)[0]


def receipts(lake: Lake) -> list[str]:
    return sorted(r[0] for r in lake.read(RAW).select("basket_id").collect())


def errors(lake: Lake) -> set[tuple[str, str, int]]:
    """File, reason and number of each refused row."""
    return {(Path(r["file_path"]).name, r["reason"], r["row_number"]) for r in lake.read(ERRORS).collect()}


def run_silver(lake: Lake, shop: Shop, *, force: bool = False) -> None:
    """Conform the sales and reconcile them."""
    wanted = ("silver_conform_transactions", "gold_audit_transaction_ingest", "gold_reconcile_deliveries")
    steps = [s for s in plan_steps() if s.key in wanted]
    offered = {"sources": sources_of(shop), "finance": load_finance(shop.conf)}
    run_steps(lake, steps, Run.begin(as_of=date(2024, 2, 1), **offered), force=force)


def test_every_bad_file_or_row_is_named_and_no_good_row_is_lost(lake: Lake, shop: Shop) -> None:
    sales = shop.folder / "sales"
    whole = gzip.compress(text(*(line(f"G{n}") for n in range(200))).encode(), mtime=0)
    latin = line("MIXED2", sku="caf\xe9").encode("latin-1")
    renamed = GOOD.replace("paid", "zahlbetrag")
    values = (line("NEG", paid="-8.90"), line("FUTURE", sold="3000-01-05 10:00:00"), line("WORD", paid="eight"))
    put(sales, "01-good.csv", text(line("GOOD1"), line("GOOD2")))
    put(sales, "02-truncated.csv.gz", whole[:-30])
    put(sales, "03-semicolon.csv", text(line("SEMI")).replace(",", ";"))
    put(sales, "04-bom.csv", b"\xef\xbb\xbf" + text(line("BOM")).encode())
    put(sales, "05-mixed.csv", text(line("MIXED1")).encode() + latin + b"\n")
    put(sales, "06-header.csv", GOOD + "\n")
    put(sales, "07-empty.csv", "")
    put(sales, "08-cell.csv", text(line("LONG", sku="x" * 1_000_000), line("AFTER")))
    put(sales, "09-values.csv", text(*values))
    put(sales, "10-renamed.csv", text(line("RENAMED"), header=renamed))
    put(sales, "11-more.csv", text(line("MORE") + ",extra", header=GOOD + ",till"))
    put(sales, "12-ragged.csv", text(line("RAGGED") + ",7", line("SHORT").rsplit(",", 5)[0], line("WHOLE")))

    landed = land(lake, shop)

    refused = {Path(p).name: reason for p, reason in landed.refused_files}
    assert set(refused) == {"02-truncated.csv.gz", "03-semicolon.csv", "07-empty.csv"}
    assert "ends too early" in refused["02-truncated.csv.gz"]
    assert "semicolon" in refused["03-semicolon.csv"]
    assert errors(lake) == {
        ("05-mixed.csv", "undecodable", 2),
        ("09-values.csv", "mistyped", 3),
        ("10-renamed.csv", "missing", 1),
        ("12-ragged.csv", "ragged", 1),
        ("12-ragged.csv", "ragged", 2),
    }
    assert receipts(lake) == ["AFTER", "BOM", "FUTURE", "GOOD1", "GOOD2", "LONG", "MIXED1", "MORE", "NEG", "WHOLE"]
    notes = "\n".join(landed.notes)
    assert "05-mixed.csv: 1 line(s) are not valid utf-8, first: 3" in notes
    assert "If a column was renamed, add its new name under aliases" in notes
    assert "undeclared column(s) kept aside: till" in notes

    put(sales, "02-truncated.csv.gz", whole)
    assert land(lake, shop).rows_accepted == 200
    tried = lake.read("ingest.stage_retries").where("status = 'resolved'").collect()
    assert [Path(r["file_path"]).name for r in tried] == ["02-truncated.csv.gz"]

    run_silver(lake, shop)
    accepted = {r[0] for r in lake.read("silver.transaction_line").select("basket_id").collect()}
    assert accepted == set(receipts(lake)) - {"FUTURE", "LONG", "NEG"}
    rejected = lake.read("silver.transaction_reject").collect()
    assert {(r["delivery"], r["row_number"], *r["reasons"]) for r in rejected} == {
        ("08-cell.csv", 1, "overlong_code"),
        ("09-values.csv", 1, "negative_price"),
        ("09-values.csv", 2, "time_in_future"),
    }
    balance = lake.read("gold.audit_recon").where("subject = 'transactions'").collect()
    assert balance
    assert all(r["is_balanced"] for r in balance)


def test_bytes_land_once_whatever_their_name_and_a_changed_file_is_a_later_delivery(lake: Lake, shop: Shop) -> None:
    sales = shop.folder / "sales"
    first = put(sales, "a.csv", text(line("A"), line("B")))
    assert land(lake, shop).rows_accepted == 2
    first.touch()
    put(sales, "copy-of-a.csv", first.read_bytes())
    assert (again := land(lake, shop)).files_new == 0
    assert again.refused_files == ()
    put(sales, "a.csv", text(line("A", paid="7.50"), line("B")))
    assert land(lake, shop).rows_accepted == 2
    seen = lake.read("ingest.raw_records").select("status_id", "change").collect()
    assert sorted(tuple(r) for r in seen) == [("landed", "changed"), ("landed", "new"), ("redelivered", "redelivered")]
    deliveries = lake.read(RAW).where("basket_id = 'A'").orderBy("delivery_seq").collect()
    assert [str(r["amount"]) for r in deliveries] == ["8.90", "7.50"]
    assert len({r["delivery_seq"] for r in deliveries}) == 2, "equal places would let the hash of the bytes decide"


def test_a_changed_file_keeps_its_place_before_files_of_later_names(lake: Lake, shop: Shop) -> None:
    sales = shop.folder / "sales"
    for name in ("day-1.csv", "day-2.csv"):
        put(sales, name, text(line(name)))
    land(lake, shop)
    for paid in ("1.00", "2.00"):
        put(sales, "day-1.csv", text(line("day-1.csv", paid=paid)))
        land(lake, shop)
    placed = lake.read(RAW).orderBy("delivery_seq").select("basket_id", "amount").collect()
    assert [(r[0], str(r[1])) for r in placed] == [
        ("day-1.csv", "8.90"),
        ("day-1.csv", "1.00"),
        ("day-1.csv", "2.00"),
        ("day-2.csv", "8.90"),
    ]


def test_the_sheets_of_a_changed_workbook_stand_after_all_it_held_before(lake: Lake, tmp_path: Path) -> None:
    source = make_source(tmp_path / "in", format="excel", delivery={"by": "sheet", "order": "name"})
    (tmp_path / "in").mkdir()
    for status in ("granted", "denied"):
        book = Workbook()
        for sheet in (book.active, book.create_sheet()):
            sheet.append(["id", "channel", "status", "when"])
            sheet.append(["K1", "email", status, "2020-01-01 10:00:00"])
        book.save(tmp_path / "in" / "2024-01.xlsx")
        assert land_source(lake, source, run=Run.begin())[0].rows_accepted == 2
    placed = lake.read("bronze.raw_consents").orderBy("delivery_seq").select("delivery_seq", "status").collect()
    assert [r["status"] for r in placed] == ["granted", "granted", "denied", "denied"]
    assert [r["delivery_seq"] - 202401000 for r in placed] == [0, 1, 2, 3]


def test_an_upload_stands_after_what_another_source_of_its_merchant_delivered(lake: Lake, tmp_path: Path) -> None:
    crm, uploads = (make_source(tmp_path / name, name=name) for name in ("crm", "uploads"))
    for name in ("a.csv", "b.csv"):
        put(tmp_path / "crm", name, csv_text(name))
    land_source(lake, crm, run=Run.begin(), declared=[crm, uploads])
    put(tmp_path / "uploads", "c.csv", csv_text("c.csv"))
    land_source(lake, uploads, run=Run.begin(), declared=[crm, uploads])
    placed = lake.read("bronze.raw_consents").select("customer_id", "delivery_seq").collect()
    assert {r["customer_id"]: r["delivery_seq"] for r in placed} == {"a.csv": 1000, "b.csv": 2000, "c.csv": 3000}


def test_names_stand_in_the_order_of_their_numbers_and_two_that_tell_none_are_named(lake: Lake, shop: Shop) -> None:
    for name in ("s-2024-9-30.csv", "s-2024-10-1.csv", "a.csv", "b.csv"):
        put(shop.folder / "sales", name, text(line(name)))
    (note,) = land(lake, shop).notes
    assert note.startswith("b.csv and a.csv: the numbers in their names do not tell")
    placed = {r["basket_id"]: r["delivery_seq"] for r in lake.read(RAW).select("basket_id", "delivery_seq").collect()}
    assert placed["a.csv"] == placed["b.csv"] < placed["s-2024-9-30.csv"] < placed["s-2024-10-1.csv"]
    assert land(lake, shop).notes == ()


def test_a_file_that_moves_while_it_is_read_leaves_nothing_half_read(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sales = shop.folder / "sales"
    deleted = put(sales, "a.csv", text(*(line(f"A{n}") for n in range(50))))
    changed = put(sales, "b.csv", text(*(line(f"B{n}") for n in range(50))))
    put(sales, "c.csv", text(line("C")))
    really = landing.land

    def land_late(*args: Any, **kwargs: Any) -> int:
        deleted.unlink(missing_ok=True)
        changed.write_text(text(line("OTHER")), encoding="utf-8")
        return really(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(landing, "land", land_late)
        landed = land(lake, shop)
    assert receipts(lake) == ["C"]
    assert sorted(Path(p).name for p, _ in landed.refused_files) == ["a.csv", "b.csv"]
    put(sales, "a.csv", text(line("A")))
    assert land(lake, shop).rows_accepted == 2
    assert receipts(lake) == ["A", "C", "OTHER"]


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, name: str, at: int = 1) -> Iterator[None]:
    """What runs in the block is killed before it writes a table for the `at`-th time."""
    really, written = Lake.write, Counter[str]()

    def write(self: Lake, which: Any, *args: Any, **kwargs: Any) -> Any:
        written[table_of(which).name] += 1
        if written[name] == at:
            raise KeyboardInterrupt
        return really(self, which, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "write", write)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_landing_that_dies_before_any_write_is_finished_by_the_next(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ("bronze.stg_transactions", RAW, ERRORS, "ingest.raw_records", "ingest.audit_ingest")
    copied = put(lake.settings.data_dir / "_ingest" / "batch-7", "rewritten.txt", text(line("R0")))
    for n, table in enumerate(tables, 1):
        put(shop.folder / "sales", f"{n}.csv", text(line(f"R{n}"), line("B", paid="x")))
        with dying(monkeypatch, table):
            land(lake, shop)
        told = land(lake, shop)
        assert (told.files_new, told.rows_accepted, told.rows_rejected) == (1, 1, 1)
        assert receipts(lake) == [f"R{i}" for i in range(1, n + 1)]
        assert errors(lake) == {(f"{i}.csv", "mistyped", 2) for i in range(1, n + 1)}
    manifest = lake.read("ingest.raw_records").select("status_id", "rows_accepted", "rows_rejected").collect()
    assert [tuple(r) for r in manifest] == [("landed_with_rejects", 1, 1)] * len(tables)
    assert lake.count("ingest.audit_ingest") == len(tables)
    assert land(lake, shop).files_new == 0
    assert not copied.exists(), "what a batch that died had copied of customers"


def test_files_put_away_after_a_landing_died_are_in_if_they_were_staged_whole_and_told_if_not(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sales = shop.folder / "sales"
    put(sales, "whole.csv", text(line("A"), line("B")))
    put(sales, "short.csv", text(line("C")))
    with dying(monkeypatch, RAW):
        land(lake, shop)
    plan = lake.read(PLAN).withColumn("expected_rows", F.expr("IF(file_name = 'short.csv', 9, expected_rows)"))
    lake.write(PLAN, lake.spark.createDataFrame(plan.toPandas(), plan.schema))
    for file in list(sales.iterdir()):
        file.unlink()
    told = land(lake, shop)
    assert (told.files_new, receipts(lake)) == (1, ["A", "B"])
    ((path, reason),) = told.refused_files
    assert Path(path).name == "short.csv"
    assert "holds 9 rows but 1 were read" in reason
    assert land(lake, shop).refused_files == ()


@pytest.mark.parametrize("dies", [None, AUDIT, PLAN])
def test_audit_and_errors_tell_of_every_batch_whichever_feeds_share_a_subject(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str | None
) -> None:
    usual = {"subject": "consents", "format": "csv", "columns": COLUMNS}
    ages = {"id": {"to": "customer_id", "required": True}, "age": {"to": "age_band"}}
    source = make_source("", feeds=[
        usual | {"name": "a", "location": str(tmp_path / "a")},
        usual | {"name": "b", "location": str(tmp_path / "b")},
        usual | {"name": "c", "location": str(tmp_path / "c"), "subject": "customers", "columns": ages},
    ])  # fmt: skip
    for feed in ("a", "b"):
        put(tmp_path / feed, "x.csv", csv_text(f"{feed}1") + f"{feed}2,email,granted,never\n")
    put(tmp_path / "c", "x.csv", "id,age\nK1,30\n,40\n")
    if dies:
        # The second wave dies: before it tells of itself, or before its plan is closed.
        with dying(monkeypatch, dies, at={AUDIT: 2, PLAN: 4}[dies]):
            land_source(lake, source, run=Run.begin())
    land_source(lake, source, run=Run.begin())
    for table in (AUDIT, ERRORS):
        assert sorted(r["feed"] for r in lake.read(table).select("feed").collect()) == ["a", "b", "c"]
    assert land_source(lake, source, run=Run.begin())[0].files_new == 0


@pytest.mark.parametrize("dies", [None, "bronze.stg_consents", "bronze.raw_consents", "ingest.raw_records"])
def test_large_columnar_files_land_once_without_being_staged(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str | None
) -> None:
    monkeypatch.setattr(survey, "LARGE_ROWS", 3)
    source = make_source(tmp_path / "in" / "*.parquet", format="parquet")
    (tmp_path / "in").mkdir()
    for name, ids in (("a", ["1", "2", None]), ("b", ["3", "4", "5"])):
        when = [datetime(2020, 1, 1)] * 3
        columns = {"id": ids, "channel": ["email"] * 3, "status": ["granted"] * 3, "when": when}
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{name}.parquet")
    if dies:
        with dying(monkeypatch, dies):
            land_source(lake, source, run=Run.begin())
    land_source(lake, source, run=Run.begin())
    held = lake.read("bronze.raw_consents").select("customer_id").collect()
    assert sorted(r[0] for r in held) == ["1", "2", "3", "4", "5"]
    assert lake.count("bronze.stg_consents") == 1
    assert errors(lake) == {("a.parquet", "missing", 3)}
    manifest = lake.read("ingest.raw_records").select("file_name", "rows_accepted", "rows_rejected").collect()
    assert sorted(tuple(r) for r in manifest) == [("a.parquet", 2, 1), ("b.parquet", 3, 0)]
    hashes = (
        lake.read("bronze.raw_consents")
        .groupBy("file_id")
        .agg(F.sum(F.col("row_hash").cast("decimal(20,0)")).alias("sum"))
        .collect()
    )
    summed = {r["payload_hash"]: int(r["checksum_accepted"]) for r in lake.read("ingest.raw_records").collect()}
    assert summed == {r["file_id"]: r["sum"] for r in hashes}


def damaged_parquet(folder: Path, name: str) -> Path:
    """A file whose footer is whole and of which one page is not, with texts nobody is to be told."""
    columns = {"id": [f"secret-{n}" for n in range(500)], "channel": ["email"] * 500, "status": ["granted"] * 500}
    whole = pa.table(columns | {"when": [datetime(2020, 1, 1)] * 500})
    pq.write_table(whole, folder / name, compression="none", use_dictionary=False)
    damaged = bytearray((folder / name).read_bytes())
    damaged[8:40] = bytes(range(200, 232))
    (folder / name).write_bytes(damaged)
    return folder / name


def test_of_a_large_batch_only_files_found_damaged_or_short_are_refused(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "LARGE_ROWS", 1)
    source = make_source(tmp_path / "*.parquet", format="parquet")
    columns = {"channel": ["email"] * 2, "status": ["granted"] * 2, "when": [datetime(2020, 1, 1)] * 2}
    for name in ("short", "whole"):
        pq.write_table(pa.table({"id": [f"{name}1", None], **columns}), tmp_path / f"{name}.parquet")
    damaged = damaged_parquet(tmp_path, "damaged.parquet")
    really = preflight.inspect

    def wrong(path: Path, feed: Any) -> Any:
        found = really(path, feed)
        return replace(found, rows=9) if path.name == "short.parquet" else found

    def held() -> list[str]:
        return sorted(r[0] for r in lake.read("bronze.raw_consents").select("customer_id").collect())

    with monkeypatch.context() as patched:
        patched.setattr(survey, "inspect", wrong)
        (landed,) = land_source(lake, source, run=Run.begin())
    refused = {Path(p).name: reason for p, reason in landed.refused_files}
    assert sorted(refused) == ["damaged.parquet", "short.parquet"]
    assert refused["damaged.parquet"].startswith("Spark cannot read it (")
    assert "secret" not in refused["damaged.parquet"]
    assert refused["short.parquet"].startswith("it holds 9 rows but 2 were read; nothing of it was kept.")
    assert (held(), errors(lake)) == (["whole1"], {("whole.parquet", "missing", 2)})
    told = lake.read("ingest.raw_records").select("file_name", "status_id", "rows_accepted").collect()
    assert {tuple(r) for r in told} == {
        ("damaged.parquet", "refused", 0),
        ("short.parquet", "refused", 0),
        ("whole.parquet", "landed_with_rejects", 1),
    }

    (again,) = land_source(lake, source, run=Run.begin())
    assert (again.rows_accepted, [p for p, _ in again.refused_files]) == (1, [str(damaged)])
    assert held() == ["short1", "whole1"]


def test_a_failure_of_spark_is_told_by_its_cause_and_without_values(lake: Lake, tmp_path: Path) -> None:
    source = make_source(damaged_parquet(tmp_path, "a.parquet"), format="parquet")
    ((_, reason),) = land_source(lake, source, run=Run.begin())[0].refused_files
    assert re.match(r"Spark cannot read it \([\w.]+Exception \[FAILED_READ_FILE", reason)
    assert "secret" not in reason


def test_only_the_file_that_cannot_be_read_is_refused(lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sales = shop.folder / "sales"
    put(sales, "1.csv", text(line("A")))
    put(sales, "2.csv", text(line("B")))
    # Spark would unpack these two by their names, and the next has half its lines from another system.
    put(sales, "3.csv.deflate", text(line("C")))
    put(sales, "4.csv.bz2", text(line("D")))
    put(sales, "5.csv", f"{GOOD}\r\n{line('E')}\n{line('F')}\n")
    put(sales, "6.csv", text('7,"', line("SWALLOWED")))
    really = preflight.inspect

    def wrong(path: Path, feed: Any) -> Any:
        found = really(path, feed)
        return replace(found, rows=9) if path.name == "1.csv" else found

    with monkeypatch.context() as patched:
        patched.setattr(survey, "inspect", wrong)
        patched.setattr(scratch, "_CODECS", frozenset((".bz2",)))
        landed = land(lake, shop)
    refused = {Path(p).name: reason for p, reason in landed.refused_files}
    assert sorted(refused) == ["1.csv", "3.csv.deflate", "6.csv"]
    assert "holds 9 rows but 1 were read" in refused["1.csv"]
    assert "Spark cannot read it" in refused["3.csv.deflate"]
    assert "opens on line 2 is never closed" in refused["6.csv"]
    told = lake.read("ingest.raw_records").where("status_id = 'refused'").collect()
    assert {r["file_name"]: r["reason"] for r in told} == refused
    assert receipts(lake) == ["B", "D", "E", "F"]
    (sales / "6.csv").unlink()
    again = land(lake, shop)
    assert (again.files_new, again.refused_files) == (2, ())
    assert receipts(lake) == ["A", "B", "C", "D", "E", "F"]
    assert errors(lake) == set()


def test_a_file_rejected_whole_is_not_rejected_again_at_another_path(lake: Lake, shop: Shop) -> None:
    bad = put(shop.folder / "sales", "a.csv", text(line("A", paid="x")))
    assert land(lake, shop).rows_rejected == 1
    put(shop.folder / "sales", "b.csv", bad.read_bytes())
    assert (land(lake, shop).files_new, len(errors(lake))) == (0, 1)
    bad.unlink()
    conf = shop.conf / "sources" / "corner_shop.yml"
    conf.write_text(conf.read_text().replace("required: true", "required: false", 1))
    assert land(lake, shop).files_new == 1


def test_bytes_that_others_have_followed_are_left_and_said(lake: Lake, shop: Shop, tmp_path: Path) -> None:
    conf = shop.conf / "sources" / "corner_shop.yml"
    conf.write_text(conf.read_text().replace("order: name", "order: arrival"))
    source = sources_of(shop).source("corner_shop")
    first, second = put(tmp_path, "pA.csv", text(line("A"))), put(tmp_path, "pB.csv", text(line("A", paid="9.99")))

    def hand_in(file: Path) -> FeedResult:
        return ingest_file(lake, file, source, "sales", run=Run.begin(as_of=date(2024, 2, 1)))

    assert [hand_in(f).files_new for f in (first, second)] == [1, 1]
    assert hand_in(second).notes == ("pB.csv: these bytes are in already, nothing was to be done.",)
    (said,) = hand_in(first).notes
    assert "pA.csv" in said
    assert "has followed" in said
    put(shop.folder / "sales", "copy.csv", first.read_bytes())
    assert "copy.csv" in land(lake, shop).notes[0]
    assert land(lake, shop).notes == ()
    changed = put(shop.folder / "sales", "v.csv", text(line("V")))
    land(lake, shop)
    put(shop.folder / "sales", "v.csv", text(line("V", paid="1.00")))
    assert land(lake, shop).files_new == 1
    changed.write_text(text(line("V")), encoding="utf-8")
    for _ in range(2):
        assert "v.csv" in land(lake, shop).notes[0]


def test_a_full_pass_over_a_delivery_that_is_new_loses_what_that_one_replaces(lake: Lake, shop: Shop) -> None:
    """A release makes the next run a full one, and the files of that day come in the same run."""
    conf = shop.conf / "sources" / "corner_shop.yml"
    replaces = "later_delivery_replaces: basket\n  key:\n  - basket_id"
    conf.write_text(conf.read_text().replace("key:\n  - basket_id", replaces, 1))
    put(shop.folder / "sales", "s1.csv", text(line("A"), line("A", sku="P02"), line("B")))
    land(lake, shop)
    run_silver(lake, shop)
    put(shop.folder / "sales", "s2.csv", text(line("A", paid="7.90")))
    land(lake, shop)
    run_silver(lake, shop, force=True)
    kept = lake.read("silver.transaction_line").select("basket_id", "product_id", "amount").collect()
    assert sorted((r[0], r[1], float(r[2])) for r in kept) == [("A", "P01", 7.9), ("B", "P01", 8.9)]
    (balance,) = lake.read("gold.audit_recon").where("subject = 'transactions'").collect()
    assert balance["is_balanced"]


def test_what_was_delivered_balances_when_its_rows_are_past_their_retention(lake: Lake, shop: Shop) -> None:
    """Of a row that left, the line that stands for it or beside it is all that tells."""
    lake.settings = lake.settings.model_copy(update={"retention_days": {RAW: 400}})

    def balance() -> tuple[int, ...]:
        (told,) = lake.read("gold.audit_recon").where("subject = 'transactions'").collect()
        counts = ("delivered_rows", "accepted_rows", "duplicate_rows", "rejected_rows", "is_balanced")
        return tuple(told[c] for c in counts)

    put(shop.folder / "sales", "s1.csv", text(line("A"), line("B"), line("NEG", paid="-8.90")))
    land(lake, shop)
    run_silver(lake, shop)
    put(shop.folder / "sales", "s2.csv", text(line("A", paid="7.90"), line("C")))
    land(lake, shop)
    run_silver(lake, shop)
    assert balance() == (5, 3, 1, 1, True)

    lake.delete(RAW, "delivery = 's1.csv'")
    run_silver(lake, shop)
    assert balance() == (5, 3, 1, 1, True)
    run_silver(lake, shop, force=True)
    assert balance() == (5, 3, 1, 1, True), "also after a release, which reads again what is left"
    lake.delete("silver.transaction_line", "basket_id = 'C'")
    run_silver(lake, shop)
    assert balance() == (5, 2, 1, 1, False)


def test_uploads_take_their_place_by_the_name_they_were_handed_in_under(lake: Lake, shop: Shop, tmp_path: Path) -> None:
    source = sources_of(shop).source("corner_shop")
    for name, paid in (("sales-202408.csv", "8.00"), ("sales-202407.csv", "7.00")):
        file = put(tmp_path, name, text(line("A", paid=paid)))
        ingest_file(lake, file, source, "sales", run=Run.begin(as_of=date(2024, 2, 1)))
    numbers = {r["amount"]: r["delivery_seq"] for r in lake.read(RAW).select("amount", "delivery_seq").collect()}
    assert numbers[Decimal("7.00")] < numbers[Decimal("8.00")]


def test_a_file_whose_name_is_no_text_is_refused_and_keeps_no_other_out(lake: Lake, shop: Shop) -> None:
    put(shop.folder / "sales", "1.csv", text(line("A")))
    name = os.fsencode(shop.folder / "sales") + b"/2-\xe4.csv"
    Path(os.fsdecode(name)).write_text(text(line("B")), encoding="utf-8")
    landed = land(lake, shop)
    assert receipts(lake) == ["A"]
    ((told, reason),) = landed.refused_files
    assert told.endswith("2-\\xe4.csv")
    assert "rename" in reason


def stream(lake: Lake, shop: Shop) -> FeedResult:
    source = sources_of(shop).source("corner_shop")
    return stream_feed(lake, source, source.feed("sales"), run=Run.begin(as_of=date(2024, 2, 1)))[0]


def test_a_stream_lands_what_a_batch_would(lake: Lake, shop: Shop) -> None:
    put(shop.folder / "sales", "a.csv", text(line("A"), line("WORD", paid="eight")))
    put(shop.folder / "sales", "b.csv.gz", text(line("B")))
    first = stream(lake, shop)
    assert (first.files_new, first.rows_accepted, first.rows_rejected) == (2, 2, 1)
    put(shop.folder / "sales", "c.csv", text(line("C")))
    assert stream(lake, shop).rows_accepted == 1
    assert stream(lake, shop).files_new == 0
    assert receipts(lake) == ["A", "B", "C"]
    assert land(lake, shop).files_new == 0


def test_what_a_stream_never_notices_lands_all_the_same(lake: Lake, shop: Shop, tmp_path: Path) -> None:
    whole = gzip.compress(text(*(line(f"G{n}") for n in range(200))).encode(), mtime=0)
    put(shop.folder / "sales", "copied.csv.gz", whole[:-30])
    put(shop.folder / "sales", "a.csv", text(line("A")))
    assert len(stream(lake, shop).refused_files) == 1
    put(shop.folder / "sales", "copied.csv.gz", whole)
    put(shop.folder / "sales", "a.csv", text(line("A", paid="7.50")))
    late = put(shop.folder / "sales", "late.csv", text(line("LATE")))
    os.utime(late, (0, 0))
    assert (again := stream(lake, shop)).files_new == 3
    assert again.refused_files == ()

    gone = make_source(tmp_path / "gone")
    (nothing,) = stream_feed(lake, gone, gone.feeds[0], run=Run.begin())
    assert "does not exist" in nothing.refused_files[0][1]


def test_a_failure_of_ours_in_a_stream_is_told_as_in_a_batch(
    lake: Lake, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise SourceError("day-1.csv could not be landed")

    put(shop.folder / "sales", "day-1.csv", text(line("A")))
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.bronze.stream.land_source", fail)
        with pytest.raises(SourceError, match="could not be landed"):
            stream(lake, shop)
    assert stream(lake, shop).files_new == 1


def test_folders_and_files_called_like_patterns_land_as_any_other(lake: Lake, tmp_path: Path) -> None:
    shop = open_shop(tmp_path / "Sales [2024]", months=0)
    put(shop.folder / "sales", "a [1].csv", text(line("A")))
    assert land(lake, shop).rows_accepted == 1
    put(shop.folder / "sales", "b {2}.csv", text(line("B")))
    assert stream(lake, shop).rows_accepted == 1
    assert receipts(lake) == ["A", "B"]


def test_status_tells_of_refused_files_before_anything_is_built(lake: Lake, shop: Shop) -> None:
    put(shop.folder / "sales", "empty.csv", "")
    mended = put(shop.folder / "sales", "mended.csv", "")
    assert len(land(lake, shop).refused_files) == 2
    mended.write_text(text(line("A")))
    assert len(land(lake, shop).refused_files) == 1
    job, said = Job(lake.settings), StringIO()
    job.lake = lake

    print_status(job, Console(file=said, width=120))

    assert "Nothing has been built yet" in said.getvalue()
    assert "1 refused file(s) wait for a retry" in said.getvalue()


def test_status_tells_of_a_daily_feed_that_is_late_and_that_refused_files_are_none(lake: Lake, shop: Shop) -> None:
    place = shop.conf / "sources" / "corner_shop.yml"
    place.write_text(place.read_text().replace("name: sales\n", "name: sales\n  cadence: daily\n"))
    job, said = Job(lake.settings.model_copy(update={"conf_dir": shop.conf})), StringIO()
    job.lake = lake
    put(shop.folder / "sales", "day-1.csv", text(line("A")))
    days_ago = replace(job.run, started_at=job.run.started_at - timedelta(days=3))
    land_source(lake, sources_of(shop).source("corner_shop"), ["sales"], run=days_ago)
    put(shop.folder / "sales", "day-2.csv", "")
    assert land(lake, shop).refused_files

    print_status(job, Console(file=said, width=120))

    assert "late corner_shop.sales is declared daily and has brought no file for 3 days" in said.getvalue()
