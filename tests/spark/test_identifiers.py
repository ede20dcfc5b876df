from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from connectors.identifiers import (
    hash_identifier,
    hash_once,
    neutralise_cell,
    normalise_country,
    normalise_email,
    normalise_name,
    normalise_phone,
    normalise_postal_code,
)

pytestmark = pytest.mark.spark


def answers(spark: SparkSession, values: list[str | None], *columns: Column) -> list[tuple[str | None, ...]]:
    table = pa.table({"n": list(range(len(values))), "x": pa.array(values, pa.string())})
    return [tuple(r)[1:] for r in spark.createDataFrame(table).select("n", *columns).orderBy("n").collect()]


def test_addresses_are_compared_without_case_and_space_and_gmail_by_its_own_rule(spark: SparkSession) -> None:
    cases = [
        ("  QuinnY@Example.com ", "quinny@example.com", "quinny@example.com"),
        ("Ana.Ruiz+vip@Gmail.com", "ana.ruiz+vip@gmail.com", "anaruiz@gmail.com"),
        ("a.b.c@googlemail.com", "a.b.c@googlemail.com", "abc@googlemail.com"),
        ("mixed.Case+x@gmailx.com", "mixed.case+x@gmailx.com", "mixed.case+x@gmailx.com"),
        ("a.b@mail.gmail.com", "a.b@mail.gmail.com", "a.b@mail.gmail.com"),
        ("\u00a0jos\u00e9@b\u00fccher.example\u2003", "jos\u00e9@b\u00fccher.example", "jos\u00e9@b\u00fccher.example"),
        ("+tag@gmail.com", "+tag@gmail.com", "+tag@gmail.com"),
        ("no address", None, None),
        ("a@b@c.example", None, None),
        ("@x.example", None, None),
        ("", None, None),
        (None, None, None),
    ]

    found = answers(spark, [c[0] for c in cases], normalise_email(F.col("x")), normalise_email(F.col("x"), "google"))

    assert found == [(plain, google) for _, plain, google in cases]


def test_phone_numbers_keep_their_country_and_get_none(spark: SparkSession) -> None:
    cases = [
        ("+1 (650) 555-1212", "+16505551212", "16505551212"),
        ("0049 30 901820", "+004930901820", "4930901820"),
        ("\u0661\u0662", None, None),  # digits of another script are none of E.164's
        ("call me", None, None),
        ("000", "+000", None),
        (None, None, None),
    ]

    found = answers(spark, [c[0] for c in cases], normalise_phone(F.col("x")), normalise_phone(F.col("x"), "digits"))

    assert found == [(e164, digits) for _, e164, digits in cases]


def test_digests_are_of_utf8_bytes(spark: SparkSession) -> None:
    values = ["jos\u00e9", "\u0142\u6b63\u6797", "\U0001f600", "", None]

    found = answers(spark, values, hash_identifier(F.col("x")))

    assert found == [(hashlib.sha256(v.encode()).hexdigest() if v is not None else None,) for v in values]
    assert found[0][0] == "d994e1d0" + found[0][0][8:]  # the latin-1 digest, a common mistake, begins 858ec063


def test_a_digest_is_not_hashed_again(spark: SparkSession) -> None:
    digest = hashlib.sha256(b"a@b.example").hexdigest()

    found = answers(spark, [digest.upper(), f" {digest}", "A@b.example"], hash_once(F.col("x"), normalise_email))

    assert found == [(digest,)] * 3


def test_cells_a_spreadsheet_would_run_are_made_text(spark: SparkSession) -> None:
    values = ["=1+1", "+49", "-2", "@SUM(A1)", "\t=1", "\r=1", "a=b", "", None]

    assert [v[0] for v in answers(spark, values, neutralise_cell(F.col("x")))] == [
        "'=1+1",
        "'+49",
        "'-2",
        "'@SUM(A1)",
        "'\t=1",
        "'\r=1",
        "a=b",
        "",
        None,
    ]


GOOGLE, META = "google_customer_match", "meta_custom_audience"


@pytest.mark.shared_data
def test_recorded_cases_of_other_projects_agree(spark: SparkSession, shared_data: Path) -> None:
    """E-mail, phone, name, country and postal code of the destinations whose rules we have; `policy` cases state ours.

    A missing country is never guessed as +1, so the two recorded guesses must differ from ours.
    """
    path = shared_data / "connector-cases" / "identifiers.jsonl"
    if not path.exists():
        pytest.skip(f"no recorded cases at {path}")
    x = F.col("x")
    rules: dict[tuple[str, str], Column] = {
        (GOOGLE, "email"): normalise_email(x, "google"),
        (GOOGLE, "phone"): normalise_phone(x),
        (GOOGLE, "country"): normalise_country(x),
        (GOOGLE, "zip"): normalise_postal_code(x),
        (GOOGLE, "first_name"): normalise_name(x),
        (GOOGLE, "last_name"): normalise_name(x),
        ("google_dv360_customer_match", "first_name"): normalise_name(x),
        ("google_dv360_customer_match", "last_name"): normalise_name(x),
    }
    plain = (
        META,
        "microsoft_audience",
        "linkedin_audience",
        "snap_audience",
        "reddit_audience",
        "yahoo_audience",
        "tiktok_audience",
    )
    rules |= {(destination, "email"): normalise_email(x) for destination in plain}
    digits = (META, "snap_audience", "snap_capi", "amazon_audience", "pinterest_capi")
    rules |= {(destination, "phone"): normalise_phone(x, "digits") for destination in digits}
    cases = [
        c
        for line in path.read_text("utf-8").splitlines()
        if (c := json.loads(line)) and (c["destination"], c["field"]) in rules
    ]
    assert len(cases) >= 55

    def said(case: dict[str, str], row: tuple[str | None, ...]) -> str | None:
        names = list(rules)
        at = names.index((case["destination"], case["field"]))
        normalised, digest = row[2 * at], row[2 * at + 1]
        return normalised if case["expect"] in ("normalized_plain", "reject") else digest

    columns: list[Column] = []
    for rule in rules.values():
        bare = F.lower(F.trim(x))
        is_digest = F.regexp_like(bare, F.lit("^[0-9a-f]{64}$"))
        columns += [rule, F.when(is_digest, bare).otherwise(hash_identifier(rule))]
    found = answers(spark, [c["input"] for c in cases], *columns)

    wrong = []
    for case, row in zip(cases, found, strict=True):
        ours = said(case, row)
        theirs = {
            "hash": case.get("expected_sha256"),
            "normalized_plain": case.get("expected_normalized"),
            "passthrough": case["input"],
            "reject": None,
        }[case["expect"]]
        guesses_a_country = case.get("normalizer") == "plus_1_digits"
        must_differ = case["use"] == "anti" or guesses_a_country
        if case["use"] == "policy" and not guesses_a_country and case["destination"] != GOOGLE:
            continue
        if (ours == theirs) is must_differ:
            wrong.append((case["id"], case["destination"], case["field"], case["use"]))
    assert wrong == []
