"""What customers bought, as sparse counts, and the space their purchases span: the inputs of lookalike models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lakehouse.errors import ModelError
from models.copurchase import CoPurchase

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS: Final = 32
RECENT_DAYS: Final = 60
CATEGORY_PENALTY: Final = 0.12
ITEM_PENALTY: Final = 0.2
SEED: Final = 20_240_229
ACTIVITY: Final = ("days_30", "days_90", "days_180", "lines_30", "lines_90", "new_45", "new_90", "breadth")
"""What everyone is measured by whatever the seed: purchase days, lines, categories first bought lately, categories."""


@dataclass(frozen=True)
class Vocabulary:
    """Items and categories with their numbers; an item belongs to one category.

    Attributes:
        items: Items in alphabetical order.
        categories: Categories in alphabetical order.
        category_of: Number of the category of each item.
    """

    items: tuple[str, ...]
    categories: tuple[str, ...]
    category_of: NDArray[np.int64]

    @classmethod
    def of(cls, lines: pd.DataFrame) -> Vocabulary:
        """Returns the vocabulary of rows with item and category; an item of two goes with the more frequent.

        Where the same name means different things in two categories, the item should carry its category's name.
        """
        counted = (
            lines.groupby(["item", "category"], observed=True)
            .size()
            .reset_index(name="n")
            .astype({"item": str, "category": str})
        )
        counted = counted.sort_values(["item", "n", "category"], ascending=[True, False, True])
        main = counted.drop_duplicates("item")
        categories = sorted(main["category"].astype(str).unique())
        number = {c: i for i, c in enumerate(categories)}
        items = main["item"].astype(str).tolist()
        return cls(tuple(items), tuple(categories), np.array([number[c] for c in main["category"].astype(str)]))

    def numbers(self, items: pd.Series) -> NDArray[np.int64]:
        """Returns the number of each item, -1 outside the vocabulary."""
        coded = items.astype("category")
        number = pd.Index(self.items).get_indexer(coded.cat.categories.astype(str))
        return np.where(coded.cat.codes >= 0, number[coded.cat.codes], -1)


@dataclass(frozen=True)
class Shoppers:
    """What n customers had bought before a day.

    Attributes:
        keys: Customer key of each.
        items: n by items, logarithm of 1 + lines bought.
        categories: n by categories, the same.
        recent: The same of the last 60 days.
        activity: n by `ACTIVITY`, logarithm of 1 + count.
    """

    keys: NDArray[np.int64]
    items: sp.csr_matrix
    categories: NDArray[np.float64]
    recent: NDArray[np.float64]
    activity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_active(self) -> NDArray[np.bool_]:
        """Who bought within the last 180 days."""
        found: NDArray[np.bool_] = self.activity[:, ACTIVITY.index("days_180")] > 0
        return found

    def take(self, chosen: NDArray[np.bool_]) -> Shoppers:
        """Returns the customers for whom `chosen` holds."""
        return Shoppers(
            self.keys[chosen], self.items[chosen], self.categories[chosen], self.recent[chosen], self.activity[chosen]
        )

    @classmethod
    def at(cls, lines: pd.DataFrame, day: int, vocabulary: Vocabulary) -> Shoppers:
        """Returns what was known at the start of a day.

        Args:
            lines: Rows customer_key, item, category, day (days since 1970-01-01); those of the day and later and
                items outside the vocabulary are not looked at.
            day: Days since 1970-01-01.
            vocabulary: Items and categories to count.
        """
        item = vocabulary.numbers(lines["item"])
        known = (lines["day"].to_numpy() < day) & (item >= 0)
        item, days = item[known], lines["day"].to_numpy()[known]
        keys, who = np.unique(lines["customer_key"].to_numpy(np.int64)[known], return_inverse=True)
        category = vocabulary.category_of[item] if len(item) else item
        n, shape = len(keys), (len(keys), len(vocabulary.categories))
        items = sp.csr_matrix((np.ones(len(who)), (who, item)), shape=(n, len(vocabulary.items)))
        items.data = np.log1p(items.data)
        age = day - days
        once = pd.DataFrame({"who": who, "age": age}).drop_duplicates()
        first = pd.DataFrame({"who": who, "category": category, "age": age}).groupby(["who", "category"])["age"].max()
        first_who, first_age = first.index.get_level_values(0).to_numpy(), first.to_numpy()
        counts = [np.bincount(once["who"][once["age"] <= w], minlength=n) for w in (30, 90, 180)]
        counts += [np.bincount(who[age <= w], minlength=n) for w in (30, 90)]
        counts += [np.bincount(first_who[first_age <= w], minlength=n) for w in (45, 90)]
        counts.append(np.bincount(first_who, minlength=n))
        return cls(
            keys,
            items,
            _log_counts(who, category, shape),
            _log_counts(who[age <= RECENT_DAYS], category[age <= RECENT_DAYS], shape),
            np.log1p(np.column_stack(counts).astype(np.float64)) if n else np.empty((0, len(ACTIVITY))),
        )


@dataclass(frozen=True)
class Space:
    """Directions in which purchases differ, learnt from a sample.

    Attributes:
        vocabulary: Items and categories it is over.
        weights: Per item its inverse document frequency.
        item_axes: Items by 32, of tf-idf rows of unit length.
        category_axes: Categories by 32, of log counts of unit length.
    """

    vocabulary: Vocabulary
    weights: NDArray[np.float64]
    item_axes: NDArray[np.float64]
    category_axes: NDArray[np.float64]

    @classmethod
    def fit(cls, shoppers: Shoppers, vocabulary: Vocabulary) -> Space:
        """Returns the space of a sample of customers.

        Raises:
            ModelError: for fewer than 100 customers or hardly any items or categories.
        """
        from sklearn.decomposition import TruncatedSVD

        if len(shoppers) < 100 or min(len(vocabulary.items), len(vocabulary.categories)) < 4:
            raise ModelError(
                f"Lookalike: {len(shoppers)} customers, {len(vocabulary.items)} items and "
                f"{len(vocabulary.categories)} categories; it needs 100 customers and 4 of each."
            )
        bought_by = np.bincount(shoppers.items.indices, minlength=len(vocabulary.items))
        weights = np.log((1 + len(shoppers)) / (1 + bought_by)) + 1

        def axes(rows: sp.csr_matrix | NDArray[np.float64]) -> NDArray[np.float64]:
            wanted = min(DIMENSIONS, rows.shape[1] - 1)
            fitted = TruncatedSVD(wanted, random_state=SEED).fit(rows)
            found: NDArray[np.float64] = fitted.components_.T
            return found

        tf_idf = shoppers.items @ sp.diags(weights)
        length = np.sqrt(_squares(tf_idf))
        unit = sp.diags(1 / np.maximum(length, 1e-12)) @ tf_idf
        return cls(vocabulary, weights, axes(unit), axes(_unit(shoppers.categories)))


@dataclass(frozen=True)
class Placed:
    """Customers in a space, so that leaving a few categories out costs those and not everything again.

    Attributes:
        shoppers: The customers.
        space: The space.
        tf_idf: Customers by items, weighted, by columns.
        whole: Customers by 32: `tf_idf` along the item axes.
        squares: Squared length of each customer's row of `tf_idf`.
        whole_categories: Customers by 32: log counts along the category axes.
        category_squares: Squared length of each customer's log counts.
    """

    shoppers: Shoppers
    space: Space
    tf_idf: sp.csc_matrix
    whole: NDArray[np.float64]
    squares: NDArray[np.float64]
    whole_categories: NDArray[np.float64]
    category_squares: NDArray[np.float64]

    @classmethod
    def of(cls, shoppers: Shoppers, space: Space) -> Placed:
        """Returns the customers placed; what they bought must be numbered by the space's vocabulary."""
        weighted = sp.csc_matrix(shoppers.items @ sp.diags(space.weights))
        return cls(
            shoppers,
            space,
            weighted,
            weighted @ space.item_axes,
            _squares(weighted),
            shoppers.categories @ space.category_axes,
            (shoppers.categories**2).sum(axis=1),
        )

    @cached_property
    def active_categories(self) -> CoPurchase:
        """Regressions on which categories active customers have bought."""
        return CoPurchase.of((self.shoppers.categories[self.shoppers.is_active] > 0).astype(float), CATEGORY_PENALTY)

    @cached_property
    def active_counts(self) -> CoPurchase:
        """Regressions on how often they have, as logarithms."""
        return CoPurchase.of(self.shoppers.categories[self.shoppers.is_active], CATEGORY_PENALTY)

    @cached_property
    def active_items(self) -> CoPurchase:
        """Regressions on which items they have bought."""
        return CoPurchase.of(has_bought(self.shoppers.items[self.shoppers.is_active]), ITEM_PENALTY)

    def items_of(self, categories: Sequence[int]) -> NDArray[np.int64]:
        """Returns the numbers of the items of some categories."""
        return np.flatnonzero(np.isin(self.space.vocabulary.category_of, list(categories)))

    def by_items(self, without: Sequence[int] = ()) -> NDArray[np.float64]:
        """Returns customers by 32 from the items they bought, those of the categories in `without` left out."""
        columns = self.items_of(without)
        left_out = self.tf_idf[:, columns]
        return _shortened(self.whole - left_out @ self.space.item_axes[columns], self.squares - _squares(left_out))

    def by_categories(self, without: Sequence[int] = ()) -> NDArray[np.float64]:
        """Returns customers by 32 from the categories they bought, those in `without` left out."""
        left_out = self.shoppers.categories[:, list(without)]
        return _shortened(
            self.whole_categories - left_out @ self.space.category_axes[list(without)],
            self.category_squares - (left_out**2).sum(axis=1),
        )


def has_bought(items: sp.csr_matrix) -> sp.csr_matrix:
    """Returns the same with 1 for whatever was bought."""
    return sp.csr_matrix((np.ones_like(items.data), items.indices, items.indptr), shape=items.shape)


def masked(columns: NDArray[np.float64], without: Sequence[int]) -> NDArray[np.float64]:
    """Returns a copy with the columns in `without` set to 0."""
    kept = columns.copy()
    kept[:, list(without)] = 0.0
    return kept


def _shortened(rows: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.sqrt(np.maximum(squares, 0.0))
    # What is left of who bought nothing else is rounding, and no direction.
    return np.where(length[:, None] > 1e-6, rows / np.maximum(length, 1e-6)[:, None], 0.0)


def _squares(rows: sp.spmatrix) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    return found


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _log_counts(who: NDArray[np.int64], column: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.float64]:
    counted: NDArray[np.float64] = np.log1p(sp.csr_matrix((np.ones(len(who)), (who, column)), shape=shape).toarray())
    return counted
