"""What a finished run saw is recognised without an engine, until any of it changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from jobs import receipt
from jobs.context import Job
from jobs.summary import Told
from pipelines.bronze.places import inbox, place_of
from tests.support.flow import start_job
from tests.support.shop import Shop, open_shop

TOLD = (
    '{"told": {"as_of": "", "sizes": [], "subjects": 0, "unbalanced": 0, "report": null, "exports": [], "tables": ""}}'
)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path, months=1)


@pytest.fixture
def told(shop: Shop, tmp_path: Path) -> Told:
    """What a run would have left: a table of one version, a report and an export."""
    log = tmp_path / "lake" / "gold" / "dim_customer" / "_delta_log"
    report, export = tmp_path / "lake" / "report.html", tmp_path / "lake" / "export"
    page, models = tmp_path / "lake" / "_reports" / "latest.html", tmp_path / "lake" / "mlflow" / "mlflow.db"
    for folder in (log, export, page.parent, models.parent):
        folder.mkdir(parents=True)
    for path in (log / f"{0:020}.json", report, export / "members.csv", page, models):
        path.write_text("first", encoding="utf-8")
    job = start_job(shop, tmp_path / "lake")
    said = Told("2024-04-01", [{"name": "Loyal", "members": 2}], 3, 0, str(report), [str(export)], "lake", [])
    receipt.keep(job, receipt.inputs_seen(job), said)
    return said


def _deliver_again(shop: Shop, told: Told) -> None:
    path = next(p for p in sorted(shop.folder.rglob("*.csv")))
    path.write_bytes(path.read_bytes())


def _deliver_more(shop: Shop, told: Told) -> None:
    shop.deliver(1)


def _change_a_rule(shop: Shop, told: Told) -> None:
    path = next(iter(sorted((shop.conf / "segments").glob("*.yml"))))
    path.write_text(path.read_text(encoding="utf-8") + "\n# Looked at.\n", encoding="utf-8")


def _write_a_table(shop: Shop, told: Told) -> None:
    path = Path(str(told.report)).parent / "gold" / "dim_customer" / "_delta_log" / f"{1:020}.json"
    path.write_text("second", encoding="utf-8")


def _make_a_table(shop: Shop, told: Told) -> None:
    log = Path(str(told.report)).parent / "gold" / "dim_product" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("first", encoding="utf-8")


def _lose_the_report(shop: Shop, told: Told) -> None:
    Path(str(told.report)).unlink()


def _write_another_page(shop: Shop, told: Told) -> None:
    (Path(str(told.report)).parent / "_reports" / "latest.html").write_text("of another day", encoding="utf-8")


def _cut_an_export(shop: Shop, told: Told) -> None:
    (Path(told.exports[0]) / "members.csv").write_text("", encoding="utf-8")


def _register_a_model(shop: Shop, told: Told) -> None:
    (Path(str(told.report)).parent / "mlflow" / "mlflow.db").write_text("another", encoding="utf-8")


CHANGES = [
    _deliver_again,
    _deliver_more,
    _change_a_rule,
    _write_a_table,
    _make_a_table,
    _lose_the_report,
    _write_another_page,
    _cut_an_export,
    _register_a_model,
]


def _ask(shop: Shop, tmp_path: Path, as_of: date | None = None) -> tuple[Job, Told | None]:
    job = start_job(shop, tmp_path / "lake", as_of)
    return job, receipt.still_true(job, receipt.inputs_seen(job))


def test_while_nothing_changes_the_next_run_says_the_same_and_starts_no_engine(
    shop: Shop, told: Told, tmp_path: Path
) -> None:
    job, said = _ask(shop, tmp_path)
    assert said == told
    assert "lake" not in vars(job)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__.strip("_"))
def test_a_change_makes_the_next_run_look(
    change: Callable[[Shop, Told], None], shop: Shop, told: Told, tmp_path: Path
) -> None:
    change(shop, told)
    assert _ask(shop, tmp_path)[1] is None


def test_a_location_that_cannot_be_looked_through_is_for_the_run_to_tell(shop: Shop, tmp_path: Path) -> None:
    conf = shop.conf / "sources" / "corner_shop.yml"
    conf.write_text(re.sub(r"location: .*", "location: ~nobody.here/x", conf.read_text(), count=1))
    assert receipt.inputs_seen(start_job(shop, tmp_path / "lake"))


def test_other_settings_or_another_day_make_the_next_run_look(
    shop: Shop, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=1)

    assert _ask(shop, tmp_path, as_of=date(2024, 1, 1))[1] is None
    assert _ask(shop, tmp_path)[1] == told
    monkeypatch.setattr(receipt, "datetime", Tomorrow)
    assert _ask(shop, tmp_path)[1] is None


def test_samples_a_run_makes_itself_are_no_news_until_someone_else_changes_them(tmp_path: Path) -> None:
    def job() -> Job:
        return Job.start(data_dir=tmp_path / "lake", sources=("complete_journey_samples",))

    def still_true() -> Told | None:
        return receipt.still_true(job(), receipt.inputs_seen(job()))

    inputs = receipt.inputs_seen(job())
    source = job().sources.source("complete_journey_samples")
    feed = next(f for f in source.feeds if f.generator)
    made = place_of(str(feed.location), job().settings.conf_dir, tmp_path / "lake")
    made.parent.mkdir(parents=True)
    made.write_text("made by the run", encoding="utf-8")
    said = Told("2018-01-01", [], 1, 0, None, [], "lake", [])
    receipt.keep(job(), inputs, said)
    assert still_true() == said
    made.write_text("changed by hand", encoding="utf-8")
    assert still_true() is None
    receipt.keep(job(), inputs, said)
    uploaded = inbox(source, feed, tmp_path / "lake") / "more.csv"
    uploaded.parent.mkdir(parents=True)
    uploaded.write_text("a", encoding="utf-8")
    assert still_true() is None


def test_where_tables_are_not_folders_nothing_is_written_down(tmp_path: Path) -> None:
    job = Job.start(data_dir=tmp_path / "nowhere", catalog="retail", sources=("complete_journey_samples",))
    said = Told("2018-01-01", [], 1, 0, None, [], "retail", [])
    receipt.keep(job, "inputs", said)
    assert not (tmp_path / "nowhere").exists()
    assert receipt.still_true(job, "inputs") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"told": {"unknown": 1}}', TOLD])
def test_what_cannot_be_read_counts_as_nothing(content: str, shop: Shop, told: Told, tmp_path: Path) -> None:
    (tmp_path / "lake" / "_last_run.json").write_text(content, encoding="utf-8")
    assert _ask(shop, tmp_path)[1] is None
