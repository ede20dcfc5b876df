"""What leaves the lakehouse: exports and the report."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from jobs.context import Job
from jobs.progress import Progress
from lakehouse.fingerprints import code_fingerprint
from lakehouse.yaml_file import yaml_files

_EXPORT = "connectors.delivery:export_segments"


def export(job: Job, progress: Progress, as_of: date, *, force: bool = False) -> list[Path]:
    """Write the published segments to every active file destination; returns the folders.

    Nothing is looked at again while what was published, the destinations and the files are as the last export left
    them.
    """
    from connectors.delivery import READS, export_segments, exported_folders

    with progress.task("export", "file destinations") as done:
        inputs = {name: v for name in READS if (v := job.lake.version(name)) is not None}
        mark = _mark(job, as_of)
        last = None if force else job.audit_log.last(_EXPORT)
        if last and last["fingerprint"] == mark and dict(last["input_versions"]) == inputs:
            folders = exported_folders(job.lake, job.settings, as_of)
            if folders is not None:
                done("up to date")
                return folders
        began, clock = datetime.now(UTC).replace(tzinfo=None), time.monotonic()
        exports, written = export_segments(
            job.lake,
            job.settings,
            as_of=as_of,
            run_id=job.run.run_id,
            started_at=job.run.started_at,
            told=progress.note,
        )
        job.audit_log.add(
            [
                {
                    "run_id": job.run.run_id,
                    "step": _EXPORT,
                    "table_name": "gold.segment_export",
                    "status": "succeeded",
                    "started_at": began,
                    "ended_at": datetime.now(UTC).replace(tzinfo=None),
                    "seconds": time.monotonic() - clock,
                    "input_versions": inputs,
                    "output_version": written.version,
                    "fingerprint": mark,
                    "rows_read": sum(job.lake.count(name, version=v) for name, v in inputs.items()),
                    "rows_written": written.rows_written,
                    "checksum": None if written.checksum is None else Decimal(written.checksum),
                }
            ]
        )
        job.audit_log.flush()
        done(sum(f.rows for e in exports for f in e.files))
    return list(dict.fromkeys(e.manifest.parent for e in exports if isinstance(e.manifest, Path)))


def _mark(job: Job, as_of: date) -> str:
    from connectors.campaigns import load_activation

    _, campaigns = load_activation(job.settings.conf_dir)
    said = hashlib.sha256(as_of.isoformat().encode())
    said.update(code_fingerprint("connectors.delivery").encode())
    for folder in ("destinations", "campaigns"):
        for path in yaml_files(job.settings.conf_dir / folder):
            said.update(path.name.encode() + path.read_bytes())
    today = job.run.started_at.date()
    for campaign in campaigns:
        said.update(f"{campaign.name} {campaign.schedule.why_not(today)}".encode())
    return said.hexdigest()[:16]


def report(job: Job, progress: Progress, as_of: date, *, force: bool = False) -> Path:
    """Write the report page, or name the last one when nothing has changed since."""
    from apps.report.build import build_report, standing_report

    standing = None if force else standing_report(job.lake, as_of)
    if standing is not None:
        return standing
    with progress.task("report", "report page") as done:
        path = build_report(job.lake, job.run.run_id, as_of)
        done(f"{path.stat().st_size / 1024:,.0f} kB")
    return path
