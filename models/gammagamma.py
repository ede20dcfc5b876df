"""Gamma-Gamma: what a customer spends per purchase, shrunk towards everyone's mean by how little is known of them.

Fader and Hardie, "The Gamma-Gamma Model of Monetary Value" (2013). Spend per purchase is gamma around a customer's own
mean, and that mean is spread over customers; it is taken to be independent of how often they buy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln

from lakehouse.errors import ModelError
from models.bgnbd import BOUNDS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MIN_CUSTOMERS: Final = 30
HIGH_CORRELATION: Final = 0.3
"""Of purchases and spend, above which the model's independence is a poor fiction."""


@dataclass(frozen=True)
class GammaGamma:
    """A fitted model; money is in the unit of the data.

    Attributes:
        p: Shape of spend around a customer's mean.
        q: Shape of the spread of means over customers.
        gamma: Its scale, in money.
        correlation: Of purchases and mean spend in the data; the model takes it to be 0.
        customers: Customers it was fitted on.
        warnings: What a reader must know.
    """

    p: float
    q: float
    gamma: float
    correlation: float
    customers: int
    warnings: tuple[str, ...] = ()

    def expected_spend(self, purchases: ArrayLike, mean_spend: ArrayLike) -> NDArray[np.float64]:
        """Expected spend per purchase, equation (5).

        Args:
            purchases: Purchases the mean is of; 0 gives the population mean.
            mean_spend: Their mean spend; ignored where there is none.
        """
        n = np.asarray(purchases, dtype=np.float64)
        paid = np.where(n > 0, np.asarray(mean_spend, dtype=np.float64) * n, 0.0)
        shape = self.p * n + self.q - 1
        expected: NDArray[np.float64] = self.p * (self.gamma + paid) / np.where(shape > 0, shape, np.nan)
        return expected


def fit_gammagamma(purchases: ArrayLike, mean_spend: ArrayLike, counts: ArrayLike | None = None) -> GammaGamma:
    """Fit by maximum likelihood on customers with a purchase and a positive mean; others are left out.

    Args:
        purchases: Purchases the mean is of. The literature uses repeat purchases.
        mean_spend: Mean spend of them.
        counts: Customers with each pair; one each unless given.

    Raises:
        ModelError: for fewer than 30 usable customers, infinite values, or spend that does not vary.
    """
    n = np.atleast_1d(np.asarray(purchases, dtype=np.float64))
    m = np.atleast_1d(np.asarray(mean_spend, dtype=np.float64))
    w = np.ones(len(n)) if counts is None else np.atleast_1d(np.asarray(counts, dtype=np.float64))
    if not len(n) == len(m) == len(w):
        raise ModelError(f"Gamma-Gamma: purchases, spend and counts differ in length: {len(n)}, {len(m)}, {len(w)}.")
    if np.isinf(n).any() or np.isinf(m).any():
        raise ModelError("Gamma-Gamma: purchases or spend are infinite for some customers.")
    usable = (n > 0) & (m > 0)  # not true of unknown either
    n, m, w = n[usable], m[usable], w[usable]
    if w.sum() < MIN_CUSTOMERS:
        raise ModelError(f"Gamma-Gamma: {int(w.sum())} customers with paid purchases; a fit needs {MIN_CUSTOMERS}.")
    if np.ptp(m) <= 1e-9 * m.max():
        raise ModelError("Gamma-Gamma: every customer spends the same, so there is nothing to learn.")
    unit = float(np.average(m, weights=w))
    best = None
    for start in ((1.0, 1.0, 0.0), (0.0, 0.5, 1.0)):
        point = np.array(start)
        for _ in range(2):
            found = minimize(
                _mean,
                point,
                args=(n, m / unit, w),
                method="L-BFGS-B",
                jac="3-point",
                bounds=[BOUNDS] * 3,
                options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9},
            )
            point = found.x
        if np.isfinite(found.fun) and (best is None or found.fun < best.fun):
            best = found
    if best is None:
        raise ModelError("Gamma-Gamma: no start of the search gave a finite likelihood; look for extreme spend.")
    p, q, gamma = (float(v) for v in np.exp(best.x))
    mean_n, mean_m = np.average(n, weights=w), np.average(m, weights=w)
    spread = np.average((n - mean_n) ** 2, weights=w) * np.average((m - mean_m) ** 2, weights=w)
    together = np.average((n - mean_n) * (m - mean_m), weights=w)
    correlation = float(together / np.sqrt(spread)) if spread > 0 else 0.0
    warnings = []
    if abs(correlation) > HIGH_CORRELATION:
        warnings.append(f"purchases and spend correlate by {correlation:.2f}; the model takes them to be independent")
    if q <= 1:
        warnings.append("q is at most 1: the population has no mean, so one-time buyers have no expected spend")
    return GammaGamma(p, q, gamma * unit, correlation, int(w.sum()), tuple(warnings))


def _mean(logs: NDArray[np.float64], n: NDArray[np.float64], m: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """Mean negative log likelihood per customer, equation (1a)."""
    p, q, gamma = np.exp(logs)
    log_l = (
        gammaln(p * n + q)
        - gammaln(p * n)
        - gammaln(q)
        + q * np.log(gamma)
        + (p * n - 1) * np.log(m)
        + p * n * np.log(n)
        - (p * n + q) * np.log(gamma + m * n)
    )
    return float(-np.sum(w * log_l) / w.sum())
