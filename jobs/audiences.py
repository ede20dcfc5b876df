"""Lookalike audiences: made by `segmentation expand`, published as segments from then on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.context import Job
from jobs.progress import Progress
from lakehouse.declare import table_of
from lakehouse.lake import newest_version
from segments.language import Segment, feature
from segments.load import load_segments

PRIORITY = 150
"""Behind the segments of conf/segments: who is in one of those for what they did is not primarily a lookalike."""


def expand(
    job: Job,
    progress: Progress,
    merchant_id: str,
    seed_id: str,
    size: tuple[int | None, float | None, float | None],
    left_out: Sequence[str],
    without: Sequence[str],
) -> dict[str, Any]:
    """Make an audience and publish it; returns its row of `gold.lookalike_audience`.

    A past day is refused before anything is made: those who are members now would stand beside what was bought then.
    """
    from jobs.flow import build_segments, require_no_past
    from models.expansion import Size, expand_seed

    require_no_past(job)
    with progress.task("models", f"expand {seed_id}") as done:
        made = expand_seed(
            job.lake,
            job.settings,
            merchant_id=merchant_id,
            seed_id=seed_id,
            size=Size(*size),
            as_of=job.as_of(),
            started_at=job.run.started_at,
            left_out=left_out,
            without=without,
        )
        done(made["customers"])
    build_segments(job, progress)
    return made


def definitions(job: Job) -> tuple[Segment, ...]:
    """Every definition of `conf/segments`, checked, and a segment per lookalike audience, which these may ask for."""
    audiences = audience_segments(job)
    configured = load_segments(job.settings.conf_dir / "segments", others=audiences, websites=job.websites)
    taken = {s.segment_id for s in configured}
    return (*configured, *(a for a in audiences if a.segment_id not in taken))


def audience_segments(job: Job) -> tuple[Segment, ...]:
    """Returns a segment per audience; where there is none, no engine is started to tell."""
    settings, table = job.settings, table_of("gold.lookalike_audience")
    path = settings.data_dir / table.schema / table.short
    if not (job.lake.exists(table) if settings.catalog else newest_version(path) is not None):
        return ()
    websites: dict[str, list[str]] = {}
    seeds: dict[str, str] = {}
    for row in job.lake.read(table).orderBy("audience_id", "merchant_id").collect():
        websites.setdefault(row["audience_id"], []).append(row["merchant_id"])
        seeds[row["audience_id"]] = row["seed_id"]
    return tuple(
        Segment(
            segment_id=audience_id,
            name=f"Like {seeds[audience_id].replace('_', ' ')}",
            rule=feature("lookalike_audiences").contains(audience_id),
            description=f"Customers who resemble the members of {seeds[audience_id]}, made by segmentation expand.",
            website_ids=tuple(of),
            priority=PRIORITY,
        )
        for audience_id, of in websites.items()
    )
