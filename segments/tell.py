"""Explanations as lines of text, for a terminal and a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from segments.language import Segment
from segments.reference import Finding
from segments.rules import (
    All,
    AnyOf,
    Condition,
    EventCondition,
    EventStep,
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


@dataclass(frozen=True)
class Membership:
    """What is published of a customer in a segment.

    Attributes:
        since: `as_of` the stay began with; None for who is not a member.
        is_pinned_in: Whether a person put the customer in, or keeps them out; None where nobody decided.
        pinned_on: Day of that decision.
        note: Its reason.
        refreshed_for: `as_of` of the last refresh of the segment on the customer's website; None before any.
        held: Why that refresh was held back; None where it was not.
        visitors: Of a segment of guests: those who logged in as the customer, and of whom the rule is true.
    """

    since: date | None = None
    is_pinned_in: bool | None = None
    pinned_on: date | None = None
    note: str | None = None
    refreshed_for: date | None = None
    held: str | None = None
    visitors: int | None = None


def lines_of_membership(segment: Segment, found: Membership) -> Iterator[str]:
    """Yields what is published of a customer, and why that may differ from what the rule says."""
    yield "published: " + (f"a member since {found.since}" if found.since else "not a member")
    if found.visitors is not None:
        yield f"of visitors who logged in as this customer the rule is true of {found.visitors:,}"
    if found.is_pinned_in is not None:
        way = "in" if found.is_pinned_in else "out"
        why = f": {found.note}" if found.note else ""
        due = "" if found.is_pinned_in == (found.since is not None) else " from the next refresh on"
        yield f"pinned {way} on {found.pinned_on}, whatever the rule says{due}{why}"
    if not segment.is_active:
        yield "the segment is inactive, so a refresh leaves no one in it, whatever the rule says"
    elif segment.refresh_mode == "manual":
        asking = f"segmentation segments --refresh {segment.segment_id}"
        yield f"the segment is manual, so its members stay until it is asked for: {asking}"
    if found.held is not None:
        yield f"the refresh of {found.refreshed_for} was held back: {found.held}"


def lines_of_preview(segment: Segment, found: Mapping[str, Any]) -> Iterator[str]:
    """Yields what else than the rule decides who would enter and leave a website.

    Args:
        segment: The definition.
        found: Its row of `segments.inspect.preview_segment`, or of guests.
    """
    if not segment.is_active:
        yield "inactive: a refresh leaves no one in it, whatever the rule says"
        return
    if found.get("pinned_in") or found.get("pinned_out"):
        yield f"pins put {found['pinned_in']:,} in and keep {found['pinned_out']:,} out, whatever the rule says"
    limit = segment.max_change_share
    if limit is not None and found["published"] and found["moving"] / found["published"] > limit:
        yield (
            f"{found['moving']:,} of {found['published']:,} members would change, above the limit of "
            f"{percent(limit)}, so the refresh would be held back"
        )


def percent(share: float) -> str:
    """Returns a share in percent with the digits it was written with."""
    return f"{(Decimal(str(share)) * 100).normalize():f} %"


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
    seen = finding.observed
    match finding.rule:
        case Condition():
            return f"is {_value(seen)}"
        case EventCondition(op="did", unless=EventStep() as other) as rule:
            return f"last {rule.step.event} {_value(seen[0], 'never')}, last {other.event} {_value(seen[1], 'never')}"
        case EventCondition(op="first_time"):
            return f"first on {_value(seen)}"
        case EventCondition(op="stopped"):
            return f"last on {_value(seen, 'no day')}"
        case EventCondition(op="resumed"):
            return f"last before on {_value(seen[0], 'no day')}, first within on {_value(seen[1], 'no day')}"
        case EventCondition(op="regular"):
            empty = ", ".join(f"{_value(start)} to {_value(end)}" for start, end in seen)
            return f"none from {empty}" if empty else "in every period"
        case EventCondition() as rule:
            return f"{rule.measure} is {_value(seen)}"
        case SequenceCondition(steps):
            return f"{seen} of {len(steps)} steps came" if isinstance(seen, int) else f"last ended {_value(seen)}"
        case _:
            return ""


def _value(value: Any, absent: str = "unknown") -> str:
    if value is None:
        return absent
    if isinstance(value, date | datetime):
        return value.isoformat()
    return f"{value:g}" if isinstance(value, float) else str(value)
