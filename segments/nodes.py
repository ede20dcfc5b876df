"""YAML and JSON text to nodes that know their place, safely on any input, and typed values read off them.

Size, depth and number of nodes are bounded before anything is built, aliases and tags are refused (so no small file
grows large, and no file makes an object), and a key given twice is an error.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from lakehouse.errors import SettingsError, suggest
from segments.rules import Place, joined

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 256
MAX_NODES: Final = 50_000
MAX_TEXT: Final = 1_000
ROW_TIMES: Final = 8
"""How much larger than a file a published rule may be: as JSON, what a file says takes more characters."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a definition; where no file holds it, its place says nothing."""

    message: str
    at: Place
    segment_id: str | None = None

    def __str__(self) -> str:
        of = f'segment "{self.segment_id}": ' if self.segment_id else ""
        at = f"{self.at}: " if self.at.file else ""
        return f"{at}{of}{self.message}"


class DefinitionError(SettingsError):
    """Segment definitions are wrong; nothing was loaded.

    Attributes:
        problems: Everything found, in reading order.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''} in segment definitions:"
        super().__init__("\n  ".join([count, *(str(p) for p in self.problems)]))


class _Loader(yaml.SafeLoader):
    """Reads every number JSON can write as a number; YAML 1.1 takes 1e-9 for text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+$"), "-+0123456789")


BROKEN: Final = object()
"""Stands for a value that was complained about."""

_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()
_YAML: Final = yaml.resolver.Resolver()
_TAG: Final = "tag:yaml.org,2002:"
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s\[\]{}:,"]+')
_NUMBER: Final = re.compile(r"[-+]?(0|[1-9]\d*|\d*\.\d*([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan|Infinity|NaN)", re.I)


