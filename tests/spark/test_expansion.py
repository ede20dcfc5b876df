from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs.audiences import definitions
from lakehouse.errors import ModelError, SettingsError
from lakehouse.lake import Lake
from lakehouse.settings import Settings
from models.audiences import build_customer_audiences
from models.expansion import Size, expand_seed
from models.histories import EPOCH
from segments.load import DefinitionError
from tests.support.rows import rows
from tests.unit.test_lookalike import DAY, tastes

pytestmark = [pytest.mark.spark, pytest.mark.slow]

AS_OF = date.fromordinal(EPOCH + DAY)
NOW = datetime(2020, 1, 2, 3)


def shop(spark: SparkSession, folder: Path) -> tuple[Lake, pd.DataFrame]:
    """A lakehouse of customers of two tastes; three quarters of those with an even number are the segment `even`."""
    lake = Lake(spark, Settings(data_dir=folder, parallel_steps=1))
    lines = tastes(n=700, days=DAY + 10)
    bought = pd.DataFrame(
        {
            "transaction_id": range(len(lines)),
            "merchant_id": "shop",
            "customer_key": lines["customer_key"].to_numpy(),
            "customer_id": "C" + lines["customer_key"].astype(str).to_numpy(),
            "product_id": lines["item"].to_numpy(),
            "basket_id": "b",
            "business_date": [date.fromordinal(EPOCH + d) for d in lines["day"]],
            "amount": Decimal(1),
            "is_valid_purchase": True,
        }
    )
    lake.write("gold.fact_transactions", rows(spark, "gold.fact_transactions", bought.to_dict("records")))
    items = lines.drop_duplicates("item")
    products = [
        {"merchant_id": "shop", "product_id": i, "category": c, "subcategory": i, "is_merchandise": True}
        for i, c in zip(items["item"], items["category"], strict=True)
    ]
    lake.write("gold.dim_product", rows(spark, "gold.dim_product", products))
    of = [("even", k) for k in range(0, 700, 2) if k % 8] + [("held", k) for k in range(40)]
    members = [
        {"segment_id": s, "website_id": "shop", "customer_key": k, "customer_id": f"C{k}", "added_on": AS_OF}
        for s, k in of
    ]
    lake.write("gold.customer_segment_customer", rows(spark, "gold.customer_segment_customer", members))
    return lake, lines


