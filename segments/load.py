"""Definitions from YAML or JSON text to `Segment`: everything wrong is found at once, each with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from lakehouse.errors import suggest
from lakehouse.yaml_file import yaml_files
from segments.catalogue import GUEST_TABLES, Feature, declared_features
from segments.conditions import ConditionReader
from segments.language import Segment
from segments.lists import read_lists
from segments.logic import Logic
from segments.nodes import MAX_BYTES, MAX_DEPTH, ROW_TIMES, DefinitionError, Problem, as_seen, short
from segments.references import circles
from segments.rules import InList, InSegment, Place, Rule, leaves_of, segments_in

__all__ = [
    "MAX_BYTES",
    "DefinitionError",
    "Problem",
    "as_read",
    "load_segments",
    "parse_rule",
    "parse_segments",
    "segment_of_row",
]

_SEGMENT_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")

_ALIKE: Final = 0.85
"""From here on a name is taken for a misspelling: `corner_shp` is, `shop_fr` beside `shop_de` is not."""

_SUGGESTED: Final = 50
"""Problems up to which a reference that leads nowhere is told the closest name, which takes ten milliseconds each."""

Lists = Mapping[str, frozenset[str]]


def load_segments(
    folder: Path,
    features: Mapping[str, Feature] | None = None,
    *,
    others: Iterable[Segment] = (),
    websites: Collection[str] = (),
) -> tuple[Segment, ...]:
    """Returns every segment of the `*.yml` and `*.yaml` files of a folder, ordered by priority and id.

    A file holds one segment, or several under `segments`. An absent folder holds none. Static lists are the `*.csv`
    files of its folder `lists`; definitions in a folder of the folder are refused. The endings may be in capitals.

    Args:
        folder: Usually `conf/segments`.
        features: What rules on customers may name; the declared feature tables unless given.
        others: Segments defined elsewhere, which rules may ask for; one of the same id in the folder takes its place.
        websites: Retailers there are; a name much like one of them is taken for a misspelling.

    Raises:
        DefinitionError: Something is wrong in any of the files; lists all of it.
    """
    known = declared_features() if features is None else features
    reader = _Reader(features=known, websites=websites)
    reader.lists = read_lists(folder / "lists", reader.complain)
    for path in sorted(folder.glob("[!.]*/**/*")):
        if path.suffix.lower() in (".yml", ".yaml"):
            at = Place(path.relative_to(folder).as_posix(), 1, 1)
            reader.complain("lies in a folder, where no definition is read; move it out of it", at)
    for path in yaml_files(folder):
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
    return reader.finish(others)


def parse_segments(
    text: str | bytes,
    features: Mapping[str, Feature] | None = None,
    file: str = "<text>",
    *,
    lists: Lists | None = None,
    others: Iterable[Segment] = (),
    websites: Collection[str] = (),
) -> tuple[Segment, ...]:
    """Returns the segments of one YAML or JSON text; see `load_segments`.

    Args:
        text: The definitions.
        features: What rules may name.
        file: What problems call the text.
        lists: Customer numbers per static list.
        others: Segments defined elsewhere, which rules may ask for, and which may ask for those of the text.
        websites: As for `load_segments`.
    """
    known = declared_features() if features is None else features
    reader = _Reader(features=known, lists=lists or {}, websites=websites)
    reader.read(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, file)
    return reader.finish(others)


def as_read(
    segment: Segment,
    features: Mapping[str, Feature] | None = None,
    *,
    others: Iterable[Segment] = (),
    websites: Collection[str] = (),
) -> Segment:
    """Returns a segment made in Python as it comes back from a file that says the same; see `parse_segments`.

    Raises:
        DefinitionError: The file would be refused; lists everything wrong, without a place.
    """
    reader = _Reader(features=declared_features() if features is None else features, websites=websites)
    try:
        written = json.dumps(segment.to_dict(), default=str)
        reader.lists = {leaf.name: leaf.customer_ids for leaf in leaves_of(segment.rule) if isinstance(leaf, InList)}
    except RecursionError:
        too_deep = f"is nested deeper than {MAX_DEPTH} levels"
        raise DefinitionError([Problem(too_deep, Place("", 1, 1), segment.segment_id)]) from None
    reader.read(written.encode(), "", ROW_TIMES)
    (found,) = reader.finish(others)
    return found


def parse_rule(
    text: str, features: Mapping[str, Feature] | None = None, file: str = "<rule>", *, lists: Lists | None = None
) -> Rule:
    """Returns the rule of a YAML or JSON text, such as `conditions` of `gold.customer_segment`.

    Whether segments it asks for exist is for the caller to know.

    Raises:
        DefinitionError: Lists everything wrong with it.
    """
    reader = _Reader(features=declared_features() if features is None else features, lists=lists or {})
    root = reader.compose(text.encode("utf-8", "surrogatepass"), file, times=ROW_TIMES)
    rule = reader.rule(root) if root is not None else None
    if reader.problems or rule is None:
        raise DefinitionError(reader.problems or [Problem("holds no rule", Place(file, 1, 1))])
    return rule


def segment_of_row(
    row: Mapping[str, Any], features: Mapping[str, Feature] | None = None, *, lists: Lists | None = None
) -> Segment:
    """Returns the definition that a row of `gold.customer_segment` was made from.

    Raises:
        DefinitionError: The rule names what no longer exists.
    """
    known = features
    if known is None:
        known = declared_features(GUEST_TABLES) if row["entity"] == "guest" else declared_features()
    return Segment(
        segment_id=row["segment_id"],
        name=row["name"],
        rule=parse_rule(row["conditions"], known, f"gold.customer_segment {row['segment_id']}", lists=lists),
        description=row["description"] or "",
        entity=row["entity"],
        is_active=row["is_active"],
        website_ids=tuple(row["website_ids"]),
        customer_group_ids=tuple(row["customer_group_ids"] or ()),
        priority=row["priority"],
        refresh_mode=row["refresh_mode"],
        max_change_share=row["max_change_share"],
    )


_FIELDS: Final = (
    "segment_id",
    "name",
    "description",
    "entity",
    "is_active",
    "website_ids",
    "customer_group_ids",
    "priority",
    "refresh_mode",
    "max_change_share",
    "rule",
)


@dataclass
class _Reader(ConditionReader):
    """Reads segments, and checks what only all of them together show."""

    segments: list[tuple[Segment, Place]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    websites: Collection[str] = ()

    def finish(self, others: Iterable[Segment] = ()) -> tuple[Segment, ...]:
        """Checks what only all files together show, and returns the segments or raises everything found."""
        by_id: dict[str, Place] = {}
        for segment, at in self.segments:
            self.segment_id = segment.segment_id
            if segment.segment_id in by_id:
                self.complain(f"is defined twice, first at {by_id[segment.segment_id]}", at)
            by_id.setdefault(segment.segment_id, at)
        others = tuple(o for o in others if o.segment_id not in by_id)
        named: dict[str, list[Segment]] = {}
        for other in others:
            named.setdefault(as_seen(other.name), []).append(other)
        for segment, at in self.segments:
            self.segment_id = segment.segment_id
            alike = named.setdefault(as_seen(segment.name), [])
            namesakes = (o for o in alike if o.segment_id != segment.segment_id and _share_a_website(segment, o))
            if (namesake := next(namesakes, None)) is not None:
                self.complain(
                    f"has the name '{short(segment.name)}' of segment \"{namesake.segment_id}\"; "
                    "names are unique per website",
                    at,
                )
            alike.append(segment)
        self._references(others)
        if self.problems:
            raise DefinitionError(self.problems)
        return tuple(sorted((s for s, _ in self.segments), key=lambda s: (s.priority, s.segment_id)))

    def _references(self, others: Sequence[Segment]) -> None:
        # What they ask of each other is theirs; what they ask of a definition read here, it must be able to answer.
        self.asked += [
            (other.segment_id, leaf.segment_id, leaf.at or Place(self.file, 1, 1))
            for other in others
            if other.segment_id not in self.seen
            for leaf in leaves_of(other.rule)
            if isinstance(leaf, InSegment) and leaf.segment_id in self.seen
        ]
        known = {s.segment_id: s for s in others if s.segment_id not in self.seen}
        known |= {s.segment_id: s for s, _ in self.segments}
        for asking, asked, at in self.asked:
            self.segment_id = asking
            if asked not in known:
                # A definition that is wrong itself has been told of already.
                if asked not in self.seen:
                    close = suggest(asked, known) if len(self.problems) < _SUGGESTED else ""
                    self.complain(f"'{short(asked)}' is not a segment.{close}", at)
            elif known[asked].entity != "customer":
                self.complain(f"'{short(asked)}' is a segment of guests, which no customer is in", at)
            elif not known[asked].is_active:
                self.complain(f"'{short(asked)}' is not active, so no one is in it", at)
        # What a definition asks for is known when something else in it is wrong, too.
        asks = {i: segments_in(s.rule) for i, s in known.items()}
        for asking, asked, _ in self.asked:
            if asking is not None:
                asks[asking] = asks.get(asking, frozenset()) | {asked}
        for circle in circles(asks):
            self.segment_id = circle[0]
            at = next((at for asking, asked, at in self.asked if (asking, asked) == circle[:2]), Place(self.file, 1, 1))
            self.complain(f"asks for itself, by way of {' -> '.join(circle)}", at)

    def read(self, content: bytes, file: str, times: int = 1) -> None:
        """Takes one file: a segment, or `segments: [...]`; see `compose`."""
        self.segment_id = None
        root = self.compose(content, file, times)
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

    def segment(self, node: yaml.Node) -> None:
        """Takes one segment; it is kept only when nothing in it is wrong."""
        self.segment_id = _named_id(node)
        self.seen.add(self.segment_id or "")
        self.logic = Logic()
        before = len(self.problems)
        got = self.mapping(node, "a segment", _FIELDS)
        if got is None:
            return
        segment_id = self.text(got.get("segment_id"))
        if segment_id is not None and self.segment_id is None:
            self.complain(
                f"segment_id '{short(segment_id)}' must be lower-case letters, digits and underscores, "
                "start with a letter and have at most 63",
                got["segment_id"],
            )
        for required in ("segment_id", "name", "rule"):
            if required not in got:
                self.complain(f"'{required}' is missing", node)
        made = {
            "name": self.line(got.get("name"), minimum=1, maximum=255),
            "description": self.text(got.get("description"), maximum=10_000) or "",
            "entity": self.choice(got.get("entity"), ("customer", "guest"), "customer"),
            "is_active": self.typed(got.get("is_active"), bool, "true or false", True),
            "website_ids": self.website_ids(got.get("website_ids")),
            "customer_group_ids": self.names(got.get("customer_group_ids")),
            "priority": self.number(got.get("priority"), 0, 1_000_000, 100, whole=True),
            "refresh_mode": self.choice(got.get("refresh_mode"), ("auto", "manual"), "auto"),
            "max_change_share": self.number(got.get("max_change_share"), 0, 1_000_000, None),
        }
        of_customers = self.features
        self.is_guest = made["entity"] == "guest"
        if self.is_guest:
            self.features = declared_features(GUEST_TABLES)
            if made["customer_group_ids"]:
                self.complain("groups are of customers, and a guest is none", got["customer_group_ids"])
            if made["refresh_mode"] == "manual":
                self.complain("guests come and go with every refresh; only customers wait for one", got["refresh_mode"])
            if made["max_change_share"] is not None:
                self.complain("a limit of change is for segments of customers", got["max_change_share"])
        rule = self.rule(got["rule"]) if "rule" in got else None
        self.features, self.is_guest = of_customers, False
        if len(self.problems) == before and rule is not None:
            self.segments.append((Segment(segment_id=str(segment_id), rule=rule, **made), self.place(node)))
        self.segment_id = None

    def website_ids(self, node: yaml.Node | None) -> tuple[str, ...]:
        """Returns the retailers a segment applies to.

        One that is none of `websites` is let through unless it looks like one: shipped definitions name retailers that
        a shop of its own does not have.
        """
        spelt = {_spelt(website): website for website in self.websites}
        for part in node.value if isinstance(node, yaml.SequenceNode) else ():
            if isinstance(part, yaml.ScalarNode) and part.value not in self.websites:
                for meant in get_close_matches(_spelt(part.value), spelt, n=1, cutoff=_ALIKE):
                    self.complain(
                        f"'{short(part.value)}' is not a retailer of conf/sources. Did you mean '{spelt[meant]}'?", part
                    )
        return self.names(node)


def _named_id(node: yaml.Node) -> str | None:
    """The segment's id when it is a good one, so that every problem can name it."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "segment_id" and isinstance(value, yaml.ScalarNode) and _SEGMENT_ID.fullmatch(value.value):
            return str(value.value)
    return None


def _spelt(website: str) -> str:
    """A retailer without what people mix up first: capitals, and blanks or hyphens between words."""
    return re.sub(r"[\s_-]+", "_", website.strip().lower())


def _share_a_website(one: Segment, other: Segment) -> bool:
    everywhere = not one.website_ids or not other.website_ids
    return everywhere or bool(set(one.website_ids) & set(other.website_ids))
