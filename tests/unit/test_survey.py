"""Which delivered files are new, which are known, and what is said of them; without tables or Spark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from lakehouse.lake import Lake
from lakehouse.session import Engine, SparkSettings
from lakehouse.settings import Settings
from pipelines.bronze import stream
from pipelines.bronze.records import MANIFEST, RETRIES, Record, landed_row
from pipelines.bronze.sources import Source
from pipelines.bronze.survey import Book, Survey, survey
from tests.support.feeds import FakeRun, csv_text, make_source, put

COUNTED = {"rows_read": 2, "rows_accepted": 2, "rows_rejected": 0, "checksum_accepted": 0, "checksum_rejected": 0}


@dataclass
class Kept:
    """What runs of a merchant's feed leave in the tables of `ingest`, row by row."""

    data_dir: Path
    tables: dict[str, list[Record]] = field(default_factory=lambda: {MANIFEST: [], RETRIES: []})

    def look(self, source: Source, declared: Iterable[Source] = ()) -> Survey:
        """Look at a source's feed, and land what is new."""
        kept = self.tables

        class KeptBook(Book):
            def _rows(self, name: str, *_: Any) -> list[Record]:
                return list(kept[name]) if name in kept else []

        lake = cast("Lake", SimpleNamespace(settings=SimpleNamespace(conf_dir=self.data_dir, data_dir=self.data_dir)))
        lake.for_rows = lambda _: lake  # type: ignore[method-assign]
        book = KeptBook(lake, FakeRun(), [source.name], (*declared, source))
        feed = source.feeds[0]
        found = survey(lake, book, source, feed)
        kept[MANIFEST] += [*found.records, *(landed_row(f.plan | COUNTED) for f in found.files)]
        tried = {(r["source"], r["feed"], r["file_path"]): r for r in (*kept[RETRIES], *found.retries)}
        kept[RETRIES] = list(tried.values())
        return found

    def waiting(self) -> dict[str, str]:
        """How each file that was refused stands."""
        return {Path(r["file_path"]).name: r["status"] for r in self.tables[RETRIES]}


def test_in_the_order_of_names_a_file_put_back_to_earlier_bytes_is_said(tmp_path: Path) -> None:
    kept, source = Kept(tmp_path), make_source(tmp_path / "in", delivery={"order": "name"})
    for ids in (["1"], ["1", "2"]):
        put(tmp_path / "in", "2024-01.csv", csv_text(*ids))
        assert len(kept.look(source).files) == 1
    put(tmp_path / "in", "2024-02.csv", csv_text("3"))
    assert kept.look(source).result().notes == (), "a later name follows none"
    put(tmp_path / "in", "2024-01.csv", csv_text("1"))
    put(tmp_path / "in", "2024-03.csv", csv_text("1"))
    for _ in range(2):
        (note,) = kept.look(source).result().notes
        assert note.startswith("2024-01.csv: not read")


def test_what_a_feed_delivers_under_another_name_stands_after_what_it_delivered_before(tmp_path: Path) -> None:
    kept, shop = Kept(tmp_path), make_source(tmp_path / "shop")
    other = shop.model_copy(update={"name": "other", "merchant": shop.merchant.model_copy(update={"id": "other"})})
    for n in range(3):
        put(tmp_path / "shop", f"day-{n}.csv", csv_text(str(n)))

    def places(source: Source, *declared: Source) -> list[int]:
        return [f.plan["delivery_seq"] for f in kept.look(source, declared).files]

    assert places(shop, other) == [1000, 2000, 3000]
    assert places(other, shop) == [1000, 2000, 3000], "merchants have orders of their own"
    (feed,) = make_source(tmp_path / "feed").feeds
    put(tmp_path / "feed", "correction.csv", csv_text("0"))
    assert places(shop.model_copy(update={"feeds": (feed.model_copy(update={"name": "persons"}),)}), other) == [4000]
    put(tmp_path / "source", "correction.csv", csv_text("1"))
    assert places(make_source(tmp_path / "source", name="crm"), other) == [5000]


def test_names_stand_in_the_order_of_their_numbers_whatever_signs_they_hold(tmp_path: Path) -> None:
    for name in ("①10.csv", "①9.csv", "m².csv", "٣.csv"):
        put(tmp_path / "in", name, csv_text(name))
    found = Kept(tmp_path).look(make_source(tmp_path / "in"))
    assert [f.plan["file_name"] for f in found.files] == ["٣.csv", "m².csv", "①9.csv", "①10.csv"]


def test_a_location_that_is_not_there_keeps_no_upload_out_and_withdraws_no_refused_file(tmp_path: Path) -> None:
    kept, source = Kept(tmp_path), make_source(tmp_path / "share")
    put(tmp_path / "share", "empty.csv", "")
    kept.look(source)
    (tmp_path / "share").rename(tmp_path / "unplugged")
    put(tmp_path / "inbox" / "shop" / "people", "upload.csv", csv_text("1"))
    found = kept.look(source)
    assert [Path(f.inspection.identity.path).name for f in found.files] == ["upload.csv"]
    ((where, why),) = found.refused
    assert where == str(tmp_path / "share")
    assert "does not exist" in why
    assert kept.waiting() == {"empty.csv": "waiting"}


def test_a_refused_file_put_back_to_known_bytes_waits_no_longer(tmp_path: Path) -> None:
    kept, source = Kept(tmp_path), make_source(tmp_path / "in")
    put(tmp_path / "in", "a.csv", csv_text("1"))
    kept.look(source)
    put(tmp_path / "in", "a.csv", "")
    put(tmp_path / "in", "b.csv", "")
    put(tmp_path / "in", "c.csv", "")
    kept.look(source)
    put(tmp_path / "in", "a.csv", csv_text("1"))
    put(tmp_path / "in", "b.csv", csv_text("1"))
    (tmp_path / "in" / "c.csv").unlink()
    kept.look(source)
    assert kept.waiting() == {"a.csv": "resolved", "b.csv": "resolved", "c.csv": "withdrawn"}
    assert kept.look(source).retries == []


@pytest.mark.parametrize("engine", ["databricks", "connect"])
def test_where_spark_is_elsewhere_a_stream_is_the_batch_it_equals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    """A micro-batch runs in another process there, and neither a lakehouse nor its locks can be sent to it."""
    landed: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stream, "land_source", lambda *given, **_: landed.append(given) or ["a result"])
    put(tmp_path / "in", "day-1.csv", csv_text("1"))
    source = make_source(tmp_path / "in")
    spark = MagicMock()
    lake = Lake(spark, Settings(data_dir=tmp_path, spark=SparkSettings(engine=engine, remote="sc://localhost")))
    assert stream.stream_feed(lake, source, source.feeds[0], run=FakeRun()) == ["a result"]
    assert len(landed) == 1
    assert not spark.readStream.mock_calls
