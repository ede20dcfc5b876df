"""Runs producers in the order their reads ask for, skips what has nothing new, and records every step."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from typing import Any, Literal, Protocol

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.causes import cause_of, file_of
from lakehouse.declare import Append, Changes, ReplaceSlice, Table, table_of
from lakehouse.errors import DeclarationError, SegmentationError, StepFailed
from lakehouse.fingerprints import keyword_only, step_fingerprint
from lakehouse.hold import Hold
from lakehouse.lake import Lake, WriteResult
from lakehouse.records import AuditLog, write_rows
from lakehouse.steps import Step, dependencies


class Audit(Protocol):
    """What stands between a producer and a publish; `lakehouse.quality` has the one the product uses."""

    def before_publish(self, run: Run, table: Table) -> Callable[[DataFrame], None] | None:
        """What `Lake.write(audit=...)` takes for a table; None when the frame need not be kept to be checked."""

    def watch(self, run: Run, table: Table, frame: DataFrame) -> DataFrame:
        """Return the frame to write in the place of the producer's."""

    def published(self, run: Run, table: Table, written: WriteResult) -> None:
        """Told of a write that went well."""

    def refused(self, run: Run, table: Table, error: Exception) -> SegmentationError | None:
        """Say what a failed write was refused for; None when it failed for another reason."""


@dataclass(frozen=True)
class Run:
    """One execution: who it is, when it began, and the values producers may ask for by name."""

    run_id: str
    started_at: datetime
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, **params: Any) -> Run:
        """Start a run now, with a sortable id."""
        now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        return cls(f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}", now, params)


@dataclass(frozen=True)
class StepResult:
    """How a step ended. `rows` counts rows written over all its tables."""

    step: Step
    status: Literal["succeeded", "up to date", "failed"]
    seconds: float
    rows: int = 0
    message: str = ""
    error: Exception | None = None


_OF_A_RUN = frozenset({"as_of", "run_id", "started_at"})
"""Who asks for one of these says what is so at one time, and their tables also hold what was so at others.

Of all others a full pass makes the whole table again, as long as what they read is all still there. What it does not
make, changed code names otherwise or refuses, or a delivery took away that came since the last pass.
"""

Progress = Callable[[Step, StepResult | None], None]
"""Called with a step when it starts (None) and when it ends."""


def run_steps(
    lake: Lake,
    steps: list[Step],
    run: Run,
    *,
    force: bool = False,
    progress: Progress | None = None,
    audit: Audit | None = None,
    log: AuditLog | None = None,
) -> list[StepResult]:
    """Run steps, independent ones side by side, and stop at the first failure.

    Args:
        lake: Where tables are.
        steps: From `plan_steps`.
        run: Its params are what producers may ask for.
        force: Run steps that have nothing new as well, over whole inputs.
        progress: Told of each start and end.
        audit: Quality gate around every write.
        log: What ran before; read from the table unless given.

    Raises:
        StepFailed: naming the step and its cause; what finished before is kept, and the next run goes on there.
    """
    log = log or AuditLog(lake)
    made_by = {o.name: s.producer for s in steps for o in s.outputs}
    waiting = {s.producer: (s, dependencies(s, made_by)) for s in steps}
    results: list[StepResult] = []
    failed: StepResult | None = None
    running: dict[Future[StepResult], str] = {}
    done: set[str] = set()
    log.begin([row for step in steps if (row := _begun(lake, step, run, log))])
    try:
        with ThreadPoolExecutor(max_workers=lake.settings.parallel_steps) as pool:
            while (waiting and failed is None) or running:
                if failed is None:
                    for producer in [p for p, (_, after) in waiting.items() if after <= done]:
                        step, _ = waiting.pop(producer)
                        running[pool.submit(_run_step, lake, step, run, log, force, progress, audit)] = producer
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    done.add(running.pop(future))
                    result = future.result()
                    results.append(result)
                    if result.status == "failed" and failed is None:
                        failed = result
    finally:
        log.flush()
    record_lineage(lake, [r.step for r in results if r.status == "succeeded"], run)
    if failed is not None:
        is_refusal = isinstance(failed.error, SegmentationError)
        advice = "" if is_refusal else " Start the run again to go on from here."
        raise StepFailed(f"Step {failed.step.producer} failed: {failed.message}{advice}", failed.error)
    return results


