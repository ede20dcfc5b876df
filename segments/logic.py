"""Branches of a rule that no customer can fulfil, or that everyone does: mistakes, however well they are typed.

Conditions on one quantity (a feature, how often or how much of an event, the days to an anniversary) divide its values
at the constants they name. One value of each part stands for all of it, so trying these few values answers for every
value there is. Conditions on different quantities are not held against each other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from itertools import groupby, islice, pairwise
from math import inf, isfinite
from operator import and_, or_
from typing import Any, Final, NamedTuple

from segments.catalogue import Feature
from segments.events import EVENTS
from segments.operators import Family, scale_of
from segments.reference import Observed, answer_condition, comparable
from segments.rules import All, AnyOf, Condition, EventCondition, Leaf, Not, Rule, leaves_of

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
_RELATIVE: Final = frozenset({"within_last_days", "not_within_last_days"})
_WITHIN_TEXT: Final = frozenset({"contains", "starts_with"})
_OF_EVENTS: Final[Mapping[str, str]] = {"exactly": "equals"} | {
    op: op for op in ("at_least", "at_most", "greater_than", "less_than", "between")
}
_WHOLE: Final = frozenset({"tinyint", "smallint", "int", "bigint"})
_FRACTIONS: Final = frozenset({"float", "double"})
_OF_SOMETHING: Final = _WITHIN_TEXT | {"top_percent", "bottom_percent", "anniversary_within_days"}
"""Never true of what is empty, though only some of their values can stand for all."""
_TRIALS_OF_LEAF: Final = 10
"""Taking a leaf apart is about as much work as trying so many values on it."""

_ANY_DAY: Final = date(2000, 1, 1)
_DAYS_AHEAD: Final = (0, 365)
"""Days to the next anniversary: none on the day itself, 365 where a 29 February lies between."""
_PERCENT: Final = (0, 100)
_NOTHING: Final[Mapping[Family, list[Any]]] = {Family.TEXT: [""], Family.LIST: [[]]}

Kind = type[All] | type[AnyOf]


class _Asked(NamedTuple):
    """What a leaf asks of one quantity.

    Attributes:
        quantity: What leaves must have in common to be held against each other.
        known: The quantity as a feature.
        condition: The leaf as a condition on it.
        said: The feature or event it is of.
        is_known: Whether the quantity is never unknown.
    """

    quantity: Hashable
    known: Feature
    condition: Condition
    said: str
    is_known: bool = False


@dataclass
class Logic:
    """Looks for contradictions in a definition, with bounded effort: one made to keep it busy is let through instead.

    Attributes:
        trials: Values it may still try on conditions.
    """

    trials: int = 500_000

    def contradictions(self, rule: Rule, features: Mapping[str, Feature]) -> Iterator[str]:
        """Yields what is impossible or always true at this node; what lies in a branch below is not looked at again.

        Args:
            rule: A node whose names and types are right.
            features: The features by name, or the fields of an event.
        """
        if isinstance(rule, All | Leaf):
            yield from self._clashes(rule, features, All)
        if isinstance(rule, AnyOf | Leaf):
            yield from self._clashes(rule, features, AnyOf)

    def _clashes(self, rule: Rule, features: Mapping[str, Feature], kind: Kind) -> Iterator[str]:
        if self.trials <= 0:
            return
        is_all = kind is All
        said = "is impossible: no customer can fulfil" if is_all else "is always true: every known value fulfils"
        rules = list(_parts(rule, kind))
        whole = set(rules)
        opposite = next((r for r in rules if isinstance(r, Not) and r.rule in whole), None)
        if opposite is not None:
            yield f"{said} {'both a rule and its opposite' if is_all else 'a rule or its opposite'}"
            return
        if is_all and (name := _empty_and_not(rules)) is not None:
            yield f"{said} these conditions on '{name}'"
            return
        by_quantity: dict[Hashable, list[tuple[Rule, list[_Asked]]]] = {}
        for part in rules:
            asked = [_asked(leaf, features) for leaf in leaves_of(part)]
            self.trials -= _TRIALS_OF_LEAF * len(asked)
            found = [a for a in asked if a is not None]
            quantities = {a.quantity for a in found}
            if len(quantities) == 1 and len(found) == len(asked):
                by_quantity.setdefault(quantities.pop(), []).append((part, found))
        for group in by_quantity.values():
            held = [a for _, found in group for a in found]
            if self._holds(kind(tuple(part for part, _ in group)), held, features):
                many = "these conditions" if is_all else "one of these conditions"
                yield f"{said} {many} on '{held[0].said}'" if len(held) > 1 else f"{said} {_alone(held[0])}"

    def _holds(self, rule: All | AnyOf, asked: Sequence[_Asked], features: Mapping[str, Feature]) -> bool:
        """Whether an `all` on one quantity is true for none of its values, an `any` for all of those that are known."""
        known, conditions = asked[0].known, [a.condition for a in asked]
        if {c.op for c in conditions} & (_RELATIVE | _WITHIN_TEXT):
            customers = list(islice(_customers(known, conditions), max(self.trials, 0) // len(conditions) + 1))
            self.trials -= len(customers) * len(conditions)
            if self.trials < 0:
                return False
            count, answers = len(customers) - 1, {c: _answered(c, customers) for c in conditions}
        else:
            values = [value for value, _ in groupby(sorted(_values(known, _constants(conditions))))]
            count, answers = len(values), {c: _compared(c, values, known) for c in conditions}
        true, false = _truth(rule, features, answers)
        every, unknown = (1 << count) - 1, (not asked[0].is_known) << count
        if isinstance(rule, All):
            return not true & (every | unknown)
        return true & every == every and not false & unknown


def _empty_and_not(rules: Sequence[Rule]) -> str | None:
    """The feature that is to be empty and to fulfil what only something fulfils."""
    conditions = [r for r in rules if isinstance(r, Condition)]
    empty = {c.feature for c in conditions if c.op == "is_empty"}
    return next((c.feature for c in conditions if c.op in _OF_SOMETHING and c.feature in empty), None)


def _alone(asked: _Asked) -> str:
    """A condition that clashes with nothing but the values there are, which are told where they have ends."""
    low, high = asked.known.bounds
    what = f"this condition on '{asked.said}'"
    if asked.known.name != asked.said or not isfinite(low):
        return what
    return f"{what}, which is {f'from {low:g} to {high:g}' if isfinite(high) else f'never below {low:g}'}"


Bits = tuple[int, int]
"""For which values a rule is true, and for which false: a bit each, the highest for what is unknown."""


def _truth(rule: Rule, features: Mapping[str, Feature], answers: Mapping[Condition, Bits]) -> Bits:
    """The answers of a rule on one quantity, of those of its conditions."""
    match rule:
        case All(rules) | AnyOf(rules):
            parts = [_truth(part, features, answers) for part in rules]
            trues, falses = [t for t, _ in parts], [f for _, f in parts]
            if isinstance(rule, All):
                return reduce(and_, trues), reduce(or_, falses)
            return reduce(or_, trues), reduce(and_, falses)
        case Not(inner):
            true, false = _truth(inner, features, answers)
            return false, true
        case _:
            asked = _asked(rule, features)
            return answers[asked.condition] if asked is not None else (0, 0)


def _answered(condition: Condition, customers: Sequence[Observed]) -> Bits:
    """The answers of a condition, tried on each customer; of the first one the value is unknown."""
    true = false = 0
    for at, customer in enumerate((*customers[1:], customers[0])):
        truth = answer_condition(condition, customer.features[condition.feature], customer)
        true, false = true | (truth is True) << at, false | (truth is False) << at
    return true, false


def _compared(condition: Condition, values: Sequence[Any], known: Feature) -> Bits:
    """The same for values in order, by where in this order the constants of the condition lie."""

    def below(constant: Any) -> int:
        return (1 << bisect_left(values, comparable(constant, known))) - 1

    def up_to(constant: Any) -> int:
        return (1 << bisect_right(values, comparable(constant, known))) - 1

    every, value = (1 << len(values)) - 1, condition.value
    listed: Any = value if isinstance(value, tuple) else (value,)
    match condition.op:
        case "is_empty" | "is_not_empty":
            nothing = _NOTHING.get(known.family, [])
            is_empty = (1 << len(values)) | reduce(or_, (up_to(v) & ~below(v) for v in nothing), 0)
            both = (is_empty, (every << 1 | 1) & ~is_empty)
            return both if condition.op == "is_empty" else both[::-1]
        case "equals" | "not_equals" | "in" | "not_in":
            found = reduce(or_, (up_to(v) & ~below(v) for v in listed))
        case "greater_than" | "after":
            found = every & ~up_to(value)
        case "at_least":
            found = every & ~below(value)
        case "less_than" | "before":
            found = below(value)
        case "at_most":
            found = up_to(value)
        case _:
            found = up_to(listed[1]) & ~below(listed[0])
    return (every & ~found, found) if condition.op.startswith("not_") else (found, every & ~found)


def _parts(rule: Rule, kind: Kind) -> Iterator[Rule]:
    """What must all be true, or one of it, however deep it is nested: `not any` says that all are not."""
    match rule:
        case All(rules) | AnyOf(rules) if isinstance(rule, kind):
            for part in rules:
                yield from _parts(part, kind)
        case Not(All(rules) | AnyOf(rules)) if not isinstance(rule.rule, kind):
            for part in rules:
                yield from _parts(Not(part), kind)
        case Not(Not(inner)):
            yield from _parts(inner, kind)
        case _:
            yield rule


def _asked(leaf: Leaf, features: Mapping[str, Feature]) -> _Asked | None:
    """What a leaf asks of a quantity; None where a few values cannot stand for all."""
    match leaf:
        case Condition(name, "anniversary_within_days" as op, days):
            ahead = Feature("days ahead", "int", bounds=_DAYS_AHEAD)
            return _Asked((name, op), ahead, Condition(ahead.name, "less_than", days), name)
        case Condition(name, "top_percent" | "bottom_percent" as op, percent):
            place = Feature("place", "double", bounds=_PERCENT)
            return _Asked((name, op), place, Condition(place.name, "at_most", percent), name)
        case Condition(name, op):
            known = features[name]
            is_divided = op in _DIVIDING or op in _RELATIVE
            if is_divided or (op in _WITHIN_TEXT and known.family is Family.TEXT and known.values):
                return _Asked(name, known, leaf, name)
        case EventCondition(op="did" | "did_not", unless=None):
            op = "greater_than" if leaf.op == "did" else "equals"
            return _of_events(replace(leaf, op=op, value=0))
        case EventCondition(op=op) if op in _OF_EVENTS:
            return _of_events(replace(leaf, op=_OF_EVENTS[op]))
    return None


def _of_events(compared: EventCondition) -> _Asked:
    """What a comparison of a measure asks of it."""
    if compared.measure in ("count", "distinct"):
        known = Feature("times", "bigint", bounds=(0, inf))
    else:
        known = replace(EVENTS[compared.step.event].fields[str(compared.measured)], values=())
        if compared.measure == "sum":  # of nothing, 0
            known = replace(known, bounds=(0 if known.bounds[0] >= 0 else -inf, inf))
        if compared.measure == "avg":
            # Spark gives the mean of a decimal four more places than the decimal has.
            is_whole = known.type in _WHOLE
            known = replace(known, type="double" if is_whole else f"decimal(38,{scale_of(known.type) + 4})")
    quantity = (compared.step, compared.window, compared.measure, compared.measured)
    is_known = compared.measure in ("count", "distinct", "sum")
    condition = Condition(known.name, compared.op, compared.value)
    return _Asked(quantity, known, condition, compared.step.event, is_known)


def _customers(known: Feature, conditions: Sequence[Condition]) -> Iterator[Observed]:
    """One customer for every part the conditions divide the values of a feature into, and one of whom it is unknown.

    A refresh may be of any day, so conditions relative to it and conditions on the calendar divide dates independently
    of each other: every date is tried at every age.
    """
    days = {c.value for c in conditions if c.op in _RELATIVE and isinstance(c.value, int)}
    ages = sorted({day + more for day in {0, *days} for more in (0, 1)}) if days else [0]
    yield Observed(_ANY_DAY, {known.name: known}, {known.name: None})
    for value in _values(known, _constants(c for c in conditions if c.op not in _RELATIVE)):
        of = value.date() if isinstance(value, datetime) else value if isinstance(value, date) else _ANY_DAY
        for age in ages:
            try:
                as_of = of + timedelta(days=age)
            except OverflowError:  # beyond the last day there is
                continue
            yield Observed(as_of, {known.name: known}, {known.name: value})


def _constants(conditions: Iterable[Condition]) -> set[Any]:
    return {v for c in conditions for v in (c.value if isinstance(c.value, tuple) else (c.value,)) if v is not None}


def _values(known: Feature, constants: Collection[Any]) -> Iterator[Any]:
    """One value of every part that constants divide a feature's values into."""
    if known.family is Family.FLAG:
        yield from (True, False)
    elif known.values and known.family is Family.TEXT:
        yield from known.values
    elif known.family is Family.LIST:
        yield from ([], [""])
    elif known.family is Family.TEXT:
        yield ""
        yield from sorted(constants)
        yield "".join(["other than ", *sorted(constants)])
    elif known.family is Family.NUMBER:
        yield from _numbers(known, constants)
    else:
        step = timedelta(days=1) if known.family is Family.DATE else timedelta(microseconds=1)
        first: Any = _ANY_DAY if known.family is Family.DATE else datetime(2000, 1, 1, tzinfo=UTC)
        for value in sorted(constants) or [first]:
            for more in (-step, 0 * step, step):
                try:
                    yield value + more
                except OverflowError:  # the last day there is
                    continue


def _numbers(known: Feature, constants: Collection[Any]) -> Iterator[Any]:
    low, high = known.bounds
    exact = sorted({Decimal(str(v)) for v in (*constants, 0, *(b for b in known.bounds if isfinite(b)))})
    if known.type in _WHOLE:
        found: Collection[Any] = sorted({int(v // 1) + more for v in exact for more in (-1, 0, 1)})
    elif known.type.startswith("decimal"):
        step = Decimal(1).scaleb(-scale_of(known.type))
        found = sorted({v // step * step + more * step for v in exact for more in (-1, 0, 1)})
    else:
        found = [exact[0] - 1, *exact, *((a + b) / 2 for a, b in pairwise(exact)), exact[-1] + 1]
        if known.type in _FRACTIONS:
            found = [float(v) for v in found]
    yield from (v for v in found if low <= v <= high)
