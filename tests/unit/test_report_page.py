"""The report page from values: what it says, what it must never do, and how it fares with nothing to show."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from apps.report import charts, story, words
from apps.report.data import (
    Cluster,
    ClusterTrait,
    CohortCell,
    FailedCheck,
    Flow,
    Headline,
    Measure,
    MerchantReport,
    Movement,
    Period,
    Quality,
    Reconciliation,
    Rejection,
    ReportData,
    RfmCell,
    RfmGroup,
    SampleNote,
    SegmentSize,
    StepTiming,
    TableChecks,
)
from apps.report.render import render

MADE_AT = datetime(2018, 1, 1, 6, tzinfo=UTC)
DAY, BEFORE = date(2018, 1, 1), date(2017, 12, 1)
EVIL = '<script>alert("x")</script>'

SHOP = MerchantReport(
    "corner_shop",
    "Corner Shop",
    "EUR",
    Headline(Measure(40, 36), Measure(12_000, 9_000), Measure(400, 410), Measure(30.0), 0.9, date(2017, 1, 2), DAY),
    (Period(date(2017, 11, 1), 5_000, 200, 30), Period(date(2017, 12, 1), 7_000, 200, 35, is_partial=True)),
    (
        SegmentSize("champions", "Champions", "buy often", Measure(10, 7), 0.25, 7_200.0, 0.6, 5, 2),
        SegmentSize("asleep", f"Asleep {EVIL}", "", Measure(20), 0.5, None, None, 0, 0, status="error"),
    ),
    (RfmCell(5, 5, 10, 720.0), RfmCell(1, 1, 30, 160.0)),
    (RfmGroup("champions", Measure(10, 7), 7_200.0), RfmGroup("lost", Measure(30), 4_800.0)),
    Movement(
        BEFORE,
        (Flow("active", "active", 20), Flow("active", "lost", 6), Flow("lost", "active", 2), Flow(None, "new", 4)),
    ),
    (CohortCell(date(2017, 11, 1), 0, 30, 30), CohortCell(date(2017, 11, 1), 1, 30, 15)),
    (
        Cluster(
            0,
            "recent, frequent",
            "",
            10,
            0.25,
            0.6,
            (ClusterTrait("recency_days", 3.0, -1.2), ClusterTrait("frequency", None, None)),
        ),
    ),
)
FULL = ReportData(
    "run-1",
    DAY,
    MADE_AT,
    (SHOP,),
    BEFORE,
    Quality(
        (TableChecks("gold.fact_transactions", 9, 1),),
        (FailedCheck("gold.fact_transactions", "amount_check", "warning", "amount", "3 of 9 rows"),),
        (Reconciliation("transactions", "Corner Shop", 100, 90, 8, 2, True),),
        (Rejection("corner_shop", "rule", "quantity_zero", 8), Rejection("corner_shop", "parsing", "sold_at: x", 2)),
    ),
    (
        StepTiming("Build facts", "gold", 0.0, 3.0, 100, 90, 8, "succeeded"),
        StepTiming("Build features", "features", 3.0, 1.0, 90, 40, None, "failed"),
    ),
    None,
    (SampleNote("Corner Shop", "Made up.", "Sample data."),),
    (("Corner Shop", "Education."),),
)


class Reader(HTMLParser):
    """Collects tags and attributes, and fails when an element closes out of turn."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def text_of(page: str) -> str:
    body = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+([.,])", r"\1", re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FULL, id="everything"),
        pytest.param(replace(FULL, merchants=(SHOP, replace(SHOP, name=EVIL))), id="two retailers"),
        pytest.param(ReportData("r", DAY, MADE_AT, ()), id="nothing at all"),
        pytest.param(ReportData("r", DAY, MADE_AT, (MerchantReport("m", "M", "USD"),)), id="empty retailer"),
    ],
)
def test_page_is_well_formed_loads_nothing_and_lets_no_value_become_markup(data: ReportData) -> None:
    page = render(data)
    reader = read(page)
    assert page.startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page)
    assert {tag for tag, _ in reader.seen} & {"img", "link", "iframe", "object"} == set()
    assert [tag for tag, _ in reader.seen].count("script") == 1
    assert EVIL not in page
    ids = [a["id"] for _, a in reader.seen if a.get("id")]
    assert len(ids) == len(set(ids))
    anchors = {a["href"] for tag, a in reader.seen if tag == "a" and a.get("href")}
    assert {a for a in anchors if a and a[1:] not in ids} == set()


def test_page_says_the_numbers_in_words() -> None:
    said = text_of(render(FULL))
    for expected in (
        "Before 1 January 2018, 40 known customers and guests spent €12,000 in 400 orders.",
        "Champions make up 25% of customers and bring 60% of their spend.",
        "▲ +33%",
        "▼ −2.4%",
        "5 in, 2 out",
        "last good members kept",
        "Since 1 December 2017, 6 slipped away, 2 came back and 4 bought for the first time; 20 stayed as they were.",
        "50% in month 1",
        "Every row accounted for",
        "9 of 10 checks passed",
        "10 refused rows",
        "Includes sample data",
        "2 steps took 4.0 s and wrote 130 rows.",
    ):
        assert expected in said, expected


