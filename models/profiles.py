"""Who the members of each cluster are."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.feature import FeatureCustomer as X
from lakehouse.tables.model import ClusterProfile as P
from lakehouse.tables.model import CustomerCluster as C


def profile_clusters(clusters: DataFrame, features: DataFrame, *, as_of: date) -> DataFrame:
    """One row per cluster of a merchant with its size, means and value on a day.

    Args:
        clusters: `feature.customer_cluster`.
        features: `feature.customer`.
        as_of: The day.
    """
    keys: list[str] = [X.merchant_id, X.customer_key]
    day = F.col(C.as_of) == F.lit(as_of)
    facts = features.where(day).select(*keys, X.recency_days, X.frequency, X.monetary_net)
    # Both tables have one row per customer and day.
    members = clusters.where(day).join(facts, on=keys, how="inner")
    cents = (F.col(X.monetary_net) * 100).cast("bigint")
    profiles = members.groupBy(P.merchant_id, P.cluster_id, P.cluster_name, P.model_version).agg(
        F.count(F.lit(1)).alias(P.customers),
        F.avg(X.recency_days).alias(P.recency_days_mean),
        F.avg(X.frequency).alias(P.frequency_mean),
        F.sum(cents).alias("_cents"),
        F.avg(C.cluster_distance).alias(P.distance_mean),
    )
    # A handful of rows per merchant.
    merchant = Window.partitionBy(P.merchant_id)
    all_cents = F.sum("_cents").over(merchant)
    return profiles.select(
        P.merchant_id,
        F.lit(as_of).alias(P.as_of),
        P.cluster_id,
        P.cluster_name,
        P.model_version,
        P.customers,
        (F.col(P.customers) / F.sum(P.customers).over(merchant)).alias(P.share),
        P.recency_days_mean,
        P.frequency_mean,
        (F.col("_cents") / F.col(P.customers) / 100).alias(P.monetary_net_mean),
        (F.col("_cents").cast("decimal(20,0)") / 100).cast("decimal(18,2)").alias(P.net_amount),
        F.when(all_cents > 0, F.col("_cents") / all_cents).alias(P.value_share),
        P.distance_mean,
    )
