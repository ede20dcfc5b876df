"""The files of `conf/quality` to rules, each held against the declaration of its table."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from lakehouse.declare import Append, Merge, Scd1, Scd2, Table, tables
from lakehouse.errors import SettingsError, suggest
from lakehouse.quality_checks import AGGREGATES, ARGUMENTS, OPTIONAL, columns_in, configured, suite_of
from lakehouse.quality_rules import ExpectationRule, QualityRules, TableRules
from lakehouse.strict import Strict, problems_of
from lakehouse.yaml_file import read_yaml, yaml_files


class _RuleFile(Strict):
    tables: dict[str, TableRules] = Field(default_factory=dict)


def load_rules(conf_dir: Path) -> QualityRules:
    """Read the YAML files of `quality`, one per schema.

    Raises:
        SettingsError: listing every problem of every file.
    """
    found: dict[str, TableRules] = {}
    problems: list[str] = []
    known = tables()
    for path in yaml_files(conf_dir / "quality"):
        try:
            said = _RuleFile.model_validate(read_yaml(path) or {})
        except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as e:
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
                if name in found:
                    problems.append(f"{where} is in another file of the schema, too")
                found[name] = rules
    if problems:
        raise SettingsError(f"conf/quality has {len(problems)} problem(s): " + "; ".join(problems))
    return QualityRules(found)


def _said_by(path: Path, e: ValidationError | yaml.YAMLError | UnicodeDecodeError) -> list[str]:
    if not isinstance(e, ValidationError):
        return [f"{path.name}: not YAML: {' '.join(str(e).split())}"]
    return [f"{path.name}: {p}" for p in problems_of(e, _RuleFile)]


def _problems_of(table: Table, rules: TableRules) -> list[str]:
    problems = []
    for rule in rules.expectations:
        what = rule.name or rule.type
        problems += [
            f"{what} names '{c}', which is not a column.{suggest(c, table.column_names)}"
            for c in columns_in(rule.kwargs)
            if c not in table.column_names
        ]
        problems += _problems_of_arguments(table, rule)
        if rule.type and rule.type.startswith("expect_table_row_count") and _is_part(table):
            problems.append(f"{what}: each write of a {type(table.kind).__name__} table brings only a part of its rows")
        observes = rule.type is not None and rule.type in AGGREGATES
        if observes and any(table.column(c).spec.pii for c in columns_in(rule.kwargs) if c in table.column_names):
            problems.append(f"{what} would publish a value of a column about persons")
    if rules.when == "while_writing" and not problems:
        if isinstance(table.kind, Scd2):
            problems.append("an SCD2 table is rebuilt as it is written, so it is checked before_publish")
        for check in configured(rules):
            if any("DISTINCT" in m for m in check.measures) or not check.measures:
                problems.append(f"{check.name} needs all rows at once, so the table must be checked before_publish")
            elif check.severity == "blocking" and (check.failing is None or "mostly" in check.kwargs):
                problems.append(f"{check.name} is not about single rows, so while_writing it can only be a warning")
    return problems


def _problems_of_arguments(table: Table, rule: ExpectationRule) -> list[str]:
    if rule.type is None:
        return []
    takes = ARGUMENTS.get(rule.type)
    if takes is None:
        try:
            suite_of(table, configured(TableRules(expectations=(rule,))))
        except SettingsError as e:
            return [str(e).removeprefix(f"{table.name}: ")]
        return []
    what = rule.name or rule.type
    return [f"{what} takes no '{a}'.{suggest(a, takes)}" for a in rule.kwargs if a not in takes] + [
        f"{what} lacks '{a}'" for a in takes if a not in OPTIONAL and a not in rule.kwargs
    ]


def _is_part(table: Table) -> bool:
    return isinstance(table.kind, Append | Merge | Scd1 | Scd2)
