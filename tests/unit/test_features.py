from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from features import rfm
from features.catalogue import render_catalogue
from features.registry import features
from features.rules import FeatureRules, load_feature_rules
from lakehouse.declare import table_of
from lakehouse.errors import SettingsError
from lakehouse.tables.feature import RFM_GROUPS

ROOT = Path(__file__).parents[2]


def test_the_catalogue_page_is_up_to_date():
    page = (ROOT / "docs" / "feature-catalogue.md").read_text(encoding="utf-8")
    assert page == render_catalogue(), "run: python -m features.catalogue docs/feature-catalogue.md"


def test_every_feature_says_meaning_unit_window_and_source():
    for f in features().values():
        assert f.meaning.endswith("."), f.name
        assert f.unit, f.name
        assert f.window, f.name
        for source in f.source.split(", "):
            table_of(source)


def test_every_feature_belongs_to_a_family_file():
    for f in features().values():
        assert (ROOT / "features" / f"{f.family}.py").is_file(), f.name


def test_identity_columns_are_no_features():
    assert not {"merchant_id", "customer_key", "customer_id", "as_of", "built_at"} & set(features())


def test_kinds_follow_types():
    kinds = {n: features()[n].kind for n in ("recency_days", "monetary_net", "rfm_group", "last_purchase_on")}
    assert kinds == {
        "recency_days": "number",
        "monetary_net": "money",
        "rfm_group": "text",
        "last_purchase_on": "day",
    }


def test_the_grid_names_every_cell_once_and_uses_every_name():
    cells = {(r, f, m): rfm.GRID[r - 1][(f + m + 1) // 2 - 1] for r, f, m in product(range(1, 6), repeat=3)}
    assert len(cells) == 125
    assert set(Counter(cells.values())) == set(RFM_GROUPS)
    assert cells[5, 5, 5] == "champions"
    assert cells[1, 1, 1] == "lost"


def test_the_shipped_rules_are_the_defaults():
    assert load_feature_rules(ROOT / "conf") == FeatureRules()


def test_without_a_file_the_defaults_hold(tmp_path):
    assert load_feature_rules(tmp_path) == FeatureRules()


def test_what_a_merchant_does_not_name_is_as_for_every_merchant(tmp_path):
    (tmp_path / "features.yml").write_text(
        "lifecycle: {lapsing_after: 1.5, lost_after: 3}\n"
        "merchants: {shop: {lifecycle: {default_cadence_days: 45}}, other: {rfm_cut_points: {}}}\n"
    )
    rules = load_feature_rules(tmp_path)
    own = rules.merchants["shop"].lifecycle
    assert own is not None
    assert (own.default_cadence_days, own.lapsing_after, own.lost_after) == (45, 1.5, 3)
    assert rules.merchants["other"].lifecycle is None
    with pytest.raises(SettingsError, match=r"merchants\.other: no source declares it"):
        load_feature_rules(tmp_path, ["shop", "brother"])


def test_every_wrong_rule_is_named_at_once(tmp_path):
    (tmp_path / "features.yml").write_text(
        "lifecycle: {new_day: 3, lost_after: 1}\nmerchants: {a: {rfm_cut_points: {frequency: [1, 1, 2, 3]}}}\n"
    )
    with pytest.raises(SettingsError) as e:
        load_feature_rules(tmp_path)
    assert "Did you mean 'new_days'" in str(e.value)
    assert "must ascend" in str(e.value)
