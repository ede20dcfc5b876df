"""What customers will do next: buy at all, how often, for how much, and what that is worth. One model per retailer.

Whether a customer buys within the horizon is the mean of three opinions that err differently: BG/NBD, a logistic
regression and gradient boosting over look-back features. What they spend is the geometric mean of gradient boosting
and BG/NBD with Gamma-Gamma. All learn from several past days at once, with labels strictly after each.

The mean is not calibrated again: each member is fitted by likelihood, and a logistic calibration (Platt, 1999) on
customers the members had not seen made the Brier score of a later day worse at five of six cut-offs of two retailers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from lakehouse.errors import ModelError
from models.bgnbd import BgNbd
from models.gammagamma import GammaGamma
from models.histories import Histories
from models.population import Population, population_of
from models.rhythm import GROUPS, NAMES, log_features, rhythm_features

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

HORIZONS: Final = (30, 90, 180, 365)
"""Days ahead to choose from."""
MIN_ACTIVE: Final = 0.30
"""The shortest horizon in which this part of the customers buys is taken: shorter, and nearly all are labelled gone."""
CUT_OFFS: Final = 3
STEP_DAYS: Final = 30
MIN_HISTORY_DAYS: Final = 60
MIN_CUSTOMERS: Final = 300
MIN_OF_EACH: Final = 30
SEED: Final = 20_240_229
RISK_LEVELS: Final = ("low", "medium", "high", "critical")
RISK_EDGES: Final = (0.25, 0.5, 0.75)
MIN_EFFECT: Final = 0.02
"""A group of features is named as a factor when it raises the probability to leave by at least this."""
MONTHS: Final = 12


@dataclass(frozen=True)
class LifecycleModel:
    """A fitted model; what it needs to score is inside.

    Attributes:
        day: It has seen nothing of this day (days since 1970-01-01) or later.
        horizon: Days ahead it predicts.
        buying: BG/NBD in days.
        spending: Gamma-Gamma in merchant currency; None when spend does not vary.
        linear: Logistic regression of buying again.
        boosted: Gradient boosting of buying again.
        spender: Gradient boosting of spend.
        typical: Median of every feature, what a customer is compared with to name factors.
        rows: Customer and cut-off pairs it learnt from.
        annual_discount: Rate at which later spend counts less.
    """

    day: int
    horizon: int
    buying: BgNbd
    spending: GammaGamma | None
    linear: Pipeline
    boosted: HistGradientBoostingClassifier
    spender: HistGradientBoostingRegressor
    typical: tuple[float, ...]
    rows: int
    annual_discount: float = 0.1

    def score(self, histories: Histories, day: int) -> pd.DataFrame:
        """One row per customer who bought before a day.

        Args:
            histories: Purchase days; those of the day and later are not looked at.
            day: Days since 1970-01-01; not before the model's own day, or it would know what was still to come.

        Returns:
            customer_key; probability_active, churn_probability (not buying within the horizon), probability_alive;
            churn_risk_level; expected_purchases (purchase days) and expected_spend within the horizon; basket_value
            (expected spend per purchase day) and customer_lifetime_value (discounted spend of the next 12 months), in
            merchant currency, unknown where spend could not be modelled; churn_factors (up to three groups of
            features that raise the risk against the typical customer, strongest first; none at low risk).

        Raises:
            ModelError: for a day the model has already seen.
        """
        if day < self.day:
            raise ModelError("This model has seen later days than the one to score; train one for that day.")
        known = histories.before(day)
        features = rhythm_features(known, day, self.horizon, self.buying)
        with threadpool_limits(limits=1):
            active = self.probability_active(features)
            boosted_spend = self.spender.predict(features) if len(features) else np.empty(0)
        value = self._value(known, day)
        expected = np.sqrt(np.maximum(boosted_spend, 0.0) * value["spend"])
        level = np.array(RISK_LEVELS, dtype=object)[np.digitize(1 - active, RISK_EDGES)]
        return pd.DataFrame(
            {
                "customer_key": known.keys,
                "probability_active": active,
                "churn_probability": 1 - active,
                "probability_alive": features["probability_alive"].to_numpy(),
                "churn_risk_level": level,
                "expected_purchases": features["expected_purchases"].to_numpy(),
                "expected_spend": np.where(np.isnan(expected), np.maximum(boosted_spend, 0.0), expected),
                "basket_value": value["basket"],
                "customer_lifetime_value": value["year"],
                "churn_factors": self.factors(features, active),
            }
        )

    def probability_active(self, features: pd.DataFrame) -> NDArray[np.float64]:
        """Returns the mean of the three members' probabilities to buy within the horizon."""
        if not len(features):
            return np.empty(0)
        said = [
            features["probability_active"].to_numpy(np.float64),
            self.linear.predict_proba(features)[:, 1],
            self.boosted.predict_proba(features)[:, 1],
        ]
        return np.mean(said, axis=0)  # type: ignore[no-any-return]

    def factors(self, features: pd.DataFrame, active: NDArray[np.float64]) -> list[list[str]]:
        """What raises each customer's risk, by the logistic regression, in which parts add up.

        A group of features counts by how much the probability to leave would fall if the group were as typical.
        """
        found: list[list[str]] = [[] for _ in range(len(features))]
        at_risk = np.flatnonzero(1 - active >= RISK_EDGES[0])
        if not len(at_risk):
            return found
        theirs = self._log_odds_parts(features.iloc[at_risk])
        typical = self._log_odds_parts(pd.DataFrame([self.typical], columns=list(NAMES)))
        above = theirs - typical
        own = theirs.sum(axis=1) + float(self.linear[-1].intercept_[0])
        effects = np.empty((len(at_risk), len(GROUPS)))
        for i, names in enumerate(GROUPS.values()):
            without = own - above[:, [NAMES.index(n) for n in names]].sum(axis=1)
            effects[:, i] = expit(without) - expit(own)
        words = tuple(GROUPS)
        for row, order in zip(range(len(at_risk)), np.argsort(-effects, axis=1, kind="stable"), strict=True):
            found[at_risk[row]] = [words[i] for i in order[:3] if effects[row, i] >= MIN_EFFECT]
        return found

    def _log_odds_parts(self, features: pd.DataFrame) -> NDArray[np.float64]:
        parts: NDArray[np.float64] = self.linear[:-1].transform(features) * self.linear[-1].coef_[0]
        return parts

    def _value(self, known: Histories, day: int) -> dict[str, NDArray[np.float64]]:
        x, t_x, age = known.triples(day)
        unknown = np.full(len(known), np.nan)
        if self.spending is None:
            return {"basket": unknown, "year": unknown, "spend": unknown}
        visits = known.total((known.baskets > 0).astype(np.float64))
        basket = self.spending.expected_spend(visits, np.maximum(known.total(known.spend), 0.0) / visits)
        before, year = np.zeros(len(known)), np.zeros(len(known))
        for month in range(1, MONTHS + 1):
            until = self.buying.expected_purchases(month * 365 / MONTHS, x, t_x, age)
            year += (until - before) / (1 + self.annual_discount) ** (month / MONTHS)
            before = until
        return {
            "basket": basket,
            "year": basket * year,
            "spend": basket * self.buying.expected_purchases(self.horizon, x, t_x, age),
        }


