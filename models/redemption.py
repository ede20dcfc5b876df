"""The test of lookalikes on coupons: who redeems, among the households a campaign addressed and among all.

The two are told apart because only who was addressed can redeem: among all, a model that has learnt the mailing list
looks as if it had learnt who likes coupons.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from lakehouse.errors import ModelError
from models.judging import auc_of, lift_at
from models.lookalike import FEATURES, fit_seed
from models.shoppers import Placed, Shoppers, Space, Vocabulary

HORIZON: Final = 90
MIN_POSITIVES: Final = 50
"""New redeemers a campaign must have; below that its AUC has a standard error of 0.04 and more."""


def judge_redemption(
    lines: pd.DataFrame, campaigns: pd.DataFrame, contacts: pd.DataFrame, redemptions: pd.DataFrame, last: int
) -> pd.DataFrame:
    """One row per large enough campaign, audience and way of ranking, as of the day the campaign began.

    The seed are those who redeemed any coupon before. Among `addressed`, candidates are active households the
    campaign addressed and positive is who redeems before it ends; among `all`, candidates are all active households
    and positive is who first redeems within 90 days.

    Args:
        lines: Rows customer_key, item, category, day (days since 1970-01-01).
        campaigns: campaign_id, starts, ends (last day).
        contacts: campaign_id, customer_key.
        redemptions: campaign_id, customer_key, day.
        last: Day after the newest sale; campaigns whose 90 days reach past it are judged among the addressed only.

    Returns:
        campaign_id, day, audience, way (seed_regression, affinity, cosine, activity), auc, lift_5, lift_10,
        positives and candidates. No row when no campaign is large enough.
    """
    rows = []
    for campaign in campaigns.sort_values("starts").itertuples():
        day = int(campaign.starts)
        before = redemptions.loc[redemptions["day"] < day, "customer_key"].unique()
        of_campaign = (redemptions["campaign_id"] == campaign.campaign_id) & redemptions["day"].between(
            day, campaign.ends
        )
        came = np.setdiff1d(redemptions.loc[of_campaign, "customer_key"].unique(), before)
        if len(came) < MIN_POSITIVES:
            continue
        past = lines[lines["day"] < day]
        try:
            vocabulary = Vocabulary.of(past)
            shoppers = Shoppers.at(past, day, vocabulary)
            placed = Placed.of(shoppers, Space.fit(shoppers, vocabulary))
            seed = fit_seed(placed, np.isin(shoppers.keys, before))
        except ModelError:
            continue  # too early: there are not yet enough who redeemed
        features = seed.features(placed)
        open_to = shoppers.is_active & ~np.isin(shoppers.keys, before)
        addressed = contacts.loc[contacts["campaign_id"] == campaign.campaign_id, "customer_key"]
        soon = redemptions["day"].between(day, day + HORIZON - 1)
        audiences = {"addressed": (open_to & np.isin(shoppers.keys, addressed), came)}
        if day + HORIZON <= last:
            audiences["all"] = (open_to, redemptions.loc[soon, "customer_key"].unique())
        for audience, (candidates, keys) in audiences.items():
            did = np.isin(shoppers.keys[candidates], keys)
            column = dict(zip(FEATURES, features[candidates].T, strict=True))
            for way, name in _WAYS.items():
                rows.append(
                    {
                        "campaign_id": campaign.campaign_id,
                        "day": day,
                        "audience": audience,
                        "way": way,
                        "auc": auc_of(did, column[name]),
                        "lift_5": lift_at(did, column[name], 0.05),
                        "lift_10": lift_at(did, column[name], 0.10),
                        "positives": int(did.sum()),
                        "candidates": len(did),
                    }
                )
    return pd.DataFrame(rows)


_WAYS: Final = {
    "seed_regression": "resemblance",
    "affinity": "affinity_share",
    "cosine": "cosine",
    "activity": "days_90",
}
