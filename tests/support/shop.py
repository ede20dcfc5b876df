"""A made-up corner shop that delivers CSV files: small, deterministic, with guests, returns, repeats and bad rows."""

from __future__ import annotations

import csv
import random
import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import yaml

CUSTOMERS = 40
PRODUCTS = [
    ("P01", "Espresso beans", "COFFEE", "National", "8.90"),
    ("P02", "Filter paper", "COFFEE", "Private", "2.10"),
    ("P03", "Oat milk", "DAIRY", "National", "1.95"),
    ("P04", "Butter", "DAIRY", "Private", "2.45"),
    ("P05", "Rye bread", "BAKERY", "Private", "3.20"),
    ("P06", "Croissant", "BAKERY", "National", "1.40"),
    ("P07", "Olive oil", "PANTRY", "National", "9.80"),
    ("P08", "Spaghetti", "PANTRY", "Private", "1.10"),
]
HEADER = ["receipt", "line", "sku", "customer", "store", "time", "pieces", "paid", "discount"]
FIRST_DAY = date(2024, 1, 1)

SOURCE = {
    "description": "A made-up corner shop for tests.",
    "merchant": {"id": "corner_shop", "name": "Corner shop", "country": "DE", "category": "Grocery"},
    "timezone": "Europe/Berlin",
    "value_timezone": "UTC",
    "currency": "EUR",
    "is_sample": True,
    "label": "Made up for tests",
    "feeds": [
        {
            "name": "sales",
            "subject": "transactions",
            "location": "${shop}/sales/*.csv*",
            "format": "csv",
            "columns": {
                "receipt": {"to": "basket_id", "required": True},
                "line": {"to": "line_id"},
                "sku": {"to": "product_id", "required": True},
                "customer": {"to": "customer_id"},
                "store": {"to": "store_id"},
                "time": {"type": "timestamp", "to": "sold_at", "required": True},
                "pieces": {"type": "int", "to": "quantity", "required": True},
                "paid": {"type": "decimal(18,2)", "to": "amount", "required": True},
                "discount": {"type": "decimal(18,2)", "to": "discount_amount"},
            },
            "delivery": {"by": "file", "order": "name"},
            "key": ["basket_id", "product_id", "line_id"],
            "transactions": {"gross": "plus_reductions"},
        },
        {
            "name": "products",
            "subject": "products",
            "location": "${shop}/products.csv",
            "format": "csv",
            "columns": {
                "sku": {"to": "product_id", "required": True},
                "name": {"to": "product_name"},
                "category": {"to": "category"},
                "brand": {"to": "brand_type"},
            },
            "key": ["product_id"],
        },
        {
            "name": "contacts",
            "subject": "contact_points",
            "location": "${shop}/contacts.csv",
            "format": "csv",
            "columns": {
                "customer": {"to": "customer_id", "required": True},
                "mail": {"to": "email"},
                "phone": {"to": "phone"},
            },
            "key": ["customer_id"],
        },
        {
            "name": "consents",
            "subject": "consents",
            "location": "${shop}/consents.csv",
            "format": "csv",
            "columns": {
                "customer": {"to": "customer_id", "required": True},
                "channel": {"to": "channel", "required": True},
                "choice": {"to": "status", "required": True},
                "at": {"type": "timestamp", "to": "changed_at", "required": True},
            },
            "key": ["customer_id", "channel"],
        },
        {
            "name": "visits",
            "subject": "visitor_events",
            "location": "${shop}/visits.csv",
            "format": "csv",
            "columns": {
                "event": {"to": "event_id", "required": True},
                "browser": {"to": "visitor_id", "required": True},
                "kind": {"to": "event_type", "required": True},
                "at": {"type": "timestamp", "to": "happened_at", "required": True},
                "customer": {"to": "customer_id"},
                "mail": {"to": "email"},
            },
            "key": ["visitor_id", "event_id"],
        },
    ],
}


@dataclass(frozen=True)
class Shop:
    """A shop's delivery folder and a conf folder that declares it beside the product's own segments and settings."""

    folder: Path
    conf: Path

    def deliver(self, month: int) -> Path:
        """Write the sales file of a month (0 is the first).

        Months repeat a few lines of the month before, and the third books three baskets of the first on others.
        """
        path = self.folder / "sales" / f"sales-{month:03d}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _month(month)
        if month:
            lines += _month(month - 1)[:5]
        if month == 2:
            lines += _booked_on_others(_month(0))
        write_csv(path, HEADER, lines)
        return path


