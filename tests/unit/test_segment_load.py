from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lakehouse.errors import SettingsError
from segments.conditions import FIRST_DAY
from segments.language import All, AnyOf, Condition, Not, Rule, Segment, all_of, conditions_of, event, feature
from segments.load import MAX_BYTES, DefinitionError, load_segments, parse_rule, parse_segments
from segments.operators import OPERATORS
from tests.support.segment_features import FEATURES

CHAMPIONS = """\
segment_id: champions
name: Champions
description: They buy often, lately and a lot.
priority: 10
website_ids: [completejourney]
rule:
  all:
    - {feature: recency_days, op: at_most, value: 30}
    - any:
        - {feature: monetary_net, op: at_least, value: 100.50}
        - {feature: frequency, op: at_least, value: 10}
    - not: {feature: lifecycle_stage, op: in, value: [new, lost]}
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        parse_segments(text, FEATURES, "x.yml")
    return [str(p) for p in raised.value.problems]


def with_condition(condition: str) -> str:
    return f"segment_id: s\nname: S\nrule: {condition}\n"


def test_yaml_becomes_the_rule_it_says() -> None:
    (champions,) = parse_segments(CHAMPIONS, FEATURES)

    assert champions.rule == All(
        (
            Condition("recency_days", "at_most", 30),
            AnyOf((Condition("monetary_net", "at_least", 100.5), Condition("frequency", "at_least", 10))),
            Not(Condition("lifecycle_stage", "in", ("new", "lost"))),
        )
    )
    assert (champions.priority, champions.website_ids, champions.is_active) == (10, ("completejourney",), True)
    assert champions.refresh_mode == "auto"


def test_a_condition_knows_where_it_was_written() -> None:
    (champions,) = parse_segments(CHAMPIONS, FEATURES, "champions.yml")

    assert [str(c.at) for c in conditions_of(champions.rule)][:2] == [
        "champions.yml, line 8, column 7",
        "champions.yml, line 10, column 11",
    ]


def test_python_and_yaml_say_the_same() -> None:
    rule = all_of(
        feature("recency_days").at_most(30),
        feature("monetary_net").at_least(100.5) | feature("frequency").at_least(10),
        ~feature("lifecycle_stage").is_in(["new", "lost"]),
    )

    assert parse_segments(CHAMPIONS, FEATURES)[0].rule == rule


def test_yaml_and_json_give_the_segment_back() -> None:
    rule = all_of(
        feature("first_purchase_on").at_least(date(2017, 1, 1)),
        feature("last_seen_at").less_than(datetime(2017, 6, 1, 18, tzinfo=UTC)),
        feature("categories").contains("WINE"),
        ~feature("is_private").equals(False),
        feature("favourite_store_id").is_empty(),
        feature("weekend_share").between(0.25, 1),
        feature("last_seen_at").within_last_days(7),
    )
    segment = Segment(
        "wine",
        "Wine ☕",
        rule,
        description="For: everyone",
        is_active=False,
        website_ids=("a", "b"),
        customer_group_ids=("2 Adults Kids", "x"),
        priority=3,
        refresh_mode="manual",
        max_change_share=0.5,
    )

    assert parse_segments(yaml.safe_dump(segment.to_dict(), allow_unicode=True), FEATURES) == (segment,)
    assert parse_rule(segment.conditions_json, FEATURES) == rule
    assert parse_segments(json.dumps(segment.to_dict(), default=str), FEATURES) == (segment,)


@pytest.mark.parametrize("text", ["12e3", "1.5e3", "1e-9", "12", "yes", "2017-01-01"])
def test_text_that_reads_as_something_else_comes_back_from_yaml(text: str) -> None:
    rule = feature("favourite_store_id").is_in([text]) & feature("categories").contains(text)
    segment = Segment("s", text, rule, description=text, website_ids=(text,))

    assert parse_segments(yaml.safe_dump(segment.to_dict()), FEATURES) == (segment,)
    (number,) = parse_segments(with_condition("{feature: monetary_net, op: at_least, value: 12e3}"), FEATURES)
    assert number.rule == feature("monetary_net").at_least(12_000)


@pytest.mark.parametrize(("word", "meant"), [("and", "all"), ("or", "any")])
def test_words_of_other_languages_are_told_what_they_are_here(word: str, meant: str) -> None:
    (said,) = problems(with_condition(f"{{{word}: [{{feature: frequency, op: at_least, value: 1}}]}}"))
    assert f"'{word}' is not a rule. Did you mean '{meant}'?" in said


def test_a_definition_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "team" / "a").mkdir(parents=True)
    (tmp_path / "team" / "a" / "vip.YML").write_text("segment_id: vip\n")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "vip-checkpoint.yml").write_text("segment_id: vip\n")
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES)
    (problem,) = raised.value.problems
    assert str(problem).startswith("team/a/vip.YML, line 1, column 1: lies in a folder, where no definition is read")


def test_the_version_follows_the_rule_and_not_the_name() -> None:
    segment = Segment("s", "S", feature("recency_days").at_most(30))

    assert replace(segment, name="T", description="new", priority=1).version == segment.version
    assert replace(segment, rule=feature("recency_days").at_most(31)).version != segment.version
    assert replace(segment, website_ids=("a",)).version != segment.version
    assert replace(segment, customer_group_ids=("x",)).version != segment.version
    assert segment.version == "08a51e1733ec"  # a change of this value re-versions every membership


def test_all_problems_of_a_file_come_at_once_with_their_places() -> None:
    found = problems("""\
