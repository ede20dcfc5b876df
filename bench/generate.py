"""A retailer's deliveries, made up but the same every time: lines, products, and what is wrong with them.

`python -m bench.generate --size 100k --out DIR` writes

    DIR/base/lines/lines_000.parquet ...   two years of baskets, one file per delivery, in order of days
    DIR/base/products/products.parquet     about 30,000 products
    DIR/increment/lines/lines_900.parquet  one more day: new baskets, late lines, redelivered and corrected ones
    DIR/manifest.json                      what was put in, so that a pipeline's counts have an oracle

One file is made at a time from its own seed, so memory stays small and file 7 does not depend on file 6 but for the
lines that are delivered again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SEED: Final = 20240101
FIRST_DAY: Final = date(2023, 1, 1)
DAYS: Final = 730
ZONE: Final = "Europe/Berlin"
"""Zone of the shops; `sold_at` is delivered in UTC."""

DUPLICATE_SHARE: Final = 0.01
CORRECTED_SHARE: Final = 0.2
"""Part of the lines delivered again that come with another quantity and amount."""
INVALID_SHARE: Final = 0.005
GUEST_SHARE: Final = 0.08
RETURN_SHARE: Final = 0.02
LATE_SHARE: Final = 0.1
"""Part of the increment's new lines that were sold in the 30 days before, not on its day."""

DEFECTS: Final = ("no_basket", "no_product", "no_time", "negative_price", "no_quantity", "year_3000")
DEPARTMENTS: Final = (
    "grocery", "drug", "produce", "meat", "dairy", "bakery", "frozen", "household", "garden", "toys", "electronics",
    "clothing",
)  # fmt: skip

SCHEMA: Final = pa.schema(
    [
        ("basket_id", pa.string()),
        ("line_no", pa.int32()),
        ("product_code", pa.string()),
        ("customer_no", pa.string()),
        ("store_no", pa.string()),
        ("channel", pa.string()),
        ("sold_at", pa.timestamp("us")),
        ("quantity", pa.int32()),
        ("unit_price", pa.decimal128(10, 2)),
        ("net_amount", pa.decimal128(12, 2)),
        ("discount", pa.decimal128(12, 2)),
        ("coupon", pa.decimal128(12, 2)),
        ("sold_in_basket", pa.string()),
    ]
)


@dataclass(frozen=True)
class Size:
    """How much to make. `lines` counts every delivered row of the base, defects and repeats included."""

    customers: int
    lines: int
    files: int
    products: int = 30_000
    stores: int = 100

    @property
    def increment(self) -> int:
        """Rows of the increment: one in a hundred."""
        return max(self.lines // 100, 10)


SIZES: Final = {
    "1m": Size(1_000_000, 20_000_000, 24),
    "100k": Size(100_000, 2_000_000, 8),
    "tiny": Size(500, 10_000, 3, products=300, stores=5),
}


@dataclass
class Counts:
    """What one part holds; `duplicates` are rows a pipeline must drop, some of them `corrected`."""

    delivered: int = 0
    duplicates: int = 0
    corrected: int = 0
    invalid: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{k: mine[k] + theirs[k] for k in mine})

    @property
    def accepted(self) -> int:
        """Lines that a pipeline must end up with."""
        return self.delivered - self.duplicates - self.invalid


@dataclass(frozen=True)
class World:
    """What all files share: who buys how often, and what there is to buy."""

    size: Size
    customer_ids: pa.Array
    customer_order: np.ndarray
    customer_cdf: np.ndarray
    product_ids: pa.Array
    product_cents: np.ndarray
    product_cdf: np.ndarray
    store_ids: pa.Array
    products: pa.Table


