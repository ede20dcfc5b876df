"""`segmentation campaigns`: what there is, the lookalikes some need, and what they brought."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.options import AsOf, DataDir, Target, Verbose, Wait, console, job_of

app = typer.Typer(help="Campaigns of conf/campaigns: list, prepare lookalikes, measure results.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[CAMPAIGN]...", help="Campaigns; all when none is named.")]


@app.command("list")
def list_campaigns(target: Target = "local", data_dir: DataDir = None, verbose: Verbose = False) -> None:
    """Every campaign: segment, destination, holdout, and whether it is due today."""
    from jobs.campaigns import print_campaigns

    with job_of(target, data_dir, None, verbose, writes=False, needs_lakehouse=False) as (job, _):
        print_campaigns(job, console)


@app.command()
def prepare(
    names: Names = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Make the lookalikes that campaigns address, and publish them as segments."""
    from jobs.campaigns import prepare as work

    with job_of(target, data_dir, as_of, verbose, wait) as (job, progress):
        work(job, progress, console, names or ())


@app.command()
def results(
    names: Names = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Compare purchases of those addressed with those held out: difference, interval, and whether to trust it."""
    from jobs.campaigns import measure, print_results

    with job_of(target, data_dir, as_of, verbose, wait) as (job, _):
        print_results(measure(job, names or ()), console)
