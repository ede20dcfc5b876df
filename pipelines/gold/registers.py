"""Reference tables made from configuration alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.ddl import struct_of
from lakehouse.declare import table_of
from lakehouse.tables.gold_finance import DimChannel as C

if TYPE_CHECKING:
    from pipelines.bronze.sources import Sources
    from pipelines.gold.finance_conf import Finance


def build_registers(manifest: DataFrame, *, sources: Sources, finance: Finance) -> dict[str, DataFrame]:
    """Merchants, statuses, fees and limits as configured.

    Args:
        manifest: Any frame; configuration needs one to be made into rows of the same session.
        sources: Declared sources; the merchants are theirs.
        finance: Statuses, fees and limits.

    Returns:
        The four register tables by name.
    """
    sample = finance.is_sample
    return {
        "gold.dim_merchant": rows_from(manifest, "gold.dim_merchant", _merchants(sources)),
        "gold.dim_status": rows_from(
            manifest,
            "gold.dim_status",
            (
                {
                    "status_id": s.id,
                    "domain": s.domain,
                    "status_name": s.name,
                    "description": s.description,
                    "is_final": s.is_final,
                }
                for s in finance.statuses
            ),
        ),
        "gold.ref_fee_schedule": rows_from(
            manifest,
            "gold.ref_fee_schedule",
            (
                {
                    "channel_id": f.channel,
                    "valid_from": f.valid_from,
                    "valid_to": f.valid_to,
                    "rate": f.rate,
                    "fixed_amount": f.fixed_amount,
                    "currency": f.currency,
                    "is_sample": sample,
                }
                for f in finance.fees
            ),
        ),
        "gold.ref_limits": rows_from(
            manifest,
            "gold.ref_limits",
            (
                {
                    "limit_id": x.id,
                    "limit_name": x.name,
                    "applies_to": x.applies_to,
                    "maximum": x.maximum,
                    "is_sample": sample,
                }
                for x in finance.limits
            ),
        ),
    }


def build_channels(daily_sales: DataFrame, settlements: DataFrame, *, finance: Finance) -> DataFrame:
    """Channels as configured, and others that sales or settlements name; the code of those is their name."""
    configured = rows_from(
        daily_sales,
        "gold.dim_channel",
        ({"channel_id": c.id, "channel_name": c.name, "is_online": c.is_online} for c in finance.channels),
    )
    named = daily_sales.select(C.channel_id).unionByName(settlements.select(C.channel_id)).distinct()
    # A channel is configured once, and only the others are kept.
    others = named.join(F.broadcast(configured.select(C.channel_id)), on=str(C.channel_id), how="left_anti")
    return configured.unionByName(
        others.select(
            C.channel_id, F.col(C.channel_id).alias(C.channel_name), F.lit(None).cast("boolean").alias(C.is_online)
        )
    )


def rows_from(frame: DataFrame, table: str, values: Iterable[dict[str, Any]]) -> DataFrame:
    """Rows of a declared table from configuration, in the session of `frame`, which is not read for its content."""
    declared = table_of(table)
    types = {f.name: f.dataType for f in struct_of(declared).fields}
    structs = [F.struct(*[F.lit(v[c]).cast(types[c]).alias(c) for c in declared.column_names]) for v in values]
    one_row = frame.limit(0).agg(F.count(F.lit(1)).alias("_n"))
    made = F.array(*structs) if structs else F.array().cast(f"array<{struct_of(declared).simpleString()}>")
    return one_row.select(F.inline(made)).select(*declared.column_names)


def _merchants(sources: Sources) -> list[dict[str, Any]]:
    found = []
    for merchant in sources.merchants:
        of_it = sources.of_merchant(merchant.id)
        found.append(
            {
                "merchant_id": merchant.id,
                "merchant_name": merchant.name or merchant.id,
                "country": merchant.country,
                "category": merchant.category,
                # Of what it sells: whoever settles its sales may count in another currency.
                "currency": of_it[0].currency,
                "time_zone": of_it[0].timezone,
                "opened_on": merchant.opened_on,
                "is_sample": all(s.is_sample for s in of_it),
            }
        )
    return found
