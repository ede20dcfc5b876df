"""Checks of a table, from its declaration and from `conf/quality`, and the gate they form before a write is published.

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
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from lakehouse.ddl import literal, quote
from lakehouse.declare import Append, Merge, Scd1, Scd2, Table, table_of, tables
from lakehouse.errors import QualityError, SegmentationError, SettingsError, suggest
from lakehouse.lake import DELETED, Lake, WriteResult
from lakehouse.runner import Run, append_rows

Severity = Literal["blocking", "warning"]
Moment = Literal["before_publish", "while_writing"]

RESULTS = "gov.fact_data_quality"
GUARD = "quality check failed: "

_ROWS = "count(1)"
_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
_ONE_COLUMN = "expect_column_values_to_"
_REFUSALS = (
    re.compile(rf"{GUARD}(\w+)"),
    re.compile(r"CHECK constraint (\S+) .*violated"),
    re.compile(r"NOT NULL constraint violated for column: (\S+?)\.?\s"),
)


# Rules: conf/quality -------------------------------------------------------------------------------------------------


class ExpectationRule(BaseModel):
    """One check of a table beyond what its declaration says.

    Attributes:
        type: Great Expectations type in snake case, such as `expect_column_values_to_be_between`.
        kwargs: Its arguments.
        condition: Instead of a type, a SQL predicate over a row that must not be false.
        name: Name of the check; made from type and column when empty. A `condition` needs one.
        severity: `blocking` stops the publish, `warning` is recorded.
        why: What the check protects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str | None = Field(default=None, pattern=r"^expect_[a-z0-9_]+$")
    kwargs: dict[str, Any] = Field(default_factory=dict)
    condition: str | None = None
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    severity: Severity = "blocking"
    why: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ExpectationRule:
        if (self.type is None) == (self.condition is None):
            raise ValueError("give either type with kwargs, or condition")
        if self.condition is not None and self.name is None:
            raise ValueError("a condition needs a name")
        return self


