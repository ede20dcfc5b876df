"""`expand`: from a segment to the customers who resemble its members, scored in Spark and published.

It runs Python in the executors, because placing a customer takes matrix products; a customer comes with everything
they bought in one row, so a score needs no other row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.errors import ModelError, SettingsError, suggest
from lakehouse.lake import Lake
from lakehouse.records import write_rows
from lakehouse.settings import Settings
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.model import LookalikeAudience as L
from lakehouse.tables.model import LookalikeMember as M
from lakehouse.tables.segment import CustomerSegmentCustomer as C
from models.audience import AudienceModel, Expectation, fit_audience
from models.histories import day_number
from models.purchase_days import purchase_lines
from models.sampling import keys_frame, read_purchase_lines
from models.store import ModelStore, Training, register_version

if TYPE_CHECKING:
    import pyarrow as pa

TRAINING_CUSTOMERS: Final = 20_000
"""Customers a lookalike learns from; some ten million purchases at most, one gigabyte on the driver."""


@dataclass(frozen=True)
class Size:
    """How large an audience shall be: exactly one of the three.

    Attributes:
        customers: So many.
        share: So large a part of the candidates.
        min_score: Everyone with at least this score.
    """

    customers: int | None = None
    share: float | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        """Refuse none or several, and values that select nobody or cannot be.

        Raises:
            SettingsError: saying which.
        """
        given = [v for v in (self.customers, self.share, self.min_score) if v is not None]
        if len(given) != 1:
            raise SettingsError("Say the size of the audience once: a number, a share or a lowest score.")
        if (self.customers is not None and self.customers < 1) or any(
            v is not None and not 0 < v <= 1 for v in (self.share, self.min_score)
        ):
            raise SettingsError(
                "The size of an audience is at least 1; a share or a lowest score is above 0 and up to 1."
            )


def expand_seed(
    lake: Lake,
    settings: Settings,
    *,
    merchant_id: str,
    seed_id: str,
    size: Size,
    as_of: date,
    started_at: datetime,
    left_out: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the audience of customers who resemble a segment's members, and publish it.

    Args:
        lake: Holds facts, products and `gold.customer_segment_customer`.
        settings: Say where models are kept.
        merchant_id: Retailer.
        seed_id: The segment to resemble.
        size: How large.
        as_of: Only events before this day are looked at.
        started_at: When the run started, UTC.
        left_out: Segments whose members may not be in it, such as suppressions and holdouts; the seed's never are.
        without: Categories that define the seed and are not looked at.

    Returns:
        The row of `gold.lookalike_audience` that was written.

    Raises:
        SettingsError: for a retailer or segment that is not there, naming those that are.
        ModelError: for an empty or all-embracing seed, or too little history.
    """
    members = lake.read("gold.customer_segment_customer")
    known = _members_at(lake, members, merchant_id, (seed_id, *left_out))
    members = members.where(F.col(C.website_id) == F.lit(merchant_id))
    lines = read_purchase_lines(lake, merchant_id, as_of, TRAINING_CUSTOMERS)
    of_seed = members.where(F.col(C.segment_id) == F.lit(seed_id)).select(C.customer_key)
    sampled = keys_frame(lake, lines["customer_key"].to_numpy(np.int64))
    seed_keys = of_seed.join(sampled, on=C.customer_key, how="left_semi").toPandas()[C.customer_key].to_numpy(np.int64)
    model, expected = fit_audience(lines, day_number(as_of), seed_keys, without)
    audience_id = f"like_{seed_id}"
    version = register_version(
        ModelStore.of(settings),
        f"lookalike_{seed_id}",
        model,
        _training(model, expected, lake, merchant_id, seed_id, as_of, left_out, without),
        merchant_id=merchant_id,
        as_of=as_of,
        is_accepted=expected.auc["rank average"] > max(0.5, expected.auc["activity"]),
        reason=_reason(expected),
        predict=model.score,
        example=_example(model),
    )
    if version.status != "accepted":
        raise ModelError(f"Nothing was published: {version.reason}")
    barred = members.where(F.col(C.segment_id).isin([seed_id, *left_out])).select(C.customer_key).distinct()
    facts = lake.read("gold.fact_transactions").where(F.col(T.merchant_id) == F.lit(merchant_id))
    scored = score_audience(facts, lake.read("gold.dim_product"), model=model, as_of=as_of)
    candidates = scored.join(barred, on=C.customer_key, how="left_anti").select(
        F.lit(merchant_id).alias(M.merchant_id),
        F.lit(audience_id).alias(M.audience_id),
        M.customer_key,
        M.customer_id,
        F.lit(as_of).alias(M.as_of),
        M.score,
        M.probability,
        F.lit(version.label).alias(M.model_version),
    )
    slice_of = {str(M.merchant_id): merchant_id, str(M.audience_id): audience_id}
    is_its = (F.col(M.merchant_id) == F.lit(merchant_id)) & (F.col(M.audience_id) == F.lit(audience_id))
    # Written before they are counted and cut, so that Python scores each customer once.
    lake.write("gold.lookalike_candidate", candidates, slice_of=slice_of)
    kept = lake.read("gold.lookalike_candidate").where(is_its)
    total = kept.count()
    lake.write("gold.lookalike_member", _cut(kept, size, total), slice_of=slice_of)
    made = lake.read("gold.lookalike_member").where(is_its)
    customers, lowest = made.agg(F.count(F.lit(1)), F.min(M.score)).collect()[0]
    row = {
        L.merchant_id: merchant_id,
        L.audience_id: audience_id,
        L.seed_id: seed_id,
        L.left_out: list(left_out),
        L.without_categories: list(without),
        L.as_of: as_of,
        L.seed_customers: known[seed_id],
        L.customers: customers,
        L.min_score: lowest,
        L.expected_lift: expected.lift_of(customers / total) if total else 0.0,
        L.auc: expected.auc["rank average"],
        L.auc_of_activity: expected.auc["activity"],
        L.model_version: version.label,
        L.made_at: started_at,
    }
    write_rows(lake, "gold.lookalike_audience", [{str(k): v for k, v in row.items()}])
    return {str(k): v for k, v in row.items()}