def test_empty_sections_say_what_is_missing() -> None:
    shop = MerchantReport("m", "M", "USD", missing={"cohorts": "feature.cohort_retention has not been built yet."})
    said = text_of(render(ReportData("r", DAY, MADE_AT, (shop,))))
    assert "There are no cohorts to show. feature.cohort_retention has not been built yet." in said
    assert "There are no sales before this day yet." in said
    assert "Not reconciled yet" in said


def test_open_reconciliation_is_called_out() -> None:
    quality = replace(
        FULL.quality, reconciliations=(Reconciliation("transactions", "Corner Shop", 100, 90, 8, 0, False),)
    )
    assert "Rows do not add up" in text_of(render(replace(FULL, quality=quality)))


def test_a_run_without_work_shows_the_steps_of_the_last_that_had_some() -> None:
    assert "the last run that had work, run-0" in text_of(render(replace(FULL, steps_of="run-0")))


def test_every_chart_is_valid_xml_with_a_name() -> None:
    drawn = [
        charts.sales_by_month(SHOP.periods, "EUR"),
        charts.sales_by_month((), "EUR"),
        charts.size_against_value(SHOP.segments),
        charts.size_against_value(()),
        charts.rfm_grid(SHOP.rfm_cells, by="customers", currency="EUR"),
        charts.rfm_grid((RfmCell(3, 3, 1, None), RfmCell(2, 2, 1, -5.0)), by="value", currency="EUR"),
        charts.flows(SHOP.movement or Movement(BEFORE, ()), "1 January 2018"),
        charts.flows(Movement(BEFORE, ()), "1 January 2018"),
        charts.retention(SHOP.cohorts),
        charts.retention((CohortCell(DAY, 0, 0, 0),)),
        charts.traits(SHOP.clusters[0], SHOP.trait_names),
        charts.timeline(FULL.steps),
        charts.timeline(()),
    ]
    for svg in drawn:
        root = ET.fromstring(str(svg))
        assert root.attrib["aria-label"]
        assert "nan" not in str(svg)


def test_flows_keep_their_widths_on_both_sides() -> None:
    svg = ET.fromstring(str(charts.flows(SHOP.movement or Movement(BEFORE, ()), "now")))
    nodes = [e for e in svg.iter() if e.tag == "rect" and "node" in e.attrib["class"]]
    heights = {(e.findtext("title") or "").split(":")[0]: float(e.attrib["height"]) for e in nodes}
    per_customer = heights["Not yet customers"] / 4
    assert heights["New"] == pytest.approx(4 * per_customer, rel=0.02)
    assert heights["Lost"] == pytest.approx(6 * per_customer, rel=0.02)  # on the right, drawn last


def test_shades_rise_with_the_number() -> None:
    svg = str(
        charts.rfm_grid(
            [RfmCell(1, 1, n, 1.0) if n == 1 else RfmCell(5, 5, n, 1.0) for n in (1, 100)],
            by="customers",
            currency="EUR",
        )
    )
    assert 'class="s0"' in svg
    assert 'class="s8"' in svg


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (801, "801"),
        (12_345, "12,345"),
        (155_848, "156K"),
        (1_469_307, "1.47M"),
        (999_999, "1.00M"),
        (-4_605_117, "−4.61M"),
        (None, "–"),
    ],
)
def test_compact_keeps_the_digits_that_matter(value: float | None, expected: str) -> None:
    assert words.compact(value) == expected


def test_words() -> None:
    assert words.money(28.4, "USD") == "$28.40"
    assert words.money(-1_234_567, "SEK") == "−SEK 1.23M"
    assert words.percent(0.034) == "3.4%"
    assert words.percent(0.349) == "35%"
    assert words.signed(0.2) == "±0"
    assert words.signed_percent(-0.1234) == "−12%"
    assert words.seconds(125) == "2 min 05 s"
    assert words.title("won_back") == "Won back"
    assert words.title("VIP Paris") == "VIP Paris"
    assert words.name_of("online_retail_ii") == "Online Retail II"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_measure_without_a_past_has_no_change() -> None:
    assert Measure(3).change is None
    assert Measure(3, 0).relative is None
    assert Measure(3, 2).relative == 0.5


def test_the_best_segment_is_the_one_that_brings_most_beyond_its_size() -> None:
    large = SegmentSize("all", "All", "", Measure(40), 1.0, 12_000.0, 1.0, 0, 0)
    assert story.best_segment((large, *SHOP.segments)) is SHOP.segments[0]
    assert story.best_segment(()) is None
