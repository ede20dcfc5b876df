"""Which segment asks for which: what must be known before a rule can be answered, and circles that never can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from segments.language import Segment
from segments.rules import segments_in


def with_referenced(segments: Sequence[Segment], others: Iterable[Segment] = ()) -> tuple[Segment, ...]:
    """Returns segments and every segment they ask for, directly or not, each once.

    Args:
        segments: Where to start.
        others: Where segments asked for are found beside `segments`.
    """
    known = {s.segment_id: s for s in [*others, *segments]}
    found: dict[str, Segment] = {}
    waiting = list(segments)
    while waiting:
        segment = waiting.pop()
        if segment.segment_id not in found:
            found[segment.segment_id] = segment
            waiting += [known[i] for i in segments_in(segment.rule)]
    return tuple(sorted(found.values(), key=lambda s: s.segment_id))


def in_order(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Returns the segments others ask for, in levels: each asks only for segments of the levels before it."""
    rules = {s.segment_id: segments_in(s.rule) for s in segments}
    asked = frozenset().union(*rules.values()) if rules else frozenset()
    levels: list[list[Segment]] = []
    waiting, done = [s for s in segments if s.segment_id in asked], set[str]()
    while waiting:
        ready = [s for s in waiting if rules[s.segment_id] <= done]
        waiting = [s for s in waiting if not rules[s.segment_id] <= done]
        if not ready:
            raise ValueError("segments ask for one another in a circle")  # definitions are checked for it when read
        levels.append(ready)
        done |= {s.segment_id for s in ready}
    return levels


def circles(asks: Mapping[str, frozenset[str]]) -> list[tuple[str, ...]]:
    """Returns every circle once, from its alphabetically first segment back to it.

    Args:
        asks: Segments each segment asks for.
    """
    found: set[tuple[str, ...]] = set()
    done: set[str] = set()
    for start in sorted(asks):
        # Without recursion: a chain of a thousand segments is deeper than Python's stack of calls.
        path, ahead = [start], [iter(sorted(asks[start]))]
        while path:
            step = next(ahead[-1], None)
            if step is None:
                done.add(path.pop())
                ahead.pop()
            elif step in path:
                circle = path[path.index(step) :]
                first = circle.index(min(circle))
                found.add((*circle[first:], *circle[:first], circle[first]))
            elif step in asks and step not in done:
                path.append(step)
                ahead.append(iter(sorted(asks[step])))
    return sorted(found)
