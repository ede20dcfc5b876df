"""Numbers and names as a reader expects them: `$4.6M`, `+12 %`, `Won back`."""

from __future__ import annotations

from datetime import date
from typing import Final

NONE: Final = "–"
MINUS: Final = "−"

_SYMBOLS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "CHF": "CHF ", "AUD": "A$", "CAD": "C$"}
_FEATURES: Final = {
    "recency_days": "Days since last order",
    "frequency": "Orders",
    "monetary_net": "Spend",
    "monetary_gross": "Spend before returns",
    "basket_value_mean": "Value of an order",
    "basket_size_mean": "Items per order",
    "inter_purchase_days_mean": "Days between orders",
    "tenure_days": "Days since first order",
    "distinct_categories": "Categories bought",
    "discount_share": "Share of discounts",
    "coupon_share": "Share of coupons",
    "private_label_share": "Share of private label",
    "weekend_share": "Orders at weekends",
    "spend_90d": "Spend of 90 days",
    "spend_365d": "Spend of a year",
    "visits_90d": "Orders of 90 days",
}
_SMALL_WORDS: Final = frozenset({"and", "of", "to", "the", "in", "on", "a", "an", "not", "but"})


def compact(value: float | None) -> str:
    """Three digits that matter: `801`, `12,345`, `1.47M`."""
    if value is None:
        return NONE
    size, sign = abs(value), MINUS if value < 0 else ""
    for limit, unit in ((999_500_000, "B"), (999_500, "M"), (99_950, "K")):
        if size >= limit:
            scaled = size / {"B": 1e9, "M": 1e6, "K": 1e3}[unit]
            return f"{sign}{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"
    return f"{sign}{size:,.0f}"


def tally(value: float | None) -> str:
    """Every digit while they fit on a card, else three that matter."""
    return compact(value) if value is not None and abs(value) >= 10_000_000 else whole(value)


def whole(value: float | None) -> str:
    """Every digit: `1,469,307`."""
    return NONE if value is None else f"{value:z,.0f}".replace("-", MINUS)


def money(value: float | None, currency: str) -> str:
    """A compact amount: `$4.61M`, `$28.40`."""
    if value is None:
        return NONE
    symbol, sign, size = symbol_of(currency), MINUS if value < 0 else "", abs(value)
    return f"{sign}{symbol}{size:,.2f}" if size < 100 else f"{sign}{symbol}{compact(size)}"


def money_in_full(value: float | None, currency: str) -> str:
    """An amount to the cent: `$4,605,116.92`."""
    if value is None:
        return NONE
    return f"{MINUS if value < 0 else ''}{symbol_of(currency)}{abs(value):,.2f}"


def symbol_of(currency: str) -> str:
    """The sign of a currency, or its code and a space."""
    return _SYMBOLS.get(currency, f"{currency} ")


def percent(part: float | None, digits: int | None = None) -> str:
    """A part of one as per cent; one digit below ten per cent unless told, and `<0.1%` for less than can be shown."""
    if part is None:
        return NONE
    shown = part * 100
    if digits is None and 0 < shown < 0.05:
        return "<0.1%"
    places = digits if digits is not None else (1 if 0 < abs(shown) < 9.95 else 0)
    return f"{shown:z,.{places}f}%".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A whole difference with its sign: `+31`, `−4`, `±0`."""
    if value is None:
        return NONE
    return "±0" if round(value) == 0 else f"{'+' if value > 0 else MINUS}{abs(value):,.0f}"


def signed_percent(part: float | None) -> str:
    """A relative change with its sign: `+3.2%`."""
    if part is None:
        return NONE
    return "±0%" if abs(part) < 0.0005 else f"{'+' if part > 0 else MINUS}{percent(abs(part))}"


def deviation(value: float, digits: int = 1) -> str:
    """A difference with its sign: `+1.2`, `−0.8`; `0.0` has none."""
    shown = f"{value:+z,.{digits}f}"
    return (shown if float(shown.replace(",", "")) else shown[1:]).replace("-", MINUS)


def mean(value: float) -> str:
    """A mean of any size: `0.34`, `28.4`, `12,345`."""
    return f"{value:z,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}".replace("-", MINUS)


def multiple(value: float) -> str:
    """How many times as much: `2.5×`, `<0.1×`."""
    return "<0.1×" if 0 < value < 0.05 else f"{value:.1f}×"


def seconds(value: float) -> str:
    """A duration: `0.4 s`, `48 s`, `2 min 05 s`."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 59.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def clock(value: float) -> str:
    """A time on an axis: `0`, `30 s`, `1 min`, `1 min 30 s`."""
    minutes, rest = divmod(value, 60)
    said = [f"{minutes:.0f} min"] if minutes else []
    return " ".join([*said, f"{rest:g} s"] if rest else said) or "0"


def day(value: date | None) -> str:
    """A day in words: `1 January 2018`."""
    return NONE if value is None else f"{value.day} {value:%B %Y}"


def month(value: date) -> str:
    """A month, short: `Jan 2017`."""
    return f"{value:%b %Y}"


def title(name: str | None) -> str:
    """A column value as a heading: `won_back` becomes `Won back`; a name already written for people stays."""
    if not name:
        return NONE
    if not (name.islower() or "_" in name):
        return name
    words = name.replace("_", " ").split()
    return " ".join([words[0].capitalize(), *words[1:]]) if words else name


def trait(feature: str) -> str:
    """A feature as a marketer would call it."""
    return _FEATURES.get(feature) or title(feature)


def name_of(merchant_id: str) -> str:
    """An identifier as a name: `complete_journey` becomes `Complete Journey`, `online_retail_ii` `Online Retail II`."""
    parts = merchant_id.replace("_", " ").replace("-", " ").split()
    return " ".join(_name_part(p, i) for i, p in enumerate(parts)) or merchant_id


def _name_part(word: str, position: int) -> str:
    if word in _SMALL_WORDS and position:
        return word
    return word.upper() if set(word) <= set("ivx") else word[:1].upper() + word[1:]


def several(count: float, one: str, many: str | None = None) -> str:
    """A count with its noun: `1 order`, `12 orders`."""
    return f"{whole(count)} {one if round(count) == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """Names as a sentence part: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def sentence(text: str) -> str:
    """A description as a sentence: first letter upper case, a full stop at its end."""
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""
