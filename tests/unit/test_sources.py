"""Declared sources: everything wrong is reported at once, with the file and what was meant."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from lakehouse.errors import SourceError
from lakehouse.runner import Run
from pipelines.bronze.catalogue import render_sources
from pipelines.bronze.load_sources import load_sources
from pipelines.bronze.places import locate
from pipelines.bronze.samples import GENERATORS
from pipelines.bronze.sources import late_feeds
from pipelines.bronze.survey import Book, survey
from pipelines.bronze.time_patterns import pattern_problems
from tests.support.feeds import make_source, put

if TYPE_CHECKING:
    from lakehouse.lake import Lake

CONF = Path(__file__).parents[2] / "conf"

GOOD = """
description: A shop.
merchant: {id: shop, name: Shop, country: GB}
currency: GBP
feeds:
  - name: people
    subject: consents
    location: ${drop}/*.csv
    format: csv
    columns: {id: {to: customer_id, required: true}}
"""


def write(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        put(tmp_path / "sources", f"{name}.yml", text)
    return tmp_path


def test_the_shipped_sources_are_valid_and_find_each_other() -> None:
    sources = load_sources(CONF, {})
    assert {s.name for s in sources.select(["complete_journey"])} == {
        "complete_journey",
        "complete_journey_samples",
        "exchange_rates",
        "uploads",
    }
    assert {m.id for m in sources.merchants} == {"complete_journey", "online_retail_ii"}
    assert len(sources.source("complete_journey").feeds) == 8
    assert sources.source("complete_journey_samples").merchant.name == "The Complete Journey"
    named = {f.generator for s in sources for f in s.feeds if f.generator}
    assert named == set(GENERATORS)


def test_sample_sources_carry_a_label() -> None:
    assert all(s.label for s in load_sources(CONF, {}) if s.is_sample)
    with pytest.raises(ValueError, match="must carry a label"):
        make_source("x").model_validate(make_source("x").model_dump() | {"is_sample": True})


def test_every_problem_of_every_file_is_reported_with_a_suggestion(tmp_path: Path) -> None:
    conf = write(
        tmp_path,
        first=GOOD.replace("customer_id", "custmer_id").replace("currency: GBP", "curency: GBP"),
        second=GOOD.replace("subject: consents", "subject: consent").replace("format: csv", "format: cvs"),
        third="- not a mapping",
        sixth=GOOD.replace("required: true}", "required: true}, when: {type: timestamp, formats: [DD.MM.YYYY HH:mm]}"),
        fourth="a: [unclosed",
        fifth=GOOD.replace("id: shop", "id: shp").replace(", name: Shop, country: GB", ""),
    )
    with pytest.raises(SourceError) as e:
        load_sources(conf)
    said = str(e.value)
    for wanted in (
        "first.yml: currency",
        "first.yml: curency: there is no such setting. Did you mean 'currency'?",
        "'custmer_id' is not a field of consents. Did you mean 'customer_id'?",
        "Did you mean 'consents'?" if "second.yml: feeds.0: subject" in said else "Did you mean 'csv'?",
        "third.yml: a source is a mapping",
        "sixth.yml: feeds.0.columns.when.formats: 'DD.MM.YYYY HH:mm': YYYY is the year that weeks are counted in",
        "write yyyy; D is the day of the year; the day of a month is dd",
        "fourth.yml: not readable as YAML",
        "fifth.yml: merchant 'shp' needs a name and a country",
    ):
        assert wanted in said


@pytest.mark.parametrize(
    "location", ["data:**.csv", "data:" + "x" * 300 + ".csv", "~nobody.here/x", "package:no.body/x"]
)
def test_a_location_that_cannot_be_looked_through_keeps_no_other_feed_out(tmp_path: Path, location: str) -> None:
    source = make_source(location)
    lake = cast("Lake", SimpleNamespace(settings=SimpleNamespace(conf_dir=CONF, data_dir=tmp_path)))
    book = Book(cast("Lake", NoTables()), Run.begin(), ["shop"], [source])
    ((told, why),) = survey(lake, book, source, source.feeds[0]).refused
    assert told == location
    assert why.startswith(f"source 'shop', feed 'people': its location '{location}' cannot be looked through (")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": {"a": {"to": "customer_id"}, "b": {"to": "customer_id"}}}, "already filled by 'a'"),
        ({"columns": {"a": {"type": "money"}}}, "is not a type"),
        ({"columns": {"a": {"type": "decimal(5,7)"}}}, "scale is larger"),
        ({"columns": {"a": {"type": "int", "formats": ["yyyy"]}}}, "formats are for dates"),
        ({"columns": {"a": {"timezone": "Europe/Lundon"}}}, "is not a time zone"),
        ({"columns": {"First Name": {}, "first_name": {}}}, "name or alias is also that of"),
        ({"key": ["custmer"]}, "key: 'custmer'"),
        ({"delivery": {"by": "column", "column": "shet"}}, "not a declared column"),
        ({"delivery": {"by": "sheet"}}, "only excel files have sheets"),
        ({"transactions": {}}, "rules are for subject transactions only"),
        ({"week_one_starts_on": "2024-01-01"}, "week_one_starts_on: subject promotions needs it"),
        (
            {"subject": "promotions", "columns": {"week": {"to": "week"}}},
            "week_one_starts_on: subject promotions needs it",
        ),
        ({"options": {"encoding": "utf-9"}}, "is not an encoding"),
        ({"constants": {"channel": "email"}}, "already filled by column 'channel'"),
    ],
)
def test_a_feed_that_contradicts_itself_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make_source("x", **change)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("dd.MM.YYYY", "YYYY is the year that weeks are counted in; write yyyy"),
        ("uuuu-MM-dd", "uuuu is not read; write yyyy"),
        ("DD/MM/yyyy", "the day of a month is dd"),
        ("yyyy-'W'ww", "ww is a week"),
        ("EEE dd MMM yyyy", "EEE is a day of the week"),
        ("yyyy-MM-ddTHH:mm", "T is text, which goes in single quotes"),
        ("yyyy-MM-dd Uhr", "U is no letter of Spark's patterns"),
        ("yyyy-MMMMM-dd", "MMMMM has more letters than Spark reads"),
        ("yyyy-MM-dd'T", "a single quote is not closed"),
        ("yyyy-MM-dd HH:mm]", "square brackets do not pair"),
        ("yyyy-MM-dd#", "# goes in single quotes"),
        ("dd.mm.yyyy", "mm are minutes"),
        ("yyyy-mm", "months are MM"),
        ("dd.MM.yyyy HH:MM", "M stands twice"),
        ("dd.MM.yyyy hh:mm", "hours to 24 are HH"),
        ("HH:mm", "it has no year"),
    ],
)
def test_a_pattern_that_spark_cannot_read_or_reads_otherwise_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make_source("x", columns={"id": {"to": "customer_id"}, "day": {"type": "timestamp", "formats": [pattern]}})


@pytest.mark.parametrize(
    "pattern",
    [
        "dd.MM.yyyy HH:mm:ss",
        "d/M/yy h:mm a",
        "dd MMM yyyy[ HH:mm[:ss]]",
        "[dd.MM.yyyy][yyyy-MM-dd]",
        "yyyyMM",
        "yyyyDDD",
        "yyyyMMddHHmmssSSS",
        "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "yyyy 'o''clock' MM dd HH",
        "yyyy-MM-dd HH:mm VV",
    ],
)
def test_patterns_that_name_a_day_are_taken(pattern: str) -> None:
    assert pattern_problems(pattern) == []


def test_a_location_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Did you mean 'package'?")):
        make_source("pakage:x/y.csv")


def test_a_variable_moves_a_location_and_its_absence_leaves_the_feed_unconfigured(tmp_path: Path) -> None:
    conf = write(tmp_path, shop=GOOD)
    drop = tmp_path / "drop"
    put(drop, "b10.csv", "x")
    put(drop, "b9.csv", "x")
    for hidden in ("_c.csv", ".d.csv", "e.csv.part"):
        put(drop, hidden, "x")
    (drop / "folder.csv").mkdir()
    there = load_sources(conf, {"drop": str(drop)}).source("shop")
    assert [p.name for p in locate(there, there.feeds[0], conf, tmp_path)] == ["b10.csv", "b9.csv"]
    absent = load_sources(conf).source("shop")
    assert absent.feeds[0].location == ""
    assert locate(absent, absent.feeds[0], conf, tmp_path) == []


def test_a_source_asked_for_by_name_without_its_variable_is_refused_and_one_that_goes_along_is_not(
    tmp_path: Path,
) -> None:
    along = GOOD.replace("${drop}", "${more}") + "accompanies: ['*']\n"
    conf = write(tmp_path, shop=GOOD, bank=GOOD.replace("${drop}/*", "b"), along=along)
    sources = load_sources(conf)
    with pytest.raises(SourceError, match=r"'shop': nobody said .* --var drop=FOLDER") as refused:
        sources.select(["bank", "shop"])
    assert refused.value.exit_code == 2
    assert [s.name for s in sources.select(["bank"])] == ["along", "bank"]
    assert len(sources.select()) == 3
    assert [s.name for s in load_sources(conf, {"drop": "x"}).select(["shop"])] == ["along", "shop"]


def test_a_source_may_end_in_yaml_and_is_declared_once(tmp_path: Path) -> None:
    put(tmp_path / "sources", "shop.yaml", GOOD)
    assert load_sources(tmp_path).names == ("shop",)
    put(tmp_path / "sources", "shop.yml", GOOD)
    with pytest.raises(SourceError, match=r"shop.yml: 'shop' is declared in shop.yaml, too"):
        load_sources(tmp_path)


def test_files_of_the_inbox_belong_to_every_feed(tmp_path: Path) -> None:
    source = make_source("inbox:")
    put(tmp_path / "inbox" / "shop" / "people", "up.csv", "x")
    assert [p.name for p in locate(source, source.feeds[0], tmp_path, tmp_path)] == ["up.csv"]


def test_a_missing_file_and_a_missing_package_say_what_to_do(tmp_path: Path) -> None:
    for location, said in (
        (tmp_path / "no.csv", "no.csv does not exist"),
        (tmp_path / "mistyped" / "*.csv", "mistyped does not exist"),
        ("package:nobody_has_this/x.csv", "not installed"),
    ):
        source = make_source(location)
        with pytest.raises(SourceError, match=said):
            locate(source, source.feeds[0], tmp_path, tmp_path)


def test_unknown_names_get_a_suggestion() -> None:
    sources = load_sources(CONF, {})
    with pytest.raises(SourceError, match="Did you mean 'complete_journey'"):
        sources.source("complete_jorney")
    with pytest.raises(SourceError, match="Did you mean 'transactions'"):
        sources.source("complete_journey").feed("transaction")


def test_the_fingerprint_follows_what_decides_how_rows_are_typed() -> None:
    feed = make_source("x").feeds[0]
    assert make_source("y", cadence="daily").feeds[0].fingerprint == feed.fingerprint
    assert make_source("x", options={"delimiter": ";"}).feeds[0].fingerprint != feed.fingerprint


def test_a_feed_is_late_when_it_has_brought_no_file_for_longer_than_its_cadence_allows() -> None:
    usual = dict(make_source("x").feeds[0])
    cadences = ("daily", "weekly", "monthly", "once", "on_demand")
    source = make_source("x", feeds=[usual | {"name": cadence, "cadence": cadence} for cadence in cadences])
    now = datetime(2026, 3, 1, 12)

    def late(**ago: float) -> list[str]:
        files = {(source.name, feed): now - timedelta(days=days) for feed, days in ago.items()}
        return late_feeds([source], files, now)

    assert late(daily=2, weekly=10, monthly=40, once=900, on_demand=900) == []
    assert late(weekly=10.5, daily=3.2) == [
        "shop.daily is declared daily and has brought no file for 3 days",
        "shop.weekly is declared weekly and has brought no file for 10 days",
    ]
    assert late(monthly=41) == ["shop.monthly is declared monthly and has brought no file for 41 days"]
    assert late() == []


def test_folders_and_files_may_be_called_like_patterns(tmp_path: Path) -> None:
    for name in ("data [1]/Sales [2024]/a.csv", "data [1]/Sales [2024]/[b].csv", "data 1/Sales 2/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(location: str) -> list[str]:
        source = make_source(location)
        return [p.name for p in locate(source, source.feeds[0], tmp_path / "data [1]", tmp_path / "data [1]")]

    both = ["[b].csv", "a.csv"]
    assert names("data:Sales [2024]/*.csv") == names("conf:Sales [2024]") == names("data:*/*.csv") == both
    assert names(f"{tmp_path}/data [1]/Sales [2024]/[b].csv") == ["[b].csv"]
    assert names(f"{tmp_path}/data [12]/Sales ?/*.csv") == ["c.csv"]
    assert names(f"{tmp_path}/data?[1]/Sales*/[a].csv") == []
    assert names(f"{tmp_path}/data [1]/Sales*/[a].csv") == ["a.csv"]
    assert names(f"{tmp_path}/*/Sales [1-3]/*.csv") == ["c.csv"]
    (tmp_path / "data [1]" / "Sales [2024]" / "*.csv").touch()
    assert names("data:Sales [2024]/*.csv") == ["*.csv", *both]


