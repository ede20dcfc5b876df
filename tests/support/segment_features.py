"""A small set of features of every kind, for tests of the rule language that need no feature table."""

from __future__ import annotations

from segments.catalogue import Feature

FEATURES = {
    f.name: f
    for f in (
        Feature("recency_days", "int"),
        Feature("frequency", "bigint"),
        Feature("monetary_net", "decimal(18,2)"),
        Feature("weekend_share", "double"),
        Feature("lifecycle_stage", "string", values=("new", "active", "lapsing", "lost", "won_back")),
        Feature("favourite_store_id", "string"),
        Feature("is_private", "boolean"),
        Feature("first_purchase_on", "date"),
        Feature("last_seen_at", "timestamp"),
        Feature("categories", "array<string>"),
        Feature("cluster_name", "string", table="feature.customer_cluster"),
    )
}
