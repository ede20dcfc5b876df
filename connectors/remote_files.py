"""Segments as files where only Spark can write: S3, ABFS, GCS, or any other address it knows.

    <location>/<destination>/as_of=<day>/<format>/segment_id=<segment>/website_id=<website>/part-*
    <location>/<destination>/as_of=<day>/manifest/part-*.txt, _SUCCESS

An object store moves nothing into place as a whole, so a reader goes by the manifest: it lists each file with rows,
bytes and SHA-256, and `_SUCCESS` beside it is written last. While a day is written again its manifest says so and
lists nothing. Everything is a Spark read or write, digests included, so it runs through Spark Connect too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from connectors.audience import REASONS, Audience
from connectors.base import Export, ExportedFile, ExportedSegment, FileDestination
from connectors.files import Tally, say_export, who_leaves, write_parts
from lakehouse.lake import exact_sum

_ROWS_PER_FILE: Final = 250_000
"""Rows of a file at most: its digest is made from it as a whole, 50 MB of CSV."""


@dataclass(frozen=True)
class RemoteFileConnector:
    """Writes audiences to a location.

    Attributes:
        config: Settings of the destination.
        spark: Session that writes.
    """

    config: FileDestination
    spark: SparkSession

    def deliver(
        self,
        audience: Audience,
        segments: Sequence[ExportedSegment],
        *,
        as_of: date,
        run_id: str,
        started_at: datetime,
    ) -> tuple[Export, ...]:
        """Write every segment of every website in the audience; content that is there already is left alone.

        Args:
            audience: From `connectors.audience.plan_audience`.
            segments: What leaves; members of other segments are ignored.
            as_of: Day of the membership.
            run_id: Run that exports.
            started_at: When it started, UTC.

        Returns:
            One export per segment and website that has a member, ordered by website and segment.
        """
        day = f"{str(self.config.location).rstrip('/')}/{self.config.name}/as_of={as_of.isoformat()}"
        eligible, columns, tallies = who_leaves(self.config, audience, segments)
        by_id = {s.segment_id: s for s in segments}
        said = {
            "content": _digest_of(eligible, columns),
            "formats": list(self.config.formats),
            "exports": [
                say_export(self.config, by_id[key[1]], key[0], tallies[key], columns, as_of) for key in sorted(tallies)
            ],
        }
        there = self._manifest(day)
        is_new = there is None or any(there.get(k) != v for k, v in said.items())
        if is_new:
            self._say(day, {"is_being_written": True})
            config = self.config.model_copy(
                update={"max_rows_per_file": min(self.config.max_rows_per_file, _ROWS_PER_FILE)}
            )
            folders = write_parts(eligible, columns, config, day)
            files = [f for kind in self.config.formats for f in self._describe(folders[kind], kind, eligible)]
            there = {**said, "files": files, "run_id": run_id, "exported_at": started_at.isoformat()}
            self._say(day, there)
        assert there is not None  # noqa: S101 - it was read or has just been made
        return tuple(
            self._export(day, there, by_id[key[1]], key[0], tallies[key], as_of, is_new) for key in sorted(tallies)
        )

    def _describe(self, folder: str, kind: str, eligible: DataFrame) -> list[dict[str, Any]]:
        """Rows, bytes and digest of each file, read where the files are; a few rows come back."""
        reader = self.spark.read.schema(eligible.schema)
        if kind == "csv":
            reader = reader.option("header", True).option("escape", '"')
        rows = reader.format("json" if kind == "jsonl" else kind).load(folder)
        counted = rows.groupBy(F.col("_metadata.file_path").alias("path")).agg(F.count(F.lit(1)).alias("rows"))
        raw = self.spark.read.format("binaryFile").option("recursiveFileLookup", True)
        raw = raw.option("pathGlobFilter", "part-*")
        where = F.col("_metadata.file_path").alias("path")
        found = raw.load(folder).select(where, "length", F.sha2("content", 256).alias("sha256"))
        sizes = {_name(r["path"]): r for r in found.collect()}
        described = []
        for name, n in sorted((_name(r["path"]), r["rows"]) for r in counted.collect()):
            size = sizes[name]
            described.append(
                {"path": f"{kind}/{name}", "format": kind, "rows": n, "bytes": size["length"], "sha256": size["sha256"]}
            )
        return described

    def _manifest(self, day: str) -> dict[str, Any] | None:
        try:
            lines = self.spark.read.text(f"{day}/manifest").collect()
        except AnalysisException as e:
            if e.getCondition() != "PATH_NOT_FOUND":
                raise
            return None
        try:
            found: dict[str, Any] = json.loads("".join(r[0] for r in lines))
        except ValueError:
            return None
        return None if found.get("is_being_written") else found

    def _say(self, day: str, manifest: Mapping[str, Any]) -> None:
        # One line: Spark writes each as a row, and the order of rows is not to be relied on.
        line = json.dumps(manifest, ensure_ascii=False)
        self.spark.createDataFrame([(line,)], "value string").coalesce(1).write.mode("overwrite").text(
            f"{day}/manifest"
        )

    def _export(
        self,
        day: str,
        manifest: Mapping[str, Any],
        segment: ExportedSegment,
        website_id: str,
        tally: Tally,
        as_of: date,
        is_new: bool,
    ) -> Export:
        def is_ours(path: str) -> bool:
            parts = dict(p.split("=", 1) for p in path.split("/") if "=" in p)
            return (parts.get("segment_id"), unquote(parts.get("website_id", ""))) == (segment.segment_id, website_id)

        files = [f for f in manifest["files"] if is_ours(f["path"])]
        return Export(
            destination=self.config.name,
            segment=segment,
            consent=self.config.consent,
            website_id=website_id,
            as_of=as_of,
            manifest=f"{day}/manifest",
            files=tuple(
                ExportedFile(f"{day}/{f['path']}", f["format"], f["rows"], f["bytes"], f["sha256"]) for f in files
            ),
            members=tally.members,
            eligible=tally.eligible,
            excluded={reason: tally.excluded.get(reason, 0) for reason in REASONS},
            is_sample=tally.is_sample,
            is_new=is_new,
            run_id=str(manifest["run_id"]),
            exported_at=datetime.fromisoformat(manifest["exported_at"]),
        )


def _digest_of(eligible: DataFrame, columns: Sequence[str]) -> str:
    """A digest of who leaves with what, whatever the order: rows, and the sum of their hashes."""
    hashed = exact_sum(F.xxhash64("segment_id", "website_id", *columns))
    row = eligible.agg(F.count(F.lit(1)).alias("n"), hashed.alias("s")).collect()[0]
    return f"{row['n']}:{row['s'] or 0}"


def _name(path: str) -> str:
    """The part of an address below the format's folder, as the file is called; `_metadata` has it as in a URI."""
    return unquote("/".join(path.split("/")[-3:]))
