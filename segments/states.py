"""The life of a refresh: which state of a segment may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "pending": frozenset({"processing", "stale", "error"}),
    # A refresh that was killed leaves `processing`; the next one takes it up, so it may follow itself.
    "processing": frozenset({"processing", "completed", "stale", "error", "pending"}),
    "completed": frozenset({"processing", "stale", "error"}),
    "stale": frozenset({"processing", "stale", "error", "pending"}),
    "error": frozenset({"processing", "stale", "error", "pending"}),
}
"""What may follow each state. `stale` and `error` follow any, for what a refresh needs can fail before it begins; only
one that was begun can be completed. A segment that is new may begin in any, and one that is switched off or gone before
its refresh went well waits for the next, if there ever is one."""


def move(before: Column, after: Column) -> Column:
    """The state `after` where it may follow `before` (null for a new segment); anything else fails the write."""
    known = F.create_map(*[x for b, a in TRANSITIONS.items() for x in (F.lit(b), F.array(*map(F.lit, sorted(a))))])
    allowed = F.array_contains(F.element_at(known, before), after)
    wrong = F.concat(F.lit("a segment cannot go from "), before, F.lit(" to "), after)
    return F.when(before.isNull() | allowed, after).otherwise(F.raise_error(wrong).cast("string"))
