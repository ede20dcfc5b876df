"""`conf/finance.yml`: what is accepted, and what is said of a mistake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from lakehouse.declare import table_of
from lakehouse.errors import SettingsError
from lakehouse.strict import read_mapping
from pipelines.gold.finance_conf import STATUSES, Finance, load_finance
from pipelines.gold.transactions import _STATUS as WRITTEN

CONF = Path(__file__).parents[2] / "conf"


def load(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Finance:
    said = read_mapping(CONF / "finance.yml")
    change(said)
    (folder / "finance.yml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return load_finance(folder)


def fee(**more: Any) -> dict[str, Any]:
    usual = {"channel": "store", "valid_from": date(2000, 1, 1), "rate": 0.01, "fixed_amount": 0, "currency": "EUR"}
    return usual | more


def test_a_channel_has_fees_in_several_currencies_from_the_same_day(tmp_path: Path) -> None:
    found = load(tmp_path, lambda said: said["fees"].append(fee()))
    assert {f.currency for f in found.fees if f.channel == "store"} == {"EUR", "USD"}


def test_a_fee_may_follow_another_on_the_day_that_one_ends(tmp_path: Path) -> None:
    follow = [fee(valid_to=date(2010, 1, 1)), fee(valid_from=date(2010, 1, 1))]
    assert len(load(tmp_path, lambda said: said.update(fees=follow)).fees) == 2


def test_channels_are_in_lower_case_as_those_of_lines_are(tmp_path: Path) -> None:
    def add(said: dict[str, Any]) -> None:
        said["channels"].append({"id": " Web", "name": "Web shop", "is_online": True})
        said["fees"].append(fee(channel="WEB"))

    found = load(tmp_path, add)
    assert (found.channels[-1].id, found.fees[-1].channel) == ("web", "web")


def test_every_state_of_a_fact_is_described() -> None:
    assert set(STATUSES["transaction"]) == set(WRITTEN.values())
    assert STATUSES["settlement"] == table_of("silver.stage_reconciliations").column("status_id").spec.values
    assert {s.id for s in load_finance(CONF).statuses} == {i for ids in STATUSES.values() for i in ids}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda said: said["fees"].append(fee(currency="USD", valid_from=date(2010, 1, 1))), "store in USD from 2000"),
        (lambda said: said["fees"].append(fee(channel="stroe")), "Did you mean 'store'?"),
        (lambda said: said["fees"].append(fee(rate=1.5)), "less than 1"),
        (lambda said: said["fees"].append(fee(valid_to=date(1999, 1, 1))), "valid_to 1999-01-01"),
        (lambda said: said["fees"].append(fee(currency="eur")), "currency"),
        (
            lambda said: said["channels"].append({"id": "Store", "name": "S", "is_online": False}),
            "store is there twice",
        ),
        (lambda said: said["statuses"].pop(0), "statuses: 'posted' of domain transaction is missing"),
        (lambda said: said["limits"].pop(), "limits: 'settlement_difference' is missing"),
        (lambda said: said["limits"][0].update(id="line_amont"), "Did you mean 'line_amount'?"),
        (lambda said: said["limits"][0].update(maximum="1e18"), "1,000,000,000,000,000,000; it can be 1,000,000,000,0"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    with pytest.raises(SettingsError) as found:
        load(tmp_path, change)
    assert told in str(found.value)
    assert ": :" not in str(found.value)
