"""`segmentation segments`: the refresh itself, and questions about segments as its subcommands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as Grid

from jobs.grids import grid_of
from jobs.options import AsOf, DataDir, Force, Target, Var, Verbose, Wait, console, job_of
from jobs.terminal import escape
from lakehouse.errors import SettingsError

app = typer.Typer(
    invoke_without_command=True,
    help="Score clusters, evaluate the rules and publish membership with its history; or, with a subcommand, ask about "
    "segments.",
)

SegmentId = Annotated[str, typer.Argument(metavar="SEGMENT", help="segment_id of a definition.")]
CustomerId = Annotated[str, typer.Argument(metavar="CUSTOMER", help="Customer number.")]
AnySegment = Annotated[str | None, typer.Argument(metavar="[SEGMENT]", help="segment_id of a definition.")]
WebsiteNeeded = Annotated[str, typer.Option("--website", help="Retailer.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Also draw it to this file: .svg, .png or .pdf.")]
Website = Annotated[str | None, typer.Option("--website", help="Retailer, when several know the number.")]
File = Annotated[
    Path | None,
    typer.Option("--file", exists=True, dir_okay=False, help="A definition that is not in conf/segments yet."),
]


@app.callback()
def segments(
    ctx: typer.Context,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    var: Var = None,
    force: Force = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the models again: clusters and outlooks.")] = False,
    refresh: Annotated[
        list[str] | None,
        typer.Option("--refresh", metavar="SEGMENT", help="Manual segment to refresh as well; may be repeated."),
    ] = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Score clusters, evaluate every segment in one scan and publish membership with its history."""
    if ctx.invoked_subcommand is not None:
        if said := [n for n in ctx.params if _is_given(ctx, n)]:
            raise typer.BadParameter(_misplaced(ctx, said[0]))
        return
    from jobs import flow
    from jobs.summary import print_segments, segment_sizes

    with job_of(target, data_dir, as_of, verbose, wait, None, var) as (job, progress):
        flow.build_segments(job, progress, force=force, retrain=retrain, refresh=refresh or ())
        print_segments(segment_sizes(job), console)


@app.command("list")
def list_segments(target: Target = "local", data_dir: DataDir = None, verbose: Verbose = False) -> None:
    """Every segment with size, state, age and whether it needs a refresh."""
    from jobs.segments import states

    with job_of(target, data_dir, None, verbose, writes=False) as (job, _):
        grid = _grid("segment", "name", "entity", "members", "mode", "status", "age", "")
        for r in states(job, datetime.now(UTC)):
            age = "never" if r["age_hours"] is None else f"{r['age_hours']:,.0f} h"
            note = "needs refresh" if r["needs_refresh"] else ("" if r["is_active"] else "inactive")
            grid.add_row(
                r["segment_id"],
                escape(r["name"]),
                r["entity"],
                f"{r['matched_customers_count']:,}",
                r["refresh_mode"],
                r["refresh_status"],
                age,
                note,
            )
            if r["refresh_message"]:
                grid.add_row("", f"[yellow]{escape(r['refresh_message'])}[/]")
        console.print(grid)


@app.command()
def preview(
    segment_id: AnySegment = None,
    file: File = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Keys of this many members.")] = 5,
    verbose: Verbose = False,
) -> None:
    """What a definition gives: size, waterfall, reach and change against what is published. Writes nothing."""
    from jobs import segments as work
    from segments.tell import lines_of_preview, steps_of

    with job_of(target, data_dir, as_of, verbose, writes=False) as (job, _):
        segment = _chosen(job, segment_id, file)
        is_guest = segment.entity == "guest"
        whom = "guests" if is_guest else "customers"
        for r in work.preview(job, segment):
            share = r["members"] / r[whom] if r[whom] else 0
            console.print(
                f"[bold]{escape(segment.name)}[/] in {escape(r['website_id'])}: {r['members']:,} of "
                f"{r[whom]:,} {whom} ({share:.1%}); published {r['published']:,}, "
                f"{r['entering']:,} would enter, {r['leaving']:,} leave",
                highlight=False,
            )
            for line in lines_of_preview(segment, r):
                console.print(f"  {escape(line)}", highlight=False)
            if is_guest:
                console.print(f"  {r['logged_in']:,} visitors have logged in and count as customers", highlight=False)
            grid = _grid("condition", "alone", "left")
            for n, step in enumerate(steps_of(segment)):
                grid.add_row(f"  {escape(step)}", f"{r[f'alone_{n}']:,}", f"{r[f'left_{n}']:,}")
            console.print(grid)
            reach = [f"{c.removeprefix('reachable_')} {n:,}" for c, n in r.items() if c.startswith("reachable_")]
            if reach:
                console.print(f"  reachable: {', '.join(reach)}", highlight=False)
        if rows and not is_guest:
            keys = [f"{website}/{key}" for website, key in work.sample(job, segment, rows)]
            console.print(f"  some members (customer_key): {', '.join(keys) or 'none'}", highlight=False)


