"""What a finished run saw, kept so that the next one can tell without an engine that nothing is new.

A run that finds nothing new has started an engine and read a dozen tables to learn it, most of a minute. All it depends
on can be seen from outside: the code, the configuration, the files of the sources, the day, and the newest version of
every table. What these were when a run ended well is written down; while they are the same, another run would find
every step up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.declare import tables
from lakehouse.errors import SourceError
from lakehouse.lake import newest_version

if TYPE_CHECKING:
    from jobs.context import Job
    from jobs.summary import Told

_NAME = "_last_run.json"
_CODE = ("jobs", "apps", "lakehouse", "pipelines", "features", "models", "segments", "connectors")


def inputs_seen(job: Job) -> str:
    """Hash of what a run reads: code, libraries, configuration, settings, the day, and the sources' files."""
    said = hashlib.sha256(datetime.now(UTC).date().isoformat().encode())
    said.update(repr((sys.version, sorted((d.name, d.version) for d in distributions()))).encode())
    said.update(job.settings.model_dump_json().encode())
    root = Path(__file__).resolve().parents[1]
    code = [p for name in _CODE for p in (root / name).rglob("*") if p.suffix not in ("", ".pyc")]
    for path in sorted([*code, *job.settings.conf_dir.resolve().rglob("*")]):
        if path.is_file():
            said.update(os.fsencode(path) + hashlib.sha256(path.read_bytes()).digest())
    for line in _files(job, made_here=False):
        said.update(line.encode(errors="surrogateescape"))
    return said.hexdigest()


def _files(job: Job, *, made_here: bool) -> Iterator[str]:
    """A line per file of the run's sources: of those it is given, or of the samples it makes itself.

    A file written anew has another time of change, whatever else is equal.
    """
    from pipelines.bronze.places import inbox, locate

    for source in job.sources.select(list(job.settings.sources)):
        for feed in source.feeds:
            given = inbox(source, feed, job.settings.data_dir)
            try:
                paths = locate(source, feed, job.settings.conf_dir, job.settings.data_dir)
            except SourceError as e:
                yield f"{source.name}.{feed.name} {e}"
                continue
            for path in paths:
                if made_here == (feed.generator is not None and path.parent != given):
                    about = path.stat()
                    yield f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns} {about.st_ino}"


def results_seen(job: Job, told: Told) -> str:
    """Hash of what a run leaves: versions of tables, samples it made, the store of models, report and exports."""
    base = job.settings.data_dir.resolve()
    lines = [f"{name} {newest_version(base / t.schema / t.short)}" for name, t in tables().items()]
    lines += _files(job, made_here=True)
    left = [*(base / "mlflow").glob("*"), *(p for folder in told.exports for p in Path(folder).glob("*"))]
    left.append(base / "_reports" / "latest.html")
    if told.report:
        left.append(Path(told.report))
    for path in sorted(left):
        about = path.stat() if path.is_file() else None
        lines.append(f"{path} {about and (about.st_size, about.st_mtime_ns)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def keep(job: Job, inputs: str, told: Told) -> None:
    """Write down what a run that ended well saw; nothing where tables are not folders.

    Args:
        job: The run's.
        inputs: `inputs_seen` from before it read anything, so that a file that came meanwhile counts as new.
        told: What it said at its end.
    """
    if job.settings.catalog:
        return
    path = job.settings.data_dir / _NAME
    aside = path.with_suffix(".part")
    kept = {"run_id": job.run.run_id, "inputs": inputs, "results": results_seen(job, told), "told": asdict(told)}
    aside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    aside.replace(path)


def still_true(job: Job, inputs: str) -> Told | None:
    """What the last run said, when another of these `inputs_seen` would find nothing new; None when it has to look."""
    from jobs.summary import Told

    path = job.settings.data_dir / _NAME
    if job.settings.catalog or not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        seen, results, told = kept["inputs"], kept["results"], Told(**kept["told"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return told if seen == inputs and results == results_seen(job, told) else None
