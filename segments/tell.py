"""Explanations as lines of text, for a terminal and a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from segments.language import Segment
from segments.reference import Finding
from segments.rules import (
    All,
    AnyOf,
    Condition,
    EventCondition,
    InSegment,
    Leaf,
    Not,
    Rule,
    SequenceCondition,
    canonical,
    parts_of,
)

MARKS = {True: "true", False: "false", None: "unknown"}


def say(condition: Leaf) -> str:
    """Returns a condition in one line, as people read it in a reason."""
    plain = condition.to_dict()
    head = plain.pop("feature", None) or plain.pop("event", None)
    op, value = plain.pop("op", None), plain.pop("value", None)
    told = [str(head)] if head else []
    told += [str(op)] if op else []
    told += [canonical(value)] if value is not None else []
    return " ".join([*told, *([canonical(plain)] if plain else [])])[:300]


def lines_of(finding: Finding, depth: int = 0) -> Iterator[tuple[int, str, str, str]]:
    """Yields depth, answer, words and the value observed of every node, in reading order."""
    yield depth, MARKS[finding.truth], words(finding.rule), _observed(finding)
    for part in finding.parts:
        yield from lines_of(part, depth + 1)


def steps_of(segment: Segment) -> list[str]:
    """Returns what must all be true of a member: websites, customer groups, and the parts of the rule."""
    websites = [f"website_id in {canonical(list(segment.website_ids))}"] if segment.website_ids else []
    group = [say(segment.group_condition)] if segment.group_condition is not None else []
    return [*websites, *group, *(_step(part) for part in parts_of(segment.rule))]


def _step(part: Rule) -> str:
    return canonical(part.to_dict())[:100] if isinstance(part, All | AnyOf | Not) else words(part)


def words(rule: Rule) -> str:
    """Returns what a node says by itself."""
    match rule:
        case All():
            return "all of"
        case AnyOf():
            return "any of"
        case Not():
            return "not"
        case InSegment(segment_id):
            return f"in segment {segment_id}"
        case _:
            return say(rule)


def _observed(finding: Finding) -> str:
    match finding.rule:
        case Condition():
            return f"is {_value(finding.observed)}"
        case EventCondition(op="first_time"):
            return f"first on {_value(finding.observed)}"
        case EventCondition():
            return f"{finding.rule.measure} is {_value(finding.observed)}"
        case SequenceCondition() if finding.observed is not None:
            return f"last ended {_value(finding.observed)}"
        case _:
            return ""


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, date | datetime):
        return value.isoformat()
    return f"{value:g}" if isinstance(value, float) else str(value)
