"""Segments as files: CSV, JSON lines and Parquet with digests, a manifest, and `_SUCCESS` when all of it is there.

    <folder>/<destination>/<website>/<segment>/as_of=<day>/<segment>.csv  <segment>.parquet  manifest.json  _SUCCESS

A reader never sees half an export: everything is written beside and moved into place as a whole. Content that is there
already is left alone, bytes, manifest and all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from connectors.audience import REASONS, Audience
from connectors.base import Export, ExportedFile, ExportedSegment, FileDestination
from connectors.exchange import NotEligible
from connectors.identifiers import neutralise_cell
from lakehouse.moves import MARKER, move

SAMPLE_NOTE: Final = (
    "Contact details and consent in this export are a generated sample, not those of real people; do not upload it."
)
_ABOUT_THE_RUN: Final = ("run_id", "exported_at")


@dataclass(frozen=True)
class FileConnector:
    """Writes audiences to a folder.

    Attributes:
        config: Settings of the destination.
        folder: Where exports are.
    """

    config: FileDestination
    folder: Path

    @property
    def root(self) -> Path:
        """Folder of the destination."""
        return self.folder.resolve() / self.config.name

    def deliver(
        self,
        audience: Audience,
        segments: Sequence[ExportedSegment],
        *,
        as_of: date,
        run_id: str,
        started_at: datetime,
    ) -> tuple[Export, ...]:
        """Write every segment of every website in the audience.

        Args:
            audience: From `connectors.audience.plan_audience`.
            segments: What leaves; members of other segments are ignored.
            as_of: Day of the membership.
            run_id: Run that exports.
            started_at: When it started, UTC.

        Returns:
            One export per segment and website that has a member or had one in an export of the same day, ordered by
            website and segment.
        """
        staging = self.root / "_staging"
        shutil.rmtree(staging, ignore_errors=True)  # what a run that died left behind
        eligible, columns, tallies = who_leaves(self.config, audience, segments)
        staged = self._stage(eligible, columns, staging)
        by_id = {s.segment_id: s for s in segments}
        for key in self._exported(by_id, as_of):
            tallies.setdefault(key, Tally())  # everyone has left since: the files of that day must not keep them
        exports = [
            self._publish(by_id[key[1]], key[0], tallies[key], columns, staged, staging, as_of, run_id, started_at)
            for key in sorted(tallies)
        ]
        shutil.rmtree(staging, ignore_errors=True)
        return tuple(exports)

    def _exported(self, segment_ids: Collection[str], as_of: date) -> Iterator[tuple[str, str]]:
        for folder in self.root.glob(f"*/*/as_of={as_of.isoformat()}"):
            if folder.parent.name in segment_ids:
                yield unquote(folder.parent.parent.name), folder.parent.name

    def _stage(self, eligible: DataFrame, columns: list[str], staging: Path) -> Mapping[str, Path]:
        """Write all segments at once, one job per format, and return the folder of each."""
        folders = write_parts(eligible, columns, self.config, str(staging / "spark"))
        return {name: Path(folder) for name, folder in folders.items()}

    def _publish(
        self,
        segment: ExportedSegment,
        website_id: str,
        tally: Tally,
        columns: list[str],
        staged: Mapping[str, Path],
        staging: Path,
        as_of: date,
        run_id: str,
        started_at: datetime,
    ) -> Export:
        place = Path(_safe_name(website_id), segment.segment_id, f"as_of={as_of.isoformat()}")
        ready, final = staging / "ready" / place, self.root / place
        ready.mkdir(parents=True)
        files: list[dict[str, Any]] = []
        for kind in self.config.formats:
            found = _find_parts(staged[kind], segment.segment_id, website_id)
            files += self._take(found, kind, segment.segment_id, tally.eligible, columns, ready)
        excluded = {reason: tally.excluded.get(reason, 0) for reason in REASONS}
        content = say_export(self.config, segment, website_id, tally, columns, as_of) | {"files": files}
        there = _read_manifest(final)
        is_new = there is None or {k: v for k, v in there.items() if k not in _ABOUT_THE_RUN} != content
        if there is None or is_new:
            there = content | {"run_id": run_id, "exported_at": started_at.isoformat()}
            (ready / "manifest.json").write_text(json.dumps(there, indent=2, ensure_ascii=False) + "\n", "utf-8")
            (ready / MARKER).touch()
            _move_into_place(ready, final, staging / "replaced" / place)
        return Export(
            destination=self.config.name,
            segment=segment,
            consent=self.config.consent,
            website_id=website_id,
            as_of=as_of,
            manifest=final / "manifest.json",
            files=tuple(
                ExportedFile(final / f["name"], f["format"], f["rows"], f["bytes"], f["sha256"]) for f in files
            ),
            members=tally.members,
            eligible=tally.eligible,
            excluded=excluded,
            is_sample=tally.is_sample,
            is_new=is_new,
            run_id=str(there["run_id"]),
            exported_at=datetime.fromisoformat(there["exported_at"]),
        )

    def _take(
        self, parts: list[Path], kind: str, segment_id: str, rows: int, columns: list[str], ready: Path
    ) -> list[dict[str, Any]]:
        """Move the parts of a segment under their lasting names and describe them."""
        if not parts:
            target = ready / f"{segment_id}.{kind}"
            if kind == "csv":
                target.write_text(",".join(columns) + "\n", "utf-8")
            elif kind == "jsonl":
                target.touch()
            else:
                pq.write_table(pa.schema([(c, pa.string()) for c in columns]).empty_table(), target)
            return [_describe(target, kind, 0)]
        described = []
        size = self.config.max_rows_per_file
        for n, part in enumerate(parts):
            suffix = f"-{n + 1:05d}" if len(parts) > 1 else ""
            target = ready / f"{segment_id}{suffix}.{kind}"
            move(part, target)
            described.append(_describe(target, kind, min(size, rows - n * size)))
        return described


@dataclass
class Tally:
    """Members of a segment of a website: all, those who leave, and the others by reason."""

    members: int = 0
    eligible: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    is_sample: bool = False


def who_leaves(
    config: FileDestination, audience: Audience, segments: Sequence[ExportedSegment]
) -> tuple[DataFrame, list[str], dict[tuple[str, str], Tally]]:
    """Take an audience to a file destination.

    Args:
        config: The destination.
        audience: From `connectors.audience.plan_audience`.
        segments: What leaves; members of other segments are ignored.

    Returns:
        segment_id, website_id and the exported columns of everyone who leaves; the names of these columns, the member's
        id and digests; and who is in and out per website and segment.

    Raises:
        NotEligible: the audience was not planned for this destination.
    """
    if not isinstance(audience, Audience) or audience.destination != config:
        raise NotEligible(f"{config.name} takes the audience planned for it and nothing else.")
    wanted = audience.frame.where(F.col("segment_id").isin([s.segment_id for s in segments]))
    columns = [c for c in wanted.columns if c == "member_id" or c.endswith("_sha256")]
    eligible = wanted.where(F.col("excluded").isNull()).select("segment_id", "website_id", *columns)
    return eligible, columns, count_members(wanted)


def write_parts(eligible: DataFrame, columns: Sequence[str], config: FileDestination, folder: str) -> dict[str, str]:
    """Write those who leave in every format of a destination, a folder per segment and website; one job per format.

    Returns:
        Folder of each format. Parquet is written whatever is asked for, and the others are made from it.
    """
    folders = {name: f"{folder}/{name}" for name in ("parquet", "csv", "jsonl")}
    parts = ["segment_id", "website_id"]

    def write(rows: DataFrame, name: str, **options: str) -> None:
        # One task holds a segment, in the order of its members, so the same members give the same bytes.
        ordered = rows.repartition(*parts).sortWithinPartitions(*parts, "member_id")
        writer = ordered.write.mode("overwrite").partitionBy(*parts).options(**options)
        writer = writer.option("maxRecordsPerFile", config.max_rows_per_file)
        writer.format("json" if name == "jsonl" else name).save(folders[name])

    write(eligible, "parquet", compression="zstd")
    # Read back: the joins are not done twice, and nothing but digests is held meanwhile.
    again = eligible.sparkSession.read.schema(eligible.schema).parquet(folders["parquet"])
    if "jsonl" in config.formats:
        write(again, "jsonl", compression="none", ignoreNullFields="false")
    if "csv" in config.formats:
        safe = again.select(*parts, *[neutralise_cell(F.col(c)).alias(c) for c in columns])
        write(safe, "csv", header="true", escape='"', encoding="UTF-8", compression="none")
    return folders


def say_export(
    config: FileDestination,
    segment: ExportedSegment,
    website_id: str,
    tally: Tally,
    columns: Sequence[str],
    as_of: date,
) -> dict[str, Any]:
    """Returns what a manifest says of one segment of one website, but for its files."""
    return {
        "destination": config.name,
        "segment_id": segment.segment_id,
        "segment_name": segment.name,
        "segment_version": segment.version,
        "website_id": website_id,
        "as_of": as_of.isoformat(),
        "is_sample": tally.is_sample,
        **({"sample_note": SAMPLE_NOTE} if tally.is_sample else {}),
        "consent": config.consent,
        "identifiers": {
            "member_id": "sha256 of website and customer number",
            **({"email_sha256": f"sha256, {config.email_rule} rule"} if "email_sha256" in columns else {}),
            **({"phone_sha256": f"sha256, {config.phone_rule} rule"} if "phone_sha256" in columns else {}),
        },
        "counts": {
            "members": tally.members,
            "exported": tally.eligible,
            "excluded": {reason: tally.excluded.get(reason, 0) for reason in REASONS},
        },
    }


def count_members(audience: DataFrame) -> dict[tuple[str, str], Tally]:
    """Members in and out per website and segment; a few rows whatever the audience."""
    counted = audience.groupBy("website_id", "segment_id", "excluded").agg(
        F.count(F.lit(1)).alias("members"), F.max("is_sample").alias("is_sample")
    )
    tallies: dict[tuple[str, str], Tally] = {}
    for row in counted.collect():
        tally = tallies.setdefault((row["website_id"], row["segment_id"]), Tally())
        tally.members += row["members"]
        tally.is_sample |= row["is_sample"]
        if row["excluded"] is None:
            tally.eligible += row["members"]
        else:
            tally.excluded[row["excluded"]] = row["members"]
    return tallies


def _find_parts(folder: Path, segment_id: str, website_id: str) -> list[Path]:
    for inner in (folder / f"segment_id={segment_id}").glob("website_id=*"):
        if unquote(inner.name.partition("=")[2]) == website_id:
            return sorted(p for p in inner.iterdir() if p.name.startswith("part-"))
    return []


def _describe(path: Path, kind: str, rows: int) -> dict[str, Any]:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"name": path.name, "format": kind, "rows": rows, "bytes": path.stat().st_size, "sha256": digest}


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a whole export; None when there is none, or when a file is not what the manifest says."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        is_whole = (folder / MARKER).exists() and all(
            _describe(folder / f["name"], f["format"], f["rows"]) == f for f in manifest["files"]
        )
    except (OSError, ValueError, KeyError):
        return None
    return manifest if is_whole else None


def _move_into_place(ready: Path, final: Path, replaced: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        # A folder cannot be exchanged in one step everywhere; between the two a reader finds none that is whole.
        replaced.parent.mkdir(parents=True, exist_ok=True)
        move(final, replaced)
    move(ready, final)


def _safe_name(website_id: str) -> str:
    """A folder name for any website id: one level, never `.` or `..`, different for different ids."""
    name = quote(website_id, safe="")
    return name.replace(".", "%2E") if not name.strip(".") else name
