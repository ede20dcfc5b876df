"""The gate before a write is published: it measures the checks of a table, judges them and records the results.

Great Expectations holds the suites and judges them. What it judges, the numbers of rows and of failing rows, is
measured by one Spark aggregate per table: letting it measure costs three to five jobs a table, about three times the
CPU, and brings rows to the driver. Measured this way no value of a row can reach a result, a log or a page.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from lakehouse.ddl import literal, quote
from lakehouse.declare import Table
from lakehouse.errors import QualityError, SegmentationError, SettingsError
from lakehouse.lake import DELETED, Lake, WriteResult
from lakehouse.quality_checks import AGGREGATES, ROWS, Check, checks_of, expectation_of
from lakehouse.quality_load import load_rules
from lakehouse.quality_rules import Moment, QualityRules, TableRules
from lakehouse.records import write_rows
from lakehouse.runner import Run

RESULTS = "gov.fact_data_quality"
GUARD = "quality check failed: "

_AGGREGATE = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
_REFUSALS = (
    re.compile(rf"{GUARD}(\w+)"),
    re.compile(r"CHECK constraint (\S+) .*violated"),
    re.compile(r"NOT NULL constraint violated for column: (\S+?)\.?\s"),
)


class QualityGate:
    """Checks what is about to be published; pass it to `run_steps(audit=...)`.

    Results are held until `finish`, so that a run makes one commit of them. Evaluations from several threads are safe.
    """

    def __init__(self, lake: Lake, rules: QualityRules) -> None:
        """Take the lake results go to, and the rules beyond the declarations."""
        self._lake = lake
        self._rules = rules
        self._rows: list[dict[str, Any]] = []
        self._pages: list[tuple[Table, Any, Run]] = []
        self._watched: dict[tuple[str, str], tuple[Observation, list[str]]] = {}
        self._lock = threading.Lock()
        self._judging = threading.Lock()
        self._importing: threading.Thread | None = None

    def __call__(self, run: Run, table: Table, frame: DataFrame) -> None:
        """Measure a frame and judge it.

        Raises:
            QualityError: naming the blocking checks that failed.
        """
        self._import_in_background()
        checks = checks_of(table, self._rules.of(table))
        measured = _measure(frame, [m for c in checks for m in c.measures])
        self._judge(run, table, checks, measured, "before_publish", frame)

    def before_publish(self, run: Run, table: Table) -> Callable[[DataFrame], None] | None:
        """What `Lake.write(audit=...)` takes for a table; None when it is checked while it is written."""
        if self._rules.of(table).when == "while_writing":
            return None
        self._import_in_background()
        return lambda frame: self(run, table, frame)

    def watch(self, run: Run, table: Table, frame: DataFrame) -> DataFrame:
        """Return the frame to write: for a table checked while it is written, one that fails on its first bad row."""
        if self._rules.of(table).when != "while_writing":
            return frame
        checks = checks_of(table, self._rules.of(table))
        # What is to be removed is neither judged nor counted.
        alive = f"NOT coalesce({quote(DELETED)}, false)" if DELETED in frame.columns else "true"
        refusals = [
            f"WHEN {alive} AND ({c.failing}) THEN {literal(c.name)}"
            for c in checks
            if c.severity == "blocking" and c.failing is not None
        ]
        watched = frame
        if refusals:
            refused = F.expr(f"CASE {' '.join(refusals)} END")
            stop = F.raise_error(F.concat(F.lit(GUARD), refused))
            # Not deterministic, so that the optimizer cannot move it below the filters that remove a row: `null AND
            # guard` evaluates the guard, and would refuse a row that was never to be written.
            passes = F.monotonically_increasing_id() >= 0
            watched = frame.where(F.when(refused.isNotNull(), stop.cast("boolean")).otherwise(passes))
        wanted = [ROWS, *(m for c in checks if c.severity == "warning" for m in c.measures if m != ROWS)]
        measures = list(dict.fromkeys(wanted))
        seen = Observation(f"quality_{uuid.uuid4().hex}")
        counted = [_AGGREGATE.sub(rf"\1(CASE WHEN {alive} THEN \2 END)", m) for m in measures]
        watched = watched.observe(seen, *[F.expr(m).alias(f"m{i}") for i, m in enumerate(counted)])
        with self._lock:
            self._watched[run.run_id, table.name] = (seen, measures)
        return watched

    def published(self, run: Run, table: Table, written: WriteResult) -> None:
        """Record what was counted along a write that went well."""
        with self._lock:
            watched = self._watched.pop((run.run_id, table.name), None)
        # A replayed append is ignored without running, and then the counts would never come.
        if watched is None or not written.rows_written:
            return
        seen, measures = watched
        counts = seen.get
        measured: dict[str, Any] = {m: counts[f"m{i}"] for i, m in enumerate(measures)}
        checks = [
            c for c in checks_of(table, self._rules.of(table)) if c.failing is not None or c.severity == "warning"
        ]
        for c in checks:
            # A blocking check that failed would have ended the write.
            if c.severity == "blocking":
                measured |= {m: 0 for m in c.measures if m not in measured}
        self._judge(run, table, checks, measured, "while_writing", None)

    def refused(self, run: Run, table: Table, error: Exception) -> QualityError | None:
        """Name the check an engine's error came from, and record it; None when the error is about something else.

        The engine's own message shows the values of the row: do not log it.
        """
        with self._lock:
            self._watched.pop((run.run_id, table.name), None)
        said = str(error)
        found = next((m.group(1) for p in _REFUSALS if (m := p.search(said))), None)
        if found is None or isinstance(error, SegmentationError):
            return None
        checks = {c.name.lower(): c for c in checks_of(table, self._rules.of(table))}
        check = checks.get(found.lower()) or checks.get(f"{found.lower()}_not_null")
        if check is None:
            return None
        self._record(run, table, check, "failed", "while_writing", None, None, None)
        return QualityError(table.name, [check.name])

    def finish(self) -> None:
        """Append the results held back, and write the pages of the tables checked."""
        with self._lock:
            rows, self._rows = self._rows, []
            pages, self._pages = self._pages, []
        if rows:
            write_rows(self._lake, RESULTS, rows)
        if pages:
            from lakehouse.quality_pages import write_pages

            settings = self._lake.settings
            write_pages((settings.reports_dir or settings.data_dir).resolve() / "_quality", pages)

    def _import_in_background(self) -> None:
        # Great Expectations takes seconds to import, which may as well pass while Spark computes the first frame.
        with self._lock:
            if self._importing is None:
                self._importing = threading.Thread(
                    target=importlib.import_module, args=("great_expectations.expectations",), daemon=True
                )
                self._importing.start()

    def _judge(
        self,
        run: Run,
        table: Table,
        checks: Iterable[Check],
        measured: Mapping[str, Any],
        moment: Moment,
        frame: DataFrame | None,
    ) -> None:
        if self._importing is not None:
            self._importing.join()
        failed: list[str] = []
        results: list[Any] = []
        with self._judging:
            for check in checks:
                expectation = expectation_of(table, check)
                try:
                    result = _validate(expectation, check, measured, frame)
                except Exception as e:  # a check that cannot be evaluated must not pass
                    self._record(run, table, check, "error", moment, None, None, type(e).__name__)
                    if check.severity == "blocking":
                        failed.append(f"{check.name} could not be evaluated ({type(e).__name__})")
                    continue
                results.append(result)
                said = result.result or {}
                unexpected = said.get("unexpected_count", measured.get(f"count_if({check.failing})"))
                total = measured.get(ROWS, said.get("element_count"))
                self._record(
                    run, table, check, "passed" if result.success else "failed", moment, total, unexpected, None
                )
                if not result.success and check.severity == "blocking":
                    failed.append(_in_words(check, said, unexpected, total))
        with self._lock:
            self._pages.append((table, results, run))
        if failed:
            raise QualityError(table.name, failed)

    def _record(
        self,
        run: Run,
        table: Table,
        check: Check,
        status: str,
        moment: Moment,
        total: int | None,
        unexpected: int | None,
        message: str | None,
    ) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        identity = f"{run.run_id}|{table.name}|{check.name}|{now.isoformat()}"
        row = {
            "dq_id": hashlib.sha256(identity.encode()).hexdigest()[:32],
            "dataset_id": table.name,
            "check_name": check.name,
            "check_status": status,
            "checked_ts": now,
            "severity": check.severity,
            "run_id": run.run_id,
            "expectation": check.type,
            "column_name": check.column,
            "moment": moment,
            "element_count": total,
            "unexpected_count": unexpected,
            "unexpected_percent": 100 * unexpected / total if total and unexpected is not None else None,
            "message": message,
        }
        with self._lock:
            self._rows.append(row)


def quality_gate(lake: Lake, rules: QualityRules | None = None) -> QualityGate:
    """The gate for `run_steps(audit=...)`, with the rules of `conf/quality` unless others are given.

    Raises:
        SettingsError: naming every condition that cannot be asked of its table.
    """
    chosen = rules if rules is not None else load_rules(lake.settings.conf_dir)
    problems = [p for name, said in chosen.tables.items() for p in _problems_of_conditions(lake, name, said)]
    if problems:
        raise SettingsError(f"conf/quality has {len(problems)} problem(s): " + "; ".join(problems))
    return QualityGate(lake, chosen)


def _problems_of_conditions(lake: Lake, name: str, rules: TableRules) -> list[str]:
    problems = []
    for rule in (r for r in rules.expectations if r.condition is not None):
        try:
            _ = lake.empty(name).where(str(rule.condition)).schema
        except PySparkException as e:
            problems.append(f"{name}: {rule.name}: {' '.join(str(e).split(';')[0].split())}")
    return problems


def _measure(frame: DataFrame, measures: Iterable[str]) -> dict[str, Any]:
    wanted = list(dict.fromkeys([ROWS, *measures]))
    found = frame.selectExpr(*[f"{m} AS m{i}" for i, m in enumerate(wanted)]).collect()[0]
    return {m: found[f"m{i}"] for i, m in enumerate(wanted)}


def _validate(expectation: Any, check: Check, measured: Mapping[str, Any], frame: DataFrame | None) -> Any:
    if not check.measures:
        if frame is None:
            raise SegmentationError(f"{check.type} needs the frame")
        return _validate_on(frame, expectation)
    wanted = expectation.get_validation_dependencies(
        execution_engine=None, runtime_configuration={"result_format": dict(_FORMAT)}
    )
    metrics = {m.id: _metric(name, check, measured) for name, m in wanted.metric_configurations.items()}
    return expectation.metrics_validate(metrics, runtime_configuration={"result_format": dict(_FORMAT)})


def _metric(name: str, check: Check, measured: Mapping[str, Any]) -> Any:
    """The value of a metric Great Expectations asks for, from what was measured; never a row or a value of one."""
    if name.endswith((".unexpected_values", "unexpected_rows_query.table")):
        return []
    if name == "table.row_count" or name.endswith(".filtered_row_count"):
        return measured[ROWS]
    if name == "column_values.nonnull.unexpected_count":
        return measured.get(f"count_if({quote(str(check.column))} IS NULL)", 0)
    if name.endswith((".unexpected_count", "unexpected_rows_query.row_count")):
        return measured[check.measures[1]]
    if check.type in AGGREGATES and name == AGGREGATES[check.type][0]:
        return measured[check.measures[0]]
    raise SegmentationError(f"{check.type} asks for {name}, which is not measured")


def _validate_on(frame: DataFrame, expectation: Any) -> Any:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_spark("lake", persist=False).add_dataframe_asset("frame")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    result = batch.validate(expectation, result_format="BOOLEAN_ONLY")
    if (result.exception_info or {}).get("raised_exception"):
        raise SegmentationError(f"Great Expectations could not evaluate {type(expectation).__name__}")
    return result


def _in_words(check: Check, said: Mapping[str, Any], unexpected: int | None, total: int | None) -> str:
    if unexpected is not None and check.type not in AGGREGATES:
        return f"{check.name} ({unexpected:,} of {total or 0:,} rows)"
    return f"{check.name} (found {said.get('observed_value')})"