def test_an_audience_resembles_its_seed_leaves_out_whom_it_must_and_is_a_segment(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake, _ = shop(spark, tmp_path)

    def make(size: Size, seed_id: str = "even", left_out: tuple[str, ...] = ("held",)) -> dict[str, object]:
        return expand_seed(
            lake, lake.settings, merchant_id="shop", seed_id=seed_id, size=size, as_of=AS_OF, started_at=NOW,
            left_out=left_out,
        )  # fmt: skip

    made = make(Size(customers=30))

    members = lake.read("gold.lookalike_member").toPandas()
    keys = members["customer_key"]
    assert (made["audience_id"], made["customers"], len(members)) == ("like_even", 30, 30)
    assert (keys >= 40).all()
    assert not ((keys % 2 == 0) & (keys % 8 != 0)).any()
    # What is left of the even ones is an eighth of all: by chance one in five of the candidates.
    assert (keys % 2 == 0).mean() > 0.35
    assert made["expected_lift"] > 1.3  # type: ignore[operator]
    candidates = lake.read("gold.lookalike_candidate").toPandas()
    assert candidates["score"].nlargest(30).min() == members["score"].min()
    assert len(candidates) > 200
    assert set(keys) < set(candidates["customer_key"])
    assert made["auc"] > made["auc_of_activity"]  # type: ignore[operator]
    assert members["probability"].between(0, 1).all()
    assert set(members["customer_id"]) == {f"C{k}" for k in keys}
    assert set(members["model_version"]) == {"local.feature.lookalike_even_shop/1"}

    job: Any = SimpleNamespace(lake=lake, settings=lake.settings.model_copy(update={"conf_dir": tmp_path}), websites=())
    (segment,) = definitions(job)
    assert (segment.segment_id, segment.website_ids) == ("like_even", ("shop",))
    (tmp_path / "segments").mkdir()

    def define(segment_id: str, name: str, rule: str) -> tuple[str, ...]:
        text = f"{{segment_id: {segment_id}, name: {name}, rule: {rule}}}"
        (tmp_path / "segments" / "own.yml").write_text(text, encoding="utf-8")
        return tuple(s.name for s in definitions(job))

    assert define("fans", "Fans", "{in_segment: like_even}") == ("Fans", "Like even")
    recent = "{feature: recency_days, op: at_most, value: 9}"
    assert define("like_even", "Mine", recent) == ("Mine",)
    with pytest.raises(DefinitionError, match="has the name 'like EVEN' of segment \"like_even\""):
        define("fans", "like EVEN", recent)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"merchant_id": "shp"}, SettingsError, "retailers with members are inn, shop. Did you mean 'shop'?"),
        ({"seed_id": "evn"}, SettingsError, "those with members at shop are even. Did you mean 'even'?"),
        ({"left_out": ["hld"]}, SettingsError, "There is no segment 'hld'"),
        ({"seed_id": "held"}, ModelError, "Segment 'held' has no members at shop."),
    ],
)
def test_a_wrong_name_is_told_from_a_segment_that_is_empty(
    spark: SparkSession, tmp_path: Path, asked: dict[str, Any], error: type[Exception], said: str
) -> None:
    settings = Settings(data_dir=tmp_path, parallel_steps=1)
    lake = Lake(spark, settings)
    members = [{"segment_id": "even", "website_id": w, "customer_key": 1, "customer_id": "1"} for w in ("shop", "inn")]
    lake.write("gold.customer_segment_customer", rows(spark, "gold.customer_segment_customer", members))
    segments = [{"segment_id": s, "name": s, "version": "1"} for s in ("even", "held")]
    lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", segments))
    usual: dict[str, Any] = {"merchant_id": "shop", "seed_id": "even", "size": Size(share=0.1)}
    with pytest.raises(error, match=re.escape(said)):
        expand_seed(lake, settings, **usual | asked, as_of=AS_OF, started_at=NOW)


def test_features_name_the_audiences_made_until_the_day(spark: SparkSession) -> None:
    case = {"merchant_id": "shop", "customer_key": 1, "customer_id": "C1"}
    members = rows(
        spark,
        "gold.lookalike_member",
        [
            case | {"audience_id": "like_b", "as_of": AS_OF, "score": 0.5},
            case | {"audience_id": "like_a", "as_of": AS_OF, "score": 0.9},
            case | {"audience_id": "like_c", "as_of": date(2030, 1, 1), "score": 1.0},
        ],
    )

    (row,) = build_customer_audiences(members, as_of=AS_OF).collect()

    assert (row.lookalike_audiences, row.lookalike_score, row.as_of) == (["like_a", "like_b"], 0.9, AS_OF)


@pytest.mark.parametrize("wrong", [{}, {"customers": 5, "share": 0.1}, {"customers": 0}, {"share": 1.5}])
def test_a_size_that_says_nothing_or_too_much_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="size"):
        Size(**wrong)  # type: ignore[arg-type]


def test_a_batch_is_scored_as_the_model_scores_its_customers() -> None:
    import numpy as np

    from models.audience import fit_audience
    from models.expansion import _scorer

    lines = tastes(n=700, days=DAY)
    model, expected = fit_audience(lines, DAY, np.arange(0, 700, 2))
    by = lines[lines["customer_key"] < 50].groupby("customer_key")
    each = [g[["item", "category", "day"]].to_dict("records") for _, g in by]
    batch = pa.RecordBatch.from_pydict(
        {"customer_key": list(by.groups), "customer_id": [f"C{k}" for k in by.groups], "b": each}
    )

    (scored,) = _scorer(model)(iter([batch]))

    alone = model.score(lines[lines["customer_key"] < 50])
    assert scored.column("customer_key").to_pylist() == alone["customer_key"].tolist()
    assert scored.column("score").to_pylist() == pytest.approx(alone["score"].tolist())
    assert expected.auc["rank average"] > 0.75
    later = pd.DataFrame({"customer_key": [2], "item": "i0_0", "category": "c7", "day": [DAY + 1]})
    again, _ = fit_audience(pd.concat([lines, later]), DAY, np.arange(0, 700, 2))
    pd.testing.assert_frame_equal(again.score(lines), model.score(lines), check_exact=True)
