"""What every destination is: its settings, the audience it is handed, and what it says it did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pyspark.sql import Column

from connectors.engine import Connector as BatchConnector
from connectors.http import check_url
from connectors.identifiers import COUNTRIES, EmailRule, PhoneRule, hash_identifier, normalise_email, normalise_phone
from connectors.pace import Clock

if TYPE_CHECKING:
    from connectors.audience import Audience

ConsentChannel = Literal["email", "sms", "phone", "post", "ads"]
Identifier = Literal["email", "phone"]
Content = str | int | float | bool


class Holdout(BaseModel):
    """Members of a segment who are kept back, so that those who were reached have something to be compared with.

    Attributes:
        share: Part of the segment kept back.
        salt: Names the draw; another salt keeps others back, the same one always the same people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, lt=1)
    salt: str = Field(min_length=1)


class DestinationConfig(BaseModel):
    """Settings every destination has.

    Attributes:
        name: Lower-case identifier; the stem of its file.
        description: What it is for.
        is_active: Whether segments leave for it.
        segments: Segments that leave for it; empty means every active one.
        consent: Channel a member must have agreed to. Advertising unless said otherwise: hashed identifiers leave for
            matching, which is what that consent is about.
        identifiers: What members are matched by; a member with none of them is left out.
        email_rule: How the destination normalises addresses before it hashes.
        phone_rule: How the destination normalises phone numbers before it hashes.
        websites: Retailers it belongs to; empty means all.
        regions: ISO 3166 countries whose residents may be sent there; empty means everywhere. With regions given,
            somebody whose country is unknown stays out.
        holdouts: Members kept back, by segment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    description: str = ""
    is_active: bool = True
    segments: tuple[str, ...] = ()
    consent: ConsentChannel = "ads"
    identifiers: tuple[Identifier, ...] = Field(("email", "phone"), min_length=1)
    email_rule: EmailRule = "plain"
    phone_rule: PhoneRule = "e164"
    websites: tuple[str, ...] = ()
    regions: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = ()
    holdouts: dict[str, Holdout] = Field(default_factory=dict)

    @field_validator("regions")
    @classmethod
    def _are_countries(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(regions) - COUNTRIES):
            raise ValueError(f"{', '.join(unknown)}: no ISO 3166 code of a country (the United Kingdom is GB)")
        return regions

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """What a member is matched by there, as expressions; null where it cannot be made.

        Args:
            contact: Raw columns by name: member_id, customer_id, email, phone, first_name, last_name, postal_code,
                city, country.
        """
        made: dict[str, Column] = {}
        for identifier in self.identifiers:
            if identifier == "email":
                made["email_sha256"] = hash_identifier(normalise_email(contact["email"], self.email_rule))
            else:
                made["phone_sha256"] = hash_identifier(normalise_phone(contact["phone"], self.phone_rule))
        return made

    def details(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """Values that go with an addition and are stored nowhere; none but for tools of the retailer's own."""
        return {}


