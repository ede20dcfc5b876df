"""Features: one row per customer and `as_of`, point-in-time, and what is read off their slices over time.

Money is in the currency the merchant sells in. A basket is a receipt: it has the day, the hour, the store and the
channel of its sale, one of each, and is given back when returns and cancellations took back all that was paid for it.
A return counts for the basket its source says it takes back, on the day of that purchase; one that names none counts
for its own receipt on its own day, and several that name a sale never delivered on the first of theirs. The sales that
`silver.stage_adjustments` infers are for people to look at: a guess moves no feature.
"""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, double, feature, instant, integer, money, text
from lakehouse.declare import ReplaceSlice, changes, table

RFM_GROUPS = (
    "champions",
    "loyal",
    "potential_loyalists",
    "new_customers",
    "promising",
    "need_attention",
    "about_to_sleep",
    "at_risk",
    "cannot_lose",
    "hibernating",
    "lost",
)
LIFECYCLE_STAGES = ("new", "active", "lapsing", "lost", "won_back")
PURCHASE_PATTERNS = ("first", "regular", "stopped", "resumed")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ABSENT = "absent"
"""Stands for the side of a change on which a customer had no row."""

_FACTS = "gold.fact_transactions"
_PRODUCTS = "gold.fact_transactions, gold.dim_product"
_MONEY = "decimal(18,2)"
_CURRENCY = "merchant currency"
_SHARE = "share, 0 to 1"
_OF_SHELF = "share of shelf value"  # which reductions may exceed, as tills write them


def _spend(days: int) -> str:
    return f"Paid for purchases of the last {days} days, net of their returns and of returns that name no sale."


def _visits(days: int) -> str:
    return f"Baskets bought in the last {days} days."