def record_lineage(lake: Lake, steps: list[Step], run: Run) -> None:
    """Merge the edges of executed steps into gov.stage_lineage."""
    edges = [
        {
            "upstream": str(r),
            "downstream": o.name,
            "step": s.producer,
            "is_incremental": isinstance(r, Changes),
            "last_run_id": run.run_id,
            "last_used_at": run.started_at,
        }
        for s in steps
        for o in s.outputs
        for r in {str(x): x for x in sorted(s.reads, key=lambda x: isinstance(x, Changes))}.values()
    ]
    if edges:
        write_rows(lake, "gov.stage_lineage", edges)


def _begun(lake: Lake, step: Step, run: Run, log: AuditLog) -> dict[str, Any] | None:
    """A row that says so when a step is about to be run under another fingerprint than it last ended under."""
    last = log.last(step.producer)
    if last is None:
        return None
    try:
        mark = step_fingerprint(step, step.function(), run.params, _from_settings(lake))
    except Exception:
        return None  # it will fail, and is told then
    if mark == last["fingerprint"]:
        return None
    now = datetime.now(UTC).replace(tzinfo=None)
    return {
        "run_id": run.run_id,
        "step": step.producer,
        "table_name": step.outputs[0].name,
        "status": "started",
        "started_at": now,
        "ended_at": now,
        "seconds": 0.0,
        "input_versions": {},
        "fingerprint": mark,
    }


def _run_step(
    lake: Lake,
    step: Step,
    run: Run,
    log: AuditLog,
    force: bool,
    progress: Progress | None,
    audit: Audit | None,
) -> StepResult:
    began, clock = datetime.now(UTC).replace(tzinfo=None), time.monotonic()
    if progress:
        progress(step, None)
    base: dict[str, Any] = {"run_id": run.run_id, "step": step.producer, "started_at": began}
    versions: dict[str, int] = {}
    mark = ""
    try:
        function = step.function()
        asked = keyword_only(function)
        mark = step_fingerprint(step, function, run.params, _from_settings(lake))
        last = None if force else log.last(step.producer)
        same_code = last is not None and last["fingerprint"].split(".")[0] == mark.split(".")[0]
        versions = {str(r): v for r in dict.fromkeys(map(str, step.reads)) if (v := lake.version(r)) is not None}
        intact = all(lake.exists(o) for o in step.outputs) and not _holds_others(lake, step, log, mark)
        goes_on = intact and _has_slice(lake, step, last)
        if (
            last
            and last["fingerprint"] == mark
            and (goes_on or (intact and not last["rows_written"]))
            and _inputs_of(step, last["input_versions"]) == _inputs_of(step, versions)
        ):
            result = StepResult(step, "up to date", time.monotonic() - clock)
            if log.tried(step.producer):
                # Else what was tried would stay the newest that is known of the step.
                log.add([row | base | _nothing_done(clock) for row in log.written(step.producer)])
        else:
            seen = dict(last["input_versions"]) if last and same_code and goes_on else {}
            if last and not _are_told(lake, step, seen, versions, last["started_at"]):
                seen = {}
            result = _execute(lake, step, run, log, function, asked, versions, seen, base, mark, clock, audit)
    except Exception as e:
        message = _say(e)
        log.add([base | _failed(step, versions, mark, clock, message)])
        result = StepResult(step, "failed", time.monotonic() - clock, message=message, error=e)
    if progress:
        progress(step, result)
    return result


