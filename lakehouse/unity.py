"""Unity Catalog SQL from the declarations and `conf/bundle/access.yml`: what a workspace needs to know and enforce.

Nothing here runs SQL. Every name is quoted, every text a literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lakehouse import ddl
from lakehouse.access import MASKS_IN, Access, load_access
from lakehouse.columns import Column, Pii, strictest
from lakehouse.ddl import literal, quote
from lakehouse.declare import SCHEMAS, Table, table_of, tables
from lakehouse.settings import find_conf

Kind = Literal[
    "schema", "function", "table", "owner", "column", "constraint", "tag", "policy", "mark", "volume", "grant"
]

REDACTED = "***"

PROTECTION = "segmentation.protection"
"""Table property with the columns that tags and policies protect, set once they do."""

_FILTER = "may_see_merchant"
_BY_MERCHANT = ("row_filter", "merchant")


@dataclass(frozen=True)
class Statement:
    """One statement, what kind of thing it is about, and that thing's name."""

    kind: Kind
    about: str
    sql: str


def render(names: Iterable[str] | None = None, *, catalog: str, conf_dir: Path | None = None) -> str:
    """The SQL script for some tables, or for all with their schemas, volumes and grants.

    Args:
        names: Tables; None for everything.
        catalog: Catalog to make them in.
        conf_dir: Where `bundle/access.yml` is.
    """
    return "".join(f"{s.sql};\n\n" for s in plan(names, catalog=catalog, access=load_access(conf_dir or find_conf())))


def plan(names: Iterable[str] | None = None, *, catalog: str, access: Access) -> list[Statement]:
    """The statements in an order in which they can run; each may run again."""
    chosen = [table_of(n) for n in names] if names else list(tables().values())
    schemas = list(SCHEMAS) if names is None else sorted({t.schema for t in chosen} | {MASKS_IN})
    made = [_schema(catalog, s) for s in schemas]
    made += _functions(catalog, access, chosen)
    for t in chosen:
        made += [_table(catalog, t), _owner(catalog, access, t)]
        made += [*_new_columns(catalog, access, t), *_checks(catalog, t), *_tags(catalog, access, t)]
    made += [s for t in chosen for s in _foreign_keys(catalog, t, {c.name for c in chosen})]
    for t in chosen:
        made += [*_policies(catalog, access, t), *_mark(catalog, access, t)]
    if names is None:
        made += [*_volumes(catalog, access), *_grants(catalog, access)]
    return made


def protection(t: Table, access: Access) -> str:
    """What the property PROTECTION of a table says when all that it declares of people is protected."""
    return ", ".join(f"{column} {key}={value}" for column, key, value in column_tags(t, access))


def needs_protection(t: Table, access: Access) -> bool:
    """Whether others than the pipeline may read a table, and something in it is not for all of them."""
    return bool(column_tags(t, access)) and any(t.schema in g.schema_names for g in access.grants)


def sql_type(spark_type: str) -> str:
    """A declared type as Databricks SQL writes it."""
    return spark_type.upper()


def _name(catalog: str, *parts: str) -> str:
    return ".".join(quote(p) for p in (catalog, *parts))


def _of(catalog: str, t: Table) -> str:
    return _name(catalog, t.schema, t.short)


def _schema(catalog: str, schema: str) -> Statement:
    return Statement(
        "schema", schema, f"CREATE SCHEMA IF NOT EXISTS {_name(catalog, schema)} COMMENT {literal(SCHEMAS[schema])}"
    )


def _table(catalog: str, t: Table) -> Statement:
    columns = [_column(c) for c in t.columns]
    # A primary key there is a promise to readers and the optimizer; only required columns may be part of one.
    if t.key and not any(t.column(k).spec.optional for k in t.key):
        columns.append(f"CONSTRAINT {quote(t.short + '_pk')} PRIMARY KEY ({', '.join(map(quote, t.key))})")
    partitions = ddl.partition_columns(t)
    layout = ""
    if partitions:
        layout = f"\nPARTITIONED BY ({', '.join(map(quote, partitions))})"
    elif t.cluster_by:
        layout = f"\nCLUSTER BY ({', '.join(map(quote, t.cluster_by))})"
    props = {
        k: v for k, v in ddl.properties(t, deletion_vectors=True).items() if not k.startswith("delta.constraints.")
    }
    said = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in props.items())
    body = ",\n  ".join(columns)
    return Statement(
        "table",
        t.name,
        f"CREATE TABLE IF NOT EXISTS {_of(catalog, t)} (\n  {body}\n)\nUSING DELTA{layout}\n"
        f"COMMENT {literal(t.comment)}\nTBLPROPERTIES ({said})",
    )


def _owner(catalog: str, access: Access, t: Table) -> Statement:
    # Only owners may change constraints and clustering: so both the jobs and whoever runs the script can, being in it.
    give = f"ALTER TABLE {_of(catalog, t)} SET OWNER TO {quote(access.pipeline_group)}"
    return Statement("owner", t.name, give)


def _column(c: Column) -> str:
    required = "" if c.spec.optional else " NOT NULL"
    return f"{quote(c)} {sql_type(c.spec.type)}{required} COMMENT {literal(c.spec.comment)}"