def _members_at(lake: Lake, members: DataFrame, merchant_id: str, named: Sequence[str]) -> dict[str, int]:
    """How many members each segment of a retailer has, those named among them."""
    counted = members.groupBy(C.website_id, C.segment_id).count().collect()
    retailers = sorted({r[0] for r in counted})
    if merchant_id not in retailers:
        raise SettingsError(
            f"No segment has members at '{merchant_id}'; retailers with members are {', '.join(retailers) or 'none'}."
            f"{suggest(merchant_id, retailers)}"
        )
    found = {r[1]: r[2] for r in counted if r[0] == merchant_id}
    known = found.keys() | {r[0] for r in lake.read("gold.customer_segment").select("segment_id").collect()}
    for name in named:
        if name not in known:
            raise SettingsError(
                f"There is no segment '{name}'; those with members at {merchant_id} are {', '.join(sorted(found))}."
                f"{suggest(name, known)}"
            )
        if name not in found:
            raise ModelError(f"Segment '{name}' has no members at {merchant_id}.")
    return found


def score_audience(facts: DataFrame, products: DataFrame, *, model: AudienceModel, as_of: date) -> DataFrame:
    """Score every active customer of some facts: customer_key, customer_id, score, probability.

    Args:
        facts: `gold.fact_transactions` of one merchant.
        products: `gold.dim_product`.
        model: The seed's model.
        as_of: Only events before this day are looked at.
    """
    each = F.struct("item", "category", F.col("day").cast("bigint").alias("day"))
    bought = (
        purchase_lines(facts, products, as_of)
        .groupBy(T.customer_key, T.customer_id)
        .agg(F.collect_list(each).alias("b"))
    )
    return bought.mapInArrow(
        _scorer(model), "customer_key bigint, customer_id string, score double, probability double"
    )


