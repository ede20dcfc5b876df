from __future__ import annotations

from pathlib import Path

from lakehouse.declare import table_of
from lakehouse.tables.feature import RFM_GROUPS
from segments.catalogue import FEATURE_TABLES, GROUP, declared_features
from segments.language import conditions_of
from segments.load import load_segments

CONF = Path(__file__).parents[2] / "conf"


SHIPPED = ("behaviour.yml", "clusters.yml", "events.yml", "guests.yml", "lifecycle.yml", "outlook.yml", "value.yml")
"""Whoever uses the product adds files of their own, of which nothing is asked but that they are right."""


def test_every_definition_is_right() -> None:
    assert load_segments(CONF / "segments")


def test_the_shipped_definitions_fit_every_merchant(tmp_path: Path) -> None:
    for name in SHIPPED:
        (tmp_path / name).write_text((CONF / "segments" / name).read_text(encoding="utf-8"), encoding="utf-8")
    segments = load_segments(tmp_path)

    assert len(segments) >= 20
    assert all(s.is_active and s.description and not s.website_ids for s in segments)
    assert len({s.priority for s in segments}) == len(segments)
    of_customers = [s for s in segments if s.entity == "customer"]
    used = {declared_features()[c.feature].table for s in of_customers for c in conditions_of(s.rule)}
    # Audiences have no shipped segment: each is published as one of its own when it is made.
    assert used == set(FEATURE_TABLES) - {"feature.customer_audience"}
    assert {"champions", "at_risk", "new_customers", "won_back"} <= {s.segment_id for s in segments}


def test_features_are_the_columns_declared_as_features() -> None:
    features = declared_features()

    assert {"customer_key", "customer_id", "as_of", "merchant_id", "built_at", "model_version"}.isdisjoint(features)
    assert features["rfm_group"].values == RFM_GROUPS
    declared = [c for name in FEATURE_TABLES for c in table_of(name).columns if c.spec.feature]
    assert sorted(features) == sorted([*map(str, declared), GROUP])
