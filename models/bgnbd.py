"""BG/NBD: how often customers buy, and whether they still do.

While active, a customer buys at a rate of their own and may drop out for good after any purchase. Fader, Hardie and
Lee, "Counting Your Customers the Easy Way" (2005); section numbers of formulas refer to it. Fitted by maximum
likelihood over distinct (x, t_x, T) with their counts, so ten million customers cost what their distinct triples cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1, psi

from lakehouse.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BOUNDS: Final = (-8.0, 12.0)
"""Of the logarithm of each parameter. Without bounds a set of customers who never drop out sends b to infinity and the
likelihood to nonsense."""
MIN_CUSTOMERS: Final = 50


@dataclass(frozen=True)
class BgNbd:
    """A fitted model; times are in the unit of the data it was fitted on.

    Attributes:
        r: Shape of the gamma of purchase rates.
        alpha: Its rate, in units of time.
        a: First parameter of the beta of drop-out probabilities.
        b: Second.
        log_likelihood: Of the data at the fit, in the data's unit of time.
        customers: Customers it was fitted on.
        warnings: What a reader must know, such as a parameter at its bound.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float
    customers: int
    warnings: tuple[str, ...] = ()

    def probability_alive(self, x: ArrayLike, t_x: ArrayLike, age: ArrayLike) -> NDArray[np.float64]:
        """Probability that a customer has not dropped out; 1 by construction for one who bought once.

        Args:
            x: Repeat purchases (purchase days after the first).
            t_x: Time of the last of them since the first purchase; 0 when there is none.
            age: Time since the first purchase.
        """
        return 1 / (1 + self._dropped_odds(*_arrays(x, t_x, age)))

    def probability_active(self, horizon: float, x: ArrayLike, t_x: ArrayLike, age: ArrayLike) -> NDArray[np.float64]:
        """Probability of at least one purchase in the next `horizon`.

        Alive, a customer's rate is gamma with shape r + x and rate alpha + T, and dropping out needs a purchase, so
        only the wait for the first one counts.
        """
        xs, _, ages = _arrays(x, t_x, age)
        buys = -np.expm1((self.r + xs) * np.log1p(-horizon / (self.alpha + ages + horizon)))
        active: NDArray[np.float64] = self.probability_alive(x, t_x, age) * buys
        return active

    def expected_purchases(self, horizon: float, x: ArrayLike, t_x: ArrayLike, age: ArrayLike) -> NDArray[np.float64]:
        """Expected purchases in the next `horizon`, equation (10)."""
        xs, ts, ages = _arrays(x, t_x, age)
        a = self.a if abs(self.a - 1) > 1e-6 else 1 + 1e-6  # the formula has a removable hole at 1
        z = horizon / (self.alpha + ages + horizon)
        # The paper's power times its series, by Euler's transformation: as written they under- and overflow for
        # customers with hundreds of purchases.
        with np.errstate(all="ignore"):
            stays = np.exp((a - 1) * np.log1p(-z)) * hyp2f1(a + self.b - 1 - self.r, a - 1, a + self.b + xs - 1, z)
            expected = (a + self.b + xs - 1) / (a - 1) * (1 - stays) / (1 + self._dropped_odds(xs, ts, ages))
        # The series has no finite value where b or r is in the tens of thousands, which is where hardly anyone leaves;
        # then the expectation is that of a customer who stays.
        staying = self.probability_alive(x, t_x, age) * horizon * (self.r + xs) / (self.alpha + ages)
        # Rounding in a difference of nearly equal numbers may fall below nothing.
        return np.where(np.isfinite(expected), np.maximum(expected, 0.0), staying)

    def _dropped_odds(
        self, x: NDArray[np.float64], t_x: NDArray[np.float64], age: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        repeat = x > 0
        log_ratio = (self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + t_x))
        odds = np.exp(np.minimum(np.log(self.a) - np.log(self.b + np.maximum(x, 1) - 1) + log_ratio, 700.0))
        return np.where(repeat, odds, 0.0)