def _execute(
    lake: Lake,
    step: Step,
    run: Run,
    log: AuditLog,
    function: Callable[..., DataFrame | Mapping[str, DataFrame]],
    asked: set[str],
    versions: dict[str, int],
    seen: dict[str, int],
    base: dict[str, Any],
    mark: str,
    clock: float,
    audit: Audit | None,
) -> StepResult:
    held = [lake.count(r, version=versions.get(str(r))) for r in step.reads]
    lake = lake.for_rows(sum(held))
    frames = [
        lake.read_changes(r, seen.get(str(r)), until=versions.get(str(r)), also_before=r.also_before)
        if isinstance(r, Changes)
        else lake.read(r, version=versions.get(str(r)))
        for r in step.reads
    ]
    ended: list[dict[str, Any]] = []
    total = 0
    with lake.holding() as hold:
        made = _produce(lake, step, run, function, asked, frames, seen, hold)
        news = [f for f, r in zip(frames, step.reads, strict=True) if isinstance(r, Changes) and str(r) in seen]
        known = [n for n, r in zip(held, step.reads, strict=True) if not (isinstance(r, Changes) and str(r) in seen)]
        rows_read = sum(known) + _count_all(news)
        is_whole = not seen and not asked & _OF_A_RUN and not any(_forgets(lake, str(r)) for r in step.reads)
        # What the step itself reads comes last: a run that dies before that finds it as it was, and repeats the rest.
        own = set(map(str, step.reads))
        for out in sorted(step.outputs, key=lambda o: o.name in own):
            written = _publish(lake, step, run, out, made[out.name], versions, audit, is_whole=is_whole)
            total += written.rows_written
            ended.append(
                base
                | {
                    "table_name": out.name,
                    "status": "succeeded",
                    "ended_at": datetime.now(UTC).replace(tzinfo=None),
                    "seconds": time.monotonic() - clock,
                    "input_versions": versions,
                    "output_version": written.version,
                    "slice_values": {c: str(v) for c, v in (_slice(out, run.params) or {}).items()} or None,
                    "fingerprint": mark,
                    "rows_read": rows_read,
                    "rows_written": written.rows_written,
                    "rows_rejected": written.rows_written if out.short.endswith("_reject") else 0,
                    "checksum": None if written.checksum is None else Decimal(written.checksum),
                }
            )
    log.add(ended)
    return StepResult(step, "succeeded", time.monotonic() - clock, total)


def _produce(
    lake: Lake,
    step: Step,
    run: Run,
    function: Callable[..., DataFrame | Mapping[str, DataFrame]],
    asked: set[str],
    frames: list[DataFrame],
    seen: dict[str, int],
    hold: Hold,
) -> dict[str, DataFrame]:
    """Call the producer with what it asks for; its frames by the name of their table."""
    offered: dict[str, Any] = (
        _from_settings(lake) | dict(run.params) | {"run_id": run.run_id, "started_at": run.started_at}
    )
    offered |= {"settings": lake.settings, "hold": hold, "is_full": not seen}
    if "previous" in asked:
        first = step.outputs[0]
        # Of rows that have left nothing but what was made of them tells which of those still there they stand beside.
        goes_on = seen or any(isinstance(table_of(r).kind, Append) and _forgets(lake, r) for r in step.reads)
        offered["previous"] = lake.read(first) if goes_on and lake.exists(first) else None
    lacking = asked - set(offered)
    if lacking:
        raise DeclarationError(f"{step.producer} asks for {', '.join(sorted(lacking))}, which this run does not offer.")
    made = function(*frames, **{name: offered[name] for name in asked})
    by_name = dict(made) if isinstance(made, Mapping) else {step.outputs[0].name: made}
    undeclared = set(by_name) ^ {o.name for o in step.outputs}
    if undeclared:
        raise DeclarationError(
            f"{step.producer}: returned and declared tables differ in {', '.join(sorted(undeclared))}."
        )
    return by_name


def _from_settings(lake: Lake) -> dict[str, str]:
    """Settings that decide what rows say, by name: who asks for one makes all rows again when it is another."""
    return {"base_currency": lake.settings.base_currency}


def _count_all(frames: list[DataFrame]) -> int:
    """Rows of all frames, counted in one go."""
    if not frames:
        return 0
    counts = reduce(DataFrame.unionAll, [f.agg(F.count(F.lit(1)).alias("n")) for f in frames])
    return sum(int(r["n"]) for r in counts.collect())


