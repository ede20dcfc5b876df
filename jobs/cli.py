"""The `segmentation` command. Every job of the bundle is one of these commands."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jobs.campaigns_cli import app as campaigns_app
from jobs.grids import grid_of
from jobs.options import (
    AsOf,
    DataDir,
    Force,
    Source,
    Target,
    Var,
    Verbose,
    Wait,
    console,
    errors,
    job_of,
    print_error,
    told_errors,
)
from jobs.segments_cli import app as segments_app
from jobs.terminal import plain
from lakehouse.errors import SegmentationError, SettingsError, suggest
from lakehouse.extras import need_extra

app = typer.Typer(
    name="segmentation",
    help="Customer segmentation for retail: raw files to trusted facts, features, segments, exports and a report.\n\n"
    "Start with `segmentation run`. Exit codes: 0 done, 1 unexpected, 2 wrong declaration or settings, 3 something "
    "missing on the machine, 4 a source or file was refused, 5 migration refused, 6 quality stopped a publish or "
    "segments drifted, 7 a step failed, 8 another run is writing, 9 a model cannot be made, 10 an activation was held "
    "back, or ledger and destination differ, 11 a model missed a goal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tables_app = typer.Typer(help="The catalogue: list tables, show one, print its DDL.", no_args_is_help=True)
app.add_typer(tables_app, name="tables")
app.add_typer(segments_app, name="segments")
app.add_typer(campaigns_app, name="campaigns")
models_app = typer.Typer(help="Models: judge them on the past, list versions, roll back.", no_args_is_help=True)
app.add_typer(models_app, name="models")


class Layer(StrEnum):
    """What `build` can be asked for."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    FEATURES = "features"
    MODELS = "models"
    SEGMENTS = "segments"


def main() -> None:
    """Console entry point. Success returns: a job of Databricks takes any `SystemExit`, also of 0, for a failure."""
    try:
        app()
    except SystemExit as e:
        if e.code:
            raise
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] != "pyspark":
            raise
        # A cluster brings its own Spark, so that the package does not ask for one.
        try:
            need_extra("pyspark", "local", "Running outside Databricks")
        except SegmentationError as missing:
            print_error(missing)
            sys.exit(missing.exit_code)


