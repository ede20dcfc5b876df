# ruff: noqa: E501, UP031
"""Definitions made to break something: each is refused at once, with a place, and without building what it asks for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from segments.events import EVENTS
from segments.load import DefinitionError, load_segments, parse_segments
from segments.page import render_operators
from tests.support.segment_features import FEATURES

HEAD = "segment_id: s\nname: S\nrule: "
GOOD = "{feature: frequency, op: at_least, value: 1}"
INJECTIONS = (
    "frequency) OR 1=1 --",
    "`frequency`",
    "frequency; DROP TABLE gold.customer_membership",
    "${jndi:ldap://x}",
    "{{ 7*7 }}",
    "__class__",
    "../../etc/passwd",
    "frequency\u0000",
    "FREQUENCY",
    "frequency ",
    "*",
    "'",
    "\u202efrequency",
    "case when 1=1 then 1 end",
    "customer_id",
    "as_of",
)

CASES: dict[str, str | bytes] = {
    # Size, depth, bombs, objects.
    "10 MB": HEAD + "{any: [" + ", ".join([GOOD] * 220_000) + "]}",
    "10,000 levels of flow": HEAD + "{not: " * 10_000 + GOOD + "}" * 10_000,
    "10,000 brackets": "[" * 10_000,
    "300 levels of not": HEAD + "{not: " * 300 + GOOD + "}" * 300,
    "60,000 nodes": HEAD + "{feature: frequency, op: in, value: [" + "1," * 60_000 + "1]}",
    "billion laughs": "a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nrule: *c",
    "alias of itself": "segment_id: s\nname: S\nrule: &r {not: *r}",
    "anchor": HEAD + "&a " + GOOD,
    "merge key": "segment_id: s\nname: S\n<<: {a: 1}\nrule: " + GOOD,
    "python object": HEAD + "!!python/object/apply:os.system [echo]",
    "python name": HEAD + "!!python/name:os.system",
    "own tag": HEAD + "!x " + GOOD,
    "standard tag": "segment_id: !!str s\nname: S\nrule: " + GOOD,
    "binary": "segment_id: s\nname: !!binary aGk=\nrule: " + GOOD,
    "two documents": HEAD + GOOD + "\n---\n" + HEAD + GOOD,
    "nothing": "",
    "only a comment": "# nothing",
    "a number": "7",
    "a list": "[1, 2]",
    "3,000 namesakes": "segments: [" + ", ".join("{segment_id: s%d, name: S, rule: %s}" % (n, GOOD) for n in range(3_000)) + "]",
    "3,000 references to nothing": "segments: [" + ", ".join("{segment_id: s%d, name: S%d, rule: {in_segment: t%d}}" % (n, n, n) for n in range(3_000)) + "]",
    "not UTF-8": b"segment_id: \xff\xfe",
    "UTF-16": ("segment_id: s\nname: S\nrule: " + GOOD).encode("utf-16"),
    "control characters": "segment_id: s\x07\nname: S\nrule: " + GOOD,
    "tab indents": "segment_id: s\n\tname: S",
    "unclosed": HEAD + "{all: [",
    "a key that is a list": "? [a]\n: b",
    "a key twice": "segment_id: s\nsegment_id: t\nname: S\nrule: " + GOOD,
    "an unknown field": "segment_id: s\nname: S\nsql: DROP TABLE x\nrule: " + GOOD,
    "no rule": "segment_id: s\nname: S",
    "no name": "segment_id: s\nrule: " + GOOD,
    "no id": "name: S\nrule: " + GOOD,
    "segments that are none": "segments: 3",
    "a segment that is a list": "segments: [[1]]",
    "the same id twice": "segments: [{segment_id: s, name: A, rule: %s}, {segment_id: s, name: B, rule: %s}]" % (GOOD, GOOD),
    "the same name twice": "segments: [{segment_id: s, name: A, rule: %s}, {segment_id: t, name: A, rule: %s}]" % (GOOD, GOOD),
    "a circle": "segments: [{segment_id: s, name: A, rule: {in_segment: t}}, {segment_id: t, name: B, rule: {in_segment: s}}]",
    # Fields of a segment.
    **{f"segment_id {i}": f"segment_id: {v!r}\nname: S\nrule: {GOOD}" for i, v in enumerate(["", "S", "1a", "a b", "a/b", "../a", "a;b", "a" * 64, "ä", "a'--"])},
    "an empty name": "segment_id: s\nname: ''\nrule: " + GOOD,
    "a long name": f"segment_id: s\nname: {'x' * 256}\nrule: {GOOD}",
    "a name that paints": 'segment_id: s\nname: "\\e[31mred"\nrule: ' + GOOD,
    "a name of two lines": 'segment_id: s\nname: "two\\nlines"\nrule: ' + GOOD,
    "a name that is a list": "segment_id: s\nname: [S]\nrule: " + GOOD,
    "a negative priority": "segment_id: s\nname: S\npriority: -1\nrule: " + GOOD,
    "a huge priority": "segment_id: s\nname: S\npriority: 99999999999\nrule: " + GOOD,
    "a fractional priority": "segment_id: s\nname: S\npriority: 1.5\nrule: " + GOOD,
    "is_active perhaps": "segment_id: s\nname: S\nis_active: perhaps\nrule: " + GOOD,
    "an unknown mode": "segment_id: s\nname: S\nrefresh_mode: always\nrule: " + GOOD,
    "an unknown entity": "segment_id: s\nname: S\nentity: dog\nrule: " + GOOD,
    "websites that are no list": "segment_id: s\nname: S\nwebsite_ids: a\nrule: " + GOOD,
    "a negative limit": "segment_id: s\nname: S\nmax_change_share: -0.1\nrule: " + GOOD,
    "a guest's list": "segment_id: s\nname: S\nentity: guest\nrule: {in_list: x}",
    "a guest's group": "segment_id: s\nname: S\nentity: guest\ncustomer_group_ids: [a]\nrule: " + GOOD,
    "a guest that waits": "segment_id: s\nname: S\nentity: guest\nrefresh_mode: manual\nrule: {feature: net_amount, op: at_least, value: 1}",
    "a limit of guests": "segment_id: s\nname: S\nentity: guest\nmax_change_share: 0.5\nrule: {feature: net_amount, op: at_least, value: 1}",
    "groups that are no list": "segment_id: s\nname: S\ncustomer_group_ids: a\nrule: " + GOOD,
    "a guest's segment": "segment_id: s\nname: S\nentity: guest\nrule: {in_segment: x}",
    "a guest's events": "segment_id: s\nname: S\nentity: guest\nrule: {event: purchase, op: did}",
    # Rules.
    "a rule of text": HEAD + "frequency >= 1",
    "a rule of nothing": HEAD + "{}",
    "a rule of null": HEAD + "null",
    "an empty all": HEAD + "{all: []}",
    "an any of one mapping": HEAD + "{any: " + GOOD + "}",
    "a not of a list": HEAD + "{not: [" + GOOD + "]}",
    "all beside any": HEAD + "{all: [" + GOOD + "], any: [" + GOOD + "]}",
    "an operator that is SQL": HEAD + "{feature: frequency, op: '>= 1 OR 1=1', value: 1}",
    "an operator that is a list": HEAD + "{feature: frequency, op: [at_least], value: 1}",
    "an unknown operator": HEAD + "{feature: frequency, op: regex, value: '(a+)+'}",
    "no operator": HEAD + "{feature: frequency, value: 1}",
    "no feature": HEAD + "{op: at_least, value: 1}",
    "an event within a filter": HEAD + "{event: purchase, op: did, where: {sequence: [{event: item}, {event: item}]}}",
    "a segment within a filter": HEAD + "{event: purchase, op: did, where: {in_segment: s}}",
    "an event of SQL": HEAD + "{event: 'purchase; DROP TABLE x', op: did}",
    "a field of SQL": HEAD + "{event: purchase, op: at_least, value: 1, sum: 'amount) FROM x --'}",
    "a list of a path": HEAD + "{in_list: ../../secret}",
    "a sequence of a thousand": HEAD + "{sequence: [" + "{event: item}," * 1000 + "{event: item}]}",
    "a window of ages": HEAD + "{event: purchase, op: did, within_last_days: 99999999999999}",
    "a day that is none": HEAD + "{event: purchase, op: did, from: 2017-02-30}",
    "a year that is none": HEAD + "{feature: first_purchase_on, op: before, value: '99999-01-01'}",
    **{f"feature {i}": HEAD + f"{{feature: {json_text}, op: at_least, value: 1}}" for i, json_text in enumerate(repr(v).replace("\\x00", "") + ("x" if "\x00" in v else "") for v in INJECTIONS)},
    # Values.
    "infinity": HEAD + "{feature: frequency, op: at_least, value: .inf}",
    "not a number": HEAD + "{feature: frequency, op: at_least, value: .nan}",
    "1e400": HEAD + "{feature: frequency, op: at_least, value: 1e400}",
    "5,000 digits": HEAD + "{feature: frequency, op: at_least, value: " + "9" * 5_000 + "}",
    "a text of 2,000": HEAD + "{feature: favourite_store_id, op: equals, value: " + "x" * 2_000 + "}",
    "a number for a text": HEAD + "{feature: favourite_store_id, op: equals, value: 1}",
    "a text for a number": HEAD + "{feature: frequency, op: equals, value: '1 OR 1=1'}",
    "a flag for a number": HEAD + "{feature: frequency, op: equals, value: yes}",
    "a mapping for a number": HEAD + "{feature: frequency, op: equals, value: {a: 1}}",
    "a sexagesimal": HEAD + "{feature: favourite_store_id, op: equals, value: 12:30}",
    "an octal text": HEAD + "{feature: favourite_store_id, op: equals, value: 010}",
    **{f"number {v}": HEAD + f"{{feature: frequency, op: equals, value: {v}}}" for v in ("010", "1:30", "1_000", "0x1F", "0b11", "-010", "1:30.5", "1_0.5")},
    "a list of octals": HEAD + "{feature: favourite_store_id, op: in, value: ['007', 010]}",
    "half of a surrogate pair": HEAD + '{feature: favourite_store_id, op: equals, value: "\\uD800"}',
    "half of a pair in JSON": '{"segment_id": "s", "name": "\\ud83d", "rule": {"feature": "frequency", "op": "at_least", "value": 1}}',
    "JSON of 300 levels": '{"a":' * 300 + "1" + "}" * 300,
    "JSON of 60,000 nodes": '{"a":[' + "1," * 60_000 + "1]}",
    "JSON with a key twice": '{"segment_id": "s", "name": "S", "name": "T", "rule": {"feature": "frequency", "op": "at_least", "value": 1}}',
    "a nest of 5,000 conditions": HEAD + ("{all: [" + GOOD + ", ") * 100 + "{all: [" + ", ".join(["{in_segment: s}"] * 5_000) + "]}" + "]}" * 100,
    "thousands of days at thousands of ages": HEAD + "{all: [" + "".join(f"{{feature: first_purchase_on, op: not_equals, value: {1900 + n // 28}-01-{1 + n % 28:02}}}, {{feature: first_purchase_on, op: not_within_last_days, value: {n}}}, " for n in range(1, 800)) + "{in_segment: s}]}",
    "null": HEAD + "{feature: frequency, op: equals, value: null}",
    "null days": HEAD + "{feature: first_purchase_on, op: within_last_days, value: null}",
    "low above high": HEAD + "{feature: frequency, op: between, value: [2, 1]}",
    "a word that is none of its values": HEAD + "{feature: lifecycle_stage, op: equals, value: newish}",
    "a percentage of 200": HEAD + "{feature: frequency, op: top_percent, value: 200}",
}  # fmt: skip


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_definition_is_refused_at_its_place(name: str) -> None:
    began = time.process_time()
    with pytest.raises(DefinitionError) as raised:
        parse_segments(CASES[name], FEATURES, "x.yml")

    assert time.process_time() - began < 10
    assert raised.value.problems
    assert len(raised.value.problems) <= 3_000
    for problem in raised.value.problems:
        assert problem.at.file == "x.yml"
        assert problem.at.line >= 1
        assert problem.at.column >= 1
        assert len(str(problem)) < 2_000
        assert str(problem).isprintable()


def test_a_hostile_folder_is_refused_with_every_file_named(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "vip.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "lists" / "Bad Name.csv").write_text("customer_id\n1\n")
    (tmp_path / "lists" / "folder.csv").mkdir()
    (tmp_path / "a.yml").write_bytes(b"x" * 300_000)
    (tmp_path / "b.yaml").write_text("[" * 5_000)
    (tmp_path / "c.yml").mkdir()
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES)
    assert {p.at.file for p in raised.value.problems} == {"lists/vip.csv", "lists/Bad Name.csv", "lists/folder.csv", "a.yml", "b.yaml", "c.yml"}  # fmt: skip


def test_text_that_looks_like_code_is_only_text() -> None:
    for text in ("' OR '1'='1", "a%b_c", "\\", "${x}", "{{x}}", "--", "`"):
        quoted = "'" + text.replace("'", "''") + "'"
        (segment,) = parse_segments(f"{HEAD}{{feature: favourite_store_id, op: equals, value: {quoted}}}", FEATURES)
        assert segment.rule.value == text  # type: ignore[union-attr]


def test_fifty_levels_and_three_hundred_conditions_are_read_quickly() -> None:
    wide = ", ".join(f"{{feature: frequency, op: not_equals, value: {n}}}" for n in range(300))
    deep = "{all: [{feature: weekend_share, op: at_least, value: 0.5}, {not: " * 50 + GOOD + "}]}" * 50
    began = time.process_time()
    assert parse_segments(f"{HEAD}{{all: [{wide}]}}", FEATURES)
    assert parse_segments(HEAD + deep, FEATURES)
    assert time.process_time() - began < 10


def test_the_page_of_the_language_tells_every_operator_event_and_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "segment-language.md").read_text(encoding="utf-8")
    assert f"\n\n{render_operators()}\n" in page, "run: make docs"
    names = [*EVENTS, *(f for e in EVENTS.values() for f in e.fields)]
    assert [name for name in names if f"`{name}`" not in page] == []
