"""Gold: the facts and dimensions everything above stands on. Finance tables are in `gold_finance`."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, day, flag, instant, integer, money, quantity, text
from lakehouse.declare import Merge, Scd1, Scd2, changes, table


@table(
    "gold.fact_transactions",
    comment="One row per basket line, in its own and in the base currency; the fact every feature is made from.",
    kind=Merge(),
    key=("transaction_id",),
    producer="pipelines.gold.transactions:build_fact_transactions",
    reads=(changes("silver.transaction_line"), "gold.ref_exchange_rates", changes("gold.ref_exchange_rates")),
    cluster_by=("business_date",),
    change_feed=True,
    owner="sales-data",
)
class FactTransactions:
    transaction_id = bigint("Same as silver.transaction_line.transaction_id.")
    merchant_id = text("Retailer.", references="gold.dim_merchant.merchant_id")
    account_id = text(
        "Loyalty account the line was booked on; one guest account per merchant.",
        pii=Pii.IDENTIFIER,
        references="gold.dim_account.account_id",
    )
    customer_key = bigint(
        "xxhash64(merchant_id, customer_id); null for a guest. Stable across customer versions.",
        optional=True,
        references="gold.dim_customer.customer_key",
    )
    customer_id = text("Customer number; null for a guest.", optional=True, pii=Pii.IDENTIFIER)
    basket_id = text("Receipt or invoice number.")
    product_id = text("Product code.", references="gold.dim_product.product_id")
    store_id = text("Store number.", optional=True)
    channel_id = text("Sales channel.", references="gold.dim_channel.channel_id")
    txn_type = text(
        "sale, return, cancellation or adjustment.", values=("sale", "return", "cancellation", "adjustment")
    )
    status_id = text("Life of the line.", references="gold.dim_status.status_id")
    posted_ts = instant("When it was sold, UTC.")
    business_date = day("Business day in the shop's zone.")
    hour_of_day = integer("Hour in the shop's zone, 0 to 23.")
    quantity = quantity("Pieces or weight; negative when goods come back.")
    gross_amount = money("At shelf price, in `currency`.")
    amount = money("Net, in `currency`; negative when money goes back.")
    discount_amount = money("Shop's reduction, in `currency`; has the sign of the amount.")
    coupon_amount = money("Coupon reduction, in `currency`; has the sign of the amount.")
    currency = text("ISO 4217 code.")
    base_amount = money(
        "Net, in the base currency of the settings at the day's rate, or divided by the rate the other way where only "
        "that is delivered, rounded once; null where neither holds on the day.",
        optional=True,
    )
    original_basket_id = text("Basket that a line which is no sale takes back, when delivered.", optional=True)
    is_valid_purchase = flag("Customer known, a sale, quantity and price above zero.")


@table(
    "gold.dim_customer",
    comment="One row per version of a customer; join facts on customer_key and is_current, or on the validity.",
    kind=Scd2(
        business_key=("merchant_id", "customer_id"),
        tracked=(
            "age_band",
            "income_band",
            "home_ownership",
            "marital_status",
            "household_size",
            "household_composition",
            "kids_count",
            "country",
            "email",
            "phone",
            "first_name",
            "last_name",
            "postal_code",
            "city",
            "is_sample_contact",
        ),
    ),
    key=("customer_sk",),
    producer="pipelines.gold.customers:build_dim_customer",
    reads=("bronze.raw_customers", "bronze.raw_contact_points", changes("silver.customer")),
    cluster_by=("customer_key",),
    owner="crm-data",
)
class DimCustomer:
    customer_sk = bigint("Surrogate key of this version: xxhash64 of business key and valid_from.")
    customer_key = bigint("xxhash64(merchant_id, customer_id), stable across versions.")
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
    is_sample_contact = flag("True when contact details come from a labelled sample feed.")
    first_seen_at = instant("First sale or registration, UTC.")
    valid_from = instant("When this version became true, UTC.")
    valid_to = instant("When it stopped being true, exclusive; null while current.", optional=True)
    is_current = flag("True for the version that holds now.")


@table(
    "gold.dim_product",
    comment="One row per product of a merchant, latest values.",
    kind=Scd1(
        tracked=(
            "product_name",
            "department",
            "category",
            "subcategory",
            "brand_type",
            "manufacturer_id",
            "package_size",
            "is_merchandise",
        )
    ),
    key=("merchant_id", "product_id"),
    producer="pipelines.gold.products:build_dim_product",
    reads=("silver.product",),
    owner="merchandising",
    change_feed=True,
)
class DimProduct:
    product_key = bigint("xxhash64(merchant_id, product_id).")
    merchant_id = text("Retailer.")
    product_id = text("Product code.")
    product_name = text("Name.", optional=True)
    department = text("Department.", optional=True)
    category = text("Category.", optional=True)
    subcategory = text("Product type.", optional=True)
    brand_type = text("National or Private.", optional=True)
    manufacturer_id = text("Manufacturer number.", optional=True)
    package_size = text("Package size as printed.", optional=True)
    is_merchandise = flag("False for postage, fees and manual adjustments.")
