"""From delivered files to report and exports, again, and with more delivered."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import nbformat
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.segments import find_drift
from lakehouse.errors import RunLocked, SettingsError
from tests.support.flow import Ran, run_shop, run_to_features, start_job
from tests.support.notebooks import ROOT, pictures, run_notebooks, text_of
from tests.support.shop import Shop, open_shop
from tests.support.state import state

pytestmark = pytest.mark.e2e


def test_the_day_after_the_newest_sale_is_the_day_segments_are_made_for(shop_run: Ran) -> None:
    newest = shop_run.job.lake.read("gold.fact_transactions").agg(F.max("business_date")).collect()[0][0]
    assert shop_run.outcome.as_of == date.fromordinal(newest.toordinal() + 1)


def test_every_delivered_row_is_accepted_rejected_or_a_duplicate(shop_run: Ran) -> None:
    recon = shop_run.job.lake.read("gold.audit_recon")
    assert recon.count() > 0
    assert recon.where(~F.col("is_balanced")).count() == 0


def test_bad_rows_are_kept_with_their_reason_and_without_personal_data(shop_run: Ran) -> None:
    lake = shop_run.job.lake
    assert lake.count("ingest.ref_parsing_errors") >= 3
    assert lake.count("silver.transaction_reject") >= 3
    text = " ".join(str(r) for r in lake.read("ingest.ref_parsing_errors").collect())
    assert "C001" not in text


def test_repeated_lines_count_once(shop_run: Ran) -> None:
    lines = shop_run.job.lake.read("silver.transaction_line")
    assert lines.agg(F.sum(F.size(F.coalesce("superseded", F.array())))).collect()[0][0] == 16


def test_members_of_segments_are_customers_with_features(shop_run: Ran) -> None:
    lake = shop_run.job.lake
    members = lake.read("gold.customer_segment_customer")
    assert members.count() > 0
    assert members.join(lake.read("feature.customer"), on="customer_key", how="left_anti").count() == 0


def test_visitors_are_in_guest_segments_until_they_log_in(shop_run: Ran) -> None:
    lake = shop_run.job.lake
    cart = F.col("segment_id") == "visitors_abandoned_cart"
    guests = lake.read("gold.customer_segment_guest").where(cart).collect()
    # Of eight browsers the odd ones never log in, and of these the third orders.
    assert len(guests) == 3
    assert {(g["page_views"], g["is_sample"]) for g in guests} == {(1, True)}
    assert all(g["email"].endswith("@example.com") for g in guests)
    members = lake.read("gold.customer_segment_customer").where(cart).collect()
    assert {m["customer_id"] for m in members} == {"C002", "C004"}
    stays = lake.read("gold.customer_segment_history").where(cart).collect()
    assert {s["entry_reason"] for s in stays} == {"promoted"}


def test_the_report_and_the_exports_are_there_and_the_summary_names_them(shop_run: Ran) -> None:
    assert shop_run.outcome.report is not None
    page = shop_run.outcome.report.read_text(encoding="utf-8")
    assert "<svg" in page
    assert "c001@example.com" not in page
    assert shop_run.outcome.exports
    printed = shop_run.printed.replace("\n", "")
    assert str(shop_run.outcome.report.name) in printed


def test_a_second_run_finds_nothing_new_and_changes_nothing(shop_run: Ran) -> None:
    before = state(shop_run.job.lake)
    versions = {n: shop_run.job.lake.version(n) for n in before}
    shop = shop_run.job.settings
    again = run_shop_again(shop_run)
    assert again.outcome.nothing_new, [s.step.producer for s in again.outcome.steps if s.status != "up to date"]
    assert "Nothing new" in again.printed
    assert {n: again.job.lake.version(n) for n in before} == versions
    assert shop.data_dir == again.job.settings.data_dir


def test_membership_does_not_go_back_to_a_past_day(shop_run: Ran) -> None:
    before = shop_run.job.lake.version("gold.customer_membership")
    settings = shop_run.job.settings
    shop = Shop(Path(settings.variables["shop"]), settings.conf_dir)
    assert shop_run.outcome.as_of is not None
    with pytest.raises(SettingsError, match="folder of its own"):
        run_shop(shop, settings.data_dir, as_of=shop_run.outcome.as_of - timedelta(days=1))
    with pytest.raises(SettingsError, match="has not come yet"):
        run_shop(shop, settings.data_dir, as_of=date(2999, 1, 1))
    assert shop_run.job.lake.version("gold.customer_membership") == before


def test_the_newest_day_is_never_before_the_one_segments_are_of(shop_run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    made_for = shop_run.job.segments_are_of()
    assert made_for is not None
    assert made_for == shop_run.outcome.as_of
    later = made_for + timedelta(days=1)  # of which a correction has taken the only sale away
    monkeypatch.setattr(type(shop_run.job), "segments_are_of", lambda _: later)
    assert shop_run.job.as_of() == later


def test_two_runs_at_once_are_refused_with_the_holder(shop_run: Ran) -> None:
    with shop_run.job.locked(), pytest.raises(RunLocked, match="process"):
        run_shop_again(shop_run)


def test_months_delivered_one_by_one_give_the_tables_of_all_at_once(shop_run: Ran, tmp_path: Path) -> None:
    stepwise = open_shop(tmp_path, months=2)
    run_to_features(stepwise, tmp_path / "lake")
    stepwise.deliver(2)
    last = run_to_features(stepwise, tmp_path / "lake")
    assert last.as_of() == shop_run.outcome.as_of
    grown, whole = state(last.lake, HISTORY), state(shop_run.job.lake, HISTORY)
    assert {"silver.transaction_line", "gold.fact_transactions", "gold.audit_recon"} <= set(grown)
    assert {n for n in grown if grown[n] != whole.get(n)} == set()
    newest = last.lake.read("feature.customer").where(F.col("as_of") == F.lit(last.as_of()))
    assert_same_rows(newest.drop("built_at"), shop_run.job.lake.read("feature.customer").drop("built_at"))


def assert_same_rows(one: DataFrame, other: DataFrame) -> None:
    assert one.count() == other.count() > 0
    assert one.exceptAll(other).count() == 0


HISTORY = frozenset(
    {
        # These remember the day in between, which the single run never saw.
        "feature.customer",
        "feature.customer_category",
        "feature.rfm_boundary",
        "feature.rfm_migration",
        "feature.cohort_retention",
        "feature.lifecycle_flow",
        "gold.dim_customer",
    }
)


def test_a_manual_segment_is_filled_when_asked_for_and_then_keeps_its_members(
    shop_run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = shop_run.job.settings
    data_dir = shutil.copytree(settings.data_dir, tmp_path / "lake")
    shop = Shop(Path(settings.variables["shop"]), shutil.copytree(settings.conf_dir, tmp_path / "conf"))
    said = {"CONF_DIR": str(shop.conf), "DATA_DIR": str(data_dir), "BASE_CURRENCY": "EUR", "PARALLEL_STEPS": "1"}
    for name, value in said.items():
        monkeypatch.setenv(f"SEGMENTATION_{name}", value)
    (shop.conf / "segments" / "chosen.yml").write_text(
        "{segment_id: chosen, name: Chosen, refresh_mode: manual, rule: {feature: frequency, op: at_least, value: 3}}",
        encoding="utf-8",
    )

    def invoke(*asked: str) -> Result:
        return CliRunner().invoke(app, ["segments", "--var", f"shop={shop.folder}", *asked])

    def refresh(*asked: str) -> tuple[str, str, set[int]]:
        ran = invoke(*asked)
        assert ran.exit_code == 0, ran.output or ran.exception
        lake = start_job(shop, data_dir).lake
        (row,) = lake.read("gold.customer_segment").where("segment_id = 'chosen'").collect()
        members = lake.read("gold.customer_segment_customer").where("segment_id = 'chosen'").collect()
        assert row["matched_customers_count"] == len(members)
        return row["refresh_mode"], row["refresh_status"], {m["customer_key"] for m in members}

    frequent = shop_run.job.lake.read("feature.customer").where("frequency >= 3").collect()
    filled = ("manual", "completed", {r["customer_key"] for r in frequent})
    assert filled[2]
    assert refresh("--refresh", "chosen", "--refresh", "champions") == filled
    assert find_drift(start_job(shop, data_dir)).count() == 0
    assert refresh() == filled

    wrong = invoke("--refresh", "chosn")
    assert wrong.exit_code == 2
    assert "Did you mean 'chosen'?" in " ".join(wrong.output.split())


def run_shop_again(ran: Ran) -> Ran:
    settings = ran.job.settings
    return run_shop(Shop(Path(settings.variables["shop"]), settings.conf_dir), settings.data_dir)


# Notebooks: run from top to bottom on the lakehouse the product made, and show no customer.

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ON_REAL_DATA = ("clustering_choice", "lookalike_expansion", "customer_lifetime_value")  # test_model_notebooks.py


def test_notebooks_run(shop_run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [p.stem for p in NOTEBOOKS if p.stem not in ON_REAL_DATA]
    for name, shown in run_notebooks(names, shop_run.job.settings.data_dir, monkeypatch).items():
        assert pictures(shown) >= 2, name
        assert not [o for o in shown if text_of(o).count("@example.")], name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_kept_without_outputs(path: Path) -> None:
    code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert not [c for c in code if c.outputs or c.execution_count]
