"""The bench's work by the product's own producers on Sail, a native engine behind Spark Connect.

The runner is the product's, the functions it calls are the product's, and so are the Delta tables they fill. What Sail
does not offer is left out, so this measures transforms and writing, not the keeping of tables: no constraints, no row
counts and checksums observed while writing, and no merges, which a first run does not need. Nor does Sail tell the
position of a row in a Parquet file, so files are written again with it first; that is measured as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bench.engines.ours import Recorder, bench_settings, configuration, needed_steps, prepare_conf
from bench.engines.work import Arguments, Steps, run_engine
from lakehouse import ddl
from lakehouse.declare import Table, table_of
from lakehouse.lake import Lake, WriteResult
from lakehouse.runner import Run, run_steps
from lakehouse.session import SparkSettings, build_session
from pipelines.bronze.landing import accepted
from pipelines.bronze.load_sources import load_sources
from pipelines.bronze.places import locate
from pipelines.bronze.preflight import inspect
from pipelines.bronze.rows import SEQUENCE_STEP, Part, type_rows, union_rows
from pipelines.bronze.sources import Feed, Source

_POSITION = "_position"


class SailLake(Lake):
    """Tables as Sail can write them."""

    def ensure(self, which: Any) -> Table:
        """The declaration; the first write makes the table."""
        return table_of(which)

    def _insert(
        self, t: Table, rows: DataFrame, options: Mapping[str, str], mode: str, txn: tuple[str, int] | None
    ) -> WriteResult:
        how = {} if self.version(t) is None else options
        rows.write.format("delta").mode(mode).options(**how).save(str(self.path(t)))
        return WriteResult(self.count(t), self.version(t), None)


def work(args: Arguments, steps: Steps) -> None:
    from pysail.spark import SparkConnectServer

    record = Recorder()
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    spark = SparkSettings(engine="connect", remote="sc://{}:{}".format(*server.listening_address))
    settings = bench_settings(args.out / "lake", prepare_conf(args.out / "conf"), args.data, spark)
    lake = SailLake(build_session(settings.spark, settings.data_dir, "bench"), settings)
    record.lap("session")
    sources = load_sources(settings.conf_dir, settings.variables)
    run = Run.begin(as_of=args.as_of, sources=sources, **configuration(settings.conf_dir))
    source = sources.source("bench")
    for feed in source.feeds:
        _land(lake, source, feed, run)
    record.lap("bronze")
    run_steps(lake, needed_steps(), run, progress=record.step)
    steps.done |= record.done
    lake.spark.stop()
    server.stop()


def _land(lake: Lake, source: Source, feed: Feed, run: Run) -> None:
    scratch = lake.settings.data_dir.resolve() / "_ingest"
    scratch.mkdir(parents=True, exist_ok=True)
    parts = [
        _part(path, feed, number * SEQUENCE_STEP, scratch)
        for number, path in enumerate(locate(source, feed, lake.settings.conf_dir, lake.settings.data_dir))
    ]
    if not parts:
        return
    typed = union_rows(type_rows(_delivered(lake, p), source, feed, p, 0, run.started_at) for p in parts)
    lake.write(f"bronze.stg_{feed.subject}", typed.where(F.col("parse_errors").isNotNull()))
    lake.write(f"bronze.raw_{feed.subject}", accepted(typed))


def _part(path: Path, feed: Feed, delivery_seq: int, scratch: Path) -> Part:
    found = inspect(path, feed)
    copy = scratch / f"{found.identity.sha256}.parquet"
    _number_rows(path, copy)
    return Part(str(copy), "columns", found.columns, found.identity.sha256, str(path), path.name, delivery_seq)


def _number_rows(path: Path, to: Path) -> None:
    with pq.ParquetFile(path) as rows:
        schema = rows.schema_arrow.append(pa.field(_POSITION, pa.int64()))
        with pq.ParquetWriter(to, schema, compression="lz4") as out:
            first = 0
            for batch in rows.iter_batches(batch_size=1 << 17):
                numbers = pa.array(np.arange(first, first + batch.num_rows))
                out.write_batch(pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema))
                first += batch.num_rows


def _delivered(lake: Lake, part: Part) -> DataFrame:
    """As `pipelines.bronze.rows.read_delivered`."""
    cells = [F.col(ddl.quote(c.header)).alias(f"c{i}") for i, c in enumerate(part.columns)]
    about = {"_file_id": part.file_id, "_file_path": part.file_path, "_delivery": part.delivery}
    about |= {"_delivery_seq": part.delivery_seq}
    rows = lake.spark.read.parquet(part.path)
    return rows.select(*cells, F.col(_POSITION).alias("_row"), *[F.lit(v).alias(n) for n, v in about.items()])


if __name__ == "__main__":
    run_engine(work)
