"""Segments made in Python: held against what a file may say before anything is asked of data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import segments as work
from lakehouse.errors import SettingsError
from lakehouse.settings import Settings
from segments.language import Rule, Segment, all_of, event, feature, in_list, in_segment, sequence
from segments.load import DefinitionError, as_read, parse_segments
from tests.support.segment_features import FEATURES

OFTEN = feature("frequency").at_least(5)
WRONG: list[tuple[Rule, str]] = [
    (all_of(), "'all' needs a list of at least one rule"),
    (feature("frequencey").at_least(1), "Did you mean 'frequency'?"),
    (feature("frequency").at_least("abc"), "not the text 'abc'"),
    (feature("frequency").at_least(float("nan")), "not float nan"),
    (feature("frequency").at_least([1]), "a single value is needed"),  # type: ignore[arg-type]
    (feature("frequency").between(5, 1), "above the high one"),
    (feature("frequency").is_in([]), "needs at least one value"),
    (feature("frequency").top_percent(150), "a number from 0.001 to 99.999"),
    (feature("first_purchase_on").after(date(217, 1, 1)), "none before 1900-01-01"),
    (event("purchase").within_last_days(-3).did(), "a whole number from 1"),
    (event("purchase").within_last_days(9).regular(every_days=0), "a whole number from 1"),
    (event("purchase").from_to(date(2018, 1, 1), date(2017, 1, 1)).did(), "must be later than 'from'"),
    (sequence(event("purchase")), "2 to 10 events"),
    (in_segment("trial"), "asks for itself"),
    (in_segment("oftn"), "Did you mean 'often'?"),
]


@pytest.mark.parametrize(("rule", "said"), WRONG)
def test_a_wrong_segment_is_refused_by_its_name_and_without_a_place(rule: Rule, said: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        as_read(Segment("trial", "Trial", rule), FEATURES, others=[Segment("often", "Often", OFTEN)])
    told = [str(p) for p in raised.value.problems]
    assert all(t.startswith('segment "trial": ') for t in told)
    assert said in " ".join(told)


UNFINISHED: list[tuple[Callable[[], Any], str]] = [
    (lambda: feature("favourite_store_id").is_in("367"), "'in' needs a list of values"),
    (lambda: feature("favourite_store_id").not_in("367"), "'not_in' needs a list of values"),
    (lambda: Segment("s", "S", OFTEN, website_ids="shop"), "'website_ids' needs a list of values"),  # type: ignore[arg-type]
    (lambda: Segment("s", "S", OFTEN, customer_group_ids="x"), "'customer_group_ids' needs a list"),  # type: ignore[arg-type]
    (lambda: in_list("vip", "367"), "'in_list' needs a list of values"),
    (lambda: in_list("vip", [1, 2]), "list 'vip': customer numbers are text, not int"),  # type: ignore[list-item]
    (lambda: in_list("vip", map(str, range(20_001))), "20,001 customers; a list may have 20,000"),  # type: ignore[arg-type]
    (lambda: Segment("s", "S", event("purchase")), "a rule is needed here, not event"),  # type: ignore[arg-type]
    (lambda: OFTEN & feature("frequency"), "a rule is needed here, not feature"),  # type: ignore[operator]
    (lambda: all_of(OFTEN, event("purchase")), "a rule is needed here, not event"),  # type: ignore[arg-type]
    (lambda: event("item").where(feature("category")).did(), "a rule is needed here, not feature"),  # type: ignore[arg-type]
    (lambda: sequence(event("purchase").did(), event("return")), "sequence(...) takes events"),  # type: ignore[arg-type]
    (lambda: event("purchase").from_to(date(2017, 1, 1), None).within_last_days(3), "has a window already"),
    (lambda: event("item").sum("amount").distinct("category"), "'distinct' does not fit beside 'sum'"),
]


@pytest.mark.parametrize(("build", "said"), UNFINISHED)
def test_what_could_only_be_misread_is_refused_where_it_is_written(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        build()
    assert said in str(raised.value)


def test_a_rule_nested_too_deeply_is_refused_by_its_name() -> None:
    rule: Rule = OFTEN
    for _ in range(2_000):
        rule = ~rule
    with pytest.raises(DefinitionError, match='segment "trial": is nested deeper than 256 levels'):
        as_read(Segment("trial", "Trial", rule), FEATURES)


def test_a_sequence_lies_in_the_days_of_a_calendar() -> None:
    rule = sequence(event("purchase"), event("return"), start=date(2017, 1, 1), end=date(2017, 2, 1))
    assert as_read(Segment("trial", "Trial", rule), FEATURES).rule == rule
    assert rule.to_dict()["to"] == date(2017, 2, 1)


def test_a_right_segment_comes_back_as_a_file_gives_it() -> None:
    rule = all_of(
        feature("first_purchase_on").after("2017-01-01"),
        feature("last_seen_at").after(date(2017, 1, 1)),
        in_list("vip", ["1", "2"]),
        in_segment("often"),
    )
    read = as_read(Segment("trial", "Trial", rule), FEATURES, others=[Segment("often", "Often", OFTEN)])

    assert read.rule == all_of(
        feature("first_purchase_on").after(date(2017, 1, 1)),
        feature("last_seen_at").after(datetime(2017, 1, 1, tzinfo=UTC)),
        *rule.rules[2:],
    )


def test_what_a_file_holds_is_not_too_long_in_python() -> None:
    stores = ", ".join(f"é{n:05}" for n in range(25_000))
    rule = f"{{feature: favourite_store_id, op: in, value: [{stores}]}}"
    (segment,) = parse_segments(f"segment_id: s\nname: S\nrule: {rule}", FEATURES)
    assert as_read(segment, FEATURES) == segment


@pytest.mark.parametrize(
    "ask",
    [
        lambda job, segment: work.preview(job, segment),
        lambda job, segment: work.sample(job, segment, 5),
        lambda job, segment: work.diff(job, segment, work.Published("trial", "v", ())),
        lambda job, segment: work.explain_customer(job, "1", segment),
    ],
)
def test_every_question_refuses_a_wrong_segment(ask: Callable[[Any, Segment], Any], tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    folder.mkdir()
    (folder / "often.yml").write_text(
        "{segment_id: often, name: Often, rule: {feature: frequency, op: at_least, value: 5}}"
    )
    lake = SimpleNamespace(exists=lambda _: False)
    job = SimpleNamespace(settings=Settings(data_dir=tmp_path, conf_dir=tmp_path), websites=["corner_shop"], lake=lake)
    with pytest.raises(DefinitionError, match="not the text 'abc'"):
        ask(job, Segment("trial", "Trial", feature("frequency").at_least("abc")))
    with pytest.raises(DefinitionError, match="has the name 'Often'"):
        ask(job, Segment("trial", "Often", OFTEN))
    with pytest.raises(DefinitionError, match="Did you mean 'corner_shop'"):
        ask(job, Segment("trial", "Trial", OFTEN, website_ids=("corner_shp",)))
