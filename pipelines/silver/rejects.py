"""Refused rows of the smaller subjects."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.silver import SUBJECTS as LISTED
from lakehouse.tables.silver import SubjectReject as R
from pipelines.silver.rules import rule_book
from pipelines.silver.subjects import SUBJECTS, union_all


def reject_subjects(*raw_changes: DataFrame, sources: Any) -> DataFrame:
    """Every new row that its subject refuses, with one code per reason.

    Args:
        raw_changes: New rows of the landing tables, in the order of `lakehouse.tables.silver.SUBJECTS`.
        sources: Rules per source.
    """
    refused = []
    for subject, raw in zip(LISTED, raw_changes, strict=True):
        book = rule_book(sources, subject)
        codes = [F.when(c, F.lit(reason)) for reason, c in SUBJECTS[subject].reasons(book).items()]
        listed = raw.where(SUBJECTS[subject].is_refused(book)).select(
            F.lit(subject).alias(R.subject),
            R.source,
            R.feed,
            R.delivery,
            R.file_id,
            R.row_number,
            R.row_hash,
            F.array_compact(F.array(*codes)).alias(R.reasons),
            R.batch_id,
        )
        refused.append(listed)
    return union_all(refused)