@table(
    "feature.customer",
    comment="One row per merchant, customer who has bought before `as_of`, and `as_of`; only events before it count.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "as_of"),
    producer="features.build:build_customer_features",
    reads=(
        "gold.fact_transactions",
        changes("gold.fact_transactions", also_before=True),
        "gold.dim_product",
        changes("gold.dim_product"),
        "gold.dim_customer",
        "silver.campaign",
        "silver.campaign_contact",
        "silver.coupon_redemption",
        "silver.promotion",
        changes("silver.promotion", also_before=True),
    ),
    cluster_by=("as_of", "customer_key"),
    owner="data-science",
)
class FeatureCustomer:
    """Scores, stage and ages depend on `as_of` and are made anew for every slice; the rest only on what was bought."""

    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Day the features are true for, exclusive: only events before it count.")
    built_at = instant("Start of the run that made the slice, UTC.")
    returned_within_days = integer(
        "`won_back_days` that `returned_after_days` was found with; with another one the customer is built again.",
        optional=True,
    )
    windows_move_on = day(
        "First `as_of` on which a trailing window loses one of this customer's events; until then, and unless "
        "something new arrives, everything but ages stays as it is.",
        optional=True,
    )

    # rfm
    first_purchase_on = feature(
        "date",
        "Day of the first purchase; a receipt of several days counts on its first.",
        family="rfm",
        unit="business day",
        optional=False,
    )
    last_purchase_on = feature(
        "date",
        "Day of the last purchase; a receipt of several days counts on its first.",
        family="rfm",
        unit="business day",
        optional=False,
    )
    recency_days = feature(
        "int",
        "Days since the last purchase; 1 when it was the day before `as_of`.",
        family="rfm",
        unit="days",
        optional=False,
    )
    frequency = feature(
        "bigint",
        "Baskets bought and not wholly given back, in value, by returns and cancellations that name them or share "
        "their receipt.",
        family="rfm",
        unit="baskets",
        optional=False,
    )
    monetary_net = feature(
        _MONEY,
        "Paid, less everything given back by returns and cancellations.",
        family="rfm",
        unit=_CURRENCY,
        optional=False,
    )
    monetary_gross = feature(
        _MONEY, "Paid for purchases, before returns and cancellations.", family="rfm", unit=_CURRENCY, optional=False
    )
    r_score = feature(
        "int",
        "Recency score among the merchant's customers; 5 bought most recently, ties share.",
        family="rfm",
        unit="score, 1 to 5",
        optional=False,
        check="r_score BETWEEN 1 AND 5",
    )
    f_score = feature(
        "int",
        "Frequency score among the merchant's customers; 5 most often, ties share.",
        family="rfm",
        unit="score, 1 to 5",
        optional=False,
        check="f_score BETWEEN 1 AND 5",
    )
    m_score = feature(
        "int",
        "Net value score among the merchant's customers; 5 is the highest, ties share.",
        family="rfm",
        unit="score, 1 to 5",
        optional=False,
        check="m_score BETWEEN 1 AND 5",
    )
    rfm_score = feature(
        "int",
        "The three scores as one number, 111 to 555.",
        family="rfm",
        unit="digits R, F, M, 111 to 555",
        optional=False,
    )
    rfm_group = feature(
        "string",
        "Named cell of the grid of recency against frequency and value.",
        family="rfm",
        unit="name",
        optional=False,
        values=RFM_GROUPS,
    )

    # behaviour
    baskets = feature(
        "bigint", "Baskets bought, returned ones included.", family="behaviour", unit="baskets", optional=False
    )
    purchase_days = feature(
        "bigint", "Different days with a purchase.", family="behaviour", unit="days", optional=False
    )
    items = feature(
        "double",
        "Pieces or weight bought of merchandise; postage and fees are no items.",
        family="behaviour",
        unit="pieces",
        source=_PRODUCTS,
        optional=False,
    )
    basket_value_mean = feature("double", "Paid per basket, before returns.", family="behaviour", unit=_CURRENCY)
    basket_size_mean = feature("double", "Items per basket.", family="behaviour", unit="pieces", source=_PRODUCTS)
    inter_purchase_days_mean = feature(
        "double", "Mean days between one purchase day and the next.", family="behaviour", unit="days"
    )
    inter_purchase_days_sd = feature(
        "double",
        "Sample standard deviation of the days between purchase days; needs three purchase days.",
        family="behaviour",
        unit="days",
    )
    longest_gap_days = feature("int", "Longest silence between two purchase days.", family="behaviour", unit="days")
    longest_gap_ended_on = feature(
        "date", "Day the longest silence ended; the latest of equals.", family="behaviour", unit="business day"
    )
    returned_after_days = feature(
        "int",
        "Longest silence that a purchase of the last `won_back_days` days ended; null when there was none.",
        family="behaviour",
        unit="days",
        window="60 days unless configured",
    )
    distinct_categories = feature(
        "bigint",
        "Different product categories bought.",
        family="behaviour",
        unit="categories",
        source=_PRODUCTS,
        optional=False,
    )
    distinct_departments = feature(
        "bigint",
        "Different departments bought from.",
        family="behaviour",
        unit="departments",
        source=_PRODUCTS,
        optional=False,
    )
    distinct_brand_types = feature(
        "bigint",
        "Different brand types bought (national, private).",
        family="behaviour",
        unit="brand types",
        source=_PRODUCTS,
        optional=False,
    )
    distinct_manufacturers = feature(
        "bigint",
        "Different manufacturers bought from.",
        family="behaviour",
        unit="manufacturers",
        source=_PRODUCTS,
        optional=False,
    )
    distinct_stores = feature(
        "bigint", "Different stores bought in; a receipt has one.", family="behaviour", unit="stores", optional=False
    )
    distinct_channels = feature(
        "bigint",
        "Different channels bought through; a receipt has one.",
        family="behaviour",
        unit="channels",
        optional=False,
    )
    night_share = feature("double", "Share of baskets bought from 22 to 6 o'clock.", family="behaviour", unit=_SHARE)
    morning_share = feature("double", "Share of baskets bought from 6 to 12 o'clock.", family="behaviour", unit=_SHARE)
    afternoon_share = feature(
        "double", "Share of baskets bought from 12 to 17 o'clock.", family="behaviour", unit=_SHARE
    )
    evening_share = feature("double", "Share of baskets bought from 17 to 22 o'clock.", family="behaviour", unit=_SHARE)
    weekday_share = feature("double", "Share of baskets bought Monday to Friday.", family="behaviour", unit=_SHARE)
    weekend_share = feature("double", "Share of baskets bought on Saturday or Sunday.", family="behaviour", unit=_SHARE)
    favourite_weekday = feature(
        "string",
        "Weekday with most baskets; the earlier in the week of equals.",
        family="behaviour",
        unit="name",
        values=WEEKDAYS,
    )
    favourite_store_id = feature(
        "string",
        "Store with most baskets; of equals the one visited on the later day, then the first in the alphabet.",
        family="behaviour",
        unit="store number",
    )
    favourite_store_share = feature(
        "double", "Share of baskets bought in the favourite store.", family="behaviour", unit=_SHARE
    )
    discount_share = feature(
        "double", "Part of shelf value the shop took off by discounts.", family="behaviour", unit=_OF_SHELF
    )
    coupon_share = feature("double", "Part of shelf value taken off by coupons.", family="behaviour", unit=_OF_SHELF)
    private_label_share = feature(
        "double",
        "Share of gross value, where the brand type is known, spent on private label.",
        family="behaviour",
        unit=_SHARE,
        source=_PRODUCTS,
    )
    return_rate = feature(
        "double",
        "Value given back relative to value bought; above 1 when more came back than was seen bought.",
        family="behaviour",
        unit="ratio",
    )
    spend_7d = feature(_MONEY, _spend(7), family="behaviour", unit=_CURRENCY, window="7 days", optional=False)
    spend_30d = feature(_MONEY, _spend(30), family="behaviour", unit=_CURRENCY, window="30 days", optional=False)
    spend_90d = feature(_MONEY, _spend(90), family="behaviour", unit=_CURRENCY, window="90 days", optional=False)
    spend_365d = feature(_MONEY, _spend(365), family="behaviour", unit=_CURRENCY, window="365 days", optional=False)
    spend_previous_90d = feature(
        _MONEY,
        "Paid for purchases of the 90 days before the last 90, net of their returns.",
        family="behaviour",
        unit=_CURRENCY,
        window="91 to 180 days back",
        optional=False,
    )
    visits_7d = feature("bigint", _visits(7), family="behaviour", unit="baskets", window="7 days", optional=False)
    visits_30d = feature("bigint", _visits(30), family="behaviour", unit="baskets", window="30 days", optional=False)
    visits_90d = feature("bigint", _visits(90), family="behaviour", unit="baskets", window="90 days", optional=False)
    visits_365d = feature("bigint", _visits(365), family="behaviour", unit="baskets", window="365 days", optional=False)
    spend_trend = feature(
        "double",
        "Spend of the last 90 days less that of the 90 before, relative to both together; "
        "1 all new, -1 all gone, null when nothing was spent.",
        family="behaviour",
        unit="-1 to 1",
        window="180 days",
    )
    fourth_quarter_share = feature(
        "double", "Share of gross value bought in October to December.", family="behaviour", unit=_SHARE
    )
    busiest_quarter = feature(
        "int",
        "Calendar quarter with most gross value; the earlier of equals.",
        family="behaviour",
        unit="quarter, 1 to 4",
    )
    busiest_quarter_share = feature(
        "double", "Share of gross value bought in the busiest quarter.", family="behaviour", unit=_SHARE
    )

    # affinity
    favourite_category = feature(
        "string",
        "Category with most gross value; alphabetical first of equals.",
        family="affinity",
        unit="name",
        source=_PRODUCTS,
    )
    favourite_category_share = feature(
        "double",
        "Share of gross value, where the category is known, spent in the favourite category.",
        family="affinity",
        unit=_SHARE,
        source=_PRODUCTS,
    )

    # lifecycle
    tenure_days = feature(
        "int",
        "Days since the first purchase; 1 when it was the day before `as_of`.",
        family="lifecycle",
        unit="days",
        optional=False,
    )
    cadence_days = feature(
        "double",
        "Days this customer usually lets pass: the mean gap without the longest one, within the configured bounds, or "
        "the configured cadence before there are three purchase days.",
        family="lifecycle",
        unit="days",
        optional=False,
    )
    lifecycle_stage = feature(
        "string",
        "Where the customer stands against their own cadence; won back when a purchase lately ended a silence long "
        "enough to be lost.",
        family="lifecycle",
        unit="name",
        optional=False,
        values=LIFECYCLE_STAGES,
    )
    purchase_pattern = feature(
        "string",
        "How purchases follow each other: one so far, regular, stopped, or resumed lately after a silence.",
        family="lifecycle",
        unit="name",
        optional=False,
        values=PURCHASE_PATTERNS,
    )

    # engagement
    campaigns_contacted = feature(
        "bigint",
        "Campaigns begun before `as_of` that addressed the customer.",
        family="engagement",
        unit="campaigns",
        source="silver.campaign, silver.campaign_contact",
        optional=False,
    )
    last_contacted_on = feature(
        "date",
        "First day of the latest such campaign.",
        family="engagement",
        unit="business day",
        source="silver.campaign, silver.campaign_contact",
    )
    coupons_redeemed = feature(
        "bigint",
        "Coupons redeemed.",
        family="engagement",
        unit="coupons",
        source="silver.coupon_redemption",
        optional=False,
    )
    last_redeemed_on = feature(
        "date",
        "Day of the latest redemption.",
        family="engagement",
        unit="business day",
        source="silver.coupon_redemption",
    )
    redemption_rate = feature(
        "double",
        "Share of the campaigns that addressed the customer from which at least one "
        "coupon was redeemed; null when never addressed.",
        family="engagement",
        unit=_SHARE,
        source="silver.campaign, silver.campaign_contact, silver.coupon_redemption",
    )
    display_line_share = feature(
        "double",
        "Share of basket lines bought while the product stood on display in that "
        "store; null when the merchant delivers no promotions.",
        family="engagement",
        unit=_SHARE,
        source="gold.fact_transactions, silver.promotion",
    )
    mailer_line_share = feature(
        "double",
        "Share of basket lines bought while the product was in the mailer of that "
        "store; null when the merchant delivers no promotions.",
        family="engagement",
        unit=_SHARE,
        source="gold.fact_transactions, silver.promotion",
    )
    promoted_spend_share = feature(
        "double",
        "Share of gross value bought on display or in the mailer; null when the merchant delivers no promotions.",
        family="engagement",
        unit=_SHARE,
        source="gold.fact_transactions, silver.promotion",
    )


