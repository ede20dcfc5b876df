"""Definitions from YAML or JSON text to `Segment`: everything wrong is found at once, each with its place.

Reading is safe on any input: size, depth and number of nodes are bounded before anything is built, aliases and tags
are refused (so no small file grows large, and no file makes an object), and a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from lakehouse.errors import SettingsError, suggest
from segments.catalogue import GUEST_TABLES, Feature, declared_features
from segments.language import All, AnyOf, Condition, Not, Place, Rule, Segment
from segments.operators import OPERATORS, Family, Operator

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 256
MAX_NODES: Final = 50_000
MAX_TEXT: Final = 1_000
MAX_NUMBER: Final = 10**15
"""Beyond this a decimal(18,2) and a double no longer hold the same number."""

_SEGMENT_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a definition."""

    message: str
    at: Place
    segment_id: str | None = None

    def __str__(self) -> str:
        of = f'segment "{self.segment_id}": ' if self.segment_id else ""
        return f"{self.at}: {of}{self.message}"


class DefinitionError(SettingsError):
    """Segment definitions are wrong; nothing was loaded.

    Attributes:
        problems: Everything found, in reading order.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''} in segment definitions:"
        super().__init__("\n  ".join([count, *(str(p) for p in self.problems)]))


def load_segments(folder: Path, features: Mapping[str, Feature] | None = None) -> tuple[Segment, ...]:
    """Returns every segment of the `*.yml` and `*.yaml` files of a folder, ordered by priority and id.

    A file holds one segment, or several under `segments`. An absent folder holds none.

    Args:
        folder: Usually `conf/segments`.
        features: What rules on customers may name; the declared feature tables unless given.

    Raises:
        DefinitionError: Something is wrong in any of the files; lists all of it.
    """
    known = declared_features() if features is None else features
    reader = _Reader(known)
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")]):
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            reader.complain(f"cannot be read: {error.strerror or type(error).__name__}", Place(path.name, 1, 1))
            continue
        if size > MAX_BYTES:
            reader.complain(f"is {size:,} bytes; a definition file may have {MAX_BYTES:,}", Place(path.name, 1, 1))
        else:
            reader.read(content, path.name)
    return reader.finish()


def parse_segments(
    text: str | bytes, features: Mapping[str, Feature] | None = None, file: str = "<text>"
) -> tuple[Segment, ...]:
    """Returns the segments of one YAML or JSON text; see `load_segments`."""
    reader = _Reader(declared_features() if features is None else features)
    reader.read(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, file)
    return reader.finish()


def parse_rule(text: str, features: Mapping[str, Feature] | None = None, file: str = "<rule>") -> Rule:
    """Returns the rule of a YAML or JSON text, such as `conditions` of `gold.customer_segment`.

    Raises:
        DefinitionError: Lists everything wrong with it.
    """
    reader = _Reader(declared_features() if features is None else features)
    root = reader.compose(text.encode("utf-8", "surrogatepass"), file)
    rule = reader.rule(root) if root is not None else None
    if reader.problems or rule is None:
        raise DefinitionError(reader.problems or [Problem("holds no rule", Place(file, 1, 1))])
    return rule


_FIELDS: Final = (
    "segment_id",
    "name",
    "description",
    "entity",
    "is_active",
    "website_ids",
    "priority",
    "refresh_mode",
    "max_change_share",
    "rule",
)


class _Loader(yaml.SafeLoader):
    """Reads every number JSON can write as a number; YAML 1.1 takes 1e-9 for text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+$"), "-+0123456789")


