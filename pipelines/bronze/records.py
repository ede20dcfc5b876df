"""What ingestion writes down about files: the open plan, manifest, layouts, audit and what is tried again.

Rows of those tables, made of what is known; nothing is decided here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from lakehouse.declare import table_of
from lakehouse.lake import Lake
from pipelines.bronze.preflight import Identity, Inspection, ReadColumn
from pipelines.bronze.sources import Feed, Source

Record = dict[str, Any]

PLAN, MANIFEST, ERRORS = "ingest.stg_raw", "ingest.raw_records", "ingest.ref_parsing_errors"

SCHEMAS, AUDIT, RETRIES = "ingest.ref_file_schema", "ingest.audit_ingest", "ingest.stage_retries"

ACCEPTED = ("landed", "landed_with_rejects", "empty")


class RunLike(Protocol):
    """What ingestion needs to know of a run."""

    @property
    def run_id(self) -> str:
        """Identifies the run in every record."""

    @property
    def started_at(self) -> datetime:
        """Start, naive UTC."""


@dataclass(frozen=True)
class FeedResult:
    """What happened to one feed.

    Attributes:
        source: Source.
        feed: Feed.
        files_new: Files read.
        rows_accepted: Rows appended to `bronze.raw_<subject>`.
        rows_rejected: Rows refused, with reasons in `ingest.ref_parsing_errors`.
        refused_files: Path and reason of each file that was not read.
        seconds: Wall seconds of looking and landing.
        notes: What is odd about the files, for people.
    """

    source: str
    feed: str
    files_new: int = 0
    rows_accepted: int = 0
    rows_rejected: int = 0
    refused_files: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def with_landed(result: FeedResult, landed: Sequence[Record], lost: Sequence[Record] = ()) -> FeedResult:
    """A result with the counts of more files that landed and the reasons of some that did not, from their plan rows."""
    return replace(
        result,
        files_new=result.files_new + len(landed),
        rows_accepted=result.rows_accepted + sum(r["rows_accepted"] for r in landed),
        rows_rejected=result.rows_rejected + sum(r["rows_rejected"] for r in landed),
        refused_files=(*result.refused_files, *((r["file_path"], r["reason"]) for r in lost)),
    )


Progress = Callable[[str, FeedResult | None], None]
"""Called with `source.feed` when a feed's files start to be read (None) and when they are in."""


def plan_row(run: RunLike, source: Source, feed: Feed, found: Inspection, change: str, delivery_seq: int) -> Record:
    """Row of the plan for a file that is about to land; its batch is filled in later."""
    layout = _layout(feed, found)
    return {
        "record_key": record_key(source, feed, found.identity),
        "batch_id": 0,
        "source": source.name,
        "feed": feed.name,
        "subject": feed.subject,
        "status": "planned",
        "file_path": found.identity.path,
        "file_name": Path(found.identity.path).name,
        "file_type": file_type(feed, found.identity.path),
        "payload_hash": found.identity.sha256,
        "size_bytes": found.identity.size,
        "modified_ns": found.identity.modified_ns,
        "delivery_seq": delivery_seq,
        "change": change,
        "line_count": found.lines or None,
        "expected_rows": found.rows,
        "undecodable_lines": found.undecodable,
        "encoding": found.encoding,
        "staging": "all",
        "observed": json.dumps(layout),
        "schema_hash": digest(feed.fingerprint, json.dumps(layout)),
        "declaration": feed.fingerprint,
        "is_sample": source.is_sample,
        "notes": list(found.notes),
        "reason": None,
        "run_id": run.run_id,
        "planned_at": run.started_at,
    }


def _layout(feed: Feed, found: Inspection) -> list[Record]:
    rows: list[Record] = []
    columns: dict[str, ReadColumn] = {c.header: c for s in found.sheets for c in s.columns}
    for i, c in enumerate(columns.values() if columns else found.columns, start=1):
        expected = feed.columns[c.declared] if c.declared else None
        rows.append(
            {
                "column_name": c.header,
                "position": i,
                "declared_name": c.declared,
                "expected_type": expected.type if expected else None,
                "observed_type": c.stored or "text",
                "is_required": bool(expected and expected.required),
                "drift": "extra" if expected is None else "as_declared" if c.declared == c.header else "alias",
            }
        )
    rows += [
        {
            "column_name": m,
            "position": None,
            "declared_name": m,
            "expected_type": feed.columns[m].type,
            "observed_type": None,
            "is_required": feed.columns[m].required,
            "drift": "missing",
        }
        for m in found.missing
    ]
    return rows


def layout_rows(landed: Record) -> dict[tuple[str, str, str, str], Record]:
    """Rows of `ref_file_schema` for one file's layout, and the further keys its records turned out to have."""
    columns = json.loads(landed["observed"])
    known = {c["column_name"] for c in columns}
    more = [k for k in landed["keys"] if k not in known]
    columns += [
        {
            "column_name": k,
            "position": None,
            "declared_name": None,
            "expected_type": None,
            "observed_type": "text",
            "is_required": False,
            "drift": "extra",
        }
        for k in more
    ]
    schema_hash = digest(landed["schema_hash"], *more) if more else landed["schema_hash"]
    about = {
        "source": landed["source"],
        "feed": landed["feed"],
        "schema_hash": schema_hash,
        "first_file_id": landed["payload_hash"],
        "first_batch_id": landed["batch_id"],
        "first_seen_at": landed["planned_at"],
    }
    return {(landed["source"], landed["feed"], schema_hash, c["column_name"]): about | c for c in columns}


