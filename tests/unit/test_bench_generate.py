"""The generator makes the same deliveries every time, with the promised defects and repeats."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bench import generate as g

SIZE = g.SIZES["tiny"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    return out, g.generate(out, SIZE)


def lines(out, part="base"):
    return pa.concat_tables(pq.read_table(p) for p in sorted((out / part / "lines").glob("*.parquet")))


def is_valid(rows):
    present = pc.and_(pc.is_valid(rows["basket_id"]), pc.is_valid(rows["product_code"]))
    present = pc.and_(present, pc.and_(pc.is_valid(rows["quantity"]), pc.is_valid(rows["sold_at"])))
    believable = pc.less(pc.year(rows["sold_at"]), 3000)
    priced = pc.greater_equal(rows["unit_price"], pa.scalar(0, pa.decimal128(10, 2)))
    return pc.fill_null(pc.and_(pc.and_(present, believable), priced), False)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(made, tmp_path):
    out, manifest = made
    again = g.generate(tmp_path / "again", SIZE)
    assert again == manifest
    assert lines(tmp_path / "again").equals(lines(out))
    assert lines(tmp_path / "again", "increment").equals(lines(out, "increment"))
    other = g.generate(tmp_path / "other", SIZE, seed=7)
    assert other["size"] == manifest["size"]
    assert not lines(tmp_path / "other").equals(lines(out))


def test_the_manifest_says_what_is_in_the_files(made):
    out, manifest = made
    for part in ("base", "increment"):
        rows, said = lines(out, part), manifest[part]
        valid = rows.filter(is_valid(rows))
        assert rows.num_rows == said["delivered"]
        assert rows.num_rows - valid.num_rows == said["invalid"]
        assert said["accepted"] + said["duplicates"] + said["invalid"] == said["delivered"]
    base = lines(out)
    valid = base.filter(is_valid(base))
    distinct = valid.group_by(["basket_id", "line_no"]).aggregate([]).num_rows
    assert distinct == manifest["base"]["accepted"]


def test_shares_of_repeats_and_defects_are_as_declared(made):
    said = made[1]["base"]
    assert said["duplicates"] / said["delivered"] == pytest.approx(g.DUPLICATE_SHARE, abs=0.001)
    assert said["invalid"] / said["delivered"] == pytest.approx(g.INVALID_SHARE, abs=0.001)
    assert 0 < said["corrected"] < said["duplicates"]
    assert made[1]["increment"]["delivered"] == said["delivered"] // 100


def test_every_customer_buys_and_some_buy_much_more(made):
    rows = lines(made[0])
    baskets = rows.group_by("customer_no").aggregate([("basket_id", "count_distinct")])
    known = baskets.filter(pc.is_valid(baskets["customer_no"]))
    assert known.num_rows == SIZE.customers
    counts = sorted(known["basket_id_count_distinct"].to_pylist())
    assert counts[-1] > 5 * counts[len(counts) // 2]
    guests = rows.filter(pc.is_null(rows["customer_no"]))
    assert 0.02 < guests.num_rows / rows.num_rows < g.GUEST_SHARE


def test_money_adds_up_and_returns_give_back_what_was_paid(made):
    rows = lines(made[0])
    valid = rows.filter(is_valid(rows)).to_pylist()
    sales, returns = ([r for r in valid if (r["quantity"] < 0) is gave_back] for gave_back in (False, True))
    for s in sales:
        assert s["net_amount"] + s["discount"] + s["coupon"] == s["unit_price"] * s["quantity"]
        assert s["sold_in_basket"] is None
    assert len(returns) > 0.005 * len(valid)
    sold = {(r["basket_id"], r["line_no"]): r for r in sales}
    matched = [(r, sold.get((r["sold_in_basket"], r["line_no"]))) for r in returns]
    found = [(r, s) for r, s in matched if s is not None]
    assert len(found) > 0.9 * len(returns)
    for r, s in found:
        assert (r["product_code"], r["customer_no"]) == (s["product_code"], s["customer_no"])
        assert r["discount"] == r["coupon"] == 0
        assert r["sold_at"] > s["sold_at"]
    assert sum(s["net_amount"] == -r["net_amount"] for r, s in found) > 0.9 * len(found)


def test_each_delivery_covers_its_own_days_and_repeats_the_one_before(made):
    out, _ = made
    files = [pq.read_table(p) for p in sorted((out / "base" / "lines").glob("*.parquet"))]
    assert len(files) == SIZE.files
    first = set(zip(files[0]["basket_id"].to_pylist(), files[0]["line_no"].to_pylist(), strict=True))
    second = set(zip(files[1]["basket_id"].to_pylist(), files[1]["line_no"].to_pylist(), strict=True))
    assert first & second - {(None, n) for _, n in first}
    increment = lines(out, "increment")
    days = pc.value_counts(pc.cast(increment["sold_at"], pa.date32()))
    assert max(d["counts"] for d in days.to_pylist()) > increment.num_rows * 0.7


def test_existing_data_of_the_same_kind_are_used_again(made):
    out, manifest = made
    path = out / "base" / "lines" / "lines_000.parquet"
    before = path.stat().st_mtime_ns
    assert g.ensure(out, SIZE) == manifest
    assert path.stat().st_mtime_ns == before
    smaller = g.ensure(out, replace(SIZE, lines=1_000))
    assert smaller["base"]["delivered"] == 1_000