@app.command()
def explain(
    customer_id: CustomerId,
    segment_id: SegmentId,
    website: Website = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    verbose: Verbose = False,
) -> None:
    """Why a customer is in a segment or not: the rule with the answer and the value at each node; what is published.

    A segment of guests asks visitors; who logged in as the customer, and is in by the rule, brings the customer in.
    """
    from jobs import segments as work
    from segments.tell import lines_of, lines_of_membership

    with job_of(target, data_dir, as_of, verbose, writes=False) as (job, _):
        segment = work.find(job, segment_id)
        if segment.entity == "guest":
            if as_of is not None:
                raise SettingsError(f"'{segment_id}' is made of guests, who are told of now only; leave --as-of out.")
            console.print(f"{escape(segment.name)} is made of guests, and its rule is about visitors", highlight=False)
        else:
            found = work.explain_customer(job, customer_id, segment, website)
            console.print(f"{escape(segment.name)} as of {work.newest_day(job)}", highlight=False)
            colours = {"true": "green", "false": "red", "unknown": "yellow"}
            for depth, answer, said, observed in lines_of(found):
                value = f"  [dim]{escape(observed)}[/]" if observed else ""
                console.print(f"{'  ' * depth}[{colours[answer]}]{answer:7}[/] {escape(said)}{value}", highlight=False)
        for line in lines_of_membership(segment, work.membership_of(job, customer_id, segment, website)):
            console.print(escape(line), highlight=False)


@app.command()
def diff(
    segment_id: SegmentId,
    file: File = None,
    target: Target = "local",
    data_dir: DataDir = None,
    as_of: AsOf = None,
    verbose: Verbose = False,
) -> None:
    """Who would enter and leave: the definition in conf/segments, or a file, against the published one."""
    from jobs import segments as work

    with job_of(target, data_dir, as_of, verbose, writes=False) as (job, _):
        now = _chosen(job, None if file else segment_id, file)
        if now.segment_id != segment_id:
            raise SettingsError(f"{file} defines '{now.segment_id}', not '{segment_id}'; name the one it defines.")
        then = work.published(job, segment_id)
        console.print(f"{then.version} -> {now.version}", highlight=False)
        if then.is_held:
            console.print(
                "The last refresh was held back, or not asked for, at least in part; compared with the published "
                "members.",
                highlight=False,
            )
        elif not then.rules:
            console.print(
                "What was published cannot be evaluated any more, for a list or feature it names is another now; "
                "compared with its published members.",
                highlight=False,
            )
        grid = _grid("website", "entering", "leaving", "staying")
        for r in work.diff(job, now, then):
            grid.add_row(r["website_id"], *(f"{r[c]:,}" for c in ("entering", "leaving", "staying")))
        console.print(grid)


@app.command()
def overlap(
    target: Target = "local",
    data_dir: DataDir = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Most alike pairs, or largest counts, to show.")] = 20,
    primary: Annotated[bool, typer.Option("--primary", help="Instead: which segment wins members of which.")] = False,
    plot: Plot = None,
    verbose: Verbose = False,
) -> None:
    """How many customers are in two segments at once, and how alike these are."""
    from jobs import segments as work

    if primary and plot is not None:
        raise typer.BadParameter("--plot draws how alike segments are; leave --primary out, or --plot")
    with job_of(target, data_dir, None, verbose, writes=False) as (job, _):
        if primary:
            grid = _grid("website", "segment", "primary segment instead", "members")
            for r in work.beaten(job)[:rows]:
                won = "itself" if r["segment_id"] == r["primary_segment_id"] else r["primary_segment_id"]
                grid.add_row(r["website_id"], r["segment_id"], won, f"{r['members']:,}")
            console.print(grid)
            return
        pairs = work.overlap(job)
        grid = _grid("website", "segment", "and", "both", "jaccard")
        for r in pairs[:rows]:
            grid.add_row(r["website_id"], r["segment_a"], r["segment_b"], f"{r['both']:,}", f"{r['jaccard']:.2f}")
        console.print(grid)
        if plot is not None:
            from jobs.segment_plots import draw_overlap

            _to_draw(pairs, "no two segments have a member in common")
            draw_overlap(pairs, plot)
            console.print(str(plot), highlight=False, markup=False)


@app.command()
def history(
    segment_id: SegmentId,
    target: Target = "local",
    data_dir: DataDir = None,
    plot: Plot = None,
    verbose: Verbose = False,
) -> None:
    """Size, entries and exits of a segment per day, and why customers or guests left."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, writes=False) as (job, _):
        work.require_known(job, segment_id)
        sizes = work.sizes_of(job, segment_id)
        grid = _grid("website", "as of", "version", "members", "entered", "left")
        for r in sizes:
            counts = (f"{r[c]:,}" for c in ("members", "entered", "exited"))
            grid.add_row(r["website_id"], f"{r['as_of']}", r["version"], *counts)
        console.print(grid)
        for count, reason, detail in work.reasons_of_exits(job, segment_id):
            console.print(f"  {count:,} left: {reason} {escape(detail)}", highlight=False)
        if plot is not None:
            from jobs.segment_plots import draw_sizes

            _to_draw(sizes, f"'{segment_id}' was never measured")
            draw_sizes(sizes, plot, segment_id)
            console.print(str(plot), highlight=False, markup=False)


@app.command()
def flows(
    target: Target = "local",
    data_dir: DataDir = None,
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="Only moves found on this day.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Largest flows to show.")] = 20,
    plot: Plot = None,
    verbose: Verbose = False,
) -> None:
    """Between which segments customers moved: who left one and entered another on the same day."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, writes=False) as (job, _):
        found = work.flows(job, day.date() if day else None)[:rows]
        grid = _grid("website", "from", "to", "customers")
        for r in found:
            grid.add_row(r["website_id"], r["left"], r["entered"], f"{r['customers']:,}")
        console.print(grid)
        if plot is not None:
            from jobs.segment_plots import draw_flows

            _to_draw(found, "nobody moved from one segment to another")
            draw_flows(found, plot)
            console.print(str(plot), highlight=False, markup=False)