def _scorer(model: AudienceModel) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            if not batch.num_rows:
                continue
            lists = batch.column("b")
            bought = lists.flatten()
            keys = batch.column("customer_key").to_numpy(zero_copy_only=False)
            lines = pd.DataFrame(
                {
                    "customer_key": np.repeat(keys, lists.value_lengths().to_numpy(zero_copy_only=False)),
                    "item": bought.field("item").to_pandas().astype("category"),
                    "category": bought.field("category").to_pandas(),
                    "day": bought.field("day").to_numpy(zero_copy_only=False),
                }
            )
            scores = model.score(lines)
            place = pd.Index(keys).get_indexer(scores["customer_key"])
            rows = batch.take(pa.array(place))
            yield pa.RecordBatch.from_pydict(
                {
                    "customer_key": rows.column("customer_key"),
                    "customer_id": rows.column("customer_id"),
                    "score": pa.array(scores["score"], pa.float64()),
                    "probability": pa.array(scores["probability"], pa.float64()),
                }
            )

    return score


def _cut(candidates: DataFrame, size: Size, total: int) -> DataFrame:
    if size.min_score is not None:
        return candidates.where(F.col("score") >= F.lit(size.min_score))
    wanted = size.customers if size.customers is not None else max(1, round((size.share or 0.0) * total))
    return candidates.orderBy(F.col("score").desc(), "customer_key").limit(wanted)


def _reason(expected: Expectation) -> str:
    auc = expected.auc
    best = max(("item affinity", "cosine", "activity"), key=lambda name: auc[name])
    against = f"AUC {auc['rank average']:.3f} on unseen customers; the best baseline, {best}, {auc[best]:.3f}"
    if auc["rank average"] > max(0.5, auc["activity"]):
        return f"Accepted: {against}."
    return f"Refused: members are told from others no better than by how active they are ({against})."


def _training(
    model: AudienceModel,
    expected: Expectation,
    lake: Lake,
    merchant_id: str,
    seed_id: str,
    as_of: date,
    left_out: Sequence[str],
    without: Sequence[str],
) -> Training:
    from models.plots import gain_curve, reliability_plot

    ratio = float(expected.probability.sum() / expected.is_seed.sum())
    card = [
        f"# Customers of {merchant_id} who resemble {seed_id}",
        "",
        _reason(expected),
        "",
        f"- **Made from**: what active customers bought before {as_of}; seed share {model.seed.share:.1%}.",
        "- **How**: mean of the ranks by a regression on 32 directions of tf-idf purchases, out of fold, and by one",
        "  model pooled over all categories of the period before.",
        f"- **Left out of the features**: {', '.join(without) or 'nothing'}. **Not in the audience**: the seed"
        + (f", {', '.join(left_out)}." if left_out else "."),
        "- **Lift** is of being like the seed, not of answering a campaign; only a test says what that brings.",
        "",
        "| ranked by | AUC |",
        "|---|---|",
        *[f"| {name} | {value:.3f} |" for name, value in expected.auc.items()],
        "",
        "| part of the customers | lift |",
        "|---|---|",
        *[f"| {part:.0%} | {value:.2f} |" for part, value in expected.lift.items()],
    ]
    return Training(
        params={
            "seed_id": seed_id,
            "left_out": ", ".join(left_out),
            "without": ", ".join(without),
            "pooled_pairs": model.pooled.pairs,
        },
        metrics={f"auc_{k.replace(' ', '_')}": v for k, v in expected.auc.items()}
        | {f"lift_{p:.0%}".replace("%", "pc"): v for p, v in expected.lift.items()}
        | {"predicted_to_actual": ratio},
        card="\n".join(card) + "\n",
        figures={
            "reliability.png": reliability_plot(expected.is_seed, expected.probability),
            "gain.png": gain_curve(expected.is_seed, {"audience": expected.probability}),
        },
        data_versions={n: lake.version(n) for n in ("gold.fact_transactions", "gold.customer_segment_customer")},
    )


def _example(model: AudienceModel) -> pd.DataFrame:
    vocabulary = model.space.vocabulary
    category = vocabulary.categories[int(vocabulary.category_of[0])]
    return pd.DataFrame(
        {"customer_key": [1, 2], "item": [vocabulary.items[0]] * 2, "category": category, "day": [model.day - 9] * 2}
    )
