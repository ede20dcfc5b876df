"""What the commands share: their options, the terminal, and how a job is opened and its errors told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.terminal import escape
from lakehouse.errors import SegmentationError
from lakehouse.logs import configure_logs, get_logger

console = Console(stderr=False)
errors = Console(stderr=True)
log = get_logger(__name__)

Target = Annotated[str, typer.Option("--target", "-t", help="Settings to use: a file name in conf/settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the tables (default: the target's).")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="Day up to which events count, exclusive (YYYY-MM-DD)."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also log to the terminal.")]
Wait = Annotated[float | None, typer.Option("--wait", help="Seconds to wait while another run is writing.")]
Force = Annotated[bool, typer.Option("--force", help="Run steps that have nothing new as well, over whole inputs.")]
Source = Annotated[list[str] | None, typer.Option("--source", "-s", help="Source to ingest; may be repeated.")]
Var = Annotated[
    list[str] | None, typer.Option("--var", help="NAME=VALUE for ${NAME} in conf/sources; may be repeated.")
]


@contextmanager
def job_of(
    target: str,
    data_dir: Path | None,
    as_of: datetime | None = None,
    verbose: bool = False,
    wait: float | None = None,
    source: list[str] | None = None,
    var: list[str] | None = None,
    writes: bool = True,
    needs_lakehouse: bool = True,
) -> Iterator[tuple[Any, Any]]:
    """Open a job; one that only reads needs a lakehouse. Errors are told as `told_errors` does."""
    from jobs.context import Job, require_lakehouse
    from jobs.progress import Progress

    with told_errors(verbose):
        variables = dict(_pair(v) for v in var or [])
        job = Job.start(
            target,
            data_dir,
            as_of.date() if as_of else None,
            verbose,
            writes,
            lock_wait_seconds=wait,
            sources=tuple(source) if source else None,
            variables=variables,
        )
        if needs_lakehouse and not writes:
            require_lakehouse(job.settings)
        progress = Progress(console)
        if not writes:
            yield job, progress
            return
        with job.locked(), progress.live():
            yield job, progress


@contextmanager
def told_errors(verbose: bool = False) -> Iterator[None]:
    """Tell our errors, and the engine's, in a message and end with their exit code."""
    configure_logs(verbose=verbose)  # the settings say where the file is, and may be wrong
    try:
        yield
    except SegmentationError as e:
        log.error("command failed", extra={"told": True, "error": type(e).__name__, "reason": str(e)})
        print_error(e)
        raise typer.Exit(e.exit_code) from None
    except ModuleNotFoundError:
        raise  # perhaps the engine's own, which the entry point tells
    except Exception as e:
        from lakehouse.causes import cause_of, file_of, is_of_engine

        if not is_of_engine(e):
            raise
        cause, file = cause_of(e), file_of(e)
        log.error("the engine failed", extra={"told": True, "error": cause, "file": file})
        said = f" It stopped at {file}." if file else ""
        errors.print(f"[bold red]The engine failed[/]: {escape(f'{cause}.{said}')}", highlight=False)
        raise typer.Exit(1) from None


def print_error(error: SegmentationError) -> None:
    """Print one of our errors as a message."""
    # The terminal breaks lines where it must; a break of ours would go through the middle of a path in a log.
    errors.print(f"[bold red]{type(error).__name__}[/]: {escape(error)}", highlight=False, soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not NAME=VALUE")
    return name, value
