"""`conf/finance.yml`: channels, statuses, fees and limits, typed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lakehouse.errors import SettingsError
from lakehouse.settings import read_mapping


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Channel(_Declared):
    """A way of selling. Lines of a channel not listed keep its code; it then has the code as its name."""

    id: str
    name: str
    is_online: bool


class Status(_Declared):
    """A state of a line, a settlement or an account."""

    id: str
    domain: Literal["transaction", "settlement", "account"]
    name: str
    description: str
    is_final: bool


class Fee(_Declared):
    """What an acquirer keeps of settled sales: `rate` of the amount and a fixed sum per settlement."""

    channel: str
    valid_from: date
    valid_to: date | None = None
    rate: Decimal
    fixed_amount: Decimal
    currency: str


class Limit(_Declared):
    """A bound some check uses."""

    id: str
    name: str
    applies_to: Literal["transaction_line", "settlement"]
    maximum: Decimal


class Finance(_Declared):
    """Everything `conf/finance.yml` says."""

    is_sample: bool
    label: str | None = None
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
            ("fees", [f"{f.channel} from {f.valid_from}" for f in self.fees]),
        ):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} is there twice")
        return self

    def limit(self, limit_id: str) -> Decimal:
        """The maximum of a limit."""
        return next(x.maximum for x in self.limits if x.id == limit_id)


def load_finance(conf_dir: Path) -> Finance:
    """Read `conf/finance.yml`.

    Raises:
        SettingsError: naming every problem of the file.
    """
    path = conf_dir / "finance.yml"
    try:
        return Finance.model_validate(read_mapping(path))
    except OSError as e:
        raise SettingsError(f"{path} cannot be read: {e.strerror}.") from None
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors())
        raise SettingsError(f"{path}: {problems}") from None