@dataclass
class _Reader:
    """Walks YAML nodes, which know their line and column, and collects problems instead of raising the first."""

    features: Mapping[str, Feature]
    problems: list[Problem] = field(default_factory=list)
    segments: list[tuple[Segment, Place]] = field(default_factory=list)
    file: str = ""
    segment_id: str | None = None

    def complain(self, message: str, at: yaml.Node | Place) -> None:
        """Notes a problem at a node."""
        place = at if isinstance(at, Place) else self.place(at)
        self.problems.append(Problem(message, place, self.segment_id))

    def place(self, node: yaml.Node) -> Place:
        """Returns where a node starts."""
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def finish(self) -> tuple[Segment, ...]:
        """Checks what only all files together show, and returns the segments or raises everything found."""
        by_id: dict[str, Place] = {}
        for segment, at in self.segments:
            self.segment_id = segment.segment_id
            if segment.segment_id in by_id:
                self.complain(f"is defined twice, first at {by_id[segment.segment_id]}", at)
            by_id.setdefault(segment.segment_id, at)
        for i, (segment, at) in enumerate(self.segments):
            self.segment_id = segment.segment_id
            for other, _ in self.segments[:i]:
                if other.segment_id != segment.segment_id and _share_a_name(segment, other):
                    self.complain(
                        f"has the name '{_short(segment.name)}' of segment \"{other.segment_id}\"; "
                        "names are unique per website",
                        at,
                    )
        if self.problems:
            raise DefinitionError(self.problems)
        return tuple(sorted((s for s, _ in self.segments), key=lambda s: (s.priority, s.segment_id)))

    def read(self, content: bytes, file: str) -> None:
        """Takes one file: a segment, or `segments: [...]`."""
        self.segment_id = None
        root = self.compose(content, file)
        if root is None:
            return
        if isinstance(root, yaml.MappingNode) and [k.value for k, _ in root.value] == ["segments"]:
            listed = root.value[0][1]
            if isinstance(listed, yaml.SequenceNode):
                for node in listed.value:
                    self.segment(node)
            else:
                self.complain("'segments' must be a list of segments", listed)
        else:
            self.segment(root)

    def compose(self, content: bytes, file: str) -> yaml.Node | None:
        """Returns the root node, or None with the problem noted."""
        self.file = file
        start = Place(file, 1, 1)
        if len(content) > MAX_BYTES:
            self.complain(f"is {len(content):,} bytes; a definition file may have {MAX_BYTES:,}", start)
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            self.complain("is not UTF-8 text", Place(file, line, 1))
            return None
        try:
            # Events come from a state machine, so that depth is bounded before anything recurses into it.
            if not self._is_bounded(text):
                return None
            roots = list(yaml.compose_all(text, Loader=_Loader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = Place(file, mark.line + 1, mark.column + 1) if mark else start
            self.complain(f"is not valid YAML: {error.problem or error.context}", at)
            return None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self.complain(f"is not valid YAML: {type(error).__name__}", start)
            return None
        if len(roots) != 1 or roots[0] is None:
            self.complain("must hold exactly one YAML document", start)
            return None
        return roots[0]

    def _is_bounded(self, text: str) -> bool:
        depth = nodes = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            mark = event.start_mark
            at = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file, 1, 1)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                self.complain("uses an alias or anchor, which definitions may not; write the value out", at)
                return False
            if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None):
                self.complain("uses a YAML tag, which definitions may not", at)
                return False
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            nodes += isinstance(event, yaml.NodeEvent)
            if depth > MAX_DEPTH or nodes > MAX_NODES:
                too_deep, too_many = f"nested deeper than {MAX_DEPTH} levels", f"of more than {MAX_NODES:,} nodes"
                self.complain(f"is {too_deep if depth > MAX_DEPTH else too_many}", at)
                return False
        return True

    def mapping(self, node: yaml.Node, what: str, allowed: Iterable[str]) -> dict[str, yaml.Node] | None:
        """Returns the values of a mapping by key, with unknown and repeated keys noted."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(f"{what} must be a mapping", node)
            return None
        known = tuple(allowed)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or name not in known:
                shown = _short(name) if name is not None else "a list or mapping"
                self.complain(
                    f"'{shown}' is not a field of {what}; fields are {', '.join(known)}.{suggest(name or '', known)}",
                    key,
                )
            elif name in found:
                self.complain(f"'{name}' is given twice", key)
            else:
                found[name] = value
        return found

    def segment(self, node: yaml.Node) -> None:
        """Takes one segment; it is kept only when nothing in it is wrong."""
        self.segment_id = _named_id(node)
        before = len(self.problems)
        got = self.mapping(node, "a segment", _FIELDS)
        if got is None:
            return
        segment_id = self.text(got.get("segment_id"))
        if "segment_id" in got and self.segment_id is None:
            self.complain(
                f"segment_id '{_short(str(segment_id))}' must be lower-case letters, digits and underscores, "
                "start with a letter and have at most 63",
                got["segment_id"],
            )
        for required in ("segment_id", "name", "rule"):
            if required not in got:
                self.complain(f"'{required}' is missing", node)
        made = {
            "name": self.text(got.get("name"), minimum=1, maximum=255),
            "description": self.text(got.get("description"), maximum=10_000) or "",
            "entity": self.choice(got.get("entity"), ("customer", "guest"), "customer"),
            "is_active": self.typed(got.get("is_active"), bool, "true or false", True),
            "website_ids": self.names(got.get("website_ids")),
            "priority": self.number(got.get("priority"), 0, 1_000_000, 100, whole=True),
            "refresh_mode": self.choice(got.get("refresh_mode"), ("auto", "manual"), "auto"),
            "max_change_share": self.number(got.get("max_change_share"), 0, 1_000_000, None),
        }
        of_customers = self.features
        if made["entity"] == "guest":
            self.features = declared_features(GUEST_TABLES)
        rule = self.rule(got["rule"]) if "rule" in got else None
        self.features = of_customers
        if len(self.problems) == before and rule is not None:
            self.segments.append((Segment(segment_id=str(segment_id), rule=rule, **made), self.place(node)))
        self.segment_id = None

    def rule(self, node: yaml.Node) -> Rule | None:
        """Returns a rule, or None with the problems noted."""
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.complain("a rule is one of {all: [...]}, {any: [...]}, {not: ...} or {feature, op, value}", node)
            return None
        first = node.value[0][0]
        word = first.value if isinstance(first, yaml.ScalarNode) else ""
        if word not in ("all", "any", "not"):
            return self.condition(node)
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
        rules = [self.rule(part) for part in inner.value]
        good = tuple(r for r in rules if r is not None)
        if len(good) < len(rules):
            return None
        return All(good) if word == "all" else AnyOf(good)

    def condition(self, node: yaml.MappingNode) -> Condition | None:
        """Returns a condition, or None with the problems noted."""
        before = len(self.problems)
        got = self.mapping(node, "a condition", ("feature", "op", "value"))
        if got is None:
            return None
        for required in ("feature", "op"):
            if required not in got:
                self.complain(f"a condition needs '{required}'", node)
        name, op_name = self.text(got.get("feature")), self.text(got.get("op"))
        known = self.features.get(name) if name is not None else None
        operator = OPERATORS.get(op_name) if op_name is not None else None
        if name is not None and known is None:
            self.complain(f"'{_short(name)}' is not a feature.{suggest(name, self.features)}", got["feature"])
        if op_name is not None and operator is None:
            self.complain(
                f"'{_short(op_name)}' is not an operator; operators are {', '.join(OPERATORS)}."
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
        value = self.value(got.get("value"), operator, known, node)
        if len(self.problems) > before:
            return None
        return Condition(known.name, operator.name, value, at=self.place(node))

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
            return self.number(node, 0, 36_500, None, whole=True)
        if operator.shape == "one":
            return self.scalar(node, known)
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

    def scalar(self, node: yaml.Node, known: Feature) -> Any:
        """Returns one value as the feature's type."""
        value = self.plain(node)
        if value is _BROKEN:
            return None
        family = known.family
        fits: Any = None
        if family is Family.NUMBER and isinstance(value, int | float) and not isinstance(value, bool):
            fits = value if abs(value) <= MAX_NUMBER else None  # nor is NaN within it
        elif family in (Family.TEXT, Family.LIST):
            fits = value if isinstance(value, str) and len(value) <= MAX_TEXT else None
        elif family is Family.FLAG:
            fits = value if isinstance(value, bool) else None
        elif family is Family.DATE:
            fits = _as_date(value)
        elif family is Family.INSTANT:
            fits = _as_instant(value)
        if fits is None:
            self.complain(f"'{known.name}' is compared with {_WANTED[family]}, not {_describe(value)}", node)
            return None
        if known.values and isinstance(fits, str) and fits not in known.values:
            self.complain(
                f"'{known.name}' is never '{_short(fits)}'; its values are {', '.join(known.values)}."
                f"{suggest(fits, known.values)}",
                node,
            )
            return None
        return fits

    def plain(self, node: yaml.Node) -> Any:
        """Returns a YAML scalar as Python, `_BROKEN` when it is none."""
        if not isinstance(node, yaml.ScalarNode):
            self.complain("a single value is needed here, not a list or mapping", node)
            return _BROKEN
        is_text = node.tag == "tag:yaml.org,2002:str"
        # Not only for space: writing out an integer of thousands of digits is refused by Python itself.
        if len(node.value) > (10 * MAX_TEXT if is_text else MAX_TEXT):
            self.complain(f"a value of {len(node.value):,} characters is too long", node)
            return _BROKEN
        try:
            return _CONSTRUCTOR.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            self.complain(f"'{_short(node.value)}' cannot be read as a value", node)
            return _BROKEN

    def text(self, node: yaml.Node | None, minimum: int = 0, maximum: int = MAX_TEXT) -> str | None:
        """Returns a text field, None when absent or wrong."""
        if node is None:
            return None
        value = self.plain(node)
        if isinstance(value, str) and minimum <= len(value) <= maximum and "\x00" not in value:
            return value
        if value is not _BROKEN:
            self.complain(f"text of {minimum} to {maximum} characters is needed here, not {_describe(value)}", node)
        return None

    def typed(self, node: yaml.Node | None, kind: type, wanted: str, default: Any) -> Any:
        """Returns a field of a Python type."""
        if node is None:
            return default
        value = self.plain(node)
        if not isinstance(value, kind) and value is not _BROKEN:
            self.complain(f"{wanted} is needed here, not {_describe(value)}", node)
        return value

    def number(self, node: yaml.Node | None, low: float, high: float, default: Any, *, whole: bool = False) -> Any:
        """Returns a number field within bounds; an explicit null is the default."""
        value = default if node is None else self.plain(node)
        if value is _BROKEN or value is default:
            return default
        kind: Any = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            wanted = f"{what} from {low:,} to {high:,}"
            self.complain(f"{wanted} is needed here, not {_describe(value)}", node or Place(self.file, 1, 1))
            return default
        return value

    def choice(self, node: yaml.Node | None, options: tuple[str, ...], default: str) -> str:
        """Returns one of a closed set of words."""
        value = self.text(node)
        if value is not None and value not in options and node is not None:
            self.complain(f"'{_short(value)}' must be one of {', '.join(options)}.{suggest(value, options)}", node)
        return value if value in options else default

    def names(self, node: yaml.Node | None) -> tuple[str, ...]:
        """Returns a list of texts."""
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.complain("a list is needed here", node)
            return ()
        found = [self.text(part, minimum=1, maximum=255) for part in node.value]
        return tuple(name for name in found if name is not None)


_BROKEN: Final = object()
_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()
_WANTED: Final[Mapping[Family, str]] = {
    Family.NUMBER: f"a number of at most {MAX_NUMBER:,}",
    Family.TEXT: f"text of at most {MAX_TEXT:,} characters (put quotes around it)",
    Family.FLAG: "true or false",
    Family.DATE: "a date such as 2017-12-31",
    Family.INSTANT: "a date or UTC time such as 2017-12-31T18:00:00",
    Family.LIST: f"text of at most {MAX_TEXT:,} characters (put quotes around it)",
}


def _named_id(node: yaml.Node) -> str | None:
    """The segment's id when it is a good one, so that every problem can name it."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "segment_id" and isinstance(value, yaml.ScalarNode) and _SEGMENT_ID.fullmatch(value.value):
            return str(value.value)
    return None


def _share_a_name(one: Segment, other: Segment) -> bool:
    everywhere = not one.website_ids or not other.website_ids
    return one.name == other.name and (everywhere or bool(set(one.website_ids) & set(other.website_ids)))


def _as_date(value: Any) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _as_instant(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text '{_short(value)}'"
    return f"{type(value).__name__} {_short(str(value))}"


def _short(text: str) -> str:
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= 60 else shown[:57] + "..."