@table(
    "feature.rfm_boundary",
    comment="One row per merchant, measure, score and `as_of`: the cut points the scores of that slice were made with.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "as_of", "measure", "score"),
    producer="features.rfm:build_rfm_boundaries",
    reads=("feature.customer",),
    owner="data-science",
)
class RfmBoundary:
    as_of = day("Slice the cut points belong to.")
    merchant_id = text("Retailer.")
    measure = text("What is cut.", values=("recency_days", "frequency", "monetary_net"))
    score = integer("Score given above `lower` and up to `upper`, 1 to 5.")
    lower = double("Exclusive lower edge in the measure's unit; null when open.", optional=True)
    upper = double("Inclusive upper edge in the measure's unit; null when open.", optional=True)
    customers = bigint("Customers with this score.")


@table(
    "feature.rfm_migration",
    comment="One row per merchant, measure and pair of values: how customers moved from the slice before to this one. "
    "Who had bought before that one, but was delivered only afterwards, is left out.",
    kind=ReplaceSlice(by=("to_as_of",)),
    key=("merchant_id", "to_as_of", "measure", "from_group", "to_group"),
    producer="features.movement:build_rfm_migration",
    reads=("feature.customer",),
    owner="data-science",
)
class RfmMigration:
    from_as_of = day("Newest slice before `to_as_of`.")
    to_as_of = day("Slice moved to.")
    merchant_id = text("Retailer.")
    measure = text(
        "What is compared: the named group, or one score.", values=("rfm_group", "r_score", "f_score", "m_score")
    )
    from_group = text("Group or score in the earlier slice; `absent` when the customer had not bought yet.")
    to_group = text("Group or score in the later slice; `absent` when the purchases are gone.")
    customers = bigint("Customers who made this move.")
    spend = money("Net value between the two days: monetary_net now less monetary_net then.")


