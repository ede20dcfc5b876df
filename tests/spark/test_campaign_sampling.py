from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from lakehouse.lake import Lake
from lakehouse.settings import Settings
from models.sampling import read_campaigns
from tests.support.rows import rows

pytestmark = pytest.mark.spark


def test_only_contacts_and_redemptions_of_the_customers_asked_for_leave_spark(
    spark: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(spark, Settings(data_dir=tmp_path, parallel_steps=1))
    day, case = date(1970, 1, 11), {"merchant_id": "shop", "campaign_id": "a"}
    of = [{**case, "customer_id": c} for c in ("1", "2", "3")]
    lake.write(
        "silver.campaign",
        rows(
            spark,
            "silver.campaign",
            [case | {"starts_on": day, "ends_on": day}, {"campaign_id": "late"} | {"merchant_id": "shop"}],
        ),
    )
    lake.write("silver.campaign_contact", rows(spark, "silver.campaign_contact", of))
    redeemed = [r | {"coupon_id": "c", "redeemed_on": day} for r in of[:2]]
    lake.write("silver.coupon_redemption", rows(spark, "silver.coupon_redemption", redeemed))
    keys = [r[0] for r in spark.sql("SELECT xxhash64('shop', '2') UNION ALL SELECT xxhash64('shop', '3')").collect()]

    found = read_campaigns(lake, "shop", date(1970, 2, 1), np.array(keys * 2))

    assert found.campaigns.to_dict("records") == [{"campaign_id": "a", "starts": 10, "ends": 10}]
    assert sorted(found.contacts["customer_key"]) == sorted(keys)
    assert found.redemptions[["customer_key", "day"]].to_numpy().tolist() == [[keys[0], 10]]

    nobody = read_campaigns(lake, "shop", date(1970, 2, 1), np.array([], np.int64))
    assert (len(nobody.campaigns), len(nobody.contacts), len(nobody.redemptions)) == (1, 0, 0)
