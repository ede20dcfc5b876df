"""The report page from values: what it says, what it must never do, and how it fares with nothing to show."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from apps.report import build, charts, story, words
from apps.report.answers import merchant, source_notes, source_titles
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
    Overlap,
    Period,
    Quality,
    Reconciliation,
    Rejection,
    ReportData,
    RfmCell,
    RfmGroup,
    SampleNote,
    SegmentMove,
    SegmentSize,
    StepTiming,
    TableChecks,
)
from apps.report.render import render
from jobs.progress import Progress
from jobs.publish import report
from lakehouse.quality import QualityGate
from lakehouse.settings import Settings

MADE_AT = datetime(2018, 1, 1, 6, tzinfo=UTC)
DAY, BEFORE = date(2018, 1, 1), date(2017, 12, 1)
EVIL = '<script>alert("x")</script>'

SHOP = MerchantReport(
    "Corner Shop",
    "EUR",
    Headline(Measure(40, 36), Measure(12_000, 9_000), Measure(400, 410), Measure(30.0), 0.9, date(2017, 1, 2), DAY),
    (Period(date(2017, 11, 1), 5_000, 200, 30), Period(date(2017, 12, 1), 7_000, 200, 35, is_partial=True)),
    (
        SegmentSize(
            "champions",
            "Champions",
            "buy often",
            Measure(10, 7),
            0.25,
            7_200.0,
            0.6,
            5,
            2,
            history=((BEFORE, 7), (DAY, 10)),
            since=BEFORE,
        ),
        SegmentSize("asleep", f"Asleep {EVIL}", "", Measure(20), 0.5, None, None, 0, 0, status="error"),
        SegmentSize("new", "Just arrived", "", Measure(4), 0.1, None, None, 4, 0, history=((DAY, 4),)),
    ),
    (Overlap("asleep", "champions", 3, 0.12), Overlap("champions", "new", 1, 0.08)),
    (SegmentMove("Champions", f"Asleep {EVIL}", 2),),
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
        (TableChecks("gold.fact_transactions", 9, 0, 1),),
        (FailedCheck("gold.fact_transactions", "amount_check", "warning", "amount", "3 of 9 rows"),),
        (Reconciliation("transactions", "Corner Shop", 100, 90, 8, 2, True),),
        (Rejection("Corner Shop", "rule", "quantity_zero", 8), Rejection("Corner Shop", "parsing", "sold_at: x", 2)),
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
        pytest.param(ReportData("r", DAY, MADE_AT, (MerchantReport("M", "USD"),)), id="empty retailer"),
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
    assert all(a.get("aria-label") for tag, a in reader.seen if tag == "table")


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
        "1 warning Includes sample data",
        "9 of 10 checks passed",
        "10 refused rows",
        "Includes sample data",
        "2 steps wrote 130 rows. Time in steps: 4.0 s, from the start of the first to the end of the last.",
        "Ingestion comes before and is not in it, as its records carry no times",
    ):
        assert expected in said, expected


def test_a_warning_is_amber_and_only_a_blocking_failure_red() -> None:
    warned = render(replace(FULL, steps=()))
    assert '<span class="tag warn">1 warning</span>' in warned
    assert '<i class="sign warn" aria-hidden="true">!</i>' in warned
    assert '<td><span class="tag warn">warning</span></td>' in warned
    assert "<h3>Warnings</h3>" in warned
    assert "check failed" not in warned
    assert 'class="sign bad"' not in warned

    stopped = FailedCheck("gold.fact_transactions", "key_is_unique", "blocking")
    quality = replace(
        FULL.quality,
        tables=(TableChecks("gold.fact_transactions", 8, 1, 1),),
        failed=(stopped, *FULL.quality.failed),
    )
    failed = render(replace(FULL, quality=quality))
    assert '<span class="tag bad">1 check failed</span>' in failed
    assert '<span class="tag warn">1 warning</span>' in failed
    assert '<i class="sign bad" aria-hidden="true">!</i>' in failed
    assert '<td><span class="tag bad">blocking</span></td>' in failed
    assert "8 of 10 checks passed" in failed


def test_empty_sections_say_what_is_missing() -> None:
    shop = MerchantReport("M", "USD", missing={"cohorts": "feature.cohort_retention has not been built yet."})
    said = text_of(render(ReportData("r", DAY, MADE_AT, (shop,))))
    assert "There are no cohorts to show. feature.cohort_retention has not been built yet." in said
    assert "There are no sales before this day yet." in said
    assert "Not reconciled yet" in said


def test_open_reconciliation_is_called_out() -> None:
    quality = replace(
        FULL.quality, reconciliations=(Reconciliation("transactions", "Corner Shop", 100, 90, 8, 0, False),)
    )
    assert "Rows do not add up" in text_of(render(replace(FULL, quality=quality)))


def test_a_page_made_by_a_command_of_its_own_shows_the_newest_steps_and_claims_no_more() -> None:
    said = text_of(render(replace(FULL, steps_of="run-0")))
    assert "Newest steps Of run run-0, the newest that recorded any." in said
    assert "This run" not in said
    assert "This run" in text_of(render(FULL))


def test_a_share_of_spend_above_the_whole_stays_inside_the_picture() -> None:
    # Others have a negative spend, of which returns are the reason.
    root = ET.fromstring(str(charts.size_against_value([replace(SHOP.segments[0], share=0.5, value_share=1.4)])))
    width = float(root.attrib["viewBox"].split()[2])
    assert all(float(c.attrib["cx"]) < width for c in root.iter() if "cx" in c.attrib)


def test_every_chart_is_valid_xml_with_a_name() -> None:
    drawn = [
        charts.sales_by_month(SHOP.periods, "EUR"),
        charts.sales_by_month((), "EUR"),
        charts.size_against_value(SHOP.segments),
        charts.size_against_value(()),
        charts.overlap_grid(SHOP.segments, SHOP.overlaps),
        charts.overlap_grid((), ()),
        charts.sparkline(SHOP.segments[0].history),
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


def test_overlap_names_every_pair_once_and_those_nobody_is_in() -> None:
    svg = ET.fromstring(str(charts.overlap_grid(SHOP.segments, SHOP.overlaps)))
    said = [t for e in svg.iter("title") if (t := e.text or "") and "both" in t]
    assert said == [
        f"Asleep {EVIL} and Champions: 3 customers in both, 12% of those in either",
        "Just arrived and Champions: 1 customer in both, 8.0% of those in either",
        f"Just arrived and Asleep {EVIL}: nobody is in both",
    ]


def test_a_segment_measured_once_has_no_line_over_time() -> None:
    page = render(FULL)
    assert page.count("Members over time") == sum(len(s.history) > 1 for m in FULL.merchants for s in m.segments)
    assert "Over time" in text_of(page)
    assert "Champions → Asleep" in text_of(page)


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


def texts(svg: object) -> list[str]:
    return [e.text or "" for e in ET.fromstring(str(svg)).iter() if e.tag == "text"]


def test_a_share_near_the_other_is_neither_good_nor_bad_and_missing_ones_are_said() -> None:
    def chart(share: float, value: float | None) -> str:
        return str(charts.size_against_value([replace(SHOP.segments[0], share=share, value_share=value)]))

    for value, tone, ratio in (
        (0.096, "even", "1.0×"),
        (0.104, "even", "1.0×"),
        (0.13, "up", "1.3×"),
        (0.08, "down", "0.8×"),
    ):
        drawn = chart(0.1, value)
        assert f'class="of-value {tone}"' in drawn
        assert ratio in texts(drawn)
    assert "<0.1×" in texts(chart(0.5, 0.01))
    assert "no net spend" in texts(chart(0.5, -0.01))
    for share, value, said in (
        (0.0024, 0.0001, "0.2% of customers, <0.1% of spend"),
        (0.0, 0.0, "no customers"),
        (0.1, None, "spend not known"),
    ):
        # Beside a large segment, whose share sets the scale.
        one = replace(SHOP.segments[0], share=share, value_share=value)
        svg = ET.fromstring(str(charts.size_against_value([replace(one, share=0.8, value_share=0.9), one])))
        row = [e for e in svg if e.attrib.get("class") == "mark"][1]
        assert said in [e.text for e in row if e.tag == "text"]
        assert len([e for e in row if e.tag == "circle"]) == (share > 0.01)


def test_no_trait_is_a_signed_zero() -> None:
    z_scores = (-0.04, 0.04, 0.0, -0.06, 0.06)
    cluster = replace(
        SHOP.clusters[0], traits=tuple(ClusterTrait(f"f{i}", 12_345.0, z) for i, z in enumerate(z_scores))
    )
    svg = charts.traits(cluster, [t.feature for t in cluster.traits])
    assert [t for t in texts(svg) if t[-1].isdigit() and t[0] != "F"] == ["0.0", "0.0", "0.0", "−0.1", "+0.1"]
    assert "+0.06 standard deviations from the average customer, mean 12,345" in str(svg)
    assert "not known" in texts(charts.traits(SHOP.clusters[0], SHOP.trait_names))


def test_layers_stand_in_the_order_of_the_flow_and_every_step_names_its_own() -> None:
    names = ("report", "gold", "elsewhere", "bronze", "models", "silver", "export", "segments", "features")
    steps = tuple(StepTiming("Build registers", layer, 0.0, 1.0, 1, 1, 0, "succeeded") for layer in names)
    page = render(replace(FULL, steps=steps))
    assert re.findall(r'<li><i style="--k:var\(--l-([a-z]+), ', page) == [*charts.LAYER_ORDER, "elsewhere"]
    assert set(names) <= set(texts(charts.timeline(steps)))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (0.4, ["0", "0.1 s", "0.2 s", "0.3 s", "0.4 s"]),
        (48, ["0", "10 s", "20 s", "30 s", "40 s"]),
        (100, ["0", "30 s", "1 min", "1 min 30 s"]),
        (286, ["0", "1 min", "2 min", "3 min", "4 min"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (8 * 3600, ["0", "120 min", "240 min", "360 min", "480 min"]),
    ],
)
def test_time_is_cut_into_round_parts(end: float, expected: list[str]) -> None:
    svg = ET.fromstring(str(charts.timeline([StepTiming("x", "gold", 0.0, end, 1, 1, 0, "succeeded")])))
    ticks = [(e.text, float(e.attrib["x"])) for e in svg.iter() if e.attrib.get("class") == "tick mid"]
    assert [text for text, _ in ticks] == expected
    gaps = [b - a for (_, a), (_, b) in pairwise(ticks)]
    assert max(gaps) - min(gaps) < 0.2


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


CSS = (Path(charts.__file__).parent / "static" / "report.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    pairs = [(f"qi{i}", f"q{i}") for i in range(charts.STEPS)]
    pairs += [(text, back) for text in ("ink", "soft", "faint") for back in ("sheet", "page")]
    pairs += [("warn", "warn-soft"), ("bad", "bad-soft"), ("accent", "accent-soft"), ("up", "sheet"), ("down", "sheet")]
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def test_cells_of_small_cohorts_are_outlined_and_keep_the_colour_of_text() -> None:
    month = date(2017, 11, 1)
    for size, inked in ((charts.FEW - 1, False), (charts.FEW, True)):
        svg = str(charts.retention([CohortCell(month, 0, size, size), CohortCell(month, 1, size, 15)]))
        assert ('class="mark thin"' in svg) is not inked
        assert bool(re.search(r'class="i\d cell', svg)) is inked
    assert re.search(r"\.thin > rect \{ fill: none;", CSS)
    assert "opacity" not in "".join(re.findall(r"\.thin[^}]*\}", CSS))


def asked(**found: list[dict[str, object]]) -> MerchantReport:
    names = ("sales", "rfm", "moves", "merchants", "segments", "overlaps", "segment_moves", "cohorts", "profiles")
    rows: dict[str, Any] = {name: [] for name in (*names, "traits")} | found
    return merchant("m", rows, date(2024, 4, 1), None, {})


def cohort(month: int, age: int, active: int) -> dict[str, object]:
    return {
        "merchant_id": "m",
        "cohort_month": date(2024, month, 1),
        "month_number": age,
        "customers": 100,
        "active": active,
    }


def sold(month: int, first: date, last: date) -> dict[str, object]:
    sums = {"cents": 100, "cents_before": None, "known_cents": 100, "orders": 1, "orders_before": None, "customers": 1}
    return {
        "merchant_id": "m",
        "currency": "EUR",
        "month": date(2024, month, 1),
        "first_day": first,
        "last_day": last,
    } | sums


def test_months_without_a_sale_have_their_place_between_the_others() -> None:
    days = date(2023, 11, 1), date(2024, 2, 29)
    shop = asked(sales=[sold(2, *days), sold(11, *days) | {"month": date(2023, 11, 1)}])
    assert [(p.month.month, p.revenue, p.orders, p.customers, p.is_partial) for p in shop.periods] == [
        (11, 1.0, 1, 1, False),
        (12, 0.0, 0, 0, False),
        (1, 0.0, 0, 0, False),
        (2, 1.0, 1, 1, False),
    ]
    ET.fromstring(str(charts.sales_by_month(shop.periods, "EUR")))


def test_customers_are_not_none_when_their_features_were_not_made() -> None:
    sold_to_some = sold(2, date(2024, 2, 1), date(2024, 2, 29)) | {"cents": 200}
    said = text_of(str(story.lead(asked(sales=[sold_to_some]), DAY)))
    assert said.startswith("Before 1 January 2018, known customers and guests spent €2.00 in 1 order. How many")
    assert "run segmentation features" in said

    guests = sold_to_some | {"customers": 0, "known_cents": None}
    assert "0 known customers and guests spent" in text_of(str(story.lead(asked(sales=[guests]), DAY)))


def test_a_month_in_which_nobody_of_a_cohort_bought_counts_as_none_and_not_as_unknown() -> None:
    cohorts = [cohort(1, 0, 100), cohort(1, 1, 20), cohort(2, 0, 100)]
    shop = asked(cohorts=cohorts, sales=[sold(1, date(2024, 1, 1), date(2024, 3, 31))])
    # 20 of January's hundred were back in February, none of February's in March: 20 of 200.
    assert "10% in month 1" in text_of(str(story.about_retention(shop)))
    cells = [t for t in texts(charts.retention(shop.cohorts)) if t.endswith("%")]
    assert cells == ["20%", "0%", "0%"]


def test_a_month_that_is_not_over_does_not_pull_the_way_back_down() -> None:
    cohorts = [cohort(1, 0, 100), cohort(1, 1, 20), cohort(1, 2, 3), cohort(2, 0, 100), cohort(2, 1, 2)]
    sales = [sold(1, date(2024, 1, 1), date(2024, 3, 10))]  # the day follows another retailer's newest sale
    shop = asked(cohorts=cohorts, sales=sales)
    assert "20% in month 1" in text_of(str(story.about_retention(shop)))
    assert "3 of 100 bought (3.0%) (month not complete)" in str(charts.retention(shop.cohorts))


def test_what_is_wider_than_the_screen_scrolls_and_fades_out() -> None:
    page = render(FULL)
    assert page.count('width="960" role="img"') == page.count('<div class="scroll"><svg viewBox="0 0 960') > 0
    assert page.count("<table") == len(re.findall(r'<div class="scroll[^>]*><table', page))
    assert re.search(r"\.scroll \{ overflow-x: auto;[^}]*mask-image: var\(--fade\)", CSS)


def test_only_ingested_sources_are_named_and_by_their_retailer() -> None:
    def source(name: str, merchant: str | None, files: int | None, **more: object) -> dict[str, object]:
        told = {"description": "d", "label": None, "is_sample": False, "terms": None}
        return {"source_system_id": name, "merchant_id": merchant, "file_count": files, **told, **more}

    sources = [
        source("journey_samples", "journey", 3, is_sample=True, label="Made up."),
        source("journey", "journey", 8, terms="Education."),
        source("uploads", "journey", 1, terms="Ask."),
        source("rates", None, 1, is_sample=True),
        source("journeys", "other", 1),
        source("not_ingested", "n", 0, is_sample=True, terms="x"),
        source("not_known", "n", None, is_sample=True, terms="x"),
    ]
    titles = source_titles(sources, {"journey": "The Journey", "other": "Other"})
    assert titles["journeys"] == "Journeys"
    samples, terms = source_notes(sources, titles)
    assert samples == (
        SampleNote("The Journey samples", "d", "Made up."),
        SampleNote("Rates", "d", "Sample data."),
    )
    assert terms == (("The Journey", "Education."), ("Uploads", "Ask."))


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
    assert words.percent(0.00012) == "<0.1%"
    assert words.percent(-0.00012) == "0.0%"
    assert words.whole(-0.3) == "0"
    assert words.deviation(-1.25, 2) == "−1.25"
    assert words.multiple(2.46) == "2.5×"
    assert (words.mean(0.338), words.mean(28.41), words.mean(1_234.6)) == ("0.34", "28.4", "1,235")
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


def test_the_page_is_written_anew_once_a_step_has_written_something_since_or_for_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.report.build.collect", lambda *_: None)
    monkeypatch.setattr("apps.report.build.render", lambda _: "<html></html>\n")
    audits = [3]
    lake = SimpleNamespace(settings=Settings(data_dir=tmp_path), version=lambda _: audits[-1])
    job: Any = SimpleNamespace(lake=lake, run=SimpleNamespace(run_id="r"))

    def named(day: int) -> str:
        return report(job, Progress(Console(file=StringIO())), date(2024, 7, day)).name

    assert [named(1), named(1)] == ["report-2024-07-01-r.html", "latest.html"]
    audits.append(4)
    assert [named(1), named(1)] == ["report-2024-07-01-r.html", "latest.html"]
    assert [named(2), named(1)] == ["report-2024-07-02-r.html", "report-2024-07-01-r.html"]


def test_reports_and_pages_of_checks_are_in_their_own_folder_where_one_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = MagicMock(settings=Settings(data_dir=tmp_path / "data", reports_dir=tmp_path / "shown"))
    monkeypatch.setattr(build, "collect", lambda *_: None)
    monkeypatch.setattr(build, "render", lambda _: "a page")
    assert build.build_report(lake, "run-1", date(2024, 2, 1)).parent == tmp_path / "shown" / "_reports"
    assert build.standing_report(lake, date(2024, 2, 1)) == tmp_path / "shown" / "_reports" / "latest.html"
    places: list[Path] = []
    monkeypatch.setattr("lakehouse.quality_pages.write_pages", lambda folder, _: places.append(folder))
    gate = QualityGate(lake, MagicMock())
    gate._pages.append(MagicMock())
    gate.finish()
    assert places == [tmp_path / "shown" / "_quality"]
    assert not (tmp_path / "data").exists()
