"""Rules from YAML nodes: every name, type and value is checked here, and nothing that is wrong gets further."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import yaml

from lakehouse.errors import SettingsError, suggest
from segments.catalogue import Feature
from segments.events import EVENTS
from segments.logic import Logic
from segments.nodes import BROKEN, MAX_TEXT, NodeReader, describe, short
from segments.operators import OPERATORS, Family, Operator
from segments.rules import (
    AGGREGATES,
    MAX_STEPS,
    All,
    AnyOf,
    Condition,
    EventCondition,
    EventStep,
    InList,
    InSegment,
    Not,
    Place,
    Rule,
    SequenceCondition,
    Window,
    in_utc,
)

MAX_NUMBER: Final = 10**15
"""Beyond this a decimal(18,2) and a double no longer hold the same number."""

MAX_PLACES: Final = 12
"""Decimal places of a value compared with a decimal: beside `MAX_NUMBER` and sums, Spark's 38 digits leave no more."""

MAX_DAYS: Final = 36_500

FIRST_DAY: Final = date(1900, 1, 1)
"""No value lies before it: nothing a rule asks about is older, and Spark reads no year of fewer than four digits."""

MAX_PERIODS: Final = 100
"""Periods of `regular`: each is a count of its own, in a plan that all segments share."""

_MEASURED: Final = ("at_least", "at_most", "exactly", "greater_than", "less_than", "between")
_EVENT_OPS: Final = ("did", "did_not", *_MEASURED, "first_time", "regular", "stopped", "resumed")
_WINDOW: Final = ("within_last_days", "from", "to")
_ROLLING: Final = ("regular", "stopped", "resumed")
_MEANT: Final[Mapping[str, str]] = {"and": "all", "or": "any"}
_SHAPES: Final = (
    "{all: [...]}, {any: [...]}, {not: ...}, {feature, op, value}, {event, op, ...}, {sequence: [...]}, "
    "{in_segment: ...} or {in_list: ...}"
)


