"""Rules of a table beyond its declaration, as people write them in `conf/quality/*.yml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lakehouse.declare import Table

Severity = Literal["blocking", "warning"]
Moment = Literal["before_publish", "while_writing"]


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


@dataclass(frozen=True)
class QualityRules:
    """The rules of every table that has any."""

    tables: Mapping[str, TableRules] = field(default_factory=dict)

    def of(self, table: Table) -> TableRules:
        """Rules of a table; without an entry, only its declaration is checked, before it is published."""
        return self.tables.get(table.name, TableRules())
