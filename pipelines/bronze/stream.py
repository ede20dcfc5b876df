"""The same landing as a stream: Spark notices new files, and the micro-batch that says so lands what is there.

The stream carries names of files, not rows, and what is new is for the manifest to say: Spark notices a name once, and
no file that is much older than the newest it saw. So a file that was still being copied, one that was corrected under
its name, or one of an old date would never land if only noticed files did. Hence a feed is looked through once in any
case, in the first micro-batch or, when there is none, after it. Preflight, typing and the exactly-once landing of
`pipelines.bronze.ingest` are those of a batch, so both end in the same tables with the same row numbers, rejects and
manifest, and the checkpoint may be lost or replayed without harm. Where Spark is not in this process it calls
back into another one, which has neither the lakehouse nor its locks. There nothing is streamed and the feed is looked
through once, for the manifest knows what is new.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame

from lakehouse.errors import SegmentationError, SourceError
from lakehouse.lake import Lake
from pipelines.bronze.ingest import land_source
from pipelines.bronze.places import inbox, literal, looking_through, place_of, split_pattern
from pipelines.bronze.records import FeedResult, RunLike
from pipelines.bronze.sources import Feed, Source

_LISTED = "path string, modificationTime timestamp, length bigint, content binary"
"""What Spark tells of a file; a stream wants it said beforehand."""


def stream_feed(
    lake: Lake, source: Source, feed: Feed, *, run: RunLike, declared: Iterable[Source] = ()
) -> list[FeedResult]:
    """Land all files that are there now as a stream (`availableNow`), then stop.

    Args:
        lake: Where tables are; the checkpoint is under its data directory.
        source: Source of the feed.
        feed: Its location is a folder, a glob or one file.
        run: Who lands it.
        declared: All sources there are, see `land_sources`.

    Returns:
        As `land_sources`: the feed's result, and those of feeds an earlier run had left open.

    Raises:
        SourceError: when files that Spark can read cannot be landed.
    """
    landed: list[FeedResult] = []
    failed: list[SegmentationError] = []

    def land() -> None:
        landed.extend(land_source(lake, source, [feed.name], run=run, declared=declared))

    def land_noticed(noticed: DataFrame, _: int) -> None:
        if landed or not noticed.limit(1).count():
            return
        try:
            land()
        except SegmentationError as e:
            failed.append(e)
            raise

    folders = _folders(lake, source, feed) if lake.settings.spark.engine == "local" else []
    checkpoint = lake.settings.data_dir.resolve() / "_checkpoints" / source.name / feed.name
    for number, (folder, pattern) in enumerate(folders):
        noticed = (
            lake.spark.readStream.format("binaryFile")
            .schema(_LISTED)
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
        try:
            query.awaitTermination()
        except StreamingQueryException as e:
            # Spark's error says of ours only that Python failed.
            raise (failed or [e])[0] from None
    if not landed:
        land()
    return landed


def can_stream(feed: Feed) -> bool:
    """Whether a feed's files come to a folder; those of a package or the configuration and generated ones do not."""
    return not feed.generator and not feed.location.startswith(("package:", "conf:"))


def _folders(lake: Lake, source: Source, feed: Feed) -> list[tuple[str, str]]:
    """Folders of a feed that are there and the pattern of its files' names, as Spark wants both.

    Of what cannot be looked through the landing tells.
    """
    found: list[tuple[str, str]] = []
    with suppress(SourceError), looking_through(source, feed):
        if feed.location and not feed.location.startswith("inbox:"):
            place = place_of(feed.location, lake.settings.conf_dir, lake.settings.data_dir)
            folder, pattern = split_pattern(place)
            if folder.is_file():
                found.append((literal(folder.parent), literal(folder.name)))
            elif folder.is_dir():
                *above, name = (pattern or "*").split("/")
                found.append(("/".join((literal(folder), *above)), name))
        drop = inbox(source, feed, lake.settings.data_dir)
        if drop.is_dir():
            found.append((literal(drop), "*"))
    return found