def _inputs_of(step: Step, versions: Mapping[str, int]) -> dict[str, int]:
    """Versions of what others write: a step that reads its own table must not wake itself."""
    own = {o.name for o in step.outputs}
    return {name: version for name, version in versions.items() if name not in own}


def _are_told(lake: Lake, step: Step, seen: Mapping[str, int], versions: Mapping[str, int], seen_at: datetime) -> bool:
    """Whether all changes since the last run can still be read; else the step begins anew, as on a first run."""
    followed = {str(r) for r in step.reads if isinstance(r, Changes)} & set(seen) & set(versions)
    return all(lake.tells_changes(name, seen[name], versions[name], seen_at) for name in followed)


def _holds_others(lake: Lake, step: Step, log: AuditLog, mark: str) -> bool:
    """Whether there may be rows of other code, other definitions or another day, of a run that did not end well.

    Changes do not tell of these, so the step begins anew.
    """
    known = {row["table_name"]: row["output_version"] for row in log.written(step.producer)}
    is_other = bool(log.tried(step.producer) - {mark})
    return is_other and any(lake.version(o) != known.get(o.name) for o in step.outputs)


def _has_slice(lake: Lake, step: Step, last: Mapping[str, Any] | None) -> bool:
    """Whether the slice of the last run, from which the next goes on, still has rows: it may be past its retention."""
    values, first = last.get("slice_values") if last else None, step.outputs[0]
    is_carried_on = isinstance(first.kind, ReplaceSlice) and any(isinstance(r, Changes) for r in step.reads)
    if not values or not is_carried_on:
        return True
    rows = lake.read(first)
    for column, value in values.items():
        rows = rows.where(F.col(column) == F.lit(value).cast(first.column(column).spec.type))
    return not rows.limit(1).isEmpty()


def _forgets(lake: Lake, name: str) -> bool:
    """Whether old rows of a table are removed after a time; what was made of them is to stay."""
    return lake.settings.days_kept(table_of(name)) is not None


def _publish(
    lake: Lake,
    step: Step,
    run: Run,
    out: Table,
    frame: DataFrame,
    versions: dict[str, int],
    audit: Audit | None,
    *,
    is_whole: bool = False,
) -> WriteResult:
    txn, part = _txn(step, out, versions), _slice(out, run.params)
    if audit is None:
        return lake.write(out, frame, txn=txn, slice_of=part, is_whole=is_whole)
    try:
        watched = audit.watch(run, out, frame)
        gate = audit.before_publish(run, out)
        written = lake.write(out, watched, txn=txn, slice_of=part, is_whole=is_whole, audit=gate)
    except Exception as e:
        refused = audit.refused(run, out, e)
        if refused is None:
            raise
        # The engine's own message shows the values of the row it stopped at.
        raise refused from None
    audit.published(run, out, written)
    return written


def _failed(step: Step, versions: dict[str, int], mark: str, clock: float, message: str) -> dict[str, Any]:
    return {
        "table_name": step.outputs[0].name,
        "status": "failed",
        "ended_at": datetime.now(UTC).replace(tzinfo=None),
        "seconds": time.monotonic() - clock,
        "input_versions": versions,
        "fingerprint": mark,
        "message": message[:2000],
    }


def _nothing_done(clock: float) -> dict[str, Any]:
    ended, seconds = datetime.now(UTC).replace(tzinfo=None), time.monotonic() - clock
    none = {"rows_read": 0, "rows_written": 0, "rows_rejected": 0, "checksum": None}
    return {"ended_at": ended, "seconds": seconds} | none


def _say(e: Exception) -> str:
    if isinstance(e, SegmentationError):
        return str(e)
    file = file_of(e)
    return f"{cause_of(e).rstrip('.')}{f' at {file}' if file else ''}."


def _slice(out: Table, params: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(out.kind, ReplaceSlice) and set(out.kind.by) <= set(params):
        return {c: params[c] for c in out.kind.by}
    return None


def _txn(step: Step, out: Table, versions: Mapping[str, int]) -> tuple[str, int] | None:
    if isinstance(out.kind, Append):
        return f"{step.producer}>{out.name}", sum(versions.values())
    return None