def build_world(size: Size, seed: int = SEED) -> World:
    """Customers with log-normal activity and products with Zipf-like popularity."""
    rng = np.random.default_rng([seed, 1])
    activity = np.cumsum(rng.lognormal(0.0, 1.1, size.customers))
    popularity = np.cumsum(rng.permutation(1.0 / np.arange(20, size.products + 20) ** 0.8))
    cents = np.clip(np.round(rng.lognormal(5.6, 0.8, size.products)), 19, 99_999).astype(np.int64)
    department = rng.integers(0, len(DEPARTMENTS), size.products)
    category = rng.integers(0, 25, size.products)
    brand = rng.integers(0, 900, size.products)
    private = rng.random(size.products) < 0.25
    numbers = _numbers(np.arange(size.products), "P", 100_000)
    department_names = pa.array(DEPARTMENTS).take(pa.array(department))
    category_names = pc.binary_join_element_wise(department_names, pa.array(category).cast(pa.string()), " ")
    products = pa.table(
        {
            "product_code": numbers,
            "product_name": pc.binary_join_element_wise(category_names, pa.array(brand).cast(pa.string()), " "),
            "department": department_names,
            "category": category_names,
            "brand_type": pa.array(["National", "Private"]).take(pa.array(private.astype(np.int8))),
            "manufacturer": _numbers(brand, "M", 1_000),
        }
    )
    return World(
        size,
        _numbers(np.arange(size.customers), "C", 10_000_000),
        rng.permutation(size.customers),
        activity / activity[-1],
        numbers,
        cents,
        popularity / popularity[-1],
        _numbers(np.arange(size.stores), "S", 100),
        products,
    )


@dataclass(frozen=True)
class Span:
    """Days and basket numbers of one file. Each customer gets one basket for sure, at a place of the whole range."""

    index: int
    rows: int
    first_day: int
    days: int
    first_basket: int


def plan_files(size: Size) -> list[Span]:
    """Cut two years into files of nearly equal rows."""
    edges = np.linspace(0, DAYS, size.files + 1).astype(int)
    cuts = np.linspace(0, size.lines, size.files + 1).astype(int)
    # Basket numbers leave a gap between files, since how many baskets fill a file is random.
    return [
        Span(i, int(cuts[i + 1] - cuts[i]), int(edges[i]), int(edges[i + 1] - edges[i]), int(cuts[i]))
        for i in range(size.files)
    ]


def make_lines(
    world: World, span: Span, before: pa.Table | None, seed: int = SEED
) -> tuple[pa.Table, pa.Table, Counts]:
    """Make one delivery.

    Args:
        world: Customers and products.
        span: Days and rows of the file.
        before: Valid lines of the delivery before; some of them come again. None repeats lines of this file.
        seed: Seed of the whole data set.

    Returns:
        Rows as delivered, the valid first-time lines among them (to be repeated by the next file), and the counts.
    """
    rng = np.random.default_rng([seed, 2, span.index])
    repeats = round(span.rows * DUPLICATE_SHARE)
    bad = round(span.rows * INVALID_SHARE)
    fresh = _fresh_lines(world, span, span.rows - repeats, rng)
    broken = np.zeros(fresh.num_rows, dtype=bool)
    broken[rng.choice(fresh.num_rows, bad, replace=False)] = True
    valid = fresh.filter(pa.array(~broken))
    again, corrected = _deliver_again(before if before is not None else valid, repeats, rng)
    rows = pa.concat_tables([valid, _break(fresh.filter(pa.array(broken)), rng), again]).combine_chunks()
    # Files arrive in till order, not sorted by what a pipeline would like: mixed within the file.
    rows = rows.take(pa.array(rng.permutation(rows.num_rows)))
    return rows, valid, Counts(rows.num_rows, again.num_rows, corrected, bad)


def make_increment(world: World, before: pa.Table, seed: int = SEED) -> tuple[pa.Table, Counts]:
    """Make one more delivery: a day's new baskets, late lines of the month before, and repeats of known lines."""
    size = world.size
    late = round(size.increment * LATE_SHARE)
    day = Span(900, size.increment - late, DAYS, 1, size.lines)
    month = Span(901, late, DAYS - 30, 30, size.lines + size.increment)
    # From different halves, so that no line comes again twice in one delivery: which would win has no answer.
    half = before.num_rows // 2
    new, _, counted = make_lines(world, day, before.slice(0, half), seed)
    older, _, counted_late = make_lines(world, month, before.slice(half), seed)
    return pa.concat_tables([new, older]).combine_chunks(), counted + counted_late