@dataclass
class ConditionReader(NodeReader):
    """Reads rules.

    Attributes:
        features: What rules may name, by name.
        lists: Customer numbers of each static list, by name.
        asked: Segments that rules ask for, with who asks and where.
        is_guest: Whether rules are about guests, whose events are those of visitors and who are in no list.
        subject: What conditions name: features, or fields within `where` of an event.
        logic: Looks for contradictions.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)
    asked: list[tuple[str | None, str, Place]] = field(default_factory=list)
    is_guest: bool = False
    subject: str = "feature"
    logic: Logic = field(default_factory=Logic)

    def rule(self, node: yaml.Node) -> Rule | None:
        """Returns a rule, or None with the problems noted."""
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.complain(f"a rule is one of {_SHAPES}", node)
            return None
        words = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
        kinds: Mapping[str, Callable[[yaml.MappingNode], Rule | None]] = {
            "event": self.event,
            "sequence": self.sequence,
            "in_segment": self.in_segment,
            "not_in_segment": self.in_segment,
            "in_list": self.in_list,
            "not_in_list": self.in_list,
        }
        word = words[0] if words else ""
        if word in _MEANT:
            self.complain(f"'{word}' is not a rule. Did you mean '{_MEANT[word]}'? A rule is one of {_SHAPES}", node)
            return None
        if word not in ("all", "any", "not"):
            kind = next((kinds[w] for w in words if w in kinds and self.subject == "feature"), self.condition)
            return kind(node)
        got = self.mapping(node, f"'{word}'", (word,))
        inner = got.get(word) if got else None
        if inner is None:
            return None
        if word == "not":
            negated = self.rule(inner)
            return Not(negated) if negated is not None else None
        if not isinstance(inner, yaml.SequenceNode) or not inner.value:
            # An empty `all` would be everyone and an empty `any` no one: a half-written rule must not do either.
            self.complain(f"'{word}' needs a list of at least one rule", inner)
            return None
        before = len(self.problems)
        rules = [self.rule(part) for part in inner.value]
        good = tuple(r for r in rules if r is not None)
        if len(good) < len(rules):
            return None
        joined = All(good) if word == "all" else AnyOf(good)
        if len(self.problems) == before:
            for message in self.logic.contradictions(joined, self.features):
                self.complain(message, node)
        return joined

    def condition(self, node: yaml.MappingNode) -> Condition | None:
        """Returns a condition on a feature, or on a field of an event."""
        before = len(self.problems)
        named = self.subject
        got = self.mapping(node, "a condition", (named, "op", "value"))
        if got is None:
            return None
        for required in (named, "op"):
            if required not in got:
                self.complain(f"a condition needs '{required}'", node)
        name, op_name = self.text(got.get(named)), self.text(got.get("op"))
        known = self.features.get(name) if name is not None else None
        operator = OPERATORS.get(op_name) if op_name is not None else None
        if name is not None and known is None:
            self.complain(f"'{short(name)}' is not a {named}.{suggest(name, self.features)}", got[named])
        if op_name is not None and operator is None:
            self.complain(
                f"'{short(op_name)}' is not an operator; operators are {', '.join(OPERATORS)}."
                f"{suggest(op_name, OPERATORS)}",
                got["op"],
            )
        if known is None or operator is None:
            return None
        if known.family not in operator.takes:
            fitting = ", ".join(o.name for o in OPERATORS.values() if known.family in o.takes)
            self.complain(
                f"'{operator.name}' does not apply to '{known.name}', a {known.family.value}; {fitting} do", got["op"]
            )
            return None
        if operator.shape == "percent" and (named == "field" or self.is_guest):
            self.complain(f"'{operator.name}' compares customers, so it takes features of customers only", got["op"])
            return None
        value = self.value(got.get("value"), operator, known, node)
        if len(self.problems) > before:
            return None
        made = Condition(known.name, operator.name, value, at=self.place(node))
        for message in self.logic.contradictions(made, self.features):
            self.complain(message, node)
        return made

    def event(self, node: yaml.MappingNode) -> EventCondition | None:
        """Returns a condition on events."""
        before = len(self.problems)
        extra = ("op", "value", *_WINDOW, *AGGREGATES[1:], "every_days", "after_days", "unless_since")
        got = self.mapping(node, "a condition on events", ("event", "where", *extra))
        if got is None:
            return None
        step = self.step({k: v for k, v in got.items() if k in ("event", "where")}, node)
        op = self.text(got.get("op")) if "op" in got else None
        if op is None or op not in _EVENT_OPS:
            said = f"'{short(op)}' is not an operator of events" if op is not None else "a condition needs 'op'"
            self.complain(
                f"{said}; they are {', '.join(_EVENT_OPS)}.{suggest(op or '', _EVENT_OPS)}", got.get("op", node)
            )
            return None
        window = self.window(got, node, is_rolling=op in _ROLLING, is_needed=op in (*_ROLLING, "first_time"))
        measures = [m for m in AGGREGATES[1:] if m in got]
        if len(measures) > 1 or (measures and op not in _MEASURED):
            self.complain(f"'{measures[-1]}' does not fit beside '{measures[0] if len(measures) > 1 else op}'", node)
        measure = measures[0] if measures else "count"
        measured = self.field_of(got[measure], step, measure) if measures else None
        value = self.event_value(got.get("value"), op, measure, node)
        days = self.days_of(got, op, window, node)
        unless = None
        if "unless_since" in got:
            if op != "did":
                self.complain("'unless_since' goes with 'did' only", got["unless_since"])
            inner = self.mapping(got["unless_since"], "'unless_since'", ("event", "where"))
            unless = self.step(inner, got["unless_since"]) if inner is not None else None
        if len(self.problems) > before or step is None:
            return None
        if unless is not None and unless.event == step.event and unless.where in (None, step.where):
            self.complain(
                f"is impossible: the last '{step.event}' is itself one of those of 'unless_since'", got["unless_since"]
            )
            return None
        made = EventCondition(step, op, value, window, measure, measured, days, unless, at=self.place(node))
        for message in self.logic.contradictions(made, self.features):
            self.complain(message, node)
        return made

    def sequence(self, node: yaml.MappingNode) -> SequenceCondition | None:
        """Returns a condition on the order of events."""
        before = len(self.problems)
        got = self.mapping(node, "a sequence", ("sequence", "max_gap_days", *_WINDOW))
        if got is None:
            return None
        listed = got["sequence"]
        if not isinstance(listed, yaml.SequenceNode) or not 2 <= len(listed.value) <= MAX_STEPS:
            self.complain(f"'sequence' needs a list of 2 to {MAX_STEPS} events", listed)
            return None
        steps = []
        for part in listed.value:
            inner = self.mapping(part, "an event of a sequence", ("event", "where"))
            steps.append(self.step(inner, part) if inner is not None else None)
        gap = self.number(got.get("max_gap_days"), 1, MAX_DAYS, None, whole=True, needed=True)
        window = self.window(got, node, is_rolling=False, is_needed=False)
        if len(self.problems) > before:
            return None
        good = tuple(s for s in steps if s is not None)
        return SequenceCondition(good, gap, window, at=self.place(node))

    def in_segment(self, node: yaml.MappingNode) -> Rule | None:
        """Returns a condition on another segment, and notes who asks for whom."""
        return self._inside(node, "segment")

    def in_list(self, node: yaml.MappingNode) -> Rule | None:
        """Returns a condition on a static list."""
        return self._inside(node, "list")

    def _inside(self, node: yaml.MappingNode, what: str) -> Rule | None:
        got = self.mapping(node, f"a condition on a {what}", (f"in_{what}", f"not_in_{what}"))
        if got is None:
            return None
        if len(got) != 1:
            self.complain(f"one of 'in_{what}' and 'not_in_{what}' is needed", node)
            return None
        ((word, named),) = got.items()
        name = self.text(named, minimum=1)
        if name is None:
            return None
        at = self.place(named)
        made: Rule
        if what == "segment" and self.is_guest:
            self.complain("segments are asked of customers, and a guest is none", named)
            return None
        if what == "segment":
            self.asked.append((self.segment_id, name, at))
            made = InSegment(name, at=self.place(node))
        elif self.is_guest:
            self.complain("lists are of customers, and a guest is none", named)
            return None
        elif name not in self.lists:
            self.complain(
                f"there is no list '{short(name)}' in lists/; lists are {', '.join(sorted(self.lists)) or 'none'}."
                f"{suggest(name, self.lists)}",
                named,
            )
            return None
        else:
            made = InList(name, self.lists[name], at=self.place(node))
        return Not(made) if word.startswith("not_") else made

    def step(self, got: Mapping[str, yaml.Node], at: yaml.Node) -> EventStep | None:
        """Returns which events are meant."""
        name = self.text(got.get("event"))
        if name is None:
            if "event" not in got:
                self.complain("an 'event' is needed", at)
            return None
        events = [e.name for e in EVENTS.values() if e.is_of_visitors or not self.is_guest]
        if name not in events:
            of = " of guests" if self.is_guest else ""
            self.complain(
                f"'{short(name)}' is not an event{of}; events{of} are {', '.join(events)}.{suggest(name, events)}",
                got["event"],
            )
            return None
        known = EVENTS[name]
        if "where" not in got:
            return EventStep(name)
        features, self.features, self.subject = self.features, known.fields, "field"
        where = self.rule(got["where"])
        self.features, self.subject = features, "feature"
        return EventStep(name, where) if where is not None else None

    def window(self, got: Mapping[str, yaml.Node], at: yaml.Node, *, is_rolling: bool, is_needed: bool) -> Window:
        """Returns the days a condition looks at."""
        days = self.number(got.get("within_last_days"), 1, MAX_DAYS, None, whole=True, needed=True)
        start, end = (self.day(got.get(edge)) for edge in ("from", "to"))
        if days is not None and (start or end):
            self.complain("'within_last_days' does not fit beside 'from' and 'to'", got["within_last_days"])
        if start and end and start >= end:
            self.complain("'to' is the day after the last, so it must be later than 'from'", got["to"])
        if is_rolling and "within_last_days" not in got:
            self.complain("this needs 'within_last_days'", at)
        elif is_needed and not set(_WINDOW) & set(got):
            self.complain("this needs 'within_last_days', or 'from' and 'to'", at)
        return Window(days, start, end)

    def day(self, node: yaml.Node | None) -> date | None:
        """Returns a day, None when absent or wrong."""
        value = self.plain(node) if node is not None else None
        if node is None or value is BROKEN:
            return None
        found = _as_date(value)
        if found is None:
            self.complain(f"{_WANTED[Family.DATE]} is needed here, not {describe(value)}", node)
        return found

    def field_of(self, node: yaml.Node, step: EventStep | None, measure: str) -> str | None:
        """Returns the field that is measured."""
        name = self.text(node)
        if name is None or step is None:
            return None
        fields = EVENTS[step.event].fields
        if name not in fields:
            self.complain(f"'{short(name)}' is not a field of '{step.event}'.{suggest(name, fields)}", node)
            return None
        if measure != "distinct" and fields[name].family is not Family.NUMBER:
            self.complain(f"'{measure}' needs a number, and '{name}' is a {fields[name].family.value}", node)
        return name

    def event_value(self, node: yaml.Node | None, op: str, measure: str, at: yaml.Node) -> Any:
        """Returns what a measure is compared with."""
        if op not in _MEASURED:
            if node is not None:
                self.complain(f"'{op}' takes no value", node)
            return None
        if node is None:
            self.complain(f"'{op}' needs a value", at)
            return None
        whole = measure in ("count", "distinct")
        low = 0 if whole else -MAX_NUMBER
        if op != "between":
            return self.exact(node, self.number(node, low, MAX_NUMBER, None, whole=whole, needed=True))
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            self.complain("'between' needs two values, [low, high]", node)
            return None
        pair = tuple(
            self.exact(part, self.number(part, low, MAX_NUMBER, None, whole=whole, needed=True)) for part in node.value
        )
        if None not in pair and pair[0] > pair[1]:
            self.complain("the low value of 'between' is above the high one, so no customer can match", node)
        return pair

    def exact(self, node: yaml.Node, value: Any) -> Any:
        """Returns a number that a decimal can be compared with, None when it has too many places."""
        if isinstance(value, float) and -int(Decimal(str(value)).as_tuple().exponent) > MAX_PLACES:
            self.complain(f"a number of at most {MAX_PLACES} decimal places is needed here, not {value!r}", node)
            return None
        return value

    def days_of(self, got: Mapping[str, yaml.Node], op: str, window: Window, at: yaml.Node) -> int | None:
        """Returns `every_days` of `regular`, `after_days` of `resumed`."""
        found = None
        for word, owner in (("every_days", "regular"), ("after_days", "resumed")):
            if word in got and op != owner:
                self.complain(f"'{word}' goes with '{owner}' only", got[word])
            elif op == owner and word not in got:
                self.complain(f"'{owner}' needs '{word}'", at)
            elif op == owner:
                found = self.number(got[word], 1, MAX_DAYS, None, whole=True, needed=True)
        if op == "regular" and found and window.last_days and (window.last_days % found or window.last_days < found):
            self.complain(f"a window of {window.last_days} days is not made of periods of {found}", at)
        elif op == "regular" and found and window.last_days and window.last_days // found > MAX_PERIODS:
            self.complain(
                f"a window of {window.last_days} days has more than {MAX_PERIODS} periods of {found}; "
                "take a shorter 'within_last_days' or a longer 'every_days'",
                at,
            )
        return found

    def value(self, node: yaml.Node | None, operator: Operator, known: Feature, at: yaml.Node) -> Any:
        """Returns the value of a condition as the type of its feature."""
        if operator.shape == "none":
            if node is not None:
                self.complain(f"'{operator.name}' takes no value", node)
            return None
        if node is None:
            self.complain(f"'{operator.name}' needs a value", at)
            return None
        if operator.shape == "days":
            return self.number(node, 0, MAX_DAYS, None, whole=True, needed=True)
        if operator.shape == "percent":
            return self.number(node, 0.001, 99.999, None, needed=True)
        # What a text contains or begins with need not be one of its values.
        is_whole = operator.name not in ("contains", "starts_with")
        if operator.shape == "one":
            found = self.scalar(node, known, is_whole=is_whole)
            if found == "" and not is_whole and known.family is Family.TEXT:
                self.complain(f"is always true: every known '{known.name}' fulfils '{operator.name}' of no text", node)
                return None
            return found
        if not isinstance(node, yaml.SequenceNode):
            self.complain(f"'{operator.name}' needs a list of values", node)
            return None
        if operator.shape == "range" and len(node.value) != 2:
            self.complain(f"'{operator.name}' needs two values, [low, high]", node)
            return None
        if not node.value:
            self.complain(f"'{operator.name}' needs at least one value", node)
            return None
        values = tuple(self.scalar(part, known) for part in node.value)
        if operator.shape == "range" and None not in values and values[0] > values[1]:
            self.complain(f"the low value of '{operator.name}' is above the high one, so no customer can match", node)
        return values

    def scalar(self, node: yaml.Node, known: Feature, *, is_whole: bool = True) -> Any:
        """Returns one value as the feature's type, one of its closed set unless it is only a part of one."""
        family = known.family
        value = self.plain(node, as_text=family in (Family.TEXT, Family.LIST))
        if value is BROKEN:
            return None
        fits: Any = None
        if family is Family.NUMBER and isinstance(value, int | float) and not isinstance(value, bool):
            fits = value if abs(value) <= MAX_NUMBER else None  # nor is NaN within it
            if fits is not None and known.type.startswith("decimal"):
                return self.exact(node, fits)
        elif family in (Family.TEXT, Family.LIST):
            fits = value if isinstance(value, str) and len(value) <= MAX_TEXT else None
        elif family is Family.FLAG:
            fits = value if isinstance(value, bool) else None
        elif family is Family.DATE:
            fits = _as_date(value)
        elif family is Family.INSTANT:
            fits = _as_instant(value)
        if fits is None:
            self.complain(f"'{known.name}' is compared with {_WANTED[family]}, not {describe(value)}", node)
            return None
        if is_whole and known.values and isinstance(fits, str) and fits not in known.values:
            self.complain(
                f"'{known.name}' is never '{short(fits)}'; its values are {', '.join(known.values)}."
                f"{suggest(fits, known.values)}",
                node,
            )
            return None
        return fits


_WANTED: Final[Mapping[Family, str]] = {
    Family.NUMBER: f"a number of at most {MAX_NUMBER:,}",
    Family.TEXT: f"text of at most {MAX_TEXT:,} characters (put quotes around it)",
    Family.FLAG: "true or false",
    Family.DATE: f"a date such as 2017-12-31, none before {FIRST_DAY}",
    Family.INSTANT: f"a date or UTC time such as 2017-12-31T18:00:00, none before {FIRST_DAY}",
    Family.LIST: f"text of at most {MAX_TEXT:,} characters (put quotes around it)",
}


def _as_date(value: Any) -> date | None:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            return None
    is_day = isinstance(value, date) and not isinstance(value, datetime)
    return value if is_day and value >= FIRST_DAY else None


def _as_instant(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        try:
            value = in_utc(value)
        except SettingsError:
            return None
    elif isinstance(value, date):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    else:
        return None
    return value if value.date() >= FIRST_DAY else None