def landed_row(r: Record) -> Record:
    """Row of the manifest for a landed file, from its plan row with counts."""
    status = (
        "empty"
        if r["rows_read"] == 0
        else "rejected"
        if r["rows_accepted"] == 0
        else "landed_with_rejects"
        if r["rows_rejected"]
        else "landed"
    )
    return {
        **{
            k: r[k]
            for k in (
                "record_key",
                "feed",
                "subject",
                "change",
                "batch_id",
                "file_path",
                "file_name",
                "payload_hash",
                "size_bytes",
                "delivery_seq",
                "rows_read",
                "rows_accepted",
                "rows_rejected",
                "checksum_accepted",
                "checksum_rejected",
                "line_count",
                "schema_hash",
                "declaration",
                "is_sample",
                "notes",
                "run_id",
            )
        },
        "source_system_id": r["source"],
        "status_id": status,
        "file_type_id": r["file_type"],
        "recorded_at": r["planned_at"],
    }


def lost_row(r: Record, code: str) -> Record:
    """Row of the manifest for a planned file that turned out not to be readable whole, from its plan row."""
    counts = ("rows_read", "rows_accepted", "rows_rejected", "checksum_accepted", "checksum_rejected")
    of_none = {"batch_id": None, "delivery_seq": None, "schema_hash": None}
    told = {"status_id": "refused", "reason_code": code, "reason": r["reason"]}
    return landed_row(r | dict.fromkeys(counts, 0)) | of_none | told


def manifest_row(run: RunLike, source: Source, feed: Feed, found: Inspection, status: str) -> Record:
    """Row of the manifest for a file that was refused or is known already."""
    code, reason = found.refusal or (None, None)
    return {
        "record_key": record_key(source, feed, found.identity),
        "source_system_id": source.name,
        "feed": feed.name,
        "subject": feed.subject,
        "status_id": status,
        "change": "redelivered" if status == "redelivered" else "new",
        "batch_id": None,
        "file_path": found.identity.path,
        "file_name": Path(found.identity.path).name,
        "file_type_id": file_type(feed, found.identity.path),
        "payload_hash": found.identity.sha256,
        "size_bytes": found.identity.size,
        "delivery_seq": None,
        "rows_read": 0,
        "rows_accepted": 0,
        "rows_rejected": 0,
        "checksum_accepted": 0,
        "checksum_rejected": 0,
        "line_count": found.lines or None,
        "schema_hash": None,
        "declaration": feed.fingerprint,
        "is_sample": source.is_sample,
        "notes": list(found.notes),
        "reason_code": code,
        "reason": reason,
        "run_id": run.run_id,
        "recorded_at": run.started_at,
    }


def audit_rows(run: RunLike, landed: Sequence[Record]) -> list[Record]:
    """One row per batch with the sums over its files."""
    rows: list[Record] = []
    for batch_id in sorted({r["batch_id"] for r in landed}):
        files = [r for r in landed if r["batch_id"] == batch_id]
        totals = {
            k: sum(r[k] for r in files)
            for k in (
                "rows_read",
                "rows_accepted",
                "rows_rejected",
                "checksum_accepted",
                "checksum_rejected",
                "size_bytes",
            )
        }
        about = {k: files[0][k] for k in ("batch_id", "source", "feed", "subject")}
        rows.append(about | totals | {"run_id": run.run_id, "files": len(files), "landed_at": run.started_at})
    return rows


def retry_row(
    before: Record | None, run: RunLike, key: tuple[str, str, str], payload_hash: str, refusal: tuple[str, str]
) -> Record:
    """Row of what is tried again; `before` is the one that is there."""
    return {
        "source": key[0],
        "feed": key[1],
        "file_path": key[2],
        "status": "waiting",
        "reason_code": refusal[0],
        "reason": refusal[1],
        "payload_hash": payload_hash,
        "attempts": (before["attempts"] if before else 0) + 1,
        "first_refused_at": before["first_refused_at"] if before else run.started_at,
        "last_tried_at": run.started_at,
        "run_id": run.run_id,
    }


def write_records(
    lake: Lake, name: str, records: Iterable[Mapping[str, Any]], *, txn: tuple[str, int] | None = None
) -> None:
    """Write rows of one of these tables by its kind."""
    t = table_of(name)
    rows = [{str(c): _stored(c.spec.type, r.get(c)) for c in t.columns} for r in records]
    lake = lake.for_rows(len(rows))
    lake.write(t, lake.frame(t, rows), txn=txn)


def _stored(kind: str, value: Any) -> Any:
    return Decimal(value) if kind.startswith("decimal") and value is not None else value


def file_type(feed: Feed, path: str) -> str:
    """Key of `ingest.dim_file_type`."""
    return f"{feed.format}.gz" if path.lower().endswith(".gz") else feed.format


def record_key(source: Source, feed: Feed, identity: Identity) -> str:
    """Key of one delivery: the same bytes at the same path for the same feed."""
    return digest(source.name, feed.name, identity.path, identity.sha256)


def identity_of(row: Record) -> Identity:
    """The file a plan row is about, as it was inspected."""
    return Identity(row["file_path"], row["size_bytes"], row["modified_ns"], row["payload_hash"])


def digest(*parts: str) -> str:
    """Short SHA-256 of some texts."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