segment_id: vip_paris
name: VIP
prioritty: 3
rule:
  all:
    - {feature: recency_day, op: at_most, value: 30}
    - {feature: frequency, op: atleast, value: 3}
    - {feature: frequency, op: at_least, value: lots}
""")

    places = [p.partition(": ")[0] for p in found]
    said = [p.partition(": ")[2] for p in found]
    assert places == [f"x.yml, line {line}, column {column}" for line, column in [(3, 1), (6, 17), (7, 32), (8, 49)]]
    assert all(p.startswith('segment "vip_paris": ') for p in said)
    assert said[0].endswith("Did you mean 'priority'?")
    assert said[1].endswith("'recency_day' is not a feature. Did you mean 'recency_days'?")
    assert said[2].endswith(f"operators are {', '.join(OPERATORS)}. Did you mean 'at_least'?")
    assert said[3].endswith(
        "'frequency' is compared with a number of at most 1,000,000,000,000,000, not the text 'lots'"
    )


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("{feature: frequency, op: at_least}", "'at_least' needs a value"),
        ("{feature: frequency, op: at_least, value: true}", "not bool True"),
        ("{feature: frequency, op: at_least, value: .inf}", "not float inf"),
        ("{feature: frequency, op: at_least, value: .nan}", "not float nan"),
        ("{feature: frequency, op: at_least, value: 1" + "0" * 400 + "}", "not int 1"),
        ("{feature: frequency, op: at_least, value: [1]}", "a single value is needed here"),
        ("{feature: frequency, op: equals, value: null}", "not nothing"),
        ("{feature: frequency, op: in, value: 3}", "needs a list of values"),
        ("{feature: frequency, op: in, value: []}", "needs at least one value"),
        ("{feature: frequency, op: in, value: [1, null]}", "not nothing"),
        ("{feature: frequency, op: between, value: [1, 2, 3]}", "needs two values, [low, high]"),
        ("{feature: frequency, op: between, value: [9, 2]}", "no customer can match"),
        ("{feature: frequency, op: contains, value: '1'}", "does not apply to 'frequency', a number"),
        ("{feature: frequency, op: is_empty, value: 1}", "'is_empty' takes no value"),
        ("{feature: is_private, op: equals, value: 'yes'}", "compared with true or false"),
        ("{feature: lifecycle_stage, op: equals, value: lapsed}", "never 'lapsed'"),
        ("{feature: lifecycle_stage, op: equals, value: 3}", "put quotes around it"),
        ("{feature: first_purchase_on, op: at_least, value: 2017-02-30}", "cannot be read as a value"),
        ("{feature: first_purchase_on, op: at_least, value: soon}", "a date such as 2017-12-31"),
        ("{feature: last_seen_at, op: after, value: 9999-12-31T23:59:59-14:00}", "a date or UTC time such as"),
        ("{feature: last_seen_at, op: before, value: '0001-01-01T00:00:00+14:00'}", "a date or UTC time such as"),
        ("{feature: first_purchase_on, op: within_last_days, value: -1}", "a whole number from 0 to 36,500"),
        ("{feature: first_purchase_on, op: within_last_days, value: 1.5}", "a whole number from 0 to 36,500"),
        ("{op: at_least, value: 3}", "needs 'feature'"),
        ("{feature: [frequency], op: at_least, value: 3}", "a single value is needed here"),
        ("{all: []}", "'all' needs a list of at least one rule"),
        ("{any: {}}", "'any' needs a list of at least one rule"),
        ("{not: []}", "a rule is one of"),
        ("{all: [], any: []}", "'any' is not a field of 'all'"),
        ("{xor: []}", "'xor' is not a field of a condition"),
        ("yes", "a rule is one of"),
        ("{? [a] : b}", "a list or mapping"),
        ("{feature: frequency, op: at_least, value: 3, feature: frequency}", "'feature' is given twice"),
        ("{feature: frequency, op: at_least, value: 1; DROP TABLE x}", "not the text '1; DROP TABLE x'"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_reason(condition: str, said: str) -> None:
    found = problems(with_condition(condition))

    assert said in " ".join(found)
    assert all(p.startswith("x.yml, line 3, column ") for p in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold exactly one YAML document"),
        ("- a", "a segment must be a mapping"),
        ("a: [", "is not valid YAML"),
        ("\tx: 1", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "must hold exactly one YAML document"),
        (b"name: \xff", "is not UTF-8 text"),
        ("\x00", "is not valid YAML"),
        ("a: &a [x]\nb: *a", "alias or anchor"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "alias or anchor"),
        ("a: !!python/object/apply:os.system ['id']", "YAML tag"),
        ("[" * 10_000, "nested deeper than 256 levels"),
        ("a: " * 300, "is not valid YAML"),
        ("[" + "1," * 60_000 + "]", "of more than 50,000 nodes"),
        ("#" * (MAX_BYTES + 1), "a definition file may have 262,144"),
        ("segments: 3", "must be a list of segments"),
        ("segment_id: '../../etc'\nname: x\nrule: {not: {}}", "must be lower-case letters"),
        ("segment_id: s\nname: ''\nrule: {not: {}}", "text of 1 to 255 characters"),
        ("segment_id: s\nname: ' '\nrule: {not: {}}", "text of 1 to 255 characters"),
        ("name: x", "'segment_id' is missing"),
        ("segment_id: s\nname: S\nrefresh_mode: autto\nrule: {not: {}}", "Did you mean 'auto'?"),
        ("segment_id: s\nname: S\nis_active: maybe\nrule: {not: {}}", "true or false is needed"),
        ("segment_id: s\nname: S\nwebsite_ids: a\nrule: {not: {}}", "a list is needed"),
        ("segment_id: s\nname: S\npriority: -1\nrule: {not: {}}", "a whole number from 0"),
    ],
)
def test_hostile_and_broken_files_are_refused(text: str | bytes, said: str) -> None:
    assert said in " ".join(problems(text))


@pytest.mark.parametrize(
    "condition",
    [
        "{feature: first_purchase_on, op: at_least, value: 0217-01-01}",
        "{feature: first_purchase_on, op: after, value: '1899-12-31'}",
        "{feature: first_purchase_on, op: between, value: [1899-12-31, 2018-01-01]}",
        "{feature: first_purchase_on, op: in, value: [2017-01-01, 0217-01-01]}",
        "{feature: last_seen_at, op: after, value: 0217-01-01}",
        "{feature: last_seen_at, op: before, value: 1900-01-01T00:00:00+01:00}",
        "{event: purchase, op: did, from: 0217-01-01}",
        "{event: purchase, op: did, to: 0217-01-01}",
    ],
)
def test_a_day_before_the_first_is_refused_in_a_file_and_a_row(condition: str) -> None:
    (found,) = problems(with_condition(condition))
    assert found.startswith("x.yml, line 3, column ")
    assert "none before 1900-01-01" in found
    as_row = json.dumps(yaml.safe_load(condition), default=lambda day: day.isoformat())
    with pytest.raises(DefinitionError, match="none before 1900-01-01"):
        parse_rule(as_row, FEATURES)


def test_the_first_day_is_a_value() -> None:
    for first in (
        "{feature: first_purchase_on, op: after, value: 1900-01-01}",
        "{feature: last_seen_at, op: after, value: 1900-01-01T00:00:00Z}",
        "{event: purchase, op: did, from: 1900-01-01}",
    ):
        assert parse_segments(with_condition(first), FEATURES)


def test_a_character_yaml_refuses_is_told_with_its_place() -> None:
    assert problems("segment_id: s\r\nname: a\x07b") == [
        "x.yml, line 2, column 8: is not valid YAML: it may not hold the character '\\x07'"
    ]


def test_a_segment_id_that_is_no_text_is_told_once() -> None:
    found = problems("segment_id: 12\nname: S\nrule: {feature: frequency, op: at_least, value: 1}")

    assert found == ["x.yml, line 1, column 13: text of 0 to 1000 characters is needed here, not int 12"]


@pytest.mark.parametrize("value", ["'; DROP TABLE gold.customer_segment; --", "`x` OR 1=1", "${jndi:ldap://x}", "\\'"])
def test_hostile_values_are_values(value: str) -> None:
    text = with_condition(f"{{feature: favourite_store_id, op: equals, value: {json.dumps(value)}}}")

    assert parse_segments(text, FEATURES)[0].rule == Condition("favourite_store_id", "equals", value)


def stores(value: str) -> str:
    return f'{{"feature":"favourite_store_id","op":"equals","value":{value}}}'


def test_json_escapes_are_the_characters_they_stand_for() -> None:
    assert parse_rule(stores('"\\ud83d\\ude00"'), FEATURES) == feature("favourite_store_id").equals("😀")
    assert parse_segments(with_condition(stores('"\\ud83d\\ude00"')), FEATURES)[0].rule == parse_rule(
        stores('"😀"'), FEATURES
    )


def test_half_a_surrogate_pair_is_refused_at_its_place() -> None:
    text = '{"feature": "favourite_store_id", "op": "equals",\n "value": "a\\uD800"}'
    with pytest.raises(DefinitionError, match=r"row, line 2, column 11: 'a\\ud800' has half of a surrogate pair"):
        parse_rule(text, FEATURES, "row")


@pytest.mark.parametrize("char", ["\x00", "\x7f", "\x80", "\x85", "\xa0", "\u2028", "\u2029", "\ufeff", "\uffff", "😀"])
def test_every_character_comes_back_from_a_row_and_a_file(char: str) -> None:
    segment = Segment("s", "S", feature("favourite_store_id").equals(f"{char} a {char}{char}"))

    assert parse_rule(segment.conditions_json, FEATURES) == segment.rule
    assert parse_rule(json.dumps(segment.rule.to_dict()), FEATURES) == segment.rule
    assert parse_segments(json.dumps(segment.to_dict(), ensure_ascii=False), FEATURES)[0].version == segment.version
    assert parse_segments(yaml.safe_dump(segment.to_dict()), FEATURES)[0].version == segment.version


def test_a_rule_that_a_file_holds_comes_back_from_its_row() -> None:
    rule = feature("favourite_store_id").is_in([f"{n:05}" for n in range(36_000)])
    segment = Segment("s", "S", rule)

    assert len(segment.conditions_json) > MAX_BYTES
    assert parse_rule(segment.conditions_json, FEATURES) == rule
    with pytest.raises(DefinitionError, match="a definition file may have 2,097,152"):
        parse_rule(" " * 8 * MAX_BYTES + segment.conditions_json, FEATURES)


def test_values_in_python_are_those_read_back() -> None:
    rule = all_of(
        feature("monetary_net").at_least(Decimal("9.99")),
        feature("favourite_store_id").not_in(["\ud83d\ude00", "b"]),
        feature("last_seen_at").after(datetime(2017, 6, 1, 18)),
        feature("last_seen_at").before(datetime(2018, 6, 1, 18, tzinfo=timezone(timedelta(hours=2)))),
        event("purchase").sum("amount").between(Decimal("0.5"), Decimal(7)),
    )
    segment = Segment("s", "S", rule)
    read = Segment("s", "S", parse_rule(segment.conditions_json, FEATURES))

    assert (read, read.version) == (segment, segment.version)
    with pytest.raises(UnicodeError):
        feature("favourite_store_id").equals("\ud83d")
    with pytest.raises(SettingsError, match=r"9999-12-31T23:59:59-14:00 is beyond the ends of the calendar in UTC"):
        feature("last_seen_at").after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=14))))


@pytest.mark.parametrize(("written", "number"), [("010", "8"), ("1:30", "90"), ("1_000", "1000"), ("0x1F", "31")])
def test_numbers_only_yaml_reads_so_are_refused(written: str, number: str) -> None:
    (found,) = problems(with_condition(f"{{feature: frequency, op: equals, value: {written}}}"))

    assert found == (
        f"x.yml, line 3, column 47: segment \"s\": '{written}' would be the number {number} in YAML; "
        f'write {number} or "{written}"'
    )


def test_guests_have_features_of_their_own() -> None:
    text = "segment_id: g\nname: G\nentity: guest\nrule: {feature: net_amount, op: at_least, value: 200}\n"
    (guests,) = parse_segments(text, FEATURES)

    assert guests.entity == "guest"
    assert parse_segments(json.dumps(guests.to_dict()), FEATURES) == (guests,)
    assert "'recency_days' is not a feature" in problems(text.replace("net_amount", "recency_days"))[0]
    assert "'net_amount' is not a feature" in problems(text.replace("guest", "customer"))[0]


def test_a_definition_by_itself_may_not_take_the_name_of_another() -> None:
    text = "segment_id: {}\nname: Same\nrule: {{feature: frequency, op: at_least, value: 2}}\n"
    known = parse_segments(text.format("known"), FEATURES)
    assert parse_segments(text.format("known"), FEATURES, others=known) == known
    with pytest.raises(DefinitionError, match="has the name 'Same' of segment \"known\""):
        parse_segments(text.format("new"), FEATURES, others=known)


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        ("is_active: false\nrule: {feature: frequency, op: at_least, value: 2}", "'base' is not active"),
        ("entity: guest\nrule: {feature: net_amount, op: at_least, value: 2}", "'base' is a segment of guests"),
        ("rule: {in_segment: asks}", "asks for itself, by way of asks -> base -> asks"),
    ],
)
def test_a_definition_by_itself_answers_those_that_ask_for_it(edited: str, said: str) -> None:
    base = "segment_id: base\nname: Base\n"
    asks = "{segment_id: asks, name: Asks, rule: {in_segment: base}}"
    rule = "{feature: frequency, op: at_least, value: 2}"
    both = f"segments:\n- {{segment_id: base, name: Base, rule: {rule}}}\n- {asks}\n"
    known = parse_segments(both, FEATURES, "conf.yml")

    assert parse_segments(f"{base}rule: {rule}", FEATURES, others=known)
    with pytest.raises(DefinitionError) as raised:
        parse_segments(base + edited, FEATURES, others=known)
    (found,) = raised.value.problems
    assert str(found).startswith('conf.yml, line 3, column 40: segment "asks": ')
    assert said in found.message


def test_names_are_unique_per_website_and_ids_everywhere(tmp_path: Path) -> None:
    rule = "rule: {feature: frequency, op: at_least, value: 1}"
    (tmp_path / "a.yml").write_text(f"segment_id: one\nname: Same\nwebsite_ids: [a]\n{rule}\n")
    (tmp_path / "b.yml").write_text(f"segments:\n- {{segment_id: two, name: Same, website_ids: [b], {rule}}}\n")
    assert [s.segment_id for s in load_segments(tmp_path, FEATURES)] == ["one", "two"]

    (tmp_path / "c.yml").write_text(f"segment_id: one\nname: Same\n{rule}\n")
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES)
    assert [str(p) for p in raised.value.problems] == [
        'c.yml, line 1, column 1: segment "one": is defined twice, first at a.yml, line 1, column 1',
        'c.yml, line 1, column 1: segment "one": has the name \'Same\' of segment "two"; names are unique per website',
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Caf\u00e9", "Cafe\u0301"),
        ("Gold", "Gold "),
        ("Gold", "gold"),
        ("Gold Club", "Gold\u00a0 Club"),
        ("Gold", "\uff27old"),
        ("Gold", "Go\u200dld"),
    ],
)
def test_names_that_look_equal_are_one(one: str, other: str) -> None:
    text = "{{segment_id: {}, name: {}, rule: {{feature: frequency, op: at_least, value: 2}}}}"
    known = parse_segments(text.format("one", json.dumps(one)), FEATURES)
    with pytest.raises(DefinitionError, match='of segment "one"; names are unique per website'):
        parse_segments(text.format("two", json.dumps(other)), FEATURES, others=known)


@pytest.mark.parametrize("name", ["\u200b", "\u200d", "\u2800", "\u3164 ", "Go\u202eld", "Go\u200bld", "\ufeffGold"])
def test_a_name_is_seen_as_it_is(name: str) -> None:
    text = json.dumps({"segment_id": "s", "name": name, "rule": {"feature": "frequency", "op": "at_least", "value": 2}})
    (found,) = problems(text)
    assert "text of 1 to 255 characters" in found or "control or invisible character" in found


@pytest.mark.parametrize(
    "name", ["\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "Family 👨\u200d👩\u200d👧", "☕"]
)
def test_joiners_within_a_name_are_part_of_it(name: str) -> None:
    assert (
        parse_segments(
            json.dumps(
                {"segment_id": "s", "name": name, "rule": {"feature": "frequency", "op": "at_least", "value": 2}}
            ),
            FEATURES,
        )[0].name
        == name
    )


def test_a_misspelt_website_is_refused_and_one_that_is_not_here_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(CHAMPIONS.replace("[completejourney]", "[elsewhere, complete_journy]"))
    assert load_segments(tmp_path, FEATURES)
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES, websites=["complete_journey", "online_retail_ii"])
    (found,) = raised.value.problems
    assert str(found.at) == "a.yml, line 5, column 26"
    assert found.message == "'complete_journy' is not a retailer of conf/sources. Did you mean 'complete_journey'?"
    (tmp_path / "a.yml").write_text(CHAMPIONS.replace("completejourney", "complete_journey"))
    assert load_segments(tmp_path, FEATURES, websites=["complete_journey"])


@pytest.mark.parametrize("written", ["CORNER_SHOP", "Corner Shop", "corner-shop", " corner_shop", "CornerShop"])
def test_a_website_in_capitals_or_with_blanks_is_misspelt(written: str) -> None:
    text = CHAMPIONS.replace("[completejourney]", f"['{written}']")
    with pytest.raises(DefinitionError, match="Did you mean 'corner_shop'"):
        parse_segments(text, FEATURES, websites=["corner_shop", "Other Shop"])
    assert parse_segments(CHAMPIONS.replace("completejourney", "Other Shop"), FEATURES, websites=["Other Shop"])


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "vip.CSV").write_text("customer_id\n1\n")
    (tmp_path / "A.YML").write_text("segment_id: a\nname: A\nrule: {in_list: vip}\n")
    (tmp_path / "b.Yaml").write_text("segment_id: b\nname: B\nrule: {not_in_list: vip}\n")
    (tmp_path / "notes.txt").write_text("no segment")
    assert [s.segment_id for s in load_segments(tmp_path, FEATURES)] == ["a", "b"]


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for name in ("vip.CSV", "vip.csv"):
        (tmp_path / "lists" / name).write_text("customer_id\n1\n")
    if len(list((tmp_path / "lists").iterdir())) < 2:
        pytest.skip("this file system takes both for one file")
    with pytest.raises(DefinitionError, match=r"lists/vip.csv, line 1, column 1: there is a list of this name already"):
        load_segments(tmp_path, FEATURES)


def test_a_list_with_another_delimiter_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "vip.csv").write_text("customer_id;note\n1;first\n")
    with pytest.raises(DefinitionError, match=r"lists/vip.csv, .* its columns are parted by ';'; .* ','"):
        load_segments(tmp_path, FEATURES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('customer_id\n1\n2\n"3"x\n4\n', "lists/vip.csv, line 4, column 1: is not a CSV file: "),
        ('customer_id\n1\n2\n"3\n4\n', "lists/vip.csv, line 4, column 1: is not a CSV file: "),
        ("\ufeffcustomer_id\n1\n2\nJosé\n", "lists/vip.csv, line 4, column 1: is not UTF-8 text"),
        ("CUSTOMER_ID\n1\n", "line 1, column 1: has no column 'customer_id'. Did you mean 'CUSTOMER_ID'?"),
    ],
)  # fmt: skip
def test_a_list_says_where_it_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "lists").mkdir()
    encoded = content.encode().replace("é".encode(), "é".encode("latin-1"))
    (tmp_path / "lists" / "vip.csv").write_bytes(encoded)
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES)
    assert said in str(raised.value)


def test_an_absent_folder_has_no_segments(tmp_path: Path) -> None:
    assert load_segments(tmp_path / "none", FEATURES) == ()


def test_fifty_levels_and_three_hundred_conditions_load() -> None:
    deep: Rule = feature("frequency").at_least(1)
    for _ in range(50):
        deep = ~(deep & feature("recency_days").at_most(9))
    wide = all_of(*[feature("frequency").not_equals(n) for n in range(300)])
    segment = Segment("s", "S", all_of(deep, wide))

    assert parse_segments(json.dumps(segment.to_dict()), FEATURES) == (segment,)


_CONDITIONS = st.one_of(
    st.builds(lambda v: feature("recency_days").at_most(v), st.integers(-(10**9), 10**9)),
    st.builds(lambda v: feature("weekend_share").greater_than(v), st.floats(-1e6, 1e6, allow_nan=False)),
    st.builds(
        lambda v: feature("favourite_store_id").is_in(v),
        st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=3),
    ),
    st.builds(lambda v: feature("first_purchase_on").less_than(v), st.dates(min_value=FIRST_DAY)),
    st.just(feature("categories").is_not_empty()),
)
RULES = st.recursive(
    _CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda r: All(tuple(r))),
        st.lists(inner, min_size=1, max_size=3).map(lambda r: AnyOf(tuple(r))),
        inner.map(Not),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(RULES)
def test_any_rule_survives_json_and_yaml(rule: Rule) -> None:
    segment = Segment("s", "S", rule)
    try:
        read = parse_rule(segment.conditions_json, FEATURES)
    except DefinitionError as error:
        assume(not any("is impossible" in p.message or "is always true" in p.message for p in error.problems))
        raise

    assert read == rule
    assert parse_segments(yaml.safe_dump(segment.to_dict()), FEATURES)[0] == segment


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def spoilt_definitions(draw: st.DrawFn) -> str:
    """A definition with one to three of its parts left out, said under another name or replaced by any value."""
    said = yaml.safe_load(yaml.safe_dump(Segment("s", "S", draw(RULES)).to_dict()))
    for _ in range(draw(st.integers(1, 3))):
        at, inner = said, said
        while isinstance(inner, dict | list) and inner and (at is inner or draw(st.integers(0, 3))):
            at, key = inner, draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = at[key]
        part = at.pop(key)
        if isinstance(at, list):
            at.insert(key, draw(_VALUES))
        else:
            at |= draw(st.sampled_from([{}, {key: draw(_VALUES)}, {f"{key}s": part}]))
    return yaml.safe_dump(said)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=200), spoilt_definitions()))
def test_any_text_is_a_segment_or_a_located_error(text: str) -> None:
    try:
        parse_segments(text, FEATURES, "x.yml")
    except DefinitionError as error:
        # Either outcome is right, a crash is not.
        assert error.problems  # noqa: PT017
        assert all(p.at.file == "x.yml" and min(p.at.line, p.at.column) >= 1 for p in error.problems)  # noqa: PT017


def test_rules_joined_with_words_of_python_are_refused() -> None:
    lapsed, big = feature("recency_days").greater_than(90), feature("monetary_net").at_least(500)

    for wrong in (
        lambda: lapsed and big,
        lambda: lapsed or big,
        lambda: not lapsed,
        lambda: 1 < 2 and not (lapsed | big),
    ):
        with pytest.raises(TypeError, match=r"join rules with &, \| and ~"):
            wrong()
    assert Segment("s", "S", lapsed & big, customer_group_ids=("a",)).conditions[:2] == (lapsed, big)


def test_a_number_of_numpy_is_the_number_it_holds() -> None:
    rule = feature("monetary_net").at_least(np.float64(3.5)) & feature("frequency").is_in(np.array([1, 2]))
    made = Segment("s", "S", rule)

    assert parse_segments(yaml.safe_dump(made.to_dict()), FEATURES) == (made,)
    assert parse_rule(made.conditions_json, FEATURES) == rule