class BatchDestination(DestinationConfig):
    """Settings of every destination that takes additions and removals in batches.

    Attributes:
        base_url: Address of the service; https, or http to this machine.
        audiences: Id of the audience there, by segment; it also says which segments leave.
        new_audiences: Name of the audience there, by segment, where the id is not known: one of that name is used, or
            made when there is none. It says which segments leave, too.
        max_removed_share: Part of the people there that may leave in one run before it asks.
        renew_days: Days after which a member is sent again, so that a limited membership does not lapse.
        settle_seconds: How long a run waits for jobs of the destination's to end; the next run asks again.
        attempts: Requests per batch at most in one run.
        content: Variables that go along with additions, by segment; from the segment's campaign.
    """

    takes_content: ClassVar[bool] = False
    """Whether variables go along; else they are of no use to the destination."""
    makes_audiences: ClassVar[bool] = False
    """Whether an audience can be found by its name and made."""
    keeps_places_apart: ClassVar[bool] = False
    """Whether each segment of each retailer is an audience of its own; else those of one id are one audience."""

    base_url: str = ""
    audiences: dict[str, str] = Field(default_factory=dict)
    new_audiences: dict[str, Annotated[str, Field(min_length=1, max_length=100)]] = Field(default_factory=dict)
    max_removed_share: float = Field(0.3, ge=0, le=1)
    renew_days: int | None = Field(None, ge=1)
    settle_seconds: float = Field(0.0, ge=0)
    attempts: int = Field(5, ge=1, le=20)
    content: dict[str, dict[str, Content]] = Field(default_factory=dict)

    @field_validator("content")
    @classmethod
    def _is_taken(cls, content: dict[str, dict[str, Content]]) -> dict[str, dict[str, Content]]:
        if content and not cls.takes_content:
            raise ValueError("this kind of destination takes no content")
        return content

    @field_validator("new_audiences")
    @classmethod
    def _are_made(cls, new: dict[str, str]) -> dict[str, str]:
        if new and not cls.makes_audiences:
            raise ValueError("this kind of destination makes no audiences; put ids under audiences")
        return new

    @model_validator(mode="after")
    def _has_one_audience_each(self) -> Self:
        if both := sorted(set(self.audiences) & set(self.new_audiences)):
            raise ValueError(f"{', '.join(both)}: either an id under audiences or a name under new_audiences")
        return self

    @field_validator("base_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        return check_url(url) if url else url

    @property
    def chosen_segments(self) -> tuple[str, ...]:
        """Segments that leave for it; empty means every active one."""
        return tuple(sorted({*self.segments, *self.audiences, *self.new_audiences}))

    def connect(self, clock: Clock) -> BatchConnector:
        """Returns the connector; nothing is sent yet."""
        raise NotImplementedError

    @property
    def mapping(self) -> str:
        """Fingerprint of what decides how a row is sent; rows refused under another mapping are tried again."""
        said = repr((self.identifiers, self.email_rule, self.phone_rule, sorted(self.audiences.items())))
        return hashlib.sha256(said.encode()).hexdigest()[:16]


class OwnDestination(BatchDestination):
    """Settings of a service or table of the retailer's own, where each segment of each retailer is kept apart.

    Attributes:
        sends_customer_id: Send the customer number too.
    """

    keeps_places_apart: ClassVar[bool] = True
    sends_customer_id: bool = False

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The member's stable id, digests, and the customer number when asked for."""
        own = {"customer_id": contact["customer_id"]} if self.sends_customer_id else {}
        return {"member_id": contact["member_id"], **own, **super().keys(contact)}


class FileDestination(DestinationConfig):
    """Files in a folder: a retailer's own bucket, or what is uploaded by hand.

    Attributes:
        kind: Tells it from other destinations.
        folder: Where to, relative to the data directory; where the settings put exports when left out.
        location: Where to instead: a place Spark can write to, such as `s3a://bucket/prefix`, `abfss://...`, `gs://...`
            or `file:///...`. Spark must have the store's client and credentials.
        formats: What to write, for each segment.
        max_rows_per_file: Rows from which on a segment is cut into parts.
    """

    kind: Literal["files"]
    folder: Path | None = None
    location: str | None = Field(None, pattern=r"^(s3|s3a|abfss|gs|dbfs|file)://[^?#@]+$|^abfss://[^?#]+$")
    formats: tuple[Literal["csv", "parquet", "jsonl"], ...] = Field(("csv", "parquet"), min_length=1)
    max_rows_per_file: int = Field(1_000_000, ge=1)

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if self.folder and ".." in self.folder.parts:
            raise ValueError("folder must not contain '..'")
        return self


@dataclass(frozen=True)
class ExportedSegment:
    """A segment as its definition is published.

    Attributes:
        segment_id: Identifier.
        name: Name people read.
        version: Content hash of the definition.
    """

    segment_id: str
    name: str
    version: str


@dataclass(frozen=True)
class ExportedFile:
    """One file that left.

    Attributes:
        path: Where it is: a path here, or an address Spark reads.
        format: csv or parquet.
        rows: Members in it.
        bytes: Size.
        sha256: Digest of its bytes, hex.
    """

    path: Path | str
    format: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Export:
    """One segment of one website at a destination, as its manifest says.

    Attributes:
        destination: Name of the destination.
        segment: What left.
        consent: Channel whose consent was asked for.
        website_id: Retailer.
        as_of: Day of the membership.
        manifest: Where the manifest is.
        files: The files, in order.
        members: Members of the segment.
        eligible: Of them, those who left.
        excluded: Members left out, by reason.
        is_sample: Whether contact details or consent of any member come from a labelled sample.
        is_new: False when the same content was there already and was left alone.
        run_id: Run that wrote the content.
        exported_at: When that run started, UTC.
    """

    destination: str
    segment: ExportedSegment
    consent: ConsentChannel
    website_id: str
    as_of: date
    manifest: Path | str
    files: tuple[ExportedFile, ...]
    members: int
    eligible: int
    excluded: Mapping[str, int]
    is_sample: bool
    is_new: bool
    run_id: str
    exported_at: datetime


class Connector(Protocol):
    """A destination that is handed an audience as a whole.

    The audience is made by `connectors.audience.plan_audience`, so it holds digests and a reason for everyone left
    out; such a connector never sees an address or a number.
    """

    config: DestinationConfig

    def deliver(
        self,
        audience: Audience,
        segments: Sequence[ExportedSegment],
        *,
        as_of: date,
        run_id: str,
        started_at: datetime,
    ) -> tuple[Export, ...]:
        """Bring the destination to the audience; doing it twice changes nothing."""
        ...
