"""The stages of a run in order; each is also a command and a task of the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.context import Job
from jobs.progress import Progress
from jobs.segment_status import PUBLISHER, Announced, begin_refresh, failures_told, needs_republishing
from lakehouse.errors import SegmentationError, SettingsError, SourceError
from lakehouse.runner import StepResult, run_steps
from lakehouse.steps import Step, plan_steps
from segments.language import ask_for

if TYPE_CHECKING:
    from pipelines.bronze.records import FeedResult

FACT_LAYERS = ("bronze", "silver", "gold")
"""`bronze` are the registers made from the manifest; landing files is `ingest`."""
FEATURE_LAYERS = ("features",)
SEGMENT_LAYERS = ("models", "segments")


@dataclass
class Outcome:
    """What a run did, for the summary and the exit code.

    `looks_on` tells that each run asks elsewhere what has become of things: of what was sent, of campaigns.
    """

    feeds: list[FeedResult] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    as_of: date | None = None
    report: Path | None = None
    exports: list[Path] = field(default_factory=list)
    held: SegmentationError | None = None
    looks_on: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether another run would find nothing to do while nothing it reads has changed."""
        return not self.refused and self.held is None and not self.looks_on

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Files that could not be read, with the reason."""
        return [r for f in self.feeds for r in f.refused_files]

    @property
    def nothing_new(self) -> bool:
        """Whether nothing was ingested and every step was up to date."""
        return not any(f.files_new for f in self.feeds) and all(s.status == "up to date" for s in self.steps)


def ingest(job: Job, progress: Progress, names: Iterable[str] = ()) -> list[FeedResult]:
    """Land every new file of the named sources and what accompanies them; by default of the settings' sources."""
    from pipelines.bronze.ingest import land_sources

    chosen = job.sources.select(list(names) or job.settings.sources)
    with progress.task("bronze", "look for new files") as done:
        wanted = [(s, s.feeds) for s in chosen]
        results = land_sources(job.lake, wanted, run=job.run, declared=job.sources, progress=progress.feed)
        done(f"{sum(r.files_new for r in results)} new files")
    return results


def stream(job: Job, progress: Progress, names: Iterable[str] = ()) -> list[FeedResult]:
    """Land the files that are there now as a stream, and stop; feeds made from a package or a generator as usual."""
    from pipelines.bronze.ingest import land_source
    from pipelines.bronze.stream import can_stream, stream_feed

    results: list[FeedResult] = []
    for source in job.sources.select(list(names) or job.settings.sources):
        for feed in source.feeds:
            progress.feed(f"{source.name}.{feed.name}", None)
            if can_stream(feed):
                landed = stream_feed(job.lake, source, feed, run=job.run, declared=job.sources)
            else:
                landed = land_source(job.lake, source, [feed.name], run=job.run, declared=job.sources)
            progress.feed(f"{source.name}.{feed.name}", landed[0])
            results += landed
    return results


def build(
    job: Job, progress: Progress, layers: Iterable[str], *, force: bool = False, **params: Any
) -> list[StepResult]:
    """Run the producers of some layers."""
    return build_steps(job, progress, plan_steps(layers), force=force, **params)


def build_steps(
    job: Job, progress: Progress, steps: list[Step], *, force: bool = False, **params: Any
) -> list[StepResult]:
    """Run some producers, with checks before each publish; a refresh of segments says so when it begins."""
    from lakehouse.quality import quality_gate
    from lakehouse.quality_load import load_rules

    gate = quality_gate(job.lake, load_rules(job.settings.conf_dir))
    announced = Announced(gate, lambda: begin_refresh(job.lake, ask_for(params["segments"], params.get("asked", ()))))
    run = type(job.run)(job.run.run_id, job.run.started_at, {**job.configuration, **params})
    try:
        return run_steps(job.lake, steps, run, force=force, progress=progress.step, audit=announced, log=job.audit_log)
    finally:
        gate.finish()


def build_facts(
    job: Job, progress: Progress, layers: Iterable[str] = FACT_LAYERS, *, force: bool = False
) -> list[StepResult]:
    """Silver and gold, or some of `FACT_LAYERS`: nothing here depends on the day segments are made for."""
    from lakehouse.catalogue import record_catalog

    with progress.task("govern", "catalogue of tables") as done:
        done("recorded" if record_catalog(job.lake, job.run) else "up to date")
    with failures_told(job, "stale"):
        return build(job, progress, layers, force=force)


