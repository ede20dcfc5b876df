"""The events a rule may ask about: what each is made from, and its fields.

Every event has a customer, an instant `at` (order, UTC) and a business day `day` (windows). Those of visitors have a
`known_on` besides: the day from which the customer is known. Frames are made only of events that a rule names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.keys import key_of_customer
from lakehouse.tables.gold import DimProduct as P
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.silver import Campaign as K
from lakehouse.tables.silver import CampaignContact as N
from lakehouse.tables.silver import CouponRedemption as R
from lakehouse.tables.silver import VisitorEvent as V
from segments.catalogue import Feature

FACTS: Final = "gold.fact_transactions"
PRODUCTS: Final = "gold.dim_product"
CAMPAIGNS: Final = "silver.campaign"
CONTACTS: Final = "silver.campaign_contact"
REDEMPTIONS: Final = "silver.coupon_redemption"
VISITS: Final = "silver.visitor_event"
SOURCES: Final = (FACTS, PRODUCTS, CAMPAIGNS, CONTACTS, REDEMPTIONS, VISITS)
"""Tables events are made from, in the order a producer reads them."""

Tables = Mapping[str, DataFrame]


@dataclass(frozen=True)
class Event:
    """A kind of event.

    Attributes:
        name: As written in a rule.
        comment: What one event is.
        fields: What a rule may filter by or measure, by name.
        build: The tables of `SOURCES` to one row per event: merchant_id, customer_key, at, day and the fields.
        is_of_visitors: Whether visitors do it, who may be known as customers only from a later day, `known_on`.
    """

    name: str
    comment: str
    fields: Mapping[str, Feature]
    build: Callable[[Tables], DataFrame]
    is_of_visitors: bool = False


def _fields(*fields: tuple[str, str, str], **bounds: tuple[float, float]) -> Mapping[str, Feature]:
    made = {name: Feature(name, kind, comment=comment) for name, kind, comment in fields}
    return made | {name: replace(made[name], bounds=of) for name, of in bounds.items()}


def _lines(tables: Tables, is_counted: Column) -> DataFrame:
    return tables[FACTS].where(F.col(T.customer_key).isNotNull() & is_counted)


def _purchases(tables: Tables) -> DataFrame:
    lines = _lines(tables, F.col(T.is_valid_purchase))
    return lines.groupBy(T.merchant_id, T.customer_key, T.basket_id).agg(
        F.min(T.posted_ts).alias("at"),
        F.min(T.business_date).alias("day"),
        F.sum(T.amount).cast("decimal(18,2)").alias("amount"),
        F.sum(T.discount_amount).cast("decimal(18,2)").alias("discount_amount"),
        F.sum(T.coupon_amount).cast("decimal(18,2)").alias("coupon_amount"),
        F.count(F.lit(1)).alias("lines"),
        F.min(T.store_id).alias("store_id"),
        F.min(T.channel_id).alias("channel_id"),
        F.min(T.hour_of_day).alias("hour"),
        F.weekday(F.min(T.business_date)).alias("weekday"),
    )


def _items(tables: Tables) -> DataFrame:
    products = tables[PRODUCTS].select(
        P.merchant_id, P.product_id, P.department, P.category, P.subcategory, P.brand_type
    )
    lines = _lines(tables, F.col(T.is_valid_purchase))
    # One row per product on the right, so a line stays one event.
    return lines.join(F.broadcast(products), on=["merchant_id", "product_id"], how="left").select(
        T.merchant_id,
        T.customer_key,
        F.col(T.posted_ts).alias("at"),
        F.col(T.business_date).alias("day"),
        T.amount,
        T.quantity,
        T.product_id,
        P.department,
        P.category,
        P.subcategory,
        P.brand_type,
        T.basket_id,
        T.store_id,
        T.channel_id,
    )


def _returns(tables: Tables) -> DataFrame:
    lines = _lines(tables, F.col(T.txn_type).isin("return", "cancellation"))
    return lines.select(
        T.merchant_id,
        T.customer_key,
        F.col(T.posted_ts).alias("at"),
        F.col(T.business_date).alias("day"),
        (-F.col(T.amount)).cast("decimal(18,2)").alias("amount"),
        (-F.col(T.quantity)).cast("decimal(18,3)").alias("quantity"),
        T.product_id,
        T.store_id,
        T.channel_id,
    )


def _contacts(tables: Tables) -> DataFrame:
    campaigns = tables[CAMPAIGNS].select(
        K.merchant_id,
        K.campaign_id,
        K.campaign_type,
        K.starts_on,
        F.coalesce(K.starts_at, F.col(K.starts_on).cast("timestamp")).alias("at"),
    )
    # One row per campaign on the right, so a contact stays one event.
    return (
        tables[CONTACTS]
        .join(F.broadcast(campaigns), on=["merchant_id", "campaign_id"], how="inner")
        .select(
            N.merchant_id,
            customer_key(),
            "at",
            F.col(K.starts_on).alias("day"),
            N.campaign_id,
            K.campaign_type,
        )
    )


def _redemptions(tables: Tables) -> DataFrame:
    return tables[REDEMPTIONS].select(
        R.merchant_id,
        customer_key(),
        F.col(R.redeemed_at).alias("at"),
        F.col(R.redeemed_on).alias("day"),
        R.coupon_id,
        R.campaign_id,
    )


def _visitor_events(kind: str) -> Callable[[Tables], DataFrame]:
    def build(tables: Tables) -> DataFrame:
        of_kind = (F.col(V.event_type) == F.lit(kind)) & F.col(V.customer_id).isNotNull()
        return (
            tables[VISITS]
            .where(of_kind)
            .select(
                V.merchant_id,
                customer_key(),
                F.col(V.happened_at).alias("at"),
                F.col(V.happened_on).alias("day"),
                V.known_on,
                V.page,
                V.product_id,
                V.quantity,
                V.amount,
            )
        )

    return build


def as_visitors(events: DataFrame) -> DataFrame:
    """`silver.visitor_event` with every visitor in the place of a customer, for rules about guests."""
    return events.withColumns({str(V.customer_id): F.col(V.visitor_id), str(V.known_on): F.col(V.happened_on)})


def customer_key() -> Column:
    """The key of a customer from merchant_id and customer_id, as in gold.dim_customer."""
    return key_of_customer().alias("customer_key")


_PAGE = ("page", "string", "Kind of page.")
_PRODUCT = ("product_id", "string", "Product code.")

_WHERE = (("store_id", "string", "Store number."), ("channel_id", "string", "Sales channel."))

EVENTS: Final[Mapping[str, Event]] = {
    e.name: e
    for e in (
        Event(
            "purchase",
            "One basket of a known customer.",
            _fields(
                ("amount", "decimal(18,2)", "Paid, in merchant currency, before returns."),
                ("discount_amount", "decimal(18,2)", "Shop's reduction."),
                ("coupon_amount", "decimal(18,2)", "Coupon reduction."),
                ("lines", "bigint", "Lines in the basket."),
                ("hour", "int", "Hour in the shop's zone, 0 to 23."),
                ("weekday", "int", "0 for Monday to 6 for Sunday."),
                *_WHERE,
                lines=(1, inf),
                hour=(0, 23),
                weekday=(0, 6),
            ),
            _purchases,
        ),
        Event(
            "item",
            "One purchased line of a basket.",
            _fields(
                ("amount", "decimal(18,2)", "Paid, in merchant currency."),
                ("quantity", "decimal(18,3)", "Pieces or weight."),
                ("product_id", "string", "Product code."),
                ("department", "string", "Department."),
                ("category", "string", "Category."),
                ("subcategory", "string", "Product type."),
                ("brand_type", "string", "National or Private."),
                ("basket_id", "string", "Receipt or invoice number."),
                *_WHERE,
            ),
            _items,
        ),
        Event(
            "return",
            "One returned or cancelled line, on the day it came back.",
            _fields(
                ("amount", "decimal(18,2)", "Given back, positive."),
                ("quantity", "decimal(18,3)", "Pieces or weight, positive."),
                ("product_id", "string", "Product code."),
                *_WHERE,
            ),
            _returns,
        ),
        Event(
            "campaign_contact",
            "One campaign sent to the customer, on its first day.",
            _fields(("campaign_id", "string", "Campaign number."), ("campaign_type", "string", "Type.")),
            _contacts,
        ),
        Event(
            "coupon_redemption",
            "One coupon redeemed.",
            _fields(("coupon_id", "string", "Coupon code."), ("campaign_id", "string", "Campaign.")),
            _redemptions,
        ),
        Event(
            "visit",
            "The start of a visit to the web shop.",
            _fields(_PAGE),
            _visitor_events("visit"),
            is_of_visitors=True,
        ),
        Event(
            "page_view",
            "One page viewed.",
            _fields(_PAGE, _PRODUCT),
            _visitor_events("page_view"),
            is_of_visitors=True,
        ),
        Event(
            "cart_add",
            "One product put into the cart.",
            _fields(
                _PRODUCT,
                ("quantity", "decimal(18,3)", "Pieces."),
                ("amount", "decimal(18,2)", "Value, in merchant currency."),
            ),
            _visitor_events("cart_add"),
            is_of_visitors=True,
        ),
        Event(
            "checkout",
            "One order placed in the web shop.",
            _fields(("amount", "decimal(18,2)", "Value, in merchant currency.")),
            _visitor_events("checkout"),
            is_of_visitors=True,
        ),
        Event("login", "One login.", _fields(_PAGE), _visitor_events("login"), is_of_visitors=True),
    )
}