@app.command()
def run(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    source: Source = None,
    var: Var = None,
    force: Force = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the models again.")] = False,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Everything: ingest new files, build facts, features and segments, export, activate, and write the report."""
    import time

    from jobs import receipt
    from jobs.flow import Outcome, run_all
    from jobs.summary import print_landed, print_summary, tell

    began = time.monotonic()
    with job_of(target, data_dir, as_of, verbose, wait, source, var) as (job, progress):
        inputs = receipt.inputs_seen(job)
        told = None if force or retrain else receipt.still_true(job, inputs)
        if told is not None:
            print_summary(told, console, time.monotonic() - began, nothing_new=True)
            return
        outcome = Outcome()
        try:
            run_all(job, progress, outcome, force=force, retrain=retrain)
            told = tell(job, outcome)
            if outcome.is_settled:
                receipt.keep(job, inputs, told)
            print_summary(told, console, time.monotonic() - began, nothing_new=outcome.nothing_new)
        finally:
            # Also of a run that failed later: what is odd about the files may be why.
            print_landed([f for f in outcome.feeds if f.notes or f.rows_rejected], console)
        _refused(outcome.refused, outcome.held)


@app.command()
def ingest(
    file: Annotated[Path | None, typer.Argument(help="A file to upload into the source's inbox and land.")] = None,
    target: Target = "local",
    data_dir: DataDir = None,
    source: Source = None,
    feed: Annotated[str | None, typer.Option("--feed", help="Feed of an uploaded file, when several fit.")] = None,
    var: Var = None,
    stream: Annotated[bool, typer.Option("--stream", help="Land by Structured Streaming (availableNow).")] = False,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Land new files of the sources, exactly once; or one uploaded file: `segmentation ingest FILE --source NAME`."""
    from jobs import flow
    from jobs.summary import print_landed

    if file is not None and (not source or len(source) != 1):
        raise typer.BadParameter("an uploaded file needs exactly one --source that says what it is")
    if file is not None and stream:
        raise typer.BadParameter("--stream is for what lies at the sources' locations; leave it out for one file")
    if file is None and feed is not None:
        raise typer.BadParameter("--feed says what an uploaded file is; give the file, or leave --feed out")
    if file is not None and not file.is_file():
        raise typer.BadParameter(f"{file} is not a file")
    with job_of(target, data_dir, None, verbose, wait, source, var) as (job, progress):
        if file is not None:
            from pipelines.bronze.uploads import ingest_file

            known = job.sources
            chosen = known.source((source or ())[0])
            results = [ingest_file(job.lake, file, chosen, feed, run=job.run, declared=known, progress=progress.feed)]
        elif stream:
            results = flow.stream(job, progress, source or ())
        else:
            results = flow.ingest(job, progress, source or ())
        print_landed(results, console)
        _refused([x for r in results for x in r.refused_files])


@app.command()
def build(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    var: Var = None,
    force: Force = False,
    layer: Annotated[
        list[Layer] | None,
        typer.Option(
            "--layer",
            help="May be repeated; default bronze, silver, gold. models and segments are one: either trains and scores "
            "the models, evaluates the segments and publishes them.",
        ),
    ] = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Build facts and dimensions (silver, gold) from what has landed, or the layers named."""
    from jobs import flow

    chosen = [x.value for x in layer] if layer else list(flow.FACT_LAYERS)
    if as_of is not None and set(chosen) <= set(flow.FACT_LAYERS):
        raise typer.BadParameter("--as-of is the day of features, models and segments; facts are of every day")
    with job_of(target, data_dir, as_of, verbose, wait, None, var) as (job, progress):
        if facts := [x for x in chosen if x in flow.FACT_LAYERS]:
            flow.build_facts(job, progress, facts, force=force)
        if "features" in chosen:
            flow.build_features(job, progress, force=force)
        if {"models", "segments"} & set(chosen):
            flow.build_segments(job, progress, force=force)


@app.command()
def features(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    var: Var = None,
    force: Force = False,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Compute features as of a day (default: the day after the newest sale), only for customers that changed."""
    from jobs import flow

    with job_of(target, data_dir, as_of, verbose, wait, None, var) as (job, progress):
        flow.build_features(job, progress, force=force)


@app.command()
def expand(
    seed: Annotated[str, typer.Argument(help="Segment whose members the audience shall resemble.")],
    merchant: Annotated[str, typer.Option("--merchant", "-m", help="Retailer of the segment.")],
    size: Annotated[int | None, typer.Option("--size", help="Customers in the audience.")] = None,
    share: Annotated[float | None, typer.Option("--share", help="Part of the candidates, above 0 up to 1.")] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Everyone with at least this score.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="Segment whose members are left out (suppression, holdout); may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Category that defines the seed, not looked at; may be repeated."),
    ] = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    var: Var = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Find the customers who resemble a segment's members and publish them as the segment like_SEED."""
    from jobs.audiences import expand as make

    with job_of(target, data_dir, as_of, verbose, wait, None, var) as (job, progress):
        made = make(job, progress, merchant, seed, (size, share, min_score), leave_out or [], without or [])
        console.print(
            f"{made['audience_id']}: {made['customers']:,} customers who resemble the {made['seed_customers']:,} of "
            f"{seed}; lift {made['expected_lift']:.2f}, AUC {made['auc']:.3f} (by activity alone "
            f"{made['auc_of_activity']:.3f}), both on customers the model had not seen",
            highlight=False,
        )


@app.command()
def export(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    var: Var = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Write segments to the file destinations of conf/destinations: consented members, hashed identifiers."""
    from jobs.publish import export as write
    from jobs.segments import published_day

    with job_of(target, data_dir, as_of, verbose, wait, None, var) as (job, progress):
        for path in write(job, progress, published_day(job)):
            console.print(plain(path), highlight=False, markup=False, soft_wrap=True)


Destination = Annotated[list[str] | None, typer.Option("--destination", "-d", help="Only this one; may be repeated.")]


@app.command()
def activate(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    destination: Destination = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, count and show one redacted body; send nothing.")
    ] = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="With --dry-run: let the destination check that body, where it can.")
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Send what a brake held back: many removals, an empty segment.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also send refused rows that have not changed; with --confirm, take a former audience for gone.",
        ),
    ] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Show the queue by status instead.")] = False,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Bring audiences and lists of conf/destinations to who is in a segment and may be sent there, and no one else."""
    from jobs import activate as work

    if validate and not dry_run:
        raise typer.BadParameter("--validate goes with --dry-run; without it everything would be sent")
    if dry_run and (confirm or force):
        raise typer.BadParameter("--confirm and --force say what to send, and --dry-run sends nothing; leave it out")
    if queue and (as_of or destination or dry_run or confirm or force):
        raise typer.BadParameter("--queue shows the whole queue and sends nothing; ask for it alone")
    with job_of(target, data_dir, as_of, verbose, wait, writes=not (dry_run or queue)) as (job, progress):
        if queue:
            work.print_queue(job, console)
        elif dry_run:
            work.print_preview(job, console, destination or (), validate=validate)
        else:
            work.activate(job, progress, console, destination or (), is_confirmed=confirm, is_forced=force)


@app.command()
def reconcile(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    destination: Destination = None,
    verbose: Verbose = False,
) -> None:
    """Compare who the ledger holds for present with who each destination lists."""
    from jobs.activate import print_reconciliation

    with job_of(target, data_dir, as_of, verbose, writes=False) as (job, _):
        print_reconciliation(job, console, destination or ())


@app.command()
def switch(
    destination: Annotated[str, typer.Argument(help="Name of a destination, or '*' for all of them.")],
    stop: Annotated[bool, typer.Option("--stop/--go", help="Send nothing any more, or let it go on.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for whoever reads it later.")] = None,
    target: Target = "local",
    data_dir: DataDir = None,
    verbose: Verbose = False,
) -> None:
    """The kill switch: stops a destination at once, a run that is under way between two batches."""
    from jobs.activate import switch as work

    # Not locked: it must work while a run is writing, and before the first one.
    with job_of(target, data_dir, None, verbose, writes=False, needs_lakehouse=False) as (job, _):
        work(job, destination, is_stopped=stop, reason=reason)
        console.print(f"{destination}: {'stopped' if stop else 'may send'}", highlight=False, markup=False)


@app.command()
def suppress(
    website: Annotated[str, typer.Argument(help="Retailer.")],
    file: Annotated[Path, typer.Argument(help="Customer numbers, one a line; - reads them from standard input.")],
    reason: Annotated[str, typer.Option("--reason", help="asked, complaint, erased, bounced or legal.")] = "asked",
    destination: Annotated[str, typer.Option("--destination", "-d", help="Where; '*' for everywhere.")] = "*",
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Keep people out of destinations whatever they agreed to; the next run takes them away where they are."""
    from jobs.activate import read_numbers
    from jobs.activate import suppress as work

    with job_of(target, data_dir, None, verbose, wait) as (job, _):
        numbers = read_numbers(file)
        rows, unknown = work(job, website, numbers, reason=reason, destination=destination)
        console.print(f"{rows:,} recorded", highlight=False)
        if unknown:
            said = (
                "1 number is that of no customer" if unknown == 1 else f"{unknown:,} numbers are those of no customer"
            )
            console.print(f"{said} of {website} so far, as written, capitals included", highlight=False)


@app.command()
def proof(
    website: Annotated[str, typer.Argument(help="Retailer.")],
    file: Annotated[Path, typer.Argument(help="Customer numbers, one a line; - reads them from standard input.")],
    target: Target = "local",
    data_dir: DataDir = None,
    verbose: Verbose = False,
) -> None:
    """What was sent of people, where and when, and what each destination said: for whoever asks to be removed."""
    from jobs.activate import print_proof, read_numbers

    with job_of(target, data_dir, None, verbose, writes=False) as (job, _):
        print_proof(job, console, website, read_numbers(file))


@app.command()
def report(
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    verbose: Verbose = False,
) -> None:
    """Write the report page of the present state."""
    from jobs.publish import report as write
    from jobs.segments import published_day

    with job_of(target, data_dir, as_of, verbose, writes=False) as (job, progress):
        path = write(job, progress, published_day(job), force=True)
        console.print(plain(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def maintain(
    target: Target = "local",
    data_dir: DataDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, remove nothing.")] = False,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Compact files, remove rows and slices past their retention, and vacuum."""
    from jobs.maintain import maintain as work

    with job_of(target, data_dir, None, verbose, wait) as (job, progress):
        work(job, progress, dry_run=dry_run)


@app.command()
def status(target: Target = "local", data_dir: DataDir = None, verbose: Verbose = False) -> None:
    """What ran last, what failed, how fresh each layer is, which files wait for a retry, and which feeds are late."""
    from jobs.summary import print_status

    with job_of(target, data_dir, None, verbose, writes=False, needs_lakehouse=False) as (job, _):
        print_status(job, console)


@app.command(hidden=True)
def docs() -> None:
    """Write what is generated: dictionary, features, keys of feeds and destinations, operators of rules, jobs."""
    from connectors.catalogue import write_destinations
    from features.catalogue import write_catalogue
    from lakehouse.bundle import write_jobs
    from lakehouse.dictionary import write_dictionary
    from pipelines.bronze.catalogue import write_sources
    from segments.page import write_operators

    pages = Path("docs")
    with told_errors():
        # First what is made of files that people edit: of a wrong one nothing has been written yet.
        written = [*write_jobs(Path("resources"))]
        written += [*write_dictionary(pages), write_catalogue(pages), write_sources(pages)]
        written += [write_destinations(pages), write_operators(pages)]
    for path in written:
        console.print(str(path))


@tables_app.command("list")
def tables_list(
    schema: Annotated[str | None, typer.Argument(help="Only this schema.")] = None,
) -> None:
    """Every declared table: kind, grain and producer."""
    from lakehouse.declare import tables

    schemas = sorted({t.schema for t in tables().values()})
    if schema not in (None, *schemas):
        raise typer.BadParameter(f"there is no schema '{schema}'; schemas are {', '.join(schemas)}")
    grid = grid_of("table", "kind", "grain")
    for t in tables().values():
        if schema in (None, t.schema):
            grid.add_row(t.name, type(t.kind).__name__, t.comment)
    console.print(grid)


@tables_app.command("show")
def tables_show(
    name: str,
    target: Target = "local",
    data_dir: DataDir = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Also show this many rows; personal columns are masked.")
    ] = 0,
    version: Annotated[int | None, typer.Option("--version", help="Delta version to show rows of.")] = None,
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="Show rows as at the end of this day.")
    ] = None,
) -> None:
    """One table: columns, checks, lineage and, with --rows, some of its content."""
    from jobs.summary import print_table

    if not rows and (version is not None or day is not None):
        raise typer.BadParameter("--version and --day say which rows to show; say how many with --rows")
    if version is not None and day is not None:
        raise typer.BadParameter("--version and --day each say which rows to show; leave one out")
    with job_of(target, data_dir, writes=False, needs_lakehouse=rows > 0) as (job, _):
        print_table(job, console, name, rows, version, day.date() if day else None)


@tables_app.command("ddl")
def tables_ddl(
    names: Annotated[list[str] | None, typer.Argument(help="Tables; all when none is named.")] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help="`delta` for plain Delta, `unity` for Unity Catalog with grants, tags, masks and filters.",
        ),
    ] = "delta",
    catalog: Annotated[str | None, typer.Option("--catalog", help="Catalog name for unity (default: main).")] = None,
) -> None:
    """Print the SQL that creates tables."""
    if catalog is not None and target != "unity":
        raise typer.BadParameter("--catalog is for --target unity; names of plain Delta have no catalog")
    with told_errors():
        if target == "unity":
            from lakehouse.unity import render

            print(render(names or None, catalog=catalog or "main"))
            return
        if target != "delta":
            raise typer.BadParameter(f"'{target}' is neither delta nor unity", param_hint="--target")
        from lakehouse.ddl import create_statement, quote
        from lakehouse.declare import table_of, tables

        for t in [table_of(n) for n in names] if names else tables().values():
            print(create_statement(t, f"{quote(t.schema)}.{quote(t.short)}", None) + ";\n")


