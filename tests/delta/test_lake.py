"""Writing by kind, repeating a write, reading the past and reading changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console

from jobs.context import Job
from jobs.summary import print_table
from lakehouse.columns import Column, Spec
from lakehouse.declare import Append, ReplaceSlice, table_of
from lakehouse.errors import MigrationRefused, SegmentationError, SettingsError
from lakehouse.lake import Lake
from lakehouse.session import FEW_ROWS_CONF
from lakehouse.settings import Settings
from tests.support.rows import rows

CONSENT = "silver.consent"


def consent(customer: str, granted: bool, **more: object) -> dict[str, object]:
    return {"merchant_id": "m", "customer_id": customer, "channel": "email", "is_granted": granted, **more}


def stored(lake: Lake, which: str, *columns: str) -> list[tuple[object, ...]]:
    return sorted(tuple(r) for r in lake.read(which).select(*columns).collect())


def test_a_declared_table_that_nothing_has_written_reads_as_empty(lake: Lake) -> None:
    assert lake.read(CONSENT).columns == list(table_of(CONSENT).column_names)
    assert lake.count(CONSENT) == 0


def test_each_session_is_told_what_names_mean_also_where_another_was_before(tmp_path: Path) -> None:
    class Session:
        def __init__(self) -> None:
            self.ran: list[str] = []

        def sql(self, query: str) -> None:
            self.ran.append(query)

    log = tmp_path / "silver" / "consent" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").touch()
    for _ in range(20):  # Python gives the address of one that is gone to the next
        session = Session()
        lake = Lake(session, Settings(data_dir=tmp_path))  # type: ignore[arg-type]
        lake.register_all()
        lake.register_all()
        assert sum(query.startswith("CREATE TABLE") for query in session.ran) == 1


def test_a_merge_inserts_updates_and_deletes_by_key_and_a_repeat_touches_nothing(lake: Lake) -> None:
    first = lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True), consent("2", True)]))
    batch = rows(
        lake.spark,
        CONSENT,
        [consent("1", False, _deleted=False), consent("2", True, _deleted=True), consent("3", True, _deleted=False)],
    )
    second = lake.write(CONSENT, batch)
    third = lake.write(CONSENT, batch)
    assert (first.rows_written, second.rows_written, third.rows_written) == (2, 3, 0)
    assert stored(lake, CONSENT, "customer_id", "is_granted") == [("1", False), ("3", True)]


def test_changes_since_a_version_name_each_key_once_with_its_last_state(lake: Lake) -> None:
    which = "silver.customer"
    one = lake.write(which, rows(lake.spark, which, [{"customer_id": "1"}, {"customer_id": "2"}, {"customer_id": "4"}]))
    lake.write(which, rows(lake.spark, which, [{"customer_id": "1", "city": "A"}, {"customer_id": "3"}]))
    lake.write(
        which, rows(lake.spark, which, [{"customer_id": "1", "city": "B"}, {"customer_id": "2", "_deleted": True}])
    )
    changed = lake.read_changes(which, one.version).select("customer_id", "city", "_deleted").collect()
    assert sorted(map(tuple, changed), key=str) == [("1", "B", False), ("2", None, True), ("3", None, False)]
    assert lake.read_changes(which, lake.version(which)).count() == 0
    assert lake.read_changes(which, None).count() == 3


def test_changes_also_show_what_a_row_was_in_between(lake: Lake) -> None:
    which = "silver.customer"
    one = lake.write(which, rows(lake.spark, which, [{"customer_id": "1", "city": "A"}, {"customer_id": "2"}]))
    for city in ("B", "C"):
        lake.write(which, rows(lake.spark, which, [{"customer_id": "1", "city": city}]))
    changed = lake.read_changes(which, one.version, also_before=True).select("customer_id", "city", "_deleted")
    assert sorted(map(tuple, changed.collect())) == [
        ("1", "A", True), ("1", "B", False), ("1", "B", True), ("1", "C", False)
    ]  # fmt: skip


def test_work_on_few_rows_sees_and_writes_the_same_tables(lake: Lake) -> None:
    few = lake.for_rows(10)
    assert few is lake.for_rows(10).for_rows(10)
    assert lake.for_rows(10**9) is lake
    few.write(CONSENT, rows(few.spark, CONSENT, [consent("1", True)]))
    assert lake.count(CONSENT) == few.count(CONSENT) == 1
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", False)]))
    assert stored(few, CONSENT, "is_granted") == [(False,)]


def test_a_replayed_append_is_ignored(lake: Lake) -> None:
    which = "bronze.raw_campaigns"
    frame = rows(lake.spark, which, [{"campaign_id": "1", "row_number": 1}])
    assert lake.write(which, frame, txn=("feed", 1)).rows_written == 1
    assert lake.write(which, frame, txn=("feed", 1)).rows_written == 0
    assert lake.write(which, frame, txn=("feed", 2)).rows_written == 1
    assert lake.count(which) == 2


def version(customer: str, day: int, **more: object) -> dict[str, object]:
    return {"merchant_id": "m", "customer_id": customer, "valid_from": datetime(2020, 1, day), **more}


def timeline(lake: Lake) -> list[tuple[object, ...]]:
    history = lake.read("gold.dim_customer").select(
        "customer_id", "city", "valid_from", "valid_to", "is_current", "customer_sk"
    )
    found = sorted(history.collect(), key=lambda r: (r[0], r[2]))
    assert len({r["customer_sk"] for r in found}) == len(found)
    return [(r[0], r[1], r[2].day, r[3].day if r[3] else None, r[4]) for r in found]


def test_scd2_lays_out_all_that_is_said_of_a_thing_and_leaves_others(lake: Lake) -> None:
    which = "gold.dim_customer"
    drop = ("customer_sk", "valid_to", "is_current")

    def put(*cases: dict[str, object], **more: bool) -> list[tuple[object, ...]]:
        lake.write(which, rows(lake.spark, which, cases).drop(*drop), **more)
        return timeline(lake)

    other = ("2", "A", 1, None, True)
    begun = put(version("1", 1, city="A"), version("2", 1, city="A"), version("2", 9, city="A"))
    assert begun == [("1", "A", 1, None, True), other]
    late = [version("1", d, city=c) for d, c in ((9, "B"), (1, "A"), (5, "C"))]
    told = [("1", "A", 1, 5, False), ("1", "C", 5, 9, False), ("1", "B", 9, None, True), other]
    assert put(*late) == put(*late) == told
    # What was said before and no more goes, also in the middle.
    assert put(version("1", 1, city="A"), version("1", 5, city="B"), version("1", 9, city="B")) == [
        ("1", "A", 1, 5, False),
        ("1", "B", 5, None, True),
        other,
    ]
    assert put(version("1", 3, city="D"), is_whole=True) == [("1", "D", 3, None, True)]


def test_what_audits_a_history_sees_its_versions_as_they_will_be(lake: Lake) -> None:
    which, seen = "gold.dim_customer", []

    def look(frame: DataFrame) -> None:
        seen.append(sorted((r["valid_from"].day, r["valid_to"] and r["valid_to"].day) for r in frame.collect()))

    first = [version("1", 1, city="A"), version("1", 3, city="B")]
    for cases in (first, [*first, version("1", 9, city="A")]):
        frame = rows(lake.spark, which, cases).drop("customer_sk", "valid_to", "is_current")
        lake.write(which, frame, audit=look)
    assert seen == [[(1, 3), (3, None)], [(1, 3), (3, 9), (9, None)]]


def test_rows_taken_out_of_a_table_that_is_only_appended_to_are_no_changes(lake: Lake) -> None:
    """They are past their retention; what was made of them stays."""
    raw = "bronze.raw_contact_points"
    seen = lake.write(raw, rows(lake.spark, raw, [{"customer_id": "1"}, {"customer_id": "2"}])).version
    lake.delete(raw, "customer_id = '1'")
    assert lake.read_changes(raw, seen).count() == 0
    lake.write(raw, rows(lake.spark, raw, [{"customer_id": "3"}]))
    assert [(r["customer_id"], r["_deleted"]) for r in lake.read_changes(raw, seen).collect()] == [("3", False)]


def test_the_past_is_read_by_version_and_by_day(lake: Lake) -> None:
    one = lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]))
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", False)]))
    assert lake.read(CONSENT, version=one.version).collect()[0]["is_granted"] is True
    assert lake.read(CONSENT, day=date(2999, 1, 1)).collect()[0]["is_granted"] is False
    job = Job(lake.settings)
    job.lake = lake
    with pytest.raises(SettingsError, match="did not exist yet on 2001-01-01"):
        print_table(job, Console(file=StringIO()), CONSENT, rows=1, day=date(2001, 1, 1))
    with pytest.raises(SettingsError, match="has no version 99; its newest is"):
        print_table(job, Console(file=StringIO()), CONSENT, rows=1, version=99)


def test_a_look_at_the_past_brings_no_table_to_its_declaration(lake: Lake) -> None:
    declared = table_of(CONSENT)
    written = lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)])).version
    wider = replace(declared, columns=(*declared.columns, Column("proof", Spec("string", "Where it was given.", True))))
    assert Lake(lake.spark, lake.settings).read(wider, day=date(2999, 1, 1)).collect()[0]["proof"] is None
    assert lake.version(CONSENT) == written


def test_a_past_that_is_not_kept_any_more_is_told(lake: Lake) -> None:
    first = lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)])).version
    old = list(lake.path(CONSENT).glob("*.parquet"))
    lake.spark.sql(f"ALTER TABLE {lake.name(CONSENT)} SET TBLPROPERTIES ('delta.checkpointInterval' = '1')")
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", False)]))
    job = Job(lake.settings)
    job.lake = lake
    for file in old:
        file.unlink()
    with pytest.raises(SettingsError, match="is not kept any more as it was then"):
        print_table(job, Console(file=StringIO()), CONSENT, rows=1, version=first)
    for version in (0, 1):
        (lake.path(CONSENT) / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(SettingsError, match="on 2001-01-01 is not kept any more: its log goes back to 20"):
        print_table(job, Console(file=StringIO()), CONSENT, rows=1, day=date(2001, 1, 1))


def test_a_frame_with_other_columns_is_refused_and_names_them(lake: Lake) -> None:
    with pytest.raises(SegmentationError, match=r"lacks \['channel'\] and brings undeclared \['chanel'\]"):
        lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]).withColumnRenamed("channel", "chanel"))


def test_a_check_stops_the_write_and_the_last_good_rows_stay(lake: Lake) -> None:
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]))
    with pytest.raises(Exception, match="channel_values"):
        lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("2", True, channel="pigeon")]))
    assert stored(lake, CONSENT, "customer_id") == [("1",)]


def test_an_audit_that_raises_stops_the_write(lake: Lake) -> None:
    def refuse(_: object) -> None:
        raise SegmentationError("no")

    with pytest.raises(SegmentationError, match="no"):
        lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]), audit=refuse)
    assert lake.count(CONSENT) == 0


def test_additive_changes_of_a_declaration_are_applied_and_others_refused_with_the_reason(lake: Lake) -> None:
    declared = table_of(CONSENT)
    lake.write(declared, rows(lake.spark, CONSENT, [consent("1", True)]))

    def reopened() -> Lake:
        return Lake(lake.spark, lake.settings)

    wider = replace(declared, columns=(*declared.columns, Column("proof", Spec("string", "Where it was given.", True))))
    reopened().ensure(wider)
    assert "proof" in lake.spark.read.format("delta").load(str(lake.path(CONSENT))).columns
    assert lake.read(wider).columns[-1] == "proof"
    required = replace(declared, columns=(*wider.columns, Column("must", Spec("string", "Required."))))
    narrower = replace(declared, columns=declared.columns[1:])
    with pytest.raises(MigrationRefused, match="'must' must be optional"):
        reopened().ensure(required)
    with pytest.raises(MigrationRefused, match="'merchant_id' is in the table but no longer declared"):
        reopened().ensure(narrower)


def test_a_check_that_stored_rows_break_is_refused_with_their_number_before_anything_is_changed(lake: Lake) -> None:
    declared = table_of(CONSENT)
    lake.write(declared, rows(lake.spark, CONSENT, [consent("1", True), consent("2", True), consent("3", False)]))
    before = lake.version(CONSENT)
    more = (*declared.columns, Column("proof", Spec("string", "Where it was given.", True, check="proof <> ''")))
    stricter = replace(declared, columns=more, checks={"withdrawn": "NOT is_granted", "known": "customer_id > '0'"})
    with pytest.raises(MigrationRefused, match=r"check 'withdrawn' \(.*NOT is_granted.*\) is broken by 2 row"):
        Lake(lake.spark, lake.settings).ensure(stricter)
    assert lake.version(CONSENT) == before
    lake.delete(CONSENT, "is_granted")
    Lake(lake.spark, lake.settings).ensure(stricter)
    with pytest.raises(Exception, match="withdrawn"):
        lake.write(stricter, rows(lake.spark, stricter, [consent("4", True)]))


def test_a_column_that_a_check_names_becomes_wider(lake: Lake) -> None:
    declared = table_of("gold.customer_segment")
    lake.write(declared, rows(lake.spark, declared, [{"segment_id": "a", "priority": 1}]))

    def wider(c: Column) -> Column:
        return Column(str(c), replace(c.spec, type="bigint")) if c == "priority" else c

    widened = replace(declared, columns=tuple(map(wider, declared.columns)))
    Lake(lake.spark, lake.settings).ensure(widened)
    found = lake.spark.read.format("delta").load(str(lake.path(declared)))
    assert found.schema["priority"].dataType.simpleString() == "bigint"
    with pytest.raises(Exception, match="priority"):
        lake.write(widened, rows(lake.spark, widened, [{"segment_id": "b", "priority": -1}]))


def test_another_comment_or_change_feed_reaches_a_table_that_exists(lake: Lake) -> None:
    declared = table_of(CONSENT)
    said = "It's \\ `one` row; -- \n/* \" ${spark.app.name} ${none} end\\"
    columns = tuple(Column(str(c), replace(c.spec, comment=said)) for c in declared.columns)
    other = replace(declared, comment=said, columns=columns, change_feed=not declared.change_feed)
    for t in (declared, other, declared):
        Lake(lake.spark, lake.settings).ensure(t)
        detail = lake.spark.sql(f"DESCRIBE DETAIL {lake.name(t)}").collect()[0]
        assert detail["description"] == t.comment
        assert detail["properties"]["delta.enableChangeDataFeed"] == str(t.change_feed).lower()
        stored_columns = lake.spark.read.format("delta").load(str(lake.path(t))).schema
        assert [f.metadata["comment"] for f in stored_columns] == [c.spec.comment for c in t.columns]


def test_a_table_that_has_the_rows_already_is_not_replaced(lake: Lake) -> None:
    which = "gold.dim_channel"

    def replaced(*channels: dict[str, object]) -> int:
        return lake.write(which, rows(lake.spark, which, channels), audit=lambda _: None).rows_written

    web, shop = ({"channel_id": c, "channel_name": c, "is_online": None} for c in ("web", "shop"))
    assert replaced(web, shop) == 2
    version = lake.version(which)
    assert replaced(shop, web) == 0
    assert lake.version(which) == version
    assert replaced(shop, web, web) == 3
    assert replaced(shop, web | {"is_online": True}) == 2
    assert stored(lake, which, "channel_id", "is_online") == [("shop", None), ("web", True)]
    assert replaced() == 0
    assert lake.count(which) == 0


def test_a_key_that_tells_stored_rows_apart_is_taken_and_another_refused(lake: Lake) -> None:
    declared = table_of(CONSENT)
    lake.write(declared, rows(lake.spark, CONSENT, [consent("1", True), consent("2", True)]))
    wider = replace(declared, key=("customer_id",))
    Lake(lake.spark, lake.settings).write(wider, rows(lake.spark, CONSENT, [consent("1", False)]))
    assert stored(lake, CONSENT, "customer_id", "is_granted") == [("1", False), ("2", True)]
    Lake(lake.spark, lake.settings).ensure(declared)
    coarser = replace(declared, key=("channel",))
    with pytest.raises(MigrationRefused, match=r"share, or lack, the new key \(channel\)"):
        Lake(lake.spark, lake.settings).ensure(coarser)
    Lake(lake.spark, lake.settings).ensure(declared)


def test_files_in_folders_by_a_column_cannot_be_rearranged_in_place(lake: Lake) -> None:
    declared = table_of(CONSENT)
    lake.write(declared, rows(lake.spark, CONSENT, [consent("1", True)]))
    sliced = replace(declared, kind=ReplaceSlice(("channel",)))
    with pytest.raises(MigrationRefused, match="partitioned by nothing and cannot be by channel in place"):
        Lake(lake.spark, lake.settings).ensure(sliced)


def test_how_rows_are_taken_out_follows_the_settings(lake: Lake) -> None:
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]))
    marking = Lake(lake.spark, lake.settings.model_copy(update={"deletion_vectors": True}))
    marking.ensure(CONSENT)
    properties = lake.spark.sql(f"SHOW TBLPROPERTIES {lake.name(CONSENT)}").collect()
    assert {r["key"]: r["value"] for r in properties}["delta.enableDeletionVectors"] == "true"


def test_marked_rows_are_gone_for_work_on_few_rows_and_after_marking_is_given_up(lake: Lake) -> None:
    session = lake.spark.newSession()
    for name, value in FEW_ROWS_CONF.items():
        session.conf.unset(name) if "skipping" in name else session.conf.set(name, value)
    marking = Lake(session, lake.settings.model_copy(update={"deletion_vectors": True}))
    marking.write(CONSENT, rows(session, CONSENT, [consent(str(n), True) for n in range(9)]))
    marking.write(CONSENT, rows(session, CONSENT, [consent("1", True, _deleted=True)]))
    marks = list(lake.path(CONSENT).glob("deletion_vector*"))
    assert marks
    few = marking.for_rows(10)
    assert few.count(CONSENT) == len(stored(few, CONSENT, "customer_id")) == 8
    plain = Lake(session, lake.settings)
    plain.ensure(CONSENT)
    assert len(stored(plain.for_rows(10), CONSENT, "customer_id")) == 8


def test_a_retired_column_stays_where_it_was_and_is_null_in_new_rows(lake: Lake) -> None:
    declared = table_of(CONSENT)
    lake.write(declared, rows(lake.spark, CONSENT, [consent("1", True)]))
    without = tuple(c for c in declared.columns if c != "merchant_id")
    now = replace(declared, kind=Append(), columns=without, retired=("merchant_id",))
    later = Lake(lake.spark, lake.settings)
    later.write(now, rows(lake.spark, CONSENT, [consent("2", True)]).drop("merchant_id"))
    assert sorted(r.customer_id for r in later.read(now).collect()) == ["1", "2"]
    kept = lake.spark.read.format("delta").load(str(lake.path(CONSENT))).orderBy("customer_id").collect()
    assert [r.merchant_id for r in kept] == ["m", None]
    assert "merchant_id" not in later.read(now).columns


SECOND = "DATE '2020-01-02'"


def fact(number: int, day: int, amount: str) -> dict[str, object]:
    return {"transaction_id": number, "business_date": date(2020, 1, day), "amount": Decimal(amount)}


@pytest.mark.parametrize(
    ("batch", "condition"),
    [
        ([fact(2, 25, "9.00"), fact(6, 28, "6.00")], f" AND t.`business_date` BETWEEN {SECOND} AND {SECOND}"),
        ([fact(7, 28, "7.00")], None),
    ],
)
def test_a_merge_into_a_large_table_looks_only_where_its_rows_lie(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, batch: list[dict[str, object]], condition: str | None
) -> None:
    which = "gold.fact_transactions"
    before = [fact(n, n, f"{n}.00") for n in range(1, 6)]
    lake.write(which, rows(lake.spark, which, before))
    monkeypatch.setattr("lakehouse.lake._SMALL", 3)
    frame = rows(lake.spark, which, batch)
    assert lake._matches(table_of(which), frame) == condition
    lake.write(which, frame)
    expected = {r["transaction_id"]: tuple(r.values()) for r in [*before, *batch]}
    assert stored(lake, which, "transaction_id", "business_date", "amount") == sorted(expected.values())


def test_an_engine_that_keeps_nothing_in_memory_holds_frames_in_a_table_for_a_while(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(frame: DataFrame) -> DataFrame:
        raise PySparkException("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute.")

    monkeypatch.setattr(type(lake.spark.range(1)), "persist", refuse)
    aside = lake.settings.data_dir.resolve() / "_spark"
    with lake.holding() as hold:
        drawn = hold(lake.spark.range(3).select(F.rand().alias("x")))
        assert drawn.collect() == drawn.collect()
        assert len(list(aside.glob("_held_*"))) == 1
    assert list(aside.glob("_held_*")) == []
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", True)]))
    lake.write(CONSENT, rows(lake.spark, CONSENT, [consent("1", False), consent("2", True)]))
    assert stored(lake, CONSENT, "customer_id", "is_granted") == [("1", False), ("2", True)]


def test_another_refusal_to_hold_a_frame_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(frame: DataFrame) -> DataFrame:
        raise PySparkException("out of space")

    monkeypatch.setattr(type(lake.spark.range(1)), "persist", refuse)
    with pytest.raises(PySparkException, match="out of space"), lake.holding() as hold:
        hold(lake.spark.range(1))


def test_frames_that_a_dead_run_left_aside_are_swept_away_the_next_day(lake: Lake) -> None:
    aside = lake.settings.data_dir.resolve() / "_spark"
    old, new = "_held_20200101_a", f"_held_{datetime.now(UTC):%Y%m%d}_b"
    for name in (old, new):
        (aside / name).mkdir(parents=True)
    lake.sweep()
    assert [p.name for p in aside.glob("_held_*")] == [new]