SALES = """
description: Sales.
merchant: {{id: shop, name: Shop, country: GB}}
timezone: {zone}
currency: {currency}
feeds:
  - name: sales
    subject: transactions
    location: ${{drop}}/*.csv
    format: csv
    key: [{key}]
    columns:
      receipt: {{to: basket_id}}
      line: {{to: {line}}}
      product: {{to: product_id}}
    transactions: {{{rules}}}
"""


def sales(key: str = "", line: str = "line_id", rules: str = "", zone: str = "UTC", currency: str = "GBP") -> str:
    return SALES.format(key=key, line=line, rules=rules, zone=zone, currency=currency)


@pytest.mark.parametrize("key", ["", "basket_id, line_id", "basket_id, product_id, line_id"])
def test_keys_that_tell_lines_apart_are_taken(tmp_path: Path, key: str) -> None:
    load_sources(write(tmp_path, shop=sales(key)), {})


def test_feeds_of_one_retailer_tell_lines_apart_in_one_way(tmp_path: Path) -> None:
    with_product = "basket_id, product_id, line_id"
    till, web = sales("basket_id, line_id"), sales(with_product)
    prefixed = sales(with_product, rules="basket_prefix: W")
    load_sources(write(tmp_path / "prefixed", till=till, web=prefixed), {})
    with pytest.raises(SourceError, match="feed 'sales': key: lines of 'shop' are told apart with product_id here"):
        load_sources(write(tmp_path / "mixed", till=till, web=web), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (sales("line_id, product_id"), "identified by basket_id with product_id, with line_id, or with both"),
        (sales("basket_id, store_id", line="store_id"), "identified by basket_id with product_id"),
        (sales("basket_id, product_id"), "line_id is delivered and tells lines of a basket apart"),
        (sales(rules="return_types: [R]"), "map a column to it"),
        (sales(line="line_type", rules="returns: none, return_types: [R]"), "contradict each other"),
    ],
)
def test_what_would_be_declared_in_vain_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=re.escape(said)):
        load_sources(write(tmp_path, shop=text), {})


