"""What may be chosen about features in `conf/features.yml`: cut points of scores, thresholds of the life cycle."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pyspark.sql import Column
from pyspark.sql import functions as F

from lakehouse.errors import SettingsError, suggest
from lakehouse.strict import Strict, read_model
from lakehouse.yaml_file import yaml_named

RfmMeasure = Literal["recency_days", "frequency", "monetary_net"]
RFM_MEASURES: tuple[RfmMeasure, ...] = ("recency_days", "frequency", "monetary_net")
CutPoints = tuple[float, float, float, float]


class LifecycleRules(Strict):
    """Thresholds of the life cycle; a cadence is the days a customer usually lets pass.

    Attributes:
        new_days: A customer is new for this many days after the first purchase.
        default_cadence_days: Cadence of a customer with fewer than three purchase days.
        min_cadence_days: Shorter cadences count as this: nobody lapses within days.
        max_cadence_days: Longer cadences count as this.
        lapsing_after: Cadences of silence after which a customer is lapsing.
        lost_after: Cadences of silence after which a customer is lost.
        won_back_days: Days a customer counts as won back, and a purchase pattern as resumed, after a silence ended.
    """

    new_days: int = Field(30, ge=1)
    default_cadence_days: float = Field(30, gt=0)
    min_cadence_days: float = Field(7, gt=0)
    max_cadence_days: float = Field(120, gt=0)
    lapsing_after: float = Field(2, gt=0)
    lost_after: float = Field(4, gt=0)
    won_back_days: int = Field(60, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lost_after <= self.lapsing_after:
            raise ValueError("lost_after must be greater than lapsing_after")
        if self.max_cadence_days < self.min_cadence_days:
            raise ValueError("max_cadence_days must not be less than min_cadence_days")
        return self


class MerchantRules(Strict):
    """What one merchant does differently.

    Attributes:
        rfm_cut_points: Per measure four ascending values that part the scores; a value equal to a cut point belongs
            below it. Measures that are not named are cut into fifths of the merchant's customers.
        lifecycle: Thresholds of this merchant; those it does not name are as for every merchant.
    """

    rfm_cut_points: dict[RfmMeasure, CutPoints] = Field(default_factory=dict)
    lifecycle: LifecycleRules | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for measure, points in self.rfm_cut_points.items():
            if not all(map(isfinite, points)):
                raise ValueError(f"rfm_cut_points.{measure} must be numbers: {list(points)}")
            if list(points) != sorted(set(points)):
                raise ValueError(f"rfm_cut_points.{measure} must ascend: {list(points)}")
        return self


class FeatureRules(Strict):
    """Choices for every merchant, and what single merchants do differently.

    Attributes:
        lifecycle: Thresholds unless the merchant has its own.
        top_categories: Categories kept per customer in `feature.customer_category`.
        merchants: By merchant id.
    """

    lifecycle: LifecycleRules = LifecycleRules()
    top_categories: int = Field(20, ge=1)
    merchants: dict[str, MerchantRules] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _differs_from_the_default(cls, values: Any) -> Any:
        """What a merchant's life cycle does not name is as for every merchant."""
        default = values.get("lifecycle") if isinstance(values, dict) else None
        merchants = values.get("merchants") if isinstance(values, dict) else None
        if not isinstance(default, dict) or not isinstance(merchants, dict):
            return values
        own = {m: r for m, r in merchants.items() if isinstance(r, dict) and isinstance(r.get("lifecycle"), dict)}
        whole = {m: {**r, "lifecycle": {**default, **r["lifecycle"]}} for m, r in own.items()}
        return {**values, "merchants": {**merchants, **whole}}

    def by_merchant(self, name: str, made: Callable[[float], Column]) -> Column:
        """A column made of a threshold of the life cycle, of rows with a merchant_id: of that merchant's own."""
        chosen = made(getattr(self.lifecycle, name))
        for merchant, own in self.merchants.items():
            if own.lifecycle is not None:
                mine = made(getattr(own.lifecycle, name))
                chosen = F.when(F.col("merchant_id") == merchant, mine).otherwise(chosen)
        return chosen

    def all_values(self, name: str) -> tuple[Any, ...]:
        """What a threshold of the life cycle is for any merchant, each value once."""
        own = [r.lifecycle for r in self.merchants.values() if r.lifecycle is not None]
        return tuple(dict.fromkeys(getattr(part, name) for part in (self.lifecycle, *own)))


def load_feature_rules(conf_dir: Path, merchants: Collection[str] = ()) -> FeatureRules:
    """Read `features.yml`; the defaults above hold where the file or a value is missing.

    Args:
        conf_dir: Folder of the file.
        merchants: Declared merchants, which the file may name; any when none is given.

    Raises:
        SettingsError: naming every unknown or bad value at once.
    """
    path = yaml_named(conf_dir, "features")
    rules = read_model(path, FeatureRules) if path.is_file() else FeatureRules()
    for name in rules.merchants:
        if merchants and name not in merchants:
            raise SettingsError(f"{path}: merchants.{name}: no source declares it.{suggest(name, merchants)}")
    return rules
