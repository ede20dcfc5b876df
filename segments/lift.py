"""What a treatment changed: treated against control, with an interval, and whether the split itself can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.errors import SettingsError


@dataclass(frozen=True)
class Lift:
    """Difference between a treated and a control group.

    Attributes:
        treated: Mean (or rate) of the treated.
        control: Mean (or rate) of the control.
        difference: treated - control.
        low: Lower end of the interval of the difference.
        high: Upper end.
        relative: difference / control; None where the control's is not above 0, for a part of it has no sign then.
        statistic: z of a rate, t of a mean.
        p_value: Two-sided.
    """

    treated: float
    control: float
    difference: float
    low: float
    high: float
    relative: float | None
    statistic: float
    p_value: float


@dataclass(frozen=True)
class RatioCheck:
    """Whether the arms have the sizes they were meant to have.

    Attributes:
        p_value: How likely sizes this far off are when the split is right.
        is_suspect: Whether that is below the limit; a lift measured on such a split means nothing.
    """

    p_value: float
    is_suspect: bool


def lift_of_rates(treated: tuple[int, int], control: tuple[int, int], *, confidence: float = 0.95) -> Lift:
    """Lift of a rate, such as visits per customer who was sent an e-mail.

    Args:
        treated: Customers who did, and customers.
        control: The same of the control.
        confidence: Of the interval.

    Source: two-proportion z test with pooled variance; Wald interval (statsmodels).

    Raises:
        SettingsError: A group is empty, or more did than there are; or the confidence is none.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

    _check_confidence(confidence)
    for did, n in (treated, control):
        if n <= 0 or not 0 <= did <= n:
            raise SettingsError(f"{did} of {n} customers is no rate")
    (a, n), (b, m) = treated, control
    low, high = confint_proportions_2indep(a, n, b, m, method="wald", compare="diff", alpha=1 - confidence)
    is_flat = a + b in (0, n + m)  # nobody or everybody did: no variance to test with
    z, p = (0.0, 1.0) if is_flat else proportions_ztest([a, b], [n, m])
    return _lift(a / n, b / m, low, high, z, p)


def lift_of_means(
    treated: tuple[int, float, float], control: tuple[int, float, float], *, confidence: float = 0.95
) -> Lift:
    """Lift of a mean, such as spend per customer.

    Args:
        treated: Customers, mean, and sample variance (divisor n - 1).
        control: The same of the control.
        confidence: Of the interval.

    Source: Welch (1947), unequal variances, degrees of freedom of Satterthwaite.

    Raises:
        SettingsError: A group has fewer than two customers; or the confidence is none.
    """
    from scipy import stats

    _check_confidence(confidence)
    (n, mean, variance), (m, other, other_variance) = treated, control
    if min(n, m) < 2:
        raise SettingsError("a mean needs two customers in either group to have a variance")
    parts = variance / n, other_variance / m
    error = math.sqrt(sum(parts))
    if error == 0:
        same = mean == other
        t = 0.0 if same else math.copysign(math.inf, mean - other)
        return _lift(mean, other, mean - other, mean - other, t, float(same))
    df = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    t = (mean - other) / error
    reach = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(t), df))
    return _lift(mean, other, mean - other - reach, mean - other + reach, t, p)


def check_sample_ratio(
    sizes: Mapping[str, int], shares: Mapping[str, float] | None = None, *, limit: float = 0.001
) -> RatioCheck:
    """Compare the sizes of arms with the shares they were assigned by.

    Args:
        sizes: Customers per arm.
        shares: Share per arm; equal unless given.
        limit: Probability below which the split is suspect. 0.001 is usual: the check is made often.

    Source: Pearson's chi-square test of goodness of fit.

    Raises:
        SettingsError: Arms and shares differ, or there is nobody.
    """
    from scipy import stats

    meant = dict(shares) if shares is not None else dict.fromkeys(sizes, 1 / max(len(sizes), 1))
    total = sum(sizes.values())
    if set(meant) != set(sizes) or total <= 0 or len(sizes) < 2 or min(meant.values()) <= 0:
        raise SettingsError(f"sizes of arms {dict(sizes)} do not fit their shares {meant}")
    whole = sum(meant.values())
    _, p = stats.chisquare([sizes[a] for a in meant], [total * s / whole for s in meant.values()])
    return RatioCheck(float(p), bool(p < limit))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise SettingsError(f"a confidence lies between 0 and 1, such as 0.95, and is not {confidence}")


def _lift(treated: float, control: float, low: float, high: float, statistic: float, p: float) -> Lift:
    difference = treated - control
    relative = difference / control if control > 0 else None
    return Lift(treated, control, difference, float(low), float(high), relative, float(statistic), float(p))
