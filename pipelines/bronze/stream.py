"""The same landing as a stream: Spark notices new files, and each micro-batch lands what it noticed.

The stream carries names of files, not rows: content goes through preflight, typing and the exactly-once landing of
`pipelines.bronze.ingest`, so a streamed feed and a batch feed end in the same tables with the same row numbers,
rejects and manifest. A micro-batch that is replayed after a crash finds its files in the manifest and lands nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pyspark.sql import DataFrame

from lakehouse.lake import Lake
from pipelines.bronze.ingest import land_source
from pipelines.bronze.places import inbox, literal, place_of, split_pattern
from pipelines.bronze.records import FeedResult, RunLike
from pipelines.bronze.sources import Feed, Source

MAX_FILES_PER_TRIGGER = 200

_LISTED = "path string, modificationTime timestamp, length bigint, content binary"
"""What Spark tells of a file; a stream wants it said beforehand."""


def stream_feed(lake: Lake, source: Source, feed: Feed, *, run: RunLike, declared: Iterable[Source] = ()) -> FeedResult:
    """Land all files that are there now as a stream (`availableNow`), then stop.

    Args:
        lake: Where tables are; the checkpoint is under its data directory.
        source: Source of the feed.
        feed: Its location is a folder, a glob or one file.
        run: Who lands it.
        declared: All sources there are, see `land_sources`.

    Returns:
        The micro-batches' results, added up.
    """
    results: list[FeedResult] = []

    def land_noticed(noticed: DataFrame, _: int) -> None:
        if noticed.limit(1).count():
            results.append(land_source(lake, source, [feed.name], run=run, declared=declared)[0])

    checkpoint = lake.settings.data_dir.resolve() / "_checkpoints" / source.name / feed.name
    for number, (folder, pattern) in enumerate(_folders(lake, source, feed)):
        noticed = (
            lake.spark.readStream.format("binaryFile")
            .schema(_LISTED)
            .option("maxFilesPerTrigger", MAX_FILES_PER_TRIGGER)
            .option("pathGlobFilter", pattern)
            .load(folder)
            # Without `content` the files are listed, not read.
            .select("path", "modificationTime", "length")
        )
        query = (
            noticed.writeStream.foreachBatch(land_noticed)
            .option("checkpointLocation", str(checkpoint / str(number)))
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
    total = FeedResult(source.name, feed.name)
    for r in results:
        total = replace(
            total,
            files_new=total.files_new + r.files_new,
            rows_accepted=total.rows_accepted + r.rows_accepted,
            rows_rejected=total.rows_rejected + r.rows_rejected,
            refused_files=r.refused_files,
            seconds=total.seconds + r.seconds,
            notes=(*total.notes, *r.notes),
        )
    return total


def can_stream(feed: Feed) -> bool:
    """Whether a feed's files come to a folder; those a package brings or a generator makes do not."""
    return not feed.generator and not feed.location.startswith("package:")


def _folders(lake: Lake, source: Source, feed: Feed) -> list[tuple[str, str]]:
    """Folders of a feed and the pattern of its files' names, as Spark wants both."""
    found: list[tuple[str, str]] = []
    if feed.location and not feed.location.startswith("inbox:"):
        place = place_of(feed.location, lake.settings.conf_dir, lake.settings.data_dir)
        folder, pattern = split_pattern(place)
        if pattern and folder.is_dir():
            *above, name = pattern.split("/")
            found.append(("/".join((literal(folder), *above)), name))
        elif folder.is_file():
            found.append((literal(folder.parent), literal(folder.name)))
        elif folder.parent.is_dir() and not pattern:
            found.append((literal(folder), "*"))
    drop = inbox(source, feed, lake.settings.data_dir)
    if drop.is_dir():
        found.append((literal(drop), "*"))
    return found