def test_the_channel_of_lines_that_name_none_is_in_lower_case_as_others_are(tmp_path: Path) -> None:
    sources = load_sources(write(tmp_path, shop=sales(rules="default_channel: Online")), {})
    assert sources.source("shop").feeds[0].rules.default_channel == "online"


def test_the_sales_of_one_merchant_have_one_currency_and_one_zone(tmp_path: Path) -> None:
    both = write(tmp_path, shop=sales(), web=sales(currency="CHF", zone="Europe/Zurich"))
    with pytest.raises(SourceError) as refused:
        load_sources(both, {})
    assert "currency: CHF, but sales of 'shop' are in GBP in shop.yml" in str(refused.value)
    assert "timezone: Europe/Zurich, but sales of 'shop' are in UTC in shop.yml" in str(refused.value)


def test_the_weeks_of_one_merchant_begin_on_one_day_of_the_week(tmp_path: Path) -> None:
    placed = GOOD.replace("consents", "promotions").replace("customer_id", "product_id")
    monday, next_year, wednesday = (
        f"{placed}    week_one_starts_on: {day}\n" for day in ("2024-01-01", "2024-12-30", "2025-01-01")
    )
    load_sources(write(tmp_path / "agree", first=monday, second=next_year), {})
    said = "is a Wednesday, but weeks of 'shop' begin on a Monday in feed 'people' of first.yml"
    with pytest.raises(SourceError, match=said):
        load_sources(write(tmp_path / "differ", first=monday, second=wednesday), {})