@app.command()
def pin(
    customer_id: CustomerId,
    segment_id: SegmentId,
    website: WebsiteNeeded,
    out: Annotated[bool, typer.Option("--out", help="Keep the customer out instead of in.")] = False,
    note: Annotated[str | None, typer.Option("--note", help="Why.")] = None,
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Put a customer into a segment whatever the rule says, from the next refresh on."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, wait) as (job, _):
        work.pin(job, work.find(job, segment_id), customer_id, website, is_in=not out, note=note)
        way = "kept out of" if out else "put into"
        console.print(f"The customer is {way} '{segment_id}' from the next refresh on.", highlight=False)


@app.command()
def unpin(
    customer_id: CustomerId,
    segment_id: SegmentId,
    website: WebsiteNeeded,
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Leave a customer to the rule again."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, wait) as (job, _):
        taken = work.unpin(job, segment_id, customer_id, website).rows_written
        done = "The pin was taken away; the rule decides from the segment's next refresh on."
        none = f"The customer had no pin in '{segment_id}'; nothing was changed."
        console.print(done if taken else none, highlight=False)


@app.command()
def events(
    segment_id: AnySegment = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Oldest events to show, and to mark.")] = 20,
    processed: Annotated[bool, typer.Option("--processed", help="Mark the events shown as processed.")] = False,
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Entries and exits that nothing has acted on yet, oldest first; whoever acts on them marks them."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, wait, writes=processed) as (job, _):
        if segment_id is not None:
            work.require_known(job, segment_id)
        waiting = work.unprocessed_events(job, segment_id)
        shown = waiting.limit(rows).collect()
        grid = _grid("event", "segment", "website", "what", "day", "customer_key", "visitor")
        for r in shown:
            who = ("", r["visitor_id"][:12]) if r["customer_key"] is None else (f"{r['customer_key']}", "")
            day = f"{r['occurred_on']}"
            grid.add_row(f"{r['event_id']}", r["segment_id"], r["website_id"], r["event_type"], day, *who)
        console.print(grid)
        console.print(f"{waiting.count():,} are not processed", highlight=False)
        if processed:
            of_shown = waiting["event_id"].isin([r["event_id"] for r in shown])
            done = work.mark_processed(job, waiting.where(of_shown))
            console.print(f"{done.rows_written:,} marked as processed", highlight=False)


@app.command()
def reconcile(
    target: Target = "local",
    data_dir: DataDir = None,
    wait: Wait = None,
    verbose: Verbose = False,
) -> None:
    """Evaluate everyone from nothing and record where that differs from what was carried over; exit code 6 if so."""
    from jobs import segments as work

    with job_of(target, data_dir, None, verbose, wait) as (job, _):
        for segment_id in work.refreshed_definitions(job)[1]:
            console.print(
                f"  {segment_id}: left out, for the definition of its last refresh cannot be told any more; "
                "refresh it first: segmentation segments",
                highlight=False,
            )
        drift = work.reconcile(job)
        for r in drift:
            console.print(f"  {r['website_id']} {r['segment_id']}: {r['customers']:,} customers", highlight=False)
        console.print("drift: " + (f"{len(drift)} segments" if drift else "none"))
        if drift:
            raise typer.Exit(6)


def _misplaced(ctx: typer.Context, name: str) -> str:
    """What is wrong with an option before a subcommand: its place, or that the subcommand has none of its name."""
    subcommand, option = ctx.invoked_subcommand, f"--{name.replace('_', '-')}"
    taken = ctx.command.commands[subcommand].params  # type: ignore[attr-defined]
    if any(option in p.opts for p in taken):
        return f"say {option} after '{subcommand}'"
    return f"'{subcommand}' takes no {option}; leave it out"


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _chosen(job: Any, segment_id: str | None, file: Path | None) -> Any:
    from jobs import segments as work

    if (segment_id is None) == (file is None):
        raise typer.BadParameter("say a SEGMENT of conf/segments, or --file")
    return work.read_file(job, file) if file is not None else work.find(job, str(segment_id))


def _to_draw(rows: Sequence[Any], why_not: str) -> None:
    if not rows:
        raise SettingsError(f"There is nothing to draw: {why_not}. No picture was written.")


def _grid(*titles: str) -> Grid:
    return grid_of(*titles, header_style="bold")
