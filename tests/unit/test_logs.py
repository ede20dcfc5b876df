from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

from lakehouse.causes import file_of
from lakehouse.logs import configure_logs, get_logger, redact


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("mail to ann.o'hara+x@shop.example.com failed", "mail to <e-mail> failed"),
        ("call +44 20 7946 0958 now", "call <phone> now"),
        ("call 020 7946 0958", "call <phone>"),
        ("call (555) 867-5309", "call <phone>"),
        ("password=hunter2 user=ann", "password=*** user=ann"),
        ('{"api_key": "abc def", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("sc://localhost:15002/;token=s3cr3t", "sc://localhost:15002/;token=***"),
        ("https://me:pw@host/path", "https://***@host/path"),
    ],
)
def test_what_looks_like_a_person_or_a_secret_is_masked(said: str, shown: str) -> None:
    assert redact(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "gold.dim_customer: 1234567890 rows, version 12",
        "as of 2024-07-01 12:00:00+00:00",
        "window 2024-01-01 2024-07-01",
        "took 12.345 s of 100.250",
        "run 20240701T120000Z-4f2a",
        "tokens are counted; the secret is kept elsewhere",
        "spark 4.1.1, delta 4.3.1, python 3.11.7",
    ],
)
def test_counts_dates_and_versions_stay_readable(said: str) -> None:
    assert redact(said) == said


def test_the_end_of_a_sentence_is_no_part_of_the_file_it_names() -> None:
    said = PySparkException("[FAILED_READ_FILE] Error while reading file:///data//lake/part-0.parquet. Retry later.")
    assert file_of(said) == "/data/lake/part-0.parquet"


def test_people_get_one_short_line_and_only_when_it_matters(tmp_path: Path) -> None:
    screen = io.StringIO()
    configure_logs(tmp_path, stream=screen)
    log = get_logger("pipelines.bronze")
    log.info("table written", extra={"table": "bronze.raw_sales", "rows": 3})
    try:
        raise ValueError("row of ann@example.com\nis bad")
    except ValueError:
        log.exception("step failed", extra={"step": "bronze"})
    assert screen.getvalue() == "error step failed: ValueError: row of <e-mail> step=bronze\n"


def test_the_file_holds_one_json_object_a_line_with_fields_and_run(tmp_path: Path) -> None:
    file = configure_logs(tmp_path, run_id="r1", stream=io.StringIO())
    get_logger("jobs").info("table written", extra={"table": "gold.fact_sales", "rows": 3, "token": "abc"})
    assert file is not None
    line = json.loads(file.read_text(encoding="utf-8"))
    assert (line["level"], line["logger"], line["run_id"]) == ("info", "segmentation.jobs", "r1")
    assert (line["message"], line["table"], line["rows"]) == ("table written", "gold.fact_sales", 3)
    assert line["token"] == "***"


def test_configuring_twice_does_not_write_twice(tmp_path: Path) -> None:
    configure_logs(tmp_path, stream=io.StringIO())
    file = configure_logs(tmp_path, stream=io.StringIO())
    get_logger("jobs").info("once")
    assert file is not None
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1
