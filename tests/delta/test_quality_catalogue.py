"""The catalogue tables are written from the declarations, once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from lakehouse.catalogue import record_catalog
from lakehouse.declare import tables
from lakehouse.lake import Lake
from lakehouse.runner import Run

FILLED = ("dim_owner", "dim_tag", "dim_classification", "dim_sensitivity", "ref_sla", "dim_status", "dim_dataset")


def test_the_catalogue_is_recorded_once_and_names_every_table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Path(__file__).parents[2] / "conf"
    kept = {"gold.customer_segment_history": 730}
    lake.settings = lake.settings.model_copy(update={"conf_dir": conf, "retention_days": kept})
    run = Run("run-1", datetime.fromisoformat("2026-01-01"), {})
    assert record_catalog(lake, run)
    versions = {name: lake.version(f"gov.{name}") for name in FILLED}
    assert not record_catalog(lake, Run("run-2", datetime.fromisoformat("2026-01-02"), {}))
    assert {name: lake.version(f"gov.{name}") for name in FILLED} == versions
    assert all(lake.count(f"gov.{name}") for name in FILLED)
    datasets = {r["dataset_id"]: r for r in lake.read("gov.dim_dataset").collect()}
    assert set(datasets) == set(tables())
    customer = datasets["gold.dim_customer"]
    days = {name: datasets[name]["retention_days"] for name in (*kept, "gold.customer_segment_event", "gold.dim_time")}
    assert days == {**kept, "gold.customer_segment_event": 30, "gold.dim_time": None}
    assert (customer["kind"], customer["sensitivity_id"], customer["owner_id"]) == ("Scd2", "restricted", "crm-data")
