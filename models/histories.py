"""Purchase days of customers as flat arrays, cut at any past day: what life-cycle models learn from and score.

One frame of purchase days serves every cut-off: features of a past day are made from what lies before it, labels from
what lies after, and nothing else is ever read, so a model cannot see a day it should not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np

from lakehouse.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

EPOCH: Final = date(1970, 1, 1).toordinal()


def day_number(day: date) -> int:
    """Returns days since 1970-01-01, as histories count them."""
    return day.toordinal() - EPOCH


def finite(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the values, 0 for unknown ones.

    Raises:
        ModelError: for infinite ones.
    """
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ModelError(
            f"Purchase days: {name} is infinite on {infinite} of {len(values)}; a model cannot learn from that."
        )
    return np.nan_to_num(values, nan=0.0)


@dataclass(frozen=True)
class Histories:
    """Purchase days of n customers, flattened; those of customer i are `starts[i]:starts[i + 1]`, oldest first.

    Attributes:
        keys: Customer key of each customer.
        starts: n + 1 positions.
        days: Per purchase day, days since 1970-01-01.
        baskets: Baskets bought that day; 0 for a day with returns only.
        spend: Paid that day less what was given back that day, merchant currency.
    """

    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    days: NDArray[np.int64]
    baskets: NDArray[np.float64]
    spend: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Position of the customer of each purchase day."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Histories:
        """Returns the histories of rows customer_key, day (days since 1970-01-01), baskets, spend, in any order.

        A day whose spend is unknown counts as a day on which nothing was paid.

        Raises:
            ModelError: for infinite baskets or spend.
        """
        ordered = frame.sort_values(["customer_key", "day"], kind="stable")
        keys, first = np.unique(ordered["customer_key"].to_numpy(np.int64), return_index=True)
        return cls(
            keys,
            np.append(first, len(ordered)).astype(np.int64),
            ordered["day"].to_numpy(np.int64),
            finite("baskets", ordered["baskets"].to_numpy(np.float64)),
            finite("spend", ordered["spend"].to_numpy(np.float64)),
        )

    def before(self, day: int) -> Histories:
        """Returns what was known at the start of a day: days before it, of customers who had bought by then."""
        return self._where(self.days < day).buyers()

    def buyers(self) -> Histories:
        """Returns the customers with at least one purchase; a customer with returns only is none."""
        bought = self.total(self.baskets) > 0
        return self._where(bought[self.owner], bought)

    def total(self, values: NDArray[np.float64], when: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Returns per customer the sum of a value per purchase day, of the days where `when` holds."""
        counted = values if when is None else np.where(when, values, 0.0)
        return np.bincount(self.owner, weights=counted, minlength=len(self))

    def outcome(self, keys: NDArray[np.int64], day: int, horizon: int) -> tuple[NDArray[np.float64], ...]:
        """Returns purchase days and spend of given customers in [day, day + horizon); 0 for one without any."""
        window = (self.days >= day) & (self.days < day + horizon)
        bought = self.total((self.baskets > 0).astype(np.float64), window)
        spend = self.total(self.spend, window)
        if not len(self):
            return np.zeros(len(keys)), np.zeros(len(keys))
        place = np.clip(np.searchsorted(self.keys, keys), 0, len(self) - 1)
        is_known = self.keys[place] == keys
        return np.where(is_known, bought[place], 0.0), np.where(is_known, spend[place], 0.0)

    def triples(self, day: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Returns x, t_x and T in days at a day, as BG/NBD counts them; every customer must have bought before it."""
        bought = self.baskets > 0
        owner = self.owner[bought]
        x = np.bincount(owner, minlength=len(self)) - 1.0
        first = np.full(len(self), np.iinfo(np.int64).max)
        last = np.full(len(self), np.iinfo(np.int64).min)
        np.minimum.at(first, owner, self.days[bought])
        np.maximum.at(last, owner, self.days[bought])
        return x, (last - first).astype(np.float64), (day - first).astype(np.float64)

    def _where(self, kept: NDArray[np.bool_], customers: NDArray[np.bool_] | None = None) -> Histories:
        counts = np.bincount(self.owner[kept], minlength=len(self))
        stays = counts > 0 if customers is None else customers
        starts = np.concatenate(([0], np.cumsum(counts[stays])))
        return Histories(self.keys[stays], starts, self.days[kept], self.baskets[kept], self.spend[kept])
