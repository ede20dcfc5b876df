"""Silver: typed, conformed, deduplicated subjects, and rejected rows beside them."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, flag, instant, integer, money, quantity, text
from lakehouse.declare import Merge, changes, table


@table(
    "silver.transaction_line",
    comment="One row per basket line that a merchant really recorded: sales, returns, cancellations, adjustments.",
    kind=Merge(),
    key=("transaction_id", "basket_id", "product_id", "line_number"),
    producer="pipelines.silver.transactions:conform_transactions",
    reads=(changes("bronze.raw_transactions"),),
    cluster_by=("sold_on",),
    change_feed=True,
    owner="sales-data",
)
class TransactionLine:
    """Key is exact: `transaction_id` is a hash that prunes, the natural columns decide."""

    transaction_id = bigint("xxhash64 of merchant, basket, product and line number.")
    merchant_id = text("Retailer the line belongs to.")
    basket_id = text("Receipt or invoice number.")
    product_id = text("Conformed product code (upper case, trimmed).")
    line_number = integer("Line within basket and product, from 1; repeats of a product get 1, 2, ...")
    customer_id = text("Customer number; null for a guest.", optional=True, pii=Pii.IDENTIFIER)
    store_id = text("Store number.", optional=True)
    channel_id = text("Sales channel: store, online, ...", references="gold.dim_channel.channel_id")
    product_name = text("Product description delivered with the line.", optional=True)
    country = text("Country delivered with the line.", optional=True)
    txn_type = text("What the line is.", values=("sale", "return", "cancellation", "adjustment"))
    sold_at = instant("When it was sold, UTC.")
    sold_on = day("Business day in the shop's zone.")
    sold_hour = integer("Hour of day in the shop's zone, 0 to 23.")
    quantity = quantity("Pieces or weight; negative when goods come back.")
    gross_amount = money("At shelf price, before any reduction; negative when money goes back.")
    amount = money("Net amount the shop received; negative when money goes back.")
    discount_amount = money("Price reduction by the shop; has the sign of the amount.")
    coupon_amount = money("Reduction by coupon including the shop's match; has the sign of the amount.")
    currency = text("ISO 4217 code.")
    original_basket_id = text("Basket that a line which is no sale takes back, when delivered.", optional=True)
    is_valid_purchase = flag("Customer known, a sale, quantity and price above zero.")
    source = text("Source that delivered the winning row.")
    feed = text("Feed of the source that delivered it.")
    delivery_seq = bigint("Delivery order of the winning row; a later delivery replaces an earlier one.")
    delivery_id = bigint(
        "xxhash64(source, feed, file_id, delivery) of the winning row; with row_number it leads to the raw row."
    )
    row_number = bigint("Position of the winning row within its file.")
    row_hash = bigint("Hash of the delivered row that won.")
    superseded = column(
        "array<struct<delivery_seq:bigint,delivery_id:bigint,row_number:bigint,row_hash:bigint>>",
        "Delivered rows this line stands for besides its own: delivered again, corrected or replaced; null for none.",
        optional=True,
    )
    batch_id = bigint("Ingest batch of the winning row.")


@table(
    "silver.transaction_reject",
    comment="One row per delivered line that is typed but not acceptable, with the reasons.",
    kind=Merge(),
    key=("source", "feed", "file_id", "delivery", "row_number"),
    producer="pipelines.silver.transactions:conform_transactions",
    reads=(changes("bronze.raw_transactions"),),
    owner="sales-data",
)
class TransactionReject:
    source = text("Source that delivered the row.")
    feed = text("Feed within the source.")
    delivery = text("Delivery the row came in.")
    file_id = text("SHA-256 of the file.")
    row_number = bigint("Position within the file.")
    row_hash = bigint("Hash of the delivered row.")
    reasons = column("array<string>", "Why it was refused, one code per broken rule.")
    batch_id = bigint("Ingest batch.")


@table(
    "silver.product",
    comment="One row per product of a merchant, latest delivered values.",
    kind=Merge(),
    key=("merchant_id", "product_id"),
    producer="pipelines.silver.products:conform_products",
    reads=(
        "bronze.raw_products",
        changes("bronze.raw_products"),
        "silver.transaction_line",
        changes("silver.transaction_line", also_before=True),
    ),
    owner="merchandising",
)
class Product:
    merchant_id = text("Retailer.")
    product_id = text("Conformed product code.")
    product_name = text("Name.", optional=True)
    department = text("Department.", optional=True)
    category = text("Category.", optional=True)
    subcategory = text("Product type.", optional=True)
    brand_type = text("National or Private.", optional=True)
    manufacturer_id = text("Manufacturer number.", optional=True)
    package_size = text("Package size as printed.", optional=True)
    is_merchandise = flag("False for postage, fees, manual adjustments and the like.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.customer",
    comment="One row per known customer of a merchant: latest master data; bought or registered.",
    kind=Merge(),
    key=("merchant_id", "customer_id"),
    producer="pipelines.silver.customers:conform_customers",
    reads=(
        "bronze.raw_customers",
        changes("bronze.raw_customers"),
        "bronze.raw_contact_points",
        changes("bronze.raw_contact_points"),
        "silver.transaction_line",
        changes("silver.transaction_line", also_before=True),
    ),
    change_feed=True,
    owner="crm-data",
)
class Customer:
    merchant_id = text("Retailer.")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    age_band = text("Age band.", optional=True, pii=Pii.QUASI)
    income_band = text("Income band.", optional=True, pii=Pii.QUASI)
    home_ownership = text("Home ownership.", optional=True, pii=Pii.QUASI)
    marital_status = text("Marital status.", optional=True, pii=Pii.QUASI)
    household_size = text("Household size band.", optional=True, pii=Pii.QUASI)
    household_composition = text("Household composition.", optional=True, pii=Pii.QUASI)
    kids_count = text("Kids band.", optional=True, pii=Pii.QUASI)
    country = text("Country.", optional=True)
    email = text("Lower-cased address.", optional=True, pii=Pii.CONTACT)
    phone = text("E.164 number.", optional=True, pii=Pii.CONTACT)
    first_name = text("Given name.", optional=True, pii=Pii.CONTACT)
    last_name = text("Family name.", optional=True, pii=Pii.CONTACT)
    postal_code = text("Postal code.", optional=True, pii=Pii.CONTACT)
    city = text("City.", optional=True, pii=Pii.QUASI)
    is_sample_contact = flag("True when the contact details come from a labelled sample feed, not from a person.")
    line_country = text(
        "Country of their lines, of several the last by name; theirs where nothing else names one.", optional=True
    )
    first_seen_at = instant("First sale or registration, UTC.")
    changed_at = instant("When the values became true, UTC.")
    master_count = bigint("Delivered rows of master data it stands for.")
    master_hash = bigint("Exclusive or of their `row_hash`.")
    contact_count = bigint("Delivered rows of contact points it stands for.")
    contact_hash = bigint("Exclusive or of their `row_hash`.")


@table(
    "silver.consent",
    comment="One row per customer and channel: the latest choice.",
    kind=Merge(),
    key=("merchant_id", "customer_id", "channel"),
    producer="pipelines.silver.consents:conform_consents",
    reads=("bronze.raw_consents", changes("bronze.raw_consents")),
    owner="privacy",
)
class Consent:
    merchant_id = text("Retailer.")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    channel = text("Channel of contact.", values=("email", "sms", "phone", "post", "ads"))
    is_granted = flag("True when contact on this channel is allowed.")
    changed_at = instant("When the choice was made, UTC.")
    is_sample = flag("True when it comes from a labelled sample feed.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.campaign",
    comment="One row per campaign.",
    kind=Merge(),
    key=("merchant_id", "campaign_id"),
    producer="pipelines.silver.campaigns:conform_campaigns",
    reads=("bronze.raw_campaigns", changes("bronze.raw_campaigns")),
    owner="marketing",
    change_feed=True,
)
class Campaign:
    merchant_id = text("Retailer.")
    campaign_id = text("Campaign number.")
    campaign_type = text("Type.", optional=True)
    starts_on = day("First day.")
    ends_on = day("Last day, inclusive.")
    starts_at = instant("When its first day begins in the shop; null in rows from before this was told.", optional=True)
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.campaign_contact",
    comment="One row per customer and campaign that contacted the customer.",
    kind=Merge(),
    key=("merchant_id", "campaign_id", "customer_id"),
    producer="pipelines.silver.campaigns:conform_campaign_contacts",
    reads=("bronze.raw_campaign_contacts", changes("bronze.raw_campaign_contacts")),
    owner="marketing",
    change_feed=True,
)
class CampaignContact:
    merchant_id = text("Retailer.")
    campaign_id = text("Campaign number.")
    customer_id = text("Customer.", pii=Pii.IDENTIFIER)
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.coupon",
    comment="One row per coupon, product and campaign.",
    kind=Merge(),
    key=("merchant_id", "coupon_id", "product_id", "campaign_id"),
    producer="pipelines.silver.campaigns:conform_coupons",
    reads=("bronze.raw_coupons", changes("bronze.raw_coupons")),
    owner="marketing",
)
class Coupon:
    merchant_id = text("Retailer.")
    coupon_id = text("Coupon code.")
    product_id = text("Product it is good for.")
    campaign_id = text("Campaign that issues it.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.coupon_redemption",
    comment="One row per redemption of a coupon by a customer.",
    kind=Merge(),
    key=("merchant_id", "customer_id", "coupon_id", "campaign_id", "redeemed_at", "occurrence"),
    producer="pipelines.silver.campaigns:conform_coupon_redemptions",
    reads=("bronze.raw_coupon_redemptions", changes("bronze.raw_coupon_redemptions")),
    owner="marketing",
    change_feed=True,
)
class CouponRedemption:
    merchant_id = text("Retailer.")
    customer_id = text("Customer.", pii=Pii.IDENTIFIER)
    coupon_id = text("Coupon code.")
    campaign_id = text("Campaign.")
    redeemed_at = instant("When, UTC.")
    redeemed_on = day("Business day.")
    occurrence = integer("1, 2, ... for the same coupon redeemed again at the same instant.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


VISITOR_EVENTS = ("visit", "page_view", "cart_add", "checkout", "login")


@table(
    "silver.visitor_event",
    comment="One row per thing a visitor of a web shop did, with the customer a login shows the visitor to be.",
    kind=Merge(),
    key=("merchant_id", "visitor_id", "event_id"),
    producer="pipelines.silver.visitors:conform_visitor_events",
    reads=("bronze.raw_visitor_events", changes("bronze.raw_visitor_events")),
    cluster_by=("visitor_id",),
    change_feed=True,
    owner="crm-data",
)
class VisitorEvent:
    merchant_id = text("Retailer.")
    visitor_id = text("SHA-256 of merchant and delivered visitor number, hex.", pii=Pii.IDENTIFIER)
    event_id = text("Number of the event, unique for the visitor.")
    event_type = text("What happened; a visit is the start of one.", values=VISITOR_EVENTS)
    happened_at = instant("When, UTC.")
    happened_on = day("Business day.")
    customer_id = text(
        "Customer of the visitor's last login up to the event, else of the first one after; null before any.",
        optional=True,
        pii=Pii.IDENTIFIER,
    )
    known_on = day("Business day from which on that is known: of the event or of the login, the later.", optional=True)
    email = text("Lower-cased address the visitor left with it.", optional=True, pii=Pii.CONTACT)
    page = text("Kind of page.", optional=True)
    product_id = text("Conformed product code.", optional=True)
    quantity = quantity("Pieces put into the cart.", optional=True)
    amount = money("Value put into the cart, or ordered, in merchant currency.", optional=True)
    is_sample = flag("True when it comes from a labelled sample feed.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


@table(
    "silver.promotion",
    comment="One row per product, store and week with a display or mailer placement.",
    kind=Merge(),
    key=("merchant_id", "product_id", "store_id", "week_starts_on"),
    producer="pipelines.silver.promotions:conform_promotions",
    reads=("bronze.raw_promotions", changes("bronze.raw_promotions")),
    owner="marketing",
    change_feed=True,
)
class Promotion:
    merchant_id = text("Retailer.")
    product_id = text("Product.")
    store_id = text("Store.")
    week = integer("Number of the week in its feed, which may count every year from one.")
    week_starts_on = day("First business day of that week.")
    is_displayed = flag("On an in-store display.")
    is_in_mailer = flag("In the weekly mailer.")
    delivered_count = bigint("Delivered rows this row stands for; 0 when it was derived.")
    delivered_hash = bigint("Exclusive or of their `row_hash`; with the count it proves that none was lost.")


SUBJECTS = (
    "products",
    "customers",
    "contact_points",
    "consents",
    "campaigns",
    "campaign_contacts",
    "coupons",
    "coupon_redemptions",
    "promotions",
    "visitor_events",
    "settlements",
    "exchange_rates",
)
"""Subjects beside transactions whose delivered rows are accounted for the same way."""


@table(
    "silver.subject_reject",
    comment="One row per delivered row, of any subject but transactions, that is typed but not acceptable.",
    kind=Merge(),
    key=("source", "feed", "file_id", "delivery", "row_number"),
    producer="pipelines.silver.rejects:reject_subjects",
    reads=tuple(changes(f"bronze.raw_{subject}") for subject in SUBJECTS),
)
class SubjectReject:
    subject = text("What the row is about.")
    source = text("Source that delivered it.")
    feed = text("Feed within the source.")
    delivery = text("Delivery the row came in.")
    file_id = text("SHA-256 of the file.")
    row_number = bigint("Position within the file.")
    row_hash = bigint("Hash of the delivered row.")
    reasons = column("array<string>", "Why it was refused, one code per broken rule.")
    batch_id = bigint("Ingest batch.")