def _new_columns(catalog: str, access: Access, t: Table) -> list[Statement]:
    """Columns a table made earlier may lack, of those that what follows names; ADD COLUMN knows no IF NOT EXISTS."""
    named = {c for c, _, _ in column_tags(t, access)} | {
        w for p in t.all_checks.values() for w in re.findall(r"\w+", p)
    }
    known = f"{quote(catalog)}.information_schema.columns"
    own = f"table_schema = {literal(t.schema)} AND table_name = {literal(t.short)}"
    lacking = "".join(
        f"  IF (SELECT count(*) FROM {known} WHERE {own} AND column_name = {literal(c)}) = 0 THEN\n"  # noqa: S608
        f"    ALTER TABLE {_of(catalog, t)} ADD COLUMN ({_column(c)});\n  END IF;\n"
        for c in t.columns
        if c.spec.optional and str(c) in named
    )
    return [Statement("column", t.name, f"BEGIN\n{lacking}END")] if lacking else []


def _checks(catalog: str, t: Table) -> list[Statement]:
    found = []
    for name, predicate in t.all_checks.items():
        found.append(_drop_constraint(catalog, t, name))
        add = f"ALTER TABLE {_of(catalog, t)} ADD CONSTRAINT {quote(name)} CHECK ({predicate})"
        found.append(Statement("constraint", t.name, add))
    return found


def _drop_constraint(catalog: str, t: Table, name: str) -> Statement:
    drop = f"ALTER TABLE {_of(catalog, t)} DROP CONSTRAINT IF EXISTS {quote(name)}"
    return Statement("constraint", t.name, drop)


def _foreign_keys(catalog: str, t: Table, chosen: set[str]) -> list[Statement]:
    found: list[Statement] = []
    known = tables()
    for c in t.columns:
        if not c.spec.references:
            continue
        parent, column = c.spec.references.rsplit(".", 1)
        # Unity Catalog lets a foreign key point at a whole primary key only.
        if parent not in chosen or known[parent].key != (column,) or parent == t.name:
            continue
        name = f"{t.short}_{c}_fk"
        found.append(_drop_constraint(catalog, t, name))
        add = (
            f"ALTER TABLE {_of(catalog, t)} ADD CONSTRAINT {quote(name)} FOREIGN KEY ({quote(c)}) "
            f"REFERENCES {_of(catalog, known[parent])} ({quote(column)})"
        )
        found.append(Statement("constraint", t.name, add))
    return found


def _tags(catalog: str, access: Access, t: Table) -> list[Statement]:
    tags = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in table_tags(t).items())
    found = [Statement("tag", t.name, f"ALTER TABLE {_of(catalog, t)} SET TAGS ({tags})")]
    for column, key, value in column_tags(t, access):
        tag = f"ALTER COLUMN {quote(column)} SET TAGS ({literal(key)} = {literal(value)})"
        found.append(Statement("tag", t.name, f"ALTER TABLE {_of(catalog, t)} {tag}"))
    return found


def table_tags(t: Table) -> dict[str, str]:
    """Tags of a table: who owns it, what it is about, how it is written, and the most personal thing in it."""
    tags = {"owner": t.owner, "subject": t.subject or t.schema, "kind": type(t.kind).__name__.lower()}
    worst = strictest(c.spec.pii for c in t.columns)
    return tags | ({"pii": worst.value} if worst else {})


def column_tags(t: Table, access: Access) -> list[tuple[str, str, str]]:
    """Columns of a table with their tags: personal ones, and the merchant by which a policy filters rows."""
    found = [(str(c), _tag(c.spec.type), c.spec.pii.value) for c in t.columns if c.spec.pii]
    merchant = _merchant_column(access, t)
    return [*found, (merchant, *_BY_MERCHANT)] if merchant else found


# Masks, row filters and the policies that set them -------------------------------------------------------------------


def _functions(catalog: str, access: Access, chosen: list[Table]) -> list[Statement]:
    wanted = {(c.spec.pii, c.spec.type) for t in chosen for c in t.pii_columns if c.spec.pii}
    found = []
    for pii, type_ in sorted(wanted, key=lambda w: (w[0].value, w[1])):
        name = _name(catalog, MASKS_IN, mask_name(pii, type_))
        found.append(
            Statement(
                "function",
                mask_name(pii, type_),
                f"CREATE OR REPLACE FUNCTION {name}(value {sql_type(type_)}) RETURNS {sql_type(type_)}\n"
                f"COMMENT {literal(f'What a reader sees of a column of class {pii.value}.')}\n"
                f"RETURN {mask_body(access, pii, type_)}",
            )
        )
    if any(_merchant_column(access, t) for t in chosen):
        found.append(
            Statement(
                "function",
                _FILTER,
                f"CREATE OR REPLACE FUNCTION {_name(catalog, MASKS_IN, _FILTER)}(merchant STRING) RETURNS BOOLEAN\n"
                "COMMENT 'Whether a reader may see rows of a merchant.'\n"
                f"RETURN {filter_body(access)}",
            )
        )
    return found


