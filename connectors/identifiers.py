"""Identifiers as destinations match them: normalised and hashed as Spark columns.

Nothing here brings a value into Python. Digests are SHA-256 of the UTF-8 bytes, lower-case hex; hashing what a
destination normalises differently, or in another encoding, matches nobody and says nothing about it.
"""

from __future__ import annotations

from typing import Final, Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

EmailRule = Literal["plain", "google"]
PhoneRule = Literal["e164", "digits"]

_CODES: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY "
    "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
    "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR "
    "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK "
    "ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
    "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF "
    "TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES: Final = frozenset(_CODES.split())
"""ISO 3166-1 alpha-2, as of 2026."""
_EDGES = r"^[\s\p{Z}]+|[\s\p{Z}]+$"
"""Unicode white space as well: Spark's `trim` takes the space character alone."""


def normalise_email(address: Column, rule: EmailRule = "plain") -> Column:
    """Returns an e-mail address as a destination compares it; null when it cannot be one.

    Args:
        address: Any text.
        rule: `plain` removes white space and lower-cases (Meta, Microsoft, Snap, LinkedIn, ...). `google` also drops
            dots and a `+suffix` before `@gmail.com` and `@googlemail.com`, and nowhere else.

    Source: Google Data Manager API, formatting guide and google-ads-datamanager-util 0.4.0; Meta custom audiences
    guide (2026).
    """
    bare = F.lower(F.regexp_replace(address, r"[\s\p{Z}]+", ""))
    if rule == "google":
        mailbox = F.regexp_replace(F.regexp_extract(bare, r"^([^@+]*)", 1), r"\.", "")
        is_gmail = F.regexp_like(bare, F.lit(r"@(gmail|googlemail)\.com$"))
        domain = F.regexp_extract(bare, r"(@[^@]*)$", 1)
        bare = F.when(is_gmail & (F.length(mailbox) > 0), F.concat(mailbox, domain)).otherwise(bare)
    return F.when(F.regexp_like(bare, F.lit(r"^[^@]+@[^@]+$")), bare)


def normalise_phone(number: Column, rule: PhoneRule = "e164") -> Column:
    """Returns a phone number as a destination compares it; null when it holds no digit, or something that is none.

    The number must carry its country code: none is guessed, because a guess hashes to somebody else. So would a number
    without its digits of another script, or with those of an extension.

    Args:
        number: Any text.
        rule: `e164` is `+` and digits (Google, TikTok). `digits` is digits without leading zeros (Meta, Snap, Amazon).
    """
    digits = F.regexp_replace(number, r"[^0-9]", "")
    if rule == "digits":
        digits = F.regexp_replace(digits, r"^0+", "")
    written = F.concat(F.lit("+"), digits) if rule == "e164" else digits
    return F.when((F.length(digits) > 0) & ~number.rlike(r"\p{L}|[\p{Nd}&&[^0-9]]"), written)


def normalise_name(name: Column) -> Column:
    """Returns a given or family name lower-cased, without white space around it; punctuation and accents stay.

    Google's reference says names carry no punctuation and its own formatter keeps it; we do as the formatter does.
    """
    return _known(F.lower(F.regexp_replace(name, _EDGES, "")))


def meta_name(name: Column) -> Column:
    """Returns a name as Meta compares it: lower-case, no punctuation; spaces within it and other scripts stay.

    Meta's own SDK drops letters outside ASCII, which its guide allows; we keep them.
    """
    return _known(F.regexp_replace(F.lower(F.regexp_replace(name, r"[\p{P}\p{S}]+", "")), _EDGES, ""))


def meta_city(city: Column) -> Column:
    """Returns a city, state or street lower-cased, without spaces and punctuation (Meta, Snap, Amazon)."""
    return _known(F.lower(F.regexp_replace(city, r"[\s\p{Z}\p{P}\p{S}]+", "")))


def meta_zip(code: Column, country: Column) -> Column:
    """Returns a postal code lower-cased, without spaces and dashes; of a US code the first five digits."""
    bare = F.lower(F.regexp_replace(code, r"[\s\p{Z}\-]+", ""))
    return _known(F.when(normalise_country(country) == F.lit("US"), F.substring(bare, 1, 5)).otherwise(bare))


def normalise_country(country: Column) -> Column:
    """Returns an ISO 3166 alpha-2 country code in upper case; it is sent as it is, not hashed."""
    return _known(F.upper(F.regexp_replace(country, _EDGES, "")))


def normalise_postal_code(code: Column) -> Column:
    """Returns a postal code without white space around it; it is sent as it is, not hashed."""
    return _known(F.regexp_replace(code, _EDGES, ""))


def hash_identifier(normalised: Column) -> Column:
    """Returns the SHA-256 of the UTF-8 bytes as 64 lower-case hex digits; null stays null."""
    return F.sha2(F.encode(normalised, "UTF-8"), 256)


def neutralise_cell(text: Column) -> Column:
    """Returns text a spreadsheet will not run: a leading `= + - @`, tab or line break gets an apostrophe before it.

    Source: OWASP, CSV injection.
    """
    return F.when(F.regexp_like(text, F.lit(r"^[=+\-@\t\r\n]")), F.concat(F.lit("'"), text)).otherwise(text)


def _known(text: Column) -> Column:
    return F.when(F.length(text) > 0, text)