def build_features(job: Job, progress: Progress, *, force: bool = False) -> list[StepResult]:
    """Features as of the run's day."""
    with failures_told(job, "stale"):
        return build(job, progress, FEATURE_LAYERS, force=force, as_of=job.as_of())


def build_segments(
    job: Job, progress: Progress, *, force: bool = False, retrain: bool = False, refresh: Sequence[str] = ()
) -> list[StepResult]:
    """Models trained when due and scored, rules evaluated, membership published; also of manual segments named."""
    from jobs.audiences import definitions
    from jobs.segments import asked_for, published_definitions, published_versions
    from models.outlook_training import outlook_models
    from models.training import cluster_models
    from segments.earlier import Earlier

    require_no_past(job)
    segments, asked = definitions(job), asked_for(job, refresh)
    as_of = job.as_of()
    with failures_told(job, "error"):
        with progress.task("models", "customer clusters") as done:
            clusters = cluster_models(job.lake, job.settings, as_of=as_of, retrain=retrain)
            done(f"{len(clusters)} models" if len(clusters) != 1 else "1 model")
        with progress.task("models", "customer outlooks") as done:
            outlooks = outlook_models(job.lake, job.settings, as_of=as_of, retrain=retrain, told=progress.note)
            done(f"{len(outlooks)} models" if len(outlooks) != 1 else "1 model")
        offered = {
            "as_of": as_of,
            "clusters": clusters,
            "outlooks": outlooks,
            "segments": segments,
            "asked": asked,
            "earlier": Earlier(lambda: published_definitions(job), published_versions(job)),
        }
        results = build(job, progress, SEGMENT_LAYERS, force=force, **offered)
    if needs_republishing(job.lake, results, job.run.started_at):
        begin_refresh(job.lake, ask_for(segments, asked))
        publisher = [s for s in plan_steps(SEGMENT_LAYERS) if s.producer == PUBLISHER]
        results += build_steps(job, progress, publisher, force=True, **offered)
    return results


def run_all(
    job: Job, progress: Progress, out: Outcome | None = None, *, force: bool = False, retrain: bool = False
) -> Outcome:
    """From files to report. Refused files do not stop the others; the caller decides on the exit code.

    Nor does what a brake or a destination held back, which `Outcome.held` tells. An `out` that is given is filled as
    the run goes on, so that what is known is there when it fails.
    """
    from connectors.campaigns import load_activation
    from jobs.activate import activate_all, open_activation
    from jobs.audiences import definitions
    from jobs.campaigns import measure_all
    from jobs.publish import export, report
    from lakehouse.quality_load import load_rules

    out = out or Outcome()
    # A mistake in a definition is told before an hour of work, not after.
    _ = job.configuration, load_activation(job.settings.conf_dir), load_rules(job.settings.conf_dir), definitions(job)
    require_no_past(job)
    out.feeds = ingest(job, progress)
    _require_input(job, out)
    out.steps += build_facts(job, progress, force=force)
    out.as_of = job.as_of()
    out.steps += build_features(job, progress, force=force)
    out.steps += build_segments(job, progress, force=force, retrain=retrain)
    out.exports = export(job, progress, out.as_of, force=force)
    measure_all(job, progress)
    out.report = report(job, progress, out.as_of, force=force)
    activation = open_activation(job, ())
    out.held = activate_all(activation, progress)
    is_open = bool(activation.destinations) or bool(activation.unserved())
    out.looks_on = is_open or job.lake.exists("gold.campaign_member")
    return out


def require_no_past(job: Job) -> None:
    """Refuse a day before the one segments were last made for.

    Membership is what is so now, and its history goes forward: of customers who have not changed since, a past day
    would be published as the present.
    """
    if job.settings.as_of == "latest":
        return
    said, newest = job.as_of(), job.segments_are_of()
    if newest is not None and said < newest:
        raise SettingsError(
            f"--as-of {said}: segments here are of {newest} already, and membership does not go back. Give a past day "
            "a folder of its own with --data-dir; `segmentation segments explain` can look at past days here."
        )


def _require_input(job: Job, out: Outcome) -> None:
    if not job.lake.exists("bronze.raw_transactions"):
        reasons = "; ".join(f"{path}: {why}" for path, why in out.refused[:5])
        raise SourceError(
            "No transactions have been delivered, so there is nothing to segment. "
            + (f"These files were refused: {reasons}" if reasons else "Check the locations in conf/sources.")
        )
