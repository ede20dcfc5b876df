"""Training of life-cycle models when it is due: read, fit, try, log, register."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from pyspark.sql import functions as F

from lakehouse.errors import ModelError
from lakehouse.lake import Lake
from lakehouse.logs import get_logger
from lakehouse.settings import Settings
from lakehouse.tables.gold import FactTransactions as T
from models.cells import collapse_customers
from models.gate import Verdict, try_lifecycle
from models.histories import Histories, day_number
from models.lifecycle import (
    CUT_OFFS,
    MIN_CUSTOMERS,
    SEED,
    LifecycleModel,
    choose_horizon,
    cut_offs_of,
    fit_lifecycle,
)
from models.outlook import Outlook
from models.population import UNIT_DAYS, Population, fit_cells
from models.purchase_days import purchase_days
from models.rhythm import NAMES
from models.sampling import read_purchase_days
from models.store import (
    OUTLOOK,
    ModelStore,
    Training,
    Version,
    champion_for,
    is_due,
    load_if_readable,
    load_model,
    log_attempt,
    register_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KIND: Final = OUTLOOK

log = get_logger(__name__)


def outlook_models(
    lake: Lake,
    settings: Settings,
    *,
    as_of: date,
    retrain: bool = False,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Outlook]:
    """Returns the champion of every merchant with enough customers, training where one is due.

    It is due when asked for, when none was tried, and when the last attempt is 30 days old and the champion a horizon:
    only then are there days it has not seen to compare on.

    Args:
        lake: Holds `gold.fact_transactions`.
        settings: Say where models are kept.
        as_of: The day to score; models that have seen it are not used.
        retrain: Train every merchant's model now.
        told: Called with what happens to each merchant's model.
    """
    store = ModelStore.of(settings)
    facts = lake.read("gold.fact_transactions")
    is_known = F.col(T.customer_key).isNotNull() & (F.col(T.business_date) < F.lit(as_of))
    counted = facts.where(is_known).groupBy(T.merchant_id).agg(F.approx_count_distinct(T.customer_key).alias("n"))
    found: dict[str, Outlook] = {}
    for merchant_id, customers in sorted((r[0], r["n"]) for r in counted.collect()):
        if customers < 0.9 * MIN_CUSTOMERS:  # the count is approximate; the fit looks again
            continue
        if retrain or is_due(store, KIND, merchant_id, as_of, lambda v: int(load_model(store, v).horizon)):
            told(f"{merchant_id}: training")
            try:
                version = train_outlook(lake, settings, as_of=as_of, merchant_id=merchant_id)
                told(f"{merchant_id}: {version.reason}")
            except ModelError as e:
                log.info("no outlook model", extra={"merchant_id": merchant_id, "reason": str(e)})
                told(f"{merchant_id}: {e}")
                log_attempt(store, KIND, merchant_id=merchant_id, as_of=as_of, reason=str(e))
        champion = champion_for(store, KIND, merchant_id, as_of)
        if champion is not None:
            found[merchant_id] = Outlook(merchant_id, champion.label, load_model(store, champion))
    return found


def train_outlook(lake: Lake, settings: Settings, *, as_of: date, merchant_id: str) -> Version:
    """Train, try and register a merchant's model; the gate decides whether it becomes champion.

    Args:
        lake: Holds `gold.fact_transactions`.
        settings: Say where models are kept.
        as_of: It learns from what lies before this day only.
        merchant_id: Retailer.

    Raises:
        ModelError: when the data teach nothing; the reason is in the message.
    """
    store = ModelStore.of(settings)
    day = day_number(as_of)
    histories = Histories.of(read_purchase_days(lake, merchant_id, as_of))
    horizon = choose_horizon(histories.before(day), day)
    populations = read_populations(lake, merchant_id, as_of, horizon)
    model = fit_lifecycle(histories, day, horizon=horizon, populations=populations)
    champion = champion_for(store, KIND, merchant_id, as_of)
    verdict = try_lifecycle(histories, model, load_if_readable(store, champion), populations)
    training = Training(
        params=_params(model),
        metrics=_metrics(verdict),
        card=describe_outlook(model, verdict, merchant_id, as_of),
        figures=_figures(verdict),
        data_versions={"gold.fact_transactions": lake.version("gold.fact_transactions")},
    )
    example = pd.DataFrame({"customer_key": [1, 1, 2], "day": [10, 40, 45], "baskets": [1.0] * 3, "spend": [9.0] * 3})
    shifted = example.assign(day=example["day"] + model.day - 50)
    return register_version(
        store,
        KIND,
        model,
        training,
        merchant_id=merchant_id,
        as_of=as_of,
        is_accepted=verdict.is_accepted,
        reason=verdict.reason,
        predict=lambda days: model.score(Histories.of(days), model.day).drop(columns="churn_factors"),
        example=shifted,
    )


def read_populations(lake: Lake, merchant_id: str, as_of: date, horizon: int) -> Mapping[int, Population]:
    """What was fitted on all customers of a merchant, as of every day a model of `as_of` and its trial learn at."""
    day = day_number(as_of)
    start = day - horizon  # of the trial
    wanted = sorted({day, start, *cut_offs_of(day, horizon), *cut_offs_of(start, horizon)})
    facts = lake.read("gold.fact_transactions").where(F.col(T.merchant_id) == F.lit(merchant_id))
    return fit_cells(collapse_customers(purchase_days(facts, as_of), wanted).toPandas())


def describe_outlook(model: LifecycleModel, verdict: Verdict, merchant_id: str, as_of: date) -> str:
    """Returns what the model is, what it was made from, how it did and what it is not for, as Markdown."""
    t, b, bg = verdict.trial, verdict.baseline, model.buying
    spending = model.spending
    value = (
        f"p {spending.p:.3f}, q {spending.q:.3f}, gamma {spending.gamma:.2f}; correlation of purchases and spend "
        f"{spending.correlation:+.2f}"
        if spending
        else "spend does not vary, so value is unknown"
    )
    warnings = [*bg.warnings, *(spending.warnings if spending else ())]
    lines = [
        f"# What customers of {merchant_id} will do next",
        "",
        verdict.reason,
        "",
        f"- **Predicts**: buying within {model.horizon} days, purchase days, spend, and the value of 12 months.",
        f"- **Made from**: purchase days before {as_of}; {model.rows:,} pairs of customer and past day.",
        "- **How**: mean of BG/NBD, logistic regression and gradient boosting; spend by gradient boosting and",
        "  BG/NBD with Gamma-Gamma. Returns count on the day they were made.",
        f"- **BG/NBD** on all {bg.customers:,} customers, days: r {bg.r:.4f}, alpha {bg.alpha:.3f}, a {bg.a:.4f},",
        f"  b {bg.b:.3f}.",
        f"- **Gamma-Gamma**: {value}.",
        f"- **Tried on** the {model.horizon} days before {as_of}, by the same recipe trained without them.",
        "- **Not for**: seasons it has not seen a year ago, one customer's certainty, or deciding on a person.",
        *[f"- **Beware**: {w}." for w in warnings],
        "",
        "| | AUC | Brier | predicted / actual | top-decile share of spend |",
        "|---|---|---|---|---|",
        f"| this recipe | {t.auc:.3f} | {t.brier:.3f} | {t.predicted_to_actual:.2f} | {t.top_decile_share:.3f} |",
        f"| R + F + M sum | {b.auc:.3f} | | | {b.top_decile_share:.3f} |",
        f"| base rate, perfect ranking | | {t.brier_of_base:.3f} | 1.00 | {t.top_decile_perfect:.3f} |",
    ]
    return "\n".join(lines) + "\n"


def _params(model: LifecycleModel) -> dict[str, Any]:
    return {
        "horizon_days": model.horizon,
        "cut_offs": CUT_OFFS,
        "seed": SEED,
        "rows": model.rows,
        "bgnbd_customers": model.buying.customers,
        "bgnbd_unit_days": UNIT_DAYS,
        "features": ", ".join(NAMES),
        **{f"bgnbd_{name}": getattr(model.buying, name) for name in ("r", "alpha", "a", "b")},
    }


def _metrics(verdict: Verdict) -> dict[str, float]:
    t, b = verdict.trial, verdict.baseline
    found = {
        "auc": t.auc,
        "auc_of_rfm_sum": b.auc,
        "auc_gain": verdict.gain[0],
        "auc_gain_se": verdict.gain[1],
        "brier": t.brier or 0.0,
        "brier_of_base_rate": t.brier_of_base,
        "predicted_to_actual": t.predicted_to_actual or 0.0,
        "top_decile_share": t.top_decile_share,
        "top_decile_share_of_rfm_sum": b.top_decile_share,
        "score_drift": verdict.score_drift,
        "purchases_predicted_to_actual": verdict.purchases_ratio,
    }
    for name, gain in (("auc", verdict.over_champion), ("brier", verdict.truer_than_champion)):
        if gain is not None:
            found |= {f"{name}_over_champion": gain[0], f"{name}_over_champion_se": gain[1]}
    return found


def _figures(verdict: Verdict) -> dict[str, Any]:
    from models.plots import gain_curve, reliability_plot

    did, probability = verdict.observed
    return {
        "reliability.png": reliability_plot(did, probability),  # type: ignore[arg-type]
        "gain.png": gain_curve(did, {"this model": probability}),  # type: ignore[arg-type, dict-item]
    }
