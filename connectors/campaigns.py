"""Campaigns: which segment goes where, who is kept back to compare with, what is said, when, and how it is judged.

A campaign is a file in conf/campaigns. While it is active its holdout and its content are part of its destination, so
the audience, the ledger and the export of that destination know them without being told again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.base import BatchDestination, Content, DestinationConfig, Holdout
from connectors.declared import load_declared
from connectors.destinations import load_destinations
from lakehouse.errors import SettingsError, suggest

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = get_args(Weekday)

NOT_DUE: Final = "not_due: "
"""How the reason begins for which nothing is sent of a campaign that waits for its day."""

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Schedule(BaseModel):
    """Days on which a campaign's audience follows its segment; on others nothing but withdrawals is sent.

    Attributes:
        starts_on: First day; open when not given.
        ends_on: Last day; open when not given.
        weekdays: Days of the week; all when none is given.
    """

    model_config = _STRICT

    starts_on: date | None = None
    ends_on: date | None = None
    weekdays: tuple[Weekday, ...] = ()

    @model_validator(mode="after")
    def _is_a_time(self) -> Self:
        if self.starts_on and self.ends_on and self.ends_on < self.starts_on:
            raise ValueError("ends_on is before starts_on")
        return self

    def why_not(self, day: date) -> str | None:
        """Returns why nothing is due on a day, None when it is."""
        if self.starts_on and day < self.starts_on:
            return f"{NOT_DUE}starts on {self.starts_on}"
        if self.ends_on and day > self.ends_on:
            return f"{NOT_DUE}ended on {self.ends_on}"
        if self.weekdays and WEEKDAYS[day.weekday()] not in self.weekdays:
            return f"{NOT_DUE}runs on {', '.join(self.weekdays)}"
        return None


class Lookalike(BaseModel):
    """Customers who resemble a segment; made by `segmentation campaigns prepare`, and again by each call of it.

    Attributes:
        seed: The segment to resemble; nobody of it is in the audience.
        merchant: Retailer.
        size: Customers in the audience, or
        share: part of the candidates, or
        min_score: everyone with at least this score.
        leave_out: Segments nobody of may be in it.
        without: Categories that define the seed and are not looked at.
    """

    model_config = _STRICT

    seed: str
    merchant: str
    size: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0, le=1)
    min_score: float | None = Field(None, gt=0, le=1)
    leave_out: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if sum(v is not None for v in (self.size, self.share, self.min_score)) != 1:
            raise ValueError("give one of size, share and min_score")
        return self


class Campaign(BaseModel):
    """One campaign.

    Attributes:
        name: Lower-case identifier; the stem of its file. A campaign that has begun keeps its holdout: another one is
            another campaign.
        description: What it is for.
        is_active: Whether it runs.
        segment: Segment that is addressed, or
        lookalike: the customers who resemble one.
        destination: Destination, as in conf/destinations.
        holdout: Members kept back, with whom those addressed are compared.
        content: Variables of what is said. They go along where the destination takes them; elsewhere they brief who
            makes the advertisement.
        schedule: When.
        outcome_days: Days from a person's first day in the campaign whose purchases count.
    """

    model_config = _STRICT

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    description: str = ""
    is_active: bool = True
    segment: str | None = None
    lookalike: Lookalike | None = None
    destination: str
    holdout: Holdout
    content: dict[str, Content] = Field(default_factory=dict)
    schedule: Schedule = Schedule()
    outcome_days: int = Field(28, ge=1, le=365)

    @model_validator(mode="after")
    def _has_one_audience(self) -> Self:
        if (self.segment is None) == (self.lookalike is None):
            raise ValueError("give one of segment and lookalike")
        return self

    @property
    def segment_id(self) -> str:
        """The segment that is addressed."""
        return self.segment or f"like_{self.lookalike.seed}"  # type: ignore[union-attr]


def load_campaigns(conf_dir: Path) -> dict[str, Campaign]:
    """Returns the campaigns of conf/campaigns by name.

    Raises:
        SettingsError: naming every unknown, missing or bad value of every file at once.
    """
    return load_declared(conf_dir / "campaigns", "campaigns", lambda _: Campaign)


def load_activation(
    conf_dir: Path, previewed: Collection[str] = ()
) -> tuple[tuple[DestinationConfig, ...], tuple[Campaign, ...]]:
    """Returns the destinations, with what active campaigns say of them, and the active campaigns.

    Args:
        conf_dir: Holds the folders destinations and campaigns.
        previewed: Destinations to take for active, with their campaigns: for a look before they are.

    Raises:
        SettingsError: a file is wrong, a campaign's destination does not exist or is not active, or two say different
            things about one segment at one destination.
    """
    destinations = [
        d.model_copy(update={"is_active": True}) if d.name in previewed else d
        for d in load_destinations(conf_dir / "destinations")
    ]
    active = tuple(c for c in load_campaigns(conf_dir).values() if c.is_active or c.destination in previewed)
    return apply_campaigns(destinations, active), active


def apply_campaigns(
    destinations: Iterable[DestinationConfig], campaigns: Iterable[Campaign]
) -> tuple[DestinationConfig, ...]:
    """Returns the destinations with holdout and content of active campaigns; see `load_activation`."""
    made = {d.name: d for d in destinations}
    problems = []
    addressed: dict[tuple[str, str], str] = {}
    for c in campaigns:
        destination, place = made.get(c.destination), (c.destination, c.segment_id)
        if destination is None or not destination.is_active:
            what = "is not active" if destination else f"does not exist.{suggest(c.destination, made)}"
            problems.append(f"{c.name}: destination '{c.destination}' {what}")
        elif place in addressed:
            problems.append(f"{c.name}: {addressed[place]} sends '{c.segment_id}' to '{c.destination}' too")
        elif c.segment_id in destination.holdouts:
            problems.append(f"{c.name}: '{c.destination}' has a holdout of '{c.segment_id}' itself; remove it there")
        else:
            addressed[place] = c.name
            made[c.destination] = _with(destination, c)
    if problems:
        raise SettingsError("\n  ".join([f"{len(problems)} problem(s) in campaigns:", *problems]))
    return tuple(made.values())


def _with(destination: DestinationConfig, campaign: Campaign) -> DestinationConfig:
    """A destination that a campaign's segment leaves for, unless it takes every segment anyway."""
    segment = campaign.segment_id
    said: dict[str, object] = {"holdouts": {**destination.holdouts, segment: campaign.holdout}}
    is_chosen = segment in destination.segments
    if isinstance(destination, BatchDestination):
        is_chosen |= segment in destination.audiences
        if destination.takes_content:
            said["content"] = {**destination.content, segment: campaign.content}
        takes_all = not destination.chosen_segments
    else:
        takes_all = not destination.segments
    if not is_chosen and not takes_all:
        said["segments"] = (*destination.segments, segment)
    return destination.model_copy(update=said)


def not_due(campaigns: Iterable[Campaign], destination: str, day: date) -> Mapping[str, str]:
    """Returns why nothing is due on a day, by segment, for the campaigns of a destination that wait."""
    waiting = {c.segment_id: c.schedule.why_not(day) for c in campaigns if c.destination == destination}
    return {segment: why for segment, why in waiting.items() if why}
