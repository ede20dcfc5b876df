"""Runs the product over a shop in this process, with the session the tests share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console

from jobs.context import Job
from jobs.flow import Outcome, build_facts, build_features, ingest, run_all
from jobs.progress import Progress
from jobs.summary import print_summary, tell
from tests.support.shop import Shop


@dataclass(frozen=True)
class Ran:
    """A finished run: its job, what it did and what it printed."""

    job: Job
    outcome: Outcome
    printed: str


def run_shop(shop: Shop, data_dir: Path, *, as_of: date | None = None, force: bool = False) -> Ran:
    """Run everything over what the shop has delivered."""
    job = start_job(shop, data_dir, as_of)
    out = Console(file=io.StringIO(), width=120)
    with job.locked():
        outcome = run_all(job, Progress(out), force=force)
        print_summary(tell(job, outcome), out, 0.0, nothing_new=outcome.nothing_new)
    return Ran(job, outcome, out.file.getvalue())  # type: ignore[attr-defined]


def run_to_features(shop: Shop, data_dir: Path) -> Job:
    """Run what comes before segments over what the shop has delivered."""
    job, out = start_job(shop, data_dir), Progress(Console(file=io.StringIO()))
    with job.locked():
        ingest(job, out)
        build_facts(job, out)
        build_features(job, out)
    return job


def start_job(shop: Shop, data_dir: Path, as_of: date | None = None) -> Job:
    """A run over a shop's lakehouse that has not begun."""
    return Job.start(
        data_dir=data_dir,
        as_of=as_of,
        conf_dir=shop.conf,
        sources=("corner_shop",),
        variables={"shop": str(shop.folder)},
        parallel_steps=1,
        base_currency="EUR",
    )