@dataclass
class NodeReader:
    """Walks YAML nodes and collects problems instead of raising the first."""

    problems: list[Problem] = field(default_factory=list)
    file: str = ""
    segment_id: str | None = None

    def complain(self, message: str, at: yaml.Node | Place) -> None:
        """Notes a problem at a node."""
        place = at if isinstance(at, Place) else self.place(at)
        self.problems.append(Problem(message, place, self.segment_id))

    def place(self, node: yaml.Node) -> Place:
        """Returns where a node starts."""
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def compose(self, content: bytes, file: str, times: int = 1) -> yaml.Node | None:
        """Returns the root node, or None with the problem noted.

        Args:
            content: YAML or JSON in UTF-8.
            file: What problems call it.
            times: How much larger than a file it may be.
        """
        self.file = file
        start = Place(file, 1, 1)
        if len(content) > MAX_BYTES * times:
            self.complain(f"is {len(content):,} bytes; a definition file may have {MAX_BYTES * times:,}", start)
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            self.complain("is not UTF-8 text", Place(file, line, 1))
            return None
        if _is_json(text):
            return self._nodes_of_json(text, MAX_NODES * times)
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
        except yaml.reader.ReaderError as error:
            # Its position is a count of characters, where the other errors of YAML have a line.
            before = text[: error.position]
            at = Place(file, before.count("\n") + 1, error.position - before.rfind("\n"))
            self.complain(f"is not valid YAML: it may not hold the character '{short(chr(error.character))}'", at)
            return None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self.complain(f"is not valid YAML: {type(error).__name__}", start)
            return None
        if len(roots) != 1 or roots[0] is None:
            self.complain("must hold exactly one YAML document", start)
            return None
        return roots[0]

    def _nodes_of_json(self, text: str, max_nodes: int) -> yaml.Node | None:
        """The root of what is known to be JSON; YAML would refuse some of its characters and take others for space."""
        inside: list[list[yaml.Node]] = [[]]
        begun: list[yaml.Mark] = []
        nodes = line = line_start = seen = 0
        for token in _JSON_TOKEN.finditer(text):
            lines = text.count("\n", seen, token.start())
            if lines:
                line, line_start = line + lines, text.rindex("\n", seen, token.start()) + 1
            seen = token.start()
            mark = yaml.Mark(self.file, seen, line, seen - line_start, None, 0)
            said = token.group()
            if said in "]}":
                parts, mark = inside.pop(), begun.pop()
                made: yaml.Node = yaml.SequenceNode(f"{_TAG}seq", parts, mark, mark)
                if said == "}":
                    pairs = list(zip(parts[::2], parts[1::2], strict=True))
                    made = yaml.MappingNode(f"{_TAG}map", pairs, mark, mark)
                inside[-1].append(made)
                continue
            nodes += 1
            if said in "[{":
                inside.append([])
                begun.append(mark)
            else:
                inside[-1].append(_scalar_of_json(said, mark))
            if self._is_beyond(len(begun), nodes, max_nodes, Place(self.file, line + 1, mark.column + 1)):
                return None
        return inside[0][0]

    def _is_beyond(self, depth: int, nodes: int, max_nodes: int, at: Place) -> bool:
        if depth <= MAX_DEPTH and nodes <= max_nodes:
            return False
        too_deep, too_many = f"nested deeper than {MAX_DEPTH} levels", f"of more than {max_nodes:,} nodes"
        self.complain(f"is {too_deep if depth > MAX_DEPTH else too_many}", at)
        return True

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
            if self._is_beyond(depth, nodes, MAX_NODES, at):
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
                shown = short(name) if name is not None else "a list or mapping"
                self.complain(
                    f"'{shown}' is not a field of {what}; fields are {', '.join(known)}.{suggest(name or '', known)}",
                    key,
                )
            elif name in found:
                self.complain(f"'{name}' is given twice", key)
            else:
                found[name] = value
        return found

    def plain(self, node: yaml.Node, *, as_text: bool = False) -> Any:
        """Returns a YAML scalar as Python, `BROKEN` when it is none.

        Args:
            node: The scalar.
            as_text: Whether text is wanted; then it is what YAML 1.1 writes as text, such as 12e3.
        """
        if not isinstance(node, yaml.ScalarNode):
            self.complain("a single value is needed here, not a list or mapping", node)
            return BROKEN
        if as_text and _YAML.resolve(yaml.ScalarNode, node.value, (True, False)) == f"{_TAG}str":  # type: ignore[no-untyped-call]
            node = yaml.ScalarNode(f"{_TAG}str", node.value, node.start_mark, node.end_mark)
        is_text = node.tag == f"{_TAG}str"
        # Not only for space: writing out an integer of thousands of digits is refused by Python itself.
        if len(node.value) > (10 * MAX_TEXT if is_text else MAX_TEXT):
            self.complain(f"a value of {len(node.value):,} characters is too long", node)
            return BROKEN
        try:
            value = _CONSTRUCTOR.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            self.complain(f"'{short(node.value)}' cannot be read as a value", node)
            return BROKEN
        if isinstance(value, int | float) and not isinstance(value, bool) and not _NUMBER.fullmatch(node.value):
            # YAML 1.1 knows octal numbers (010), sixtieths (1:30) and the like, which no one means by them here.
            said, number = short(node.value), short(str(value))
            self.complain(f"'{said}' would be the number {number} in YAML; write {number} or \"{said}\"", node)
            return BROKEN
        if not isinstance(value, str):
            return value
        try:
            return joined(value)
        except UnicodeError:
            self.complain(f"'{short(value)}' has half of a surrogate pair, which is no character", node)
            return BROKEN

    def text(self, node: yaml.Node | None, minimum: int = 0, maximum: int = MAX_TEXT) -> str | None:
        """Returns a text field, None when absent or wrong."""
        if node is None:
            return None
        value = self.plain(node, as_text=True)
        # Blanks are no name: the segment would stand in lists and reports as an empty cell.
        if isinstance(value, str) and minimum <= len(as_seen(value)) and len(value) <= maximum and "\x00" not in value:
            return value
        if value is not BROKEN:
            self.complain(f"text of {minimum} to {maximum} characters is needed here, not {describe(value)}", node)
        return None

    def line(self, node: yaml.Node | None, minimum: int = 0, maximum: int = MAX_TEXT) -> str | None:
        """Returns a text field of one line without control characters, None when absent or wrong."""
        value = self.text(node, minimum, maximum)
        if value is not None and node is not None and has_controls(value):
            self.complain(
                f"'{short(value)}' has a line break or another control or invisible character, which a name may not",
                node,
            )
            return None
        return value

    def typed(self, node: yaml.Node | None, kind: type, wanted: str, default: Any) -> Any:
        """Returns a field of a Python type."""
        if node is None:
            return default
        value = self.plain(node)
        if not isinstance(value, kind) and value is not BROKEN:
            self.complain(f"{wanted} is needed here, not {describe(value)}", node)
        return value

    def number(
        self,
        node: yaml.Node | None,
        low: float,
        high: float,
        default: Any,
        *,
        whole: bool = False,
        needed: bool = False,
    ) -> Any:
        """Returns a number field within bounds; an explicit null is the default unless a number is needed."""
        value = default if node is None else self.plain(node)
        if value is BROKEN or (value is default and not (needed and node is not None)):
            return default
        kind: Any = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            wanted = f"{what} from {low:,} to {high:,}"
            self.complain(f"{wanted} is needed here, not {describe(value)}", node or Place(self.file, 1, 1))
            return default
        return value

    def choice(self, node: yaml.Node | None, options: tuple[str, ...], default: str) -> str:
        """Returns one of a closed set of words."""
        value = self.text(node)
        if value is not None and value not in options and node is not None:
            self.complain(f"'{short(value)}' must be one of {', '.join(options)}.{suggest(value, options)}", node)
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


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False  # YAML tells what is wrong, and where
    return True


def _scalar_of_json(said: str, mark: yaml.Mark) -> yaml.ScalarNode:
    if said.startswith('"'):
        return yaml.ScalarNode(f"{_TAG}str", json.loads(said), mark, mark)
    kind = {"true": "bool", "false": "bool", "null": "null"}.get(said)
    return yaml.ScalarNode(f"{_TAG}{kind or ('int' if said.lstrip('-').isdigit() else 'float')}", said, mark, mark)


def describe(value: Any) -> str:
    """Says what a value is, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text '{short(value)}'"
    return f"{type(value).__name__} {short(str(value))}"


_JOINERS: Final = "\u200c\u200d"
"""Between letters of some scripts, and within emoji, they decide what is seen."""

_BLANKS: Final = "\u115f\u1160\u2800"
"""Letters and a symbol that are seen as nothing."""


def has_controls(text: str) -> bool:
    """Whether text holds a control character or a line break, which a terminal would act on, or an invisible one."""
    return any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in _JOINERS for c in text)


def as_seen(text: str) -> str:
    """Returns text without what cannot be told by looking: how it is composed, its capitals, blanks around and runs."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = (" " if c in _BLANKS else c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())


def short(text: str) -> str:
    """Returns text fit for a message: printable and of at most 60 characters."""
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= 60 else shown[:57] + "..."
