"""Activation, measured: an export beside DuckDB writing the same file, and a sync of a large audience.

    python -m bench.activation export --people 50000
    python -m bench.activation send --people 1000000    engine and connector alone, without Spark
    python -m bench.activation sync --people 1000000    with audience, plan and ledger on Delta

Both send to a stand-in for Meta in a process of its own, which keeps the audience, and reports how much memory the
driver took, Python and Java apart.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections import deque
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from connectors.activation import Activation
from connectors.audience import plan_audience
from connectors.base import BatchDestination, ExportedSegment, FileDestination
from connectors.brakes import PlacePlan
from connectors.destinations import kinds
from connectors.engine import Engine
from connectors.exchange import Place, Row, cut_batches
from connectors.files import FileConnector
from connectors.pace import SystemClock
from lakehouse.lake import Lake
from lakehouse.session import build_session
from lakehouse.settings import load_settings
from tests.support.fakes.advertising import TOKEN, FakeMeta
from tests.support.fakes.server import serve
from tests.support.memory_ledger import MemoryLedger
from tests.support.rows import rows

DAY, AT = date(2026, 1, 1), datetime(2026, 1, 1)  # noqa: DTZ001 - tables hold UTC without a zone


def people(spark: SparkSession, size: int) -> dict[str, DataFrame]:
    """Frames `plan_audience` reads: `size` members with address and number, of whom nine in ten agreed."""
    ids = spark.range(1, size + 1)
    name = F.format_string("c%08d", "id")

    def shaped(table: str, **columns: Any) -> DataFrame:
        empty = rows(spark, table)
        made = {f.name: F.lit(None).cast(f.dataType) for f in empty.schema.fields} | columns
        return ids.select(*[made[f.name].cast(f.dataType).alias(f.name) for f in empty.schema.fields])

    known = {"merchant_id": F.lit("shop"), "customer_id": name, "customer_key": F.col("id")}
    return {
        "members": shaped(
            "gold.customer_segment_customer",
            segment_id=F.lit("vip"),
            website_id=F.lit("shop"),
            customer_key=F.col("id"),
            customer_id=name,
            added_on=F.lit(DAY),
            version=F.lit("v"),
            added_at=F.lit(AT),
            updated_at=F.lit(AT),
        ),
        "customers": shaped(
            "gold.dim_customer",
            **known,
            customer_sk=F.col("id"),
            email=F.concat(F.lit(" Person."), F.col("id").cast("string"), F.lit("@Mail.example ")),
            phone=F.concat(F.lit("+49 30 "), F.col("id").cast("string")),
            is_current=F.lit(True),
            is_sample_contact=F.lit(False),
            first_seen_at=F.lit(AT),
            valid_from=F.lit(AT),
        ),
        "consents": shaped(
            "silver.consent",
            merchant_id=F.lit("shop"),
            customer_id=name,
            channel=F.lit("ads"),
            delivered_count=F.lit(1),
            delivered_hash=F.col("id"),
            is_granted=F.col("id") % 10 != 0,
            changed_at=F.lit(AT),
            is_sample=F.lit(False),
        ),
    }


def export(size: int, folder: Path) -> None:
    """Hash and write to CSV, in Spark and in DuckDB, from the same Parquet files; the rows are compared."""
    spark = session(folder)
    for name, frame in people(spark, size).items():
        frame.write.parquet(str(folder / name))
    config = FileDestination(name="files", kind="files", formats=("csv",))
    taken = []
    for attempt in range(3):
        began = time.perf_counter()
        read = [spark.read.parquet(str(folder / n)) for n in ("members", "customers", "consents")]
        nobody = rows(spark, "gold.activation_suppression")
        audience = plan_audience(*read, nobody, destination=config)
        connector = FileConnector(config, folder / f"ours{attempt}")
        (done,) = connector.deliver(
            audience, [ExportedSegment("vip", "VIP", "v")], as_of=DAY, run_id="bench", started_at=AT
        )
        taken.append(time.perf_counter() - began)
    beside = []
    for _ in range(3):
        began = time.perf_counter()
        duckdb.sql(
            f"""
            COPY (
              SELECT sha256(concat_ws(chr(31), m.website_id, m.customer_id)) AS member_id,
                sha256(lower(regexp_replace(email, '\\s+', '', 'g'))) AS email_sha256,
                sha256('+' || regexp_replace(phone, '[^0-9]', '', 'g')) AS phone_sha256
              FROM '{folder}/members/*.parquet' m
              JOIN '{folder}/customers/*.parquet' c ON c.customer_id = m.customer_id AND c.merchant_id = m.website_id
              JOIN '{folder}/consents/*.parquet' p ON p.customer_id = m.customer_id AND p.merchant_id = m.website_id
              WHERE c.is_current AND p.channel = 'ads' AND p.is_granted
              ORDER BY member_id
            ) TO '{folder}/duck.csv' (HEADER)
            """
        )
        beside.append(time.perf_counter() - began)
    with Path(done.files[0].path).open(encoding="utf-8") as a, (folder / "duck.csv").open(encoding="utf-8") as b:
        ours, theirs = sorted(map(tuple, csv.reader(a))), sorted(map(tuple, csv.reader(b)))
    ours = [tuple("+" + x[2:] if x.startswith("'+") else x for x in r) for r in ours]
    print(f"{size:,} members, {done.eligible:,} leave; rows equal: {ours == theirs}")
    print(f"ours {_times(taken)} with digest and manifest; DuckDB {_times(beside)}; warm {taken[-1] / beside[-1]:.1f}x")


def sync(size: int, folder: Path) -> None:
    """Bring an audience to an empty stand-in for Meta, and again with nothing to do."""
    spark = session(folder)
    lake = Lake(spark, load_settings("local", data_dir=folder))
    for table, frame in zip(
        ("gold.customer_segment_customer", "gold.dim_customer", "silver.consent"),
        people(spark, size).values(),
        strict=True,
    ):
        drop = ("customer_sk", "valid_to", "is_current") if table == "gold.dim_customer" else ()
        lake.write(table, frame.drop(*drop))
    segment = {"segment_id": "vip", "name": "VIP", "version": "v", "is_active": True}
    lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", [segment]))
    destination, here, stand_in = _meta()
    for run_id in ("first", "again"):
        began = time.perf_counter()
        report = Activation(lake, [destination], DAY, run_id, AT, is_confirmed=True).run()["meta"]
        seconds = time.perf_counter() - began
        sent = f"{report.ok:,} of {report.planned:,} acknowledged in {report.requests} requests"
        print(f"{run_id}: {report.state}, {sent}, {seconds:.1f} s; driver at most {_megabytes()}")
    here.send("count")
    print(f"the stand-in holds {here.recv():,} digests")
    stand_in.terminate()


def send(size: int, _: Path) -> None:
    """Send rows made on the way, as a ledger reads them from a table: what engine and connector cost by themselves."""
    destination, here, stand_in = _meta()
    place = Place("shop", "vip")

    class Rows(MemoryLedger):
        def plan(self, *, write: bool = True) -> list[PlacePlan]:
            return [PlacePlan(place, "VIP", size, size, 0, 0, 0, size)]

        def windows(self, lane: Any, places: Any, *, limit: int, batches: int) -> Any:
            for first in range(0, size, limit * batches):
                made = [_row(n) for n in range(first, min(size, first + limit * batches))]
                yield list(cut_batches(place, "add", made, limit))

        def sending(self, batches: Any) -> None:
            pass

        def record(self, outcomes: Any) -> None:
            pass

    began = time.perf_counter()
    report = Engine(destination.connect(SystemClock()), Rows("meta"), SystemClock()).run()
    seconds = time.perf_counter() - began
    print(f"{report.ok:,} rows in {report.requests} requests, {seconds:.1f} s; at most {_megabytes()}")
    here.send("count")
    print(f"the stand-in holds {here.recv():,} digests")
    stand_in.terminate()


def _row(n: int) -> Row:
    member, address, number = (hashlib.sha256(f"{kind}{n}".encode()).hexdigest() for kind in ("m", "e", "p"))
    return Row(member, member, member, {"EXTERN_ID": member, "EMAIL": address, "PHONE": number})


def _meta() -> tuple[BatchDestination, Any, Any]:
    """Settings of a destination that is the stand-in, a pipe to it, and its process."""
    os.environ["BENCH_TOKEN"] = TOKEN
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    stand_in = spawned.Process(target=_stand_in, args=(there,), daemon=True)
    stand_in.start()
    said = {"name": "meta", "kind": "meta", "base_url": here.recv(), "access_token": "env:BENCH_TOKEN"}
    made = kinds()["meta"].model_validate({**said, "audiences": {"vip": "4711"}})
    assert isinstance(made, BatchDestination)
    return made, here, stand_in


def session(folder: Path) -> SparkSession:
    settings = load_settings("local", data_dir=folder)
    return build_session(settings.spark, settings.data_dir)


def _stand_in(pipe: Any) -> None:
    fake = FakeMeta()
    fake.seen = deque(maxlen=1)  # type: ignore[assignment]
    with serve(fake) as url:
        pipe.send(url)
        pipe.recv()
        assert fake.wrong == []
        pipe.send(sum(len(s) for s in fake.state.values()))
        time.sleep(5)


def _megabytes() -> str:
    python = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    java = [p for p in psutil.Process().children(recursive=True) if "java" in p.name()]
    now = sum(p.memory_info().rss for p in java) / 2**20
    return f"{python:,.0f} MB Python, {now:,.0f} MB Java"


def _times(seconds: list[float]) -> str:
    return " / ".join(f"{s:.2f}" for s in seconds) + " s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.activation", description=__doc__)
    parser.add_argument("what", choices=("export", "send", "sync"))
    parser.add_argument("--people", type=int, default=50_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-activation-") as folder:
        {"export": export, "send": send, "sync": sync}[asked.what](asked.people, Path(folder))


if __name__ == "__main__":
    main()
