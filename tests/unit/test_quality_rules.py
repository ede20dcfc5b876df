"""Checks from declarations and conf/quality, and what a mistake in the file says."""

from __future__ import annotations

from pathlib import Path

import great_expectations.expectations as gxe
import pytest

from lakehouse.columns import Pii, bigint, text
from lakehouse.declare import Merge, Table, tables
from lakehouse.errors import SettingsError
from lakehouse.quality_checks import ARGUMENTS, checks_of, required_checks, suite_of
from lakehouse.quality_load import load_rules
from lakehouse.quality_rules import ExpectationRule, QualityRules, TableRules

CONF = Path(__file__).parents[2] / "conf"

NAMED = {
    "id": bigint("Number."),
    "kind": text("Kind.", values=("a", "b'c")),
    "mail": text("Mail.", optional=True, pii=Pii.CONTACT),
}
LETTERS = Table(
    "gold.letters", "One row per letter.", Merge(), ("id",),
    tuple(type(c)(n, c.spec) for n, c in NAMED.items()), "x:y", checks={"short": "length(mail) < 9"},
)  # fmt: skip


def test_a_declaration_alone_gives_its_checks() -> None:
    found = {c.name: (c.type, c.severity, c.failing) for c in checks_of(LETTERS)}
    assert found == {
        "id_not_null": ("expect_column_values_to_not_be_null", "blocking", "`id` IS NULL"),
        "kind_not_null": ("expect_column_values_to_not_be_null", "blocking", "`kind` IS NULL"),
        "kind_values": ("expect_column_values_to_be_in_set", "blocking", "NOT (`kind` IN ('a', 'b\\'c'))"),
        "short": ("unexpected_rows_expectation", "blocking", "NOT (length(mail) < 9)"),
        "key_unique": ("expect_column_values_to_be_unique", "blocking", None),
    }


@pytest.mark.parametrize(
    ("kind", "kwargs", "failing"),
    [
        ("expect_column_values_to_be_between", {"min_value": 0, "max_value": 9.5}, "`id` < 0 OR `id` > 9.5"),
        ("expect_column_values_to_be_between", {"min_value": 0, "strict_min": True}, "`id` <= 0"),
        ("expect_column_values_to_not_be_in_set", {"value_set": [1, True]}, "`id` IN (1, true)"),
        ("expect_column_values_to_match_regex", {"regex": r"^\d$"}, r"NOT (`id` RLIKE '^\\d$')"),
        ("expect_column_value_lengths_to_be_between", {"max_value": 3}, "length(`id`) > 3"),
    ],
)
def test_an_expectation_becomes_a_predicate_of_failing_rows(kind: str, kwargs: dict[str, object], failing: str) -> None:
    rule = ExpectationRule(type=kind, kwargs={"column": "id", **kwargs})
    assert checks_of(LETTERS, TableRules(expectations=(rule,)))[-1].failing == failing


def test_rules_add_to_the_declaration_under_names_of_their_own() -> None:
    twice = ExpectationRule(name="short", condition="true", severity="warning")
    names = [c.name for c in checks_of(LETTERS, TableRules(expectations=(twice, twice)))]
    assert names[-2:] == ["short_2", "short_3"]
    rules = QualityRules({LETTERS.name: TableRules(expectations=(twice,))})
    assert required_checks(LETTERS, rules) == {"blocking": 5, "warning": 1}


def test_the_files_of_the_product_are_sound_and_great_expectations_takes_every_suite() -> None:
    rules = load_rules(CONF)
    for table in tables().values():
        checks = checks_of(table, rules.of(table))
        suite = suite_of(table, checks)
        assert [e.meta["name"] for e in suite.expectations] == [c.name for c in checks]
        assert {c.severity for c in checks} <= {"blocking", "warning"}


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality" / "silver.yml").write_text(
        """
tables:
  silver.consents: {}
  gold.dim_product: {}
  silver.consent:
    when: while_writing
    expectations:
      - {type: expect_column_values_to_be_unique, kwargs: {column: chanel}}
      - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}
      - {type: expect_column_max_to_be_between, kwargs: {column: customer_id, max_value: 1}}
  silver.campaign:
    when: while_writing
    expectations:
      - {type: expect_column_values_to_be_unique, kwargs: {column: campaign_id}}
      - {type: expect_column_values_to_be_null, kwargs: {column: campaign_type, mostly: 0.5}}
  silver.product:
    expectations:
      - {type: expect_column_values_to_be_between, kwargs: {column: delivered_count, max_valu: 9}}
      - {type: expect_column_values_to_be_in_set, kwargs: {column: brand_type}}
      - {type: expect_column_values_to_be_betwixt, kwargs: {column: brand_type}}
""",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as raised:
        load_rules(tmp_path)
    said = str(raised.value)
    for part in (
        "10 problem(s)",
        "silver.consents is not a declared table. Did you mean 'silver.consent'?",
        "gold.dim_product belongs in gold.yml",
        "'chanel', which is not a column. Did you mean 'channel'?",
        "each write of a Merge table brings only a part of its rows",
        "would publish a value of a column about persons",
        "campaign_id_be_unique needs all rows at once",
        "campaign_type_be_null is not about single rows",
        "expect_column_values_to_be_between takes no 'max_valu'. Did you mean 'max_value'?",
        "expect_column_values_to_be_in_set lacks 'value_set'",
        "Great Expectations has no expect_column_values_to_be_betwixt",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{}", "give either type with kwargs, or condition"),
        ("{condition: a > 1}", "a condition needs a name"),
        ("{type: expect_x, sevrity: warning}", "sevrity"),
        ("{type: ExpectX}", "pattern"),
    ],
)
def test_an_entry_that_is_wrong_by_itself_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    (tmp_path / "quality").mkdir()
    text_ = f"tables: {{silver.consent: {{expectations: [{entry}]}}}}"
    (tmp_path / "quality" / "silver.yml").write_text(text_, encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        load_rules(tmp_path)


def test_the_arguments_of_what_is_measured_are_those_great_expectations_takes() -> None:
    for kind, taken in ARGUMENTS.items():
        cls = getattr(gxe, "".join(part.capitalize() for part in kind.split("_")))
        assert set(taken) <= set(cls.__fields__), kind


def test_a_type_great_expectations_does_not_have_is_named() -> None:
    rule = ExpectationRule(type="expect_column_values_to_be_betwixt", kwargs={"column": "id"})
    with pytest.raises(SettingsError, match="has no expect_column_values_to_be_betwixt"):
        suite_of(LETTERS, checks_of(LETTERS, TableRules(expectations=(rule,))))