def choose_horizon(histories: Histories, day: int) -> int:
    """Returns the shortest horizon in which at least 30 % of the customers known at its start bought again."""
    for horizon in HORIZONS:
        known = histories.before(day - horizon)
        if len(known):
            bought, _ = histories.before(day).outcome(known.keys, day - horizon, horizon)
            if float((bought > 0).mean()) >= MIN_ACTIVE:
                return horizon
    return HORIZONS[-1]


def cut_offs_of(day: int, horizon: int) -> list[int]:
    """Returns the days a model of a day learns at, newest first: each has its whole horizon before the day."""
    return [day - horizon - STEP_DAYS * i for i in range(CUT_OFFS)]


def fit_lifecycle(
    histories: Histories,
    day: int,
    *,
    horizon: int | None = None,
    cut_offs: Sequence[int] | None = None,
    populations: Mapping[int, Population] | None = None,
) -> LifecycleModel:
    """Fit on what lies before a day.

    Args:
        histories: Purchase days, of a sample of the customers where there are many; those of the day and later are not
            looked at.
        day: Days since 1970-01-01.
        horizon: Days ahead to predict; chosen from the data unless given.
        cut_offs: Days to learn at, each with its whole horizon before `day`; three, 30 days apart, unless given.
        populations: What was fitted on all customers as of a day, by day; fitted on the histories where it is lacking.

    Raises:
        ModelError: when there are fewer than 300 customers, too little history before any cut-off, (nearly) all of
            them or none of them bought again, or those who did paid nothing.
    """
    past = histories.before(day)
    if len(past) < MIN_CUSTOMERS:
        raise ModelError(f"Life cycle: {len(past)} customers have bought; a model needs {MIN_CUSTOMERS}.")
    ahead = horizon or choose_horizon(past, day)
    first = int(past.days.min())
    wanted = cut_offs or cut_offs_of(day, ahead)
    fitted = populations or {}
    chosen = [c for c in wanted if c - first >= MIN_HISTORY_DAYS and len(past.before(c)) >= MIN_CUSTOMERS // 2]
    if any(c + ahead > day for c in chosen):
        raise ModelError("Life cycle: a cut-off's horizon reaches past the day the model is for; it would leak.")
    if not chosen:
        raise ModelError(
            f"Life cycle: {day - first} days of history are too few to learn what follows within {ahead} days."
        )
    parts = [_learn_at(past, c, ahead, fitted.get(c) or population_of(past, c)) for c in chosen]
    features = pd.concat([p[0] for p in parts], ignore_index=True)
    bought, spend = (np.concatenate([p[i] for p in parts]) for i in (1, 2))
    if min(bought.sum(), (~bought).sum()) < MIN_OF_EACH:
        raise ModelError(
            f"Life cycle: {int(bought.sum())} of {len(bought)} bought again within {ahead} days; a model needs "
            f"{MIN_OF_EACH} who did and {MIN_OF_EACH} who did not."
        )
    if not spend.any():
        raise ModelError(f"Life cycle: nobody paid more within {ahead} days than came back, so spend teaches nothing.")
    population = fitted.get(day) or population_of(past, day)
    # Trees cannot divide a column in which nothing is known; one value throughout they leave alone.
    known = features.fillna({name: 0.0 for name in NAMES if features[name].isna().all()})
    with threadpool_limits(limits=1):
        linear, boosted = _fit_members(features, known, bought)
        # The few largest buyers would decide alone what the trees learn; where next to nobody buys, those among them.
        cap = max(np.quantile(spend, 0.995), np.quantile(spend[spend > 0], 0.9))
        spender = HistGradientBoostingRegressor(loss="poisson", **_TREES).fit(known, np.minimum(spend, cap))
    return LifecycleModel(
        day=day,
        horizon=ahead,
        buying=population.buying,
        spending=population.spending,
        linear=linear,
        boosted=boosted,
        spender=spender,
        typical=tuple(float(v) for v in features.median()),
        rows=len(features),
    )


# Early stopping is said, because scikit-learn turns it on by itself beyond 10,000 rows.
_TREES: Final[dict[str, Any]] = {
    "max_iter": 120,
    "learning_rate": 0.04,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 60,
    "l2_regularization": 5.0,
    "max_features": 0.4,
    "early_stopping": False,
    "random_state": SEED,
}


def _learn_at(
    past: Histories, cut_off: int, horizon: int, population: Population
) -> tuple[pd.DataFrame, NDArray[np.bool_], NDArray[np.float64]]:
    known = past.before(cut_off)
    features = rhythm_features(known, cut_off, horizon, population.buying)
    bought, spend = past.outcome(known.keys, cut_off, horizon)
    return features, bought > 0, np.maximum(spend, 0.0)


def _fit_members(
    features: pd.DataFrame, known: pd.DataFrame, bought: NDArray[np.bool_]
) -> tuple[Pipeline, HistGradientBoostingClassifier]:
    linear = make_pipeline(
        FunctionTransformer(log_features), StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
    ).fit(features, bought)
    return linear, HistGradientBoostingClassifier(**_TREES).fit(known, bought)
