"""What models say of customers, and what they found."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, double, feature, instant, integer, money, text
from lakehouse.declare import Merge, ReplaceSlice, table

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
        "Number of the cluster; kept from one model version to the next by matching, and never given to another.",
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
        unit="on the model's scale: standard deviations, or ranks from 0 to 1",
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
    distance_mean = double("Mean distance to the centre, on the model's scale.")


RISK_LEVELS = ("low", "medium", "high", "critical")
_OUTLOOK = {"family": "outlook", "source": "gold.fact_transactions"}
_CURRENCY = "merchant currency"


@table(
    "feature.customer_outlook",
    comment="One row per customer who has bought before `as_of`, and `as_of`: what they are expected to do next; "
    "customers of a merchant without a model are absent.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "as_of"),
    producer="models.outlook:score_outlooks",
    reads=("gold.fact_transactions",),
    cluster_by=("as_of", "customer_key"),
    owner="data-science",
    checks={"probabilities_add_up": "abs(probability_active + churn_probability - 1) < 1e-9"},
)
class CustomerOutlook:
    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Only events before this day were looked at.")
    horizon_days = integer("Days from `as_of` on that the predictions are of; chosen per merchant in training.")
    probability_active = feature(
        "double",
        "Probability to buy at least once within the horizon.",
        unit="probability, 0 to 1",
        optional=False,
        check="probability_active BETWEEN 0 AND 1",
        **_OUTLOOK,
    )
    churn_probability = feature(
        "double",
        "Probability not to buy within the horizon.",
        unit="probability, 0 to 1",
        optional=False,
        check="churn_probability BETWEEN 0 AND 1",
        **_OUTLOOK,
    )
    churn_risk_level = feature(
        "string",
        "The same in words: low below 0.25, medium below 0.5, high below 0.75, else critical.",
        unit="name",
        optional=False,
        values=RISK_LEVELS,
        **_OUTLOOK,
    )
    churn_factors = feature(
        "array<string>",
        "What raises the risk against the merchant's typical customer, strongest first; empty at low risk.",
        unit="words",
        optional=False,
        **_OUTLOOK,
    )
    probability_alive = feature(
        "double",
        "Probability not to have left for good (BG/NBD); 1 by construction after one purchase.",
        unit="probability, 0 to 1",
        optional=False,
        **_OUTLOOK,
    )
    expected_purchases = feature(
        "double", "Expected purchase days within the horizon.", unit="days", optional=False, **_OUTLOOK
    )
    expected_spend = feature(
        "decimal(18,2)", "Expected spend within the horizon.", unit=_CURRENCY, optional=False, **_OUTLOOK
    )
    expected_day_value = feature(
        "decimal(18,2)", "Expected spend per purchase day (Gamma-Gamma).", unit=_CURRENCY, **_OUTLOOK
    )
    customer_lifetime_value = feature(
        "decimal(18,2)",
        "Expected spend of the 12 months from `as_of`, later months discounted by 10 % a year.",
        unit=_CURRENCY,
        **_OUTLOOK,
    )
    model_version = text("Registered model version that scored the customer.")


@table(
    "gold.lookalike_audience",
    comment="One row per merchant and audience made by `segmentation expand`: who it resembles and what to expect.",
    kind=Merge(),
    key=("merchant_id", "audience_id"),
    producer="models.expansion:expand_seed",
    by_runtime=True,
    owner="data-science",
)
class LookalikeAudience:
    merchant_id = text("Retailer.")
    audience_id = text("Also the id of the segment it is published as.")
    seed_id = text("Segment whose members it resembles.")
    left_out = column("array<string>", "Segments whose members are left out besides the seed's own.")
    without_categories = column("array<string>", "Categories that define the seed and were not looked at.")
    as_of = day("Only events before this day were looked at.")
    seed_customers = bigint("Members of the seed on that day.")
    customers = bigint("Customers in the audience.")
    min_score = double("Lowest score of them, 0 to 1.", optional=True)
    expected_lift = double(
        "How many times more often a customer ranked this high is of the seed than any customer, measured on a fifth "
        "of the customers the model had not seen."
    )
    auc = double("Probability that a member of the seed is ranked above another customer, on the same fifth.")
    auc_of_activity = double("The same when ranked by purchase days of the last 90 days alone.")
    model_version = text("Registered model version.")
    made_at = instant("Start of the run that made it, UTC.")


@table(
    "gold.lookalike_candidate",
    comment="One row per audience and customer who could be in it, scored when it was made: what another size would "
    "take; expanding the seed again replaces it.",
    kind=ReplaceSlice(by=("merchant_id", "audience_id")),
    key=("merchant_id", "audience_id", "customer_key"),
    producer="models.expansion:expand_seed",
    by_runtime=True,
    owner="data-science",
)
class LookalikeCandidate:
    merchant_id = text("Retailer.")
    audience_id = text("Audience.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Only events before this day were looked at.")
    score = double("Mean of the ranks by the two models, 0 to 1.", check="score BETWEEN 0 AND 1")
    probability = double(
        "Probability to be of the seed, as calibrated on customers the model had not seen.",
        check="probability BETWEEN 0 AND 1",
    )
    model_version = text("Registered model version that scored the customer.")


@table(
    "gold.lookalike_member",
    comment="One row per audience and customer in it, as it was made; expanding the seed again replaces it.",
    kind=ReplaceSlice(by=("merchant_id", "audience_id")),
    key=("merchant_id", "audience_id", "customer_key"),
    producer="models.expansion:expand_seed",
    by_runtime=True,
    owner="data-science",
)
class LookalikeMember(LookalikeCandidate):
    audience_id = text("Audience.", references="gold.lookalike_audience.audience_id")


@table(
    "feature.customer_audience",
    comment="One row per customer in any lookalike audience, and `as_of`.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "as_of"),
    producer="models.audiences:build_customer_audiences",
    reads=("gold.lookalike_member",),
    cluster_by=("as_of", "customer_key"),
    owner="data-science",
)
class CustomerAudience:
    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Day the audiences hold for; those made later are not among them.")
    lookalike_audiences = feature(
        "array<string>",
        "Lookalike audiences the customer is in, in alphabetical order.",
        family="audiences",
        unit="audience ids",
        source="gold.lookalike_member",
        optional=False,
    )
    lookalike_score = feature(
        "double",
        "Highest score in any of them.",
        family="audiences",
        unit="rank, 0 to 1",
        source="gold.lookalike_member",
        optional=False,
    )