def generate(out: Path, size: Size, seed: int = SEED) -> dict[str, Any]:
    """Write base, increment and manifest; returns the manifest. What was in `out` is replaced."""
    world = build_world(size, seed)
    for part in ("base", "increment"):
        shutil.rmtree(out / part, ignore_errors=True)
        (out / part / "lines").mkdir(parents=True)
    (out / "base" / "products").mkdir()
    _write(world.products, out / "base" / "products" / "products.parquet")
    before: pa.Table | None = None
    counted = Counts()
    for span in plan_files(size):
        rows, before, counts = make_lines(world, span, before, seed)
        _write(rows, out / "base" / "lines" / f"lines_{span.index:03d}.parquet")
        counted = counted + counts
    assert before is not None
    rows, counts = make_increment(world, before, seed)
    _write(rows, out / "increment" / "lines" / "lines_900.parquet")
    manifest = {
        "seed": seed,
        "generator": _generator(),
        "size": asdict(size),
        "zone": ZONE,
        "as_of": str(FIRST_DAY + timedelta(days=DAYS)),
        "as_of_increment": str(FIRST_DAY + timedelta(days=DAYS + 1)),
        "base": asdict(counted) | {"accepted": counted.accepted},
        "increment": asdict(counts) | {"accepted": counts.accepted},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def ensure(out: Path, size: Size, seed: int = SEED) -> dict[str, Any]:
    """Return the manifest of `out`, generating when it is not there or was made from other numbers."""
    path = out / "manifest.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["size"], found["seed"], found.get("generator")) == (asdict(size), seed, _generator()):
            return found  # type: ignore[no-any-return]
    return generate(out, size, seed)


def _generator() -> str:
    """Hash of this file: data that another version of it made are not the same data."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def _fresh_lines(world: World, span: Span, rows: int, rng: np.random.Generator) -> pa.Table:
    size = world.size
    sizes = 1 + rng.poisson(4.0, rows // 4 + 50)
    everything = np.arange(len(sizes))
    returned = (everything > 0) & (rng.random(len(sizes)) < RETURN_SHARE)
    # A return names the nearest sale before it in the file's numbering and gives back its first lines, or all.
    original = np.maximum.accumulate(np.where(returned, 0, everything))
    sizes = np.where(returned, 1 + (rng.random(len(sizes)) * sizes[original]).astype(np.int64), sizes)
    ends = np.cumsum(sizes)
    baskets = int(np.searchsorted(ends, rows)) + 1
    sizes, returned, original = sizes[:baskets], returned[:baskets], original[:baskets]
    sizes[-1] -= int(ends[baskets - 1]) - rows
    starts = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(baskets), sizes)
    line_no = np.arange(rows) - starts[of] + 1
    copied = np.where(returned[of], starts[original[of]] + line_no - 1, np.arange(rows))

    # Every customer once, spread over all files; the rest by activity.
    customer = np.searchsorted(world.customer_cdf, rng.random(baskets))
    guest = rng.random(baskets) < GUEST_SHARE
    if span.index < size.files:
        first = size.customers * span.index // size.files
        last = size.customers * (span.index + 1) // size.files
        sales = np.flatnonzero(~returned)
        sure = sales[np.linspace(0, len(sales), last - first, endpoint=False).astype(np.int64)]
        customer[sure] = world.customer_order[first:last]
        guest[sure] = False
    customer, guest = customer[original], guest[original]

    # Days run on with the basket number, so that a return comes after its sale; the hour is free.
    day = span.first_day + np.arange(baskets) * span.days // baskets
    later = np.where(returned, 3, rng.integers(0, 2, baskets))
    day = np.minimum(day + later, span.first_day + span.days - 1)
    minute = np.clip(rng.normal(13.5 * 60, 200, baskets), 7 * 60, 20 * 60).astype(np.int64)
    minute = np.where(returned, 20 * 60 + 30, minute)
    second = minute * 60 + rng.integers(0, 60, baskets)
    start = np.datetime64(FIRST_DAY, "s").astype(np.int64)
    sold_at = (start + day * 86_400 + second) * 1_000_000
    store = rng.integers(0, size.stores, baskets)
    online = rng.random(baskets) < 0.15

    product = np.searchsorted(world.product_cdf, rng.random(rows))[copied]
    price = world.product_cents[product]
    quantity = np.where(rng.random(rows) < 0.75, 1, rng.integers(2, 7, rows))[copied]
    gross = price * quantity
    reduced = rng.random(rows) < 0.3
    discount = np.where(reduced, (gross * rng.integers(5, 41, rows)) // 100, 0)[copied]
    coupon = np.where(rng.random(rows) < 0.03, np.minimum(50, gross - discount), 0)[copied]
    net = gross - discount - coupon
    # What was paid is given back: reductions show on the sale only.
    sign = np.where(returned[of], -1, 1)
    discount, coupon = np.where(sign > 0, discount, 0), np.where(sign > 0, coupon, 0)

    by_basket = pa.array(of)
    customer_ids = pc.if_else(
        pa.array(guest), pa.scalar(None, pa.string()), world.customer_ids.take(pa.array(customer))
    )
    basket_ids = _numbers(span.first_basket + np.arange(baskets), "B", 1_000_000_000)
    sold_in = pc.if_else(pa.array(returned), basket_ids.take(pa.array(original)), pa.scalar(None, pa.string()))
    return pa.table(
        [
            basket_ids.take(by_basket),
            pa.array(line_no.astype(np.int32)),
            world.product_ids.take(pa.array(product)),
            customer_ids.take(by_basket),
            world.store_ids.take(pa.array(store)).take(by_basket),
            pa.array(["store", "online"]).take(pa.array(online.astype(np.int8))).take(by_basket),
            pa.array(sold_at, pa.timestamp("us")).take(by_basket),
            pa.array((quantity * sign).astype(np.int32)),
            _decimal(price, 10),
            _decimal(net * sign, 12),
            _decimal(discount, 12),
            _decimal(coupon, 12),
            sold_in.take(by_basket),
        ],
        schema=SCHEMA,
    )


def _deliver_again(known: pa.Table, rows: int, rng: np.random.Generator) -> tuple[pa.Table, int]:
    """Repeat `rows` different known lines; some with one piece more, to be believed over the first delivery."""
    picked = known.take(pa.array(np.sort(rng.choice(known.num_rows, rows, replace=False))))
    mended = rng.random(rows) < CORRECTED_SHARE
    quantity = picked["quantity"].to_numpy()
    more = pa.array(np.where(mended, quantity + np.sign(quantity), quantity).astype(np.int32))
    price = _cents(picked["unit_price"])
    net = _cents(picked["net_amount"]) + np.where(mended, price * np.sign(quantity), 0)
    columns = dict(zip(picked.column_names, picked.columns, strict=True))
    columns |= {"quantity": more, "net_amount": _decimal(net, 12)}
    return pa.table(columns, schema=SCHEMA), int(mended.sum())


def _break(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Give every row one of `DEFECTS`."""
    what = rng.integers(0, len(DEFECTS), rows.num_rows)
    hit = {name: pa.array(what == i) for i, name in enumerate(DEFECTS)}
    columns = dict(zip(rows.column_names, rows.columns, strict=True))

    def blank(column: str, defect: str) -> None:
        columns[column] = pc.if_else(hit[defect], pa.scalar(None, SCHEMA.field(column).type), columns[column])

    blank("basket_id", "no_basket")
    blank("product_code", "no_product")
    blank("quantity", "no_quantity")
    blank("sold_at", "no_time")
    far = pa.scalar(np.datetime64("3000-01-01T12:00:00", "us"), pa.timestamp("us"))
    columns["sold_at"] = pc.if_else(hit["year_3000"], far, columns["sold_at"])
    cents = _cents(columns["unit_price"])
    columns["unit_price"] = _decimal(np.where(what == DEFECTS.index("negative_price"), -cents, cents), 10)
    return pa.table(columns, schema=SCHEMA)


def _numbers(values: np.ndarray, prefix: str, offset: int) -> pa.Array:
    """`prefix` and a number of fixed width."""
    text = pa.array(values.astype(np.int64) + offset).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), text, pa.scalar(""))


def _decimal(cents: np.ndarray, precision: int) -> pa.Array:
    """Cents as decimals, made from the 128-bit words they are stored in; a cast would go through floats."""
    words = np.empty((len(cents), 2), dtype=np.int64)
    words[:, 0] = cents
    words[:, 1] = cents >> 63
    return pa.Array.from_buffers(pa.decimal128(precision, 2), len(cents), [None, pa.py_buffer(words.tobytes())])


def _cents(amounts: pa.ChunkedArray) -> np.ndarray:
    whole = pc.multiply(amounts, pa.scalar(100, pa.decimal128(4, 0)))
    return whole.cast(pa.decimal128(38, 2)).cast(pa.float64()).to_numpy().round().astype(np.int64)


def _write(rows: pa.Table, path: Path) -> None:
    pq.write_table(rows, path, compression="zstd", row_group_size=250_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="100k")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", type=int, help="number of deliveries")
    args = parser.parse_args()
    size = replace(SIZES[args.size], files=args.files) if args.files else SIZES[args.size]
    print(json.dumps(generate(args.out, size), indent=1))


if __name__ == "__main__":
    main()
