"""What models say of customers, and what they found."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, day, double, feature, integer, money, text
from lakehouse.declare import ReplaceSlice, table

_SOURCE = "feature.customer"


@table(
    "feature.customer_cluster",
    comment="One row per customer and `as_of` whom a trained model places in a cluster; customers of a merchant "
    "without a model, or without recency, frequency and value, are absent.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "as_of"),
    producer="models.clustering:score_clusters",
    reads=("feature.customer",),
    cluster_by=("as_of", "customer_key"),
    owner="data-science",
)
class CustomerCluster:
    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Day of the features that were scored.")
    cluster_id = feature(
        "int",
        "Number of the cluster; kept from one model version to the next by matching.",
        family="clusters",
        unit="number from 0",
        source=_SOURCE,
        optional=False,
    )
    cluster_name = feature(
        "string",
        "The cluster in words: recency, then frequency, then value, against the merchant's average.",
        family="clusters",
        unit="words",
        source=_SOURCE,
        optional=False,
    )
    cluster_distance = feature(
        "double",
        "Distance to the cluster's centre; large means an untypical member.",
        family="clusters",
        unit="standard deviations of log features",
        source=_SOURCE,
        optional=False,
    )
    model_version = text("Registered model version that placed the customer.")


@table(
    "feature.cluster_profile",
    comment="One row per cluster of a merchant and `as_of`: who its members are.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "as_of", "cluster_id"),
    producer="models.profiles:profile_clusters",
    reads=("feature.customer_cluster", "feature.customer"),
    owner="data-science",
)
class ClusterProfile:
    merchant_id = text("Retailer.")
    as_of = day("Day of the features.")
    cluster_id = integer("Number of the cluster.")
    cluster_name = text("The cluster in words.")
    model_version = text("Registered model version.")
    customers = bigint("Members.")
    share = double("Part of the merchant's clustered customers.")
    recency_days_mean = double("Mean days since the last purchase.")
    frequency_mean = double("Mean baskets.")
    monetary_net_mean = double("Mean net spend, merchant currency.", optional=True)
    net_amount = money("Net spend of all members, merchant currency.", optional=True)
    value_share = double(
        "Part of the net spend of the merchant's clustered customers; null when that is not positive.", optional=True
    )
    distance_mean = double("Mean distance to the centre, standard deviations of log features.")
