"""How a customer answers marketing: campaigns, coupons, and promotions in the shop."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.measures import ratio
from features.purchases import cents
from lakehouse.keys import key_of_customer
from lakehouse.tables.feature import FeatureCustomer
from lakehouse.tables.gold import FactTransactions
from lakehouse.tables.silver import Campaign, CampaignContact, CouponRedemption, Promotion

_C = FeatureCustomer
_Fact = FactTransactions


def campaign_response(campaigns: DataFrame, contacts: DataFrame, redemptions: DataFrame, as_of: date) -> DataFrame:
    """One row per customer who was addressed or redeemed before `as_of`.

    Args:
        campaigns: `silver.campaign`.
        contacts: `silver.campaign_contact`; a contact counts from the first day of its campaign.
        redemptions: `silver.coupon_redemption`.
        as_of: Only campaigns begun and coupons redeemed before this day count.

    Returns:
        merchant_id, customer_key, campaigns_contacted, last_contacted_on, coupons_redeemed, last_redeemed_on,
        campaigns_answered (addressed and redeemed from).
    """
    key = key_of_customer().alias("customer_key")
    nothing = F.lit(0).cast("bigint")
    no_day = F.lit(None).cast("date")
    begun = campaigns.where(F.col(Campaign.starts_on) < F.lit(as_of)).select(
        Campaign.merchant_id, Campaign.campaign_id, Campaign.starts_on
    )
    addressed = contacts.join(
        F.broadcast(begun), on=[CampaignContact.merchant_id, CampaignContact.campaign_id], how="inner"
    ).select(
        "merchant_id",
        key,
        "campaign_id",
        F.col(Campaign.starts_on).alias("contacted_on"),
        nothing.alias("redeemed"),
        no_day.alias("redeemed_on"),
    )
    redeemed = redemptions.where(F.col(CouponRedemption.redeemed_on) < F.lit(as_of)).select(
        "merchant_id",
        key,
        "campaign_id",
        no_day.alias("contacted_on"),
        F.lit(1).cast("bigint").alias("redeemed"),
        F.col(CouponRedemption.redeemed_on).alias("redeemed_on"),
    )
    each = (
        addressed.unionByName(redeemed)
        .groupBy("merchant_id", "customer_key", "campaign_id")
        .agg(
            F.max("contacted_on").alias("contacted_on"),
            F.sum("redeemed").alias("redeemed"),
            F.max("redeemed_on").alias("redeemed_on"),
        )
    )
    return each.groupBy("merchant_id", "customer_key").agg(
        F.count("contacted_on").alias(_C.campaigns_contacted),
        F.max("contacted_on").alias(_C.last_contacted_on),
        F.sum("redeemed").alias(_C.coupons_redeemed),
        F.max("redeemed_on").alias(_C.last_redeemed_on),
        F.count_if(F.col("contacted_on").isNotNull() & (F.col("redeemed") > 0)).alias("campaigns_answered"),
    )


def campaign_columns() -> dict[str, Column]:
    """Columns for customers left-joined with `campaign_response`: nobody contacted is 0, not unknown."""
    nothing = F.lit(0).cast("bigint")
    return {
        _C.campaigns_contacted: F.coalesce(_C.campaigns_contacted, nothing),
        _C.last_contacted_on: F.col(_C.last_contacted_on),
        _C.coupons_redeemed: F.coalesce(_C.coupons_redeemed, nothing),
        _C.last_redeemed_on: F.col(_C.last_redeemed_on),
        _C.redemption_rate: ratio(F.col("campaigns_answered"), F.col(_C.campaigns_contacted)),
    }


def begun_promotions(promotions: DataFrame, as_of: date) -> DataFrame:
    """Placements of `silver.promotion` in weeks begun before `as_of`."""
    return promotions.where(F.col(Promotion.week_starts_on) < F.lit(as_of))


def promoting_merchants(promotions: DataFrame) -> DataFrame:
    """One row per merchant with promotions: merchant_id, has_promotions (true)."""
    return promotions.groupBy(Promotion.merchant_id).agg(F.lit(True).alias("has_promotions"))


def promoted_lines(lines: DataFrame, promotions: DataFrame, calendar: DataFrame) -> DataFrame:
    """Lines bought while their product was promoted in their store.

    Args:
        lines: From `features.purchases.history`; only valid purchases are looked at.
        promotions: From `begun_promotions`, or some of them.
        calendar: All of them. Weeks of a merchant begin on one weekday, as its sources were checked to say.

    Returns:
        customer_key, amount (cents), is_displayed, is_in_mailer; one row per line, for a placement is unique per
        merchant, product, store and week.
    """
    days = F.datediff(Promotion.week_starts_on, F.lit(date(1970, 1, 1)))
    phases = calendar.groupBy(Promotion.merchant_id).agg(F.pmod(F.max(days), F.lit(7)).alias("phase"))
    week = F.floor((F.col("day") - F.col("phase")) / 7)
    key = F.xxhash64("merchant_id", "product_id", "store_id", week).alias("placement")
    placed = (
        promotions.withColumn("day", days)
        .join(F.broadcast(phases), on="merchant_id", how="inner")
        .select(key, Promotion.is_displayed, Promotion.is_in_mailer)
    )
    bought = (
        lines.where(F.col(_Fact.is_valid_purchase) & F.col(_Fact.store_id).isNotNull())
        .withColumn("day", F.unix_date(_Fact.business_date))
        .join(F.broadcast(phases), on="merchant_id", how="inner")
        .select(key, _Fact.customer_key, cents(_Fact.amount).alias("amount"))
    )
    # The lines are the fewer: a placement meets them in a map, and neither side is sorted.
    return bought.hint("shuffle_hash").join(placed, on="placement", how="inner").drop("placement")


def promotion_response(lines: DataFrame, promotions: DataFrame) -> DataFrame:
    """One row per customer with a promoted line: customer_key, displayed, mailed (lines), promoted (cents)."""
    return (
        promoted_lines(lines, promotions, promotions)
        .groupBy(_Fact.customer_key)
        .agg(
            F.count_if(Promotion.is_displayed).alias("displayed"),
            F.count_if(Promotion.is_in_mailer).alias("mailed"),
            F.sum(F.when(F.col(Promotion.is_displayed) | F.col(Promotion.is_in_mailer), F.col("amount"))).alias(
                "promoted"
            ),
        )
    )


def promotion_columns() -> dict[str, Column]:
    """Columns for customers left-joined with `promotion_response`, and with `has_promotions` of their merchant."""

    def share(part: str, whole: str) -> Column:
        return F.when(F.col("has_promotions"), ratio(F.coalesce(part, F.lit(0).cast("bigint")), F.col(whole)))

    return {
        _C.display_line_share: share("displayed", "bought_lines"),
        _C.mailer_line_share: share("mailed", "bought_lines"),
        _C.promoted_spend_share: share("promoted", "paid"),
    }


def customers_with_promotions(lines: DataFrame, promotions: DataFrame, calendar: DataFrame) -> DataFrame:
    """Customers with a line among some promotions: whom it concerns that these changed. May hold repeats."""
    return promoted_lines(lines, promotions, calendar).select(_Fact.customer_key)
