"""What customers are expected to do next, scored in Spark with each merchant's life-cycle model.

A file of its own because it runs Python in the executors: trees and hypergeometric series have no built-in. Customers
come in Arrow batches with their whole history in one row, so a score needs nothing of any other row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.model import CustomerOutlook as O
from models.histories import Histories, day_number, finite
from models.purchase_days import histories_of, purchase_days

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.lifecycle import LifecycleModel


@dataclass(frozen=True)
class Outlook:
    """A merchant's life-cycle model with its registered version."""

    merchant_id: str
    version: str
    model: LifecycleModel

    @property
    def fingerprint(self) -> str:
        """A registered version never changes."""
        return self.version


_SCORED = {
    "probability_active": "double",
    "churn_probability": "double",
    "churn_risk_level": "string",
    "churn_factors": "array<string>",
    "probability_alive": "double",
    "expected_purchases": "double",
    "expected_spend": "double",
    "expected_day_value": "double",
    "customer_lifetime_value": "double",
}


def score_outlooks(facts: DataFrame, *, as_of: date, outlooks: Mapping[str, Outlook]) -> DataFrame:
    """Score every customer who bought before a day with their merchant's model.

    Args:
        facts: `gold.fact_transactions`; rows of the day and later are not looked at.
        as_of: The day to score.
        outlooks: Models by merchant id; customers of other merchants are left out.

    Returns:
        `feature.customer_outlook` rows.
    """
    keys = {str(O.merchant_id): "string", str(O.customer_key): "bigint", str(O.customer_id): "string"}
    shape = keys | _SCORED | {str(O.horizon_days): "int", str(O.model_version): "string"}
    mine = facts.where(F.col(O.merchant_id).isin(sorted(outlooks)))
    if outlooks:
        histories = histories_of(purchase_days(mine, as_of))
        schema = ", ".join(f"{name} {kind}" for name, kind in shape.items())
        scored = histories.mapInArrow(_scorer(dict(outlooks), day_number(as_of)), schema)
    else:
        nothing = facts.where(F.lit(False))
        scored = nothing.select(*[F.lit(None).cast(kind).alias(name) for name, kind in shape.items()])
    money = (O.expected_spend, O.expected_day_value, O.customer_lifetime_value)
    made = {c: F.col(c).cast("decimal(18,2)").alias(c) for c in money} | {O.as_of: F.lit(as_of).alias(O.as_of)}
    return scored.select(*[made.get(c, F.col(c)) for c in O.__table__.columns])  # type: ignore[attr-defined]


def _scorer(
    outlooks: Mapping[str, Outlook], day: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow.compute as pc

        for batch in batches:
            for merchant_id, outlook in outlooks.items():
                theirs = batch.filter(pc.equal(batch.column(O.merchant_id), merchant_id))
                if theirs.num_rows:
                    yield score_batch(theirs, outlook, day)

    return score


def score_batch(batch: pa.RecordBatch, outlook: Outlook, day: int) -> pa.RecordBatch:
    """Score the customers of one merchant in a batch of `purchase_days.histories_of`."""
    import pyarrow as pa

    keys = batch.column(O.customer_key).to_numpy(zero_copy_only=False)
    histories = _histories_in(batch, keys)
    scores = outlook.model.score(histories, day).rename(columns={"basket_value": "expected_day_value"})
    # In the order of the batch, less those who only ever gave something back.
    rows = batch.take(pa.array(np.flatnonzero(np.isin(keys, scores["customer_key"].to_numpy()))))
    kinds = {"churn_factors": pa.list_(pa.string()), "churn_risk_level": pa.string()}
    columns = {
        name: pa.array(scores[name].tolist(), kinds.get(name, pa.float64()), from_pandas=True) for name in _SCORED
    }
    return pa.RecordBatch.from_pydict(
        {name: rows.column(name) for name in (O.merchant_id, O.customer_key, O.customer_id)}
        | columns
        | {
            O.horizon_days: pa.array([outlook.model.horizon] * len(scores), pa.int32()),
            O.model_version: pa.array([outlook.version] * len(scores), pa.string()),
        }
    )


def _histories_in(batch: pa.RecordBatch, keys: NDArray[np.int64]) -> Histories:
    lists = batch.column("history")
    counts = lists.value_lengths().to_numpy(zero_copy_only=False)
    days = lists.flatten()
    return Histories(
        keys,
        np.concatenate(([0], np.cumsum(counts))),
        days.field("day").to_numpy(zero_copy_only=False),
        finite("baskets", days.field("baskets").to_numpy(zero_copy_only=False)),
        finite("spend", days.field("spend").to_numpy(zero_copy_only=False)),
    )