def test_feeds_of_a_merchant_that_deliver_one_subject_stand_in_one_order(tmp_path: Path) -> None:
    text = sales() + sales().partition("feeds:\n")[2].replace("name: sales", "name: corrections")
    sources = load_sources(write(tmp_path, shop=text, uploads=text, other=text.replace("{id: shop", "{id: other")), {})
    book = Book(cast("Lake", NoTables()), Run.begin(), [], sources)

    def next_of(name: str, feed: str) -> int:
        of = (sources.source(name), sources.source(name).feed(feed))
        book.places(*of).add(place := book.next_place(*of))
        return place

    assert [next_of("shop", feed) for feed in ("sales", "corrections", "sales")] == [1000, 2000, 3000]
    assert [next_of("uploads", "sales"), next_of("other", "sales"), next_of("shop", "sales")] == [4000, 1000, 5000]


def test_what_arrives_beside_files_in_the_order_of_names_stands_between_them(tmp_path: Path) -> None:
    named = sales().replace("    columns:", "    delivery: {order: name}\n    columns:")
    sources = load_sources(write(tmp_path, shop=named, uploads=sales()), {})
    book = Book(cast("Lake", NoTables()), Run.begin(), [], sources)
    uploads = (sources.source("uploads"), sources.source("uploads").feeds[0])
    taken = book.places(*uploads)
    taken |= {20240105000, 20240104000}
    for place in (20240105001, 20240105002):
        assert book.next_place(*uploads) == place
        taken.add(place)