@table(
    "feature.lifecycle_flow",
    comment="One row per merchant and pair of life-cycle stages: how customers moved from the slice before. Who had "
    "bought before that one, but was delivered only afterwards, is left out.",
    kind=ReplaceSlice(by=("to_as_of",)),
    key=("merchant_id", "to_as_of", "from_stage", "to_stage"),
    producer="features.movement:build_lifecycle_flow",
    reads=("feature.customer",),
    owner="data-science",
)
class LifecycleFlow:
    from_as_of = day("Newest slice before `to_as_of`.")
    to_as_of = day("Slice moved to.")
    merchant_id = text("Retailer.")
    from_stage = text(
        "Stage in the earlier slice; `absent` when the customer had not bought yet.", values=(*LIFECYCLE_STAGES, ABSENT)
    )
    to_stage = text(
        "Stage in the later slice; `absent` when the purchases are gone.", values=(*LIFECYCLE_STAGES, ABSENT)
    )
    customers = bigint("Customers who made this move.")
    spend = money("Net value between the two days: monetary_net now less monetary_net then.")


@table(
    "feature.cohort_retention",
    comment="One row per merchant, month of first purchase and month since: how many of the cohort bought, and what.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "as_of", "cohort_month", "month_number"),
    producer="features.cohort:build_cohort_retention",
    reads=("gold.fact_transactions",),
    owner="data-science",
)
class CohortRetention:
    as_of = day("Only purchases before this day count; the last month of each cohort may be incomplete.")
    merchant_id = text("Retailer.")
    cohort_month = day("First day of the month of the customers' first purchase.")
    month_number = integer("Months since; 0 is the month of the first purchase.")
    customers = bigint("Customers of the cohort.")
    active = bigint("Of them, customers who bought in that month; a receipt of several days counts on its first.")
    spend = money("Gross value they bought in that month, merchant currency.")


@table(
    "feature.customer_category",
    comment="One row per customer, product category bought and `as_of`; the top categories of each customer.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "category", "as_of"),
    producer="features.affinity:build_customer_categories",
    reads=("gold.fact_transactions", "gold.dim_product"),
    cluster_by=("as_of", "customer_key"),
    owner="data-science",
)
class CustomerCategory:
    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    as_of = day("Only purchases before this day count.")
    category = text("Product category.")
    rank = integer("1 for the category with most gross value; alphabetical among equals.")
    spend = money("Gross value bought in the category, merchant currency.")
    baskets = bigint("Baskets with the category.")
    spend_share = double("Part of the customer's gross value with a known category.", optional=True)
    affinity_index = double(
        "The customer's share divided by the merchant's share of the category; 1 is average.", optional=True
    )
    last_bought_on = column(
        "date", "Business day of the latest purchase in the category; of a receipt, the first with a line of it."
    )
