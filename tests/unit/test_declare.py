"""Declarations check themselves at import and agree with one another."""

from __future__ import annotations

import pytest

from lakehouse import declare
from lakehouse.columns import Pii, text
from lakehouse.declare import Changes, Merge, Scd2, table, table_of, tables
from lakehouse.errors import DeclarationError
from lakehouse.steps import plan_steps


def declare_customer(**changed: object) -> type:
    said: dict[str, object] = {
        "comment": "One row per customer.",
        "kind": Merge(),
        "key": ("customer_id",),
        "producer": "pipelines.gold.x:build",
    }
    return table("gold.example", **said | changed)(type("T", (), {"customer_id": text("Number.")}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"cluster_by": ("cust_id",)},
            "gold.example: cluster_by names 'cust_id', which is not a column; columns are customer_id",
        ),
        ({"key": ()}, "a Merge table needs a key"),
        ({"producer": "pipelines.gold.x"}, "producer must be 'module:function'"),
        ({"kind": Scd2(("customer_id",), ())}, "SCD2 names 'valid_from'"),
    ],
)
def test_a_wrong_declaration_fails_at_import_and_says_what_exists(changed: dict[str, object], message: str) -> None:
    with pytest.raises(DeclarationError, match=message.replace("(", r"\(")):
        declare_customer(**changed)
    assert "gold.example" not in declare._REGISTRY


def test_an_unknown_table_is_named_with_a_suggestion() -> None:
    with pytest.raises(DeclarationError, match=r"Did you mean 'gold\.dim_customer'"):
        table_of("gold.dim_custmer")


def test_every_read_is_declared_and_every_producer_resolves() -> None:
    for step in plan_steps():
        assert callable(step.function())
        for read in step.reads:
            assert str(read) in tables()


def test_a_table_tells_its_changes_where_somebody_follows_them_and_nowhere_else() -> None:
    """Without a feed a follower is given the whole table, without what is gone."""
    followed = {str(r) for t in tables().values() for r in t.reads if isinstance(r, Changes)}
    assert {n for n, t in tables().items() if t.change_feed} == followed


def test_every_column_points_at_a_column_that_exists() -> None:
    for t in tables().values():
        for c in t.columns:
            if c.spec.references:
                schema_table, column = c.spec.references.rsplit(".", 1)
                table_of(schema_table).column(column)


def test_steps_come_after_what_they_read() -> None:
    done: set[str] = set()
    made = {o.name for s in plan_steps() for o in s.outputs}
    for step in plan_steps():
        own = {o.name for o in step.outputs}
        assert {str(r) for r in step.reads} & made <= done | own
        done |= own


def test_columns_of_one_name_say_the_same_of_a_person_wherever_they_are() -> None:
    classes: dict[str, set[Pii | None]] = {}
    for t in tables().values():
        for c in t.columns:
            # What a delivered row holds besides is as personal as its subject.
            if t.schema != "bronze" or c not in ("payload", "extra"):
                classes.setdefault(str(c), set()).add(c.spec.pii)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}
