"""The page of a run, written beside the data."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

from apps.report.collect import collect
from apps.report.render import render
from lakehouse.lake import Lake
from lakehouse.moves import move


def build_report(lake: Lake, run_id: str, as_of: date, out_dir: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        lake: Where the tables are.
        run_id: Run the report belongs to.
        as_of: Day up to which events count, exclusive.
        out_dir: Folder to write to; `_reports` in the folder of reports unless given.

    Returns:
        Path of `report-<as_of>-<run_id>.html`. The same page is at `latest.html` beside it.
    """
    folder = out_dir or _folder(lake)
    folder.mkdir(parents=True, exist_ok=True)
    made_of = _made_of(lake, as_of)  # what is written meanwhile is not on the page
    page = render(collect(lake, run_id, as_of)) + made_of
    path = folder / f"report-{as_of:%Y-%m-%d}-{run_id}.html"
    for target in (path, folder / "latest.html"):
        # Whoever has the old page open never sees half of the new one.
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_text(page, encoding="utf-8")
        move(partial, target)
    return path


def standing_report(lake: Lake, as_of: date) -> Path | None:
    """The newest page where it is of a day and no step has written anything since; else None."""
    latest = _folder(lake) / "latest.html"
    is_true = latest.exists() and latest.read_text(encoding="utf-8").endswith(_made_of(lake, as_of))
    return latest if is_true else None


def _folder(lake: Lake) -> Path:
    return (lake.settings.reports_dir or lake.settings.data_dir) / "_reports"


def _made_of(lake: Lake, as_of: date) -> str:
    """What a page ends with. Every step that writes a table leaves a row in the one named, so its version tells."""
    return (
        f"<!-- as of {as_of}, after version {lake.version('ingest.audit_transforms')} of ingest.audit_transforms -->\n"
    )
