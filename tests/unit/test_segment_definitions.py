from __future__ import annotations

from pathlib import Path

from lakehouse.declare import table_of
from lakehouse.tables.feature import RFM_GROUPS
from segments.catalogue import FEATURE_TABLES, declared_features
from segments.language import conditions_of
from segments.load import load_segments

CONF = Path(__file__).parents[2] / "conf"


def test_the_shipped_definitions_are_right_and_fit_every_merchant() -> None:
    segments = load_segments(CONF / "segments")

    assert len(segments) >= 12
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
    assert len(features) == len(declared)
