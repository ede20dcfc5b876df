"""Surrogate keys that more than one package makes; see docs/adr/0002."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F


def key_of_customer(merchant_id: Column | str = "merchant_id", customer_id: Column | str = "customer_id") -> Column:
    """The `customer_key` of a retailer's customer, the same in every table.

    A hash passes over nulls: of a row that may be a guest's, ask first whether there is a number.
    """
    return F.xxhash64(merchant_id, customer_id)