def open_shop(folder: Path, months: int = 3) -> Shop:
    """Make a shop with some months delivered."""
    product_conf = Path(__file__).parents[2] / "conf"
    conf = folder / "conf"
    shutil.copytree(product_conf, conf, ignore=shutil.ignore_patterns("sources", "samples"))
    (conf / "sources").mkdir()
    (conf / "sources" / "corner_shop.yml").write_text(yaml.safe_dump(SOURCE, sort_keys=False), encoding="utf-8")
    shop = Shop(folder / "delivered", conf)
    (shop.folder / "sales").mkdir(parents=True)
    for month in range(months):
        shop.deliver(month)
    write_csv(shop.folder / "products.csv", ["sku", "name", "category", "brand"], [p[:4] for p in PRODUCTS])
    # C038 never buys, and who is known from an address alone is dated by the clock of the load.
    people = [f"C{n:03d}" for n in range(CUSTOMERS) if n != 38]
    write_csv(
        shop.folder / "contacts.csv",
        ["customer", "mail", "phone"],
        [(c, f"{c.lower()}@example.com", f"+4930555{n:04d}") for n, c in enumerate(people)],
    )
    write_csv(
        shop.folder / "consents.csv",
        ["customer", "channel", "choice", "at"],
        [(c, "ads", "denied" if n % 4 == 0 else "granted", "2024-01-01 08:00:00") for n, c in enumerate(people)],
    )
    write_csv(shop.folder / "visits.csv", ["event", "browser", "kind", "at", "customer", "mail"], _visits())
    return shop


def write_csv(path: Path, header: list[str], lines: list[tuple[object, ...]]) -> None:
    """Write one CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows(lines)


def _month(month: int) -> list[tuple[object, ...]]:
    dice = random.Random(month)
    lines: list[tuple[object, ...]] = []
    for basket in range(80):
        # Low numbers come often, high ones rarely; every tenth basket is a guest's.
        customer = f"C{min(int(dice.expovariate(1 / 12)), CUSTOMERS - 1):03d}" if basket % 10 else ""
        sold = datetime.combine(FIRST_DAY, datetime.min.time()) + timedelta(
            days=30 * month + dice.randrange(30), hours=dice.randrange(7, 20), minutes=dice.randrange(60)
        )
        receipt = f"R{month:02d}{basket:04d}"
        for line in range(1, dice.randrange(2, 6)):
            sku, _, _, _, price = dice.choice(PRODUCTS)
            pieces = dice.choice([1, 1, 1, 2, 3])
            discount = "0.50" if dice.random() < 0.2 else "0.00"
            paid = f"{pieces * float(price) - float(discount):.2f}"
            lines.append(
                (receipt, line, sku, customer, dice.choice("AB"), sold.isoformat(sep=" "), pieces, paid, discount)
            )
        if basket % 25 == 24:
            returned = lines[-1]
            back = (sold + timedelta(days=2)).isoformat(sep=" ")
            lines.append((f"{receipt}X", 1, returned[2], customer, "A", back, -1, f"-{returned[7]}", "0.00"))
    lines.append((f"R{month:02d}BAD1", 1, "P01", "C001", "A", "not a time", 1, "1.00", "0.00"))
    lines.append((f"R{month:02d}BAD2", 1, "", "C001", "A", "2024-01-05 10:00:00", 1, "1.00", "0.00"))
    lines.append((f"R{month:02d}BAD3", 1, "P01", "C001", "A", "3000-01-05 10:00:00", 1, "1.00", "0.00"))
    return lines


def _booked_on_others(lines: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """A guest's basket becomes a customer's, one of a customer becomes a guest's, and one another's, a day later."""
    owners = {"R000010": "C005", "R000011": "", "R000012": "C031"}
    booked: list[tuple[object, ...]] = []
    for receipt, line, sku, _, store, sold, *rest in lines:
        if receipt in owners:
            when = datetime.fromisoformat(str(sold)) + timedelta(days=1 if receipt == "R000012" else 0)
            booked.append((receipt, line, sku, owners[str(receipt)], store, when.isoformat(sep=" "), *rest))
    return booked


def _visits() -> list[tuple[object, ...]]:
    """Eight browsers that put something into the cart in March; the even ones log in, every third one orders."""
    lines: list[tuple[object, ...]] = []
    for browser in range(8):
        day = FIRST_DAY + timedelta(days=70 + 2 * browser)
        kinds = ["visit", "page_view", "cart_add"]
        kinds += (["login"] if browser % 2 == 0 else []) + (["checkout"] if browser % 3 == 0 else [])
        for n, kind in enumerate(kinds):
            customer = f"C{browser:03d}" if kind == "login" else ""
            mail = f"b{browser}@example.com" if kind == "page_view" and browser % 2 else ""
            lines.append((n, f"b{browser}", kind, f"{day} 10:{n:02d}:00", customer, mail))
    return lines
