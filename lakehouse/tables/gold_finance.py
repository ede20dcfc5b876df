"""Gold and silver tables about money and reference: accounts, channels, fees, settlements, balances, calendar."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, flag, instant, integer, money, quantity, text
from lakehouse.declare import Merge, Replace, changes, table

_FACTS = "gold.fact_transactions"
_REGISTERS = "pipelines.gold.registers:build_registers"
RECONCILED = (
    "ingest.raw_records",
    "gold.audit_txn_ingest",
    "silver.transaction_line",
    "silver.transaction_reject",
    "silver.subject_reject",
    "bronze.raw_products",
    "silver.product",
    "bronze.raw_customers",
    "bronze.raw_contact_points",
    "silver.customer",
    "bronze.raw_consents",
    "silver.consent",
    "bronze.raw_campaigns",
    "silver.campaign",
    "bronze.raw_campaign_contacts",
    "silver.campaign_contact",
    "bronze.raw_coupons",
    "silver.coupon",
    "bronze.raw_coupon_redemptions",
    "silver.coupon_redemption",
    "bronze.raw_promotions",
    "silver.promotion",
    "bronze.raw_visitor_events",
    "silver.visitor_event",
    "bronze.raw_settlements",
    "silver.stage_settlements",
    "bronze.raw_exchange_rates",
    "gold.ref_exchange_rates",
)
_SETTLEMENT_STATUSES = ("matched", "short", "over", "unsettled", "unsold")


@table(
    "gold.dim_channel",
    comment="One row per sales channel that is configured, or that sales or settlements name.",
    kind=Replace(),
    key=("channel_id",),
    producer="pipelines.gold.registers:build_channels",
    reads=("gold.fact_daily_sales", "silver.stage_settlements"),
    owner="sales-data",
)
class DimChannel:
    channel_id = text("Channel.")
    channel_name = text("Name people read; the code where none is configured.")
    is_online = flag("Whether the customer buys over the internet; null where not configured.", optional=True)


@table(
    "gold.dim_merchant",
    comment="One row per retailer.",
    kind=Replace(),
    key=("merchant_id",),
    producer=_REGISTERS,
    reads=("ingest.raw_records",),
    owner="sales-data",
)
class DimMerchant:
    merchant_id = text("Retailer; `website_id` in segment tables.")
    merchant_name = text("Name people read.")
    country = text("ISO 3166 alpha-2 country it trades in.", optional=True)
    category = text("What it sells.", optional=True)
    currency = text("ISO 4217 code it sells in.")
    time_zone = text("Zone its business days are in.")
    opened_on = day("First business day known.", optional=True)
    is_sample = flag("Whether all of its data are made up.")


@table(
    "gold.dim_status",
    comment="One row per state of a line, a settlement or an account.",
    kind=Replace(),
    key=("status_id",),
    producer=_REGISTERS,
    reads=("ingest.raw_records",),
)
class DimStatus:
    status_id = text("State.")
    domain = text("What it is a state of.", values=("transaction", "settlement", "account"))
    status_name = text("Name people read.")
    description = text("What it means.")
    is_final = flag("Whether nothing more is expected to happen.")


@table(
    "gold.ref_fee_schedule",
    comment="One row per channel, currency and period: what the acquirer keeps (the demo's is a labelled sample).",
    kind=Replace(),
    key=("channel_id", "currency", "valid_from"),
    producer=_REGISTERS,
    reads=("ingest.raw_records",),
    owner="finance",
)
class RefFeeSchedule:
    channel_id = text("Channel.", references="gold.dim_channel.channel_id")
    valid_from = day("First day.")
    valid_to = day("Day after the last; null = open.", optional=True)
    rate = column("decimal(9,6)", "Part of the gross amount, 0 to 1.", check="rate >= 0 AND rate < 1")
    fixed_amount = money("Fixed sum per settlement, in `currency`.")
    currency = text("ISO 4217 code.")
    is_sample = flag("True for made-up fees.")


@table(
    "gold.ref_limits",
    comment="One row per configured bound.",
    kind=Replace(),
    key=("limit_id",),
    producer=_REGISTERS,
    reads=("ingest.raw_records",),
    owner="finance",
)
class RefLimits:
    limit_id = text("Bound.")
    limit_name = text("Name people read.")
    applies_to = text("What it bounds.")
    maximum = quantity("Largest value allowed.")
    is_sample = flag("True for made-up bounds.")


@table(
    "gold.ref_exchange_rates",
    comment="One row per pair of currencies and period a rate holds for, latest delivery.",
    kind=Replace(),
    key=("from_currency", "to_currency", "valid_from"),
    producer="pipelines.gold.rates:build_exchange_rates",
    reads=("bronze.raw_exchange_rates",),
    change_feed=True,
    owner="finance",
)
class RefExchangeRates:
    from_currency = text("ISO 4217 code.")
    to_currency = text("ISO 4217 code.")
    valid_from = day("First day the rate holds.")
    valid_to = day(
        "Day after the last; null while it is the newest, the first day of a sample that a real rate goes before.",
        optional=True,
    )
    rate = column("decimal(18,8)", "Units of `to_currency` for one of `from_currency`.", check="rate > 0")
    is_sample = flag("True for a made-up rate.", optional=True)
    delivered_count = bigint("Delivered rows this row stands for.", optional=True)
    delivered_hash = bigint("Exclusive or of their `row_hash`.", optional=True)


@table(
    "gold.fact_daily_sales",
    comment="One row per merchant, channel, currency, kind of line and business day with lines.",
    kind=Merge(),
    key=("merchant_id", "channel_id", "currency", "txn_type", "business_date"),
    producer="pipelines.gold.daily:build_daily_sales",
    reads=(_FACTS, changes(_FACTS, also_before=True)),
    cluster_by=("business_date",),
    owner="sales-data",
)
class FactDailySales:
    merchant_id = text("Retailer.")
    channel_id = text("Channel.")
    currency = text("ISO 4217 code.")
    txn_type = text("sale, return, cancellation or adjustment.")
    business_date = day("Business day.")
    line_count = bigint("Lines.")
    gross_amount = money("At shelf price, in `currency`.")
    net_amount = money("Net, in `currency`.")


@table(
    "gold.dim_time",
    comment="One row per calendar day, from the first year of sales to the end of the last.",
    kind=Replace(),
    key=("date_id",),
    producer="pipelines.gold.daily:build_calendar",
    reads=("gold.fact_daily_sales",),
)
class DimTime:
    date_id = integer("The day as a number, yyyymmdd.")
    calendar_date = day("The day.")
    year = integer("Year.")
    quarter = integer("1 to 4.")
    month = integer("1 to 12.")
    month_name = text("English month name.")
    iso_year = integer("ISO 8601 year the week belongs to; around New Year not that of the day.", optional=True)
    iso_week = integer("ISO 8601 week, 1 to 53, of `iso_year`.")
    day_of_month = integer("1 to 31.")
    day_of_week = integer("ISO 8601, 1 = Monday.")
    day_name = text("English day name.")
    is_weekend = flag("Saturday or Sunday.")
    is_month_end = flag("Last day of its month.")


@table(
    "gold.dim_account",
    comment="One row per account lines are booked on: a loyalty account per customer, one for guests per merchant.",
    kind=Merge(),
    key=("account_id",),
    producer="pipelines.gold.accounts:build_dim_account",
    reads=("silver.customer",),
    owner="crm-data",
)
class DimAccount:
    account_id = text("`merchant:customer`, or `merchant/guest`.", pii=Pii.IDENTIFIER)
    merchant_id = text("Retailer.", references="gold.dim_merchant.merchant_id")
    customer_key = bigint("xxhash64(merchant_id, customer_id); null for the guest account.", optional=True)
    account_type = text("Whose it is.", values=("loyalty", "guest"))
    currency = text("ISO 4217 code the merchant sells in.")
    opened_at = instant("First sale or registration, UTC; null for the guest account.", optional=True)
    status_id = text("State.", references="gold.dim_status.status_id")


@table(
    "gold.fact_balance_snapshots",
    comment="One row per account and month with movements: what was bought, given back, and net spend so far.",
    kind=Merge(),
    key=("account_id", "currency", "month_end"),
    producer="pipelines.gold.accounts:build_balance_snapshots",
    reads=(_FACTS, changes(_FACTS, also_before=True)),
    owner="finance",
)
class FactBalanceSnapshots:
    account_id = text("Account.", pii=Pii.IDENTIFIER, references="gold.dim_account.account_id")
    merchant_id = text("Retailer.")
    currency = text("ISO 4217 code.")
    month_end = day("Last day of the month.")
    line_count = bigint("Lines of the month.")
    bought_amount = money("Net amount of the month's sales, in `currency`.")
    returned_amount = money("Net amount of returns, cancellations and adjustments; usually negative.")
    movement_amount = money("bought_amount + returned_amount.")
    balance_amount = money("Net spend over all months up to and with this one.")


@table(
    "silver.stage_settlements",
    comment="One row per settlement the acquirer reported, latest delivery.",
    kind=Merge(),
    key=("merchant_id", "settlement_id"),
    producer="pipelines.gold.settlements:conform_settlements",
    reads=("bronze.raw_settlements", changes("bronze.raw_settlements")),
    owner="finance",
)
class StageSettlements:
    merchant_id = text("Retailer.")
    settlement_id = text("Number of the acquirer.")
    channel_id = text("Channel settled.")
    settled_on = day("Business day settled.")
    gross_amount = money("Sales settled, in `currency`.")
    fee_amount = money("Fees withheld, in `currency`; gross less net where the feed does not tell.")
    net_amount = money("Paid out, in `currency`.")
    currency = text("ISO 4217 code.")
    is_sample = flag("True when it comes from a labelled sample feed.")
    delivered_count = bigint("Delivered rows this row stands for.", optional=True)
    delivered_hash = bigint("Exclusive or of their `row_hash`.", optional=True)


@table(
    "silver.stage_reconciliations",
    comment="One row per merchant, channel, currency and business day: sold against settled.",
    kind=Replace(),
    key=("merchant_id", "channel_id", "currency", "business_date"),
    producer="pipelines.gold.settlements:reconcile_settlements",
    reads=("gold.fact_daily_sales", "silver.stage_settlements"),
    owner="finance",
)
class StageReconciliations:
    merchant_id = text("Retailer.")
    channel_id = text("Channel.")
    currency = text("ISO 4217 code.")
    business_date = day("Business day.")
    sold_amount = money("Net amount of the day's lines; null when there were none.", optional=True)
    settled_amount = money("Gross amount settled; null when nothing was.", optional=True)
    difference_amount = money("Settled less sold, unknown counting as nothing.")
    status_id = text("Outcome.", values=_SETTLEMENT_STATUSES, references="gold.dim_status.status_id")


@table(
    "gold.fact_settlements",
    comment="One row per settlement beside the day's sales and the fee the schedule says.",
    kind=Replace(),
    key=("merchant_id", "settlement_id"),
    producer="pipelines.gold.settlements:build_fact_settlements",
    reads=("silver.stage_settlements", "silver.stage_reconciliations", "gold.ref_fee_schedule"),
    owner="finance",
)
class FactSettlements:
    merchant_id = text("Retailer.")
    settlement_id = text("Number of the acquirer.")
    channel_id = text("Channel settled.")
    settled_on = day("Business day settled.")
    currency = text("ISO 4217 code.")
    gross_amount = money("Sales settled.")
    fee_amount = money("Fees withheld.")
    net_amount = money("Paid out.")
    expected_fee_amount = money("Fee by the schedule of the day; null without one.", optional=True)
    fee_difference_amount = money("Withheld less expected; null without a schedule.", optional=True)
    is_arithmetic_right = flag("Whether gross less fee is net.")
    status_id = text("Outcome of the day's reconciliation.", values=_SETTLEMENT_STATUSES)
    is_sample = flag("True when it comes from a labelled sample feed.")


@table(
    "silver.stage_adjustments",
    comment="One row per line that takes back or corrects: returns, cancellations, postage, fees, corrections.",
    kind=Merge(),
    key=("transaction_id",),
    producer="pipelines.gold.adjustments:stage_adjustments",
    reads=(_FACTS, changes(_FACTS)),
    owner="finance",
)
class StageAdjustments:
    transaction_id = bigint("Line.", references="gold.fact_transactions.transaction_id")
    merchant_id = text("Retailer.")
    account_id = text("Account.", pii=Pii.IDENTIFIER)
    basket_id = text("Receipt or invoice.")
    product_id = text("Product or bookkeeping code.")
    adjustment_type = text("Kind.", values=("return", "cancellation", "adjustment"))
    business_date = day("Business day.")
    quantity = quantity("Pieces; negative when goods come back.")
    amount = money("Net amount, in `currency`.")
    currency = text("ISO 4217 code.")
    original_basket_id = text("Basket of the sale it takes back, when matched.", optional=True)
    is_matched = flag("Whether the sale it takes back is known; a basket that the source names is not looked for.")
    matched_by = text(
        "Who found it: the source names it, or it was inferred: the latest sale before, to the same customer, of the "
        "same product at the same unit price and of at least as many pieces. Null when not matched.",
        optional=True,
        values=("source", "inferred"),
    )


@table(
    "gold.audit_txn_ingest",
    comment="One row per delivered piece of a transactions feed that landed: rows, checksum, period.",
    kind=Merge(),
    key=("source", "feed", "file_id", "delivery"),
    producer="pipelines.gold.adjustments:audit_transaction_ingest",
    reads=(changes("bronze.raw_transactions"),),
)
class AuditTxnIngest:
    file_id = text("SHA-256 of the file.")
    delivery = text("Delivery.")
    source = text("Source.")
    feed = text("Feed.")
    delivery_seq = bigint("Order of the delivery within the feed.")
    batch_id = bigint("Ingest batch.")
    row_count = bigint("Rows landed.")
    checksum = column("decimal(38,0)", "Sum of `row_hash`; independent of order.")
    delivered_hash = bigint("Exclusive or of `row_hash`.", optional=True)
    first_sold_at = instant("Earliest sale, UTC; null when no row has a time.", optional=True)
    last_sold_at = instant("Latest sale, UTC.", optional=True)
    loaded_at = instant("When the batch was read, UTC.")


@table(
    "gold.audit_recon",
    comment="One row per subject and merchant: delivered rows against accepted, duplicate and rejected ones.",
    kind=Replace(),
    key=("subject", "merchant_id"),
    producer="pipelines.gold.recon:reconcile_deliveries",
    reads=RECONCILED,
)
class AuditRecon:
    subject = text("What the rows are about.")
    merchant_id = text("Retailer they are about; `all` of exchange rates.")
    delivered_rows = bigint("Rows that landed in bronze, also where they are past their retention.")
    accepted_rows = bigint("Rows standing in silver.")
    duplicate_rows = bigint("Rows that a standing row stands for besides its own.")
    rejected_rows = bigint("Rows refused in silver.")
    difference_rows = bigint("Delivered less all others; 0 when nothing vanished.")
    delivered_checksum = bigint("Exclusive or of `row_hash` over delivered rows.")
    accounted_checksum = bigint("The same over accepted, duplicate and rejected rows.")
    is_balanced = flag("Whether rows and checksums agree.")
    unparsed_rows = bigint("Rows refused before bronze because they could not be read as declared.")