@models_app.command("evaluate")
def models_evaluate(
    target: Target = "local",
    data_dir: Annotated[
        list[Path] | None, typer.Option("--data-dir", help="Lakehouse to judge on; may be repeated.")
    ] = None,
    cut_off: Annotated[
        list[datetime] | None,
        typer.Option("--cut-off", formats=["%Y-%m-%d"], help="Day to judge at; may be repeated (default: newest 3)."),
    ] = None,
    cdnow: Annotated[
        Path | None,
        typer.Option(
            "--cdnow", exists=True, dir_okay=False, help="CDNOW sample file, to reproduce the published estimates."
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Train every model at several past days and judge it by what followed, beside baselines; writes nothing.

    Ends with 11 when a goal of conf/evaluation.yml is missed.
    """
    from jobs.context import Job, require_lakehouse
    from jobs.evaluation import evaluate

    with told_errors(verbose):
        jobs = [Job.start(target, folder, None, verbose, writes=False) for folder in data_dir or [None]]
        for job in jobs:
            require_lakehouse(job.settings)
        if not evaluate(jobs, console, [c.date() for c in cut_off or []], cdnow):
            raise typer.Exit(11)


@models_app.command("list")
def models_list(target: Target = "local", data_dir: DataDir = None) -> None:
    """Every registered version: what it has learnt up to, whether it may score, and what its gate said."""
    from jobs.context import require_lakehouse
    from lakehouse.settings import load_settings
    from models.store import ModelStore, all_versions

    with told_errors():
        settings = load_settings(target, data_dir=data_dir)
        require_lakehouse(settings)
        grid = grid_of("version", "learnt before", "status", "gate")
        for v in all_versions(ModelStore.of(settings)):
            grid.add_row(v.label, v.as_of, v.status, v.reason)
        console.print(grid)


@models_app.command("rollback")
def models_rollback(
    merchant: Annotated[str, typer.Argument(help="Merchant whose champion to withdraw.")],
    kind: Annotated[str, typer.Option("--kind", help="Kind of model.")] = "customer_outlook",
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Withdraw the champion and put the version before it back; the next run scores with that one."""
    from models.store import ModelStore, all_versions, roll_back

    with job_of(target, data_dir, None, verbose, wait) as (job, _):
        store = ModelStore.of(job.settings)
        named, known = store.model_name(kind, merchant), sorted({v.name for v in all_versions(store)})
        if named not in known:
            raise SettingsError(
                f"There is no model {named}; there are {', '.join(known) or 'none'}.{suggest(named, known)}"
            )
        withdrawn, back = roll_back(store, kind, merchant)
        console.print(f"withdrawn {withdrawn.label}, champion {back.label}", highlight=False)


def _refused(files: list[tuple[str, str]], held: SegmentationError | None = None) -> None:
    """End with what went wrong in part, if anything did: each is told, and files decide on the exit code."""
    if not files:
        if held is not None:
            raise held
        return
    if held is not None:
        print_error(held)
    errors.print(f"[bold yellow]{len(files)} file(s) were refused and wait for a retry:[/]")
    for path, reason in files:
        errors.print(f"  {plain(path)}: {plain(reason)}", highlight=False, markup=False)
    raise typer.Exit(4)


if __name__ == "__main__":
    sys.exit(main())
