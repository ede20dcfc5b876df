"""Branches of a rule that no customer can fulfil, or that everyone does: mistakes, however well they are typed.

Conditions on one feature divide its values at the constants they name. One value of each part stands for all of it,
so trying these few values answers for every value there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from segments.catalogue import Feature
from segments.operators import Family
from segments.reference import Observed, explain
from segments.rules import All, AnyOf, Condition, EventCondition, Not, Rule, leaves_of

_DIVIDING: Final = frozenset(
    {
        "equals",
        "not_equals",
        "in",
        "not_in",
        "greater_than",
        "at_least",
        "less_than",
        "at_most",
        "between",
        "before",
        "after",
        "is_empty",
        "is_not_empty",
    }
)
_ANY_DAY: Final = date(2000, 1, 1)


@dataclass
class Logic:
    """Looks for contradictions, with bounded effort: a file made to keep it busy is let through instead.

    Attributes:
        trials: Conditions it may still try a value on.
    """

    trials: int = 2_000_000

    def contradictions(self, rule: Rule, features: Mapping[str, Feature]) -> Iterator[str]:
        """Yields what is impossible or always true at this node; what lies in a branch below is not looked at again.

        Args:
            rule: A node whose names and types are right.
            features: The features by name, or the fields of an event.
        """
        match rule:
            case EventCondition(op=op, value=value) if rule.measure in ("count", "distinct") and value is not None:
                if (op, value) == ("at_least", 0):
                    yield "is always true: everyone did at least 0 times"
                if (op, value) == ("less_than", 0):
                    yield "is impossible: no one did fewer than 0 times"
            case All(rules):
                yield from self._clashes(rules, features, is_all=True)
            case AnyOf(rules):
                yield from self._clashes(rules, features, is_all=False)
            case Condition() if features[rule.feature].values and rule.op in ("in", "not_in"):
                yield from self._clashes((rule,), features, is_all=True)
                yield from self._clashes((rule,), features, is_all=False)

    def _clashes(self, rules: tuple[Rule, ...], features: Mapping[str, Feature], *, is_all: bool) -> Iterator[str]:
        said = "is impossible: no customer can fulfil" if is_all else "is always true: every known value fulfils"
        whole = set(rules)
        opposite = next((r for r in rules if isinstance(r, Not) and r.rule in whole), None)
        if opposite is not None:
            yield f"{said} {'both a rule and its opposite' if is_all else 'a rule or its opposite'}"
            return
        by_feature: dict[str, list[Rule]] = {}
        for rule in rules:
            leaves = list(leaves_of(rule))
            names = {leaf.feature for leaf in leaves if isinstance(leaf, Condition) and leaf.op in _DIVIDING}
            if len(names) == 1 and all(isinstance(x, Condition) and x.op in _DIVIDING for x in leaves):
                by_feature.setdefault(names.pop(), []).append(rule)
        for name, group in by_feature.items():
            named = [leaf for r in group for leaf in leaves_of(r) if isinstance(leaf, Condition)]
            values = list(_values(features[name], named))
            self.trials -= len(values) * len(named)
            if self.trials < 0 or not values:
                continue
            joined: Rule = All(tuple(group)) if is_all else AnyOf(tuple(group))
            tried = (explain(joined, Observed(_ANY_DAY, features, {name: v})).truth for v in values)
            if is_all and not any(t is True for t in tried):
                yield f"{said} {'these conditions' if len(named) > 1 else 'this condition'} on '{name}'"
            elif not is_all and all(t is True or (t is None and v is None) for t, v in zip(tried, values, strict=True)):
                yield f"{said} {'one of these conditions' if len(named) > 1 else 'this condition'} on '{name}'"


def _values(known: Feature, leaves: Iterable[Condition]) -> Iterator[Any]:
    """One value of every part the conditions divide the feature's values into, and none at all."""
    yield None
    named = {v for leaf in leaves for v in (leaf.value if isinstance(leaf.value, tuple) else (leaf.value,))} - {None}
    if known.family is Family.FLAG:
        yield from (True, False)
    elif known.values:
        yield from known.values
    elif known.family is Family.LIST:
        yield from ([], [""])
    elif known.family is Family.TEXT:
        yield ""
        yield from sorted(str(v) for v in named)
        yield "".join(["other than ", *sorted(str(v) for v in named)])
    elif known.family is Family.NUMBER:
        is_whole = known.type in {"tinyint", "smallint", "int", "bigint"}
        exact = sorted({Decimal(str(v)) for v in named} | {Decimal(0)})
        between = [(a + b) / 2 for a, b in pairwise(exact)]
        if is_whole:
            yield from sorted({int(v // 1) + more for v in exact for more in (-1, 0, 1)} | {0})
        else:
            yield from [exact[0] - 1, *exact, *between, exact[-1] + 1]
    else:
        step = timedelta(days=1) if known.family is Family.DATE else timedelta(microseconds=1)
        first: Any = _ANY_DAY if known.family is Family.DATE else datetime(2000, 1, 1, tzinfo=UTC)
        for value in sorted(named) or [first]:  # type: ignore[type-var]
            for more in (-step, 0 * step, step):
                try:
                    yield value + more  # type: ignore[operator]
                except OverflowError:  # the first or last day there is
                    continue