class NoTables:
    """A lakehouse in which nothing was written yet."""

    def for_rows(self, _: int) -> NoTables:
        return self

    def exists(self, _: str) -> bool:
        return False


def test_a_variable_that_no_location_asks_for_is_told(tmp_path: Path) -> None:
    conf = write(tmp_path, shop=GOOD)
    assert load_sources(conf, {"drop": "/somewhere"}).source("shop").feeds[0].location == "/somewhere/*.csv"
    assert load_sources(conf, {"DROP": "/elsewhere"}).source("shop").feeds[0].location == "/elsewhere/*.csv"
    with pytest.raises(SourceError, match=r"variable 'dorp': no location asks for it; known are drop\. Did you mean"):
        load_sources(conf, {"dorp": "/somewhere"})


def test_the_sources_of_a_merchant_begin_with_the_one_that_sells(tmp_path: Path) -> None:
    bank = """
        description: What the bank paid out.
        merchant: {id: shop}
        currency: EUR
        feeds:
          - {name: paid, subject: settlements, location: "*.csv", format: csv, columns: {id: {to: settlement_id}}}
        """
    sources = load_sources(write(tmp_path, bank=bank, shop=sales()), {})
    assert [s.name for s in sources.of_merchant("shop")] == ["shop", "bank"]


def test_the_page_of_keys_is_up_to_date_and_tells_each_with_its_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    assert page == render_sources(), "run `segmentation docs`"
    keys = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(len(line.split(" | ")[-1]) > 5 for line in keys)