def fit_bgnbd(x: ArrayLike, t_x: ArrayLike, age: ArrayLike, counts: ArrayLike | None = None) -> BgNbd:
    """Fit by maximum likelihood.

    Args:
        x: Repeat purchases per distinct triple, whole and not negative.
        t_x: Time of the last of them since the first purchase.
        age: Time since the first purchase, same unit.
        counts: Customers with each triple; one each unless given.

    Raises:
        ModelError: for fewer than 50 customers, unknown, infinite or contradictory values, when nobody bought twice,
            and when no start gives a finite fit.
    """
    xs, ts, ages, n = _checked(x, t_x, age, counts)
    unit = float(np.average(ages, weights=n)) / 10  # parameters near 1 whatever the unit of time is
    best = None
    for start in ((0.0, 0.0, 0.0, 1.0), (-1.0, 0.5, -1.0, 2.0)):
        found = minimize(
            _negative_log_likelihood,
            np.array(start),
            args=(xs, ts / unit, ages / unit, n),
            jac=True,
            method="L-BFGS-B",
            bounds=[BOUNDS] * 4,
            options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-8},
        )
        if np.isfinite(found.fun) and (best is None or found.fun < best.fun):
            best = found
        if best is not None and best.success and np.all(np.abs(best.x) < BOUNDS[1] / 2):
            break  # a second start is for a search that went astray
    if best is None:
        raise ModelError("BG/NBD: no start of the search gave a finite likelihood; look for extreme values in T and x.")
    r, alpha, a, b = np.exp(best.x)
    # Changing the unit of time multiplies the density of every purchase time.
    log_likelihood = -best.fun * n.sum() - float(np.sum(n * xs)) * np.log(unit)
    names = ("r", "alpha", "a", "b")
    warnings = [
        f"{name} is at its bound; the data do not determine it"
        for name, value in zip(names, best.x, strict=True)
        if min(value - BOUNDS[0], BOUNDS[1] - value) < 0.01
    ]
    if a / (a + b) < 0.01:
        warnings.append("customers hardly ever drop out (mean probability below 0.01); P(alive) says little")
    return BgNbd(
        float(r), float(alpha * unit), float(a), float(b), float(log_likelihood), int(n.sum()), tuple(warnings)
    )


def _negative_log_likelihood(
    logs: NDArray[np.float64],
    x: NDArray[np.float64],
    t_x: NDArray[np.float64],
    age: NDArray[np.float64],
    n: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64]]:
    """Mean negative log likelihood per customer, equation (6), and its gradient by the logarithms."""
    r, alpha, a, b = np.exp(logs)
    earlier = np.maximum(x, 1) - 1
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) - betaln(a, b)
    log_age, log_last = np.log(alpha + age), np.log(alpha + t_x)
    survived = betaln(a, b + x) - (r + x) * log_age
    dropped = np.where(x > 0, betaln(a + 1, b + earlier) - (r + x) * log_last, -np.inf)
    log_l = np.logaddexp(survived, dropped)
    alive, gone = np.exp(survived - log_l), np.exp(dropped - log_l)  # parts of the likelihood
    everyone = psi(a + b) - psi(a + b + x)
    slopes = (
        psi(r + x) - psi(r) + np.log(alpha) - alive * log_age - gone * log_last,
        r / alpha - (r + x) * (alive / (alpha + age) + gone / (alpha + t_x)),
        gone / a + everyone,  # psi(a + 1) is psi(a) + 1 / a
        alive * psi(b + x) + gone * psi(b + earlier) - psi(b) + everyone,
    )
    weight = n / n.sum()
    gradient = np.array([-p * float(np.sum(weight * s)) for p, s in zip((r, alpha, a, b), slopes, strict=True)])
    return -float(np.sum(weight * (common + log_l))), gradient


def _checked(
    x: ArrayLike, t_x: ArrayLike, age: ArrayLike, counts: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    xs, ts, ages = _arrays(x, t_x, age)
    n = np.ones(len(xs)) if counts is None else np.asarray(counts, dtype=np.float64)
    if not len(xs) == len(ts) == len(ages) == len(n):
        raise ModelError(f"BG/NBD: x, t_x, T and counts differ in length: {len(xs)}, {len(ts)}, {len(ages)}, {len(n)}.")
    for name, values in {"x": xs, "t_x": ts, "T": ages, "counts": n}.items():
        if not np.isfinite(values).all():
            raise ModelError(f"BG/NBD: {name} has {int((~np.isfinite(values)).sum())} unknown or infinite values.")
    if n.sum() < MIN_CUSTOMERS:
        raise ModelError(f"BG/NBD: {int(n.sum())} customers; a fit needs {MIN_CUSTOMERS}.")
    wrong = (xs < 0) | (xs != np.floor(xs)) | (ts < 0) | (ts > ages) | (n < 0) | ((xs == 0) & (ts > 0))
    if wrong.any():
        raise ModelError(
            f"BG/NBD: {int(wrong.sum())} rows contradict themselves; x must be whole, 0 <= t_x <= T, and t_x = 0 "
            "without a repeat purchase."
        )
    if not np.any(n[xs > 0] > 0):
        raise ModelError("BG/NBD: nobody bought twice, so there is no rate to learn.")
    return xs, ts, ages, n


def _arrays(*values: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    return tuple(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in values)
