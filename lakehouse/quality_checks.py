"""Checks of a table, from its declaration and its rules: as SQL that measures them, and as expectations to judge."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from lakehouse.ddl import literal, quote
from lakehouse.declare import Table, table_of
from lakehouse.errors import SettingsError, suggest
from lakehouse.quality_rules import QualityRules, Severity, TableRules

ROWS = "count(1)"

_ONE_COLUMN = "expect_column_values_to_"


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
    for check in configured(rules or TableRules()):
        name, n = check.name, 2
        while name in names:
            name, n = f"{check.name}_{n}", n + 1
        names.add(name)
        found.append(Check(**{**vars(check), "name": name}))
    return tuple(found)


def required_checks(which: str | type | Table, rules: QualityRules) -> dict[Severity, int]:
    """How many checks of each severity a table has."""
    table = table_of(which)
    checks = checks_of(table, rules.of(table))
    return {
        "blocking": sum(c.severity == "blocking" for c in checks),
        "warning": sum(c.severity == "warning" for c in checks),
    }


def configured(rules: TableRules) -> list[Check]:
    """The checks that `rules` add, under the names they give themselves."""
    made = []
    for rule in rules.expectations:
        if rule.condition is not None:
            made.append(_condition(str(rule.name), rule.condition, severity=rule.severity))
        else:
            short = str(rule.type).removeprefix(_ONE_COLUMN).removeprefix("expect_")
            name = rule.name or "_".join([*columns_in(rule.kwargs), short])
            made.append(_check(name, str(rule.type), rule.kwargs, rule.severity))
    return made


def columns_in(kwargs: Mapping[str, Any]) -> list[str]:
    """Columns that the arguments of an expectation name."""
    named = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    return [str(c) for c in [*named, *kwargs.get("column_list", ())]]


def _check(name: str, kind: str, kwargs: Mapping[str, Any], severity: Severity = "blocking") -> Check:
    failing = _FAILING[kind](kwargs) if kind in _FAILING else None
    columns = columns_in(kwargs)
    measures: list[str] = []
    if failing is not None:
        measures = [ROWS, f"count_if({failing})"]
    elif kind in AGGREGATES:
        measures = [AGGREGATES[kind][1](kwargs)]
    elif kind in _UNIQUE:
        key = ", ".join(map(quote, columns))
        distinct = key if len(columns) == 1 else f"struct({key})"
        there = " AND ".join(f"{quote(c)} IS NOT NULL" for c in columns) if len(columns) == 1 else "true"
        measures = [ROWS, f"count_if({there}) - count(DISTINCT {distinct})"]
    if measures and len(columns) == 1 and kind not in AGGREGATES:
        measures.append(f"count_if({quote(columns[0])} IS NULL)")
    return Check(name, kind, kwargs, severity, columns[0] if len(columns) == 1 else None, failing, tuple(measures))


def _condition(name: str, predicate: str, *, column: str | None = None, severity: Severity = "blocking") -> Check:
    escaped = predicate.replace("{", "{{").replace("}", "}}")
    # The query is how Great Expectations writes such a check; it is measured, never run.
    query = {"unexpected_rows_query": f"SELECT * FROM {{batch}} WHERE NOT ({escaped})"}  # noqa: S608
    failing = f"NOT ({predicate})"
    return Check(name, "unexpected_rows_expectation", query, severity, column, failing, (ROWS, f"count_if({failing})"))


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

AGGREGATES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "expect_table_row_count_to_be_between": ("table.row_count", lambda k: ROWS),
    "expect_table_row_count_to_equal": ("table.row_count", lambda k: ROWS),
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


_BOUNDS = ("min_value", "max_value", "strict_min", "strict_max")
OPTIONAL = (*_BOUNDS, "mostly", "or_equal")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_FAILING, ("column", "mostly")),
    f"{_ONE_COLUMN}be_in_set": ("column", "value_set", "mostly"),
    f"{_ONE_COLUMN}not_be_in_set": ("column", "value_set", "mostly"),
    f"{_ONE_COLUMN}be_between": ("column", "mostly", *_BOUNDS),
    f"{_ONE_COLUMN}match_regex": ("column", "regex", "mostly"),
    f"{_ONE_COLUMN}not_match_regex": ("column", "regex", "mostly"),
    "expect_column_value_lengths_to_be_between": ("column", "mostly", *_BOUNDS),
    "expect_column_value_lengths_to_equal": ("column", "value", "mostly"),
    "expect_column_pair_values_a_to_be_greater_than_b": ("column_A", "column_B", "or_equal", "mostly"),
    "expect_column_pair_values_to_be_equal": ("column_A", "column_B", "mostly"),
    **dict(zip(_UNIQUE, (("column", "mostly"), ("column_list", "mostly")), strict=True)),
    **dict.fromkeys(AGGREGATES, ("column", *_BOUNDS)),
    "expect_table_row_count_to_be_between": _BOUNDS,
    "expect_table_row_count_to_equal": ("value",),
}
"""What each measured type takes; those of `OPTIONAL` may be left out."""


def suite_of(table: Table, checks: Iterable[Check]) -> Any:
    """The Great Expectations suite of a table; its expectations carry the check's name as `meta.name`.

    Raises:
        SettingsError: for a type Great Expectations does not have, or arguments it does not take.
    """
    from great_expectations.core.expectation_suite import ExpectationSuite

    return ExpectationSuite(name=table.name, expectations=[expectation_of(table, c) for c in checks])


def expectation_of(table: Table, check: Check) -> Any:
    """The expectation that judges a check.

    Raises:
        SettingsError: for a type Great Expectations does not have, or arguments it does not take.
    """
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
