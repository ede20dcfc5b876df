"""`conf/finance.yml`: channels, statuses, fees and limits, typed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from lakehouse.errors import suggest
from lakehouse.strict import Strict, read_model
from lakehouse.yaml_file import yaml_named

LIMITS = dict.fromkeys(("line_amount", "line_quantity", "settlement_difference"), 10**12)
"""The bounds that checks use, and the most each may be: lines hold 18 digits, of which sums need some as well."""

STATUSES = {
    "transaction": ("posted", "returned", "cancelled", "adjusted"),
    "settlement": ("matched", "short", "over", "unsettled", "unsold"),
    "account": ("open",),
}
"""The states that facts are in, by domain; each is described."""

ChannelCode = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1)]
"""A channel as lines and settlements name it: they are read in lower case."""


class Channel(Strict):
    """A way of selling. Lines of a channel not listed keep its code; it then has the code as its name."""

    id: ChannelCode
    name: str
    is_online: bool


class Status(Strict):
    """A state of a line, a settlement or an account."""

    id: str
    domain: Literal["transaction", "settlement", "account"]
    name: str
    description: str
    is_final: bool


class Fee(Strict):
    """What an acquirer keeps of settled sales: `rate` of the amount and a fixed sum per settlement."""

    channel: ChannelCode
    valid_from: date
    valid_to: date | None = None
    rate: Annotated[Decimal, Field(ge=0, lt=1)]
    fixed_amount: Decimal
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError(f"valid_to {self.valid_to} is the day after the last, so it lies after {self.valid_from}")
        return self

    def meets(self, other: Fee) -> bool:
        """Whether some day of a channel and currency has both fees."""
        return (
            (self.channel, self.currency) == (other.channel, other.currency)
            and (other.valid_to is None or self.valid_from < other.valid_to)
            and (self.valid_to is None or other.valid_from < self.valid_to)
        )


class Limit(Strict):
    """A bound some check uses."""

    id: str
    name: str
    applies_to: Literal["transaction_line", "settlement"]
    maximum: Annotated[Decimal, Field(ge=0)]


class Finance(Strict):
    """Everything `conf/finance.yml` says."""

    is_sample: bool
    channels: tuple[Channel, ...]
    statuses: tuple[Status, ...]
    fees: tuple[Fee, ...]
    limits: tuple[Limit, ...]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Finance:
        for what, ids in (
            ("channels", [c.id for c in self.channels]),
            ("statuses", [s.id for s in self.statuses]),
            ("limits", [x.id for x in self.limits]),
        ):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} is there twice")
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if problems := [*self._status_problems(), *self._fee_problems(), *self._limit_problems()]:
            raise ValueError(" | ".join(problems))
        return self

    def _status_problems(self) -> Iterator[str]:
        found = [(s.domain, s.id) for s in self.statuses]
        for domain, ids in STATUSES.items():
            yield from (f"statuses: '{i}' of domain {domain} is missing" for i in ids if (domain, i) not in found)

    def _fee_problems(self) -> Iterator[str]:
        """A settlement is priced once, so a day of a channel and currency has one fee at most."""
        channels = [c.id for c in self.channels]
        for f in self.fees:
            if f.channel not in channels:
                yield f"fees: channel '{f.channel}' is not among the channels.{suggest(f.channel, channels)}"
        for one, other in combinations(self.fees, 2):
            if one.meets(other):
                yield (
                    f"fees: {one.channel} in {one.currency} from {one.valid_from} and from {other.valid_from} overlap; "
                    "give the earlier one a valid_to"
                )

    def _limit_problems(self) -> Iterator[str]:
        """A bound that no check knows would do nothing, a check needs its bound, and columns have an end."""
        found = [x.id for x in self.limits]
        yield from (f"limits: '{i}' bounds nothing.{suggest(i, LIMITS)}" for i in found if i not in LIMITS)
        yield from (f"limits: '{i}' is missing" for i in LIMITS if i not in found)
        for x in self.limits:
            if x.id in LIMITS and x.maximum > LIMITS[x.id]:
                yield f"limits: '{x.id}' has a maximum of {x.maximum:,f}; it can be {LIMITS[x.id]:,} at most"

    def limit(self, limit_id: str) -> Decimal:
        """The maximum of a limit."""
        return next(x.maximum for x in self.limits if x.id == limit_id)


def load_finance(conf_dir: Path) -> Finance:
    """Read `conf/finance.yml`.

    Raises:
        SettingsError: naming every problem of the file.
    """
    return read_model(yaml_named(conf_dir, "finance"), Finance)
