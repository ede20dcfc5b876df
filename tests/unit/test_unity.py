"""Unity Catalog SQL: what is said for whom, and that it parses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast
from unittest.mock import MagicMock

import pytest
import yaml
from pyspark.errors import PySparkException

from lakehouse.access import load_access
from lakehouse.catalogue import catalogue_rows
from lakehouse.ddl import properties
from lakehouse.declare import SCHEMAS, table_of, tables
from lakehouse.errors import MigrationRefused, SettingsError
from lakehouse.lake import Lake
from lakehouse.quality_load import load_rules
from lakehouse.settings import Settings
from lakehouse.unity import PROTECTION, Statement, plan, render, table_tags

CONF = Path(__file__).parents[2] / "conf"
ACCESS = load_access(CONF)

# What sqlfluff's Databricks dialect does not know, though Databricks does.
NOT_PARSED = ("policy", "column")


@pytest.fixture(scope="module")
def statements() -> list[Statement]:
    return plan(catalog="shop`s", access=ACCESS)


def test_every_kind_of_statement_parses(statements: list[Statement]) -> None:
    from sqlfluff.core import FluffConfig, Linter

    # One of each shape: parsing all of them would take minutes.
    shapes: dict[tuple[str, ...], Statement] = {}
    for s in statements:
        words = tuple(w for w in s.sql.split() if w.isupper())[:12]
        shapes.setdefault((s.kind, *words) if s.kind != "table" else (s.kind, *sorted({*words})), s)
    parsed = [s for s in shapes.values() if s.kind not in NOT_PARSED]
    assert {s.kind for s in parsed} | set(NOT_PARSED) == {s.kind for s in statements}
    linter = Linter(config=FluffConfig(overrides={"dialect": "databricks"}))
    # Privileges the dialect does not know.
    text = "".join(re.sub(", (CREATE MODEL|MANAGE|APPLY TAG)", "", s.sql) + ";\n" for s in parsed)
    text += "\n".join(re.findall("ALTER TABLE .*;", next(s.sql for s in statements if s.kind == "column")))
    result = linter.parse_string(text)
    assert [f"{v}" for v in result.violations] == []
    assert result.tree is not None
    assert "unparsable" not in result.tree.type_set()


def test_the_parser_notices_a_mistake() -> None:
    from sqlfluff.core import FluffConfig, Linter

    linter = Linter(config=FluffConfig(overrides={"dialect": "databricks"}))
    assert linter.parse_string("GRANT SELECT ON TABLES `a`.`b`.`c` TO TO `g`;").violations


def test_names_are_quoted_whatever_they_hold(statements: list[Statement]) -> None:
    assert all("shop`s" not in s.sql.replace("shop``s", "") for s in statements)
    created = next(s.sql for s in statements if s.kind == "table" and s.about == "gold.dim_product")
    assert created.startswith("CREATE TABLE IF NOT EXISTS `shop``s`.`gold`.`dim_product` (")
    assert "CONSTRAINT `dim_product_pk` PRIMARY KEY (`merchant_id`, `product_id`)" in created


def test_every_personal_column_is_protected_and_every_merchant_filtered(statements: list[Statement]) -> None:
    for t in tables().values():
        policies = [s.sql for s in statements if s.about == t.name and s.kind == "policy"]
        for c in t.pii_columns:
            assert c.spec.pii is not None
            assert any(f"mask_{c.spec.pii.value}" in sql for sql in policies), f"{t.name}.{c}"
        is_filtered = any("may_see_merchant" in sql for sql in policies)
        assert is_filtered == bool({"merchant_id", "website_id"} & set(t.column_names)), t.name


def test_policies_protect_and_exempt_the_pipeline_and_nothing_is_set_on_a_table(statements: list[Statement]) -> None:
    """A mask or filter set on a table is refused beside its CHECK constraints, and ends its history for everyone."""
    assert not [s.sql for s in statements if re.search("SET (MASK|ROW FILTER)", s.sql)]
    policies = [s.sql for s in statements if s.kind == "policy"]
    assert all("TO `account users` EXCEPT `segmentation-pipelines`" in sql for sql in policies)


def test_a_column_is_there_before_anything_names_it(statements: list[Statement]) -> None:
    """The script also runs on tables that an earlier release made."""
    for t in tables().values():
        own = [s for s in statements if s.about == t.name]
        added = re.findall(r"ADD COLUMN \(`(\w+)`", "".join(s.sql for s in own if s.kind == "column"))
        later = [s.sql for s in own if s.kind in ("constraint", "tag", "policy")]
        named = {str(c) for c in t.columns if any(re.search(rf"\b{c}\b", sql.split("SET TAGS")[0]) for sql in later)}
        assert {c for c in named if t.column(c).spec.optional} <= set(added), t.name
        order = [s.kind for s in own]
        assert order[:2] == ["table", "owner"]
        assert "column" not in order or order.index("column") == 2
        assert "mark" not in order or order.index("mark") == len(order) - 1


def catalog_lake(detail: dict[str, str] | None, conf: Path = CONF) -> tuple[Lake, list[str]]:
    """A lake of a catalog whose tables all have these properties, or are not there; and what it runs."""
    ran: list[str] = []
    session = MagicMock()
    session.catalog.tableExists.return_value = detail is not None

    def answer(sql: str) -> MagicMock:
        ran.append(sql)
        told = {"properties": detail, "clusteringColumns": [], "partitionColumns": [], "description": ""}
        return MagicMock(**{"select.return_value.collect.return_value": [told]})

    session.sql.side_effect = answer
    return Lake(session, Settings(catalog="shop", conf_dir=conf)), ran


@pytest.mark.parametrize("earlier", [None, {}, {PROTECTION: "customer_id pii=identifier"}])
def test_what_readers_would_see_unmasked_is_neither_made_nor_migrated(earlier: dict[str, str] | None) -> None:
    """A release that declares a table, a personal column or another class writes once the script has run."""
    lake, ran = catalog_lake(earlier)
    with pytest.raises(MigrationRefused, match=r"tables ddl gold\.dim_customer --target unity --catalog shop"):
        lake.ensure("gold.dim_customer")
    assert not [sql for sql in ran if not sql.startswith("DESCRIBE")]


def test_names_in_queries_mean_the_catalog_of_the_settings() -> None:
    """Whatever catalog the session began in, and without a question for each declared table."""
    lake, ran = catalog_lake({})
    lake.register_all()
    lake.sql("SELECT * FROM gold.dim_customer")
    session = cast("MagicMock", lake.spark)
    session.catalog.setCurrentCatalog.assert_called_once_with("shop")
    session.catalog.tableExists.assert_not_called()
    assert ran == ["SELECT * FROM gold.dim_customer"]


def test_what_the_script_has_protected_is_written(statements: list[Statement]) -> None:
    t = table_of("gold.dim_customer")
    mark = next(s.sql for s in statements if s.about == t.name and s.kind == "mark")
    lake, _ = catalog_lake(properties(t) | {PROTECTION: mark.split("'")[3]})
    assert lake.ensure(t) is t


def test_the_jobs_make_tables_without_personal_data_and_all_that_nobody_else_may_read(tmp_path: Path) -> None:
    lake, ran = catalog_lake(None)
    lake.ensure("gov.dim_owner")
    content = yaml.safe_load((CONF / "bundle" / "access.yml").read_text(encoding="utf-8"))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "access.yml").write_text(yaml.safe_dump(content | {"grants": []}), encoding="utf-8")
    own, ran_too = catalog_lake(None, tmp_path)
    own.ensure("gold.dim_customer")
    assert [sql.split("(")[0].split("IF NOT EXISTS ")[1].strip() for sql in ran + ran_too if "CREATE TABLE" in sql] == [
        "`shop`.`gov`.`dim_owner`", "`shop`.`gold`.`dim_customer`",
    ]  # fmt: skip


def test_a_policy_finds_only_columns_of_the_type_its_mask_takes(statements: list[Statement]) -> None:
    """Policies find columns by tags alone, and a mask of texts cannot take a map."""
    own = [s.sql for s in statements if s.about == "bronze.raw_contact_points"]
    tagged = {found[1]: found[2] for s in own if (found := re.search(r"COLUMN `(\w+)` SET TAGS \('(\w+)'", s))}
    assert (tagged["payload"], tagged["extra"]) == ("pii", "pii_mapstringstring")
    found = [re.search(r"MASK \S+`(mask_\w+)` .*has_tag_value\('(\w+)'", s) for s in own if "POLICY" in s]
    masks = {(m[1], m[2]) for m in found if m}
    assert ("mask_contact", "pii") in masks
    assert ("mask_contact_mapstringstring", "pii_mapstringstring") in masks
    assert len({(mask.split("_")[1], tag) for mask, tag in masks}) == len(masks)


def test_tags_say_owner_subject_and_the_most_personal_thing() -> None:
    assert table_tags(table_of("gold.dim_customer")) == {
        "owner": "crm-data", "subject": "gold", "kind": "scd2", "pii": "contact",
    }  # fmt: skip
    assert "pii" not in table_tags(table_of("gold.dim_product"))


def test_the_catalogue_names_the_tags_that_are_set(statements: list[Statement]) -> None:
    told = {
        (on, tag["tag_key"], tag["tag_value"])
        for tag in catalogue_rows(ACCESS, load_rules(CONF), Settings())["gov.dim_tag"]
        for on in tag["applied_to"]
    }
    is_set = set()
    for s in (s for s in statements if s.kind == "tag"):
        column = re.search(r"ALTER COLUMN `(\w+)`", s.sql)
        for key, value in re.findall(r"'([\w-]+)' = '([\w-]*)'", s.sql):
            is_set.add((f"{s.about}.{column[1]}" if column else s.about, key, value))
    assert told == is_set
    assert ("bronze.raw_contact_points.extra", "pii_mapstringstring", "contact") in told
    assert ("gold.fact_transactions.merchant_id", "row_filter", "merchant") in told


def test_grants_follow_access_and_open_the_way_to_the_schema(statements: list[Statement]) -> None:
    grants = [s.sql for s in statements if s.kind == "grant"]
    assert "GRANT USE SCHEMA, SELECT ON SCHEMA `shop``s`.`campaign` TO `marketing`" in grants
    assert "GRANT USE CATALOG ON CATALOG `shop``s` TO `marketing`" in grants
    assert not [g for g in grants if "`silver`" in g and "`marketing`" in g]
    assert "GRANT READ VOLUME ON VOLUME `shop``s`.`gold`.`exports` TO `marketing`" in grants


def test_the_jobs_may_migrate_what_a_person_made_and_nobody_else_may(statements: list[Statement]) -> None:
    grants = [s.sql for s in statements if s.kind == "grant"]
    managing = {g.split(" TO ")[1] for g in grants if "MANAGE" in g}
    assert managing == {"`segmentation-pipelines`"}
    assert len([g for g in grants if "MANAGE" in g]) == len(SCHEMAS)
    owned = [
        s.about for s in statements if s.kind == "owner" and s.sql.endswith(" SET OWNER TO `segmentation-pipelines`")
    ]
    assert owned == list(tables())


def test_what_is_held_aside_is_for_the_pipeline_alone(statements: list[Statement]) -> None:
    """Frames in it have neither tags nor masks."""
    ran: list[str] = []
    session, frame = MagicMock(), MagicMock()
    session.sql.side_effect = lambda sql: ran.append(sql) or MagicMock()
    frame.persist.side_effect = PySparkException("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE")
    lake = Lake(session, Settings(catalog="shop`s"))
    with lake.holding() as hold:
        hold(frame)
    (held,) = frame.write.format.return_value.saveAsTable.call_args.args
    lake.sweep()

    place = held.rsplit(".", 1)[0]
    granted = [s.sql for s in statements if s.kind == "grant" and f" ON SCHEMA {place} " in s.sql]
    assert [g.split(" TO ")[1] for g in granted] == [f"`{ACCESS.pipeline_group}`"]
    assert f"DROP TABLE IF EXISTS {held}" in ran
    assert any(sql.startswith(f"SHOW TABLES IN {place} ") for sql in ran)
    assert [sql.split(" COMMENT")[0] for sql in ran if "CREATE" in sql] == [f"CREATE SCHEMA IF NOT EXISTS {place}"]


def test_every_merchant_that_delivers_has_readers() -> None:
    sources = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in (CONF / "sources").glob("*.yml")]
    delivering = {s["merchant"]["id"] for s in sources if s.get("merchant")}
    assert delivering <= set(ACCESS.rows.merchants)


def test_one_table_brings_its_schema_and_functions_but_no_grants() -> None:
    script = render(["gold.dim_customer"], catalog="c", conf_dir=CONF)
    assert "CREATE SCHEMA IF NOT EXISTS `c`.`gold`" in script
    assert "CREATE OR REPLACE FUNCTION `c`.`gov`.`mask_contact`" in script
    assert "GRANT" not in script
    assert "dim_product" not in script


def test_access_names_every_problem_at_once(tmp_path: Path) -> None:
    content = yaml.safe_load((CONF / "bundle" / "access.yml").read_text(encoding="utf-8"))
    del content["owners"]["finance"], content["pii"]["quasi"]
    content["rows"]["columns"] = ["merchnt_id", "website_id"]
    content["grants"].append({"group": "g", "schemas": ["glod", "aside"], "privileges": ["SELECT"]})
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "access.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load_access(tmp_path)
    for part in (
        "owner 'finance' is not described",
        "pii class 'quasi' has no rule",
        "'glod'. Did you mean 'gold'?",
        "schema 'aside' is for the pipeline alone",
        "rows: no table has a column 'merchnt_id'. Did you mean 'merchant_id'?",
    ):
        assert part in str(raised.value)
