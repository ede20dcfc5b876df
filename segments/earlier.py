"""The definitions of the last refresh, as far as they can still be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyspark.sql import Column
from pyspark.sql import functions as F

from segments.language import Segment


@dataclass(frozen=True)
class Earlier:
    """What the last refresh was made with.

    Attributes:
        read: Returns its definitions, when they are first asked for; none when they cannot be told any more.
        versions: Their content hashes by segment, of those whose refresh went well.
    """

    read: Callable[[], Sequence[Segment]]
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint = ""  # what a refresh comes to does not depend on it


NOT_KNOWN = Earlier(tuple)
"""No earlier definitions: whoever was evaluated with others is evaluated by all rules."""


def is_redefined(segment_id: Column, version: Column, entry_version: Column, earlier: Earlier) -> Column:
    """Whether who leaves a segment now does so by another definition, and not by what they did since.

    What counts is the last refresh: someone can have come in by an older definition and stayed in by the present one,
    or come in by this one, stayed in by another, and gone when it was taken back. A segment whose last refresh did not
    go well may still have members of the definition before, so theirs is what they came in by.
    """
    pairs = [F.lit(x) for pair in sorted(earlier.versions.items()) for x in pair]
    before = F.try_element_at(F.create_map(*pairs).cast("map<string,string>"), segment_id)
    return version != F.coalesce(before, entry_version)
