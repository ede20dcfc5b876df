"""Values to the page: one HTML text with its styles, pictures and script inside."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from apps.report import charts, story, words
from apps.report.data import ReportData

PARTS = (
    ("glance", "At a glance"),
    ("segments", "Segments"),
    ("rfm", "Recency, frequency"),
    ("flows", "On the move"),
    ("cohorts", "Coming back"),
    ("clusters", "Groups found"),
)
"""Sections of a retailer: the anchor and what the contents list calls it."""


def render(data: ReportData) -> str:
    """Return the page of one run.

    Args:
        data: What to show. Empty parts are shown as missing, with the reason they carry.

    Returns:
        A complete HTML document that loads nothing from anywhere.
    """
    rank = {layer: i for i, layer in enumerate(charts.LAYER_ORDER)}
    layers = sorted({s.layer for s in data.steps}, key=lambda layer: (rank.get(layer, len(rank)), layer))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            parts=PARTS if data.merchants else (),
            layers=layers,
            steps_title="Newest steps" if data.steps_of else "This run",
            step_seconds=max((s.begin + s.seconds for s in data.steps), default=0.0),
            charts=charts,
            story=story,
            css=_static("report.css"),
            js=_static("report.js"),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "compact",
        "tally",
        "whole",
        "money",
        "money_in_full",
        "percent",
        "signed",
        "signed_percent",
        "seconds",
        "day",
        "title",
        "several",
    ):
        made.filters[name] = getattr(words, name)
    made.filters["sentence"] = words.sentence
    return made


@cache
def _static(name: str) -> Markup:
    # Our own files: they hold no value of the data.
    return Markup(files("apps.report").joinpath("static", name).read_text(encoding="utf-8"))  # noqa: S704