def mask_name(pii: Pii, type_: str) -> str:
    """Name of the mask function for a class and a column type."""
    return f"mask_{pii.value}" if type_ == "string" else f"mask_{pii.value}_{_plain(type_)}"


def _tag(type_: str) -> str:
    """Tag of a personal column: a mask fits one type, and a policy finds columns by their tags alone."""
    return "pii" if type_ == "string" else f"pii_{_plain(type_)}"


def _plain(type_: str) -> str:
    return "".join(filter(str.isalnum, type_))


def mask_body(access: Access, pii: Pii, type_: str) -> str:
    """The expression over `value` a mask function returns."""
    rule = access.pii[pii]
    hidden = (
        literal(REDACTED) if rule.others_see == "redacted" and type_ == "string" else f"CAST(NULL AS {sql_type(type_)})"
    )
    return f"CASE WHEN {_member((*rule.shown_to, access.pipeline_group))} THEN value ELSE {hidden} END"


def filter_body(access: Access) -> str:
    """The expression over `merchant` the row filter returns; a merchant nobody was named for is seen by `all` only."""
    each = " ".join(f"WHEN {literal(m)} THEN {_member(g)}" for m, g in access.rows.merchants.items())
    everyone = _member((*access.rows.all, access.pipeline_group))
    return f"{everyone} OR CASE merchant {each} ELSE false END" if each else everyone


def _member(groups: Iterable[str]) -> str:
    said = " OR ".join(f"is_account_group_member({literal(g)})" for g in groups)
    return f"({said})" if said else "false"


def _merchant_column(access: Access, t: Table) -> str | None:
    return next((str(c) for c in t.columns if str(c) in access.rows.columns), None)


def _policies(catalog: str, access: Access, t: Table) -> list[Statement]:
    """Policies that mask and filter for everyone but the pipeline.

    A mask or filter set on the table itself is refused where it has CHECK constraints, and ends its history and time
    travel for everyone.
    """
    found = []
    except_pipeline = f"TO {quote('account users')} EXCEPT {quote(access.pipeline_group)} FOR TABLES"
    for pii, type_ in sorted(
        {(c.spec.pii, c.spec.type) for c in t.pii_columns if c.spec.pii}, key=lambda w: w[0].value
    ):
        tagged = f"has_tag_value({literal(_tag(type_))}, {literal(pii.value)})"
        matched = f"MATCH COLUMNS {tagged} AS personal ON COLUMN personal"
        found.append(
            Statement(
                "policy",
                t.name,
                f"CREATE OR REPLACE POLICY {quote(f'{t.short}_{mask_name(pii, type_)}')} ON TABLE {_of(catalog, t)} "
                f"COLUMN MASK {_name(catalog, MASKS_IN, mask_name(pii, type_))} {except_pipeline} {matched}",
            )
        )
    merchant = _merchant_column(access, t)
    if merchant:
        tagged = f"has_tag_value({', '.join(map(literal, _BY_MERCHANT))})"
        matched = f"MATCH COLUMNS {tagged} AS merchant USING COLUMNS (merchant)"
        found.append(
            Statement(
                "policy",
                t.name,
                f"CREATE OR REPLACE POLICY {quote(f'{t.short}_{_FILTER}')} ON TABLE {_of(catalog, t)} "
                f"ROW FILTER {_name(catalog, MASKS_IN, _FILTER)} {except_pipeline} {matched}",
            )
        )
    return found


def _mark(catalog: str, access: Access, t: Table) -> list[Statement]:
    said = protection(t, access)
    put = f"ALTER TABLE {_of(catalog, t)} SET TBLPROPERTIES ({literal(PROTECTION)} = {literal(said)})"
    return [Statement("mark", t.name, put)] if said else []


# Volumes and grants --------------------------------------------------------------------------------------------------


def _volumes(catalog: str, access: Access) -> list[Statement]:
    return [
        Statement(
            "volume",
            f"{v.schema_name}.{v.name}",
            f"CREATE VOLUME IF NOT EXISTS {_name(catalog, v.schema_name, v.name)} COMMENT {literal(v.comment)}",
        )
        for v in access.volumes
    ]


def _grants(catalog: str, access: Access) -> list[Statement]:
    found: list[Statement] = []

    def grant(privileges: Iterable[str], on: str, about: str, group: str) -> None:
        found.append(Statement("grant", about, f"GRANT {', '.join(privileges)} ON {on} TO {quote(group)}"))

    grant(("USE CATALOG", "CREATE SCHEMA"), f"CATALOG {quote(catalog)}", catalog, access.pipeline_group)
    for group in access.readers:
        grant(("USE CATALOG",), f"CATALOG {quote(catalog)}", catalog, group)
    for schema in SCHEMAS:
        for group, privileges in access.privileges_on(schema).items():
            grant(privileges, f"SCHEMA {_name(catalog, schema)}", schema, group)
    for v in access.volumes:
        on, about = f"VOLUME {_name(catalog, v.schema_name, v.name)}", f"{v.schema_name}.{v.name}"
        for group, privileges in access.privileges_on_volume(v).items():
            grant(privileges, on, about, group)
    return found