class TableRules(BaseModel):
    """What `conf/quality` says of one table.

    Attributes:
        when: `before_publish` keeps the frame, measures all of it, then writes. `while_writing` is for frames of
            millions of rows: blocking checks are evaluated row by row inside the write, which fails as a whole, and
            the rest is counted along the way. It cannot check what needs all rows at once (uniqueness, `mostly`).
        expectations: Checks beyond the declaration's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: Moment = "before_publish"
    expectations: tuple[ExpectationRule, ...] = ()


class _RuleFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: dict[str, TableRules] = Field(default_factory=dict)


@dataclass(frozen=True)
class QualityRules:
    """The rules of every table that has any."""

    tables: Mapping[str, TableRules] = field(default_factory=dict)

    def of(self, table: Table) -> TableRules:
        """Rules of a table; without an entry, only its declaration is checked, before it is published."""
        return self.tables.get(table.name, TableRules())


def load_rules(conf_dir: Path) -> QualityRules:
    """Read `quality/*.yml`, one file per schema.

    Raises:
        SettingsError: listing every problem of every file.
    """
    found: dict[str, TableRules] = {}
    problems: list[str] = []
    known = tables()
    for path in sorted((conf_dir / "quality").glob("*.yml")):
        try:
            said = _RuleFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except (ValidationError, yaml.YAMLError) as e:
            problems += _said_by(path, e)
            continue
        for name, rules in said.tables.items():
            where = f"{path.name}: {name}"
            if name not in known:
                problems.append(f"{where} is not a declared table.{suggest(name, known)}")
            elif name.split(".")[0] != path.stem:
                problems.append(f"{where} belongs in {name.split('.')[0]}.yml")
            else:
                problems += [f"{where}: {p}" for p in _problems_of(known[name], rules)]
                found[name] = rules
    if problems:
        raise SettingsError(f"conf/quality has {len(problems)} problem(s): " + "; ".join(problems))
    return QualityRules(found)


def _said_by(path: Path, e: ValidationError | yaml.YAMLError) -> list[str]:
    if isinstance(e, yaml.YAMLError):
        return [f"{path.name}: not YAML: {' '.join(str(e).split())}"]
    return [f"{path.name}: {'.'.join(str(p) for p in err['loc'])}: {err['msg']}" for err in e.errors()]


def _problems_of(table: Table, rules: TableRules) -> list[str]:
    problems = []
    for rule in rules.expectations:
        what = rule.name or rule.type
        problems += [
            f"{what} names '{c}', which is not a column.{suggest(c, table.column_names)}"
            for c in _columns_in(rule.kwargs)
            if c not in table.column_names
        ]
        if rule.type and rule.type.startswith("expect_table_row_count") and _is_part(table):
            problems.append(f"{what}: each write of a {type(table.kind).__name__} table brings only a part of its rows")
        observes = rule.type is not None and rule.type in _AGGREGATES
        if observes and any(table.column(c).spec.pii for c in _columns_in(rule.kwargs) if c in table.column_names):
            problems.append(f"{what} would publish a value of a column about persons")
    if rules.when == "while_writing" and not problems:
        if isinstance(table.kind, Scd2):
            problems.append("an SCD2 table is rebuilt as it is written, so it is checked before_publish")
        for check in _configured(rules):
            if any("DISTINCT" in m for m in check.measures) or not check.measures:
                problems.append(f"{check.name} needs all rows at once, so the table must be checked before_publish")
            elif check.severity == "blocking" and (check.failing is None or "mostly" in check.kwargs):
                problems.append(f"{check.name} is not about single rows, so while_writing it can only be a warning")
    return problems


def _is_part(table: Table) -> bool:
    return isinstance(table.kind, Append | Merge | Scd1 | Scd2)


def _columns_in(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    return [str(c) for c in [*named, *kwargs.get("column_list", ())]]


# Checks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One check of a table.

    Attributes:
        name: Unique within the table.
        type: Great Expectations type.
        kwargs: Its arguments.
        severity: Whether a failure stops the publish.
        column: Column checked, None for several or none.
        failing: SQL predicate true for a failing row; None where a check is not about single rows.
        measures: SQL aggregates its judgement needs; empty when only Great Expectations can measure it.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    severity: Severity
    column: str | None
    failing: str | None
    measures: tuple[str, ...]


def checks_of(table: Table, rules: TableRules | None = None) -> tuple[Check, ...]:
    """Every check of a table: required columns, closed value sets, predicates, its key, and what `rules` add."""
    found: list[Check] = []
    for c in table.columns:
        if not c.spec.optional:
            found.append(_check(f"{c}_not_null", f"{_ONE_COLUMN}not_be_null", {"column": str(c)}))
        if c.spec.values:
            found.append(
                _check(f"{c}_values", f"{_ONE_COLUMN}be_in_set", {"column": str(c), "value_set": [*c.spec.values]})
            )
        if c.spec.check:
            found.append(_condition(f"{c}_check", c.spec.check, column=str(c)))
    found += [_condition(name, predicate) for name, predicate in table.checks.items()]
    if len(table.key) == 1:
        found.append(_check("key_unique", f"{_ONE_COLUMN}be_unique", {"column": table.key[0]}))
    elif table.key:
        found.append(_check("key_unique", "expect_compound_columns_to_be_unique", {"column_list": [*table.key]}))
    names = {c.name for c in found}
    for check in _configured(rules or TableRules()):
        name, n = check.name, 2
        while name in names:
            name, n = f"{check.name}_{n}", n + 1
        names.add(name)
        found.append(Check(**{**vars(check), "name": name}))
    return tuple(found)


def _configured(rules: TableRules) -> list[Check]:
    made = []
    for rule in rules.expectations:
        if rule.condition is not None:
            made.append(_condition(str(rule.name), rule.condition, severity=rule.severity))
        else:
            short = str(rule.type).removeprefix(_ONE_COLUMN).removeprefix("expect_")
            name = rule.name or "_".join([*_columns_in(rule.kwargs), short])
            made.append(_check(name, str(rule.type), rule.kwargs, rule.severity))
    return made


def _check(name: str, kind: str, kwargs: Mapping[str, Any], severity: Severity = "blocking") -> Check:
    failing = _FAILING[kind](kwargs) if kind in _FAILING else None
    columns = _columns_in(kwargs)
    measures: list[str] = []
    if failing is not None:
        measures = [_ROWS, f"count_if({failing})"]
    elif kind in _AGGREGATES:
        measures = [_AGGREGATES[kind][1](kwargs)]
    elif kind in _UNIQUE:
        key = ", ".join(map(quote, columns))
        distinct = key if len(columns) == 1 else f"struct({key})"
        there = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns) if len(columns) == 1 else "true"
        measures = [_ROWS, f"count_if({there}) - count(DISTINCT {distinct})"]
    if measures and len(columns) == 1 and kind not in _AGGREGATES:
        measures.append(f"count_if({quote(columns[0])} IS NULL)")
    return Check(name, kind, kwargs, severity, columns[0] if len(columns) == 1 else None, failing, tuple(measures))


def _condition(name: str, predicate: str, *, column: str | None = None, severity: Severity = "blocking") -> Check:
    escaped = predicate.replace("{", "{{").replace("}", "}}")
    # The query is how Great Expectations writes such a check; it is measured, never run.
    query = {"unexpected_rows_query": f"SELECT * FROM {{batch}} WHERE NOT ({escaped})"}  # noqa: S608
    failing = f"NOT ({predicate})"
    return Check(name, "unexpected_rows_expectation", query, severity, column, failing, (_ROWS, f"count_if({failing})"))


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case datetime() | date():
            return literal(value.isoformat())
        case _:
            return literal(str(value))


def _outside(of: str, kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    below = f"{of} {'<=' if kwargs.get('strict_min') else '<'} {_value(low)}" if low is not None else None
    above = f"{of} {'>=' if kwargs.get('strict_max') else '>'} {_value(high)}" if high is not None else None
    return " OR ".join(p for p in (below, above) if p) or "false"


def _in(kwargs: Mapping[str, Any]) -> str:
    return f"{quote(kwargs['column'])} IN ({', '.join(_value(v) for v in kwargs['value_set'])})"


def _pair(kwargs: Mapping[str, Any], sign: str) -> str:
    return f"NOT ({quote(kwargs['column_A'])} {sign} {quote(kwargs['column_B'])})"


_FAILING: dict[str, Callable[[Mapping[str, Any]], str]] = {
    f"{_ONE_COLUMN}not_be_null": lambda k: f"{quote(k['column'])} IS NULL",
    f"{_ONE_COLUMN}be_null": lambda k: f"{quote(k['column'])} IS NOT NULL",
    f"{_ONE_COLUMN}be_in_set": lambda k: f"NOT ({_in(k)})",
    f"{_ONE_COLUMN}not_be_in_set": _in,
    f"{_ONE_COLUMN}be_between": lambda k: _outside(quote(k["column"]), k),
    f"{_ONE_COLUMN}match_regex": lambda k: f"NOT ({quote(k['column'])} RLIKE {literal(k['regex'])})",
    f"{_ONE_COLUMN}not_match_regex": lambda k: f"{quote(k['column'])} RLIKE {literal(k['regex'])}",
    "expect_column_value_lengths_to_be_between": lambda k: _outside(f"length({quote(k['column'])})", k),
    "expect_column_value_lengths_to_equal": lambda k: f"length({quote(k['column'])}) != {_value(k['value'])}",
    "expect_column_pair_values_a_to_be_greater_than_b": lambda k: _pair(k, ">=" if k.get("or_equal") else ">"),
    "expect_column_pair_values_to_be_equal": lambda k: _pair(k, "="),
}
"""SQL that is true for a failing row. Null makes it null: unknown is not a failure, except where null is the matter."""

_UNIQUE = (f"{_ONE_COLUMN}be_unique", "expect_compound_columns_to_be_unique")

_AGGREGATES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "expect_table_row_count_to_be_between": ("table.row_count", lambda k: _ROWS),
    "expect_table_row_count_to_equal": ("table.row_count", lambda k: _ROWS),
    "expect_column_min_to_be_between": ("column.min", lambda k: f"min({quote(k['column'])})"),
    "expect_column_max_to_be_between": ("column.max", lambda k: f"max({quote(k['column'])})"),
    "expect_column_mean_to_be_between": ("column.mean", lambda k: f"avg({quote(k['column'])})"),
    "expect_column_sum_to_be_between": ("column.sum", lambda k: f"sum({quote(k['column'])})"),
    "expect_column_stdev_to_be_between": ("column.standard_deviation", lambda k: f"stddev_samp({quote(k['column'])})"),
    "expect_column_unique_value_count_to_be_between": (
        "column.distinct_values.count",
        lambda k: f"count(DISTINCT {quote(k['column'])})",
    ),
}
"""The metric each judges, and the SQL aggregate that measures it."""


def suite_of(table: Table, checks: Iterable[Check]) -> Any:
    """The Great Expectations suite of a table; its expectations carry the check's name as `meta.name`.

    Raises:
        SettingsError: for a type Great Expectations does not have, or arguments it does not take.
    """
    from great_expectations.core.expectation_suite import ExpectationSuite

    return ExpectationSuite(name=table.name, expectations=[_expectation(table, c) for c in checks])


def _expectation(table: Table, check: Check) -> Any:
    shelf = importlib.import_module("great_expectations.expectations")
    # Great Expectations names a class by its type: ExpectColumnValuesToBeBetween.
    name = "".join(part.capitalize() for part in check.type.split("_"))
    known = {n.lower(): n for n in dir(shelf)}
    if name.lower() not in known:
        raise SettingsError(
            f"{table.name}: {check.name}: Great Expectations has no {check.type}.{suggest(name, dir(shelf))}"
        )
    level = "critical" if check.severity == "blocking" else "warning"
    try:
        return getattr(shelf, known[name.lower()])(**check.kwargs, severity=level, meta={"name": check.name})
    except (ValueError, TypeError) as e:
        raise SettingsError(f"{table.name}: {check.name}: {' '.join(str(e).split())}") from e


# The gate ------------------------------------------------------------------------------------------------------------


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
        wanted = [_ROWS, *(m for c in checks if c.severity == "warning" for m in c.measures if m != _ROWS)]
        measures = list(dict.fromkeys(wanted))
        seen = Observation(f"quality_{uuid.uuid4().hex}")
        counted = [m.replace("count_if(", f"count_if({alive} AND ", 1) for m in measures]
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
            append_rows(self._lake, RESULTS, rows)
        if pages:
            from lakehouse.quality_pages import write_pages

            write_pages(self._lake.settings.data_dir.resolve() / "_quality", pages)

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
                expectation = _expectation(table, check)
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
                total = measured.get(_ROWS, said.get("element_count"))
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
    """The gate for `run_steps(audit=...)`, with the rules of `conf/quality` unless others are given."""
    return QualityGate(lake, rules if rules is not None else load_rules(lake.settings.conf_dir))


def _measure(frame: DataFrame, measures: Iterable[str]) -> dict[str, Any]:
    wanted = list(dict.fromkeys([_ROWS, *measures]))
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
        return measured[_ROWS]
    if name == "column_values.nonnull.unexpected_count":
        return measured.get(f"count_if({quote(str(check.column))} IS NULL)", 0)
    if name.endswith((".unexpected_count", "unexpected_rows_query.row_count")):
        return measured[check.measures[1]]
    if check.type in _AGGREGATES and name == _AGGREGATES[check.type][0]:
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
    if unexpected is not None and check.type not in _AGGREGATES:
        return f"{check.name} ({unexpected:,} of {total or 0:,} rows)"
    return f"{check.name} (found {said.get('observed_value')})"


def required_checks(which: str | type | Table, rules: QualityRules) -> dict[Severity, int]:
    """How many checks of each severity a table has."""
    table = table_of(which)
    checks = checks_of(table, rules.of(table))
    return {
        "blocking": sum(c.severity == "blocking" for c in checks),
        "warning": sum(c.severity == "warning" for c in checks),
    }
