"""What leaves the lakehouse: exports and the report."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from jobs.context import Job
from jobs.progress import Progress


def export(job: Job, progress: Progress, as_of: date) -> list[Path]:
    """Write the published segments to every active file destination; returns the folders."""
    from connectors.delivery import export_segments

    with progress.task("export", "file destinations") as done:
        exports = export_segments(
            job.lake, job.settings, as_of=as_of, run_id=job.run.run_id, started_at=job.run.started_at
        )
        done(sum(f.rows for e in exports for f in e.files))
    return list(dict.fromkeys(e.manifest.parent for e in exports))


def report(job: Job, progress: Progress, as_of: date, *, fresh: bool) -> Path | None:
    """Write the report page, or name the last one when nothing has changed since."""
    from apps.report.build import build_report

    latest = job.settings.data_dir / "_reports" / "latest.html"
    if not fresh and latest.exists():
        return latest
    with progress.task("report", "report page") as done:
        path = build_report(job.lake, job.run.run_id, as_of)
        done(f"{path.stat().st_size / 1024:,.0f} kB")
    return path
